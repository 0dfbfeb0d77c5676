"""What an invariant is: a plain function with a name and a number, in one register.

The rules themselves are in `remuda.specs.invariants`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from remuda.specs.ledger import Ledger
from remuda.statemachines.core import Core

__all__ = ["INVARIANTS", "NUMBERS", "Invariant", "InvariantViolated", "check", "invariant"]

Invariant: TypeAlias = Callable[[Core, Ledger], str | None]

INVARIANTS: dict[str, Invariant] = {}
"""All of them, by name."""

NUMBERS: dict[str, int] = {}
"""The number of each in the list."""


class InvariantViolated(AssertionError):
    """A rule does not hold.

    Attributes:
        name: which.
    """

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(f"{name}: {detail}")
        self.name = name
        self.detail = detail


def check(core: Core, ledger: Ledger) -> None:
    """Ask all; raises InvariantViolated for the first that does not hold."""
    for name, rule in INVARIANTS.items():
        detail = rule(core, ledger)
        if detail is not None:
            raise InvariantViolated(name, detail)


def invariant(number: int) -> Callable[[Invariant], Invariant]:
    """Register a rule, under its own name and with its number in the list."""

    def register(rule: Invariant) -> Invariant:
        INVARIANTS[rule.__name__] = rule
        NUMBERS[rule.__name__] = number
        return rule

    return register
