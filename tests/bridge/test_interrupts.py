"""The worker's half of an interrupt: it reaches user code of the call that it is meant for, and nothing else."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from remuda.bridge import functions, messages
from remuda.bridge.messages import FailureKind

from .talk import Talk, boot_message, started, talking


async def begun(talk: Talk, number: int) -> None:
    while talk.worker.evidence().started != number:
        await trio.lowlevel.checkpoint()


async def stopped(talk: Talk, number: int) -> messages.ToParent | None:
    """Interrupt a call until it is answered: a signal may come just before a system call, and not end it."""
    async with trio.open_nursery() as nursery:

        async def again() -> None:
            while True:
                talk.worker.interrupt(number)
                await trio.sleep(0.01)

        nursery.start_soon(again)
        answer = await talk.receive()
        nursery.cancel_scope.cancel()
    return answer


async def test_it_stops_the_call_that_is_meant() -> None:
    async with talking() as talk:
        await talk.send(talk.numbered("hang", ["python"]))
        await begun(talk, 1)
        talk.worker.interrupt(1)
        failure = await talk.receive()
        assert isinstance(failure, messages.Failure)
        assert (failure.id, failure.kind) == (1, FailureKind.INTERRUPTED)
        assert await talk.value("echo", 7) == 7
        assert talk.marks == (2, 2) or talk.marks == (2, 1)  # the last mark may come behind the answer


@pytest.mark.parametrize("number", [1, 3, 2**40])
async def test_any_other_call_is_left_alone(number: int, tmp_path: Path) -> None:
    """The signal comes while call 2 waits for a FIFO; what is stored is another number."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    async with talking(adapter=None) as talk:
        await talk.send(talk.numbered(*functions.request(int, ())))
        assert isinstance(await talk.receive(), messages.Result)
        await talk.send(talk.numbered(*functions.request(_read, (str(fifo),))))
        assert await talk.line() == "ready"
        talk.worker.interrupt(number)
        fifo.write_text("go on")  # noqa: ASYNC240  # it is being read
        answer = await talk.receive()
        assert isinstance(answer, messages.Result) and answer.id == 2


def _read(path: str) -> str:
    print("ready", file=sys.stderr, flush=True)
    return Path(path).read_text()


async def test_what_has_not_begun_does_not_begin() -> None:
    async with talking() as talk:
        talk.worker.interrupt(1)
        failure = await talk.failure("echo", 1)
        assert (failure.id, failure.kind) == (1, FailureKind.INTERRUPTED)
        assert talk.worker.evidence().started == 0
        assert await talk.value("echo", 2) == 2


async def test_an_idle_worker_is_not_disturbed() -> None:
    async with talking() as talk:
        assert await talk.value("echo", 1) == 1
        for number in (1, 2**50):
            talk.worker.interrupt(number)
            await talk.send(messages.Ping(number))
            assert await talk.receive() == messages.Pong(number, True, "")
        assert await talk.value("echo", 2) == 2


async def test_a_frame_is_not_torn_by_it() -> None:
    """The answer is too large for the pipe: the worker is writing it when the signal comes, again and again."""
    async with talking(max_frame_bytes=1 << 24) as talk:
        text = "x" * (1 << 20)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk.send, talk.numbered("echo", [text]))
            await begun(talk, 1)
            while talk.worker.activity().phase != "answering":
                await trio.lowlevel.checkpoint()
            for _ in range(20):
                talk.worker.interrupt(1)
            answer = await talk.receive()
        assert answer == messages.Result(1, text)


async def test_it_comes_once() -> None:
    """Whoever swallows it is not told again: what is left is to kill."""
    async with talking(adapter=None) as talk:
        await talk.send(talk.numbered(*functions.request(_swallow_twice, ())))
        assert await talk.line() == "ready"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stopped, talk, 1)
            assert await talk.line() == "the first"
            nursery.cancel_scope.cancel()
        talk.worker.interrupt(1)
        talk.worker.interrupt(1)
        talk.worker.signal(signal.SIGURG)  # the end of what nobody interrupts
        assert await talk.line() == "not again"


def _swallow_twice() -> None:
    done: list[int] = []
    signal.signal(signal.SIGURG, lambda *_: done.append(1))
    for word in ("the first", "the second"):
        try:
            if word == "the first":
                print("ready", file=sys.stderr, flush=True)
            while not done:
                pass
        except BaseException:
            print(word, file=sys.stderr, flush=True)
    print("not again", file=sys.stderr, flush=True)


async def test_what_it_has_started_gets_no_signal() -> None:
    """SIGUSR1 or SIGUSR2 would end it, and it could not answer any more."""
    async with talking(adapter=None) as talk:
        await talk.send(talk.numbered(*functions.request(_wait_for_a_child, ())))
        assert await talk.line() == "ready"
        talk.worker.ask_for_stack()
        failure = await stopped(talk, 1)
        assert isinstance(failure, messages.Failure) and failure.kind is FailureKind.INTERRUPTED
        await talk.send(talk.numbered(*functions.request(_ask_the_child, ("well?\n",))))
        answer = await talk.receive()
        assert isinstance(answer, messages.Result) and functions.loads(answer.value, "") == "well?\n"


_children: list[Any] = []


def _wait_for_a_child() -> None:
    import subprocess

    _children.append(subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    print("ready", file=sys.stderr, flush=True)
    _children[0].wait()


def _ask_the_child(text: str) -> str:
    (child,) = _children
    child.stdin.write(text)
    child.stdin.flush()
    line: str = child.stdout.readline()
    return line


async def test_neither_in_its_setup_nor_when_it_is_checked(tmp_path: Path) -> None:
    """Both wait for a FIFO, and the signal comes meanwhile: it does not end them."""
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    async with started() as talk:
        await talk.send(boot_message("patient:Patient", settings={"fifo": fifo}))
        for _ in range(2):
            assert await talk.line() == "waiting"
            talk.worker.interrupt(0)
            talk.worker.interrupt(1)
            Path(fifo).write_text("go on")  # noqa: ASYNC240  # it is being read
            answer = await talk.receive()
            assert isinstance(answer, messages.Hello) or answer == messages.Pong(9, True, "")
            await talk.send(messages.Ping(9))
        assert await talk.line() == "waiting"  # the last check, which nobody waits for


async def test_the_stack_of_a_worker_that_holds_the_interpreter() -> None:
    async with talking(adapter=None) as talk:
        await talk.send(talk.numbered("builtins:sum", functions.request(sum, (range(10**12),))[1]))
        await begun(talk, 1)
        talk.worker.ask_for_stack()
        while not talk.worker.stack()[1]:
            await trio.lowlevel.checkpoint()
        assert "most recent call first" in talk.worker.stack()[0]
        talk.worker.signal(signal.SIGKILL)
        await talk.worker.wait()
        assert talk.worker.stack()[1]  # it can be read afterwards
        assert talk.worker.activity().phase == "running"
    assert talk.worker.stack() == ("", False)
    talk.worker.ask_for_stack()
    talk.worker.interrupt(1)
