"""Who is next: arrival within a lane, turns between lanes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remuda.statemachines.waiters import Waiters


@dataclass(frozen=True)
class Caller:
    id: int
    session: str | None = None


def test_in_one_lane_the_order_is_that_of_arrival() -> None:
    waiters: Waiters[Caller] = Waiters()
    callers = [Caller(number) for number in range(5)]
    for caller in callers:
        waiters.add(caller)
    assert [waiters.pop() for _ in callers] == callers
    with pytest.raises(KeyError, match="^'nobody is waiting'$"):
        waiters.pop()


def test_a_session_with_many_calls_delays_others_by_one_turn() -> None:
    waiters: Waiters[Caller] = Waiters()
    for number in range(100):
        waiters.add(Caller(number, "greedy"))
    waiters.add(Caller(100, "modest"))
    assert [waiters.pop().session for _ in range(3)] == ["greedy", "modest", "greedy"]


def test_one_that_comes_back_takes_its_old_place() -> None:
    waiters: Waiters[Caller] = Waiters()
    for number in range(3):
        waiters.add(Caller(number))
    first = waiters.pop()
    waiters.put_back(first)
    assert [waiters.pop().id for _ in range(3)] == [0, 1, 2]


def test_one_that_comes_back_to_an_empty_lane_is_next() -> None:
    waiters: Waiters[Caller] = Waiters()
    waiters.add(Caller(0, "a"))
    back = waiters.pop()
    waiters.add(Caller(1, "b"))
    waiters.put_back(back)
    assert waiters.pop() is back


def test_the_place_of_one_that_comes_back_is_its_own_and_not_its_lanes() -> None:
    """Found by chance: it came back, was joined, and left; those who had joined it stayed in front of all."""
    waiters: Waiters[Caller] = Waiters()
    waiters.add(Caller(0))
    back = waiters.pop()
    waiters.add(Caller(1, "b"))
    waiters.put_back(back)
    waiters.add(Caller(2))
    assert [waiter.id for waiter in waiters] == [0, 1, 2]
    waiters.remove(back)
    assert [waiters.pop().id for _ in range(2)] == [1, 2]


def test_the_turn_of_one_that_comes_back_is_its_lanes_turn() -> None:
    waiters: Waiters[Caller] = Waiters()
    waiters.add(Caller(0))
    back = waiters.pop()
    waiters.put_back(back)
    waiters.add(Caller(1))
    waiters.add(Caller(2, "b"))
    assert [waiters.pop().id for _ in range(3)] == [0, 2, 1]


def test_those_who_come_back_are_in_the_order_of_their_arrival() -> None:
    waiters: Waiters[Caller] = Waiters()
    for number, session in enumerate("aab"):
        waiters.add(Caller(number, session))
    first, third, second = waiters.pop(), waiters.pop(), waiters.pop()
    waiters.put_back(second)
    waiters.add(Caller(3, "a"))
    for back in (third, first):
        waiters.put_back(back)
    assert waiters.returned == 3
    assert [waiter.id for waiter in waiters] == [0, 1, 2, 3]


def test_several_who_come_back_to_one_lane_have_one_turn_at_a_time() -> None:
    """Found by chance: two of a session came back, and were served one after the other while others waited."""
    waiters: Waiters[Caller] = Waiters()
    for number in range(2):
        waiters.add(Caller(number, "a"))
    both = [waiters.pop(), waiters.pop()]
    waiters.add(Caller(2))
    for back in both:
        waiters.put_back(back)
    waiters.add(Caller(3, "a"))
    assert [waiters.pop().id for _ in range(4)] == [0, 2, 1, 3]
    assert waiters.returned == 0


def test_one_that_leaves_is_not_counted() -> None:
    waiters: Waiters[Caller] = Waiters()
    caller = Caller(0)
    waiters.add(caller)
    assert caller in waiters and len(waiters) == 1
    assert waiters.remove(caller) and not waiters.remove(caller)
    assert caller not in waiters and len(waiters) == 0 and list(waiters) == []


def test_the_first_is_who_would_be_popped_and_stays() -> None:
    waiters: Waiters[Caller] = Waiters()
    with pytest.raises(KeyError, match="^'nobody is waiting'$"):
        waiters.first()
    for number, session in enumerate("aab"):
        waiters.add(Caller(number, session))
    for left in (3, 2, 1):
        first = waiters.first()
        assert len(waiters) == left and first is waiters.first() and waiters.pop() is first


def test_who_waits_is_found_in_its_own_lane() -> None:
    waiters: Waiters[Caller] = Waiters()
    here, there = Caller(0, "a"), Caller(1, "b")
    waiters.add(here)
    assert here in waiters and there not in waiters and Caller(0) not in waiters


@given(st.lists(st.tuples(st.sampled_from("+-<x"), st.sampled_from([None, "a", "b", "c"])), max_size=60))
def test_against_plain_lists(actions: list[tuple[str, str | None]]) -> None:
    """The same as a list of (session, list of callers) that is sorted and rotated in the plainest way.

    And a list of those who came back and found no lane.
    """
    waiters: Waiters[Caller] = Waiters()
    lanes: list[tuple[str | None, list[Caller]]] = []
    returned: list[Caller] = []
    popped: list[Caller] = []
    for number, (action, session) in enumerate(actions):
        lane = next((callers for name, callers in lanes if name == session), None)
        if action == "+":
            caller = Caller(number, session)
            waiters.add(caller)
            if lane is None:
                lanes.append((session, [caller]))
            else:
                lane.append(caller)
        elif action == "-" and returned:
            caller = returned.pop(0)
            left = [each for each in returned if each.session == caller.session]
            left += next((callers for name, callers in lanes if name == caller.session), [])
            returned = [each for each in returned if each.session != caller.session]
            lanes = [entry for entry in lanes if entry[0] != caller.session]
            if left:
                lanes.append((caller.session, left))
            assert waiters.pop() is caller
            popped.append(caller)
        elif action == "-" and lanes:
            name, callers = lanes.pop(0)
            caller = callers.pop(0)
            if callers:
                lanes.append((name, callers))
            assert waiters.pop() is caller
            popped.append(caller)
        elif action == "<" and popped:
            caller = popped.pop()
            waiters.put_back(caller)
            lane = next((callers for name, callers in lanes if name == caller.session), None)
            if lane is None or caller.session in [each.session for each in returned]:
                returned = sorted([*returned, caller], key=lambda each: each.id)
            else:
                lane.append(caller)
                lane.sort(key=lambda each: each.id)
        elif action == "x" and returned and session == "c":
            assert waiters.remove(returned[-1])
            returned.pop()
        elif action == "x" and lane:
            caller = lane.pop()
            lanes = [entry for entry in lanes if entry[1]]
            assert waiters.remove(caller)
        everybody = [*returned, *(caller for _, callers in lanes for caller in callers)]
        assert list(waiters) == everybody
        assert (len(waiters), waiters.returned) == (len(everybody), len(returned))
        assert all(caller in waiters for caller in everybody)
    everybody = [*returned, *(caller for _, callers in lanes for caller in callers)]
    assert Counter(waiters.clear()) == Counter(everybody)
    assert len(waiters) == 0
