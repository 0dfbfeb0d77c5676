"""What `remuda run` does with one record, and what it shows: without processes, but for the last test."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from remuda.cli.run import Job, Totals, _progress, answer, pool_config
from remuda.runtime.config import Retry
from remuda.runtime.events import Event, Transition
from remuda.runtime.pool import open_pool
from remuda.statemachines.errors import (
    CallTimeout,
    CircuitOpen,
    OutcomeUnknown,
    PoolClosed,
    PoolFailed,
    PoolFull,
    RemoteError,
    RemudaError,
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
    totals.add({"line": 2, "error": {"type": "E", "message": ""}})
    assert str(totals) == "2 records: 1 answered, 1 failed; 2 model calls, 5 + 2 tokens, cost $0.2500"
    totals.add({"line": 3, "outputs": {}, "usage": {}, "cost": None, "calls": 1})
    assert str(totals).endswith("3 model calls, 5 + 2 tokens, cost not known")


@pytest.mark.parametrize("size", [1, 9, 10, 25])
def test_progress_without_a_terminal(size: int, capsys: pytest.CaptureFixture[str]) -> None:
    records: Any = SimpleNamespace(records=size, done=0)
    with _progress(records, quiet=False) as tick:
        for _ in range(size):
            records.done += 1
            tick({})
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) <= 13 and lines[-1] == f"{size} of {size} records"
    with _progress(records, quiet=True) as tick:
        tick({})
    assert capsys.readouterr().err == ""


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
        for _ in range(7):
            assert (await answer(pool, {"n": 0}))["error"]["type"] == "OutcomeUnknown"
        assert (await answer(pool, {"n": 1}))["outputs"] == {"n": 1}
    lifecycles = {step.lifecycle for step in steps if isinstance(step, Transition)}
    assert "call" in lifecycles and "breaker" not in lifecycles
