"""Workers as fresh interpreters: children of the application.

The descriptors are there before the first line of Python runs, so that whatever a library prints while
it is imported goes to stderr and not into a message. Each worker leads a session and a process group of
its own: a signal reaches what it has started, and Ctrl-C in a terminal does not reach it.
"""

from __future__ import annotations

import errno
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import trio

import remuda
from remuda.bridge.ends import OurEnds, make_ends
from remuda.bridge.process import LocalWorker, open_pidfd
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

    def __init__(self) -> None:
        # Not trio's own: who fills that one with slow threads shall not keep workers from starting.
        self._threads = trio.CapacityLimiter(math.inf)

    async def start(self, order: StartOrder) -> SpawnedWorker:
        """Start a worker; raises OSError. Nothing is left behind then."""
        return await self.run(order, "child")

    async def run(self, order: StartOrder, module: str, extra: tuple[int, ...] = ()) -> SpawnedWorker:
        """Start a process that has a worker's descriptors.

        Args:
            order: for whom, and what is added to the environment.
            module: of the bridge: what it runs, a worker or (`template`) what makes workers.
            extra: more descriptors to hand to that.

        Raises:
            OSError: no process, no descriptor or no memory is to be had. Nothing is left behind.
        """
        try:
            # Not abandoned on cancellation: either there is no process, or somebody has it.
            return await trio.to_thread.run_sync(
                _spawn, order, module, extra, limiter=self._threads, abandon_on_cancel=False
            )
        except RuntimeError as error:  # Python's own way to say that no thread is to be had
            raise OSError(errno.EAGAIN, str(error)) from error


def _spawn(order: StartOrder, module: str, extra: tuple[int, ...]) -> SpawnedWorker:
    _unreaped[:] = [process for process in _unreaped if process.poll() is None]
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
            env={**os.environ, **order.env},
            start_new_session=True,
        )
        worker = SpawnedWorker(process, ours)
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

    def __init__(self, process: subprocess.Popen[bytes], ends: OurEnds) -> None:
        super().__init__(process.pid, open_pidfd(process.pid), ends)
        self._process = process

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

    def _reap_later(self) -> None:
        import threading

        name = f"remuda-reaper-{self._pid}"
        thread = threading.Thread(target=self._process.wait, name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no thread is to be had; the next start looks after it
            _unreaped.append(self._process)

    def forget(self) -> None:
        """In a process that was forked from the application: let go of what is not its own."""
        super().forget()
        self._process.returncode = 0  # it is no child of this process


_unreaped: list[subprocess.Popen[bytes]] = []
"""Workers that were killed, and that nobody waits for."""
