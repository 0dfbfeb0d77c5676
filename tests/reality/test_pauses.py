"""The application stands still past its deadlines: what was there in time is delivered, and nobody is killed.

Its loop is blocked by code that does not yield, or the whole process is stopped. The workers go on
meanwhile, as far as a pipe reaches.

To a loop that is blocked it is the same whether time has passed or its clock was put forward. So most of
these tests do that, and workers have as long as they need, however busy the machine is.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from remuda.runtime.events import WorkerEnded
from remuda.runtime.opening import open_pool
from remuda.runtime.pool import Pool
from tests.bridge.talk import state_of

from .world import HANG, HERE, world

SECONDS = 10.0
"""What calls have: the workers must have begun to answer by then."""

PAUSE = 50.0
"""For how long the loop is blocked; less than `HANG`, by which a world is given up."""


def block(pool: Pool, clock: MockClock) -> None:
    """What an application must not do: for so long that all workers with a call have begun to answer."""
    for link in pool._links.values():
        process: Any = link.process
        assert link.worker.call is None or select.select([process._read_fd], [], [], HANG)[0], "there is an answer"
    clock.jump(PAUSE)


@pytest.mark.parametrize("size", [10, 200_000], ids=["small", "larger than a pipe"])
@pytest.mark.parametrize("others", [0, 4])
async def test_the_loop_is_blocked_while_it_is_answered(
    size: int, others: int, clock: MockClock, unhurried: None
) -> None:
    answers: list[Any] = []
    async with world(max_workers=2) as here:
        pool = here.pool

        async def caller() -> None:
            answers.append(await pool.call("large", {"size": size}, timeout=SECONDS))

        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(caller)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(others):  # they wait, and find a worker only when it is too late for them
                nursery.start_soon(_in_vain, pool)
            await trio.testing.wait_all_tasks_blocked()
            block(pool, clock)
        assert answers == [bytes(size)] * 2
        assert here.of(WorkerEnded) == []
        assert await pool.call("echo", {"token": 1}) == 1


async def _in_vain(pool: Any) -> None:
    try:
        await pool.call("echo", {"token": 0}, timeout=SECONDS)
    except TimeoutError:
        pass


async def test_the_loop_is_blocked_while_workers_come_up(clock: MockClock, unhurried: None) -> None:
    async with trio.open_nursery() as nursery:

        async def later() -> None:
            await trio.testing.wait_all_tasks_blocked()
            clock.jump(1000)

        nursery.start_soon(later)
        async with open_pool(max_workers=2, min_workers=2, init_timeout=60.0) as pool:
            assert [worker.generation for worker in pool.snapshot().workers] == [1, 1]


APPLICATION = f"""
import sys
sys.path[:0] = [{str(HERE.parent.parent)!r}, {str(HERE)!r}]
import trio
from remuda.runtime.opening import open_pool

async def main():
    async with open_pool(adapter="wild:Wild", max_workers=1) as pool:
        print(pool.snapshot().workers[0].pid, flush=True)
        print(await pool.call("listen", {{"path": sys.argv[1]}}, timeout=5.0))
        print([worker.generation for worker in pool.snapshot().workers])

trio.run(main)
"""


def test_the_application_is_stopped_and_continued(fifo: str) -> None:
    program = [sys.executable, "-c", APPLICATION, fifo]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as application:
        assert application.stdout is not None
        worker = int(application.stdout.readline())
        with open(fifo, "w") as file:  # as soon as the worker listens
            application.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, application.pid, os.WSTOPPED)
            file.write("in time")
        while state_of(worker) != "S":  # it has read that, and sleeps when it has answered: nobody says so
            os.sched_yield()
        time.sleep(5.5)  # past the deadline: this is what is tested, and not a way to wait
        application.send_signal(signal.SIGCONT)
        assert application.stdout.read() == "in time\n[1]\n"
