"""Who takes part in what: the subjects by name, the measures, and the order of a round.

The names are those of the tables. What is loaded for a subject is loaded when it is made.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from remuda.benchmarks.scale import Cell, Scale
from remuda.benchmarks.subjects import missing

if TYPE_CHECKING:
    from remuda.benchmarks.measures import Samples
    from remuda.benchmarks.subjects import Subject

__all__ = [
    "ENDING",
    "EVALUATE",
    "KILLED",
    "LIMITS",
    "MEASURES",
    "MODES",
    "OURS",
    "PEERS",
    "TRIO_PIPE",
    "TRIO_SOCKETPAIR",
    "Absent",
    "cells",
    "measure",
    "pin",
    "subjects_of",
]

OURS = ("remuda", "remuda, an adapter")
PEERS = {
    "multiprocessing.Pool": "Multiprocessing",
    "ProcessPoolExecutor": "ProcessPool",
    "billiard.Pool": "Billiard",
    "pebble.ProcessPool": "Pebble",
    "loky": "Loky",
    "anyio.to_process": "AnyIO",
    "trio-parallel": "TrioParallel",
}
TRIO_PIPE, TRIO_SOCKETPAIR = "a pipe, trio", "a socketpair, trio"
LIMITS = {
    "a pipe, blocking": "RawPipe",
    "a socketpair, blocking": "RawSocketpair",
    TRIO_PIPE: "TrioPipe",
    TRIO_SOCKETPAIR: "TrioSocketpair",
    "a worker, no pool": "WorkerAlone",
}
MODES = ("pinned", "free")
EVALUATE = "dspy.Evaluate"
KILLED = ", a kill every second"
ENDING = "the end of a worker"

MEASURES: dict[str, tuple[tuple[str, ...], int]] = {
    "latency": (MODES, 1000),
    "throughput": (MODES, 1000),
    "recovery": (MODES, 1000),
    "recovery with DSPy": (MODES, 1000),
    "features": (MODES, 1000),
    "beginning": (("pinned",), 1000),
    "profile": (("pinned",), 1000),
    "records": (("free",), 2),
}
"""By name: the modes, and the rounds at most (the records take minutes, and are many samples by themselves)."""


class Absent(Exception):
    """It cannot be measured here; the text says why."""


def _ways() -> dict[str, dict[str, object]]:
    from remuda.benchmarks.ours import starts

    return {f"remuda, {way}": fields for way, fields in starts().items()}


def subjects_of(name: str) -> list[str]:
    """Who takes part in a measure, in the order of a round."""
    ways = list(_ways())
    if name == "latency":
        return [*OURS, *(ways if len(ways) > 1 else ()), *PEERS, *LIMITS]
    if name == "throughput":
        return [*OURS, *PEERS, *LIMITS]
    if name == "recovery":
        return [*ways, *PEERS]
    if name == "records":
        way = ways[min(1, len(ways) - 1)]  # so many workers by spawn are slow to start, and large
        return [way, f"{way}{KILLED}", EVALUATE]
    return [*ways, ENDING] if name == "recovery with DSPy" else ["remuda"]


def cells(
    rounds: int, measures: Iterable[str], modes: Iterable[str], subjects: Iterable[str] | None = None
) -> Iterator[Cell]:
    """Everything that is to be measured, in turns; the order is reversed in every other round.

    Args:
        rounds: how many.
        measures, modes: which, by name.
        subjects: which; None: all. A part of a name is enough.
    """
    measures, modes = list(measures), list(modes)
    wanted = None if subjects is None else list(subjects)
    for number in range(rounds):
        for name in measures:
            allowed, at_most = MEASURES[name]
            if number >= at_most:
                continue
            who = [one for one in subjects_of(name) if wanted is None or any(part in one for part in wanted)]
            for mode in modes:
                if mode in allowed:
                    yield from (Cell(name, one, mode, number) for one in who[:: -1 if number % 2 else 1])


def measure(cell: Cell, scale: Scale) -> Samples:
    """Measure one cell, in this process.

    Raises:
        Absent: something that it needs is not installed.
    """
    from remuda.benchmarks import measures, ours

    ways = _ways()
    if cell.measure in ("latency", "throughput"):
        return getattr(measures, cell.measure)(_subject(cell), scale)  # type: ignore[no-any-return]
    if cell.measure == "recovery":
        # A pool whose starts take long gets as many kills as one whose starts do not: all are compared.
        return measures.recovery(_subject(cell), scale, scale.kills)
    if cell.measure == "features":
        from remuda.benchmarks.features import features

        return features(scale)
    if cell.measure == "beginning":
        from remuda.benchmarks.beginning import beginning

        return beginning(scale)
    if cell.measure == "profile":
        from remuda.benchmarks.profile_call import profile

        return profile(scale.calls, scale.size)
    if gone := missing(("dspy",)):
        raise Absent(f"{gone[0]} is not installed")
    if cell.subject == ENDING:
        if not hasattr(os, "pidfd_open"):
            raise Absent("this system does not say at once that a process has ended")
        subject = ours.Ours(1, {**ours.DSPY, "spares": 1})
        subject.load()
        return measures.ending(subject, scale.kills)
    if cell.measure == "recovery with DSPy":
        subject = ours.Ours(1, {**ours.DSPY, **ways[cell.subject]})
        subject.load()
        kills = scale.slow_kills if cell.subject == "remuda, spawn" else scale.kills
        patient = Scale(patience=max(scale.patience, 60.0))
        return measures.recovery(subject, patient, kills)
    from remuda.benchmarks import records

    if cell.subject == EVALUATE:
        return records.by_evaluate(scale)
    way = cell.subject.removesuffix(KILLED)
    return records.by_remuda(scale, dict(ways[way]), kill=way != cell.subject)


def _subject(cell: Cell) -> Subject:
    workers = 2 if cell.measure == "throughput" else 1
    name = cell.subject
    if name in PEERS or name in LIMITS:
        from remuda.benchmarks import limits, peers

        make = getattr(peers, PEERS[name]) if name in PEERS else getattr(limits, LIMITS[name])
    else:
        from remuda.benchmarks import ours

        ways = {OURS[0]: {}, OURS[1]: ours.WITH_TASKS} | {way: {**ours.WITH_TASKS, **f} for way, f in _ways().items()}
        fields = ways[name]
        make = partial(ours.Ours, fields=fields)
    subject: Subject = make(workers)
    if gone := missing(subject.needs):
        raise Absent(f"{gone[0]} is not installed")
    subject.load()
    return subject


def pin() -> None:
    """Keep this process, and all that comes of it, on one core: the last of those that it may use.

    Raises:
        Absent: this system cannot do that.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise Absent("this system does not pin processes to a core")
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
