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

from gate import Fault

__all__ = ["FOLDER", "FIRED", "ORDER"]

FOLDER = "REMUDA_TEST_CUTS"
"""The variable of the environment that names the folder of the orders."""

ORDER, FIRED = "order", "fired"
"""What the files are called, before the number of the process."""

_write = os.write


class _Cut:
    def __init__(self, order: str) -> None:
        frame, offset, kind = order.split()
        self._fault = Fault(int(frame), int(offset), kind)
        self._told = False

    def write(self, fd: int, data: bytes | memoryview) -> int:
        fault = self._fault
        rest = fault.turn(data)
        if fault.struck and not self._told:  # and now: what comes next may be its end
            self._told = True
            (_folder() / f"{FIRED}.{os.getpid()}").touch()
        while rest:
            rest = rest[_write(fd, rest) :]
        if fault.struck:
            if fault.kind == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            while fault.kind == "stall":
                signal.pause()
        return len(data)


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
    return cut.write(fd, data)


if FOLDER in os.environ:
    os.write = write
