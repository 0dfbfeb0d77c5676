"""What a pool is doing, as typed data: for logs, for tests, and inside errors."""

from __future__ import annotations

import msgspec

from remuda.bridge.page import Report
from remuda.statemachines.errors import WorkerDeath

__all__ = ["PoolSnapshot", "WorkerSnapshot"]


class WorkerSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One worker."""

    slot: int
    generation: int
    kind: str
    """"base", "overflow" or "spare"."""
    state: str
    pid: int | None
    """None while its process is being started."""
    calls_served: int
    failures: int
    """Failed health checks and implicating errors in a row."""
    command: str | None
    """The command it is running, None if it runs none."""
    seconds_in_state: float
    rss: int | None = None
    """Bytes of memory that it has, or None where the system does not say. Also None in the snapshot
    that an error carries: of those, hundreds may be made in a second."""
    cpu: float | None = None
    """Seconds of CPU time that it has used, or None likewise."""
    phase: str | None = None
    """What its process was doing when it last said so: "booting", "importing", "setting up", "idle", "running",
    "answering", "checking" or "tearing down"; None while there is no process."""
    silent_for: float | None = None
    """Seconds since its last sign of life: a change of phase, or a call of `remuda.progress`."""
    progress: Report | None = None
    """What the running call has last told of itself by `remuda.progress`: done, total, note."""


class PoolSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One pool, at one moment."""

    name: str
    state: str
    breaker: str
    workers: tuple[WorkerSnapshot, ...]
    slots: dict[str, int]
    """How many slots are in which state."""
    waiting: int
    """Callers waiting for a worker."""
    in_flight: int
    """Calls and checkouts without an outcome, waiting ones included."""
    sessions: int
    """Sessions with a preferred worker."""
    restart_tokens: float
    """Restarts that may follow at once."""
    ended: dict[str, int]
    """Calls and checkouts that have ended, by verdict."""
    last_death: WorkerDeath | None
    """The last worker that the pool had not ended itself."""
    template_pid: int | None
    """The process that workers are forked from; None if they are spawned, or none is ready."""

    def __str__(self) -> str:
        by_state: dict[str, int] = {}
        for worker in self.workers:
            by_state[worker.state] = by_state.get(worker.state, 0) + 1
        workers = ", ".join(f"{count} {state}" for state, count in sorted(by_state.items())) or "none"
        return f"pool {self.name!r} {self.state}: workers: {workers}; {self.waiting} waiting; breaker {self.breaker}"
