"""What a pool tells those who watch it: in order, and without letting them harm it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import structlog
import trio

from remuda.runtime.events import (
    CallEnded,
    Event,
    InvariantBroken,
    PoolChanged,
    Transition,
    WorkerEnded,
    WorkerReady,
    WorkerWrote,
)
from remuda.runtime.handles import Lease
from remuda.specs.behaviour import Begin, Behaviour, Finish, Reply, Say
from remuda.statemachines.errors import CallTimeout, IllegalTransition, InvalidLease, OutcomeUnknown
from remuda.statemachines.events import Checkin


def of(events: list[Event], *kinds: type) -> list[Any]:
    return [event for event in events if isinstance(event, kinds)]


async def test_the_life_of_a_pool(simulation: Any, autojump_clock: Any) -> None:
    events: list[Event] = []
    behaviour = Behaviour(calls={1: (Begin(), Say("hello\n"), Reply(), Finish())})
    async with simulation(behaviour, observers=[events.append], name="tea") as (pool, launcher):
        await pool.call("echo", {"token": 1})
        with pytest.raises(OutcomeUnknown):
            await pool.call("crash")
        await pool.wait_for("ready")
    assert {event.pool for event in events} == {"tea"}
    assert [event.at for event in events] == sorted(event.at for event in events)
    states = [(event.source, event.dest) for event in of(events, PoolChanged)]
    assert states == [
        ("starting", "ready"),
        ("ready", "impaired"),
        ("impaired", "ready"),
        ("ready", "draining"),
        ("draining", "closed"),
    ]
    lives = [(type(event).__name__, event.slot, event.generation) for event in of(events, WorkerReady, WorkerEnded)]
    assert lives == [
        ("WorkerReady", 0, 1),
        ("WorkerEnded", 0, 1),
        ("WorkerReady", 0, 2),
        ("WorkerEnded", 0, 2),
    ]
    assert [event.on_purpose for event in of(events, WorkerEnded)] == [False, True]
    assert of(events, WorkerEnded)[0].death == pool.last_death
    assert [event.line for event in of(events, WorkerWrote)] == ["hello"]
    calls = of(events, CallEnded)
    assert [(call.command, str(call.verdict), call.attempts) for call in calls] == [
        ("echo", "answered", 1),
        ("crash", "unknown", 1),
    ]


async def test_every_step_is_told(simulation: Any, autojump_clock: Any) -> None:
    """The steps of each thing form one path: each begins where the last has ended."""
    events: list[Event] = []
    async with simulation(observers=[events.append], min_workers=2, max_workers=2) as (pool, launcher):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(pool.call, "sleep", {"seconds": 1})
        with trio.move_on_after(1):
            await pool.call("hang")
    at: dict[tuple[str, str], str] = {}
    steps = of(events, Transition)
    for step in steps:
        key = (step.lifecycle, step.subject)
        assert at.get(key, step.source) == step.source
        at[key] = step.dest
    assert {key[0] for key in at} == {"pool", "slot", "worker", "call"}
    assert {dest for key, dest in at.items() if key[0] == "worker"} == {"terminated"}
    assert at["pool", ""] == "closed"
    assert all(step.reason for step in steps if step.dest == "terminating")


async def test_without_observers_no_steps_are_made(simulation: Any, autojump_clock: Any) -> None:
    async with simulation() as (pool, launcher):
        emitted: list[Event] = []
        pool.emit = emitted.append
        await pool.call("echo", {"token": 1})
        assert emitted == []


async def test_an_observer_that_raises(simulation: Any, autojump_clock: Any, caplog: Any) -> None:
    """It is counted, logged once, and neither the pool nor the other observers notice."""
    seen: list[Event] = []

    def broken(event: Event) -> None:
        raise ValueError("I am broken")

    with caplog.at_level(logging.ERROR, logger="remuda"):
        async with simulation(observers=[broken, seen.append]) as (pool, launcher):
            for number in range(5):
                assert await pool.call("echo", {"token": number}) == number
            launcher.worker(0).crash()
            assert await pool.call("echo", {"token": 1}) == 1
    assert pool.observer_errors == len(seen) > 20
    lines = [record for record in caplog.records if "observer.failed" in record.getMessage()]
    assert len(lines) == 1
    assert lines[0].exc_info is not None and "I am broken" in str(lines[0].exc_info[1])


async def test_an_observer_that_looks_at_the_pool(simulation: Any, autojump_clock: Any) -> None:
    """It may ask for a snapshot in the middle of a step, and even close the pool."""
    snapshots: list[Any] = []
    pools: list[Any] = []

    def look(event: Event) -> None:
        if pools:
            snapshots.append(pools[0].snapshot())

    async with simulation(observers=[look]) as (pool, launcher):
        pools.append(pool)
        for number in range(5):
            assert await pool.call("echo", {"token": number}) == number
        assert pool.observer_errors == 0
    assert len(snapshots) > 20


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, BaseExceptionGroup("mine", [GeneratorExit()])])
async def test_an_observer_that_wants_to_end_the_program(
    simulation: Any, autojump_clock: Any, error: type[BaseException]
) -> None:
    """It is called in the middle of a step, half of which must not be left undone, in anybody's task."""

    def leave(event: Event) -> None:
        raise error

    behaviour = Behaviour(calls={1: (Begin(), Say("hello\n"), Reply(), Finish())})
    async with simulation(behaviour, observers=[leave]) as (pool, launcher):
        assert await pool.call("echo", {"token": 1}) == 1
        launcher.worker(0).crash()
        assert await pool.call("echo", {"token": 2}) == 2
    assert pool.observer_errors > 10


