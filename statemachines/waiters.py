"""Who waits for a worker, and who is next.

Waiters stand in lanes, one for each session and one for all calls without a session. Within a lane
the order is that of arrival; between lanes it is round robin, so that a session with a thousand
calls delays another by one turn, not by a thousand. A waiter that leaves (cancelled, timed out) is
gone at once and not counted. One that comes back, because its worker died, takes its old place:
arrival is told by the call's id, which only grows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

__all__ = ["Waiter", "Waiters"]


class Waiter(Protocol):
    @property
    def id(self) -> int: ...
    @property
    def session(self) -> str | None: ...


W = TypeVar("W", bound=Waiter)


class Waiters(Generic[W]):
    __slots__ = ("_count", "_lanes")

    def __init__(self) -> None:
        # Insertion order is the order of the turns; dicts as ordered sets, so that leaving is O(1).
        self._lanes: dict[str | None, dict[W, None]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[W]:
        """All waiters, lane by lane in the order of their turns."""
        for lane in self._lanes.values():
            yield from lane

    def __contains__(self, waiter: W) -> bool:
        return waiter in self._lanes.get(waiter.session, ())

    def add(self, waiter: W) -> None:
        """A newcomer: to the end of its lane."""
        self._lanes.setdefault(waiter.session, {})[waiter] = None
        self._count += 1

    def put_back(self, waiter: W) -> None:
        """One that had been taken: to the place in its lane that its arrival gives it."""
        lane = self._lanes.get(waiter.session)
        if lane is None:
            # A lane of its own, first in turn: it has had no turn that counted.
            self._lanes = {waiter.session: {waiter: None}, **self._lanes}
        else:
            ordered = sorted([*lane, waiter], key=lambda other: other.id)
            lane.clear()
            lane.update(dict.fromkeys(ordered))
        self._count += 1

    def remove(self, waiter: W) -> bool:
        """Take out one that leaves. False if it was not waiting."""
        lane = self._lanes.get(waiter.session)
        if lane is None or waiter not in lane:
            return False
        del lane[waiter]
        if not lane:
            del self._lanes[waiter.session]
        self._count -= 1
        return True

    def first(self) -> W:
        """The next in turn, who stays. Raises KeyError if none waits."""
        for waiter in self:
            return waiter
        raise KeyError("nobody is waiting")

    def pop(self) -> W:
        """The next in turn; its lane goes to the end of the round. Raises KeyError if none waits."""
        if not self._count:
            raise KeyError("nobody is waiting")
        session, lane = next(iter(self._lanes.items()))
        waiter = next(iter(lane))
        del lane[waiter]
        del self._lanes[session]
        if lane:
            self._lanes[session] = lane
        self._count -= 1
        return waiter

    def clear(self) -> list[W]:
        """Everybody out, in order."""
        out = list(self)
        self._lanes.clear()
        self._count = 0
        return out
