"""Rules for the code and its tests, kept by reading them.

The tests of a pool of this kind waited by sleeping, got timeouts of two minutes when that was not
enough, and were declared good enough when they failed now and then. Here nothing sleeps in order to
wait, no test measures time, and no test may fail and be forgiven.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("statemachines", "bridge", "runtime")
"""The rooms that run in production. In `specs` there are workers whose work it is to sleep, and budgets of time."""

BLOCKING = {"time.sleep", "asyncio.sleep", "anyio.sleep"}
SLEEPS = {*BLOCKING, "trio.sleep", "trio.sleep_until"}
CLOCKS = {
    f"{name}()" for name in ("time.time", "time.monotonic", "time.perf_counter", "time.process_time", "datetime.now")
}
"""Calls: to hand a clock to what puts events in order measures nothing."""
VIRTUAL = {"autojump_clock", "mock_clock", "MockClock", "SteppedTrio", "stepped", "cancel_everywhere"}
"""What a module of tests uses in which trio's time is virtual."""

MAY_SLEEP = {
    "runtime/pool.py:_keep_time": "after the application stood still, workers get back the time that they lost by it",
    "bridge/escaped.py:end_all": "in its thread, it lets those go first who wait for an answer",
    "bridge/template.py:_other_threads": "nobody says when a thread that was joined is gone; it takes a moment",
    "tests/reality/test_interrupts.py:_announce_and_sleep": "it runs in a worker, and is interrupted there",
    "runtime/link.py:_stack": "nobody says when a stack is written; it is looked for a moment, and no longer",
    "bridge/forkserver.py:_collect_ourselves": "nobody says when orphans have a new parent; it takes a moment",
    "tests/bridge/test_interrupts.py:again": "a signal that comes just before a system call does not end it: it is sent again",
    "bridge/points.py:arrive": "a test has ordered that this worker be slow",
    "tests/reality/test_pauses.py:test_the_application_is_stopped_and_continued": "so that it stands still past a deadline",
}
"""Sleeps that do not wait for something to be there, and what they do instead."""


@cache
def names(path: Path) -> tuple[tuple[str, str, str], ...]:
    """Every name and every call in a module, as it is written; the line, and the function around it."""
    return tuple(_names(ast.parse(path.read_text("utf-8")), str(path.relative_to(ROOT)), ""))


def _names(tree: ast.AST, path: str, function: str) -> Iterator[tuple[str, str, str]]:
    for node in ast.iter_child_nodes(tree):
        within = node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else function
        where = (f"{path}:{getattr(node, 'lineno', 0)}", f"{path}:{within}")
        if isinstance(node, ast.Name | ast.Attribute):
            yield ast.unparse(node), *where
        elif isinstance(node, ast.Call):
            yield f"{ast.unparse(node.func)}()", *where
        elif isinstance(node, ast.arg):
            yield node.arg, *where
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield f"{node.module}.{alias.name}", *where
        yield from _names(node, path, within)


def rooms() -> list[Path]:
    return [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def suite() -> list[Path]:
    """The modules of the tests; the programs that they run in workers are another matter."""
    found = sorted((ROOT / "tests").rglob("*.py"))
    return [path for path in found if path.name.startswith("test_") or path.name == "conftest.py"]


def found(wanted: set[str], paths: list[Path]) -> list[str]:
    return [
        f"{line}: {name}"
        for path in paths
        for name, line, function in names(path)
        if name in wanted and function not in MAY_SLEEP
    ]


def test_nothing_sleeps_in_order_to_wait() -> None:
    """The rooms wait for events; when something is due is the core's business (`next_due`)."""
    assert found(SLEEPS, rooms()) == []
    assert found(BLOCKING, suite()) == []


def test_what_may_sleep_does() -> None:
    sleeping = {where for path in (*rooms(), *suite()) for name, _, where in names(path) if name in SLEEPS | BLOCKING}
    assert MAY_SLEEP.keys() - sleeping == set()


def test_where_a_test_sleeps_time_is_virtual() -> None:
    for path in suite():
        written = {name for name, _, function in names(path) if function not in MAY_SLEEP}
        if written & SLEEPS:
            assert {name.rpartition(".")[2] for name in written} & VIRTUAL, f"{path} sleeps in real time"


def test_no_test_measures_time() -> None:
    assert found(CLOCKS, suite()) == []


def test_no_test_is_forgiven() -> None:
    """No test that is expected to fail, none that is tried again, none left out without a reason."""
    forgiven = re.compile(r"\b(xfail|flaky|reruns?|mark\.skip)$")
    assert [line for path in suite() for name, line, _ in names(path) if forgiven.search(name)] == []
    for path in suite():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and re.search(r"\bskip(if)?$", ast.unparse(node.func)):
                reason = [*node.args, *(key.value for key in node.keywords if key.arg == "reason")][-1:]
                assert reason and isinstance(reason[0], ast.Constant) and reason[0].value, f"{path}:{node.lineno}"
    for name in ("pyproject.toml", "Makefile", ".ci/run"):
        text = (ROOT / name).read_text("utf-8")
        assert not re.search(r"rerun|flaky|retries|xfail|continue-on-error|\|\| *true", text), name


def test_these_rules_find_something() -> None:
    """They read the whole tree, and would notice."""
    assert len(rooms()) > 40 and len(suite()) > 50
    sample = "import time, trio\nasync def test(autojump_clock): time.sleep(time.time()); await trio.sleep(2)\n"
    seen = {name for name, _, _ in _names(ast.parse(sample), "sample.py", "")}
    assert {"time.sleep", "trio.sleep", "time.time()", "autojump_clock"} <= seen
