"""Workers as processes of this machine, each a fresh interpreter.

    application                                   worker
    ──────────────────────────────────────────────────────────────────────────────────────────
    write ───── pipe ─────────────────────────▶   a descriptor of its own    messages
    read  ◀──── pipe ──────────────────────────   a descriptor of its own    messages
    (held open) pipe ─────────────────────────▶   the lifeline: never carries a byte
    read  ◀──── pipe ──────────────────────────   1 and 2, stdout and stderr: its words
                /dev/null ────────────────────▶   0, stdin
    mapped ──── memory ────────────────────────   mapped: the evidence page

Nothing is shared between workers, and the descriptors are there before the first line of Python
runs, so that whatever a library prints while it is imported goes to stderr and not into a message.
Each worker leads a session and a process group of its own: a signal reaches what it has started, and
Ctrl-C in a terminal does not reach it.

Only the application itself holds its ends. What it forks closes them, so that nobody else keeps the
lifeline alive; and none of them is ever 0, 1 or 2, even if the application has closed its own.

The order at the end is fixed: the process has ended but is not reaped, so that its number is still
its own; what is left of its group is killed; it is reaped. Signals are sent to the group only as
long as it is not reaped. What had left the group comes after that (`escaped`).
"""

from __future__ import annotations

import errno
import fcntl
import math
import os
import select
import signal
import subprocess
import sys
import threading
import weakref
from collections import deque
from contextlib import ExitStack, suppress
from pathlib import Path

import outcome
import trio

import remuda
from remuda.bridge import escaped, page
from remuda.bridge.last_words import LastWords
from remuda.bridge.seam import Evidence, StartOrder

__all__ = ["SpawnLauncher", "SpawnedWorker"]

_READ = 1 << 16
_HEAR = 1 << 12  # bytes of stderr at a time: thousands of lines, if most of them are empty

_waiting_threads = trio.CapacityLimiter(math.inf)
"""Where there are no pidfds, a thread waits for each worker: more of them than trio's own limit is."""

_HOME = str(Path(remuda.__file__).parent.parent)
"""Where the worker finds this very package, wherever the application found it."""

_PROGRAM = """\
import sys
home = sys.argv[1]
if home not in sys.path:
    sys.path.append(home)
from remuda.bridge.child import main
sys.exit(main(*map(int, sys.argv[2:])))
"""


class SpawnLauncher:
    """Starts workers by `fork` and `exec`; an implementation of `Launcher`."""

    async def start(self, order: StartOrder) -> SpawnedWorker:
        """Start a worker.

        Raises:
            OSError: no process, no descriptor or no memory is to be had. Nothing is left behind.
        """
        try:
            return await _Birth(order).wait()
        except RuntimeError as error:  # Python's own way to say that no thread is to be had
            raise OSError(errno.EAGAIN, str(error)) from error


class _Birth:
    """One start, in a thread of its own: either there is no process, or somebody has it.

    Who is cancelled waits on for a moment, and has the worker then. A start that hangs in the kernel is
    left to its thread, which ends what may still come of it.
    """

    def __init__(self, order: StartOrder) -> None:
        self._order = order
        self._over = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        self._lock = threading.Lock()
        self._outcome: outcome.Outcome[SpawnedWorker] | None = None
        self._given_up = False

    async def wait(self) -> SpawnedWorker:
        await trio.lowlevel.checkpoint_if_cancelled()
        # Not through trio's limiter: who fills that with slow threads shall not keep workers from starting.
        trio.lowlevel.start_thread_soon(self._spawn, self._deliver, "remuda-start")
        try:
            await self._over.wait()
        except trio.Cancelled:
            with trio.move_on_after(self._order.patience, shield=True):
                await self._over.wait()
            with self._lock:
                self._given_up = self._outcome is None
            if self._given_up:
                raise
        assert self._outcome is not None
        return self._outcome.unwrap()

    def _spawn(self) -> SpawnedWorker:
        return _spawn(self._order)

    def _deliver(self, result: outcome.Outcome[SpawnedWorker]) -> None:
        with self._lock:
            self._outcome = result
            wanted = not self._given_up
        if wanted:
            try:
                self._token.run_sync_soon(self._over.set)
                return
            except trio.RunFinishedError:
                pass
        if isinstance(result, outcome.Value):
            result.value.discard()


