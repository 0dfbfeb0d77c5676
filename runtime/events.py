"""What a pool tells those who watch it.

An observer is anything that can be called with one event. It is called at once, in the pool's own
thread, between two steps of the pool; it must not wait, and whatever it raises is logged and counted
but harms nobody. Give observers to `open_pool(..., observers=[...])`.

An observer that also has a method `handled` is a *watcher*: it is shown every step of the pool's core,
with what went in and what came out. `remuda.specs.Monitor` is one; it asks the invariants.

Rare events (workers, templates, the pool, lines of stderr) are made always. `Transition` and `CallEnded`, of
which there are several for each call, are only made when there is an observer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, runtime_checkable

import msgspec

from remuda.statemachines import effects as fx
from remuda.statemachines import events as ev
from remuda.statemachines.core import Core
from remuda.statemachines.effects import Verdict
from remuda.statemachines.errors import WorkerDeath

__all__ = [
    "CallEnded",
    "Event",
    "InvariantBroken",
    "Observer",
    "PoolChanged",
    "TemplateChanged",
    "TemplateWrote",
    "Transition",
    "Watcher",
    "WorkerEnded",
    "WorkerReady",
    "WorkerWrote",
]


class PoolChanged(msgspec.Struct, frozen=True):
    """The pool is in another state."""

    pool: str
    source: str
    dest: str
    reason: str
    at: float
    """Monotonic seconds, of trio's clock; the same in every event."""


class WorkerReady(msgspec.Struct, frozen=True):
    """A worker has come up."""

    pool: str
    slot: int
    generation: int
    pid: int | None
    seconds: float
    """From the start of its process to the end of its setup."""
    at: float


class WorkerEnded(msgspec.Struct, frozen=True):
    """A worker's process is gone and reaped."""

    pool: str
    slot: int
    generation: int
    pid: int | None
    death: WorkerDeath
    on_purpose: bool
    """Whether the pool ended it."""
    at: float


class WorkerWrote(msgspec.Struct, frozen=True):
    """A worker wrote a line to stderr or stdout."""

    pool: str
    slot: int
    generation: int
    line: str
    at: float


class TemplateChanged(msgspec.Struct, frozen=True):
    """A template, from which workers are forked, is in another state."""

    pool: str
    number: int
    """Which template of the pool, from 1."""
    pid: int | None
    source: str
    dest: str
    reason: str
    at: float


class TemplateWrote(msgspec.Struct, frozen=True):
    """A template wrote a line to stderr or stdout, mostly while it imported."""

    pool: str
    number: int
    line: str
    at: float


class Transition(msgspec.Struct, frozen=True):
    """Something took a step of its lifecycle."""

    pool: str
    lifecycle: str
    """"worker", "slot", "pool", "breaker", "call" or "template"."""
    subject: str
    """Which one: "0.3" is generation 3 of slot 0; of templates, "2" is the second."""
    trigger: str
    source: str
    dest: str
    reason: str
    at: float


class CallEnded(msgspec.Struct, frozen=True):
    """A call, or a checkout, has its outcome."""

    pool: str
    call: int
    command: str
    verdict: Verdict
    seconds: float
    """From the moment it was made."""
    attempts: int
    """How often it began."""
    at: float


class InvariantBroken(msgspec.Struct, frozen=True):
    """A watcher saw that a rule does not hold: a bug in remuda, to be reported."""

    pool: str
    name: str
    """Which rule."""
    detail: str
    """What was seen, in words."""
    count: int
    """How often this rule has been seen broken in this pool, this time included."""
    at: float


Event = (
    PoolChanged
    | WorkerReady
    | WorkerEnded
    | WorkerWrote
    | TemplateChanged
    | TemplateWrote
    | Transition
    | CallEnded
    | InvariantBroken
)
Observer = Callable[[Event], object]


@runtime_checkable
class Watcher(Protocol):
    """An observer that is shown the core itself.

    It must only look. What it raises is logged and counted, like any observer's error.
    """

    def __call__(self, event: Event, /) -> object:
        """As any observer."""

    def handled(
        self, pool: str, core: Core, event: ev.Event, effects: Sequence[fx.Effect], now: float
    ) -> Iterable[Event]:
        """See one step of the core, before its effects are carried out.

        Args:
            pool: the name of the pool.
            core: the core, after the step.
            event, effects: what went in, and what is to be done.
            now: monotonic seconds.

        Returns:
            Events to be told to all observers.
        """
        ...
