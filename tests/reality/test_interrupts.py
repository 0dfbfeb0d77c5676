"""Calls that are told to stop, in real processes, with real signals.

The pool's clock runs as it does, and is put forward when a call has begun: so no test waits for a deadline,
and none depends on how fast the machine is.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from remuda.bridge.process import LocalWorker
from remuda.runtime.config import Breaker
from remuda.runtime.handles import Lease
from remuda.runtime.opening import open_pool
from remuda.runtime.pool import Pool
from remuda.statemachines.errors import CallTimeout, ConfigError, Interrupted, OutcomeUnknown, RemoteError, WorkerDied
from tests.bridge.talk import stop

from .world import HANG, read_fifo, world

GRACE = 100.0
SECONDS = 1000.0

STACK_WITHIN = 50.0
"""Seconds that a worker has to write down its stack, where a test looks at that; less than `GRACE`."""


@pytest.fixture
def time_for_stacks(clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, a worker has the time to write down its stack.

    One that is too deep is never whole. So time goes on as soon as the pool has seen as much of it as is asked for.
    """
    real = LocalWorker.stack

    def stack(self: LocalWorker) -> tuple[str, bool]:
        text, whole = real(self)
        if not whole and text.count(" in dive\n") > 50:
            clock.jump(STACK_WITHIN)
        return text, whole

    monkeypatch.setattr(LocalWorker, "stack", stack)
    monkeypatch.setattr("remuda.runtime.link._STACK_WITHIN", STACK_WITHIN)


@asynccontextmanager
async def stubborn(**fields: Any) -> AsyncIterator[Pool]:
    """A pool of one worker, which is interrupted."""
    fields = {"on_timeout": "interrupt", "interrupt_grace": GRACE, "call_timeout": SECONDS, **fields}
    async with open_pool(adapter="stubborn:Stubborn", max_workers=1, **fields) as pool:
        yield pool


