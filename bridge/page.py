"""The evidence page: what a worker's calls have come to, readable after it was killed.

The application and the worker map the same page of memory. The worker stores the number of a call
there before it runs user code for it, and again when the answer has been written. A store costs a
twentieth of a microsecond, and needs no cooperation afterwards: whatever kills the worker, the page
stays. So for any death it can be said whether the call had begun.

    offset    0    8 bytes   what this is, and of which version
    offset   64    u64       started: the last call that was begun
    offset  128    u64       finished: the last call that was answered

Each number lies alone in its cache line, aligned, and is stored in one instruction: it is never
seen half written.

The worker may write there what it likes; what it says is believed of its own calls only. What it
cannot do on Linux is take the page away: its size is sealed. A page that was cut off would end the
application with SIGBUS, at its next look.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import sys

from remuda.statemachines.errors import ProtocolError

__all__ = ["Page", "create"]

_MAGIC = b"remuda\x00\x01"
_STARTED, _FINISHED = 64 // 8, 128 // 8
_SIZE = 4096


def create() -> int:
    """A descriptor of a new page, which nothing in the file system names."""
    if sys.platform == "linux":
        fd = os.memfd_create("remuda-evidence", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    else:
        import tempfile  # late: it costs a worker more than all the rest here, and none needs it

        fd, path = tempfile.mkstemp(prefix="remuda-evidence-")
        os.unlink(path)
    try:
        os.ftruncate(fd, _SIZE)
        os.pwrite(fd, _MAGIC, 0)
        if sys.platform == "linux":
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except OSError:
        os.close(fd)
        raise
    return fd


class Page:
    """The page, mapped. The descriptor may be closed then.

    Raises:
        ProtocolError: the descriptor is of something else.
        OSError: there is no memory or no descriptor for it.
    """

    __slots__ = ("_map", "_numbers", "_view")

    def __init__(self, fd: int) -> None:
        try:
            self._map = mmap.mmap(fd, _SIZE)
        except (ValueError, PermissionError) as error:  # too short; no memory
            raise ProtocolError(f"what was given as the evidence page is none: {error}") from error
        if self._map[: len(_MAGIC)] != _MAGIC:
            self._map.close()
            raise ProtocolError("what was given as the evidence page is none")
        self._view = memoryview(self._map)
        self._numbers = self._view.cast("Q")

    @property
    def started(self) -> int:
        """The last call that was begun; 0 for none."""
        return self._numbers[_STARTED]

    @property
    def finished(self) -> int:
        """The last call that was answered; 0 for none."""
        return self._numbers[_FINISHED]

    def start(self, number: int) -> None:
        """Record that a call begins."""
        self._numbers[_STARTED] = number

    def finish(self, number: int) -> None:
        """Record that its answer was written."""
        self._numbers[_FINISHED] = number

    def close(self) -> None:
        """Unmap it."""
        self._numbers.release()
        self._view.release()
        self._map.close()
