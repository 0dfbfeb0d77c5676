"""The real pool over simulated workers, on a clock that jumps.

Every test of this folder gets its pool from `simulation`. When its block ends, nothing may be left:
no process that lives, none that was not waited for, no open descriptor. So each test, whatever it is
about, also shows that.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from remuda.bridge import messages
from remuda.runtime.events import Observer
from remuda.runtime.opening import open_pool
from remuda.runtime.pool import Pool
from remuda.specs.simulated import Casting, SimLauncher
from remuda.specs.witness import by_id

Simulation = Callable[..., AbstractAsyncContextManager[tuple[Pool, SimLauncher]]]


@asynccontextmanager
async def _simulation(
    behaviour: Casting | None = None,
    *,
    key: Callable[[messages.Call], Hashable] = by_id,
    observers: Sequence[Observer] = (),
    **fields: Any,
) -> AsyncIterator[tuple[Pool, SimLauncher]]:
    fields = {"adapter": "simulated:Adapter", "max_workers": 1, **fields}
    async with SimLauncher.open(behaviour, key=key) as launcher:
        async with open_pool(launcher=launcher, observers=observers, **fields) as pool:
            yield pool, launcher
        assert launcher.witness.leftovers() == []


@pytest.fixture
def simulation() -> Simulation:
    """`async with simulation(behaviour, **config_fields) as (pool, launcher)`; one worker by default."""
    return _simulation
