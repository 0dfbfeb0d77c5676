"""A worker that runs code which nobody has read, and that does what it can to the application.

The application's memory and time have bounds, nothing is run in it, and nothing stays behind. That its
loop goes on is shown by the calls of others, which go on meanwhile.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from remuda.bridge import functions
from remuda.runtime.config import Health, PoolConfig, Restart
from remuda.runtime.events import WorkerEnded, WorkerWrote
from remuda.runtime.opening import open_pool
from remuda.statemachines.errors import (
    CallTimeout,
    OutcomeUnknown,
    PoolClosed,
    PoolStartError,
    ProtocolError,
    RemoteError,
    SerializationError,
    WorkerDied,
)
from remuda.statemachines.policy import Retry

from .world import HANG, World, gone, load, read_fifo, world

ADAPTER = "hostile:Hostile"
MIB = 1024 * 1024
KINDS = ("pongs", "replies", "failures", "hellos", "empty frames", "large frames")
QUICK = Restart(base=0.001, cap=0.01)
ONCE = Restart(base=0.001, burst=1)
SOON = 20.0
"""Seconds that a process which was killed has to go: a guard, not a threshold."""


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@asynccontextmanager
async def besieged(**fields: Any) -> AsyncIterator[World]:
    """A pool with one hostile worker at least, and three callers who must not notice; it is whole in the end."""
    before = resident()
    async with world(**{"adapter": ADAPTER, "restart": QUICK, **fields}) as here:
        async with load(here.pool, 3) as others:
            here.others = others
            yield here
            await others.more(30)
            await here.until(lambda: here.whole)
    assert resident() - before < 100 * MIB


# ── Floods ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("what", KINDS)
async def test_a_flood_while_it_is_busy(what: str) -> None:
    async with besieged() as here:
        with pytest.raises(ProtocolError):
            await here.pool.call("flood", {"what": what}, timeout=HANG)


@pytest.mark.parametrize("what", KINDS)
async def test_a_flood_while_it_is_idle(what: str, fifo: str) -> None:
    async with world(adapter=ADAPTER, restart=QUICK) as here:
        pid = await here.pool.call("flood_later", {"what": what, "path": fifo})
        (link,) = (link for link in here.pool._links.values() if link.pid == pid)
        process: Any = link.process
        with open(os.open(fifo, os.O_RDWR), "w"):
            assert select.select([process._read_fd], [], [], HANG)[0]
            async with load(here.pool, 3):
                await here.until(lambda: bool(here.of(WorkerEnded)))
                await here.until(lambda: here.whole)
        assert [event.pid for event in here.of(WorkerEnded)] == [pid]


@pytest.mark.parametrize("what", KINDS)
async def test_a_flood_while_it_starts(what: str, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    settings = {"flood": what, "only if": str(flag)}
    async with besieged(settings=settings, init_timeout=HANG) as here:  # it is known by what it sends
        flag.touch()
        await here.kill_one()
        await here.until(lambda: len(here.of(WorkerEnded)) >= 2)  # the next one has flooded, and has gone
        await here.others.more(30)
        flag.unlink()


@pytest.mark.parametrize("what", KINDS)
async def test_a_flood_while_the_pool_closes(what: str) -> None:
    """With a call in hand, and in the worker's last act."""
    async with trio.open_nursery() as nursery:
        async with world(adapter=ADAPTER, settings={"last act": what}, shutdown_timeout=2.0) as here:
            # On a busy machine the pool may have closed before it had begun.
            nursery.start_soon(call_in_vain, here, "flood", {"what": what}, PoolClosed)
            await here.pool.call("echo", {"token": 1})
    assert here.pool.state == "closed"


async def call_in_vain(here: World, command: str, args: dict[str, Any], *also: type[Exception]) -> None:
    with pytest.raises((ProtocolError, OutcomeUnknown, WorkerDied, CallTimeout, *also)):
        await here.pool.call(command, args, timeout=HANG)


async def test_a_frame_that_trickles_for_ever() -> None:
    async with besieged(max_frame_bytes=64 * MIB) as here:
        with pytest.raises(CallTimeout):
            await here.pool.call("trickle", {"data": b"\x03\xff\xff\xff\x93\x03"}, timeout=1.0)


# ── What it says ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("an answer to a health check", "answered health check 1"),
        ("hello", "Hello out of turn"),
        ("that it cannot start", "BootFailed out of turn"),
        ("hello, with a million commands", "cannot be read"),
        ("an exception with a name without end", "cannot be read"),
        ("an exception with a traceback without end", "cannot be read"),
        ("an exception with notes without end", "cannot be read"),
        ("a kind of failure without end", "cannot be read"),
        ("an exception with lone surrogates", "cannot be read"),
        ("an exception that is nested without end", "nested too deeply"),
    ],
)
async def test_what_must_not_be_said(what: str, says: str) -> None:
    async with besieged(max_frame_bytes=64 * MIB) as here:
        with pytest.raises(ProtocolError) as caught:
            await here.pool.call("forge", {"what": what})
        assert says in str(caught.value) and len(str(caught.value)) < 2000
        assert len(here.of(WorkerEnded)[0].death.cause) < 1000


