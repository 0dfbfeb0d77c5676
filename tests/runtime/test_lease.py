"""A worker that is checked out belongs to its holder, until the block ends, however it ends."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from remuda.runtime.handles import Lease
from remuda.statemachines.effects import Verdict
from remuda.statemachines.errors import (
    CallTimeout,
    CheckoutTimeout,
    ConfigError,
    InvalidLease,
    OutcomeUnknown,
    PoolFull,
    RemoteError,
    WorkerDied,
)


async def test_its_state_stays_between_calls(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(max_workers=2, min_workers=2) as (pool, launcher):
        async with pool.checkout() as worker:
            for number in range(5):
                assert await worker.call("echo", {"token": number}) == number
            assert launcher.worker(worker.slot).order.generation == worker.generation
        assert {one.slot for one in launcher.witness.executions} == {worker.slot}
        assert pool.snapshot().ended == {"answered": 5, "returned": 1}


async def test_nobody_else_has_it(simulation: Any, autojump_clock: Any) -> None:
    async with simulation() as (pool, launcher):
        async with trio.open_nursery() as nursery:
            async with pool.checkout() as worker:
                nursery.start_soon(pool.call, "echo", {"token": "other"})
                await trio.sleep(10)
                assert launcher.witness.executions == []
                assert pool.snapshot().waiting == 1
                assert [one.state for one in pool.snapshot().workers] == ["busy"]
                assert await worker.call("echo", {"token": "mine"}) == "mine"
        assert [one.call.args["token"] for one in launcher.witness.executions] == ["mine", "other"]


async def test_it_ends_with_its_block(simulation: Any, autojump_clock: Any) -> None:
    async with simulation() as (pool, launcher):
        async with pool.checkout() as worker:
            worker.give_back()
            worker.give_back()
            with pytest.raises(WorkerDied):
                await worker.call("echo", {"token": 1})
        with pytest.raises(WorkerDied, match="Check out another one"):
            await worker.call("echo", {"token": 1})
        assert await pool.call("echo", {"token": 2}) == 2
        assert launcher.witness.launched == 1
        assert [one.call.args["token"] for one in launcher.witness.executions] == [2]


@pytest.mark.parametrize("how", ["exception", "cancelled", "remote error", "left by return"])
async def test_it_is_given_back_however_the_block_ends(simulation: Any, autojump_clock: Any, how: str) -> None:
    async with simulation() as (pool, launcher):

        async def use() -> None:
            async with pool.checkout() as worker:
                assert await worker.call("echo", {"token": 1}) == 1
                if how == "exception":
                    raise KeyError("mine")
                if how == "remote error":
                    await worker.call("fail", {"message": "boo"})
                if how == "cancelled":
                    await trio.sleep_forever()

        with trio.move_on_after(5) as scope:
            if how in ("exception", "remote error"):
                with pytest.raises(KeyError if how == "exception" else RemoteError):
                    await use()
            else:
                await use()
        assert scope.cancelled_caught is (how == "cancelled")
        assert await pool.call("echo", {"token": 2}) == 2
        assert launcher.witness.launched == 1  # it had nothing in hand, so it lives
        assert pool.snapshot().ended["returned"] == 1


async def test_cancelled_with_a_call_in_hand(simulation: Any, autojump_clock: Any) -> None:
    """Then it cannot be given to anybody else, and is killed."""
    async with simulation() as (pool, launcher):
        with trio.move_on_after(1):
            async with pool.checkout() as worker:
                await worker.call("hang")
        assert await pool.call("echo", {"token": 2}) == 2
        assert launcher.witness.launched == 2
        assert pool.last_death is None
        assert pool.snapshot().in_flight == 0


async def test_a_call_on_it_times_out(simulation: Any, autojump_clock: Any) -> None:
    async with simulation() as (pool, launcher):
        async with pool.checkout() as worker:
            with pytest.raises(CallTimeout):
                await worker.call("hang", timeout=3)
            with pytest.raises(WorkerDied):
                await worker.call("echo", {"token": 1})
        assert await pool.call("echo", {"token": 2}) == 2


async def test_one_call_at_a_time(simulation: Any, autojump_clock: Any) -> None:
    async with simulation() as (pool, launcher):
        async with pool.checkout() as worker, trio.open_nursery() as nursery:
            nursery.start_soon(worker.call, "sleep", {"seconds": 5})
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(InvalidLease, match="busy with another call of its holder"):
                await worker.call("echo", {"token": 1})
        assert await pool.call("echo", {"token": 2}) == 2
        assert launcher.witness.launched == 1
        assert pool.snapshot().in_flight == 0


async def test_given_back_while_it_works(simulation: Any, autojump_clock: Any) -> None:
    """Its call goes on for its caller; the worker is not given to anybody else."""
    async with simulation() as (pool, launcher):
        answers: list[Any] = []

        async def caller(worker: Lease) -> None:
            answers.append(await worker.call("sleep", {"seconds": 5}))

        async with trio.open_nursery() as nursery:
            async with pool.checkout() as worker:
                nursery.start_soon(caller, worker)
                await trio.testing.wait_all_tasks_blocked()
            assert await pool.call("echo", {"token": 2}) == 2
        assert answers == [5]
        assert [one.generation for one in launcher.witness.executions] == [1, 2]


@pytest.mark.parametrize("when", ["idle", "not begun", "begun"])
async def test_it_dies_in_its_holders_hand(simulation: Any, autojump_clock: Any, when: str) -> None:
    """It is never replaced behind the holder's back: its state is gone."""
    async with simulation() as (pool, launcher):
        async with pool.checkout() as worker:
            if when == "idle":
                launcher.worker(0).crash(9)
                await trio.testing.wait_all_tasks_blocked()
            elif when == "not begun":
                launcher.worker(0).crash(9)
            else:
                with pytest.raises(OutcomeUnknown):
                    await worker.call("crash")
            with pytest.raises(WorkerDied, match="Check out another one") as caught:
                await worker.call("echo", {"token": 1})
            assert caught.value.recoverable
        assert await pool.call("echo", {"token": 2}) == 2
        assert pool.snapshot().in_flight == 0
        # Also an idempotent command is not repeated elsewhere.
        async with pool.checkout() as worker:
            with pytest.raises(OutcomeUnknown):
                await worker.call("crash_idempotent")


