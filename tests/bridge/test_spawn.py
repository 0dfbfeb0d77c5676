"""Starting and ending real processes: all or nothing, and nothing left behind."""

from __future__ import annotations

import json
import mmap
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from remuda.bridge import messages, spawn
from remuda.bridge.seam import StartOrder
from remuda.bridge.spawn import SpawnedWorker, SpawnLauncher

from .talk import HANG, Talk, descriptors, started, talking

ORDER = StartOrder(pool="tests", slot=1, generation=1, patience=HANG)


def spawned(talk: Talk) -> SpawnedWorker:
    assert isinstance(talk.worker, SpawnedWorker)
    return talk.worker


def ends(pidfd: int) -> None:
    """Wait until the process behind this descriptor has ended; fails if it does not."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    assert poller.poll(HANG * 1000), "it lives on"
    os.close(pidfd)


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# ── All or nothing ──────────────────────────────────────────────────────────────────────────────

AT_THE_LIMIT = """
import errno, json, os, resource, signal, sys, threading
import trio
from remuda.bridge.seam import StartOrder
from remuda.bridge.spawn import SpawnLauncher

def opened():
    return {name: os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")}

async def main():
    launcher = SpawnLauncher()
    (await launcher.start(StartOrder(pool="p", slot=1, generation=1))).close()  # all that is opened once, is open
    for thread in threading.enumerate():
        if thread.name.startswith("remuda-reaper"):
            thread.join()
    report = []
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = opened()
    for spare in range(40):
        lowest = next(n for n in range(1000) if str(n) not in before)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + spare, hard))
        try:
            worker = await launcher.start(StartOrder(pool="p", slot=1, generation=1))
        except OSError as error:
            outcome = errno.errorcode[error.errno]
        else:
            worker.signal(signal.SIGKILL)
            status = await worker.wait()
            worker.close()
            outcome = "started" if worker._pidfd is not None else "started without a pidfd"
            assert status == -signal.SIGKILL, status
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        after = opened()
        try:
            os.waitpid(-1, os.WNOHANG)
            child = True
        except ChildProcessError:
            child = False
        report.append((outcome, after == before, child))
    print(json.dumps(report))

