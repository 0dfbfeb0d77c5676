"""What is read off a declaration: the audit as it is used, and the ways that exploration finds.

What the audit finds, kind by kind, is tested in `tests/statemachines/test_audit.py`.
"""

from __future__ import annotations

import itertools
from enum import StrEnum
from typing import Any

import pytest
from transitions import Machine

from remuda.specs.lifecycles import LifecycleMap, Move, audit, explore_lifecycle, moves, ways
from remuda.statemachines import subjects
from remuda.statemachines.audit import FaultKind
from remuda.statemachines.breaker import BREAKER, Breaker
from remuda.statemachines.call import CALL
from remuda.statemachines.lifecycle import Guard, Lifecycle, Subject
from remuda.statemachines.pool import POOL
from remuda.statemachines.slot import SLOT
from remuda.statemachines.template import TEMPLATE, Template
from remuda.statemachines.worker import WORKER


class S(StrEnum):
    A = "a"
    B = "b"
    C = "c"
    D = "d"
    END = "end"


class T(StrEnum):
    GO = "go"
    BACK = "back"
    STOP = "stop"


def lifecycle(transitions: list[Any], final: tuple[S, ...] = (S.END,)) -> Lifecycle[S, T]:
    states = [{"name": state, "final": state in final} for state in S]
    return Lifecycle(
        "sample", Machine(model=None, states=states, initial=S.A, transitions=transitions, auto_transitions=False)
    )


# ── Audit ───────────────────────────────────────────────────────────────────────────────────────

OURS: list[tuple[Lifecycle[Any, Any], type[Subject[Any]]]] = [
    (WORKER, subjects.Worker),
    (SLOT, subjects.Slot),
    (POOL, subjects.Pool),
    (CALL, subjects.Call),
    (BREAKER, Breaker),
    (TEMPLATE, Template),
]


@pytest.mark.parametrize(("ours", "subject"), OURS, ids=lambda it: it.name if isinstance(it, Lifecycle) else "")
def test_ours_have_no_faults(ours: Lifecycle[Any, Any], subject: type[Subject[Any]]) -> None:
    found = audit(ours, subject)
    assert not found
    assert str(found) == "no faults"


def test_an_audit_prints_what_it_found_and_is_true() -> None:
    class Sample(Subject[S]):
        willing = True

    sick = lifecycle([[T.GO, S.A, S.B, "willing"], [T.GO, S.A, S.C, "able"], [T.STOP, S.B, S.END]])
    found = audit(sick, Sample)
    assert found
    assert [fault.kind for fault in found] == [
        FaultKind.UNUSED_TRIGGER,
        FaultKind.PARTIAL,
        FaultKind.UNREACHABLE,
        FaultKind.DEAD_END,
        FaultKind.DEAD_END,
        FaultKind.UNKNOWN_GUARD,
        FaultKind.GUARD_NOT_PROPERTY,
    ]
    assert str(found).splitlines()[1] == "partial: go from a is refused when not able and not willing"
    assert repr(found).startswith("<7 faults: back is a trigger of no state; ")
    assert repr(audit(sick, Sample)[:0]) == "()"
    assert len(audit(sick)) == 5, "without the class, nothing is said about its guards"


def test_a_machine_that_is_no_lifecycle_can_be_audited() -> None:
    bare = Machine(model=None, states=[*S], initial=S.A, transitions=[[T.GO, S.A, "BENT"]], auto_transitions=False)
    assert FaultKind.UNKNOWN_DESTINATION in [fault.kind for fault in audit(bare)]


# ── Moves ───────────────────────────────────────────────────────────────────────────────────────


def said(guards: tuple[Guard, ...]) -> list[str]:
    return [str(guard) for guard in guards]


def test_a_move_asks_for_no_more_than_it_needs() -> None:
    sample = lifecycle(
        [
            {"trigger": T.GO, "source": S.A, "dest": S.B, "conditions": ["p", "q"]},
            {"trigger": T.GO, "source": S.A, "dest": S.C, "conditions": "p", "unless": "r"},
            {"trigger": T.GO, "source": S.A, "dest": S.D},
            {"trigger": T.STOP, "source": S.B, "dest": S.END},
        ]
    )
    found = {move.dest: said(move.guards) for move in moves(sample)}
    assert found == {S.B: ["p", "q"], S.C: ["p", "not q", "not r"], S.D: ["not p"], S.END: []}
    assert str(moves(sample)[1]) == "go [p and not q and not r]"
    # and with each of them, whatever the others say, the choice is the one that the engine takes
    for move in moves(sample)[:3]:
        free = sorted({"p", "q", "r"} - {guard.name for guard in move.guards})
        for values in itertools.product((True, False), repeat=len(free)):
            facts = {guard.name: guard.expected for guard in move.guards} | dict(zip(free, values, strict=True))
            one: Any = type("One", (Subject,), facts)(sample)
            assert sample.step(one, T.GO, 1.0) is move.dest


