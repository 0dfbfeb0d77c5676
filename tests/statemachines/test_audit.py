"""The audit finds what is planted, of every kind, and finds nothing in ours."""

from __future__ import annotations

import functools
from enum import StrEnum
from typing import Any

import pytest
from transitions import Machine

from remuda.statemachines import subjects
from remuda.statemachines.audit import Fault, FaultKind, faults
from remuda.statemachines.breaker import BREAKER, Breaker
from remuda.statemachines.call import CALL
from remuda.statemachines.lifecycle import Lifecycle, Subject
from remuda.statemachines.pool import POOL
from remuda.statemachines.slot import SLOT
from remuda.statemachines.template import TEMPLATE, Template
from remuda.statemachines.worker import WORKER


class S(StrEnum):
    ON = "on"
    OFF = "off"
    OUT = "out"


class T(StrEnum):
    FLIP = "flip"
    END = "end"


class Switch(Subject[S]):
    """Its good guards are `wet` and `dry`; each of the others is wrong in its own way."""

    plain = True

    def method(self) -> bool:
        return True

    @property
    def wet(self) -> bool:
        return False

    @property
    def dry(self) -> bool:
        return True

    @property
    def settable(self) -> bool:
        return True

    @settable.setter
    def settable(self, value: bool) -> None:
        raise NotImplementedError

    @functools.cached_property
    def cached(self) -> bool:
        return True


FLIP_ON, FLIP_OFF = [T.FLIP, S.OFF, S.ON], [T.FLIP, S.ON, S.OFF]
END = [[T.END, S.ON, S.OUT], [T.END, S.OFF, S.OUT]]


def machine(transitions: list[Any], **changes: Any) -> Machine:
    settings: dict[str, Any] = {
        "model": None,
        "states": [S.ON, S.OFF, {"name": S.OUT, "final": True}],
        "initial": S.OFF,
        "transitions": transitions,
        "auto_transitions": False,
    }
    return Machine(**settings | changes)


K = FaultKind

PLANTED: list[tuple[Machine, list[tuple[FaultKind, str | None, str | None, str]]]] = [
    (
        machine([FLIP_ON, FLIP_OFF, *END], queued=True),
        [(K.NOT_COMPILABLE, None, None, "it is queued (one queue would serve every subject)")],
    ),
    (
        machine([FLIP_ON, FLIP_OFF, *END, [T.FLIP, "BENT", S.ON]]),
        [(K.UNKNOWN_SOURCE, "BENT", "flip", "flip has the unknown source BENT")],
    ),
    (
        machine([FLIP_ON, FLIP_OFF, [T.END, S.ON, S.OUT], [T.END, S.OFF, "BENT"]]),
        [(K.UNKNOWN_DESTINATION, "off", "end", "end from OFF has the unknown destination BENT")],
    ),
    (
        machine([[T.FLIP, S.OFF, S.ON], [T.END, S.ON, S.OFF]], states=[S.ON, S.OFF]),
        [(K.UNDECLARED_STATE, "out", None, "out is a state that is not declared")],
    ),
    (
        machine([FLIP_ON, [T.FLIP, S.ON, S.OUT]]),
        [(K.UNUSED_TRIGGER, None, "end", "end is a trigger of no state")],
    ),
    (
        machine([FLIP_ON, FLIP_OFF, *END, [T.FLIP, S.OUT, S.ON]]),
        [(K.LEAVES_FINAL, "out", "flip", "flip leaves the final state out")],
    ),
    (  # an open choice hides the later ones …
        machine([FLIP_ON, [T.FLIP, S.OFF, S.OUT], FLIP_OFF, *END]),
        [(K.HIDDEN_CHOICE, "off", "flip", "flip from off: choice 2, to out, is never taken")],
    ),
    (  # … and so do guards that together leave nothing over, …
        machine(
            [
                [T.FLIP, S.OFF, S.ON, "wet"],
                [T.FLIP, S.OFF, None, None, "wet"],
                [T.FLIP, S.OFF, S.OUT, "dry"],
                FLIP_OFF,
                *END,
            ]
        ),
        [(K.HIDDEN_CHOICE, "off", "flip", "flip from off: choice 3, to out, is never taken")],
    ),
    (  # … and what only a hidden choice leads to is not reached.
        machine([[T.FLIP, S.OFF, None], FLIP_ON, [T.END, S.OFF, S.OUT], [T.END, S.ON, S.OUT]]),
        [
            (K.HIDDEN_CHOICE, "off", "flip", "flip from off: choice 2, to on, is never taken"),
            (K.UNREACHABLE, "on", None, "on is never reached"),
        ],
    ),
    (
        machine([[T.FLIP, S.OFF, S.ON, ["dry", "wet"]], FLIP_OFF, *END]),
        [(K.PARTIAL, "off", "flip", "flip from off is refused when not dry and not wet")],
    ),
    (
        machine([[T.FLIP, S.OFF, None], [T.FLIP, S.ON, S.OFF], *END]),
        [(K.UNREACHABLE, "on", None, "on is never reached")],
    ),
    (
        machine([FLIP_ON, [T.FLIP, S.ON, None], [T.END, S.OFF, S.OUT]]),
        [(K.DEAD_END, "on", None, "on is a dead end, and not final")],
    ),
    (
        machine([[T.FLIP, S.OFF, S.ON, "gone"], [T.FLIP, S.OFF, None], FLIP_OFF, *END]),
        [(K.UNKNOWN_GUARD, "off", "flip", "the guard gone (of flip from off) is not defined by Switch")],
    ),
    *(
        (
            machine([[T.FLIP, S.OFF, S.ON, name], [T.FLIP, S.OFF, None], FLIP_OFF, *END]),
            [
                (
                    K.GUARD_NOT_PROPERTY,
                    "off",
                    "flip",
                    f"the guard {name} (of flip from off) is not a read-only property of Switch",
                )
            ],
        )
        for name in ("method", "plain", "settable", "cached")
    ),
]


