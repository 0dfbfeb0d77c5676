"""The adapter for DSPy, which can also be asked what the others are asked. Only workers import this."""

from __future__ import annotations

from remuda.benchmarks.tasks import Tasks
from remuda.bridge.dspy_adapter import DSPyAdapter

__all__ = ["DSPyTasks"]


class DSPyTasks(Tasks, DSPyAdapter):
    """A worker with DSPy loaded and configured."""
