"""Templates and the workers they make: real processes, which share nothing that two must not share.

What a worker does is tried in `test_child.py`, also on forked ones; here it is what is different: whose
child it is, what it was born with, and what becomes of it when its template is gone, stopped, or unfit.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from remuda.bridge import forkserver, functions, messages
from remuda.bridge.forkserver import ForkedWorker, Template
from remuda.bridge.seam import StartOrder, TemplateFailed, TemplateLost, TemplateUnfit
from remuda.bridge.spawn import SpawnLauncher
from remuda.bridge.template import Reap, ToTemplate
from remuda.specs.checkpoints import Mark, Points

from .talk import (
    HANG,
    HERE,
    WILD,
    ForkingLauncher,
    Talk,
    boot_message,
    descriptors,
    local,
    started,
    state_of,
    stop,
    talking,
    template,
)

ORDER = StartOrder(pool="tests", slot=1, generation=1, patience=HANG)


def module(folder: Path, name: str, text: str) -> dict[str, Any]:
    """Write a module; the fields of a boot message with which it is found."""
    (folder / f"{name}.py").write_text(text)
    return {"sys_path": [str(folder), str(WILD), *sys.path]}


def fork_in(one: Template) -> ForkingLauncher:
    return ForkingLauncher(one)


async def run(talk: Talk, name: str, *args: Any) -> Any:
    """Call a function by name in a worker without an adapter."""
    await talk.send(messages.Call(1, name, functions.dumps((args, {}))))
    answer = await talk.receive()
    assert isinstance(answer, messages.Result), answer
    return functions.loads(answer.value, name)


def children(pid: int | None) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def until_childless(one: Template) -> None:
    """Wait for what was killed a moment ago; fails by its guard if it is never reaped."""
    with trio.fail_after(HANG):
        while children(one.pid):
            await trio.lowlevel.checkpoint()


async def ended(pidfd: int) -> None:
    """Wait until the process behind this descriptor has ended; fails if it does not."""
    with trio.fail_after(HANG):
        await trio.lowlevel.wait_readable(pidfd)
    os.close(pidfd)


def held_by(pid: int | None) -> set[str]:
    """What the descriptors of a process are open on."""
    found = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.add(os.readlink(f"/proc/{pid}/fd/{name}"))
        except FileNotFoundError:
            pass
    return found


async def until_holding(one: Template, theirs: set[str]) -> None:
    """Wait until it has no worker left, nor a descriptor of one: a pidfd is closed after its worker was reaped."""
    await until_childless(one)
    with trio.fail_after(HANG):
        while held_by(one.pid) != theirs:
            await trio.lowlevel.checkpoint()


def peak_kibibytes(pid: int | None) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmHWM:")[2].split()[0])


def wait_for(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def shared_with(worker: ForkedWorker) -> set[str]:
    """What both the application and this worker have: the two ends of a pipe have one name."""
    fds = (worker._read_fd, worker._write_fd, worker._lifeline_fd, worker._stderr_fd)
    return {os.readlink(f"/proc/self/fd/{fd}") for fd in fds}


# ── What a worker is born with ──────────────────────────────────────────────────────────────────


async def test_nothing_of_an_elder_sister_is_inherited_and_nothing_of_the_template() -> None:
    async with template() as one:
        async with talking(launcher=fork_in(one)) as elder, talking(launcher=fork_in(one)) as younger:
            for sister, other in ((elder, younger), (younger, elder)):
                mine, hers = local(sister), local(other)
                assert isinstance(mine, ForkedWorker) and isinstance(hers, ForkedWorker)
                held = held_by(mine.pid)
                assert shared_with(mine) <= held
                assert not shared_with(hers) & held
                assert not held & (held_by(one.pid) - {"/dev/null"})
                assert len(held) == 4 + 2, f"its four pipes, /dev/null and its page: {held}"
            os.kill(local(elder)._pid, signal.SIGKILL)
            assert await elder.receive() is None, "nobody else holds the writing end"


async def test_the_template_keeps_nothing_of_a_worker() -> None:
    async with template() as one:
        before = held_by(one.pid)
        async with talking(launcher=fork_in(one)):
            assert held_by(one.pid) - before == {"anon_inode:[pidfd]"}
        await until_holding(one, before)


async def test_its_stdin_is_empty_and_its_session_and_group_its_own() -> None:
    async with template() as one, talking(launcher=fork_in(one)) as talk:
        pid = local(talk)._pid
        assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
        assert os.getpgid(pid) == os.getsid(pid) == pid
        assert pid in children(one.pid)
        assert await talk.value("mask") == []


async def test_the_environment_is_the_templates_and_what_was_ordered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REMUDA_TEST_ONE", "application")
    monkeypatch.setenv("REMUDA_TEST_TWO", "application")
    async with template() as one:
        monkeypatch.setenv("REMUDA_TEST_ONE", "too late")
        async with started(fork_in(one), REMUDA_TEST_TWO="order") as talk:
            await talk.boot()
            assert await talk.value("environment", "REMUDA_TEST_ONE") == "application"
            assert await talk.value("environment", "REMUDA_TEST_TWO") == "order"
        async with talking(launcher=fork_in(one)) as talk:
            assert await talk.value("environment", "REMUDA_TEST_TWO") == "application", "it was for her sister"


async def test_what_it_says_is_its_own(tmp_path: Path) -> None:
    fields = module(tmp_path, "loud", "import os\nprint('imported')\nos.write(2, b'and to stderr\\n')\n")
    async with template(None, ["loud"], **fields) as one:
        async with talking(launcher=fork_in(one)) as elder, talking(launcher=fork_in(one)) as younger:
            for talk in (elder, younger):
                await talk.value("shout", str(talk.worker.pid))
                await talk.send(messages.Shutdown())
            said = {talk.worker.pid: await talk.words() for talk in (elder, younger)}
        for pid, lines in said.items():
            assert lines == [f"print {pid}", f"write {pid}", f"printf {pid}", f"echo {pid}", "unfinished"]
        while one.stderr_tail() != ("imported", "and to stderr"):
            await one.stderr_readable()
        assert one.read_stderr() == ["imported", "and to stderr"]


FAKE_NUMPY = """
import os

