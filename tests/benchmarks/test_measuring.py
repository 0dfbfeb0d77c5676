"""That it measures: subjects, drivers and the order of a run, on real processes, a few calls each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from remuda.benchmarks import peers
from remuda.benchmarks.beginning import HANDSHAKE, beginning
from remuda.benchmarks.features import PLAIN, features
from remuda.benchmarks.limits import RawPipe, RawSocketpair, TrioPipe, TrioSocketpair
from remuda.benchmarks.measures import latency, recovery, throughput
from remuda.benchmarks.memory import descendants, own_bytes
from remuda.benchmarks.ours import WITH_TASKS, Ours, starts
from remuda.benchmarks.peers import Multiprocessing, ProcessPool
from remuda.benchmarks.plan import MEASURES, MODES, Absent, cells, measure
from remuda.benchmarks.profile_call import CALL, PARTS, STAGES, clock_around, profile
from remuda.benchmarks.rounds import Signals, run_cell, run_cells
from remuda.benchmarks.scale import QUICK, Cell, Outcome, Scale
from remuda.benchmarks.subjects import Subject, run

TINY = Scale(calls=20, warmup=2, callers=(1, 5), kills=1, slow_kills=1, patience=60.0, starts=1, turns=2)

linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc, and pinning")


@pytest.mark.parametrize(
    "make",
    [RawPipe, RawSocketpair, TrioPipe, TrioSocketpair, ProcessPool, Multiprocessing, lambda n: Ours(n, {}),
     lambda n: Ours(n, WITH_TASKS)],
)  # fmt: skip
def test_every_kind_of_subject_answers(make: type[Subject]) -> None:
    found = latency(make(1), TINY)
    assert found["p99"][0] >= found["p50"][0] > 0
    assert found["first"][0] > 0
    assert len(found["bare"]) == 2
    many = throughput(make(2), TINY)
    assert set(many) == {"1 caller", "1 caller, computed", "5 callers", "5 callers, computed"}
    assert all(value[0] > 0 for value in many.values())


def test_a_wrong_answer_has_no_speed() -> None:
    class Wrong(RawPipe):
        calls = 0

        async def call(self, function: object, /, *args: bytes) -> bytes:  # type: ignore[override]
            self.calls += 1
            answer = await super().call(function, *args)  # type: ignore[arg-type]
            return answer[:-1] if self.calls == when else answer  # type: ignore[no-any-return]

    for when in (1, TINY.warmup + 5):
        with pytest.raises(AssertionError):
            latency(Wrong(1), TINY)


def test_one_that_blocks_never_waits_for_a_loop() -> None:
    class Rogue(RawPipe):
        by_trio = False

    async def main() -> None:
        import trio

        await trio.lowlevel.cancel_shielded_checkpoint()

    with pytest.raises(RuntimeError, match="blocks, and yet"):
        run(Rogue(1), main)


def test_who_survives_a_kill_and_who_does_not() -> None:
    ours = recovery(Ours(1, WITH_TASKS), TINY, 2)
    assert ours["idle, survived"] == ours["busy, survived"] == [1.0, 1.0]
    assert len(ours["idle"]) == len(ours["busy"]) == 2
    assert ours["told"] == [1.0, 1.0]
    broken = recovery(ProcessPool(1), Scale(patience=3.0), 2)
    assert broken["idle, survived"] == [0.0], "it is broken for good, and there is no second kill"
    assert broken["busy, survived"] == [0.0]
    assert "idle" not in broken
    assert broken["errors"][0] > 0
    assert broken["told"] == [1.0]


def test_the_features_take_turns() -> None:
    found = features(TINY)
    assert PLAIN in found
    assert {len(values) for values in found.values()} == {TINY.turns}


def test_beginning() -> None:
    found = beginning(TINY)
    assert HANDSHAKE in found
    assert all(len(values) == 1 and values[0] > 0 for values in found.values())


def test_every_stage_of_the_profile_is_there_and_is_part_of_a_call() -> None:
    for where in [one for functions in (STAGES | PARTS).values() for one in functions]:
        with clock_around(where):
            pass
    found = profile(50)
    assert found[CALL][0] > 0
    assert all(found[name][0] >= 0 for name in STAGES | PARTS)


def test_a_clock_counts_the_calls_and_goes_again() -> None:
    import json

    original = json.dumps
    with clock_around("json:dumps") as clock:
        json.dumps(1)
        json.dumps(2)
        assert clock.calls == 2
    json.dumps(3)
    assert clock.calls == 2
    assert json.dumps is original


def test_the_ways_to_start_are_those_of_this_version() -> None:
    assert starts(("name",)) == {"spawn": {}}
    assert list(starts(("start_method",))) == ["spawn", "forkserver"]
    assert starts(("start_method", "spares"))["spare"] == {"start_method": "forkserver", "spares": 1}


# ── The plan ────────────────────────────────────────────────────────────────────────────────────


def test_all_take_turns_and_every_other_round_goes_the_other_way() -> None:
    there = [cell.subject for cell in cells(1, ["latency"], ["pinned"])]
    four = list(cells(4, ["latency"], ["pinned"]))
    orders = [[cell.subject for cell in four if cell.round == number] for number in range(4)]
    assert orders == [there, there[::-1], there, there[::-1]]
    assert len(there) == len(set(there)) > 10


def test_what_a_run_has() -> None:
    everything = list(cells(3, MEASURES, MODES))
    assert len(everything) == len({(c.measure, c.subject, c.mode, c.round) for c in everything})
    assert {cell.measure for cell in everything} == set(MEASURES)
    assert {cell.mode for cell in everything if cell.measure == "records"} == {"free"}
    assert max(cell.round for cell in everything if cell.measure == "records") == 1
    assert {cell.subject for cell in cells(1, ["latency"], ["free"], ["loky", "adapter"])} == {
        "loky",
        "remuda, an adapter",
    }


def test_a_peer_that_is_not_installed_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers.Loky, "needs", ("no_such_pool.at_all",))
    with pytest.raises(Absent, match="no_such_pool is not installed"):
        measure(Cell("latency", "loky", "free"), QUICK)


# ── Drivers ─────────────────────────────────────────────────────────────────────────────────────


@linux
def test_a_driver_in_a_process_of_its_own() -> None:
    cell = Cell("latency", "ProcessPoolExecutor", "pinned", 4)
    outcome = run_cell(cell, QUICK, Signals())
    assert outcome.error == ""
    assert outcome.cell == cell
    assert outcome.samples["own"][0] > 0


def test_a_driver_that_fails_says_so() -> None:
    outcome = run_cell(Cell("latency", "nobody", "free"), QUICK, Signals())
    assert outcome.error == "KeyError: 'nobody'"
    assert outcome.samples == {}


def test_a_driver_that_ends_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert "the driver ended with status 1" in run_cell(Cell("latency", "loky", "free"), QUICK, Signals()).error


def test_a_driver_that_hangs_is_ended_with_all_that_it_has_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hanging = tmp_path / "python"
    hanging.write_text("#!/bin/sh\nsleep 1000 &\nwait\n")
    hanging.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(hanging))
    monkeypatch.setattr("remuda.benchmarks.rounds._seconds_for", lambda cell, scale: 0.2)
    monkeypatch.setattr("remuda.benchmarks.rounds._GRACE", 0.0)
    assert "it had not ended" in run_cell(Cell("latency", "loky", "free"), QUICK, Signals()).error


def test_who_is_absent_once_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def answer(cell: Cell, scale: Scale, signals: Signals) -> Outcome:
        asked.append(cell)
        return Outcome(cell, absent="it is not installed") if cell.subject == "loky" else Outcome(cell)

    monkeypatch.setattr("remuda.benchmarks.rounds.run_cell", answer)
    todo = list(cells(3, ["throughput"], ["free"], ["loky", "billiard"]))
    told: list[Outcome] = []
    found = run_cells(todo, QUICK, lambda outcome, seconds: told.append(outcome))
    assert [outcome.cell for outcome in found] == todo
    assert told == found
    assert sum(cell.subject == "loky" for cell in asked) == 1
    assert sum(bool(outcome.absent) for outcome in found) == 3


@linux
def test_pinned_is_one_core_and_so_are_the_children() -> None:
    program = "from remuda.benchmarks.plan import pin; import os, subprocess; pin(); subprocess.run(['nproc'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


@linux
def test_memory_of_a_child() -> None:
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    try:
        assert child in descendants()
        assert (own_bytes(child) or 0) > 0
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert child not in descendants()
    assert own_bytes(child) is None


# ── Records ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("who", ["remuda, spawn, a kill every second", "dspy.Evaluate"])
def test_records_against_a_model_on_loopback(who: str) -> None:
    pytest.importorskip("dspy")
    small = Scale(records=6, at_once=2, model=0.1)
    outcome = run_cell(Cell("records", who, "free"), small, Signals())
    assert outcome.error == ""
    assert outcome.samples["answered"] == [1.0]
    assert 0 < outcome.samples["share"][0] <= 1
    if "kill" in who:
        assert outcome.samples["kills"][0] >= 1
