"""`remuda demo`: a small one in a real process, and that it says so when something is wrong."""

from __future__ import annotations

import re
import signal
from collections import Counter
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from remuda.cli import demo as module
from remuda.cli.demo import Tally, _count, _spread, demo
from remuda.cli.questions import questions
from remuda.runtime.events import WorkerEnded, WorkerReady
from remuda.statemachines.errors import ConfigError, WorkerDeath


def rows(out: str) -> dict[str, str]:
    """The table of the report."""
    return {name.strip(): value.strip() for name, value in re.findall(r"^│(.*?)│(.*?)│$", out, re.MULTILINE)}


def test_a_small_one(remuda: Any) -> None:
    code, out, err = remuda("demo", "--answers", "60", "--workers", "2", "--seed", "4", "--plain")
    found = rows(out)
    assert code == 0, out + err
    assert {name: found[name] for name in ("questions", "answers", "errors", "lost answers", "doubled answers")} == {
        "questions": "60",
        "answers": "60",
        "errors": "0",
        "lost answers": "0",
        "doubled answers": "0",
    }
    assert found["workers killed with SIGKILL"] == found["recoveries"] == found["deaths of workers"] == "2"
    assert found["processes left"] == "0"
    assert float(found["answered from the right passage"].rstrip("%")) > 80
    assert "every question has exactly one answer" in out and err == ""
    assert remuda.left() == []
    assert list(remuda.folder.iterdir()) == []  # its files were in TMPDIR, which is here


@pytest.mark.parametrize(("signum", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted(remuda: Any, signum: signal.Signals, expected: int) -> None:
    with remuda.start("demo", "--answers", "600", "--workers", "2", "--plain") as process:
        assert "600 questions" in process.stdout.readline()  # the pool is up
        process.send_signal(signum)
        out, err = process.communicate()
    assert process.returncode == expected
    assert f"stopped by {signum.name}" in out and err == ""
    assert remuda.left() == []
    assert list(remuda.folder.iterdir()) == []


def test_a_live_table_leaves_the_report(remuda: Any) -> None:
    """In a terminal the workers are shown while they work; what stays is the report."""
    screen = StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    assert demo(30, 2, 1, console=console) == 0
    assert "of 30 answered" in screen.getvalue()
    assert "every question has exactly one answer" in screen.getvalue()
    screen = StringIO()
    assert demo(30, 2, 1, plain=True, console=Console(file=screen, force_terminal=True, width=100)) == 0
    assert "of 30 answered" not in screen.getvalue()


@pytest.mark.parametrize("wrong", ["lost", "doubled", "left", "unkilled"])
def test_what_is_wrong_is_not_passed_over(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def count(output: Path, asked: list[Any]) -> tuple[Counter[int], int]:
        counts, right = _count(output, asked)
        assert counts == Counter(range(1, 26))
        if wrong == "lost":
            del counts[7]
        if wrong == "doubled":
            counts[7] += 1
        return counts, right

    monkeypatch.setattr(module, "_count", count)
    if wrong == "left":
        monkeypatch.setattr(Tally, "left", lambda self: [min(self.pids)])
    if wrong == "unkilled":

        async def never(*args: object) -> None:
            pass

        monkeypatch.setattr(module, "_kill_now_and_then", never)
    screen = StringIO()
    assert demo(25, 2, 1, console=Console(file=screen, width=100)) == 1
    assert "something went wrong" in screen.getvalue()


def test_counting_reads_the_output(tmp_path: Path) -> None:
    asked = questions(3)
    right = asked[0].answer if hasattr(asked[0], "answer") else asked[0].context
    out = tmp_path / "out"
    out.write_text('{"line": 1, "outputs": {"answer": ""}}\n{"line": 1, "error": {}}\n{"line": 3, "outputs": {}}\n')
    counts, hits = _count(out, asked)
    assert counts == {1: 2, 3: 1} and hits == 0 and right


def test_more_questions_than_there_are() -> None:
    with pytest.raises(ConfigError, match="questions"):
        demo(10**6, 2)


def test_a_recovery_counts_once_however_many_starts_it_takes() -> None:
    tally = Tally()
    tally.struck.add((0, 1))
    tally.down[0] = 10.0
    death = WorkerDeath(0, 1, "killed", -9)
    tally.observe(WorkerEnded("p", 0, 1, 100, death, False, 10.1))
    tally.observe(WorkerEnded("p", 0, 2, 101, death, False, 11.0))  # the next one does not come up
    tally.observe(WorkerReady("p", 1, 1, 103, 0.5, 11.5))  # another slot
    assert (tally.recoveries, tally.down) == ([], {0: 10.0})
    tally.observe(WorkerReady("p", 0, 3, 102, 0.5, 12.0))
    tally.observe(WorkerReady("p", 0, 4, 104, 0.5, 15.0))
    assert (tally.recoveries, tally.down, tally.deaths) == ([2.0], {}, 2)
    assert tally.pids == {100, 101, 102, 103, 104}


def test_a_process_that_is_left_is_seen(remuda: Any) -> None:
    with remuda.start("print()", python=("-c", "import time; time.sleep(600)")) as process:
        tally = Tally(pids={process.pid})
        assert tally.left() == [process.pid]
        process.kill()
        process.wait()
        assert tally.left() == []


def test_spread() -> None:
    assert _spread([]) == "-"
    assert _spread([0.002]) == "2.0 ms / 2.0 ms"
    assert _spread([n / 1000 for n in range(200, 0, -1)]) == "100.0 ms / 198.0 ms"
