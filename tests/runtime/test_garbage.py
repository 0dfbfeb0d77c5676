"""What comes after garbage on a channel is not believed, however well it looks."""

from __future__ import annotations

import pytest
import trio

from remuda.bridge.frames import pack
from remuda.bridge.messages import Result, encode
from remuda.bridge.seam import Evidence, StartOrder
from remuda.runtime.opening import open_pool
from remuda.specs.behaviour import Begin, Behaviour, Die, Emit, Hang
from remuda.specs.simulated import READ_BYTES, SimLauncher, SimWorker
from remuda.statemachines.errors import OutcomeUnknown, ProtocolError


@pytest.mark.parametrize(
    "garbage", [pack(b"a" * (READ_BYTES - 4), READ_BYTES), b"\xff" * READ_BYTES], ids=["undecodable", "too-large"]
)
async def test_an_answer_behind_garbage_is_not_delivered(autojump_clock: object, garbage: bytes) -> None:
    """It is in the pipe when the garbage is read, and is read only when the worker has been killed."""
    answer = pack(encode(Result(1, "late")), READ_BYTES)  # 1: the first call of the pool
    play = (Begin(), Emit(garbage + answer), Hang())

    def cast(order: StartOrder) -> Behaviour:
        return Behaviour(
            calls={1: play} if order.generation == 1 else {}, capacity=2 * READ_BYTES, chunk=2 * READ_BYTES
        )

    async with SimLauncher.open(cast) as launcher:
        async with open_pool(adapter="simulated", max_workers=1, launcher=launcher) as pool:
            with pytest.raises(ProtocolError):
                await pool.call("once", {"value": 1})
            assert await pool.call("once", {"value": 2}) == 2


@pytest.mark.parametrize("garbage", [b"\xff" * 2, b"\xff" * 9], ids=["half-a-header", "too-large"])
async def test_an_answer_before_garbage_is_delivered_and_nobody_is_given_what_comes_behind(
    autojump_clock: object, garbage: bytes
) -> None:
    """Both are read in one piece. The answer used to be lost with the header, and the next caller to get the half."""
    answer = pack(encode(Result(1, "in time")), READ_BYTES)  # 1: the first call of the pool

    def cast(order: StartOrder) -> Behaviour:
        play = (Begin(), Emit(answer + garbage), Hang())
        return Behaviour(calls={1: play} if order.generation == 1 else {})

    async with SimLauncher.open(cast) as launcher:
        async with open_pool(adapter="simulated", max_workers=1, launcher=launcher) as pool:
            assert await pool.call("once", {"value": 1}) == "in time"
            assert await pool.call("once", {"value": 2}) == 2
            assert [worker.generation for worker in pool.snapshot().workers] == [2]


async def test_garbage_behind_an_answer_ends_the_worker_before_anybody_needs_it(autojump_clock: object) -> None:
    answer = pack(encode(Result(1, "in time")), READ_BYTES)

    def cast(order: StartOrder) -> Behaviour:
        play = (Begin(), Emit(answer + b"\xff" * 9), Hang())
        return Behaviour(calls={1: play} if order.generation == 1 else {})

    async with SimLauncher.open(cast) as launcher:
        async with open_pool(adapter="simulated", max_workers=1, launcher=launcher) as pool:
            assert await pool.call("once", {"value": 1}) == "in time"
            await trio.sleep(1)
            assert [worker.generation for worker in pool.snapshot().workers] == [2]


@pytest.mark.parametrize("number", [1000, 0], ids=["of no call", "of the call before"])
async def test_a_page_that_says_what_nobody_can_mean_is_no_proof(
    number: int, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker has begun something, under a number that was garbled on its way: nothing is repeated for it."""
    evidence = SimWorker.evidence

    def of_another(worker: SimWorker) -> Evidence:
        real = evidence(worker)
        return Evidence(started=number if real.started else 0, finished=0, starts=real.starts)

    def cast(order: StartOrder) -> Behaviour:
        return Behaviour(calls={1: (Begin(), Die(9))} if order.generation == 1 else {})

    monkeypatch.setattr(SimWorker, "evidence", of_another)
    async with SimLauncher.open(cast) as launcher:
        async with open_pool(adapter="simulated", max_workers=1, launcher=launcher) as pool:
            with pytest.raises(OutcomeUnknown):
                await pool.call("once", {"value": 1})
            assert await pool.call("once", {"value": 2}) == 2
