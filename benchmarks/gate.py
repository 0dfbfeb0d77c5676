"""The regression gate: the ratios of this run against the last ones that were recorded.

Only ratios to what ran beside it, or shares: those of another day, or another machine, can be compared. A call
may take 20 % longer than it did, throughput may be 20 % less, and the share of what succeeds may fall by
10 %. What was recorded and could not be measured any more, though it was tried, counts as lost.
"""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path

import msgspec

from remuda.benchmarks.beginning import HANDSHAKE, INTERPRETER
from remuda.benchmarks.features import PLAIN
from remuda.benchmarks.plan import EVALUATE, MODES, OURS, TRIO_SOCKETPAIR
from remuda.benchmarks.results import Results, ratio
from remuda.benchmarks.rounds import Machine
from remuda.benchmarks.scale import of

__all__ = ["Kind", "Ratio", "Recorded", "Regression", "compare", "ratios", "read", "write"]


class Kind(StrEnum):
    """What a ratio is about."""

    LATENCY = "latency"
    THROUGHPUT = "throughput"
    SUCCESS = "success"


ALLOWED = {Kind.LATENCY: 1.2, Kind.THROUGHPUT: 0.8, Kind.SUCCESS: 0.9}
"""Of what was recorded: the most, or the least."""


class Ratio(msgspec.Struct, frozen=True):
    """One number that is watched."""

    kind: Kind
    value: float | None
    """None: it was tried, and there is no number."""


class Recorded(msgspec.Struct, frozen=True):
    """What is kept of a run."""

    machine: Machine
    ratios: dict[str, Ratio]


class Regression(msgspec.Struct, frozen=True):
    """Something that has become worse than it may."""

    name: str
    kind: Kind
    before: float
    now: float | None

    def __str__(self) -> str:
        if self.now is None:
            return f"{self.name}: {self.before:.3g} before, and now there is no number"
        return f"{self.name}: {self.before:.3g} before, {self.now:.3g} now ({self.now / self.before - 1:+.0%})"


def ratios(results: Results) -> dict[str, Ratio]:
    """What is watched, of all that this run has tried."""
    found: dict[str, Ratio] = {}

    def add(kind: Kind, name: str, value: float | None) -> None:
        found[name] = Ratio(kind, value)

    def tried(measure: str, mode: str, *subjects: str) -> bool:
        return all(results.succeeded(measure, mode, one) is not None for one in subjects)

    for mode in MODES:
        if tried("latency", mode, TRIO_SOCKETPAIR, *OURS):
            bare = results.median("latency", mode, TRIO_SOCKETPAIR, "p50")
            for one in OURS:
                value = ratio(results.median("latency", mode, one, "p50"), bare)
                add(Kind.LATENCY, f"{mode}: a small call, {one} ÷ {TRIO_SOCKETPAIR}", value)
        if tried("throughput", mode, TRIO_SOCKETPAIR, *OURS):
            for callers in map(of, results.scale.callers):
                bare = results.median("throughput", mode, TRIO_SOCKETPAIR, callers)
                for one in OURS:
                    value = ratio(results.median("throughput", mode, one, callers), bare)
                    add(Kind.THROUGHPUT, f"{mode}: calls per second, {callers}, {one} ÷ {TRIO_SOCKETPAIR}", value)
        if tried("features", mode, "remuda"):
            plain = results.median("features", mode, "remuda", PLAIN)
            known = {
                name for outcome in results.outcomes if outcome.cell.measure == "features" for name in outcome.samples
            }
            for name in sorted(known - {PLAIN}):
                value = ratio(results.median("features", mode, "remuda", name), plain)
                add(Kind.LATENCY, f"{mode}: {name} ÷ {PLAIN}", value)
        _add_recoveries(results, mode, found)
    if tried("beginning", "pinned", "remuda"):
        begun = [results.median("beginning", "pinned", "remuda", name) for name in (HANDSHAKE, INTERPRETER)]
        add(Kind.LATENCY, f"{HANDSHAKE} ÷ {INTERPRETER}", ratio(*begun))
    for one in results.subjects("records", "free"):
        if one != EVALUATE:
            add(Kind.THROUGHPUT, f"records, {one}: share of the ideal", results.median("records", "free", one, "share"))
            add(Kind.SUCCESS, f"records, {one}: answered", results.mean("records", "free", one, "answered"))
    for measure, mode, one in dict.fromkeys((o.cell.measure, o.cell.mode, o.cell.subject) for o in results.outcomes):
        if one.startswith("remuda") and (succeeded := results.succeeded(measure, mode, one)) is not None:
            add(Kind.SUCCESS, f"{mode}: {measure}, {one}: drivers that ended well", succeeded)
    return found


def _add_recoveries(results: Results, mode: str, found: dict[str, Ratio]) -> None:
    """By the time that an interpreter takes to start, on this machine."""
    interpreter = results.median("beginning", "pinned", "remuda", INTERPRETER)
    for measure in ("recovery", "recovery with DSPy"):
        for one in results.subjects(measure, mode):
            if not one.startswith("remuda"):
                continue
            for kind in ("idle", "busy"):
                name = f"{mode}: {measure}, {one}, {kind}"
                if interpreter is not None:
                    taken = results.median(measure, mode, one, kind)
                    found[f"{name} ÷ {INTERPRETER}"] = Ratio(Kind.LATENCY, ratio(taken, interpreter))
                survived = results.mean(measure, mode, one, f"{kind}, survived")
                found[f"{name}: survived"] = Ratio(Kind.SUCCESS, survived)


def compare(now: dict[str, Ratio], before: dict[str, Ratio]) -> list[Regression]:
    """What has become worse. What only one of the two runs has tried is not compared."""
    worse = []
    for name, old in before.items():
        if name not in now or old.value is None:
            continue
        value, allowed = now[name].value, old.value * ALLOWED[old.kind]
        if value is None or math.isnan(value):
            worse.append(Regression(name, old.kind, old.value, None))
        elif value > allowed if old.kind is Kind.LATENCY else value < allowed:
            worse.append(Regression(name, old.kind, old.value, value))
    return worse


def read(path: Path) -> Recorded:
    """What was recorded.

    Raises:
        OSError: it cannot be read.
        msgspec.DecodeError: it is something else.
    """
    return msgspec.json.decode(path.read_bytes(), type=Recorded)


def write(path: Path, results: Results) -> None:
    """Record the ratios of a run."""
    recorded = Recorded(results.machine, ratios(results))
    path.write_bytes(msgspec.json.format(msgspec.json.encode(recorded), indent=1) + b"\n")
