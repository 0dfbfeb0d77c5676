"""What the simulated workers saw: the truth that a pool's claims are held against.

A pool promises that a call which is not idempotent runs at most once, and that nothing is left when
it has closed. Only somebody who stands outside the pool can say whether that is so. In the simulated
world that is the `Witness`: every worker tells it what it begins and finishes, and the launcher
which processes there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

from remuda.bridge import messages

__all__ = ["Execution", "Witness", "by_argument", "by_id"]


def by_id(call: messages.Call) -> Hashable:
    """Tell calls apart by the id on the wire: right where ids are never used twice in a pool."""
    return call.id


def by_argument(name: str) -> Callable[[messages.Call], Hashable]:
    """Tell calls apart by an argument of theirs, so that attempts of one call are counted together.

    Calls without that argument are told apart by their ids.
    """

    def key(call: messages.Call) -> Hashable:
        value: object = call.args.get(name) if isinstance(call.args, dict) else None
        return call.id if value is None else (name, value)

    return key


@dataclass
class Execution:
    """One time that a worker ran a call. Times are virtual, in seconds.

    `quiet` marks the replay of a journal, which is meant to happen once in every worker.
    """

    key: Hashable
    slot: int
    generation: int
    call: messages.Call
    begun_at: float
    finished_at: float | None = None

    @property
    def quiet(self) -> bool:
        return self.call.quiet


class Witness:
    """Counts, for every call, how often any worker has begun and finished it.

    Attributes:
        executions: every execution, in the order they began, replays included.
        begun: how often a call was begun, by key, replays left out.
        finished: how often a call was finished, by key, replays left out.
        launched: how many processes have been started.
        died: how many of them have ended.
        reaped: how many of those somebody has waited for.
        closed: how many had their descriptors closed.
    """

    def __init__(self, key: Callable[[messages.Call], Hashable] = by_id) -> None:
        self._key = key
        self.executions: list[Execution] = []
        self.begun: Counter[Hashable] = Counter()
        self.finished: Counter[Hashable] = Counter()
        self.launched = 0
        self.died = 0
        self.reaped = 0
        self.closed = 0

    def begin(self, slot: int, generation: int, call: messages.Call, now: float) -> Execution:
        """Record that a worker is about to run user code for `call`."""
        execution = Execution(self._key(call), slot, generation, call, now)
        self.executions.append(execution)
        if not call.quiet:
            self.begun[execution.key] += 1
        return execution

    def finish(self, execution: Execution, now: float) -> None:
        """Record that the reply of this execution has been written in full."""
        execution.finished_at = now
        if not execution.quiet:
            self.finished[execution.key] += 1

    def repeated(self) -> Mapping[Hashable, int]:
        """The calls that were begun more than once, and how often."""
        return {key: count for key, count in self.begun.items() if count > 1}

    def leftovers(self) -> list[str]:
        """What a pool that has closed has left behind, in words; an empty list is what it promises."""
        counts = {
            "still alive": self.launched - self.died,
            "dead but never waited for": self.died - self.reaped,
            "with open descriptors": self.launched - self.closed,
        }
        return [f"{count} of {self.launched} workers {what}" for what, count in counts.items() if count]
