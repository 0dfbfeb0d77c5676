"""In a worker of the harness: what it says is cut at a byte that the test has named.

`os.write` is replaced, for the worker's loop and nobody else. The harness leaves an order in a file
that is named after the process; it is read when the worker wants to send something. The order may be
there before the worker has said its first word, since that is an answer to the boot message.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from gate import Gate, garbage

__all__ = ["FOLDER", "FIRED", "ORDER"]

FOLDER = "REMUDA_TEST_CUTS"
"""The variable of the environment that names the folder of the orders."""

ORDER, FIRED = "order", "fired"
"""What the files are called, before the number of the process."""

_write = os.write


class _Cut:
    def __init__(self, order: str) -> None:
        frame, offset, self.fault = order.split()
        self.seed = int(frame) * 10_000 + int(offset)
        self.gate = Gate(int(frame), int(offset))
        self.fired = False

    def write(self, fd: int, data: memoryview) -> int:
        passes = self.gate.passes(data)
        done = 0
        while done < passes:
            done += _write(fd, data[done:passes])
        if self.gate.shut:
            self._strike(fd, len(data) - passes)
        return len(data)

    def _strike(self, fd: int, rest: int) -> None:
        if not self.fired:
            self.fired = True
            (_folder() / f"{FIRED}.{os.getpid()}").touch()
        if self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        while self.fault == "stall":
            signal.pause()
        bad = garbage(self.fault, rest, self.seed)
        while bad:
            bad = bad[_write(fd, bad) :]


_cuts: dict[int, _Cut] = {}
"""By process, since a worker may have been forked from another process with a cut."""


def _folder() -> Path:
    return Path(os.environ[FOLDER])


def write(fd: int, data: bytes | memoryview) -> int:
    """As `os.write`, which it replaces."""
    if sys._getframe(1).f_globals.get("__name__") != "remuda.bridge.child":
        return _write(fd, data)
    cut = _cuts.get(os.getpid())
    if cut is None:
        try:
            path = _folder() / f"{ORDER}.{os.getpid()}"
            cut = _cuts[os.getpid()] = _Cut(path.read_text())
            path.unlink()
        except FileNotFoundError:
            return _write(fd, data)
    return cut.write(fd, memoryview(data))


if FOLDER in os.environ:
    os.write = write
