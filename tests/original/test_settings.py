"""Every setting makes a difference, and the one that it is there for.

A pool of this kind once had a setting that was read, checked, documented, and then not used: the
value was written into the code a second time. So each field of `PoolConfig` and of its parts is tried
here with two values, and what is seen must be what each of them says. A field without a line in the
table below fails the last test.

Everything is simulated: times are virtual, and exact.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import msgspec
import pytest
import trio

from remuda.bridge import messages
from remuda.bridge.frames import HANDSHAKE_LIMIT, Decoder
from remuda.runtime import dice, opening
from remuda.runtime.config import Breaker, Health, Limits, PoolConfig, Restart, Retry
from remuda.runtime.opening import open_pool
from remuda.runtime.pool import Pool
from remuda.runtime.templates import ForkLauncher
from remuda.specs.behaviour import Behaviour, Command, Die, Hang, Hello, Wait
from remuda.specs.simulated import Casting, SimLauncher
from remuda.statemachines.errors import CallTimeout, CircuitOpen, FrameTooLarge, PoolFull, PoolStartError, RemudaError

PARTS = {"health": Health, "restart": Restart, "retry": Retry, "breaker": Breaker, "limits": Limits}
Experiment: TypeAlias = Callable[[dict[str, Any]], Awaitable[object]]


@asynccontextmanager
async def opened(
    fields: dict[str, Any], behaviour: Casting | None = None, **more: Any
) -> AsyncIterator[tuple[Pool, SimLauncher]]:
    """A pool of one worker, unless `fields` (what is tried) or `more` (the circumstances) say otherwise."""
    async with SimLauncher.open(behaviour) as launcher:
        async with open_pool(**{"adapter": "x:Y", "max_workers": 1, **more, **fields}, launcher=launcher) as pool:
            yield pool, launcher


async def fails(pool: Pool, command: str, *, times: int = 1, **more: Any) -> None:
    for _ in range(times):
        with pytest.raises(RemudaError):
            await pool.call(command, **more)


def boot_of(pool: Pool) -> messages.Boot:
    """What its workers are told first."""
    boot = messages.decode_to_worker(Decoder(HANDSHAKE_LIMIT).feed(pool.boot_frame)[0])
    assert isinstance(boot, messages.Boot)
    return boot


# ── What is looked at ───────────────────────────────────────────────────────────────────────────


async def its_name(fields: dict[str, Any]) -> object:
    async with opened(fields) as (pool, _):
        return pool.snapshot().name


async def where_workers_are(fields: dict[str, Any]) -> object:
    async with opened(fields) as (pool, _):
        return boot_of(pool).cwd


async def what_starts_workers(fields: dict[str, Any]) -> object:
    return type(opening._launcher(PoolConfig(**fields))).__name__


async def what_templates_import(fields: dict[str, Any]) -> object:
    names = tuple(fields["preload"].split())
    launcher = opening._launcher(PoolConfig(start_method="forkserver", preload=names))
    assert isinstance(launcher, ForkLauncher)
    return launcher._preload


async def spare_workers(fields: dict[str, Any]) -> object:
    async with opened(fields) as (pool, _):
        return [worker.kind for worker in pool.snapshot().workers].count("spare")


async def what_becomes_of_a_late_call(fields: dict[str, Any]) -> object:
    async with opened(fields) as (pool, _):
        with pytest.raises(CallTimeout):
            await pool.call("sleep", {"seconds": 100}, timeout=1)
        (worker,) = pool.snapshot().workers
        return "interrupted" if worker.state == "interrupting" else "killed"


async def seconds_of_grace(fields: dict[str, Any]) -> object:
    async with opened(fields, on_timeout="interrupt") as (pool, _):
        return pool._core.policy.interrupt_grace


async def what_workers_may_use(fields: dict[str, Any]) -> object:
    async with opened(fields) as (pool, _):
        return list(boot_of(pool).limits.values())


async def what_workers_are(fields: dict[str, Any]) -> object:
    async with opened(fields) as (pool, _):
        return boot_of(pool).adapter


async def what_setup_gets(fields: dict[str, Any]) -> object:
    async with opened(fields) as (pool, _):
        return boot_of(pool).settings


async def the_environment(fields: dict[str, Any]) -> object:
    async with opened(fields) as (_, launcher):
        return launcher.worker(0).order.env


async def workers_at_the_start(fields: dict[str, Any]) -> object:
    async with opened(fields, max_workers=4) as (pool, _):
        return len(pool.snapshot().workers)


async def workers_for_nine_callers(fields: dict[str, Any]) -> object:
    async with opened(fields) as (pool, launcher):
        async with trio.open_nursery() as nursery:
            for _ in range(9):
                nursery.start_soon(pool.call, "sleep", {"seconds": 1})
        return launcher.witness.launched


async def seconds_an_overflow_worker_stays(fields: dict[str, Any]) -> object:
    async with opened(fields, overflow=1) as (pool, launcher):
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(pool.call, "sleep", {"seconds": 1})
        begins = trio.current_time()
        await launcher.until(lambda: len(launcher.alive) == 1)
        return trio.current_time() - begins


async def seconds_to_start_six(fields: dict[str, Any]) -> object:
    async with opened(fields, Behaviour(boot=(Wait(1), Hello())), min_workers=6, max_workers=6):
        return trio.current_time()


async def refused_of_nine(fields: dict[str, Any]) -> object:
    refused: list[str] = []
    async with opened(fields) as (pool, _):

        async def caller() -> None:
            try:
                await pool.call("sleep", {"seconds": 1})
            except PoolFull:
                refused.append("full")

        async with trio.open_nursery() as nursery:
            for _ in range(9):
                nursery.start_soon(caller)
    return len(refused)


async def seconds_a_start_may_take(fields: dict[str, Any]) -> object:
    with pytest.raises(PoolStartError):
        async with opened(fields, Behaviour(boot=(Hang(),))):
            pytest.fail("it has started")
    return trio.current_time()


async def seconds_a_call_may_take(fields: dict[str, Any]) -> object:
    async with opened(fields) as (pool, _):
        await fails(pool, "hang")
        return trio.current_time()


async def seconds_a_checkout_waits(fields: dict[str, Any]) -> object:
    async with opened(fields) as (pool, _), pool.checkout():
        with pytest.raises(RemudaError):
            async with pool.checkout():
                pytest.fail("two have it")
        return trio.current_time()


async def seconds_closing_takes(fields: dict[str, Any]) -> object:
    behaviour = Behaviour(shutdown=(Hang(),), ignores=frozenset({signal.SIGTERM}), kill_seconds=1000)
    async with opened(fields, behaviour):
        pass
    return trio.current_time()


async def sessions_known_after_a_minute(fields: dict[str, Any]) -> object:
    async with opened(fields) as (pool, _):
        await pool.session("s").call("echo", {"token": 1})
        await trio.sleep(60)
        return pool.snapshot().sessions


async def a_result_of_5000_letters(fields: dict[str, Any]) -> object:
    async with opened(fields) as (pool, _):
        try:
            return len(await pool.call("large", {"size": 5000}))
        except FrameTooLarge:
            return "refused"


async def steps_a_worker_remembers(fields: dict[str, Any]) -> object:
    async with opened(fields) as (pool, _):
        for number in range(20):
            await pool.call("echo", {"token": number})
        (worker,) = pool._core.crew.workers()
        return len(worker.history)


async def checks_in_a_minute(fields: dict[str, Any]) -> object:
    async with opened(fields) as (pool, _):
        await trio.sleep(60.5)
        (worker,) = pool._core.crew.workers()
        return worker.checks


async def seconds_a_frozen_worker_lives(fields: dict[str, Any]) -> object:
    """By default asked after 30 s, given 5 s to answer, asked again after 5 s, three times in all."""
    async with opened(fields) as (_, launcher):
        worker = launcher.worker(0)
        worker.freeze()
        await launcher.until(lambda: not worker.alive)
        return trio.current_time()


async def seconds_an_unfit_worker_is_set_aside(fields: dict[str, Any]) -> object:
    async with opened(fields) as (pool, _):
        await fails(pool, "unfit")
        assert await pool.call("echo", {"token": 1}) == 1
        return trio.current_time()


async def pauses_between_starts(fields: dict[str, Any]) -> object:
    """How long a slot waits before its second, third and fourth try, with the dice at their highest."""
    starts: list[float] = []

    def cast(order: Any) -> Behaviour:
        starts.append(trio.current_time())
        return Behaviour(boot=(Die(7),))

    with pytest.raises(PoolStartError):
        async with opened(fields, cast):
            pytest.fail("it has started")
    return [later - earlier for earlier, later in zip(starts, starts[1:4], strict=False)]


async def starts_before_it_gives_up(fields: dict[str, Any]) -> object:
    async with SimLauncher.open(Behaviour(boot=(Die(7),))) as launcher:
        with pytest.raises(PoolStartError):
            async with open_pool(adapter="x:Y", max_workers=1, launcher=launcher, **fields):
                pytest.fail("it has started")
        return launcher.witness.launched


async def seconds_until_a_token_is_back(fields: dict[str, Any]) -> object:
    """The worker dies without having served, which costs a token."""
    async with opened(fields) as (pool, launcher):
        launcher.worker(0).crash()
        await trio.testing.wait_all_tasks_blocked()
        missing = pool.config.restart.burst - pool.snapshot().restart_tokens
        begins = trio.current_time()
        while pool.snapshot().restart_tokens < pool.config.restart.burst:
            await trio.sleep(0.5)
        assert missing == pytest.approx(1)
        return trio.current_time() - begins


async def attempts_of_a_call_that_kills(fields: dict[str, Any]) -> object:
    async with opened(fields) as (pool, launcher):
        await fails(pool, "crash_idempotent")
        return launcher.witness.begun.total()


async def seconds_of_a_call_that_kills(fields: dict[str, Any]) -> object:
    """Its pauses between three attempts, for each of which there is an idle worker."""
    async with opened(fields, min_workers=3, max_workers=3) as (pool, _):
        await fails(pool, "crash_idempotent")
        return trio.current_time()


async def workers_that_a_deadly_call_meets(fields: dict[str, Any]) -> object:
    async with opened(fields, Behaviour(commands={"poison": Command((Die(),))})) as (pool, launcher):
        await fails(pool, "poison")
        return launcher.witness.died


async def failures_before_it_refuses(fields: dict[str, Any]) -> object:
    async with opened(fields) as (pool, _):
        for number in range(20):
            try:
                await pool.call("crash")
            except CircuitOpen:
                return number
            except RemudaError:
                pass
    return "never"


async def probes_before_it_is_closed(fields: dict[str, Any]) -> object:
    async with opened(fields) as (pool, _):
        await fails(pool, "crash", times=5)
        await trio.sleep(100)
        for number in range(20):
            if pool.snapshot().breaker == "closed":
                return number
            assert await pool.call("echo", {"token": number}) == number
    return "never"


async def seconds_it_refuses(fields: dict[str, Any]) -> object:
    async with opened(fields) as (pool, _):
        await fails(pool, "crash", times=5)
        begins = trio.current_time()
        with pytest.raises(CircuitOpen) as caught:
            await pool.call("echo", {"token": 1})
        assert caught.value.retry_after is not None
        await trio.sleep(caught.value.retry_after)
        assert await pool.call("echo", {"token": 1}) == 1
        return trio.current_time() - begins


TABLE: dict[str, tuple[Experiment, dict[Any, object]]] = {
    # field (where it counts): what is looked at, and what must be seen there for which value
    "name": (its_name, {"tea": "tea", "pool": "pool"}),
    "adapter": (what_workers_are, {"a:A": "a:A", "dspy": "dspy"}),
    "settings": (what_setup_gets, {(("a", 1),): {"a": 1}, (): {}}),
    "env": (the_environment, {(("A", "1"),): {"A": "1"}, (): {}}),
    "cwd": (where_workers_are, {"/": "/", "/proc/..": "/", "/dev": "/dev"}),
    "min_workers": (workers_at_the_start, {1: 1, 3: 3}),
    "max_workers": (workers_for_nine_callers, {1: 1, 4: 4}),
    "overflow": (workers_for_nine_callers, {0: 1, 2: 3}),
    "overflow_linger": (seconds_an_overflow_worker_stays, {3.0: 3.0, 20.0: 20.0}),
    "start_concurrency": (seconds_to_start_six, {1: 6.0, 3: 2.0, 6: 1.0}),
    "max_waiting": (refused_of_nine, {0: 8, 3: 5, 8: 0}),
    "init_timeout": (seconds_a_start_may_take, {5.0: 5.0, 50.0: 50.0}),
    "call_timeout": (seconds_a_call_may_take, {7.0: 7.0, 90.0: 90.0}),
    "checkout_timeout": (seconds_a_checkout_waits, {1.0: 1.0, 9.0: 9.0}),
    "shutdown_timeout": (seconds_closing_takes, {4.0: 4.0, 40.0: 40.0}),
    "session_ttl": (sessions_known_after_a_minute, {50.0: 0, 70.0: 1}),
    "max_frame_bytes": (a_result_of_5000_letters, {4096: "refused", 8192: 5000}),
    "history": (steps_a_worker_remembers, {0: 0, 5: 5}),
    "health.interval": (checks_in_a_minute, {20.0: 3, 60.0: 1}),
    "health.timeout": (seconds_a_frozen_worker_lives, {1.0: 30 + 3 * 1 + 2 * 5, 4.0: 30 + 3 * 4 + 2 * 5}),
    "health.recheck": (seconds_a_frozen_worker_lives, {1.0: 30 + 3 * 5 + 2 * 1, 3.0: 30 + 3 * 5 + 2 * 3}),
    "health.recheck after an error": (seconds_an_unfit_worker_is_set_aside, {1.0: 1.0, 3.0: 3.0}),
    "health.failures": (seconds_a_frozen_worker_lives, {1: 30 + 5, 2: 30 + 2 * 5 + 5}),
    "restart.base": (pauses_between_starts, {0.5: [0.5, 1.0, 2.0], 1.0: [1.0, 2.0, 4.0]}),
    "restart.cap": (pauses_between_starts, {0.1: [0.1, 0.1, 0.1], 0.3: [0.1, 0.2, 0.3]}),
    "restart.burst": (starts_before_it_gives_up, {1: 2, 4: 5}),
    "restart.period": (seconds_until_a_token_is_back, {10.0: 1.0, 100.0: 10.0}),
    "retry.attempts": (attempts_of_a_call_that_kills, {1: 1, 4: 4}),
    "retry.base": (seconds_of_a_call_that_kills, {0.0: 0.0, 0.5: 0.5 + 1.0}),
    "retry.cap": (seconds_of_a_call_that_kills, {0.01: 0.01 + 0.01, 0.0625: 0.05 + 0.0625}),
    "retry.handovers": (workers_that_a_deadly_call_meets, {0: 1, 3: 4}),
    "breaker.failures": (failures_before_it_refuses, {1: 1, 4: 4}),
    "breaker.probes": (probes_before_it_is_closed, {1: 1, 3: 3}),
    "breaker.open_for": (seconds_it_refuses, {10.0: 10.0, 90.0: 90.0}),
    # What the kernel makes of them is seen on real processes, in tests/reality/test_limits.py.
    "start_method": (what_starts_workers, {"spawn": "SpawnLauncher", "forkserver": "ForkLauncher"}),
    "preload": (what_templates_import, {"": [], "json csv": ["json", "csv"]}),
    "spares": (spare_workers, {0: 0, 2: 2}),
    "on_timeout": (what_becomes_of_a_late_call, {"kill": "killed", "interrupt": "interrupted"}),
    "interrupt_grace": (seconds_of_grace, {0.5: 0.5, 3.0: 3.0}),
    "limits.memory": (what_workers_may_use, {None: [], 2**30: [2**30]}),
    "limits.cpu": (what_workers_may_use, {None: [], 5: [5]}),
    "limits.files": (what_workers_may_use, {None: [], 100: [100]}),
    "limits.nice": (what_workers_may_use, {None: [], 0: [0], 19: [19]}),
}


@pytest.fixture(autouse=True)
def highest_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses are as long as they can be."""
    monkeypatch.setattr(dice, "draw", lambda: 1.0)


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, (_, seen) in TABLE.items() for value in seen], ids=str
)
async def test_a_setting_makes_its_difference(field: str, value: Any, autojump_clock: object) -> None:
    experiment, seen = TABLE[field]
    part, _, name = field.partition(" ")[0].rpartition(".")
    given = dict(value) if isinstance(value, tuple) else value
    fields = {part: PARTS[part](**{name: given})} if part else {name: given}
    assert await experiment(fields) == pytest.approx(seen[value])


def test_every_setting_is_tried_with_two_values() -> None:
    fields = {name for name in PoolConfig.__struct_fields__ if name not in PARTS}
    fields |= {f"{part}.{name}" for part, kind in PARTS.items() for name in kind.__struct_fields__}
    assert {field.partition(" ")[0] for field in TABLE} == fields
    assert all(len(set(map(repr, seen.values()))) >= 2 for _, seen in TABLE.values())


def test_a_part_is_a_part_of_the_whole() -> None:
    defaults = msgspec.structs.asdict(PoolConfig())
    assert {name for name, value in defaults.items() if isinstance(value, msgspec.Struct)} == set(PARTS)
