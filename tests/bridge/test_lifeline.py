"""When the application is killed, its workers are gone with it, whatever they are doing."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .talk import HANG, HERE, WILD

APPLICATION = f"""
import sys, signal
sys.path[:0] = [{str(HERE.parent.parent)!r}, {str(WILD)!r}]
import trio
from tests.bridge.talk import default, talking

default.method = sys.argv[2]

async def main():
    async with talking() as talk:
        pids = [talk.worker.pid]
        how = sys.argv[1]
        if how == "grandchild":
            pids.append(await talk.value("fork_forever"))
            pids.append(await talk.value("leave_child"))
        elif how == "stopped":
            talk.worker.signal(signal.SIGSTOP)
        elif how == "booting":
            pass
        elif how != "idle":
            await talk.send(talk.numbered("hang", [how]))
            await talk.line()
        print(*pids, flush=True)
        await trio.sleep_forever()

trio.run(main)
"""

WAYS = ["idle", "sleep", "python", "c", "blocked", "grandchild"]


TEMPLATE = f"""
import multiprocessing, os, signal, sys
sys.path[:0] = [{str(HERE.parent.parent)!r}, {str(WILD)!r}]
import trio
from remuda.bridge.seam import StartOrder
from tests.bridge.talk import boot_message, template

def wait():
    os.set_inheritable(1, False)
    signal.pause()

async def main():
    how = sys.argv[1]
    async with template(prepared=how not in ("starting", "building")) as one:
        pids = [one.pid]
        async with trio.open_nursery() as nursery:
            if how == "building":
                nursery.start_soon(one.prepare, boot_message(None, sys_path=[sys.argv[2], *sys.path]), ["endless"])
                while not one.read_stderr():
                    await one.stderr_readable()
            if how in ("serving", "stopped", "the application has forked"):
                worker = await one.fork(StartOrder(pool="p", slot=1, generation=1))
                pids.append(worker.pid)
            if how == "stopped":
                os.kill(one.pid, signal.SIGSTOP)
            if how == "the application has forked":
                child = multiprocessing.get_context("fork").Process(target=wait)
                child.start()
                print(child.pid, file=sys.stderr, flush=True)
            print(*pids, flush=True)
            await trio.sleep_forever()

trio.run(main)
"""


@pytest.mark.parametrize("time", range(4))
@pytest.mark.parametrize("how", WAYS)
def test_no_worker_outlives_its_application(how: str, time: int) -> None:
    method = "forkserver" if time == 3 else "spawn"
    outlived([APPLICATION, how, method], 3 if how == "grandchild" else 1, how)


@pytest.mark.parametrize("how", ["starting", "building", "ready", "serving", "stopped", "the application has forked"])
def test_no_template_outlives_its_application(how: str, tmp_path: Path) -> None:
    (tmp_path / "endless.py").write_text("import signal\nprint('importing')\nwhile True: signal.pause()")
    workers = 1 if how in ("serving", "stopped", "the application has forked") else 0
    outlived([TEMPLATE, how, str(tmp_path)], 1 + workers, how)


def outlived(program: list[str], processes: int, how: str) -> None:
    """Kill an application, and see that all that it has named is gone."""
    application = subprocess.Popen(
        [sys.executable, "-c", *program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    pidfds: list[int] = []
    forked = 0
    try:
        assert application.stdout is not None and application.stderr is not None
        if how == "the application has forked":
            forked = int(application.stderr.readline())
        pidfds = [os.pidfd_open(int(pid)) for pid in application.stdout.readline().split()]
        assert len(pidfds) == processes
        poller = select.poll()
        for pidfd in pidfds:
            poller.register(pidfd, select.POLLIN)
        assert poller.poll(0) == [], "they live"
        application.kill()
        assert application.wait(HANG) == -signal.SIGKILL
        for pidfd in pidfds:
            one = select.poll()
            one.register(pidfd, select.POLLIN)
            assert one.poll(HANG * 1000), f"{how}: it lives on"
    finally:
        application.kill()
        application.wait()
        assert application.stdout is not None and application.stderr is not None
        application.stdout.close()
        application.stderr.close()
        if forked:
            os.kill(forked, signal.SIGKILL)
        for pidfd in pidfds:
            try:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass
            os.close(pidfd)


def test_who_holds_it_when_the_other_end_is_closed_already_ends_at_once() -> None:
    code = "import os; from remuda.bridge.lifeline import hold; r, w = os.pipe(); os.close(w); hold(r); print('alive')"
    done = subprocess.run([sys.executable, "-c", code], start_new_session=True, capture_output=True, timeout=HANG)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"")


def test_it_kills_nobody_as_long_as_the_other_end_is_open() -> None:
    code = "import os; from remuda.bridge.lifeline import hold; r, w = os.pipe(); hold(r); print('alive')"
    done = subprocess.run([sys.executable, "-c", code], start_new_session=True, capture_output=True, timeout=HANG)
    assert (done.returncode, done.stdout) == (0, b"alive\n")
