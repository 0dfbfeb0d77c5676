"""One subject of a lifecycle, watched from its beginning: what its steps say about it, and whether that is so.

A `Life` hears of every step, whoever takes it, by being the subject's observer. From the steps alone it
knows the state, `since`, the history; `check` holds the subject against that. So a subject whose state
somebody writes by hand, or whose clock runs backwards, is found out, wherever it was done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import Any, TypeAlias

from remuda.specs.engines import Law, ask, judge_step
from remuda.specs.invariants import InvariantViolated
from remuda.specs.lifecycles import choose, guards_of
from remuda.statemachines.lifecycle import Choice, Lifecycle, Step, Subject

__all__ = ["Life", "Saying"]

Saying: TypeAlias = Callable[[Any], "bool | str | None"]
"""An invariant: given the subject it says None or True if it holds, else False, or what is wrong."""


class Life:
    """Watches one subject.

    Attributes:
        subject: which.
        state: where it is, by the steps that it took.
    """

    def __init__(
        self, lifecycle: Lifecycle[Any, Any], subject: Subject[Any], saw: Callable[[Subject[Any], Step], None]
    ) -> None:
        """Begin to watch.

        Args:
            lifecycle: whose subject it is.
            subject: in whatever state. Its own observer, if it has one, goes on hearing of each step.
            saw: is told of each step that is declared.
        """
        self.lifecycle, self.subject, self.saw = lifecycle, subject, saw
        self.state = subject.state
        self._since = self._at = subject.since
        self._history = deque(subject.history, maxlen=subject.history.maxlen)
        self._errors = subject.observer_errors
        self._refused: set[StrEnum] = set()
        self._complaints: list[Exception] = []
        self._theirs = subject.observer
        subject.observer = self._observe

    def step(self, trigger: StrEnum, now: float, reason: str = "", *, observer_raises: bool = False) -> Step | None:
        """Take a step on both engines, as `judge_step` does."""
        taken = judge_step(self.lifecycle, self.subject, trigger, now, reason, observer_raises=observer_raises)
        self._errors += observer_raises and taken is not None
        return taken

    def choice(self, trigger: StrEnum) -> Choice[Any] | None:
        """What would come of a trigger now; None: it is illegal."""
        choices = self.lifecycle.table[self.subject.state].get(trigger, ())
        if choices and not choices[0].guards:
            return choices[0]
        where = f"{self.lifecycle.name}: {trigger} from {self.subject.state}"
        return choose(choices, ask(self.subject, guards_of(choices), where))

    def refuse(self, triggers: Sequence[StrEnum], now: float) -> None:
        """Try those of the triggers that are illegal here; once in each state."""
        here = self.subject.state
        if here not in self._refused:
            self._refused.add(here)
            for trigger in [trigger for trigger in triggers if self.choice(trigger) is None]:
                self.step(trigger, now, "illegal")

    def check(self, sayings: Iterable[Saying] = ()) -> None:
        """Judge what is there, whoever brought it about.

        Raises:
            InvariantViolated: a `Law` is broken, or an invariant does not hold; `name` says which.
            Exception: the observer that the subject came with raised it.
        """
        for complaint in self._complaints:
            raise complaint
        subject = self.subject
        found = subject.state, subject.since, [*subject.history], subject.observer_errors
        known = self.state, self._since, [*self._history], self._errors
        for what, is_, was in zip(("state", "since", "history", "observer_errors"), found, known, strict=True):
            if is_ != was:
                self._broken(Law.STATE_CHANGES_BY_STEPS_ONLY, f"{what} is {is_!r}; by its steps, {was!r}")
        for saying in sayings:
            said = saying(subject)
            if said is False or isinstance(said, str):
                name = getattr(saying, "__name__", repr(saying))
                self._broken(name, said or f"it does not hold for {subject!r}")

    def _broken(self, name: str, detail: str) -> None:
        raise InvariantViolated(name, f"{self.lifecycle.name} in {self.subject.state}: {detail}")

    def _observe(self, subject: Subject[Any], step: Step) -> None:
        """Note a step. What is wrong is kept for `check`: what an observer raises goes nowhere."""
        what = f"{self.lifecycle.name}: {step.source} --{step.trigger}--> {step.dest} at {step.at:g}"
        row: Any = self.lifecycle.table.get(step.source, {})
        if step.source != self.state or step.dest not in [choice.dest for choice in row.get(step.trigger, ())]:
            self._complaints.append(InvariantViolated(Law.STEPS_ARE_DECLARED, f"{what}, from {self.state}"))
        if step.at < self._at:
            text = f"{what} comes after a step at {self._at:g}"
            self._complaints.append(InvariantViolated(Law.TIME_ONLY_PASSES, text))
        self.saw(subject, step)
        if step.dest != self.state:
            self._since = step.at
        self.state, self._at = subject.state, step.at
        self._history.append(step)
        if self._theirs is not None:
            try:
                self._theirs(subject, step)
            except Exception as error:
                self._complaints.append(error)
