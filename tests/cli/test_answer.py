"""What `remuda run` does with one record, and what it shows: without processes, but for the last test."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from rich.console import Console

from remuda.cli import progress
from remuda.cli.progress import showing
from remuda.cli.run import Job, Totals, _Start, answer, pool_config
from remuda.runtime.config import Retry
from remuda.runtime.events import Event, PoolChanged, Transition, WorkerEnded, WorkerReady
from remuda.runtime.opening import open_pool
from remuda.statemachines.errors import (
    CallTimeout,
    CircuitOpen,
    OutcomeUnknown,
    PoolClosed,
    PoolFailed,
    PoolFull,
    PoolStartError,
    RemoteError,
    RemudaError,
    WorkerDeath,
)


class Scripted:
    """Stands in for the pool: raises one thing after another, then answers."""

    def __init__(self, *errors: RemudaError) -> None:
        self.errors = list(errors)
        self.asked: list[float] = []

    async def call(self, command: str, arguments: dict[str, Any], *, idempotent: bool) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        assert (command, idempotent) == ("execute_program", True)
        assert arguments == {"program_id": "run", "inputs": {"a": 1}}
        self.asked.append(trio.current_time())
        if self.errors:
            raise self.errors.pop(0)
        return {"outputs": {"b": 2}}


async def test_the_trouble_of_the_pool_is_waited_out(autojump_clock: trio.testing.MockClock) -> None:
    never_begun = CallTimeout("it waited")
    never_begun.context["attempts"] = 0
    pool = Scripted(CircuitOpen("", retry_after=7.0), PoolFull(""), never_begun, PoolFailed("", retry_after=30.0))
    assert await answer(pool, {"a": 1}) == {"outputs": {"b": 2}}  # type: ignore[arg-type]
    assert pool.asked == [0.0, 7.0, 8.0, 8.0, 38.0]


async def test_a_record_that_is_never_begun_is_an_error_in_the_end(autojump_clock: trio.testing.MockClock) -> None:
    """A deadline that is shorter than the way to a worker: nobody waits for ever. Where many wait, they wait longer."""
    for queue, times in ((1.0, 10), (3.5, 40)):

        class Late(Scripted):
            async def call(self, command: str, arguments: dict[str, Any], *, idempotent: bool) -> dict[str, Any]:
                self.asked.append(trio.current_time())
                await trio.sleep(60)
                error = CallTimeout("never begun")
                error.context["attempts"] = 0
                raise error

        pool = Late()
        entry = await answer(pool, {"a": 1}, queue)  # type: ignore[arg-type]
        assert entry == {"error": {"type": "CallTimeout", "message": "never begun"}}
        assert len(pool.asked) == times


async def test_a_short_deadline_is_no_error_while_a_worker_may_still_start(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Late(Scripted):
        async def call(self, command: str, arguments: dict[str, Any], *, idempotent: bool) -> dict[str, Any]:
            self.asked.append(trio.current_time())
            await trio.sleep(1)
            error = CallTimeout("never begun")
            error.context["attempts"] = 0
            if trio.current_time() < 100:
                raise error
            return {"outputs": {}}

    assert await answer(Late(), {"a": 1}) == {"outputs": {}}  # type: ignore[arg-type]


async def test_a_killer_gets_no_more_attempts_for_failing_the_pool(autojump_clock: trio.testing.MockClock) -> None:
    failures: list[RemudaError] = []
    for _ in range(5):
        error = PoolFailed("", retry_after=6.0)
        error.context["attempts"] = 1
        error.last_death = WorkerDeath(0, 9, "killed", -9)
        failures.append(error)
    pool = Scripted(PoolFailed("", retry_after=6.0), *failures, PoolClosed("it was asked once more"))
    entry = await answer(pool, {"a": 1})  # type: ignore[arg-type]
    assert entry["error"]["type"] == "OutcomeUnknown"
    assert "begun 5 times" in entry["error"]["message"] and "worker 0.9: killed" in entry["error"]["message"]
    assert len(pool.asked) == 6


async def test_the_trouble_of_the_record_is_its_entry() -> None:
    begun = CallTimeout("too slow")
    begun.context["attempts"] = 1
    remote = RemoteError("no")
    remote.type_name = "mine.Error"
    for error, entry in [
        (begun, {"type": "CallTimeout", "message": "too slow"}),
        (remote, {"type": "mine.Error", "message": "no"}),
        (OutcomeUnknown("who knows"), {"type": "OutcomeUnknown", "message": "who knows"}),
    ]:
        assert await answer(Scripted(error), {"a": 1}) == {"error": entry}  # type: ignore[arg-type]
    with pytest.raises(PoolClosed):
        await answer(Scripted(PoolClosed("closed")), {"a": 1})  # type: ignore[arg-type]


def test_totals() -> None:
    totals = Totals()
    assert "0 records" in str(totals) and "cost not known" in str(totals)
    totals.add(
        {"line": 1, "outputs": {}, "usage": {"prompt_tokens": 5, "completion_tokens": 2}, "cost": 0.25, "calls": 2}
    )
    totals.add({"line": 2, "error": {"type": "E", "message": "no\nway" + 300 * "!"}})
    assert str(totals) == "2 records: 1 answered, 1 failed; 2 model calls, 5 + 2 tokens, cost $0.2500"
    totals.add({"line": 3, "outputs": {}, "usage": {}, "cost": None, "calls": 1})
    assert str(totals).endswith("3 model calls, 5 + 2 tokens, cost not known")
    for line in (4, 5):
        totals.add({"line": line, "error": {"type": "BadRecord", "message": f"line {line}: it is not JSON"}})
    most, other = totals.why()  # the most frequent first, each on one line
    assert most == "2 × BadRecord, first in line 4: it is not JSON"
    assert other.startswith("1 × E, first in line 2: no way!!!") and other.endswith("!…") and len(other) < 250


@pytest.mark.parametrize("size", [1, 9, 10, 25])
def test_progress_without_a_terminal(size: int, capsys: pytest.CaptureFixture[str]) -> None:
    records: Any = SimpleNamespace(records=size, done=0)
    with showing(records, quiet=False) as news:
        for _ in range(size):
            records.done += 1
            news.tick()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) <= 13 and lines[-1] == f"{size} of {size} records"
    with showing(records, quiet=True) as news:
        news.tick()
        news.observe(ended("killed"))
    assert capsys.readouterr().err == ""


READY = WorkerReady("run", 0, 1, 100, 0.5, 0.0)


def ended(cause: str, *, on_purpose: bool = False) -> WorkerEnded:
    """A worker has died, and had something to say."""
    death = WorkerDeath(0, 1, cause, -9, ("[no] licence",))
    return WorkerEnded("run", 0, 1, 100, death, on_purpose, 1.0)


def test_each_death_is_told_once_with_its_last_words(capsys: pytest.CaptureFixture[str]) -> None:
    records: Any = SimpleNamespace(records=1, done=0)
    with showing(records, quiet=False) as news:
        for event in (READY, ended("killed"), ended("killed"), ended("exit 3"), ended("late", on_purpose=True)):
            news.observe(event)
        news.observe(PoolChanged("run", "impaired", "failed", "exit 3", 2.0))
        news.observe(ended("killed"))
    assert capsys.readouterr().err.splitlines() == [
        *("a worker died: killed", "  | [no] licence", "a worker died: exit 3", "  | [no] licence"),
        "no worker comes up any more (exit 3); trying on, one at a time",
        "3 workers died like this: killed",
    ]


def test_a_pool_that_never_came_up_is_told_by_its_error_alone(capsys: pytest.CaptureFixture[str]) -> None:
    records: Any = SimpleNamespace(records=1, done=0)
    with showing(records, quiet=False) as news:
        news.observe(PoolChanged("run", "starting", "failed", "its import failed", 2.0))
        news.observe(ended("its import failed"))
    assert capsys.readouterr().err == ""


def test_progress_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar from the first moment, also while the workers start; what else is to be said stands above it."""
    screen = StringIO()
    monkeypatch.setattr(progress, "Console", lambda **kind: Console(file=screen, force_terminal=True, width=60))
    records: Any = SimpleNamespace(records=7, done=3)
    with showing(records, quiet=False) as news:
        news.observe(ended("killed"))
        news.observe(READY)
        records.done = 5
        news.tick()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert "starting" in shown and "3/7" in shown
    assert "a worker died: killed\n  | [no] licence" in shown
    assert re.search(r"records .* 5/7", shown.splitlines()[-1])


