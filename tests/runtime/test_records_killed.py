"""A run that is killed with SIGKILL, at any moment of it, in a process of its own: exactly one entry for each record.

The process writes its entries in pieces of a few bytes, as a kernel may at any time, so that most
kills come in the middle of a line. Half of them it inflicts on itself, between two pieces; the others
come from outside, after a number of pieces that was drawn, at whatever it is doing then.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from remuda.runtime.records import Entry, open_run
from remuda.statemachines.errors import ConfigError

KILLS = 20
RECORDS = 150

CHILD = """
import os, random, signal, sys
import trio
from remuda.runtime.records import open_run

folder, how, moment, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
draw = random.Random(seed)
pieces = 0
reals = {name: getattr(os, name) for name in ("pwrite", "fsync", "replace", "ftruncate")}


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def pwrite(fd, data, offset):
    global pieces
    if pieces == moment and how == "itself":
        die()
    if pieces == moment and how == "from outside":
        os.write(1, b"now")
    pieces += 1
    return reals["pwrite"](fd, data[: draw.randrange(1, 40)], offset)


os.pwrite = pwrite
when, _, name = how.partition(" ")
if when in ("before", "after"):

    def fatal(*args):
        if when == "after":
            reals[name](*args)
        die()

    setattr(os, name, fatal)


async def work(record):
    for _ in range(draw.randrange(3)):
        await trio.lowlevel.checkpoint()
    return {"outputs": {"twice": 2 * record["n"], "text": "\\u00e9\\n" * (record["n"] % 20)}}


with open_run(f"{folder}/in", f"{folder}/out", {"a": 1}) as run:
    trio.run(lambda: run.process(work, concurrency=5))
    assert run.done == run.records
"""


def write_input(folder: Path, records: int = RECORDS) -> None:
    (folder / "in").write_text("".join(f'{{"n": {n}}}\n' for n in range(1, records + 1)))


def child(folder: Path, how: str, moment: int = -1, seed: int = 0) -> int:
    """Run one to its end, whichever that is; its exit status."""
    command = [sys.executable, "-c", CHILD, str(folder), how, str(moment), str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        if process.stdout.read(3) == b"now":
            process.kill()
        status = process.wait()
    assert status in (0, -signal.SIGKILL)
    return status


def done(folder: Path) -> set[int]:
    """The records that have an entry; a line that is finished is right, and the only one of its record."""
    lines = (folder / "out").read_bytes().split(b"\n")
    entries = [json.loads(line) for line in lines[:-1]]
    for entry in entries:
        n = entry["line"]
        assert entry == {"line": n, "outputs": {"twice": 2 * n, "text": "é\n" * (n % 20)}}
    found = {entry["line"] for entry in entries}
    assert len(found) == len(entries)
    return found


def test_killed_at_any_moment(tmp_path: Path) -> None:
    write_input(tmp_path)
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # shown when it fails
    draw = random.Random(seed)
    kills, torn, before = 0, 0, set[int]()
    while kills < KILLS:
        how = draw.choice(["itself", "from outside"])
        status = child(tmp_path, how, draw.randrange(60), draw.randrange(2**32))
        after = done(tmp_path)
        assert before <= after
        before = after
        if status == 0:  # it was faster than its killer, or had no more to write: once more from the beginning
            assert before == set(range(1, RECORDS + 1))
            (tmp_path / "out").unlink()
            before = set()
        else:
            kills += 1
            torn += not (tmp_path / "out").read_bytes().endswith(b"\n")
    assert torn  # else the kills were not where they hurt
    assert child(tmp_path, "not at all") == 0
    assert done(tmp_path) == set(range(1, RECORDS + 1))


def test_killed_between_any_two_pieces_of_the_first_entries(tmp_path: Path) -> None:
    """Each of the first moments, one after another, without anything left to chance."""
    for moment in range(8):
        folder = tmp_path / str(moment)
        folder.mkdir()
        write_input(folder, 3)
        first = child(folder, "itself", moment, seed=7)
        there = done(folder)
        assert child(folder, "not at all") == 0
        assert there <= done(folder) == {1, 2, 3}
        assert first == -signal.SIGKILL


@pytest.mark.parametrize("how", ["before fsync", "after fsync", "before replace", "after replace"])
def test_killed_while_the_manifest_is_written(tmp_path: Path, how: str) -> None:
    write_input(tmp_path, 3)
    assert child(tmp_path, how) == -signal.SIGKILL
    assert (tmp_path / "out.run.json").exists() == (how == "after replace")
    assert child(tmp_path, "not at all") == 0
    assert done(tmp_path) == {1, 2, 3}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out", "out.run.json"]


@pytest.mark.parametrize("how", ["before ftruncate", "after ftruncate"])
def test_killed_while_a_torn_line_is_cut_off(tmp_path: Path, how: str) -> None:
    write_input(tmp_path, 3)
    assert child(tmp_path, "itself", 5, seed=7) == -signal.SIGKILL
    with open(tmp_path / "out", "ab") as file:
        file.write(b'{"line": 2, "outp')
    assert child(tmp_path, how) == -signal.SIGKILL
    assert child(tmp_path, "not at all") == 0
    assert done(tmp_path) == {1, 2, 3}


# ── What a machine that lost its power may leave, and what only looks like it ───────────────────


async def echo(record: dict[str, Any]) -> Entry:
    return {"outputs": record}


async def finish(folder: Path) -> int:
    """Run to the end; how many entries were there before."""
    with open_run(folder / "in", folder / "out", {}) as run:
        await run.process(echo, concurrency=1)
        return run.resumed


@pytest.mark.parametrize(
    "last", [b"\0" * 30, b"", b'{"line": 3, "out', b"\xff\xfe", b"[" * 100_000], ids=lambda b: b[:9].hex()
)
async def test_a_last_line_that_is_no_json_is_cut_off(tmp_path: Path, last: bytes) -> None:
    write_input(tmp_path, 3)
    await finish(tmp_path)
    whole = (tmp_path / "out").read_bytes()
    lines = whole.splitlines(keepends=True)
    (tmp_path / "out").write_bytes(b"".join(lines[:2]) + last + b"\n")
    assert await finish(tmp_path) == 2
    assert (tmp_path / "out").read_bytes() == whole


async def test_a_last_line_that_is_json_but_no_entry_is_refused(tmp_path: Path) -> None:
    """Nobody wrote half of that: it is somebody else's, or an entry that is there twice."""
    write_input(tmp_path, 3)
    await finish(tmp_path)
    whole = (tmp_path / "out").read_bytes()
    for last in (b"{}", b"7", b'{"line": 3, "outputs": {}}'):
        (tmp_path / "out").write_bytes(whole + last + b"\n")
        with pytest.raises(ConfigError, match="line 4 of the output"):
            await finish(tmp_path)
        assert (tmp_path / "out").read_bytes() == whole + last + b"\n"


