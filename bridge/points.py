"""Named points in user code, at which a test can have something happen to a worker; the worker's half.

`point` does nothing until a test arms it (`remuda.testing.armed`). Test and worker meet in a folder,
whose name the worker finds in its environment. An armed point is a folder in it, with three kinds of FIFO:

    orders      what is to happen. Who takes an order follows it. It cannot be taken twice, whoever
                comes first, because a pipe gives a byte to one reader only.
    arrivals    into it workers write that they have come. A test can wait for that without sleeping.
    gate.…      one for each worker that stands there; from it the worker reads how to go on.

A simulated worker has no process of its own. Its code runs in the thread of the test, one worker at a
time; while it does, `acting` says which.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager

__all__ = [
    "ARRIVALS",
    "DIE",
    "GATE",
    "GO",
    "ORDERS",
    "ORDER_BYTES",
    "VARIABLE",
    "Stand",
    "acting",
    "point",
    "simulated",
    "write_to",
]

VARIABLE = "REMUDA_TEST_POINTS"
"""The variable of the environment that names the folder."""

ORDERS, ARRIVALS, GATE = "orders", "arrivals", "gate"

ORDER_BYTES = 32
"""Each order has this size: a pipe gives it whole to one reader, or not at all."""

GO, DIE = b"go", b"die"
"""What is said at a gate."""


def point(name: str, /) -> None:
    """A place in your code where a test can have something happen. Else it does nothing, in no time.

    Args:
        name: what the test calls it.
    """
    if _stand is not None:
        _stand.arrive(name)


class Stand:
    """How a worker takes part: where it looks for orders, and how it dies.

    Args:
        folder: where the points are.
        pid: what it calls itself; None: its process id.
        die: ends the worker; None: by SIGKILL.
    """

    def __init__(self, folder: str, pid: int | None = None, die: Callable[[], None] | None = None) -> None:
        self._folder, self._pid, self._die = folder, pid, die

    def arrive(self, name: str) -> None:
        """Follow an order, if there is one for this point."""
        here = f"{self._folder}/{name}"
        try:
            deed, _, seconds = _take(f"{here}/{ORDERS}").partition(" ")
            pid = os.getpid() if self._pid is None else self._pid
            if deed == "hang":
                self._wait_at(here, f"{GATE}.{pid}.{_thread()}", pid)
                return
            write_to(f"{here}/{ARRIVALS}", f"{pid}\n".encode())
        except OSError:  # nothing is ordered, or the test has lost interest a moment ago
            return
        if deed == "kill":
            self._kill()
        else:
            import time

            time.sleep(float(seconds))

    def _wait_at(self, here: str, gate: str, pid: int) -> None:
        # Open for both directions, and before anybody is told: so it can be opened from outside at
        # once, and what is written there stays until it is read.
        path = f"{here}/{gate}"
        os.mkfifo(path)
        fd = os.open(path, os.O_RDWR)
        try:
            write_to(f"{here}/{ARRIVALS}", f"{pid} {gate}\n".encode())
            word = os.read(fd, len(DIE))
        finally:
            os.close(fd)
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
        if word == DIE:
            self._kill()

    def _kill(self) -> None:
        if self._die is None:
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            self._die()


def _take(path: str) -> str:
    """The next order; OSError if there is none."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        order = os.read(fd, ORDER_BYTES)
    finally:
        os.close(fd)
    if not order:  # nobody holds the other end any more
        raise FileNotFoundError(path)
    return order.decode().rstrip()


def write_to(path: str, data: bytes) -> None:
    """Write to a FIFO that somebody reads; OSError if nobody does."""
    fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def _thread() -> int:
    import threading

    return threading.get_native_id()


_stand: Stand | None = Stand(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None
"""Set in a worker of a pool that was opened with points, and around code in a simulated worker."""

simulated: set[str] = set()
"""Folders of pools whose workers are simulated; the fixture `remuda_sim` keeps it."""


@contextmanager
def acting(stand: Stand) -> Generator[None]:
    """Run code of a simulated worker: `point` means this one meanwhile."""
    global _stand  # noqa: PLW0603  (the code of a worker is synchronous, so there is one at a time)
    before, _stand = _stand, stand
    try:
        yield
    finally:
        _stand = before
