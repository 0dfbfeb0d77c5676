"""What is measured of every subject: a small call, many of them, and what comes after a kill.

Each measure takes a subject that was loaded and not yet opened, and gives numbers by name. The answers of
single calls are checked: a pool that answers wrongly has no speed.
"""

from __future__ import annotations

import math
import os
import select
import signal
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from remuda.benchmarks.limits import round_trip
from remuda.benchmarks.memory import descendants, own_bytes
from remuda.benchmarks.scale import Scale, of
from remuda.benchmarks.subjects import Subject, run
from remuda.benchmarks.tasks import echo, hold

__all__ = ["Samples", "ending", "latency", "quantile", "recovery", "throughput"]

Samples = dict[str, list[float]]


def quantile(values: list[float], share: float) -> float:
    """The smallest value that at least this share (above 0, up to 1) of the values does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def latency(subject: Subject, scale: Scale) -> Samples:
    """One worker, one caller: time to the first result, a call's p50 and p99, and the memory of the idle worker.

    A bare round trip is timed before and after, in the same mode, as a measure of the machine.
    """
    data = b"x" * scale.size

    async def main() -> Samples:
        start = time.perf_counter()
        async with subject.opened():
            assert await subject.call(echo, data) == data
            first = time.perf_counter() - start
            for _ in range(scale.warmup):
                await subject.call(echo, data)
            taken = []
            for _ in range(scale.calls):
                start = time.perf_counter()
                answer = await subject.call(echo, data)
                taken.append(time.perf_counter() - start)
                assert answer == data
            found = {"first": [first], "p50": [statistics.median(taken)], "p99": [quantile(taken, 0.99)]}
            return {**found, **_memory(await subject.worker_pid())}

    before = round_trip(scale.calls, scale.size)
    found = run(subject, main)
    return {**found, "bare": [before, round_trip(scale.calls, scale.size)]}


def _memory(worker: int) -> Samples:
    """Of an idle worker, and of the other processes of the pool, in bytes."""
    own = own_bytes(worker)
    if own is None:
        return {}
    others = [own_bytes(pid) or 0 for pid in descendants() if pid != worker]
    return {"own": [float(own)], "others": [float(sum(others))]}


def throughput(subject: Subject, scale: Scale) -> Samples:
    """Two workers, some callers: calls per second, and seconds that the parent computes for one."""
    data = b"x" * scale.size

    async def main() -> Samples:
        found: Samples = {}
        async with subject.opened():
            await subject.many(2 * subject.workers, max(scale.warmup, 2 * subject.workers), echo, data)
            for callers in scale.callers:
                start, computed = time.perf_counter(), time.process_time()
                await subject.many(callers, scale.calls, echo, data)
                found[of(callers)] = [scale.calls / (time.perf_counter() - start)]
                found[f"{of(callers)}, computed"] = [(time.process_time() - computed) / scale.calls]
        return found

    return run(subject, main)


def recovery(subject: Subject, scale: Scale, kills: int) -> Samples:
    """The only worker gets SIGKILL, idle and then busy: seconds to the next answer.

    Args:
        subject: with one worker.
        scale: its `patience` is the longest that is waited.
        kills: how many of each kind. After one that the pool did not survive there is no other.

    Returns:
        "idle" and "busy": seconds, of those kills after which there was an answer; "idle, survived" and "busy,
        survived": 1 for each of these, 0 for another. "errors": calls that failed until then. "told": 1 for each
        caller of a killed worker that heard of it, else 0. And the memory of a worker.
    """

    async def main() -> Samples:
        kinds = ("idle", "busy")
        found: Samples = {name: [] for kind in kinds for name in (kind, f"{kind}, survived")}
        found |= {"errors": [], "told": []}
        async with _victims(subject) as victims:
            async with subject.opened():
                await subject.attempt(math.inf if subject.by_trio else 600.0)
                await subject.settle()
                found.update(_memory(await subject.worker_pid()))
                for kind in [kind for kind in kinds for _ in range(kills)]:
                    if not await _kill_once(subject, scale, kind, victims, found):
                        break
            if not found["busy, survived"]:  # it had not survived the first: another pool, for the other question
                async with subject.opened():
                    await subject.attempt(600.0)
                    await _kill_once(subject, scale, "busy", victims, found)
        return {name: values for name, values in found.items() if values}

    return run(subject, main)


def ending(subject: Subject, kills: int) -> Samples:
    """The only worker gets SIGKILL, idle and then busy: seconds until the system says that it has ended.

    The system takes its memory back before that. No pool can know of a death any sooner.

    Args:
        subject: with one worker.
        kills: how many of each kind.

    Returns:
        "idle" and "busy": seconds.
    """

    async def main() -> Samples:
        found: Samples = {"idle": [], "busy": []}
        async with _victims(subject) as victims, subject.opened():
            for kind in [kind for kind in found for _ in range(kills)]:
                await subject.attempt(math.inf)
                await subject.settle()
                victim, _ = await victims(kind)
                pidfd, poller = os.pidfd_open(victim), select.poll()
                poller.register(pidfd, select.POLLIN)
                os.kill(victim, signal.SIGKILL)
                start = time.perf_counter()
                poller.poll()
                found[kind].append(time.perf_counter() - start)
                os.close(pidfd)
        return found

    return run(subject, main)


Hears = Callable[[float], Awaitable[bool]]
Victims = Callable[[str], Awaitable[tuple[int, Hears | None]]]


@asynccontextmanager
async def _victims(subject: Subject) -> AsyncGenerator[Victims]:
    """What finds a worker, and has it be "idle" or "busy": its process id, and whether its caller hears of its end."""
    with tempfile.TemporaryDirectory(prefix="remuda-bench-") as folder:
        fifo = os.path.join(folder, "busy")
        os.mkfifo(fifo)
        ear = os.open(fifo, os.O_RDWR)  # for both, so that it never ends

        async def victim(kind: str) -> tuple[int, Hears | None]:
            if kind == "idle":
                pid = await subject.worker_pid()
                await subject.pause(0.01)  # until it waits for its next call again
                return pid, None
            hears = await subject.begin(hold, fifo)
            await subject.readable(ear)
            return int.from_bytes(os.read(ear, 8), "little"), hears

        try:
            yield victim
        finally:
            os.close(ear)


async def _kill_once(subject: Subject, scale: Scale, kind: str, victims: Victims, found: Samples) -> bool:
    """One kill; whether the pool survived it."""
    victim, hears = await victims(kind)
    os.kill(victim, signal.SIGKILL)
    start, errors = time.perf_counter(), 0
    survived = False
    while (left := start + scale.patience - time.perf_counter()) > 0:
        try:
            await subject.attempt(left)
            found[kind].append(time.perf_counter() - start)
            survived = True
            break
        except Exception:
            errors += 1
            await subject.renew()
            await subject.pause(0.001)
    found[f"{kind}, survived"].append(float(survived))
    found["errors"].append(float(errors))
    if hears is not None:
        found["told"].append(float(await hears(scale.patience)))
    if survived:
        await subject.settle()
    return survived