def _spawn(order: StartOrder) -> SpawnedWorker:
    _unreaped[:] = [process for process in _unreaped if process.poll() is None]
    _look_again()
    (word, marks), born = escaped.new_mark(), escaped.clock()
    with ExitStack() as theirs, ExitStack() as ours:

        def hold(stack: ExitStack, fd: int) -> int:
            fd = _above_stderr(fd)
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
        handed = (their_read, their_write, their_lifeline, page_fd)
        process = subprocess.Popen(
            # -P: the current folder is no place to import from before the application says so.
            # -u: what was printed is out, whatever happens next.
            [sys.executable, *_interpreter_flags(), "-P", "-u", "-c", _PROGRAM, _HOME, *map(str, handed)],
            stdin=subprocess.DEVNULL,
            stdout=their_stderr,
            stderr=their_stderr,
            pass_fds=handed,
            env={**os.environ, **order.env, escaped.MARK: marks},
            start_new_session=True,
        )
        worker = SpawnedWorker(process, our_read, our_write, our_lifeline, our_stderr, evidence, word, born)
        ours.pop_all()  # they are the worker's now, which closes them
        return worker


def _above_stderr(fd: int) -> int:
    """The descriptor, or the same with a number that cannot be taken for stdin, stdout or stderr."""
    if fd > 2:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)


def _interpreter_flags() -> list[str]:
    """The options that the application's interpreter runs with, such as -O, -X and -W."""
    # Private, and what `multiprocessing` uses for the same purpose; there is no public way.
    return subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined, no-any-return]


