"""What a worker writes to stderr: lines as they come, and the last of them kept.

Bounded in every direction, because a worker may write without end and without a newline: the tail
has at most 200 lines and 64 KiB, and a line that has grown to 8 KiB is cut there and goes on as the
next. Nothing else is left out; an unfinished line counts when nothing more will come.
"""

from __future__ import annotations

from collections import deque

__all__ = ["LastWords"]

TAIL_LINES = 200
TAIL_BYTES = 64 * 1024
LINE_BYTES = 8 * 1024


class LastWords:
    """Lines out of bytes."""

    __slots__ = ("_ended", "_new", "_partial", "_size", "_tail")

    def __init__(self) -> None:
        self._partial = b""
        self._new: list[str] = []
        self._tail: deque[str] = deque()
        self._size = 0  # characters in the tail
        self._ended = False

    def feed(self, data: bytes) -> None:
        """Add what has arrived."""
        *complete, rest = (self._partial + data).split(b"\n")
        for line in complete:
            self._add(line)
        while len(rest) > LINE_BYTES:
            self._add(rest[:LINE_BYTES])
            rest = rest[LINE_BYTES:]
        self._partial = rest

    def end(self) -> None:
        """Nothing more will come: what is unfinished is a line now."""
        if self._partial:
            self._add(self._partial)
            self._partial = b""
        self._ended = True

    def take(self) -> list[str] | None:
        """The lines that are new since the last time; None when there will never be one again."""
        if self._ended and not self._new:
            return None
        lines, self._new = self._new, []
        return lines

    def tail(self) -> tuple[str, ...]:
        """The last lines, the unfinished one included."""
        if self._partial:
            return (*self._tail, _text(self._partial))[-TAIL_LINES:]
        return tuple(self._tail)

    def _add(self, line: bytes) -> None:
        while True:
            text = _text(line[:LINE_BYTES])
            self._new.append(text)
            self._tail.append(text)
            self._size += len(text)
            line = line[LINE_BYTES:]
            if not line:
                break
        while len(self._tail) > TAIL_LINES or self._size > TAIL_BYTES:
            self._size -= len(self._tail.popleft())


def _text(line: bytes) -> str:
    return line.removesuffix(b"\r").decode("utf-8", "replace")
