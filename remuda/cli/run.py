"""`remuda run`: a DSPy program over a file of records, on a pool, to the end, whatever happens.

Workers may crash, this process may be killed and started again: every record ends up with exactly
one entry (`remuda.runtime.records`). A record may be *run* more than once, when a worker died with
it or when the process was killed before its entry was written.

An entry is about its record. What the pool goes through is not written down as a record's error, but
waited out: no worker to be had, too many callers, a deadline that passed before the record was begun.
A record that kills every worker it meets is an error, after its attempts, and takes no other with it.
"""

from __future__ import annotations

import hashlib
import re
import signal
import sys
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import trio
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from remuda.runtime.config import Breaker, PoolConfig, Restart, Retry
from remuda.runtime.pool import Pool, open_pool
from remuda.runtime.records import Entry, Run, open_run
from remuda.statemachines.errors import (
    CallTimeout,
    CircuitOpen,
    ConfigError,
    PoolClosed,
    PoolFailed,
    PoolFull,
    RemudaError,
)

__all__ = ["Job", "Totals", "answer", "pool_config", "public", "run", "until_signal"]

_SECRET = (
    *("key", "token", "secret", "password", "passwd", "credential", "credentials"),
    *("auth", "authorization", "cookie", "cookies", "header", "headers"),
)
"""How a word in the name of an option ends if its value is nobody's business. `max_tokens` is not one."""


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
    concurrency: int | None = None
    """Records at the same time; None: as many as there are workers."""
    timeout: float = 60.0
    cache: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """What makes it this run and no other; without secrets."""
        program = {name: value for name, value in self.program.items() if value is not None}
        if "load" in program:
            program["load"] = {"file": Path(program["load"]).name, "sha256": _sha256(Path(program["load"]))}
        return {"program": program, "model": self.lm, "model options": public(self.lm_options)}


def public(value: Any) -> Any:
    """A value without its secrets, at any depth.

    What is named like a secret is left out, headers as a whole, and of a URL what may carry one: the
    user, the password, the query.
    """
    if isinstance(value, dict):
        return {name: public(inner) for name, inner in value.items() if not _is_secret(str(name))}
    if isinstance(value, list):
        return [public(inner) for inner in value]
    if isinstance(value, str) and "://" in value:
        try:
            url = urlsplit(value)
        except ValueError:
            return "(a URL that cannot be read)"
        return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"
    return value


def _is_secret(name: str) -> bool:
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    return any(word.lower().endswith(_SECRET) for word in words)


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
            if isinstance(error, CallTimeout) and error.context["attempts"] == 0:
                continue  # it waited for a worker all the time
            name = getattr(error, "type_name", "") or type(error).__name__
            return {"error": {"type": name, "message": error.message}}


def run(job: Job, *, quiet: bool = False) -> int:
    """Do the job.

    Returns:
        0 if all records have answers, 1 if some have errors; 128 + the signal's number if a signal
        has ended it. Then it can be started again.

    Raises:
        ConfigError: it is refused.
        PoolStartError: the pool does not start.
    """
    config = pool_config(job)  # first, so that what is refused leaves no file behind
    totals = Totals()
    watchers: list[Callable[[Entry], None]] = [totals.add]

    def note(entry: Entry) -> None:
        for watcher in watchers:
            watcher(entry)

    try:
        with open_run(job.input, job.output, job.settings, note) as records:
            if records.done and not quiet:
                print(f"going on: {records.done} of {records.records} records are done", file=sys.stderr)

            async def all_records() -> None:
                async with open_pool(config) as pool:
                    with _progress(records, quiet) as tick:
                        watchers.append(tick)

                        async def work(record: dict[str, Any]) -> Entry:
                            return await answer(pool, record)

                        await records.process(work, concurrency=job.concurrency or job.workers)

            stopped_by = None
            if records.done < records.records:
                stopped_by = trio.run(until_signal, all_records)
            unfinished = records.records - records.done
    except KeyboardInterrupt:  # while the files were being read
        return 128 + signal.SIGINT
    print(totals)
    if stopped_by is not None and unfinished:
        print(
            f"stopped by {signal.Signals(stopped_by).name} with {unfinished} records to go; "
            "the same command goes on from here",
            file=sys.stderr,
        )
        return 128 + stopped_by
    return 1 if totals.failed else 0


async def until_signal(main: Callable[[], Awaitable[None]]) -> int | None:
    """Run something to its end, or cancel it at SIGINT or SIGTERM; which of them it was."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        stopped_by: int | None = None

        async def listen() -> None:
            nonlocal stopped_by
            async for signum in signals:
                stopped_by = signum
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            await main()
            nursery.cancel_scope.cancel()
    return stopped_by


@contextmanager
def _progress(records: Run, quiet: bool) -> Generator[Callable[[Entry], None], None, None]:
    """Something to tell every new entry: a bar in a terminal, a line now and then elsewhere."""
    console = Console(stderr=True)
    if quiet:
        yield lambda entry: None
    elif console.is_terminal:
        columns = (TextColumn("records"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("records", total=records.records, completed=records.done)
            yield lambda entry: progress.update(task, completed=records.done)
    else:
        step = max(1, records.records // 10)

        def tick(entry: Entry) -> None:
            if records.done % step == 0 or records.done == records.records:
                print(f"{records.done} of {records.records} records", file=sys.stderr)

        yield tick
