"""Each bug of `planted_runtime` is found by the rules in simulation, and by the rule that is named."""

from __future__ import annotations

import pytest
from hypothesis import Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from remuda.specs.rules import SECONDS, PoolRules, Request
from remuda.specs.stepped import StandStill
from remuda.statemachines.errors import IllegalTransition

from .planted_runtime import BUGS, Bug

MOST = 400
"""Runs after which a bug counts as not found."""


def hunt(bug: Bug, patch: pytest.MonkeyPatch) -> tuple[str, int]:
    """The rule that noticed the bug, and after how many runs; ("", runs) if none did."""

    class Hunt(PoolRules):
        config = bug.fields

        def requests(self) -> st.SearchStrategy[Request]:
            args = st.fixed_dictionaries({"plan": st.sampled_from(bug.plans), "seconds": SECONDS})
            return st.builds(Request, st.sampled_from(["act", "act_again"]), args)

    bug.plant(patch)
    chosen = settings(Hunt.TestCase.settings, max_examples=MOST, database=None, phases=[Phase.generate])
    try:
        run_state_machine_as_test(seed(bug.seed)(Hunt), settings=chosen)
    except Exception as error:
        return _name(error), Hunt.tally.runs
    return "", Hunt.tally.runs


def _name(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, IllegalTransition):
        return "only_legal_steps"
    if isinstance(error, StandStill):
        return "stand_still"
    return str(error).partition(":")[0]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name.replace(" ", "-"))
def test_a_planted_bug_is_called_by_its_name(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = hunt(bug, monkeypatch)
    assert found in bug.rules
