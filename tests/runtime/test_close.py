"""The end of a pool: in order if it can be, within its bound whatever the workers do.

The bound is virtual time and is kept to the instant. And what the block raised is what arrives.
"""

from __future__ import annotations

import math
import signal
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import trio

from remuda.bridge import messages
from remuda.bridge.frames import pack
from remuda.runtime import dice
from remuda.runtime.config import PoolConfig, Retry
from remuda.runtime.opening import open_pool, run_pool
from remuda.runtime.pool import Pool
from remuda.specs.behaviour import (
    Begin,
    Behaviour,
    Command,
    Die,
    Finish,
    Fork,
    Hang,
    HangUp,
    Hello,
    Reply,
    Wait,
)
from remuda.specs.checkpoints import Mark, Points, cancel_everywhere
from remuda.specs.simulated import SimLauncher, SimWorker
from remuda.statemachines.errors import ConfigError, OutcomeUnknown, PoolClosed

STUBBORN = {
    "well-behaved": Behaviour(),
    "slow to go": Behaviour(shutdown=(Wait(0.5), Die(0))),
    "deaf to shutdown": Behaviour(shutdown=()),
    "deaf to SIGTERM": Behaviour(shutdown=(), ignores=frozenset({signal.SIGTERM})),
    "hangs in shutdown": Behaviour(shutdown=(Hang(),), ignores=frozenset({signal.SIGTERM})),
    "without a channel": Behaviour(shutdown=(HangUp(), Hang()), ignores=frozenset({signal.SIGTERM})),
    "slow to die": Behaviour(shutdown=(Hang(),), ignores=frozenset({signal.SIGTERM}), kill_seconds=0.5),
    "with a child": Behaviour(shutdown=(Fork(), Die(0))),
    "with a child that escapes": Behaviour(shutdown=(Fork(escapes=True), Die(0))),
}
BUSY = ["idle", "hanging", "frozen", "queued behind"]


@pytest.mark.parametrize("busy", BUSY)
@pytest.mark.parametrize("behaviour", STUBBORN.values(), ids=STUBBORN)
async def test_it_ends_within_its_bound(simulation: Any, autojump_clock: Any, behaviour: Behaviour, busy: str) -> None:
    async with trio.open_nursery() as outside:
        async with simulation(behaviour, max_workers=2, min_workers=2, shutdown_timeout=8) as (
            pool,
            launcher,
        ):
            ends: list[str] = []

            async def caller(command: str) -> None:
                try:
                    await pool.call(command)
                except Exception as error:
                    ends.append(type(error).__name__)

            if busy == "frozen":
                for worker in launcher.alive:
                    worker.freeze()
            elif busy != "idle":
                for _ in range(2 if busy == "hanging" else 4):
                    outside.start_soon(caller, "hang")
                await trio.testing.wait_all_tasks_blocked()
            begins = trio.current_time()
        took = trio.current_time() - begins
        assert took <= 8
        if busy == "idle" and behaviour is STUBBORN["well-behaved"]:
            assert took == 0
    if busy in ("hanging", "queued behind"):
        assert took >= 8 - pool.config.policy.stop_grace  # they had all the time there was
        assert sorted(ends) == ["OutcomeUnknown"] * 2 + ["PoolClosed"] * (len(ends) - 2)
    assert pool.state == "closed"
    assert pool.snapshot().workers == () and pool.snapshot().in_flight == 0


async def test_it_does_not_wait_for_what_cannot_be_killed(autojump_clock: Any) -> None:
    """A process that outlives SIGKILL (it hangs in the kernel) is let go when the time is over."""
    behaviour = Behaviour(shutdown=(Hang(),), ignores=frozenset({signal.SIGTERM}), kill_seconds=1000)
    async with SimLauncher.open(behaviour) as launcher:
        async with open_pool(adapter="x:Y", max_workers=1, launcher=launcher, shutdown_timeout=5) as pool:
            assert await pool.call("echo", {"token": 1}) == 1
            begins = trio.current_time()
        assert trio.current_time() - begins == 5
        assert pool.state == "closed"
        assert launcher.alive and launcher.witness.closed == 1  # at least nothing of ours is open
        assert pool.snapshot().workers == ()


