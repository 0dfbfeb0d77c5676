"""All that was measured in one run, and the few statistics that are made of it.

What stands in a table is a median over the rounds, of numbers that were made in one driver each: its p50, its
p99, its calls per second. Where a driver gives few and different samples (recoveries), those of all rounds
are one pool, of which p50 and p99 are taken. None says that there is no number; it is never a zero.
"""

from __future__ import annotations

import statistics

import msgspec

from remuda.benchmarks.measures import quantile
from remuda.benchmarks.rounds import Machine
from remuda.benchmarks.scale import Cell, Outcome, Scale

__all__ = ["Results", "ratio"]


class Results(msgspec.Struct, frozen=True):
    """A run."""

    machine: Machine
    scale: Scale
    outcomes: list[Outcome]

    def samples(self, measure: str, mode: str, subject: str, metric: str) -> list[float]:
        """All numbers of this kind, in the order of the rounds."""
        return [
            value
            for outcome in self.outcomes
            if (outcome.cell.measure, outcome.cell.mode, outcome.cell.subject) == (measure, mode, subject)
            for value in outcome.samples.get(metric, ())
        ]

    def median(self, measure: str, mode: str, subject: str, metric: str) -> float | None:
        """Their median."""
        values = self.samples(measure, mode, subject, metric)
        return statistics.median(values) if values else None

    def mean(self, measure: str, mode: str, subject: str, metric: str) -> float | None:
        """Their mean: for shares."""
        values = self.samples(measure, mode, subject, metric)
        return statistics.fmean(values) if values else None

    def quantile(self, measure: str, mode: str, subject: str, metric: str, share: float) -> float | None:
        """The value that this share of them does not exceed."""
        values = self.samples(measure, mode, subject, metric)
        return quantile(values, share) if values else None

    def subjects(self, measure: str, mode: str) -> list[str]:
        """Who has numbers there, in the order in which they first came."""
        found = dict.fromkeys(
            outcome.cell.subject
            for outcome in self.outcomes
            if (outcome.cell.measure, outcome.cell.mode) == (measure, mode) and outcome.samples
        )
        return list(found)

    def succeeded(self, measure: str, mode: str, subject: str) -> float | None:
        """The share of drivers that came to a result; None if there was none at all."""
        tried = [
            not outcome.error
            for outcome in self.outcomes
            if (outcome.cell.measure, outcome.cell.mode, outcome.cell.subject) == (measure, mode, subject)
            and not outcome.absent
        ]
        return statistics.fmean(tried) if tried else None

    def absent(self) -> dict[str, list[str]]:
        """Who could not be measured, by reason."""
        found: dict[str, list[str]] = {}
        for outcome in self.outcomes:
            who = found.setdefault(outcome.absent, [])
            if outcome.cell.subject not in who:
                who.append(outcome.cell.subject)
        found.pop("", None)
        return found

    def errors(self) -> list[tuple[Cell, str]]:
        """What went wrong."""
        return [(outcome.cell, outcome.error) for outcome in self.outcomes if outcome.error]


def ratio(value: float | None, base: float | None) -> float | None:
    """How many times `base` it is; None where one of them is missing."""
    return None if value is None or not base else value / base
