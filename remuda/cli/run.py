"""`remuda run`: a DSPy program over a file of records, on a pool, to the end, whatever happens.

Workers may crash, this process may be killed and started again: every record ends up with exactly
one entry (`remuda.runtime.records`). A record may be *run* more than once, when a worker died with
it or when the process was killed before its entry was written.

An entry is about its record. What the pool goes through is not written down as a record's error, but
waited out: no worker to be had, too many callers, a deadline that passed before the record was begun.
There is an end to it: a record that kills every worker it meets is an error after its attempts, and one
that is never begun within its deadline is one in the end. Neither takes another record with it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import math
import re
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import trio

from remuda.cli.output import explain, note, say
from remuda.cli.progress import showing
from remuda.runtime.config import Breaker, PoolConfig, Restart, Retry
from remuda.runtime.events import Event, WorkerEnded, WorkerReady
from remuda.runtime.opening import open_pool
from remuda.runtime.pool import Pool
from remuda.runtime.records import Entry, open_run
from remuda.statemachines.errors import (
    CallTimeout,
    CircuitOpen,
    ConfigError,
    PoolClosed,
    PoolFailed,
    PoolFull,
    PoolStartError,
    RemudaError,
    WorkerDeath,
)

__all__ = ["Job", "Totals", "answer", "pool_config", "public", "run", "until_signal"]

_ATTEMPTS = 5
"""How often a record may begin, each time but the last with a worker that died of it."""
_NEVER_BEGUN = 10
"""How often in a row the deadline of a record may pass before it was begun: times the records for each worker."""
_PATIENCE = 120.0
"""Seconds that a record waits to be begun in any case: its worker may have to start, twice."""

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
    failures: dict[str, list[Any]] = field(default_factory=dict)
    """By type of error: how many, the line of the first one, and its message."""

    def add(self, entry: Entry) -> None:
        """Count an entry."""
        self.records += 1
        if "error" in entry:
            self.failed += 1
            error = entry["error"]
            kind = self.failures.setdefault(str(error.get("type")), [0, entry["line"], str(error.get("message"))])
            kind[0] += 1
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

    def why(self) -> list[str]:
        """A line for each type of error, the most frequent first."""
        return [
            f"{count} × {name}, first in line {line}: {_short(message.removeprefix(f'line {line}: '))}"
            for name, (count, line, message) in sorted(self.failures.items(), key=lambda item: -item[1][0])
        ]

    def __str__(self) -> str:
        cost = f"${self.cost:.4f}" if self.priced and self.answered else "not known"
        return (
            f"{self.records} records: {self.answered} answered, {self.failed} failed; "
            f"{self.calls} model calls, {self.prompt_tokens} + {self.completion_tokens} tokens, cost {cost}"
        )


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 200 else f"{text[:200]}…"


def pool_config(job: Job) -> PoolConfig:
    """A pool that goes on, whatever the records do to its workers.

    Raises:
        ConfigError: a value is not allowed, or DSPy is not installed.
    """
    if importlib.util.find_spec("dspy") is None:
        raise ConfigError("this command needs dspy: pip install 'remuda[dspy]'")
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
        # not take the others with it, so there is no breaker, the budget for restarts is ample, and the
        # pauses before them are short. What never comes up at all is refused by `_Start`.
        retry=Retry(attempts=_ATTEMPTS, handovers=10),
        restart=Restart(burst=100, cap=2.0),
        breaker=Breaker(failures=sys.maxsize),
    )


async def answer(pool: Pool, record: dict[str, Any], queue: float = 1.0) -> Entry:
    """The entry of one record. The pool's own troubles are waited out; they are not the record's.

    Args:
        pool: what `pool_config` describes.
        record: the inputs of the program.
        queue: records at the same time for each worker: how long a record may have to wait is a multiple of it.
    """
    start, begun, passed = trio.current_time(), 0, 0
    while True:
        try:
            result: Entry = await pool.call("execute_program", {"program_id": "run", "inputs": record}, idempotent=True)
            return result
        except (PoolFailed, PoolFull, CircuitOpen) as error:
            # One that was running when the pool failed has used up attempts: a killer is not given more of them.
            attempts = error.context.get("attempts")
            begun += attempts if isinstance(attempts, int) else 0
            if begun >= _ATTEMPTS:
                text = f"it was begun {begun} times, and each time its worker died; the last one: {error.last_death}"
                return {"error": {"type": "OutcomeUnknown", "message": text}}
            await trio.sleep(error.retry_after or 1.0)
        except PoolClosed:
            raise
        except RemudaError as error:
            passed += 1
            if isinstance(error, CallTimeout) and error.context["attempts"] == 0:
                patient = passed < _NEVER_BEGUN * math.ceil(queue) or trio.current_time() - start < _PATIENCE
                if patient:
                    continue  # it waited for a worker all the time
            name = getattr(error, "type_name", "") or type(error).__name__
            return {"error": {"type": name, "message": error.message}}


class _Start:
    """Gives up when workers die and none has come up yet: it is the program then, and not a record."""

    def __init__(self, workers: int) -> None:
        self.scope = trio.CancelScope()
        self._left = workers + 4
        self._death: WorkerDeath | None = None

    def observe(self, event: Event) -> None:
        """An observer of the pool."""
        if isinstance(event, WorkerReady):
            self._left = sys.maxsize
        elif isinstance(event, WorkerEnded) and not event.on_purpose:
            self._left -= 1
            self._death = event.death
            if self._left == 0:
                self.scope.cancel()

    def check(self) -> None:
        """After the scope: raise PoolStartError if it was given up."""
        if self.scope.cancelled_caught:
            raise PoolStartError("the workers die before they are ready", last_death=self._death)


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
    logging.getLogger("remuda").addHandler(logging.NullHandler())  # what is worth a line is said by `showing`
    concurrency = job.concurrency or job.workers
    totals = Totals()
    watchers: list[Callable[[Entry], None]] = [totals.add]

    def tell_all(entry: Entry) -> None:
        for watcher in watchers:
            watcher(entry)

    stopped_by, broken = None, None
    try:
        with open_run(job.input, job.output, job.settings, tell_all) as records:
            if records.done and not quiet:
                note(f"going on: {records.done} of {records.records} records are done")

            async def all_records() -> None:
                start = _Start(job.workers)
                with showing(records, quiet=quiet) as news, start.scope:
                    watchers.append(lambda entry: news.tick())

                    async def work(record: dict[str, Any]) -> Entry:
                        return await answer(pool, record, concurrency / job.workers)

                    async with open_pool(config, observers=[news.observe, start.observe]) as pool:
                        await records.process(work, concurrency=concurrency)
                start.check()

            if records.done < records.records:
                try:
                    stopped_by = trio.run(until_signal, all_records)
                except* OSError as group:
                    broken = group
            unfinished = records.records - records.done
    except KeyboardInterrupt:  # while the files were being read
        return 128 + signal.SIGINT
    say(str(totals))
    if unfinished and (broken is not None or stopped_by is not None):
        reason = _first(broken) if broken is not None else f"by {signal.Signals(stopped_by or 0).name}"
        note(f"stopped {reason} with {unfinished} records to go; the same command goes on from here")
        return 1 if stopped_by is None else 128 + stopped_by
    if totals.failed and not quiet:
        note("\n".join(["failed:", *(f"  {line}" for line in totals.why())]))
        note(f"each has an error in {job.output}; to try some again, delete their lines there and start this again")
    return 1 if totals.failed else 0


def _first(group: ExceptionGroup[OSError]) -> str:
    """What the first of several errors says."""
    leaf: Exception = group
    while isinstance(leaf, ExceptionGroup):
        leaf = leaf.exceptions[0]
    assert isinstance(leaf, OSError)
    return f"({explain(leaf)})"


async def until_signal(main: Callable[[], Awaitable[None]]) -> int | None:
    """Run something to its end, or cancel it at SIGINT, SIGTERM or SIGHUP; which of them it was.

    SIGHUP says that the terminal is closed. Where it is ignored (`nohup`), it stays ignored.
    """
    signals = {signal.SIGINT, signal.SIGTERM}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signals.add(signal.SIGHUP)
    with trio.open_signal_receiver(*signals) as arriving:
        stopped_by: int | None = None

        async def listen() -> None:
            nonlocal stopped_by
            async for signum in arriving:
                stopped_by = signum
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            await main()
            nursery.cancel_scope.cancel()
    return stopped_by
