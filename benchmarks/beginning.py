"""What it costs to begin: a bare worker up to its handshake, and imports in fresh interpreters."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import trio

from remuda.benchmarks import import_cost
from remuda.benchmarks.measures import Samples
from remuda.benchmarks.ours import starts
from remuda.benchmarks.scale import Scale
from remuda.runtime.events import WorkerReady
from remuda.runtime.opening import open_pool

__all__ = ["HANDSHAKE", "INTERPRETER", "beginning"]

HANDSHAKE = "a bare worker, to its handshake"
INTERPRETER = 'python -c "import msgspec"'


def beginning(scale: Scale) -> Samples:
    """Seconds, in turns. Of what is named as a statement: a whole interpreter, `import_cost.BASE` to be taken off."""
    found: Samples = {HANDSHAKE: [], INTERPRETER: [], import_cost.BASE: []}
    found |= {statement: [] for statement in import_cost.STATEMENTS.values()}
    for _ in range(scale.starts):
        found[HANDSHAKE].append(trio.run(_handshake))
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import msgspec"], check=True)
        found[INTERPRETER].append(time.perf_counter() - start)
        for statement in (import_cost.BASE, *import_cost.STATEMENTS.values()):
            found[statement].append(import_cost.seconds(statement))
    return found


async def _handshake() -> float:
    taken = []

    def observe(event: Any) -> None:
        if isinstance(event, WorkerReady):
            taken.append(event.seconds)

    async with open_pool(min_workers=1, max_workers=1, observers=[observe], **starts()["spawn"]):
        return taken[0]
