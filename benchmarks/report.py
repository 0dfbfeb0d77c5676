"""What is shown of a run: tables in Markdown, for the terminal and the docs, and the panels of the plot."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from remuda.benchmarks.beginning import HANDSHAKE, INTERPRETER
from remuda.benchmarks.budgets import budgets
from remuda.benchmarks.chart import Bar, Panel
from remuda.benchmarks.features import PLAIN
from remuda.benchmarks.import_cost import BASE, STATEMENTS
from remuda.benchmarks.measures import quantile
from remuda.benchmarks.plan import LIMITS, MODES, OURS, PEERS, TRIO_PIPE, TRIO_SOCKETPAIR
from remuda.benchmarks.profile_call import BARE, CALL, COMPUTED, CORE, PARTS, STAGES
from remuda.benchmarks.results import Results, ratio
from remuda.benchmarks.scale import of

__all__ = ["panels", "report", "table"]

BEGIN, END = "<!-- begin: made by remuda bench -->", "<!-- end -->"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table in Markdown, its columns aligned: all but the first to the right."""
    texts = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(head, *texts, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = (
            cell.ljust(width) if not at else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join([first, *others])} |"

    rule = "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])])
    return [line(head), f"|{rule}|", *map(line, texts)]


def number(value: float | None, scale: float = 1.0, digits: int = 3) -> str:
    """A number with so many digits that count, or a dash."""
    if value is None:
        return "–"
    value *= scale
    if math.isinf(value):
        return "∞"
    if value == 0 or abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.{digits}g}"


def report(results: Results) -> str:
    """Everything, as Markdown."""
    parts = [_machine(results), _budgets(results)]
    for title, section in (
        ("A small call: one worker, one caller, 100 bytes there and back", _latency),
        ("Many calls: two workers", _throughput),
        ("kill -9 of the only worker, to the next success", _recovery),
        ("What a feature costs a small call", _features),
    ):
        parts += [[f"### {title}, {mode}", "", *found] for mode in MODES if (found := section(results, mode))]
    for title, found in (
        ("Records that wait for a language model, free", _records(results)),
        ("To begin, pinned", _beginning(results)),
        ("Where a small call's time goes in the application's process, pinned", _profile(results)),
    ):
        if found:
            parts.append([f"### {title}", "", *found])
    parts.append(_missing(results))
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _machine(results: Results) -> list[str]:
    machine, scale = results.machine, results.scale
    rounds = 1 + max((outcome.cell.round for outcome in results.outcomes), default=0)
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    where = f"Python {machine.python}, {machine.system}, {machine.cores} cores, load {machine.load:g} at the start"
    lines = [f"{machine.at} UTC, {where}; {rounds} rounds of {scale.calls} calls. {versions}."]
    for mode in MODES:
        bare = [
            value
            for outcome in results.outcomes
            if (outcome.cell.measure, outcome.cell.mode) == ("latency", mode)
            for value in outcome.samples.get("bare", ())
        ]
        if bare:
            low, middle, high = (number(quantile(bare, share), 1e6) for share in (0.01, 0.5, 1.0))
            lines.append(
                f"How steady it was: a bare blocking round trip, timed before and after each subject, took {middle} µs "
                f"({low} to {high}), {mode}."
            )
    return lines


def _budgets(results: Results) -> list[str]:
    free = {line.what: line for line in budgets(results, "free")}
    rows = []
    for line in budgets(results):
        other = free[line.what].measured
        also = "" if other is None or other == line.measured else number(other)
        measured = "–" if line.measured is None else f"{number(line.measured)} {line.unit}"
        remark = line.why_not if line.measured is None else line.note
        rows.append([line.what, line.wanted, measured, also, f"{line.verdict}{f' ({remark})' if remark else ''}"])
    judged = "Judged where all is on one core, but for the records, which wait for a model; beside it the same, free."
    return ["### Budgets", "", judged, "", *table(["", "budget", "measured", "free", "verdict"], rows)]


def _latency(results: Results, mode: str) -> list[str]:
    def metric(subject: str, name: str) -> float | None:
        return results.median("latency", mode, subject, name)

    rows = []
    ours = metric("remuda", "p50")
    for subject in results.subjects("latency", mode):
        p50 = metric(subject, "p50")
        rows.append(
            [
                subject,
                number(p50, 1e6),
                number(metric(subject, "p99"), 1e6),
                number(ratio(p50, metric(TRIO_SOCKETPAIR, "p50"))),
                number(ratio(p50, metric(TRIO_PIPE, "p50"))),
                number(ratio(p50, ours)),
                number(metric(subject, "first"), 1e3),
                number(metric(subject, "own"), 1e-6),
                number(metric(subject, "others"), 1e-6),
            ]
        )
    head = [
        "",
        "p50 µs",
        "p99 µs",
        "÷ trio socketpair",
        "÷ trio pipe",
        "÷ remuda",
        "first ms",
        "worker MB",
        "helpers MB",
    ]
    return table(head, rows) if rows else []


def _throughput(results: Results, mode: str) -> list[str]:
    def metric(subject: str, name: str) -> float | None:
        return results.median("throughput", mode, subject, name)

    many = [of(callers) for callers in results.scale.callers]
    rows = [
        [
            subject,
            *(number(metric(subject, callers)) for callers in many),
            number(metric(subject, f"{many[-1]}, computed"), 1e6),
            number(ratio(metric("remuda", many[-1]), metric(subject, many[-1]))),
        ]
        for subject in results.subjects("throughput", mode)
    ]
    head = ["calls per second", *many, "parent computes, µs per call", "remuda is × faster"]
    return table(head, rows) if rows else []


