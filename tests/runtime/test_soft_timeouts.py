"""Calls that are told to stop, in virtual time: who waits for what, and how long."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from remuda.runtime.config import PoolConfig
from remuda.specs.behaviour import Begin, Behaviour, Command, Finish, Freeze, Hang, Progress, Reply, Wait
from remuda.statemachines.errors import CallTimeout, ConfigError, InvalidLease

SOFT = {"on_timeout": "interrupt", "interrupt_grace": 3.0}
DEAF = Behaviour(
    commands={
        "deaf": Command((Begin(), Hang(deaf=True))),
        "slow": Command((Begin(), Wait(4.0, deaf=True), Reply(), Finish())),
        "frozen": Command((Begin(), Freeze(), Hang())),
        "reports": Command((Begin(), Progress(1, 2, "half"), Hang())),
        "kept": Command((Begin(), Wait(90), Reply(), Finish()), on_timeout="kill"),
        "noted": Command((Begin(), Wait(90), Reply(), Finish()), journal=True),
    }
)


async def late(caller: Any, command: str, seconds: float = 2.0, **options: Any) -> CallTimeout:
    with pytest.raises(CallTimeout) as caught:
        await caller.call(command, timeout=seconds, **options)
    return caught.value


async def test_its_caller_is_answered_at_once_and_the_worker_stays(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(DEAF, **SOFT) as (pool, launcher):
        begins = trio.current_time()
        error = await late(pool, "hang")
        assert trio.current_time() - begins == 2.0
        assert error.stack is not None and "running" in error.stack
        assert "is killed if it does not do so within 3 s" in str(error)
        assert await pool.call("echo", {"token": 1}) == 1
        assert trio.current_time() - begins == 2.0
        assert launcher.witness.launched == 1


async def test_who_does_not_stop_is_killed_when_its_grace_is_over(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(DEAF, **SOFT) as (pool, launcher):
        begins = trio.current_time()
        await late(pool, "deaf")
        assert trio.current_time() - begins == 2.0
        assert await pool.call("echo", {"token": 1}) == 1
        assert trio.current_time() - begins == 5.0
        assert launcher.witness.launched == 2


async def test_a_late_answer_reaches_nobody(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(DEAF, **SOFT) as (pool, launcher):
        begins = trio.current_time()
        await late(pool, "slow")
        assert await pool.call("echo", {"token": 1}) == 1
        assert trio.current_time() - begins == 4.0
        assert launcher.witness.launched == 1
        assert pool.snapshot().ended == {"timed_out": 1, "answered": 1}


async def test_nobody_waits_long_for_a_stack(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(DEAF, **SOFT) as (pool, launcher):
        begins = trio.current_time()
        error = await late(pool, "frozen")
        assert trio.current_time() - begins == pytest.approx(2.1)
        assert error.stack is None
        with trio.move_on_after(2) as scope:  # who has a deadline of trio's does not wait at all
            await pool.call("frozen")
        assert scope.cancelled_caught


async def test_what_is_killed_has_no_stack_and_no_delay(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(DEAF, **SOFT) as (pool, launcher):
        for number, (command, options) in enumerate([("kept", {}), ("noted", {}), ("hang", {"on_timeout": "kill"})]):
            begins = trio.current_time()
            assert (await late(pool, command, **options)).stack is None
            assert trio.current_time() - begins == 2.0
            assert await pool.call("echo", {"token": 1}) == 1
            assert launcher.witness.launched == number + 2
        assert (await late(pool, "kept", on_timeout="interrupt")).stack is not None


async def test_the_next_call_on_a_checkout_waits_for_the_last(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(DEAF, **SOFT) as (pool, launcher), pool.checkout() as lease:
        begins = trio.current_time()
        await late(lease, "slow")
        assert "never begun" in str(await late(lease, "echo", 1.0))  # its own time counts
        assert trio.current_time() - begins == 3.0
        assert await lease.call("echo", {"token": 1}) == 1
        assert trio.current_time() - begins == 4.0
        assert launcher.witness.launched == 1


async def test_two_calls_on_a_checkout_are_one_too_many(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(DEAF, **SOFT) as (pool, launcher), pool.checkout() as lease:
        await late(lease, "slow")
        refused: list[InvalidLease] = []

        async def call() -> None:
            try:
                await lease.call("sleep", {"seconds": 1})
            except InvalidLease as error:
                refused.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            nursery.start_soon(call)
        assert len(refused) == 1


async def test_what_it_does_is_seen(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(DEAF) as (pool, launcher), trio.open_nursery() as nursery:
        nursery.start_soon(late, pool, "reports", 50.0)
        await trio.sleep(3)
        (worker,) = pool.snapshot().workers
        assert (worker.phase, worker.silent_for, str(worker.progress)) == ("running", 3.0, "1 of 2: half")


@pytest.mark.parametrize(
    "fields", [{"on_timeout": "ask"}, {"on_timeout": None}, {"interrupt_grace": 0}, {"interrupt_grace": "1"}]
)
def test_settings_that_are_none(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(fields))):
        PoolConfig(**fields)
