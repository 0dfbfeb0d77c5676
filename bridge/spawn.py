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
long as it is not reaped.
"""

from __future__ import annotations

import errno
import fcntl
import math
import os
import signal
import subprocess
import sys
import weakref
from contextlib import ExitStack, suppress
from pathlib import Path

import trio

import remuda
from remuda.bridge import page
from remuda.bridge.last_words import LastWords
from remuda.bridge.seam import Activity, Evidence, StartOrder

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

    def __init__(self) -> None:
        # Not trio's own: who fills that one with slow threads shall not keep workers from starting.
        self._threads = trio.CapacityLimiter(math.inf)

    async def start(self, order: StartOrder) -> SpawnedWorker:
        """Start a worker.

        Raises:
            OSError: no process, no descriptor or no memory is to be had. Nothing is left behind.
        """
        try:
            # Not abandoned on cancellation: either there is no process, or somebody has it.
            return await trio.to_thread.run_sync(_spawn, order, limiter=self._threads, abandon_on_cancel=False)
        except RuntimeError as error:  # Python's own way to say that no thread is to be had
            raise OSError(errno.EAGAIN, str(error)) from error


def _spawn(order: StartOrder) -> SpawnedWorker:
    _unreaped[:] = [process for process in _unreaped if process.poll() is None]
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
            env={**os.environ, **order.env},
            start_new_session=True,
        )
        worker = SpawnedWorker(process, our_read, our_write, our_lifeline, our_stderr, evidence)
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
    ) -> None:
        self.pid = self._pid = process.pid
        self._process = process
        self._read_fd, self._write_fd = read_fd, write_fd
        self._lifeline_fd, self._stderr_fd = lifeline_fd, stderr_fd
        for fd in (read_fd, write_fd, stderr_fd):
            os.set_blocking(fd, False)
        self._page = evidence
        self._evidence = Evidence(0, 0)
        self._activity = Activity("booting")
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
        self._reap()
        return self._status

    async def _ended(self) -> None:
        """Wait until the process has ended. It is not reaped by this."""
        if self._pidfd is not None:
            await trio.lowlevel.wait_readable(self._pidfd)
        else:
            await trio.to_thread.run_sync(_wait_unreaped, self._pid, limiter=_waiting_threads, abandon_on_cancel=True)

    def _reap(self) -> None:
        if self._reaped:
            return
        self.signal(signal.SIGKILL)
        self._reaped = True
        try:
            _, status = os.waitpid(self._pid, 0)
            self._status = os.waitstatus_to_exitcode(status)
        except ChildProcessError:
            pass  # somebody else in this process has reaped it: nobody knows how it ended
        # `Popen` shall not look for it again, under a number that may be another's by then.
        self._process.returncode = 0 if self._status is None else self._status

    def evidence(self) -> Evidence:
        """What it has recorded so far; after `close`, what it had recorded by then."""
        if self._closed:
            return self._evidence
        return Evidence(self._page.started, self._page.finished)

    def activity(self) -> Activity:
        """What it is doing, by what it has recorded; after `close`, what it was doing then."""
        return self._activity if self._closed else self._page.activity()

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
        self._evidence, self._activity = self.evidence(), self.activity()
        self._closed = True
        _open.discard(self)
        if not self._reaped:
            self.signal(signal.SIGKILL)
            self._reaped = True  # from here on it is the thread's
            _reap_later(self._process)
        for fd in self._waited_for():
            trio.lowlevel.notify_closing(fd)
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
        with suppress(OSError):
            self._page.close()

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


def _reap_later(process: subprocess.Popen[bytes]) -> None:
    import threading

    thread = threading.Thread(target=process.wait, name=f"remuda-reaper-{process.pid}", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no thread is to be had; the next start looks after it
        _unreaped.append(process)


def _forked() -> None:
    for worker in list(_open):
        worker.forget()
    _open.clear()


_open: weakref.WeakSet[SpawnedWorker] = weakref.WeakSet()
"""Workers whose descriptors this process holds."""

_unreaped: list[subprocess.Popen[bytes]] = []
"""Workers that were killed, and that nobody waits for."""

os.register_at_fork(after_in_child=_forked)
