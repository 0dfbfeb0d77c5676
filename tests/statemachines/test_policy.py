"""The numbers are checked where they enter, and the delays keep to them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remuda.statemachines.errors import ConfigError
from remuda.statemachines.policy import Breaker, Health, Policy, Restart, Retry, full_jitter

WRONG: list[tuple[type, str, Any]] = [
    *((kind, name, value) for kind, name in [
        (Health, "interval"), (Health, "timeout"), (Health, "recheck"), (Restart, "base"), (Restart, "cap"),
        (Restart, "period"), (Breaker, "open_for"), (Policy, "init_timeout"), (Policy, "shutdown_timeout"),
        (Policy, "session_ttl"), (Policy, "interrupt_grace"),
    ] for value in (0, -1.0, math.nan, "1", True, None)),
    *((kind, name, value) for kind, name in [
        (Health, "failures"), (Restart, "burst"), (Retry, "attempts"), (Breaker, "failures"), (Breaker, "probes"),
        (Policy, "max_workers"), (Policy, "min_workers"), (Policy, "max_starting"),
    ] for value in (0, -1, 1.0, "1", True, None)),
    (Retry, "handovers", -1), (Retry, "base", -0.1), (Retry, "cap", math.inf), (Health, "timeout", math.inf),
    (Policy, "overflow", -1), (Policy, "spares", -1), (Policy, "spares", 1.0), (Policy, "linger", -1), (Policy, "max_waiting", -1), (Policy, "history", -1),
    (Policy, "shutdown_timeout", math.inf), (Policy, "min_workers", 2),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "name", "value"), WRONG)
def test_a_wrong_value_is_refused_by_name(kind: type, name: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        kind(**{name: value})
    text = str(caught.value)
    assert f"{kind.__name__}.{name}" in text and repr(value) in text and "must be" in text
    assert caught.value.context["field"] == name


@pytest.mark.parametrize("kind", [Health, Restart, Retry, Breaker, Policy])
def test_the_defaults_are_allowed(kind: type) -> None:
    kind()


@given(st.integers(1, 10**6), st.floats(1e-6, 1e3), st.floats(1e-6, 1e6), st.floats(0, 1))
def test_a_delay_keeps_to_its_bounds(attempt: int, base: float, cap: float, draw: float) -> None:
    delay = full_jitter(attempt, base, cap, draw)
    assert 0.0 <= delay <= cap
    if attempt < 60:
        assert delay == draw * min(cap, base * 2 ** (attempt - 1))


def test_a_delay_doubles_until_it_no_longer_matters() -> None:
    assert [full_jitter(attempt, 1.0, 100.0, 0.5) for attempt in (1, 2, 3, 8)] == [0.5, 1.0, 2.0, 50.0]
    assert full_jitter(63, 1.0, math.inf, 1.0) == full_jitter(64, 1.0, math.inf, 1.0) == 2.0**62


def test_a_number_that_no_clock_can_count_to_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Health\.timeout is 1000"):
        Health(timeout=10**400)


def test_what_may_be_nothing_or_endless() -> None:
    assert (Retry(base=0, cap=0.0, handovers=0).base, Policy(history=0, linger=0, max_waiting=0).history) == (0, 0)
    assert Health(interval=math.inf).interval == math.inf


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda: Restart(burst=0), "Restart.burst is 0; it must be a whole number of at least 1"),
        (
            lambda: Policy(min_workers=3, max_workers=2),
            "Policy.min_workers is 3; it must be a whole number from 1 to 2",
        ),
        (lambda: Restart(cap=0), "Restart.cap is 0; it must be a number of seconds, more than zero and finite"),
        (lambda: Retry(cap=-1), "Retry.cap is -1; it must be a number of seconds, zero or more and finite"),
        (lambda: Health(interval=0), "Health.interval is 0; it must be a number of seconds, more than zero"),
    ],
)
def test_it_says_what_is_allowed(wrong: Any, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        wrong()
    assert str(caught.value) == text
