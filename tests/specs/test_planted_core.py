"""That the walk would have noticed: bugs that pools have had, planted in the real core.

Each is a small patch, and each has to be called by *its* name: the invariant that is meant to catch it
has to be the one that does, on the shortest way there is, and without the patch the same pool has to be
sound. Where several rules would see a bug, the ones that are not meant are blinded, and it says so.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import pytest

from remuda.specs import model as model_module
from remuda.specs.explorer import Exploration, Property, explore
from remuda.specs.invariants import NUMBERS, InvariantViolated
from remuda.specs.model import Profile, World
from remuda.specs.pool_model import PoolModel
from remuda.statemachines import core as core_module
from remuda.statemachines import events as ev
from remuda.statemachines.breaker import Breaker as CircuitBreaker
from remuda.statemachines.call import CALL, CallState, CallTrigger
from remuda.statemachines.canonical import canonical
from remuda.statemachines.core import Core
from remuda.statemachines.crew import Crew
from remuda.statemachines.effects import Answer, Closed, Verdict
from remuda.statemachines.slot import SLOT, SlotTrigger
from remuda.statemachines.subjects import Call, Pool, Slot, SlotKind, Worker
from remuda.statemachines.timers import Timers
from remuda.statemachines.waiters import Waiters
from remuda.statemachines.worker import WorkerState
from tests.specs.pools import CHECKED, ONCE, policy

Plant = Callable[[pytest.MonkeyPatch], None]
BUGS: dict[str, tuple[str, Profile, str, Plant]] = {}
"""What is wrong → the name of the rule that must say so, where, which rules are blinded, and how."""


def bug(name: str, *, blind: str = "", **profile: Any) -> Callable[[Plant], Plant]:
    """Register a planted bug.

    Args:
        name: the rule that has to see it.
        blind: a rule that would see it earlier and is left out, or "always" for all of that kind.
        profile: where it is looked for.
    """

    def register(plant: Plant) -> Plant:
        profile.setdefault("policy", policy())
        BUGS[plant.__name__] = (name, Profile(**profile), blind, plant)
        return plant

    return register


class Blinded(PoolModel):
    """Does not see everything."""

    def __init__(self, profile: Profile, blind: str) -> None:
        super().__init__(profile)
        self.blind = blind

    def properties(self) -> Sequence[Property[World]]:
        return [p for p in super().properties() if self.blind not in (p.name, p.kind)]


def walk(profile: Profile, blind: str = "", **options: Any) -> Exploration:
    return explore(Blinded(profile, blind), **options)


def handler(patch: pytest.MonkeyPatch, event: type, wrapped: Callable[[Any, Core, Any, float], None]) -> None:
    """Have `wrapped(original, core, event, now)` handle this kind of event."""
    original = core_module._HANDLERS[event]
    patch.setitem(core_module._HANDLERS, event, lambda core, news, now: wrapped(original, core, news, now))


@bug("conservation", policy=policy(1, overflow=1, linger=1.0), callers=3)
def overflow_is_not_counted(patch: pytest.MonkeyPatch) -> None:
    count = Crew.size
    patch.setattr(Crew, "size", lambda crew, kind: 0 if kind is SlotKind.OVERFLOW else count(crew, kind))
    patch.setattr(Crew, "at_full_size", False)


@bug("conservation", faults=1, what=("garbage",))
def a_worker_is_gone_when_it_is_condemned(patch: pytest.MonkeyPatch) -> None:
    condemn = Crew.condemn

    def forget(crew: Crew, worker: Worker, cause: str, now: float, *, on_purpose: bool) -> None:
        condemn(crew, worker, cause, now, on_purpose=on_purpose)
        crew.slots.pop(worker.slot.index, None)

    patch.setattr(Crew, "condemn", forget)


@bug("exclusive_lease", cancel=True)
def who_leaves_keeps_the_worker(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Core, "_take_off", staticmethod(lambda worker, call: setattr(call, "worker", None)))


@bug("an_interrupt_has_an_end", kinds=("soft",), deadline=10.0)
def grace_never_ends(patch: pytest.MonkeyPatch) -> None:
    interrupt = Crew.interrupt

    def endlessly(crew: Crew, worker: Worker, call: Call, cause: str, now: float) -> None:
        interrupt(crew, worker, call, cause, now)
        crew.timers.disarm(worker)

    patch.setattr(Crew, "interrupt", endlessly)


@bug("an_interrupt_has_an_end", kinds=("soft",), cancel=True, retire=1)
def grace_ends_with_being_retired(patch: pytest.MonkeyPatch) -> None:
    retire = Crew.retire

    def forget(crew: Crew, worker: Worker, reason: str, now: float) -> None:
        retire(crew, worker, reason, now)
        if worker.state is WorkerState.DRAINING:
            crew.timers.disarm(worker)

    patch.setattr(Crew, "retire", forget)


@bug("no_dirty_worker", kinds=("soft",), cancel=True)
def who_was_told_to_stop_is_free_before_it_has(patch: pytest.MonkeyPatch) -> None:
    interrupt = Crew.interrupt

    def at_once(crew: Crew, worker: Worker, call: Call, cause: str, now: float) -> None:
        interrupt(crew, worker, call, cause, now)
        crew.stopped(worker, now)

    patch.setattr(Crew, "interrupt", at_once)


@bug("late_news_is_no_news", policy=policy(1), kinds=("soft",), calls=2, callers=1, cancel=True)
def any_answer_shows_that_it_has_stopped(patch: pytest.MonkeyPatch) -> None:
    def any_one(original: Any, core: Core, event: ev.Replied, now: float) -> None:
        told = event.worker.interrupted
        number = event.call_id if told is None else told.id
        original(core, ev.Replied(event.worker, number, event.reply, event.ok, event.unfit), now)

    handler(patch, ev.Replied, any_one)


@bug("exclusive_lease", policy=policy(1), kinds=("lease", "soft"), callers=1, calls=2, cancel=True)
def a_checkout_is_forgotten_when_its_call_has_stopped(patch: pytest.MonkeyPatch) -> None:
    stopped = Crew.stopped

    def forget(crew: Crew, worker: Worker, now: float) -> None:
        worker.occupant = None
        stopped(crew, worker, now)

    patch.setattr(Crew, "stopped", forget)


@bug("no_lost_worker")
def a_worker_that_was_given_back_is_not_idle(patch: pytest.MonkeyPatch) -> None:
    to_idle = Crew._to_idle
    patch.setattr(Crew, "_to_idle", lambda crew, worker, now: None if worker.served else to_idle(crew, worker, now))


@bug("no_lost_wakeup", policy=policy(1))
def nobody_is_woken_by_a_worker_that_is_given_back(patch: pytest.MonkeyPatch) -> None:
    settle = Core._settle

    def doze(core: Core, now: float) -> None:
        if core.crew.changed or not core.crew.has_idle:
            settle(core, now)

    patch.setattr(Core, "_settle", doze)


@bug("no_lost_wakeup", policy=policy(2))
def the_pool_does_not_grow(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Crew, "at_full_size", True)


@bug("departed_waiters_vanish", cancel=True)
def ghosts_stay_in_the_queue(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Waiters, "remove", lambda waiters, waiter: True)


@bug("one_deadline_bounds_it", deadline=10.0)
def the_time_starts_anew_with_the_worker(patch: pytest.MonkeyPatch) -> None:
    assign = Core._assign

    def generous(core: Core, call: Call, now: float) -> None:
        assign(core, call, now)
        core.timers.arm(call, call.deadline + 10.0)

    patch.setattr(Core, "_assign", generous)


@bug("one_deadline_bounds_it", deadline=10.0)
def deadlines_are_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    def deaf(original: Any, core: Core, event: ev.Tick, now: float) -> None:
        late = [call for call in core.calls.values() if call.deadline <= now]
        for call in late:
            core.timers.disarm(call)
        original(core, event, now)

    handler(patch, ev.Tick, deaf)


@bug("cancelling_spares_the_start", cancel=True)
def who_leaves_takes_the_start_along(patch: pytest.MonkeyPatch) -> None:
    def greedy(original: Any, core: Core, event: ev.GiveUp, now: float) -> None:
        original(core, event, now)
        for worker in list(core.crew.workers()):
            if worker.state is WorkerState.INITIALIZING:
                core.crew.condemn(worker, "nobody waits for it", now, on_purpose=True)

    handler(patch, ev.GiveUp, greedy)


@bug("fifo_within_a_lane", policy=policy(1))
def last_come_first_served(patch: pytest.MonkeyPatch) -> None:
    def last(waiters: Waiters[Call]) -> Call:
        waiter = list(waiters)[-1]
        Waiters.remove(waiters, waiter)
        return waiter

    patch.setattr(Waiters, "first", lambda waiters: list(waiters)[-1])
    patch.setattr(Waiters, "pop", last)


@bug("fifo_within_a_lane", policy=policy(1), callers=4, kinds=("shared", "plain"))
def a_lane_is_emptied_before_the_next(patch: pytest.MonkeyPatch) -> None:
    def same(waiters: Waiters[Call]) -> Call:
        waiter = next(iter(waiters))
        Waiters.remove(waiters, waiter)
        return waiter

    patch.setattr(Waiters, "pop", same)


@bug("exactly_one_outcome", deadline=10.0)
def a_timeout_is_told_twice(patch: pytest.MonkeyPatch) -> None:
    conclude = Core._conclude

    def twice(core: Core, call: Call, verdict: Verdict, *rest: Any, **more: Any) -> None:
        conclude(core, call, verdict, *rest, **more)
        if verdict is Verdict.TIMED_OUT:
            core._effects.append(Answer(call, verdict))

    patch.setattr(Core, "_conclude", twice)


@bug("exactly_one_outcome", faults=1, what=("die",))
def a_call_is_forgotten_with_its_worker(patch: pytest.MonkeyPatch) -> None:
    def forget(core: Core, call: Call, worker: Worker, *rest: Any) -> None:
        worker.occupant = None
        del core.calls[call.id]

    patch.setattr(Core, "_lost", forget)


@bug("no_dirty_worker", cancel=True)
def the_worker_of_a_caller_who_left_is_used_again(patch: pytest.MonkeyPatch) -> None:
    condemn = Crew.condemn

    def spare(crew: Crew, worker: Worker, cause: str, now: float, *, on_purpose: bool) -> None:
        if worker.state is WorkerState.BUSY and on_purpose:
            crew.release(worker, now, unfit=False)
        else:
            condemn(crew, worker, cause, now, on_purpose=on_purpose)

    patch.setattr(Crew, "condemn", spare)


@bug("close_ends_everything", close=True)
def who_waits_is_not_told_that_the_pool_closes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Core, "_refuse_all", lambda core, verdict, now: None)


@bug("close_ends_everything", close=True)
def a_closing_pool_starts_workers(patch: pytest.MonkeyPatch) -> None:
    def reopen(original: Any, core: Core, event: ev.Close, now: float) -> None:
        original(core, event, now)
        core.crew.closing = False

    handler(patch, ev.Close, reopen)


@bug("close_ends_everything", close=True)
def closing_has_no_bound(patch: pytest.MonkeyPatch) -> None:
    def endless(original: Any, core: Core, event: ev.Close, now: float) -> None:
        original(core, event, now)
        core.timers.disarm(core._pool_alarm)

    handler(patch, ev.Close, endless)


@bug("not_ready_before_usable")
def a_worker_counts_from_its_start(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Crew, "usable", lambda crew: len(list(crew.workers())))
    add = Crew._add

    def count(crew: Crew, kind: SlotKind, now: float) -> None:
        add(crew, kind, now)
        crew.changed = True

    patch.setattr(Crew, "_add", count)


@bug("what_is_the_users_is_not_touched")
def results_are_looked_into(patch: pytest.MonkeyPatch) -> None:
    def curious(original: Any, core: Core, event: ev.Replied, now: float) -> None:
        assert str(event.reply)
        original(core, event, now)

    handler(patch, ev.Replied, curious)


@bug("dispatch_never_blocks")
def a_call_is_tied_to_a_worker_that_starts(patch: pytest.MonkeyPatch) -> None:
    def tie(original: Any, core: Core, event: ev.Submit, now: float) -> None:
        original(core, event, now)
        call = event.call
        for worker in core.crew.workers():
            if worker.state is WorkerState.INITIALIZING and worker.occupant is None and call in core.waiters:
                core.waiters.remove(call)
                CALL.step(call, CallTrigger.ASSIGN, now)
                call.worker, worker.occupant = worker, call

    handler(patch, ev.Submit, tie)


@bug("destruction_is_idempotent", kinds=("lease",), faults=1, what=("garbage",))
def who_is_killed_and_given_back_is_asked_to_go(patch: pytest.MonkeyPatch) -> None:
    def gullible(original: Any, core: Core, event: ev.Checkin, now: float) -> None:
        worker = event.lease.worker
        going = worker is not None and worker.state is WorkerState.TERMINATING
        original(core, event, now)
        if going:
            core.crew.release(worker, now, unfit=False)

    handler(patch, ev.Checkin, gullible)


@bug("nothing_dead_on_arrival", policy=policy(1), deadline=10.0)
def work_is_handed_out_without_a_look_at_the_clock(patch: pytest.MonkeyPatch) -> None:
    def hasty(core: Core, now: float) -> None:
        while core.waiters and core.crew.has_idle:
            core._assign(core.waiters.pop(), now)

    patch.setattr(Core, "_dispatch", hasty)


@bug("time_is_monotonic")
def one_handler_has_a_clock_of_its_own(patch: pytest.MonkeyPatch) -> None:
    handler(patch, ev.Initialized, lambda original, core, event, now: original(core, event, now + 1e9))


@bug("only_legal_steps", blind="late_news_is_no_news", close=True)
def a_worker_is_checked_in_twice(patch: pytest.MonkeyPatch) -> None:
    def twice(original: Any, core: Core, event: ev.Replied, now: float) -> None:
        original(core, event, now)
        core.crew.release(event.worker, now, unfit=False)

    handler(patch, ev.Replied, twice)


@bug("never_breaks_down", cancel=True)
def a_bug_in_the_code(patch: pytest.MonkeyPatch) -> None:
    handler(patch, ev.GiveUp, lambda original, core, event, now: core.calls.pop(-1))


@bug(
    "a_checkout_is_given_back_once",
    blind="late_news_is_no_news",
    kinds=("lease",),
    faults=1,
    what=("die",),
    policy=policy(1),
)
def what_is_not_ones_own_is_taken_back(patch: pytest.MonkeyPatch) -> None:
    """As when a pool takes back whatever looks like a worker of it."""

    def trusting(original: Any, core: Core, event: ev.Checkin, now: float) -> None:
        if event.lease.id in core.calls:
            original(core, event, now)

    handler(patch, ev.Checkin, trusting)
    patch.setattr(World, "refused", World.feed)


@bug("late_news_is_no_news", kinds=("lease",), faults=1, what=("die",), policy=policy(1))
def who_is_refused_has_changed_something(patch: pytest.MonkeyPatch) -> None:
    def hasty(original: Any, core: Core, event: ev.Checkin, now: float) -> None:
        if event.lease.id not in core.calls:
            core.breaker.failures_in_a_row += 1
        original(core, event, now)

    handler(patch, ev.Checkin, hasty)


@bug("cancelling_is_not_swallowed", cancel=True)
def who_leaves_while_it_runs_has_to_stay(patch: pytest.MonkeyPatch) -> None:
    def deaf(original: Any, core: Core, event: ev.GiveUp, now: float) -> None:
        if event.call.state is CallState.QUEUED:
            original(core, event, now)

    handler(patch, ev.GiveUp, deaf)


@bug("in_use_is_never_retired", retire=1)
def who_is_replaced_by_policy_does_not_finish(patch: pytest.MonkeyPatch) -> None:
    def impatient(original: Any, core: Core, event: ev.Retire, now: float) -> None:
        core.crew.condemn(event.worker, event.reason, now, on_purpose=True)

    handler(patch, ev.Retire, impatient)


@bug(
    "in_use_is_never_retired",
    blind="late_news_is_no_news",
    policy=policy(1, health=CHECKED),
    callers=1,
    kinds=("lease",),
    calls=2,
)
def an_old_alarm_is_taken_for_a_failed_check(patch: pytest.MonkeyPatch) -> None:
    """As it was until the model checker found it."""
    states = (WorkerState.CHECKING, WorkerState.DRAINING)
    patch.setattr(Crew, "_is_checking", staticmethod(lambda w: w.state in states and w.occupant is None))


@bug("what_waits_for_time_has_an_alarm", faults=1, what=("die",), callers=1)
def nobody_wakes_a_slot_that_backs_off(patch: pytest.MonkeyPatch) -> None:
    arm = Timers.arm
    patch.setattr(Timers, "arm", lambda timers, armed, due: None if type(armed) is Slot else arm(timers, armed, due))


@bug("what_waits_for_time_has_an_alarm", policy=policy(1, health=CHECKED), callers=1, faults=1, what=("check",))
def a_suspected_worker_is_not_checked_again(patch: pytest.MonkeyPatch) -> None:
    arm = Timers.arm

    def forgetful(timers: Timers, armed: Any, due: float) -> None:
        if not (type(armed) is Worker and armed.state is WorkerState.DEGRADED):
            arm(timers, armed, due)
        else:
            timers.disarm(armed)

    patch.setattr(Timers, "arm", forgetful)


@bug(
    "what_waits_for_time_has_an_alarm", policy=policy(1, breaker=ONCE), callers=1, kinds=("idempotent",), faults=1,
    what=("die",), deadline=5.0,
)  # fmt: skip
def a_breaker_that_opens_at_an_odd_moment_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    """As it was until the model checker found it."""
    dispatch = Core._dispatch

    def without_a_look(core: Core, now: float) -> None:
        dispatch(core, now)
        core._breaker_state = core.breaker.state

    patch.setattr(Core, "_dispatch", without_a_look)


@bug("failed_starts_back_off", faults=1, what=("die",), callers=1)
def who_fails_is_started_again_at_once(patch: pytest.MonkeyPatch) -> None:
    def at_once(crew: Crew, slot: Slot, draw: float, now: float) -> None:
        SLOT.step(slot, SlotTrigger.RESTART, now)
        crew._to_start.append(slot)

    patch.setattr(Crew, "_restart_later", at_once)


@bug("a_check_and_a_call_exclude_each_other", policy=policy(1, health=CHECKED), callers=1)
def a_worker_is_given_a_call_while_it_is_checked(patch: pytest.MonkeyPatch) -> None:
    def crowd(original: Any, core: Core, event: ev.Submit, now: float) -> None:
        original(core, event, now)
        call = event.call
        for worker in core.crew.workers():
            if worker.state is WorkerState.CHECKING and worker.occupant is None and call in core.waiters:
                core.waiters.remove(call)
                CALL.step(call, CallTrigger.ASSIGN, now)
                call.worker, worker.occupant = worker, call

    handler(patch, ev.Submit, crowd)


@bug("the_verdict_is_true", faults=1, what=("die",))
def all_who_lose_their_worker_are_told_that_it_had_begun(patch: pytest.MonkeyPatch) -> None:
    def gloomy(original: Any, core: Core, event: ev.Exited, now: float) -> None:
        original(core, ev.Exited(event.worker, event.cause, began=True, draw=event.draw), now)

    handler(patch, ev.Exited, gloomy)


@bug("the_verdict_is_true", blind="late_news_is_no_news", cancel=True)
def a_late_answer_is_given_to_the_next(patch: pytest.MonkeyPatch) -> None:
    def generous(original: Any, core: Core, event: ev.Replied, now: float) -> None:
        if event.worker.call is None and core.waiters:
            call = core.waiters.pop()
            CALL.step(call, CallTrigger.ASSIGN, now)
            CALL.step(call, CallTrigger.START, now)
            CALL.step(call, CallTrigger.SUCCEED, now)
            del core.calls[call.id]
            core.timers.disarm(call)
            core.breaker.record(call.permit, core_module.Outcome.SUCCESS, now)
            core._effects.append(Answer(call, Verdict.ANSWERED, event.reply))
        original(core, event, now)

    handler(patch, ev.Replied, generous)


@bug("at_most_once", faults=1, what=("die",))
def what_had_begun_is_done_again(patch: pytest.MonkeyPatch) -> None:
    def hopeful(original: Any, core: Core, event: ev.Exited, now: float) -> None:
        original(core, ev.Exited(event.worker, event.cause, began=False, draw=event.draw), now)

    handler(patch, ev.Exited, hopeful)


@bug("at_most_once", faults=3, what=("die",), callers=1, policy=policy(1, burst=4))
def a_call_that_kills_is_handed_on_for_ever(patch: pytest.MonkeyPatch) -> None:
    lost = Core._lost

    def forgetful(core: Core, call: Call, *rest: Any) -> None:
        call.handovers = 0
        lost(core, call, *rest)

    patch.setattr(Core, "_lost", forgetful)


@bug("permits_end_with_their_calls", cancel=True)
def a_probe_that_is_cancelled_is_never_heard_of(patch: pytest.MonkeyPatch) -> None:
    record = CircuitBreaker.record

    def leaky(breaker: CircuitBreaker, permit: Any, outcome: Any, now: float) -> None:
        if outcome is not core_module.Outcome.NEUTRAL:
            record(breaker, permit, outcome, now)

    patch.setattr(CircuitBreaker, "record", leaky)


@bug("not_ready_before_usable", deadline=10.0, policy=policy(1, breaker=ONCE))
def the_pool_is_ready_while_its_breaker_is_open(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Pool, "enough_workers", property(lambda pool: pool.usable >= pool.needed))


@bug("late_news_is_no_news", faults=1, what=("die",), callers=1, policy=policy(1))
def news_of_a_dead_worker_is_taken_for_its_successors(patch: pytest.MonkeyPatch) -> None:
    """As when workers are told by the number of their slot."""

    def confused(original: Any, core: Core, event: ev.Exited, now: float) -> None:
        worker = event.worker
        if worker.state is WorkerState.TERMINATED and worker.slot.worker is not None:
            event = ev.Exited(worker.slot.worker, event.cause, event.began, event.draw)
        original(core, event, now)

    handler(patch, ev.Exited, confused)


@bug("late_news_is_no_news", policy=policy(1, health=CHECKED), callers=1)
def the_answer_to_an_old_check_counts(patch: pytest.MonkeyPatch) -> None:
    checked = Crew.checked

    def any_will_do(crew: Crew, worker: Worker, number: int, *rest: Any) -> None:
        checked(crew, worker, worker.checks, *rest)

    patch.setattr(Crew, "checked", any_will_do)


@bug("late_news_is_no_news", close=True)
def closing_twice_starts_the_time_anew(patch: pytest.MonkeyPatch) -> None:
    def again(original: Any, core: Core, event: ev.Close, now: float) -> None:
        original(core, event, now)
        if core.pool_due < float("inf"):
            core.timers.arm(core._pool_alarm, now + core.policy.shutdown_timeout - core.policy.stop_grace)

    handler(patch, ev.Close, again)


@bug("every call ends", faults=1, what=("die",), callers=1, kinds=("idempotent",))
def nobody_wakes_a_call_between_its_attempts(patch: pytest.MonkeyPatch) -> None:
    arm = Timers.arm
    patch.setattr(Timers, "arm", lambda timers, armed, due: None if type(armed) is Call else arm(timers, armed, due))


@bug("every call ends", faults=1, what=("die",), callers=1, cancel=True, blind="always")
def nobody_wakes_it_and_only_patience_ends(patch: pytest.MonkeyPatch) -> None:
    nobody_wakes_a_slot_that_backs_off(patch)


@bug("there are enough workers again", kinds=("lease",), callers=1, retire=1, policy=policy(1), blind="always")
def a_worker_that_was_retired_while_it_was_held_stays(patch: pytest.MonkeyPatch) -> None:
    release = Crew.release

    def forget(crew: Crew, worker: Worker, now: float, unfit: bool) -> None:
        if worker.state is not WorkerState.DRAINING:
            release(crew, worker, now, unfit)

    patch.setattr(Crew, "release", forget)


@bug("a pool that closes is closed", close=True, blind="always")
def the_end_is_not_told(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Core, "_end", lambda core, now: core._effects.append(Closed()))


@bug("there are enough workers again", policy=policy(2, min_workers=2, burst=1), callers=1, faults=2, what=("die",))
def a_slot_out_of_tokens_waits_for_ever(patch: pytest.MonkeyPatch) -> None:
    """It looks again and again, and there is never one."""

    def never(slot_due: Any) -> Any:
        def look(crew: Crew, slot: Slot, wanted: bool, now: float) -> None:
            if slot.attempts > 1:
                crew.timers.arm(slot, now + 1.0)
            else:
                slot_due(crew, slot, wanted, now)

        return look

    patch.setattr(Crew, "slot_due", never(Crew.slot_due))


@bug("dishonest key", policy=policy(1, burst=1), faults=1, what=("die",), deadline=1.5)
def a_key_that_only_ranks_due_times(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(model_module, "canonical", lambda core, now, exact, about: canonical(core, now, about=about))


@bug("dishonest key", policy=policy(1), calls=2)
def a_key_that_does_not_know_who_may_call(patch: pytest.MonkeyPatch) -> None:
    key = World.key

    def blunt(world: World) -> Hashable:
        numbers = [caller.calls for caller in world.callers]
        for caller in world.callers:
            caller.calls = 0
        try:
            return key(world)
        finally:
            for caller, calls in zip(world.callers, numbers, strict=True):
                caller.calls = calls

    patch.setattr(World, "key", blunt)


# ── Spares ──────────────────────────────────────────────────────────────────────────────────────


@bug("a_spare_stands_in", policy=policy(1, spares=1), callers=1, faults=1, what=("die",))
def nobody_stands_in(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Crew, "_fill", lambda crew, slot, now: None)


@bug("conservation", policy=policy(1, spares=1), callers=1, faults=1, what=("die",))
def a_spare_takes_a_place_and_leaves_none(patch: pytest.MonkeyPatch) -> None:
    fill = Crew._fill

    def keeps(crew: Crew, slot: Slot, now: float) -> None:
        before = slot.kind
        fill(crew, slot, now)
        slot.kind = before

    patch.setattr(Crew, "_fill", keeps)


@bug("no_lost_wakeup", policy=policy(2, spares=1), callers=2)
def a_spare_takes_a_new_place_and_no_call(patch: pytest.MonkeyPatch) -> None:
    def settle(core: Core, now: float) -> None:
        crew = core.crew
        if crew.changed or core.breaker.state is not core._breaker_state:
            core._assess(now)
        if core.waiters and crew.has_idle:
            core._dispatch(now)
        if core.waiters and not crew.at_full_size:
            crew.grow(len(core.waiters), now)

    patch.setattr(Core, "_settle", settle)


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_called_by_its_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rule, profile, blind, plant = BUGS[name]
    with monkeypatch.context() as patch:
        plant(patch)
        found = walk(profile, blind, max_states=6000, distrust=1 if rule == "dishonest key" else 0)
        names = [one.name for one in found.counterexamples]
        assert names[:1] == [rule], str(found)
        assert len(names) == 1 or blind == "always", str(found)
        path = found.counterexamples[0].path
        if rule in NUMBERS and path:  # the way there is real, and its last step is the one that breaks the rule
            world = World(profile)
            for action in path[:-1]:
                world.do(action)
            with pytest.raises(InvariantViolated) as violated:
                world.do(path[-1])
            assert violated.value.name == rule
    sound = walk(profile, blind, max_states=1500)  # it was the bug, and not the pool
    assert not sound.counterexamples, str(sound)


def test_there_is_a_bug_for_every_rule() -> None:
    rules = {p.name for p in PoolModel(Profile(policy=policy())).properties()}
    assert rules >= set(NUMBERS)
    assert rules <= {rule for rule, *_ in BUGS.values()}
    assert len(BUGS) >= 50


def test_the_way_to_a_bug_is_the_shortest_and_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    rule, profile, _, plant = BUGS["who_is_killed_and_given_back_is_asked_to_go"]
    plant(monkeypatch)
    one = walk(profile).counterexamples[0]
    assert (one.name, len(one.path)) == (rule, 4)
    assert str(one).splitlines()[1:] == [
        "  1. come up 0",
        "  2. call 0 lease",
        "  3. write garbage 0",
        "  4. give back 0",
    ]


def test_a_bug_at_the_very_first_event_is_one_without_a_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Crew, "_start_some", lambda crew, now: [slot for slot in crew.slots.values() if 1 / 0])
    found = walk(Profile(policy=policy()))
    assert [(one.name, one.path) for one in found.counterexamples] == [("never_breaks_down", ())]
