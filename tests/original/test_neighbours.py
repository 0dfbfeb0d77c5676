"""Two pools in one program know nothing of each other, and a pool leaves nothing behind in the modules.

A pool of this kind registered itself, its workers and its mode of testing under global names: one test
found the pool, or the mode, of another. Here a pool is what `open_pool` yields; there is no place where
one could be looked up.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import trio

from remuda.runtime.config import Breaker
from remuda.runtime.opening import open_pool
from remuda.specs.simulated import SimLauncher
from remuda.statemachines.errors import CircuitOpen, OutcomeUnknown, RemoteError


async def test_two_pools_of_the_same_name_share_nothing(autojump_clock: Any) -> None:
    """What is told to one, broken in one, or held in one is not seen in the other."""
    async with (
        SimLauncher.open() as here,
        SimLauncher.open() as there,
        open_pool(adapter="x:Y", max_workers=1, launcher=here, breaker=Breaker(failures=1)) as one,
        open_pool(adapter="x:Y", max_workers=1, launcher=there, breaker=Breaker(failures=1)) as other,
    ):
        assert one.config == other.config
        for pool in (one, other):
            await pool.call("remember", {"key": "mine", "value": id(pool)}, session="s")
        await one.call("remember", {"key": "only here", "value": 1})
        with pytest.raises(OutcomeUnknown):
            await one.call("crash")
        with pytest.raises(CircuitOpen):
            await one.call("echo", {"token": 1})
        async with one.checkout():
            assert await other.call("recall", {"key": "mine"}, session="s") == id(other)
            with pytest.raises(RemoteError, match="only here"):
                await other.call("recall", {"key": "only here"})
        one.suspend()
        seen = other.snapshot()
        assert (seen.state, seen.breaker, seen.last_death) == ("ready", "closed", None)
        assert seen.ended == {"answered": 3}
        await one.aclose()
        assert await other.call("echo", {"token": 2}) == 2
        assert (here.witness.launched, there.witness.launched) == (2, 1)


def state_of_the_modules() -> dict[str, tuple[int, str]]:
    """All that the modules and classes of remuda hold, and how it shows itself."""
    return {f"{module}.{name}": (id(value), "" if callable(value) else repr(value)) for module, name, value in _held()}


def _held() -> Iterator[tuple[str, str, object]]:
    for module_name, module in list(sys.modules.items()):
        if module_name.split(".")[0] != "remuda":
            continue
        for name, value in list(vars(module).items()):
            if name.startswith("__") or isinstance(value, type(sys)):
                continue
            yield module_name, name, value
            if isinstance(value, type) and value.__module__ == module_name:
                for attribute, content in list(vars(value).items()):
                    if not attribute.startswith("__"):
                        yield module_name, f"{name}.{attribute}", content


async def everything(pool: Any) -> None:
    await pool.call("remember", {"key": "a", "value": 1}, session="s")
    with pytest.raises(RemoteError):
        await pool.call("fail", {"message": "boo"})
    with pytest.raises(OutcomeUnknown):
        await pool.call("crash")
    async with pool.checkout() as worker:
        assert await worker.call("recall", {"key": "a"}) == 1
    assert pool.snapshot().sessions == 1


async def test_a_pool_leaves_nothing_behind_in_the_modules(autojump_clock: Any) -> None:
    """The second of two pools changes nothing that outlives it. (The first loads modules.)"""
    before: dict[str, tuple[int, str]] = {}
    for time in ("first", "second"):
        if time == "second":
            before = state_of_the_modules()
        async with SimLauncher.open() as launcher:
            async with open_pool(adapter="x:Y", name=time, max_workers=1, launcher=launcher) as pool:
                await everything(pool)
                if before:
                    assert changed(before) == []
    assert len(before) > 500
    assert changed(before) == []


def changed(before: dict[str, tuple[int, str]]) -> list[str]:
    now = state_of_the_modules()
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


async def test_what_a_pool_is_does_not_depend_on_who_else_is_there(autojump_clock: Any) -> None:
    """Opened beside a failed one, within another, and alone: the same steps at the same times."""

    async def life(launcher: SimLauncher) -> list[str]:
        steps: list[str] = []
        begins = trio.current_time()

        def note(event: Any) -> None:
            if type(event).__name__ in ("Transition", "PoolChanged"):
                steps.append(f"{event.at - begins} {event!r}".replace(f"at={event.at!r}", ""))

        async with open_pool(adapter="x:Y", max_workers=1, launcher=launcher, observers=[note]) as pool:
            await pool.call("sleep", {"seconds": 1})
        return steps

    async with SimLauncher.open() as launcher, SimLauncher.open() as neighbours:
        alone = await life(launcher)
        async with open_pool(adapter="x:Y", max_workers=1, launcher=neighbours) as pool:
            with pytest.raises(OutcomeUnknown):
                await pool.call("crash")
            assert await life(launcher) == alone
        assert len(alone) > 10