state = "the same for all"

def seed():
    global state
    state = os.urandom(8).hex()

def value():
    return state
"""


async def test_what_must_differ_between_workers_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy" / "__init__.py").write_text("")
    (tmp_path / "numpy" / "random.py").write_text(FAKE_NUMPY)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    fields = module(tmp_path, "eager", "import random, tempfile, numpy.random\nrandom.random(); tempfile.gettempdir()")
    names = ["random:random", "numpy.random:value", "tempfile:gettempdir"]
    drawn: list[list[Any]] = []
    async with template(None, ["eager"], **fields) as one:
        for folder in (os.environ["TMPDIR"], str(elsewhere)):
            async with started(fork_in(one), TMPDIR=folder) as talk:
                assert isinstance(await talk.boot(None, **fields), messages.Hello)
                drawn.append([await run(talk, name) for name in names])
    assert all(first != second for first, second in zip(*drawn, strict=True)), drawn


async def test_a_worker_that_cannot_be_made_different_dies_with_a_word(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("def seed():\n    raise RuntimeError('no dice')")
    fields = module(tmp_path, "eager", "import torch")
    async with template(None, ["eager"], **fields) as one, started(fork_in(one)) as talk:
        assert await talk.receive() is None
        assert await talk.worker.wait() == 1
        assert "RuntimeError: no dice" in await talk.words()
        async with started(fork_in(one)):
            pass  # it was her end, not the template's


async def test_twenty_mebibytes_of_settings_pass_and_the_template_has_none_of_it() -> None:
    settings = {"setup": "", "large": "x" * (20 << 20)}
    async with template(settings=settings) as one:
        async with talking(launcher=fork_in(one), settings=settings) as talk:
            assert await talk.value("echo", 1) == 1
        assert peak_kibibytes(one.pid) < 30 << 10, "the interpreter itself has half of that"


# ── Its end ─────────────────────────────────────────────────────────────────────────────────────


async def test_exit_statuses_are_known() -> None:
    async with template() as one:
        for command, args, status in (("exit_now", [7], 7), ("exit_now", [0], 0), ("pid", [], -signal.SIGTERM)):
            async with talking(launcher=fork_in(one)) as talk:
                await talk.send(talk.numbered(command, args))
                if status < 0:
                    talk.worker.signal(-status)
                assert await talk.worker.wait() == status
                assert await talk.worker.wait() == status
                for signum in (signal.SIGTERM, signal.SIGKILL):
                    talk.worker.signal(signum)  # nobody is there any more
        assert not children(one.pid)


@pytest.mark.parametrize("kernel", ["with group signals", "without"])
async def test_wait_kills_what_is_left_of_its_group(monkeypatch: pytest.MonkeyPatch, kernel: str) -> None:
    if kernel == "without":
        real = signal.pidfd_send_signal

        def older(pidfd: int, signum: int, info: None = None, flags: int = 0) -> None:
            if flags:
                raise OSError(errno.EINVAL, "Invalid argument")
            real(pidfd, signum)

        monkeypatch.setattr(signal, "pidfd_send_signal", older)
    async with template() as one, talking(launcher=fork_in(one)) as talk:
        grandchild = os.pidfd_open(await talk.value("leave_child"))
        await talk.send(talk.numbered("exit_now", [7]))
        assert await talk.worker.wait() == 7
        await ended(grandchild)
        async with talking(launcher=fork_in(one)) as another:
            grandchild = os.pidfd_open(await another.value("fork_forever"))
            another.worker.signal(signal.SIGTERM)
            assert await another.worker.wait() == -signal.SIGTERM
            assert await another.receive() is None
            await ended(grandchild)


async def test_close_leaves_no_process_also_when_the_template_is_stopped() -> None:
    async with template() as one, talking(launcher=fork_in(one)) as talk:
        pidfd = os.pidfd_open(local(talk)._pid)
        await talk.send(talk.numbered("hang", ["blocked"]))
        await talk.line()
        assert one.pid is not None
        await stop(one.pid)
        talk.worker.close()
        talk.worker.close()
        await ended(pidfd)
        os.kill(one.pid, signal.SIGCONT)
        await until_childless(one)


async def test_close_sends_the_signal_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    async with template() as one, talking(launcher=fork_in(one)) as talk:
        real = signal.pidfd_send_signal

        def spy(pidfd: int, signum: int, info: None = None, flags: int = 0) -> None:
            sent.append(signum)
            real(pidfd, signum, info, flags)

        monkeypatch.setattr(signal, "pidfd_send_signal", spy)
        talk.worker.close()
        assert sent == [signal.SIGKILL]
        await until_childless(one)


async def test_a_wait_that_is_given_up_does_not_lose_the_status() -> None:
    async with template() as one, talking(launcher=fork_in(one)) as talk:
        assert one.pid is not None
        await stop(one.pid)
        talk.worker.signal(signal.SIGTERM)
        await trio.lowlevel.wait_readable(local(talk)._pidfd or -1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk.worker.wait)
            while not one._replies:
                await trio.lowlevel.checkpoint()  # it sees the end, and asks how that was
            nursery.cancel_scope.cancel()
        os.kill(one.pid, signal.SIGCONT)
        async with talking(launcher=fork_in(one)):
            pass  # it has answered all that it was asked before
        assert await talk.worker.wait() == -signal.SIGTERM


# ── The template is gone, or does nothing ───────────────────────────────────────────────────────


async def test_workers_go_on_when_their_template_is_killed() -> None:
    async with template() as one, talking(launcher=fork_in(one)) as busy, talking(launcher=fork_in(one)) as stopped:
        await stop(local(stopped)._pid)
        await busy.send(busy.numbered("large", [1 << 20]))
        await busy.worker.readable()  # it is in the middle of its answer
        os.kill(one.pid or 0, signal.SIGKILL)
        assert await one.wait() == -signal.SIGKILL
        answer = await busy.receive()
        assert isinstance(answer, messages.Result) and len(answer.value) == 1 << 20
        assert state_of(local(stopped)._pid) == "T", "not even SIGHUP has reached it"
        stopped.worker.signal(signal.SIGCONT)
        assert await stopped.value("echo", 1) == 1
        with pytest.raises(TemplateLost):
            await one.fork(ORDER)
        pidfd = os.pidfd_open(local(busy)._pid)
        await busy.send(messages.Shutdown())
        assert await busy.worker.wait() is None, "nobody knows how"
        await ended(pidfd)
        grandchild = os.pidfd_open(await stopped.value("leave_child"))
        stopped.worker.signal(signal.SIGKILL)
        assert await stopped.worker.wait() is None
        await ended(grandchild)


async def test_a_stopped_template_hides_no_death(monkeypatch: pytest.MonkeyPatch) -> None:
    async with template() as one, talking(launcher=fork_in(one)) as talk, talking(launcher=fork_in(one)) as other:
        assert one.pid is not None
        await stop(one.pid)
        monkeypatch.setattr(forkserver, "_STATUS_PATIENCE", 0.05)
        talk.worker.signal(signal.SIGKILL)
        assert await talk.worker.wait() is None
        assert state_of(local(talk)._pid) == "Z", "its number is not free yet"
        assert await other.value("echo", 1) == 1
        os.kill(one.pid, signal.SIGCONT)
        monkeypatch.undo()
        with trio.fail_after(HANG):
            while local(talk)._pid in children(one.pid):
                await trio.lowlevel.checkpoint()
        async with talking(launcher=fork_in(one)) as another:
            assert await another.value("echo", 1) == 1
        other.worker.signal(signal.SIGTERM)
        assert await other.worker.wait() == -signal.SIGTERM
        await one.childless()


async def test_an_answer_that_is_there_counts_however_late_we_are(
    monkeypatch: pytest.MonkeyPatch, mock_clock: trio.testing.MockClock
) -> None:
    """When the loop was blocked, the answer and the end of our patience come up together."""
    put = Template._put

    def put_and_be_late(one: Template, message: ToTemplate) -> None:
        put(one, message)
        if isinstance(message, Reap):
            assert one._flush()
            assert select.select([one._process._read_fd], [], [], HANG)[0]
            mock_clock.jump(1.0)

    async with template() as one:
        monkeypatch.setattr(Template, "_put", put_and_be_late)
        monkeypatch.setattr(forkserver, "_STATUS_PATIENCE", 0.5)
        for _ in range(20):  # in either order
            async with talking(launcher=fork_in(one)) as talk:
                talk.worker.signal(signal.SIGTERM)
                assert await talk.worker.wait() == -signal.SIGTERM
        monkeypatch.undo()


async def test_many_wait_for_a_stopped_template_and_give_up() -> None:
    async with template() as one:
        one._control.setsockopt(1, 7, 4096)  # SOL_SOCKET, SO_SNDBUF: some of them have to wait to be heard
        before = descriptors()
        assert one.pid is not None
        await stop(one.pid)
        async with trio.open_nursery() as nursery:
            for _ in range(40):
                nursery.start_soon(one.fork, ORDER)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert one._handing_over.locked(), "else this shows nothing"
            nursery.cancel_scope.cancel()
        assert descriptors() == before
        os.kill(one.pid, signal.SIGCONT)
        async with talking(launcher=fork_in(one)) as talk:
            assert await talk.value("echo", 1) == 1
        await until_childless(one)


@pytest.mark.parametrize("end", ["killed", "closed"])
async def test_who_waits_when_it_ends_is_told(end: str) -> None:
    async with template() as one:
        one._control.setsockopt(1, 7, 4096)
        assert one.pid is not None
        await stop(one.pid)
        lost = 0

        async def refused() -> None:
            nonlocal lost
            with pytest.raises(TemplateLost):
                await one.fork(ORDER)
            lost += 1

        async with trio.open_nursery() as nursery:
            for _ in range(40):
                nursery.start_soon(refused)
            await trio.testing.wait_all_tasks_blocked(0.01)
            if end == "killed":
                one.kill()
                await one.wait()
            one.close()
        assert lost == 40
        for thread in threading.enumerate():
            if thread.name.startswith("remuda-reaper"):
                thread.join(HANG)  # what was closed alive is reaped by a thread


ADOPTING = """
import ctypes, os, signal, sys
import trio
from tests.bridge.talk import ForkingLauncher, talking, template

