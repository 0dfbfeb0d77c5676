"""One direction of a simulated channel: bytes, a bound, and two ends that processes hold.

It behaves as a non-blocking pipe does, and where pipes differ it is the strictest of them:

* A write takes what fits, to the byte. (A real pipe takes 4096 bytes or none; code that survives
  this one survives that one.)
* What was written stays readable after the writer's death; the end of file comes when the *last*
  holder of the write end has let go of it, a forked child included.
* What nobody can read any more is gone: a write raises BrokenPipeError.
"""

from __future__ import annotations

import errno
import os

import trio

__all__ = ["Pipe"]


class Pipe:
    """A bounded buffer of bytes.

    Attributes:
        capacity: how many bytes fit.
        writers, readers: how many processes hold the write end and the read end.
        arrived: where readers wait for bytes or the end of file.
        drained: where writers wait for room or the last reader's death.
    """

    __slots__ = ("_bytes", "arrived", "capacity", "drained", "readers", "writers")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.writers = 1
        self.readers = 1
        self.arrived = trio.lowlevel.ParkingLot()
        self.drained = trio.lowlevel.ParkingLot()
        self._bytes = bytearray()

    def __len__(self) -> int:
        return len(self._bytes)

    @property
    def readable(self) -> bool:
        """Whether a read would bring something, be it the end of file."""
        return bool(self._bytes) or self.writers == 0

    @property
    def writable(self) -> bool:
        """Whether a write would take something, or raise."""
        return len(self._bytes) < self.capacity or self.readers == 0

    def read(self, most: int) -> bytes | None:
        """Up to `most` bytes; b"" at the end of file; None when there is nothing now."""
        if not self._bytes:
            return None if self.writers else b""
        data = bytes(self._bytes[:most])
        del self._bytes[:most]
        self.drained.unpark_all()
        return data

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Take as many bytes of `data` as fit and say how many; raises BrokenPipeError."""
        if self.readers == 0:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        taken = min(len(data), self.capacity - len(self._bytes))
        if taken:
            self._bytes += data[:taken]
            self.arrived.unpark_all()
        return taken

    def add_holder(self, *, writer: bool) -> None:
        """A forked child has inherited this end."""
        if writer:
            self.writers += 1
        else:
            self.readers += 1

    def drop_writer(self) -> None:
        """A holder of the write end has closed it, or died."""
        self.writers -= 1
        assert self.writers >= 0
        if self.writers == 0:
            self.arrived.unpark_all()

    def drop_reader(self) -> None:
        """A holder of the read end has closed it, or died."""
        self.readers -= 1
        assert self.readers >= 0
        if self.readers == 0:
            self._bytes.clear()
            self.drained.unpark_all()
