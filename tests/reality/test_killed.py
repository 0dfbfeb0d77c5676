"""`kill -9` of an application with a pool: no worker is left, whatever it was doing, nor what it started.

Each is a program of its own that opens a pool, brings its workers to some point, says who is there,
and kills itself, or waits to be killed. That it takes less than two seconds is the kernel's doing; the
time below is a guard.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from .world import HANG, HERE, gone

APPLICATION = f"""
import os, signal, sys
sys.path[:0] = [{str(HERE.parent.parent)!r}, {str(HERE)!r}]
import trio, trio.testing
from remuda.bridge.spawn import SpawnLauncher
from remuda.runtime.opening import open_pool
from tests.reality.world import read_fifo

how, fifo = sys.argv[1:]
pids = []

def die():
    print(*pids, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

class Launcher(SpawnLauncher):
    async def start(self, order):
        worker = await super().start(order)
        pids.append(worker.pid)
        if how == "not yet Python" and len(pids) == 2:
            die()
        return worker

async def kill_in_setup():
    await read_fifo(fifo)
    die()

async def main():
    settings = {{"announce": fifo, "hang": True}} if how == "in its setup" else {{}}
    async with trio.open_nursery() as nursery:
        if how == "in its setup":
            nursery.start_soon(kill_in_setup)
        async with open_pool(
            adapter="wild:Wild", settings=settings, min_workers=2, max_workers=2, launcher=Launcher()
        ) as pool:
            if how == "with children of its own":
                pids.extend([await pool.call("abandon"), await pool.call("abandon")])
            elif how in ("pause", "spin", "spin_in_c"):
                nursery.start_soon(pool.call, how, {{"path": fifo}} if how == "pause" else {{}})
                await trio.testing.wait_all_tasks_blocked()
                while not any(link.process.evidence().started for link in pool._links.values()):
                    await trio.lowlevel.checkpoint()
            elif how == "stopped":
                for pid in pids:
                    os.kill(pid, signal.SIGSTOP)
            elif how == "the application has forked":
                if not (child := os.fork()):
                    os.close(1)  # the test reads to the end of it
                    signal.pause()
                pids.append(child)
            elif how == "closing":
                nursery.start_soon(pool.call, "spin")
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(pool.aclose)
                await trio.testing.wait_all_tasks_blocked()
            die()

trio.run(main)
"""

WAYS = [
    "idle",
    "pause",
    "spin",
    "spin_in_c",
    "stopped",
    "with children of its own",
    "the application has forked",
    "not yet Python",
    "in its setup",
    "closing",
]


@pytest.mark.parametrize("time", range(2))
@pytest.mark.parametrize("how", WAYS)
def test_no_worker_is_left(how: str, time: int, fifo: str) -> None:
    program = [sys.executable, "-W", "ignore", "-c", APPLICATION, how, fifo]
    done = subprocess.run(program, stdout=subprocess.PIPE, text=True, timeout=HANG, check=False)
    assert done.returncode == -signal.SIGKILL
    pids = [int(pid) for pid in done.stdout.split()]
    if how == "the application has forked":
        child = pids.pop()  # it is no worker, and goes on as long as it likes
        try:
            assert gone(pids)
        finally:
            os.kill(child, signal.SIGKILL)
    assert len(pids) == (4 if how == "with children of its own" else 2)
    assert gone(pids)
