"""`remuda run`: a DSPy program over a file of records, on a pool, to the end, whatever happens.

Workers may crash, this process may be killed and started again: every record ends up with exactly
one entry (`remuda.runtime.records`). A record may be *run* more than once, when a worker died with
it or when the process was killed before its entry was written.
"""

from __future__ import annotations

import hashlib
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from remuda.runtime.config import Breaker, PoolConfig, Restart, Retry
from remuda.runtime.pool import Pool, open_pool
from remuda.runtime.records import Entry, Run, open_run
from remuda.statemachines.errors import CircuitOpen, ConfigError, PoolClosed, PoolFailed, PoolFull, RemudaError

__all__ = ["Job", "Totals", "answer", "pool_config", "run"]

_SECRET = ("key", "token", "secret", "password", "authorization", "credential")
"""What a model's option has in its name if its value is nobody's business. (`max_tokens` is not one.)"""


@dataclass(frozen=True)
class Job:
    """What was asked for on the command line."""

    input: Path
    output: Path
    program: dict[str, Any]
    """The arguments of the adapter's `create_program`."""
    lm: str = "embedded"
    lm_options: dict[str, Any] = field(default_factory=dict)
    workers: int = 1
    timeout: float = 60.0
    cache: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """What makes it this run and no other; without secrets."""
        program = {name: value for name, value in self.program.items() if value is not None}
        if "load" in program:
            program["load"] = {"file": Path(program["load"]).name, "sha256": _sha256(Path(program["load"]))}
        options = {name: value for name, value in self.lm_options.items() if not is_secret(name)}
        return {"program": program, "model": self.lm, "model options": options}


def is_secret(name: str) -> bool:
    """Whether an option of this name is kept out of files and messages."""
    return name != "max_tokens" and any(word in name.lower() for word in _SECRET)


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"the program file {path} cannot be read: {error.strerror}") from None


@dataclass
class Totals:
    """What all entries of the output come to."""

    records: int = 0
    answered: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    calls: int = 0
    priced: bool = True
    """Whether the price of all calls is known."""

    def add(self, entry: Entry) -> None:
        """Count an entry."""
        self.records += 1
        if "error" in entry:
            self.failed += 1
            return
        self.answered += 1
        usage = entry.get("usage") or {}
        self.prompt_tokens += usage.get("prompt_tokens", 0)
        self.completion_tokens += usage.get("completion_tokens", 0)
        self.calls += entry.get("calls", 0)
        if entry.get("cost") is None:
            self.priced = False
        else:
            self.cost += entry["cost"]

    def __str__(self) -> str:
        cost = f"${self.cost:.4f}" if self.priced and self.answered else "not known"
        return (
            f"{self.records} records: {self.answered} answered, {self.failed} failed; "
            f"{self.calls} model calls, {self.prompt_tokens} + {self.completion_tokens} tokens, cost {cost}"
        )


def pool_config(job: Job) -> PoolConfig:
    """A pool that goes on, whatever the records do to its workers."""
    return PoolConfig(
        name="run",
        adapter="dspy",
        settings={
            "lm": job.lm,
            "lm_options": job.lm_options,
            "cache": job.cache,
            "programs": {"run": {name: value for name, value in job.program.items() if value is not None}},
        },
        min_workers=job.workers,
        max_workers=job.workers,
        call_timeout=job.timeout,
        # A record that kills every worker it meets gets an error entry after its attempts. It shall
        # not take the others with it, so there is no breaker, and the budget for restarts is ample.
        retry=Retry(attempts=5, handovers=10),
        restart=Restart(burst=100),
        breaker=Breaker(failures=sys.maxsize),
    )


async def answer(pool: Pool, record: dict[str, Any]) -> Entry:
    """The entry of one record. The pool's own troubles are waited out; they are not the record's."""
    while True:
        try:
            result: Entry = await pool.call("execute_program", {"program_id": "run", "inputs": record}, idempotent=True)
            return result
        except (PoolFailed, PoolFull, CircuitOpen) as error:
            await trio.sleep(error.retry_after or 1.0)
        except PoolClosed:
            raise
        except RemudaError as error:
            name = getattr(error, "type_name", "") or type(error).__name__
            return {"error": {"type": name, "message": error.message}}


def run(job: Job, *, quiet: bool = False) -> int:
    """Do the job.

    Returns:
        0 if all records have answers, 1 if some have errors; 128 + the signal's number if a signal
        has ended it. Then it can be started again.

    Raises:
        ConfigError: it is refused.
        RemudaError: the pool does not start.
    """
    totals = Totals()
    with open_run(job.input, job.output, job.settings, totals.add) as records:
        if records.done and not quiet:
            print(f"going on: {records.done} of {records.records} records are done", file=sys.stderr)
        stopped_by = None
        if records.done < records.records:
            stopped_by = trio.run(_run, job, records, totals, quiet)
    print(totals)
    if stopped_by is not None:
        print(f"stopped by {signal.Signals(stopped_by).name}; start it again to go on", file=sys.stderr)
        return 128 + stopped_by
    return 1 if totals.failed else 0


async def _run(job: Job, records: Run, totals: Totals, quiet: bool) -> int | None:
    stopped_by: list[int] = []

    async def listen() -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.set()
            async for signum in signals:
                stopped_by.append(signum)
                nursery.cancel_scope.cancel()

    task_status = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await task_status.wait()
        async with open_pool(pool_config(job)) as pool:
            with _progress(records, quiet) as tick:

                async def work(record: dict[str, Any]) -> Entry:
                    entry = await answer(pool, record)
                    tick()
                    return entry

                await records.process(work, concurrency=job.workers)
        nursery.cancel_scope.cancel()
    return stopped_by[0] if stopped_by else None


@contextmanager
def _progress(records: Run, quiet: bool) -> Iterator[Callable[[], None]]:
    """Something to call after every record: a bar in a terminal, a line now and then elsewhere."""
    console = Console(stderr=True)
    if quiet:
        yield lambda: None
    elif console.is_terminal:
        columns = (TextColumn("records"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("records", total=records.records, completed=records.done)
            yield lambda: progress.update(task, completed=records.done + 1)
    else:
        step = max(1, records.records // 10)

        def tick() -> None:
            if (records.done + 1) % step == 0:
                print(f"{records.done + 1} of {records.records} records", file=sys.stderr)

        yield tick
