"""The things that have a lifecycle, with the facts that decide about them.

Each is one object for one life: a `Worker` is one process, a `Call` one request, and neither is
ever used again. That is what makes late events harmless. A notice about a worker carries the
worker itself, and the worker knows that it is over; there is no number that a successor could have
inherited.

Identity is the object's own: none of these defines equality.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from remuda.statemachines.breaker import Permit
from remuda.statemachines.call import CALL, CallState
from remuda.statemachines.lifecycle import Step, Subject
from remuda.statemachines.pool import POOL, PoolState
from remuda.statemachines.slot import SLOT, SlotState
from remuda.statemachines.worker import WORKER, WorkerState

__all__ = ["Call", "Observer", "Pool", "Rung", "Slot", "SlotKind", "Worker"]

Observer = Callable[[Subject[Any], Step], None]


class Call(Subject[CallState]):
    """One request, from the moment it is made to its one outcome.

    A checkout is a call whose body runs in the application: it waits in the same lanes, takes a
    worker in the same way and holds it as `running` until it is given back. Calls made on a worker
    that was checked out carry that lease; they never wait.
    """

    __slots__ = (
        "alarm",
        "attempts",
        "deadline",
        "due",
        "handovers",
        "id",
        "idempotent",
        "interrupt",
        "is_lease",
        "lease",
        "permit",
        "request",
        "session",
        "worker",
    )

    def __init__(
        self,
        id: int,
        *,
        now: float,
        deadline: float = math.inf,
        session: str | None = None,
        idempotent: bool = False,
        interrupt: bool = False,
        is_lease: bool = False,
        lease: Call | None = None,
        request: Any = None,
        history: int = 16,
    ) -> None:
        super().__init__(CALL, now=now, history=history)
        self.id = id
        self.deadline = deadline
        self.session = session
        self.idempotent = idempotent
        self.interrupt = interrupt
        """Whether its worker is told to stop, and not killed, when its time is over or its caller leaves."""
        self.is_lease = is_lease
        self.request = request
        """The runtime's own: what to send and whom to tell. The core never looks at it."""
        self.lease = lease
        """The checkout on whose worker it runs."""
        self.worker: Worker | None = None
        self.permit: Permit | None = None
        self.attempts = 0
        """How often it is known to have begun."""
        self.handovers = 0
        """How often it was taken back from a worker that died before beginning it."""
        self.alarm = 0
        self.due = math.inf

    def __repr__(self) -> str:
        return f"<{'lease' if self.is_lease else 'call'} {self.id} {self.state}>"


class Rung(StrEnum):
    """The stop ladder: ask by frame, then SIGTERM, then SIGKILL, each to the whole group."""

    ASK = "ask"
    TERM = "term"
    KILL = "kill"


class Worker(Subject[WorkerState]):
    """One worker process: one generation of its slot."""

    __slots__ = (
        "alarm",
        "call",
        "cause",
        "checks",
        "due",
        "failure_limit",
        "failures",
        "generation",
        "interrupted",
        "last_active",
        "occupant",
        "on_purpose",
        "rung",
        "served",
        "set_up",
        "slot",
        "violation",
        "was_ready",
    )

    def __init__(self, slot: Slot, generation: int, failure_limit: int, *, now: float, history: int) -> None:
        super().__init__(WORKER, now=now, history=history)
        self.slot = slot
        self.generation = generation
        self.failure_limit = failure_limit
        self.failures = 0
        """Failed checks and implicating errors in a row: one counter for both."""
        self.occupant: Call | None = None
        """The call or lease that has this worker."""
        self.call: Call | None = None
        """The call that it was sent and whose end is not known yet."""
        self.interrupted: Call | None = None
        """The call that it was told to stop, until it has answered. It is over for its caller."""
        self.served = 0
        """Calls it has answered."""
        self.checks = 0
        """Health checks begun; the number of the current one."""
        self.last_active = now
        self.set_up = False
        """Whether it is known to be past its setup, and repeats the journal."""
        self.was_ready = False
        self.on_purpose = False
        """Whether the pool ended it (not: whether it ended well)."""
        self.violation = False
        """Whether it broke the rules of the channel."""
        self.cause = ""
        """Why it was ended, in words, as far as the pool knows."""
        self.rung: Rung | None = None
        self.alarm = 0
        self.due = math.inf

    @property
    def at_failure_limit(self) -> bool:
        return self.failures >= self.failure_limit

    @property
    def was_useful(self) -> bool:
        """Whether its slot may have the next one at once: it did something, or was not to do any more."""
        return self.was_ready and (self.served > 0 or self.on_purpose)

    def __repr__(self) -> str:
        return f"<worker {self.slot.index}.{self.generation} {self.state}>"


class SlotKind(StrEnum):
    """What a slot is there for."""

    BASE = "base"
    OVERFLOW = "overflow"
    """Beyond `max_workers`, for a peak."""
    SPARE = "spare"
    """Ready and without work, until a base slot loses its worker: then the two change kinds."""


class Slot(Subject[SlotState]):
    """A place in the pool. Its workers come and go; `generation` counts them."""

    __slots__ = ("alarm", "attempts", "due", "generation", "index", "kind", "worker")

    def __init__(self, index: int, kind: SlotKind, *, now: float, history: int) -> None:
        super().__init__(SLOT, now=now, history=history)
        self.index = index
        self.kind = kind
        self.generation = 0
        self.worker: Worker | None = None
        self.attempts = 0
        """Starts in a row that came to nothing: what the backoff counts."""
        self.alarm = 0
        self.due = math.inf

    def __repr__(self) -> str:
        return f"<slot {self.index} {self.kind} {self.state}>"


class Pool(Subject[PoolState]):
    """The pool as one thing, with the facts that its state depends on.

    Attributes:
        usable: workers that calls can be given to.
        needed: how many there have to be.
        circuit_closed: whether the breaker lets calls through as usual.
    """

    __slots__ = ("circuit_closed", "needed", "usable")

    def __init__(self, *, now: float, history: int, needed: int) -> None:
        super().__init__(POOL, now=now, history=history)
        self.usable = 0
        self.needed = needed
        self.circuit_closed = True

    @property
    def enough_workers(self) -> bool:
        """Whether the pool is whole."""
        return self.usable >= self.needed and self.circuit_closed
