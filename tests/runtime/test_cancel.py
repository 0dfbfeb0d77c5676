"""A caller hangs up, at every moment at which it can.

What must hold afterwards, wherever it was: nobody is given what was meant for somebody else, the
pool has as many workers as before, nothing is left over, and it is counted as what it was.
"""

from __future__ import annotations

from typing import Any

import pytest
import trio

from remuda.runtime.pool import Pool
from remuda.specs.behaviour import Begin, Behaviour, Die, Finish, Reply, Wait
from remuda.specs.checkpoints import Mark, Points, cancel_everywhere
from remuda.statemachines.breaker import BreakerState
from remuda.statemachines.pool import PoolState

EVERYWHERE = [pytest.param(Points.OWN, 1, id="own"), pytest.param(Points.ALL, 3, id="all")]


async def is_sound(pool: Pool, workers: int) -> None:
    """The pool is as good as new: full size, nobody in it, and right answers."""
    with trio.fail_after(120):
        for token in ("one", "two", "three"):
            assert await pool.call("echo", {"token": token}) == token
        await pool.wait_for(PoolState.READY)
        while [worker.state for worker in pool.snapshot().workers] != ["ready"] * workers:
            await trio.sleep(0.1)
    seen = pool.snapshot()
    assert (seen.waiting, seen.in_flight) == (0, 0)
    assert seen.breaker == BreakerState.CLOSED
    assert seen.slots == {"serving": workers}


@pytest.mark.parametrize(("points", "rounds"), EVERYWHERE)
def test_a_call_that_runs(simulation: Any, points: Points, rounds: int) -> None:
    async def scenario(mark: Mark) -> None:
        # The channel is slow, so that the call is cancelled while it is half sent, too.
        behaviour = Behaviour(chunk=8, chunk_seconds=0.01)
        async with simulation(behaviour) as (pool, launcher):
            answer = None
            with mark:
                answer = await pool.call("sleep", {"seconds": 1, "token": "mine"})
            assert mark.delivered or answer == {"seconds": 1, "token": "mine"}
            ended = pool.snapshot().ended
            await is_sound(pool, 1)
            assert ended.get("timed_out", 0) == 0
            assert ended.get("cancelled", 0) + ended.get("answered", 0) <= 1
            if not mark.delivered:
                assert ended == {"answered": 1}
            tokens = pool.snapshot().restart_tokens
            assert tokens == pool.config.restart.burst

    tried = cancel_everywhere(scenario, points=points, rounds=rounds)
    assert sum(one.delivered for one in tried) >= 2 * rounds  # before it began, and while it waited


@pytest.mark.parametrize(("points", "rounds"), EVERYWHERE)
def test_two_callers_share_a_worker(simulation: Any, points: Points, rounds: int) -> None:
    """The other one is before and behind the cancelled one, and only ever gets what it asked for."""

    async def scenario(mark: Mark) -> None:
        async with simulation(Behaviour(chunk=16)) as (pool, launcher):

            async def other() -> None:
                for number in range(4):
                    args = {"seconds": 0.5, "token": number}
                    assert await pool.call("sleep", args) == args

            async with trio.open_nursery() as nursery:
                nursery.start_soon(other)
                answer = None
                with mark:
                    answer = await pool.call("sleep", {"seconds": 0.5, "token": "mine"})
                assert mark.delivered or answer == {"seconds": 0.5, "token": "mine"}
            assert pool.snapshot().ended.get("answered", 0) >= 4
            await is_sound(pool, 1)

    cancel_everywhere(scenario, points=points, rounds=rounds)


@pytest.mark.parametrize(("points", "rounds"), EVERYWHERE)
def test_a_call_that_is_handed_over_and_repeated(simulation: Any, points: Points, rounds: int) -> None:
    """Its first worker dies before it begins, its second while it runs, the third answers."""

    def cast(order: Any) -> Behaviour:
        plays: Any = {1: {1: (Wait(0.1), Die())}, 2: {1: (Begin(), Wait(0.1), Die())}}
        return Behaviour(calls=plays.get(order.generation, {}))

    async def scenario(mark: Mark) -> None:
        async with simulation(cast) as (pool, launcher):
            answer = None
            with mark:
                answer = await pool.call("echo", {"token": "mine"})
            assert mark.delivered or answer == "mine"
            await is_sound(pool, 1)

    cancel_everywhere(scenario, points=points, rounds=rounds)


@pytest.mark.parametrize(("points", "rounds"), EVERYWHERE)
def test_a_checkout_and_a_call_on_it(simulation: Any, points: Points, rounds: int) -> None:
    async def scenario(mark: Mark) -> None:
        async with simulation(max_workers=2, min_workers=2) as (pool, launcher):
            with mark:
                async with pool.checkout() as worker:
                    assert await worker.call("sleep", {"seconds": 1, "token": 1}) == {
                        "seconds": 1,
                        "token": 1,
                    }
                    await trio.sleep(1)
                    assert await worker.call("echo", {"token": 2}) == 2
            await is_sound(pool, 2)

    cancel_everywhere(scenario, points=points, rounds=rounds)


@pytest.mark.parametrize(("points", "rounds"), EVERYWHERE)
def test_a_call_that_is_written_to_the_journal(simulation: Any, points: Points, rounds: int) -> None:
    """If the caller was told that it is remembered, it is; and the worker of today agrees with the next."""

    async def scenario(mark: Mark) -> None:
        async with simulation() as (pool, launcher):
            await pool.call("remember", {"key": "a", "value": 1})
            told = False
            with mark:
                await pool.call("remember", {"key": "a", "value": 2})
                told = True
            value = await pool.call("recall", {"key": "a"})
            assert value == 2 if told else value in (1, 2)
            launcher.worker(0).crash()
            assert await pool.call("recall", {"key": "a"}) == value
            await is_sound(pool, 1)

    cancel_everywhere(scenario, points=points, rounds=rounds)


