"""Ways through the core that chance seldom takes: workers, the breaker, and whoever runs the pool.

They are told as those in `core_paths` are, and stand in its list.
"""

from __future__ import annotations

from remuda.statemachines.effects import Verdict
from remuda.statemachines.pool import PoolState
from remuda.statemachines.worker import WorkerState

from .core_paths import PATHS, last, path, tell, wait_until
from .core_rules import CoreRules

__all__ = ["PATHS", "tell"]


# ── Health ──────────────────────────────────────────────────────────────────────────────────────


@path(interval=6.0, limit=3)
def checks(it: CoreRules) -> None:
    it.the_next_thing_is_almost_due()
    it.tick()
    it.the_next_thing_is_due()
    it.make_a_call(60.0)
    it.be_well(0)
    it.a_check_ends_late_or_twice(0, 0, False)
    it.answer(0, True)
    it.time_passes(3.0)
    it.make_a_call(60.0)
    it.answer(0, True)
    it.the_next_thing_is_due()
    it.the_next_thing_is_due()
    it.be_unwell(0)
    assert it.pool is PoolState.IMPAIRED
    it.make_a_call(60.0)
    it.the_next_thing_is_due()
    assert it.pool is PoolState.IMPAIRED
    it.a_check_ends_late_or_twice(0, 1, True)
    it.the_next_thing_is_due()
    it.the_next_thing_is_due()
    it.be_well(0)
    assert it.pool is PoolState.READY


@path(workers=(1, 2), limit=3)
def one_is_suspected_and_the_other_dies(it: CoreRules) -> None:
    it.many_make_a_call(2)
    it.come_up(0)
    it.answer_that_it_is_unfit(0)
    it.the_next_thing_is_due()
    assert it.alive(WorkerState.CHECKING) and it.pool is PoolState.READY
    it.die_with_a_call(0, 1.0)
    assert it.pool is PoolState.IMPAIRED


@path(interval=6.0, limit=2)
def checks_fail_too_often(it: CoreRules) -> None:
    it.the_next_thing_is_due()
    it.the_next_thing_is_due()
    it.the_next_thing_is_due()
    it.be_unwell(0)
    assert it.alive(WorkerState.TERMINATING)
    it.exit_when_told_to(0, False, 1.0)


@path(limit=2)
def answers_that_implicate_the_worker(it: CoreRules) -> None:
    it.make_a_call(60.0)
    it.answer_that_it_is_unfit(0)
    it.make_a_call(60.0)
    it.the_next_thing_is_due()
    it.be_well(0)
    it.answer_that_it_is_unfit(0)
    it.the_next_thing_is_due()
    it.be_unwell(0)
    it.exit_when_told_to(0, False, 1.0)
    it.come_up(0)


@path(limit=1)
def one_such_answer_is_enough(it: CoreRules) -> None:
    it.make_a_call(60.0)
    it.answer_that_it_is_unfit(0)
    for _ in range(3):
        it.the_next_thing_is_almost_due()
        it.tick()
        it.the_next_thing_is_due()
    it.exit_when_told_to(0, False, 1.0)


@path(interval=6.0, limit=1)
def it_dies_while_it_is_checked(it: CoreRules) -> None:
    for end in it.die, lambda which, draw: it.write_garbage(which):
        it.the_next_thing_is_due()
        assert it.alive(WorkerState.CHECKING)
        end(0, 0.0)
        it.everything_works_for_a_while(1)
        it.the_next_thing_is_due()
        it.everything_works_for_a_while(1)
    it.the_next_thing_is_due()
    it.the_next_thing_is_due()
    assert it.alive(WorkerState.TERMINATING)


@path(interval=6.0, limit=3)
def it_goes_while_it_is_checked(it: CoreRules) -> None:
    for end in it.be_well, it.be_unwell, lambda _: it.the_next_thing_is_due():
        it.the_next_thing_is_due()
        it.retire(0)
        assert it.alive(WorkerState.DRAINING)
        it.time_passes(1.0)
        end(0)
        it.a_check_ends_late_or_twice(0, 0, False)
        it.exit_when_told_to(0, False, 1.0)
        it.come_up(0)


@path(limit=3)
def it_goes_while_it_is_suspected(it: CoreRules) -> None:
    for end in it.retire, it.write_garbage, lambda which: it.die(which, 0.0):
        it.make_a_call(60.0)
        it.answer_that_it_is_unfit(0)
        end(0)
        for _ in range(3):
            it.everything_works()
        it.the_next_thing_is_due()
        it.everything_works()


