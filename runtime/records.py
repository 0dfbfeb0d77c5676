"""Runs over files of records that can be killed at any moment and started again.

The input is JSONL, one record per line. The output is JSONL as well, one entry per record, in the
order in which they were completed, each with the number of its line:

    {"line": 3, "outputs": {…}, "usage": {…}, "cost": null, "calls": 1}
    {"line": 1, "error": {"type": "CallTimeout", "message": "…"}}

What has been done is what the output says; there is no second account that could disagree with it.
The rules that make this hold:

* **An entry is one line, written in one piece after its record is done.** Killed in the middle of
  the write, the process leaves a line without its end. It is cut off when the run goes on, and its
  record done again: every record has exactly one entry.
* **One run at a time** holds the lock of the output file. The kernel drops it when the process ends.
* **The same run goes on, or none.** Beside the output lies a manifest, `<output>.run.json`, written
  before the first entry: which input (by its content), which program, which model. Started with
  others, the run is refused, with the differences. Secrets are not in it.
* **Nothing is guessed.** An output without a manifest, an entry in the middle that cannot be read, a
  line that has two: refused, with its place.

A blank line is no record. A line that is no JSON object is a bad record: its entry says so, and the
others go on. Killing the process is survived by what the kernel has been given; the disk is asked to
have it at the end of the run.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import trio

from remuda.statemachines.errors import ConfigError

__all__ = ["Entry", "Run", "open_run"]

Entry: TypeAlias = dict[str, Any]
"""What is known about a record: `line`, and either what came of it or `error`."""

_VERSION = 1
_BLOCK = 1 << 20
_BOM = b"\xef\xbb\xbf"


class Run:
    """A run that holds its output. Made by `open_run`.

    Attributes:
        records: how many records the input has.
        done: how many of them have an entry.
        resumed: how many of those were there when it was opened.
        entries: called with every entry: those that were there, and every new one once it is written.
    """

    def __init__(self, input: Path, output: int, lines: bytearray, on_entry: Callable[[Entry], None]) -> None:
        self._input = input
        self._fd = output
        self._lines = lines  # by line number: 0 blank, 1 a record, 2 a record with an entry
        self._on_entry = on_entry
        self._end = 0
        self.records = lines.count(1)
        self.done = 0
        self._read_output()
        self.resumed = self.done

    async def process(self, work: Callable[[dict[str, Any]], Awaitable[Entry]], *, concurrency: int) -> None:
        """Do every record that has no entry yet.

        Args:
            work: does one record and returns its entry, without the line. What it raises ends the
                run (the others are cancelled, and have no entry).
            concurrency: records at the same time, at least 1.

        Raises:
            OSError: the output cannot be written. What is there stays valid.
        """
        send, receive = trio.open_memory_channel[tuple[int, bytes]](0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._feed, send)
            for _ in range(concurrency):
                nursery.start_soon(self._work, work, receive.clone())
            receive.close()
        os.fsync(self._fd)

    async def _feed(self, send: trio.MemorySendChannel[tuple[int, bytes]]) -> None:
        async with send:
            with open(self._input, "rb") as file:
                for number, line in enumerate(file, start=1):
                    if number < len(self._lines) and self._lines[number] == 1:
                        await send.send((number, line))

    async def _work(
        self,
        work: Callable[[dict[str, Any]], Awaitable[Entry]],
        receive: trio.MemoryReceiveChannel[tuple[int, bytes]],
    ) -> None:
        async with receive:
            async for number, line in receive:
                try:
                    record = _record(line)
                except ValueError as error:
                    entry: Entry = {"error": {"type": "BadRecord", "message": f"line {number}: {error}"}}
                else:
                    entry = await work(record)
                self._write({"line": number, **entry})

    # ── The output ──────────────────────────────────────────────────────────────────────────────

    def _write(self, entry: Entry) -> None:
        data = memoryview(msgspec.json.encode(entry) + b"\n")
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(self._fd, data[written:], self._end + written)
        except OSError:
            os.ftruncate(self._fd, self._end)  # a full disk: no half of an entry stays behind
            raise
        self._end += len(data)
        self._note(entry)

    def _note(self, entry: Entry) -> None:
        self._lines[entry["line"]] = 2
        self.done += 1
        self._on_entry(entry)

    def _read_output(self) -> None:
        """Note every entry that is there, and cut off a last one that was not finished."""
        with open(os.dup(self._fd), "rb") as file:
            for place, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    os.ftruncate(self._fd, self._end)
                    break
                self._note(self._entry(place, line))
                self._end += len(line)

    def _entry(self, place: int, line: bytes) -> Entry:
        advice = "Mend that line, or write to another output"
        try:
            entry = msgspec.json.decode(line)
            number = entry["line"]
            state = self._lines[number] if type(number) is int and number > 0 else 0
        except (msgspec.DecodeError, TypeError, KeyError, IndexError):
            raise ConfigError(f"line {place} of the output is not an entry of this run. {advice}") from None
        if state != 1:
            what = "has an entry already" if state == 2 else "is no record"
            raise ConfigError(f"line {place} of the output is about line {number} of the input, which {what}. {advice}")
        return entry  # type: ignore[no-any-return]


@contextmanager
def open_run(
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    settings: Mapping[str, Any],
    on_entry: Callable[[Entry], None] = lambda entry: None,
) -> Iterator[Run]:
    """Begin a run, or go on with one.

    Args:
        input: the file of records.
        output: the file of entries; made if it is not there.
        settings: what makes it this run and no other: plain data without secrets. It goes into the
            manifest.
        on_entry: called with every entry, also with those that are there already.

    Raises:
        ConfigError: it cannot go on; the text says why, and what to do.
        OSError: the input cannot be read, or the output not be written.
    """
    source, target = Path(input), Path(output)
    if target.exists() and source.exists() and source.samefile(target):
        raise ConfigError(f"input and output are the same file, {target}; write to another one")
    digest, lines = _survey(source)
    manifest = {
        "version": _VERSION,
        "input": {"sha256": digest, "records": lines.count(1)},
        "settings": msgspec.to_builtins(dict(settings)),
    }
    fd = os.open(target, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ConfigError(f"{target} is not a regular file; the output has to be one, to be gone on with")
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another run is writing {target} at this moment; wait for it, or stop it") from None
        _agree(target, os.fstat(fd).st_size, manifest)
        yield Run(source, fd, lines, on_entry)
    finally:
        os.close(fd)


def _survey(source: Path) -> tuple[str, bytearray]:
    """The hash of a file, and which of its lines (from 1) are records."""
    digest = hashlib.sha256()
    lines = bytearray(1)
    with open(source, "rb") as file:
        for line in file:
            digest.update(line)
            lines.append(1 if line.removeprefix(_BOM).strip() else 0)
    return digest.hexdigest(), lines


def _agree(output: Path, size: int, manifest: dict[str, Any]) -> None:
    """Write the manifest, or compare with the one that is there."""
    path = output.with_name(f"{output.name}.run.json")
    try:
        before = msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        if size:
            raise ConfigError(
                f"{output} has entries, but no manifest ({path.name}) says of which run. Write to another output"
            ) from None
        _replace(path, msgspec.json.format(msgspec.json.encode(manifest)))
        return
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path} cannot be read: {error}. Write to another output") from None
    differences = list(_differences("", before, manifest))
    if differences:
        raise ConfigError(
            f"{output} belongs to another run: {'; '.join(differences)}. "
            f"Start that one again, write to another output, or delete both {output.name} and {path.name}"
        )


def _differences(name: str, before: object, now: object) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            yield from _differences(f"{name}.{key}" if name else key, before.get(key), now.get(key))
    elif before != now:
        yield f"{name.removeprefix('settings.')} was {before!r} and is {now!r}"


def _replace(path: Path, data: bytes) -> None:
    """Write a file so that it is there as a whole or not at all, whatever happens meanwhile."""
    draft = path.with_name(f"{path.name}.draft")
    with open(draft, "wb") as file:
        file.write(data + b"\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def _record(line: bytes) -> dict[str, Any]:
    """A line as a record; raises ValueError with the reason."""
    try:
        record = msgspec.json.decode(line.removeprefix(_BOM))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"it is not JSON: {error}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(record, dict):
        raise ValueError(f"it is a JSON {type(record).__name__}; a record is an object")
    return record
