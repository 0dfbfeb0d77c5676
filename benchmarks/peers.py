"""The other pools, each used as its documentation shows, with its own defaults."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any, TypeVar

from remuda.benchmarks.subjects import Blocking, Trio, Waiter

__all__ = ["AnyIO", "Billiard", "Loky", "Multiprocessing", "Pebble", "ProcessPool", "TrioParallel"]

T = TypeVar("T")


class ProcessPool(Blocking):
    """concurrent.futures.ProcessPoolExecutor."""

    needs = ("concurrent.futures.process",)

    def start(self) -> None:
        self.executor: Any = import_module("concurrent.futures").ProcessPoolExecutor(self.workers)

    def submit(self, function: Callable[..., Any], /, *args: Any) -> Waiter:
        return self.executor.submit(function, *args).result  # type: ignore[no-any-return]

    def close(self) -> None:
        for process in list((self.executor._processes or {}).values()):  # one may be busy for an hour
            process.kill()
        self.executor.shutdown()


class Loky(Blocking):
    """The reusable executor of loky, which is asked for again when it is broken."""

    needs = ("loky",)

    def start(self) -> None:
        self.executor: Any = import_module("loky").get_reusable_executor(self.workers, timeout=600)

    def submit(self, function: Callable[..., Any], /, *args: Any) -> Waiter:
        return self.executor.submit(function, *args).result  # type: ignore[no-any-return]

    async def renew(self) -> None:
        self.start()

    def close(self) -> None:
        self.executor.shutdown(kill_workers=True)


class Multiprocessing(Blocking):
    """multiprocessing.Pool."""

    needs = ("multiprocessing.pool",)

    def start(self) -> None:
        self.pool: Any = import_module(self.needs[0].partition(".")[0]).Pool(self.workers)

    def submit(self, function: Callable[..., Any], /, *args: Any) -> Waiter:
        return self.pool.apply_async(function, args).get  # type: ignore[no-any-return]

    def close(self) -> None:
        self.pool.terminate()


class Billiard(Multiprocessing):
    """What Celery made of multiprocessing.Pool."""

    needs = ("billiard.pool",)


class Pebble(Blocking):
    """pebble.ProcessPool."""

    needs = ("pebble",)

    def start(self) -> None:
        self.pool: Any = import_module("pebble").ProcessPool(max_workers=self.workers)

    def submit(self, function: Callable[..., Any], /, *args: Any) -> Waiter:
        return self.pool.schedule(function, args=args).result  # type: ignore[no-any-return]

    def close(self) -> None:
        self.pool.stop()
        self.pool.join()


class AnyIO(Trio):
    """anyio.to_process, on trio."""

    needs = ("anyio.to_process", "trio")

    @asynccontextmanager
    async def pool(self) -> AsyncGenerator[None]:
        anyio = import_module("anyio")
        self._run: Any = import_module("anyio.to_process").run_sync
        self._limiter: Any = anyio.CapacityLimiter(self.workers)
        yield

    async def call(self, function: Callable[..., T], /, *args: Any) -> T:
        return await self._run(function, *args, cancellable=True, limiter=self._limiter)  # type: ignore[no-any-return]


class TrioParallel(Trio):
    """trio-parallel, whose calls can be cancelled."""

    needs = ("trio_parallel",)

    @asynccontextmanager
    async def pool(self) -> AsyncGenerator[None]:
        self._run: Any = import_module("trio_parallel").run_sync
        self._limiter: Any = import_module("trio").CapacityLimiter(self.workers)
        yield

    async def call(self, function: Callable[..., T], /, *args: Any) -> T:
        return await self._run(function, *args, kill_on_cancel=True, limiter=self._limiter)  # type: ignore[no-any-return]
