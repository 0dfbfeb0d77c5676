"""`remuda demo`: a real run over real text, while somebody kills its workers.

Questions about the Python standard library, made from its docstrings, are answered by a DSPy program
with the embedded model, by the machinery of `remuda run`. Meanwhile a worker gets SIGKILL at a random
moment in every 25 answers, a busy one if there is one; it has answered something by then, for a worker that
comes to nothing is started again after a pause only. At the end it is counted, from the output file
and from the process table: every question has exactly one answer, and no process is left.

What the observer is told is what is counted: a recovery is the time from a kill to the next worker of
that slot being ready, whichever generation that is.
"""

from __future__ import annotations

import json
import logging
import math
import os
import random
import signal
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import trio
from rich.console import Console
from rich.live import Live
from rich.table import Table

from remuda.bridge.escaped import is_left
from remuda.cli.questions import Question, is_right, questions
from remuda.cli.run import Job, Totals, answer, pool_config, until_signal
from remuda.runtime.events import Event, WorkerEnded, WorkerReady
from remuda.runtime.opening import open_pool
from remuda.runtime.pool import Pool
from remuda.runtime.records import Entry, Run, open_run
from remuda.statemachines.errors import ConfigError
from remuda.statemachines.worker import WorkerState

__all__ = ["demo"]

PER_KILL = 25
"""Answers in which there is at least one kill."""


@dataclass
class Tally:
    """What has happened so far."""

    answers: int = 0
    pids: set[int] = field(default_factory=set)
    struck: set[tuple[int, int]] = field(default_factory=set)
    """The workers that were killed, by slot and generation."""
    down: dict[int, float] = field(default_factory=dict)
    """The slots that have not come back yet, and when their worker was killed."""
    recoveries: list[float] = field(default_factory=list)
    """Seconds from a kill to the next worker in its place being ready."""
    latencies: list[float] = field(default_factory=list)
    """Seconds for each answer, all its attempts included."""
    deaths: int = 0

    def observe(self, event: Event) -> None:
        """An observer of the pool."""
        if isinstance(event, WorkerReady):
            if event.pid is not None:
                self.pids.add(event.pid)
            at = self.down.pop(event.slot, None)
            if at is not None:
                self.recoveries.append(event.at - at)
        elif isinstance(event, WorkerEnded):
            self.deaths += not event.on_purpose
            if event.pid is not None:
                self.pids.add(event.pid)

    def left(self) -> list[int]:
        """The workers that still run."""
        return [pid for pid in sorted(self.pids) if is_left(pid)]


def demo(
    answers: int = 300,
    workers: int = 2,
    seed: int | None = None,
    *,
    plain: bool = False,
    console: Console | None = None,
) -> int:
    """Run the demonstration.

    Args:
        answers: questions to ask, at least 25.
        workers: worker processes.
        seed: of the moments of the kills; None: other ones every time.
        plain: no live table, also in a terminal.
        console: where to show it.

    Returns:
        0 if every question has exactly one answer, there was a kill for every 25 of them, and no
        process is left; else 1; 128 + the signal's number if a signal has ended it.

    Raises:
        ConfigError: there are not so many questions.
    """
    console = console or Console()
    asked = questions(answers)
    if len(asked) < answers:
        raise ConfigError(f"there are {len(asked)} questions in this Python, and {answers} were to be asked; ask fewer")
    tally, totals = Tally(), Totals()
    logging.getLogger("remuda").addHandler(logging.NullHandler())  # the deaths are the show, not the news
    with tempfile.TemporaryDirectory(prefix="remuda-demo-") as folder:
        job = _job(Path(folder), asked, workers)

        def note(entry: Entry) -> None:
            totals.add(entry)
            tally.answers += 1

        with open_run(job.input, job.output, job.settings, note) as records:
            live = console.is_terminal and not plain
            main = partial(_run, job, records, tally, random.Random(seed), console, live)
            stopped_by = trio.run(until_signal, main)
        if stopped_by is not None:
            console.print(f"stopped by {signal.Signals(stopped_by).name} after {tally.answers} answers")
            return 128 + stopped_by
        counts, right = _count(job.output, asked)
    lost = sum(counts[number] == 0 for number in range(1, len(asked) + 1))
    doubled = sum(count - 1 for count in counts.values() if count > 1)
    left = tally.left()
    report = Table("", "", show_header=False, title="remuda demo")
    for name, value in [
        ("questions", len(asked)),
        ("answers", totals.answered),
        ("errors", totals.failed),
        ("calls to the model", totals.calls),
        ("workers killed with SIGKILL", len(tally.struck)),
        ("deaths of workers", tally.deaths),
        ("recoveries", len(tally.recoveries)),
        ("lost answers", lost),
        ("doubled answers", doubled),
        ("latency p50 / p99", _spread(tally.latencies)),
        ("recovery p50 / p99", _spread(tally.recoveries)),
        ("answered from the right passage", f"{right / len(asked):.1%}"),
        ("processes left", len(left)),
    ]:
        report.add_row(name, str(value))
    console.print(report)
    enough = len(tally.struck) >= len(asked) // PER_KILL
    good = not (lost or doubled or totals.failed or left) and enough
    console.print("every question has exactly one answer" if good else "something went wrong: see the numbers above")
    return 0 if good else 1


