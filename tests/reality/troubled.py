"""Applications in trouble: what `test_trouble.py` runs as processes of their own.

    python troubled.py <which> <arguments>

Each prints what came of it, line by line.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import trio

import remuda.bridge.forkserver
import remuda.runtime.templates  # noqa: F401  # what is imported late may not be when no file can be opened
from remuda.runtime.config import Health, Restart
from remuda.runtime.opening import open_pool
from remuda.statemachines.errors import PoolStartError
from tests.reality.world import settled

QUICK = Restart(base=0.01, cap=0.05, burst=1000, period=1.0)
WILD: dict[str, Any] = {
    "adapter": "wild:Wild",
    "min_workers": 2,
    "max_workers": 2,
    "restart": QUICK,
    "start_method": "spawn",  # which needs most; what a template lacks is in tests/bridge/test_forkserver.py
}


def limit_processes(file: str, limit: str) -> None:
    Path(file).write_text(limit)


def say(*words: object) -> None:
    print(*words, flush=True)


async def until(pool: Any, workers: int) -> None:
    """Wait until so many are ready."""
    while sum(worker.state == "ready" for worker in pool.snapshot().workers) != workers:
        await trio.sleep(0.01)


async def stopped(small: str, large: str) -> None:
    """Two calls are answered while it is stopped, one of them by more than a pipe holds; a third waits."""
    answers: list[str] = []

    async def call(command: str, args: dict[str, Any], timeout: float) -> None:
        answers.append(f"{command}: {len(await pool.call(command, args, timeout=timeout))}")

    health = Health(interval=0.05, timeout=2.0, failures=1)
    async with open_pool(**{**WILD, "health": health, "min_workers": 4, "max_workers": 4}) as pool:
        async with pool.checkout(session="a session") as lease, trio.open_nursery() as nursery:
            nursery.start_soon(call, "listen", {"path": small}, 4.0)
            nursery.start_soon(call, "listen", {"path": large}, 4.0)
            say("ready")  # one worker is left, and is checked again and again
            await trio.to_thread.run_sync(sys.stdin.readline)
            say(await lease.call("echo", {"token": "the lease holds"}))
        say(sorted(answers))
        say({worker.generation for worker in pool.snapshot().workers})


async def out_of_descriptors() -> None:
    """While calls are made, a worker is lost, and another pool is opened."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with open_pool(**WILD) as pool:
        before = len(os.listdir("/proc/self/fd"))
        victim = pool.snapshot().workers[0].pid
        assert victim is not None
        resource.setrlimit(resource.RLIMIT_NOFILE, (before - 4, hard))  # what a lost worker gives back is not enough
        os.kill(victim, signal.SIGKILL)
        while pool.last_death is None or "ulimit -n" not in pool.last_death.cause:
            await pool.call("echo", {"token": 1})
        say(pool.last_death.cause)
        try:
            async with open_pool(**WILD, name="another"):
                say("it started")
        except PoolStartError as error:
            say(str(error).splitlines()[0])
        for number in range(20):
            assert await pool.call("echo", {"token": number}) == number
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        await until(pool, 2)
        await settled(pool, folders_too=False)  # to remove one takes descriptors, too
        after = len(os.listdir("/proc/self/fd"))
        say("healed", after - before)


async def out_of_descriptors_from_the_start() -> None:
    """Before anything has been said, so that not even the log can be loaded."""
    from remuda.bridge import spawn
    from remuda.runtime import pool

    assert spawn and pool and "remuda.runtime.logs" not in sys.modules
    tempfile.gettempdir()  # it is found by opening a file, once
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, hard))
    try:
        async with open_pool(**WILD):
            say("it started")
    except PoolStartError as error:
        say(str(error).splitlines()[0])
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    async with open_pool(**WILD) as again:
        say(await again.call("echo", {"token": "healed"}))


async def out_of_processes(limit: str) -> None:
    """The control group of this process has a limit that can be set in the file."""
    async with open_pool(**WILD) as pool:
        victim = pool.snapshot().workers[0].pid
        assert victim is not None
        limit_processes(limit, "1")
        os.kill(victim, signal.SIGKILL)
        while pool.last_death is None or "ulimit -u" not in pool.last_death.cause:
            await pool.call("echo", {"token": 1})
        say(pool.last_death.cause)
        limit_processes(limit, "max")
        await until(pool, 2)
        say("healed")


async def interrupted_all_the_time() -> None:
    """By a signal, many times in each millisecond of work."""
    count = 0

    def ring(*_: object) -> None:
        nonlocal count
        count += 1

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    async with open_pool(**WILD) as pool:
        for size in (1, 1000, 1_000_000) * 10:
            assert len(await pool.call("large", {"size": size})) == size
        victim = pool.snapshot().workers[0].pid
        assert victim is not None
        os.kill(victim, signal.SIGKILL)
        for number in range(200):
            assert await pool.call("echo", {"token": number}, idempotent=True) == number
        await until(pool, 2)
        say(pool.snapshot().ended)
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert count > 100
    say("done")


if __name__ == "__main__":
    trio.run(globals()[sys.argv[1]], *sys.argv[2:])
