"""`remuda bench`: what it prints, keeps, refuses, and when it fails. The numbers themselves mean nothing here."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from remuda.benchmarks import gate
from remuda.benchmarks.gate import Kind, Ratio, Recorded
from remuda.benchmarks.plan import OURS, TRIO_SOCKETPAIR
from remuda.benchmarks.report import BEGIN, END
from remuda.benchmarks.rounds import machine
from remuda.benchmarks.scale import FULL, QUICK, Cell, Outcome, Scale
from remuda.cli import bench as command
from remuda.statemachines.errors import ConfigError

QUICKLY = ("bench", "--quick", "--rounds", "1", "--measure", "latency", "--mode", "free")
US = ("--subject", "remuda", "--subject", "ProcessPool", "--subject", TRIO_SOCKETPAIR)
SMALL_CALL = f"free: a small call, remuda ÷ {TRIO_SOCKETPAIR}"


def record(folder: Path, value: float) -> None:
    (folder / "benchmarks").mkdir()
    recorded = Recorded(machine(), {SMALL_CALL: Ratio(Kind.LATENCY, value)})
    (folder / "benchmarks" / "recorded.json").write_bytes(msgspec.json.encode(recorded))


def test_remuda_and_a_peer_side_by_side(remuda: Any, tmp_path: Path) -> None:
    record(tmp_path, 1e9)
    code, out, err = remuda(*QUICKLY, *US, "--json", "raw.json", "--compare")
    assert code == 0, out + err
    rows = [line for line in out.splitlines() if line.startswith(("| remuda ", "| ProcessPoolExecutor "))]
    assert len(rows) == 2, out
    assert "not measured" in out
    assert "nothing worse than it may be" in out
    assert re.search(r"1/\d+  latency, free, round 1: remuda: ok", err)
    raw = json.loads((tmp_path / "raw.json").read_text())
    assert {outcome["cell"]["subject"] for outcome in raw["outcomes"]} >= {"remuda", "ProcessPoolExecutor"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["benchmarks", "raw.json"]


def test_it_fails_when_it_has_become_worse(remuda: Any, tmp_path: Path) -> None:
    record(tmp_path, 1e-9)
    code, out, err = remuda(*QUICKLY, *US, "--compare", "--quiet")
    assert code == 1, out + err
    assert "1 worse than it may be" in out
    assert SMALL_CALL in out
    assert err == ""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_all_that_it_has_started(remuda: Any, signum: int) -> None:
    process = remuda.start("bench", "--quick", "--rounds", "1000", "--measure", "latency", "--subject", "remuda")
    assert "1/" in process.stderr.readline()  # from here on a driver runs, or is about to
    process.send_signal(signum)
    process.communicate()
    assert process.returncode == 128 + signum
    assert remuda.left() == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--measure", "speed"), "there is no measure 'speed'; there are: latency,"),
        (("--mode", "turbo"), "there is no mode 'turbo'"),
        (("--subject", "nobody"), "nobody who is measured there is called nobody"),
        (("--compare",), "there is nothing to compare with"),
        (("--write",), "--write is for a checkout"),
    ],
)
def test_what_is_refused(remuda: Any, arguments: tuple[str, ...], text: str) -> None:
    code, out, err = remuda("bench", *arguments)
    assert code == 2, out + err
    assert text in err
    assert out == ""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a page, where drivers answer without measuring anything."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "docs" / "benchmarks.md").write_text(f"# Before\n\n{BEGIN}\n\nold\n\n{END}\n\nafter\n")
    monkeypatch.chdir(tmp_path)

    def answer(todo: list[Cell], scale: Scale, tell: Any) -> list[Outcome]:
        found = [Outcome(cell, samples={"p50": [1e-4], "p99": [1e-3], "first": [0.1]}) for cell in todo]
        for outcome in found:
            tell(outcome, 0.0)
        return found

    monkeypatch.setattr(command, "run_cells", answer)
    return tmp_path


def test_a_run_is_kept_between_the_marks_and_can_be_compared_with(checkout: Path) -> None:
    assert command.bench(2, ["latency"], write=True, quiet=True) == 0
    text = (checkout / "docs" / "benchmarks.md").read_text()
    assert text.startswith(f"# Before\n\n{BEGIN}\n\n![")
    assert text.endswith(f"{END}\n\nafter\n")
    assert "old" not in text
    assert "| remuda " in text
    assert (checkout / "docs" / "benchmarks.svg").read_text().startswith("<svg ")
    recorded = gate.read(checkout / "benchmarks" / "recorded.json")
    assert {f"pinned: a small call, {one} ÷ {TRIO_SOCKETPAIR}" for one in OURS} <= set(recorded.ratios)
    assert command.bench(1, ["latency"], compare=True, quiet=True) == 0
    assert command.bench(1, ["latency"], write=True, quiet=True) == 0
    assert (checkout / "docs" / "benchmarks.md").read_text().count(BEGIN) == 1


def test_a_page_without_marks_is_not_written(checkout: Path) -> None:
    (checkout / "docs" / "benchmarks.md").write_text("mine")
    with pytest.raises(ConfigError, match="has no lines"):
        command.bench(1, ["latency"], write=True)
    assert (checkout / "docs" / "benchmarks.md").read_text() == "mine"


def test_a_quick_run_is_not_kept(checkout: Path) -> None:
    with pytest.raises(ConfigError, match="too little to be kept"):
        command.bench(1, ["latency"], write=True, quick=True)


def test_something_that_is_no_record(checkout: Path) -> None:
    (checkout / "benchmarks" / "recorded.json").write_text("[]")
    with pytest.raises(ConfigError, match="is not what"):
        command.bench(1, ["latency"], compare=True)


def test_a_failed_driver_fails_the_command(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "run_cells", lambda todo, scale, tell: [Outcome(cell, error="!") for cell in todo])
    assert command.bench(1, ["latency"], quiet=True) == 1


def test_the_number_of_records_can_be_chosen(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scales = []
    monkeypatch.setattr(command, "run_cells", lambda todo, scale, tell: scales.append(scale) or [])
    command.bench(1, records=7, quiet=True)
    command.bench(1, quick=True, quiet=True)
    assert scales == [msgspec.structs.replace(FULL, records=7), QUICK]
