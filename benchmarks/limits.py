"""The bare limits: two processes, two descriptors, and nothing around them.

The child is forked, reads and writes what it has read. The parent writes, waits and reads, either in a
blocking way or as trio does it (`wait_readable`). Messages are smaller than what a pipe takes at once, so
that a read always has all of one. No pool can be faster. Where there are more callers than children, a child
is handed from one caller to the next, who was parked; that is the least that a queue can be.

And one step further: a worker of remuda's without a pool. Its calls are encoded, framed, recorded on its
page and answered as all calls are, but nobody chooses it, there is no deadline, and nothing is looked after.
What a pool of remuda's takes beyond that is what it adds.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from abc import abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from remuda.benchmarks.subjects import Blocking, Subject, Trio, Waiter, taking_turns

if TYPE_CHECKING:
    from remuda.bridge.seam import WorkerProcess

__all__ = ["RawPipe", "RawSocketpair", "TrioPipe", "TrioSocketpair", "WorkerAlone", "round_trip"]

T = TypeVar("T")
_ROOM = 1 << 16


class Child:
    """A forked process that gives back what it gets.

    Args:
        by_pipes: two pipes; else a socketpair.
        waiting: whether reading blocks.
    """

    def __init__(self, *, by_pipes: bool, waiting: bool) -> None:
        if by_pipes:
            their_read, self.write_fd = os.pipe()
            self.read_fd, their_write = os.pipe()
        else:
            ours, theirs = socket.socketpair()
            self.read_fd = self.write_fd = ours.detach()
            their_read = their_write = theirs.detach()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                while data := os.read(their_read, _ROOM):
                    os.write(their_write, data)
            finally:
                os._exit(0)
        for fd in {their_read, their_write}:
            os.close(fd)
        os.set_blocking(self.read_fd, waiting)

    def close(self) -> None:
        """End it."""
        for fd in {self.read_fd, self.write_fd}:
            os.close(fd)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


class _Limit(Subject):
    """What the limits share: they have no functions, only the way there and back."""

    by_pipes: bool
    children: list[Child]

    async def worker_pid(self) -> int:
        return self.children[0].pid

    @abstractmethod
    async def call(self, function: Callable[..., T], /, *args: Any) -> T:
        """Send the argument there and back, to the first child."""


class _Raw(_Limit, Blocking):
    def start(self) -> None:
        self.children = [Child(by_pipes=self.by_pipes, waiting=True) for _ in range(self.workers)]

    def close(self) -> None:
        for child in self.children:
            child.close()

    def submit(self, function: Callable[..., Any], /, *args: Any) -> Waiter:
        child = self.children[0]
        os.write(child.write_fd, args[0])
        return lambda seconds: os.read(child.read_fd, _ROOM)

    async def call(self, function: Callable[..., T], /, *args: Any) -> T:
        child = self.children[0]
        os.write(child.write_fd, args[0])
        return os.read(child.read_fd, _ROOM)  # type: ignore[return-value]

    async def many(self, callers: int, calls: int, function: Callable[..., Any], argument: Any) -> None:
        busy = {child.read_fd: child for child in self.children[:callers]}
        with select.epoll() as poll:
            for child in busy.values():
                poll.register(child.read_fd, select.EPOLLIN)
                os.write(child.write_fd, argument)
            left = calls - len(busy)
            while busy:
                for fd, _ in poll.poll():
                    os.read(fd, _ROOM)
                    if left > 0:
                        left -= 1
                        os.write(busy[fd].write_fd, argument)
                    else:
                        del busy[fd]


class RawPipe(_Raw):
    """Blocking, two pipes."""

    by_pipes = True


class RawSocketpair(_Raw):
    """Blocking, a socketpair."""

    by_pipes = False


class _Bare(_Limit, Trio):
    @asynccontextmanager
    async def pool(self) -> AsyncGenerator[None]:
        self.children = [Child(by_pipes=self.by_pipes, waiting=False) for _ in range(self.workers)]
        try:
            yield
        finally:
            for child in self.children:
                child.close()

    async def call(self, function: Callable[..., T], /, *args: Any) -> T:
        return await _there_and_back(self.children[0], args[0])  # type: ignore[return-value]

    async def many(self, callers: int, calls: int, function: Callable[..., Any], argument: Any) -> None:
        await _handing_over(self.children, callers, calls, lambda child: _there_and_back(child, argument))


class TrioPipe(_Bare):
    """In trio's loop, two pipes."""

    by_pipes = True


