"""Calls really run at the same time, and what one worker does not take delays nobody.

In a pool of this kind one task did all the reading and writing, so that every call waited for every
other. Here two calls meet: neither can end unless both are under way. No time is measured; if they
were done one after the other they would wait for each other until their deadline.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import trio

from remuda.runtime.opening import open_pool

HANG = 60.0
"""Seconds after which a test is given up: a guard, not a threshold."""


async def test_two_calls_meet(tmp_path: Path) -> None:
    """One writes what the other reads; the one that comes first waits in its worker for the other."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    answers: dict[str, object] = {}
    with trio.fail_after(HANG):
        async with open_pool(min_workers=2, max_workers=2) as pool:

            async def read() -> None:
                answers["read"] = await pool.run_sync(fifo.read_text)

            async def write() -> None:
                answers["written"] = await pool.run_sync(fifo.write_text, "hello")

            for first, second in ((read, write), (write, read)):
                answers.clear()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(first)
                    await trio.testing.wait_all_tasks_blocked()
                    nursery.start_soon(second)
                assert answers == {"read": "hello", "written": 5}
            assert pool.snapshot().ended == {"answered": 4}


async def test_a_worker_that_takes_nothing_delays_nobody() -> None:
    """It is stopped, and its call is larger than its pipe: half of it is written, and the others go on."""
    with trio.fail_after(HANG):
        async with open_pool(min_workers=2, max_workers=2) as pool:
            async with pool.checkout() as worker:
                pid = await worker.run_sync(os.getpid)
                os.kill(pid, signal.SIGSTOP)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(worker.run_sync, len, bytes(8 * 1024 * 1024))
                    await trio.testing.wait_all_tasks_blocked()
                    for number in range(20):
                        assert await pool.run_sync(abs, -number) == number
                    nursery.cancel_scope.cancel()
            assert await pool.run_sync(os.getpid) != pid


async def test_quick_calls_are_answered_while_a_slow_one_runs(tmp_path: Path) -> None:
    """The slow one ends by what the application does when it has the answers of the quick ones."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    answers: list[str] = []
    with trio.fail_after(HANG):
        async with open_pool(min_workers=2, max_workers=2) as pool:

            async def slow() -> None:
                answers.append(await pool.run_sync(fifo.read_text))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(slow)
                await trio.testing.wait_all_tasks_blocked()
                for number in range(10):
                    assert await pool.run_sync(abs, -number) == number
                assert answers == []
                await trio.Path(fifo).write_text("enough")
            assert answers == ["enough"]
