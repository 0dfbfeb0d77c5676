"""The breaker, one rule at a time. `tests/specs/test_breaker_machine.py` mixes them."""

from __future__ import annotations

import math
import pickle

import pytest

from remuda.statemachines.breaker import BREAKER, Breaker, BreakerState, BreakerTrigger, Outcome, Permit
from remuda.statemachines.errors import ConfigError

S, T = BreakerState, BreakerTrigger
GOOD, BAD, NEITHER = Outcome.SUCCESS, Outcome.FAILURE, Outcome.NEUTRAL


def permit(breaker: Breaker, now: float) -> Permit:
    granted = breaker.admit(now)
    assert granted is not None
    return granted


def call(breaker: Breaker, outcome: Outcome, now: float) -> None:
    breaker.record(permit(breaker, now), outcome, now)


def opened(now: float = 0.0, **settings: float) -> Breaker:
    breaker = Breaker(failures=1, probes=3, open_for=60, half_open_for=10, now=now)
    call(breaker, BAD, now)
    assert breaker.state is S.OPEN
    return breaker


def half_open(now: float = 60.0) -> Breaker:
    breaker = opened(now - 60)
    assert breaker.tick(now) is S.HALF_OPEN
    return breaker


# ── Closed ──────────────────────────────────────────────────────────────────────────────────────


def test_failures_in_a_row_open_it() -> None:
    breaker = Breaker(failures=3)
    call(breaker, BAD, 1)
    call(breaker, BAD, 2)
    assert breaker.state is S.CLOSED
    call(breaker, BAD, 3)
    assert breaker.state is S.OPEN
    assert [(s.trigger, s.at, s.reason) for s in breaker.history] == [("trip", 3, "3 failures in a row")]


def test_a_success_starts_the_count_anew_and_a_neutral_outcome_does_not() -> None:
    breaker = Breaker(failures=2)
    call(breaker, BAD, 1)
    call(breaker, GOOD, 2)
    call(breaker, BAD, 3)
    call(breaker, NEITHER, 4)
    assert breaker.state is S.CLOSED
    call(breaker, BAD, 5)
    assert breaker.state is S.OPEN


def test_the_order_that_counts_is_that_of_the_outcomes() -> None:
    breaker = Breaker(failures=2)
    early, late, last = permit(breaker, 1), permit(breaker, 2), permit(breaker, 3)
    breaker.record(late, BAD, 4)
    breaker.record(early, GOOD, 5)
    breaker.record(last, BAD, 6)
    assert breaker.state is S.CLOSED


def test_an_outcome_counts_once() -> None:
    breaker = Breaker(failures=2)
    one = permit(breaker, 1)
    assert breaker.holds(one)
    breaker.record(one, BAD, 2)
    assert not breaker.holds(one)
    breaker.record(one, BAD, 3)
    assert (breaker.state, breaker.failures_in_a_row) == (S.CLOSED, 1)


# ── Open ────────────────────────────────────────────────────────────────────────────────────────


def test_open_refuses_for_exactly_its_time() -> None:
    breaker = opened(now=100.0)
    assert breaker.admit(100.0) is None
    assert breaker.admit(159.9) is None
    assert breaker.retry_after(100.0) == 60.0
    assert breaker.retry_after(159.5) == 0.5
    assert breaker.next_due() == 160.0
    assert breaker.tick(159.9) is S.OPEN
    assert breaker.tick(160.0) is S.HALF_OPEN


def test_a_call_after_that_time_is_the_first_probe_even_if_nobody_ticked() -> None:
    breaker = opened(now=0.0)
    assert breaker.retry_after(75.0) == 0.0
    assert breaker.state is S.OPEN, "looking has changed it"
    permit(breaker, 75.0)
    assert breaker.state is S.HALF_OPEN


def test_late_outcomes_neither_prolong_nor_end_it() -> None:
    breaker = Breaker(failures=1, open_for=60)
    first, second, third = (permit(breaker, 0) for _ in range(3))
    breaker.record(first, BAD, 1)
    assert not breaker.holds(second)
    breaker.record(second, BAD, 50)
    breaker.record(third, GOOD, 51)
    assert (breaker.state, breaker.next_due(), breaker.since) == (S.OPEN, 61, 1)


# ── Half-open ───────────────────────────────────────────────────────────────────────────────────


