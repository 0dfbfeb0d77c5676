"""A monitor of live pools: it is silent while all is well, says what is not, and disturbs nobody.

A false alarm would be the worst that it can do. So everything that the tests of the runtime do to a
pool in simulation is done again here, with a monitor looking on.
"""

from __future__ import annotations

import importlib.util
import inspect
import itertools
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from remuda.runtime.config import Breaker, Restart
from remuda.runtime.events import CallEnded, Event, InvariantBroken, Observer, Watcher
from remuda.runtime.opening import open_pool
from remuda.runtime.pool import Pool
from remuda.specs import monitor as monitor_module
from remuda.specs.invariants import INVARIANTS
from remuda.specs.monitor import Monitor
from remuda.specs.simulated import SimLauncher
from remuda.specs.witness import by_id
from remuda.statemachines import core as core_module
from remuda.statemachines import effects as fx
from remuda.statemachines import events as ev
from remuda.statemachines.core import Core
from remuda.statemachines.crew import Crew
from remuda.statemachines.errors import RemudaError
from remuda.statemachines.policy import Policy
from remuda.statemachines.subjects import Call, Rung, Worker
from remuda.statemachines.waiters import Waiters

from . import trouble

RUNTIME = Path(__file__).parents[1] / "runtime"


@asynccontextmanager
async def watched(
    behaviour: Any = None, *, observers: Sequence[Observer] = (), key: Any = by_id, **fields: Any
) -> AsyncIterator[tuple[Pool, SimLauncher]]:
    """The fixture `simulation` of the tests of the runtime, with a monitor that must find nothing."""
    fields = {"adapter": "simulated:Adapter", "max_workers": 1, **fields}
    monitor = Monitor()
    async with SimLauncher.open(behaviour, key=key) as launcher:
        try:
            async with open_pool(launcher=launcher, observers=[monitor, *observers], **fields) as pool:
                yield pool, launcher
        finally:
            assert not monitor.violations, "\n".join(map(str, monitor.evidence))
            assert monitor.judged == monitor.steps > 0


# ── No false alarm ──────────────────────────────────────────────────────────────────────────────