@path(interval=6.0)
def a_worker_that_is_always_busy_is_not_checked(it: CoreRules) -> None:
    for _ in range(4):
        it.make_a_call(60.0)
        it.time_passes(3.0)
        it.tick()
        it.answer(0, True)
        it.time_passes(3.0)
        it.tick()
    it.make_a_call(60.0)
    it.time_passes(30.0)
    it.tick()
    it.answer(0, True)
    it.the_next_thing_is_due()
    it.the_next_thing_is_due()


# ── Going ───────────────────────────────────────────────────────────────────────────────────────


@path()
def a_busy_worker_is_retired(it: CoreRules) -> None:
    for end in (
        lambda: it.answer(0, True),
        lambda: it.answer_that_it_is_unfit(0),
        lambda: it.write_garbage(0),
        lambda: it.die_with_a_call(0, 1.0),
        lambda: it.die_before_it_begins(0, 1.0),
        lambda: it.give_up(0),
    ):
        it.make_a_call(60.0)
        it.retire(0)
        it.retire(0)
        end()
        it.make_a_call(60.0)
        for _ in range(4):
            it.everything_works()


@path()
def the_ladder(it: CoreRules) -> None:
    it.retire(0)
    it.make_a_call(60.0)
    for _ in range(3):
        it.the_next_thing_is_almost_due()
        it.tick()
        it.the_next_thing_is_due()
    it.write_garbage(0)
    it.exit_when_told_to(0, False, 1.0)


@path(overflow=1, linger=2.0, interval=6.0)
def a_peak(it: CoreRules) -> None:
    it.many_make_a_call(4)
    it.come_up(0)
    it.everything_works_for_a_while(4)
    assert len(it.alive()) == 2
    it.make_a_call(60.0)
    it.make_a_call(60.0)
    it.answer(1, True)
    it.time_passes(1.0)
    it.make_a_call(60.0)
    it.answer(1, True)
    it.the_next_thing_is_due()
    it.the_next_thing_is_due()
    it.exit_when_told_to(0, False, 1.0)
    assert len(it.naive.slots) == 1


@path(overflow=1, linger=15.0, interval=6.0)
def one_more_is_checked_before_it_leaves(it: CoreRules) -> None:
    it.many_make_a_call(2)
    it.come_up(0)
    it.answer(1, True)
    it.the_next_thing_is_due()
    it.be_well(0)
    it.the_next_thing_is_due()
    it.be_well(0)
    for _ in range(6):
        it.the_next_thing_is_due()


@path(overflow=1, linger=0.0)
def one_more_leaves_at_once(it: CoreRules) -> None:
    it.many_make_a_call(3)
    it.come_up(0)
    it.answer(1, True)
    it.answer(1, True)
    it.tick()
    assert it.alive(WorkerState.TERMINATING)


@path(overflow=1, linger=15.0)
def one_more_dies(it: CoreRules) -> None:
    it.many_make_a_call(2)
    it.come_up(0)
    it.answer(1, True)
    it.die(1, 1.0)
    assert len(it.naive.slots) == 1
    it.many_make_a_call(2)
    it.die_while_booting(0, 1.0)
    it.give_up(1)
    it.give_up(1)
    it.the_next_thing_is_due()
    assert len(it.naive.slots) == 1


@path(overflow=1)
def one_more_is_wanted_when_its_pause_is_over(it: CoreRules) -> None:
    it.many_make_a_call(2)
    it.die_while_booting(0, 1.0)
    it.the_next_thing_is_due()
    assert len(it.alive(WorkerState.INITIALIZING)) == 1


@path(overflow=1, burst=1)
def one_more_waits_for_a_token(it: CoreRules) -> None:
    it.many_make_a_call(3)
    it.die_while_booting(0, 1.0)
    it.the_next_thing_is_due()
    it.die_while_booting(0, 1.0)
    it.the_next_thing_is_due()
    it.die_while_booting(0, 0.0)
    it.give_up(1)
    it.give_up(1)
    it.the_next_thing_is_due()
    it.the_next_thing_is_due()
    assert len(it.naive.slots) == 1


@path(overflow=1, workers=(1, 2))
def one_more_is_retired_before_it_is_up(it: CoreRules) -> None:
    it.many_make_a_call(4)
    it.retire(2)
    it.exit_when_told_to(0, False, 1.0)
    it.make_a_call(60.0)


@path(workers=(1, 3))
def no_more_come_than_are_wanted(it: CoreRules) -> None:
    it.make_a_call(60.0)
    it.make_a_call(60.0)
    assert len(it.alive()) == 2
    it.make_a_call(60.0)
    it.make_a_call(60.0)
    assert len(it.alive()) == 3
    it.retire(0)
    it.answer(0, True)
    it.make_a_call(60.0)


