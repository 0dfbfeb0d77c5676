"""A token bucket gives no more than it says, over any window, and no less."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remuda.statemachines.budget import Budget

BURST, PERIOD = 5, 20.0


@given(st.lists(st.floats(0, 10), max_size=100))
def test_over_any_window_no_more_than_it_says(steps: list[float]) -> None:
    budget, now, taken = Budget(BURST, PERIOD, 0.0), 0.0, []
    for step in steps:
        now += step
        if budget.take(now):
            taken.append(now)
        assert 0.0 <= budget.tokens(now) <= BURST
    for i, start in enumerate(taken):
        for j in range(i, len(taken)):
            assert j - i + 1 <= BURST + (taken[j] - start) * BURST / PERIOD + 1e-6


@given(st.integers(0, 8), st.floats(0, 1000))
def test_the_next_token_is_there_when_it_says(takes: int, now: float) -> None:
    budget = Budget(BURST, PERIOD, 0.0)
    for _ in range(takes):
        budget.take(now)
    due = budget.next_token(now)
    assert due >= now
    assert budget.take(due)


def test_a_clock_that_stands_still_brings_none() -> None:
    budget = Budget(BURST, PERIOD, 3.0)
    assert [budget.take(3.0) for _ in range(BURST + 1)] == [True] * BURST + [False]
    assert not budget.take(2.0)  # nor does one that goes back
    assert budget.tokens(3.0 + PERIOD) == pytest.approx(BURST)


def test_a_token_that_has_come_up_to_rounding_has_come() -> None:
    budget = Budget(1, 1.0, 0.0)
    assert budget.take(0.0)
    assert not Budget.take(budget, 0.999)
    assert budget.take(1.0 - 1e-9)
    assert budget.tokens(1.0 - 1e-9) == 0.0


def test_with_tokens_left_the_next_one_is_there_now() -> None:
    budget = Budget(BURST, PERIOD, 0.0)
    assert budget.next_token(7.0) == 7.0
    for _ in range(BURST):
        budget.take(7.0)
    assert budget.next_token(7.0) == 7.0 + PERIOD / BURST
