"""What the fixtures of the pytest plugin give to a test: pools that are watched, and leave nothing behind.

    async with remuda_pool(adapter=Shop, max_workers=2) as pool: ...

opens a pool on real processes, and

    async with remuda_sim(adapter=Shop, max_workers=2) as (pool, workers): ...

one over simulated workers that run the adapter's code in virtual time, and can be crashed, stopped and
garbled: `workers.worker(0).crash()`. Both take what `remuda.open_pool` takes. While a pool is open a
`Monitor` asks all invariants after every step; when it has closed nothing of it may be left. If
something is, or a rule was broken, the block ends with an AssertionError; or, if it ends with another
error anyway, with a note to that one. In both, `remuda.testing.armed` finds its points.

They are plain objects: without pytest, or in a test that is not `async`, use them inside of your own
`trio.run`, and `remuda_sim.run(main)`, which brings the clock along.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any, NoReturn, TypeVar

import trio
from trio.testing import MockClock

from remuda import testing
from remuda.bridge import points
from remuda.bridge.seam import StartOrder
from remuda.bridge.spawn import SpawnedWorker, SpawnLauncher
from remuda.runtime import dice
from remuda.runtime.config import PoolConfig
from remuda.runtime.events import Observer
from remuda.runtime.opening import open_pool
from remuda.runtime.pool import Pool
from remuda.specs.behaviour import Begin, Behaviour, CallStep, Do, Examine, Finish, Reply, Wait
from remuda.specs.hosted import hosting
from remuda.specs.monitor import Monitor
from remuda.specs.simulated import SimLauncher
from remuda.statemachines.errors import ConfigError

__all__ = ["RealPools", "SimulatedPools"]

T = TypeVar("T")


class RealPools:
    """The fixture `remuda_pool`."""

    @asynccontextmanager
    async def __call__(
        self, config: PoolConfig | None = None, /, *, observers: Sequence[Observer] = (), **fields: Any
    ) -> AsyncGenerator[Pool]:
        """A pool on real processes, as `remuda.open_pool` makes it.

        Args:
            config, fields, observers: as for `open_pool`.

        Raises:
            AssertionError: a process was left behind, or an invariant did not hold.
        """
        monitor, launcher = Monitor(), _Register()
        with _points() as folder, _judged(monitor, launcher.leftovers):
            fields["env"] = _with_points(config, fields, folder)
            async with open_pool(config, observers=[monitor, *observers], launcher=launcher, **fields) as pool:
                yield pool
            _check_observers(pool)


class SimulatedPools:
    """The fixture `remuda_sim`."""

    @asynccontextmanager
    async def __call__(
        self,
        config: PoolConfig | None = None,
        /,
        *,
        work: float = 0.0,
        observers: Sequence[Observer] = (),
        **fields: Any,
    ) -> AsyncGenerator[tuple[Pool, SimLauncher]]:
        """A pool over simulated workers that run its adapter.

        Args:
            config, fields, observers: as for `open_pool`; there has to be an adapter.
            work: virtual seconds that each command takes: half of them before its code runs, half after.

        Returns:
            The pool, and what starts its workers and can do things to them.

        Raises:
            AssertionError: a simulated process was left behind, or an invariant did not hold.
            ConfigError: there is no adapter.
            RuntimeError: the test does not run on a virtual clock.
        """
        in_virtual_time = isinstance(trio.lowlevel.current_clock(), MockClock)
        if not in_virtual_time:
            raise RuntimeError(
                "simulated workers live in virtual time, and this test runs in real time. pytest-trio runs a test with "
                "remuda_sim on a virtual clock, except one with @given: let that ask for the fixture autojump_clock as "
                "well. Elsewhere call remuda_sim.run(main), or give trio.testing.MockClock(autojump_threshold=0) to "
                "trio.run"
            )
        adapter: str | type | None = fields.get("adapter", None if config is None else config.adapter)
        if adapter is None:
            raise ConfigError("simulated workers run the commands of an adapter; give one: remuda_sim(adapter=…)")
        dice.seed(0)  # backoff is the same every time
        monitor = Monitor()
        async with SimLauncher.open() as launcher:
            with _points() as folder, _judged(monitor, launcher.witness.leftovers):
                launcher.behaviour = _with_stands(hosting(adapter, work), launcher, folder)
                fields["env"] = _with_points(config, fields, folder)
                points.simulated.add(folder)
                try:
                    async with open_pool(config, observers=[monitor, *observers], launcher=launcher, **fields) as pool:
                        yield pool, launcher
                finally:
                    points.simulated.discard(folder)
                _check_observers(pool)

    def run(self, async_fn: Callable[..., Awaitable[T]], /, *args: Any) -> T:
        """As `trio.run(async_fn, *args)`, on a clock that jumps to the next deadline when everybody waits."""
        return trio.run(async_fn, *args, clock=MockClock(autojump_threshold=0))


# ── What both watch for ─────────────────────────────────────────────────────────────────────────


@contextmanager
def _judged(monitor: Monitor, leftovers: Callable[[], list[str]]) -> Generator[None]:
    """Say at the end what was seen: as an error, or as a note on the one that ends the block anyway."""
    try:
        yield
    except BaseException as error:
        for complaint in _complaints(monitor, leftovers):
            error.add_note(f"remuda: {complaint}")
        raise
    complaints = [*_complaints(monitor, leftovers)]
    if complaints:
        raise AssertionError("\n".join(complaints))


def _complaints(monitor: Monitor, leftovers: Callable[[], list[str]]) -> Iterator[str]:
    told: set[str] = set()
    for evidence in monitor.evidence:
        if evidence.name not in told:  # the first time says most
            told.add(evidence.name)
            yield f"an invariant did not hold, which is a bug in remuda: {evidence}"
    yield from (f"left behind: {what}" for what in leftovers())


def _check_observers(pool: Pool) -> None:
    assert not pool.observer_errors, f"{pool.observer_errors} errors of observers; the log has the first"


class _Register:
    """The launcher of every pool, and whom it has started."""

    local = True

    def __init__(self) -> None:
        self._launcher = SpawnLauncher()
        self._workers: list[SpawnedWorker] = []

    async def start(self, order: StartOrder) -> SpawnedWorker:
        worker = await self._launcher.start(order)
        self._workers.append(worker)
        return worker

    def leftovers(self) -> list[str]:
        """Processes that run, or that nobody has waited for; they are ended, so that the next test has peace."""
        left = [worker for worker in self._workers if _exists(worker.pid)]
        for worker in left:
            worker.close()
        return [f"the worker process {worker.pid}" for worker in left]


def _exists(pid: int | None) -> bool:
    try:
        os.kill(pid or 0, 0)
    except ProcessLookupError:
        return False
    return True


# ── Points ──────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _points() -> Generator[str]:
    with tempfile.TemporaryDirectory(prefix="remuda-points-") as folder:
        yield os.path.abspath(folder)


def _with_points(config: PoolConfig | None, fields: dict[str, Any], folder: str) -> dict[str, str]:
    """The environment of the workers."""
    given: dict[str, str] = fields.get("env", {} if config is None else config.env)
    return {**given, **testing.env(folder)}


class _Killed(SystemExit):
    """Ends the code of a simulated worker that was killed at a point."""


def _with_stands(plain: Behaviour, launcher: SimLauncher, folder: str) -> Callable[[StartOrder], Behaviour]:
    """The same behaviour, with code that knows which worker it runs in."""

    def cast(order: StartOrder) -> Behaviour:
        def within(code: Callable[..., Any]) -> Callable[..., Any]:
            def run(*args: Any) -> Any:
                worker = next(worker for worker in launcher.alive if worker.order is order)

                def die() -> NoReturn:
                    worker.crash()
                    raise _Killed("killed at a point")

                try:
                    with points.acting(points.Stand(folder, worker.pid, die)):
                        return code(*args)
                except _Killed:
                    return False, ""  # what a dead process says is heard by nobody

            return run

        def staged(step: Any) -> Any:
            match step:
                case Reply():
                    return replace(step, compute=within(step.compute))
                case Do():
                    return replace(step, action=within(step.action))
                case Examine():
                    return replace(step, judge=within(step.judge))
                case _:
                    return step

        return replace(
            plain,
            boot=tuple(map(staged, plain.boot)),
            ping=tuple(map(staged, plain.ping)),
            shutdown=tuple(map(staged, plain.shutdown)),
            commands={
                name: replace(command, play=tuple(map(staged, _steps(command.play))))
                for name, command in plain.commands.items()
            },
        )

    return cast


def _steps(play: Any) -> tuple[CallStep, ...]:
    assert isinstance(play, tuple), "hosted commands are played from a list of steps"
    assert all(isinstance(step, Begin | Reply | Finish | Wait) for step in play)
    return play
