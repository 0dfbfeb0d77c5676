"""An ordinary call: what goes in, what comes out, and what is refused before anything is sent."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import trio

from remuda.bridge.adapters import command
from remuda.runtime.opening import open_pool
from remuda.specs.behaviour import Behaviour
from remuda.statemachines.errors import ConfigError, IllegalTransition, PoolClosed, UnknownCommand


async def test_values_go_there_and_back(simulation: Any, autojump_clock: Any) -> None:
    async with simulation() as (pool, launcher):
        values: list[Any] = [None, True, 0, -(2**63), 1.5, "", "ü\n", b"\0\xff", [1, [2]], {"a": {"b": []}}]
        for value in values:
            assert await pool.call("echo", {"token": value}) == value
        assert await pool.call("echo", {"a": 1, "b": 2}) == {"a": 1, "b": 2}
        assert await pool.call("echo") == {}
        assert await pool.call("echo", None) == {}


async def test_by_the_adapters_own_function(simulation: Any, autojump_clock: Any) -> None:
    """Its name is what counts; its arguments go by position."""

    async with simulation() as (pool, launcher):
        assert await pool.call(Tea.echo, 7) == 7
        assert await pool.session("s").call(Tea.echo, 8) == 8
        async with pool.checkout() as worker:
            assert await worker.call(Tea.echo, 9) == 9
        assert [one.call.args for one in launcher.witness.executions] == [[7], [8], [9]]


class Tea:
    @command
    def echo(self, token: int) -> int:
        return token


@pytest.mark.parametrize("args", [([1],), ({}, {}), ("a",), (3,)])
async def test_by_name_it_takes_one_dict(simulation: Any, autojump_clock: Any, args: Any) -> None:
    async with simulation() as (pool, launcher):
        with pytest.raises(ConfigError, match="takes one dict of named arguments"):
            await pool.call("echo", *args)
        assert launcher.witness.executions == []


async def test_an_unknown_command_is_refused_here(simulation: Any, autojump_clock: Any) -> None:
    async with simulation() as (pool, launcher):
        with pytest.raises(UnknownCommand, match="has no command 'ech'; it has: crash, crash_idempotent, echo"):
            await pool.call("ech")
        assert pool.snapshot().ended == {}


async def test_a_pool_of_commands_runs_no_functions(simulation: Any, autojump_clock: Any) -> None:
    async with simulation() as (pool, launcher):
        with pytest.raises(ConfigError, match="runs the commands of its adapter"):
            await pool.run_sync(len, "abc")
        async with pool.checkout() as worker:
            with pytest.raises(ConfigError, match="runs the commands of its adapter"):
                await worker.run_sync(len, "abc")
    async with simulation(adapter=None) as (pool, launcher):
        with pytest.raises(ConfigError, match="has no adapter, so no commands"):
            await pool.call("echo")


async def test_many_at_once(simulation: Any, autojump_clock: Any) -> None:
    """Every caller gets what it asked for, however they are shuffled."""
    async with simulation(Behaviour(chunk=50), max_workers=4) as (pool, launcher):

        async def caller(number: int) -> None:
            for turn in range(5):
                args = {"seconds": 0.01 * (number % 7), "token": [number, turn]}
                assert await pool.call("sleep", args) == args

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(caller, number)
        assert pool.snapshot().ended == {"answered": 500}
        assert launcher.witness.repeated() == {} and launcher.witness.begun.total() == 500


async def test_a_call_leaves_nothing_to_the_garbage_collector() -> None:
    """In a large application its search takes long; calls shall not be what brings it about."""
    async with open_pool(min_workers=1, max_workers=1) as pool:
        await pool.run_sync(len, "warm")
        gc.collect()
        gc.disable()
        try:
            for _ in range(300):  # the timers keep some dozens of those that have ended
                await pool.run_sync(len, "a call")
            found = gc.collect()
        finally:
            gc.enable()
    assert found < 100


async def test_a_call_is_a_checkpoint(simulation: Any, autojump_clock: Any) -> None:
    async with simulation() as (pool, launcher):
        with trio.testing.assert_checkpoints():
            await pool.call("echo", {"token": 1})
        with trio.testing.assert_checkpoints():
            async with pool.checkout():
                pass
        await pool.aclose()
        with trio.testing.assert_checkpoints():
            with pytest.raises(Exception, match="closed"):
                await pool.call("echo", {"token": 1})


# ── Suspended ───────────────────────────────────────────────────────────────────────────────────


async def test_suspend_and_resume(simulation: Any, autojump_clock: Any) -> None:
    async with simulation() as (pool, launcher):
        pool.suspend()
        assert pool.state == "suspended"
        with pytest.raises(IllegalTransition):
            pool.suspend()
        answers: list[Any] = []

        async def caller(number: int) -> None:
            answers.append(await pool.call("echo", {"token": number}))

        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(caller, number)
                await trio.testing.wait_all_tasks_blocked()
            await trio.sleep(10)
            assert answers == [] and pool.snapshot().waiting == 3
            with pytest.raises(trio.TooSlowError), trio.fail_after(1):
                await pool.call("echo", {"token": 9})
            pool.resume()
            with trio.fail_after(1):
                while len(answers) < 3:
                    await trio.sleep(0.01)
        assert answers == [0, 1, 2]
        assert await pool.wait_for("ready") == "ready"
        with pytest.raises(IllegalTransition):
            pool.resume()
        assert await pool.call("echo", {"token": 1}) == 1


async def test_what_runs_when_it_is_suspended_goes_on(simulation: Any, autojump_clock: Any) -> None:
    async with simulation() as (pool, launcher), trio.open_nursery() as nursery:
        answers: list[Any] = []

        async def caller() -> None:
            answers.append(await pool.call("sleep", {"seconds": 2}))

        nursery.start_soon(caller)
        await trio.testing.wait_all_tasks_blocked()
        pool.suspend()
        await trio.sleep(3)
        assert answers == [2]
        launcher.worker(0).crash()  # and a worker that dies is replaced
        await trio.sleep(3)
        assert pool.state == "suspended" and len(launcher.alive) == 1
        pool.resume()
        assert pool.state == "ready"


async def test_a_suspended_pool_closes(simulation: Any, autojump_clock: Any) -> None:
    async with simulation() as (pool, launcher):
        pool.suspend()
    assert pool.state == "closed"


async def test_wait_for(simulation: Any, autojump_clock: Any) -> None:
    async with simulation() as (pool, launcher), trio.open_nursery() as nursery:
        assert await pool.wait_for("ready") == "ready"
        with trio.testing.assert_checkpoints():
            await pool.wait_for("ready")
        seen: list[str] = []

        async def watch() -> None:
            seen.append(await pool.wait_for("draining", "closed"))

        nursery.start_soon(watch)
        await trio.sleep(1)
        assert seen == []
        await pool.aclose()
        await trio.sleep(1)
        assert seen in (["draining"], ["closed"])


async def test_wait_for_what_will_never_be(simulation: Any, autojump_clock: Any) -> None:
    """A closed pool stays closed: who waits for anything else is told, and does not wait for ever."""
    told: list[str] = []

    async def watch() -> None:
        with pytest.raises(PoolClosed) as caught:
            await pool.wait_for("failed", "suspended")
        told.append(str(caught.value))

    async with trio.open_nursery() as nursery:
        async with simulation() as (pool, launcher):
            nursery.start_soon(watch)
            await trio.testing.wait_all_tasks_blocked()
    assert len(told) == 1 and "failed, suspended" in told[0]
    with pytest.raises(PoolClosed):
        await pool.wait_for("ready")
    assert await pool.wait_for("closed", "ready") == "closed"