@pytest.mark.parametrize(("planted", "found"), PLANTED)
def test_what_is_planted_is_found_and_nothing_else(
    planted: Machine, found: list[tuple[FaultKind, str | None, str | None, str]]
) -> None:
    expected = [Fault(kind, text, state, trigger) for kind, state, trigger, text in found]
    assert faults(planted, Switch) == expected
    assert [str(fault) for fault in expected] == [text for *_, text in found]


def test_every_kind_is_planted() -> None:
    assert {kind for _, found in PLANTED for kind, *_ in found} == {*FaultKind}


@pytest.mark.parametrize(
    "sound",
    [
        machine([FLIP_ON, FLIP_OFF, *END]),
        # two guards that leave nothing over are as good as a last choice without one
        machine([[T.FLIP, S.OFF, S.ON, "wet"], [T.FLIP, S.OFF, None, None, "wet"], FLIP_OFF, *END]),
    ],
)
def test_a_sound_declaration_has_no_faults(sound: Machine) -> None:
    assert faults(sound, Switch) == []
    made: Lifecycle[S, T] = Lifecycle("switch", sound)
    assert faults(made, Switch) == []


def test_guards_are_only_looked_for_where_they_could_be() -> None:
    unknown = machine([[T.FLIP, S.OFF, S.ON, "gone"], [T.FLIP, S.OFF, None], FLIP_OFF, *END])
    assert faults(unknown) == []


def test_faults_come_by_kind_and_the_same_every_time() -> None:
    wrong = machine([[T.FLIP, S.OUT, S.ON], [T.FLIP, "BENT", S.ON], [T.FLIP, S.OFF, "BENT"]], queued=True)
    kinds = [fault.kind for fault in faults(wrong)]
    assert kinds == sorted(kinds, key=[*FaultKind].index)
    assert kinds == [
        K.NOT_COMPILABLE,
        K.UNKNOWN_SOURCE,
        K.UNKNOWN_DESTINATION,
        K.UNUSED_TRIGGER,
        K.LEAVES_FINAL,
        K.UNREACHABLE,
        K.UNREACHABLE,
        K.DEAD_END,
        K.DEAD_END,
    ]
    assert faults(wrong) == faults(wrong)


@pytest.mark.parametrize(
    ("lifecycle", "subject"),
    [
        (WORKER, subjects.Worker),
        (SLOT, subjects.Slot),
        (POOL, subjects.Pool),
        (CALL, subjects.Call),
        (BREAKER, Breaker),
        (TEMPLATE, Template),
    ],
    ids=lambda it: it.name if isinstance(it, Lifecycle) else "",
)
def test_ours_have_none(lifecycle: Lifecycle[Any, Any], subject: type[Subject[Any]]) -> None:
    assert faults(lifecycle, subject) == []
