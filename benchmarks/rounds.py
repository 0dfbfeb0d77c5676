"""Run the drivers, one after the other, and collect what they found.

A driver gets a time, and leads a session of its own. When it has ended, what it left behind gets a moment
to go by itself (helpers of other pools tidy up then), and is killed.
"""

from __future__ import annotations

import math
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

import remuda
from remuda.benchmarks.scale import Cell, Outcome, Scale

__all__ = ["Machine", "Signals", "machine", "run_cell", "run_cells"]

_GRACE = 5.0
"""Seconds that processes which a driver has left behind have to go."""
_VERSIONS = ("remuda", "trio", "msgspec", "anyio", "trio-parallel", "loky", "pebble", "billiard", "cloudpickle", "dspy")


class Machine(msgspec.Struct, frozen=True):
    """Where and when it was measured."""

    at: str
    """UTC."""
    python: str
    system: str
    cores: int
    """That this process may use."""
    load: float
    """How many others wanted to compute, when it began."""
    versions: dict[str, str]
    from_checkout: bool
    """Whether remuda is not the wheel: an editable install costs every start of an interpreter something."""


def machine() -> Machine:
    """What this machine is, at this moment."""
    versions = {}
    for name in _VERSIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(
        at=time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        cores=cores,
        load=round(os.getloadavg()[0], 1),
        versions=versions,
        from_checkout="site-packages" not in Path(remuda.__file__).parts,
    )


def run_cells(cells: Iterable[Cell], scale: Scale, tell: Callable[[Outcome, float], object]) -> list[Outcome]:
    """Run one driver after the other.

    Args:
        cells: what to measure, in this order.
        scale: how much.
        tell: called with each outcome and the seconds that it took.
    """
    outcomes: list[Outcome] = []
    absent: dict[tuple[str, str, str], str] = {}
    with Signals() as signals:
        for cell in cells:
            start = time.perf_counter()
            who = cell.measure, cell.subject, cell.mode
            # What is not there in the first round is not there in the next.
            outcome = Outcome(cell, absent=absent[who]) if who in absent else run_cell(cell, scale, signals)
            if outcome.absent:
                absent[who] = outcome.absent
            outcomes.append(outcome)
            tell(outcome, time.perf_counter() - start)
    return outcomes


class Signals:
    """SIGINT, SIGTERM and SIGHUP end the run, with 128 + their number, but only while a driver is waited for.

    While one is being started or ended they are kept: else it could be there, and nobody know of it. Only the
    main thread has signals; elsewhere this does nothing.
    """

    def __init__(self) -> None:
        self._kept: int | None = None
        self._may_end = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(signum) is not signal.SIG_IGN:  # `nohup` stays in force
                    self._before[signum] = signal.signal(signum, self._arrived)
        return self

    def __exit__(self, *error: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    @contextmanager
    def allowed(self) -> Generator[None]:
        """In this block a signal ends the run, one that was kept at once."""
        self._may_end = True
        try:
            if self._kept is not None:
                self._arrived(self._kept, None)
            yield
        finally:
            self._may_end = False

    def _arrived(self, signum: int, frame: object) -> None:
        self._kept = signum
        if self._may_end:
            self._may_end = False  # once: what is tidied up now is not interrupted
            raise SystemExit(128 + signum)


def _seconds_for(cell: Cell, scale: Scale) -> float:
    """How long a driver may take: many times what it should, and an end."""
    if cell.measure == "records":
        return 600.0 + 5 * math.ceil(scale.records / scale.at_once) * scale.model
    return 120.0 + scale.calls * 0.05 + 4 * scale.kills * (scale.patience + 2.0)


def run_cell(cell: Cell, scale: Scale, signals: Signals) -> Outcome:
    """Run one driver, and see to it that nothing is left of it."""
    with tempfile.TemporaryDirectory(prefix="remuda-bench-") as folder:
        result, words = Path(folder) / "outcome", Path(folder) / "words"
        told = [msgspec.json.encode(value).decode() for value in (cell, scale)]
        with open(words, "wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "remuda.benchmarks.driver", *told, str(result)],
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                start_new_session=True,
                env={**os.environ, "TMPDIR": folder},
            )
        try:
            with signals.allowed():
                status = process.wait(_seconds_for(cell, scale))
        except subprocess.TimeoutExpired:
            return Outcome(cell, error=f"it had not ended after {_seconds_for(cell, scale):.0f} s")
        finally:
            _end(process)
        try:
            return msgspec.json.decode(result.read_bytes(), type=Outcome)
        except (OSError, msgspec.DecodeError):
            last = words.read_text("utf-8", "replace").strip().splitlines()[-1:] or ["it said nothing"]
            return Outcome(cell, error=f"the driver ended with status {status}: {last[0]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait until all of its group have gone, and then make them."""
    if process.poll() is None:
        process.kill()
        process.wait()
    patience = time.monotonic() + _GRACE
    while time.monotonic() < patience:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
