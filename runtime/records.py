"""Runs over files of records that can be killed at any moment and started again.

The input is JSONL, one record per line. The output is JSONL as well, one entry per record, in the
order in which they were completed, each with the number of its line:

    {"line": 3, "outputs": {…}, "usage": {…}, "cost": null, "calls": 1}
    {"line": 1, "error": {"type": "CallTimeout", "message": "…"}}

What has been done is what the output says; there is no second account that could disagree with it.
The rules that make this hold:

* **An entry is one line, written in one piece after its record is done.** Killed in the middle of
  the write, the process leaves a line without its end; a machine that lost its power may leave a last
  line that is no JSON. Either is cut off when the run goes on, and its record done again: every
  record has exactly one entry.
* **One run at a time** holds the lock of the output file. The kernel drops it when the process ends.
* **The same run goes on, or none.** Beside the output lies a manifest, `<output>.run.json`, written
  before the first entry: which input (by its content), which program, which model. Started with
  others, the run is refused, with the differences; unless there is no entry yet, because then there
  is nothing to go on with. Secrets are not in it: callers give none.
* **The input that was counted is the one that is read.** It is read twice, and each line of it is the
  same as before (by its checksum), or the run ends.
* **Nothing is guessed.** An output without a manifest, an entry in the middle that cannot be read, a
  line that has two: refused, with its place.

A blank line is no record. A line that is no JSON object is a bad record: its entry says so, and the
others go on. Killing the process is survived by what the kernel has been given; the disk is asked to
have it when the run ends, finished or not. What is kept in memory is five bytes for each line.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import zlib
from array import array
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import trio

from remuda.statemachines.errors import ConfigError

__all__ = ["Entry", "Run", "open_run"]

Entry: TypeAlias = dict[str, Any]
"""What is known about a record: `line`, and either what came of it or `error`."""

_VERSION = 1
_BOM = b"\xef\xbb\xbf"


class _Survey:
    """What the input was when it was counted."""

    def __init__(self, source: Path) -> None:
        digest = hashlib.sha256()
        self.lines = bytearray(1)
        """By number of line, from 1: 0 blank, 1 a record, 2 a record with an entry."""
        self.checksums = array("I", [0])
        with open(source, "rb", opener=_open_input) as file:
            for line in file:
                digest.update(line)
                self.lines.append(1 if line.removeprefix(_BOM).strip() else 0)
                self.checksums.append(zlib.crc32(line))
        self.sha256 = digest.hexdigest()
        self.records = self.lines.count(1)

    def has(self, number: int, line: bytes) -> bool:
        """Whether this was line `number`."""
        return number < len(self.lines) and self.checksums[number] == zlib.crc32(line)


def _open_input(path: str, flags: int) -> int:
    fd = os.open(path, flags | os.O_NONBLOCK)  # which does not wait for somebody to write into a pipe
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ConfigError(f"the input {path} is not a regular file; it has to be one, to be read again")
    return fd


class Run:
    """A run that holds its output. Made by `open_run`.

    Attributes:
        records: how many records the input has.
        done: how many of them have an entry.
        resumed: how many of those were there when it was opened.
    """

    def __init__(self, input: Path, output: int, survey: _Survey, on_entry: Callable[[Entry], None]) -> None:
        self._input = input
        self._fd = output
        self._survey = survey
        self._lines = survey.lines
        self._on_entry = on_entry
        self._end = 0
        self.records = survey.records
        self.done = 0
        self._read_output()
        self.resumed = self.done

    async def process(self, work: Callable[[dict[str, Any]], Awaitable[Entry]], *, concurrency: int) -> None:
        """Do every record that has no entry yet.

        Args:
            work: does one record and returns its entry (`outputs` and whatever else, or `error`, a
                dict), without the line. What it raises ends the run (the others are cancelled, and
                have no entry).
            concurrency: records at the same time, at least 1.

        Raises:
            ConfigError: the input is not what it was when it was counted.
            OSError: the output cannot be written. What is there stays valid.
        """
        send, receive = trio.open_memory_channel[tuple[int, bytes]](0)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._feed, send)
                for _ in range(concurrency):
                    nursery.start_soon(self._work, work, receive.clone())
                receive.close()
        finally:
            os.fsync(self._fd)
        if self.done < self.records:
            raise ConfigError(
                f"the input {self._input} has changed since the run began; {self.done} of {self.records} records "
                "have entries, all of them as they were. Bring it back and go on, or write to another output"
            )

    async def _feed(self, send: trio.MemorySendChannel[tuple[int, bytes]]) -> None:
        # Closed without a pause: in one, what was raised here could be replaced by the cancellation that it causes.
        # When nobody takes records any more, whoever stopped to says why.
        with send, suppress(trio.BrokenResourceError), open(self._input, "rb") as file:
            for number, line in enumerate(file, start=1):
                if not self._survey.has(number, line):
                    return  # and what is missing in the end says so
                if self._lines[number] == 1:
                    await send.send((number, line))

    async def _work(
        self,
        work: Callable[[dict[str, Any]], Awaitable[Entry]],
        receive: trio.MemoryReceiveChannel[tuple[int, bytes]],
    ) -> None:
        with receive:
            async for number, line in receive:
                try:
                    record = _record(line)
                except ValueError as error:
                    entry: Entry = {"error": {"type": "BadRecord", "message": f"line {number}: {error}"}}
                else:
                    entry = await work(record)
                self._write({"line": number} | entry | {"line": number})

    # ── The output ──────────────────────────────────────────────────────────────────────────────

    def _write(self, entry: Entry) -> None:
        data = memoryview(msgspec.json.encode(entry) + b"\n")  # JSON has no newline of its own
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
        size = os.fstat(self._fd).st_size
        with open(os.dup(self._fd), "rb") as file:
            file.seek(0)
            for place, line in enumerate(file, start=1):
                last = self._end + len(line) == size
                if last and not (line.endswith(b"\n") and _is_json(line)):
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
            if "outputs" not in entry and not isinstance(entry["error"], dict):
                raise TypeError
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError, KeyError, IndexError):
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
) -> Generator[Run]:
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
    survey = _Survey(source)
    manifest = {
        "version": _VERSION,
        "input": {"sha256": survey.sha256, "records": survey.records},
        "settings": settings,
    }
    fd = os.open(target, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ConfigError(f"{target} is not a regular file; the output has to be one, to be gone on with")
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"another run is writing {target} at this moment{_holder(fd)}; wait for it, or stop it"
            ) from None
        _agree(target, fd, manifest)
        yield Run(source, fd, survey, on_entry)
    finally:
        os.close(fd)


def _holder(fd: int) -> str:
    """Which process has the lock, as far as the system says (Linux does)."""
    try:
        locks = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return ""
    inode = os.fstat(fd).st_ino
    # "1: FLOCK  ADVISORY  WRITE 4711 08:01:131075 0 EOF"
    rows = [row.split() for row in locks]
    pids = {row[4] for row in rows if len(row) > 5 and row[1] == "FLOCK" and row[5].endswith(f":{inode}")}
    return f", process {pids.pop()}" if len(pids) == 1 else ""


def _agree(output: Path, fd: int, manifest: dict[str, Any]) -> None:
    """Write the manifest, or compare with the one that is there."""
    path = output.with_name(f"{output.name}.run.json")
    data = msgspec.json.encode(manifest)
    now = msgspec.json.decode(data)  # as it will be read again: a tuple is a list
    try:
        before = msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        if os.fstat(fd).st_size:
            raise ConfigError(
                f"{output} has entries, but no manifest ({path.name}) says of which run. Write to another output"
            ) from None
        _replace(path, msgspec.json.format(data))
        return
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read: {error}. Write to another output") from None
    if not (isinstance(before, dict) and before.keys() == now.keys()):
        raise ConfigError(f"{path} is not the manifest of a run. Write to another output, or move it away")
    differences = list(_differences("", before, now))
    if not differences:
        return
    if not _has_line(fd):
        _replace(path, msgspec.json.format(data))
        return
    raise ConfigError(
        f"{output} belongs to another run: {'; '.join(differences)}. "
        f"Start that one again, write to another output, or delete both {output.name} and {path.name}"
    )


def _has_line(fd: int) -> bool:
    """Whether an output has more than the beginning of its first entry."""
    with open(os.dup(fd), "rb") as file:
        file.seek(0)
        return file.readline().endswith(b"\n")


def _is_json(line: bytes) -> bool:
    try:
        msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _differences(name: str, before: object, now: object) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            yield from _differences(f"{name}.{key}" if name else key, before.get(key), now.get(key))
    elif before != now:
        yield f"{name.removeprefix('settings.')} was {before!r} and is {now!r}"


def _replace(path: Path, data: bytes) -> None:
    """Write a file so that it is there as a whole or not at all, whatever happens meanwhile."""
    draft = path.with_name(f"{path.name}.draft")
    try:
        with open(draft, "wb") as file:
            file.write(data + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError:
        draft.unlink(missing_ok=True)  # a full disk: nothing is left that would never be used
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)  # the name, too, before the first entry
    finally:
        os.close(folder)


def _record(line: bytes) -> dict[str, Any]:
    """A line as a record; raises ValueError with the reason."""
    try:
        record = msgspec.json.decode(line.removeprefix(_BOM))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"it is not JSON: {error}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(record, dict):
        raise ValueError(f"it is a JSON {type(record).__name__}; a record is an object")  # noqa: TRY004
    return record
