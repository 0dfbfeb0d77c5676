"""A pool in every kind of trouble at once, in simulation, drawn from a seed; and a gunman for real ones.

It asserts nothing. What has happened is for those to judge who watched: a history, a monitor.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from random import Random
from typing import Any

import trio
from trio.testing import MockClock

from remuda.bridge.seam import StartOrder
from remuda.runtime.config import Breaker, Health, Restart, Retry
from remuda.runtime.events import CallEnded, Event, Observer, WorkerEnded, WorkerReady
from remuda.runtime.opening import open_pool
from remuda.specs.behaviour import (
    ANSWER,
    Begin,
    Behaviour,
    CallPlay,
    Command,
    Die,
    Emit,
    FailBoot,
    Finish,
    Freeze,
    Hang,
    HangUp,
    Hello,
    Reply,
    Wait,
)
from remuda.specs.history import History
from remuda.specs.simulated import SimLauncher
from remuda.statemachines.errors import IllegalTransition, RemudaError

PLAYS: tuple[CallPlay, ...] = (
    (Die(),),
    (Begin(), Die()),
    (Begin(), Reply(share=0.5), Die()),
    (Begin(), Reply(), Die()),
    (Begin(), Wait(30), Reply(), Finish()),
    (Wait(2), Begin(), Reply(), Finish()),
    (Begin(), Reply(), Reply(), Finish()),
    (Begin(), Reply(shift=1), Finish()),
    (Begin(), Emit(b"\xff" * 8), Reply(), Finish()),
    (Begin(), HangUp(), Hang()),
    (Begin(), Freeze(), Reply(), Finish()),
    (Begin(), Hang()),
    (Hang(),),
)


def run(seed: int, *, observers: Sequence[Observer] = (), history: History | None = None) -> None:
    """Some callers, each with some calls and checkouts, over workers that do what they must not."""
    trio.run(_run, Random(seed), observers, history, clock=MockClock(autojump_threshold=0))


async def _run(chance: Random, observers: Sequence[Observer], history: History | None) -> None:
    def play(call: Any) -> Any:
        return ANSWER if chance.random() < 0.8 else (Begin(), Wait(chance.random()), Reply(), Finish())

    def behaviour(order: StartOrder) -> Behaviour:
        first = order.slot == 0 and order.generation == 1
        calls = {number: chance.choice(PLAYS) for number in range(1, 60) if chance.random() < 0.15}
        boot: tuple[Any, ...] = (Wait(chance.random()), Hello())
        if not first and chance.random() < 0.1:
            boot = chance.choice([(FailBoot(), Die(1)), (Die(),), (Hang(),)])
        return Behaviour(
            boot=boot,
            calls=calls,
            commands={"echo": Command(play, idempotent=True)},
            kill_seconds=chance.choice([0.0, 0.0, 0.5]),
            launch_seconds=chance.choice([0.0, 0.2]),
        )

    watching = [*observers, *([] if history is None else [history])]
    async with SimLauncher.open(behaviour) as launcher:
        if history is not None:
            history.listen(launcher)
        async with open_pool(
            launcher=launcher,
            observers=watching,
            adapter="simulated:Adapter",
            min_workers=1,
            max_workers=chance.randint(1, 3),
            overflow=chance.randint(0, 1),
            max_waiting=chance.choice([5, 1000]),
            init_timeout=5.0,
            call_timeout=10.0,
            shutdown_timeout=chance.choice([0.5, 5.0]),
            health=Health(interval=3.0, timeout=1.0, failures=2, recheck=0.5),
            restart=Restart(base=0.1, cap=2.0, burst=5, period=10.0),
            retry=Retry(attempts=3, base=0.1, cap=1.0, handovers=2),
            breaker=Breaker(failures=chance.choice([3, 1000]), open_for=2.0),
        ) as pool:
            through: Any = pool if history is None else history.around(pool)
            extra: Any = (lambda token: {}) if history is None else (lambda token: {"answer": token})
            async with trio.open_nursery() as nursery:
                for name in range(chance.randint(2, 9)):
                    nursery.start_soon(_caller, Random(chance.random()), through, name, extra)
                nursery.start_soon(_meddle, Random(chance.random()), pool)
                if chance.random() < 0.3:
                    await trio.sleep(chance.random() * 10)
                    nursery.start_soon(pool.aclose)


async def _caller(chance: Random, pool: Any, name: int, extra: Any) -> None:
    for number in range(chance.randint(1, 12)):
        await trio.sleep(chance.choice([0.0, 0.0, chance.random()]))
        patience = chance.choice([100.0, 100.0, chance.random() * 3])
        session = chance.choice([None, None, "a", "b"])
        token = f"{name}.{number}"
        with trio.move_on_after(patience):
            try:
                if chance.random() < 0.3:
                    async with pool.checkout(session=session, timeout=5.0) as worker:
                        for part in range(chance.randint(0, 3)):
                            own = f"{token}.{part}"
                            await worker.call("once", {"token": own}, timeout=4.0, **extra(own))
                        if chance.random() < 0.2:
                            worker.give_back()
                            await trio.sleep(chance.random())
                else:
                    again, timeout = chance.random() < 0.5, chance.choice([None, 1.0])
                    await pool.call(
                        "echo", {"token": token}, session=session, idempotent=again, timeout=timeout, **extra(token)
                    )
            except RemudaError:
                pass


async def _meddle(chance: Random, pool: Any) -> None:
    for _ in range(3):
        await trio.sleep(chance.random() * 4)
        pool.snapshot()
        try:
            pool.suspend()
            await trio.sleep(chance.random())
            pool.resume()
        except IllegalTransition:
            pass


# ── Real processes ──────────────────────────────────────────────────────────────────────────────


class Gunman:
    """An observer that sends a signal to a worker after every so many calls, whatever it is doing."""

    def __init__(self, chance: Random, every: int, signals: Sequence[int]) -> None:
        self.shots = 0
        self._chance = chance
        self._every = every
        self._signals = list(signals)
        self._calls = 0
        self._pids: set[int] = set()

    def __call__(self, event: Event) -> None:
        if isinstance(event, WorkerReady) and event.pid is not None:
            self._pids.add(event.pid)
        elif isinstance(event, WorkerEnded):
            self._pids.discard(event.pid or 0)
        elif isinstance(event, CallEnded):
            self._calls += 1
            if self._calls % self._every == 0 and self._pids and self._signals:
                try:
                    os.kill(self._chance.choice(sorted(self._pids)), self._signals[0])
                except ProcessLookupError:
                    self._calls -= 1  # it is gone, and that is not told yet; the next call will do
                else:
                    self.shots += 1
                    del self._signals[0]