# ── What it costs, and how it is told apart ─────────────────────────────────────────────────────


async def test_in_the_queue_it_costs_no_worker(simulation: Any, autojump_clock: Any) -> None:
    async with simulation() as (pool, launcher), trio.open_nursery() as nursery:
        nursery.start_soon(pool.call, "sleep", {"seconds": 10})
        await trio.testing.wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            nursery.start_soon(trio.lowlevel.checkpoint)

            async def soon() -> None:
                await trio.sleep(1)
                scope.cancel()

            nursery.start_soon(soon)
            await pool.call("once", {"token": "never"})
        assert scope.cancelled_caught
        assert pool.snapshot().waiting == 0
        assert pool.snapshot().ended == {"cancelled": 1}
        assert len(launcher.alive) == 1 and launcher.witness.launched == 1
    assert launcher.witness.launched == 1
    assert [one.call.command for one in launcher.witness.executions] == ["sleep"]


async def test_on_a_worker_it_costs_that_worker(simulation: Any, autojump_clock: Any) -> None:
    async with simulation() as (pool, launcher):
        first = launcher.worker(0)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pool.call, "hang")
                await trio.sleep(1)
                scope.cancel()
        await launcher.until(lambda: not first.alive)
        assert await pool.call("echo", {"token": 1}) == 1
        assert pool.snapshot().ended == {"cancelled": 1, "answered": 1}
        assert pool.last_death is None  # the pool did it itself
        assert pool.snapshot().breaker == "closed"


async def test_with_the_answer_in_the_pipe_it_costs_nothing(simulation: Any, autojump_clock: Any) -> None:
    """The cancellation and the answer arrive at the same instant, before the caller has read it."""
    behaviour = Behaviour(commands={})
    async with simulation(behaviour) as (pool, launcher):
        worker = launcher.worker(0)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def cancel_when_answered() -> None:
                    await launcher.until(lambda: bool(launcher.witness.finished))
                    scope.cancel()

                nursery.start_soon(cancel_when_answered)
                await pool.call("sleep", {"seconds": 1})
                # Reached when the caller was quicker than the one who cancels; both are right.
        assert worker.alive
        assert await pool.call("echo", {"token": 1}) == 1
        assert worker.alive
        assert pool.snapshot().ended == {"answered": 2}
    assert launcher.witness.launched == 1


async def test_a_whole_answer_that_nobody_read_yet_counts(simulation: Any, autojump_clock: Any) -> None:
    """As before, but for certain: cancelled first, and answered before the caller's task could run."""
    scope = trio.CancelScope()

    def cancel_the_caller(call: Any, memory: Any) -> object:
        scope.cancel()
        return "late"

    play = (Begin(), Wait(1), Reply(cancel_the_caller), Finish())
    async with simulation(Behaviour(calls={1: play})) as (pool, launcher):
        worker = launcher.worker(0)
        with scope:
            await pool.call("echo", {"token": 0})
        assert scope.cancelled_caught
        assert worker.alive
        assert await pool.call("echo", {"token": 1}) == 1
        assert pool.snapshot().ended == {"answered": 2}
        assert launcher.witness.launched == 1


async def test_cancelled_in_the_queue_as_its_turn_comes(simulation: Any, autojump_clock: Any) -> None:
    """It leaves the queue at that instant, and not when its task runs: no worker is spent on it.

    Trio shuffles the two tasks; in twenty rounds both orders come up.
    """
    for _ in range(20):
        scope = trio.CancelScope()

        def cancel_the_other(call: Any, memory: Any, scope: trio.CancelScope = scope) -> object:
            scope.cancel()
            return "mine"

        play = (Begin(), Wait(1), Reply(cancel_the_other), Finish())
        async with simulation(Behaviour(calls={1: play})) as (pool, launcher):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pool.call, "echo", {"token": "mine"})
                await trio.testing.wait_all_tasks_blocked()
                with scope:
                    await pool.call("once", {"token": "other"})
            assert scope.cancelled_caught
            assert pool.snapshot().ended == {"answered": 1, "cancelled": 1}
            assert launcher.witness.launched == len(launcher.alive) == 1
            assert len(launcher.witness.executions) == 1


async def test_a_dead_caller_submits_nothing(simulation: Any, autojump_clock: Any) -> None:
    async with simulation() as (pool, launcher):
        with trio.CancelScope() as scope:
            scope.cancel()
            await pool.call("echo", {"token": 1})
        assert scope.cancelled_caught
        assert pool.snapshot().ended == {}
        assert launcher.witness.executions == []


# ── Many of them ────────────────────────────────────────────────────────────────────────────────


async def test_ten_thousand_callers_hang_up(simulation: Any, autojump_clock: Any) -> None:
    """Half of them while they run, which costs a worker each; nothing of it is held against the pool."""
    async with simulation(max_workers=2, min_workers=2) as (pool, launcher):
        for number in range(10_000):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(pool.call, "hang")
                    if number % 2:
                        await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
        seen = pool.snapshot()
        assert seen.restart_tokens == pool.config.restart.burst
        assert seen.breaker == "closed"
        assert seen.ended.get("timed_out", 0) == 0 and set(seen.ended) == {"cancelled"}
        assert await pool.wait_for(PoolState.READY) == "ready"
        assert await pool.call("echo", {"token": 1}) == 1
        assert pool.snapshot().restart_tokens == pool.config.restart.burst
    assert launcher.witness.launched > 4000
