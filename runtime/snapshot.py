"""What a pool is doing, as typed data: for logs, for tests, and inside errors."""

from __future__ import annotations

import msgspec

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