async def main():
    assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER: as process 1 of a container is
    async with template() as one:
        async with talking(launcher=ForkingLauncher(one)) as talk, talking(launcher=ForkingLauncher(one)) as other:
            os.kill(one.pid, signal.SIGKILL)
            talk.worker.signal(signal.SIGTERM)
            print(await talk.worker.wait())
            await other.send(other.numbered("exit_now", [7]))
            print(await other.worker.wait())
    try:
        print(os.waitpid(-1, os.WNOHANG))
    except ChildProcessError:
        print("no child is left")

trio.run(main)
"""


async def test_who_inherits_the_workers_of_a_dead_template_reaps_them() -> None:
    path = {**os.environ, "PYTHONPATH": str(HERE.parent.parent)}
    done = await trio.run_process([sys.executable, "-c", ADOPTING], capture_stdout=True, env=path)
    assert done.stdout.decode().split("\n") == ["-15", "7", "no child is left", ""]


# ── All or nothing ──────────────────────────────────────────────────────────────────────────────


async def test_a_fork_that_is_given_up_anywhere_leaves_nothing() -> None:
    async with template() as one:
        theirs = held_by(one.pid)
        async with talking(launcher=fork_in(one)):
            pass
        await until_holding(one, theirs)
        before = descriptors()
        made = 0
        for point in range(1000):
            mark = Mark(point, Points.ALL)
            trio.lowlevel.add_instrument(mark)
            worker = None
            with mark:
                worker = await one.fork(ORDER)
            trio.lowlevel.remove_instrument(mark)
            if worker is not None:
                made += 1
                worker.close()
            assert descriptors() == before, f"cancelled at {point}, {mark.where}"
            if not mark.cancelled:
                break
        assert made and point > 3
        await one.childless()
        await until_holding(one, theirs)


async def test_a_template_that_is_given_up_anywhere_leaves_nothing() -> None:
    async with template():
        pass
    before = descriptors()
    for point in range(1000):
        mark = Mark(point, Points.OWN)
        trio.lowlevel.add_instrument(mark)
        one = None
        with mark:
            one = await Template.start(SpawnLauncher(), ORDER)
        trio.lowlevel.remove_instrument(mark)
        if one is not None:
            one.kill()
            await one.wait()
            one.close()
        assert descriptors() == before, f"cancelled at {point}, {mark.where}"
        if not mark.cancelled:
            break
    assert point > 1


async def test_the_system_refuses_to_fork(tmp_path: Path) -> None:
    text = """
