"""A model checker: every state that can be reached, breadth first, and what must be true of them.

    class Lamp(Model[bool, str]):
        def initial(self): return [False]
        def actions(self, state): return ["press"]
        def next(self, state, action): return not state
        def properties(self): return [sometimes("it is lit", lambda lit: lit)]

    explore(Lamp()).check()

A **model** says where things begin, what may happen, and what comes of it. Its **properties** are
named in words:

* `always`: holds after every step. If not, the shortest path there is shown.
* `sometimes`: holds after some step. A walk that never meets what it was made for proves nothing,
  and says so.
* `eventually`: *if nothing more goes wrong*, every way on leads to where it holds. Of all actions the
  model names those that are `prompt`: what happens by itself, when everything works and nobody loses
  patience. From every state that was reached, in whatever way, every run of prompt actions must come
  to a state in which the property holds: it must not get stuck before, and not go round in circles.

`always` and `sometimes` are asked after every *step*, also one that leads to a known state, because a
state may carry what has just happened to it (answers given, orders sent). For what is costly there is
`always(..., new_only=True)`: asked once in each state.

**Two states with one key are one state.** That is what makes the walk end, and what it stands on: a key
that leaves out what decides makes different states one, and what lies behind the other is never
seen. `distrust` looks for that: it takes the two ways to one key and compares what may happen next,
and where that leads.

The idea, and the words `always`, `sometimes`, `eventually`, are those of stateright (Rust), whose
properties of the third kind are, however, not checked on paths that join.
"""

from __future__ import annotations

import time
from array import array
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from enum import StrEnum
from itertools import islice, pairwise
from typing import Any, Generic, TypeAlias, TypeVar, overload

import msgspec

from remuda.specs.invariants import InvariantViolated
from remuda.specs.lifecycles import LifecycleMap, explore_lifecycle
from remuda.specs.liveness import first_lasting
from remuda.specs.properties import Kind, Model, Property, always, eventually, sometimes
from remuda.statemachines.lifecycle import Lifecycle

__all__ = [
    "Counterexample", "Exploration", "Kind", "Model", "Progress", "Property",
    "always", "eventually", "explore", "replay", "sometimes", "words",
]  # fmt: skip

S = TypeVar("S")
A = TypeVar("A", bound=Hashable)
L = TypeVar("L", bound=StrEnum)
T = TypeVar("T", bound=StrEnum)
Place: TypeAlias = tuple[int, A] | tuple[()]
"""Where something was seen: a state and the action taken there; or in an initial state."""


class Counterexample(msgspec.Struct, frozen=True):
    """A property that does not hold, and the shortest way to see it."""

    name: str
    """The property's, or that of what `next` raised; or "dishonest key"."""
    detail: str
    path: tuple[Any, ...]
    loop: tuple[Any, ...] = ()
    """What goes on for ever behind it, for something that never comes."""
    start: int = 0
    """Which of the initial states it begins in."""

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.detail}"]
        if self.start:
            lines.append(f"     beginning in initial state {self.start}")
        lines += [f"{number:3}. {words(action)}" for number, action in enumerate(self.path, start=1)]
        if self.loop:
            lines.append("     and then, over and over:")
            lines += [f"     - {words(action)}" for action in self.loop]
        return "\n".join(lines)


def words(action: object) -> str:
    """An action as it is printed."""
    return " ".join(map(str, action)) if isinstance(action, tuple) else str(action)


class Progress(msgspec.Struct, frozen=True):
    """How far a walk is."""

    states: int
    steps: int
    waiting: int
    """States that were found and not walked on from."""
    seconds: float


class Exploration(msgspec.Struct):
    """What was found.

    Attributes:
        states, steps: how many there are.
        depth: how many steps the farthest state is away.
        complete: whether every state that can be reached was.
        actions: how often each kind of action was taken.
        seen: for each `sometimes` that was, the way to it.
        missing: each `sometimes` that was not.
        counterexamples: what does not hold; of each name, the one with the shortest path.
        undecided: each `eventually` that could not be judged, because not every state is known.
        seconds: how long it took.
    """

    states: int
    steps: int
    depth: int
    complete: bool
    actions: Counter[str]
    seen: dict[str, tuple[Any, ...]]
    missing: list[str]
    counterexamples: list[Counterexample]
    undecided: list[str]
    seconds: float

    @property
    def ok(self) -> bool:
        """Every state was seen, and everything is true that was to be."""
        return self.complete and not self.counterexamples and not self.missing

    def check(self) -> Exploration:
        """Itself, if it is `ok`; else an AssertionError that shows why not."""
        if not self.ok:
            raise AssertionError(str(self))
        return self

    def __str__(self) -> str:
        whole = "all there are" if self.complete else "not all there are"
        lines = [f"{self.states:,} states ({whole}), {self.steps:,} steps, {self.depth} deep, {self.seconds:.1f} s"]
        lines += [str(one) for one in self.counterexamples]
        lines += [f"never seen: {name}" for name in self.missing]
        lines += [f"undecided: {name}" for name in self.undecided]
        return "\n".join(lines)