def test_what_is_hidden_is_no_move_and_leads_nowhere() -> None:
    sample = lifecycle(
        [[T.GO, S.A, S.B, "p"], [T.GO, S.A, S.END, None, "p"], [T.GO, S.A, S.C], [T.GO, S.B, S.D], [T.BACK, S.D, S.A]]
    )
    assert [(move.source, move.dest) for move in moves(sample)] == [(S.A, S.B), (S.A, S.END), (S.B, S.D), (S.D, S.A)]
    assert explore_lifecycle(sample).unreachable == (S.C,)


# ── Exploration ─────────────────────────────────────────────────────────────────────────────────


def test_the_ways_are_the_shortest() -> None:
    sample = lifecycle(
        [
            [T.GO, S.A, S.B],
            [T.GO, S.B, S.C],
            [T.GO, S.C, S.D],
            [T.STOP, S.A, S.C, "p"],
            [T.STOP, S.A, None],
            [T.STOP, S.D, S.END],
        ]
    )
    found = explore_lifecycle(sample)
    assert {state: [str(move) for move in way] for state, way in found.ways.items()} == {
        S.A: [],
        S.B: ["go"],
        S.C: ["stop [p]"],
        S.D: ["stop [p]", "go"],
        S.END: ["stop [p]", "go", "stop"],
    }
    assert [*found.ways] == [S.A, S.B, S.C, S.D, S.END], "the nearest first"
    assert found.unreachable == found.dead_ends == found.traps == ()
    assert len(found.moves) == 6
    assert ways(found.moves, S.C).keys() == {S.C, S.D, S.END}


def test_what_cannot_be_reached_or_left_is_said() -> None:
    sample = lifecycle(
        [
            [T.GO, S.A, S.B],
            [T.GO, S.B, None],
            [T.STOP, S.C, S.END],
            [T.BACK, S.A, S.END],
            [T.STOP, S.A, S.D],
            [T.GO, S.D, S.B],
        ]
    )
    found = explore_lifecycle(sample)
    assert found.unreachable == (S.C,)
    assert found.dead_ends == (S.B,)
    assert found.traps == (S.B, S.D)
    assert len(found.moves) == 5, "what could happen in a state that is never reached is left out"
    assert str(found) == (
        "sample: 4 of 5 states can be reached; 5 moves\n"
        "  a    (it starts here)\n"
        "  b    go\n"
        "  end  back\n"
        "  d    stop\n"
        "never reached: c\n"
        "dead ends: b\n"
        "no way to a final state: d"
    )


def test_a_lifecycle_without_an_end_has_no_traps() -> None:
    circle = [[T.GO, S.A, S.B], [T.GO, S.B, S.C], [T.GO, S.C, S.D], [T.GO, S.D, S.A], [T.STOP, S.A, S.END]]
    assert explore_lifecycle(lifecycle([*circle, [T.BACK, S.END, S.A]], final=())).traps == ()
    assert explore_lifecycle(lifecycle(circle, final=())).traps == (S.END,)
    assert explore_lifecycle(lifecycle([[T.GO, S.A, S.B], [T.GO, S.B, S.A]], final=())).traps == ()


@pytest.mark.parametrize(
    ("ours", "states", "possible", "farthest"),
    [
        (WORKER, 9, 57, "init_complete, checkout, checkin_error [not at_failure_limit]"),
        (SLOT, 6, 20, "serve"),
        (POOL, 7, 23, "become_ready, suspend"),
        (CALL, 10, 20, "assign, start, back_off"),
        (BREAKER, 5, 19, "trip, cool_down"),
        (TEMPLATE, 5, 19, "prepared"),
    ],
    ids=lambda it: it.name if isinstance(it, Lifecycle) else "",
)
def test_ours_are_what_they_were(ours: Lifecycle[Any, Any], states: int, possible: int, farthest: str) -> None:
    """The exact counts: a step more or less in a table is somebody's decision, and shows here."""
    found: LifecycleMap[Any, Any] = explore_lifecycle(ours)
    assert (len(found.ways), len(found.moves)) == (states, possible)
    assert found.unreachable == found.dead_ends == found.traps == ()
    longest: tuple[Move[Any, Any], ...] = max(found.ways.values(), key=len)
    assert ", ".join(map(str, longest)) == farthest
