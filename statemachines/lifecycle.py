"""A lifecycle: what may happen to one kind of thing, declared once.

A worker, a pool, a call: each is in one *state* at a time, and leaves it by a *step*, which a
*trigger* asks for. Which step a trigger takes from which state is written down in one place, as a
stock `transitions.Machine`:

    DOOR: Lifecycle[DoorState, DoorTrigger] = Lifecycle("door", Machine(
        model=None, auto_transitions=False,
        states=[*DoorState], initial=DoorState.SHUT,
        transitions=[
            [DoorTrigger.OPEN,  DoorState.SHUT, None, "locked"],       # it stays
            [DoorTrigger.OPEN,  DoorState.SHUT, DoorState.OPEN],
            [DoorTrigger.CLOSE, DoorState.OPEN, DoorState.SHUT],
        ],
    ))

The declaration is shared: one machine serves every door there is. What is a door's own (its
state, since when, what happened to it) is a `Subject`, and guards such as `locked` are its
properties. The declaration never holds a reference to any of them.

Theory of operation
-------------------

The stock engine takes about 15 µs for a step, and three times that when the application logs at
INFO; a call takes four steps or more. So the declaration is read once, when its module is
imported, into a table: state, then trigger, then the choices. `Lifecycle.step` looks the step up
in the table. `Lifecycle.step_stock` asks the machine. Both mean the same, for every state, trigger
and outcome of the guards, and tests prove it for every lifecycle we ship. There is no second
description of what may happen: the tables in the docs, the diagrams, the audit and the specs all
read the declaration.

The rules, for our lifecycles and for yours:

* States and triggers are members of one `StrEnum` each, so that they print, compare and serialize
  as the words they stand for.
* A guard is the name of a read-only property of the subject that returns a bool. No arguments, no
  effects. `conditions` want it true, `unless` wants it false; the first choice whose guards all
  agree is taken, in the order written.
* No callbacks. What has to be done because of a step is decided by whoever asked for it. A callback
  would run half-way through a step, and its exception would leave the question of which half.
* Sources are written out, never "*", which would also leave the final states.
* A step that is not declared, or whose guards all refuse, raises `IllegalTransition` and changes
  nothing. What may arrive late is therefore declared: as a step that *stays* (`dest` is None, or
  the source again). It is recorded like any other, and `since` stays as it was.

A machine that breaks these rules, or names a state it does not have, is refused with a
`ConfigError` when the lifecycle is made, because the table could not mean the same as the machine.
Faults that only make a declaration wrong (a state nobody can reach, a choice that hides another)
are for `remuda.statemachines.audit`, which lists them all.

Time is an argument (monotonic, in seconds), as everywhere in this room.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Generic, TypeVar, cast

import msgspec
from transitions import Machine, MachineError

from remuda.statemachines.errors import ConfigError, IllegalTransition

__all__ = ["Choice", "Guard", "Lifecycle", "Step", "Subject", "misfits", "unknown_names"]

S = TypeVar("S", bound=StrEnum)
S_co = TypeVar("S_co", bound=StrEnum, covariant=True)
T = TypeVar("T", bound=StrEnum)

_log = logging.getLogger("remuda.statemachines")


class Step(msgspec.Struct, frozen=True, gc=False):
    """One step that was taken."""

    trigger: str
    source: str
    dest: str
    """The state after it; the source again for a step that stays."""
    at: float
    """Seconds on the monotonic clock of whoever asked for the step."""
    reason: str
    """Why, in words for people; "" if nothing was said."""


class Guard(msgspec.Struct, frozen=True):
    """A property of the subject, and what it has to be for the step to be taken."""

    name: str
    expected: bool

    def __str__(self) -> str:
        return self.name if self.expected else f"not {self.name}"


class Choice(msgspec.Struct, Generic[S], frozen=True):
    """One of the ways a trigger may go from a state."""

    dest: S
    """The state it leads to; the source itself for a step that stays."""
    guards: tuple[Guard, ...]
    """All of them must agree. None at all: the choice is always open."""


NONE: deque[Step] = deque(maxlen=0)
"""The history of everything that keeps none."""


class Subject(Generic[S_co]):
    """Base class of anything that has a lifecycle. Subclasses add the guards, as properties.

    Written `class Worker(Subject[WorkerState])`, it can be stepped by `WORKER` and by no other. To
    its users it is read-only, so one observer of `Subject[StrEnum]` will do for all kinds.

    Attributes:
        state: the state it is in. Only `Lifecycle.step` writes it.
        since: when it entered that state, in seconds; steps that stay leave it alone.
        history: the last steps, oldest first.
        observer: called with the subject and the step after every step, when the new state is
            already visible. It must not take a step itself. If it raises, the error is logged
            under `remuda.statemachines` and counted; the step stands.
        observer_errors: how often it raised.
    """

    __slots__ = ("history", "observer", "observer_errors", "since", "state")

    def __init__(
        self,
        lifecycle: Lifecycle[S_co, T],
        *,
        now: float = 0.0,
        history: int = 16,
        observer: Callable[[Subject[S_co], Step], None] | None = None,
    ) -> None:
        """Start in the initial state of `lifecycle`.

        Args:
            lifecycle: whose initial state it starts in. It is not kept.
            now: the time, in seconds, from which `since` counts.
            history: how many steps to keep, 0 or more; 0 keeps none.
            observer: see the class.
        """
        self.state: S_co = lifecycle.initial
        self.since = now
        self.history: deque[Step] = deque(maxlen=history) if history else NONE
        self.observer = observer
        self.observer_errors = 0


class Lifecycle(Generic[S, T]):
    """A declaration and the table compiled from it.

    Attributes:
        name: what errors and diagrams call it.
        machine: the declaration itself. Not to be changed any more.
        states: every state, in declared order.
        triggers: every trigger that some state answers to, in the order of their enum.
        initial: where subjects start.
        final: the states that nothing leaves, declared with `final=True`.
        table: state → trigger → the choices, in the order they are tried. A state without steps
            has an empty row.
    """

    __slots__ = ("_direct", "final", "initial", "machine", "name", "states", "table", "triggers")

    def __init__(self, name: str, machine: Machine) -> None:
        """Compile `machine`.

        Args:
            name: a word for errors, logs and diagrams.
            machine: the declaration, by the rules at the top of this module.

        Raises:
            ConfigError: the machine breaks those rules; the text lists every place where it does.
        """
        if complaints := [*misfits(machine), *unknown_names(machine)]:
            raise ConfigError(
                f"lifecycle {name!r} cannot be compiled: {'; '.join(map(str, complaints))}. "
                "The rules are in the documentation of remuda.statemachines.lifecycle"
            )
        self.name = name
        self.machine = machine
        # The casts are sound: misfits() has looked at every name.
        named = {key: cast(S, state.value) for key, state in machine.states.items()}
        self.states: tuple[S, ...] = tuple(named.values())
        self.initial: S = named[str(machine.initial)]
        self.final: frozenset[S] = frozenset(named[key] for key, s in machine.states.items() if s.final)
        self.triggers: tuple[T, ...] = tuple(
            trigger for trigger in type(cast(T, next(iter(machine.events)))) if trigger in machine.events
        )
        self.table: dict[S, dict[T, tuple[Choice[S], ...]]] = {state: {} for state in self.states}
        for trigger in self.triggers:
            # events[…].transitions is a defaultdict: indexing it would declare the missing step.
            for source, transitions in machine.events[trigger].transitions.items():
                self.table[named[source]][trigger] = tuple(
                    Choice(
                        dest=named[source if one.dest is None else one.dest],
                        guards=tuple(Guard(cast(str, c.func), c.target) for c in one.conditions),
                    )
                    for one in transitions
                )
        # Most steps have nothing to choose. For those, two lookups give the destination.
        self._direct: dict[S, dict[T, S]] = {
            state: {t: choices[0].dest for t, choices in row.items() if not choices[0].guards}
            for state, row in self.table.items()
        }

    def step(self, subject: Subject[S], trigger: T, now: float, reason: str = "") -> S:
        """Take the step that `trigger` asks for.

        Args:
            subject: what it happens to.
            trigger: what happens.
            now: when, in seconds, monotonic.
            reason: why, in words; kept in the history and shown to the observer.

        Returns:
            The state it is in now.

        Raises:
            IllegalTransition: no such step is declared, or its guards all refuse. Nothing changed.
        """
        source = subject.state
        try:
            dest = self._direct[source].get(trigger)
        except KeyError:
            raise IllegalTransition(self.name, str(source), str(trigger)) from None
        if dest is None:
            dest = self._choose(subject, source, trigger)
        if dest is not source:
            subject.state = dest
            subject.since = now
        if subject.history is NONE and subject.observer is None:
            return dest  # nobody will ever ask
        taken = Step(trigger, source, dest, now, reason)
        subject.history.append(taken)
        if subject.observer is not None:
            _tell(subject.observer, subject, taken)
        return dest

    def step_stock(self, subject: Subject[S], trigger: T, now: float, reason: str = "") -> S:
        """Take the same step through the engine of `transitions`, about forty times slower.

        For the specs, which hold the two against each other. Arguments, result and errors are
        those of `step`.
        """
        source = subject.state
        if source not in self.table or trigger not in self.machine.events:
            raise IllegalTransition(self.name, str(source), str(trigger))
        try:
            taken = self.machine.events[trigger].trigger(subject)
        except MachineError:
            raise IllegalTransition(self.name, str(source), str(trigger)) from None
        if not taken:  # every guard refused, which the stock engine does not call an error
            raise IllegalTransition(self.name, str(source), str(trigger))
        if subject.state is not source:
            subject.since = now
        step = Step(trigger, source, subject.state, now, reason)
        subject.history.append(step)
        if subject.observer is not None:
            _tell(subject.observer, subject, step)
        return subject.state

    def allows(self, state: S, trigger: T) -> bool:
        """Whether a step is declared for `trigger` in `state`, whatever its guards may say."""
        return trigger in self.table[state]

    @property
    def guards(self) -> tuple[str, ...]:
        """The names of all the guards, sorted. A subject needs a property for each."""
        return tuple(
            sorted({g.name for row in self.table.values() for cs in row.values() for c in cs for g in c.guards})
        )

    def __repr__(self) -> str:
        return f"<Lifecycle {self.name}: {len(self.states)} states, {len(self.triggers)} triggers>"

    def _choose(self, subject: Subject[S], source: S, trigger: T) -> S:
        for choice in self.table[source].get(trigger, ()):
            for guard in choice.guards:
                # == and not truth, as the stock engine compares: a guard returns a bool.
                if getattr(subject, guard.name) != guard.expected:
                    break
            else:
                return choice.dest
        raise IllegalTransition(self.name, str(source), str(trigger))


def _tell(observer: Callable[[Subject[S], Step], None], subject: Subject[S], step: Step) -> None:
    try:
        observer(subject, step)
    except Exception:
        subject.observer_errors += 1
        _log.exception(
            "an observer of %s failed at the step %s: %s -> %s; the step stands",
            type(subject).__name__, step.trigger, step.source, step.dest,
        )  # fmt: skip


# ── What cannot be compiled ─────────────────────────────────────────────────────────────────────


def misfits(machine: Machine) -> Iterator[str]:
    """Say where a machine uses what the table cannot express, or what the rules above forbid."""
    if type(machine) is not Machine:
        yield f"it is a {type(machine).__name__}, not a stock transitions.Machine"
        return
    if machine.models:
        yield "it has a model (declare it with model=None)"
    if machine.has_queue:
        yield "it is queued (one queue would serve every subject)"
    if machine.auto_transitions:
        yield "it adds a step to every state from everywhere (declare it with auto_transitions=False)"
    if machine.ignore_invalid_triggers or any(s.ignore_invalid_triggers for s in machine.states.values()):
        yield "it ignores invalid triggers (declare a step that stays where one may come late)"
    if machine.model_attribute != "state":
        yield f"it keeps the state in {machine.model_attribute!r} (it has to be 'state')"
    if not machine.events:
        yield "it declares no step"
    yield from _not_of_one_enum("state", [state.value for state in machine.states.values()])
    yield from _not_of_one_enum("trigger", [*machine.events])
    every = machine.prepare_event, machine.before_state_change, machine.after_state_change
    if any((*every, machine.finalize_event, machine.on_exception, machine.on_final)):
        yield "the machine has callbacks"
    for name, state in machine.states.items():
        if state.on_enter or state.on_exit:
            yield f"state {name} has callbacks"
    for trigger, event in machine.events.items():
        for source, choices in event.transitions.items():
            if any(one.prepare or one.before or one.after for one in choices):
                yield f"{trigger} from {source} has callbacks"
            if any(not isinstance(c.func, str) for one in choices for c in one.conditions):
                yield f"{trigger} from {source} has a guard that is not the name of a property"


def _not_of_one_enum(role: str, names: list[object]) -> Iterator[str]:
    kinds = {type(name) for name in names}
    for name in names:
        if not isinstance(name, StrEnum):
            yield f"{role} {name!r} is not a member of a StrEnum"
            kinds.discard(type(name))
    if len(kinds) > 1:
        yield f"its {role}s come from several enums: {', '.join(sorted(k.__name__ for k in kinds))}"


class UnknownName(msgspec.Struct, frozen=True):
    """A step whose source or destination is not one of the machine's states."""

    trigger: str
    source: str
    dest: str | None
    """The unknown destination, or None if it is the source that is unknown."""

    def __str__(self) -> str:
        if self.dest is None:
            return f"{self.trigger} has the unknown source {self.source}"
        return f"{self.trigger} from {self.source} has the unknown destination {self.dest}"


def unknown_names(machine: Machine) -> Iterator[UnknownName]:
    """Find the states that steps name and that do not exist; `transitions` finds out when it fires."""
    for trigger, event in machine.events.items():
        for source, choices in event.transitions.items():
            if source not in machine.states:
                yield UnknownName(trigger, source, None)
            for one in choices:
                if one.dest is not None and one.dest not in machine.states:
                    yield UnknownName(trigger, source, one.dest)