@overload
def explore(model: Lifecycle[L, T]) -> LifecycleMap[L, T]: ...


@overload
def explore(
    model: Model[S, A],
    *,
    max_states: int = 1_000_000,
    stop_at_first: bool = True,
    distrust: int = 0,
    compact: bool = False,
    keep: int = 50_000,
    progress: Callable[[Progress], None] | None = None,
) -> Exploration: ...


def explore(
    model: Model[S, A] | Lifecycle[Any, Any],
    *,
    max_states: int = 1_000_000,
    stop_at_first: bool = True,
    distrust: int = 0,
    compact: bool = False,
    keep: int = 50_000,
    progress: Callable[[Progress], None] | None = None,
) -> Exploration | LifecycleMap[Any, Any]:
    """Walk through all states of a model, or of a lifecycle.

    A lifecycle is small: it is walked through to the end, and the other arguments do not matter.

    Args:
        model: what is walked through.
        max_states: after this many it takes in no more, and says that it is not complete.
        stop_at_first: whether to stop at the first counterexample; else a step that violates
            something is not walked on from, and the others are.
        distrust: if not 0, every so many times that a known state is reached in another way, both
            ways are compared. That costs a walk through all their next states.
        compact: remember 64 bits of each key instead of the key. Of n states one is then taken for
            another with a chance of about n² / 2⁶⁵: below one in a million for five million.
        keep: how many states that wait to be walked on from are kept as they are; the others are
            made again, step by step from the beginning, when it is their turn.
        progress: called every 10 000 states.
    """
    if isinstance(model, Lifecycle):
        return explore_lifecycle(model)
    return _Walk(model, max_states, stop_at_first, distrust, compact, keep, progress).go()


def replay(model: Model[S, A], path: Sequence[A]) -> S:
    """The state at the end of a path from the first initial state."""
    state = next(iter(model.initial()))
    for action in path:
        state = model.advance(state, action)
    return state


