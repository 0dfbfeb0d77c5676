"""What must hold, whatever happens: a function for each rule.

Each looks at a core and at the ledger of what has gone in and come out, and says what is wrong, or
None. They know nothing of how they are asked: the explorer asks in every state that can be reached,
a Hypothesis machine after every step of a random run, and whoever likes after every event of a live
pool. The numbers are those of the list of invariants that the design was made from; behind each
stands a bug that some pool of the world has had.

`check(core, ledger)` asks all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TypeAlias

from remuda.specs.ledger import Ledger, Trap, served
from remuda.statemachines import effects as fx
from remuda.statemachines import events as ev
from remuda.statemachines.call import CALL, CallState
from remuda.statemachines.core import Core
from remuda.statemachines.pool import PoolState
from remuda.statemachines.slot import SlotState
from remuda.statemachines.subjects import Call, Rung, SlotKind, Worker
from remuda.statemachines.worker import WorkerState

__all__ = ["INVARIANTS", "NUMBERS", "Invariant", "InvariantViolated", "check"]

Invariant: TypeAlias = Callable[[Core, Ledger], str | None]

INVARIANTS: dict[str, Invariant] = {}
"""All of them, by name."""

NUMBERS: dict[str, int] = {}
"""The number of each in the list."""

_SERVING = frozenset({PoolState.STARTING, PoolState.READY, PoolState.IMPAIRED})
_LEAVING = frozenset({WorkerState.DRAINING, WorkerState.TERMINATING, WorkerState.TERMINATED})
_HELD = frozenset({WorkerState.BUSY, WorkerState.DRAINING, WorkerState.INTERRUPTING})
_WITH_WORKER = frozenset({CallState.ASSIGNED, CallState.RUNNING})
_WITHOUT_PROCESS = frozenset({SlotState.BACKOFF, SlotState.QUARANTINED, SlotState.STARTING})
_CLOSING = frozenset({PoolState.DRAINING, PoolState.CLOSED})


class InvariantViolated(AssertionError):
    """A rule does not hold.

    Attributes:
        name: which.
    """

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(f"{name}: {detail}")
        self.name = name
        self.detail = detail


def check(core: Core, ledger: Ledger) -> None:
    """Ask all; raises InvariantViolated for the first that does not hold."""
    for name, rule in INVARIANTS.items():
        detail = rule(core, ledger)
        if detail is not None:
            raise InvariantViolated(name, detail)


def _invariant(number: int) -> Callable[[Invariant], Invariant]:
    def register(rule: Invariant) -> Invariant:
        INVARIANTS[rule.__name__] = rule
        NUMBERS[rule.__name__] = number
        return rule

    return register


# ── Workers and slots ───────────────────────────────────────────────────────────────────────────


@_invariant(1)
def conservation(core: Core, ledger: Ledger) -> str | None:
    """1. Every worker has a slot and every slot is accounted for, within the bounds.

    The workers that were started and have not ended are exactly those that the slots have; there
    are no more slots than `max_workers` and `overflow` allow.
    """
    crew, policy = core.crew, core.policy
    kinds = [slot.kind for slot in crew.slots.values()]
    if kinds.count(SlotKind.BASE) > policy.max_workers or kinds.count(SlotKind.OVERFLOW) > policy.overflow:
        return f"{kinds.count(SlotKind.BASE)} base and {kinds.count(SlotKind.OVERFLOW)} overflow slots"
    for slot in crew.slots.values():
        if slot.worker is None and slot.state not in _WITHOUT_PROCESS:
            return f"{slot} has no worker"
        if slot.worker is not None and slot.worker.slot is not slot:
            return f"{slot} has the worker of another slot"
    alive = {slot.worker for slot in crew.slots.values() if slot.worker is not None}
    if alive != ledger.started - ledger.ended:
        return f"the slots have {alive}, and {ledger.started - ledger.ended} were started and have not ended"
    return None


@_invariant(2)
def exclusive_lease(core: Core, ledger: Ledger) -> str | None:
    """2. A worker has one occupant at most, and each of the two says so of the other.

    A call on a checkout shares the worker with its lease, and with nothing else.
    """
    for worker in core.crew.workers():
        occupant, call = worker.occupant, worker.call
        if call is not None and call.worker is not worker:
            return f"{worker} has {call} in hand, which has {call.worker}"
        if occupant is not None and occupant.worker is not worker:
            return f"{worker} is held by {occupant}, which has {occupant.worker}"
        if call is not None and occupant is not None and occupant not in (call, call.lease):
            return f"{worker} has {call} in hand and is held by {occupant}"
    for call in core.calls.values():
        if call.worker is not None and call not in (call.worker.occupant, call.worker.call):
            return f"{call} has {call.worker}, which does not have it"
    return None


@_invariant(3)
def no_lost_worker(core: Core, ledger: Ledger) -> str | None:
    """3. A worker is idle, or somebody has it: nobody holds what nobody will give back."""
    idle = set(core.crew.idle())
    for worker in core.crew.workers():
        if (worker.state is WorkerState.READY) != (worker in idle):
            return f"{worker} is {'not ' if worker not in idle else ''}among the idle"
        if worker.state is WorkerState.READY and (worker.occupant is not None or worker.call is not None):
            return f"{worker} is ready, and is held by {worker.occupant or worker.call}"
        if worker.state is WorkerState.BUSY and worker.occupant is None:
            return f"{worker} is busy for nobody"
        for call in (worker.occupant, worker.call):
            if call is not None and call.id not in core.calls:
                return f"{worker} is held by {call}, which is over"
    return None


@_invariant(4)
def no_lost_wakeup(core: Core, ledger: Ledger) -> str | None:
    """4. It is never seen that a worker is idle, or could be started, while somebody waits for one."""
    if not core.waiters or core.pool.state not in _SERVING:
        return None
    if core.crew.has_idle:
        return f"{len(core.waiters)} wait, and {list(core.crew.idle())} are idle"
    # As many as wait are on their way, unless the pool is as large as it may be.
    slots = core.crew.slots.values()
    coming = sum(slot.state not in (SlotState.SERVING, SlotState.STOPPING) for slot in slots)
    coming += sum(slot.state is SlotState.STOPPING and slot.kind is SlotKind.BASE for slot in slots)
    if coming < len(core.waiters) and len(slots) < core.policy.max_workers + core.policy.overflow:
        return f"{len(core.waiters)} wait, {coming} workers are on their way, and more could be started"
    if core.crew.to_start() and all(worker.was_ready for worker in core.crew.workers()):
        return f"{len(core.waiters)} wait, and {core.crew.to_start()} are not started, with nothing in their way"
    return None


@_invariant(7)
def cancelling_spares_the_start(core: Core, ledger: Ledger) -> str | None:
    """7. A caller that leaves takes no starting worker along: starting is the pool's own affair."""
    if isinstance(ledger.event, ev.GiveUp):
        for effect in ledger.effects:
            if isinstance(effect, fx.Stop) and effect.worker not in ledger.up:
                return f"{ledger.event.call} was given up, and {effect.worker} was stopped"
    return None