@pytest.mark.parametrize(
    "asks", [["resume"], ["suspend", "suspend", "resume"], ["give back"]], ids=lambda asks: asks[0]
)
async def test_an_observer_that_asks_for_what_cannot_be(simulation: Any, autojump_clock: Any, asks: list[str]) -> None:
    """It is told so in the log: the error is not that of the caller in whose step it asked."""
    leases: list[Lease] = []

    def ask(event: Event) -> None:
        for verb in asks if leases and isinstance(event, (CallEnded, WorkerEnded)) else []:
            with suppress(IllegalTransition, InvalidLease):  # which arrive here when nothing is under way
                pool.feed(Checkin(leases[0]._lease)) if verb == "give back" else getattr(pool, verb)()

    async with simulation(observers=[ask]) as (pool, launcher):
        async with pool.checkout() as lease:
            pass
        leases.append(lease)
        for number in range(3):
            assert await pool.call("echo", {"token": number}) == number
        assert pool.observer_errors == 3
        launcher.worker(0).crash()
        assert await pool.call("echo", {"token": 1}, timeout=5) == 1
        with pytest.raises(CallTimeout):
            await pool.call("hang", timeout=5)


# ── Log lines ───────────────────────────────────────────────────────────────────────────────────


async def eventful(simulation: Any) -> None:
    async with simulation(Behaviour(calls={1: (Begin(), Say("hello\n"), Reply(), Finish())}), name="tea") as (
        pool,
        _,
    ):
        await pool.call("echo", {"token": 1})
        with pytest.raises(OutcomeUnknown):
            await pool.call("crash")
        await pool.wait_for("ready")


async def test_lines_for_the_standard_library(simulation: Any, autojump_clock: Any, caplog: Any) -> None:
    with caplog.at_level(logging.INFO, logger="remuda"):
        await eventful(simulation)
    lines = [(record.levelno, record.getMessage().split()[0]) for record in caplog.records if record.name == "remuda"]
    assert (logging.WARNING, "worker.ended") in lines and (logging.INFO, "worker.ended") in lines
    assert (logging.INFO, "worker.wrote") in lines
    assert (logging.WARNING, "pool.impaired") in lines and (logging.INFO, "pool.ready") in lines
    text = "\n".join(record.getMessage() for record in caplog.records)
    assert "pool='tea' was='ready'" in text and "was killed by SIGKILL, perhaps out of memory'" in text


async def test_by_default_only_what_somebody_should_look_at(simulation: Any, autojump_clock: Any, caplog: Any) -> None:
    await eventful(simulation)
    assert {record.levelno for record in caplog.records if record.name == "remuda"} == {logging.WARNING}


async def test_logging_is_left_as_it_was(simulation: Any, autojump_clock: Any) -> None:
    logger = logging.getLogger("remuda")
    before = (list(logger.handlers), logger.level, logger.propagate, list(logging.getLogger().handlers))
    await eventful(simulation)
    assert before == (
        list(logger.handlers),
        logger.level,
        logger.propagate,
        list(logging.getLogger().handlers),
    )
    assert not structlog.is_configured()


