"""What comes after garbage on a channel is not believed, however well it looks."""

from __future__ import annotations

import pytest
from remuda.bridge.frames import pack
from remuda.bridge.seam import StartOrder
from remuda.runtime.pool import open_pool
from remuda.specs.behaviour import Begin, Behaviour, Emit, Finish, Reply, Wait
from remuda.specs.simulated import SimLauncher
from remuda.statemachines.errors import ProtocolError


@pytest.mark.parametrize("garbage", [pack(b"abc", 10), b"\xff" * 32], ids=["undecodable", "too-large"])
async def test_an_answer_behind_garbage_is_not_delivered(autojump_clock: object, garbage: bytes) -> None:
    """The worker takes a while to die, and answers before it does: the bytes are there to be read."""
    answer = (Begin(), Emit(garbage), Wait(0.01), Reply(), Finish())

    def cast(order: StartOrder) -> Behaviour:
        return Behaviour(calls={1: answer} if order.generation == 1 else {}, kill_seconds=1.0)

    async with SimLauncher.open(cast) as launcher:
        async with open_pool(adapter="simulated", max_workers=1, launcher=launcher) as pool:
            with pytest.raises(ProtocolError):
                await pool.call("once", {"value": 1})
            assert await pool.call("once", {"value": 2}) == 2
