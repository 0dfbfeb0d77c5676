"""Who gets which worker, and when: sessions, turns, and the bound on those who wait."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from remuda.specs.behaviour import Behaviour, Hello, Wait
from remuda.statemachines.errors import ConfigError, PoolFull


def slots(launcher: Any, session: str) -> list[int]:
    """Where the calls with this token ran."""
    return [one.slot for one in launcher.witness.executions if one.call.args.get("token") == session]


async def test_a_session_prefers_its_worker(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(min_workers=2, max_workers=2) as (pool, launcher):
        a, b = pool.session("a"), pool.session("b")
        async with trio.open_nursery() as nursery:  # at the same time, so on two workers
            for name, session in (("a", a), ("b", b)):
                nursery.start_soon(session.call, "sleep", {"seconds": 1, "token": name})
        for _ in range(10):
            await a.call("echo", {"token": "a"})
            await b.call("echo", {"token": "b"})
        assert len(set(slots(launcher, "a"))) == len(set(slots(launcher, "b"))) == 1
        assert set(slots(launcher, "a")) != set(slots(launcher, "b"))
        assert pool.snapshot().sessions == 2
        assert await pool.call("echo", {"token": "a"}, session="a") == "a"  # the same by another way
        assert len(set(slots(launcher, "a"))) == 1
        async with pool.checkout(session="b") as worker:
            assert worker.slot == slots(launcher, "b")[0]


async def test_it_rather_moves_than_waits(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(min_workers=2, max_workers=2) as (pool, launcher):
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(pool.session("a").call, "sleep", {"seconds": 1, "token": "a"})
        assert trio.current_time() == 1
        assert set(slots(launcher, "a")) == {0, 1}


async def test_its_worker_dies(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(min_workers=2, max_workers=2) as (pool, launcher):
        session = pool.session("a")
        await session.call("echo", {"token": "a"})
        launcher.worker(slots(launcher, "a")[0]).crash()
        assert await session.call("echo", {"token": "a"}) == "a"
        assert pool.snapshot().sessions == 1


async def test_it_is_ended(simulation: Any, autojump_clock: Any) -> None:
    async with simulation() as (pool, launcher):
        session = pool.session("a")
        await session.call("echo", {"token": "a"})
        assert pool.snapshot().sessions == 1
        await session.end()
        await session.end()
        assert pool.snapshot().sessions == 0
        await session.call("echo", {"token": "a"})
        assert pool.snapshot().sessions == 1


async def test_it_is_forgotten(simulation: Any, autojump_clock: Any) -> None:
    """After `session_ttl` seconds without a call, and each call begins them anew."""
    async with simulation(session_ttl=10) as (pool, launcher):
        for _ in range(5):
            await pool.session("a").call("echo", {"token": "a"})
            await trio.sleep(6)
        assert pool.snapshot().sessions == 1
        await trio.sleep(10)
        assert pool.snapshot().sessions == 0
        for number in range(1000):
            await pool.session(str(number)).call("echo", {"token": number})
        assert pool.snapshot().sessions == 1000
        await trio.sleep(25)
        assert pool.snapshot().sessions == 0


@pytest.mark.parametrize("wrong", ["", 3, b"a"])
async def test_a_name_that_is_none(simulation: Any, autojump_clock: Any, wrong: Any) -> None:
    async with simulation() as (pool, launcher):
        with pytest.raises(ConfigError, match="session"):
            await pool.session(wrong).call("echo", {"token": 1})
        with pytest.raises(ConfigError, match="session"):
            await pool.call("echo", {"token": 1}, session=wrong)


# ── Turns ───────────────────────────────────────────────────────────────────────────────────────


async def run_in_line(pool: Any, line: list[tuple[str | None, int]]) -> None:
    """Callers come one after the other, while the only worker is busy."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.call, "sleep", {"seconds": 1})
        await trio.testing.wait_all_tasks_blocked()
        for session, number in line:

            async def caller(session: str | None = session, number: int = number) -> None:
                await pool.call("sleep", {"seconds": 1, "token": (session, number)}, session=session)

            nursery.start_soon(caller)
            await trio.testing.wait_all_tasks_blocked()


def order(launcher: Any) -> list[tuple[str | None, int]]:
    found = [one.call.args.get("token") for one in launcher.witness.executions[1:]]
    return [(token[0], token[1]) for token in found]


async def test_who_comes_first_is_served_first(simulation: Any, autojump_clock: Any) -> None:
    async with simulation() as (pool, launcher):
        line: list[tuple[str | None, int]] = [(None, number) for number in range(10)]
        await run_in_line(pool, line)
        assert order(launcher) == line