import errno, os
real, count = os.fork, 0
def fork():
    global count
    count += 1
    if count == 1:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
    return real()
os.fork = fork
"""
    async with template(None, ["crowded"], **module(tmp_path, "crowded", text)) as one:
        before, theirs = descriptors(), held_by(one.pid)
        with pytest.raises(BlockingIOError) as caught:
            await one.fork(ORDER)
        assert caught.value.errno == errno.EAGAIN
        assert (descriptors(), held_by(one.pid)) == (before, theirs)
        async with talking(launcher=fork_in(one)) as talk:
            assert await talk.value("echo", 1) == 1, "and later it does not"


@pytest.mark.parametrize("room", range(1, 9))  # of which it takes one to look whether it is fit
async def test_the_template_has_no_descriptors_left(tmp_path: Path, room: int) -> None:
    text = f"""
import os, resource
lowest = os.dup(0)
os.close(lowest)
resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + {room}, lowest + {room}))
"""
    async with template(None, ["narrow"], **module(tmp_path, "narrow", text)) as one:
        before, theirs = descriptors(), held_by(one.pid)
        for _ in range(2):
            if room < ENOUGH:
                with pytest.raises(OSError, match=r"descriptors left|Too many open files") as caught:
                    await one.fork(ORDER)
                assert caught.value.errno == errno.EMFILE
                assert descriptors() == before
            else:
                (await one.fork(ORDER)).close()
            await until_holding(one, theirs)


ENOUGH = 5 + 2  # what is handed over, and a pipe; later, in the place of that pipe, a pidfd

AT_THE_LIMIT = """
import errno, json, os, resource, signal, sys
import trio
from remuda.bridge.seam import StartOrder
from tests.bridge.talk import talking, template, ForkingLauncher