async def test_none_comes_free_in_time(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(checkout_timeout=5) as (pool, launcher):
        async with pool.checkout() as worker:
            begins = trio.current_time()
            with pytest.raises(CheckoutTimeout, match="no worker of pool 'pool' came free within 5 s") as caught:
                async with pool.checkout():
                    raise AssertionError("two have it")
            assert trio.current_time() - begins == 5
            assert isinstance(caught.value, TimeoutError) and caught.value.recoverable
            with pytest.raises(CheckoutTimeout):
                async with pool.checkout(timeout=0):
                    raise AssertionError("two have it")
            with pytest.raises(trio.TooSlowError), trio.fail_after(1):
                async with pool.checkout():
                    raise AssertionError("two have it")
            assert await worker.call("echo", {"token": 1}) == 1
        assert pool.snapshot().ended == {"timed_out": 3, "answered": 1, "returned": 1}
        assert launcher.witness.launched == 1


async def test_no_time_to_wait_and_none_needed(simulation: Any, autojump_clock: Any) -> None:
    """Zero seconds mean: one that is free now, or none. Also when the clock has moved on meanwhile."""
    async with simulation() as (pool, launcher):
        async with pool.checkout(timeout=0) as worker:
            assert await worker.call("echo", {"token": 1}) == 1
            with pytest.raises(CheckoutTimeout):
                async with pool.checkout(timeout=0):
                    raise AssertionError("two have it")
        late = pool._ticket("checkout", None, None, 0, None, False, "kill", None)
        late.call.deadline = late.made - 1
        await pool._outcome(late)
        assert late.answer is not None and late.answer.verdict is Verdict.GRANTED
        Lease(pool, late.call).give_back()
        with pytest.raises(CallTimeout):  # a call has to run, and for that it has no time
            await pool.call("echo", {"token": 2}, timeout=0)
        assert launcher.witness.launched == 1


async def test_its_timeout_is_for_the_waiting_only(simulation: Any, autojump_clock: Any) -> None:
    async with simulation() as (pool, launcher):
        async with pool.checkout(timeout=1) as worker:
            await trio.sleep(1000)
            assert await worker.call("echo", {"token": 1}) == 1
        assert launcher.witness.launched == 1


async def test_too_many_wait(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(max_waiting=0) as (pool, launcher):
        async with pool.checkout():
            with pytest.raises(PoolFull):
                async with pool.checkout():
                    raise AssertionError("two have it")
        async with pool.checkout():
            pass


async def test_many_take_turns(simulation: Any, autojump_clock: Any) -> None:
    holders: list[int] = []
    served: list[int] = []

    async with simulation(max_workers=2, min_workers=2, checkout_timeout=1000) as (pool, launcher):

        async def use(number: int) -> None:
            async with pool.checkout() as worker:
                assert worker.slot not in holders
                holders.append(worker.slot)
                await worker.call("sleep", {"seconds": 1})
                holders.remove(worker.slot)
                served.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(use, number)
        assert sorted(served) == list(range(10))
        assert trio.current_time() == 5


async def test_the_pool_closes_around_it(simulation: Any, autojump_clock: Any) -> None:
    """The holder's time is the pool's time to close."""
    async with trio.open_nursery() as outside:
        async with simulation(shutdown_timeout=5) as (pool, launcher):

            async def hold(task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
                async with pool.checkout() as worker:
                    task_status.started()
                    await trio.sleep(2)
                    assert await worker.call("echo", {"token": 1}) == 1
                    await trio.sleep(20)
                    with pytest.raises(WorkerDied):
                        await worker.call("echo", {"token": 1})

            await outside.start(hold)
        assert trio.current_time() <= 5


async def test_a_wrong_session(simulation: Any, autojump_clock: Any) -> None:
    async with simulation() as (pool, launcher):
        for wrong in ("", 3):
            with pytest.raises(ConfigError, match="session"):
                async with pool.checkout(session=wrong):
                    pass