@_invariant(10)
def no_dirty_worker(core: Core, ledger: Ledger) -> str | None:
    """10. A worker whose caller went away, or whose call has no answer, never works again."""
    for worker in ledger.dirty:
        if worker.state not in _LEAVING:
            return f"{worker} has had a call that ended without an answer"
    return None


@_invariant(23)
def destruction_is_idempotent(core: Core, ledger: Ledger) -> str | None:
    """23. The stop ladder is climbed, each rung once, and ends with the process."""
    order = list(Rung)
    for worker, rungs in ledger.rungs.items():
        places = [order.index(rung) for rung in rungs]
        if places != sorted(set(places)):
            return f"{worker} was sent {rungs}"
    if isinstance(ledger.event, ev.Exited):
        for effect in ledger.effects:
            if isinstance(effect, fx.Stop) and effect.worker in ledger.ended:
                return f"{effect.worker} was sent {effect.rung} after its end"
    return None


# ── Callers ─────────────────────────────────────────────────────────────────────────────────────


@_invariant(5)
def departed_waiters_vanish(core: Core, ledger: Ledger) -> str | None:
    """5. Who waits is waiting: nobody stands in a lane whose call is over, and all are counted."""
    waiters = list(core.waiters)
    queued = [call for call in core.calls.values() if call.state is CallState.QUEUED]
    if len(waiters) != len(core.waiters) or len(set(waiters)) != len(waiters) or set(waiters) != set(queued):
        return f"in the lanes: {waiters}; queued: {queued}; counted: {len(core.waiters)}"
    return None


@_invariant(6)
def one_deadline_bounds_it(core: Core, ledger: Ledger) -> str | None:
    """6. Nothing that has a deadline outlives it, and something is set to see to that.

    Who holds a checkout is bound by nothing: its deadline was for the waiting.
    """
    for call in core.calls.values():
        if call.deadline == math.inf or (call.is_lease and call.state is CallState.RUNNING):
            continue
        if isinstance(ledger.event, ev.Tick) and call.deadline <= ledger.at:
            return f"{call} should have ended at {call.deadline}, and it is {ledger.at}"
        if not call.alarm or call.due > call.deadline:
            return f"{call} has the deadline {call.deadline}, and its alarm is set for {call.due}"
    return None


