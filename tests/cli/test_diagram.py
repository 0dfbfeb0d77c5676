"""`remuda diagram` and the diagrams in the documents."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from remuda.cli import diagram as cli
from remuda.cli.diagram import OURS, diagram, load, main, refresh
from remuda.statemachines.draw import mermaid, table
from remuda.statemachines.errors import ConfigError
from remuda.statemachines.worker import WORKER

ROOT = Path(__file__).parents[2]

USERS_OWN = '''"""A door.

It may be locked.
"""
from enum import StrEnum
from transitions import Machine
from remuda.statemachines.lifecycle import Lifecycle

class S(StrEnum):
    SHUT = "shut"
    OPEN = "open"

class T(StrEnum):
    PUSH = "push"
    PULL = "pull"

MACHINE = Machine(model=None, states=[*S], initial=S.SHUT, auto_transitions=False,
                  transitions=[[T.PUSH, S.SHUT, S.OPEN], [T.PULL, S.OPEN, S.SHUT]])
DOOR = Lifecycle("door", MACHINE)
NUMBER = 7
'''


@pytest.fixture
def users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a user's module that lies in the working directory."""
    name = f"doors_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(USERS_OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    return name


@pytest.mark.parametrize("name", OURS)
def test_ours_are_known_by_name(name: str) -> None:
    lifecycle = load(name)
    assert lifecycle.name == name
    assert diagram(name, "mermaid") == mermaid(lifecycle)
    assert diagram(name, "table") == table(lifecycle)
    assert diagram(name, "essay").startswith("The ")


@pytest.mark.parametrize("format", cli.FORMATS)
def test_without_a_name_all_of_ours_are_shown(format: str) -> None:
    text = diagram(None, format)
    for name in OURS:
        assert f"## {name.capitalize()}\n" in text
        assert diagram(name, format) in text


def test_a_users_own_lifecycle_is_found_in_the_working_directory(users_own: str) -> None:
    name = f"{users_own}:DOOR"
    assert diagram(name) == ("stateDiagram-v2\n    [*] --> shut\n    shut --> open: push\n    open --> shut: pull\n")
    assert "| `push` | open" in diagram(name, "table")
    assert diagram(name, "essay") == "A door.\n\nIt may be locked.\n"


def test_what_is_not_a_lifecycle_is_refused_with_the_reason(users_own: str) -> None:
    Path("broken.py").write_text("1 / 0")
    for name, reason in {
        "wroker": "there is no lifecycle 'wroker'; ours are worker, slot, pool, call, breaker, template",
        f"{users_own}:": "there is no lifecycle",
        "no_such_module:X": "the module 'no_such_module' cannot be imported: ModuleNotFoundError",
        "broken:X": "the module 'broken' cannot be imported: ZeroDivisionError",
        f"{users_own}:GATE": f"the module '{users_own}' has no 'GATE'; it has DOOR",
        "json:X": "the module 'json' has no 'X'; it has no lifecycle at all",
        f"{users_own}:NUMBER": "is of type int, not a Lifecycle",
        f"{users_own}:MACHINE": "is a bare Machine; make it a lifecycle: Lifecycle('machine', …)",
    }.items():
        with pytest.raises(ConfigError) as caught:
            diagram(name)
        assert reason in str(caught.value)
    with pytest.raises(ConfigError, match="format='svg' must be one of mermaid, table, essay"):
        diagram("worker", "svg")


# ── In documents ────────────────────────────────────────────────────────────────────────────────

STALE = """# A page

<!-- diagram: worker -->
old
<!-- /diagram -->
kept
<!-- diagram: pool table -->
<!-- /diagram -->
"""


def test_blocks_are_replaced_and_the_rest_is_kept() -> None:
    fresh = refresh(STALE)
    assert fresh == (
        "# A page\n\n"
        f"<!-- diagram: worker -->\n```mermaid\n{mermaid(WORKER)}```\n<!-- /diagram -->\n"
        "kept\n"
        f"<!-- diagram: pool table -->\n{diagram('pool', 'table')}<!-- /diagram -->\n"
    )
    assert refresh(fresh) == fresh


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no block at all\n", "it has no block"),
        ("<!-- diagram: worker -->\nopen\n", "it has no block"),
        (STALE + "<!-- diagram: slot -->\n", "must each have a line, in turn"),
        (STALE + "<!-- /diagram -->\n", "must each have a line, in turn"),
        ("<!-- diagram: worker -->\n" + STALE, "must each have a line, in turn"),
        (STALE.replace("pool table", "poll table"), "there is no lifecycle 'poll'"),
        (STALE.replace("pool table", "pool tabel"), "format='tabel' must be one of"),
    ],
)
def test_a_document_that_cannot_be_checked_is_an_error(text: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        refresh(text)
    assert reason in str(caught.value)


def test_check_fails_until_write_has_been_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text(STALE)
    assert main(["--check", str(page)]) == 1
    assert "a diagram is stale; run python -m remuda.cli.diagram --write" in capsys.readouterr().err
    assert page.read_text() == STALE
    assert main(["--write", str(page)]) == 0
    assert main(["--check", str(page)]) == 0
    assert page.read_text() == refresh(STALE)
    page.write_text(page.read_text().replace("checkout", "check-out", 1))
    assert main(["--check", str(page)]) == 1


def test_a_file_that_cannot_be_read_fails_and_the_others_are_still_done(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(STALE)
    assert main(["--write", str(tmp_path / "missing.md"), str(page)]) == 1
    assert main(["--check", str(page)]) == 0


def test_the_page_of_lifecycles_is_up_to_date_and_complete() -> None:
    page = ROOT / "docs" / "lifecycles.md"
    text = page.read_text(encoding="utf-8")
    assert refresh(text) == text, "run python -m remuda.cli.diagram --write docs/lifecycles.md"
    for name in OURS:
        for block in f"{name} essay", name, f"{name} table":
            assert f"<!-- diagram: {block} -->\n" in text


def test_it_runs_as_a_program_and_loads_no_more_than_it_needs() -> None:
    code = (
        "import sys; from remuda.cli.diagram import main; status = main(sys.argv[1:]);"
        "heavy = {'trio', 'typer', 'rich', 'structlog', 'asyncio'} & set(sys.modules);"
        "sys.exit(status or sorted(heavy) or 0)"
    )
    page = str(ROOT / "docs" / "lifecycles.md")
    done = subprocess.run(
        [sys.executable, "-c", code, "--check", page], capture_output=True, text=True, cwd=os.sep, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