trio.run(main)
"""


async def test_whichever_descriptor_is_not_to_be_had_nothing_is_left() -> None:
    done = await trio.run_process([sys.executable, "-c", AT_THE_LIMIT], capture_stdout=True)
    report = [tuple(line) for line in json.loads(done.stdout)]
    outcomes = [outcome for outcome, _, _ in report]
    assert [line for line in report if line[1:] != (True, False)] == []
    refused = outcomes.count("EMFILE")
    assert refused >= 10, "each of them was missing once"
    assert outcomes == ["EMFILE"] * refused + ["started without a pidfd"] + ["started"] * (
        len(outcomes) - refused - 1
    ) or (outcomes == ["EMFILE"] * refused + ["started"] * (len(outcomes) - refused))


@pytest.mark.parametrize("at", range(1, 8))
async def test_whatever_fails_on_the_way_nothing_is_left(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    count = 0

    def failing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            if count == at:
                raise OSError(24, "Too many open files")
            return real(*args, **named)

        return call

    launcher = SpawnLauncher()
    (await launcher.start(ORDER)).close()
    join_reapers()
    before = descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(os, "pipe", failing(os.pipe))
        patch.setattr(os, "memfd_create", failing(os.memfd_create))
        patch.setattr("remuda.bridge.page.mmap.mmap", failing(mmap.mmap))
        patch.setattr("subprocess._fork_exec", failing(subprocess._fork_exec))  # type: ignore[attr-defined]
        with pytest.raises(OSError, match="Too many open files"):
            (await launcher.start(ORDER)).close()
    assert count == at
    assert descriptors() == before


async def test_an_interpreter_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = SpawnLauncher()
    (await launcher.start(ORDER)).close()
    join_reapers()
    before = descriptors()
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(FileNotFoundError):
        await launcher.start(ORDER)
    assert descriptors() == before


async def test_a_start_that_is_cancelled_before_it_begins_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spawn, "_spawn", lambda *order: pytest.fail("it was started"))
    with trio.CancelScope() as scope:
        scope.cancel()
        await SpawnLauncher().start(ORDER)
    assert scope.cancelled_caught


async def test_a_start_that_is_cancelled_on_the_way_leaves_nothing_or_a_worker_that_somebody_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    launcher = SpawnLauncher()
    (await launcher.start(ORDER)).close()
    join_reapers()
    before = descriptors()
    real, reached, go_on = spawn._spawn, threading.Event(), threading.Event()

    def slow(order: StartOrder, module: str, extra: tuple[int, ...]) -> SpawnedWorker:
        reached.set()
        assert go_on.wait(HANG)
        return real(order, module, extra)

    monkeypatch.setattr(spawn, "_spawn", slow)
    worker: SpawnedWorker | None = None
    async with trio.open_nursery() as nursery:

        async def start() -> None:
            nonlocal worker
            worker = await launcher.start(ORDER)

        nursery.start_soon(start)
        assert await trio.to_thread.run_sync(reached.wait, HANG)
        nursery.cancel_scope.cancel()
        go_on.set()
    assert worker is not None, "it exists, so it was handed over"
    worker.close()
    join_reapers()
    assert not exists(worker._pid)
    assert descriptors() == before


async def test_a_worker_costs_no_more_than_it_gives_back() -> None:
    async with talking() as talk:
        await talk.value("echo", 1)
    before = descriptors()
    for _ in range(3):
        async with talking() as talk:
            await talk.value("echo", 1)
            assert len(descriptors()) > len(before)
    assert descriptors() == before


# ── What it is started with ─────────────────────────────────────────────────────────────────────


async def test_the_environment_is_the_applications_and_what_was_ordered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REMUDA_TEST_ONE", "application")
    monkeypatch.setenv("REMUDA_TEST_TWO", "application")
    async with started(REMUDA_TEST_TWO="order") as talk:
        await talk.boot()
        assert await talk.value("environment", "REMUDA_TEST_ONE") == "application"
        assert await talk.value("environment", "REMUDA_TEST_TWO") == "order"


async def test_its_stdin_is_empty_and_its_group_its_own() -> None:
    before, ends = os.dup(0), os.pipe()
    os.dup2(ends[0], 0)
    try:
        worker = spawn._spawn(ORDER, "child", ())
    finally:
        os.dup2(before, 0)
        for fd in (before, *ends):
            os.close(fd)
    try:
        pid = worker._pid
        assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
        assert os.getpgid(pid) == os.getsid(pid) == pid
    finally:
        worker.signal(signal.SIGKILL)
        await worker.wait()
        worker.close()


async def test_no_signal_is_blocked_in_it_though_one_is_in_the_application() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
    try:
        worker = spawn._spawn(ORDER, "child", ())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        with trio.fail_after(HANG):
            talk = Talk(worker)
            await talk.boot()
            assert await talk.value("mask") == []
            worker.signal(signal.SIGTERM)
            assert await worker.wait() == -signal.SIGTERM
    finally:
        worker.signal(signal.SIGKILL)
        await worker.wait()
        worker.close()


@pytest.mark.parametrize("flags", [["-O"], ["-X", "dev"], ["-W", "error"], ["-I"], ["-E"]], ids=" ".join)
async def test_the_interpreters_options_are_passed_on(flags: list[str]) -> None:
    code = """
import sys, trio, os
from remuda.bridge.spawn import SpawnLauncher
from remuda.bridge.seam import StartOrder
async def main():
    worker = await SpawnLauncher().start(StartOrder(pool="p", slot=1, generation=1))
    while not (line := open(f"/proc/{worker.pid}/cmdline").read()):
        await trio.lowlevel.checkpoint()  # it is between its old program and the new one
    print(line.replace("\\0", " "))
    worker.signal(9); await worker.wait(); worker.close()
trio.run(main)
"""
    done = await trio.run_process([sys.executable, *flags, "-c", code], capture_stdout=True)
    assert "".join(flags) in done.stdout.decode().replace(" ", "")


# ── Its end ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(params=["pidfd", "thread"])
def watched(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With a pidfd, and without, as on other systems and old kernels."""
    real = spawn.open_pidfd

    def refuse(pid: int) -> int:
        raise OSError(38, "Function not implemented")

    def without(pid: int) -> int | None:
        with monkeypatch.context() as patch:
            patch.setattr(os, "pidfd_open", refuse)
            return real(pid)

    if request.param == "thread":
        monkeypatch.setattr(spawn, "open_pidfd", without)
    return str(request.param)


async def test_wait_kills_what_is_left_of_its_group(watched: str) -> None:
    async with talking() as talk:
        grandchild = os.pidfd_open(await talk.value("leave_child"))
        await talk.send(talk.numbered("exit_now", [7]))
        assert await talk.worker.wait() == 7
        ends(grandchild)


async def test_a_search_that_is_put_off_is_made_though_nobody_waits_for_it_any_more() -> None:
    async with talking() as talk:
        escaped = os.pidfd_open(await talk.value("leave_child_elsewhere"))
        talk.worker.signal(signal.SIGKILL)
        await talk.worker.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk.worker.kill_escaped, 0.05)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        ends(escaped)