@path(workers=(1, 4), overflow=3)
def all_come_at_once(it: CoreRules) -> None:
    it.suspend()
    it.many_make_a_call(4)
    it.resume()
    assert len(it.naive.slots) == 4
    it.suspend()
    it.many_make_a_call(2)
    it.resume()
    assert len(it.naive.slots) == 6
    it.suspend()
    it.many_make_a_call(4)
    it.resume()
    assert len(it.naive.slots) == 7


@path(workers=(1, 3), overflow=3)
def more_come_at_once_than_there_may_be(it: CoreRules) -> None:
    it.suspend()
    it.many_make_a_call(4)
    it.many_make_a_call(4)
    it.resume()
    assert len(it.naive.slots) == 6


@path(workers=(1, 1), overflow=2, linger=15.0)
def one_more_stops_while_others_wait(it: CoreRules) -> None:
    it.many_make_a_call(2)
    it.come_up(0)
    it.answer(1, True)
    it.retire(1)
    it.make_a_call(60.0)
    assert len(it.naive.slots) == 3


@path(workers=(1, 2))
def one_that_stops_will_be_back(it: CoreRules) -> None:
    it.retire(0)
    it.make_a_call(60.0)
    assert len(it.naive.slots) == 1


# ── Spares ──────────────────────────────────────────────────────────────────────────────────────


@path(spares=1, warm=False)
def a_spare_comes_after_the_others(it: CoreRules) -> None:
    it.come_up(1)
    assert it.pool is PoolState.READY  # who is first is no spare
    it.come_up(0)
    it.make_a_call(60.0)
    it.make_a_call(60.0)
    assert len(it.in_hand()) == 1
    it.everything_works_for_a_while(2)


@path(spares=1, burst=1)
def a_spare_takes_a_place(it: CoreRules) -> None:
    for end in (
        lambda: it.die_with_a_call(0, 1.0),
        lambda: it.die_before_it_begins(0, 1.0),
        lambda: it.write_garbage(0),
        lambda: it.give_up(0),
        lambda: it.retire(0),
        lambda: it.answer_that_it_is_unfit(0),
    ):
        it.make_a_call(60.0)
        it.make_a_call(60.0)
        end()
        for _ in range(8):
            it.everything_works()
        it.time_passes(30.0)
        it.tick()
        for _ in range(4):
            it.everything_works()
        assert it.pool is PoolState.READY and len(it.naive.spares) == 1


@path(spares=2, workers=(1, 2), overflow=1, linger=2.0)
def a_pool_grows_into_its_spares(it: CoreRules) -> None:
    it.many_make_a_call(3)
    assert len(it.in_hand()) == 2
    it.come_up(0)
    it.everything_works_for_a_while(3)
    it.many_make_a_call(4)
    for _ in range(12):
        it.everything_works()
    it.the_next_thing_is_due()


@path(spares=1, interval=6.0, limit=2)
def a_spare_is_checked(it: CoreRules) -> None:
    it.the_next_thing_is_due()
    it.die(0, 1.0)
    it.be_well(0)
    assert it.pool is PoolState.READY
    it.everything_works_for_a_while(2)
    it.time_passes(7.0)
    it.tick()
    it.be_unwell(1)
    it.the_next_thing_is_due()
    for _ in range(6):
        it.the_next_thing_is_due()
        it.everything_works()


@path(spares=1, interval=6.0, limit=3)
def a_spare_stands_in_for_one_that_is_suspected(it: CoreRules) -> None:
    it.time_passes(3.0)
    it.make_a_call(60.0)
    it.answer(0, True)
    it.the_next_thing_is_due()
    it.be_well(0)
    it.the_next_thing_is_due()
    it.be_unwell(0)
    assert it.alive(WorkerState.DEGRADED) and it.pool is PoolState.READY
    it.make_a_call(60.0)
    it.answer(0, True)


@path(spares=1, burst=1)
def a_spare_that_does_not_come_up(it: CoreRules) -> None:
    it.retire(1)
    it.exit_when_told_to(0, False, 1.0)
    it.fail_to_boot(0)
    it.exit_when_told_to(0, False, 1.0)
    it.the_next_thing_is_due()
    it.die_while_booting(0, 1.0)
    it.make_a_call(60.0)
    it.answer(0, True)
    assert it.pool is PoolState.READY
    it.die(0, 1.0)
    assert it.pool is not PoolState.READY


@path(spares=1)
def nobody_stands_in_for_who_goes_at_the_end(it: CoreRules) -> None:
    it.make_a_call(60.0)
    it.close()
    it.answer(0, True)
    for _ in range(3):
        it.everything_works()
    assert it.pool is PoolState.CLOSED


