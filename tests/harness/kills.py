"""SIGKILL for busy workers, one after another, while callers go on calling. Most of them are within a call.

What is judged is what was executed: workers trace the beginning and the effect of each call. Who is killed,
and after how many more outcomes, is drawn from a seed; the moment within a call is chance, and shall be.

Also measured, not judged: how long it takes from a kill until the pool has its size again.
"""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from remuda.runtime.config import Breaker, PoolConfig, Restart, Retry
from remuda.runtime.events import Event, WorkerEnded
from remuda.runtime.opening import open_pool
from remuda.runtime.pool import Pool
from remuda.statemachines.errors import OutcomeUnknown
from remuda.statemachines.worker import WorkerState

from .paths import INSIDE, acts
from .rig import start_methods

__all__ = ["WAYS", "Kills", "kill_many"]

WAYS = [*start_methods(), *(["spare"] if "spares" in PoolConfig.__struct_fields__ else [])]
"""How workers are started: "spare" is the last start method, with a worker in reserve."""

WORKERS, CALLERS = 3, 12


@dataclass
class Kills:
    """What came of it.

    Attributes:
        way: how workers were started.
        recovery: seconds from each kill until the pool had its size again.
        outcomes: what callers got, by kind of call.
        repeated: idempotent calls that were begun more than once.
        early: calls that are said to have begun, and had not reached their first line.
        wrong: all that is not as it must be.
    """

    way: str
    recovery: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    early: int = 0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        times = sorted(self.recovery)
        p50, p99 = (1000 * times[int(len(times) * part)] for part in (0.5, 0.99))
        lines = [
            f"{self.way}: {len(times)} kills of busy workers, {WORKERS} workers, {CALLERS} callers",
            f"    recovery: p50 {p50:.1f} ms, p99 {p99:.1f} ms",
            f"    outcomes: {dict(self.outcomes)}; {self.repeated} idempotent calls were repeated",
            f"    {self.early} calls are said to have begun and had not reached their first line",
        ]
        return "\n".join([*lines, *(f"    WRONG: {what}" for what in self.wrong)])


@dataclass
class _Made:
    """One call, and what its caller got."""

    key: str
    idempotent: bool
    outcome: str


class _Field:
    """The pool under fire."""

    def __init__(self, times: int, seed: int) -> None:
        self.pool: Pool
        self.times, self.random = times, random.Random(seed)
        self.made: list[_Made] = []
        self.asked = 0
        self.over = False
        self._gone: set[int | None] = set()
        self._news = trio.Event()

    def observe(self, event: Event) -> None:
        if isinstance(event, WorkerEnded):
            self._gone.add(event.pid)
        self._news.set()
        self._news = trio.Event()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._news.wait()

    def _usable(self) -> list[int]:
        """The processes that serve callers."""
        states = (WorkerState.READY, WorkerState.BUSY)
        return [worker.pid for worker in self.pool.snapshot().workers if worker.state in states and worker.pid]

    def _busy(self, within: bool) -> list[int]:
        """The processes that have a call; or those whose page says that they are within one."""
        found = []
        for link in self.pool._links.values():
            if link.process is not None and link.pid and link.worker.state is WorkerState.BUSY:
                page = link.process.evidence()
                if not within or page.started != page.finished:
                    found.append(link.pid)
        return found

    async def call_all_the_time(self, name: int, idempotent: bool) -> None:
        command, number = "toil_again" if idempotent else "toil", 0
        while not self.over:
            key = f"{name}.{number}"
            number += 1
            self.asked += 1
            try:
                value = await self.pool.call(command, {"key": key, "sum": number})
                outcome = "value" if value == [key, number] else f"another value: {value!r}"
            except Exception as error:
                outcome = type(error).__name__
            self.made.append(_Made(key, idempotent, outcome))

    async def kill(self, recovery: list[float]) -> None:
        """Kill a busy worker as often as was asked for, each time when the pool has its size again."""
        for _ in range(self.times):
            goal = len(self.made) + self.random.randrange(1, 3 * WORKERS)
            await self._until(lambda: len(self.made) >= goal)
            within = self.random.random() < 0.75  # else whoever has a call, be it on its way there
            while not (busy := self._busy(within)):
                await trio.lowlevel.checkpoint()  # nobody tells when a call begins: one has to look
            pid = self.random.choice(busy)
            began = trio.current_time()
            os.kill(pid, signal.SIGKILL)
            await self._until(lambda: pid in self._gone and len(self._usable()) >= WORKERS)
            recovery.append(trio.current_time() - began)
        self.over = True


async def kill_many(way: str, times: int, folder: Path, seed: int = 0) -> Kills:
    """Kill `times` busy workers of a pool under load, and judge what callers got.

    Args:
        way: one of `WAYS`.
        times: how many, at least 1.
        folder: where the traces go.
        seed: decides who is killed, and after how many outcomes.
    """
    result, trace, here = Kills(way), folder / "trace", _Field(times, seed)
    fields: dict[str, Any] = {}
    if "start_method" in PoolConfig.__struct_fields__:
        fields["start_method"] = start_methods()[-1] if way == "spare" else way
    if way == "spare":
        fields["spares"] = 1
    config = PoolConfig(
        name="field",
        adapter="acts:Acts",
        min_workers=WORKERS,
        max_workers=WORKERS,
        call_timeout=1000.0,
        env={"PYTHONPATH": str(INSIDE), acts.TRACE: str(trace)},
        restart=Restart(burst=10**9),
        retry=Retry(attempts=20),
        breaker=Breaker(failures=10**9),
        **fields,
    )
    async with open_pool(config, observers=[here.observe]) as here.pool:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(here.kill, result.recovery)
            for name in range(CALLERS):
                nursery.start_soon(here.call_all_the_time, name, name % 2 == 0)
    _judge(result, here, trace)
    return result


def _judge(result: Kills, here: _Field, trace: Path) -> None:
    begun, done = Counter[str](), Counter[str]()
    for line in trace.read_text().splitlines():
        key, what, _ = line.split(" ")
        (begun if what == "begins" else done)[key] += 1
    if here.asked != len(here.made):
        result.wrong.append(f"{here.asked} calls were made, and {len(here.made)} have an outcome")
    for call in here.made:
        result.outcomes[f"{call.outcome}{' (idempotent)' if call.idempotent else ''}"] += 1
        times = begun[call.key]
        name = f"{call.key} ({call.outcome}, begun {times}×, done {done[call.key]}×)"
        if call.idempotent:
            result.repeated += times > 1
            if call.outcome != "value":
                result.wrong.append(f"an idempotent call was lost: {name}")
        elif times > 1:
            result.wrong.append(f"it was executed more than once: {name}")
        elif call.outcome == OutcomeUnknown.__name__:
            result.early += not times
        elif call.outcome != "value":
            result.wrong.append(f"its caller got what it should not: {name}")
        if call.outcome == "value" and not done[call.key]:
            result.wrong.append(f"it has a value without having been executed: {name}")
    for key in begun.keys() - {call.key for call in here.made}:
        result.wrong.append(f"it was executed, and nobody had asked: {key}")