def opened():
    return {name: os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")}

async def main():
    report = []
    order = StartOrder(pool="p", slot=1, generation=1)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with template() as one:
        (await one.fork(order)).close()
        before = opened()
        for spare in range(25):
            lowest = next(n for n in range(1000) if str(n) not in before)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + spare, hard))
            try:
                worker = await one.fork(order)
            except OSError as error:
                outcome = errno.errorcode[error.errno]
            else:
                worker.signal(signal.SIGKILL)
                assert await worker.wait() == -signal.SIGKILL
                worker.close()
                outcome = "forked"
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            report.append((outcome, opened() == before))
        await one.childless()
        while open(f"/proc/{one.pid}/task/{one.pid}/children").read():
            await trio.lowlevel.checkpoint()
    print(json.dumps(report))

trio.run(main)
"""


async def test_whichever_descriptor_is_not_to_be_had_nothing_is_left() -> None:
    """That for the worker's pidfd included, which comes when the worker is there already."""
    path = {**os.environ, "PYTHONPATH": str(HERE.parent.parent)}
    done = await trio.run_process([sys.executable, "-c", AT_THE_LIMIT], capture_stdout=True, env=path)
    report = [tuple(line) for line in json.loads(done.stdout)]
    assert [line for line in report if not line[1]] == []
    outcomes = [outcome for outcome, _ in report]
    refused = outcomes.count("EMFILE")
    assert refused >= 10, "each of them was missing once"
    assert outcomes == ["EMFILE"] * refused + ["forked"] * (len(outcomes) - refused)


