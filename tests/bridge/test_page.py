"""The evidence page: shared by those who map it, and refused when it is something else."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from remuda.bridge import page
from remuda.bridge.page import Page
from remuda.statemachines.errors import ProtocolError


@pytest.fixture
def fd() -> Iterator[int]:
    fd = page.create()
    yield fd
    os.close(fd)


def test_a_new_page_says_that_nothing_has_happened(fd: int) -> None:
    evidence = Page(fd)
    assert (evidence.started, evidence.finished) == (0, 0)
    evidence.close()


@pytest.mark.parametrize("number", [1, 255, 2**32, 2**63, 2**64 - 1])
def test_both_numbers_are_seen_through_every_mapping(fd: int, number: int) -> None:
    mine, theirs = Page(fd), Page(fd)
    theirs.start(number)
    assert (mine.started, mine.finished) == (number, 0)
    theirs.finish(number)
    assert (mine.started, mine.finished) == (number, number)
    mine.close()
    theirs.close()


def test_the_layout_is_the_documented_one(fd: int) -> None:
    evidence = Page(fd)
    evidence.start(0x0102)
    evidence.finish(0x0304)
    content = os.pread(fd, 4096, 0)
    assert content[:8] == b"remuda\x00\x02"
    assert int.from_bytes(content[64:72], "little") == 0x0102
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
    "content", [b"", b"short", b"\0" * 4096, b"remuda\x00\x02", b"remuda\x00\x01" + b"\0" * (17 * 4096 - 8)]
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
