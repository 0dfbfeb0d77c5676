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
from collections.abc import Iterator

from remuda.specs.invariant import INVARIANTS, NUMBERS, Invariant, InvariantViolated, check, invariant
from remuda.specs.invariants_of_calls import exactly_one_outcome
from remuda.specs.ledger import Ledger, Trap, served
from remuda.statemachines import effects as fx
from remuda.statemachines import events as ev
from remuda.statemachines.breaker import Breaker, BreakerState
from remuda.statemachines.call import CallState
from remuda.statemachines.core import Core
from remuda.statemachines.crew import USABLE
from remuda.statemachines.pool import PoolState
from remuda.statemachines.slot import SlotState
from remuda.statemachines.subjects import Call, Pool, Rung, Slot, SlotKind, Worker
from remuda.statemachines.worker import WorkerState

__all__ = ["INVARIANTS", "NUMBERS", "Invariant", "InvariantViolated", "check", "exactly_one_outcome"]

_SERVING = frozenset({PoolState.STARTING, PoolState.READY, PoolState.IMPAIRED})
_LEAVING = frozenset({WorkerState.DRAINING, WorkerState.TERMINATING, WorkerState.TERMINATED})
_HELD = frozenset({WorkerState.BUSY, WorkerState.DRAINING, WorkerState.INTERRUPTING})
_WITH_WORKER = frozenset({CallState.ASSIGNED, CallState.RUNNING})
_WITHOUT_PROCESS = frozenset({SlotState.BACKOFF, SlotState.QUARANTINED, SlotState.STARTING})
_EMPTY = frozenset({SlotState.BACKOFF, SlotState.QUARANTINED})
_TIMED = frozenset({WorkerState.INITIALIZING, WorkerState.CHECKING, WorkerState.DEGRADED})
"""States that end when time has passed, if nothing else ends them."""
_CLOSING = frozenset({PoolState.DRAINING, PoolState.CLOSED})


# ── Workers and slots ───────────────────────────────────────────────────────────────────────────


@invariant(1)
def conservation(core: Core, ledger: Ledger) -> str | None:
    """1. Every worker has a slot and every slot is accounted for, within the bounds.

    The workers that were started and have not ended are exactly those that the slots have; there
    are no more slots than `max_workers` and `overflow` allow, and as many spares as there shall be.
    """
    crew, policy = core.crew, core.policy
    kinds = [slot.kind for slot in crew.slots.values()]
    if kinds.count(SlotKind.BASE) > policy.max_workers or kinds.count(SlotKind.OVERFLOW) > policy.overflow:
        return f"{kinds.count(SlotKind.BASE)} base and {kinds.count(SlotKind.OVERFLOW)} overflow slots"
    if kinds and core.pool.state not in _CLOSING and kinds.count(SlotKind.SPARE) != policy.spares:
        return f"{kinds.count(SlotKind.SPARE)} spare slots, and there shall be {policy.spares}"
    for slot in crew.slots.values():
        if slot.worker is None and slot.state not in _WITHOUT_PROCESS:
            return f"{slot} has no worker"
        if slot.worker is not None and slot.worker.slot is not slot:
            return f"{slot} has the worker of another slot"
    alive = {slot.worker for slot in crew.slots.values() if slot.worker is not None}
    if alive != ledger.started - ledger.ended:
        return f"the slots have {alive}, and {ledger.started - ledger.ended} were started and have not ended"
    return None


@invariant(2)
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


@invariant(2)
def a_checkout_is_given_back_once(core: Core, ledger: Ledger) -> str | None:
    """2. Nobody can give back what is not theirs any more."""
    if isinstance(ledger.event, ev.Checkin) and ledger.had is None:
        return f"{ledger.event.lease} was taken back, and had ended before"
    return None


@invariant(3)
def no_lost_worker(core: Core, ledger: Ledger) -> str | None:
    """3. A worker is idle, or somebody has it: nobody holds what nobody will give back."""
    idle = {*core.crew.idle(), *core.crew.spares()}
    for worker in core.crew.workers():
        if (worker in core.crew.spares()) and worker.slot.kind is not SlotKind.SPARE:
            return f"{worker} is kept as a spare, and is none"
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


