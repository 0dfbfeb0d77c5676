"""What the workers of the harness do: leave a trace before and after, so that nothing has to be believed.

A line is appended in one write when a call has begun, and one when it has had its effect. Who reads
the file knows what was executed, by which process, and how often, whatever the pool says.

Arguments and results carry a checksum. Garbage can be a message like any other: then it is not the
pool's to notice, but the harness has to tell it from a wrong answer.
"""

from __future__ import annotations

import os
import zlib
from typing import Any

import cutting

import remuda

__all__ = ["TRACE", "Acts", "Garbled", "again", "check", "fails", "once", "pulse"]

TRACE = "REMUDA_TEST_TRACE"
"""The variable of the environment that names the file of the traces."""

_ = cutting.FOLDER  # an adapter brings its cut along, also where nobody looks for a sitecustomize


class Garbled(Exception):
    """The arguments are not those that were sent."""


def check(text: str) -> int:
    """A checksum that always takes five bytes."""
    return zlib.crc32(text.encode()) | 1 << 31


def _trace(key: str, what: str) -> None:
    fd = os.open(os.environ[TRACE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(fd, f"{key} {what} {os.getpid()}\n".encode())
    finally:
        os.close(fd)


def _do(key: str, sum: int) -> list[object]:
    if not (isinstance(key, str) and sum == check(key)):
        raise Garbled(repr(key))
    _trace(key, "begins")
    _trace(key, "ends")
    return [key, sum]


def once(key: str, sum: int) -> list[object]:
    return _do(key, sum)


def again(key: str, sum: int) -> list[object]:
    return _do(key, sum)


def fails(key: str, sum: int) -> list[object]:
    raise ValueError(*_do(key, sum))


def pulse(token: int) -> int:
    return token


def _toil(key: str, value: int) -> list[object]:
    _trace(key, "begins")
    sum(range(50_000))
    _trace(key, "ends")
    return [key, value]


class Acts:
    def setup(self, settings: dict[str, Any]) -> None:
        self.kept: dict[str, str] = {}

    @remuda.command
    def once(self, key: str, sum: int) -> list[object]:
        return once(key, sum)

    @remuda.command(idempotent=True)
    def again(self, key: str, sum: int) -> list[object]:
        return again(key, sum)

    @remuda.command
    def fails(self, key: str, sum: int) -> list[object]:
        return fails(key, sum)

    @remuda.command(journal="name")
    def keep(self, name: str, key: str, sum: int) -> list[object]:
        done = _do(key, sum)
        self.kept[name] = key
        return done

    @remuda.command(idempotent=True)
    def look(self, key: str, sum: int) -> list[object]:
        return [*_do(key, sum), self.kept.get("main"), self.kept.get("other")]

    @remuda.command
    def toil(self, key: str, sum: int) -> list[object]:
        return _toil(key, sum)

    @remuda.command(idempotent=True)
    def toil_again(self, key: str, sum: int) -> list[object]:
        return _toil(key, sum)

    @remuda.command
    def pulse(self, token: int) -> int:
        return token
