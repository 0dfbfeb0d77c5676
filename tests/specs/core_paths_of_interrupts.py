"""Ways through the core that chance seldom takes: calls that are told to stop.

They are told as those in `core_paths` are, and stand in its list.
"""

from __future__ import annotations

from remuda.statemachines.effects import Verdict
from remuda.statemachines.pool import PoolState
from remuda.statemachines.worker import WorkerState

from .core_paths import last, path, wait_until
from .core_paths_of_workers import PATHS, tell
from .core_rules import CoreRules

__all__ = ["PATHS", "tell"]


@path()
def it_stops_in_time(it: CoreRules) -> None:
    for ok in True, False:
        it.make_a_call_that_may_be_interrupted(3.0)
        it.be_seen_to_have_begun(0)
        it.the_next_thing_is_due()
        assert last(it) is Verdict.TIMED_OUT and it.alive(WorkerState.INTERRUPTING)
        it.make_a_call(60.0)
        it.stop_the_call(0, ok)
        it.answer_late_or_twice(1, False)
        it.answer(0, True)
        it.time_passes(7.0)
        it.tick()
    assert it.pool is PoolState.READY


@path(workers=(1, 2), breaker=(1, 1))
def it_does_not_stop_in_time(it: CoreRules) -> None:
    it.make_a_call_that_may_be_interrupted(60.0)
    it.give_up(0)
    it.news_come_about_what_is_over(0, "give up")
    it.many_make_a_call(2)
    it.the_next_thing_is_almost_due()
    it.tick()
    assert it.alive(WorkerState.INTERRUPTING)
    it.the_next_thing_is_due()
    assert it.alive(WorkerState.TERMINATING)
    it.answer_late_or_twice(0, False)
    it.exit_when_told_to(0, True, 1.0)
    it.come_up(0)
    assert it.pool is PoolState.READY


@path(breaker=(1, 1))
def a_call_that_is_told_to_stop_has_failed(it: CoreRules) -> None:
    it.make_a_call_that_may_be_interrupted(3.0, None, True)
    it.the_next_thing_is_due()
    it.stop_the_call(0)
    it.make_a_call(60.0)
    assert last(it) is Verdict.CIRCUIT_OPEN


@path(interval=6.0, burst=1)
def it_goes_on_as_before(it: CoreRules) -> None:
    """Its alarms, and what it counts: having stopped a call is having served."""
    it.time_passes(1.0)
    it.make_a_call_that_may_be_interrupted(3.0)
    it.the_next_thing_is_due()
    it.time_passes(1.0)
    it.stop_the_call(0)
    it.the_next_thing_is_almost_due()
    it.tick()
    assert not it.alive(WorkerState.CHECKING)
    it.the_next_thing_is_due()
    assert it.alive(WorkerState.CHECKING)
    it.be_well(0)
    it.die(0, 1.0)
    it.come_up(0)
    it.die(0, 1.0)
    it.the_next_thing_is_due()
    it.come_up(0)
    assert it.pool is PoolState.READY


@path(limit=2)
def it_stops_and_is_unfit(it: CoreRules) -> None:
    it.make_a_call_that_may_be_interrupted(3.0)
    it.the_next_thing_is_due()
    it.make_a_call(60.0)
    it.stop_the_call_and_be_unfit(0)
    assert it.alive(WorkerState.TERMINATING)
    it.exit_when_told_to(0, False, 1.0)
    it.come_up(0)
    it.answer(0, True)


@path()
def it_ends_instead_of_stopping(it: CoreRules) -> None:
    for end in (
        lambda: it.die(0, 1.0),
        lambda: it.write_garbage(0),
        lambda: it.hang_up(0),
    ):
        it.make_a_call_that_may_be_interrupted(3.0)
        it.the_next_thing_is_due()
        end()
        it.time_passes(3.0)
        it.tick()
        for _ in range(3):
            it.everything_works()
    assert it.pool is PoolState.READY


@path()
def it_is_retired_before_it_has_stopped(it: CoreRules) -> None:
    for end in (
        lambda: it.stop_the_call(0),
        lambda: it.stop_the_call_and_be_unfit(0),
        lambda: it.the_next_thing_is_due(),
        lambda: it.die(0, 1.0),
        lambda: it.a_check_ends_late_or_twice(0, 0, True),
    ):
        it.make_a_call_that_may_be_interrupted(3.0)
        it.the_next_thing_is_due()
        it.time_passes(1.0)
        it.retire(0)
        it.retire(0)
        assert it.alive(WorkerState.DRAINING)
        end()
        for _ in range(4):
            it.everything_works()
    assert it.pool is PoolState.READY


@path(workers=(2, 2))
def a_worker_that_is_on_its_way_out_is_not_told_to_stop(it: CoreRules) -> None:
    it.make_a_call_that_may_be_interrupted(3.0)
    it.retire(1)
    it.the_next_thing_is_due()
    assert it.alive(WorkerState.TERMINATING)
    it.make_a_call_that_may_be_interrupted(60.0)
    it.write_garbage(0)
    it.give_up(0)
    assert not it.alive(WorkerState.INTERRUPTING)