@pytest.fixture
def entries() -> Iterator[list[dict[str, Any]]]:
    """structlog, configured by the application."""
    found: list[dict[str, Any]] = []

    def keep(logger: Any, name: str, event: Any) -> Any:
        found.append({**event, "level": name})
        raise structlog.DropEvent

    structlog.configure(processors=[keep])
    yield found
    structlog.reset_defaults()


async def test_events_for_structlog(
    simulation: Any, autojump_clock: Any, entries: list[dict[str, Any]], caplog: Any
) -> None:
    await eventful(simulation)
    assert [entry["event"] for entry in entries if entry["event"].startswith("pool.")] == [
        "pool.ready",
        "pool.impaired",
        "pool.ready",
        "pool.draining",
        "pool.closed",
    ]
    died = [entry for entry in entries if entry["event"] == "worker.ended" and entry["level"] == "warning"]
    assert [(entry["pool"], entry["worker"], entry["exit_status"]) for entry in died] == [("tea", "0.1", -9)]
    assert caplog.records == []


class Failing(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise OSError("the disk is full")


@pytest.mark.parametrize("where", ["logging", "structlog"])
async def test_logging_that_fails(
    simulation: Any, autojump_clock: Any, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is the application's own, and harms the pool no more than an observer does. It is said once."""
    handler = Failing()

    def fail(*_: Any) -> Any:
        raise OSError("the disk is full")

    if where == "structlog":
        structlog.configure(processors=[fail])
    else:
        logging.getLogger("remuda").addHandler(handler)
    try:
        async with simulation() as (pool, launcher):
            launcher.worker(0).crash()
            assert await pool.call("echo", {"token": 1}) == 1
        assert pool.observer_errors >= 2
    finally:
        structlog.reset_defaults()
        logging.getLogger("remuda").removeHandler(handler)
    assert capsys.readouterr().err.count("OSError: the disk is full") == 1


async def test_structlog_with_the_plainest_of_its_wrappers(
    simulation: Any, autojump_clock: Any, entries: list[dict[str, Any]]
) -> None:
    structlog.configure(wrapper_class=structlog.BoundLogger)
    await eventful(simulation)
    assert {entry["level"] for entry in entries} == {"info", "warning"}


# ── Watchers ────────────────────────────────────────────────────────────────────────────────────


class Watcher:
    """Sees the steps of the core, and now and then finds fault with one."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.steps: list[tuple[str, tuple[str, ...], str]] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def handled(self, pool: str, core: Any, event: Any, effects: Any, now: float) -> list[Event]:
        self.steps.append((type(event).__name__, tuple(type(e).__name__ for e in effects), str(core.pool.state)))
        return [InvariantBroken(pool, "a rule", "seen", 1, now)] if type(event).__name__ == "Replied" else []


async def test_a_watcher_sees_every_step_and_what_it_says_is_told_to_all(
    simulation: Any, autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    watcher, others = Watcher(), []
    async with simulation(observers=[watcher, others.append]) as (pool, _):
        assert await pool.call("echo", {"token": 1}) == 1
    names = [name for name, _, _ in watcher.steps]
    assert names[:2] == ["Open", "Initialized"] and {"Submit", "Replied", "Close", "Exited"} <= set(names)
    assert all("SendCall" in effects for name, effects, _ in watcher.steps if name == "Submit")
    assert watcher.steps[-1][2] == "closed"
    said = [event for event in others if isinstance(event, InvariantBroken)]
    assert said == [event for event in watcher.events if isinstance(event, InvariantBroken)]
    assert [(event.name, event.count) for event in said] == [("a rule", 1)]
    assert [record.levelname for record in caplog.records if "invariant.broken" in record.message] == ["ERROR"]


async def test_a_watcher_that_breaks_down_harms_nobody(simulation: Any, autojump_clock: Any) -> None:
    class Broken(Watcher):
        def handled(self, *_: Any) -> list[Event]:
            raise ZeroDivisionError

    async with simulation(observers=[Broken()]) as (pool, _):
        assert await pool.call("echo", {"token": 1}) == 1
        assert pool.observer_errors >= 4