async def test_a_session_with_many_calls_does_not_starve_the_others(simulation: Any, autojump_clock: Any) -> None:
    async with simulation() as (pool, launcher):
        greedy: list[tuple[str | None, int]] = [("greedy", number) for number in range(8)]
        await run_in_line(pool, [*greedy, ("modest", 0), ("modest", 1)])
        served = order(launcher)
        assert sorted(served) == sorted([*greedy, ("modest", 0), ("modest", 1)])
        assert served.index(("modest", 0)) <= 2 and served.index(("modest", 1)) <= 4
        assert [one for one in served if one[0] == "greedy"] == greedy  # and in each lane, in order


async def test_one_that_leaves_the_line_moves_nobody(simulation: Any, autojump_clock: Any) -> None:
    async with simulation() as (pool, launcher), trio.open_nursery() as nursery:
        scopes: list[trio.CancelScope] = []

        async def caller(number: int) -> None:
            with trio.CancelScope() as scope:
                scopes.append(scope)
                await pool.call("echo", {"token": (None, number)})

        nursery.start_soon(pool.call, "sleep", {"seconds": 5})
        await trio.testing.wait_all_tasks_blocked()
        for number in range(6):
            nursery.start_soon(caller, number)
            await trio.testing.wait_all_tasks_blocked()
        for number in (0, 3, 5):
            scopes[number].cancel()
        await trio.sleep(6)
        assert [number for _, number in order(launcher)] == [1, 2, 4]


async def test_as_many_wait_as_may(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(max_waiting=2, name="tea") as (pool, launcher), trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(pool.call, "sleep", {"seconds": 5})
            await trio.testing.wait_all_tasks_blocked()
        assert pool.snapshot().waiting == 2
        for _ in range(3):
            with pytest.raises(PoolFull, match="pool 'tea' is full: 2 callers are waiting") as caught:
                await pool.call("echo", {"token": 1})
        assert caught.value.recoverable and caught.value.snapshot is not None
        assert caught.value.snapshot.waiting == 2  # type: ignore[attr-defined]
        await trio.sleep(6)
        nursery.start_soon(pool.call, "echo", {"token": 2})
        await trio.sleep(10)
        assert pool.snapshot().ended == {"answered": 4, "full": 3}


# ── More workers when they are wanted ───────────────────────────────────────────────────────────


async def test_workers_come_when_callers_wait(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(min_workers=1, max_workers=4, start_concurrency=4) as (pool, launcher):
        assert launcher.witness.launched == 1
        for _ in range(5):
            await pool.call("echo", {"token": 1})
        assert launcher.witness.launched == 1  # nobody had to wait
        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(pool.call, "sleep", {"seconds": 1})
        assert trio.current_time() == 3
        assert launcher.witness.launched == 4
        await trio.sleep(1000)
        assert len(launcher.alive) == 4  # they stay


async def test_workers_for_a_peak_leave_again(simulation: Any, autojump_clock: Any) -> None:
    fields = {"max_workers": 1, "overflow": 2, "overflow_linger": 10, "start_concurrency": 4}
    async with simulation(**fields) as (pool, launcher):
        async with trio.open_nursery() as nursery:
            for _ in range(9):
                nursery.start_soon(pool.call, "sleep", {"seconds": 1})
            await trio.sleep(0.5)
            kinds = sorted(worker.kind for worker in pool.snapshot().workers)
            assert kinds == ["base", "overflow", "overflow"]
        assert trio.current_time() == 3
        await trio.sleep(9.5)
        assert len(launcher.alive) == 3
        await trio.sleep(1)
        assert [worker.kind for worker in pool.snapshot().workers] == ["base"]
        assert len(launcher.alive) == 1
        assert pool.state == "ready" and pool.last_death is None
        # The next peak brings them again.
        async with trio.open_nursery() as nursery:
            for _ in range(9):
                nursery.start_soon(pool.call, "sleep", {"seconds": 1})
        assert launcher.witness.launched == 5


async def test_a_worker_for_a_peak_that_worked_for_long_leaves_as_soon(simulation: Any, autojump_clock: Any) -> None:
    """The moment at which it would have left comes while it is busy."""
    async with simulation(max_workers=1, overflow=1, overflow_linger=2) as (pool, launcher):
        async with pool.checkout():
            async with pool.checkout():
                pass
            await trio.sleep(1)
            async with pool.checkout():
                await trio.sleep(3)
            idle_since = trio.current_time()
            await launcher.until(lambda: len(launcher.alive) == 1)
            assert trio.current_time() - idle_since == pytest.approx(2)


async def test_a_caller_does_not_wait_for_the_worker_that_was_started_for_it(
    simulation: Any, autojump_clock: Any
) -> None:
    """Whichever is free first: the new one, or the old one."""

    def cast(order: Any) -> Behaviour:
        return Behaviour() if order.slot == 0 else Behaviour(boot=(Wait(100), Hello()))

    async with simulation(cast, max_workers=2, call_timeout=500, init_timeout=500) as (pool, launcher):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(pool.call, "sleep", {"seconds": 1})
        assert trio.current_time() == 3
