"""Callers that hang up. It is their right, and must cost nobody else anything."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from remuda.runtime.events import CallEnded, PoolChanged, WorkerEnded
from remuda.statemachines.errors import CallTimeout
from remuda.statemachines.pool import PoolState

from .world import load, read_fifo, world


async def test_200_callers_hang_up_one_after_another(tmp_path: Path) -> None:
    """Each in the middle of a call; the pool stays as it is, and its restart budget untouched."""
    async with world(min_workers=2, max_workers=2) as here:
        pool = here.pool
        budget = pool.snapshot().restart_tokens
        for number in range(200):
            fifo = str(tmp_path / f"fifo-{number}")
            os.mkfifo(fifo)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pool.call, "pause", {"path": fifo})
                await read_fifo(fifo)  # the command has begun
                nursery.cancel_scope.cancel()
            os.unlink(fifo)
            assert await pool.call("echo", {"token": number}) == number
        await here.until(lambda: here.whole)
        assert pool.snapshot().restart_tokens == budget
        assert PoolState.FAILED not in {event.dest for event in here.of(PoolChanged)}
        assert len(here.of(WorkerEnded)) == 200
        assert all(event.on_purpose for event in here.of(WorkerEnded))
        assert pool.snapshot().ended == {"answered": 200, "cancelled": 200}


async def test_a_caller_that_hangs_up_while_others_work(tmp_path: Path) -> None:
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    async with world() as here:
        async with load(here.pool, 4):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(here.pool.call, "pause", {"path": fifo})
                    await read_fifo(fifo)
                    scope.cancel()
        await here.until(lambda: here.whole)


@pytest.mark.parametrize("seconds", [0.0, 0.2])
async def test_deadlines_are_told_apart(seconds: float) -> None:
    async with world() as here:
        pool = here.pool
        with pytest.raises(CallTimeout):
            await pool.call("spin", timeout=seconds)
        with pytest.raises(trio.TooSlowError), trio.fail_after(seconds):
            await pool.call("spin")
        with trio.move_on_after(seconds) as scope:
            await pool.call("spin")
        assert scope.cancelled_caught
        await here.until(lambda: here.whole)
        verdicts = [str(event.verdict) for event in here.of(CallEnded)]
        assert verdicts == (["timed_out"] * 3 if seconds else ["timed_out"])
