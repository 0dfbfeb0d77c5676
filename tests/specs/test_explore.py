"""The model checker, on models that have nothing to do with pools."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import msgspec
import pytest

from remuda.specs.explorer import Model, Progress, Property, always, eventually, explore, replay, sometimes
from remuda.specs.invariants import InvariantViolated

Properties = Sequence[Property[int]]


class Steps(Model[int, int]):
    """Somebody climbs from 0, one step or two at a time, as long as they are below `top`."""

    def __init__(self, *properties: Property[int], top: int = 8, starts: Iterable[int] = (0,)) -> None:
        self._properties, self.top, self.starts = properties, top, starts

    def initial(self) -> Iterable[int]:
        return self.starts

    def actions(self, state: int) -> Sequence[int]:
        return [1, 2] if state < self.top else []

    def next(self, state: int, action: int) -> int:
        return state + action

    def properties(self) -> Properties:
        return self._properties


class Clock(Model[int, str]):
    """Five hours, and then from the beginning. It may be stopped by hand, in any hour."""

    def __init__(self, *properties: Property[int], by_itself: Callable[[int], Sequence[str]]) -> None:
        self._properties, self.by_itself = properties, by_itself

    def initial(self) -> Iterable[int]:
        return [0]

    def actions(self, state: int) -> Sequence[str]:
        return [] if state < 0 else ["tick", "leap", "stop"]

    def prompt(self, state: int) -> Sequence[str]:
        return self.by_itself(state)

    def next(self, state: int, action: str) -> int:
        return -1 if action == "stop" else (state + (1 if action == "tick" else 2)) % 5

    def properties(self) -> Properties:
        return self._properties


def test_every_state_and_every_step_is_counted() -> None:
    found = explore(Steps()).check()
    assert (found.states, found.steps, found.depth, found.complete) == (10, 16, 5, True)
    assert found.actions == {"1": 8, "2": 8}


def test_what_is_always_so_is_shown_not_to_be_by_the_shortest_way() -> None:
    found = explore(Steps(always("never on the fourth", lambda at: at != 4)))
    assert [(one.name, one.path) for one in found.counterexamples] == [("never on the fourth", (2, 2))]
    assert not found.complete
    assert not found.ok


def test_a_step_and_a_rule_may_say_what_is_wrong() -> None:
    class Frail(Steps):
        def next(self, state: int, action: int) -> int:
            if state + action == 3:
                raise InvariantViolated("the third step holds", "it broke")
            return state + action

    assert str(explore(Frail()).counterexamples[0]) == "the third step holds: it broke\n  1. 1\n  2. 2"

    def rule(at: int) -> bool:
        if at == 5:
            raise InvariantViolated("whatever", f"it is {at}")
        return True

    assert str(explore(Steps(always("below five", rule))).counterexamples[0]).startswith("below five: it is 5\n")


def test_a_walk_may_go_on_behind_a_violation() -> None:
    found = explore(
        Steps(always("not 4", lambda at: at != 4), always("not 9", lambda at: at != 9)), stop_at_first=False
    )
    assert [(one.name, one.path) for one in found.counterexamples] == [("not 4", (2, 2)), ("not 9", (1, 2, 2, 2, 2))]
    assert found.complete
    assert found.states == 8


def test_what_is_costly_is_asked_once_in_each_state() -> None:
    asked: list[int] = []
    often: list[int] = []
    explore(
        Steps(
            always("costly", lambda at: not asked.append(at), new_only=True),
            always("cheap", lambda at: not often.append(at)),
        )
    ).check()
    assert sorted(asked) == list(range(10))
    assert len(often) == 1 + 16
    found = explore(Steps(always("not 4", lambda at: at != 4, new_only=True)))
    assert [(one.name, one.path) for one in found.counterexamples] == [("not 4", (2, 2))]


def test_what_is_sometimes_so_has_to_be_seen() -> None:
    found = explore(Steps(sometimes("on the fifth", lambda at: at == 5), sometimes("on the roof", lambda at: at > 9)))
    assert found.seen == {"on the fifth": (1, 2, 2)}
    assert found.missing == ["on the roof"]
    with pytest.raises(AssertionError, match="never seen: on the roof"):
        found.check()


def test_what_a_step_has_done_is_seen_though_its_state_is_known() -> None:
    class Noisy(Model[list[int], str]):
        """The state is the first number; the second is what the last step has done, which is not part of the key."""

        def initial(self) -> Iterable[list[int]]:
            return [[0, 0]]

        def actions(self, state: list[int]) -> Sequence[str]:
            return ["be quiet", "be loud"]

        def next(self, state: list[int], action: str) -> list[int]:
            return [1, int(action == "be loud")]

        def key(self, state: list[int]) -> Hashable:
            return state[0]

        def properties(self) -> Sequence[Property[list[int]]]:
            return [sometimes("a noise", lambda state: state[1] == 1), always("peace", lambda state: state[1] < 2)]

    found = explore(Noisy()).check()
    assert (found.states, found.seen) == (2, {"a noise": ("be loud",)})


def test_what_comes_eventually_is_not_missed_by_stopping_short() -> None:
    explore(Steps(eventually("on the top", lambda at: at >= 8))).check()
    found = explore(Steps(eventually("on the eighth", lambda at: at == 8)))
    assert found.complete
    assert [(one.name, one.path, one.loop) for one in found.counterexamples] == [("on the eighth", (1, 2, 2, 2, 2), ())]
    assert "nothing more happens" in str(found)


def test_what_comes_eventually_is_not_missed_by_going_round() -> None:
    noon = eventually("it is three", lambda hour: hour in (3, -1))
    explore(Clock(noon, by_itself=lambda hour: ["tick"] if hour >= 0 else [])).check()
    found = explore(Clock(noon, by_itself=lambda hour: ["tick", "leap"] if hour >= 0 else []))
    (one,) = found.counterexamples
    hours = [replay(Clock(by_itself=lambda hour: []), [*one.path, *one.loop[:n]]) for n in range(len(one.loop) + 1)]
    assert hours[0] == hours[-1]
    assert 3 not in hours
    assert "over and over:\n     - " in str(one)


def test_eventually_is_about_what_happens_by_itself() -> None:
    """A stopped clock never shows three; that nobody may stop it is no excuse, as it may have been stopped."""
    found = explore(
        Clock(eventually("it is three", lambda hour: hour == 3), by_itself=lambda hour: ["tick"][: hour + 1])
    )
    assert [(one.path, one.loop) for one in found.counterexamples] == [(("stop",), ())]


def test_without_all_states_nobody_can_say_never() -> None:
    found = explore(Steps(eventually("on the eighth", lambda at: at == 8)), max_states=5)
    assert (found.states, found.complete) == (5, False)
    assert found.undecided == ["on the eighth"]
    assert not found.counterexamples


def test_there_may_be_several_beginnings() -> None:
    model = Steps(always("not nine", lambda at: at != 9), top=9, starts=(0, 0, 5))
    found = explore(model)
    (one,) = found.counterexamples
    assert (one.start, one.path) == (2, (2, 2))
    assert "beginning in initial state 2" in str(one)
    assert explore(Steps(starts=(7, 9))).states == 3


def test_a_beginning_may_be_wrong_already() -> None:
    found = explore(Steps(always("not zero", lambda at: at != 0)))
    assert [(one.name, one.path) for one in found.counterexamples] == [("not zero", ())]
    assert found.states == 0


@pytest.mark.parametrize("options", [{"keep": 0}, {"keep": 3}, {"compact": True}])
def test_saving_memory_changes_nothing(options: dict[str, Any]) -> None:
    there = eventually("on the eighth", lambda at: at == 8)
    found, as_usual = explore(Steps(there), **options), explore(Steps(there))
    found.seconds = as_usual.seconds
    assert found == as_usual


def test_progress_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Progress] = []
    explore(Steps(top=25_000), progress=told.append)
    assert [(one.states - one.waiting) for one in told] == [10_000, 20_000]


class Hidden(msgspec.Struct):
    at: int = 0
    tired: bool = False


class Dishonest(Model[Hidden, str]):
    """Who has run is tired and cannot run again; the key does not say so."""

    def __init__(self, *, honest: bool) -> None:
        self.honest = honest

    def initial(self) -> Iterable[Hidden]:
        return [Hidden()]

    def actions(self, state: Hidden) -> Sequence[str]:
        if state.at >= 6:
            return []
        return ["walk"] if state.tired else ["walk", "run"]

    def next(self, state: Hidden, action: str) -> Hidden:
        return Hidden(state.at + (2 if action == "run" else 1), tired=action == "run")

    def key(self, state: Hidden) -> Hashable:
        return (state.at, state.tired) if self.honest else state.at


def test_a_dishonest_key_is_found_by_who_distrusts_it() -> None:
    assert explore(Dishonest(honest=False)).ok
    found = explore(Dishonest(honest=False), distrust=1)
    assert [one.name for one in found.counterexamples] == ["dishonest key"]
    assert "what differs next: run" in str(found)
    assert explore(Dishonest(honest=True), distrust=1).ok