def scenarios() -> Iterator[Any]:
    """Every test of the runtime that is given a simulated pool, with each of its parameters."""
    for path in sorted(RUNTIME.glob("test_*.py")):
        spec = importlib.util.spec_from_file_location(f"watched_{path.stem}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # where a dataclass looks for its module
        spec.loader.exec_module(module)
        for name, test in vars(module).items():
            if name.startswith("test_") and "simulation" in inspect.signature(test).parameters:
                for case, arguments in cases(test):
                    yield pytest.param(test, arguments, id=f"{path.stem[5:]}-{name[5:]}{case}")


def cases(test: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """What pytest would make of the marks of a test: each combination of its parameters."""
    axes = []
    for mark in getattr(test, "pytestmark", ()):
        names, values = mark.args[:2]
        names = [name.strip() for name in names.split(",")] if isinstance(names, str) else names
        one = len(names) == 1
        rows = [
            value.values if isinstance(value, type(pytest.param())) else ((value,) if one else value)
            for value in values
        ]
        axes.append([(f"-{place}", dict(zip(names, row, strict=True))) for place, row in enumerate(rows)])
    for combination in itertools.product(*axes):
        yield "".join(case for case, _ in combination), {k: v for _, some in combination for k, v in some.items()}


LEFT_OUT = (
    "soft_timeouts-settings",  # they are refused before there is a pool
    "observers-",  # they are about who observes, and how many do
    "cancel-ten_thousand_callers_hang_up",  # for each of them every rule would look at all the others
)
SCENARIOS = [scenario for scenario in scenarios() if not str(scenario.id).startswith(LEFT_OUT)]


@pytest.mark.parametrize(("test", "arguments"), SCENARIOS)
def test_what_the_runtime_is_tested_with(test: Any, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = MockClock(autojump_threshold=0)
    for name in inspect.signature(test).parameters:
        if name == "simulation":
            arguments = {**arguments, name: watched}
        elif name == "monkeypatch":
            arguments = {**arguments, name: monkeypatch}
        elif name in ("autojump_clock", "mock_clock"):
            clock = MockClock(autojump_threshold=0 if name == "autojump_clock" else float("inf"))
            arguments = {**arguments, name: clock}
    if inspect.iscoroutinefunction(test):

        async def run() -> None:
            await test(**arguments)

        trio.run(run, clock=clock)
    else:
        test(**arguments)


def test_the_scenarios_are_all_there() -> None:
    names = {scenario.id.partition("-")[0] for scenario in SCENARIOS}
    assert names >= {"crashes", "deadlines", "cancel", "close", "journal", "lease", "sessions", "health", "breaker"}
    assert len(SCENARIOS) > 150


@pytest.mark.parametrize("seed", range(25))
def test_in_every_kind_of_trouble(seed: int) -> None:
    monitor = Monitor()
    trouble.run(seed, observers=[monitor])
    assert not monitor.violations, "\n".join(map(str, monitor.evidence))
    assert monitor.judged == monitor.steps > 20


async def test_suspended_and_resumed(autojump_clock: Any) -> None:
    async with watched(max_workers=2) as (pool, launcher):
        for _ in range(3):
            async with trio.open_nursery() as nursery:
                pool.suspend()
                for token in range(5):
                    nursery.start_soon(pool.call, "echo", {"token": token})
                await trio.testing.wait_all_tasks_blocked()
                launcher.worker(0).crash()
                await trio.sleep(5)
                pool.resume()


async def test_real_processes_under_fire() -> None:
    """Callers who call, hold workers and hang up, while workers are killed and stopped."""
    monitor = Monitor()
    gunman = trouble.Gunman(Random(1), 15, [signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP] * 3)
    with trio.fail_after(60):
        async with open_pool(
            min_workers=2,
            max_workers=3,
            call_timeout=1.0,  # for whoever is on a worker that was stopped
            checkout_timeout=30.0,
            observers=[monitor, gunman],
            breaker=Breaker(failures=1000),
            restart=Restart(base=0.001, cap=0.01, burst=100),
        ) as pool:
            async with trio.open_nursery() as nursery:
                for name in range(8):
                    nursery.start_soon(call_hold_and_hang_up, pool, name)
        ended = pool.snapshot().ended
    assert not monitor.violations, "\n".join(map(str, monitor.evidence))
    assert monitor.judged == monitor.steps > 500
    assert gunman.shots == 9 and ended["answered"] > 100 and ended["returned"] > 20


async def call_hold_and_hang_up(pool: Pool, name: int) -> None:
    for number in range(60):
        with trio.move_on_after(0.002 if number % 7 == name % 7 else 60):
            try:
                if number % 5 == name % 5:
                    async with pool.checkout() as worker:
                        assert await worker.run_sync(pow, name, 2) == name**2
                else:
                    assert await pool.run_sync(pow, name, 3, idempotent=number % 2 == 0) == name**3
            except RemudaError:
                pass


# ── Bugs ────────────────────────────────────────────────────────────────────────────────────────

Plant = Callable[[pytest.MonkeyPatch], None]
BUGS: dict[str, tuple[str, Plant]] = {}
"""What is wrong → the rule that must say so, and how it is brought about."""


def bug(rule: str) -> Callable[[Plant], Plant]:
    def register(plant: Plant) -> Plant:
        BUGS[plant.__name__] = (rule, plant)
        return plant

    return register


@bug("destruction_is_idempotent")
def a_worker_is_told_twice_to_go(patch: pytest.MonkeyPatch) -> None:
    down = Crew._down_the_ladder

    def twice(crew: Crew, worker: Worker, rung: Rung, now: float) -> None:
        down(crew, worker, rung, now)
        crew.effects.append(fx.Stop(worker, rung))

    patch.setattr(Crew, "_down_the_ladder", twice)


@bug("no_lost_worker")
def a_worker_that_was_given_back_is_not_idle(patch: pytest.MonkeyPatch) -> None:
    to_idle = Crew._to_idle
    patch.setattr(Crew, "_to_idle", lambda crew, worker, now: None if worker.served else to_idle(crew, worker, now))


@bug("departed_waiters_vanish")
def ghosts_stay_in_the_queue(patch: pytest.MonkeyPatch) -> None:
    remove, dispatch, ghosts = Waiters.remove, Core._dispatch, list[Call]()

    def late(core: Core, now: float) -> None:  # they go when somebody is served, and stand in the way until then
        while ghosts:
            remove(core.waiters, ghosts.pop())
        dispatch(core, now)

    patch.setattr(Waiters, "remove", lambda waiters, waiter: ghosts.append(waiter) or True)
    patch.setattr(Core, "_dispatch", late)


@bug("fifo_within_a_lane")
def last_come_first_served(patch: pytest.MonkeyPatch) -> None:
    def last(waiters: Waiters[Call]) -> Call:
        waiter = list(waiters)[-1]
        Waiters.remove(waiters, waiter)
        return waiter

    patch.setattr(Waiters, "first", lambda waiters: list(waiters)[-1])
    patch.setattr(Waiters, "pop", last)


@bug("exactly_one_outcome")
def a_timeout_is_told_twice(patch: pytest.MonkeyPatch) -> None:
    conclude = Core._conclude

    def twice(core: Core, call: Call, verdict: fx.Verdict, *rest: Any, **more: Any) -> None:
        conclude(core, call, verdict, *rest, **more)
        if verdict is fx.Verdict.TIMED_OUT:
            core._effects.append(fx.Answer(call, verdict, cause="waiting for a worker"))

    patch.setattr(Core, "_conclude", twice)


@bug("no_dirty_worker")
def the_worker_of_a_caller_who_left_is_used_again(patch: pytest.MonkeyPatch) -> None:
    condemn = Crew.condemn

    def spare(crew: Crew, worker: Worker, cause: str, now: float, *, on_purpose: bool) -> None:
        if worker.state == "busy" and on_purpose:
            crew.release(worker, now, unfit=False)
        else:
            condemn(crew, worker, cause, now, on_purpose=on_purpose)

    patch.setattr(Crew, "condemn", spare)


@bug("nothing_dead_on_arrival")
def work_is_handed_out_without_a_look_at_the_clock(patch: pytest.MonkeyPatch) -> None:
    def hasty(core: Core, now: float) -> None:
        while core.waiters and core.crew.has_idle:
            call = core.waiters.pop()
            call.deadline = min(call.deadline, now)
            core._assign(call, now)

    patch.setattr(Core, "_dispatch", hasty)


@bug("time_is_monotonic")
def one_handler_has_a_clock_of_its_own(patch: pytest.MonkeyPatch) -> None:
    handle = core_module._HANDLERS[ev.Replied]
    patch.setitem(core_module._HANDLERS, ev.Replied, lambda core, event, now: handle(core, event, now + 1e-3))


async def day(observers: Sequence[Observer]) -> list[str]:
    """Callers that call, wait, are late and go away. What each of them got."""
    got: list[str] = []

    async def caller(number: int, patience: float, timeout: float) -> None:
        await trio.sleep(number / 100)
        with trio.move_on_after(patience) as scope:
            try:
                value = await pool.call("sleep", {"seconds": 1, "token": number}, timeout=timeout)
                got.append(f"{number}: {value['token']}")
            except RemudaError as error:
                got.append(f"{number}: {type(error).__name__}")
        if scope.cancelled_caught:
            got.append(f"{number}: cancelled")

    with trio.move_on_after(300):
        async with SimLauncher.open() as launcher:
            async with open_pool(
                launcher=launcher, adapter="s:A", max_workers=3, min_workers=3, observers=observers
            ) as pool:
                async with trio.open_nursery() as nursery:
                    for number, (patience, timeout) in enumerate(((50, 50), (50, 50), (0.5, 50), (50, 0.7)) * 5):
                        nursery.start_soon(caller, number, patience, timeout)
                assert pool.observer_errors == 0
    return sorted(got)


@pytest.mark.parametrize("name", BUGS)
async def test_a_planted_bug_is_told_by_its_name(
    name: str, monkeypatch: pytest.MonkeyPatch, autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    rule, plant = BUGS[name]
    sound = Monitor()
    assert await day([sound]) == await day([])  # nobody notices that it is there
    assert not sound.violations
    plant(monkeypatch)
    monitor, events = Monitor(remember=5), list[Event]()
    got = await day([monitor, events.append])
    assert sorted(int(one.partition(":")[0]) for one in got) == list(range(20))
    assert monitor.violations[rule] > 0
    told = [event for event in events if isinstance(event, InvariantBroken) and event.name == rule]
    assert [event.count for event in told] == [2**n for n in range(monitor.violations[rule].bit_length())]
    lines = [
        record for record in caplog.records if "invariant.broken" in record.message and repr(rule) in record.message
    ]
    assert len(lines) == len(told)
    evidence = next(each for each in monitor.evidence if each.name == rule)
    assert evidence.detail in told[0].detail and evidence.summary in told[0].detail
    assert 1 <= len(evidence.steps) <= 5 and evidence.steps[-1] in told[0].detail


async def test_a_bug_on_real_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who came last is served first; all are served, and only the monitor says something."""
    last_come_first_served(monkeypatch)
    monitor, events = Monitor(), list[Event]()
    answers: list[int] = []

    async def caller(number: int) -> None:
        answers.append(await pool.run_sync(pow, number, 2))

    with trio.fail_after(60):
        async with open_pool(max_workers=1, observers=[monitor, events.append]) as pool:
            async with trio.open_nursery() as nursery:
                for number in range(10):
                    nursery.start_soon(caller, number)
            assert pool.observer_errors == 0
    assert sorted(answers) == [number**2 for number in range(10)]
    assert set(monitor.violations) == {"fifo_within_a_lane"}
    assert {event.name for event in events if isinstance(event, InvariantBroken)} == {"fifo_within_a_lane"}
    assert sum(isinstance(event, CallEnded) for event in events) == 10


# ── What it says ────────────────────────────────────────────────────────────────────────────────


class Desk:
    """A core, fed by hand, with a monitor that looks on."""

    def __init__(self, monitor: Monitor | None = None, *, observed: bool = True, **policy: Any) -> None:
        self.monitor = Monitor() if monitor is None else monitor
        self.now = 1.0
        self.calls = 0
        self.core = Core(Policy(**{"min_workers": 1, "max_workers": 1, **policy}), self.now, observed=observed)
        self.feed(ev.Open())
        for worker in list(self.core.crew.workers()):
            self.feed(ev.Initialized(worker))

    def feed(self, event: ev.Event) -> list[InvariantBroken]:
        effects = self.core.handle(event, self.now)
        return self.show(event, effects)

    def show(self, event: ev.Event, effects: Sequence[fx.Effect]) -> list[InvariantBroken]:
        told = self.monitor.handled("tea", self.core, event, effects, self.now)
        return [event for event in told if isinstance(event, InvariantBroken)]

    def call(self, **facts: Any) -> Call:
        self.calls += 1
        call = Call(self.calls, now=self.now, request=Secret(), history=4, **facts)
        self.feed(ev.Submit(call))
        return call

    def answer(self, call: Call) -> list[InvariantBroken]:
        assert call.worker is not None
        return self.feed(ev.Replied(call.worker, call.id, Secret()))


class Secret:
    """An argument or result: nobody's business."""

    def __repr__(self) -> str:
        raise AssertionError("somebody looked")


def test_the_evidence() -> None:
    desk = Desk(Monitor(remember=3), max_workers=2)
    lease = desk.call(is_lease=True)
    desk.call(session="tea")
    desk.core.waiters.clear()
    told = desk.feed(ev.Tick())
    assert [(event.pool, event.name, event.count, event.at) for event in told] == [
        ("tea", "departed_waiters_vanish", 1, 1.0)
    ]
    evidence = desk.monitor.evidence[-1]
    assert evidence.steps == (
        "1.000000 Submit lease 1 → Answer lease 1 granted",
        "1.000000 Submit call 2 → StartWorker 1.1",
        "1.000000 Tick",
    )
    assert "0.1 busy with lease 1" in evidence.summary and "1.1 initializing" in evidence.summary
    assert "2 calls, of which 0 wait: none; checked out: lease 1" in evidence.summary
    assert str(evidence).startswith("departed_waiters_vanish: in the lanes: []; queued: [<call 2 queued>]")
    assert lease.worker is not None


def test_a_crowd_is_not_listed_by_name() -> None:
    desk = Desk()
    for _ in range(500):
        desk.call()
    desk.core.waiters.count += 1
    (told,) = desk.feed(ev.Tick())
    assert "499 wait" in told.detail and "and 491 more" in told.detail
    assert len(told.detail) < 4000


def test_what_is_broken_for_long_is_not_told_each_time() -> None:
    desk = Desk()
    desk.call()
    desk.call()
    desk.core.waiters.clear()
    counts = [event.count for _ in range(100) for event in desk.feed(ev.Tick())]
    assert counts == [1, 2, 4, 8, 16, 32, 64]
    assert desk.monitor.violations == {"departed_waiters_vanish": 100}


def test_an_outcome_that_is_told_again_long_after() -> None:
    desk = Desk()
    first = desk.call()
    desk.answer(first)
    for _ in range(200):  # it is over, and forgotten
        desk.answer(desk.call())
    assert not desk.monitor.violations
    again = desk.show(ev.Tick(), [fx.Answer(first, fx.Verdict.TIMED_OUT)])
    assert "exactly_one_outcome" in {event.name for event in again}


def test_a_rule_that_breaks_down_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    monkeypatch.setitem(monitor_module._RULES, "conservation", lambda core, ledger: 1 // 0)
    (told,) = desk.feed(ev.Tick())
    assert told.name == "conservation" and "ZeroDivisionError" in told.detail


def test_all_rules_but_one_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    for name in monitor_module._RULES:
        monkeypatch.setitem(monitor_module._RULES, name, lambda core, ledger, name=name: asked.append(name))
    Desk().feed(ev.Tick())
    assert set(INVARIANTS) - set(asked) == {"what_is_the_users_is_not_touched"}


@pytest.mark.parametrize("wrong", [{"every": 0}, {"remember": 0}])
def test_what_makes_no_sense(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        Monitor(**wrong)


def test_it_is_a_watcher() -> None:
    assert isinstance(Monitor(), Watcher)


# ── How much it looks at, and keeps ─────────────────────────────────────────────────────────────


def test_each_nth_step_of_callers_is_judged_and_every_other_step() -> None:
    desk = Desk(Monitor(every=10))
    judged = desk.monitor.judged
    assert judged == desk.monitor.steps == 2  # Open, Initialized
    for _ in range(50):
        desk.answer(desk.call())
    assert desk.monitor.judged - judged == 10
    call = desk.call()
    assert call.worker is not None
    desk.feed(ev.Exited(call.worker, "it died"))
    assert desk.monitor.judged - judged == 11


def test_what_lasts_is_seen_by_a_monitor_that_samples() -> None:
    desk = Desk(Monitor(every=10))
    desk.call()
    desk.call()
    desk.core.waiters.clear()
    told = [event for _ in range(20) for event in desk.feed(ev.Tick())]
    assert [(event.name, event.count) for event in told] == [
        ("departed_waiters_vanish", 1),
        ("departed_waiters_vanish", 2),
    ]


def sizes(monitor: Monitor) -> dict[str, int]:
    """The length of everything that it holds for its pools."""
    found = {"pools": len(monitor._books), "evidence": len(monitor.evidence)}
    for books in monitor._books.values():
        found["trace"] = len(books.trace)
        for name, value in vars(books.ledger).items():
            if hasattr(value, "__len__") and name != "effects":
                found[name] = len(value)
    return found


@pytest.mark.timeout(600)  # a hundred thousand calls take some seconds, and more on a busy machine
@pytest.mark.parametrize(("every", "calls"), [(1, 4_000), (100, 30_000)])
def test_it_does_not_grow(every: int, calls: int) -> None:
    """A hundred thousand calls and ten thousand workers later it holds what it held in the beginning."""
    desk = Desk(Monitor(every=every), observed=False, max_workers=2, history=4)
    highest: list[int] = []
    for part in range(10):
        for number in range(calls // 20):
            desk.now += 0.01
            call = desk.call(session=f"session {number % 50}", deadline=desk.now + 60, is_lease=number % 7 == 0)
            other = desk.call(deadline=desk.now + 60)
            for each in (call, other):
                worker = each.worker
                if worker is None:  # it waits for a worker to start, and goes away
                    desk.feed(ev.GiveUp(each))
                elif number % 10 == 3:
                    desk.feed(ev.Exited(worker, "it died", began=True))
                elif each.is_lease:
                    desk.feed(ev.Checkin(each))
                else:
                    desk.answer(each)
            for starting in list(desk.core.crew.workers()):
                desk.feed(ev.Initialized(starting))
            desk.feed(ev.Tick())
        if part in (1, 9):
            highest.append(max(sizes(desk.monitor).values()))
    assert desk.calls == calls and not desk.monitor.violations
    assert desk.core.crew.slots[0].generation > calls // 25
    assert highest[1] <= highest[0] + 64 and max(highest) < 400


async def test_a_pool_that_is_closed_is_forgotten(autojump_clock: Any) -> None:
    """One monitor, some pools at a time, and others after them."""
    monitor = Monitor()

    async def use(name: str) -> None:
        async with SimLauncher.open() as launcher:
            async with open_pool(launcher=launcher, adapter="s:A", name=name, observers=[monitor]) as pool:
                for token in range(5):
                    assert await pool.call("echo", {"token": token}) == token
            with pytest.raises(RemudaError):
                await pool.call("echo", {"token": 1})  # a step of a closed pool

    for _ in range(3):
        async with trio.open_nursery() as nursery:
            for name in ("tea", "coffee", "water"):
                nursery.start_soon(use, name)
    assert not monitor.violations
    assert sizes(monitor) == {"pools": 0, "evidence": 0}
    assert monitor.steps > 9 * 12


async def test_violations_are_counted_by_pool_and_in_all(monkeypatch: pytest.MonkeyPatch, autojump_clock: Any) -> None:
    one_handler_has_a_clock_of_its_own(monkeypatch)
    monitor, told = Monitor(), list[InvariantBroken]()

    def note(event: Event) -> None:
        if isinstance(event, InvariantBroken):
            told.append(event)

    for name in ("tea", "coffee"):
        async with SimLauncher.open() as launcher:
            async with open_pool(launcher=launcher, adapter="s:A", name=name, observers=[monitor, note]) as pool:
                await pool.call("echo", {"token": 1})
    assert {(event.pool, event.name) for event in told} >= {
        ("tea", "time_is_monotonic"),
        ("coffee", "time_is_monotonic"),
    }
    assert [event.count for event in told if event.name == "time_is_monotonic"].count(1) == 2
    assert monitor.violations["time_is_monotonic"] >= 2
