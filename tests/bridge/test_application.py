"""What applications do to themselves: they close their own stdio, fork, and run out of threads."""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import trio

from remuda.bridge import messages
from remuda.bridge.seam import StartOrder
from remuda.bridge.spawn import SpawnedWorker, SpawnLauncher

from .talk import HANG, HERE, Talk, descriptors, started, talking

ORDER = StartOrder(pool="tests", slot=1, generation=1)

WITHOUT_STDIO = f"""
import os, sys
sys.path.insert(0, {str(HERE.parent.parent)!r})
import trio
from tests.bridge.talk import talking

async def main():
    for name in sys.argv[2].split(","):
        os.close(int(name))
    async with talking() as talk, talking() as other:
        fds = [fd for each in (talk, other) for fd in (*each.worker._waited_for(), each.worker._lifeline_fd)]
        answers = [await each.value("echo", "hello") for each in (talk, other)]
        with open(sys.argv[1], "w") as file:
            file.write(f"{{answers}} {{min(fds) > 2}}")

trio.run(main)
"""


@pytest.mark.parametrize("closed", ["0", "1", "2", "0,1", "0,2", "1,2", "0,1,2"])
def test_it_has_closed_its_stdin_stdout_or_stderr(tmp_path: Path, closed: str) -> None:
    """The next pipe would get that number, and be taken for what belongs there, here or in the worker."""
    path = tmp_path / "said"
    program = [sys.executable, "-c", WITHOUT_STDIO, str(path), closed]
    assert subprocess.run(program, timeout=HANG).returncode == 0
    assert path.read_text() == "['hello', 'hello'] True"


# ── It forks ────────────────────────────────────────────────────────────────────────────────────


def forked(talk: Talk) -> tuple[int, int]:
    """A child of this process that lives until the descriptor is closed; its number comes first."""
    theirs, ours = os.pipe()
    child = os.fork()
    if child == 0:  # nothing but this is done in it
        try:
            os.close(ours)
            worker = talk.worker
            assert isinstance(worker, SpawnedWorker)
            worker.signal(signal.SIGKILL)
            worker.close()
            status = sum(os.path.exists(f"/proc/self/fd/{fd}") for fd in (worker._write_fd, worker._lifeline_fd))
            os.read(theirs, 1)
            os._exit(status)
        finally:
            os._exit(99)
    os.close(theirs)
    return child, ours


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of threads and forks, from Python 3.12 on
async def test_a_child_of_it_neither_holds_nor_harms_its_workers() -> None:
    async with talking() as talk:
        child, hold = forked(talk)
        try:
            assert await talk.value("echo", 1) == 1, "the worker was not the child's to end"
            worker = talk.worker
            assert isinstance(worker, SpawnedWorker)
            null = os.open("/dev/null", os.O_WRONLY)  # as the end of this process would close it
            os.dup2(null, worker._lifeline_fd, inheritable=False)
            os.close(null)
            assert await worker.wait() == -signal.SIGKILL, "the child does not keep it alive"
        finally:
            os.close(hold)
            assert ended(child) == 0


# ── It has no threads left ──────────────────────────────────────────────────────────────────────


async def test_no_thread_is_to_be_had_to_start_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any, **__: Any) -> Any:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(trio.lowlevel, "start_thread_soon", none)
    with pytest.raises(OSError, match="can't start new thread") as caught:
        await SpawnLauncher().start(ORDER)
    assert caught.value.errno == errno.EAGAIN


async def test_no_thread_is_to_be_had_to_wait_for_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is closed all the same, and the next start looks after its remains."""
    async with talking():  # all that is opened once, is open
        pass
    before = descriptors()
    worker = await SpawnLauncher().start(ORDER)
    pid = worker._pid
    pidfd = os.pidfd_open(pid)

    def none(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none)
        worker.close()
    assert select.select([pidfd], [], [], HANG)[0], "it ends"
    os.close(pidfd)
    assert descriptors() == before
    async with started():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


# ── Its workers never stop talking ──────────────────────────────────────────────────────────────


async def test_few_lines_are_taken_at_a_time_and_none_is_lost() -> None:
    """What is done for each line is small, but 65536 of them fit into a pipe."""
    async with talking() as talk:
        await talk.send(talk.numbered("empty_lines", [200_000]))
        taken: list[int] = []
        while sum(taken) < 200_000:
            lines = talk.worker.read_stderr()
            assert lines is not None
            taken.append(len(lines))
            if not lines:
                await talk.worker.stderr_readable()
        assert sum(taken) == 200_000
        assert max(taken) <= 4096
        assert await talk.receive() == messages.Result(1, None)
