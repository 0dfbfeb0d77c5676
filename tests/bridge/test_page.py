"""The evidence page: shared by those who map it, and refused when it is something else."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from remuda.bridge import page
from remuda.bridge.page import Evidence, Page
from remuda.statemachines.errors import ProtocolError


@pytest.fixture
def fd() -> Iterator[int]:
    fd = page.create()
    yield fd
    os.close(fd)


def test_a_new_page_says_that_nothing_has_happened(fd: int) -> None:
    evidence = Page(fd)
    assert evidence.evidence() == Evidence(evidence.started, evidence.finished, 0) == Evidence(0, 0, 0)
    evidence.close()


@pytest.mark.parametrize("number", [1, 255, 2**32, 2**63, 2**64 - 1])
def test_both_numbers_are_seen_through_every_mapping(fd: int, number: int) -> None:
    mine, theirs = Page(fd), Page(fd)
    theirs.start(number)
    assert mine.evidence() == Evidence(mine.started, mine.finished, 1) == Evidence(number, 0, 1)
    theirs.finish(number)
    assert mine.evidence() == Evidence(mine.started, mine.finished, 1) == Evidence(number, number, 1)
    theirs.start(number)
    assert mine.evidence() == Evidence(number, number, 2)
    mine.close()
    theirs.close()


def test_the_layout_is_the_documented_one(fd: int) -> None:
    evidence = Page(fd)
    evidence.start(0x0102)
    evidence.finish(0x0304)
    content = os.pread(fd, 4096, 0)
    assert content[:8] == b"remuda\x00\x03"
    assert int.from_bytes(content[64:72], "little") == 0x0102
    assert int.from_bytes(content[72:80], "little") == 1
    assert int.from_bytes(content[128:136], "little") == 0x0304
    evidence.close()


def test_the_descriptor_may_be_closed_once_the_page_is_mapped() -> None:
    fd = page.create()
    evidence = Page(fd)
    os.close(fd)
    evidence.start(7)
    assert evidence.started == 7
    evidence.close()


def test_it_can_be_closed_twice(fd: int) -> None:
    evidence = Page(fd)
    evidence.close()
    evidence.close()


def test_closing_it_gives_back_every_descriptor(fd: int) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    evidence = Page(fd)
    evidence.close()
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_it_is_not_inherited(fd: int) -> None:
    assert not os.get_inheritable(fd)


def test_what_a_killed_process_has_stored_remains(fd: int) -> None:
    evidence = Page(fd)
    pid = os.fork()
    if not pid:
        theirs = Page(fd)
        theirs.start(41)
        theirs.finish(40)
        os.kill(os.getpid(), signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    assert (evidence.started, evidence.finished) == (41, 40)
    evidence.close()


@pytest.mark.parametrize(
    "content", [b"", b"short", b"\0" * 4096, b"remuda\x00\x03", b"remuda\x00\x01" + b"\0" * (17 * 4096 - 8)]
)
def test_anything_else_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "page"
    path.write_bytes(content)
    fd = os.open(path, os.O_RDWR)
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(ProtocolError):
        Page(fd)
    assert sorted(os.listdir("/proc/self/fd")) == before
    os.close(fd)


def test_a_pipe_is_refused() -> None:
    ends = os.pipe()
    with pytest.raises(ProtocolError):
        Page(ends[0])
    for end in ends:
        os.close(end)


def test_nothing_is_left_when_there_is_no_room_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> int:
        raise OSError(28, "No space left on device")

    before = sorted(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "ftruncate", full)
    with pytest.raises(OSError, match="No space left"):
        page.create()
    assert sorted(os.listdir("/proc/self/fd")) == before


# ── What the worker is doing ────────────────────────────────────────────────────────────────────


def test_phases_and_signs_of_life(fd: int) -> None:
    mine, theirs = Page(fd), Page(fd)
    assert mine.activity() == page.Activity("booting", None, 0, None)
    for number, phase in enumerate(page.PHASES):
        theirs.enter(number)
        seen = mine.activity()
        assert seen.phase == phase
        assert seen.silent is not None and seen.silent >= 0
    theirs.start(3)
    assert (mine.activity().phase, mine.activity().call) == ("running", 3)
    theirs.finish(3)
    assert (mine.activity().phase, mine.activity().call) == ("idle", 3)
    mine.close()
    theirs.close()


@pytest.mark.parametrize(
    ("report", "text"),
    [
        ((3, 10, "page 3"), "3 of 10: page 3"),
        ((0.5, None, ""), "0.5"),
        ((7, None, "words"), "7: words"),
        ((1, 2, ""), "1 of 2"),
        ((1e300, 2, ""), "1e+300 of 2"),
        ((float("inf"), float("-inf"), ""), "inf of -inf"),
        ((1, 2, "x" * 1000), "1 of 2: " + "x" * 200),
        ((1, 2, "x" + "é" * 1000), "1 of 2: x" + "é" * 99),  # not in the middle of a character
        ((1, 2, "\ud800"), "1 of 2: ?"),
    ],
)
def test_a_report_is_read_as_it_was_made(fd: int, report: tuple[float, float | None, str], text: str) -> None:
    mine, theirs = Page(fd), Page(fd)
    theirs.start(1)
    theirs.report(*report)
    assert str(mine.activity().report) == text
    theirs.start(2)
    assert mine.activity().report is None  # that was another call
    mine.close()
    theirs.close()


def test_a_report_is_never_seen_half_written(fd: int) -> None:
    """One writes all the time, the other reads: what it reads is one of those that were written, whole."""
    mine = Page(fd)
    pid = os.fork()
    if not pid:
        theirs = Page(fd)
        theirs.start(1)
        while True:
            for letter in "abcdefgh":
                theirs.report(ord(letter), ord(letter), letter * 200)
    try:
        seen: set[str] = set()
        while len(seen) < 8:
            report = mine.activity().report
            if report is not None:
                assert report.done == report.total == ord(report.note[0])
                assert report.note == report.note[0] * 200
                seen.add(report.note[0])
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        mine.close()


def test_who_is_killed_while_it_writes_a_report_has_the_one_before(fd: int) -> None:
    mine, theirs = Page(fd), Page(fd)
    theirs.start(1)
    for number, (half_written, note) in enumerate([(512, "the first"), (768, "the second")], start=1):
        theirs.report(number, 2, note)
        os.pwrite(fd, b"\xff" * 100, half_written)  # of the next one
        assert str(mine.activity().report) == f"{number} of 2: {note}"
    mine.close()
    theirs.close()


def test_a_report_that_is_overwritten_while_it_is_read_is_not_believed(fd: int) -> None:
    mine, theirs = Page(fd), Page(fd)
    theirs.start(1)
    theirs.report(1, 2, "shown")
    os.pwrite(fd, b"\xff" * 8, 768 + 24)  # inside of the first report, where `total` is
    assert str(mine.activity().report) == "1: shown"  # (a number that is none)
    os.pwrite(fd, b"\x09", 768)  # the number that it carries in front
    assert mine.activity().report is None
    mine.close()
    theirs.close()


def test_what_a_worker_writes_there_can_always_be_read(fd: int) -> None:
    mine = Page(fd)
    for byte in (0x00, 0x01, 0x7F, 0x80, 0xFF):
        os.pwrite(fd, bytes([byte]) * (4096 - 8), 8)
        activity = mine.activity()
        assert isinstance(str(activity.report), str) and activity.phase in (*page.PHASES, "unknown")
        for offset in (-1, 0, 4096, 5000, 2**40):
            os.lseek(fd, max(0, offset), os.SEEK_SET)
            text, whole = mine.stack()
            assert len(text) <= 65536 and not whole
    mine.close()


def test_progress_outside_of_a_worker_does_nothing() -> None:
    page.progress(1, 2, "nobody asks")


# ── Stacks ──────────────────────────────────────────────────────────────────────────────────────


def test_a_stack_is_what_was_written_since_it_was_asked_for(fd: int) -> None:
    mine, theirs = Page(fd), Page(fd)
    loop = 'x File "/a/bridge/child.py", line 1 in _serve\n'.replace("x", " ")
    for text in ("Thread 1:\n  File a long one\n", "Thread 1:\n", "Thread 1:\n  File one in between\n"):
        mine.rewind()
        assert mine.stack() == ("", False)
        os.write(theirs.fd, text.encode())
        assert mine.stack() == (text, False)
        os.write(theirs.fd, loop.encode())
        assert mine.stack() == (text, True)
    mine.close()
    theirs.close()


def test_there_is_room_for_64_kib_and_no_more(fd: int) -> None:
    mine, theirs = Page(fd), Page(fd)
    mine.rewind()
    with pytest.raises(PermissionError):  # it is sealed
        while True:
            os.write(theirs.fd, b"x" * 1000)
    text, whole = mine.stack()
    assert 60_000 < len(text) <= 65536 and not whole
    for size in (0, 10**6):
        with pytest.raises(PermissionError):
            os.ftruncate(theirs.fd, size)
    mine.close()
    theirs.close()
