"""What can be explored, and what is to be true of it: a model and its properties.

A model is a few plain methods; a property is a sentence and a function that says whether it holds.
What they mean together is told in `remuda.specs.explorer`, which walks through them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from enum import StrEnum
from typing import Generic, TypeVar, cast

import msgspec

__all__ = ["Kind", "Model", "Property", "always", "eventually", "sometimes"]

S = TypeVar("S")
A = TypeVar("A", bound=Hashable)


class Kind(StrEnum):
    ALWAYS = "always"
    SOMETIMES = "sometimes"
    EVENTUALLY = "eventually"


class Property(msgspec.Struct, Generic[S], frozen=True):
    """Something that is to be true; made by `always`, `sometimes` and `eventually`."""

    kind: Kind
    name: str
    holds: Callable[[S], bool]
    new_only: bool = False


def always(name: str, holds: Callable[[S], bool], *, new_only: bool = False) -> Property[S]:
    """It holds after every step.

    Args:
        name: what it says, in words.
        holds: whether it does. It may also raise `InvariantViolated`, to say what is wrong.
        new_only: ask only once in each state. For what is costly and does not depend on the way.
    """
    return Property(Kind.ALWAYS, name, holds, new_only)


def sometimes(name: str, holds: Callable[[S], bool]) -> Property[S]:
    """There is a step after which it holds."""
    return Property(Kind.SOMETIMES, name, holds)


def eventually(name: str, holds: Callable[[S], bool]) -> Property[S]:
    """From everywhere, every run of prompt actions comes to where it holds."""
    return Property(Kind.EVENTUALLY, name, holds)


class Model(Generic[S, A]):
    """What can be explored. `initial`, `actions` and `next` have to be given; the rest has defaults.

    An action is hashable and says in words what happens: a word, or a tuple that begins with one.
    """

    def initial(self) -> Iterable[S]:
        """Where things begin. A property may be violated here already: `InvariantViolated`."""
        raise NotImplementedError

    def actions(self, state: S) -> Sequence[A]:
        """Everything that may happen next, in an order that is always the same."""
        raise NotImplementedError

    def next(self, state: S, action: A) -> S:
        """What comes of it, leaving `state` as it is; raises `InvariantViolated` if it must not happen so."""
        raise NotImplementedError

    def advance(self, state: S, action: A) -> S:
        """As `next`, when `state` is not needed any more and may be changed. For states that can be."""
        return self.next(state, action)

    def prompt(self, state: S) -> Sequence[A]:
        """Those of `actions` that happen if nothing goes wrong. Without a say, all of them."""
        return self.actions(state)

    def key(self, state: S) -> Hashable:
        """What decides the future of a state, and nothing else. Without a say, the state itself."""
        return cast(Hashable, state)

    def properties(self) -> Sequence[Property[S]]:
        """What is to be true."""
        return ()