async def out_of_time(caller: Pool | Lease, clock: MockClock, command: str, fifo: str, **args: Any) -> CallTimeout:
    """Make a call, let its time run out once it has begun, and say what its caller got."""
    errors: list[CallTimeout] = []

    async def call() -> None:
        with pytest.raises(CallTimeout) as caught:
            await caller.call(command, {"path": fifo, **args})
        errors.append(caught.value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await read_fifo(fifo)
        clock.jump(SECONDS)
    return errors[0]


def states(pool: Pool) -> list[str]:
    return [worker.state for worker in pool.snapshot().workers]


@pytest.mark.usefixtures("time_for_stacks")
@pytest.mark.parametrize("command", ["sleep", "loop", "read", "wait_for_a_lock", "not_an_exception", "with_a_thread"])
async def test_what_stops_keeps_its_worker(clock: MockClock, fifo: str, command: str) -> None:
    async with stubborn() as pool:
        pid = await pool.call("pid")
        error = await out_of_time(pool, clock, command, fifo)
        assert error.stack is not None and f" in {command}\n" in error.stack
        assert "child.py" not in error.stack  # what is the worker's own is left out
        assert error.as_dict()["stack"] == error.stack and error.stack.rstrip() in str(error)
        assert "told to stop" in str(error)
        assert await pool.call("pid") == pid
        assert ("in beside\n" in error.stack) is (command == "with_a_thread")


@pytest.mark.usefixtures("time_for_stacks")
@pytest.mark.parametrize("command", ["add", "swallow", "handle"])
async def test_what_does_not_stop_is_killed(clock: MockClock, fifo: str, command: str) -> None:
    """C code that holds the interpreter is not to be interrupted, but its stack is to be had."""
    async with stubborn() as pool:
        pid = await pool.call("pid")
        error = await out_of_time(pool, clock, command, fifo)
        assert error.stack is not None and f" in {command}\n" in error.stack
        assert states(pool) == ["interrupting"]
        clock.jump(GRACE)
        assert await pool.call("pid") != pid
        assert pool.last_death is None  # it was the pool's doing


async def test_a_worker_that_dies_of_the_signal_is_replaced(clock: MockClock, fifo: str) -> None:
    async with stubborn() as pool:
        pid, tokens = await pool.call("pid"), pool.snapshot().restart_tokens
        await out_of_time(pool, clock, "die_of_it", fifo)
        assert await pool.call("pid") != pid
        assert pool.snapshot().restart_tokens == tokens


@pytest.mark.usefixtures("time_for_stacks")
async def test_a_stack_without_an_end_is_better_than_none(clock: MockClock, fifo: str) -> None:
    async with stubborn() as pool:
        error = await out_of_time(pool, clock, "deep", fifo)
        assert error.stack is not None and error.stack.count(" in dive\n") > 50


@pytest.mark.usefixtures("time_for_stacks")
async def test_stacks_are_of_this_call(clock: MockClock, fifo: str) -> None:
    async with stubborn() as pool:
        for command in ("deep", "sleep", "loop", "read", "sleep"):
            error = await out_of_time(pool, clock, command, fifo)
            assert error.stack is not None
            assert ("dive" in error.stack) is (command == "deep")
            assert (f" in {command}\n" in error.stack) is (command != "deep")


async def test_a_worker_that_cannot_say_where_it_is(clock: MockClock, fifo: str) -> None:
    """It is stopped. Nobody waits for it longer than a moment, and it is killed when its grace is over."""
    async with stubborn() as pool:
        pid = await pool.call("pid")

        async def call() -> None:
            with pytest.raises(CallTimeout) as caught:
                await pool.call("sleep", {"path": fifo})
            assert caught.value.stack is None

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await read_fifo(fifo)
            await stop(pid)
            clock.jump(SECONDS)
        clock.jump(GRACE)
        assert await pool.call("pid") != pid


async def test_a_command_may_clean_up(clock: MockClock, fifo: str, tmp_path: Path) -> None:
    async with stubborn() as pool:
        pid = await pool.call("pid")
        await out_of_time(pool, clock, "clean_up", fifo, done=str(tmp_path / "done"))
        assert await pool.call("pid") == pid
        assert (tmp_path / "done").read_text() == "cleaned up"
        assert pool.snapshot().ended == {"answered": 2, "timed_out": 1}


async def test_a_caller_who_leaves_interrupts_as_well(clock: MockClock, fifo: str) -> None:
    async with stubborn() as pool:
        pid = await pool.call("pid")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.call, "sleep", {"path": fifo})
            await read_fifo(fifo)
            nursery.cancel_scope.cancel()
        assert states(pool) == ["interrupting"]
        assert await pool.call("pid") == pid
        assert pool.snapshot().ended == {"answered": 2, "cancelled": 1}


async def test_on_a_checkout(clock: MockClock, fifo: str) -> None:
    """The worker is still its holder's, who may go on at once; if it has to be killed, the checkout is over."""
    async with stubborn() as pool, pool.checkout() as lease:
        pid = await lease.call("pid")
        await out_of_time(lease, clock, "sleep", fifo)
        assert await lease.call("pid") == pid
        await out_of_time(lease, clock, "swallow", fifo)
        clock.jump(GRACE)
        with pytest.raises(WorkerDied):
            await lease.call("pid")


async def test_who_says_what_happens(clock: MockClock, fifo: str) -> None:
    """The call before its command, the command before the pool; and a command with a journal is killed."""
    async with stubborn(on_timeout="kill") as pool:
        for on_timeout in (None, "interrupt", "kill"):
            pid = await pool.call("pid")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(pool.call, "sleep", {"path": fifo}, on_timeout=on_timeout))
                await read_fifo(fifo)
                nursery.cancel_scope.cancel()
            assert (await pool.call("pid") == pid) is (on_timeout == "interrupt")
        wrong: Any = "ask"
        with pytest.raises(ConfigError, match="on_timeout"):
            await pool.call("pid", on_timeout=wrong)
        with pytest.raises(ConfigError, match="leaves something in its worker"):
            await pool.call("remember", {"path": fifo}, on_timeout="interrupt")
    async with stubborn() as pool:
        pid = await pool.call("pid")
        error = await out_of_time(pool, clock, "remember", fifo)
        assert error.stack is None
        assert await pool.call("pid") != pid