@invariant(4)
def no_lost_wakeup(core: Core, ledger: Ledger) -> str | None:
    """4. It is never seen that a worker is idle, or could be started, while somebody waits for one."""
    if not core.waiters or core.pool.state not in _SERVING:
        return None
    if core.crew.has_idle:
        return f"{len(core.waiters)} wait, and {list(core.crew.idle())} are idle"
    # As many as wait are on their way, unless the pool is as large as it may be.
    slots = [slot for slot in core.crew.slots.values() if slot.kind is not SlotKind.SPARE]
    coming = sum(slot.state not in (SlotState.SERVING, SlotState.STOPPING) for slot in slots)
    coming += sum(slot.state is SlotState.STOPPING and slot.kind is SlotKind.BASE for slot in slots)
    if coming < len(core.waiters) and len(slots) < core.policy.max_workers + core.policy.overflow:
        return f"{len(core.waiters)} wait, {coming} workers are on their way, and more could be started"
    if core.crew.to_start() and all(worker.was_ready for worker in core.crew.workers()):
        return f"{len(core.waiters)} wait, and {core.crew.to_start()} are not started, with nothing in their way"
    return None


@invariant(7)
def cancelling_spares_the_start(core: Core, ledger: Ledger) -> str | None:
    """7. A caller that leaves takes no starting worker along: starting is the pool's own affair."""
    if isinstance(ledger.event, ev.GiveUp):
        for effect in ledger.effects:
            if isinstance(effect, fx.Stop) and effect.worker not in ledger.up:
                return f"{ledger.event.call} was given up, and {effect.worker} was stopped"
    return None


@invariant(12)
def in_use_is_never_retired(core: Core, ledger: Ledger) -> str | None:
    """12. Who is replaced by policy finishes first: a broken channel, a shutdown, a holder who leaves end what works.

    A call whose deadline has passed, or whose caller has left, is over when its worker is stopped. One
    that runs on a checkout is not over when the holder of that leaves; it ends with the worker.
    """
    event = ledger.event
    if isinstance(event, ev.ChannelFailed) or (isinstance(event, ev.Tick) and ledger.was_closing):
        return None
    if isinstance(event, ev.GiveUp) and event.call.is_lease:
        return None
    for effect in ledger.effects:
        if isinstance(effect, fx.Stop):
            worker = effect.worker
            held = worker.call or worker.occupant
            if held is not None:
                return f"{worker} was sent {effect.rung} while {held} was under way on it"
    return None


@invariant(13)
def what_waits_for_time_has_an_alarm(core: Core, ledger: Ledger) -> str | None:
    """13. Whatever gets on only when time has passed is told when it has: the pool heals by itself."""
    for slot in core.crew.slots.values():
        if slot.state in _EMPTY and not (slot.alarm and slot.due < math.inf):
            return f"{slot} waits, and nothing is set to wake it"
        worker = slot.worker
        if worker is not None and not worker.alarm:
            climbs = worker.state is WorkerState.TERMINATING and worker.rung is not Rung.KILL
            if worker.state in _TIMED or climbs:
                return f"{worker} waits, and nothing is set to wake it"
    due = core.breaker.next_due()
    if due is not None and core.next_due() > due:
        return f"the breaker waits until {due}, and the next alarm is set for {core.next_due()}"
    if core.next_due() <= ledger.at and isinstance(ledger.event, ev.Tick):
        return f"it was ticked at {ledger.at}, and something was due at {core.next_due()}"
    return None


@invariant(14)
def failed_starts_back_off(core: Core, ledger: Ledger) -> str | None:
    """14. A worker that died by itself before it had served is not followed by the next at once."""
    event = ledger.event
    if isinstance(event, ev.Exited) and event.worker not in ledger.served | ledger.stopped:
        slot = event.worker.slot
        if event.worker.on_purpose:  # it was to go when it had finished, and went before
            return None
        if slot.state not in _EMPTY and slot.state is not SlotState.CLOSED:
            return f"{event.worker} came to nothing, and {slot} goes on at once"
    return None


@invariant(15)
def a_check_and_a_call_exclude_each_other(core: Core, ledger: Ledger) -> str | None:
    """15. Who is checked has nobody's call in hand."""
    for worker in core.crew.workers():
        if worker.state is WorkerState.CHECKING and (worker.call is not None or worker.occupant is not None):
            return f"{worker} has {worker.call or worker.occupant}"
    return None


@invariant(10)
def no_dirty_worker(core: Core, ledger: Ledger) -> str | None:
    """10. A worker whose caller went away, or whose call has no answer, never works again, unless it has stopped."""
    for worker in ledger.dirty:
        if worker.state not in _LEAVING and worker.state is not WorkerState.INTERRUPTING:
            return f"{worker} has had a call that ended without an answer"
    return None


