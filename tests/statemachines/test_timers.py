"""What is due when, and that a million alarms which never came up leave nothing behind."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remuda.statemachines.timers import Alarm, Timers


def test_they_come_up_in_order_and_only_when_due() -> None:
    timers = Timers()
    late, soon = Alarm("late"), Alarm("soon")
    timers.arm(late, 2.0)
    timers.arm(soon, 1.0)
    assert timers.next_due() == 1.0 and timers.pop(0.9) is None
    assert timers.pop(5.0) is soon and timers.pop(5.0) is late and timers.pop(5.0) is None
    assert timers.next_due() == math.inf


def test_what_is_due_at_one_moment_comes_up_in_the_order_in_which_it_was_armed() -> None:
    timers = Timers()
    alarms = [Alarm(str(number)) for number in range(5)]
    for alarm in alarms:
        timers.arm(alarm, 1.0)
    assert [timers.pop(1.0) for _ in alarms] == alarms


def test_arming_again_replaces() -> None:
    timers = Timers()
    alarm = Alarm("alarm")
    timers.arm(alarm, 1.0)
    timers.arm(alarm, 3.0)
    assert timers.next_due() == 3.0 and timers.pop(2.0) is None
    timers.arm(alarm, math.inf)
    assert timers.next_due() == math.inf and alarm.due == math.inf
    assert alarm.alarm == 0


def test_alarms_that_never_come_up_leave_nothing_behind() -> None:
    timers = Timers()
    lasting = [Alarm(str(number)) for number in range(10)]
    for alarm in lasting:
        timers.arm(alarm, 1e9)
    for number in range(10_000):
        alarm = Alarm("call")
        timers.arm(alarm, 60.0 + number)
        timers.disarm(alarm)
        assert len(timers) <= 2 * len(lasting) + 64 + 2


@pytest.mark.parametrize("lasting", [10, 70])
def test_the_dead_are_cleared_away_when_they_are_many_and_more_than_half(lasting: int) -> None:
    timers = Timers()
    others = [Alarm(str(number)) for number in range(lasting)]
    for number, other in enumerate(others):
        timers.arm(other, 1000.0 - number)
    alarm, dead, size = Alarm("alarm"), -1, lasting
    for number in range(300):
        timers.arm(alarm, 5000.0 - number)
        dead, size = dead + 1, size + 1
        if dead > 64 and dead * 2 > size:
            dead, size = 0, size - dead
        assert (timers._dead, len(timers)) == (dead, size)
    came = [timers.pop(1e9) for _ in range(lasting + 1)]
    assert came == [*reversed(others), alarm] and timers.pop(1e9) is None


def test_an_alarm_begins_unset_and_has_a_name() -> None:
    alarm = Alarm("breaker")
    assert (alarm.name, alarm.alarm, alarm.due, repr(alarm)) == ("breaker", 0, math.inf, "<Alarm breaker>")


@given(st.lists(st.tuples(st.sampled_from("adp"), st.integers(0, 4), st.integers(0, 20)), max_size=300))
def test_against_a_dict(actions: list[tuple[str, int, int]]) -> None:
    timers = Timers()
    alarms = [Alarm(str(number)) for number in range(5)]
    due: dict[int, float] = {}
    for action, which, time in actions:
        if action == "a":
            timers.arm(alarms[which], float(time))
            due[which] = float(time)
        elif action == "d":
            timers.disarm(alarms[which])
            due.pop(which, None)
        else:
            popped = timers.pop(float(time))
            earliest = min(due.values(), default=math.inf)
            if earliest > time:
                assert popped is None
            else:
                assert popped in alarms and due.pop(int(popped.name)) == earliest  # type: ignore[union-attr]
        assert timers.next_due() == min(due.values(), default=math.inf)
        assert [alarm.due for alarm in alarms] == [due.get(number, math.inf) for number in range(5)]
        assert [alarm.alarm == 0 for alarm in alarms] == [number not in due for number in range(5)]
        assert timers._dead == len(timers) - len(due), "the dead are miscounted"
        order = sorted(due, key=lambda number: (due[number], alarms[number].alarm))
        assert list(timers.order()) == [alarms[number] for number in order]