def test_probes_are_limited_and_their_successes_close_it() -> None:
    breaker = half_open()
    probes = [permit(breaker, 60) for _ in range(3)]
    assert breaker.admit(60) is None
    assert breaker.retry_after(60) is None
    breaker.record(probes[0], GOOD, 61)
    assert breaker.admit(61) is None, "with one success, two more are all that is needed"
    breaker.record(probes[1], GOOD, 61)
    assert breaker.state is S.HALF_OPEN
    breaker.record(probes[2], GOOD, 62)
    assert (breaker.state, breaker.next_due()) == (S.CLOSED, None)


def test_closing_forgets_the_failures_of_before() -> None:
    breaker = Breaker(failures=2, probes=1, open_for=1)
    call(breaker, BAD, 0)
    call(breaker, BAD, 0)
    call(breaker, GOOD, 1)
    call(breaker, BAD, 2)
    assert breaker.state is S.CLOSED


def test_a_failed_probe_opens_it_for_the_whole_time_again() -> None:
    breaker = half_open()
    probes = [permit(breaker, 60) for _ in range(3)]
    breaker.record(probes[0], GOOD, 61)
    breaker.record(probes[1], BAD, 63)
    assert (breaker.state, breaker.next_due()) == (S.OPEN, 123)
    breaker.record(probes[2], GOOD, 64)
    breaker.tick(123)
    assert (breaker.successes, breaker.in_flight) == (0, 0), "the next half-open time starts from nothing"


def test_a_neutral_probe_gives_its_permit_back() -> None:
    breaker = half_open()
    for _ in range(20):
        call(breaker, NEITHER, 61)
    assert (breaker.state, breaker.in_flight, breaker.next_due()) == (S.HALF_OPEN, 0, None)
    assert len([permit(breaker, 62) for _ in range(3)]) == 3


def test_an_outcome_from_before_it_opened_says_nothing_about_now() -> None:
    breaker = Breaker(failures=1, probes=1, open_for=60)
    old, older = permit(breaker, 0), permit(breaker, 0)
    call(breaker, BAD, 0)
    breaker.tick(60)
    breaker.record(old, GOOD, 61)
    assert breaker.state is S.HALF_OPEN
    call(breaker, GOOD, 62)
    breaker.record(older, BAD, 63)
    assert breaker.state is S.CLOSED, "closed again, but not the generation that admitted the call"


def test_probes_that_are_never_heard_of_open_it_again() -> None:
    breaker = half_open()
    permit(breaker, 100)
    permit(breaker, 105)
    assert breaker.next_due() == 110
    assert breaker.tick(109.9) is S.HALF_OPEN
    assert breaker.tick(110) is S.OPEN
    assert (breaker.next_due(), breaker.in_flight) == (170, 0)
    assert [s.reason for s in breaker.history][-1] == "no verdict from the probes in 10 s"


def test_a_caller_who_comes_when_probes_are_overdue_is_refused() -> None:
    breaker = half_open()
    permit(breaker, 60)
    assert breaker.admit(70) is None
    assert breaker.state is S.OPEN


def test_with_no_probe_out_half_open_waits_for_a_caller() -> None:
    breaker = half_open()
    assert breaker.next_due() is None
    assert breaker.tick(1e9) is S.HALF_OPEN
    call(breaker, GOOD, 1e9)
    assert breaker.next_due() is None
    permit(breaker, 2e9)
    assert breaker.next_due() == 2e9 + 10


def test_a_result_that_comes_before_the_tick_counts() -> None:
    breaker = Breaker(failures=1, probes=1, open_for=60, half_open_for=10)
    call(breaker, BAD, 0)
    probe = permit(breaker, 60)
    breaker.record(probe, GOOD, 500)
    assert breaker.state is S.CLOSED


# ── By hand ─────────────────────────────────────────────────────────────────────────────────────


def test_forced_open_refuses_whatever_the_time() -> None:
    breaker = opened()
    breaker.force_open(1, "maintenance")
    assert breaker.next_due() is None
    assert breaker.tick(1e9) is S.FORCED_OPEN
    assert breaker.admit(1e9) is None
    assert breaker.retry_after(1e9) is None
    assert breaker.history[-1].reason == "maintenance"
    breaker.reset(1e9)
    assert breaker.state is S.CLOSED


