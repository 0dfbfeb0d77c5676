"""Workers that do not come up: at the start of the pool, and later.

At the start it is an error, with the worker's last words. Later the pool goes on trying, at a pace
that a budget bounds, and heals by itself.
"""

from __future__ import annotations

import errno
from typing import Any

import pytest
import trio

from remuda.runtime import dice
from remuda.runtime.config import Restart
from remuda.runtime.opening import open_pool
from remuda.specs.behaviour import Behaviour, Die, Emit, FailBoot, Hang, HangUp, Hello, Say, Wait
from remuda.specs.simulated import SimLauncher
from remuda.statemachines.errors import Category, PoolFailed, PoolStartError, Severity

TIGHT = Restart(base=0.1, cap=2.0, burst=3, period=30.0)

FAIL_BY_WORD = {
    "import": (FailBoot("import", ModuleNotFoundError("No module named 'tea'")), Die(1)),
    "setup": (Say("no kettle\n"), FailBoot("setup", RuntimeError("no kettle")), Die(1)),
    "setup, and it lives on": (FailBoot("setup", RuntimeError("no kettle")), Hang()),
}


@pytest.mark.parametrize("case", FAIL_BY_WORD)
async def test_it_says_that_it_cannot(autojump_clock: Any, case: str) -> None:
    """It would fail again, so there is no second try."""
    async with SimLauncher.open(Behaviour(boot=FAIL_BY_WORD[case])) as launcher:
        with pytest.raises(PoolStartError) as caught:
            async with open_pool(adapter="x:Y", name="tea", max_workers=1, launcher=launcher):
                raise AssertionError("it cannot have started")
        error = caught.value
        assert (error.category, error.severity) == (Category.INITIALIZATION, Severity.CRITICAL)
        assert "pool 'tea' could not start" in error.message
        stage = case.partition(",")[0]
        assert f"its {stage} failed: " in error.message
        assert ("No module named 'tea'" if stage == "import" else "no kettle") in error.message
        if case == "setup":
            assert error.last_death is not None and "no kettle" in error.last_death.stderr_tail
        assert error.context["pool"] == "tea"
        assert error.snapshot is not None
        assert launcher.witness.launched == 1
        assert launcher.witness.leftovers() == []
        assert trio.current_time() < 11


async def test_it_hangs_in_its_setup(autojump_clock: Any) -> None:
    for boot in ((Hang(),), (Say("loading\n"), Wait(100), Hello())):
        begins = trio.current_time()
        async with SimLauncher.open(Behaviour(boot=boot)) as launcher:
            with pytest.raises(PoolStartError) as caught:
                async with open_pool(adapter="x:Y", max_workers=1, init_timeout=5, launcher=launcher):
                    raise AssertionError("it cannot have started")
            assert "init_timeout (5 s)" in caught.value.message
            assert trio.current_time() - begins == 5
            assert launcher.witness.leftovers() == []


async def test_the_operating_system_hangs(autojump_clock: Any) -> None:
    """`init_timeout` counts from the beginning, the making of the process included."""
    async with SimLauncher.open(Behaviour(launch_seconds=100)) as launcher:
        with pytest.raises(PoolStartError, match="init_timeout .5 s."):
            async with open_pool(adapter="x:Y", max_workers=1, init_timeout=5, launcher=launcher):
                raise AssertionError("it cannot have started")
        assert trio.current_time() == 5
        assert launcher.witness.launched == 0


async def test_it_crashes_again_and_again(autojump_clock: Any) -> None:
    """A crash may be chance: it is tried again, until the budget is spent."""
    for boot in (
        (Die(7),),
        (Say("Illegal instruction\n"), Die(-4)),
        (Emit(b"\xff" * 50), Hang()),
        (HangUp(), Hang()),
    ):
        async with SimLauncher.open(Behaviour(boot=boot)) as launcher:
            with pytest.raises(PoolStartError, match="could not start") as caught:
                async with open_pool(adapter="x:Y", max_workers=1, restart=TIGHT, launcher=launcher):
                    raise AssertionError("it cannot have started")
            assert launcher.witness.launched == 1 + TIGHT.burst
            death = caught.value.last_death
            assert death is not None and death.generation == launcher.witness.launched
            if boot == (Die(7),):
                assert "exit status 7" in caught.value.message
            assert launcher.witness.leftovers() == []


async def test_it_crashes_again_and_again_and_nothing_is_configured(autojump_clock: Any) -> None:
    """With the defaults, too, the start has an end."""
    async with SimLauncher.open(Behaviour(boot=(Die(7),))) as launcher:
        with pytest.raises(PoolStartError, match="exit status 7"), trio.fail_after(600):
            async with open_pool(adapter="x:Y", max_workers=1, launcher=launcher):
                raise AssertionError("it cannot have started")


async def test_it_crashes_once(simulation: Any, autojump_clock: Any) -> None:
    def cast(order: Any) -> Behaviour:
        return Behaviour(boot=(Die(7),)) if order.generation == 1 else Behaviour()

    async with simulation(cast, restart=TIGHT) as (pool, launcher):
        assert await pool.call("echo", {"token": 1}) == 1
        assert pool.snapshot().restart_tokens < TIGHT.burst


async def test_the_operating_system_refuses(autojump_clock: Any) -> None:
    async with SimLauncher.open(Behaviour(launch_error=errno.EAGAIN)) as launcher:
        with pytest.raises(PoolStartError, match="the operating system did not start it: .*temporarily unavailable"):
            async with open_pool(adapter="x:Y", max_workers=1, restart=TIGHT, launcher=launcher):
                raise AssertionError("it cannot have started")
        assert launcher.witness.launched == 0


