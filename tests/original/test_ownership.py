"""A worker belongs to the pool, and to nothing that is shorter-lived than the pool.

In a pool of this kind the pipes of a worker belonged to whoever used it. When they were handed from
one to the next, workers saw the end of their input and left: after a minute and a half there was
nothing but restarts. Here the descriptors never change hands, and nothing that ends a worker is tied
to the task, or the thread, that happened to start it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from remuda.bridge import spawn
from remuda.bridge.seam import StartOrder
from remuda.bridge.spawn import SpawnedWorker
from remuda.runtime.opening import open_pool
from remuda.specs.behaviour import Behaviour, Hello, Wait
from remuda.specs.simulated import SimLauncher
from tests.bridge.talk import HANG, Talk


@contextmanager
def started_in_a_thread() -> Iterator[SpawnedWorker]:
    """A worker whose starting thread has ended, also as the kernel sees it."""
    made: list[SpawnedWorker] = []
    native: list[int] = []

    def start() -> None:
        native.append(threading.get_native_id())
        made.append(spawn._spawn(StartOrder(pool="tests", slot=1, generation=1), "child", ()))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    while Path(f"/proc/self/task/{native[0]}").exists():
        os.sched_yield()
    try:
        yield made[0]
    finally:
        made[0].close()
        for each in threading.enumerate():
            if each.name.startswith("remuda-reaper"):
                each.join(HANG)


async def test_it_outlives_the_thread_that_started_it() -> None:
    """trio lets its idle threads end after some seconds; a worker must not go with them."""
    with trio.fail_after(HANG), started_in_a_thread() as worker:
        talk = Talk(worker)
        await talk.boot()
        for number in range(10):
            assert await talk.value("echo", number) == number
        assert await talk.end() == 0


async def test_it_passes_from_task_to_task() -> None:
    """Callers that come and go, leave in the queue, and hold it for a while: always the same process."""
    pids: set[int] = set()
    with trio.fail_after(HANG):
        async with open_pool(max_workers=1) as pool:

            async def call() -> None:
                pids.add(await pool.run_sync(os.getpid))

            async def hold() -> None:
                async with pool.checkout(timeout=HANG) as worker:
                    async with trio.open_nursery() as waiting:
                        waiting.start_soon(call)
                        await trio.testing.wait_all_tasks_blocked()
                        waiting.cancel_scope.cancel()
                    for _ in range(3):
                        pids.add(await worker.run_sync(os.getpid))

            for _ in range(10):
                async with trio.open_nursery() as nursery:
                    for task in (call, hold, call):
                        nursery.start_soon(task)
            assert len(pids) == 1
            (worker,) = pool.snapshot().workers
            assert (worker.generation, {worker.pid}) == (1, pids)


async def test_it_comes_though_the_caller_it_was_started_for_has_left(autojump_clock: object) -> None:
    """Nor is its start tied to a caller: who came in between finds it."""

    def cast(order: StartOrder) -> Behaviour:
        return Behaviour(boot=(Wait(10), Hello())) if order.slot else Behaviour()

    async with SimLauncher.open(cast) as launcher:
        async with open_pool(adapter="x:Y", max_workers=2, launcher=launcher) as pool, trio.open_nursery() as nursery:
            nursery.start_soon(pool.call, "sleep", {"seconds": 50})
            await trio.testing.wait_all_tasks_blocked()
            with trio.move_on_after(5) as scope:
                await pool.call("echo", {"token": 1})
            assert scope.cancelled_caught
            await trio.sleep(6)
            assert sorted(str(worker.state) for worker in pool.snapshot().workers) == ["busy", "ready"]
            assert await pool.call("echo", {"token": 2}) == 2
            assert trio.current_time() == 11
        assert launcher.witness.launched == 2


async def test_it_stays_for_an_hour_without_work(autojump_clock: object) -> None:
    """Checked every half minute, and used again in the end: the same worker."""
    async with SimLauncher.open() as launcher:
        async with open_pool(adapter="x:Y", max_workers=1, launcher=launcher) as pool:
            await trio.sleep(3601)
            assert await pool.call("echo", {"token": 1}) == 1
            (worker,) = pool._core.crew.workers()
            assert (worker.generation, worker.checks) == (1, 120)
        assert launcher.witness.launched == 1