# ── The breaker ─────────────────────────────────────────────────────────────────────────────────


@path(breaker=(2, 2), burst=3)
def calls_fail_and_the_circuit_opens(it: CoreRules) -> None:
    it.make_a_call(8.0)
    it.answer(0, False)
    for _ in range(2):
        it.make_a_call(3.0)
        it.the_next_thing_is_due()
        it.exit_when_told_to(0, True, 1.0)
        it.come_up(0)
    assert it.pool is PoolState.IMPAIRED
    it.make_a_call(8.0)
    assert last(it) is Verdict.CIRCUIT_OPEN
    it.check_out(8.0, None)
    it.give_back(0)
    it.time_passes(3.0)
    it.make_a_call(8.0)
    it.the_next_thing_is_due()
    it.make_a_call(8.0)
    it.make_a_call(8.0)
    it.make_a_call(8.0)
    assert last(it) is Verdict.CIRCUIT_OPEN
    it.answer(0, True)
    it.answer(0, True)
    assert it.pool is PoolState.READY


@path(breaker=(1, 2), burst=3)
def a_probe_fails(it: CoreRules) -> None:
    it.make_a_call(8.0)
    it.die_with_a_call(0, 1.0)
    it.the_next_thing_is_due()
    it.everything_works_for_a_while(2)
    it.time_passes(30.0)
    it.make_a_call(60.0)
    it.make_a_call(60.0)
    it.write_garbage(0)
    it.exit_when_told_to(0, True, 0.0)
    it.make_a_call(60.0)
    assert last(it) is Verdict.CIRCUIT_OPEN


@path(breaker=(1, 1))
def a_probe_is_never_heard_of(it: CoreRules) -> None:
    it.make_a_call(3.0)
    it.the_next_thing_is_due()
    it.exit_when_told_to(0, True, 0.0)
    it.come_up(0)
    wait_until(it, lambda: it.world.core.breaker.state == "half_open")
    it.make_a_call(60.0)
    wait_until(it, lambda: it.world.core.breaker.state == "open")
    it.make_a_call(60.0)
    assert last(it) is Verdict.CIRCUIT_OPEN
    it.answer(0, True)
    wait_until(it, lambda: it.world.core.breaker.state == "half_open")
    it.make_a_call(60.0)
    it.time_passes(30.0)
    it.make_a_call(60.0)
    assert last(it) is Verdict.CIRCUIT_OPEN


@path(breaker=(1, 1))
def a_probe_is_given_back(it: CoreRules) -> None:
    it.make_a_call(3.0)
    it.the_next_thing_is_due()
    it.exit_when_told_to(0, True, 0.0)
    it.come_up(0)
    wait_until(it, lambda: it.world.core.breaker.state == "half_open")
    it.make_a_call(3.0)
    it.give_up(0)
    it.make_a_call(3.0)
    wait_until(it, lambda: last(it) is Verdict.TIMED_OUT)
    it.make_a_call(60.0)
    it.everything_works_for_a_while(3)
    assert it.pool is PoolState.READY


@path(breaker=(1, 1), handovers=0)
def a_death_before_the_beginning_is_a_failure_too(it: CoreRules) -> None:
    it.make_a_call(60.0)
    it.die_before_it_begins(0, 1.0)
    assert last(it) is Verdict.DIED
    it.make_a_call(60.0)
    assert last(it) is Verdict.CIRCUIT_OPEN


@path(breaker=(1, 1))
def calls_on_a_checkout_pass_the_breaker_too(it: CoreRules) -> None:
    it.check_out(60.0, None)
    it.make_a_call_on_a_checkout(0, 60.0, False)
    it.exits(it.alive()[0], True, 0.0)
    it.the_next_thing_is_due()
    it.everything_works()
    it.check_out(60.0, None)
    it.make_a_call_on_a_checkout(0, 60.0, False)
    assert last(it) is Verdict.CIRCUIT_OPEN
    it.time_passes(30.0)
    it.make_a_call_on_a_checkout(0, 60.0, False)
    it.make_a_call_on_a_checkout_that_may_be_over(0)
    it.answer(0, True)
    assert it.pool is PoolState.READY


# ── By hand ─────────────────────────────────────────────────────────────────────────────────────


@path(workers=(2, 2))
def it_is_suspended(it: CoreRules) -> None:
    it.suspend()
    it.many_make_a_call(3)
    it.make_a_call(3.0)
    it.die(0, 0.0)
    it.the_next_thing_is_due()
    it.resume()
    assert it.pool is PoolState.IMPAIRED
    it.come_up(0)
    assert it.pool is PoolState.READY
    it.suspend()
    it.answer(0, True)
    it.the_next_thing_is_due()
    it.resume()
    assert it.pool is PoolState.READY


