"""Who waits for a worker, and who is next.

Waiters stand in lanes, one for each session and one for all calls without a session. Within a lane
the order is that of arrival; between lanes it is round robin, so that a session with a thousand
calls delays another by one turn, not by a thousand. A waiter that leaves (cancelled, timed out) is
gone at once and not counted.

One that comes back, because its worker died, takes its old place; arrival is told by the call's id, which
only grows. If its lane is there it stands in that. If not, it is first of all: it had its turn, and nothing
came of it. That is its own right and not its lane's: those who join the lane meanwhile have the place that
their arrival gives them, also when it leaves. It is one turn: of several who come back to the same lane, the
others wait for the next.
"""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict
from collections.abc import Iterator
from operator import attrgetter
from typing import Generic, Protocol, TypeVar

__all__ = ["Waiter", "Waiters"]


class Waiter(Protocol):
    @property
    def id(self) -> int: ...
    @property
    def session(self) -> str | None: ...


W = TypeVar("W", bound=Waiter)


class Waiters(Generic[W]):
    """See the module's text.

    Attributes:
        count: how many wait.
    """

    __slots__ = ("_lanes", "_returned", "count")

    def __init__(self) -> None:
        # Insertion order is the order of the turns; lanes are ordered sets, so that leaving is O(1). To find the
        # first of a plain dict is not: it looks at every place from which another has left.
        self._lanes: dict[str | None, OrderedDict[W, None]] = {}
        self._returned: list[W] = []
        self.count = 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[W]:
        """All waiters: those that are first because they came back, then lane by lane in the order of their turns."""
        yield from self._returned
        for lane in self._lanes.values():
            yield from lane

    def __contains__(self, waiter: W) -> bool:
        return waiter in self._lanes.get(waiter.session, ()) or waiter in self._returned

    @property
    def returned(self) -> int:
        """How many are first because they came back."""
        return len(self._returned)

    def add(self, waiter: W) -> None:
        """A newcomer: to the end of its lane."""
        lane = self._lanes.get(waiter.session)
        if lane is None:
            lane = self._lanes[waiter.session] = OrderedDict()
        lane[waiter] = None
        self.count += 1

    def put_back(self, waiter: W) -> None:
        """One that had been taken: to the place in its lane that its arrival gives it, or to the front of all."""
        lane = self._lanes.get(waiter.session)
        if lane is None or any(other.session == waiter.session for other in self._returned):
            insort(self._returned, waiter, key=attrgetter("id"))
        else:
            ordered = sorted([*lane, waiter], key=lambda other: other.id)
            lane.clear()
            lane.update(dict.fromkeys(ordered))
        self.count += 1

    def remove(self, waiter: W) -> bool:
        """Take out one that leaves. False if it was not waiting."""
        lane = self._lanes.get(waiter.session)
        if lane is not None and waiter in lane:
            del lane[waiter]
            if not lane:
                del self._lanes[waiter.session]
        elif waiter in self._returned:
            self._returned.remove(waiter)
        else:
            return False
        self.count -= 1
        return True

    def first(self) -> W:
        """The next in turn, who stays. Raises KeyError if none waits."""
        if self._returned:
            return self._returned[0]
        for lane in self._lanes.values():
            return next(iter(lane))
        raise KeyError("nobody is waiting")

    def pop(self) -> W:
        """The next in turn; its lane goes to the end of the round. Raises KeyError if none waits."""
        if not self.count:
            raise KeyError("nobody is waiting")
        self.count -= 1
        if self._returned:
            waiter = self._returned.pop(0)
            # This was the turn of its lane, and others of it that came back wait for the next one there.
            others = [other for other in self._returned if other.session == waiter.session]
            self._returned = [other for other in self._returned if other.session != waiter.session]
            still = [*others, *self._lanes.pop(waiter.session, ())]
            if still:
                self._lanes[waiter.session] = OrderedDict.fromkeys(still)
            return waiter
        session, lane = next(iter(self._lanes.items()))
        waiter, _ = lane.popitem(last=False)
        if not lane:
            del self._lanes[session]
        elif len(self._lanes) > 1:
            del self._lanes[session]
            self._lanes[session] = lane
        return waiter

    def clear(self) -> list[W]:
        """Everybody out, in order."""
        out = list(self)
        self._lanes.clear()
        self._returned.clear()
        self.count = 0
        return out