async def test_the_beginning_of_a_first_entry_is_no_entry(tmp_path: Path) -> None:
    """So another run may have the files."""
    write_input(tmp_path, 3)
    with open_run(tmp_path / "in", tmp_path / "out", {"other": True}):
        pass
    (tmp_path / "out").write_bytes(b'{"line": 1, "outputs"')
    assert await finish(tmp_path) == 0
    assert [json.loads(line)["line"] for line in (tmp_path / "out").read_bytes().splitlines()] == [1, 2, 3]


async def test_one_line_of_the_input_changes_while_it_is_read(tmp_path: Path) -> None:
    """As long as before, with as many records: the entry of another record is not written for it."""
    write_input(tmp_path, 3)
    with open_run(tmp_path / "in", tmp_path / "out", {}) as run:
        (tmp_path / "in").write_text('{"n": 1}\n{"n": 7}\n{"n": 3}\n')
        with pytest.raises(ConfigError, match=r"has changed .*; 1 of 3 records have entries"):
            await run.process(echo, concurrency=1)
    write_input(tmp_path, 3)
    assert await finish(tmp_path) == 1


async def test_an_entry_cannot_give_itself_another_line(tmp_path: Path) -> None:
    write_input(tmp_path, 2)

    async def liar(record: dict[str, Any]) -> Entry:
        return {"line": 1, "outputs": record}

    with open_run(tmp_path / "in", tmp_path / "out", {}) as run:
        await run.process(liar, concurrency=1)
    assert await finish(tmp_path) == 2


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="only Linux says who holds a lock")
def test_who_holds_the_lock_is_said(tmp_path: Path) -> None:
    write_input(tmp_path, 1)
    with open_run(tmp_path / "in", tmp_path / "out", {}):
        with pytest.raises(ConfigError, match=rf"another run is writing .*, process {os.getpid()};"):
            with open_run(tmp_path / "in", tmp_path / "out", {}):
                pass
