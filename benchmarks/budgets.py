"""What remuda wants to be, line by line, and what was measured of it.

A line is a ratio of two medians of the same run, or a number with a unit, and the limit that it must keep.
A line whose numbers are not there is *not measured*, which is never the same as met. Designs are compared
where the whole tree is on one core; only what waits for a model is measured free.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

from remuda.benchmarks.beginning import HANDSHAKE, INTERPRETER
from remuda.benchmarks.import_cost import BASE, RATIOS, STATEMENTS
from remuda.benchmarks.measures import quantile
from remuda.benchmarks.plan import EVALUATE, KILLED, OURS, PEERS, TRIO_SOCKETPAIR
from remuda.benchmarks.profile_call import CALL, CORE
from remuda.benchmarks.results import Results, ratio
from remuda.benchmarks.scale import of

__all__ = ["Line", "Verdict", "budgets"]


class Verdict(StrEnum):
    """What is said of a line."""

    MET = "met"
    NOT_MET = "not met"
    NOT_MEASURED = "not measured"
    REPORTED = "reported"
    """There is no limit."""


class Line(NamedTuple):
    """One line of the budget."""

    what: str
    measured: float | None
    limit: float | None = None
    at_most: bool = True
    """Whether the limit is the most that is allowed, or the least."""
    unit: str = "×"
    note: str = ""
    """Of what was measured."""
    why_not: str = ""
    """Why it never is."""

    @property
    def verdict(self) -> Verdict:
        """Whether it is kept."""
        if self.measured is None:
            return Verdict.NOT_MEASURED
        if self.limit is None:
            return Verdict.REPORTED
        kept = self.measured <= self.limit if self.at_most else self.measured >= self.limit
        return Verdict.MET if kept else Verdict.NOT_MET

    @property
    def wanted(self) -> str:
        """The limit, as text."""
        if self.limit is None:
            return ""
        return f"{'≤' if self.at_most else '≥'} {self.limit:g} {self.unit}"


def budgets(results: Results, mode: str = "pinned") -> list[Line]:
    """All lines.

    Args:
        results: a run.
        mode: in which calls are judged.
    """
    lines = []
    for one in OURS:
        lines += _of_a_call(results, mode, one)
    for one in OURS:
        lines.append(_of_many(results, mode, one))
    lines.append(
        Line("map over many small items ÷ joblib's batching", None, 3.0, False, why_not="remuda has no map yet")
    )
    lines += _of_records(results)
    lines.append(
        Line(
            "64 MB there and back ÷ a copy loop through shared memory",
            None,
            2.0,
            why_not="there is no fast way for large payloads yet",
        )
    )
    lines += _of_kills(results, mode)
    lines += _of_beginning(results)
    share = ratio(_median(results, "profile", CORE), _median(results, "profile", CALL))
    lines.append(
        Line("the state machines' share of a small call", None if share is None else 100 * share, 10.0, unit="%")
    )
    return lines


def _median(results: Results, measure: str, metric: str) -> float | None:
    return results.median(measure, "pinned", "remuda", metric)


def _of_a_call(results: Results, mode: str, one: str) -> list[Line]:
    def metric(subject: str, name: str) -> float | None:
        return results.median("latency", mode, subject, name)

    ours = metric(one, "p50")
    others = [peer for peer in PEERS if peer not in ("anyio.to_process", "trio-parallel")]
    fastest, name = _best({peer: metric(peer, "p50") for peer in others}, min)
    best_p99, name_p99 = _best({peer: metric(peer, "p99") for peer in PEERS}, min)
    who = f"a small call ({one})"
    return [
        Line(f"{who}, p50 ÷ a bare trio socketpair round trip", ratio(ours, metric(TRIO_SOCKETPAIR, "p50")), 1.5),
        Line(f"anyio's p50 ÷ that of {who}", ratio(metric("anyio.to_process", "p50"), ours), 2.0, False),
        Line(f"trio-parallel's p50 ÷ that of {who}", ratio(metric("trio-parallel", "p50"), ours), 3.0, False),
        Line(f"the fastest other peer's p50 ÷ that of {who}", ratio(fastest, ours), 1.0, False, note=name),
        Line(f"{who}, p99 ÷ the best peer's", ratio(metric(one, "p99"), best_p99), 1.0, note=name_p99),
    ]


def _of_many(results: Results, mode: str, one: str) -> Line:
    callers = of(max(results.scale.callers))
    best, name = _best({peer: results.median("throughput", mode, peer, callers) for peer in PEERS}, max)
    ours = results.median("throughput", mode, one, callers)
    return Line(
        f"calls per second, 2 workers, {callers} ({one}) ÷ the best peer's", ratio(ours, best), 2.0, False, note=name
    )


def _best(values: dict[str, float | None], choose: Callable[..., str]) -> tuple[float | None, str]:
    known = {name: value for name, value in values.items() if value is not None}
    if not known:
        return None, ""
    name = choose(known, key=known.__getitem__)
    return known[name], name


def _of_records(results: Results) -> list[Line]:
    everyone = results.subjects("records", "free")
    ours = next((one for one in everyone if one != EVALUATE and not one.endswith(KILLED)), "remuda, forkserver")

    def metric(subject: str, name: str) -> float | None:
        return results.median("records", "free", subject, name)

    share, killed = metric(ours, "share"), metric(f"{ours}{KILLED}", "share")
    scale, memory = results.scale, metric(ours, "own at once")
    what = f"{scale.records} DSPy records, {scale.at_once} at once, a model that takes {scale.model:g} s"
    answered = metric(f"{ours}{KILLED}", "answered")
    note = "" if answered is None else f"{answered:.1%} answered"
    return [
        Line(f"{what}: share of the ideal", share, 0.95, False),
        Line("the same ÷ dspy.Evaluate with as many threads", ratio(share, metric(EVALUATE, "share")), 1.0, False),
        Line("the same, a worker killed every second: share of the ideal", killed, 0.95, False, note=note),
        Line("own memory for each record under way", None if memory is None else memory / 1e6, unit="MB"),
    ]


def _of_kills(results: Results, mode: str) -> list[Line]:
    lines = []
    for way, limit in (("forkserver", 25.0), ("spare", 5.0)):
        subject = f"remuda, {way}"
        samples = [
            value for kind in ("idle", "busy") for value in results.samples("recovery with DSPy", mode, subject, kind)
        ]
        survived = [
            value
            for kind in ("idle", "busy")
            for value in results.samples("recovery with DSPy", mode, subject, f"{kind}, survived")
        ]
        always = all(survived)
        worst = None if not survived else quantile(samples, 0.99) * 1e3 if always else math.inf
        note = "" if always else "it did not always recover"
        lines.append(Line(f"kill -9, DSPy loaded, {way}: to the next success, p99", worst, limit, unit="ms", note=note))
    own = results.median("recovery with DSPy", mode, "remuda, forkserver", "own")
    lines.append(
        Line(
            "an idle worker with DSPy beside its template, own memory",
            None if own is None else own / 1e6,
            10.0,
            unit="MB",
        )
    )
    return lines


def _of_beginning(results: Results) -> list[Line]:
    def taken(statement: str) -> float | None:
        whole, base = _median(results, "beginning", statement), _median(results, "beginning", BASE)
        return None if whole is None or base is None else whole - base

    lines = [
        Line(
            f"{HANDSHAKE} ÷ {INTERPRETER}",
            ratio(_median(results, "beginning", HANDSHAKE), _median(results, "beginning", INTERPRETER)),
            1.5,
            note="from a checkout, not the wheel" if results.machine.from_checkout else "",
        )
    ]
    for what, over, limit in RATIOS:
        lines.append(Line(f"{what} ÷ {over}", ratio(taken(STATEMENTS[what]), taken(STATEMENTS[over])), limit))
    return lines
