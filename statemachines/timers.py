"""What is due when: one heap for everything that waits for time.

Each object has at most one alarm, because in each of its states it waits for one thing: a call for
its deadline or the end of its backoff, a worker for its handshake, its check or the next rung of
the stop ladder. Arming an object again replaces its alarm. A replaced or dropped alarm stays in
the heap as a dead entry, told by its number; when more than half of the heap is dead it is rebuilt,
so that a million calls that end long before their deadlines leave nothing behind.
"""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush
from typing import Protocol

__all__ = ["Alarm", "Armed", "Timers"]


class Armed(Protocol):
    """Anything that can be armed. `alarm` is the number of its live entry, 0 for none."""

    alarm: int
    due: float


class Alarm:
    """An alarm of its own, for what has no object: the breaker, the session sweep, the pool."""

    __slots__ = ("alarm", "due", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.alarm = 0
        self.due = math.inf

    def __repr__(self) -> str:
        return f"<Alarm {self.name}>"


class Timers:
    __slots__ = ("_dead", "_heap", "_number")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Armed]] = []
        self._number = 0
        self._dead = 0

    def arm(self, armed: Armed, due: float) -> None:
        """Have `armed` come up at `due` (monotonic seconds), instead of when it was to before."""
        if armed.alarm:
            self._dead += 1
        armed.due = due
        if due == math.inf:
            armed.alarm = 0
            return
        self._number += 1
        armed.alarm = self._number
        heappush(self._heap, (due, self._number, armed))
        if self._dead > 64 and self._dead * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].alarm == entry[1]]
            heapify(self._heap)
            self._dead = 0

    def disarm(self, armed: Armed) -> None:
        """Forget the alarm of `armed`, if it has one."""
        if armed.alarm:
            armed.alarm = 0
            armed.due = math.inf
            self._dead += 1

    def next_due(self) -> float:
        """When the next alarm is due: monotonic seconds, `math.inf` for never."""
        heap = self._heap
        while heap and heap[0][2].alarm != heap[0][1]:
            heappop(heap)
            self._dead -= 1
        return heap[0][0] if heap else math.inf

    def pop(self, now: float) -> Armed | None:
        """Take out the earliest alarm that is due at `now`; it is disarmed."""
        if self.next_due() > now:
            return None
        armed = heappop(self._heap)[2]
        armed.alarm = 0
        armed.due = math.inf
        return armed

    def order(self) -> list[Armed]:
        """Everything that is armed, in the order in which it will come up."""
        live = sorted((due, number, armed) for due, number, armed in self._heap if armed.alarm == number)
        return [armed for _, _, armed in live]

    def __len__(self) -> int:
        """Entries in the heap, dead ones included: bounded by twice the live ones plus 64."""
        return len(self._heap)
