"""Runs that nobody made: numbers by measure, mode and subject, as if drivers had found them."""

from __future__ import annotations

from remuda.benchmarks.results import Results
from remuda.benchmarks.rounds import Machine
from remuda.benchmarks.scale import FULL, Cell, Outcome

__all__ = ["HERE", "outcome", "run_of"]

HERE = Machine(
    at="2026-01-01 00:00", python="3.11.7", system="Linux 6 x86_64", cores=2, load=0.1, versions={"remuda": "0.1.0"},
    from_checkout=False,
)  # fmt: skip


def outcome(measure: str, subject: str, round: int = 0, mode: str = "pinned", /, **samples: list[float]) -> Outcome:
    return Outcome(Cell(measure, subject, mode, round), samples=samples)


def run_of(*outcomes: Outcome) -> Results:
    return Results(HERE, FULL, list(outcomes))
