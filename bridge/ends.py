"""The descriptors between the application and one worker, made in one go or not at all.

    application                                   worker
    ──────────────────────────────────────────────────────────────────────────────────────────
    write ───── pipe ─────────────────────────▶   a descriptor of its own    messages
    read  ◀──── pipe ──────────────────────────   a descriptor of its own    messages
    (held open) pipe ─────────────────────────▶   the lifeline: never carries a byte
    read  ◀──── pipe ──────────────────────────   1 and 2, stdout and stderr: its words
                /dev/null ────────────────────▶   0, stdin
    mapped ──── memory ────────────────────────   mapped: the evidence page

Nothing is shared between workers. None of the descriptors is ever 0, 1 or 2, even if the application
has closed its own, and none is inherited by what it starts elsewhere; what it forks in the middle of
it closes them.
"""

from __future__ import annotations

import fcntl
import os
import weakref
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple

from remuda.bridge import page

__all__ = ["OurEnds", "TheirEnds", "above_stderr", "make_ends"]


class OurEnds(NamedTuple):
    """What the application keeps."""

    read_fd: int
    write_fd: int
    lifeline_fd: int
    stderr_fd: int
    page: page.Page


class TheirEnds(NamedTuple):
    """What the worker gets."""

    read_fd: int
    write_fd: int
    lifeline_fd: int
    page_fd: int
    stderr_fd: int


@contextmanager
def make_ends() -> Generator[tuple[OurEnds, TheirEnds, Callable[[], None]]]:
    """Both ends, for the length of the block, in which the worker is given its own.

    What the third value is called for ("keep ours") stays open; all else is closed when the block ends.

    Raises:
        OSError: no descriptor or no memory is to be had.
    """
    with ExitStack() as theirs, ExitStack() as ours:
        _on_their_way.update((theirs, ours))

        def hold(stack: ExitStack, fd: int) -> int:
            fd = above_stderr(fd)
            stack.callback(os.close, fd)
            return fd

        def pipe(reader: ExitStack, writer: ExitStack) -> tuple[int, int]:
            read_fd, write_fd = os.pipe()
            try:
                read_fd = hold(reader, read_fd)
            except OSError:
                os.close(write_fd)
                raise
            return read_fd, hold(writer, write_fd)

        their_read, our_write = pipe(theirs, ours)
        our_read, their_write = pipe(ours, theirs)
        their_lifeline, our_lifeline = pipe(theirs, ours)
        our_stderr, their_stderr = pipe(ours, theirs)
        page_fd = hold(theirs, page.create())
        evidence = page.Page(page_fd)
        ours.callback(evidence.close)

        def keep() -> None:
            ours.pop_all()

        yield (
            OurEnds(our_read, our_write, our_lifeline, our_stderr, evidence),
            TheirEnds(their_read, their_write, their_lifeline, page_fd, their_stderr),
            keep,
        )


def _forked() -> None:
    for stack in list(_on_their_way):
        with suppress(OSError):  # it had been closed, and was not yet forgotten
            stack.close()
    _on_their_way.clear()


_on_their_way: weakref.WeakSet[ExitStack] = weakref.WeakSet()
"""What this process holds that has no owner yet."""

os.register_at_fork(after_in_child=_forked)


def above_stderr(fd: int) -> int:
    """The descriptor, or the same with a number that cannot be taken for stdin, stdout or stderr."""
    if fd > 2:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)