class _Walk(Generic[S, A]):
    """One exploration under way. States are numbers, in the order in which they are found and walked on from."""

    def __init__(
        self,
        model: Model[S, A],
        max_states: int,
        stop_at_first: bool,
        distrust: int,
        compact: bool,
        keep: int,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.model, self.max_states, self.stop_at_first = model, max_states, stop_at_first
        self.distrust, self.compact, self.keep, self.progress = distrust, compact, keep, progress
        properties = model.properties()
        self.always = [p for p in properties if p.kind is Kind.ALWAYS and not p.new_only]
        self.when_new = [p for p in properties if p.kind is Kind.ALWAYS and p.new_only]
        self.eventually = [p for p in properties if p.kind is Kind.EVENTUALLY]
        self.unseen = [p for p in properties if p.kind is Kind.SOMETIMES]
        self.seen: dict[str, tuple[Any, ...]] = {}
        self.numbers: dict[Hashable, int] = {}
        self.source = array("l")  # of each state: the one before it, or ~n for the n-th initial one
        self.action: list[A | None] = []  # and what led from there to it
        self.holds = [bytearray() for _ in self.eventually]  # of each state: whether it does
        self.edges, self.ends = array("l"), array("l", [0])  # of each state: where prompt actions lead
        self.live: dict[int, S] = {}  # states that wait to be walked on from, as far as they are kept
        self.taken: Counter[str] = Counter()
        self.one: dict[A, A] = {}  # equal actions are one object
        self.found: dict[str, Counterexample] = {}
        self.complete = True
        self.again = 0
        self.began = time.perf_counter()

    def go(self) -> Exploration:
        self._begin()
        number = 0
        while number < len(self.action) and not (self.found and self.stop_at_first):
            self._walk_on_from(number)
            number += 1
            if self.progress is not None and not number % 10_000:
                self.progress(self._progress(number))
        states = len(self.action)
        self.complete = self.complete and number == states
        decided = self.complete and not self.found
        if decided:
            for p, holds in zip(self.eventually, self.holds, strict=True):
                self._judge(p, holds)
        return Exploration(
            states=states,
            steps=self.taken.total(),
            depth=len(self._path_to(states - 1)) if states else 0,
            complete=self.complete,
            actions=self.taken,
            seen=self.seen,
            missing=[p.name for p in self.unseen],
            counterexamples=list(self.found.values()),
            undecided=[] if decided else [p.name for p in self.eventually],
            seconds=time.perf_counter() - self.began,
        )

    def _begin(self) -> None:
        try:
            for start, state in enumerate(self.model.initial()):
                if self._look(state, self.always, ()):
                    self._number_of(state, ~start, None)
        except InvariantViolated as violation:
            self._report(violation.name, violation.detail, ())

    def _walk_on_from(self, number: int) -> None:
        model = self.model
        state = self.live.pop(number, None)
        if state is None:
            state = self._state_at(number)
        actions = model.actions(state)
        prompt = frozenset(model.prompt(state)) if self.eventually else frozenset()
        for place, action in enumerate(actions, start=1):
            self.taken[_kind(action)] += 1
            here = (number, action)
            try:
                after = model.advance(state, action) if place == len(actions) else model.next(state, action)
            except InvariantViolated as violation:
                self._report(violation.name, violation.detail, here)
                target = None
            else:
                target = self._number_of(after, *here) if self._look(after, self.always, here) else None
            if target is None:
                if self.found and self.stop_at_first:
                    return
            elif action in prompt:
                self.edges.append(target)
        self.ends.append(len(self.edges))

    def _look(self, state: S, properties: Iterable[Property[S]], here: Place[A]) -> bool:
        """Ask what is to be true here; False if something is not that has to be always."""
        for p in properties:
            try:
                if p.holds(state):
                    continue
                detail = "it does not hold"
            except InvariantViolated as violation:
                detail = violation.detail
            self._report(p.name, detail, here)
            return False
        if self.unseen:
            for p in [p for p in self.unseen if p.holds(state)]:
                self.seen[p.name] = self._path(here)
                self.unseen.remove(p)
        return True

    def _number_of(self, state: S, source: int, action: A | None) -> int | None:
        """The number of this state, which may be new; None if it is, and violates something or is one too many."""
        key = self.model.key(state)
        if self.compact:
            key = hash(key)
        number = self.numbers.get(key)
        if number is not None:
            self.again += 1
            if self.distrust and action is not None and not self.again % self.distrust:
                self._compare(number, source, action)
            return number
        if len(self.action) >= self.max_states:
            self.complete = False
            return None
        if not self._look(state, self.when_new, () if action is None else (source, action)):
            return None
        number = self.numbers[key] = len(self.action)
        self.source.append(source)
        self.action.append(None if action is None else self.one.setdefault(action, action))
        for p, holds in zip(self.eventually, self.holds, strict=True):
            holds.append(p.holds(state))
        if len(self.live) < self.keep:
            self.live[number] = state
        return number

    # ── Paths ───────────────────────────────────────────────────────────────────────────────────

    def _path_to(self, number: int) -> tuple[A, ...]:
        path: list[A] = []
        while (action := self.action[number]) is not None:
            path.append(action)
            number = self.source[number]
        return tuple(reversed(path))

    def _path(self, here: Place[A]) -> tuple[A, ...]:
        return (*self._path_to(here[0]), here[1]) if here else ()

    def _start_of(self, number: int) -> int:
        while (number := self.source[number]) >= 0:
            pass
        return ~number

    def _state_at(self, number: int) -> S:
        state = next(islice(self.model.initial(), self._start_of(number), None))
        for action in self._path_to(number):
            state = self.model.advance(state, action)
        return state

    def _report(self, name: str, detail: str, here: Place[A], start: int = 0) -> None:
        if name not in self.found:
            start = self._start_of(here[0]) if here else start
            self.found[name] = Counterexample(name, detail, self._path(here), start=start)

    def _progress(self, number: int) -> Progress:
        states = len(self.action)
        return Progress(states, self.taken.total(), states - number, time.perf_counter() - self.began)

    # ── Looking again ───────────────────────────────────────────────────────────────────────────

    def _compare(self, number: int, source: int, action: A) -> None:
        """Whether both ways to one key really have one future, as far as one step can show."""
        here = self._what_next(self.model.advance(self._state_at(source), action))
        there = self._what_next(self._state_at(number))
        if here != there:
            differing = sorted({kind for kind, *_ in (here - there) + (there - here)})
            known = ", ".join(map(words, self._path_to(number)))
            detail = f"this way and [{known}] have one key; what differs next: {', '.join(differing)}"
            self._report("dishonest key", detail, (source, action))

    def _what_next(self, state: S) -> Counter[tuple[str, bool, Hashable]]:
        """What may happen here, whether by itself, and where it leads.

        Names of what is interchangeable differ from way to way, so actions are told by their kind only.
        """
        model = self.model
        prompt = frozenset(model.prompt(state))
        comes: Counter[tuple[str, bool, Hashable]] = Counter()
        for action in model.actions(state):
            try:
                after: Hashable = model.key(model.next(state, action))
            except InvariantViolated as violation:
                after = violation.name
            comes[_kind(action), action in prompt, after] += 1
        return comes

    def _judge(self, p: Property[S], holds: bytearray) -> None:
        """Look for a run of prompt actions along which an `eventually` never comes."""
        states = first_lasting(self.edges, self.ends, holds)
        if states is None:
            return
        loop = tuple(self._action_between(here, there) for here, there in pairwise(states))
        detail = (
            "it may never come, because it can go round for ever" if loop else "it never comes: nothing more happens"
        )
        start = self._start_of(states[0])
        self.found[p.name] = Counterexample(p.name, detail, self._path_to(states[0]), loop, start)

    def _action_between(self, here: int, there: int) -> A:
        state = self._state_at(here)
        for action in self.model.prompt(state):
            key = self.model.key(self.model.next(state, action))
            if self.numbers.get(hash(key) if self.compact else key) == there:
                return action
        raise AssertionError(f"no action leads from state {here} to {there}: the key is dishonest")


def _kind(action: Any) -> str:
    """The kind of an action: its first word."""
    return str(action[0] if isinstance(action, tuple) else action)
