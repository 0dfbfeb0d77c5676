"""The examples and the page about lifecycles do what they say, in as few lines as they say."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import sys
import textwrap
import unittest
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from transitions import Machine

from remuda import specs
from remuda.specs.engines import Law
from remuda.statemachines.draw import mermaid
from remuda.statemachines.lifecycle import Lifecycle

ROOT = Path(__file__).parents[2]

QUICK = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow],
)


@contextlib.contextmanager
def quick() -> Iterator[None]:
    """Runs without settings of their own are the same every time, and short."""
    before = settings.get_current_profile_name()
    settings.register_profile("of these tests", QUICK)
    settings.load_profile("of these tests")
    try:
        yield
    finally:
        settings.load_profile(before)


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", ROOT / "examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]
    return module


# ── Examples ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("name", "states", "moves"), [("order", 5, 8), ("upload", 4, 5)], ids=["order", "upload"])
def test_an_example_gets_everything_from_the_kit(name: str, states: int, moves: int) -> None:
    source = (ROOT / "examples" / f"{name}.py").read_text("utf-8")
    assert len(source.splitlines()) < 60
    module: Any = load(name)
    lifecycle, subject = getattr(module, name.upper()), getattr(module, name.capitalize())
    assert not specs.audit(lifecycle, subject)
    found = specs.explore(lifecycle)
    assert (len(found.ways), len(found.moves), found.traps) == (states, moves, ())
    assert specs.engines_agree(lifecycle)
    assert mermaid(lifecycle).startswith("stateDiagram-v2")
    rules = getattr(module, f"{name.capitalize()}Rules")
    coverage = rules.run(QUICK)
    assert coverage.seen.keys() == coverage.declared.keys()


@pytest.mark.parametrize("name", ["order", "upload"])
def test_an_example_is_a_test_for_unittest_and_pytest(name: str) -> None:
    with quick():
        case: Any = getattr(load(name), f"Test{name.capitalize()}")
        outcome = unittest.TestResult()
        unittest.defaultTestLoader.loadTestsFromTestCase(case).run(outcome)
    assert (outcome.testsRun, outcome.wasSuccessful()) == (1, True), outcome.errors + outcome.failures


def test_the_order_that_ships_without_asking_again_is_caught() -> None:
    """The example is worth something: break it, and it says so."""
    module: Any = load("order")
    S, T = module.S, module.T
    broken: Lifecycle[Any, Any] = Lifecycle(
        "order",
        Machine(
            model=None,
            auto_transitions=False,
            initial=S.PLACED,
            states=[S.PLACED, S.PAID, {"name": S.SHIPPED, "final": True}],
            transitions=[[T.PAY, S.PLACED, S.PAID, "covered"], [T.PAY, S.PLACED, None], [T.SHIP, S.PAID, S.SHIPPED]],
        ),
    )

    class Order(module.Order):
        def __init__(self) -> None:
            super().__init__()
            self.state = S.PLACED

    base = specs.machine(broken, Order, invariants=[module.nothing_leaves_unpaid])
    rules = type("BrokenRules", (base,), {"money_moves": module.OrderRules.money_moves})
    with pytest.raises(specs.InvariantViolated) as caught:
        rules.run(settings(QUICK, max_examples=200))
    assert caught.value.name == "nothing_leaves_unpaid"


def test_an_upload_that_counts_before_it_asks_is_caught() -> None:
    module: Any = load("upload")

    class Hasty(module.Upload):
        def happen(self, trigger: Any, now: float) -> None:
            self.parts += trigger is module.T.SENT
            self.drops += trigger is module.T.DROP
            module.UPLOAD.step(self, trigger, now)

    class HastyRules(module.UploadRules):
        def begin(self) -> None:
            super().begin()
            self.subject.__class__ = Hasty

    with pytest.raises(specs.InvariantViolated) as caught:
        HastyRules.run(QUICK)
    assert caught.value.name == "the_books_are_right"


# ── The page ────────────────────────────────────────────────────────────────────────────────────

PAGE = (ROOT / "docs" / "lifecycle-specs.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(python|text)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
VARIES = "state."
"""Which of the shortest ways Hypothesis finds is up to it: such lines are not compared."""


def test_the_page_says_what_happens() -> None:
    """Its snippets run one after another, and what each prints is what stands below it."""
    module = ModuleType("the_page")
    sys.modules[module.__name__] = module
    try:
        with quick():
            printed: str | None = None
            for kind, text in BLOCKS:
                if kind == "python":
                    assert not printed, f"what this prints is not on the page:\n{printed}"
                    out = io.StringIO()
                    with contextlib.redirect_stdout(out):
                        exec(compile(text, "lifecycle-specs.md", "exec"), vars(module))
                    printed = out.getvalue()
                else:
                    assert printed is not None
                    assert _steady(printed) == _steady(text)
                    assert (VARIES in printed) == (VARIES in text)
                    printed = None
            assert not printed
    finally:
        del sys.modules[module.__name__]


def _steady(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith(VARIES)]


def test_the_way_on_the_page_is_a_way_there() -> None:
    """Its steps vary from run to run; those that are printed have to lead to what they are printed for."""
    module = ModuleType("the_page")
    with quick(), contextlib.redirect_stdout(io.StringIO()):
        for kind, text in BLOCKS:
            if kind == "python" and "SecondRules.run(" not in text and "third" not in text:
                exec(compile(text, "lifecycle-specs.md", "exec"), vars(module))
    (way,) = [text for kind, text in BLOCKS if kind == "text" and VARIES in text]
    names = {"state": module.SecondRules(), "S": module.S, "T": module.T}  # type: ignore[attr-defined]
    steps = re.sub(r"<(\w+\.\w+): '\w+'>", r"\1", "\n".join(way.splitlines()[1:]))
    with pytest.raises(specs.InvariantViolated, match=re.escape(way.splitlines()[0])):
        exec(steps, names)


def test_the_table_of_laws_is_the_laws() -> None:
    source = (ROOT / "specs" / "engines.py").read_text("utf-8")
    documented = dict(re.findall(r'^    [A-Z_]+ = "(\w+)"\n    """(.*?)"""', source, re.MULTILINE))
    assert [*documented] == [*Law], "each law has a sentence in one line"
    rows = "".join(f"| `{law}` | {sentence} |\n" for law, sentence in documented.items())
    found = re.search(r"<!-- laws -->\n(.*?)<!-- /laws -->", PAGE, re.DOTALL)
    assert found is not None
    assert found[1] == textwrap.dedent(f"| law | |\n|---|---|\n{rows}")


def test_the_page_counts_the_lines_of_the_example() -> None:
    lines = len((ROOT / "examples" / "order.py").read_text("utf-8").splitlines())
    assert f"in {lines} lines" in PAGE
