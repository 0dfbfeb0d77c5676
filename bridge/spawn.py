"""Workers as fresh interpreters: children of the application.

The descriptors are there before the first line of Python runs, so that whatever a library prints while
it is imported goes to stderr and not into a message. Each worker leads a session and a process group of
its own: a signal reaches what it has started, and Ctrl-C in a terminal does not reach it. What leaves
the group is found after the worker's end (`remuda.bridge.escaped`).
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import outcome
import trio

import remuda
from remuda.bridge import escaped, usage
from remuda.bridge.ends import OurEnds, make_ends
from remuda.bridge.process import LocalWorker, look_again, look_later, open_pidfd, wait_unreaped
from remuda.bridge.seam import StartOrder

__all__ = ["SpawnLauncher", "SpawnedWorker"]


_HOME = str(Path(remuda.__file__).parent.parent)
"""Where the worker finds this very package, wherever the application found it."""

_PROGRAM = """\
import sys
home = sys.argv[1]
if home not in sys.path:
    sys.path.append(home)
from remuda.bridge.{module} import main
sys.exit(main(*map(int, sys.argv[2:])))
"""


class SpawnLauncher:
    """Starts workers by `fork` and `exec`; an implementation of `Launcher`."""

    local = True

    async def start(self, order: StartOrder) -> SpawnedWorker:
        """Start a worker; raises OSError. Nothing is left behind then."""
        return await self.run(order, "child")

    async def run(self, order: StartOrder, module: str, extra: tuple[int, ...] = ()) -> SpawnedWorker:
        """Start a process that has a worker's descriptors.

        Args:
            order: for whom, and what is added to the environment.
            module: of the bridge: what it runs, a worker or (`template`) what makes workers.
            extra: more descriptors to hand to that; closed here, whatever comes of it.

        Raises:
            OSError: no process, no descriptor or no memory is to be had. Nothing is left behind.
        """
        try:
            return await _Birth(order, module, extra).wait()
        except RuntimeError as error:  # Python's own way to say that no thread is to be had
            raise OSError(errno.EAGAIN, str(error)) from error


class _Birth:
    """One start, in a thread of its own: either there is no process, or somebody has it.

    Who is cancelled waits on for a moment, and has the worker then. A start that hangs in the kernel is
    left to its thread, which ends what may still come of it.
    """

    def __init__(self, order: StartOrder, module: str, extra: tuple[int, ...]) -> None:
        self._order, self._module, self._extra = order, module, extra
        self._over = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        self._lock = threading.Lock()
        self._outcome: outcome.Outcome[SpawnedWorker] | None = None
        self._given_up = False

    async def wait(self) -> SpawnedWorker:
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            # Not through trio's limiter: who fills that with slow threads shall not keep workers from starting.
            trio.lowlevel.start_thread_soon(self._spawn, lambda _: None, "remuda-start")
        except BaseException:
            self._close_extra()
            raise
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

    def _spawn(self) -> None:
        """In the thread, which is called by this name until all is done: start it, and leave it to somebody."""
        try:
            result = outcome.capture(_spawn, self._order, self._module, self._extra)
        finally:
            self._close_extra()
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

    def _close_extra(self) -> None:
        """They are closed where they are handed on: elsewhere the number could be another's by then."""
        for fd in self._extra:
            os.close(fd)


def _spawn(order: StartOrder, module: str, extra: tuple[int, ...]) -> SpawnedWorker:
    _unreaped[:] = [process for process in _unreaped if process.poll() is None]
    look_again()
    # A template has no mark: its workers would inherit it, and they do not end with it.
    mark, marks = ("", "") if module == "template" else escaped.new_mark()
    variable = {escaped.MARK: marks} if mark else {}
    born = escaped.clock()
    with make_ends() as (ours, theirs, keep):
        *handed, their_stderr = theirs
        handed += extra
        process = subprocess.Popen(
            # -P: the current folder is no place to import from before the application says so.
            # -u: what was printed is out, whatever happens next.
            [
                *(sys.executable, *_interpreter_flags(), "-P", "-u"),
                *("-c", _PROGRAM.format(module=module), _HOME, *map(str, handed)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=their_stderr,
            stderr=their_stderr,
            pass_fds=handed,
            env={**os.environ, **order.env, **variable},
            start_new_session=True,
        )
        worker = SpawnedWorker(process, ours, mark, born)
        keep()  # they are the worker's now, which closes them
        return worker


def _interpreter_flags() -> list[str]:
    """The options that the application's interpreter runs with, such as -O, -X and -W."""
    # Private, and what `multiprocessing` uses for the same purpose; there is no public way.
    return subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined, no-any-return]


class SpawnedWorker(LocalWorker):
    """A child of the application.

    If it cannot be reaped when it is closed (it is stuck in the kernel), a thread stays behind to do it.
    """

    def __init__(self, process: subprocess.Popen[bytes], ends: OurEnds, mark: str, born: int) -> None:
        super().__init__(process.pid, open_pidfd(process.pid), ends, mark, born)
        self._process = process
        self._inherited = usage.inherited()

    def signal(self, signum: int) -> None:
        """Send a signal to the whole process group; nothing, once it has been reaped."""
        if not self._reaped:
            try:
                os.killpg(self._pid, signum)
            except (ProcessLookupError, PermissionError):
                pass  # all of it has ended; macOS says "not permitted" for that

    async def wait(self) -> int | None:
        """Wait until it has ended, and reap it."""
        await self.ended()
        while not self._reap():  # somebody traces it, and is told first
            await self.kill_escaped()
            await wait_unreaped(self._pid)
        return self._status

    def _reap(self) -> bool:
        """Reap it, if it has ended; False if that is not to be had now."""
        if self._reaped:
            return True
        self.signal(signal.SIGKILL)
        try:
            pid, status, account = os.wait4(self._pid, os.WNOHANG)
        except ChildProcessError:
            pass  # somebody else in this process has reaped it: nobody knows how it ended
        else:
            if not pid:
                return False
            self._status = os.waitstatus_to_exitcode(status)
            self._usage = usage.at_the_end(account, self._inherited)
        self._reaped = True
        # `Popen` shall not look for it again, under a number that may be another's by then.
        self._process.returncode = 0 if self._status is None else self._status
        return True

    def _reap_later(self) -> None:
        def reap() -> None:
            self._process.wait()
            look_later(self._mark, self._born)
            look_again()

        try:
            threading.Thread(target=reap, name=f"remuda-reaper-{self._pid}", daemon=True).start()
        except RuntimeError:  # no thread is to be had; the next start looks after it
            _unreaped.append(self._process)
            look_later(self._mark, self._born)

    def discard(self) -> None:
        """As `close`, for one that nobody has had; waits for its end. Called in any thread."""
        self._let_go()
        self.signal(signal.SIGKILL)
        self._reaped = True
        self._process.wait()
        self._close_descriptors()

    def forget(self) -> None:
        """In a process that was forked from the application: let go of what is not its own."""
        super().forget()
        self._process.returncode = 0  # it is no child of this process


_unreaped: list[subprocess.Popen[bytes]] = []
"""Workers that were killed, and that nobody waits for."""
