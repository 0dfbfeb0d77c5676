"""How a pool begins and ends: `open_pool` and `run_pool`.

What a pool is made of is loaded when one is made, and not before: an application that imports remuda
at its top and then prints its help has not paid for six compiled lifecycles.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from remuda.bridge import functions
from remuda.runtime.config import PoolConfig
from remuda.statemachines.errors import ConfigError

if TYPE_CHECKING:
    from remuda.bridge.seam import Launcher
    from remuda.runtime.events import Observer
    from remuda.runtime.pool import Pool

__all__ = ["open_pool", "run_pool"]


@asynccontextmanager
async def open_pool(
    config: PoolConfig | None = None,
    /,
    *,
    observers: Sequence[Observer] = (),
    launcher: Launcher | None = None,
    **fields: Any,
) -> AsyncGenerator[Pool, None]:
    """A pool for the length of a block.

        async with remuda.open_pool(adapter="dspy", max_workers=8) as pool:
            ...

    It is entered when `min_workers` are ready. Leaving it lets running calls finish and ends the
    workers, within `shutdown_timeout` seconds. An exception of the block arrives as it was raised.

    Args:
        config: the settings, or
        fields: single fields of `PoolConfig`, which override those of `config`.
        observers: called with every event of the pool; see `remuda.runtime.events`.
        launcher: what starts the workers, default: processes on this machine.

    Raises:
        ConfigError: a setting is not allowed.
        PoolStartError: the workers do not start; the text has the last one's words.
    """
    pool = _make_pool(config, fields, observers, launcher)
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                await pool._start(nursery)
                yield pool
            except BaseException as error:
                failure = error
            finally:
                await pool._end()
    except BaseExceptionGroup as group:
        _, crash = group.split(trio.Cancelled)
        if crash is not None:  # a task of the pool itself has crashed, which cancelled the block
            alone = list(crash.exceptions)
            raise (crash if len(alone) > 1 else alone[0]) from failure
        if failure is None:
            raise
    if failure is not None:
        try:
            raise failure
        finally:
            failure = None  # no reference cycle through this frame


async def run_pool(
    config: PoolConfig | None = None,
    *,
    observers: Sequence[Observer] = (),
    launcher: Launcher | None = None,
    task_status: trio.TaskStatus[Pool] = trio.TASK_STATUS_IGNORED,
) -> None:
    """A pool as a task of a nursery.

        pool = await nursery.start(remuda.run_pool, config)

    It runs until it is cancelled or `pool.aclose()` is called, and then ends like `open_pool`.

    Args and errors: as for `open_pool`.
    """
    async with open_pool(config, observers=observers, launcher=launcher) as pool:
        task_status.started(pool)
        await pool._closed.wait()


def _make_pool(
    config: PoolConfig | None, fields: dict[str, Any], observers: Sequence[Observer], launcher: Launcher | None
) -> Pool:
    functions.refuse_inside_main_load()
    if config is not None and not isinstance(config, PoolConfig):
        raise ConfigError(f"the configuration is {config!r}; it must be a remuda.PoolConfig, or None")
    unknown = sorted(set(fields) - set(PoolConfig.__struct_fields__))
    if unknown:
        known = ", ".join(PoolConfig.__struct_fields__)
        raise ConfigError(f"PoolConfig has no field {unknown[0]!r}; it has: {known}", context={"field": unknown[0]})
    if config is None:
        config = PoolConfig(**fields)
    elif fields:
        current = {name: getattr(config, name) for name in PoolConfig.__struct_fields__}
        config = PoolConfig(**{**current, **fields})
    for observer in observers:
        if not callable(observer):
            raise ConfigError(f"the observer {observer!r} cannot be called; it must take one event")
    if launcher is None:
        launcher = _launcher(config)
    from remuda.runtime.pool import Pool

    return Pool(config, launcher, observers)


def _launcher(config: PoolConfig) -> Launcher:
    """What starts the workers of this pool, on this system."""
    from remuda.bridge.spawn import SpawnLauncher

    spawn = SpawnLauncher()
    if config.start_method == "spawn":
        return spawn
    from remuda.bridge.forkserver import Template, can_fork

    if not can_fork():
        if config.start_method is None:
            return spawn
        raise ConfigError(
            "PoolConfig.start_method is 'forkserver', which needs pidfds and /proc (Linux); "
            "set it to 'spawn', or leave it out",
            context={"field": "start_method"},
        )
    from remuda.runtime.templates import ForkLauncher

    return ForkLauncher(
        config.name,
        partial(Template.start, spawn),
        spawn,
        preload=tuple(config.preload),
        env=config.env,
        patience=config.init_timeout,
    )