# ── What is to be imported ──────────────────────────────────────────────────────────────────────


async def test_an_import_raises(tmp_path: Path) -> None:
    fields = module(tmp_path, "broken", "raise LookupError('no such table')")
    async with template(prepared=False) as one:
        with pytest.raises(TemplateFailed, match="LookupError: no such table"):
            await one.prepare(boot_message(None, **fields), ["broken"])


@pytest.mark.parametrize("adapter", ["no_such_module:C", "unruly:Nothing", "unruly:sys"])
async def test_the_adapter_is_not_there(adapter: str) -> None:
    async with template(prepared=False) as one:
        with pytest.raises(TemplateFailed) as caught:
            await one.prepare(boot_message(adapter), [])
        assert caught.value.error.type_name in ("ModuleNotFoundError", "remuda.statemachines.errors.ConfigError")


async def test_an_import_ends_the_process(tmp_path: Path) -> None:
    fields = module(tmp_path, "deadly", "import os\nos.write(2, b'goodbye\\n')\nos._exit(3)")
    async with template(prepared=False) as one:
        with pytest.raises(TemplateLost):
            await one.prepare(boot_message(None, **fields), ["deadly"])
        assert await one.wait() == 3
        assert one.stderr_tail() == ("goodbye",)


async def test_children_are_told_from_zombies_whatever_an_import_did_to_signals(tmp_path: Path) -> None:
    fields = module(tmp_path, "careless", "import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)")
    async with template(None, ["careless"], **fields) as one, talking(launcher=fork_in(one)) as talk:
        await talk.send(talk.numbered("exit_now", [7]))
        assert await talk.worker.wait() == 7


UNFIT = {
    "a thread": (
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()",
        "it has 2 threads, and a fork would copy only one (the others: python",
    ),
    "a socket": ("import socket\nkept = socket.socket()", "has left a socket open"),
    "an open database": (
        "import sqlite3\nkept = sqlite3.connect({path!r})\nkept.execute('create table t (a)')\nkept.commit()",
        "has left the SQLite database {path} open",
    ),
    "an epoll": ("import select\nkept = select.epoll()", "has left an event loop open"),
}


@pytest.mark.parametrize("what", UNFIT)
async def test_it_is_not_fit_after_its_imports(tmp_path: Path, what: str) -> None:
    text, reason = (part.replace("{path}", str(tmp_path / "t.db")) for part in UNFIT[what])
    text = text.replace("{path!r}", repr(str(tmp_path / "t.db")))
    async with template(prepared=False) as one:
        with pytest.raises(TemplateUnfit) as caught:
            await one.prepare(boot_message(None, **module(tmp_path, "busy", text)), ["busy"])
        assert reason in str(caught.value)
        assert "start_method='spawn'" in str(caught.value), "and what to do"


