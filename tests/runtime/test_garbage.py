"""What comes after garbage on a channel is not believed, however well it looks."""

from __future__ import annotations

import pytest

from remuda.bridge.frames import pack
from remuda.bridge.messages import Result, encode
from remuda.bridge.seam import StartOrder
from remuda.runtime.opening import open_pool
from remuda.specs.behaviour import Begin, Behaviour, Emit, Hang
from remuda.specs.simulated import READ_BYTES, SimLauncher
from remuda.statemachines.errors import ProtocolError


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