@pytest.mark.parametrize("shift", [-1_000_000, -1, 1, 2, 1_000_000])
async def test_an_answer_to_a_call_that_it_does_not_have(shift: int) -> None:
    """Such as one that another worker has at this moment."""
    async with besieged() as here:
        while here.pool._number < 1_000_001:
            here.pool._number = 1_000_001
        with pytest.raises(ProtocolError, match="which it does not have"):
            await here.pool.call("forge", {"what": "an answer to another's call", "text": str(shift)})


@pytest.mark.parametrize("what", ["its own answer twice", "its own answer, and those to the calls behind it"])
async def test_more_answers_than_one(what: str) -> None:
    """Its own call is its own affair. Those that come behind it, and may be given to it, are not."""
    async with besieged() as here:
        for _ in range(5):
            async with trio.open_nursery() as nursery:
                for number in range(8):
                    nursery.start_soon(echo, here, number)
                assert await here.pool.call("forge", {"what": what}) == "forged"
        await here.until(lambda: len(here.of(WorkerEnded)) >= 5)


async def echo(here: World, token: int) -> None:
    assert await here.pool.call("echo", {"token": token}) == token


async def test_a_text_that_would_command_a_terminal() -> None:
    async with world(adapter=ADAPTER) as here:
        with pytest.raises(RemoteError) as caught:
            await here.pool.call("forge", {"what": "an exception with control characters"})
        printed = str(caught.value) + "".join(caught.value.__notes__)
        assert r"\x1b]0;title\x07" in printed
        assert [char for char in printed if not char.isprintable() and char not in "\n\t"] == []


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("hello, with a million commands", "length <= 10000"),
        ("hello, with a name without end", "length <= 1000"),
        ("hello, with a name for a terminal", r"a command called '\x1b[2J'"),
        ("hello, with a timeout that is no number", "> 0.0"),
        ("hello, with a place before all arguments", ">= 0"),
        ("hello, larger than any", "4194304 are allowed"),
    ],
)
async def test_how_it_must_not_greet(what: str, says: str) -> None:
    before = resident()
    config = PoolConfig(adapter=ADAPTER, max_workers=1, settings={"forge": what}, restart=ONCE)
    with trio.fail_after(HANG), pytest.raises(PoolStartError) as caught:
        async with open_pool(config):
            pytest.fail("the pool has started")
    assert says in str(caught.value)
    assert resident() - before < 100 * MIB


@pytest.mark.parametrize("kind", ["list", "dict"])
async def test_a_result_as_deep_as_can_be(kind: str) -> None:
    """It arrives or it does not; the worker stays, and so does the application."""
    async with besieged() as here:
        ends = []
        for depth in (1, 100, 300, 500, 700, 900, 950, 1000, 1100, 5000, 80_000):
            try:
                await here.pool.call("nest", {"depth": depth, "kind": kind})
            except SerializationError:
                ends.append(depth)
        assert ends[0] > 300 and ends[-1] == 80_000
        assert here.of(WorkerEnded) == []


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


async def test_with_an_adapter_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crater = tmp_path / "crater"
    bomb = pickle.dumps(Bomb(crater))

    def never(*_: object, **__: object) -> None:
        raise AssertionError("it unpickles")

    async with world(adapter=ADAPTER) as here:
        for module, name in ((pickle, "loads"), (pickle, "Unpickler"), (functions, "loads")):
            monkeypatch.setattr(module, name, never)
        value = await here.pool.call("extension", {"data": bomb})
        assert value[0] == bomb and value[1].data == bomb
        with pytest.raises(ValueError) as caught:
            await here.pool.call("raise_with", {"data": bomb})
        assert isinstance(caught.value, RemoteError) and caught.value.remote_args == (bomb,)
    assert not crater.exists()


# ── With its descriptors ────────────────────────────────────────────────────────────────────────


async def test_stderr_without_end_and_without_a_newline() -> None:
    async with besieged() as here:
        async with here.pool.checkout() as held:  # so that nobody else has it when it is killed
            pid = await held.call("shout")
            await here.until(lambda: len(here.of(WorkerWrote)) >= 100)
            assert {len(event.line) for event in here.of(WorkerWrote)} == {8192}
            here.events.clear()
            os.kill(pid, signal.SIGKILL)
            await here.until(lambda: bool(here.of(WorkerEnded)))
        assert sum(map(len, here.of(WorkerEnded)[0].death.stderr_tail)) <= 64 * 1024
        here.events.clear()


