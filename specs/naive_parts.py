"""The parts of the naive model: who waits, the tokens, the breaker, and what is known of whom.

They are lists and plain numbers. Whatever is asked is counted anew.
"""

from __future__ import annotations

import math
from typing import NoReturn

from remuda.specs.invariants import InvariantViolated
from remuda.statemachines.breaker import BreakerState, Outcome
from remuda.statemachines.call import CallState
from remuda.statemachines.policy import Policy
from remuda.statemachines.slot import SlotState
from remuda.statemachines.subjects import Call, Rung, Slot, SlotKind, Worker
from remuda.statemachines.worker import WorkerState

__all__ = [
    "ALMOST",
    "Bucket",
    "Disagreement",
    "KnownCall",
    "KnownSlot",
    "KnownWorker",
    "Lanes",
    "NaiveBreaker",
    "disagree",
    "want",
]

ALMOST = 1e-6
"""What rounding may do to a time or to a token."""


class Disagreement(InvariantViolated):
    """The core does something else than the model says it must."""


def disagree(what: str, detail: str) -> NoReturn:
    raise Disagreement(f"naive_{what}", detail)


def want(true: bool, what: str, detail: str) -> None:
    if not true:
        disagree(what, detail)


class NaiveBreaker:
    """A diary of the time since its last change of state; everything is counted from it."""

    def __init__(self, policy: Policy) -> None:
        self.numbers = policy.breaker
        self.go(BreakerState.CLOSED, 0.0)

    def go(self, state: BreakerState, now: float) -> None:
        self.state, self.since = state, now
        self.entries: list[tuple[float, Call, Outcome | None]] = []  # None: it was let through

    def out(self) -> list[Call]:
        ended = [call for _, call, outcome in self.entries if outcome is not None]
        return [call for _, call, outcome in self.entries if outcome is None and call not in ended]

    def told(self) -> list[Outcome]:
        return [o for _, _, o in self.entries if o is Outcome.SUCCESS or o is Outcome.FAILURE]

    def due(self) -> float:
        if self.state is BreakerState.OPEN:
            return self.since + self.numbers.open_for
        if self.state is BreakerState.HALF_OPEN and self.out():
            out, since = 0, math.inf  # since when has somebody been out without a break?
            for at, _, outcome in self.entries:
                since = at if out == 0 else since
                out += 1 if outcome is None else -1
            return since + self.numbers.open_for
        return math.inf

    def tick(self, now: float) -> str | None:
        if self.due() > now:
            return None
        was = self.state
        self.go(BreakerState.HALF_OPEN if was is BreakerState.OPEN else BreakerState.OPEN, now)
        return "cool_down" if was is BreakerState.OPEN else "trip"

    def has_room(self) -> bool:
        return len(self.out()) + self.told().count(Outcome.SUCCESS) < self.numbers.probes

    def admits(self) -> bool:
        return self.state is BreakerState.CLOSED or (self.state is BreakerState.HALF_OPEN and self.has_room())

    def retry_after(self, now: float) -> float | None:
        return max(0.0, self.due() - now) if self.state is BreakerState.OPEN else None

    def record(self, call: Call, outcome: Outcome, now: float) -> str | None:
        if call not in self.out():
            return None
        self.entries.append((now, call, outcome))
        told = self.told()
        limit = self.numbers.failures if self.state is BreakerState.CLOSED else 1
        if told[-limit:] == [Outcome.FAILURE] * limit:
            self.go(BreakerState.OPEN, now)
            return "trip"
        if self.state is BreakerState.HALF_OPEN and len(told) == self.numbers.probes:
            self.go(BreakerState.CLOSED, now)
            return "recover"
        return None


class Lanes:
    """Who waits, as lists in the order of their turns; before them those who came back and found no lane."""

    def __init__(self) -> None:
        self.back: list[Call] = []
        self.turns: list[list[Call]] = []

    def all(self) -> list[Call]:
        return [*self.back, *(call for lane in self.turns for call in lane)]

    def lane(self, session: str | None) -> list[Call] | None:
        return next((lane for lane in self.turns if lane[0].session == session), None)

    def add(self, call: Call, *, back: bool = False) -> None:
        lane = self.lane(call.session)
        if back and (lane is None or call.session in [each.session for each in self.back]):
            self.back.append(call)
            self.back.sort(key=lambda each: each.id)
        elif lane is not None:
            lane.append(call)
            lane.sort(key=lambda each: each.id)
        else:
            self.turns.append([call])

    def take(self) -> None:
        """The next has had its turn."""
        if self.back:
            session = self.back.pop(0).session
            lane = self.lane(session) or []
            left = [each for each in self.back if each.session == session] + lane
            self.back = [each for each in self.back if each.session != session]
            self.turns = [each for each in self.turns if each is not lane] + ([left] if left else [])
            return
        lane = self.turns.pop(0)
        if lane[1:]:
            self.turns.append(lane[1:])

    def remove(self, call: Call) -> None:
        self.back = [each for each in self.back if each is not call]
        self.turns = [left for lane in self.turns if (left := [each for each in lane if each is not call])]


class Bucket:
    """Tokens: how many are there follows from when each was taken."""

    def __init__(self, burst: int, period: float) -> None:
        self.burst, self.rate = burst, burst / period
        self.takes: list[float] = []

    def tokens(self, now: float) -> float:
        tokens, at = float(self.burst), 0.0
        for take in self.takes:
            tokens, at = min(self.burst, tokens + (take - at) * self.rate) - 1.0, take
        return min(self.burst, tokens + (now - at) * self.rate)

    def next_token(self, now: float) -> float:
        return now + max(0.0, 1.0 - self.tokens(now)) / self.rate


class KnownCall:
    """What is known of a call."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.where = "nowhere"  # then: queue, worker (in hand), pause, lease (holds a worker), over
        self.worker: KnownWorker | None = None
        self.running = False
        self.begun = 0
        self.moved = 0
        self.until = math.inf
        self.end: CallState | None = None

    def state(self) -> CallState:
        """What its lifecycle must say."""
        if self.end is not None:
            return self.end
        if self.where == "worker":
            return CallState.RUNNING if self.running else CallState.ASSIGNED
        return {"queue": CallState.QUEUED, "pause": CallState.BACKING_OFF, "lease": CallState.RUNNING}[self.where]


class KnownWorker:
    """What is known of a worker."""

    def __init__(self, worker: Worker, now: float) -> None:
        self.worker = worker
        self.state = WorkerState.INITIALIZING
        self.since = self.active = now  # in this state; last seen to do something
        self.occupant: KnownCall | None = None
        self.call: KnownCall | None = None
        self.interrupted: KnownCall | None = None  # it was told to stop this
        self.stops_until = math.inf
        self.checks = self.failures = self.served = 0
        self.check_is_out = self.up = self.on_purpose = self.violation = False
        self.boots_until = math.inf
        self.rung: Rung | None = None
        self.rung_at = 0.0


class KnownSlot:
    """What is known of a slot."""

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self.kind = SlotKind.BASE
        self.state = SlotState.STARTING
        self.worker: KnownWorker | None = None
        self.workers = 0  # that it has had
        self.attempts = 0
        self.until = math.inf
