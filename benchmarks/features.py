"""What each feature of remuda costs a small call: with it and without, in turns, in one process."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import trio

from remuda.benchmarks.measures import Samples
from remuda.benchmarks.scale import Scale
from remuda.benchmarks.tasks import Tasks, echo
from remuda.runtime.opening import open_pool
from remuda.specs.monitor import Monitor

__all__ = ["PLAIN", "features"]

PLAIN = "plain"
Call = Callable[[bytes], Awaitable[object]]


def features(scale: Scale) -> Samples:
    """The median time of a call, by feature, for each turn: one worker, one caller."""
    return trio.run(_features, scale)


async def _features(scale: Scale) -> Samples:
    async with AsyncExitStack() as stack:

        async def pool(**fields: Any) -> Any:
            return await stack.enter_async_context(open_pool(min_workers=1, max_workers=1, **fields))

        plain = await pool()
        watched = await pool(observers=[lambda event: None])
        monitored = await pool(observers=[Monitor()])
        sampled = await pool(observers=[Monitor(every=100)])
        forgetful = await pool(history=0)
        commands = await pool(adapter=Tasks)
        lease = await stack.enter_async_context((await pool()).checkout())
        calls: dict[str, Call] = {
            PLAIN: partial(plain.run_sync, echo),
            "arguments that are pickled": lambda data: plain.run_sync(echo, (data,)),
            "an idle observer": partial(watched.run_sync, echo),
            "Monitor()": partial(monitored.run_sync, echo),
            "Monitor(every=100)": partial(sampled.run_sync, echo),
            "session=…": partial(plain.run_sync, echo, session="s"),
            "idempotent=True": partial(plain.run_sync, echo, idempotent=True),
            "timeout=inf": partial(plain.run_sync, echo, timeout=math.inf),
            "history=0": partial(forgetful.run_sync, echo),
            "a checked out worker": partial(lease.run_sync, echo),
            "an adapter's command": partial(commands.call, Tasks.echo),
        }
        found: Samples = {name: [] for name in calls}
        data = b"x" * scale.size
        for call in calls.values():
            for _ in range(scale.warmup):
                await call(data)
        for turn in range(scale.turns):
            for name, call in list(calls.items())[:: -1 if turn % 2 else 1]:
                found[name].append(await _median(call, data, max(1, scale.calls // scale.turns)))
        return found


async def _median(call: Call, data: bytes, times: int) -> float:
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        await call(data)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)
