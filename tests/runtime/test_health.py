"""Idle workers are asked whether they are well; those that are not get no work, and are replaced.

A worker that works shows its health by working and is not asked. Times are virtual, and exact.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio

from remuda.bridge import messages
from remuda.runtime.config import Health
from remuda.specs.behaviour import Behaviour, Die, Freeze, Hang, HangUp, Pong, Script, Send, Wait
from remuda.statemachines.errors import CallTimeout, RemoteError

HEALTH = Health(interval=10.0, timeout=2.0, failures=3, recheck=4.0)
ILL = (Pong(False, "out of tea"),)


def states(pool: Any) -> list[str]:
    return [str(worker.state) for worker in pool.snapshot().workers]


def first(**fields: Any) -> Script:
    return Script({(0, 1): Behaviour(**fields)})


async def test_an_idle_worker_is_asked_at_its_interval(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(Behaviour(ping=(Wait(1), Pong())), health=HEALTH) as (pool, launcher):
        await trio.sleep(9.5)
        assert states(pool) == ["ready"]
        await trio.sleep(1)
        assert states(pool) == ["checking"]
        await trio.sleep(1)
        assert states(pool) == ["ready"]
        await trio.sleep(1000)
        assert launcher.witness.launched == 1
        assert pool.state == "ready"
        assert pool._core.crew.slots[0].worker.checks == 92  # at 10, 21, 32 …


async def test_it_may_be_switched_off(simulation: Any, autojump_clock: Any) -> None:
    behaviour = Behaviour(ping=(Die(),))
    async with simulation(behaviour, health=Health(interval=math.inf)) as (pool, launcher):
        await trio.sleep(80_000)
        assert launcher.witness.launched == 1


async def test_a_frozen_worker_is_found_and_replaced(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(health=HEALTH) as (pool, launcher):
        worker = launcher.worker(0)
        worker.freeze()
        # asked at 10, no answer at 12; again at 16, 18; at 22, 24: the third time is the last
        await trio.sleep(23.5)
        assert worker.alive and states(pool) == ["checking"]
        await trio.sleep(1)
        assert not worker.alive
        assert pool.last_death is not None and "it failed 3 health checks" in pool.last_death.cause
        await pool.wait_for("ready")
        assert await pool.call("echo", {"token": 1}) == 1


async def test_it_says_that_it_is_ill(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(first(ping=ILL), health=HEALTH) as (pool, launcher):
        await trio.sleep(10.5)
        assert states(pool) == ["degraded"]
        assert pool.state == "impaired"
        assert pool.snapshot().workers[0].failures == 1
        await trio.sleep(8)
        assert pool.last_death is not None
        assert pool.last_death.cause == "it failed 3 health checks: out of tea"
        assert launcher.witness.launched == 2


async def test_a_degraded_worker_gets_no_calls(simulation: Any, autojump_clock: Any) -> None:
    """The other one serves; when the ill one is well again it takes part as before."""
    cast = Script({(0, 1): Behaviour(pings={1: ILL})})
    async with simulation(cast, health=HEALTH, min_workers=2, max_workers=2) as (pool, launcher):
        await trio.sleep(10.5)
        assert states(pool) == ["degraded", "ready"]
        for number in range(5):
            assert await pool.call("echo", {"token": number}) == number
        assert {one.slot for one in launcher.witness.executions} == {1}
        await trio.sleep(4)
        assert states(pool) == ["ready", "ready"]
        assert pool.snapshot().workers[0].failures == 0
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(pool.call, "sleep", {"seconds": 1})
        assert {one.slot for one in launcher.witness.executions} == {0, 1}
        assert launcher.witness.launched == 2


async def test_callers_wait_for_a_worker_under_check(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(Behaviour(ping=(Wait(1), Pong())), health=HEALTH) as (pool, launcher):
        await trio.sleep(10.5)
        begins = trio.current_time()
        assert await pool.call("echo", {"token": 1}) == 1
        assert trio.current_time() - begins == 0.5
        assert launcher.witness.launched == 1


@pytest.mark.parametrize("late", [2.5, 5.9, 6.5, 8.5])
async def test_a_late_answer_is_not_taken_for_another(simulation: Any, autojump_clock: Any, late: float) -> None:
    """It counts as a failure, once, and does no other harm."""
    async with simulation(first(pings={1: (Wait(late), Pong())}), health=HEALTH) as (pool, launcher):
        await trio.sleep(12.25)
        assert states(pool) == ["degraded"]
        with trio.fail_after(60):
            for number in range(3):
                assert await pool.call("echo", {"token": number}) == number
        assert states(pool) == ["ready"]
        assert launcher.witness.launched == 1


async def test_an_answer_to_a_check_that_nobody_made(simulation: Any, autojump_clock: Any) -> None:
    """It breaks the rules, like an answer to a call that nobody made: else a worker could send them without end."""
    behaviour = first(ping=(Send(messages.Pong(77, True, "")), Pong()))
    async with simulation(behaviour, health=HEALTH) as (pool, launcher):
        await trio.sleep(11)
        assert pool.last_death is not None
        assert pool.last_death.cause == "it answered health check 77, which it does not have"
        await pool.wait_for("ready")
        assert await pool.call("echo", {"token": 1}) == 1
        assert launcher.witness.launched == 2


async def test_two_answers_to_one_check(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(first(ping=(Pong(), Pong())), health=HEALTH) as (pool, launcher):
        await trio.sleep(22)
        assert launcher.witness.launched == 2


@pytest.mark.parametrize("play", [(Die(),), (HangUp(), Hang()), (Send(messages.Result(1, 1)), Hang())])
async def test_it_ends_or_breaks_the_rules_when_asked(simulation: Any, autojump_clock: Any, play: Any) -> None:
    async with simulation(first(ping=play), health=HEALTH) as (pool, launcher):
        await trio.sleep(11)
        assert launcher.witness.launched == 2
        await pool.wait_for("ready")
        assert await pool.call("echo", {"token": 1}) == 1


async def test_a_busy_worker_is_not_asked(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(Behaviour(ping=(Die(),)), health=HEALTH, call_timeout=1000) as (pool, launcher):
        assert await pool.call("sleep", {"seconds": 500}) == 500
        async with pool.checkout() as worker:
            await trio.sleep(500)
            assert await worker.call("echo", {"token": 1}) == 1
        assert launcher.witness.launched == 1


async def test_work_puts_it_off(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(Behaviour(ping=(Die(),)), health=HEALTH) as (pool, launcher):
        for number in range(50):
            assert await pool.call("echo", {"token": number}) == number
            await trio.sleep(9)
        assert launcher.witness.launched == 1


async def test_errors_that_implicate_the_worker_count(simulation: Any, autojump_clock: Any) -> None:
    """Three in a row, and it goes in order; one good answer between them, and it stays."""
    async with simulation(health=HEALTH) as (pool, launcher):
        for _ in range(2):
            with pytest.raises(RemoteError):
                await pool.call("unfit")
            assert await pool.call("echo", {"token": 1}) == 1  # after the check that it has passed
        assert launcher.witness.launched == 1
    async with simulation(health=Health(failures=1)) as (pool, launcher):
        with pytest.raises(RemoteError):
            await pool.call("unfit")
        await trio.testing.wait_all_tasks_blocked()
        assert await pool.call("echo", {"token": 1}) == 1
        assert launcher.witness.launched == 2


async def test_it_freezes_with_a_call_in_hand(simulation: Any, autojump_clock: Any) -> None:
    """Then it is the call's deadline that finds it, not a check."""
    cast = Script({(0, 1): Behaviour(calls={1: (Freeze(),)})})
    async with simulation(cast, health=HEALTH) as (pool, launcher):
        begins = trio.current_time()
        with pytest.raises(CallTimeout):
            await pool.call("once", timeout=50)
        assert trio.current_time() - begins == 50


async def test_the_pool_closes_in_the_middle_of_a_check(simulation: Any, autojump_clock: Any) -> None:
    for ping in ((Wait(1), Pong()), (Hang(),), (Freeze(),)):
        async with simulation(Behaviour(ping=ping), health=HEALTH, shutdown_timeout=5) as (pool, launcher):
            await trio.sleep(10.5)
            assert states(pool) == ["checking"]
            begins = trio.current_time()
        assert trio.current_time() - begins <= 5
