"""Ways through the core that chance seldom takes, written down.

Each is a short story told with the rules of `core_rules`, so the naive model and the invariants judge
every step of it, and it ends as every run does. Together they take every step that the core can take.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from remuda.statemachines import events as ev
from remuda.statemachines.effects import Verdict
from remuda.statemachines.pool import PoolState

from .core_rules import CoreRules

Path = Callable[[CoreRules], None]
PATHS: dict[str, tuple[dict[str, Any], Path]] = {}

NUMBERS: dict[str, Any] = {
    "workers": (1, 1),
    "overflow": 0,
    "spares": 0,
    "linger": 2.0,
    "max_starting": 4,
    "max_waiting": 1000,
    "interval": math.inf,
    "limit": 2,
    "breaker": (100, 1),
    "burst": 2,
    "attempts": 2,
    "handovers": 1,
    "faults": 100,
    "may_close": True,
    "warm": True,
}


def path(**numbers: Any) -> Callable[[Path], Path]:
    def register(story: Path) -> Path:
        PATHS[story.__name__] = (NUMBERS | numbers, story)
        return story

    return register


def tell(name: str) -> CoreRules:
    """Go the way of this name, to its end."""
    numbers, story = PATHS[name]
    machine = CoreRules()
    machine.open(**numbers)
    story(machine)
    machine.teardown()
    return machine


def last(it: CoreRules) -> Verdict:
    return it.naive.verdicts[-1]


def wait_until(it: CoreRules, true: Callable[[], bool]) -> None:
    for _ in range(20):
        if true():
            return
        it.the_next_thing_is_almost_due()
        it.tick()
        it.the_next_thing_is_due()
    raise AssertionError("it never came")


# ── Starting ────────────────────────────────────────────────────────────────────────────────────


@path(warm=False, workers=(2, 3), max_starting=1)
def workers_start_one_after_another(it: CoreRules) -> None:
    it.many_make_a_call(4)
    it.come_up(0)
    it.come_up(0)
    assert it.pool is PoolState.READY
    it.come_up(0)
    it.everything_works_for_a_while(4)


@path(warm=False, workers=(4, 4), max_starting=2)
def two_start_at_a_time(it: CoreRules) -> None:
    assert len(it.alive()) == 2
    it.all_come_up()
    it.come_up(0)


@path(warm=False)
def a_boot_fails_by_its_own_word_and_the_pool_with_it(it: CoreRules) -> None:
    it.make_a_call(60.0)
    it.fail_to_boot(0)
    assert (it.pool, last(it)) == (PoolState.FAILED, Verdict.POOL_FAILED)
    it.make_a_call(60.0)
    it.check_out(60.0, None)
    it.news_come_from_the_dead(0, "boot")
    it.news_come_from_the_dead(0, "up")
    it.news_come_from_the_dead(0, "retire")


@path(warm=False)
def a_boot_hangs(it: CoreRules) -> None:
    it.make_a_call(60.0)
    it.the_next_thing_is_almost_due()
    it.tick()
    it.the_next_thing_is_due()
    assert it.pool is PoolState.FAILED


@path(warm=False, workers=(2, 2))
def the_journal_takes_its_time(it: CoreRules) -> None:
    it.time_passes(7.0)
    it.repeat_the_journal(0, 20.0)
    it.repeat_the_journal(1, 2.0)
    it.time_passes(1.0)
    it.repeat_the_journal(1, 20.0)
    it.come_up(1)
    it.the_next_thing_is_almost_due()
    it.tick()
    it.repeat_the_journal(0, 20.0)
    wait_until(it, lambda: it.pool is PoolState.FAILED)
    it.news_come_from_the_dead(0, "journal")
    it.exit_when_told_to(0, False, 1.0)
    it.the_next_thing_is_due()
    it.repeat_the_journal(0, 2.0)
    it.the_next_thing_is_due()
    assert it.pool is PoolState.IMPAIRED


@path(warm=False, workers=(2, 2))
def one_is_up_when_another_fails_to_boot(it: CoreRules) -> None:
    it.make_a_call(60.0)
    it.come_up(0)
    it.many_make_a_call(2)
    it.fail_to_boot(0)
    it.exit_when_told_to(0, False, 1.0)
    assert it.pool is PoolState.IMPAIRED
    it.the_next_thing_is_due()


@path()
def a_boot_fails_later(it: CoreRules) -> None:
    it.die(0, 0.5)
    it.the_next_thing_is_due()
    it.fail_to_boot(0)
    assert it.pool is PoolState.IMPAIRED


@path(warm=False)
def it_dies_while_it_boots_until_the_budget_is_spent(it: CoreRules) -> None:
    it.make_a_call(math.inf)
    for draw in 1.0, 0.5:
        it.die_while_booting(0, draw)
        it.the_next_thing_is_almost_due()
        it.tick()
        it.the_next_thing_is_due()
    it.die_while_booting(0, 0.0)
    assert it.pool is PoolState.FAILED
    it.the_next_thing_is_due()
    it.die_while_booting(0, 1.0)
    it.the_next_thing_is_due()
    it.come_up(0)
    assert it.pool is PoolState.READY


@path(warm=False, workers=(2, 2), burst=1)
def two_share_one_token(it: CoreRules) -> None:
    it.die_while_booting(0, 1.0)
    it.die_while_booting(0, 1.0)
    it.the_next_thing_is_due()
    it.die_while_booting(0, 0.5)
    assert it.pool is PoolState.FAILED
    for _ in range(4):
        it.the_next_thing_is_due()


@path(warm=False, workers=(3, 3), burst=1)
def three_wait_for_tokens(it: CoreRules) -> None:
    for _ in range(3):
        it.die_while_booting(0, 1.0)
    it.time_passes(7.0)
    it.time_passes(3.0)
    it.tick()
    it.the_next_thing_is_due()


@path(burst=1)
def a_ready_pool_fails_at_once(it: CoreRules) -> None:
    it.die(0, 1.0)
    it.the_next_thing_is_due()
    it.come_up(0)
    assert it.pool is PoolState.READY
    it.die(0, 1.0)
    assert it.pool is PoolState.FAILED
    it.make_a_call(8.0)
    it.close()


@path(warm=False, workers=(2, 2))
def a_start_is_retired(it: CoreRules) -> None:
    it.retire(0)
    it.retire(0)
    it.exit_when_told_to(0, False, 1.0)
    it.all_come_up()


# ── Working ─────────────────────────────────────────────────────────────────────────────────────


@path(workers=(2, 3))
def who_is_next(it: CoreRules) -> None:
    it.many_make_a_call(4)
    for session in "abab":
        it.make_a_call(math.inf, session)
    it.check_out(math.inf, "a")
    it.make_a_call(math.inf)
    it.everything_works_for_a_while(4)
    it.everything_works_for_a_while(4)
    it.everything_works_for_a_while(4)


@path(workers=(3, 3))
def idle_workers_are_used_last_in_first_out(it: CoreRules) -> None:
    it.many_make_a_call(3)
    for which in 1, 0, 0:
        it.answer(which, True)
    for _ in range(3):
        it.make_a_call(8.0)
    it.answer(2, False)
    it.make_a_call(8.0)


@path(workers=(2, 2))
def a_session_comes_back_to_its_worker(it: CoreRules) -> None:
    it.make_a_call(60.0, "a")
    it.make_a_call(60.0, "b")
    it.answer(1, True)
    it.answer(0, True)
    it.make_a_call_that_may_be_repeated(60.0, "a")
    it.make_a_call_that_may_be_repeated(60.0, "b")
    it.answer(1, True)
    it.answer(0, True)
    it.end_a_session("a")
    it.make_a_call(60.0, "a")
    it.answer(0, True)
    it.time_passes(3.0)
    it.make_a_call(60.0, "b")
    it.answer(0, True)
    it.the_next_thing_is_almost_due()
    it.tick()
    it.the_next_thing_is_due()
    it.the_next_thing_is_due()
    it.make_a_call(60.0, "b")


@path(workers=(2, 2), overflow=1, linger=15.0)
def the_worker_of_a_session_is_busy(it: CoreRules) -> None:
    it.make_a_call(60.0, "a")
    it.answer(0, True)
    it.make_a_call(60.0)
    it.make_a_call(60.0, "a")
    it.answer(1, True)
    it.make_a_call(60.0, "a")
    it.make_a_call(60.0, "b")
    it.come_up(0)
    it.answer(2, True)
    it.answer(0, True)
    it.make_a_call(60.0, "b")


@path(workers=(2, 2))
def a_session_has_lapsed_before_the_tick(it: CoreRules) -> None:
    it.make_a_call(60.0, "a")
    it.answer(0, True)
    it.make_a_call(60.0)
    it.make_a_call(60.0)
    it.answer(0, True)
    it.answer(0, True)
    it.time_passes(7.0)
    it.make_a_call(60.0, "a")


@path(max_waiting=2)
def the_queue_is_full(it: CoreRules) -> None:
    it.make_a_call(8.0)
    it.many_make_a_call(2)
    it.make_a_call_to_be_refused(8.0, False)
    assert last(it) is Verdict.FULL
    it.make_a_call_to_be_refused(8.0, True)
    it.give_up(1)
    it.make_a_call(8.0)


@path(max_waiting=0)
def nobody_may_wait(it: CoreRules) -> None:
    it.make_a_call(8.0)
    assert not it.naive.verdicts
    it.make_a_call_to_be_refused(8.0, False)
    assert last(it) is Verdict.FULL


@path()
def deadlines(it: CoreRules) -> None:
    it.make_a_call(0.0)
    assert last(it) is Verdict.TIMED_OUT
    it.make_a_call(8.0)
    it.be_seen_to_have_begun(0)
    it.make_a_call(3.0)
    it.make_a_call(8.0)
    it.the_next_thing_is_due()
    it.the_next_thing_is_almost_due()
    it.tick()
    it.the_next_thing_is_due()
    it.exit_when_told_to(0, True, 1.0)
    it.come_up(0)
    it.make_a_call(8.0)
    it.the_next_thing_is_due()


@path()
def deadlines_that_pass_before_the_tick(it: CoreRules) -> None:
    it.make_a_call(20.0)
    it.make_a_call(3.0)
    it.make_a_call(3.0)
    it.make_a_call(60.0)
    it.time_passes(3.0)
    it.give_up(1)
    assert last(it) is Verdict.TIMED_OUT
    it.answer(0, True)
    it.time_passes(30.0)
    it.time_passes(30.0)
    it.give_up(0)
    assert last(it) is Verdict.TIMED_OUT
    it.exit_when_told_to(0, True, 1.0)
    it.come_up(0)
    it.make_a_call(3.0)
    it.time_passes(7.0)
    it.answer(0, True)
    assert last(it) is Verdict.ANSWERED
    it.make_a_call(3.0)
    it.time_passes(7.0)
    it.die_before_it_begins(0, 1.0)
    assert last(it) is Verdict.TIMED_OUT
    it.come_up(0)
    it.make_a_call(3.0)
    it.time_passes(7.0)
    it.die_with_a_call(0, 1.0)
    assert last(it) is Verdict.TIMED_OUT


@path(workers=(2, 2))
def callers_leave(it: CoreRules) -> None:
    it.many_make_a_call(4)
    it.give_up(2)
    it.give_up(0)
    it.be_seen_to_have_begun(0)
    it.give_up(1)
    assert last(it) is Verdict.CANCELLED
    it.news_come_about_what_is_over(0, "give up")
    it.news_come_about_what_is_over(0, "begun")
    it.answer_late_or_twice(0, False)
    it.answer_late_or_twice(1, True)
    it.exit_when_told_to(0, True, 1.0)
    it.exit_twice(0, True)


@path(handovers=2)
def one_that_never_began_is_handed_on_until_it_has_been_often_enough(it: CoreRules) -> None:
    it.make_a_call_that_may_be_repeated(60.0)
    it.many_make_a_call(2)
    for _ in range(3):
        it.die_before_it_begins(0, 0.0)
        it.the_next_thing_is_due()
        it.come_up(0)
    assert Verdict.DIED in it.naive.verdicts


@path()
def who_is_too_late_does_not_cost_its_lane_a_turn(it: CoreRules) -> None:
    it.make_a_call(60.0)
    it.make_a_call(60.0, "a")
    it.make_a_call(3.0)
    it.make_a_call(60.0)
    it.make_a_call(60.0, "a")
    it.time_passes(7.0)
    for _ in range(4):
        it.answer(0, True)
    served = [number for _, number in it.sent]
    assert served == [1, 2, 4, 5] and it.naive.verdicts.count(Verdict.TIMED_OUT) == 1


@path()
def it_dies_at_the_moment_of_the_deadline(it: CoreRules) -> None:
    for die in it.die_before_it_begins, it.die_with_a_call:
        it.make_a_call(3.0)
        it.time_passes(3.0)
        die(0, 0.0)
        assert last(it) is Verdict.TIMED_OUT
        it.the_next_thing_is_due()
        it.come_up(0)


@path(breaker=(1, 1), attempts=2)
def it_was_tried_and_its_time_is_over_when_its_turn_comes(it: CoreRules) -> None:
    it.make_a_call(60.0)
    it.answer(0, True)
    it.make_a_call_that_may_be_repeated(8.0)
    it.die_with_a_call(0, 1.0)
    it.the_next_thing_is_due()
    it.time_passes(7.0)
    it.come_up(0)
    assert last(it) is Verdict.TIMED_OUT
    assert it.pool is PoolState.IMPAIRED


@path(handovers=0)
def one_that_never_began_is_not_handed_on(it: CoreRules) -> None:
    it.make_a_call_that_may_be_repeated(60.0)
    it.die_before_it_begins(0, 1.0)
    assert last(it) is Verdict.DIED


@path(attempts=3, burst=3)
def one_that_may_be_repeated_is_until_it_has_been_often_enough(it: CoreRules) -> None:
    it.make_a_call_that_may_be_repeated(60.0)
    it.be_seen_to_have_begun(0)
    it.be_seen_to_have_begun(0)
    for draw in 1.0, 0.5, 1.0:
        it.die_with_a_call(0, draw)
        it.make_a_call(60.0)
        while not it.in_hand():
            it.wait() if not it.everything_works() else None
        it.be_seen_to_have_begun(0)
    assert Verdict.UNKNOWN in it.naive.verdicts


@path(attempts=3)
def it_begins_unseen_and_dies_twice(it: CoreRules) -> None:
    it.make_a_call(60.0)
    it.answer(0, True)
    it.make_a_call_that_may_be_repeated(60.0)
    for _ in range(2):
        it.die_with_a_call(0, 1.0)
        while not it.in_hand():
            it.wait() if not it.everything_works() else None
    it.answer(0, True)
    assert it.calls[-1].attempts == 3


@path()
def one_that_is_repeated_succeeds(it: CoreRules) -> None:
    it.make_a_call(60.0)
    it.answer(0, True)
    it.make_a_call_that_may_be_repeated(60.0)
    it.die_with_a_call(0, 1.0)
    it.come_up(0)
    it.the_next_thing_is_due()
    it.answer(0, True)
    assert last(it) is Verdict.ANSWERED


@path()
def one_that_may_not_be_repeated_is_not(it: CoreRules) -> None:
    it.make_a_call(60.0)
    it.die_with_a_call(0, 1.0)
    assert last(it) is Verdict.UNKNOWN


@path(attempts=1)
def a_repetition_more_than_none_is_not_allowed(it: CoreRules) -> None:
    it.make_a_call_that_may_be_repeated(60.0)
    it.die_with_a_call(0, 1.0)
    assert last(it) is Verdict.UNKNOWN


@path()
def garbage(it: CoreRules) -> None:
    it.make_a_call(60.0)
    it.write_garbage(0)
    it.hang_up(0)
    it.exit_when_told_to(0, True, 1.0)
    assert last(it) is Verdict.VIOLATION
    it.the_next_thing_is_due()
    it.come_up(0)
    it.make_a_call(60.0)
    it.hang_up(0)
    it.news_come_from_the_dead(0, "channel")
    it.exit_when_told_to(0, True, 1.0)
    assert last(it) is Verdict.VIOLATION


@path()
def a_hang_up_is_no_violation(it: CoreRules) -> None:
    it.make_a_call(60.0)
    it.hang_up(0)
    it.exit_when_told_to(0, True, 1.0)
    assert last(it) is Verdict.UNKNOWN


@path()
def an_answer_may_still_come_from_one_that_goes(it: CoreRules) -> None:
    it.make_a_call(60.0)
    it.hang_up(0)
    it.answer(0, True)
    assert last(it) is Verdict.ANSWERED
    it.exit_when_told_to(0, True, 1.0)


@path(attempts=3)
def while_it_pauses(it: CoreRules) -> None:
    it.make_a_call_that_may_be_repeated(60.0)
    it.answer(0, True)
    it.make_a_call_that_may_be_repeated(60.0)
    it.die_with_a_call(0, 1.0)
    it.give_up(0)
    assert last(it) is Verdict.CANCELLED
    it.come_up(0)
    it.call(1.0, idempotent=True)
    it.die_with_a_call(0, 1.0)
    it.the_next_thing_is_due()
    assert last(it) is Verdict.TIMED_OUT
    it.everything_works_for_a_while(1)
    it.the_next_thing_is_due()
    it.everything_works_for_a_while(1)
    it.call(3.0, idempotent=True)
    it.die_with_a_call(0, 1.0)
    it.the_next_thing_is_due()
    it.the_next_thing_is_due()
    it.time_passes(3.0)
    it.tick()
    assert last(it) is Verdict.TIMED_OUT
    it.make_a_call_that_may_be_repeated(60.0)
    it.everything_works_for_a_while(1)
    it.everything_works_for_a_while(1)
    it.make_a_call_that_may_be_repeated(60.0)
    it.die_with_a_call(0, 1.0)
    it.close()
    assert last(it) is Verdict.CLOSED


@path(attempts=2, workers=(1, 1), burst=1)
def the_pool_fails_while_it_pauses(it: CoreRules) -> None:
    it.die(0, 1.0)
    it.the_next_thing_is_due()
    it.come_up(0)
    it.make_a_call_that_may_be_repeated(60.0)
    it.die_with_a_call(0, 1.0)
    assert (it.pool, last(it)) == (PoolState.FAILED, Verdict.POOL_FAILED)


# ── Checkouts ───────────────────────────────────────────────────────────────────────────────────


@path()
def a_checkout(it: CoreRules) -> None:
    it.check_out(3.0, "a")
    it.make_a_call_on_a_checkout(0, 60.0, False)
    it.make_a_call_on_a_checkout(0, 60.0, True)
    it.answer(0, True)
    it.make_a_call_on_a_checkout(0, 60.0, False)
    it.answer(0, False)
    it.make_a_call_on_a_checkout(0, 0.0, False)
    assert last(it) is Verdict.TIMED_OUT
    it.time_passes(7.0)
    it.tick()
    it.check_out(math.inf, None)
    it.give_back(0)
    it.give_back_late_or_twice(0)
    it.make_a_call_on_a_checkout_that_may_be_over(0)
    assert last(it) is Verdict.DIED
    it.give_back(0)


@path()
def who_waits_for_a_checkout_has_nothing_to_give_back(it: CoreRules) -> None:
    it.check_out(60.0, None)
    it.check_out(3.0, None)
    it.feed(ev.Checkin(it.calls[1]))
    it.call(9.0, lease=it.calls[1])
    assert last(it) is Verdict.DIED
    it.the_next_thing_is_due()
    assert last(it) is Verdict.TIMED_OUT
    it.give_up(0)
    assert last(it) is Verdict.CANCELLED


@path(interval=6.0)
def it_is_given_back_while_it_works(it: CoreRules) -> None:
    it.check_out(60.0, None)
    it.make_a_call_on_a_checkout(0, 60.0, False)
    it.give_back(0)
    assert last(it) is Verdict.RETURNED
    it.a_check_ends_late_or_twice(0, 0, False)
    it.the_next_thing_is_due()
    it.answer(0, True)
    it.exit_when_told_to(0, False, 1.0)


@path()
def it_is_given_back_while_it_works_and_dies(it: CoreRules) -> None:
    for began, verdict in (True, Verdict.UNKNOWN), (False, Verdict.DIED):
        it.check_out(60.0, None)
        it.make_a_call_on_a_checkout(0, 60.0, True)
        it.give_back(0)
        it.exits(it.alive()[0], began, 1.0)
        assert last(it) is verdict
        it.come_up(0)


@path()
def its_holder_leaves_when_its_waiting_time_would_be_over(it: CoreRules) -> None:
    it.check_out(3.0, None)
    it.time_passes(7.0)
    it.give_up(0)
    assert last(it) is Verdict.CANCELLED


@path()
def its_worker_dies(it: CoreRules) -> None:
    it.check_out(60.0, None)
    it.die(0, 1.0)
    assert last(it) is Verdict.DIED
    it.the_next_thing_is_due()
    it.come_up(0)
    for began in False, True:
        it.check_out(60.0, None)
        it.make_a_call_on_a_checkout(0, 60.0, True)
        it.answer(0, True)
        it.make_a_call_on_a_checkout(0, 60.0, True)
        it.exits(it.alive()[0], began, 1.0)
        it.come_up(0)


@path()
def its_worker_is_killed_and_it_is_given_back(it: CoreRules) -> None:
    it.check_out(60.0, None)
    it.make_a_call_on_a_checkout(0, 60.0, False)
    it.write_garbage(0)
    it.call(60.0, lease=it.calls[0])
    it.answer(0, True)
    it.call(60.0, lease=it.calls[0])
    assert last(it) is Verdict.DIED
    it.give_back(0)
    assert last(it) is Verdict.RETURNED
    it.exit_when_told_to(0, False, 1.0)


@path()
def its_call_passes_its_deadline(it: CoreRules) -> None:
    it.check_out(60.0, None)
    it.make_a_call_on_a_checkout(0, 3.0, False)
    it.the_next_thing_is_due()
    assert it.naive.verdicts[-2:] == [Verdict.DIED, Verdict.TIMED_OUT]
    it.exit_when_told_to(0, True, 1.0)
    it.come_up(0)
    it.check_out(60.0, None)
    it.make_a_call_on_a_checkout(0, 3.0, False)
    it.give_up(1)
    assert it.naive.verdicts[-2:] == [Verdict.DIED, Verdict.CANCELLED]


@path()
def its_holder_leaves_while_it_works(it: CoreRules) -> None:
    it.check_out(60.0, None)
    it.make_a_call_on_a_checkout(0, 60.0, False)
    it.give_up(0)
    assert last(it) is Verdict.CANCELLED
    it.exit_when_told_to(0, False, 1.0)
    assert last(it) is Verdict.DIED


@path(limit=3)
def an_error_on_it_implicates_the_worker(it: CoreRules) -> None:
    it.check_out(60.0, None)
    it.make_a_call_on_a_checkout(0, 60.0, False)
    it.answer_that_it_is_unfit(0)
    it.make_a_call_on_a_checkout(0, 60.0, False)
    it.answer(0, True)
    it.give_back(0)
    it.exit_when_told_to(0, False, 1.0)


@path()
def it_is_retired_while_it_is_held(it: CoreRules) -> None:
    it.check_out(60.0, None)
    it.retire(0)
    it.make_a_call_on_a_checkout(0, 60.0, False)
    it.answer(0, True)
    it.make_a_call_on_a_checkout(0, 60.0, False)
    it.answer_that_it_is_unfit(0)
    it.give_back(0)
