"""The life of a template, and which template workers are made from.

A template is one process that has imported what workers need, and makes them by forking itself. Like a
worker it is never reused: when it has ended, another takes its place.

    building ──▶ ready ──▶ retiring ──▶ ended
                   └─────▶ unfit

`building` is the time of the imports. `ready`, it forks when it is asked. It is `unfit` when a fork
would be unsafe (it has threads, an open database, a socket), which may show after the imports or at
any later fork. `retiring` begins when another takes over, or when it was given up; it forks no more, but
collects the workers it has, so it ends when the last of them has. Its process may end at any moment, and
its workers go on all the same.

`Succession` decides which one serves:

* There is one template at a time that is ready, and at most one that is building. A worker is forked
  from the one that is ready; if none is, but one is on its way, the worker waits for it (starting it
  any other way would import everything a second time). Otherwise it is spawned.
* A template that ends after it had made a worker is replaced at once. One that comes to nothing is
  replaced after a pause, which doubles, with full jitter; workers are spawned meanwhile. If another is on
  its way already, that is the replacement.
* An unfit template is not replaced: the next one would import the same. Workers are spawned from then on,
  until somebody asks for a reload.
* A reload builds a new one beside the old one, which serves until the new one is ready. If that comes to
  nothing, or is unfit, the old one goes on.

What does not fit the table: why it is unfit, and what its process says. These are in the reasons of the steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from transitions import Machine

from remuda.statemachines.lifecycle import Lifecycle, Step, Subject
from remuda.statemachines.policy import full_jitter

__all__ = ["CLOSING", "TEMPLATE", "StartFrom", "Succession", "Template", "TemplateState", "TemplateTrigger"]


class TemplateState(StrEnum):
    """Where a template is in its life."""

    BUILDING = "building"
    """Its process starts, and imports."""
    READY = "ready"
    """It forks when it is asked."""
    UNFIT = "unfit"
    """It must not fork."""
    RETIRING = "retiring"
    """It is not needed any more, but may have workers to collect."""
    ENDED = "ended"
    """Its process is gone and reaped."""


class TemplateTrigger(StrEnum):
    """What can happen to a template."""

    PREPARED = "prepared"
    """Everything is imported."""
    FORK = "fork"
    """It has made a worker."""
    REFUSE = "refuse"
    """It has found that it must not fork."""
    FAIL = "fail"
    """An import raised, or took too long."""
    RETIRE = "retire"
    """Another takes over, or the pool closes."""
    EXITED = "exited"
    """The process is gone and reaped."""


S, T = TemplateState, TemplateTrigger

# fmt: off
_STEPS: list[list[str | None]] = [
    # trigger      from          to
    [T.PREPARED,   S.BUILDING,   S.READY],
    [T.REFUSE,     S.BUILDING,   S.UNFIT],
    [T.FAIL,       S.BUILDING,   S.RETIRING],
    [T.RETIRE,     S.BUILDING,   S.RETIRING],
    [T.EXITED,     S.BUILDING,   S.ENDED],

    [T.FORK,       S.READY,      None],
    [T.REFUSE,     S.READY,      S.UNFIT],
    [T.RETIRE,     S.READY,      S.RETIRING],
    [T.EXITED,     S.READY,      S.ENDED],

    [T.FORK,       S.UNFIT,      None],         # two were asked for, the second was refused first
    [T.REFUSE,     S.UNFIT,      None],
    [T.RETIRE,     S.UNFIT,      S.RETIRING],
    [T.EXITED,     S.UNFIT,      S.ENDED],

    # Too late to matter, not too late to arrive.
    [T.PREPARED,   S.RETIRING,   None],
    [T.FORK,       S.RETIRING,   None],
    [T.REFUSE,     S.RETIRING,   None],
    [T.FAIL,       S.RETIRING,   None],
    [T.RETIRE,     S.RETIRING,   None],
    [T.EXITED,     S.RETIRING,   S.ENDED],

    # ended: nothing leaves it.
]
# fmt: on

CLOSING = "the pool closes"
"""The reason for which templates retire in the end."""

_BASE, _CAP = 1.0, 60.0
"""Seconds of the pauses between templates that come to nothing: the first, at most, and the longest."""

TEMPLATE: Lifecycle[TemplateState, TemplateTrigger] = Lifecycle(
    "template",
    Machine(
        model=None,
        states=[*(s for s in S if s is not S.ENDED), {"name": S.ENDED, "final": True}],
        initial=S.BUILDING,
        transitions=_STEPS,
        auto_transitions=False,
    ),
)


class Template(Subject[TemplateState]):
    """One template process.

    Attributes:
        number: which one of its pool, from 1.
        made: workers it has forked.
    """

    __slots__ = ("made", "number")

    def __init__(
        self,
        number: int,
        *,
        now: float,
        history: int = 16,
        observer: Callable[[Subject[Any], Step], None] | None = None,
    ) -> None:
        super().__init__(TEMPLATE, now=now, history=history, observer=observer)
        self.number = number
        self.made = 0

    def __repr__(self) -> str:
        return f"<template {self.number} {self.state}>"


class StartFrom(StrEnum):
    """How a worker that is wanted now comes to be."""

    FORK = "fork"
    """From `Succession.current`."""
    WAIT = "wait"
    """A template is on its way; ask again when something has changed."""
    SPAWN = "spawn"
    """As a fresh interpreter."""


class Succession:
    """Which template serves, and when the next one is built.

    Args:
        now: monotonic seconds; the first template is due then.
        observer: is told every step of every template.

    Attributes:
        current: the template that is ready, if one is.
        coming: the template that is building, if one is.
        retiring: templates that are not needed any more and have not ended.
        due: when to `begin` the next one: monotonic seconds, or infinity.
    """

    __slots__ = ("_attempts", "_closed", "_number", "_observer", "_refusal", "coming", "current", "due", "retiring")

    def __init__(self, now: float, observer: Callable[[Subject[Any], Step], None] | None = None) -> None:
        self._observer = observer
        self._number = 0
        self._attempts = 0
        self._closed = False
        self.current: Template | None = None
        self.coming: Template | None = None
        self.retiring: list[Template] = []
        self.due = now
        self._refusal = ""

    @property
    def unfit(self) -> str:
        """Why workers are spawned for good; "" as long as there is a template, or will be one."""
        hopeless = self.current is None and self.coming is None and self.due == math.inf
        return self._refusal if hopeless else ""

    def start_from(self, now: float) -> StartFrom:
        """How to make a worker now."""
        if self.current is not None:
            return StartFrom.FORK
        if self.coming is not None or self.due <= now:
            return StartFrom.WAIT
        return StartFrom.SPAWN

    def begin(self, now: float) -> Template:
        """Build the next one. Only when it is due, and none is building."""
        self._number += 1
        self.due = math.inf
        self.coming = Template(self._number, now=now, observer=self._observer)
        return self.coming

    def prepared(self, template: Template, now: float) -> None:
        """It has imported everything: it serves from now on."""
        TEMPLATE.step(template, T.PREPARED, now)
        if template is self.coming:
            self.coming = None
            if self.current is not None:
                self._retire(self.current, "another takes over", now)
            self.current = template
            self._refusal = ""

    def forked(self, template: Template, now: float) -> None:
        """It has made a worker."""
        TEMPLATE.step(template, T.FORK, now)
        template.made += 1
        self._attempts = 0

    def refused(self, template: Template, reason: str, now: float) -> None:
        """It must not fork: it has said so itself."""
        TEMPLATE.step(template, T.REFUSE, now, reason)
        if template in (self.current, self.coming):
            self._drop(template)
            self._refusal = reason
            self._retire(template, "it must not fork", now)

    def failed(self, template: Template, cause: str, draw: float, now: float) -> None:
        """An import raised, or took too long."""
        TEMPLATE.step(template, T.FAIL, now, cause)
        if template is self.coming:
            self.coming = None
            self.retiring.append(template)
            self._again(draw, now)

    def exited(self, template: Template, cause: str, draw: float, now: float) -> None:
        """Its process is gone."""
        wanted = template in (self.current, self.coming)
        TEMPLATE.step(template, T.EXITED, now, cause)
        self._drop(template)
        if not wanted or self.coming is not None:
            return
        if template.made:
            self.due = now
        else:
            self._again(draw, now)

    def reload(self, now: float) -> None:
        """Build a new one, beside the one that serves."""
        if not self._closed:
            self.due = min(self.due, now)

    def close(self, now: float) -> None:
        """Build no more; retire what there is."""
        self._closed = True
        self.due = math.inf
        for template in (self.current, self.coming):
            if template is not None:
                self._drop(template)
                self._retire(template, CLOSING, now)

    def _again(self, draw: float, now: float) -> None:
        self._attempts += 1
        self.due = min(self.due, now + full_jitter(self._attempts, _BASE, _CAP, draw))

    def _retire(self, template: Template, reason: str, now: float) -> None:
        TEMPLATE.step(template, T.RETIRE, now, reason)
        self.retiring.append(template)

    def _drop(self, template: Template) -> None:
        if template is self.current:
            self.current = None
        elif template is self.coming:
            self.coming = None
        elif template in self.retiring:
            self.retiring.remove(template)
