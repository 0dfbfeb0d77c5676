"""Frames: how a stream of bytes becomes messages again.

A frame is a length, four bytes, most significant first, and as many bytes of body. Nothing here
reads or writes a descriptor: bytes go in, bodies come out, whoever carried them.

Both ends know the largest length that is allowed. A larger one is an error before its first byte
is read, so that four bytes of garbage cannot make anybody wait for, or make room for, gigabytes.
"""

from __future__ import annotations

from remuda.statemachines.errors import FrameTooLarge

__all__ = ["GREETING_LIMIT", "HANDSHAKE_LIMIT", "Decoder", "pack"]

HANDSHAKE_LIMIT = 64 * 1024 * 1024
"""Bytes of a frame at most, until the boot message has said what the pool allows."""

GREETING_LIMIT = 4 * 1024 * 1024
"""Bytes of the first thing that a worker says: its commands, or why it has none. Some kilobytes, as a rule."""

_HEADER = 4

_SMALL = 4096  # bytes


def pack(body: bytes, limit: int) -> bytes:
    """The frame around `body`.

    Args:
        body: at most `limit` bytes.
        limit: bytes, below 2**32.

    Raises:
        FrameTooLarge: it is longer.
    """
    size = len(body)
    if size > limit:
        raise FrameTooLarge(f"it has {size} bytes, and {limit} are allowed")
    return size.to_bytes(_HEADER, "big") + body


class Decoder:
    """Takes a stream apart, however it was cut.

    Args:
        limit: bytes of a body at most.

    Attributes:
        limit: may be changed between frames; it holds for the next one.
        pending: how many bytes of an incomplete frame are held. Only to be read.
    """

    __slots__ = ("_chunks", "_crumbs", "_wanted", "limit", "pending")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._chunks: list[bytes] = []  # of a frame that is not complete; joined once, when it is
        # Small pieces that come behind them: kept one by one, each would cost many times its size.
        self._crumbs = bytearray()
        self.pending = 0  # bytes in both
        self._wanted = _HEADER  # bytes of that frame, header included; the header's, until it is known

    def feed(self, data: bytes) -> list[bytes]:
        """Add what has arrived.

        Returns:
            The bodies that are complete now, in order.

        Raises:
            FrameTooLarge: the next frame says it is longer than the limit. The stream cannot be read on.
                What came before that frame is returned first, however the stream was cut; it is then
                pending, and raised when this is called again, with b"" as well.
        """
        size = len(data)
        if not self.pending:
            if int.from_bytes(data[:_HEADER], "big") == size - _HEADER <= self.limit:
                return [data[_HEADER:]]  # one whole frame, as nearly always
        elif self.pending + size < self._wanted:  # one more piece of a long one
            self.pending += size
            if size < _SMALL:
                self._crumbs += data
            else:
                self._sweep_up()
                self._chunks.append(data)
            return []
        return self._split(data)

    def _sweep_up(self) -> None:
        if self._crumbs:
            self._chunks.append(bytes(self._crumbs))
            self._crumbs.clear()

    def _split(self, data: bytes) -> list[bytes]:
        if self._chunks or self._crumbs:
            data = b"".join((*self._chunks, self._crumbs, data))
            self._crumbs.clear()
        bodies: list[bytes] = []
        start, end = 0, len(data)
        self._wanted = _HEADER
        while end - start >= _HEADER:
            size = int.from_bytes(data[start : start + _HEADER], "big")
            if size > self.limit:
                if bodies:
                    break
                raise FrameTooLarge(f"a frame says it has {size} bytes, and {self.limit} are allowed")
            if end - start < _HEADER + size:
                self._wanted = _HEADER + size
                break
            bodies.append(data[start + _HEADER : start + _HEADER + size])
            start += _HEADER + size
        self._chunks = [data[start:]] if start < end else []
        self.pending = end - start
        return bodies
