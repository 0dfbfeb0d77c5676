"""The breaker around the pool: calls that fail by the pool's fault, one after another, stop the next.

What user code raises is an answer, and answers are what a pool is for: they never open it.
"""

from __future__ import annotations

from typing import Any

import pytest
import trio

from remuda.runtime.config import Breaker, Restart
from remuda.specs.behaviour import Begin, Behaviour, Command, Emit, Hang
from remuda.statemachines.errors import CallTimeout, CircuitOpen, OutcomeUnknown, ProtocolError, RemoteError

BREAKER = Breaker(failures=3, probes=2, open_for=20.0)
GARBAGE = Behaviour(commands={"garbage": Command((Begin(), Emit(b"\xff" * 20), Hang()))})
FAULTS = {"crash": OutcomeUnknown, "hang": CallTimeout, "garbage": ProtocolError}


async def fail(pool: Any, command: str = "crash", times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(FAULTS[command]):
            await pool.call(command, timeout=1)


@pytest.mark.parametrize("fault", FAULTS)
async def test_it_opens(simulation: Any, autojump_clock: Any, fault: str) -> None:
    async with simulation(GARBAGE, breaker=BREAKER, name="tea") as (pool, launcher):
        await fail(pool, fault, 2)
        assert pool.snapshot().breaker == "closed"
        await fail(pool, fault)
        assert pool.snapshot().breaker == "open"
        begun = launcher.witness.begun.total()
        begins = trio.current_time()
        await trio.sleep(5)
        with pytest.raises(CircuitOpen, match="pool 'tea' refuses calls .*3 calls in a row failed") as caught:
            await pool.call("echo", {"token": 1})
        assert caught.value.retry_after == pytest.approx(15)
        assert caught.value.recoverable
        assert trio.current_time() - begins == pytest.approx(5)
        assert launcher.witness.begun.total() == begun
        assert await pool.wait_for("impaired") == "impaired"
        assert pool.snapshot().ended["circuit_open"] == 1


async def test_a_success_between_starts_the_count_anew(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(breaker=BREAKER, restart=Restart(burst=100)) as (pool, launcher):
        for _ in range(10):
            await fail(pool, times=2)
            assert await pool.call("echo", {"token": 1}) == 1
        assert pool.snapshot().breaker == "closed"


async def test_what_user_code_raises_never_counts(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(breaker=Breaker(failures=1)) as (pool, launcher):
        for _ in range(50):
            with pytest.raises(RemoteError):
                await pool.call("fail", {"message": "boo"})
        for command in ("unfit", "no_such", "unserializable"):
            with pytest.raises(Exception):  # noqa: B017
                await pool.call(command)
        assert pool.snapshot().breaker == "closed"


async def test_who_hangs_up_or_waits_in_vain_does_not_count(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(breaker=Breaker(failures=1)) as (pool, launcher):
        for _ in range(5):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(pool.call, "hang")
                    await trio.sleep(1)
                    scope.cancel()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.call, "sleep", {"seconds": 5})
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(CallTimeout):
                await pool.call("echo", {"token": 1}, timeout=1)
        assert pool.snapshot().breaker == "closed"


async def test_probes_close_it(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(breaker=BREAKER) as (pool, launcher):
        await fail(pool, times=3)
        await trio.sleep(20.5)
        assert pool.snapshot().breaker == "half_open"
        assert await pool.call("echo", {"token": 1}) == 1
        assert pool.snapshot().breaker == "half_open"
        assert await pool.call("echo", {"token": 2}) == 2
        assert pool.snapshot().breaker == "closed"
        assert await pool.wait_for("ready") == "ready"


async def test_only_so_many_probes_at_a_time(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(breaker=BREAKER) as (pool, launcher):
        await fail(pool, times=3)
        await trio.sleep(20.5)
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(pool.call, "sleep", {"seconds": 1})
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(CircuitOpen):
                await pool.call("echo", {"token": 1})
        assert pool.snapshot().breaker == "closed"


async def test_a_probe_that_fails_opens_it_again(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(breaker=BREAKER) as (pool, launcher):
        await fail(pool, times=3)
        await trio.sleep(20.5)
        await fail(pool)
        assert pool.snapshot().breaker == "open"
        with pytest.raises(CircuitOpen) as caught:
            await pool.call("echo", {"token": 1})
        assert caught.value.retry_after == pytest.approx(20)


async def test_a_caller_who_tries_again_when_told(simulation: Any, autojump_clock: Any) -> None:
    """`retry_after` is meant: whoever keeps to it gets through."""
    async with simulation(breaker=BREAKER) as (pool, launcher):
        await fail(pool, times=3)
        for _ in range(3):
            try:
                assert await pool.call("echo", {"token": 1}) == 1
                break
            except CircuitOpen as error:
                assert error.retry_after is not None
                await trio.sleep(error.retry_after)
        else:
            raise AssertionError("it never got through")


async def test_attempts_of_one_call_count_once(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(breaker=BREAKER) as (pool, launcher):
        with pytest.raises(OutcomeUnknown):
            await pool.call("crash_idempotent")
        assert launcher.witness.begun.total() == 3
        assert pool.snapshot().breaker == "closed"


async def test_checkouts_pass_but_calls_on_them_do_not(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(breaker=BREAKER) as (pool, launcher):
        await fail(pool, times=3)
        async with pool.checkout() as worker:
            with pytest.raises(CircuitOpen):
                await worker.call("echo", {"token": 1})
            await trio.sleep(21)
            assert await worker.call("echo", {"token": 1}) == 1
