"""Runs over files, killed and gone on with: every record has exactly one entry, or the run is refused.

No pool and no model here: `work` is a function of this file, and what it answers depends on the record.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from remuda.runtime import records
from remuda.runtime.records import Entry, open_run
from remuda.statemachines.errors import ConfigError

SETTINGS: dict[str, Any] = {"program": {"signature": "a -> b"}, "model": "m", "options": {"temperature": 0.5}}


async def double(record: dict[str, Any]) -> Entry:
    """The work: the answer shows which record it was, and is text of several bytes per letter."""
    await trio.lowlevel.checkpoint()
    return {"outputs": {"twice": record["n"] * 2, "text": "é\n" * record["n"]}}


class Files:
    """An input of records, and an output."""

    def __init__(self, folder: Path, records: int = 5) -> None:
        self.input, self.output = folder / "in.jsonl", folder / "out.jsonl"
        self.manifest = folder / "out.jsonl.run.json"
        self.input.write_text("".join(f'{{"n": {n}}}\n' for n in range(1, records + 1)))
        self.records = records

    async def run(
        self,
        work: Callable[..., Any] = double,
        *,
        concurrency: int = 2,
        settings: dict[str, Any] = SETTINGS,
        on_entry: Callable[[Entry], None] = lambda entry: None,
    ) -> tuple[int, int]:
        """Run to the end; how many entries were there before, and are there after it."""
        with open_run(self.input, self.output, settings, on_entry) as run:
            await run.process(work, concurrency=concurrency)
            return run.resumed, run.done

    def entries(self) -> list[Entry]:
        """All of the output; every line of it has to be an entry."""
        data = self.output.read_bytes()
        assert not data or data.endswith(b"\n")
        return [json.loads(line) for line in data.splitlines()]

    def check(self) -> None:
        """Every record has exactly one entry, and it is the right one."""
        entries = self.entries()
        assert sorted(entry["line"] for entry in entries) == [*range(1, self.records + 1)]
        for entry in entries:
            n = entry["line"]
            assert entry == {"line": n, "outputs": {"twice": n * 2, "text": "é\n" * n}}

    def refusal(self, settings: dict[str, Any] = SETTINGS) -> str:
        """The text with which the run is refused; nothing is changed by it."""
        before = self.output.read_bytes()
        with pytest.raises(ConfigError) as refused, open_run(self.input, self.output, settings):
            pass
        assert self.output.read_bytes() == before
        return str(refused.value)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


async def test_every_record_has_its_entry(files: Files) -> None:
    noted: list[Entry] = []
    assert await files.run(on_entry=noted.append) == (0, 5)
    files.check()
    assert noted == files.entries()  # in the order in which they were written
    # Once more: nothing is done again, and the entries are told to whoever counts.
    noted.clear()

    async def never(record: dict[str, Any]) -> Entry:
        raise AssertionError(record)

    assert await files.run(never, on_entry=noted.append) == (5, 5)
    files.check()
    assert noted == files.entries()
    assert sorted(path.name for path in files.output.parent.iterdir()) == [
        "in.jsonl",
        "out.jsonl",
        "out.jsonl.run.json",
    ]


async def test_cut_off_at_every_byte_of_the_last_entries(files: Files) -> None:
    """What a kill can leave: the beginning of the last entry, at any length of it."""
    await files.run(concurrency=1)
    whole = files.output.read_bytes()
    ends = [at + 1 for at, byte in enumerate(whole) if byte == ord("\n")]
    for length in range(ends[-3], len(whole)):
        files.output.write_bytes(whole[:length])
        there = sum(end <= length for end in ends)
        done_again: list[int] = []

        async def work(record: dict[str, Any], seen: list[int] = done_again) -> Entry:
            seen.append(record["n"])
            return await double(record)

        assert await files.run(work) == (there, 5)
        assert sorted(done_again) == [*range(there + 1, 6)]
        files.check()


async def test_a_tail_of_zeros_or_rubbish_is_cut_off(files: Files) -> None:
    """What a machine that lost its power can leave of an entry that the disk had no time for."""
    await files.run(concurrency=1)
    whole = files.output.read_bytes()
    for tail in (b"\0" * 100, b"{", b"\xff\xfe", b'{"line": 5, "outputs": {}}'):
        files.output.write_bytes(whole[: whole.rindex(b'{"line":5')] + tail)
        assert await files.run() == (4, 5)
        files.check()


# ── One run at a time ───────────────────────────────────────────────────────────────────────────


async def test_only_one_run_at_a_time_in_this_process(files: Files) -> None:
    with open_run(files.input, files.output, SETTINGS) as run:
        assert "another run is writing" in files.refusal()
        await run.process(double, concurrency=2)
        assert "another run is writing" in files.refusal()
    assert await files.run() == (5, 5)
    files.check()


def test_only_one_run_at_a_time_among_processes(files: Files) -> None:
    program = (
        "import sys; from remuda.runtime.records import open_run\n"
        "with open_run(sys.argv[1], sys.argv[2], {}):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(files.input), str(files.output)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert "another run is writing" in files.refusal({})
        other.kill()  # the kernel drops the lock with it
        other.wait()
        with open_run(files.input, files.output, {}) as run:
            assert (run.records, run.done) == (5, 0)


# ── What goes wrong while it runs ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize("fits", [0, 1, 20])
async def test_a_full_disk_leaves_no_half_of_an_entry(files: Files, monkeypatch: pytest.MonkeyPatch, fits: int) -> None:
    real = os.pwrite
    written: list[int] = []

    def pwrite(fd: int, data: Any, offset: int) -> int:
        if len(written) < 2:  # two entries still have room
            written.append(offset)
            return real(fd, data, offset)
        if fits and len(written) == 2:  # of the third there is room for a part
            written.append(offset)
            return real(fd, data[:fits], offset)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(ExceptionGroup) as failed:
        patch.setattr(os, "pwrite", pwrite)
        await files.run(concurrency=1)
    full, others = failed.value.split(OSError)
    assert full is not None and others is None
    assert [entry["line"] for entry in files.entries()] == [1, 2]
    assert await files.run() == (2, 5)
    files.check()


async def test_writes_that_come_back_short_are_gone_on_with(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:7], offset))
    await files.run()
    files.check()


async def test_cancelled_in_the_middle(files: Files) -> None:
    with open_run(files.input, files.output, SETTINGS) as run, trio.CancelScope() as scope:

        async def work(record: dict[str, Any]) -> Entry:
            if record["n"] == 3:
                scope.cancel()
                await trio.sleep_forever()
            return await double(record)

        await run.process(work, concurrency=1)
    assert scope.cancelled_caught
    assert [entry["line"] for entry in files.entries()] == [1, 2]
    assert await files.run() == (2, 5)
    files.check()


async def test_work_that_raises_ends_the_run(files: Files) -> None:
    async def work(record: dict[str, Any]) -> Entry:
        if record["n"] == 1:
            await trio.sleep_forever()  # ends, because the other one fails
        if record["n"] == 3:
            raise LookupError("there is no three")
        return await double(record)

    with pytest.raises(ExceptionGroup) as failed:
        await files.run(work)
    assert failed.group_contains(LookupError, match="no three")
    assert [entry["line"] for entry in files.entries()] == [2]
    assert await files.run() == (1, 5)
    files.check()


async def test_as_many_at_the_same_time_as_was_said_and_none_is_read_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Files(tmp_path, records=40)
    running, most, read = 0, 0, 0

    @contextmanager
    def counting(path: Path, mode: str) -> Iterator[Iterator[bytes]]:
        def lines() -> Iterator[bytes]:
            nonlocal read
            for line in file:
                read += 1
                yield line

        with open(path, mode) as file:
            yield lines()

    async def work(record: dict[str, Any]) -> Entry:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.testing.wait_all_tasks_blocked()
        assert read <= run.done + 3 + 1  # what is done, what is being done, and the one that is handed over
        running -= 1
        return await double(record)

    with open_run(files.input, files.output, SETTINGS) as run:
        monkeypatch.setattr(records, "open", counting, raising=False)
        await run.process(work, concurrency=3)
    assert (most, read) == (3, 40)
    files.check()
