"""When the application is killed, its workers are gone with it, whatever they are doing."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

import pytest

from .talk import HANG, HERE, WILD

APPLICATION = f"""
import sys, signal
sys.path[:0] = [{str(HERE.parent.parent)!r}, {str(WILD)!r}]
import trio
from tests.bridge.talk import talking

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


@pytest.mark.parametrize("time", range(4))
@pytest.mark.parametrize("how", WAYS)
def test_no_worker_outlives_its_application(how: str, time: int) -> None:
    application = subprocess.Popen([sys.executable, "-c", APPLICATION, how], stdout=subprocess.PIPE, text=True)
    pidfds: list[int] = []
    try:
        assert application.stdout is not None
        pidfds = [os.pidfd_open(int(pid)) for pid in application.stdout.readline().split()]
        assert len(pidfds) == (3 if how == "grandchild" else 1)
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
        assert application.stdout is not None
        application.stdout.close()
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
