"""Where a stream of frames is cut. Used on both sides, so it needs the standard library only."""

from __future__ import annotations

import random

__all__ = ["Gate", "garbage"]


class Gate:
    """Lets a stream pass up to one byte of one of its frames.

    Args:
        frame: which frame of the stream, from 0.
        offset: how many bytes of it pass. From its length on, all of it passes, and not a byte more.

    Attributes:
        shut: whether that byte has been reached. 0 is reached when somebody wants to send the frame.
    """

    def __init__(self, frame: int, offset: int) -> None:
        self.shut = False
        self._frame, self._offset = frame, offset
        self._number, self._inside, self._size = 0, 0, 0

    def passes(self, data: bytes | bytearray | memoryview) -> int:
        """How many of these bytes pass."""
        if self.shut:
            return 0
        for index, byte in enumerate(data):
            if self._number == self._frame and self._inside >= self._offset:
                self.shut = True
                return index
            if self._inside < 4:
                self._size = self._size << 8 | byte
            self._inside += 1
            whole = self._inside >= 4 and self._inside == 4 + self._size
            if self._number == self._frame and (self._inside == self._offset or whole):
                self.shut = True
                return index + 1
            if whole:
                self._number, self._inside, self._size = self._number + 1, 0, 0
        return len(data)


def garbage(fault: str, size: int, seed: int) -> bytes:
    """Bytes that nobody should have sent.

    Args:
        fault: "ones", "zeros" or "noise".
        size: how many.
        seed: of the noise.
    """
    if fault == "noise":
        return random.Random(seed).randbytes(size)
    return bytes([255 if fault == "ones" else 0]) * size
