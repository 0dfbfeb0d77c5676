"""placeholder frames (lead), to be replaced"""
from __future__ import annotations
import struct
from remuda.statemachines.errors import FrameTooLarge
_H = struct.Struct(">I")
def pack(body: bytes, limit: int) -> bytes:
    if len(body) > limit:
        raise FrameTooLarge(f"{len(body)} bytes, and {limit} are allowed")
    return _H.pack(len(body)) + body
class Decoder:
    def __init__(self, limit: int) -> None:
        self._limit = limit; self._buf = bytearray()
    @property
    def pending(self) -> int: return len(self._buf)
    def feed(self, data: bytes) -> list[bytes]:
        self._buf += data; out = []
        while len(self._buf) >= 4:
            (n,) = _H.unpack_from(self._buf)
            if n > self._limit: raise FrameTooLarge(f"a frame of {n} bytes")
            if len(self._buf) < 4 + n: break
            out.append(bytes(self._buf[4:4+n])); del self._buf[:4+n]
        return out
