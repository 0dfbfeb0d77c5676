"""remuda, as its users have it: everything on, nothing tuned.

How workers are started is a setting that not every version has. `starts` says what this one offers.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from remuda.benchmarks.subjects import Trio
from remuda.benchmarks.tasks import Tasks, echo, hold, whoami
from remuda.runtime.config import PoolConfig
from remuda.runtime.opening import open_pool
from remuda.runtime.pool import Pool
from remuda.statemachines.worker import WorkerState

__all__ = ["DSPY", "WITH_TASKS", "Ours", "starts"]

T = TypeVar("T")

WITH_TASKS: dict[str, Any] = {"adapter": Tasks}
DSPY: dict[str, Any] = {"adapter": "remuda.benchmarks.dspy_tasks:DSPyTasks", "settings": {"lm": "embedded"}}

_COMMANDS: dict[Callable[..., Any], Any] = {echo: Tasks.echo, whoami: Tasks.whoami, hold: Tasks.hold}
_SETTLED = 30.0
"""Seconds that a pool gets at most to have all its workers again."""


def starts(known: tuple[str, ...] = PoolConfig.__struct_fields__) -> dict[str, dict[str, Any]]:
    """The ways in which this version starts workers, by name, as fields of the configuration.

    Args:
        known: the fields that a configuration has.
    """
    if "start_method" not in known:
        return {"spawn": {}}
    ways: dict[str, dict[str, Any]] = {method: {"start_method": method} for method in ("spawn", "forkserver")}
    if "spares" in known:
        ways["spare"] = {"start_method": "forkserver", "spares": 1}
    return ways


class Ours(Trio):
    """A pool of remuda's.

    Args:
        workers: how many.
        fields: of the configuration; with an adapter its commands are called, else plain functions.
    """

    needs = ("remuda.runtime.pool", "remuda.bridge.spawn")
    remuda: Pool

    def __init__(self, workers: int, fields: dict[str, Any]) -> None:
        super().__init__(workers)
        self._fields = fields

    @asynccontextmanager
    async def pool(self) -> AsyncGenerator[None]:
        async with open_pool(min_workers=self.workers, max_workers=self.workers, **self._fields) as self.remuda:
            yield

    async def call(self, function: Callable[..., T], /, *args: Any) -> T:
        if "adapter" not in self._fields:
            return await self.remuda.run_sync(function, *args)
        return await self.remuda.call(_COMMANDS[function], *args)  # type: ignore[no-any-return]

    async def settle(self) -> None:
        import trio

        wanted = self.workers + int(self._fields.get("spares", 0))
        with trio.move_on_after(_SETTLED):
            while sum(worker.state is WorkerState.READY for worker in self._workers()) < wanted:
                await trio.sleep(0.005)
        await trio.sleep(0.05)

    def _workers(self) -> list[Any]:
        return list(self.remuda.snapshot().workers)
