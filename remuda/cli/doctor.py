"""`remuda doctor`: whether this machine has what a pool needs, and what to do where it has not.

Every line is a finding: ok, warn or fail, what was found, and, unless all is well, the remedy. The
worker is not asked about in theory; one is started.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import platform
import resource
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import trio

from remuda.cli.output import explain
from remuda.runtime.cgroup import cpus, memory_limit
from remuda.runtime.config import PoolConfig
from remuda.runtime.opening import open_pool
from remuda.statemachines.errors import RemudaError

__all__ = ["Finding", "examine"]

_EXTRAS = {"cli": ("typer", "rich"), "dspy": ("dspy",), "specs": ("hypothesis",)}
_FILES_PER_WORKER = 6
"""Descriptors that the application holds for each worker."""
_WORKER_MEMORY = 256 * 1024 * 1024
"""Bytes that a worker with DSPy takes, generously."""


@dataclass(frozen=True)
class Finding:
    """One line."""

    verdict: Literal["ok", "warn", "fail"]
    what: str
    found: str
    remedy: str = ""


def examine(adapter: str | None = None, timeout: float = 60.0) -> Iterator[Finding]:
    """Look at everything, one finding after another.

    Args:
        adapter: the adapter to try in a worker; None: "dspy" if that is installed.
        timeout: seconds that a worker gets to come up.

    Raises:
        ConfigError: such a timeout is not allowed.
    """
    PoolConfig(init_timeout=timeout)  # what is wrong with it is not wrong with this machine
    logging.getLogger("remuda").addHandler(logging.NullHandler())  # a worker that dies here is a finding
    for look in _LOOKS:
        yield look()
    yield from _extras()
    yield from trio.run(_plain_worker, timeout)
    if adapter is None and importlib.util.find_spec("dspy") is not None:
        adapter = "dspy"
    if adapter is not None:
        yield from trio.run(_adapter, adapter, timeout)


def _python() -> Finding:
    return Finding("ok", "Python", f"{platform.python_implementation()} {platform.python_version()}")


def _remuda() -> Finding:
    return Finding("ok", "remuda", importlib.metadata.version("remuda"))


def _system() -> Finding:
    system = platform.system()
    found = f"{system} {platform.release()}"
    if system == "Linux":
        return Finding("ok", "system", found)
    if system == "Darwin":
        remedy = "workers end with the application by best effort here; run on Linux where that matters"
        return Finding("warn", "system", found, remedy)
    return Finding("fail", "system", found, "run on Linux or macOS")


def _cpus() -> Finding:
    return Finding("ok", "CPUs", f"{cpus()}, which is the default of max_workers")


def _memory() -> Finding:
    limit = memory_limit()
    if limit is None:
        return Finding("ok", "memory limit", "none")
    found = f"{limit / 2**20:.0f} MiB"
    if limit < cpus() * _WORKER_MEMORY:
        remedy = f"{cpus()} workers with DSPy may take {cpus() * _WORKER_MEMORY / 2**20:.0f} MiB; set max_workers lower"
        return Finding("warn", "memory limit", found, remedy)
    return Finding("ok", "memory limit", found)


def _files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 64 + cpus() * _FILES_PER_WORKER
    if soft != resource.RLIM_INFINITY and soft < needed:
        remedy = f"{cpus()} workers need {needed}; raise it: ulimit -n {max(1024, needed)}"
        return Finding("fail", "open files", f"{soft} (at most {hard})", remedy)
    return Finding("ok", "open files", f"{soft} (at most {hard})")


_LOOKS: tuple[Callable[[], Finding], ...] = (_python, _remuda, _system, _cpus, _memory, _files)


def _extras() -> Iterator[Finding]:
    for extra, modules in _EXTRAS.items():
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        if missing:
            remedy = f"if you want it: pip install 'remuda[{extra}]'"
            yield Finding("warn", f"extra {extra}", f"without {', '.join(missing)}", remedy)
        else:
            yield Finding("ok", f"extra {extra}", "installed")


async def _plain_worker(timeout: float) -> list[Finding]:
    start = trio.current_time()
    try:
        async with open_pool(name="doctor", max_workers=1, init_timeout=timeout) as pool:
            started = trio.current_time() - start
            times = []
            for _ in range(100):
                before = trio.current_time()
                await pool.run_sync(abs, -1)
                times.append(trio.current_time() - before)
    except (RemudaError, OSError) as error:
        by_hand = f"{sys.executable} -c 'import remuda.bridge.child'"
        return [Finding("fail", "a worker", _what_happened(error), _what_to_do(error, by_hand))]
    return [
        Finding("ok", "a worker", f"up after {started * 1000:.0f} ms"),
        Finding("ok", "round trip", f"{sorted(times)[50] * 1e6:.0f} µs (median of 100)"),
    ]


async def _adapter(adapter: str, timeout: float) -> list[Finding]:
    start = trio.current_time()
    try:
        async with open_pool(name="doctor", adapter=adapter, max_workers=1, init_timeout=timeout) as pool:
            found = f"up after {trio.current_time() - start:.2f} s"
            snapshot = pool.snapshot()
    except (RemudaError, OSError) as error:
        return [Finding("fail", f"adapter {adapter}", _what_happened(error), _what_to_do(error, _by_hand(adapter)))]
    return [Finding("ok", f"adapter {adapter}", f"{found}, worker {snapshot.workers[0].state}")]


def _what_happened(error: RemudaError | OSError) -> str:
    """Why no worker came up, on one line."""
    return explain(error).partition("\n")[0].removeprefix("the workers do not start: ")


def _what_to_do(error: RemudaError | OSError, by_hand: str) -> str:
    """What the worker said last, if it said anything, else how to find out."""
    death = getattr(error, "last_death", None)
    if death is not None and "init_timeout" in death.cause:
        return "give it longer with --timeout, or see what it waits for: " + by_hand
    notes = [line for note in getattr(error, "__notes__", ()) for line in note.splitlines()]
    tail = [*notes, *(death.stderr_tail if death is not None else ())]
    said = [line.strip() for line in tail if line.strip()]
    if said and said[-1] not in _what_happened(error):
        return f"the worker's last words: {said[-1]}"
    return f"see all of it by hand: {by_hand}"


def _by_hand(adapter: str) -> str:
    module = "remuda.bridge.dspy_adapter" if adapter == "dspy" else adapter.partition(":")[0]
    return f"python -c 'import {module}'"
