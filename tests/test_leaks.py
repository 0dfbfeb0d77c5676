"""That the suite would notice what is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import uuid
from functools import partial
from pathlib import Path

import pytest
import trio

from . import leaks
from .leaks import MARK, Before


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stays is not waited for long."""
    monkeypatch.setattr(leaks, "SECONDS", 0.05)


def test_nothing_is_left_of_nothing(tmp_path: Path) -> None:
    assert Before("mark", tmp_path).left() == []


def test_a_child(tmp_path: Path) -> None:
    before = Before("", tmp_path)
    with subprocess.Popen(["sleep", "1000"]) as child:
        (left,) = before.left()
        assert left == f"process {child.pid} (sleep 1000 )"
        assert child.wait() == -signal.SIGKILL  # it was killed


def test_a_zombie(tmp_path: Path) -> None:
    before = Before("", tmp_path)
    with subprocess.Popen([sys.executable, "-c", "print()"], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.read()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        child.stdout.close()
        assert before.left() == [f"process {child.pid} (a zombie)"]


def test_a_process_that_has_left_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = uuid.uuid4().hex
    monkeypatch.setenv(MARK, mark)
    before = Before(mark, tmp_path)
    leave = (
        "import subprocess as s; "
        "print(s.Popen(['sleep', '1000'], start_new_session=True, stdout=s.DEVNULL, stderr=s.DEVNULL).pid)"
    )
    done = subprocess.run([sys.executable, "-c", leave], capture_output=True, text=True, check=True)
    assert before.left() == [f"process {int(done.stdout)} (sleep 1000 )"]


def test_a_process_that_is_on_its_way_out_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "SECONDS", 30)
    mark = uuid.uuid4().hex
    monkeypatch.setenv(MARK, mark)
    before = Before(mark, tmp_path)
    leave = "import subprocess; subprocess.Popen(['sleep', '0.2'], start_new_session=True)"
    subprocess.run([sys.executable, "-c", leave], check=True)
    assert before.left() == []


def test_a_descriptor(tmp_path: Path) -> None:
    before = Before("", tmp_path)
    reader, writer = os.pipe()
    assert [one.partition(":")[0] for one in before.left()] == ["descriptor of pipe"]
    os.close(reader)
    os.close(writer)
    assert before.left() == []


def test_a_thread(tmp_path: Path) -> None:
    before, go = Before("", tmp_path), threading.Event()
    thread = threading.Thread(target=go.wait, name="forgotten")
    thread.start()
    assert before.left() == ["thread forgotten"]
    go.set()
    thread.join()
    assert before.left() == []


async def test_what_a_thread_that_was_there_before_has_to_do_for_this_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """trio keeps its threads for the next job, also over the end of a test; what they are called says whose that is."""
    begun, go = threading.Event(), threading.Event()

    def forgotten() -> None:
        begun.set()
        go.wait()

    await trio.to_thread.run_sync(int)  # so that there is one
    before = Before("", tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.to_thread.run_sync, forgotten, abandon_on_cancel=True))
        while not begun.is_set():
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    (left,) = before.left()
    assert left.startswith("thread forgotten")
    monkeypatch.setattr(leaks, "SECONDS", 30)
    go.set()
    assert before.left() == []


def test_a_file(tmp_path: Path) -> None:
    before = Before("", tmp_path)
    (tmp_path / "forgotten").touch()
    assert before.left() == ["file forgotten"]
