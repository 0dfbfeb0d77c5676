"""A worker as a process of this machine: what does not depend on how it was started.

Its channel, its evidence, its words, and the watch for its end. How it is signalled and reaped depends
on whose child it is; see `remuda.bridge.spawn` and `remuda.bridge.forkserver`.

Only the application itself holds its ends. What it forks closes them, so that nobody else keeps the
lifeline alive.

The order at the end is fixed: the process has ended but is not reaped, so that its number is still
its own; what is left of its group is killed; it is reaped. Signals are sent to the group only as
long as it is not reaped. What had left the group comes after that (`remuda.bridge.escaped`).
"""

from __future__ import annotations

import math
import os
import select
import signal
import sys
import weakref
from abc import ABC, abstractmethod
from collections import deque
from contextlib import suppress

import trio

from remuda.bridge import escaped, usage
from remuda.bridge.ends import OurEnds, above_stderr
from remuda.bridge.last_words import LastWords
from remuda.bridge.seam import Activity, Evidence, Usage

__all__ = ["LocalWorker", "look_again", "look_later", "open_pidfd", "wait_unreaped"]

_READ = 1 << 16
_HEAR = 1 << 12  # bytes of stderr at a time: thousands of lines, if most of them are empty

_CLOSED = "this worker's descriptors have been closed"

_waiting_threads = trio.CapacityLimiter(math.inf)
"""Where there are no pidfds, a thread waits for each worker: more of them than trio's own limit is."""


