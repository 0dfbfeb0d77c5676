"""examples/adapter_under_attack.py finds its bug, and only that."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

EXAMPLE = Path(__file__).parents[2] / "examples" / "adapter_under_attack.py"
INSTALLED = any(point.value == "remuda.specs.plugin" for point in entry_points(group="pytest11"))


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True, check=False, timeout=115
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("adapter_under_attack", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_the_rules_tell_the_two_adapters_apart(example: ModuleType) -> None:
    class ForgetfulRules(example.PriceRules):
        adapter = example.Forgetful

    chosen = settings(example.TestPrices.settings, database=None, phases=[Phase.generate])
    run_state_machine_as_test(seed(1)(example.PriceRules), settings=settings(chosen, max_examples=30))
    with pytest.raises(AssertionError, match=r"the price of \w+ is None, and was told to be one of"):
        run_state_machine_as_test(seed(5)(ForgetfulRules), settings=settings(chosen, max_examples=1000))


@pytest.mark.skipif(
    os.environ.get("REMUDA_TEST_DEPTH", "1") == "1", reason="shrinking takes half a minute: `make fuzz`"
)
def test_as_a_program(tmp_path: Path) -> None:
    said = run(tmp_path, str(EXAMPLE))
    assert re.search(r"^PriceRules: nothing broke in \d+ runs$", said, re.MULTILINE)
    price, told = r"ForgetfulRules: the price of apple is None", r"and was told to be one of {1}"
    assert f"{price}, {told}" in said
    scenario = said.partition("Failing test case: <state machine>\n")[2].splitlines()
    assert scenario[:3] == [
        "state = ForgetfulRules()",
        "state.open(fields={'max_workers': 2}, starts=[], work=0.0, schedule=0)",
        "state.set_a_price(item='apple', price=1)",
    ]
    assert "worker" in scenario[3]  # whatever ends one will do
    assert scenario[4:] == ["state.ask_for_a_price(item='apple')", "state.teardown()"]


def test_under_pytest(tmp_path: Path) -> None:
    loaded = () if INSTALLED else ("-p", "remuda.specs.plugin")
    said = run(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", *loaded, "--rootdir", ".", str(EXAMPLE))
    assert "1 passed" in said