@path(burst=1)
def all_is_lost_while_it_is_suspended(it: CoreRules) -> None:
    it.die(0, 1.0)
    it.the_next_thing_is_due()
    it.suspend()
    it.make_a_call(60.0)
    it.die_while_booting(0, 1.0)
    assert it.pool is PoolState.SUSPENDED
    it.resume()
    assert (it.pool, last(it)) == (PoolState.FAILED, Verdict.POOL_FAILED)


@path()
def it_is_closed_while_it_is_suspended(it: CoreRules) -> None:
    it.suspend()
    it.make_a_call(60.0)
    it.close()
    assert last(it) is Verdict.CLOSED
    it.make_a_call(60.0)
    assert last(it) is Verdict.CLOSED


@path(warm=False, workers=(3, 3), max_starting=1)
def it_is_closed_while_it_starts(it: CoreRules) -> None:
    it.make_a_call(60.0)
    it.close()
    it.news_come_from_the_dead(0, "up")


@path(workers=(3, 3), limit=3, interval=6.0)
def it_is_closed_in_order(it: CoreRules) -> None:
    it.make_a_call(60.0)
    it.check_out(60.0, None)
    it.close()
    it.close()
    it.make_a_call(60.0)
    assert last(it) is Verdict.CLOSED
    it.make_a_call_on_a_checkout(0, 60.0, False)
    it.answer(0, True)
    it.answer(0, True)
    it.give_back(0)
    for _ in range(3):
        it.exit_when_told_to(0, False, 1.0)
    assert it.pool is PoolState.CLOSED
    it.make_a_call(60.0)
    it.close()
    it.tick()


@path(workers=(3, 3))
def it_is_closed_and_nobody_goes(it: CoreRules) -> None:
    it.make_a_call_that_may_be_repeated(60.0)
    it.check_out(60.0, None)
    it.make_a_call_on_a_checkout(0, 60.0, True)
    it.close()
    for _ in range(4):
        it.the_next_thing_is_almost_due()
        it.tick()
        it.the_next_thing_is_due()
    assert it.pool is PoolState.CLOSED


@path(workers=(3, 3))
def it_is_closed_and_nobody_goes_and_the_tick_is_late(it: CoreRules) -> None:
    it.make_a_call_that_may_be_repeated(60.0)
    it.make_a_call(3.0)
    it.write_garbage(0)
    it.close()
    it.time_passes(7.0)
    it.tick()
    assert it.pool is PoolState.CLOSED


@path(workers=(2, 2))
def it_is_closed_and_a_call_never_began(it: CoreRules) -> None:
    it.many_make_a_call(2)
    it.make_a_call_that_may_be_repeated(60.0)
    it.close()
    it.die_before_it_begins(0, 1.0)
    assert last(it) is Verdict.CLOSED
    it.die_with_a_call(0, 1.0)
    assert last(it) is Verdict.UNKNOWN
    assert it.pool is PoolState.CLOSED


@path(workers=(3, 3), burst=1)
def it_is_closed_with_empty_slots(it: CoreRules) -> None:
    it.die(0, 1.0)
    it.die(0, 1.0)
    it.make_a_call(60.0)
    it.close()
    it.answer(0, True)
    it.the_next_thing_is_due()
    it.the_next_thing_is_due()
    it.exit_when_told_to(0, False, 1.0)
    assert it.pool is PoolState.CLOSED


@path(limit=3)
def it_is_closed_with_a_suspect(it: CoreRules) -> None:
    it.make_a_call(60.0)
    it.answer_that_it_is_unfit(0)
    it.close()


@path(interval=6.0)
def it_is_closed_during_a_check(it: CoreRules) -> None:
    it.the_next_thing_is_due()
    it.close()
    it.be_well(0)


@path(interval=6.0)
def it_is_closed_during_a_check_that_never_ends(it: CoreRules) -> None:
    it.the_next_thing_is_due()
    it.close()
    for _ in range(4):
        it.the_next_thing_is_due()
    assert it.pool is PoolState.CLOSED


@path()
def it_is_closed_and_one_is_late(it: CoreRules) -> None:
    it.make_a_call(60.0)
    it.close()
    it.time_passes(3.0)
    it.time_passes(0.25)
    it.answer(0, True)
    it.the_next_thing_is_due()
    assert it.pool is PoolState.DRAINING
    it.exit_when_told_to(0, False, 1.0)
    assert it.pool is PoolState.CLOSED
