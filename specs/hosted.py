"""A user's own adapter in simulated workers.

The code is real: each simulated worker makes an instance, calls its `setup`, runs its commands, asks
its `health` and calls its `teardown`. The process around it is not: it can be crashed, stopped and
slowed at any moment, and its time is virtual. So what an adapter keeps in its workers, and what it has
declared about its commands (`journal`, `forgets`, `idempotent`, `timeout`), is tried against
thousands of crashes in seconds.

What does not show here: all instances live in one interpreter, so what a module keeps in its globals
is shared between them; and code that waits, waits for real. For those there are real processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from remuda.bridge import messages
from remuda.bridge.adapters import Adapter, load
from remuda.specs.behaviour import (
    Begin,
    Behaviour,
    CallStep,
    Command,
    Compute,
    Die,
    Do,
    Examine,
    Finish,
    Hello,
    Reply,
    Wait,
)

__all__ = ["hosting"]

_HOSTED = "hosted"


def hosting(adapter: str | type, work: float = 0.0) -> Behaviour:
    """A simulated worker that runs this adapter.

    Args:
        adapter: the class, or its name as for `PoolConfig.adapter`.
        work: virtual seconds that each command takes, half of them before its code runs and half
            after, so that a worker can die on either side of it.
    """

    def make() -> Adapter:
        return load(adapter) if isinstance(adapter, str) else Adapter(adapter())

    def set_up(memory: dict[str, object], settings: Mapping[str, Any]) -> None:
        instance = make()
        instance.setup(dict(settings))
        memory[_HOSTED] = instance

    def run(call: messages.Call, memory: dict[str, object]) -> object:
        method = _in(memory).method(call.command)
        return method(**call.args) if isinstance(call.args, dict) else method(*call.args)

    return Behaviour(
        boot=(Do(set_up), Hello()),
        commands={info.name: _command(info, run, work) for info in make().commands},
        ping=(Examine(lambda memory: _in(memory).health()),),
        shutdown=(Do(lambda memory, settings: _in(memory).teardown()), Die(0)),
    )


def _command(info: messages.CommandInfo, run: Compute, work: float) -> Command:
    play: tuple[CallStep, ...] = (Begin(), Reply(run), Finish())
    if work:
        # Writing nothing of the answer computes it; the rest of the time passes before it is sent.
        play = (Begin(), Wait(work / 2), Reply(run, share=0.0), Wait(work / 2), Reply(run), Finish())
    return Command(play, info.idempotent, info.timeout, info.journal, info.forgets, info.key_at)


def _in(memory: dict[str, object]) -> Adapter:
    hosted = memory[_HOSTED]
    assert isinstance(hosted, Adapter)
    return hosted