@pytest.mark.parametrize("what", UNFIT)
async def test_it_becomes_unfit_later(tmp_path: Path, what: str) -> None:
    """By what it does before a fork: the worker that is forked then is well, and there is no second one."""
    text, reason = (part.replace("{path}", str(tmp_path / "t.db")) for part in UNFIT[what])
    text = text.replace("{path!r}", repr(str(tmp_path / "t.db")))
    opened = "\n".join(f"    {line}" for line in ["global kept", *text.split("\n")])
    text = f"import os, sqlite3, select, socket, threading\ndef late():\n{opened}\nos.register_at_fork(before=late)"
    async with template(None, ["late"], **module(tmp_path, "late", text)) as one:
        async with talking(launcher=fork_in(one)) as talk:
            before, theirs = descriptors(), held_by(one.pid)
            for _ in range(2):
                with pytest.raises(TemplateUnfit) as caught:
                    await one.fork(ORDER)
                assert reason in str(caught.value)
                assert (descriptors(), held_by(one.pid)) == (before, theirs)
            assert await talk.value("echo", 1) == 1
            await talk.send(talk.numbered("exit_now", [7]))
            assert await talk.worker.wait() == 7, "it still collects those it has"


async def test_what_was_opened_and_closed_again_does_no_harm(tmp_path: Path) -> None:
    """A thread that was joined is gone, though the system needs a moment for it."""
    text = """
import os, select, socket, sqlite3, threading
import remuda.bridge.template
remuda.bridge.template._MOMENTS = 12_000  # this machine may be busy
for _ in range(50):
    threads = [threading.Thread(target=os.getpid) for _ in range(3)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
socket.socket().close(); select.epoll().close(); sqlite3.connect(":memory:").close()
kept = open(__file__), sqlite3.connect(":memory:"), os.pipe(), open("/dev/zero")
"""
    async with template(None, ["tidy"], **module(tmp_path, "tidy", text)) as one:
        async with talking(launcher=fork_in(one)) as talk:
            assert await talk.value("echo", 1) == 1


async def test_a_thread_that_is_on_its_way_out_is_none(tmp_path: Path) -> None:
    text = """
import os
real, looks = os.listdir, 0
def listdir(path):
    global looks
    if path == "/proc/self/task":
        looks += 1
        if looks % 3:
            return [*real(path), "4194303"]
    return real(path)
os.listdir = listdir
"""
    async with template(None, ["fading"], **module(tmp_path, "fading", text)) as one:
        async with talking(launcher=fork_in(one)) as talk:
            assert await talk.value("echo", 1) == 1


# ── The application forks ───────────────────────────────────────────────────────────────────────


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of threads and forks, from Python 3.12 on
async def test_what_the_application_forks_holds_nothing_of_it() -> None:
    """Neither of templates, nor of workers, nor of one that is on its way."""
    before = held_by(os.getpid())
    async with template() as one, talking(launcher=fork_in(one)) as talk:
        assert one.pid is not None
        await stop(one.pid)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.fork, ORDER)
            await trio.testing.wait_all_tasks_blocked()
            theirs, report = os.pipe()
            child = os.fork()
            if child == 0:  # nothing but this is done in it
                try:
                    os.close(theirs)
                    held = held_by(os.getpid()) - before - {os.readlink(f"/proc/self/fd/{report}")}
                    os.write(report, json.dumps(sorted(held)).encode())
                finally:
                    os._exit(0)
            os.close(report)
            with open(theirs, "rb") as file:
                held = json.loads(file.read())
            assert wait_for(child) == 0
            assert [name for name in held if not name.startswith("/proc/")] == []
            assert len(held_by(os.getpid()) - before) > 10, "else there was nothing to inherit"
            nursery.cancel_scope.cancel()
        os.kill(one.pid, signal.SIGCONT)
        assert await talk.value("echo", 1) == 1
        await talk.send(talk.numbered("exit_now", [7]))
        assert await talk.worker.wait() == 7