async def test_a_start_is_given_up_only_before_the_first_worker_is_ready() -> None:
    for ready in (False, True):
        start = _Start(workers=2)
        with start.scope:
            if ready:
                start.observe(READY)
            for _ in range(6):
                await trio.lowlevel.checkpoint()
                start.observe(ended("exit 3"))
                start.observe(ended("it hangs", on_purpose=True))
            await trio.lowlevel.checkpoint()
        if ready:
            start.check()
        else:
            with pytest.raises(PoolStartError) as refused:
                start.check()
            assert refused.value.last_death is not None and refused.value.last_death.cause == "exit 3"


async def test_deaths_in_a_row_do_not_open_the_breaker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deadly.py").write_text(
        "import os, dspy\n"
        "class Deadly(dspy.Module):\n"
        "    def forward(self, n: int):\n"
        "        return dspy.Prediction(n=n) if n else os._exit(3)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    config = pool_config(Job(tmp_path, tmp_path, {"factory": "deadly:Deadly"}))
    steps: list[Event] = []
    async with open_pool(msgspec.structs.replace(config, retry=Retry(attempts=1)), observers=[steps.append]) as pool:
        for _ in range(6):  # one more than the breaker of any other pool allows
            assert (await answer(pool, {"n": 0}))["error"]["type"] == "OutcomeUnknown"
        assert (await answer(pool, {"n": 1}))["outputs"] == {"n": 1}
    lifecycles = {step.lifecycle for step in steps if isinstance(step, Transition)}
    assert "call" in lifecycles and "breaker" not in lifecycles
