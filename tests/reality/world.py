"""What the tests on real processes share: a pool of wild workers, and other callers at work."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from remuda.runtime.config import PoolConfig
from remuda.runtime.events import Event, WorkerEnded
from remuda.runtime.opening import open_pool
from remuda.runtime.pool import Pool
from remuda.statemachines.pool import PoolState
from remuda.statemachines.worker import WorkerState

from .table import LIMIT

__all__ = ["HANG", "HERE", "Load", "World", "gone", "load", "read_fifo", "settled", "world"]

HERE = Path(__file__).parent
HANG = 100.0
"""Seconds after which a test is given up: a guard, not a threshold."""


class World:
    """A pool of two workers, with an eye on it."""

    def __init__(self) -> None:
        self.pool: Pool
        self.events: list[Event] = []
        self._news = trio.Event()

    def observe(self, event: Event) -> None:
        self.events.append(event)
        self._news.set()
        self._news = trio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._news.wait()

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if type(event) is kind]

    async def kill_one(self) -> None:
        """A worker that nobody else has: it is checked out, and killed."""
        async with self.pool.checkout() as held:
            which = held.slot, held.generation
            (pid,) = [each.pid for each in self.pool.snapshot().workers if (each.slot, each.generation) == which]
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await self.until(lambda: bool(self.of(WorkerEnded)))

    @property
    def whole(self) -> bool:
        """Whether the pool has its size again: "ready" says that both workers are to be used."""
        snapshot = self.pool.snapshot()
        return snapshot.state is PoolState.READY and len(snapshot.workers) == 2


@asynccontextmanager
async def world(**fields: Any) -> AsyncIterator[World]:
    self = World()
    config = PoolConfig(
        **{"adapter": "wild:Wild", "min_workers": 2, "max_workers": 2, "max_frame_bytes": LIMIT, **fields}
    )
    with trio.fail_after(HANG):
        async with open_pool(config, observers=[self.observe]) as self.pool:
            yield self


async def settled(pool: Pool, *, folders_too: bool = True) -> None:
    """Wait until nothing is kept of workers that have ended: what they left behind is looked for in threads.

    Args:
        pool: which.
        folders_too: also their folders. One that could not be removed is kept until the pool is closed.
    """
    folders = pool.folders
    assert folders is not None
    while True:
        links = list(pool._links.values())
        known = {f"{link.worker.slot.index}.{link.worker.generation}" for link in links}
        gone = all(link.worker.state is not WorkerState.TERMINATED for link in links)
        kept = folders_too and not known.issuperset(os.listdir(folders._path))
        if gone and not kept and not folders._removals:
            return
        await trio.lowlevel.checkpoint()


async def read_fifo(path: str) -> str:
    """What somebody writes to the FIFO, once somebody does."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        await trio.lowlevel.wait_readable(fd)
        return os.read(fd, 100).decode()
    finally:
        os.close(fd)


class Load:
    """Callers that do nothing but notice what goes wrong."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.done = 0
        self._stop = False
        self._news = trio.Event()

    async def call_all_the_time(self, name: int) -> None:
        number = 0
        while not self._stop:
            token = [name, number]
            assert await self.pool.call("echo", {"token": token}) == token
            number += 1
            self.done += 1
            self._news.set()
            self._news = trio.Event()

    async def more(self, calls: int) -> None:
        """Wait until they have made this many more calls."""
        goal = self.done + calls
        while self.done < goal:
            await self._news.wait()

    def stop(self) -> None:
        self._stop = True


@asynccontextmanager
async def load(pool: Pool, callers: int) -> AsyncIterator[Load]:
    self = Load(pool)
    async with trio.open_nursery() as nursery:
        for name in range(callers):
            nursery.start_soon(self.call_all_the_time, name)
        await self.more(callers)
        yield self
        await self.more(10 * callers)  # and all is well afterwards
        self.stop()


def gone(pids: list[int], seconds: float = HANG) -> bool:
    """Wait until none of these processes runs any more; False if one still does after `seconds`."""
    for pid in pids:
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            if not select.select([fd], [], [], seconds)[0]:
                return False
        finally:
            os.close(fd)
    return True
