"""Programs and tools of a user, as workers import them by name."""

from __future__ import annotations

from typing import Any

import dspy

__all__ = [
    "Brief",
    "Detailed",
    "WithoutLimits",
    "brief",
    "detailed",
    "no_forward",
    "no_module",
    "not_callable",
    "predict",
    "search",
    "without_limits",
]


class Brief(dspy.Module):
    """One step, and a parameter that may be left out."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = dspy.Predict("context, question -> answer")

    def forward(self, context: str, question: str = "What?") -> Any:
        return self.answer(context=context, question=question)


class Detailed(dspy.Module):
    """Two steps."""

    def __init__(self) -> None:
        super().__init__()
        self.first = dspy.Predict("context, question -> answer")
        self.second = dspy.Predict("answer -> summary")

    def forward(self, context: str, question: str) -> Any:
        return self.second(answer=self.first(context=context, question=question).answer)


class WithoutLimits(dspy.Module):
    """It takes whatever it is given, and returns what is no prediction."""

    def forward(self, **fields: Any) -> Any:
        return {"sum": sum(fields.values()), "odd": object}


def brief() -> dspy.Module:
    return Brief()


def detailed() -> dspy.Module:
    return Detailed()


def predict() -> dspy.Module:
    return dspy.Predict("context, question -> answer")


def without_limits() -> dspy.Module:
    return WithoutLimits()


def no_module() -> dict[str, str]:
    return {}


def no_forward() -> dspy.Module:
    return dspy.Module()


def search(query: str) -> str:
    """Search."""
    return f"found {query}"


not_callable = 7