class SpawnedWorker:
    """The application's end of one process; an implementation of `WorkerProcess`."""

    pid: int | None

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        read_fd: int,
        write_fd: int,
        lifeline_fd: int,
        stderr_fd: int,
        evidence: page.Page,
        mark: str,
        born: int,
    ) -> None:
        self.pid = self._pid = process.pid
        self._process = process
        self._read_fd, self._write_fd = read_fd, write_fd
        self._lifeline_fd, self._stderr_fd = lifeline_fd, stderr_fd
        for fd in (read_fd, write_fd, stderr_fd):
            os.set_blocking(fd, False)
        self._page = evidence
        self._mark, self._born = mark, born
        self._evidence = Evidence(0, 0)
        self._words = LastWords()
        self._status: int | None = None
        self._reaped = False
        self._closed = False
        self._pidfd = _open_pidfd(process.pid)
        _open.add(self)

    def __repr__(self) -> str:
        return f"<SpawnedWorker pid {self._pid}>"

    # ── The channel ─────────────────────────────────────────────────────────────────────────────

    def read(self) -> bytes | None:
        """What has arrived; b"" at the end of file, None when there is nothing now."""
        self._check_open()
        try:
            return os.read(self._read_fd, _READ)
        except BlockingIOError:
            return None

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Send as much as fits now, and say how much; raises BrokenPipeError."""
        self._check_open()
        try:
            return os.write(self._write_fd, data)
        except BlockingIOError:
            return 0

    async def readable(self) -> None:
        """Wait until there is something to read. `wake` ends it early."""
        self._check_open()
        try:
            await trio.lowlevel.wait_readable(self._read_fd)
        except trio.ClosedResourceError:
            self._check_open()

    async def writable(self) -> None:
        """Wait until there is room to write. `wake` ends it early."""
        self._check_open()
        try:
            await trio.lowlevel.wait_writable(self._write_fd)
        except trio.ClosedResourceError:
            self._check_open()

    def wake(self) -> None:
        """Let whoever waits in `readable` or `writable` return at once."""
        if not self._closed:
            trio.lowlevel.notify_closing(self._read_fd)
            trio.lowlevel.notify_closing(self._write_fd)

    # ── The process ─────────────────────────────────────────────────────────────────────────────

    def signal(self, signum: int) -> None:
        """Send a signal to the whole process group; nothing, once it has been reaped."""
        if not self._reaped:
            try:
                os.killpg(self._pid, signum)
            except (ProcessLookupError, PermissionError):
                pass  # all of it has ended; macOS says "not permitted" for that

    async def wait(self) -> int | None:
        """Wait for its end, kill the rest of its group, reap it."""
        if not self._reaped:
            await self._ended()
        while not self._reap():  # somebody traces it, and is told first
            await self.kill_escaped()
            await trio.to_thread.run_sync(_wait_unreaped, self._pid, limiter=_waiting_threads, abandon_on_cancel=True)
        return self._status

    async def _ended(self) -> None:
        """Wait until the process has ended. It is not reaped by this."""
        if self._pidfd is not None:
            await trio.lowlevel.wait_readable(self._pidfd)
        else:
            await trio.to_thread.run_sync(_wait_unreaped, self._pid, limiter=_waiting_threads, abandon_on_cancel=True)

    def _reap(self) -> bool:
        """Reap it, if it has ended; False if that is not to be had now."""
        if self._reaped:
            return True
        self.signal(signal.SIGKILL)
        try:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
        except ChildProcessError:
            pass  # somebody else in this process has reaped it: nobody knows how it ended
        else:
            if not pid:
                return False
            self._status = os.waitstatus_to_exitcode(status)
        self._reaped = True
        # `Popen` shall not look for it again, under a number that may be another's by then.
        self._process.returncode = 0 if self._status is None else self._status
        return True

    async def kill_escaped(self) -> None:
        """After the end: kill what it had started and what had left its group, as far as it can be found."""
        if sys.platform != "linux" or self._closed:
            return
        traces = escaped.Traces(self._mark, self._held(), self._born)
        try:
            await trio.to_thread.run_sync(escaped.end_all, traces, limiter=_waiting_threads, abandon_on_cancel=True)
        except (OSError, RuntimeError):  # no descriptors, no thread: at the next occasion
            _unseen.append((self._mark, self._born))

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
        if self._closed:
            return self._evidence
        return Evidence(self._page.started, self._page.finished)

    # ── Its words ───────────────────────────────────────────────────────────────────────────────

    async def stderr_readable(self) -> None:
        """Wait until it has written something to stderr, or has closed it."""
        self._check_open()
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
        """Close all descriptors. A process that still lives does not survive it.

        If it cannot be reaped now (it is stuck in the kernel), a thread stays behind to do it.
        """
        if self._closed:
            return
        self._evidence = self.evidence()
        self._closed = True
        _open.discard(self)
        if not self._reaped:
            self.signal(signal.SIGKILL)
            self._reaped = True  # from here on it is the thread's
            _reap_later(self._process, self._mark, self._born)
        for fd in self._waited_for():
            trio.lowlevel.notify_closing(fd)
        self._close_descriptors()

    def discard(self) -> None:
        """As `close`, for one that nobody has had; waits for its end. Called in any thread."""
        self._closed = True
        _open.discard(self)
        self.signal(signal.SIGKILL)
        self._reaped = True
        self._process.wait()
        self._close_descriptors()

    def _close_descriptors(self) -> None:
        for fd in (*self._waited_for(), self._lifeline_fd):
            os.close(fd)
        self._page.close()

    def forget(self) -> None:
        """In a process that was forked from the application: let go of what is not its own."""
        self._closed = self._reaped = True
        self._process.returncode = 0  # it is no child of this process
        for fd in (*self._waited_for(), self._lifeline_fd):
            with suppress(OSError):  # it may have been closed there before
                os.close(fd)

    def _waited_for(self) -> list[int]:
        """The descriptors that a task may wait for."""
        fds = [self._read_fd, self._write_fd, self._stderr_fd]
        return fds if self._pidfd is None else [*fds, self._pidfd]

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this worker's descriptors have been closed")


def _open_pidfd(pid: int) -> int | None:
    """A descriptor that becomes readable when the process ends, where there is such a thing."""
    if sys.platform == "linux":
        try:
            return _above_stderr(os.pidfd_open(pid))
        except OSError:
            pass  # an old kernel, or no descriptors left: a thread has to wait
    return None


def _wait_unreaped(pid: int) -> None:
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    except ChildProcessError:
        pass


def _reap_later(process: subprocess.Popen[bytes], mark: str, born: int) -> None:
    def reap() -> None:
        process.wait()
        _unseen.append((mark, born))
        _look_again()

    thread = threading.Thread(target=reap, name=f"remuda-reaper-{process.pid}", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no thread is to be had; the next start looks after it
        _unreaped.append(process)
        _unseen.append((mark, born))


def _look_again() -> None:
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


_open: weakref.WeakSet[SpawnedWorker] = weakref.WeakSet()
"""Workers whose descriptors this process holds."""

_unreaped: list[subprocess.Popen[bytes]] = []
"""Workers that were killed, and that nobody waits for."""

_unseen: deque[tuple[str, int]] = deque()
"""Marks, and births, of workers after whose end nobody could look for what had escaped."""

os.register_at_fork(after_in_child=_forked)