async def test_a_wait_that_is_cancelled_can_be_made_again(watched: str) -> None:
    async with talking() as talk:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk.worker.wait)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert await talk.value("echo", 1) == 1, "it was left alone"
        talk.worker.signal(signal.SIGTERM)
        assert await talk.worker.wait() == -signal.SIGTERM


async def test_many_waits_in_threads_do_not_use_up_trios_own(watched: str) -> None:
    trios = trio.to_thread.current_default_thread_limiter()
    async with talking() as talk, trio.open_nursery() as nursery:
        nursery.start_soon(talk.worker.wait)
        await trio.testing.wait_all_tasks_blocked()
        assert trios.borrowed_tokens == 0
        talk.worker.signal(signal.SIGKILL)


async def test_a_signal_after_the_end_reaches_nobody(watched: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []
    async with talking() as talk:
        talk.worker.signal(signal.SIGKILL)
        await talk.worker.wait()
        monkeypatch.setattr(os, "killpg", lambda group, signum: sent.append((group, signum)))
        for signum in (signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP):
            talk.worker.signal(signum)
        assert sent == []


async def test_who_was_reaped_by_somebody_else_has_an_unknown_status(watched: str) -> None:
    async with talking() as talk:
        pid = spawned(talk)._pid
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)  # noqa: ASYNC222 - it is as good as dead
        assert await talk.worker.wait() is None
        assert await talk.worker.wait() is None


async def test_a_group_that_is_already_empty_is_no_trouble(watched: str) -> None:
    async with talking() as talk:
        await talk.send(messages.Shutdown())
        assert await talk.worker.wait() == 0
        assert await talk.worker.wait() == 0


def join_reapers() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("remuda-reaper"):
            thread.join(HANG)
            assert not thread.is_alive()


@pytest.mark.parametrize("how", ["idle", "python", "c", "blocked", "stopped"])
async def test_close_leaves_no_process_whatever_it_does(how: str, watched: str) -> None:
    async with talking() as talk:
        worker = spawned(talk)
        if how == "stopped":
            worker.signal(signal.SIGSTOP)
        elif how != "idle":
            await talk.send(talk.numbered("hang", [how]))
            assert (await talk.line()).startswith("hanging")
        worker.close()
        worker.close()
        join_reapers()
        assert not exists(worker._pid)


async def test_who_waits_when_it_is_closed_is_told(watched: str) -> None:
    async with talking() as talk:
        worker = spawned(talk)

        async def refused(wait: Callable[[], Any]) -> None:
            with pytest.raises(trio.ClosedResourceError):
                await wait()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(refused, worker.readable)
            nursery.start_soon(refused, worker.stderr_readable)
            await trio.testing.wait_all_tasks_blocked()
            worker.close()
        join_reapers()


async def test_a_closed_one_touches_no_descriptor_that_may_be_anothers_now() -> None:
    async with talking() as talk:
        worker = spawned(talk)
        worker.close()
        for use in (worker.read, lambda: worker.write(b"x")):
            with pytest.raises(trio.ClosedResourceError):
                use()
        for wait in (worker.readable, worker.writable, worker.stderr_readable):
            with pytest.raises(trio.ClosedResourceError):
                await wait()
        worker.wake()
        assert worker.read_stderr() is not None or worker.stderr_tail() == ()
        join_reapers()


async def test_evidence_is_kept_when_it_is_closed() -> None:
    async with talking() as talk:
        await talk.value("echo", 1)
        await talk.send(messages.Ping(1))
        await talk.receive()
        talk.worker.close()
        assert talk.marks == (1, 1)
        join_reapers()


async def test_a_grandchild_that_holds_everything_open_does_not_delay_the_end() -> None:
    async with talking() as talk:
        grandchild = os.pidfd_open(await talk.value("fork_forever"))
        os.kill(spawned(talk)._pid, signal.SIGKILL)
        assert await talk.worker.wait() == -signal.SIGKILL
        assert await talk.receive() is None
        ends(grandchild)


async def test_workers_do_not_hold_each_others_channels(tmp_path: Path) -> None:
    async with talking() as one, talking() as other:
        assert await other.value("echo", 1) == 1
        os.kill(spawned(one)._pid, signal.SIGKILL)
        assert await one.receive() is None, "nobody else holds the writing end"
        await one.worker.wait()


async def test_it_finds_the_package_when_the_application_is_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "remuda").mkdir()
    (tmp_path / "remuda" / "__init__.py").write_text("raise RuntimeError('not this one')")
    async with started() as talk:
        hello = await talk.boot()
        assert isinstance(hello, messages.Hello)
