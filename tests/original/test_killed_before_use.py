"""A worker is killed, and called before anybody can have noticed.

In a pool of this kind a worker was asked whether it lived, and was dead by the time it was used. Here
there is no moment between the two: nobody asks. The kill and the call come in the same breath, while
trio's loop stands still, so that the pool must find out on its own way to the worker.
"""

from __future__ import annotations

import os
import signal

import pytest
import trio

from remuda.runtime.opening import open_pool
from remuda.statemachines.errors import WorkerDied

HANG = 60.0
"""Seconds after which a test is given up: a guard, not a threshold."""


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_call_is_answered_by_another(workers: int) -> None:
    """It may not be repeated, and need not be: it had not begun."""
    with trio.fail_after(HANG):
        async with open_pool(min_workers=workers, max_workers=workers) as pool:
            for _ in range(10):
                assert await pool.run_sync(abs, -1) == 1  # so that the next start costs no restart
                there = {worker.pid for worker in pool.snapshot().workers}
                victim = await pool.run_sync(os.getpid)
                assert victim in there
                os.kill(victim, signal.SIGKILL)
                assert await pool.run_sync(os.getpid, idempotent=False) != victim
            assert pool.snapshot().ended == {"answered": 30}
            assert pool.snapshot().breaker == "closed"


async def test_killed_with_the_call_half_sent() -> None:
    """It was stopped before it could read, and the call is larger than its pipe."""
    data = bytes(4 * 1024 * 1024)
    with trio.fail_after(HANG):
        async with open_pool(max_workers=1) as pool:
            for _ in range(5):
                victim = await pool.run_sync(os.getpid)
                os.kill(victim, signal.SIGSTOP)
                answers: list[int] = []

                async def call(answers: list[int] = answers) -> None:
                    answers.append(await pool.run_sync(len, data))

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(call)
                    await trio.testing.wait_all_tasks_blocked()
                    os.kill(victim, signal.SIGKILL)
                assert answers == [len(data)]
            assert pool.snapshot().ended == {"answered": 10}


async def test_who_holds_it_is_told() -> None:
    """Its state is gone, so no other worker will do; and the call has provably not begun."""
    with trio.fail_after(HANG):
        async with open_pool(max_workers=1) as pool:
            for _ in range(5):
                async with pool.checkout(timeout=HANG) as worker:
                    os.kill(await worker.run_sync(os.getpid), signal.SIGKILL)
                    with pytest.raises(WorkerDied):
                        await worker.run_sync(abs, -1)
                assert await pool.run_sync(abs, -1) == 1