@invariant(10)
def an_interrupt_has_an_end(core: Core, ledger: Ledger) -> str | None:
    """10. Who is told to stop has nothing else in hand; it answers, or its grace ends and it goes.

    A worker is told once for each call, while it has that call, and the call is over at that moment.
    """
    for worker in core.crew.workers():
        if worker.state is WorkerState.INTERRUPTING and (worker.interrupted is None or worker.call is not None):
            return f"{worker} was told to stop {worker.interrupted}, and has {worker.call} in hand"
        if worker.interrupted is not None and worker.state in (WorkerState.INTERRUPTING, WorkerState.DRAINING):
            if not worker.alarm or worker.due > ledger.at + core.policy.interrupt_grace:
                return f"{worker} was told to stop, and may go on for ever"
            if isinstance(ledger.event, ev.Tick) and worker.due <= ledger.at:
                return f"{worker} was to stop by {worker.due}, and it is {ledger.at}"
    for effect in ledger.effects:
        if isinstance(effect, fx.Interrupt) and (
            effect.call.id in core.calls or effect.worker not in ledger.dirty or effect.worker.call is not None
        ):
            return f"{effect.worker} was told to stop {effect.call}, which is not what it has to stop"
    return None


@invariant(23)
def destruction_is_idempotent(core: Core, ledger: Ledger) -> str | None:
    """23. The stop ladder is climbed, each rung once, and ends with the process."""
    order = list(Rung)
    for worker, rungs in ledger.rungs.items():
        places = [order.index(rung) for rung in rungs]
        if places != sorted(set(places)):
            return f"{worker} was sent {rungs}"
    if ledger.beyond:
        return f"{ledger.beyond[0]} was told to go after its end"
    return None


# ── The pool ────────────────────────────────────────────────────────────────────────────────────


@invariant(17)
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
    if core.pool.state in (PoolState.DRAINING, PoolState.FAILED) and core.waiters:
        return f"{list(core.waiters)} wait for a pool that is {core.pool.state}"
    if core.pool.state is PoolState.DRAINING:
        bound = (ledger.closing_since or 0.0) + core.policy.shutdown_timeout
        if ledger.closing_since is not None and isinstance(ledger.event, ev.Tick) and ledger.at >= bound:
            return f"it was to be closed by {bound}, and it is {ledger.at}"
        if core.pool_due > ledger.at + core.policy.shutdown_timeout:
            return f"closing, at {ledger.at}, and to be ended by force at {core.pool_due}"
    return None


@invariant(18)
def not_ready_before_usable(core: Core, ledger: Ledger) -> str | None:
    """18. Only what has come up gets work, and the pool says "ready" only when there are enough of it."""
    for effect in ledger.effects:
        call = served(effect)
        if call is not None and call.worker not in ledger.up:
            return f"{call} got {call.worker}, which is not up"
    usable = sum(_usable(worker, ledger) for worker in core.crew.workers())
    needed, breaker = core.policy.min_workers, core.breaker.state
    passes = breaker in (BreakerState.CLOSED, BreakerState.DISABLED)
    match core.pool.state:
        case PoolState.READY if usable < needed or not passes:
            return f"the pool is ready with {usable} of {needed} workers, and its breaker is {breaker}"
        case PoolState.IMPAIRED if usable >= needed and passes:
            return f"the pool is impaired with {usable} of {needed} workers, and its breaker is {breaker}"
        case PoolState.FAILED if usable and not ledger.failed_start:  # a start may fail though some are up
            return f"the pool has failed, with {usable} workers that serve"
        case _:
            return None


@invariant(13)
def a_spare_stands_in(core: Core, ledger: Ledger) -> str | None:
    """13. It is never seen that a spare is ready while a base slot has no worker that serves."""
    spares = core.crew.spares()
    if not spares or core.pool.state in _CLOSING:
        return None
    for slot in core.crew.slots.values():
        if slot.kind is SlotKind.BASE and (slot.worker is None or slot.worker.state not in USABLE):
            return f"{slot} has {slot.worker}, and {spares[0]} is ready"
    return None


def _usable(worker: Worker, ledger: Ledger) -> bool:
    if worker.slot.kind is SlotKind.SPARE:
        return False
    states = (WorkerState.READY, WorkerState.BUSY, WorkerState.CHECKING, WorkerState.INTERRUPTING)
    suspected = worker.state is WorkerState.CHECKING and worker.failures > 0
    return worker in ledger.up and worker.state in states and not suspected


@invariant(19)
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


@invariant(20)
def dispatch_never_blocks(core: Core, ledger: Ledger) -> str | None:
    """20. Who is given a worker is given one that can begin at once: nobody is tied to a start or a check."""
    for call in core.calls.values():
        if call.state in _WITH_WORKER and (call.worker is None or call.worker.state not in _HELD | _LEAVING):
            return f"{call} was given {call.worker}"
    return None


@invariant(25)
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


def _subjects(core: Core) -> Iterator[Call | Worker | Slot | Pool | Breaker]:
    yield core.pool
    yield core.breaker
    yield from core.calls.values()
    yield from core.crew.slots.values()
    yield from core.crew.workers()
