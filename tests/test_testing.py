"""`remuda.testing` on real workers, and on simulated ones where it can work there."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

import remuda
from remuda import testing
from remuda.bridge import points
from remuda.runtime.opening import open_pool
from remuda.runtime.pool import Pool
from remuda.specs.fixtures import SimulatedPools
from tests.bridge.talk import state_of

STATIONS = """
import time
import remuda
from remuda.testing import point

class Stations:
    @remuda.command
    def travel(self, number: int) -> int:
        point("leaving")
        point("arriving")
        return number

    @remuda.command(idempotent=True)
    def again(self, number: int) -> int:
        point("again")
        return number

class Slow(Stations):
    def setup(self, settings):
        point("setup")

    def health(self):
        point("health")
"""


@pytest.fixture(autouse=True)
def adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "stations", raising=False)
    (tmp_path / "stations.py").write_text(STATIONS)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "points"
    path.mkdir()
    return path


def real(folder: Path, adapter: str = "stations:Stations", **fields: object) -> AbstractAsyncContextManager[Pool]:
    return open_pool(adapter=adapter, env=testing.env(folder), **{"max_workers": 1, **fields})


# ── Points ──────────────────────────────────────────────────────────────────────────────────────


async def test_killed_at_a_point(folder: Path) -> None:
    async with real(folder) as pool:
        assert await pool.call("travel", {"number": 1}) == 1
        with testing.armed(pool, "arriving", do="kill") as point:
            with pytest.raises(remuda.OutcomeUnknown):
                await pool.call("travel", {"number": 2})
            assert (await point.reached()).pid is not None
        assert pool.last_death.exit_status == -signal.SIGKILL
        assert await pool.call("travel", {"number": 3}) == 3
    assert os.listdir(folder) == []


async def test_as_often_as_it_was_ordered(folder: Path) -> None:
    async with real(folder, retry=remuda.Retry(attempts=3, base=0.001)) as pool:
        with testing.armed(pool, "again", do="kill", times=2) as point:
            assert await pool.call("again", {"number": 1}) == 1
            first, second = await point.reached(), await point.reached()
            assert first.pid != second.pid
            with pytest.raises(TimeoutError, match="nobody has come to the point 'again' within 0 s after 2 others"):
                await point.reached(timeout=0)


async def test_a_worker_stands_at_a_point_until_it_is_released(folder: Path) -> None:
    async with real(folder, max_workers=2, min_workers=2) as pool, trio.open_nursery() as nursery:
        answers: list[int] = []

        async def travel(number: int) -> None:
            answers.append(await pool.call("travel", {"number": number}))

        with testing.armed(pool, "leaving") as point:
            nursery.start_soon(travel, 1)
            worker = await point.reached()
            busy = [w.pid for w in pool.snapshot().workers if w.command == "travel"]
            assert busy == [worker.pid]
            await travel(2)  # the next one passes
            assert answers == [2]
            worker.release()
            worker.release()  # again is harmless
            await testing.until(pool, lambda now: now.in_flight == 0)
        await trio.testing.wait_all_tasks_blocked()
        assert answers == [2, 1]
        worker.release()  # when it is over as well
        worker.kill()


async def test_a_worker_that_stands_at_a_point_is_killed(folder: Path) -> None:
    async with real(folder) as pool, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def travel() -> None:
            with pytest.raises(remuda.OutcomeUnknown):
                await pool.call("travel", {"number": 1})

        with testing.armed(pool, "leaving") as point:
            worker = await point.reached()
            worker.kill()
            now = await testing.until(pool, lambda now: now.last_death is not None)
            assert now.last_death.exit_status == -signal.SIGKILL


async def test_who_stands_there_goes_on_when_the_block_ends(folder: Path) -> None:
    async with real(folder) as pool, trio.open_nursery() as nursery:
        with testing.armed(pool, "leaving", times=2) as point:
            nursery.start_soon(pool.call, "travel", {"number": 1})
            await point.reached()
        assert await pool.call("travel", {"number": 2}) == 2


async def test_slowed_at_a_point(folder: Path, mock_clock: MockClock) -> None:
    mock_clock.rate = 1.0

    async def travel(pool: Pool) -> None:
        with pytest.raises(remuda.CallTimeout):
            await pool.call("travel", {"number": 1}, timeout=1000)

    async with real(folder) as pool:
        with testing.armed(pool, "leaving", do="slow", seconds=100) as point:
            with trio.fail_after(1030):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(travel, pool)
                    arrival = await point.reached(timeout=30)
                    while state_of(arrival.pid) != "S":  # were it not slow, it would sleep when it has answered
                        await trio.lowlevel.checkpoint()
                    mock_clock.jump(1000)
            with pytest.raises(RuntimeError, match='do="hang"'):
                arrival.release()
            with pytest.raises(RuntimeError, match='do="hang"'):
                arrival.kill()
        with testing.armed(pool, "leaving", do="slow", seconds=0):
            assert await pool.call("travel", {"number": 1}) == 1


async def test_a_point_of_the_setup_is_armed_before_the_pool_is_opened(folder: Path) -> None:
    with testing.armed(folder, "setup", do="kill") as point:
        async with real(folder, "stations:Slow", restart=remuda.Restart(base=0.001)) as pool:
            await point.reached()
            assert pool.snapshot().workers[0].generation == 2


async def test_points_that_nobody_came_to_are_an_error(folder: Path) -> None:
    async with real(folder) as pool:
        with pytest.raises(AssertionError, match="nobody has come to the point 'leeving'"):
            with testing.armed(pool, "leeving"):
                await pool.call("travel", {"number": 1})
        with pytest.raises(ZeroDivisionError):  # the first error is the one to be told
            with testing.armed(pool, "leeving"):
                raise ZeroDivisionError


async def test_two_points_at_a_time_but_none_twice(folder: Path) -> None:
    async with real(folder) as pool:
        with (
            testing.armed(pool, "leaving", do="slow", seconds=0),
            testing.armed(pool, "arriving", do="slow", seconds=0),
        ):
            with pytest.raises(RuntimeError, match="armed already"), testing.armed(pool, "leaving"):
                pass
            assert await pool.call("travel", {"number": 1}) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": ""}, "must have a name"),
        ({"name": "a/b"}, "must have a name"),
        ({"name": "..", "do": "kill"}, "must have a name"),
        ({"do": "stop"}, "do is 'stop'"),
        ({"do": "slow"}, "seconds is None"),
        ({"do": "slow", "seconds": -1}, "seconds is -1"),
        ({"do": "kill", "seconds": 1}, "seconds is 1"),
        ({"times": 0}, "times is 0"),
        ({"times": 101}, "times is 101"),
    ],
)
def test_what_cannot_be_armed(folder: Path, arguments: dict[str, object], words: str) -> None:
    more = {key: value for key, value in arguments.items() if key != "name"}
    with pytest.raises(ValueError, match=words), testing.armed(folder, arguments.get("name", "leaving"), **more):
        pass
    assert list(folder.iterdir()) == []


async def test_a_pool_without_points() -> None:
    async with open_pool(adapter="stations:Stations", max_workers=1) as pool:
        with pytest.raises(RuntimeError, match=r"opened without points: use the fixture remuda_pool"):
            with testing.armed(pool, "leaving"):
                pass
        assert await pool.call("travel", {"number": 1}) == 1  # a point that nobody can arm


def test_a_worker_that_comes_when_all_is_over_passes(folder: Path) -> None:
    """Whatever a test has already taken away when a worker looks for it."""
    stand = points.Stand(str(folder))
    stand.arrive("leaving")  # there is no such point
    with testing.armed(folder, "leaving", do="slow", seconds=0) as point:
        stand.arrive("leaving")
        stand.arrive("leaving")  # there are no more orders
        os.write(point._orders, b"kill 0".ljust(points.ORDER_BYTES))
        os.unlink(folder / "leaving" / points.ARRIVALS)
        stand.arrive("leaving")  # it has an order, and cannot say that it has come; this test survives it
        os.write(point._orders, b"hang 0".ljust(points.ORDER_BYTES))
        stand.arrive("leaving")
        assert [path.name for path in (folder / "leaving").iterdir()] == [points.ORDERS]


def test_a_worker_that_finds_its_orders_withdrawn_passes(folder: Path) -> None:
    """It has opened them a moment before, and nobody holds the other end any more."""
    (folder / "leaving").mkdir()
    for fifo in (points.ORDERS, points.ARRIVALS):
        os.mkfifo(folder / "leaving" / fifo)
    arrivals = os.open(folder / "leaving" / points.ARRIVALS, os.O_RDWR | os.O_NONBLOCK)
    points.Stand(str(folder)).arrive("leaving")
    with pytest.raises(BlockingIOError):  # nobody has come
        os.read(arrivals, 100)
    os.close(arrivals)


def test_nobody_is_forgotten_who_comes_while_the_block_ends(folder: Path) -> None:
    """He has said that he is there, and the test has not looked since."""
    with testing.armed(folder, "leaving", times=3) as point:
        child = subprocess.Popen(
            [sys.executable, "-c", "from remuda.testing import point; point('leaving'); print('went on')"],
            env={**os.environ, **testing.env(folder)}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert select.select([point._arrivals], [], [], 30)[0]
    assert child.communicate(timeout=30)[0] == "went on\n"


# ── In simulated workers ────────────────────────────────────────────────────────────────────────


def simulated(test: Callable[[Pool], Awaitable[None]], **fields: object) -> None:
    pools = SimulatedPools()

    async def main() -> None:
        async with pools(adapter="stations:Slow", **{"max_workers": 1, **fields}) as (pool, _):
            await test(pool)

    pools.run(main)


def test_a_simulated_worker_is_killed_at_a_point() -> None:
    async def main(pool: Pool) -> None:
        with testing.armed(pool, "arriving", do="kill") as point:
            with pytest.raises(remuda.OutcomeUnknown):
                await pool.call("travel", {"number": 2})
            assert (await point.reached()).pid == 1001
        assert await pool.call("travel", {"number": 3}) == 3

    simulated(main)
    simulated(main, name="again")  # nothing is left of the first


def test_it_is_the_worker_that_has_come_who_is_killed() -> None:
    async def main(pool: Pool) -> None:
        both = {worker.pid for worker in pool.snapshot().workers}
        with testing.armed(pool, "leaving", do="kill", times=2) as point:
            with pytest.raises(remuda.OutcomeUnknown):
                await pool.call("travel", {"number": 1}, session="ann")
            first = (await point.reached()).pid
            assert {worker.pid for worker in pool.snapshot().workers} & both == both - {first}
            with pytest.raises(remuda.OutcomeUnknown):
                await pool.call("travel", {"number": 1})
            assert (await point.reached()).pid != first

    simulated(main, min_workers=2, max_workers=2)
    simulated(main, min_workers=2, max_workers=2, work=1.0)


@pytest.mark.parametrize("where", ["setup", "health"])
def test_a_simulated_worker_is_killed_where_nobody_calls(where: str) -> None:
    async def main(pool: Pool) -> None:
        with testing.armed(pool, where, do="kill") as point:
            if where == "setup":
                testing.kill(pool)
            arrival = await point.reached(timeout=100)
            await testing.until(
                pool, lambda now: now.state == "ready" and now.workers[0].pid != arrival.pid, timeout=100
            )
        assert await pool.call("travel", {"number": 1}) == 1

    simulated(main)


def test_a_simulated_worker_cannot_wait_at_a_point() -> None:
    async def main(pool: Pool) -> None:
        for more in ({}, {"do": "slow", "seconds": 1}):
            with pytest.raises(ValueError, match="a simulated worker can only be killed"):
                with testing.armed(pool, "leaving", **more):
                    pass

    simulated(main)


def test_points_of_one_pool_are_not_those_of_another() -> None:
    pools = SimulatedPools()

    async def main() -> None:
        async with pools(adapter="stations:Stations") as (one, _), pools(adapter="stations:Stations") as (two, _):
            with testing.armed(one, "leaving", do="kill", times=2):
                assert await two.call("travel", {"number": 2}) == 2
                with pytest.raises(remuda.OutcomeUnknown):
                    await one.call("travel", {"number": 1})
                testing.point("leaving")  # the test itself is no worker

    pools.run(main)


# ── Signals ─────────────────────────────────────────────────────────────────────────────────────


async def test_kill_freeze_and_thaw(folder: Path) -> None:
    async with real(folder, min_workers=2, max_workers=2) as pool, trio.open_nursery() as nursery:
        with testing.armed(pool, "leaving") as point:
            nursery.start_soon(pool.call, "travel", {"number": 1})
            arrival = await point.reached()
            worker = testing.freeze(pool, command="travel")
            assert (worker.pid, worker.state) == (arrival.pid, "busy")
            arrival.release()
            for number in range(3):  # the other one answers, this one does not
                assert await pool.call("again", {"number": number}) == number
            assert pool.snapshot().in_flight == 1
            assert testing.thaw(pool, slot=worker.slot).pid == worker.pid
            await testing.until(pool, lambda now: now.in_flight == 0)
        other = 1 - worker.slot
        killed = testing.kill(pool, slot=other)
        now = await testing.until(
            pool, lambda now: now.state == "ready" and killed.pid not in [w.pid for w in now.workers]
        )
        assert now.last_death.slot == other and now.last_death.exit_status == -signal.SIGKILL


async def test_the_worker_of_a_session(folder: Path) -> None:
    async with real(folder, min_workers=2, max_workers=2) as pool:
        await pool.session("ann").call("travel", {"number": 1})
        served = next(worker for worker in pool.snapshot().workers if worker.calls_served)
        assert testing.kill(pool, session="ann").pid == served.pid
        with pytest.raises(LookupError, match=r"0 workers of pool 'pool' fit \(session='bob'\)"):
            testing.kill(pool, session="bob")


async def test_a_worker_that_is_not_the_only_one_has_to_be_chosen(folder: Path) -> None:
    async with real(folder, min_workers=2, max_workers=2) as pool:
        with pytest.raises(LookupError, match=r"2 workers of pool 'pool' fit \(any\); there are: slot 0 ready, slot 1"):
            testing.kill(pool)
        with pytest.raises(LookupError, match=r"0 workers of pool 'pool' fit \(slot=7\)"):
            testing.freeze(pool, slot=7)
        with pytest.raises(LookupError, match=r"0 workers of pool 'pool' fit \(command='travel'\)"):
            testing.thaw(pool, command="travel")
        assert pool.last_death is None


# ── States ──────────────────────────────────────────────────────────────────────────────────────


async def test_until_is_asked_at_once_and_after_each_step(autojump_clock: MockClock) -> None:
    async with SimulatedPools()(adapter="stations:Stations", max_workers=1, work=4.0) as (pool, _):
        before = pool._watchers
        assert (await testing.until(pool, lambda now: now.state == "ready")).in_flight == 0
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(pool.call, "travel", {"number": number})
            await testing.until(pool, lambda now: now.waiting == 2, timeout=1)  # calls that wait take no step
            start = trio.current_time()
            await testing.until(pool, lambda now: now.in_flight == 1)
            assert trio.current_time() == start + 8.0  # at the very moment
        assert pool._watchers == before


async def test_until_gives_up(autojump_clock: MockClock) -> None:
    async with SimulatedPools()(adapter="stations:Stations", max_workers=1) as (pool, _):
        start = trio.current_time()
        with pytest.raises(TimeoutError, match=r"within 3 s: pool 'pool' ready: workers: 1 ready"):
            await testing.until(pool, lambda now: False, timeout=3)
        assert trio.current_time() == start + 3.0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.aclose)
            with pytest.raises(remuda.PoolClosed):
                await testing.until(pool, lambda now: now.state == "ready" and now.waiting == 1)
        with pytest.raises(ZeroDivisionError):
            await testing.until(pool, lambda now: 1 / 0)
        assert len(pool._watchers) == 1  # the monitor


# ── What workers load ───────────────────────────────────────────────────────────────────────────


def test_workers_load_next_to_nothing_for_points() -> None:
    program = "import remuda.testing, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    heavy = {"trio", "transitions", "structlog", "hypothesis", "msgspec", "pytest", "threading", "tempfile", "shutil"}
    assert not loaded & heavy
    assert {name for name in loaded if name.startswith("remuda")} == {
        "remuda",
        "remuda.bridge",
        "remuda.bridge.points",
        "remuda.testing",
    }
