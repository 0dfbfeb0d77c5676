"""The rules of the seam, over all of its implementations: spawned and forked processes, and what plays them.

Whatever holds here holds for all, so a test on simulated workers says something about real ones.
The adapter of the real ones has the commands of the simulated ones that are needed here.
"""

from __future__ import annotations

import inspect
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from remuda.bridge import messages
from remuda.bridge.forkserver import ForkedWorker, Template
from remuda.bridge.frames import pack
from remuda.bridge.process import LocalWorker
from remuda.bridge.seam import Evidence, Launcher, StartOrder, TemplateProcess, Usage, WorkerProcess
from remuda.bridge.spawn import SpawnedWorker, SpawnLauncher
from remuda.runtime.templates import ForkLauncher
from remuda.specs.behaviour import Begin, Behaviour, Command, Finish, Fork, Hang, Reply, Say
from remuda.specs.simulated import SimLauncher, SimWorker
from remuda.specs.simulated_templates import SimTemplate, SimTemplates
from tests.bridge.talk import HANG, ForkingLauncher, Talk, boot_message, started, state_of, template

FOLDER = str(Path(__file__).parent / "contract")

PLAYED = Behaviour(
    commands={
        "hang": Command((Begin(), Say("begun\n"), Hang())),
        "mutter": Command((Begin(), Say("half a line"), Hang())),
        "chat": Command((Begin(), Say("".join(f"line {n}\n" for n in range(300))), Reply(), Finish())),
        "leave_child": Command((Begin(), Fork(), Reply(), Finish())),
    },
)


@pytest.fixture(params=["spawned", "forked", "simulated", "simulated, forked"])
async def launcher(request: pytest.FixtureRequest) -> AsyncIterator[Launcher]:
    if request.param == "spawned":
        yield SpawnLauncher()
        for thread in threading.enumerate():
            if thread.name.startswith("remuda-reaper"):
                thread.join(HANG)  # what was closed alive is reaped by a thread
    elif request.param == "forked":
        async with template("everyday:Everyday", sys_path=[FOLDER, *sys.path]) as one:
            yield ForkingLauncher(one)
    else:
        async with SimLauncher.open(PLAYED) as launcher:
            if request.param == "simulated":
                yield launcher
            else:
                one = await SimTemplates(launcher).start(StartOrder(pool="tests", slot=-1, generation=1))
                await one.prepare(boot_message(), [])
                yield _SimForking(one)
            assert launcher.witness.leftovers() == []


class _SimForking:
    """Forks workers from one simulated template."""

    def __init__(self, one: SimTemplate) -> None:
        self.template = one

    async def start(self, order: StartOrder) -> SimWorker:
        return await self.template.fork(order)


@asynccontextmanager
async def talking(launcher: Launcher) -> AsyncIterator[Talk]:
    async with started(launcher) as talk:
        hello = await talk.boot("everyday:Everyday", sys_path=[FOLDER, *sys.path])
        assert isinstance(hello, messages.Hello)
        assert hello.version == messages.VERSION
        assert hello.pid == talk.worker.pid
        assert {"echo", "say", "remember"} <= {info.name for info in hello.commands}
        yield talk


async def quiet(talk: Talk) -> None:
    """Once it has answered this, all that it does after an answer is done."""
    await talk.send(messages.Ping(77))
    assert await talk.receive() == messages.Pong(77, True, "")


async def stop(talk: Talk) -> None:
    """Stop it, and make sure that it is: a process goes on until the signal has reached it."""
    talk.worker.signal(signal.SIGSTOP)
    while isinstance(talk.worker, LocalWorker) and state_of(talk.worker._pid) != "T":
        await trio.lowlevel.checkpoint()


# ── The channel ─────────────────────────────────────────────────────────────────────────────────


