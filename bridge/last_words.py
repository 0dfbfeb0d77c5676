"""What a worker writes to stderr: lines as they come, and the last of them kept.

Bounded in every direction, because a worker may write without end and without a newline: the tail
has at most 200 lines and 64 KiB, and a line longer than 8 KiB is cut there, between characters, and
goes on as the next. Nothing else is left out; an unfinished line counts when nothing more will come.
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
        self._size = 0  # bytes of the tail, as UTF-8
        self._ended = False

    def feed(self, data: bytes) -> None:
        """Add what has arrived."""
        *complete, rest = (self._partial + data).split(b"\n")
        for line in complete:
            self._add(line)
        while len(rest) > LINE_BYTES:
            size = _cut(rest)
            self._keep(_text(rest[:size]))
            rest = rest[size:]
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
        if not self._partial:
            return tuple(self._tail)
        last = _text(self._partial)
        lines, size = deque(self._tail), self._size + _size(last)
        while len(lines) >= TAIL_LINES or size > TAIL_BYTES:
            size -= _size(lines.popleft())
        return (*lines, last)

    def _add(self, line: bytes) -> None:
        while len(line) > LINE_BYTES:
            size = _cut(line)
            self._keep(_text(line[:size]))
            line = line[size:]
        self._keep(_text(line.removesuffix(b"\r")))

    def _keep(self, text: str) -> None:
        self._new.append(text)
        self._tail.append(text)
        self._size += _size(text)
        while len(self._tail) > TAIL_LINES or self._size > TAIL_BYTES:
            self._size -= _size(self._tail.popleft())


def _cut(line: bytes) -> int:
    """Where to cut a line that is too long: at the start of a character, if it is UTF-8."""
    for size in range(LINE_BYTES, LINE_BYTES - 4, -1):
        if line[size] & 0xC0 != 0x80:
            return size
    return LINE_BYTES


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace")


def _size(text: str) -> int:
    return len(text.encode())
