"""Every way a call can end, as its caller sees it: fields, not only text, and plain data throughout.

The snapshot is the other half of the same: what the pool was doing, as typed data.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
import trio

from remuda.runtime.config import Breaker, Restart
from remuda.runtime.snapshot import PoolSnapshot
from remuda.specs.behaviour import Begin, Behaviour, Command, Die, Emit, Hang
from remuda.statemachines.effects import Verdict
from remuda.statemachines.errors import Category, RemudaError, Severity

COMMANDS = {
    "garbage": Command((Begin(), Emit(b"\xff" * 20), Hang())),
    "poison": Command((Die(),)),
}

Cause = Callable[[Any], Awaitable[object]]


async def busy(pool: Any, then: Cause) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.call, "sleep", {"seconds": 9})
        await trio.testing.wait_all_tasks_blocked()
        await then(pool)


async def checkout(pool: Any) -> None:
    async with pool.checkout(timeout=1):
        pass


async def closed(pool: Any) -> None:
    await pool.aclose()
    await pool.call("echo")


async def open_circuit(pool: Any) -> None:
    for _ in range(2):
        try:
            await pool.call("crash")
        except RemudaError:
            pass
    await pool.call("echo")


ENDS: dict[str, Cause] = {
    "RemoteError": lambda pool: pool.call("fail", {"message": "boo"}, session="s"),
    "UnknownCommand": lambda pool: pool.call("no_such"),
    "SerializationError": lambda pool: pool.call("unserializable"),
    "FrameTooLarge": lambda pool: pool.call("large", {"size": 1_000_000}),
    "CallTimeout": lambda pool: pool.call("hang", timeout=1),
    "CheckoutTimeout": lambda pool: busy(pool, checkout),
    "OutcomeUnknown": lambda pool: pool.call("crash"),
    "WorkerDied": lambda pool: pool.call("poison"),
    "ProtocolError": lambda pool: pool.call("garbage"),
    "PoolFull": lambda pool: busy(pool, lambda pool: busy(pool, lambda pool: pool.call("echo"))),
    "PoolClosed": closed,
    "CircuitOpen": open_circuit,
}


@pytest.mark.parametrize("name", ENDS)
async def test_an_error_is_plain_data(simulation: Any, autojump_clock: Any, name: str) -> None:
    fields = {"name": "tea", "max_waiting": 1, "breaker": Breaker(failures=2), "max_frame_bytes": 65536}
    async with simulation(Behaviour(commands=COMMANDS), **fields) as (pool, launcher):
        try:
            await ENDS[name](pool)
        except BaseException as caught:
            error: BaseException = caught
        else:
            raise AssertionError("it did not fail")
        while isinstance(error, BaseExceptionGroup):
            (error,) = error.exceptions
        assert type(error).__name__ == name or type(error).__mro__[1].__name__ == name
        assert isinstance(error, RemudaError)
        told = error.as_dict()
        assert json.loads(json.dumps(told)) == told
        assert (told["error_category"], told["severity"]) == (
            Category(error.category),
            Severity(error.severity),
        )
        assert error.context["pool"] == "tea"
        assert error.context["command"]
        assert "tea" in str(error) or error.context["command"] in str(error) or name == "RemoteError"
        if name not in ("RemoteError", "UnknownCommand", "SerializationError", "FrameTooLarge"):
            assert isinstance(error.snapshot, PoolSnapshot) and error.snapshot.name == "tea"
        if name in ("OutcomeUnknown", "WorkerDied", "ProtocolError"):
            assert error.last_death is not None and "last death: worker 0." in str(error)
        if name == "RemoteError":
            assert error.context["session"] == "s"


async def test_every_verdict_has_an_error_or_a_value() -> None:
    """No verdict is forgotten in the table."""
    from remuda.runtime.outcomes import _ENDS

    without = {Verdict.ANSWERED, Verdict.GRANTED, Verdict.RETURNED, Verdict.CANCELLED}
    assert set(_ENDS) | without == set(Verdict)


async def test_a_snapshot_of_a_busy_pool(simulation: Any, autojump_clock: Any) -> None:
    fields = {"name": "tea", "min_workers": 2, "max_workers": 2}
    async with simulation(**fields) as (pool, launcher), trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(pool.call, "sleep", {"seconds": 5})
        nursery.start_soon(trio.sleep, 0)
        await trio.sleep(2)
        seen = pool.snapshot()
        assert (seen.name, seen.state, seen.breaker) == ("tea", "ready", "closed")
        assert (seen.waiting, seen.in_flight, seen.sessions) == (1, 3, 0)
        assert seen.slots == {"serving": 2}
        assert seen.restart_tokens == pool.config.restart.burst
        for worker in seen.workers:
            assert (worker.state, worker.command, worker.kind) == ("busy", "sleep", "base")
            assert (worker.generation, worker.calls_served, worker.failures) == (1, 0, 0)
            assert worker.seconds_in_state == 2
        assert {worker.pid for worker in seen.workers} == {worker.pid for worker in launcher.workers}
        assert {call.state for call in pool._core.calls.values()} == {"running", "queued"}  # it has looked
        assert str(seen) == "pool 'tea' ready: workers: 2 busy; 1 waiting; breaker closed"


async def test_a_snapshot_is_plain_data(simulation: Any, autojump_clock: Any) -> None:
    """It can be written as JSON and read again, and counts by plain text."""
    async with simulation() as (pool, launcher):
        await pool.call("echo", {"token": 1})
        async with pool.checkout():
            pass
        try:
            await pool.call("crash")
        except RemudaError:
            pass
        seen = pool.snapshot()
        assert seen.ended == {"answered": 1, "returned": 1, "unknown": 1}
        assert {type(key) for key in seen.ended} == {str} == {type(key) for key in seen.slots}
        again = msgspec.json.decode(msgspec.json.encode(seen), type=PoolSnapshot)
        assert again == seen


async def test_what_ended_adds_up(simulation: Any, autojump_clock: Any) -> None:
    """Every call and checkout that was submitted is counted once, whatever became of it."""
    async with simulation(breaker=Breaker(failures=1000), restart=Restart(burst=1000)) as (pool, launcher):
        for _ in range(10):
            for command in ("echo", "fail", "crash", "crash_idempotent", "hang"):
                try:
                    await pool.call(command, timeout=1)
                except RemudaError:
                    pass
            with trio.move_on_after(0.5):
                await pool.call("hang")
            async with pool.checkout() as worker:
                await worker.call("echo", {"token": 1})
        assert sum(pool.snapshot().ended.values()) == 10 * 8
        assert pool.snapshot().in_flight == 0