@pytest.mark.parametrize(
    ("steps", "ends"),
    [((Hang(),), PoolClosed), ((Begin(), Hang()), OutcomeUnknown)],
    ids=["not begun", "begun"],
)
async def test_what_cannot_be_killed_is_asked_what_it_had_begun(
    steps: Any, ends: type[Exception], autojump_clock: Any
) -> None:
    """Its page can be read like that of a dead one; it was killed, so it begins nothing more."""
    behaviour = Behaviour(commands={"stick": Command(steps)}, kill_seconds=1000)
    told: list[type] = []

    async def caller() -> None:
        try:
            await pool.call("stick", timeout=math.inf)
        except Exception as error:
            told.append(type(error))

    async with SimLauncher.open(behaviour) as launcher, trio.open_nursery() as outside:
        async with open_pool(adapter="x:Y", max_workers=1, launcher=launcher, shutdown_timeout=5) as pool:
            outside.start_soon(caller)
            await trio.testing.wait_all_tasks_blocked()
        assert told == [ends]


async def test_what_cannot_be_killed_may_have_answered(autojump_clock: Any) -> None:
    behaviour = Behaviour(commands={"stick": Command((Begin(), Hang()))}, kill_seconds=1000)
    answers: list[Any] = []

    async def caller() -> None:
        answers.append(await pool.call("stick", timeout=math.inf))

    async with SimLauncher.open(behaviour) as launcher, trio.open_nursery() as outside:
        async with open_pool(adapter="x:Y", max_workers=1, launcher=launcher, shutdown_timeout=5) as pool:
            outside.start_soon(caller)
            await trio.testing.wait_all_tasks_blocked()
            outside.start_soon(pool.aclose)
            await trio.sleep(4.5)  # it has been killed, and was about to write
            call = next(iter(pool._core.calls.values()))
            launcher.workers[0].emit(pack(messages.encode(messages.Result(call.id, "after all")), 1000))
        assert answers == ["after all"]


async def test_running_calls_may_finish(simulation: Any, autojump_clock: Any) -> None:
    answers: list[Any] = []
    async with trio.open_nursery() as outside:
        async with simulation(shutdown_timeout=10) as (pool, launcher):

            async def caller() -> None:
                answers.append(await pool.call("sleep_once", {"seconds": 3, "token": 1}))

            outside.start_soon(caller)
            await trio.testing.wait_all_tasks_blocked()
            begins = trio.current_time()
        assert trio.current_time() - begins == 3
    assert answers == [{"seconds": 3, "token": 1}]


async def test_those_who_wait_are_told_at_once(simulation: Any, autojump_clock: Any) -> None:
    told: list[float] = []
    async with trio.open_nursery() as outside:
        async with simulation() as (pool, launcher):

            async def caller() -> None:
                with pytest.raises(PoolClosed, match="takes no more calls"):
                    await pool.call("once", {"token": 1})
                told.append(trio.current_time() - begins)

            async def lessee() -> None:
                with pytest.raises(PoolClosed):
                    async with pool.checkout(timeout=100):
                        pass
                told.append(trio.current_time() - begins)

            outside.start_soon(pool.call, "sleep", {"seconds": 5})
            await trio.testing.wait_all_tasks_blocked()
            for task in (caller, lessee, caller):
                outside.start_soon(task)
            await trio.testing.wait_all_tasks_blocked()
            begins = trio.current_time()
    assert told == [0, 0, 0]
    assert [one.call.command for one in launcher.witness.executions] == ["sleep"]


