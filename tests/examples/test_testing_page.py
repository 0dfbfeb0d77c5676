"""docs/testing.md does what it says: its files are run with its bug, and again with its fix."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"
TEXT = PAGE.read_text("utf-8")
FILES = dict(re.findall(r"<!-- file: (\S+) -->\n```python\n(.*?)```", TEXT, re.DOTALL))
INSTALLED = any(point.value == "remuda.specs.plugin" for point in entry_points(group="pytest11"))
LOADED = () if INSTALLED else ("-p", "remuda.specs.plugin")


def block(name: str) -> str:
    found = re.search(rf"<!-- {re.escape(name)} -->\n```\w+\n(.*?)```", TEXT, re.DOTALL)
    assert found is not None, f"the page has no block {name!r}"
    return found[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a reader has who copies everything."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    config = re.search(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    assert config is not None
    (tmp_path / "pyproject.toml").write_text(config[1])
    return tmp_path


def mend(folder: Path) -> None:
    bug, fixed = "    @remuda.command\n    def set_price(self, item: str, price: int) -> None:\n", block("the fix")
    text = FILES["prices.py"]
    assert bug in text and fixed.splitlines()[-1] == bug.splitlines()[-1]
    (folder / "prices.py").write_text(text.replace(bug, fixed))


def play(folder: Path, more: str) -> None:
    """Change how the rules are played, and nothing else."""
    text = FILES["test_prices.py"]
    assert "max_examples=300)" in text
    (folder / "test_prices.py").write_text(text.replace("max_examples=300)", f"{more}, database=None)"))


def run(folder: Path, *command: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True, check=False, timeout=110
    )
    return done.returncode, done.stdout + done.stderr


def run_pytest(folder: Path, *files: str) -> tuple[int, str]:
    more = ("--basetemp", str(folder / "tmp"), *LOADED)
    return run(folder, "pytest", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=8", *more, *files)


def test_there_are_the_files_that_the_page_speaks_of() -> None:
    assert [*FILES] == [
        *("prices.py", "test_prices.py", "test_found.py", "test_with_fixtures.py"),
        *("orders.py", "test_orders.py"),
    ]


def test_the_rules_find_the_bug(folder: Path) -> None:
    play(folder, "max_examples=1000, phases=[phase for phase in settings().phases if phase.name == 'generate']")
    code, said = run_pytest(folder, "test_prices.py")
    assert code == 1
    assert re.search(r"the price of (apple|pear) is None, and was told to be one of \{\d\}", said)
    assert "state = PriceRules()" in said and "state.teardown()" in said


def test_the_scenario_is_the_test_and_says_what_the_page_says(folder: Path) -> None:
    code, said = run_pytest(folder, "test_found.py")
    message, _, *scenario = block("output of test_prices.py").splitlines()
    assert code == 1 and f"AssertionError: {message}" in said
    body = FILES["test_found.py"].partition("():\n")[2].replace('"', "'").splitlines()
    assert [line.strip() for line in body] == scenario


def test_with_the_bug_the_tests_with_fixtures_fail_as_well(folder: Path) -> None:
    code, said = run_pytest(folder, "test_with_fixtures.py", "test_orders.py")
    failed = set(re.findall(r"^FAILED test_with_fixtures.py::(\w+)", said, re.MULTILINE))
    assert failed == {"test_a_price_is_known_to_the_next_worker", "test_a_worker_that_hangs_is_replaced"}, said
    assert code == 1 and "2 failed, 4 passed" in said


def test_with_the_fix_all_is_well(folder: Path) -> None:
    mend(folder)
    play(folder, "max_examples=20")
    code, said = run_pytest(folder)
    assert code == 0 and "8 passed" in said, said


def test_the_campaign(folder: Path) -> None:
    mend(folder)
    program, *arguments = shlex.split(block("shell"))
    assert arguments[2:4] == ["--minutes", "5"]
    arguments[3] = "0.01"
    code, said = run(folder, program, *arguments)
    assert code == 0 and "PriceRules, seed 1: " in said and "nothing broke" in said, said
