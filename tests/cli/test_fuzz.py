"""`remuda fuzz`: what it plays, what it says, and that its scenario can be pasted into a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from remuda.cli.fuzz import Campaign, find_rules
from remuda.specs.rules import PoolRules, RealWorld
from remuda.statemachines.errors import ConfigError

BROKEN = '''
import remuda
from hypothesis import strategies as st
from remuda.specs import PoolRules, Request


class Greeter:
    """It greets everybody but Bob."""

    @remuda.command(idempotent=True)
    def greet(self, name: str) -> str:
        return "" if name == "Bob" else f"hello, {name}"


class GreeterRules(PoolRules):
    adapter = Greeter

    def requests(self):
        return st.builds(Request, st.just("greet"), st.fixed_dictionaries({"name": st.sampled_from(["Ann", "Bob"])}))

    def check_answer(self, request, value):
        assert value, f"{request.args['name']} was not greeted"
'''


def test_it_plays_until_the_time_is_over(remuda: Any) -> None:
    code, out, err = remuda("fuzz", "--minutes", "0.03", "--seed", "3")
    assert code == 0, out + err
    assert "ForkingRules, seed 3: " in out and "hours in simulation" in out and "nothing broke" in out
    assert "worker.ended" not in err


def test_a_scenario_can_be_pasted_into_a_test(remuda: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(BROKEN)
    code, out, err = remuda("fuzz", "mine:GreeterRules", "--minutes", "5")
    assert code == 1, out + err
    assert "it broke: " in out and "Bob was not greeted" in out
    scenario = out[out.index("from remuda import") :]
    (tmp_path / "pasted.py").write_text(f"{scenario}\ntest_found_by_fuzzing()\n")
    code, out, err = remuda(python=(str(tmp_path / "pasted.py"),))
    assert code == 1 and "Bob was not greeted" in err


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("nothing", "write module:Class"),
        ("no_such_module:Rules", "cannot be loaded"),
        ("remuda.specs.rules:Nothing", "cannot be loaded"),
        ("remuda.specs.rules:Request", "must be a subclass"),
    ],
)
def test_rules_that_are_none(target: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        find_rules(target, real=False)


def test_rules_can_be_played_on_real_processes() -> None:
    rules = find_rules(None, real=True)
    assert issubclass(rules, PoolRules) and rules.world is RealWorld
    assert Campaign(rules, 1).play(1) is None


def test_a_campaign_counts_its_own_runs_and_can_be_repeated() -> None:
    reports = []
    for _ in range(2):
        campaign = Campaign(PoolRules, 5)
        assert campaign.play(3) is None
        reports.append(campaign.report())
    first, second = reports
    assert first == second and first.runs >= 3
    assert first.taken <= first.declared and ("worker", "ready", "checkout") in first.declared