@_invariant(8)
def fifo_within_a_lane(core: Core, ledger: Ledger) -> str | None:
    """8. Within a lane nobody is overtaken; between lanes each has its turn."""
    for effect in ledger.effects:
        call = served(effect)
        if call is not None and call.lease is None:
            for waiter in core.waiters:
                if waiter.session == call.session and waiter.id < call.id:
                    return f"{call} was served before {waiter}"
    for lane, passes in ledger.passed.items():
        for other, times in passes.items():
            if times > 1 and other != lane:
                return f"lane {lane!r} waits, and lane {other!r} had {times} turns meanwhile"
    return None


@_invariant(9)
def exactly_one_outcome(core: Core, ledger: Ledger) -> str | None:
    """9. Every call that was made is under way or has one final verdict, and no call has two."""
    for number, verdicts in ledger.verdicts.items():
        call = ledger.submitted.get(number)
        wanted = 0 if number in core.calls else 1
        if len(verdicts) != wanted:
            return f"{call or number} has the verdicts {verdicts}, and is {'' if not wanted else 'not '}under way"
        if call is not None and wanted and call.state not in CALL.final:
            return f"{call} has its verdict, and has not ended"
    return None


@_invariant(24)
def nothing_dead_on_arrival(core: Core, ledger: Ledger) -> str | None:
    """24. Nothing is handed to a worker, nor a worker to anybody, whose deadline has passed."""
    for effect in ledger.effects:
        call = served(effect)
        if call is not None and call.deadline <= ledger.at:
            return f"{call} got a worker at {ledger.at}, and its deadline was {call.deadline}"
    return None


# ── The pool ────────────────────────────────────────────────────────────────────────────────────


@_invariant(17)
def close_ends_everything(core: Core, ledger: Ledger) -> str | None:
    """17. A closing pool starts nothing and is bound to end; a closed one has nothing left."""
    if ledger.was_closing:
        for effect in ledger.effects:
            if isinstance(effect, fx.StartWorker):
                return f"{effect.worker} was started by a pool that closes"
            call = served(effect)
            if call is not None and call.lease is None:
                return f"{call} got a worker of a pool that closes"
    if core.pool.state is PoolState.CLOSED and (core.crew.slots or core.waiters or core.calls):
        return f"closed, with {core.crew.slots}, {list(core.waiters)}, {core.calls}"
    if core.pool.state is PoolState.DRAINING:
        if core.waiters:
            return f"{list(core.waiters)} wait for a pool that closes"
        if core.pool_due > ledger.at + core.policy.shutdown_timeout:
            return f"closing, at {ledger.at}, and to be ended by force at {core.pool_due}"
    return None


@_invariant(18)
def not_ready_before_usable(core: Core, ledger: Ledger) -> str | None:
    """18. Only what has come up gets work, and the pool says "ready" only when there are enough of it."""
    for effect in ledger.effects:
        call = served(effect)
        if call is not None and call.worker not in ledger.up:
            return f"{call} got {call.worker}, which is not up"
    if core.pool.state is PoolState.READY:
        usable = [worker for worker in core.crew.workers() if _usable(worker, ledger)]
        if len(usable) < core.policy.min_workers:
            return f"the pool is ready with {len(usable)} of {core.policy.min_workers} workers"
    return None


def _usable(worker: Worker, ledger: Ledger) -> bool:
    states = (WorkerState.READY, WorkerState.BUSY, WorkerState.CHECKING, WorkerState.INTERRUPTING)
    return worker in ledger.up and worker.state in states


@_invariant(19)
def what_is_the_users_is_not_touched(core: Core, ledger: Ledger) -> str | None:
    """19. The core carries requests and replies, and never looks into them: no user code can harm it.

    In a model they are traps, which notice. (That observers cannot harm a pool is shown where they
    are called, in the runtime.)
    """
    touched = Trap.touched
    if touched is not None:
        Trap.touched = None
        return f"somebody looked at {touched}"
    return None


@_invariant(20)
def dispatch_never_blocks(core: Core, ledger: Ledger) -> str | None:
    """20. Who is given a worker is given one that can begin at once: nobody is tied to a start or a check."""
    for call in core.calls.values():
        if call.state in _WITH_WORKER and (call.worker is None or call.worker.state not in _HELD | _LEAVING):
            return f"{call} was given {call.worker}"
    return None


@_invariant(25)
def time_is_monotonic(core: Core, ledger: Ledger) -> str | None:
    """25. Time only passes: no step is later than now, or earlier than the one before it."""
    if ledger.at < ledger.before:
        return f"it was {ledger.before} and is {ledger.at}"
    for subject in _subjects(core):
        last = -math.inf
        for step in subject.history:
            if step.at < last or step.at > ledger.at:
                return f"{subject} took the step {step.trigger!r} at {step.at}; before: {last}, now: {ledger.at}"
            last = step.at
    return None


def _subjects(core: Core) -> Iterator[Call | Worker]:
    yield from core.calls.values()
    yield from core.crew.workers()