def _recovery(results: Results, mode: str) -> list[str]:
    rows = []
    for measure in ("recovery", "recovery with DSPy"):
        for subject in results.subjects(measure, mode):
            cells = []
            for kind in ("idle", "busy"):
                cells += [number(results.quantile(measure, mode, subject, kind, share), 1e3) for share in (0.5, 0.99)]
                survived = results.mean(measure, mode, subject, f"{kind}, survived")
                cells.append("–" if survived is None else f"{survived:.0%}")
            told = results.mean(measure, mode, subject, "told")
            cells += [
                "–" if told is None else f"{told:.0%}",
                number(results.median(measure, mode, subject, "own"), 1e-6),
            ]
            rows.append([f"{subject}{measure.removeprefix('recovery')}", *cells])
    head = ["", "idle p50 ms", "p99", "recovers", "busy p50 ms", "p99", "recovers", "its caller is told", "worker MB"]
    return table(head, rows) if rows else []


def _features(results: Results, mode: str) -> list[str]:
    plain = results.median("features", mode, "remuda", PLAIN)
    names = dict.fromkeys(
        name
        for outcome in results.outcomes
        if (outcome.cell.measure, outcome.cell.mode) == ("features", mode)
        for name in outcome.samples
    )
    rows = []
    for name in names:
        value = results.median("features", mode, "remuda", name)
        rows.append([name, number(value, 1e6), number(ratio(value, plain))])
    return table(["", "p50 µs", f"÷ {PLAIN}"], rows) if rows else []


def _records(results: Results) -> list[str]:
    def metric(subject: str, name: str) -> float | None:
        return results.median("records", "free", subject, name)

    rows = []
    for subject in results.subjects("records", "free"):
        answered = results.mean("records", "free", subject, "answered")
        rows.append(
            [
                subject,
                number(metric(subject, "share")),
                "–" if answered is None else f"{answered:.1%}",
                number(metric(subject, "start")),
                number(metric(subject, "own at once"), 1e-6),
                number(metric(subject, "kills")),
            ]
        )
    head = ["", "share of the ideal", "answered", "start, s", "MB for each at once", "kills"]
    return table(head, rows) if rows else []


def _beginning(results: Results) -> list[str]:
    def metric(name: str) -> float | None:
        return results.median("beginning", "pinned", "remuda", name)

    base = metric(BASE)
    if base is None:
        return []
    rows = [[name, number(metric(name), 1e3)] for name in (HANDSHAKE, INTERPRETER)]
    for name, statement in STATEMENTS.items():
        whole = metric(statement)
        rows.append([f"{name}, beyond an interpreter", number(None if whole is None else whole - base, 1e3)])
    return table(["", "ms"], rows)


def _profile(results: Results) -> list[str]:
    def metric(name: str) -> float | None:
        return results.median("profile", "pinned", "remuda", name)

    total = metric(COMPUTED)
    if total is None:
        return []
    stages = {name: metric(name) or 0.0 for name in STAGES}
    stages["the rest: trio, and what lies between"] = total - sum(stages.values())
    rows = [[name, number(seconds, 1e6), f"{seconds / total:.1%}"] for name, seconds in stages.items()]
    rows += [[name, number(metric(name), 1e6), ""] for name in (COMPUTED, CALL, BARE)]
    rows += [[f"of {CORE}: {name}", number(metric(name), 1e6), ""] for name in PARTS]
    return table(["", "µs", "share"], rows)


def _missing(results: Results) -> list[str]:
    lines = [f"Absent, because {reason}: {', '.join(who)}." for reason, who in results.absent().items()]
    lines += [
        f"Failed: {cell.subject}, {cell.measure}, {cell.mode}, round {cell.round}: {error}"
        for cell, error in results.errors()
    ]
    return lines


def panels(results: Results, mode: str = "pinned") -> list[Panel]:
    """The plot: what matters most, as ratios where there is something to be compared with."""
    found = []
    bare = results.median("latency", mode, TRIO_SOCKETPAIR, "p50")
    where = "the whole tree of processes on one core" if mode == "pinned" else "unpinned"
    if bars := _bars((*OURS, *PEERS, *LIMITS), lambda who: ratio(results.median("latency", mode, who, "p50"), bare)):
        title = "A small call, one worker: p50 ÷ a bare trio socketpair round trip"
        found.append(Panel(title, f"less is better; {where}", "×", bars, 20.0))
    callers = of(max(results.scale.callers))
    best = max((results.median("throughput", mode, who, callers) or 0.0 for who in OURS), default=0.0)
    if bars := _bars((*OURS, *PEERS), lambda who: ratio(results.median("throughput", mode, who, callers), best)):
        title = f"Calls per second, two workers, {callers} ÷ remuda's"
        found.append(Panel(title, f"more is better; {where}", "×", bars, 4.0))
    subjects = results.subjects("recovery", mode)
    if bars := _bars(subjects, lambda who: _milliseconds(results.median("recovery", mode, who, "busy"))):
        title = "kill -9 of a busy worker, the only one, to the next success"
        found.append(Panel(title, "less is better; whoever is not here never had one", "ms", bars, 400.0))
    return found


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3


def _bars(subjects: Iterable[str], value_of: Callable[[str], float | None]) -> list[Bar]:
    bars = []
    for who in subjects:
        value = value_of(who)
        if value is not None:
            bars.append(Bar(who, value, "ours" if who.startswith("remuda") else "limit" if who in LIMITS else "peer"))
    return bars
