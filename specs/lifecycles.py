"""What a declaration says, looked at without running anything: its faults, and all the ways through it.

    assert not audit(DOOR, Door)      # nothing is misspelt, hidden, unreachable or a dead end
    print(explore_lifecycle(DOOR))    # every state, with the shortest way to it

Both take any `Lifecycle`, ours or a user's. A way is a list of moves. A *move* is one of the choices
that a trigger has in a state, with what the guards have to say for that choice to be the one taken:
the choice's own guards, and as much of the others' as keeps the choices before it from being taken.
A choice for which no guards could do that is *hidden*, and is no move.

Whether a real subject's guards can ever say so is not to be seen in a declaration. For that there is
the Hypothesis machine, in `remuda.specs.lifecycle_rules`, which finds its way by the same moves.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Generic, TypeVar

import msgspec
from transitions import Machine

from remuda.statemachines.audit import Fault, faults
from remuda.statemachines.lifecycle import Choice, Guard, Lifecycle

__all__ = [
    "Audit",
    "LifecycleMap",
    "Move",
    "audit",
    "choose",
    "explore_lifecycle",
    "family",
    "guards_of",
    "moves",
    "ways",
]

S = TypeVar("S", bound=StrEnum)
T = TypeVar("T", bound=StrEnum)


# ── Faults ──────────────────────────────────────────────────────────────────────────────────────


class Audit(tuple[Fault, ...]):
    """The faults of a declaration. Empty, and false, if there are none; printed, a line for each."""

    __slots__ = ()

    def __str__(self) -> str:
        return "\n".join(f"{fault.kind}: {fault}" for fault in self) or "no faults"

    def __repr__(self) -> str:
        return f"<{len(self)} fault{'s' * (len(self) != 1)}: {'; '.join(map(str, self))}>" if self else "<no faults>"


def audit(declaration: Lifecycle[S, T] | Machine, subject: type[object] | None = None) -> Audit:
    """Find what is wrong with a declaration. The kinds of faults are those of `FaultKind`.

    Args:
        declaration: a lifecycle, or a machine that is to become one.
        subject: the class of its subjects. With it, each guard has to be a read-only property there.

    Returns:
        All faults, in a fixed order. `assert not audit(DOOR, Door)`
    """
    return Audit(faults(declaration, subject))


# ── Moves ───────────────────────────────────────────────────────────────────────────────────────


class Move(msgspec.Struct, Generic[S, T], frozen=True):
    """One thing that can happen: a step, and what the guards have to say for it."""

    source: S
    trigger: T
    dest: S
    """The source again, for a step that stays."""
    guards: tuple[Guard, ...] = ()
    """By name. Guards that are not here do not matter."""

    def __str__(self) -> str:
        return f"{self.trigger} [{' and '.join(map(str, self.guards))}]" if self.guards else str(self.trigger)


def family(member: StrEnum) -> list[StrEnum]:
    """All members of the enum that `member` is of, also those that a declaration does not use."""
    return [*type(member)]


def guards_of(choices: Iterable[Choice[S]]) -> list[str]:
    """The names of all guards that some choices ask, sorted."""
    return sorted({guard.name for choice in choices for guard in choice.guards})


def choose(choices: Iterable[Choice[S]], facts: Mapping[str, object]) -> Choice[S] | None:
    """The first choice whose guards all agree, given what each guard says; None if all refuse."""
    for choice in choices:
        if all(facts[guard.name] == guard.expected for guard in choice.guards):
            return choice
    return None


def moves(lifecycle: Lifecycle[S, T]) -> list[Move[S, T]]:
    """Everything that can happen, in declared order; hidden choices cannot."""
    return [
        Move(source, trigger, choice.dest, guards)
        for source, row in lifecycle.table.items()
        for trigger, choices in row.items()
        for choice in choices
        if (guards := _opening(choices, choice)) is not None
    ]


def _opening(choices: tuple[Choice[S], ...], choice: Choice[S]) -> tuple[Guard, ...] | None:
    """What the guards have to say for `choice` to be taken, and no more than that; None: it never is."""
    names = guards_of(choices)
    found: list[dict[str, bool]] = []
    for facts in _combinations(names):
        if choose(choices, facts) is choice:
            needed = facts
            for name in names:  # leave out whatever may be either way
                less = {key: value for key, value in needed.items() if key != name}
                free = [key for key in names if key not in less]
                if all(choose(choices, less | more) is choice for more in _combinations(free)):
                    needed = less
            found.append(needed)
    shortest = min(found, key=len, default=None)
    return None if shortest is None else tuple(Guard(name, value) for name, value in shortest.items())


def _combinations(names: list[str]) -> Iterator[dict[str, bool]]:
    for values in itertools.product((True, False), repeat=len(names)):
        yield dict(zip(names, values, strict=True))


def ways(known: Iterable[Move[S, T]], start: S) -> dict[S, tuple[Move[S, T], ...]]:
    """The shortest way from `start` to each state that can be reached from it, itself included.

    Args:
        known: the moves there are. Of two ways of one length, the one that stands first wins.
        start: the state to start in.

    Returns:
        State → moves, the nearest states first. `start` has the empty way.
    """
    leaving: dict[S, list[Move[S, T]]] = {}
    for move in known:
        leaving.setdefault(move.source, []).append(move)
    found: dict[S, tuple[Move[S, T], ...]] = {start: ()}
    queue = deque([start])
    while queue:
        here = queue.popleft()
        for move in leaving.get(here, ()):
            if move.dest not in found:
                found[move.dest] = (*found[here], move)
                queue.append(move.dest)
    return found


# ── Exploration ─────────────────────────────────────────────────────────────────────────────────


class LifecycleMap(msgspec.Struct, Generic[S, T], frozen=True):
    """All states of a lifecycle, and how one gets there. Printed, it is a page to read.

    Attributes:
        name: the lifecycle's.
        ways: of each state that can be reached, the shortest way to it; the nearest states first.
        moves: everything that can happen in those states.
        unreachable: the other states, as declared.
        dead_ends: states that can be reached, that nothing leaves, and that are not final.
        traps: states that can be reached, and from which no final state can. Dead ends are among
            them. A lifecycle without final states has no others.
    """

    name: str
    ways: dict[S, tuple[Move[S, T], ...]]
    moves: tuple[Move[S, T], ...]
    unreachable: tuple[S, ...]
    dead_ends: tuple[S, ...]
    traps: tuple[S, ...]

    def __str__(self) -> str:
        everything = len(self.ways) + len(self.unreachable)
        lines = [f"{self.name}: {len(self.ways)} of {everything} states can be reached; {len(self.moves)} moves"]
        width = max(len(state) for state in self.ways)
        for state, way in self.ways.items():
            lines.append(f"  {state:<{width}}  {', '.join(map(str, way)) or '(it starts here)'}")
        for what, states in (
            ("never reached", self.unreachable),
            ("dead ends", self.dead_ends),
            ("no way to a final state", [state for state in self.traps if state not in self.dead_ends]),
        ):
            if states:
                lines.append(f"{what}: {', '.join(states)}")
        return "\n".join(lines)


def explore_lifecycle(lifecycle: Lifecycle[S, T]) -> LifecycleMap[S, T]:
    """Walk through all states, breadth first, from the initial one.

    Guards may say whatever they like: a state counts as reached if some outcome of them leads there.

    Returns:
        The states, the shortest way to each, and where one cannot get to or away from.
    """
    every = moves(lifecycle)
    reached = ways(every, lifecycle.initial)
    ends = set(lifecycle.final)
    while more := {move.source for move in every if move.dest in ends} - ends:
        ends |= more
    away = {move.source for move in every if move.dest is not move.source}
    dead_ends = tuple(s for s in lifecycle.states if s in reached and s not in away and s not in lifecycle.final)
    return LifecycleMap(
        name=lifecycle.name,
        ways=reached,
        moves=tuple(move for move in every if move.source in reached),
        unreachable=tuple(state for state in lifecycle.states if state not in reached),
        dead_ends=dead_ends,
        traps=tuple(s for s in lifecycle.states if s in reached and s not in ends) if lifecycle.final else dead_ends,
    )
