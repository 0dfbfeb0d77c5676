"""Control-C at every line of the runtime: whoever catches it finds the pool as it should be.

The signal is raised by a trace function, at the n-th line that is run in `remuda/runtime` for the main
task, for n = 1, 2, … to the end. Where the runtime could not bear it, trio must be told to keep it until
the next checkpoint; that is what is tried here.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
import trio

from remuda.runtime.opening import open_pool
from remuda.runtime.pool import Pool
from remuda.specs.simulated import SimLauncher

MOST_LINES = 2000


class Interrupt:
    """Control-C at one line."""

    def __init__(self, at: int) -> None:
        self._at = at
        self._lines = 0
        self.where = ""

    @contextmanager
    def somewhere(self) -> Iterator[None]:
        task, before = trio.lowlevel.current_task(), sys.gettrace()

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            if "/runtime/" not in frame.f_code.co_filename or "/tests/" in frame.f_code.co_filename:
                return None
            if event == "line" and trio.lowlevel.current_task() is task:
                self._lines += 1
                if self._lines == self._at:
                    self.where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                    sys.settrace(before)
                    signal.raise_signal(signal.SIGINT)
            return trace

        sys.settrace(trace)
        try:
            yield
        finally:
            sys.settrace(before)


async def call(pool: Pool) -> None:
    await pool.call("echo", {"token": 0})


async def call_that_waits(pool: Pool) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.call, "sleep", {"seconds": 1})
        await trio.testing.wait_all_tasks_blocked()
        await pool.call("echo", {"token": 0})


async def call_that_runs(pool: Pool) -> None:
    await pool.call("sleep", {"seconds": 1})


async def checkout(pool: Pool) -> None:
    async with pool.checkout() as lease:
        await lease.call("echo", {"token": 0})


@pytest.mark.parametrize("scenario", [call, call_that_waits, call_that_runs, checkout])
def test_at_every_line(scenario: Callable[[Pool], Awaitable[None]]) -> None:
    async def main(interrupt: Interrupt) -> None:
        async with SimLauncher.open() as launcher:
            async with open_pool(adapter="simulated:Adapter", max_workers=1, launcher=launcher) as pool:
                try:
                    with interrupt.somewhere():
                        await scenario(pool)
                    await trio.lowlevel.checkpoint()  # where it arrives at the latest
                except* KeyboardInterrupt:
                    pass
                await trio.testing.wait_all_tasks_blocked()
                seen = pool.snapshot()
                assert (seen.in_flight, seen.waiting) == (0, 0), interrupt.where
                assert await pool.call("echo", {"token": 1}, timeout=1) == 1, interrupt.where
            assert launcher.witness.leftovers() == []

    for at in range(1, MOST_LINES):
        interrupt = Interrupt(at)
        trio.run(main, interrupt, clock=trio.testing.MockClock(autojump_threshold=0))
        if not interrupt.where:
            break
    assert 20 < at < MOST_LINES - 1