async def test_closing_does_not_wait_for_more_than_its_time(clock: MockClock, fifo: str) -> None:
    async with stubborn(shutdown_timeout=2.0) as pool:
        await out_of_time(pool, clock, "swallow", fifo)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.aclose)
            await trio.testing.wait_all_tasks_blocked()
            assert states(pool) == ["draining"]
            clock.jump(2.0)


async def test_plain_functions_are_interrupted_too(clock: MockClock, fifo: str) -> None:
    async with open_pool(max_workers=1, on_timeout="interrupt", interrupt_grace=HANG) as pool:
        pid = await pool.run_sync(os.getpid)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.run_sync, _announce_and_sleep, fifo)
            await read_fifo(fifo)
            nursery.cancel_scope.cancel()
        assert await pool.run_sync(os.getpid) == pid


def _announce_and_sleep(path: str) -> None:
    Path(path).write_text("begun")
    time.sleep(1000)


async def test_an_interrupt_never_meets_another_call(tmp_path: Path) -> None:
    """A thousand calls are given up at moments that nobody chooses; each that was told to stop says so."""
    chance, witness = random.Random(8), tmp_path / "witness"
    left: set[int] = set()
    async with world(
        adapter="stubborn:Stubborn",
        settings={"witness": str(witness)},
        min_workers=1,
        max_workers=1,
        on_timeout="interrupt",
        interrupt_grace=HANG,
        breaker=Breaker(failures=10_000),  # five that are given up in a row are no reason to stop
    ) as here:
        pool = here.pool
        pid = await pool.call("pid")
        for number in range(1, 1001):
            with trio.move_on_after(chance.random() * 0.004) as scope:
                answer = await pool.call("work", {"number": number, "loops": chance.randrange(200_000)})
                assert answer == number
            if scope.cancelled_caught:
                left.add(number)
            if chance.random() < 0.5:  # else the next one is given up as well
                assert await pool.call("work", {"number": -number, "loops": chance.randrange(20_000)}) == -number
        assert await pool.call("pid") == pid
    told = [int(line) for line in witness.read_text().split()]
    assert len(told) == len(set(told))
    assert set(told) <= left
    assert told  # or nothing was tried


async def test_progress_is_seen_while_it_runs_and_after_a_death(fifo: str) -> None:
    async with world(adapter="stubborn:Stubborn", min_workers=1, max_workers=1) as here:
        assert await here.pool.call("pid")
        (idle,) = here.pool.snapshot().workers
        while idle.phase == "answering":  # it has, and is about to note it
            (idle,) = here.pool.snapshot().workers
        assert (idle.phase, idle.progress) == ("idle", None)
        assert idle.silent_for is not None and idle.silent_for >= 0
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                with pytest.raises(OutcomeUnknown) as caught:
                    await here.pool.call("report", {"path": fifo})
                death = caught.value.last_death
                assert death is not None and death.doing == "running 'report' (3 of 10: page 3)"
                assert "worker 0.1, running 'report' (3 of 10: page 3): " in str(caught.value)

            nursery.start_soon(call)
            pid = int(await read_fifo(fifo))
            (busy,) = here.pool.snapshot().workers
            assert busy.phase == "running" and str(busy.progress) == "3 of 10: page 3"
            os.kill(pid, signal.SIGKILL)


async def test_user_code_may_raise_it_itself() -> None:
    async with open_pool(max_workers=1) as pool:
        with pytest.raises(RemoteError) as caught:
            await pool.run_sync(_stop)
        assert caught.value.type_name == "remuda.statemachines.errors.Interrupted"


def _stop() -> None:
    raise Interrupted