def _job(folder: Path, asked: list[Question], workers: int) -> Job:
    with open(folder / "questions.jsonl", "w", encoding="utf-8") as file:
        file.writelines(
            json.dumps({"context": question.context, "question": question.question}) + "\n" for question in asked
        )
    program: dict[str, Any] = {"signature": "context, question -> answer", "kind": "chain_of_thought"}
    return Job(folder / "questions.jsonl", folder / "answers.jsonl", program, workers=workers)


async def _run(job: Job, records: Run, tally: Tally, draw: random.Random, console: Console, live: bool) -> None:
    async with open_pool(pool_config(job), observers=[tally.observe]) as pool, trio.open_nursery() as nursery:
        if live:
            nursery.start_soon(_show, console, pool, records, tally)
        else:
            console.print(f"{records.records} questions, and a kill in every {PER_KILL} answers")

        async def work(record: dict[str, Any]) -> Entry:
            start = trio.current_time()
            entry = await answer(pool, record)
            tally.latencies.append(trio.current_time() - start)
            return entry

        async with trio.open_nursery() as running:
            running.start_soon(_kill_now_and_then, pool, records, tally, draw)
            await records.process(work, concurrency=job.workers)
        # The last ones killed come back before it is over: a recovery is part of the story.
        while tally.down:
            await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


async def _kill_now_and_then(pool: Pool, records: Run, tally: Tally, draw: random.Random) -> None:
    """One kill in every 25 answers, at a random one of them and a random moment after it."""
    for block in range(records.records // PER_KILL):
        # A few answers are left to be killed in.
        moment = block * PER_KILL + draw.randrange(1, PER_KILL - 5)
        while tally.answers < moment:
            await trio.sleep(0.001)
        await trio.sleep(draw.uniform(0.0, 0.002))
        while not _strike(pool, tally, draw):
            await trio.sleep(0.001)


def _strike(pool: Pool, tally: Tally, draw: random.Random) -> bool:
    """Kill a worker that has worked, a busy one if there is one; False if there is none now."""
    workers = [
        worker
        for worker in pool.snapshot().workers
        if worker.state in (WorkerState.BUSY, WorkerState.READY)
        and worker.pid is not None
        and worker.calls_served
        and worker.slot not in tally.down
    ]
    busy = [worker for worker in workers if worker.state is WorkerState.BUSY]
    if not workers:
        return False
    victim = draw.choice(busy or workers)
    assert victim.pid is not None
    try:
        os.kill(victim.pid, signal.SIGKILL)
    except ProcessLookupError:  # it has ended by itself, and the pool has not come to hear of it
        return False
    tally.struck.add((victim.slot, victim.generation))
    tally.down[victim.slot] = trio.current_time()
    return True


async def _show(console: Console, pool: Pool, records: Run, tally: Tally) -> None:
    """The workers and what has happened, kept up to date in a terminal."""
    # Drawn from here and not by a thread of rich's own: the pool belongs to this one.
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            table = Table("worker", "pid", "state", "calls", title=f"{tally.answers} of {records.records} answered")
            for worker in pool.snapshot().workers:
                name = f"{worker.slot}.{worker.generation}"
                table.add_row(name, str(worker.pid), str(worker.state), str(worker.calls_served))
            table.caption = f"{len(tally.struck)} killed, {len(tally.recoveries)} recovered"
            live.update(table, refresh=True)
            await trio.sleep(0.1)


def _count(output: Path, asked: list[Question]) -> tuple[Counter[int], int]:
    """How many entries each line has, and how many answers came from the right passage."""
    counts: Counter[int] = Counter()
    right = 0
    for line in output.read_text("utf-8").splitlines():
        entry = json.loads(line)
        counts[entry["line"]] += 1
        right += is_right(asked[entry["line"] - 1], entry.get("outputs", {}).get("answer", ""))
    return counts, right


def _spread(seconds: list[float]) -> str:
    if not seconds:
        return "-"
    ordered = sorted(seconds)
    return " / ".join(f"{ordered[math.ceil(share * len(ordered)) - 1] * 1000:.1f} ms" for share in (0.5, 0.99))