@pytest.mark.parametrize(
    ("what", "kept"),
    [("stderr", True), ("what it reads", False), ("what it writes", False), ("everything", False)],
)
async def test_it_closes_its_descriptors(what: str, kept: bool) -> None:
    async with besieged() as here:
        try:
            assert await here.pool.call("close", {"what": what}) == "answered"
        except OutcomeUnknown:
            assert not kept
        if not kept:
            await here.until(lambda: bool(here.of(WorkerEnded)))
        assert (here.of(WorkerEnded) == []) is kept


# ── On the page ─────────────────────────────────────────────────────────────────────────────────


async def test_it_lies_about_what_it_began(tmp_path: Path) -> None:
    """A page that says neither this nor what it said before proves nothing: then the call counts as begun."""
    witness = tmp_path / "witness"
    async with besieged(retry=Retry(handovers=2)) as here:
        for _ in range(3):
            with pytest.raises(OutcomeUnknown):
                await here.pool.call("scribble", {"started": 2**64 - 1, "finished": 3, "witness": str(witness)})
        assert witness.read_text().count("begun") == 3
        assert here.pool.snapshot().ended["unknown"] == 3
        assert set(here.pool.snapshot().ended) <= {"unknown", "answered"}


async def test_it_lies_with_the_numbers_of_others(tmp_path: Path) -> None:
    """The worst it can do: its own call is repeated, or not. Nobody else's is judged by its page."""
    witness = tmp_path / "witness"
    async with besieged(retry=Retry(handovers=2)) as here:
        for number in range(3):  # which others' calls have, or had; and zero, as before its first
            with pytest.raises((OutcomeUnknown, WorkerDied)):
                await here.pool.call("scribble", {"started": number, "finished": 3, "witness": str(witness)})
        assert 3 <= witness.read_text().count("begun") <= 9
        assert set(here.pool.snapshot().ended) <= {"died", "unknown", "answered"}


async def test_the_page_cannot_be_cut_off() -> None:
    """A look at what is not there any more would end the application."""
    async with besieged() as here:
        assert await here.pool.call("cut_the_page") == "[0, 1, 8192]"
        assert here.pool.snapshot().workers


# ── Through others ──────────────────────────────────────────────────────────────────────────────

LEFT = (
    "a session of its own",
    "a group of its own",
    "another environment, and our stderr",
    "a parent that has gone",
    "the channel",
    "the channel, and it floods it",
    "it traces the worker",
)


@pytest.mark.parametrize("how", LEFT)
async def test_what_has_left_the_group_goes_with_a_worker_that_is_killed(how: str, fifo: str) -> None:
    async with besieged() as here:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(strike, fifo)
            with pytest.raises((OutcomeUnknown, ProtocolError)):
                await here.pool.call("leave_behind_and_wait", {"how": how, "path": fifo}, timeout=HANG)
        assert await trio.to_thread.run_sync(gone, [left_behind(fifo)], SOON)


def left_behind(fifo: str) -> int:
    return int(Path(f"{fifo}.left").read_text())


async def strike(fifo: str) -> None:
    os.kill(int(await read_fifo(fifo)), signal.SIGKILL)


@pytest.mark.parametrize("how", LEFT)
async def test_what_has_left_the_group_goes_with_the_pool(how: str) -> None:
    """And the pool does not wait for the end of the pipes that it holds."""
    async with world(adapter=ADAPTER, shutdown_timeout=5.0) as here:
        left = await here.pool.call("leave_behind", {"how": how}, timeout=HANG)
    assert gone([left], SOON)


async def test_what_has_left_the_group_goes_when_its_time_is_over(fifo: str, clock: MockClock) -> None:
    async def expire() -> None:
        await read_fifo(fifo)
        clock.jump(30.0)  # the calls of others have a minute

    async with besieged() as here:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expire)
            with pytest.raises(CallTimeout):
                args = {"how": "a session of its own", "path": fifo}
                await here.pool.call("leave_behind_and_wait", args, timeout=30.0)
        assert await trio.to_thread.run_sync(gone, [left_behind(fifo)], SOON)


async def test_what_has_nothing_of_its_worker_stays() -> None:
    """It cannot be told from a stranger. So strangers are safe; and so does one start what shall stay."""
    async with world(adapter=ADAPTER) as here:
        left = await here.pool.call("leave_behind", {"how": "nothing of ours"})
    os.kill(left, signal.SIGKILL)  # raises if it had gone
    assert gone([left], SOON)


async def test_health_checks_go_on_as_they_did() -> None:
    """They are asked and answered one by one, also late ones."""
    async with besieged(health=Health(interval=0.01, timeout=5.0)) as here:
        await here.others.more(100)
        assert here.of(WorkerEnded) == []
