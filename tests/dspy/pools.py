"""Pools of the dspy adapter, and what the tests of this folder ask them."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from remuda.runtime.opening import open_pool
from remuda.runtime.pool import Pool
from remuda.statemachines.errors import RemoteError

from .loopback_openai import LoopbackOpenAI

__all__ = [
    "CONTEXT",
    "EMBEDDED",
    "FOUR",
    "GREEN",
    "KEY",
    "LEGS",
    "SKY",
    "dspy_pool",
    "kill_all",
    "loopback_settings",
    "refused",
]

CONTEXT = "The sky is green. Cats have 4 legs, yes. Dogs bark."
LEGS = {"context": CONTEXT, "question": "How many legs has a cat?"}
SKY = {"context": CONTEXT, "question": "Which color has the sky?"}
GREEN, FOUR = "The sky is green.", "Cats have 4 legs, yes."
EMBEDDED: dict[str, Any] = {"lm": "embedded"}
KEY = "sk-do-not-show-me"


@asynccontextmanager
async def dspy_pool(
    settings: dict[str, Any], *, workers: int = 1, adapter: str = "dspy", **fields: Any
) -> AsyncIterator[Pool]:
    """A pool of a fixed size, for at most a minute."""
    with trio.fail_after(60):
        async with open_pool(
            adapter=adapter, settings=settings, min_workers=workers, max_workers=workers, **fields
        ) as pool:
            yield pool


def loopback_settings(server: LoopbackOpenAI, **options: Any) -> dict[str, Any]:
    return {"lm": "openai/gpt-4o-mini", "lm_options": {"api_base": server.api_base, "api_key": KEY, **options}}


async def refused(pool: Pool, command: str, arguments: dict[str, Any]) -> RemoteError:
    """What a worker says to a call that it must refuse."""
    with pytest.raises(RemoteError) as caught:
        await pool.call(command, arguments)
    return caught.value


async def kill_all(pool: Pool) -> set[int]:
    """Kill the workers; which pids that were."""
    pids = {worker.pid for worker in pool.snapshot().workers if worker.pid is not None}
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return pids
