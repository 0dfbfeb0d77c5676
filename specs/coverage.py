"""Which of the declared steps have been taken: a net that has never been somewhere has proven nothing there.

    coverage = Coverage(DOOR, unreached={(DoorState.OPEN, DoorTrigger.UNHINGE, DoorState.GONE): "no hinges here"})
    subject.observer = coverage.saw
    ...
    coverage.check()

A step is counted by where it came from, its trigger and where it led, so that each outcome of a guarded
choice counts for itself; with that, each pair of state and trigger is covered too. What is not taken has
to be on the list of what cannot be, with the reason, and what is on the list must not be taken: a list
that has become wrong is an error as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Generic, TypeAlias, TypeVar

from remuda.specs.engines import Law
from remuda.specs.invariants import InvariantViolated
from remuda.specs.lifecycles import explore_lifecycle
from remuda.statemachines.errors import ConfigError
from remuda.statemachines.lifecycle import Lifecycle, Step, Subject

__all__ = ["Coverage", "Taken"]

S = TypeVar("S", bound=StrEnum)
T = TypeVar("T", bound=StrEnum)

Taken: TypeAlias = tuple[S, T, S]
"""A step as it is counted: source, trigger, destination (the source again, if it stays)."""


class Coverage(Generic[S, T]):
    """The steps of one lifecycle, and how often each has been taken.

    Attributes:
        declared: all of them, as declared.
        unreached: those that cannot be taken, with the reason.
        seen: how often each was.
    """

    def __init__(self, lifecycle: Lifecycle[S, T], unreached: Mapping[Taken[S, T], str] | None = None) -> None:
        """Begin to count.

        Raises:
            ConfigError: `unreached` names a step that is not declared, or gives no reason.
        """
        self.lifecycle = lifecycle
        self.declared: dict[Taken[S, T], None] = {
            (source, trigger, choice.dest): None
            for source, row in lifecycle.table.items()
            for trigger, choices in row.items()
            for choice in choices
        }
        self.unreached = dict(unreached or {})
        self.seen: Counter[Taken[S, T]] = Counter()
        for step, reason in self.unreached.items():
            if step not in self.declared:
                raise ConfigError(f"unreached: {lifecycle.name} has no step {_words(step)}")
            if not reason.strip():
                raise ConfigError(f"unreached: {_words(step)} needs a reason why it cannot be taken")

    def saw(self, subject: Subject[Any], step: Step) -> None:
        """Count a step, if it is one of this lifecycle. Fit to be an observer."""
        taken: Any = step.source, step.trigger, step.dest
        if taken in self.declared and isinstance(subject.state, type(self.lifecycle.initial)):
            self.seen[taken] += 1

    @property
    def missing(self) -> list[Taken[S, T]]:
        """What was never taken and should have been, as declared."""
        return [step for step in self.declared if step not in self.seen and step not in self.unreached]

    def check(self) -> None:
        """Hold what was seen against what was declared.

        Raises:
            InvariantViolated: `every_step_is_taken`; the text lists what is missing, with the shortest
                way to it, and what was taken although it is on the list of what cannot be.
        """
        lines: list[str] = []
        if missing := self.missing:
            ways = explore_lifecycle(self.lifecycle).ways
            lines.append(f"{len(missing)} of {len(self.declared)} declared steps were never taken:")
            for step in missing:
                guards = sorted({str(g) for c in self.lifecycle.table[step[0]][step[1]] for g in c.guards})
                asks = f" (guarded: {', '.join(guards)})" if guards else ""
                way = ways.get(step[0])
                how = "nothing leads there" if way is None else ", ".join(map(str, way)) or "it starts there"
                lines.append(f"  {_words(step)}{asks}; to {step[0]}: {how}")
        if wrong := [step for step in self.unreached if step in self.seen]:
            lines.append("taken, although said to be out of reach:")
            lines += [f"  {_words(step)} ({self.unreached[step]})" for step in wrong]
        if lines:
            raise InvariantViolated(Law.EVERY_STEP_IS_TAKEN, f"{self.lifecycle.name}: " + "\n".join(lines))


def _words(step: tuple[object, ...]) -> str:
    source, trigger, dest = step
    return f"{source} --{trigger}--> {dest}"
