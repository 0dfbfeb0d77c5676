"""Which worker served whom, for as long as it matters."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from remuda.statemachines.sessions import Sessions

TTL = 10.0


def test_a_session_has_the_worker_that_served_it_last() -> None:
    sessions: Sessions[str] = Sessions(TTL)
    sessions.bind("s", "first", 0.0)
    sessions.bind("s", "second", 1.0)
    assert sessions.worker("s", 2.0) == "second" and len(sessions) == 1


def test_it_lapses_after_its_last_use() -> None:
    sessions: Sessions[str] = Sessions(TTL)
    sessions.bind("s", "w", 0.0)
    sessions.bind("s", "w", 5.0)
    assert sessions.worker("s", 5.0 + TTL - 0.1) == "w"
    assert sessions.worker("s", 5.0 + TTL) is None
    assert sessions.sweep(5.0 + TTL) == 1 and len(sessions) == 0 and sessions.next_due() == math.inf


def test_ending_one() -> None:
    sessions: Sessions[str] = Sessions(TTL)
    sessions.bind("s", "w", 0.0)
    assert sessions.end("s") and not sessions.end("s")
    assert sessions.worker("s", 0.0) is None


@given(st.lists(st.tuples(st.sampled_from("bse"), st.sampled_from("abc"), st.floats(0, 8)), max_size=80))
def test_against_a_dict(actions: list[tuple[str, str, float]]) -> None:
    sessions: Sessions[int] = Sessions(TTL)
    used: dict[str, tuple[int, float]] = {}
    now = 0.0
    for number, (action, name, step) in enumerate(actions):
        now += step
        if action == "b":
            sessions.bind(name, number, now)
            used[name] = (number, now)
        elif action == "e":
            assert sessions.end(name) == (used.pop(name, None) is not None)
        else:
            lapsed = [key for key, (_, at) in used.items() if at + TTL <= now]
            assert sessions.sweep(now) == len(lapsed)
            for key in lapsed:
                del used[key]
        for key in "abc":
            worker, at = used.get(key, (None, -math.inf))
            assert sessions.worker(key, now) == (worker if at + TTL > now else None)
        assert sessions.next_due() == min((at + TTL for _, at in used.values()), default=math.inf)
