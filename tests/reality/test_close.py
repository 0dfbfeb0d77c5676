"""Leaving a pool whose workers hang, in every way that a worker can."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path

import pytest
import trio

from remuda.runtime.config import PoolConfig
from remuda.runtime.opening import run_pool
from remuda.statemachines.errors import OutcomeUnknown, PoolClosed

from .world import HANG, gone, read_fifo, world

GRACE = 1.0


def pids(pool: object) -> list[int]:
    return [worker.pid for worker in pool.snapshot().workers if worker.pid is not None]  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", ["spin", "spin_in_c", "stopped"])
async def test_every_worker_hangs(command: str) -> None:
    """Those that wait know at once, those that run when they are killed, and it ends.

    How long it takes is shown in simulation, where time can be told exactly.
    """
    ended: list[type] = []

    async def hang() -> None:
        try:
            await here.pool.call("spin" if command == "stopped" else command, timeout=math.inf)
        except (PoolClosed, OutcomeUnknown) as error:
            assert "clos" in str(error)
            ended.append(type(error))

    async with trio.open_nursery() as nursery:
        async with world(shutdown_timeout=GRACE) as here:
            for _ in range(4):  # two run, two wait
                nursery.start_soon(hang)
            await trio.testing.wait_all_tasks_blocked()
            before = pids(here.pool)
            assert here.pool.snapshot().waiting == 2
            if command == "stopped":
                for pid in before:
                    os.kill(pid, signal.SIGSTOP)
            else:
                await here.until(lambda: {worker.phase for worker in here.pool.snapshot().workers} == {"running"})
            nursery.start_soon(here.pool.aclose)
            await trio.testing.wait_all_tasks_blocked()
            assert ended == [PoolClosed] * 2
        assert here.pool.snapshot().state == "closed"
    # A worker that was stopped may not have begun yet.
    assert len(ended) == 4 and (command == "stopped" or ended[2:] == [OutcomeUnknown] * 2)
    assert gone(before)


async def test_the_nursery_of_run_pool_is_cancelled(tmp_path: Path) -> None:
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    config = PoolConfig(adapter="wild:Wild", max_workers=1, shutdown_timeout=GRACE)
    with trio.fail_after(HANG):
        async with trio.open_nursery() as nursery:
            pool = await nursery.start(run_pool, config)
            nursery.start_soon(pool.call, "pause", {"path": fifo})
            pid = int(await read_fifo(fifo))
            nursery.cancel_scope.cancel()
    assert gone([pid])


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), ExceptionGroup("mine", [OSError()])])
async def test_an_exception_of_the_body_arrives_as_it_was_raised(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        async with world() as here:
            before = pids(here.pool)
            raise error
    assert caught.value is error
    assert gone(before)


async def test_what_a_worker_has_started_goes_with_it() -> None:
    async with world() as here:
        child = await here.pool.call("abandon")
    assert gone([child])
