"""What must be true of callers and their calls, whatever happens; see `remuda.specs.invariants`."""

from __future__ import annotations

import math

from remuda.specs.invariant import invariant
from remuda.specs.ledger import Ledger, served
from remuda.statemachines import effects as fx
from remuda.statemachines import events as ev
from remuda.statemachines.call import CALL, CallState
from remuda.statemachines.core import Core

__all__ = [
    "at_most_once", "cancelling_is_not_swallowed", "departed_waiters_vanish", "exactly_one_outcome",
    "fifo_within_a_lane", "nothing_dead_on_arrival", "one_deadline_bounds_it", "permits_end_with_their_calls",
    "the_verdict_is_true",
]  # fmt: skip


@invariant(5)
def departed_waiters_vanish(core: Core, ledger: Ledger) -> str | None:
    """5. Who waits is waiting: nobody stands in a lane whose call is over, and all are counted."""
    waiters = list(core.waiters)
    queued = [call for call in core.calls.values() if call.state is CallState.QUEUED]
    if len(waiters) != len(core.waiters) or len(set(waiters)) != len(waiters) or set(waiters) != set(queued):
        return f"in the lanes: {waiters}; queued: {queued}; counted: {len(core.waiters)}"
    return None


@invariant(6)
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


@invariant(6)
def cancelling_is_not_swallowed(core: Core, ledger: Ledger) -> str | None:
    """6. A caller who leaves has left, whatever its call was doing."""
    event = ledger.event
    if isinstance(event, ev.GiveUp) and event.call.id in core.calls:
        return f"{event.call} was given up, and goes on"
    return None


@invariant(8)
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


@invariant(9)
def exactly_one_outcome(core: Core, ledger: Ledger) -> str | None:
    """9. Every call that was made is under way or has one final verdict, and no call has two."""
    if ledger.strays:
        return f"{ledger.strays[0]} got a verdict, and was not under way"
    for number, verdicts in ledger.verdicts.items():
        call = ledger.submitted.get(number)
        wanted = 0 if number in core.calls else 1
        if len(verdicts) != wanted:
            return f"{call or number} has the verdicts {verdicts}, and is {'' if not wanted else 'not '}under way"
        if call is not None and wanted and call.state not in CALL.final:
            return f"{call} has its verdict, and has not ended"
    return None


@invariant(9)
def the_verdict_is_true(core: Core, ledger: Ledger) -> str | None:
    """9. An answer is the answer to this call; "unknown" is said of what had begun, "died" of what had not."""
    event = ledger.event
    for effect in ledger.effects:
        if not isinstance(effect, fx.Answer):
            continue
        call, verdict = effect.call, effect.verdict
        if verdict is fx.Verdict.ANSWERED:
            mine = isinstance(event, ev.Replied) and event.call_id == call.id == ledger.had
            if not mine or not isinstance(event, ev.Replied) or effect.reply is not event.reply:
                return f"{call} was answered with what is not its own"
        elif verdict in (fx.Verdict.UNKNOWN, fx.Verdict.VIOLATION) and call.id not in ledger.begun:
            return f"{call} is said to be {verdict}, and had not begun"
        elif verdict is fx.Verdict.DIED and call.id in ledger.begun:
            return f"{call} is said not to have begun, and had"
        elif verdict is fx.Verdict.TIMED_OUT and call.deadline > ledger.at:
            return f"{call} is said to have timed out at {ledger.at}, and had until {call.deadline}"
    return None


@invariant(9)
def permits_end_with_their_calls(core: Core, ledger: Ledger) -> str | None:
    """9. What the breaker has let through and not heard of is under way: no probe is lost, none counted twice."""
    held = [call for call in core.calls.values() if call.permit is not None and core.breaker.holds(call.permit)]
    if len(held) != core.breaker.in_flight:
        return f"{core.breaker.in_flight} permits are out, and {held} have one"
    return None


@invariant(9)
def at_most_once(core: Core, ledger: Ledger) -> str | None:
    """9. What has begun is not begun again, unless it is idempotent, and then within its attempts."""
    retry = core.policy.retry
    for effect in ledger.effects:
        if isinstance(effect, fx.SendCall):
            call = effect.call
            if call.id in ledger.begun and not call.idempotent:
                return f"{call} was sent again, and had begun"
            most = retry.handovers + (retry.attempts if call.idempotent else 1)
            if ledger.sent[call.id] > most:
                return f"{call} was sent {ledger.sent[call.id]} times, and {most} are allowed"
    return None


@invariant(24)
def nothing_dead_on_arrival(core: Core, ledger: Ledger) -> str | None:
    """24. Nothing is handed to a worker, nor a worker to anybody, whose deadline has passed.

    The deadline of a checkout is for the waiting; one that does not wait at all has not passed it.
    """
    for effect in ledger.effects:
        call = served(effect)
        at_once = call is not None and call.is_lease and isinstance(ledger.event, ev.Submit)
        if call is not None and call.deadline <= ledger.at and not at_once:
            return f"{call} got a worker at {ledger.at}, and its deadline was {call.deadline}"
    return None
