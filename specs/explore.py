"""Every state that can be reached, breadth first: if something can go wrong, the shortest way to it.

    result = explore(lambda: World(profile))
    assert result.complete and not result.faults

A *model* is anything with the methods of `Model`, such as `remuda.specs.model.World`. It is never
copied: a state is the path that leads to it, and is reached by taking that path again, which for short
paths costs less than a copy by pickle (measured: about a third, at twelve steps) and cannot be wrong
about what belongs to the state.

Found is:

* **a violation**: an action after which an invariant does not hold;
* **a dead end**: somebody waits, and nothing can happen any more;
* **a wedge**: somebody waits, and of all that can happen *by itself* (processes and time, not users
  who lose patience) nothing leads to a state in which nobody waits. Told only when every state was
  seen, since it takes all of them to say "never";
* on request (`distrust`), **a dishonest key**: two ways led to one key, and what may happen next, or
  where it leads, is not the same. Whatever was walked with such a key was not all there is.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Protocol

import msgspec

from remuda.specs.invariants import InvariantViolated

__all__ = ["Exploration", "Fault", "Model", "explore", "replay"]


class Model(Protocol):
    """What can be explored."""

    def actions(self) -> Sequence[Any]:
        """Everything that may happen next."""
        ...

    def natural_actions(self) -> Sequence[Any]:
        """Those of them that happen without anybody wanting it."""
        ...

    def do(self, action: Any) -> None:
        """Make one happen; raises InvariantViolated."""

    def redo(self, action: Any) -> None:
        """The same, for an action that went well here before: it need not be judged again."""

    def key(self) -> Hashable:
        """Two models with the same key have the same future."""
        ...

    def pending(self) -> bool:
        """Whether somebody waits for something."""
        ...

    def sights(self) -> Iterable[str]:
        """What is to be seen here, in words; it is counted, so that one can tell what was walked."""
        ...


class Fault(msgspec.Struct, frozen=True):
    """Something that must not be, and the shortest way to it."""

    name: str
    """The invariant, or "dead_end", "wedge", "dishonest_key"."""
    detail: str
    path: tuple[Any, ...]

    def __str__(self) -> str:
        steps = "\n".join(f"  {number}. {_words(action)}" for number, action in enumerate(self.path, start=1))
        return f"{self.name}: {self.detail}\n{steps}"


class Exploration(msgspec.Struct):
    """What was found.

    Attributes:
        states, steps: how many there are.
        complete: whether every state that can be reached was.
        actions: how often each kind of action was taken.
        seen: in how many states each sight was seen.
        faults: what must not be; of each name, the one with the shortest path.
    """

    states: int
    steps: int
    complete: bool
    actions: Counter[str]
    seen: Counter[str]
    faults: list[Fault]


def explore(
    make: Callable[[], Model],
    *,
    max_states: int = 1_000_000,
    stop_at_first: bool = True,
    distrust: int = 0,
) -> Exploration:
    """Walk through all states of a model.

    Args:
        make: makes one, in its first state.
        max_states: after this many it gives up, and says that it is not complete.
        stop_at_first: whether to stop at the first violation; else a state that violates something
            is not walked on from, and the others are.
        distrust: if not 0, every so many times that a known state is reached in another way, both
            ways are compared. That costs a walk through all their next states.

    Returns:
        What was found.
    """
    return _Walk(make, max_states, stop_at_first, distrust).go()


def replay(make: Callable[[], Model], path: Sequence[Any]) -> Model:
    """A model that has gone this way. It is not judged again on it."""
    model = make()
    for action in path:
        model.redo(action)
    return model


class _Walk:
    """One exploration under way. States are numbers, in the order in which they were found."""

    def __init__(self, make: Callable[[], Model], max_states: int, stop_at_first: bool, distrust: int) -> None:
        self.make, self.max_states = make, max_states
        self.stop_at_first, self.distrust = stop_at_first, distrust
        self.numbers: dict[Hashable, int] = {}
        self.came: list[tuple[int, Any]] = []  # of each state: the one before it, and the action
        self.waits: list[bool] = []
        self.before: list[list[int]] = []  # of each state: those from which it comes about by itself
        self.queue: deque[int] = deque()
        self.actions: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self.faults: dict[str, Fault] = {}
        self.complete = True
        self.again = 0

    def go(self) -> Exploration:
        try:
            first = self.make()
        except InvariantViolated as violation:
            self._found(violation.name, violation.detail, ())
        else:
            self._reached(first, first.key(), -1, None)
        while self.queue and not (self.faults and self.stop_at_first):
            self._walk_on_from(self.queue.popleft())
        self.complete = self.complete and not self.queue
        if self.complete and not self.faults:
            self._look_for_wedge()
        steps = self.actions.total()
        return Exploration(len(self.numbers), steps, self.complete, self.actions, self.seen, list(self.faults.values()))

    def _walk_on_from(self, state: int) -> None:
        path = self._path_to(state)
        model = replay(self.make, path)
        possible, natural = list(model.actions()), set(model.natural_actions())
        if not possible and self.waits[state]:
            self._found("dead_end", "somebody waits, and nothing can happen", path)
        for place, action in enumerate(possible):
            if place:  # the first action may use the model that is there
                model = replay(self.make, path)
            self.actions[str(action[0]) if isinstance(action, tuple) else str(action)] += 1
            try:
                model.do(action)
            except InvariantViolated as violation:
                self._found(violation.name, violation.detail, (*path, action))
                if self.stop_at_first:
                    return
                continue
            key = model.key()
            number = self.numbers.get(key)
            if number is not None:
                self._reached_again(number, (*path, action))
            elif len(self.numbers) < self.max_states:
                number = self._reached(model, key, state, action)
            else:
                self.complete = False
            if number is not None and action in natural:
                self.before[number].append(state)

    def _reached(self, model: Model, key: Hashable, source: int, action: Any) -> int:
        number = self.numbers[key] = len(self.numbers)
        self.came.append((source, action))
        self.waits.append(model.pending())
        self.before.append([])
        self.seen.update(set(model.sights()))
        self.queue.append(number)
        return number

    def _reached_again(self, number: int, path: tuple[Any, ...]) -> None:
        self.again += 1
        if not self.distrust or self.again % self.distrust:
            return
        known = self._path_to(number)
        here, there = self._next_keys(path), self._next_keys(known)
        if here != there:
            differing = [a for a in here.keys() | there.keys() if here.get(a) != there.get(a)]
            way = ", ".join(map(_words, known))
            detail = f"this way and [{way}] have one key; what differs next: {sorted(map(_words, differing))}"
            self._found("dishonest_key", detail, path)

    def _next_keys(self, path: tuple[Any, ...]) -> dict[Any, Hashable]:
        """Where each action leads from here: a key, or the name of what is violated."""
        keys: dict[Any, Hashable] = {}
        for action in replay(self.make, path).actions():
            model = replay(self.make, path)
            try:
                model.do(action)
                keys[action] = model.key()
            except InvariantViolated as violation:
                keys[action] = violation.name
        return keys

    def _path_to(self, state: int) -> tuple[Any, ...]:
        path = []
        while state > 0:
            state, action = self.came[state]
            path.append(action)
        return tuple(reversed(path))

    def _found(self, name: str, detail: str, path: tuple[Any, ...]) -> None:
        self.faults.setdefault(name, Fault(name, detail, path))

    def _look_for_wedge(self) -> None:
        """The first state from which nothing natural leads to one in which nobody waits."""
        reached = [not wait for wait in self.waits]
        queue = deque(state for state, wait in enumerate(self.waits) if not wait)
        while queue:
            for source in self.before[queue.popleft()]:
                if not reached[source]:
                    reached[source] = True
                    queue.append(source)
        if not all(reached):
            detail = "somebody waits, and nothing that happens by itself leads out of it"
            self._found("wedge", detail, self._path_to(reached.index(False)))


def _words(action: object) -> str:
    return " ".join(map(str, action)) if isinstance(action, tuple) else str(action)
