"""What arrives while a worker starts is kept: messages in the worker, callers in the application.

In a pool of this kind a starting worker took every message but the one it waited for as unexpected,
and dropped it; and a caller who came too early found no pool, and was sent elsewhere.
"""

from __future__ import annotations

import math
from typing import Any

import trio

from remuda.bridge import messages
from remuda.bridge.frames import HANDSHAKE_LIMIT, pack
from remuda.runtime.opening import open_pool
from remuda.specs.behaviour import Behaviour, Hello, Wait
from remuda.specs.simulated import SimLauncher
from tests.bridge.talk import boot_message, started


async def test_messages_behind_the_first_are_answered_after_the_greeting() -> None:
    """All in one write, before the worker has read anything; a real process."""
    async with started() as talk:
        sent = [boot_message(), talk.numbered("echo", ["one"]), messages.Ping(7), talk.numbered("echo", ["two"])]
        await talk.send_bytes(b"".join(pack(messages.encode(message), HANDSHAKE_LIMIT) for message in sent))
        assert isinstance(await talk.receive(), messages.Hello)
        assert await talk.receive() == messages.Result(1, "one")
        assert await talk.receive() == messages.Pong(7, True, "")
        assert await talk.receive() == messages.Result(2, "two")
        assert await talk.end() == 0


async def test_callers_that_come_while_the_only_worker_starts_are_served(autojump_clock: Any) -> None:
    """One at each second of the start, which takes ten; all of them are answered when it is over."""

    def cast(order: Any) -> Behaviour:
        return Behaviour(boot=(Wait(10), Hello()), chunk=16)

    answered: list[tuple[int, float]] = []
    async with SimLauncher.open(cast) as launcher:
        async with open_pool(adapter="x:Y", max_workers=1, launcher=launcher) as pool:
            assert trio.current_time() == 10  # it is not entered before it can be used
            assert [str(worker.state) for worker in pool.snapshot().workers] == ["ready"]
            assert await pool.call("echo", {"token": -1}) == -1
            launcher.worker(0).crash()

            async def caller(number: int) -> None:
                assert await pool.call("once", {"token": number}, timeout=math.inf) == number
                answered.append((number, trio.current_time()))

            async with trio.open_nursery() as nursery:
                for number in range(10):
                    nursery.start_soon(caller, number)
                    await trio.sleep(1)
        assert answered == [(number, 20.0) for number in range(10)]
        assert launcher.witness.launched == 2
