"""How much is measured, and what comes of one driver: the values that cross between processes."""

from __future__ import annotations

import msgspec

__all__ = ["FULL", "QUICK", "Cell", "Outcome", "Scale", "of"]


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """How much is done in one round of one subject.

    Args:
        calls: small calls whose time is taken; as many for each number of callers.
        warmup: calls before that.
        size: bytes of an argument.
        callers: the numbers of callers of the throughput.
        kills: workers to kill while idle, and again while busy.
        slow_kills: the same where a start takes a second or more.
        patience: seconds that a pool gets to recover, or to tell a caller.
        starts: interpreters and workers to start.
        turns: how often the features take turns.
        records: DSPy records for the model.
        at_once: records under way at the same time, and workers.
        model: seconds that the model takes for an answer.
    """

    calls: int = 2000
    warmup: int = 200
    size: int = 100
    callers: tuple[int, ...] = (1, 2, 64)
    kills: int = 10
    slow_kills: int = 3
    patience: float = 3.0
    starts: int = 5
    turns: int = 10
    records: int = 10_000
    at_once: int = 64
    model: float = 1.0


def of(callers: int) -> str:
    """What a number of callers is called, in tables and among the samples."""
    return "1 caller" if callers == 1 else f"{callers} callers"


FULL = Scale()
QUICK = Scale(
    calls=40, warmup=5, callers=(1, 4), kills=1, slow_kills=1, patience=1.0, starts=1, turns=2, records=12, at_once=4,
    model=0.1,
)  # fmt: skip
"""Only to see that everything runs: the numbers of such a run mean nothing."""


class Cell(msgspec.Struct, frozen=True):
    """What one driver measures."""

    measure: str
    subject: str
    mode: str
    """"pinned" or "free"."""
    round: int = 0


class Outcome(msgspec.Struct, frozen=True):
    """What came of it. Exactly one of the three is there."""

    cell: Cell
    samples: dict[str, list[float]] = {}
    """Numbers by the name of what they are, in seconds, calls per second, bytes, or as shares."""
    absent: str = ""
    """Why it could not be measured here."""
    error: str = ""
    """What went wrong."""
