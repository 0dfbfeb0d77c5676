"""What all commands have in common: help, refusals, exit codes, and that asking for help is cheap."""

from __future__ import annotations

import json
from typing import Any

import pytest


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["demo", "--help"], ["doctor", "--help"]])
def test_help(remuda: Any, arguments: list[str]) -> None:
    code, out, err = remuda(*arguments)
    assert (code, err) == (0, "")
    assert "Usage: python -m remuda" in out


def test_the_installed_command_is_the_same(remuda: Any) -> None:
    code, out, _ = remuda("--help", python=("-c", "from remuda.cli import main; main()"))
    assert code == 0 and all(command in out for command in ("run", "demo", "doctor", "diagram"))


def test_help_loads_neither_trio_nor_dspy(remuda: Any) -> None:
    program = (
        "import atexit, sys, json; from remuda.cli import main\n"
        "atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr)); main()"
    )
    code, _, err = remuda("--help", python=("-c", program))
    assert code == 0
    loaded = set(json.loads(err))
    assert "remuda.cli.commands" in loaded
    assert not loaded & {"trio", "dspy", "transitions", "remuda.runtime.opening", "remuda.cli.run", "remuda.cli.demo"}


@pytest.mark.parametrize(("module", "command"), [("typer", "--help"), ("rich", "demo")])
def test_without_the_extra(remuda: Any, module: str, command: str) -> None:
    hide = f"import sys; sys.modules[{module!r}] = None; from remuda.cli import main; main()"
    code, out, err = remuda(command, python=("-c", hide))
    assert (code, out) == (2, "")
    assert err == f"this command needs {module}: pip install 'remuda[cli]'\n"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["walk"], "No such command 'walk'"),
        (["run", "--input", "in.jsonl"], "Missing option"),
        (["demo", "--answers", "24"], "Invalid value for '--answers'"),
        (["diagram", "horse"], "there is no lifecycle 'horse'"),
        (["diagram", "call", "--format", "oil"], "oil"),
    ],
)
def test_refusals(remuda: Any, arguments: list[str], text: str) -> None:
    code, out, err = remuda(*arguments)
    assert (code, out) == (2, "")
    assert text in err
    assert "Traceback" not in err


def test_diagram(remuda: Any) -> None:
    code, out, err = remuda("diagram", "call")
    assert (code, err) == (0, "")
    assert out.startswith("stateDiagram-v2") and "queued --> assigned: assign" in out
