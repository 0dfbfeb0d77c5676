"""Every row of the table, on real processes, with other callers at work."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from remuda.runtime.config import Health, PoolConfig, Restart
from remuda.runtime.events import WorkerEnded, WorkerWrote
from remuda.runtime.opening import open_pool
from remuda.runtime.pool import Pool
from remuda.statemachines.errors import OutcomeUnknown, PoolStartError, RemoteError
from remuda.statemachines.worker import WorkerState

from .table import FIFO, ROWS, Row, page
from .world import HANG, HERE, World, load, read_fifo, world

pytestmark = pytest.mark.usefixtures("patient")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.happens.replace(" ", "-"))
async def test_during_a_call(row: Row, fifo: str, clock: MockClock) -> None:
    """What is about a deadline does not wait for it: the clock is put forward when the call has begun."""
    args = {name: value.replace(FIFO, fifo) if isinstance(value, str) else value for name, value in row.args.items()}
    async with world(health=Health(interval=0.05, recheck=0.05, timeout=HANG)) as here:
        pool = here.pool
        before = {worker.pid for worker in pool.snapshot().workers}
        async with load(pool, 3):
            async with trio.open_nursery() as nursery:
                if row.signal or row.deadline:
                    nursery.start_soon(strike, here, row, fifo, clock)
                await check(pool, row, args)
            await here.until(lambda: here.whole)
        after = {worker.pid for worker in pool.snapshot().workers}
        assert len(before - after) == (row.worker == "replaced")
        ended = [event for event in here.of(WorkerEnded) if not event.on_purpose]
        assert len(ended) == (row.worker == "replaced" and not row.deadline)
        if row.command == "say":
            await here.until(lambda: len(here.of(WorkerWrote)) == 3)
            assert {event.line for event in here.of(WorkerWrote)} == {
                "hello", "hello, to descriptor 1", "hello, from C",
            }  # fmt: skip


async def strike(here: World, row: Row, fifo: str, clock: MockClock) -> None:
    """What is done to the worker, or to its call, once that has begun."""
    if row.signal:
        os.kill(int(await read_fifo(fifo)), getattr(signal, row.signal))
    else:
        await here.until(lambda: has_begun(here.pool, row))  # the calls of others let it look again and again
    if row.deadline:
        clock.jump(row.timeout)


def has_begun(pool: Pool, row: Row) -> bool:
    """By its page; what it sends before it hangs has arrived as well."""
    running = [worker.command for worker in pool.snapshot().workers if worker.phase == "running"]
    return row.command in running and (
        "data" not in row.args or any(link._decoder.pending for link in pool._links.values())
    )


async def check(pool: Pool, row: Row, args: dict[str, Any]) -> None:
    if row.gets is None:
        value = await pool.call(row.command, args, timeout=row.timeout, idempotent=row.idempotent)
        if row.value is not None:
            assert value == row.value
        return
    with pytest.raises(row.gets) as caught:
        await pool.call(row.command, args, timeout=row.timeout, idempotent=row.idempotent)
    error = caught.value
    assert type(error) is row.gets or issubclass(type(error), RemoteError)
    text = str(error)
    for words in row.says:
        assert words in text
    if row.builtin is not None:
        assert isinstance(error, row.builtin)
    assert error.context["command"] == row.command


async def test_all_that_it_wrote_before_it_died_is_told() -> None:
    """As much as a pipe holds may be unread at that moment; the news is told in order."""
    async with world() as here:
        with pytest.raises(OutcomeUnknown):
            await here.pool.call("leave_in_tears", {"lines": 10_000})
        await here.until(lambda: bool(here.of(WorkerEnded)))
        assert [event.line for event in here.of(WorkerWrote)] == [str(number) for number in range(10_000)]
        wrote = [type(event) for event in here.events if type(event) in (WorkerWrote, WorkerEnded)]
        assert wrote.index(WorkerEnded) == 10_000


# ── Between calls ───────────────────────────────────────────────────────────────────────────────


async def test_SIGKILL_between_two_calls() -> None:
    async with world() as here:
        async with load(here.pool, 1):
            for worker in here.pool.snapshot().workers:
                if worker.state is WorkerState.READY and worker.pid is not None:
                    os.kill(worker.pid, signal.SIGKILL)
                    break
            await here.until(lambda: bool(here.of(WorkerEnded)))
            await here.until(lambda: here.whole)


async def test_SIGSTOP_between_two_calls() -> None:
    async with world(health=Health(interval=0.05, timeout=0.5, failures=1)) as here:
        pid = here.pool.snapshot().workers[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        # The other one may be ended as well, if it gets no time to answer.
        await here.until(lambda: pid in [event.pid for event in here.of(WorkerEnded)])
        await here.until(lambda: here.whole)
        async with load(here.pool, 2):
            pass


@pytest.mark.parametrize("data", [b"\xff" * 32, b"\x00\x00\x00\x08abc"], ids=["garbage", "half-a-frame"])
async def test_garbage_on_the_channel_between_two_calls(data: bytes, fifo: str, tmp_path: Path) -> None:
    done = str(tmp_path / "done")
    os.mkfifo(done)
    async with world() as here:
        pid = await here.pool.call("garble_later", {"data": data, "path": fifo, "done": done})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, open_and_close, fifo)
            await read_fifo(done)
        async with load(here.pool, 2):  # the first of these calls would read it
            await here.until(lambda: bool(here.of(WorkerEnded)))
            await here.until(lambda: here.whole)
        assert [event.pid for event in here.of(WorkerEnded)] == [pid]
        assert here.of(WorkerEnded)[0].death.cause in (
            "a frame says it has 4294967295 bytes, and 262144 are allowed",
            "it wrote to its channel when it had nothing to say",
        )


def open_and_close(path: str) -> None:
    with open(path, "w"):
        pass


# ── At the start ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"adapter": "broken:Adapter"}, ("import failed", "ImportError", "driver is not installed")),
        ({"adapter": "nowhere.to_be:Found"}, ("import failed", "No module named 'nowhere'")),
        ({"adapter": "wild:Tame"}, ("import failed", "'Tame'")),
        ({"adapter": "wild"}, ("no adapter is called 'wild'", "dspy", "package.module:Class")),
        ({"settings": {"fail": True}}, ("setup failed", "LookupError", "no such table")),
        ({"settings": {"hang": True}, "init_timeout": 2.0}, ("could not start", "init_timeout")),
        ({"settings": {"crash": True}}, ("could not start", "exit status 11")),
    ],
    ids=["import", "no-module", "no-class", "no-name", "setup-raises", "setup-hangs", "setup-dies"],
)
async def test_at_the_start(fields: dict[str, Any], says: tuple[str, ...]) -> None:
    config = PoolConfig(**{"adapter": "wild:Wild", "max_workers": 2, **fields, "restart": QUICK})
    with trio.fail_after(HANG), pytest.raises(PoolStartError) as caught:
        async with open_pool(config):
            pytest.fail("the pool has started")
    text = str(caught.value) + "".join(getattr(caught.value, "__notes__", ()))
    for words in says:
        assert words in text


QUICK = Restart(base=0.001, cap=0.01)


def test_the_page_is_this_table() -> None:
    assert (HERE.parents[1] / "docs" / "failures.md").read_text("utf-8") == page()
