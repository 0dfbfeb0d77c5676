"""`kill -9` of an application with a pool: no worker is left, whatever it was doing, nor what it started.

Each is a program of its own that opens a pool, brings its workers to some point, says who is there,
and kills itself, or waits to be killed. That it takes less than two seconds is the kernel's doing; the
time below is a guard.

Four of the ways are tried with every way to start workers, `make harness` has ten of each: nothing is left of
the workers, of what forks them, or of the files that they had, when the same program has run once more.
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

how, fifo, start = sys.argv[1:]
pids = []

ways = {{
    "spawn": dict(start_method="spawn"),
    "forkserver": dict(start_method="forkserver"),
    "spare": dict(start_method="forkserver", spares=1),
}}

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
    while len(pids) < 2:  # the first may be as far before the second has been noted
        await trio.lowlevel.checkpoint()
    die()

async def everybody(pool):
    # The workers, spares too, when all have come up, and what forks them.
    while any(worker.state == "initializing" for worker in pool.snapshot().workers):
        await trio.lowlevel.checkpoint()
    snapshot = pool.snapshot()
    return [worker.pid for worker in snapshot.workers] + [snapshot.template_pid]

async def main():
    settings = {{"announce": fifo, "hang": True}} if how == "in its setup" else {{}}
    async with trio.open_nursery() as nursery:
        if how == "in its setup":
            nursery.start_soon(kill_in_setup)
        async with open_pool(
            adapter="wild:Wild", settings=settings, min_workers=2, max_workers=2, **ways[start],
            launcher=Launcher() if start == "spawn" else None,
        ) as pool:
            if start != "spawn":
                pids.extend(await everybody(pool))
            if how == "not killed":
                return
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


def killed(how: str, fifo: str, start: str = "spawn") -> list[int]:
    """Run an application that is killed; which processes it had."""
    program = [sys.executable, "-W", "ignore", "-c", APPLICATION, how, fifo, start]
    done = subprocess.run(program, stdout=subprocess.PIPE, text=True, timeout=HANG, check=False)
    assert done.returncode == -signal.SIGKILL
    return [int(pid) for pid in done.stdout.split()]


@pytest.mark.parametrize("time", range(2))
@pytest.mark.parametrize("how", WAYS)
def test_no_worker_is_left(how: str, time: int, fifo: str) -> None:
    pids = killed(how, fifo)
    if how == "the application has forked":
        child = pids.pop()  # it is no worker, and goes on as long as it likes
        try:
            assert gone(pids)
        finally:
            os.kill(child, signal.SIGKILL)
    assert len(pids) == (4 if how == "with children of its own" else 2)
    assert gone(pids)


# ── However its workers are started ─────────────────────────────────────────────────────────────

STARTS = {"spawn": 2, "forkserver": 3, "spare": 4}
"""How many processes there are: two workers, what forks them, one worker in reserve."""

CELLS = ["idle", "spin", "spin_in_c", "with children of its own"]


@pytest.mark.parametrize("how", CELLS)
@pytest.mark.parametrize("start", STARTS)
def test_nothing_is_left_after_the_next_start(start: str, how: str, fifo: str) -> None:
    """Temporary files are seen by what watches every test; what is shared has a name of ours, if any."""
    pids = killed(how, fifo, start)
    assert len(pids) == STARTS[start] + (2 if how == "with children of its own" else 0)
    assert gone(pids)
    again = [sys.executable, "-W", "ignore", "-c", APPLICATION, "not killed", fifo, start]
    assert subprocess.run(again, stdout=subprocess.DEVNULL, timeout=HANG, check=False).returncode == 0
    assert not [name for name in os.listdir("/dev/shm") if "remuda" in name]
