"""The laws of a step, and that each is told by its name when an engine breaks it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from transitions import Machine

from remuda.specs.engines import Law, engines_agree, judge_step, probe_of
from remuda.specs.invariants import InvariantViolated
from remuda.specs.lifecycle_rules import machine
from remuda.statemachines.errors import IllegalTransition
from remuda.statemachines.lifecycle import Lifecycle, Step, Subject

QUICK = settings(
    max_examples=30,
    stateful_step_count=30,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow],
    report_multiple_bugs=False,
)


class S(StrEnum):
    SHUT = "shut"
    OPEN = "open"
    GONE = "gone"


class T(StrEnum):
    PUSH = "push"
    PULL = "pull"
    UNHINGE = "unhinge"


def declared() -> Machine:
    return Machine(
        model=None,
        states=[S.SHUT, S.OPEN, {"name": S.GONE, "final": True}],
        initial=S.SHUT,
        transitions=[
            [T.PUSH, S.SHUT, None, "locked"],
            [T.PUSH, S.SHUT, S.OPEN],
            [T.PULL, S.OPEN, S.SHUT],
            [T.UNHINGE, S.SHUT, S.GONE, None, "locked"],
            [T.UNHINGE, S.OPEN, S.GONE],
        ],
        auto_transitions=False,
    )


Taking = Callable[[Subject[Any], Any, float, str], Any]


class Broken(Lifecycle[S, T]):
    """A door with a step function that somebody has spoilt."""

    __slots__ = ("spoilt",)

    def __init__(self, spoilt: Callable[[Taking, Subject[Any], Any, float, str], Any], name: str = "door") -> None:
        super().__init__(name, declared())
        self.spoilt = spoilt

    def step(self, subject: Subject[Any], trigger: T, now: float, reason: str = "") -> S:
        return self.spoilt(super().step, subject, trigger, now, reason)


def test_the_door_is_sound_until_it_is_spoilt() -> None:
    sound = Broken(lambda step, *given: step(*given))
    assert engines_agree(sound) == 3 * 3 + 2, "nine pairs, and two of them ask a guard"
    machine(sound).run(QUICK)


# ── Each law, broken ────────────────────────────────────────────────────────────────────────────

PLANTED: list[tuple[Law, Callable[..., Any]]] = []


def breaks(law: Law) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def plant(spoilt: Callable[..., Any]) -> Callable[..., Any]:
        PLANTED.append((law, spoilt))
        return spoilt

    return plant


@breaks(Law.LEGAL_STEP_IS_TAKEN)
def a_legal_step_is_refused(step: Taking, subject: Subject[Any], trigger: T, now: float, reason: str) -> Any:
    if trigger is T.PULL:
        raise IllegalTransition("door", str(subject.state), str(trigger))
    return step(subject, trigger, now, reason)


@breaks(Law.LEGAL_STEP_IS_TAKEN)
def a_guard_is_ignored(step: Taking, subject: Subject[Any], trigger: T, now: float, reason: str) -> Any:
    dest = step(subject, trigger, now, reason)
    if trigger is T.PUSH:
        subject.state = dest = S.OPEN
    return dest


@breaks(Law.LEGAL_STEP_IS_TAKEN)
def the_state_is_a_word_and_no_member(step: Taking, subject: Subject[Any], trigger: T, now: float, reason: str) -> Any:
    step(subject, trigger, now, reason)
    subject.state = str(subject.state)
    return subject.state


@breaks(Law.LEGAL_STEP_IS_TAKEN)
def the_old_state_is_returned(step: Taking, subject: Subject[Any], *given: Any) -> Any:
    before = subject.state
    step(subject, *given)
    return before


@breaks(Law.STEP_IS_RECORDED)
def a_step_that_stays_begins_anew(step: Taking, subject: Subject[Any], trigger: T, now: float, reason: str) -> Any:
    dest = step(subject, trigger, now, reason)
    subject.since = now
    return dest


@breaks(Law.STEP_IS_RECORDED)
def since_is_forgotten(step: Taking, subject: Subject[Any], *given: Any) -> Any:
    before = subject.since
    dest = step(subject, *given)
    subject.since = before
    return dest


@breaks(Law.STEP_IS_RECORDED)
def a_step_that_stays_is_not_recorded(step: Taking, subject: Subject[Any], *given: Any) -> Any:
    before = subject.state
    dest = step(subject, *given)
    if dest is before:
        subject.history.pop()
    return dest


@breaks(Law.STEP_IS_RECORDED)
def the_history_has_the_step_twice(step: Taking, subject: Subject[Any], *given: Any) -> Any:
    dest = step(subject, *given)
    subject.history.append(subject.history[-1])
    return dest


@breaks(Law.OBSERVER_SEES_EACH_STEP_ONCE)
def the_reason_is_kept_from_the_observer(
    step: Taking, subject: Subject[Any], trigger: T, now: float, reason: str
) -> Any:
    observer = subject.observer
    assert observer is not None
    subject.observer = lambda it, s: observer(it, Step(s.trigger, s.source, s.dest, s.at, ""))
    try:
        return step(subject, trigger, now, reason)
    finally:
        subject.observer = observer


@breaks(Law.OBSERVER_SEES_EACH_STEP_ONCE)
def the_observer_is_called_twice(step: Taking, subject: Subject[Any], *given: Any) -> Any:
    dest = step(subject, *given)
    if not subject.observer_errors and subject.observer is not None:
        try:
            subject.observer(subject, subject.history[-1])
        except Exception:
            subject.observer_errors += 1
    return dest


@breaks(Law.OBSERVER_SEES_EACH_STEP_ONCE)
def the_observer_sees_the_old_state(step: Taking, subject: Subject[Any], *given: Any) -> Any:
    observer, before = subject.observer, subject.state
    assert observer is not None

    def early(it: Subject[Any], taken: Step) -> None:
        after, it.state = it.state, before
        try:
            observer(it, taken)
        finally:
            it.state = after

    subject.observer = early
    try:
        return step(subject, *given)
    finally:
        subject.observer = observer


@breaks(Law.OBSERVER_HARMS_NOTHING)
def an_observers_error_is_not_counted(step: Taking, subject: Subject[Any], *given: Any) -> Any:
    dest = step(subject, *given)
    subject.observer_errors = 0
    return dest


@breaks(Law.OBSERVER_HARMS_NOTHING)
def an_observers_error_gets_out(step: Taking, subject: Subject[Any], *given: Any) -> Any:
    observer, subject.observer = subject.observer, None
    try:
        dest = step(subject, *given)
        assert observer is not None
        observer(subject, subject.history[-1] if subject.history else Step("push", "shut", "open", 0.0, ""))
        return dest
    finally:
        subject.observer = observer


@breaks(Law.ILLEGAL_STEP_IS_REFUSED)
def an_illegal_step_is_ignored(step: Taking, subject: Subject[Any], *given: Any) -> Any:
    try:
        return step(subject, *given)
    except IllegalTransition:
        return subject.state


@breaks(Law.ILLEGAL_STEP_IS_REFUSED)
def it_is_refused_with_another_error(step: Taking, subject: Subject[Any], *given: Any) -> Any:
    try:
        return step(subject, *given)
    except IllegalTransition as error:
        raise KeyError(error.trigger) from None


@breaks(Law.ILLEGAL_STEP_IS_REFUSED)
def it_is_refused_in_the_name_of_another(step: Taking, subject: Subject[Any], *given: Any) -> Any:
    try:
        return step(subject, *given)
    except IllegalTransition as error:
        raise IllegalTransition("gate", error.state, error.trigger) from None


@breaks(Law.ILLEGAL_STEP_CHANGES_NOTHING)
def an_illegal_step_changes_the_state(step: Taking, subject: Subject[Any], *given: Any) -> Any:
    try:
        return step(subject, *given)
    except IllegalTransition:
        subject.state = S.GONE if subject.state is not S.GONE else S.OPEN
        raise


@breaks(Law.ILLEGAL_STEP_CHANGES_NOTHING)
def an_illegal_step_changes_since(step: Taking, subject: Subject[Any], trigger: T, now: float, reason: str) -> Any:
    try:
        return step(subject, trigger, now, reason)
    except IllegalTransition:
        subject.since = now + 1
        raise


@breaks(Law.ILLEGAL_STEP_CHANGES_NOTHING)
def an_illegal_step_is_recorded(step: Taking, subject: Subject[Any], trigger: T, now: float, reason: str) -> Any:
    try:
        return step(subject, trigger, now, reason)
    except IllegalTransition:
        subject.history.append(Step(trigger, subject.state, subject.state, now, reason))
        raise


@breaks(Law.ILLEGAL_STEP_CHANGES_NOTHING)
def the_observer_hears_of_an_illegal_step(
    step: Taking, subject: Subject[Any], trigger: T, now: float, reason: str
) -> Any:
    try:
        return step(subject, trigger, now, reason)
    except IllegalTransition:
        if subject.observer is not None:
            try:
                subject.observer(subject, Step(trigger, subject.state, subject.state, now, reason))
            except Exception:
                subject.observer_errors += 1
        raise


@pytest.mark.parametrize(("law", "spoilt"), PLANTED, ids=[spoilt.__name__ for _, spoilt in PLANTED])
def test_a_broken_engine_breaks_the_law_of_that_name(law: Law, spoilt: Callable[..., Any]) -> None:
    with pytest.raises(InvariantViolated) as caught:
        engines_agree(Broken(spoilt))
    assert caught.value.name == law, caught.value.detail
    with pytest.raises(InvariantViolated) as caught:
        machine(Broken(spoilt)).run(QUICK)
    assert caught.value.name == law, caught.value.detail


def test_every_law_of_a_step_is_broken_by_somebody() -> None:
    """Those of guards and of whole lives have their own tests, here and in `test_lifecycle_rules.py`."""
    assert {law for law, _ in PLANTED} == {
        Law.LEGAL_STEP_IS_TAKEN,
        Law.STEP_IS_RECORDED,
        Law.ILLEGAL_STEP_IS_REFUSED,
        Law.ILLEGAL_STEP_CHANGES_NOTHING,
        Law.OBSERVER_SEES_EACH_STEP_ONCE,
        Law.OBSERVER_HARMS_NOTHING,
    }


def test_a_table_that_was_compiled_wrongly_does_not_agree() -> None:
    wrong: Lifecycle[S, T] = Lifecycle("door", declared())
    wrong.table[S.SHUT][T.PUSH] = wrong.table[S.SHUT][T.PUSH][::-1]
    with pytest.raises(InvariantViolated, match="engines_agree: door: push from shut") as caught:
        engines_agree(wrong)
    assert caught.value.name == Law.ENGINES_AGREE


def test_looking_for_a_step_must_not_declare_it() -> None:
    class Careless(Lifecycle[S, T]):
        __slots__ = ()

        def step_stock(self, subject: Subject[Any], trigger: T, now: float, reason: str = "") -> S:
            if subject.state not in self.machine.events[trigger].transitions[subject.state.name]:
                pass  # a look that adds an empty list
            if not self.machine.events[trigger].transitions[subject.state.name]:
                raise IllegalTransition(self.name, str(subject.state), str(trigger))
            return super().step_stock(subject, trigger, now, reason)

    with pytest.raises(InvariantViolated, match="declared are") as caught:
        engines_agree(Careless("door", declared()))
    assert caught.value.name == Law.ILLEGAL_STEP_CHANGES_NOTHING


# ── Guards ──────────────────────────────────────────────────────────────────────────────────────

DOOR: Lifecycle[S, T] = Lifecycle("door", declared())


def door(guard: Callable[[Any], object]) -> Subject[Any]:
    made: Subject[Any] = type("Door", (Subject,), {"locked": property(guard)})(DOOR)
    return made


def test_a_guard_that_is_no_bool_is_told() -> None:
    for said in (1, 0, None, "yes"):
        with pytest.raises(InvariantViolated, match=f"the guard locked said {said!r}") as caught:
            judge_step(DOOR, door(lambda _, said=said: said), T.PUSH, 1.0)
        assert caught.value.name == Law.GUARDS_ARE_BOOLS


def test_a_guard_that_says_one_thing_and_then_another_is_told() -> None:
    answers = [True, False]
    with pytest.raises(InvariantViolated, match="asked again, the guards said") as caught:
        judge_step(DOOR, door(lambda _: answers.pop()), T.PUSH, 1.0)
    assert caught.value.name == Law.GUARDS_ARE_FACTS


def test_a_guard_that_changes_what_it_looks_at_is_told() -> None:
    def meddling(it: Subject[Any]) -> bool:
        it.since = 99.0
        return True

    with pytest.raises(InvariantViolated, match="after asking the guards") as caught:
        judge_step(DOOR, door(meddling), T.PUSH, 1.0)
    assert caught.value.name == Law.GUARDS_ARE_FACTS


def test_a_guard_that_raises_is_named_in_a_note() -> None:
    def broken(it: Subject[Any]) -> bool:
        raise LookupError("no key")

    with pytest.raises(LookupError, match="no key") as caught:
        judge_step(DOOR, door(broken), T.PUSH, 1.0)
    assert caught.value.__notes__ == ["raised by the guard locked, asked for door: push from shut"]


def test_only_the_guards_that_a_step_asks_are_asked() -> None:
    def broken(it: Subject[Any]) -> bool:
        raise LookupError("nobody should have asked")

    one = door(broken)
    assert judge_step(DOOR, one, T.PULL, 1.0) is None
    one.state = S.OPEN
    assert judge_step(DOOR, one, T.UNHINGE, 1.0) is not None


# ── What judging leaves behind ──────────────────────────────────────────────────────────────────


def test_a_judged_step_is_one_step() -> None:
    seen: list[Step] = []
    one = probe_of(DOOR)(DOOR, now=1.0, history=1)
    one.observer = lambda it, step: seen.append(step)
    for number in range(3):
        assert judge_step(DOOR, one, T.PUSH, 2.0 + number, "in")
        assert judge_step(DOOR, one, T.PULL, 2.5 + number, "out")
        assert judge_step(DOOR, one, T.PULL, 2.6 + number) is None
    assert [(step.trigger, step.at) for step in seen] == [
        ("push", 2.0),
        ("pull", 2.5),
        ("push", 3.0),
        ("pull", 3.5),
        ("push", 4.0),
        ("pull", 4.5),
    ]
    assert [*one.history] == seen[-1:]
    assert (one.state, one.since, one.observer_errors) == (S.SHUT, 4.5, 0)


def test_an_observer_of_ones_own_that_raises_is_counted_as_ever(caplog: pytest.LogCaptureFixture) -> None:
    def faulty(it: Subject[Any], step: Step) -> None:
        raise ValueError("I saw nothing")

    one = probe_of(DOOR)(DOOR)
    one.observer = faulty
    assert judge_step(DOOR, one, T.PUSH, 1.0)
    assert (one.observer_errors, one.observer) == (1, faulty)
    assert "I saw nothing" in caplog.text


def test_planted_errors_are_kept_out_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "remuda.statemachines"):
        one = probe_of(DOOR)(DOOR)
        assert judge_step(DOOR, one, T.PUSH, 1.0, observer_raises=True)
    assert one.observer_errors == 1
    assert [record for record in caplog.records if record.name == "remuda.statemachines"] == []
    assert logging.getLogger("remuda.statemachines").filters == []
