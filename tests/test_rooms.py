"""Who may import whom, and what it costs to begin."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import remuda

ROOT = Path(__file__).parents[1]
MAY = {
    "statemachines": {"statemachines"},
    "bridge": {"bridge"},
    "runtime": {"statemachines", "bridge", "runtime"},
    "specs": {"statemachines", "bridge", "runtime", "specs"},
    "benchmarks": {"statemachines", "bridge", "runtime", "specs", "benchmarks"},
    "remuda": {"statemachines", "bridge", "runtime", "specs", "benchmarks", "cli"},  # the face may know all
}
IMPURE = {
    *("trio", "asyncio", "threading", "multiprocessing", "concurrent", "queue", "subprocess"),
    *("os", "io", "pathlib", "tempfile", "socket", "select", "structlog"),
    *("time", "datetime", "random", "secrets", "uuid"),
}
"""Tasks, the outside world, the clock, chance."""
CALLS = {"open", "print", "input", "hash", "id"}
"""What needs no import to look outside, or is another number in another process."""


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files(room: str) -> list[Path]:
    folder = ROOT / room
    return [path for path in folder.rglob("*.py") if room != "remuda" or path.parts[len(folder.parts)] in FACE]


FACE = ("cli", "__init__.py", "__main__.py", "testing.py")


@pytest.mark.parametrize("room", MAY)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    assert files(room)
    for path in files(room):
        for name in imports(path):
            parts = name.split(".")
            assert parts[0] not in MAY or parts[0] == "remuda", f"{path}: {name} is not installed under that name"
            if parts[0] == "remuda" and len(parts) > 1 and parts[1] in {*MAY, "cli"}:
                ours = parts[1] in MAY[room] or name.startswith("remuda.statemachines.errors")
                assert ours, f"{path} imports {name}"


def test_what_may_happen_is_pure() -> None:
    for path in files("statemachines"):
        for name in imports(path):
            assert name.split(".")[0] not in IMPURE, f"{path} imports {name}"
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            assert called not in CALLS, f"{path} calls {called}"


def loaded_by(statement: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after a statement."""
    program = f"{statement}\nimport sys; print(*sys.modules)"
    # -S: what the environment loads at its start (an editable install's hook, coverage) is not ours.
    path = [str(ROOT), *(entry for entry in sys.path if entry.endswith("site-packages"))]
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path += {path!r}\n{program}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


HEAVY = {"trio", "transitions", "structlog", "asyncio", "dspy", "pydantic", "rich", "typer", "hypothesis"}


def test_the_face_loads_nothing() -> None:
    bare = loaded_by("pass")
    assert {name for name in loaded_by("import remuda") - bare if "." not in name} == {"remuda", "__future__"}


def test_the_worker_half_loads_neither_trio_nor_transitions_nor_structlog() -> None:
    loaded = loaded_by("import remuda.bridge.child")
    assert "msgspec" in loaded
    assert not loaded & HEAVY
    assert not {name for name in loaded if name.startswith(("remuda.runtime", "remuda.specs"))}
    ours = {name for name in loaded if name.startswith("remuda.statemachines.")}
    assert ours == {"remuda.statemachines.errors"}


def test_an_adapter_loads_no_more_than_the_worker_half() -> None:
    assert not loaded_by("import remuda; remuda.command") & HEAVY


def test_what_an_application_writes_at_its_top_loads_no_machinery() -> None:
    assert loaded_by("from remuda import open_pool, PoolConfig") & HEAVY == {"trio"}


def test_every_public_name_is_there() -> None:
    for name in remuda.__all__:
        assert getattr(remuda, name) is not None
        assert name in dir(remuda)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        remuda.nothing  # noqa: B018
    program = "import remuda\nfor name in remuda.__all__: assert hasattr(remuda, name)"
    loaded_by(program)