class TrioSocketpair(_Bare):
    """In trio's loop, a socketpair."""

    by_pipes = False


async def _there_and_back(child: Child, data: bytes) -> bytes:
    import trio

    os.write(child.write_fd, data)
    await trio.lowlevel.wait_readable(child.read_fd)
    return os.read(child.read_fd, _ROOM)


async def _handing_over(things: Sequence[T], callers: int, calls: int, call: Callable[[T], Awaitable[object]]) -> None:
    """As many callers do as many calls, each with one of the things that no other has at that time."""
    import outcome
    import trio

    free, parked = deque(things), deque[trio.lowlevel.Task]()

    def stay(_: object) -> trio.lowlevel.Abort:
        return trio.lowlevel.Abort.FAILED

    async def one_call(_: int) -> None:
        if free:
            thing = free.popleft()
        else:
            parked.append(trio.lowlevel.current_task())
            thing = await trio.lowlevel.wait_task_rescheduled(stay)
        await call(thing)
        if parked:
            trio.lowlevel.reschedule(parked.popleft(), outcome.Value(thing))
        else:
            free.append(thing)

    await taking_turns(range(callers), calls, one_call)


class _Connection:
    """A worker of remuda's, and what it takes to talk to it."""

    def __init__(self, process: WorkerProcess) -> None:
        from remuda.bridge import functions, messages
        from remuda.bridge.frames import HANDSHAKE_LIMIT, Decoder, pack

        self.process = process
        self._functions, self._messages, self._pack = functions, messages, pack
        self._limit, self._decoder = HANDSHAKE_LIMIT, Decoder(HANDSHAKE_LIMIT)
        self._number = 0

    async def boot(self) -> None:
        from remuda.runtime.boot import boot_frame, boot_message
        from remuda.runtime.config import PoolConfig

        self.process.write(boot_frame(boot_message(PoolConfig(), None)))
        await self._receive()

    async def call(self, function: Callable[..., T], args: Sequence[Any]) -> T:
        command, payload = self._functions.request(function, args)
        self._number += 1
        message = self._messages.Call(self._number, command, payload)
        self.process.write(self._pack(self._messages.encode(message), self._limit))
        reply = await self._receive()
        return self._functions.loads(reply.value, command)  # type: ignore[no-any-return]

    async def _receive(self) -> Any:
        while True:
            await self.process.readable()
            data = self.process.read()
            if data == b"":
                raise EOFError("the worker has ended")
            if data and (bodies := self._decoder.feed(data)):
                return self._messages.decode_to_parent(bodies[0])


class WorkerAlone(Trio):
    """In trio's loop, a worker of remuda's, but no pool."""

    needs = ("remuda.bridge.spawn", "remuda.bridge.process", "remuda.runtime.boot", "remuda.runtime.config")
    connections: list[_Connection]

    @asynccontextmanager
    async def pool(self) -> AsyncGenerator[None]:
        from remuda.bridge.seam import StartOrder
        from remuda.bridge.spawn import SpawnLauncher

        self.connections = []
        try:
            for number in range(self.workers):
                process = await SpawnLauncher().start(StartOrder(pool="none", slot=number, generation=1))
                self.connections.append(_Connection(process))
                await self.connections[-1].boot()
            yield
        finally:
            for connection in self.connections:
                connection.process.close()

    async def call(self, function: Callable[..., T], /, *args: Any) -> T:
        return await self.connections[0].call(function, args)

    async def many(self, callers: int, calls: int, function: Callable[..., Any], argument: Any) -> None:
        await _handing_over(self.connections, callers, calls, lambda one: one.call(function, (argument,)))


def round_trip(times: int, size: int) -> float:
    """Seconds there and back by a blocking socketpair, the median: how fast this machine is at this moment."""
    child, data, taken = Child(by_pipes=False, waiting=True), b"x" * size, []
    try:
        for _ in range(times):
            start = time.perf_counter()
            os.write(child.write_fd, data)
            os.read(child.read_fd, _ROOM)
            taken.append(time.perf_counter() - start)
    finally:
        child.close()
    return sorted(taken)[len(taken) // 2]
