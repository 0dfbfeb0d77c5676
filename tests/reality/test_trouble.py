"""The application is in trouble, not its workers: what had arrived is delivered, and no worker dies of it.

The errors say what to do, and when the trouble is over the pool is whole again by itself.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from remuda.benchmarks.memory import descendants
from remuda.runtime.config import Health, PoolConfig, Restart
from remuda.runtime.events import WorkerEnded
from remuda.runtime.opening import open_pool
from remuda.runtime.records import open_run
from tests.bridge.talk import state_of

from .test_pauses import SECONDS, block
from .world import HANG, HERE, load, world

PROGRAM = [sys.executable, str(HERE / "troubled.py")]
CGROUP = Path("/sys/fs/cgroup/pids")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{HERE.parent.parent}:{HERE}"}


def run(*arguments: str) -> list[str]:
    done = subprocess.run(
        [*PROGRAM, *arguments], capture_output=True, text=True, timeout=HANG, check=False, env=environment()
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


# ── It does not get to it ───────────────────────────────────────────────────────────────────────

STOPPED = """
import functools, runpy, signal, sys, trio, trio.testing

clock = trio.testing.MockClock(rate=0.1)
signal.signal(signal.SIGCONT, lambda *_: clock.jump(10))
trio.run = functools.partial(trio.run, clock=clock)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""A program whose time goes slowly, so that it has enough of it; but when it is continued ten seconds have passed."""


def test_it_is_stopped_with_all_kinds_of_things_under_way(tmp_path: Path) -> None:
    """Calls that are answered meanwhile, a checkout, health checks; all of them past their time."""
    fifos = [str(tmp_path / name) for name in ("small", "large")]
    for fifo in fifos:
        os.mkfifo(fifo)
    program = [PROGRAM[0], "-c", STOPPED, PROGRAM[1], "stopped", *fifos]
    with subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
    ) as application:
        assert application.stdout is not None and application.stdin is not None
        assert application.stdout.readline() == "ready\n"
        small, large = (open(fifo, "w") for fifo in fifos)  # as soon as the workers listen
        application.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, application.pid, os.WSTOPPED)
        with small, large:
            small.write("x" * 10)
            large.write("x" * 200_000)
        workers = descendants(application.pid)
        assert len(workers) == 4
        for worker in workers:
            while state_of(worker) != "S":  # it sleeps when it has answered, as far as a pipe reaches
                os.sched_yield()
        application.send_signal(signal.SIGCONT)
        application.stdin.write("\n")
        application.stdin.flush()
        told = application.stdout.read().splitlines()
    assert told == ["the lease holds", "['listen: 10', 'listen: 200000']", "{1}"]


@pytest.mark.parametrize("size", [10, 4_000_000], ids=["small", "larger than all pipes"])
async def test_a_deadline_of_the_callers_own_is_noticed_late(size: int, clock: MockClock, unhurried: None) -> None:
    """Whether its caller still takes the answer is trio's affair; a healthy worker is not killed for it."""
    async with world(max_frame_bytes=8_000_000, health=Health(interval=HANG)) as here:
        with trio.move_on_after(SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(here.pool.call, "large", {"size": size})
                await trio.testing.wait_all_tasks_blocked()
                block(here.pool, clock)
        assert {worker.state for worker in here.pool.snapshot().workers} == {"ready"}
        assert here.of(WorkerEnded) == []
        assert await here.pool.call("echo", {"token": 1}) == 1


async def test_a_start_that_hangs_does_not_outlast_the_shutdown(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the kernel, as from a file system that is gone. What comes of it after all is ended as well."""
    before = descriptors()
    stuck, go_on, real = threading.Event(), threading.Event(), subprocess.Popen
    born: list[Any] = []

    def hang(*args: Any, **named: Any) -> Any:
        if born:
            stuck.set()
            go_on.wait(HANG)
        born.append(real(*args, **named))
        return born[-1]

    monkeypatch.setattr(subprocess, "Popen", hang)
    config = PoolConfig(adapter="wild:Wild", max_workers=2, shutdown_timeout=1.0, start_method="spawn")
    try:
        with trio.fail_after(HANG):
            async with open_pool(config) as pool, trio.open_nursery() as nursery:
                for _ in range(2):  # so that a second worker is wanted
                    nursery.start_soon(pool.call, "echo", {"token": 1})
                await trio.to_thread.run_sync(stuck.wait, HANG)
        assert pool.state == "closed"
        assert not go_on.is_set() and len(born) == 1
    finally:
        go_on.set()
    while descriptors() != before:  # its thread is at it
        await trio.lowlevel.checkpoint()
    assert born[1].returncode == -signal.SIGKILL


# ── It does not get what it needs ───────────────────────────────────────────────────────────────


def test_it_is_out_of_descriptors() -> None:
    lost, another, healed = run("out_of_descriptors")
    assert lost.startswith("the operating system did not start it: [Errno 24] Too many open files")
    assert "Raise the limit on open files (ulimit -n" in lost
    assert another.startswith("pool 'another' could not start: ") and "ulimit -n" in another
    assert healed == "healed 0"


def test_it_is_out_of_descriptors_from_the_start() -> None:
    lost, healed = run("out_of_descriptors_from_the_start")
    assert lost.startswith("pool 'pool' could not start: ") and "ulimit -n" in lost
    assert healed == "healed"


@pytest.fixture
def pids() -> Iterator[Path]:
    """A control group that can have a limit on processes."""
    folder = CGROUP / f"remuda-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("no control group for processes can be made here")
    yield folder
    folder.rmdir()


def test_it_is_out_of_processes(pids: Path) -> None:
    program = f"open({str(pids / 'cgroup.procs')!r}, 'w').write('0'); import runpy, sys; runpy.run_path(sys.argv[0], run_name='__main__')"
    code = f"import sys; sys.argv = {[PROGRAM[1], 'out_of_processes', str(pids / 'pids.max')]!r}; {program}"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=HANG, check=False, env=environment()
    )
    assert done.returncode == 0, done.stderr
    lost, healed = done.stdout.splitlines()
    assert "Resource temporarily unavailable" in lost or "can't start new thread" in lost
    assert "Raise the limit on processes and threads (ulimit -u" in lost
    assert healed == "healed"


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM, errno.ENFILE, errno.ENOENT])
async def test_no_process_is_to_be_had_for_a_while(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also as root, for whom there is no limit. Calls go on, with the worker that is left."""
    async with world(restart=Restart(base=0.001, cap=0.01, burst=1000), start_method="spawn") as here:
        async with load(here.pool, 3) as others:
            with monkeypatch.context() as patch:

                def refuse(*args: object, **named: object) -> None:
                    raise OSError(number, os.strerror(number))

                patch.setattr(subprocess, "Popen", refuse)
                await here.kill_one()
                await here.until(lambda: len(here.of(WorkerEnded)) >= 3)
                await others.more(30)
                cause = here.of(WorkerEnded)[-1].death.cause
                assert os.strerror(number) in cause and cause.count(". ") == 1  # and what to do
            await here.until(lambda: here.whole)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


async def test_the_disk_is_full_and_then_is_not(small_disk: Path, tmp_path: Path) -> None:
    """What is there stays valid, the error says so, and the run goes on where it was."""
    source, output = tmp_path / "in.jsonl", small_disk / "out.jsonl"
    source.write_text("".join(f'{{"n": {n}}}\n' for n in range(10)))

    async def work(record: dict[str, Any]) -> dict[str, Any]:
        return {"outputs": {"n": record["n"], "text": "x" * 3000}}

    with open_run(source, output, {}) as full, pytest.raises(ExceptionGroup) as caught:
        await full.process(work, concurrency=1)
    (error,) = caught.value.exceptions
    assert isinstance(error, OSError) and error.errno == errno.ENOSPC
    assert 0 < full.done < 10 and output.read_bytes().count(b"\n") == full.done
    await trio.run_process(["mount", "-o", "remount,size=1m", str(small_disk)])
    with open_run(source, output, {}) as again:
        assert again.resumed == full.done
        await again.process(work, concurrency=1)
        assert again.done == 10


# ── It is interrupted ───────────────────────────────────────────────────────────────────────────


def test_it_is_interrupted_all_the_time() -> None:
    ended, done = run("interrupted_all_the_time")
    assert ended == "{'answered': 230}" and done == "done"