def test_the_generation_counts_changes_of_state_and_resets() -> None:
    breaker = Breaker(failures=1, probes=1, open_for=1)
    generations = [breaker.generation]
    for what in (
        lambda: call(breaker, BAD, 0), lambda: breaker.tick(1), lambda: call(breaker, GOOD, 1),
        lambda: breaker.reset(2), lambda: breaker.disable(3), lambda: breaker.disable(4),
    ):  # fmt: skip
        what()
        generations.append(breaker.generation)
    assert generations == [0, 1, 2, 3, 4, 5, 5]


def test_what_is_done_by_hand_says_why() -> None:
    breaker = Breaker()
    breaker.force_open(1)
    breaker.disable(2)
    breaker.reset(3)
    breaker.disable(4, "an exercise")
    breaker.reset(5, "it is over")
    assert [step.reason for step in breaker.history] == [
        "forced open", "disabled", "reset", "an exercise", "it is over",
    ]  # fmt: skip


def test_disabled_admits_and_counts_nothing() -> None:
    breaker = opened()
    breaker.disable(1)
    for _ in range(10):
        call(breaker, BAD, 2)
    assert breaker.tick(1e9) is S.DISABLED
    assert (breaker.failures_in_a_row, breaker.next_due(), breaker.retry_after(3)) == (0, None, 0.0)


def test_a_reset_of_a_closed_breaker_forgets_the_failures_and_the_calls_that_are_out() -> None:
    breaker = Breaker(failures=2)
    out = permit(breaker, 0)
    call(breaker, BAD, 1)
    breaker.reset(2)
    breaker.record(out, BAD, 3)
    call(breaker, BAD, 4)
    assert breaker.state is S.CLOSED


# ── As a value ──────────────────────────────────────────────────────────────────────────────────


def test_a_copy_goes_on_by_itself() -> None:
    breaker = half_open()
    probe = permit(breaker, 60)
    copy, copied = pickle.loads(pickle.dumps((breaker, probe)))
    copy.record(copied, BAD, 61)
    assert (copy.state, breaker.state) == (S.OPEN, S.HALF_OPEN)
    assert breaker.holds(probe)


def test_the_key_tells_what_matters_and_leaves_out_what_does_not() -> None:
    one, other = opened(0), opened(1000)
    other.reset(1001)
    call(other, BAD, 1002)
    assert one.key(59) == other.key(1061) == ("open", 0, 0, 0, True)
    assert one.key(60) == other.key(1062) == ("open", 0, 0, 0, False)
    assert half_open().key(60) == ("half_open", 0, 0, 0, None)
    counting = Breaker(failures=9)
    call(counting, BAD, 0)
    permit(counting, 0)
    assert counting.key(0) == ("closed", 1, 0, 1, None)


def test_an_observer_sees_each_step_once_with_the_books_in_order() -> None:
    seen: list[tuple[str, str, float | None]] = []
    breaker = Breaker(
        failures=1,
        probes=1,
        open_for=60,
        observer=lambda it, step: seen.append((step.trigger, it.state, breaker.next_due())),
    )
    call(breaker, BAD, 0)
    breaker.tick(60)
    call(breaker, GOOD, 61)
    assert seen == [("trip", "open", 60), ("cool_down", "half_open", None), ("recover", "closed", None)]


def test_what_it_is_without_settings() -> None:
    breaker = Breaker()
    assert (breaker.failures, breaker.probes, breaker.open_for, breaker.half_open_for) == (5, 3, 60.0, 60.0)
    assert (breaker.since, breaker.history.maxlen, breaker.generation, breaker.in_flight) == (0.0, 16, 0, 0)
    assert (breaker.failures_in_a_row, breaker.successes, breaker.next_due()) == (0, 0, None)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"failures": 0}, "failures=0"),
        ({"probes": 0}, "probes=0"),
        ({"open_for": 0}, "open_for=0"),
        ({"half_open_for": -1.0}, "half_open_for=-1.0"),
        ({"open_for": math.inf}, "open_for=inf"),
        ({"open_for": math.nan}, "open_for=nan"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, int], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Breaker(**settings)


def test_by_hand_it_goes_from_every_state_to_each_of_the_three() -> None:
    for trigger, dest in (T.FORCE_OPEN, S.FORCED_OPEN), (T.DISABLE, S.DISABLED), (T.RESET, S.CLOSED):
        assert [BREAKER.table[state][trigger][0].dest for state in S] == [dest] * len(S)
