"""Work that waits for a language model: DSPy records against a model on loopback that takes a fixed time.

What is wanted is that the pool is not in the way: with so many records at once, the model alone takes
`ideal` seconds, and the share of it is what is reported. DSPy's own `Evaluate`, with as many threads, does
the same records beside it. What begins before the first record (workers, imports) is reported apart.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import trio

from remuda.benchmarks.measures import Samples
from remuda.benchmarks.memory import descendants, own_bytes
from remuda.benchmarks.model_server import ANSWER
from remuda.benchmarks.scale import Scale
from remuda.runtime.opening import open_pool
from remuda.runtime.pool import Pool
from remuda.statemachines.worker import WorkerState

__all__ = ["by_evaluate", "by_remuda"]

_SIGNATURE = "question -> answer"


@contextmanager
def _model(seconds: float) -> Generator[dict[str, Any]]:
    """A model server; how `dspy.LM` is told to use it."""
    command = [sys.executable, "-m", "remuda.benchmarks.model_server", str(seconds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        port = int(server.stdout.readline())
        try:
            yield {"api_base": f"http://127.0.0.1:{port}/v1", "api_key": "none"}
        finally:
            server.stdin.close()


class _Count:
    """What has been answered, and what it took of the memory half way through."""

    def __init__(self, scale: Scale) -> None:
        self.scale = scale
        self.ended = self.right = 0
        self.memory: float | None = None
        self.started = time.perf_counter()

    def note(self, answer: object) -> bool:
        """Count one record; whether its answer is the right one."""
        self.ended += 1
        right = answer == ANSWER
        self.right += right
        if self.memory is None and self.ended >= max(1, self.scale.records // 2):
            pids = [os.getpid(), *descendants()]
            self.memory = float(sum(own_bytes(pid) or 0 for pid in pids)) / self.scale.at_once
        return right

    def samples(self, start: float) -> Samples:
        """The share of the ideal, of right answers, and the rest."""
        scale, took = self.scale, time.perf_counter() - self.started
        ideal = math.ceil(scale.records / scale.at_once) * scale.model
        found = {"share": [ideal / took], "answered": [self.right / scale.records], "start": [start]}
        return found if not self.memory else {**found, "own at once": [self.memory]}


def by_remuda(scale: Scale, fields: dict[str, Any], *, kill: bool) -> Samples:
    """By a pool with a worker for each record that is under way.

    Args:
        scale: `records`, `at_once` and `model`.
        fields: of the configuration.
        kill: whether a busy worker gets SIGKILL every second.
    """
    with _model(scale.model) as options:
        settings = {
            "lm": "openai/bench",
            "lm_options": options,
            "programs": {"qa": {"signature": _SIGNATURE}},
        }
        return trio.run(_by_remuda, scale, {"adapter": "dspy", "settings": settings, **fields}, kill)


async def _by_remuda(scale: Scale, fields: dict[str, Any], kill: bool) -> Samples:
    begun = time.perf_counter()
    size: dict[str, Any] = {"min_workers": scale.at_once, "max_workers": scale.at_once, "init_timeout": 600.0}
    async with open_pool(**size, **fields) as pool:

        async def ask(number: int) -> Any:
            inputs = {"question": f"What is the color of sky {number}?"}
            try:
                result = await pool.call("execute_program", {"program_id": "qa", "inputs": inputs}, idempotent=True)
            except Exception as error:
                return error
            return result["outputs"]["answer"]

        async with trio.open_nursery() as nursery:  # what is loaded by the first request of each worker
            for number in range(scale.at_once):
                nursery.start_soon(ask, number)
        start = time.perf_counter() - begun
        count, numbers, deaths = _Count(scale), iter(range(scale.records)), [0]

        async def again() -> None:
            for number in numbers:
                count.note(await ask(number))

        async with trio.open_nursery() as nursery:
            if kill:
                nursery.start_soon(_kill_every_second, pool, deaths)
            async with trio.open_nursery() as callers:
                for _ in range(scale.at_once):
                    callers.start_soon(again)
            nursery.cancel_scope.cancel()
        found = count.samples(start)
    return {**found, "kills": [float(deaths[0])]} if kill else found


async def _kill_every_second(pool: Pool, deaths: list[int]) -> None:
    turn = 0
    while True:
        await trio.sleep(1.0 if turn else 0.05)  # one at least, also where all is over within a second
        workers = pool.snapshot().workers
        busy = [worker for worker in workers if worker.state is WorkerState.BUSY and worker.calls_served]
        if busy:
            pid = busy[turn % len(busy)].pid
            turn += 1
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
                deaths[0] += 1


def by_evaluate(scale: Scale) -> Samples:
    """By `dspy.Evaluate`, with a thread for each record that is under way."""
    begun = time.perf_counter()
    dspy: Any = import_module("dspy")
    evaluate: Any = import_module("dspy.evaluate").Evaluate
    with _model(scale.model) as options:
        dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)
        dspy.configure(lm=dspy.LM("openai/bench", cache=False, **options))
        program = dspy.Predict(_SIGNATURE)
        questions = [
            dspy.Example(question=f"What is the color of sky {number}?").with_inputs("question")
            for number in range(scale.records)
        ]
        quiet = {"num_threads": scale.at_once, "display_progress": False, "max_errors": scale.records}
        ignored = _Count(scale)
        evaluate(devset=questions[: scale.at_once], metric=lambda e, p, t=None: ignored.note(p.answer), **quiet)(
            program
        )
        start = time.perf_counter() - begun
        count = _Count(scale)
        evaluate(devset=questions, metric=lambda e, p, t=None: count.note(p.answer), **quiet)(program)
        return count.samples(start)
