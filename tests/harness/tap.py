"""The application's side of the cut: whatever a launcher starts can be tapped and cut.

It keeps the last worker of each slot, records what goes through it, and lets a test cut what the
application sends to it. What the worker sends is cut in the worker (`inside/cutting.py`), by an order that
is there before the worker is told anything.
"""

from __future__ import annotations

import fcntl
import signal
import struct
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from remuda.bridge.seam import Launcher, StartOrder, WorkerProcess
from remuda.runtime import opening

from .cuts import TO_WORKER, Cut
from .paths import cutting, gate

__all__ = ["Tap", "Tapped", "tapping"]


class Tapped:
    """A worker, as the pool sees it; an implementation of `WorkerProcess` around another one."""

    def __init__(self, worker: WorkerProcess, order: StartOrder, folder: Path) -> None:
        self._worker = worker
        self._folder = folder
        self._fault: gate.Fault | None = None
        self._cut: Cut | None = None
        self._dead = False
        self.slot, self.generation, self.pid = order.slot, order.generation, worker.pid
        self.said, self.heard = bytearray(), bytearray()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._worker, name)

    def arm(self, cut: Cut) -> None:
        """Cut it there, counted from now on."""
        self._cut = cut
        if cut.direction == TO_WORKER:
            self._fault = gate.Fault(cut.frame, cut.offset, cut.fault)
        else:
            draft = self._folder / f"draft.{self.pid}"
            draft.write_text(f"{cut.frame} {cut.offset} {cut.fault}")
            draft.rename(self._folder / f"{cutting.ORDER}.{self.pid}")

    @property
    def fired(self) -> bool:
        """Whether the place of the cut was reached."""
        if self._fault is not None:
            return self._fault.struck
        return (self._folder / f"{cutting.FIRED}.{self.pid}").exists()

    def disarm(self) -> None:
        """Remove what the cut has left."""
        for name in (cutting.FIRED, cutting.ORDER):
            (self._folder / f"{name}.{self.pid}").unlink(missing_ok=True)

    def read(self) -> bytes | None:
        data = self._worker.read()
        self.heard += data or b""
        return data

    def write(self, data: bytes | bytearray | memoryview) -> int:
        fault = self._fault
        if fault is None:
            taken = self._worker.write(data)
            self.said += data[:taken]
            return taken
        if self._dead:
            raise BrokenPipeError("its reader has been killed")
        sent = fault.turn(data)
        try:
            assert not sent or self._worker.write(sent) == len(sent), "the pipe of a worker that reads was full"
        except BrokenPipeError:
            if not fault.struck:
                raise
            # it has had enough already; the pool will see that from its end
        if fault.struck and fault.kind == "kill":
            self._worker.signal(signal.SIGKILL)
            self._dead = True
            if not sent:
                raise BrokenPipeError("its reader has been killed")
            return len(sent)
        return len(data)

    @property
    def waits(self) -> bool:
        """Whether it sleeps, with nothing on the way from it, nor to it if it reads: then it waits for ever."""
        worker: Any = self._worker
        deaf = self._cut is not None and self._cut.fault == "stall" and self._fault is None and self.fired
        try:
            with open(f"/proc/{self.pid}/stat") as file:
                state = file.read().rpartition(")")[2].split()[0]
            return state == "S" and not _unread(worker._read_fd) and (deaf or not _unread(worker._write_fd))
        except (OSError, ValueError):
            return False  # it has ended


def _unread(pipe: int) -> int:
    count: int = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0]
    return count


class Tap:
    """What is known of the workers that a launcher has started.

    Attributes:
        workers: the last one of each slot.
        victim: the slot whose workers are cut.
        next_cut: for the next worker of that slot, from its first byte on.
    """

    def __init__(self, launcher: Launcher, folder: Path) -> None:
        self._folder = folder
        self._start = launcher.start
        self.workers: dict[int, Tapped] = {}
        self.victim: int | None = None
        self.next_cut: Cut | None = None
        launcher.start = self.start  # type: ignore[method-assign]  # all else of it stays as it is

    async def start(self, order: StartOrder) -> WorkerProcess:
        worker = Tapped(await self._start(order), order, self._folder)
        self.workers[order.slot] = worker
        if order.slot == self.victim and self.next_cut is not None:
            worker.arm(self.next_cut)
            self.next_cut = None
        return worker


@contextmanager
def tapping(folder: Path) -> Iterator[list[Tap]]:
    """While a pool is opened: whatever its start method, its workers are tapped. Yields the taps."""
    taps: list[Tap] = []
    make: Callable[..., Any] = opening._make_pool

    def make_tapped(*args: Any) -> Any:
        pool = make(*args)
        taps.append(Tap(pool.launcher, folder))
        return pool

    opening._make_pool = make_tapped
    try:
        yield taps
    finally:
        opening._make_pool = make