async def test_those_between_attempts_are_told_at_once(
    simulation: Any, autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with trio.open_nursery() as outside:
        async with simulation(retry=Retry(base=100.0, cap=100.0)) as (pool, launcher):
            monkeypatch.setattr(dice, "draw", lambda: 1.0)

            async def caller() -> None:
                with pytest.raises(PoolClosed):
                    await pool.call("crash_idempotent")

            outside.start_soon(caller)
            await trio.sleep(1)
            begins = trio.current_time()
        assert trio.current_time() == begins


async def test_a_call_whose_worker_is_gone_before_it_began(simulation: Any, autojump_clock: Any) -> None:
    """While the pool closes there is nobody to hand it to."""
    behaviour = Behaviour(calls={1: (Wait(1), Die())})
    async with trio.open_nursery() as outside:
        async with simulation(behaviour) as (pool, launcher):

            async def caller() -> None:
                with pytest.raises(PoolClosed):
                    await pool.call("once", {"token": 1})

            outside.start_soon(caller)
            await trio.testing.wait_all_tasks_blocked()
    assert launcher.witness.executions == []


async def test_closing_twice_and_calling_after(simulation: Any, autojump_clock: Any) -> None:
    async with simulation() as (pool, launcher):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(pool.aclose)
        await pool.aclose()
        assert pool.state == "closed"
        with pytest.raises(PoolClosed) as caught:
            await pool.call("echo", {"token": 1})
        assert not caught.value.recoverable
        with pytest.raises(PoolClosed):
            async with pool.checkout():
                pass
        with pytest.raises(PoolClosed):
            await pool.session("a").call("echo", {"token": 1})
        await pool.session("a").end()
    with pytest.raises(PoolClosed):
        await pool.call("echo", {"token": 1})
    await pool.aclose()


async def test_a_cancelled_aclose_closes_all_the_same(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(Behaviour(shutdown=(Wait(0.5), Die(0)))) as (pool, launcher):
        with trio.move_on_after(0.1):
            await pool.aclose()
        assert pool.state == "draining"
        assert await pool.wait_for("closed") == "closed"


# ── What the block raised ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "error",
    [
        ValueError("mine"),
        KeyboardInterrupt(),
        SystemExit(3),
        GeneratorExit(),
        ExceptionGroup("mine", [KeyError()]),
    ],
)
async def test_an_exception_of_the_body_arrives_as_it_was_raised(autojump_clock: Any, error: BaseException) -> None:
    nursery_error: BaseException | None = None
    async with trio.open_nursery() as nursery:
        launcher = SimLauncher(nursery)
        try:
            async with open_pool(adapter="x:Y", max_workers=1, launcher=launcher) as pool:
                raise error
        except BaseException as caught:
            nursery_error = caught
        assert nursery_error is error
        assert pool.state == "closed"
        assert launcher.witness.leftovers() == []


async def test_a_nursery_in_the_body_fails_while_the_block_is_cancelled(autojump_clock: Any) -> None:
    """Its group passes as it is: no group around it, and the Cancelled in it finds its scope."""
    async with SimLauncher.open() as launcher:
        with trio.move_on_after(1), pytest.raises(BaseExceptionGroup) as caught:
            async with open_pool(adapter="x:Y", max_workers=1, launcher=launcher) as pool:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(pool.call, "hang")
                    try:
                        await trio.sleep(5)
                    finally:
                        raise KeyError("mine")
        assert [type(one) for one in caught.value.exceptions if not isinstance(one, trio.Cancelled)] == [KeyError]
        assert pool.state == "closed"
        assert trio.current_time() == 1
        assert launcher.witness.leftovers() == []


@pytest.mark.parametrize("behaviour", STUBBORN.values(), ids=STUBBORN)
async def test_the_block_is_cancelled(autojump_clock: Any, behaviour: Behaviour) -> None:
    async with SimLauncher.open(behaviour) as launcher:
        with trio.move_on_after(3) as scope:
            async with open_pool(adapter="x:Y", max_workers=1, launcher=launcher, shutdown_timeout=6) as pool:
                await pool.call("hang")
        assert scope.cancelled_caught
        assert 3 <= trio.current_time() <= 3 + 6
        assert pool.snapshot().ended == {"timed_out": 1}
        assert launcher.witness.leftovers() == []


# ── As a task ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("behaviour", STUBBORN.values(), ids=STUBBORN)
async def test_run_pool_is_cancelled(autojump_clock: Any, behaviour: Behaviour) -> None:
    async with SimLauncher.open(behaviour) as launcher:
        async with trio.open_nursery() as nursery:

            async def start(task_status: trio.TaskStatus[Pool] = trio.TASK_STATUS_IGNORED) -> None:
                await run_pool(adapter_config(shutdown_timeout=6), launcher=launcher, task_status=task_status)

            pool: Pool = await nursery.start(start)
            nursery.start_soon(pool.call, "hang")
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        assert trio.current_time() <= 1 + 6
        assert pool.state == "closed"
        assert launcher.witness.leftovers() == []


def adapter_config(**fields: Any) -> Any:
    return PoolConfig(adapter="x:Y", max_workers=1, **fields)


async def test_run_pool_ends_when_it_is_closed(autojump_clock: Any) -> None:
    async with SimLauncher.open() as launcher:
        async with trio.open_nursery() as nursery:

            async def start(task_status: trio.TaskStatus[Pool] = trio.TASK_STATUS_IGNORED) -> None:
                await run_pool(adapter_config(), launcher=launcher, task_status=task_status)

            pool: Pool = await nursery.start(start)
            assert await pool.call("echo", {"token": 1}) == 1
            await pool.aclose()
        assert launcher.witness.leftovers() == []


async def test_cancelled_while_it_starts(autojump_clock: Any) -> None:
    """At each moment of the start, also while the operating system has not even made the process."""
    for behaviour in (Behaviour(launch_seconds=50), Behaviour(boot=(Hang(),)), Behaviour(boot=(Wait(50),))):
        async with SimLauncher.open(behaviour) as launcher:
            with trio.move_on_after(2) as scope:
                async with open_pool(adapter="x:Y", max_workers=1, launcher=launcher, shutdown_timeout=4):
                    raise AssertionError("it cannot have started")
            assert scope.cancelled_caught
            assert launcher.witness.leftovers() == []


async def test_closed_while_more_workers_start(simulation: Any, autojump_clock: Any) -> None:
    """Workers on their way are given up, and nobody waits for them."""

    def cast(order: Any) -> Behaviour:
        return Behaviour() if order.slot == 0 else Behaviour(launch_seconds=30)

    ends: list[str] = []

    async def caller(pool: Pool) -> None:
        try:
            await pool.call("sleep", {"seconds": 1})
            ends.append("answered")
        except PoolClosed:
            ends.append("closed")

    async with trio.open_nursery() as outside:
        async with simulation(cast, max_workers=3) as (pool, launcher):
            for _ in range(3):
                outside.start_soon(caller, pool)
            await trio.sleep(0.5)
        assert trio.current_time() == 1
    assert sorted(ends) == ["answered", "closed", "closed"]
    assert launcher.witness.launched == 1


@pytest.mark.parametrize("what", ["a running call", "a waiting call", "the block"])
def test_control_c_in_the_main_task(what: str) -> None:
    """It interrupts the main task wherever it is; the pool ends in order, and nobody waits for the call."""

    async def main() -> None:
        async with SimLauncher.open() as launcher:
            try:
                async with open_pool(adapter="x:Y", max_workers=1, launcher=launcher) as pool:
                    pools.append(pool)
                    async with trio.open_nursery() as nursery:
                        if what == "a waiting call":
                            nursery.start_soon(pool.call, "sleep", {"seconds": 1})
                            await trio.testing.wait_all_tasks_blocked()
                        nursery.start_soon(interrupt)
                        begins.append(trio.current_time())
                        if what == "the block":
                            await trio.sleep(50)
                        else:
                            await pool.call("hang")
            finally:
                ends.append(trio.current_time())
                leftovers.extend(launcher.witness.leftovers())

    @trio.lowlevel.enable_ki_protection
    async def interrupt() -> None:
        # Protected, so that trio keeps it for the main task, as it does when all tasks sleep.
        await trio.sleep(0.5)
        signal.raise_signal(signal.SIGINT)

    pools: list[Pool] = []
    begins: list[float] = []
    ends: list[float] = []
    leftovers: list[str] = []
    with pytest.raises(BaseException) as caught:
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    error: BaseException = caught.value
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    assert isinstance(error, KeyboardInterrupt)
    assert ends[0] - begins[0] <= 1  # and not the 10 s that closing may take
    assert leftovers == []
    assert pools[0].state == "closed"


@pytest.mark.parametrize("how", ["open_pool", "run_pool"])
def test_control_c_while_it_closes(how: str) -> None:
    """Who presses it a second time does not want to wait: the workers are killed, and that was it."""

    async def main() -> None:
        async with SimLauncher.open(Behaviour(shutdown=(Hang(),), ignores=frozenset({signal.SIGTERM}))) as launcher:
            try:
                async with trio.open_nursery() as nursery:
                    config = PoolConfig(adapter="x:Y", min_workers=2, max_workers=2, shutdown_timeout=30)
                    nursery.start_soon(interrupt)
                    if how == "open_pool":
                        async with open_pool(config, launcher=launcher) as pool:
                            pools.append(pool)
                            nursery.start_soon(pool.call, "hang")
                            await trio.testing.wait_all_tasks_blocked()
                    else:
                        pools.append(await nursery.start(partial(run_pool, config, launcher=launcher)))
                        nursery.start_soon(pools[0].call, "hang")
                        await trio.testing.wait_all_tasks_blocked()
                        await pools[0].aclose()
            finally:
                ends.append(trio.current_time())
                alive.extend(launcher.alive)  # a thread reaps them; there is none in simulation

    @trio.lowlevel.enable_ki_protection
    async def interrupt() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(2)
        begins.append(trio.current_time())
        signal.raise_signal(signal.SIGINT)

    pools: list[Pool] = []
    begins: list[float] = []
    ends: list[float] = []
    alive: list[SimWorker] = []
    with pytest.raises(BaseException) as caught:
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert isinstance(caught.value, KeyboardInterrupt) or caught.group_contains(KeyboardInterrupt)
    assert ends[0] - begins[0] < 1
    assert alive == []


async def test_observers_must_be_callable(autojump_clock: Any) -> None:
    with pytest.raises(ConfigError, match="cannot be called"):
        async with open_pool(adapter="x:Y", observers=[3]):  # type: ignore[list-item]
            pass


async def test_slow_answers_at_the_end_are_not_lost(simulation: Any, autojump_clock: Any) -> None:
    """The answer comes in the last moment, with the worker's death on its heels."""
    behaviour = Behaviour(commands={"last": Command((Begin(), Wait(2), Reply(), Finish(), Die(0)))})
    answers: list[Any] = []
    async with trio.open_nursery() as outside:
        async with simulation(behaviour) as (pool, launcher):

            async def caller() -> None:
                answers.append(await pool.call("last", {"token": 1}))

            outside.start_soon(caller)
            await trio.testing.wait_all_tasks_blocked()
    assert answers == [1]


# ── Cancelled everywhere ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("points", "rounds"), [(Points.OWN, 1), (Points.ALL, 2)])
@pytest.mark.parametrize("case", ["well-behaved", "slow to go", "hangs in shutdown", "with a child"])
def test_cancelled_at_every_checkpoint_of_its_life(case: str, points: Points, rounds: int) -> None:
    """While it starts, while it is used, while it closes: it is closed afterwards, and nothing is left."""
    behaviour = replace(STUBBORN[case], launch_seconds=0.5, boot=(Wait(0.5), Hello()))

    async def scenario(mark: Mark) -> None:
        async with SimLauncher.open(behaviour) as launcher:
            begins = trio.current_time()
            with mark:
                async with open_pool(
                    adapter="x:Y", min_workers=2, max_workers=2, launcher=launcher, shutdown_timeout=5
                ) as pool:
                    assert await pool.call("sleep", {"seconds": 1}) == 1
                    async with trio.open_nursery() as nursery:
                        for _ in range(3):
                            nursery.start_soon(pool.call, "sleep", {"seconds": 1})
            assert trio.current_time() - begins <= 4 + 5
            assert launcher.witness.leftovers() == []

    tried = cancel_everywhere(scenario, points=points, rounds=rounds)
    assert len(tried) > 5 * rounds


@pytest.mark.parametrize(("points", "rounds"), [(Points.OWN, 1), (Points.ALL, 2)])
def test_run_pool_cancelled_at_every_checkpoint(points: Points, rounds: int) -> None:
    async def scenario(mark: Mark) -> None:
        async with SimLauncher.open(Behaviour(launch_seconds=0.5)) as launcher:
            ends: list[str] = []

            async def start(task_status: trio.TaskStatus[Pool] = trio.TASK_STATUS_IGNORED) -> None:
                await run_pool(adapter_config(), launcher=launcher, task_status=task_status)

            async def caller(pool: Pool) -> None:
                try:
                    await pool.call("sleep", {"seconds": 1})
                except trio.Cancelled:
                    ends.append("cancelled")
                    raise
                ends.append("answered")

            with mark:
                async with trio.open_nursery() as nursery:
                    pool: Pool = await nursery.start(start)
                    nursery.start_soon(caller, pool)
                    await trio.sleep(2)
                    await pool.aclose()
            assert len(ends) <= 1
            assert launcher.witness.leftovers() == []

    cancel_everywhere(scenario, points=points, rounds=rounds)