async def test_handshake_and_echo(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        assert await talk.value("echo", "hello") == "hello"
        assert await talk.value("echo", value="hello") == "hello"


async def test_answers_come_in_the_order_of_the_questions(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        calls = [talk.numbered("echo", [number]) for number in range(50)]
        for call in calls:
            await talk.send(call)
        await talk.send(messages.Ping(1))
        for call in calls:
            assert await talk.receive() == messages.Result(call.id, call.args[0])
        assert await talk.receive() == messages.Pong(1, True, "")


async def test_a_message_may_come_in_pieces(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        frame = pack(messages.encode(talk.numbered("echo", ["in pieces"])), 1000)
        for index in range(len(frame)):
            await talk.send_bytes(frame[index : index + 1])
        assert await talk.receive() == messages.Result(1, "in pieces")


async def test_a_large_message_passes_a_small_channel(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        text = "x" * 1_000_000
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk.send, talk.numbered("echo", [text]))
            assert await talk.receive() == messages.Result(1, text)


@pytest.mark.parametrize(
    ("command", "args", "kind", "builtin"),
    [
        ("fail", ["no"], messages.FailureKind.RAISED, "ValueError"),
        ("exit", [3], messages.FailureKind.RAISED, None),
        ("unfit", [], messages.FailureKind.UNFIT, None),
        ("nothing", [], messages.FailureKind.UNKNOWN_COMMAND, None),
        ("fail", [], messages.FailureKind.BAD_ARGUMENTS, "TypeError"),
        ("unserializable", [], messages.FailureKind.UNSERIALIZABLE, None),
    ],
)
async def test_a_failure_is_an_answer(
    launcher: Launcher, command: str, args: list[object], kind: messages.FailureKind, builtin: str | None
) -> None:
    async with talking(launcher) as talk:
        answer = await talk.failure(command, *args)
        assert answer.kind is kind
        assert answer.error.builtin == builtin or kind is messages.FailureKind.UNKNOWN_COMMAND
        begun = kind not in (messages.FailureKind.UNKNOWN_COMMAND, messages.FailureKind.BAD_ARGUMENTS)
        assert not begun or talk.worker.evidence().started == 1
        assert await talk.value("echo", 1) == 1


async def test_nothing_to_read_is_not_the_end(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        assert talk.worker.is_quiet()
        assert talk.worker.read() is None
        assert talk.worker.read_stderr() == []


async def test_nobody_reads_while_a_full_channel_takes_no_more(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        await stop(talk)
        while talk.worker.write(b"\0" * 65536):
            pass
        assert talk.worker.write(b"\0") == 0
        async with trio.open_nursery() as nursery:
            done = False

            async def wait() -> None:
                nonlocal done
                await talk.worker.writable()
                done = True

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            assert not done
            talk.worker.signal(signal.SIGKILL)  # now there is nobody left to read
        with pytest.raises(BrokenPipeError):
            talk.worker.write(b"\0")


# ── Waiting ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("way", ["readable", "writable"])
async def test_one_task_waits_at_a_time(launcher: Launcher, way: str) -> None:
    async with talking(launcher) as talk:
        wait = getattr(talk.worker, way)
        if way == "writable":
            await stop(talk)
            while talk.worker.write(b"\0" * 65536):
                pass
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await wait()
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("way", ["readable", "writable"])
async def test_wake_ends_the_wait(launcher: Launcher, way: str) -> None:
    async with talking(launcher) as talk:
        if way == "writable":
            await stop(talk)
            while talk.worker.write(b"\0" * 65536):
                pass
        async with trio.open_nursery() as nursery:
            nursery.start_soon(getattr(talk.worker, way))
            await trio.testing.wait_all_tasks_blocked()
            talk.worker.wake()


async def test_a_wake_that_nobody_waits_for_is_forgotten(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        talk.worker.wake()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(talk.worker.readable)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert scope.cancelled_caught
        assert await talk.value("echo", 1) == 1


async def test_a_cancelled_wait_can_be_made_again(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        for way in (talk.worker.readable, talk.worker.stderr_readable, talk.worker.wait):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(way)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
        assert await talk.value("echo", 1) == 1
        assert await talk.end() == 0


# ── Evidence ────────────────────────────────────────────────────────────────────────────────────


async def test_evidence_before_during_and_after_a_call(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        assert talk.worker.evidence() == Evidence(0, 0, 0)
        await talk.value("echo", 1)
        await quiet(talk)
        assert talk.worker.evidence() == Evidence(1, 1, 1)
        await talk.send(talk.numbered("hang", []))
        assert await talk.line() == "begun"
        assert talk.worker.evidence() == Evidence(2, 1, 2)
        talk.worker.signal(signal.SIGKILL)
        await talk.worker.wait()
        assert talk.worker.evidence() == Evidence(2, 1, 2)
        talk.worker.close()
        assert talk.worker.evidence() == Evidence(2, 1, 2)


async def test_a_call_that_reached_nobody_is_not_begun(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        await stop(talk)
        await talk.send(talk.numbered("echo", [1]))
        talk.worker.signal(signal.SIGKILL)
        await talk.worker.wait()
        assert talk.worker.evidence() == Evidence(0, 0, 0)


# ── Its end ─────────────────────────────────────────────────────────────────────────────────────


async def test_shutdown_ends_it_in_order(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        assert await talk.end() == 0


async def test_wait_may_be_called_again(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        await talk.send(messages.Shutdown())
        assert await talk.worker.wait() == 0
        assert await talk.worker.wait() == 0


async def test_its_end_is_seen_and_then_it_is_reaped(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        await talk.send(talk.numbered("echo", [1]))
        await talk.worker.readable()
        talk.worker.signal(signal.SIGKILL)
        for _ in range(2):
            await talk.worker.ended()
        assert isinstance(await talk.receive(), messages.Result), "what it had said can be read"
        assert await talk.receive() is None
        worker = talk.worker
        if isinstance(worker, LocalWorker):
            assert worker.pid is not None and state_of(worker.pid) == "Z", "its number is its own"
        else:
            assert isinstance(worker, SimWorker) and not worker.alive and not worker.reaped
        assert await worker.wait() == -signal.SIGKILL
        await worker.ended()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
async def test_a_signal_ends_it_also_while_it_is_busy(launcher: Launcher, signum: signal.Signals) -> None:
    async with talking(launcher) as talk:
        await talk.send(talk.numbered("hang", []))
        assert await talk.line() == "begun"
        talk.worker.signal(signum)
        assert await talk.worker.wait() == -signum
        assert await talk.receive() is None
        for each in (signal.SIGTERM, signal.SIGKILL, signal.SIGCONT):
            talk.worker.signal(each)  # nobody is there any more


async def test_stopped_it_does_nothing_and_thawed_it_goes_on(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        await stop(talk)
        await talk.send(talk.numbered("echo", [1]))
        await trio.testing.wait_all_tasks_blocked()
        assert talk.worker.read() is None
        talk.worker.signal(signal.SIGCONT)
        assert await talk.receive() == messages.Result(1, 1)


async def test_stopped_it_is_terminated_when_it_is_thawed(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        await stop(talk)
        talk.worker.signal(signal.SIGTERM)
        talk.worker.signal(signal.SIGCONT)
        assert await talk.worker.wait() == -signal.SIGTERM


async def test_stopped_it_can_be_killed(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        await stop(talk)
        talk.worker.signal(signal.SIGKILL)
        assert await talk.worker.wait() == -signal.SIGKILL


async def test_what_it_wrote_can_be_read_after_its_death(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        await talk.send(talk.numbered("say", ["last words"]))
        await talk.worker.readable()
        assert not talk.worker.is_quiet()
        await talk.send(messages.Shutdown())
        assert await talk.worker.wait() == 0
        assert isinstance(await talk.receive(), messages.Result)
        assert await talk.receive() is None
        assert talk.worker.read() == b"", "and again"
        assert not talk.worker.is_quiet(), "the end is news, too"
        assert talk.worker.read_stderr() == ["last words"]
        assert talk.worker.read_stderr() is None


async def test_to_write_to_a_dead_one_is_an_error(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        talk.worker.signal(signal.SIGKILL)
        await talk.worker.wait()
        with pytest.raises(BrokenPipeError):
            talk.worker.write(b"anybody there?")
        await talk.worker.writable()
        await talk.worker.readable()


async def test_a_child_in_its_group_dies_with_it(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        answer = await talk.call("leave_child")
        assert isinstance(answer, messages.Result)
        await talk.send(messages.Shutdown())
        assert await talk.worker.wait() == 0
        assert await talk.receive() is None, "nobody holds the channel any more"
        await talk.words()


async def test_close_kills_it_and_may_be_called_again(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        worker, pid = talk.worker, talk.worker.pid
        pidfd = os.pidfd_open(pid) if isinstance(worker, LocalWorker) and pid else None
        worker.close()
        worker.close()
        if pidfd is not None:
            await trio.lowlevel.wait_readable(pidfd)
            os.close(pidfd)
        elif isinstance(launcher, SimLauncher):
            assert launcher.alive == []


async def test_a_closed_one_refuses_to_be_used(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        worker = talk.worker
        worker.close()
        with pytest.raises(trio.ClosedResourceError):
            worker.read()
        with pytest.raises(trio.ClosedResourceError):
            worker.is_quiet()
        with pytest.raises(trio.ClosedResourceError):
            worker.write(b"x")
        for wait in (worker.readable, worker.writable, worker.stderr_readable):
            with pytest.raises(trio.ClosedResourceError):
                await wait()
        worker.wake()
        worker.signal(signal.SIGTERM)
        worker.read_stderr()
        worker.stderr_tail()
        worker.evidence()


async def test_close_tells_those_who_wait(launcher: Launcher) -> None:
    async with talking(launcher) as talk:

        async def refused(way: str) -> None:
            with pytest.raises(trio.ClosedResourceError):
                await getattr(talk.worker, way)()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(refused, "readable")
            nursery.start_soon(refused, "stderr_readable")
            await trio.testing.wait_all_tasks_blocked()
            talk.worker.close()


# ── What it uses ────────────────────────────────────────────────────────────────────────────────


async def test_usage_before_and_after_its_end(launcher: Launcher) -> None:
    """What is known is right, and nothing need be known but that the dead have no memory."""
    async with talking(launcher) as talk:
        alive = talk.worker.usage()
        assert alive.rss != 0 and alive.max_rss is None
        if isinstance(launcher, SpawnLauncher):
            assert alive.rss is not None and alive.cpu is not None and alive.rss > 1_000_000
        await talk.send(messages.Shutdown())
        assert await talk.receive() is None, "the end of its channel comes when it has no memory any more"
        assert talk.worker.usage().rss == 0
        await talk.worker.wait()
        ended = talk.worker.usage()
        assert ended.rss == 0 and ended.max_rss is None, "it was smaller than this process"
        assert (ended.cpu is None) == isinstance(talk.worker, SimWorker)
        assert ended.cpu is None or alive.cpu is None or ended.cpu > 0
        talk.worker.close()
        assert talk.worker.usage() == ended


async def test_usage_of_what_was_closed_alive(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        talk.worker.close()
        assert talk.worker.usage() == Usage(rss=0)


async def test_usage_of_what_somebody_else_has_reaped(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        talk.worker.signal(signal.SIGKILL)
        if isinstance(talk.worker, SpawnedWorker):
            os.waitpid(talk.worker._pid, 0)  # noqa: ASYNC222 - it is as good as dead
            assert talk.worker.usage() == Usage()
        await talk.worker.wait()
        assert talk.worker.usage().rss == 0 and talk.worker.usage().max_rss is None


# ── stderr ──────────────────────────────────────────────────────────────────────────────────────


async def test_lines_come_once_and_the_tail_keeps_them(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        await talk.value("say", "one")
        assert await talk.line() == "one"
        await talk.value("say", "two\nthree")
        lines: list[str] = []
        while len(lines) < 2:
            lines += (await talk.line()).split("\n")
        assert lines == ["two", "three"]
        assert talk.worker.read_stderr() == []
        assert talk.worker.stderr_tail() == ("one", "two", "three")


async def test_an_unfinished_line_is_in_the_tail_and_becomes_a_line_at_the_end(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        await talk.send(talk.numbered("mutter", []))
        await talk.worker.stderr_readable()
        assert talk.worker.read_stderr() == []
        assert talk.worker.stderr_tail() == ("half a line",)
        talk.worker.signal(signal.SIGKILL)
        await talk.worker.wait()
        assert talk.worker.read_stderr() == ["half a line"]
        assert talk.worker.read_stderr() is None
        assert talk.worker.stderr_tail() == ("half a line",)


async def test_the_tail_has_two_hundred_lines(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        await talk.value("chat")
        await talk.send(messages.Shutdown())
        await talk.worker.wait()
        assert talk.worker.stderr_tail() == tuple(f"line {number}" for number in range(100, 300))
        assert await talk.words() == [f"line {number}" for number in range(300)]


async def test_start_can_be_cancelled(launcher: Launcher) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await launcher.start(StartOrder(pool="tests", slot=1, generation=1))
    assert scope.cancelled_caught


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        *[(Launcher, given) for given in (SpawnLauncher, SimLauncher, ForkLauncher)],
        *[(WorkerProcess, given) for given in (SpawnedWorker, ForkedWorker, SimWorker)],
        *[(TemplateProcess, given) for given in (Template, SimTemplate)],
    ],
)
def test_all_have_what_the_seam_asks_for(asked: type, given: type) -> None:
    """Each method, with the same arguments, to be awaited or not."""
    methods = [name for name, member in vars(asked).items() if callable(member) and not name.startswith("_")]
    assert methods
    for name in methods:
        theirs, ours = getattr(asked, name), getattr(given, name)
        assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters), name
        assert inspect.iscoroutinefunction(ours) == inspect.iscoroutinefunction(theirs), name
