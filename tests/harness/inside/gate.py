"""Where a stream of frames is cut, and what comes instead. Used on both sides: the standard library only."""

from __future__ import annotations

import random

__all__ = ["FAULTS", "REPLACED", "Fault", "Gate"]


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


REPLACED = ("ones", "zeros", "noise")
FAULTS = ("kill", "stall", *REPLACED, "flip", "stray", "burst")
"""The worker is killed; nothing more passes; garbage takes the place of all bytes to come; one byte has its
last bit flipped; two bytes, or eight, that nobody sent come in between."""

_INSERTED = {"stray": b"\xff" * 2, "burst": b"\xff" * 8}


class Fault:
    """What a stream turns into.

    Args:
        frame, offset: where, as for `Gate`.
        kind: one of `FAULTS`.

    Attributes:
        struck: whether the place has been reached.
    """

    def __init__(self, frame: int, offset: int, kind: str) -> None:
        self.kind = kind
        self._gate = Gate(frame, offset)
        self._noise = random.Random(frame * 10_000 + offset)
        self._to_flip = kind == "flip"

    @property
    def struck(self) -> bool:
        return self._gate.shut

    def turn(self, data: bytes | bytearray | memoryview) -> bytes:
        """What is to be sent in the place of these bytes, in one piece."""
        was_shut = self._gate.shut
        passes = self._gate.passes(data)
        front, rest = bytes(data[:passes]), bytes(data[passes:])
        if not self._gate.shut or self.kind in ("kill", "stall"):
            return front
        if self.kind == "noise":
            return front + self._noise.randbytes(len(rest))
        if self.kind in REPLACED:
            return front + bytes([255 if self.kind == "ones" else 0]) * len(rest)
        if self._to_flip and rest:
            self._to_flip = False
            return front + bytes([rest[0] ^ 1]) + rest[1:]
        return front + (b"" if was_shut else _INSERTED.get(self.kind, b"")) + rest