async def test_what_could_not_be_started_is_forgotten(simulation: Any, autojump_clock: Any) -> None:
    """The pool tries for days; it must not grow by it."""
    async with simulation(restart=TIGHT) as (pool, launcher):
        launcher.behaviour = Behaviour(launch_error=errno.EMFILE)
        launcher.worker(0).crash()
        await pool.wait_for("failed")
        await trio.sleep(3600)
        assert len(pool._links) == len(pool.journal._workers) == 0
        launcher.behaviour = Behaviour()
        await pool.wait_for("ready")
        assert len(pool._links) == len(pool.journal._workers) == 1


async def test_one_of_several_cannot(autojump_clock: Any) -> None:
    """The pool is ready when `min_workers` are; one that says it cannot is enough to fail the start."""

    def cast(order: Any) -> Behaviour:
        return Behaviour(boot=FAIL_BY_WORD["setup"]) if order.slot == 1 else Behaviour(boot=(Wait(1), Hello()))

    async with SimLauncher.open(cast) as launcher:
        with pytest.raises(PoolStartError, match="no kettle"):
            async with open_pool(adapter="x:Y", min_workers=3, max_workers=3, launcher=launcher):
                raise AssertionError("it cannot have started")
        assert launcher.witness.leftovers() == []


async def test_how_many_start_at_a_time(simulation: Any, autojump_clock: Any) -> None:
    fields = {"min_workers": 6, "max_workers": 6, "start_concurrency": 2}
    with trio.fail_after(100):
        async with simulation(Behaviour(boot=(Wait(1), Hello())), **fields) as (pool, launcher):
            assert trio.current_time() == 3
            assert launcher.witness.launched == 6
            assert [worker.state for worker in pool.snapshot().workers] == ["ready"] * 6


# ── Later ───────────────────────────────────────────────────────────────────────────────────────


class Weather:
    """What new workers meet: good until it is turned bad."""

    def __init__(self, bad: Behaviour) -> None:
        self.bad = bad
        self.is_bad = False

    def __call__(self, order: Any) -> Behaviour:
        return self.bad if self.is_bad else Behaviour()


@pytest.mark.parametrize(
    "bad",
    [
        Behaviour(boot=(Die(7),)),
        Behaviour(boot=FAIL_BY_WORD["setup"]),
        Behaviour(boot=(Hang(),)),
        Behaviour(launch_error=errno.EAGAIN),
    ],
    ids=["crashes", "says no", "hangs", "refused"],
)
async def test_it_fails_and_heals(simulation: Any, autojump_clock: Any, bad: Behaviour) -> None:
    weather = Weather(bad)
    async with simulation(weather, restart=TIGHT, init_timeout=1, call_timeout=1000) as (pool, launcher):
        assert await pool.call("echo", {"token": 1}) == 1
        weather.is_bad = True
        launcher.worker(0).crash()
        with pytest.raises(PoolFailed, match="starting one fails again and again") as caught:
            await pool.call("echo", {"token": 2})
        assert await pool.wait_for("failed") == "failed"
        error = caught.value
        assert error.retry_after is not None and 0 <= error.retry_after <= TIGHT.period
        assert error.recoverable and error.last_death is not None
        begins = trio.current_time()
        with pytest.raises(PoolFailed):  # at once, and not at its deadline
            await pool.call("echo", {"token": 3})
        with pytest.raises(PoolFailed):
            async with pool.checkout(timeout=50):
                pass
        assert trio.current_time() == begins
        # It goes on trying, at the pace of the budget.
        tried = [weather.is_bad, pool._core.crew.slots[0].generation]
        await trio.sleep(TIGHT.period * 10)
        tries = pool._core.crew.slots[0].generation - tried[1]
        assert 10 <= tries <= 10 * TIGHT.burst + TIGHT.burst
        weather.is_bad = False
        with trio.fail_after(TIGHT.period + 5):
            await pool.wait_for("ready")
        assert await pool.call("echo", {"token": 4}) == 4


async def test_the_pause_between_tries_grows(
    simulation: Any, autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    weather = Weather(Behaviour(boot=(Die(7),)))
    restart = Restart(base=1.0, cap=8.0, burst=20, period=1000.0)
    starts: list[float] = []
    async with simulation(weather, restart=restart) as (pool, launcher):
        monkeypatch.setattr(dice, "draw", lambda: 1.0)
        original = launcher.start

        async def start(order: Any) -> Any:
            starts.append(trio.current_time())
            return await original(order)

        launcher.start = start
        weather.is_bad = True
        launcher.worker(0).crash()
        await trio.sleep(40)
        pauses = [later - earlier for earlier, later in zip(starts, starts[1:], strict=False)]
        assert pauses[:5] == [2.0, 4.0, 8.0, 8.0, 8.0]
        weather.is_bad = False
        await pool.wait_for("ready")


async def test_a_worker_that_served_is_replaced_without_asking_the_budget(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(restart=TIGHT) as (pool, launcher):
        for number in range(20):
            assert await pool.call("echo", {"token": number}) == number
            launcher.worker(0).crash()
        assert pool.snapshot().restart_tokens == TIGHT.burst


async def test_one_that_did_not_serve_takes_from_the_budget(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(restart=TIGHT) as (pool, launcher):
        launcher.worker(0).crash()
        await trio.testing.wait_all_tasks_blocked()
        assert pool.snapshot().restart_tokens == pytest.approx(TIGHT.burst - 1)
        assert pool.snapshot().slots in ({"backoff": 1}, {"starting": 1}, {"serving": 1})
        await pool.wait_for("ready")
