"""The pytest plugin: two fixtures, and an error for rules that nobody would run.

`remuda_pool` opens pools on real processes, `remuda_sim` over simulated workers; what they give is in
`remuda.specs.fixtures`. Tests that use them may be `async` (something has to run them: pytest-trio,
or anyio's plugin) or call trio themselves.

pytest loads this module in every run of everybody who has remuda installed. So it imports nothing but
pytest; the rest comes when a test asks for a fixture.
"""

from __future__ import annotations

import inspect
import sys

import pytest

TYPE_CHECKING = False  # what type checkers take for true
if TYPE_CHECKING:
    from typing import Any

    from remuda.specs.fixtures import RealPools, SimulatedPools

__all__ = ["pytest_pycollect_makeitem", "remuda_pool", "remuda_sim"]


@pytest.fixture
def remuda_pool(request: pytest.FixtureRequest) -> RealPools:
    """Pools on real processes; a test in which one is left behind fails. See `remuda.specs.fixtures`."""
    _check_who_runs(request)
    from remuda.specs.fixtures import RealPools

    return RealPools()


@pytest.fixture
def remuda_sim(request: pytest.FixtureRequest) -> SimulatedPools:
    """Pools over simulated workers, in virtual time. See `remuda.specs.fixtures`."""
    _check_who_runs(request)
    from remuda.specs.fixtures import SimulatedPools

    if _is_of(request, "trio"):
        request.node.add_marker(pytest.mark.trio(run=_run_in_virtual_time), append=False)
    return SimulatedPools()


def _run_in_virtual_time(async_fn: object, *, clock: object = None, instruments: object = ()) -> object:
    """How pytest-trio runs a test with `remuda_sim`: on the clock that the test asks for, else one that jumps."""
    import trio
    from trio.testing import MockClock

    clock = MockClock(autojump_threshold=0) if clock is None else clock
    return trio.run(async_fn, clock=clock, instruments=instruments)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]


# ── Who runs an async test ──────────────────────────────────────────────────────────────────────


def _check_who_runs(request: pytest.FixtureRequest) -> None:
    """Say what is missing, before pytest says less."""
    function = request.function
    function = getattr(getattr(function, "hypothesis", None), "inner_test", function)
    if not inspect.iscoroutinefunction(function) or _is_of(request, "trio") or _is_of(request, "anyio"):
        return
    name, fixture = request.node.name, request.fixturename
    if request.config.pluginmanager.hasplugin("trio"):
        remedy = 'mark it with @pytest.mark.trio, or set trio_mode = true under "pytest" in your configuration'
    else:
        remedy = (
            "pip install pytest-trio, and set trio_mode = true in the configuration of pytest. "
            "Or write a plain `def` test, and call trio.run"
        )
        if fixture == "remuda_sim":
            remedy += ", which remuda_sim.run does on a virtual clock"
    pytest.fail(f"{name} uses {fixture} and is async, and nothing is there to run it: {remedy}", pytrace=False)


def _is_of(request: pytest.FixtureRequest, plugin: str) -> bool:
    """Whether this plugin is there and will run the test."""
    marked = request.node.get_closest_marker(plugin) is not None
    return marked and request.config.pluginmanager.hasplugin(plugin)


# ── Rules that nobody would run ─────────────────────────────────────────────────────────────────


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector: pytest.Module | pytest.Class, name: str, obj: object) -> None:
    """Refuse a test module with rules of its own whose tests it does not have.

    Raises:
        CollectError: rules have no `TestCase` in this module, and are no base for others in it.
    """
    loaded = sys.modules.get("remuda.specs.rules")
    if loaded is None or not isinstance(collector, pytest.Module) or not isinstance(obj, type):
        return
    if not issubclass(obj, loaded.PoolRules) or obj.__module__ != collector.obj.__name__ or name.startswith("_"):
        return
    rules: Any = obj
    classes = [value for value in vars(collector.obj).values() if isinstance(value, type)]
    tested = any(issubclass(cls, rules.TestCase) for cls in classes)
    derived = any(issubclass(cls, obj) and cls is not obj for cls in classes)
    if not (tested or derived):
        raise collector.CollectError(
            f"{name} are rules, and nothing here runs them. Write below them:\n\n"
            f"    Test{name.removesuffix('Rules')} = {name}.TestCase\n\n"
            "or, if they are only a base for rules elsewhere, begin their name with an underscore."
        )
