"""The table and the stock engine mean the same: every state, trigger and outcome of the guards.

The lifecycles are small enough to try all of it, which `remuda.specs.engines` does; what it catches is
tested there. A lifecycle made for the purpose adds what ours do not use: several guards on one choice,
"=", guards that all refuse, guards that return no bool.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import pytest
from transitions import Machine

from remuda.specs.engines import engines_agree
from remuda.specs.lifecycles import moves
from remuda.statemachines.breaker import BREAKER
from remuda.statemachines.call import CALL
from remuda.statemachines.errors import IllegalTransition
from remuda.statemachines.lifecycle import Lifecycle, Subject
from remuda.statemachines.pool import POOL
from remuda.statemachines.slot import SLOT
from remuda.statemachines.template import TEMPLATE
from remuda.statemachines.worker import WORKER


class Light(StrEnum):
    RED = "red"
    GREEN = "green"
    DARK = "dark"


class Turn(StrEnum):
    NEXT = "next"
    AGAIN = "again"
    CUT = "cut"


LIGHT: Lifecycle[Light, Turn] = Lifecycle(
    "light",
    Machine(
        model=None,
        states=[Light.RED, Light.GREEN, {"name": Light.DARK, "final": True}],
        initial=Light.RED,
        transitions=[
            {
                "trigger": Turn.NEXT,
                "source": [Light.RED, Light.GREEN],
                "dest": Light.GREEN,
                "conditions": ["powered", "clear"],
                "unless": "broken",
            },
            {"trigger": Turn.NEXT, "source": Light.RED, "dest": Light.DARK, "unless": ["powered", "clear"]},
            {"trigger": Turn.NEXT, "source": Light.GREEN, "dest": Light.RED},
            {"trigger": Turn.AGAIN, "source": [Light.RED, Light.GREEN], "dest": "=", "conditions": "powered"},
            {"trigger": Turn.CUT, "source": Light.RED, "dest": Light.DARK},
            {"trigger": Turn.CUT, "source": Light.GREEN, "dest": None},
        ],
        auto_transitions=False,
    ),
)

LIFECYCLES: list[Lifecycle[Any, Any]] = [WORKER, SLOT, POOL, CALL, BREAKER, TEMPLATE, LIGHT]


@pytest.mark.parametrize(
    ("lifecycle", "cases"),
    [(WORKER, 9 * 13 + 2), (SLOT, 6 * 6), (POOL, 7 * 7 + 1), (CALL, 10 * 10), (BREAKER, 5 * 6), (TEMPLATE, 5 * 6)],
    ids=lambda it: it.name if isinstance(it, Lifecycle) else "",
)
def test_every_step_of_ours_is_the_same_on_both_engines(lifecycle: Lifecycle[Any, Any], cases: int) -> None:
    """Every state with every trigger, and once more for each guard in it."""
    assert engines_agree(lifecycle) == cases


def test_guards_that_say_anything_are_understood_in_the_same_way() -> None:
    outcomes = (True, False, None, 1, 2)
    assert engines_agree(LIGHT, outcomes) == 5**3 + 5**3 + 5 + 5 + 1 + 1 + 3


@pytest.mark.parametrize("lifecycle", LIFECYCLES, ids=lambda it: it.name)
def test_allows_is_what_some_outcome_of_the_guards_takes(lifecycle: Lifecycle[Any, Any]) -> None:
    possible = {(move.source, move.trigger) for move in moves(lifecycle)}
    for state in lifecycle.states:
        for trigger in lifecycle.triggers:
            assert lifecycle.allows(state, trigger) == ((state, trigger) in possible)


def test_a_guard_that_raises_changes_nothing_in_either() -> None:
    class Shaky(Subject[Light]):
        @property
        def powered(self) -> bool:
            raise LookupError("no meter")

    for step in LIGHT.step, LIGHT.step_stock:
        one = Shaky(LIGHT)
        with pytest.raises(LookupError, match="no meter"):
            step(one, Turn.AGAIN, 1.0)
        assert (one.state, one.since, list(one.history)) == (Light.RED, 0.0, [])


def test_a_state_of_another_lifecycle_is_illegal_in_both() -> None:
    for step in LIGHT.step, LIGHT.step_stock:
        one = Subject(LIGHT)
        one.state = "purple"  # type: ignore[assignment]
        with pytest.raises(IllegalTransition):
            step(one, Turn.CUT, 1.0)
        assert one.state == "purple"


# ── What our own declarations promise ───────────────────────────────────────────────────────────


@pytest.mark.parametrize("lifecycle", LIFECYCLES[:-1], ids=lambda it: it.name)
def test_the_whole_of_both_enums_is_declared(lifecycle: Lifecycle[Any, Any]) -> None:
    assert lifecycle.states == tuple(type(lifecycle.initial))
    assert lifecycle.triggers == tuple(type(lifecycle.triggers[0]))


@pytest.mark.parametrize(
    ("lifecycle", "final"),
    [
        (WORKER, {"terminated"}),
        (SLOT, {"closed"}),
        (POOL, {"closed"}),
        (CALL, {"succeeded", "failed", "unknown", "rejected", "timed_out", "cancelled"}),
        (BREAKER, set[str]()),
        (TEMPLATE, {"ended"}),
    ],
    ids=lambda it: it.name if isinstance(it, Lifecycle) else "",
)
def test_final_states_are_those_without_a_way_out(lifecycle: Lifecycle[Any, Any], final: set[str]) -> None:
    assert {str(s) for s in lifecycle.final} == final
    assert {str(s) for s in lifecycle.states if not lifecycle.table[s]} == final


def test_a_worker_may_exit_at_any_time_and_nothing_comes_too_late_for_one_that_terminates() -> None:
    S, T = type(WORKER.initial), type(WORKER.triggers[0])
    for state in S:
        assert WORKER.allows(state, T.EXITED) == (state is not S.TERMINATED)
    for trigger in T:
        (choice,) = WORKER.table[S.TERMINATING][trigger]
        assert choice.dest is (S.TERMINATED if trigger is T.EXITED else S.TERMINATING)


def test_a_template_may_end_at_any_time_and_nothing_comes_too_late_for_one_that_retires() -> None:
    S, T = type(TEMPLATE.initial), type(TEMPLATE.triggers[0])
    for state in S:
        assert TEMPLATE.allows(state, T.EXITED) == TEMPLATE.allows(state, T.RETIRE) == (state is not S.ENDED)
    for trigger in T:
        (choice,) = TEMPLATE.table[S.RETIRING][trigger]
        assert choice.dest is (S.ENDED if trigger is T.EXITED else S.RETIRING)
    assert [s for s in S if TEMPLATE.allows(s, T.FORK)] == [S.READY, S.UNFIT, S.RETIRING]


def test_a_call_can_be_cancelled_and_time_out_until_it_has_its_outcome() -> None:
    S, T = type(CALL.initial), type(CALL.triggers[0])
    for state in S:
        assert CALL.allows(state, T.CANCEL) == CALL.allows(state, T.TIME_OUT) == (state not in CALL.final)
    assert [s for s in S if CALL.allows(s, T.LOSE)] == [S.RUNNING]


def test_a_slot_can_be_closed_and_a_pool_drained_from_anywhere() -> None:
    for slot in SLOT.states:
        assert SLOT.allows(slot, SLOT.triggers[-1]) == (slot not in SLOT.final)
    P, T = type(POOL.initial), type(POOL.triggers[0])
    for pool in P:
        assert POOL.allows(pool, T.DRAIN) == (pool is not P.CLOSED)