# ── On a checkout ───────────────────────────────────────────────────────────────────────────────


@path()
def its_holder_has_it_still(it: CoreRules) -> None:
    it.check_out(60.0, None)
    for ok in True, False:
        it.make_a_call_on_a_checkout(0, 3.0, False, True)
        it.the_next_thing_is_due()
        it.make_a_call_on_a_checkout(0, 60.0, False)  # which has to wait
        it.make_a_call_on_a_checkout(0, 0.0, False)  # which is too late anyway
        it.stop_the_call(0, ok)
        it.make_a_call_on_a_checkout(0, 60.0, False)
        it.answer(0, True)
    it.give_back(0)
    it.make_a_call(60.0)
    it.answer(0, True)


@path()
def it_does_not_stop_and_the_checkout_ends(it: CoreRules) -> None:
    it.check_out(60.0, None)
    it.make_a_call_on_a_checkout(0, 60.0, False, True)
    it.give_up(1)
    it.the_next_thing_is_due()
    assert last(it) is Verdict.DIED
    it.make_a_call_on_a_checkout_that_may_be_over(0)
    it.give_back_late_or_twice(0)


@path()
def it_is_given_back_before_it_has_stopped(it: CoreRules) -> None:
    for end in (
        lambda: it.stop_the_call(0),
        lambda: it.stop_the_call_and_be_unfit(0),
        lambda: it.the_next_thing_is_due(),
    ):
        it.check_out(60.0, None)
        it.make_a_call_on_a_checkout(0, 3.0, False, True)
        it.the_next_thing_is_due()
        it.give_back(0)
        it.make_a_call(60.0)
        assert it.alive(WorkerState.INTERRUPTING)
        end()
        for _ in range(4):
            it.everything_works()


@path()
def its_holder_leaves_before_it_has_stopped(it: CoreRules) -> None:
    it.check_out(60.0, None)
    it.make_a_call_on_a_checkout(0, 3.0, False, True)
    it.the_next_thing_is_due()
    it.give_up(0)
    assert it.alive(WorkerState.TERMINATING)
    it.exit_when_told_to(0, False, 1.0)


@path()
def it_dies_on_a_checkout_before_it_has_stopped(it: CoreRules) -> None:
    it.check_out(60.0, None)
    it.make_a_call_on_a_checkout(0, 3.0, False, True)
    it.the_next_thing_is_due()
    it.die(0, 1.0)
    assert last(it) is Verdict.DIED


@path()
def it_hangs_up_on_a_checkout_before_it_has_stopped(it: CoreRules) -> None:
    """That it has yet to stop is no answer any more: it never will."""
    it.check_out(60.0, None)
    it.make_a_call_on_a_checkout(0, 3.0, False, True)
    it.the_next_thing_is_due()
    it.hang_up(0)
    it.make_a_call_on_a_checkout(0, 60.0, False)
    assert last(it) is Verdict.DIED
    it.exit_when_told_to(0, False, 1.0)


@path()
def it_is_retired_on_a_checkout_before_it_has_stopped(it: CoreRules) -> None:
    for unfit in False, True:
        it.check_out(60.0, None)
        it.make_a_call_on_a_checkout(0, 3.0, False, True)
        it.the_next_thing_is_due()
        it.retire(0)
        it.make_a_call_on_a_checkout(0, 60.0, False)
        it.stop_the_call_and_be_unfit(0) if unfit else it.stop_the_call(0)
        it.time_passes(7.0)
        it.tick()
        assert it.alive(WorkerState.DRAINING)
        it.make_a_call_on_a_checkout(0, 3.0, False, True)
        it.answer(0, True)
        it.give_back(0)
        for _ in range(3):
            it.everything_works()


@path()
def it_stops_on_a_checkout_and_is_unfit(it: CoreRules) -> None:
    it.check_out(60.0, None)
    it.make_a_call_on_a_checkout(0, 3.0, False, True)
    it.the_next_thing_is_due()
    it.stop_the_call_and_be_unfit(0)
    assert it.alive(WorkerState.DRAINING)
    it.make_a_call_on_a_checkout(0, 60.0, False)
    it.answer(0, True)
    it.give_back(0)


# ── While the pool closes ───────────────────────────────────────────────────────────────────────


@path(workers=(2, 2))
def the_pool_closes_before_it_has_stopped(it: CoreRules) -> None:
    it.make_a_call_that_may_be_interrupted(3.0)
    it.make_a_call_that_may_be_interrupted(60.0)
    it.the_next_thing_is_due()
    it.close()
    it.give_up(0)
    it.stop_the_call(0)
    it.exit_when_told_to(0, False, 1.0)
    it.exit_when_told_to(0, False, 1.0)
    assert it.pool is PoolState.CLOSED


@path()
def the_pool_closes_and_it_never_stops(it: CoreRules) -> None:
    it.make_a_call_that_may_be_interrupted(3.0)
    it.the_next_thing_is_due()
    it.close()
    wait_until(it, lambda: it.pool is PoolState.CLOSED)
