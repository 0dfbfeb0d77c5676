"""The command line as its users have it: a process, in a folder of its own, that leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.reality.world import gone

PROGRAMS = '''
"""A program that does what its record says; no model is asked."""

import os
import signal
from pathlib import Path

import dspy


class Obedient(dspy.Module):
    def forward(self, do: str, n: int = 0):
        marks = Path(__file__).parent
        if do == "hang" and not (marks / "open").exists():
            while True:
                signal.pause()
        if do == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if do == "die once" and not (marks / f"died-{n}").exists():
            (marks / f"died-{n}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if do == "raise":
            raise LookupError("it was told to")
        return dspy.Prediction(twice=2 * n)


def make():
    return Obedient()
'''


class CommandLine:
    """`remuda`, run in a folder; every process that comes of it can be found by a mark."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.input, self.output = folder / "in.jsonl", folder / "out.jsonl"
        self.manifest = folder / "out.jsonl.run.json"
        self.mark = f"REMUDA_TEST_MARK={uuid.uuid4()}"
        name, _, value = self.mark.partition("=")
        self.env = {**os.environ, name: value, "TMPDIR": str(folder), "COLUMNS": "200"}
        self.env.pop("FORCE_COLOR", None)

    def write(self, *records: dict[str, Any]) -> None:
        """Make the input."""
        self.input.write_text("".join(json.dumps(record) + "\n" for record in records))

    def start(self, *arguments: str, python: tuple[str, ...] = ("-m", "remuda")) -> subprocess.Popen[str]:
        """Begin a command; its output is text to be read."""
        command = [sys.executable, *python, *arguments]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, cwd=self.folder, env=self.env, text=True, **pipes)  # type: ignore[call-overload,no-any-return]

    def __call__(self, *arguments: str, python: tuple[str, ...] = ("-m", "remuda")) -> tuple[int, str, str]:
        """Run a command to its end; its exit code and what it wrote to stdout and stderr."""
        with self.start(*arguments, python=python) as process:
            out, err = process.communicate()
        return process.returncode, out, err

    def obey(self, *arguments: str) -> tuple[str, ...]:
        """The arguments of a run of the program above."""
        (self.folder / "programs.py").write_text(PROGRAMS)
        return ("run", "--program", "programs:make", "--input", "in.jsonl", "--output", "out.jsonl", *arguments)

    def entries(self) -> dict[int, dict[str, Any]]:
        """The output, by number of line; no line has two entries."""
        data = self.output.read_bytes()
        assert not data or data.endswith(b"\n")
        entries = [json.loads(line) for line in data.splitlines()]
        found = {entry.pop("line"): entry for entry in entries}
        assert len(found) == len(entries)
        return found

    def left(self) -> list[int]:
        """All processes with the mark that do not end: who was told to takes a moment, and is waited for."""
        while pids := self._processes():
            if not gone(pids, 30):
                return pids
        return []

    def _processes(self) -> list[int]:
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and self.mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:  # it has ended meanwhile, or is somebody else's
                pass
        return found


@pytest.fixture
def remuda(tmp_path: Path) -> Iterator[CommandLine]:
    line = CommandLine(tmp_path)
    yield line
    left = line.left()
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, 9)
    assert not left
