"""What is measured: one face for trio's pools, for those that block, and for the bare limits.

A subject is opened in a driver of its own, used, and thrown away. The measures are written once, as
coroutines. A subject that blocks never suspends them, so that no event loop is in its way: `run` takes the
one step that such a coroutine has.

What many callers are differs. For trio they are tasks. For a pool that blocks they are calls that were
made and not yet waited for, which is the cheapest way such a pool can be used; threads would cost it more.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import select
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from remuda.benchmarks.tasks import whoami

if TYPE_CHECKING:
    import trio

__all__ = ["Blocking", "Subject", "Trio", "missing", "run", "taking_turns"]

T = TypeVar("T")
Waiter = Callable[[float | None], Any]
"""Waits for the result of a call, so many seconds at most."""

_CLOSING = 3.0
"""Seconds that a pool gets to close; some never do, once a worker was killed."""


class Subject(ABC):
    """Something that runs functions in worker processes.

    Args:
        workers: how many.
    """

    needs: tuple[str, ...] = ()
    """The modules that have to be installed."""
    by_trio = True
    """Whether it runs in trio's loop. If not, nothing in it ever suspends."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def load(self) -> None:
        """Import what it needs: not part of what is measured."""
        for name in self.needs:
            importlib.import_module(name)

    @abstractmethod
    def opened(self) -> AbstractAsyncContextManager[None]:
        """Have workers, as many as were asked for, in this block."""

    @abstractmethod
    async def call(self, function: Callable[..., T], /, *args: Any) -> T:
        """Run a function in a worker."""

    @abstractmethod
    async def many(self, callers: int, calls: int, function: Callable[..., Any], argument: Any) -> None:
        """Run a function so many times, with so many callers who each call again when they have their answer."""

    @abstractmethod
    async def attempt(self, seconds: float) -> int:
        """The process id of a worker; an exception if there is no answer in this time."""

    @abstractmethod
    async def begin(self, function: Callable[..., Any], /, *args: Any) -> Callable[[float], Awaitable[bool]]:
        """Begin a call; the function that comes back says whether its caller hears of its end in so many seconds."""

    @abstractmethod
    async def pause(self, seconds: float) -> None:
        """Let time pass."""

    @abstractmethod
    async def readable(self, fd: int) -> None:
        """Wait until there is something to read."""

    async def settle(self) -> None:
        """Wait until it has recovered from what was done to it."""
        await self.pause(0.05)

    async def renew(self) -> None:  # noqa: B027  (most have no such thing)
        """Do what the documentation of this pool says to do after it was broken."""

    async def worker_pid(self) -> int:
        """The process id of a worker."""
        return await self.call(whoami)


class Trio(Subject):
    """A pool of trio's."""

    by_trio = True
    nursery: trio.Nursery

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None]:
        import trio

        async with self.pool(), trio.open_nursery() as self.nursery:
            yield
            self.nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def pool(self) -> AsyncGenerator[None]:
        """What has to be opened and closed."""
        yield

    async def many(self, callers: int, calls: int, function: Callable[..., Any], argument: Any) -> None:
        await taking_turns(range(callers), calls, lambda _: self.call(function, argument))

    async def attempt(self, seconds: float) -> int:
        import trio

        with trio.fail_after(seconds):
            return await self.call(whoami)

    async def begin(self, function: Callable[..., Any], /, *args: Any) -> Callable[[float], Awaitable[bool]]:
        import trio

        told = trio.Event()

        async def call() -> None:
            try:
                await self.call(function, *args)
            except Exception:
                pass  # that it ends is what matters
            told.set()

        async def hears(seconds: float) -> bool:
            with trio.move_on_after(seconds):
                await told.wait()
            return told.is_set()

        self.nursery.start_soon(call)
        return hears

    async def pause(self, seconds: float) -> None:
        import trio

        await trio.sleep(seconds)

    async def readable(self, fd: int) -> None:
        import trio

        await trio.lowlevel.wait_readable(fd)


async def taking_turns(who: Iterable[T], calls: int, call: Callable[[T], Awaitable[object]]) -> None:
    """Each of them does one call after the other, until all together have done so many."""
    import trio

    left = calls

    async def again(one: T) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await call(one)

    async with trio.open_nursery() as nursery:
        for one in who:
            nursery.start_soon(again, one)


class Blocking(Subject):
    """A pool whose calls block a thread, or are waited for by one."""

    by_trio = False

    @abstractmethod
    def start(self) -> None:
        """Make the pool."""

    @abstractmethod
    def submit(self, function: Callable[..., Any], /, *args: Any) -> Waiter:
        """Give it a call."""

    @abstractmethod
    def close(self) -> None:
        """End the pool. It may hang: it is not waited for long."""

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None]:
        self.start()
        try:
            yield
        finally:
            closing = threading.Thread(target=self.close, daemon=True)
            closing.start()
            closing.join(_CLOSING)

    async def call(self, function: Callable[..., T], /, *args: Any) -> T:
        return self.submit(function, *args)(None)  # type: ignore[no-any-return]

    async def many(self, callers: int, calls: int, function: Callable[..., Any], argument: Any) -> None:
        waiting: deque[Waiter] = deque()
        for _ in range(calls):
            if len(waiting) == callers:
                waiting.popleft()(None)
            waiting.append(self.submit(function, argument))
        for wait in waiting:
            wait(None)

    async def attempt(self, seconds: float) -> int:
        return int(self.submit(whoami)(seconds))

    async def begin(self, function: Callable[..., Any], /, *args: Any) -> Callable[[float], Awaitable[bool]]:
        wait = self.submit(function, *args)

        async def hears(seconds: float) -> bool:
            start = time.perf_counter()
            try:
                wait(seconds)
            except Exception:
                pass
            return time.perf_counter() - start < seconds  # their errors for "not yet" are of many types

        return hears

    async def pause(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251  (there is no loop)

    async def readable(self, fd: int) -> None:
        select.select([fd], [], [])


def missing(names: tuple[str, ...]) -> list[str]:
    """The packages that these modules would come from and that are not installed."""
    packages = dict.fromkeys(name.partition(".")[0] for name in names)
    return [name for name in packages if importlib.util.find_spec(name) is None]


def run(subject: Subject, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a measure, in trio's loop if the subject needs it."""
    if subject.by_trio:
        import trio

        return trio.run(main)
    coroutine = main()
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    coroutine.close()
    raise RuntimeError(f"{type(subject).__name__} blocks, and yet it has suspended in process {os.getpid()}")
