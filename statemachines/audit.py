"""Faults in a declaration that `transitions` accepts without a word.

The engine looks at a step when it is taken, so a misspelt state, a guard that nobody defined or a
choice that can never be reached goes unnoticed until production takes that step. The audit looks at
the declaration instead:

    faults(DOOR, Door)     # → [] or a list of Fault, in a fixed order

Each kind of fault is a `FaultKind`, with what is wrong about it. Two of them need the class of the
subjects, which is where guards are defined; without it they are not looked for.

It reads a `Lifecycle`, or a bare `Machine` that `Lifecycle` has refused, to see everything at once.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import TypeVar

import msgspec
from transitions import Machine, Transition

from remuda.statemachines.lifecycle import Lifecycle, misfits, unknown_names

__all__ = ["Fault", "FaultKind", "faults"]

S = TypeVar("S", bound=StrEnum)
T = TypeVar("T", bound=StrEnum)


class FaultKind(StrEnum):
    """What can be wrong with a declaration."""

    NOT_COMPILABLE = "not_compilable"
    """It breaks a rule of the kit; `Lifecycle` refuses it."""
    UNKNOWN_SOURCE = "unknown_source"
    """A step leaves a state that does not exist."""
    UNKNOWN_DESTINATION = "unknown_destination"
    """A step leads to a state that does not exist."""
    UNDECLARED_STATE = "undeclared_state"
    """The enum has a state that the machine does not."""
    UNUSED_TRIGGER = "unused_trigger"
    """The enum has a trigger that no state answers to."""
    LEAVES_FINAL = "leaves_final"
    """A step leaves a final state. `final=True` is a claim; nothing enforces it."""
    HIDDEN_CHOICE = "hidden_choice"
    """A choice without guards, or with the same ones, comes before it: it is never taken."""
    PARTIAL = "partial"
    """All choices have guards, so all may refuse, and an event that was foreseen is illegal."""
    UNREACHABLE = "unreachable"
    """No steps lead to the state from the initial one."""
    DEAD_END = "dead_end"
    """No step leads out of the state, and it is not final."""
    UNKNOWN_GUARD = "unknown_guard"
    """The subject has no such attribute."""
    GUARD_NOT_PROPERTY = "guard_not_property"
    """The subject has it, but not as a property: a method's arguments cannot be given, and a plain
    attribute is a fact that somebody has to remember to update."""


class Fault(msgspec.Struct, frozen=True):
    """One fault, and where it is."""

    kind: FaultKind
    text: str
    """What is wrong, for people."""
    state: str | None = None
    """The state it is about: for a step, its source."""
    trigger: str | None = None
    """The trigger it is about."""

    def __str__(self) -> str:
        return self.text


def faults(declaration: Lifecycle[S, T] | Machine, subject: type[object] | None = None) -> list[Fault]:
    """List what is wrong with a declaration.

    Args:
        declaration: a lifecycle, or a machine that is to become one.
        subject: the class of its subjects, where the guards are defined. Without it, whether they
            exist is not looked at.

    Returns:
        The faults: by kind, in the order of `FaultKind`, then as declared. [] if there are none.
    """
    machine = declaration.machine if isinstance(declaration, Lifecycle) else declaration
    found = [
        *(Fault(FaultKind.NOT_COMPILABLE, text) for text in misfits(machine)),
        *_unknown(machine),
        *_unused(machine),
        *_steps(machine),
        *_paths(machine),
        *(_guards(machine, subject) if subject is not None else ()),
    ]
    order = [*FaultKind]
    return sorted(found, key=lambda fault: order.index(fault.kind))


def _unknown(machine: Machine) -> Iterator[Fault]:
    for name in unknown_names(machine):
        kind = FaultKind.UNKNOWN_SOURCE if name.dest is None else FaultKind.UNKNOWN_DESTINATION
        yield Fault(kind, str(name), _word(machine, name.source), str(name.trigger))


def _unused(machine: Machine) -> Iterator[Fault]:
    states = [state.value for state in machine.states.values()]
    for member in _enum_of(states):
        if member not in states:
            yield Fault(FaultKind.UNDECLARED_STATE, f"{member} is a state that is not declared", state=str(member))
    for member in _enum_of(machine.events):
        if member not in machine.events:
            yield Fault(FaultKind.UNUSED_TRIGGER, f"{member} is a trigger of no state", trigger=str(member))


def _enum_of(names: Iterable[object]) -> list[StrEnum]:
    kind = next((type(name) for name in names if isinstance(name, StrEnum)), None)
    return [*kind] if kind is not None else []


def _steps(machine: Machine) -> Iterator[Fault]:
    for trigger, event in machine.events.items():
        for source, choices in event.transitions.items():
            at = _word(machine, source)
            if source in machine.states and machine.states[source].final:
                yield Fault(FaultKind.LEAVES_FINAL, f"{trigger} leaves the final state {at}", at, str(trigger))
            taken, refused = _outcomes(choices)
            for position, choice in enumerate(choices):
                if position not in taken:
                    to = _word(machine, choice.dest or source)
                    text = f"{trigger} from {at}: choice {position + 1}, to {to}, is never taken"
                    yield Fault(FaultKind.HIDDEN_CHOICE, text, at, str(trigger))
            if refused is not None:
                text = f"{trigger} from {at} is refused when {refused}"
                yield Fault(FaultKind.PARTIAL, text, at, str(trigger))


def _outcomes(choices: list[Transition]) -> tuple[set[int], str | None]:
    """Try every combination of guard values.

    Returns:
        The positions of the choices that some combination takes, and the first combination, in
        words, that takes none.
    """
    names = sorted({str(c.func) for choice in choices for c in choice.conditions})
    taken: set[int] = set()
    refused: str | None = None
    for values in itertools.product((False, True), repeat=len(names)):
        facts = dict(zip(names, values, strict=True))
        for position, choice in enumerate(choices):
            if all(facts[str(c.func)] == c.target for c in choice.conditions):
                taken.add(position)
                break
        else:
            refused = refused or " and ".join(n if v else f"not {n}" for n, v in facts.items())
    return taken, refused


def _paths(machine: Machine) -> Iterator[Fault]:
    leads: dict[str, set[str]] = {state: set() for state in machine.states}
    for event in machine.events.values():
        for source, choices in event.transitions.items():
            taken, _ = _outcomes(choices)
            for position, choice in enumerate(choices):
                if position in taken and source in leads and (choice.dest or source) in leads:
                    leads[source].add(choice.dest or source)
    reached: set[str] = set()
    todo = [str(machine.initial)]
    while todo:
        state = todo.pop()
        if state not in reached:
            reached.add(state)
            todo += leads.get(state, ())
    for name, declared in machine.states.items():
        at = _word(machine, name)
        if name not in reached:
            yield Fault(FaultKind.UNREACHABLE, f"{at} is never reached", at)
        if not declared.final and leads[name] <= {name}:
            yield Fault(FaultKind.DEAD_END, f"{at} is a dead end, and not final", at)


def _guards(machine: Machine, subject: type[object]) -> Iterator[Fault]:
    seen: set[str] = set()
    for trigger, event in machine.events.items():
        for source, choices in event.transitions.items():
            for name in (c.func for choice in choices for c in choice.conditions):
                if not isinstance(name, str) or name in seen:
                    continue
                seen.add(name)
                where = f"the guard {name} (of {trigger} from {_word(machine, source)})"
                try:
                    found: object = inspect.getattr_static(subject, name)
                except AttributeError:
                    text = f"{where} is not defined by {subject.__name__}"
                    yield Fault(FaultKind.UNKNOWN_GUARD, text, _word(machine, source), str(trigger))
                    continue
                if not isinstance(found, property) or found.fset is not None:
                    text = f"{where} is not a read-only property of {subject.__name__}"
                    yield Fault(FaultKind.GUARD_NOT_PROPERTY, text, _word(machine, source), str(trigger))


def _word(machine: Machine, name: str) -> str:
    """The word for a state that the engine knows by the name of its enum member."""
    return str(machine.states[name].value) if name in machine.states else name
