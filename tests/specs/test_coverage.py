"""What was taken is counted, and what is missing is a failure that says what, and how to get there."""

from __future__ import annotations

from enum import StrEnum

import pytest
from transitions import Machine

from remuda.specs.coverage import Coverage
from remuda.specs.engines import Law, probe_of
from remuda.specs.invariants import InvariantViolated
from remuda.statemachines.errors import ConfigError
from remuda.statemachines.lifecycle import Lifecycle, Subject


class S(StrEnum):
    RED = "red"
    GREEN = "green"
    DARK = "dark"


class T(StrEnum):
    NEXT = "next"
    CUT = "cut"


class Other(StrEnum):
    RED = "red"
    GREEN = "green"


LIGHT: Lifecycle[S, T] = Lifecycle(
    "light",
    Machine(
        model=None,
        states=[S.RED, S.GREEN, {"name": S.DARK, "final": True}],
        initial=S.RED,
        transitions=[
            [T.NEXT, S.RED, S.GREEN, "clear"],
            [T.NEXT, S.RED, None],
            [T.NEXT, S.GREEN, S.RED],
            [T.CUT, S.GREEN, S.DARK],
        ],
        auto_transitions=False,
    ),
)

GO, WAIT = (S.RED, T.NEXT, S.GREEN), (S.RED, T.NEXT, S.RED)
STOP, CUT = (S.GREEN, T.NEXT, S.RED), (S.GREEN, T.CUT, S.DARK)


def drive(coverage: Coverage[S, T], *facts: bool) -> None:
    subject = probe_of(LIGHT)(LIGHT)
    subject.observer = coverage.saw
    for clear in facts:
        subject.facts["clear"] = clear
        LIGHT.step(subject, T.NEXT, 1.0)


def test_every_outcome_of_a_choice_counts_for_itself() -> None:
    coverage = Coverage(LIGHT)
    assert [*coverage.declared] == [GO, WAIT, STOP, CUT]
    drive(coverage, True, True, True)
    assert coverage.seen == {GO: 2, STOP: 1}
    assert coverage.missing == [WAIT, CUT]


def test_what_is_missing_is_listed_with_the_way_there() -> None:
    coverage = Coverage(LIGHT)
    drive(coverage, True, True)
    with pytest.raises(InvariantViolated) as caught:
        coverage.check()
    assert caught.value.name == Law.EVERY_STEP_IS_TAKEN
    assert caught.value.detail == (
        "light: 2 of 4 declared steps were never taken:\n"
        "  red --next--> red (guarded: clear); to red: it starts there\n"
        "  green --cut--> dark; to green: next [clear]"
    )


def test_what_cannot_be_taken_may_be_missing_and_must_be() -> None:
    coverage = Coverage(LIGHT, {CUT: "nobody has scissors", WAIT: "the road is always clear"})
    drive(coverage, True, True)
    coverage.check()
    drive(coverage, False)
    with pytest.raises(InvariantViolated) as caught:
        coverage.check()
    assert caught.value.detail == (
        "light: taken, although said to be out of reach:\n  red --next--> red (the road is always clear)"
    )


def test_a_list_of_the_unreachable_has_to_be_right() -> None:
    with pytest.raises(ConfigError, match="light has no step dark --next--> red"):
        Coverage(LIGHT, {(S.DARK, T.NEXT, S.RED): "it is dark"})
    with pytest.raises(ConfigError, match="green --cut--> dark needs a reason"):
        Coverage(LIGHT, {CUT: " "})


def test_the_steps_of_another_lifecycle_are_not_counted() -> None:
    other: Lifecycle[Other, T] = Lifecycle(
        "other",
        Machine(
            model=None,
            states=[*Other],
            initial=Other.RED,
            transitions=[[T.NEXT, Other.RED, Other.GREEN], [T.NEXT, Other.GREEN, Other.RED]],
            auto_transitions=False,
        ),
    )
    coverage = Coverage(LIGHT)
    subject = Subject(other, observer=coverage.saw)
    other.step(subject, T.NEXT, 1.0)
    assert coverage.seen == {}


def test_a_state_that_nothing_leads_to_is_said_to_be_one() -> None:
    island: Lifecycle[S, T] = Lifecycle(
        "island",
        Machine(
            model=None,
            states=[*S],
            initial=S.RED,
            transitions=[[T.NEXT, S.RED, None], [T.CUT, S.GREEN, S.DARK]],
            auto_transitions=False,
        ),
    )
    with pytest.raises(InvariantViolated, match="green --cut--> dark; to green: nothing leads there"):
        Coverage(island).check()
