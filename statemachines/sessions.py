"""Which worker a session was served by last, for as long as that is worth knowing.

A session is a preference, not a promise: its next call goes to the same worker if that worker is
free, else to another, which then is its worker. The binding is to one generation, so a replaced
worker is nobody's; it lapses `ttl` seconds after the last use.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["Sessions"]

W = TypeVar("W")


class Sessions(Generic[W]):
    __slots__ = ("_bound", "ttl")

    def __init__(self, ttl: float) -> None:
        self.ttl = ttl
        self._bound: dict[str, tuple[W, float]] = {}  # least recently used first

    def __len__(self) -> int:
        return len(self._bound)

    def __iter__(self) -> Iterator[tuple[str, W, float]]:
        """(session, worker, time of last use), least recently used first."""
        return ((session, worker, used) for session, (worker, used) in self._bound.items())

    def worker(self, session: str, now: float) -> W | None:
        """The worker that served `session` last, or None if there is none or it has lapsed."""
        found = self._bound.get(session)
        if found is None or found[1] + self.ttl <= now:
            return None
        return found[0]

    def bind(self, session: str, worker: W, now: float) -> None:
        """`worker` serves `session` now."""
        self._bound.pop(session, None)
        self._bound[session] = (worker, now)

    def end(self, session: str) -> bool:
        """Forget the session. False if it was not known."""
        return self._bound.pop(session, None) is not None

    def sweep(self, now: float) -> int:
        """Forget what has lapsed; returns how many."""
        lapsed = []
        for session, (_, used) in self._bound.items():
            if used + self.ttl > now:
                break  # they are in the order of use
            lapsed.append(session)
        for session in lapsed:
            del self._bound[session]
        return len(lapsed)

    def next_due(self) -> float:
        """When the next binding lapses; `math.inf` if there is none."""
        for _, used in self._bound.values():
            return used + self.ttl
        return math.inf