class LocalWorker(ABC):
    """The application's end of one process; an implementation of `WorkerProcess`.

    Args:
        pid: its process id.
        pidfd: a descriptor that becomes readable when it ends; None where there is no such thing.
        ends: the application's descriptors. All of these are the object's from now on.
        mark, born: by what its own children are known, from `escaped`; "" if it has no mark.
    """

    pid: int | None

    def __init__(self, pid: int, pidfd: int | None, ends: OurEnds, mark: str, born: int) -> None:
        self.pid = self._pid = pid
        self._pidfd = pidfd
        self._read_fd, self._write_fd, self._lifeline_fd, self._stderr_fd, self._page = ends
        for fd in (self._read_fd, self._write_fd, self._stderr_fd):
            os.set_blocking(fd, False)
        self._news = select.poll()
        self._news.register(self._read_fd, select.POLLIN)
        self._mark, self._born = mark, born
        self._evidence = Evidence(0, 0, 0)
        self._activity = Activity("booting")
        self._words = LastWords()
        self._status: int | None = None
        self._usage = Usage(rss=0)  # and nothing more, if somebody else reaps it
        self._dead = False
        self._reaches_group = True  # when its leader has ended
        self._reaped = False
        self._closed = False
        _open.add(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} pid {self._pid}>"

    # ── The channel ─────────────────────────────────────────────────────────────────────────────

    def read(self) -> bytes | None:
        """What has arrived; b"" at the end of file, None when there is nothing now."""
        if self._closed:
            raise trio.ClosedResourceError(_CLOSED)
        try:
            return os.read(self._read_fd, _READ)
        except BlockingIOError:
            return None

    def is_quiet(self) -> bool:
        """Whether there is nothing to read now, not even the end of file."""
        if self._closed:
            raise trio.ClosedResourceError(_CLOSED)
        return not self._news.poll(0)

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Send as much as fits now, and say how much; raises BrokenPipeError."""
        if self._closed:
            raise trio.ClosedResourceError(_CLOSED)
        try:
            return os.write(self._write_fd, data)
        except BlockingIOError:
            return 0

    async def readable(self) -> None:
        """Wait until there is something to read. `wake` ends it early."""
        if self._closed:
            raise trio.ClosedResourceError(_CLOSED)
        try:
            await trio.lowlevel.wait_readable(self._read_fd)
        except trio.ClosedResourceError:
            if self._closed:
                raise trio.ClosedResourceError(_CLOSED) from None

    async def writable(self) -> None:
        """Wait until there is room to write. `wake` ends it early."""
        if self._closed:
            raise trio.ClosedResourceError(_CLOSED)
        try:
            await trio.lowlevel.wait_writable(self._write_fd)
        except trio.ClosedResourceError:
            if self._closed:
                raise trio.ClosedResourceError(_CLOSED) from None

    def wake(self) -> None:
        """Let whoever waits in `readable` or `writable` return at once."""
        if not self._closed:
            trio.lowlevel.notify_closing(self._read_fd)
            trio.lowlevel.notify_closing(self._write_fd)

    # ── The process ─────────────────────────────────────────────────────────────────────────────

    @abstractmethod
    def signal(self, signum: int) -> None:
        """Send a signal to the whole process group; nothing, once it has been reaped."""

    async def ended(self) -> bool:
        """Wait for its end, and kill the rest of its group, if that can be done now. It is not reaped by this."""
        if not self._dead and not self._reaped:
            if self._pidfd is not None:
                await trio.lowlevel.wait_readable(self._pidfd)
            else:
                await wait_unreaped(self._pid)
            self._dead = True
            self.signal(signal.SIGKILL)
        return self._reaches_group

    @abstractmethod
    async def wait(self) -> int | None:
        """Wait until it has `ended`, and reap it."""

    @abstractmethod
    def _reap_later(self) -> None:
        """It was killed; somebody has to reap it, and nobody waits for that."""

    async def kill_escaped(self, after: float = 0.0) -> None:
        """After the end: kill what it had started and what had left its group, as far as it can be found.

        Args:
            after: seconds by which to do that later. It is done also if nobody waits for it any more.
        """
        if sys.platform != "linux" or self._closed or not self._mark:
            return
        traces = escaped.Traces(self._mark, self._held(), self._born)
        try:
            await trio.to_thread.run_sync(
                escaped.end_all, traces, after, limiter=_waiting_threads, abandon_on_cancel=True
            )
        except (OSError, RuntimeError):  # no descriptors, no thread: at the next occasion
            look_later(self._mark, self._born)

    def _held(self) -> list[tuple[int, bool]]:
        """The pipes that somebody still holds at its end, as `Traces` wants them."""
        poller, ours = select.poll(), {self._read_fd: True, self._stderr_fd: True}
        ours |= {self._write_fd: False, self._lifeline_fd: False}
        for fd in ours:
            poller.register(fd, 0)
        alone = {fd for fd, _ in poller.poll(0)}  # POLLHUP, POLLERR: nobody is at the other end
        return [(os.fstat(fd).st_ino, writes) for fd, writes in ours.items() if fd not in alone]

    def evidence(self) -> Evidence:
        """What it has recorded so far; after `close`, what it had recorded by then."""
        return self._evidence if self._closed else self._page.evidence()

    def activity(self) -> Activity:
        """What it is doing, by what it has recorded; after `close`, what it was doing then."""
        return self._activity if self._closed else self._page.activity()

    def usage(self) -> Usage:
        """What it uses now; after its end, what it has used in its life, as far as the kernel says."""
        return self._usage if self._reaped else usage.now(self._pid)

    # ── Interrupts ──────────────────────────────────────────────────────────────────────────────

    def ask_for_stack(self) -> None:
        """Have it write down what all its threads are doing; nothing, once it has been reaped."""
        if not self._reaped:
            self._page.rewind()
            self._signal_alone(signal.SIGUSR2)

    def stack(self) -> tuple[str, bool]:
        """What it has written of that since it was last asked, and whether that is all."""
        return ("", False) if self._closed else self._page.stack()

    def interrupt(self, call: int) -> None:
        """Raise `remuda.Interrupted` in its main thread, if user code of this very call runs there."""
        if not self._reaped:
            self._page.interrupt(call)
            self._signal_alone(signal.SIGUSR1)

    def _signal_alone(self, signum: int) -> None:
        """Signal the process, and not what it has started."""
        with suppress(ProcessLookupError, PermissionError):
            if self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, signum)  # it cannot be another's, whoever has reaped it
            else:
                os.kill(self._pid, signum)

    # ── Its words ───────────────────────────────────────────────────────────────────────────────

    async def stderr_readable(self) -> None:
        """Wait until it has written something to stderr, or has closed it."""
        if self._closed:
            raise trio.ClosedResourceError(_CLOSED)
        await trio.lowlevel.wait_readable(self._stderr_fd)

    def read_stderr(self) -> list[str] | None:
        """The lines that were completed since the last time; None at the end of file.

        At most 4 KiB are read at a time: a worker that never stops writing shall not keep the
        application from anything else.
        """
        if not self._closed:
            self._hear(_HEAR)
        return self._words.take()

    def stderr_tail(self) -> tuple[str, ...]:
        """The last lines it wrote, at most 200 and 64 KiB, an unfinished one included."""
        if not self._closed:
            self._hear(_READ)  # as much as a pipe holds
        return self._words.tail()

    def _hear(self, most: int) -> bool:
        try:
            data = os.read(self._stderr_fd, most)
        except BlockingIOError:
            return False
        if data:
            self._words.feed(data)
        else:
            self._words.end()
        return bool(data)

    # ── The end ─────────────────────────────────────────────────────────────────────────────────

    def close(self) -> None:
        """Close all descriptors. A process that still lives does not survive it."""
        if self._closed:
            return
        self._evidence, self._activity = self.evidence(), self.activity()
        self._let_go()
        if not self._reaped:
            self.signal(signal.SIGKILL)
            self._reaped = True  # from here on it is somebody else's
            self._reap_later()
        for fd in self._waited_for():
            trio.lowlevel.notify_closing(fd)
        self._close_descriptors()

    def _let_go(self) -> None:
        self._closed = True
        _open.discard(self)

    def _close_descriptors(self) -> None:
        for fd in (*self._waited_for(), self._lifeline_fd):
            os.close(fd)
        self._page.close()

    def forget(self) -> None:
        """In a process that was forked from the application: let go of what is not its own."""
        self._closed = self._reaped = True
        for fd in (*self._waited_for(), self._lifeline_fd):
            with suppress(OSError):  # it may have been closed there before
                os.close(fd)
        self._page.close()

    def _waited_for(self) -> list[int]:
        """The descriptors that a task may wait for."""
        fds = [self._read_fd, self._write_fd, self._stderr_fd]
        return fds if self._pidfd is None else [*fds, self._pidfd]


def open_pidfd(pid: int) -> int | None:
    """A descriptor that becomes readable when the process ends, where there is such a thing."""
    if sys.platform == "linux":
        try:
            return above_stderr(os.pidfd_open(pid))
        except OSError:
            pass  # an old kernel, or no descriptors left: a thread has to wait
    return None


async def wait_unreaped(pid: int) -> None:
    """Wait in a thread until this child has ended. It is not reaped by this."""
    await trio.to_thread.run_sync(_wait_unreaped, pid, limiter=_waiting_threads, abandon_on_cancel=True)


def _wait_unreaped(pid: int) -> None:
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    except ChildProcessError:
        pass


def look_later(mark: str, born: int) -> None:
    """Note that nobody has looked yet for what has escaped from this worker."""
    if mark:
        _unseen.append((mark, born))


def look_again() -> None:
    """For what has escaped from workers whose end came at a time when nobody could look."""
    for _ in range(len(_unseen)):
        try:
            mark, born = _unseen.popleft()
        except IndexError:  # another thread has taken it
            break
        try:
            escaped.end_all(escaped.Traces(mark, (), born))  # its pipes are closed, and their numbers free
        except OSError:
            _unseen.append((mark, born))


def _forked() -> None:
    for worker in list(_open):
        worker.forget()
    _open.clear()


_open: weakref.WeakSet[LocalWorker] = weakref.WeakSet()
"""Workers whose descriptors this process holds."""

_unseen: deque[tuple[str, int]] = deque()
"""Marks, and births, of workers after whose end nobody could look for what had escaped."""

os.register_at_fork(after_in_child=_forked)
