"""The dspy adapter, with a window."""

from __future__ import annotations

import sys
import threading
from typing import Any

import dspy
from dspy.clients.base_lm import GLOBAL_HISTORY

from remuda import command
from remuda.bridge.dspy_adapter import DSPyAdapter

__all__ = ["Probe"]


class Probe(DSPyAdapter):
    """Shows what a worker keeps."""

    @command(idempotent=True)
    def probe(self) -> dict[str, Any]:
        """How much history there is, whether LiteLLM was imported, and the threads."""
        model = dspy.settings.lm
        return {
            "global": len(GLOBAL_HISTORY),
            "model": len(model.history) if model is not None else 0,
            "modules": sum(len(program.module.history) for program in self._programs.values()),
            "litellm": "litellm" in sys.modules,
            "threads": [thread.name for thread in threading.enumerate()],
        }

    @command(idempotent=True)
    def try_setup(self, settings: dict[str, Any]) -> str:
        """What the adapter says to settings that it must refuse."""
        try:
            DSPyAdapter().setup(settings)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return "accepted"
