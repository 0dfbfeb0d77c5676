"""A deadline passes, at every moment at which it can, and is told apart by whose it was.

A call has its own `timeout`, and there may be a deadline of trio's around it. The first ends in
`CallTimeout`; the second in whatever trio makes of it, since it is trio's.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio

from remuda.bridge import frames, messages
from remuda.runtime import dice
from remuda.runtime.config import Retry
from remuda.specs.behaviour import Begin, Behaviour, Command, Finish, Hang, Hello, Reply, Wait
from remuda.specs.stepped import SteppedTrio
from remuda.statemachines.errors import CallTimeout, Category, ConfigError, PoolStartError
from remuda.statemachines.pool import PoolState

# Everything about this worker takes time: reading a call, running it, and writing the answer, in pieces.
SLOW = Behaviour(
    chunk=16,
    chunk_seconds=0.125,
    commands={"slow": Command((Wait(0.5), Begin(), Wait(0.5), Reply(), Wait(0.25), Finish()))},
)
SWEEP = [step / 16 for step in range(60)]


@pytest.mark.parametrize("whose", ["own", "trio's"])
def test_at_every_moment_of_a_call(simulation: Any, whose: str) -> None:
    """Each 1/16 s is tried: before it is sent, half sent, begun, half answered, answered."""
    answered: list[float] = []

    async def scenario(seconds: float) -> None:
        async with simulation(SLOW) as (pool, launcher):
            begins = trio.current_time()
            answer = None
            if whose == "own":
                try:
                    answer = await pool.call("slow", {"token": "mine"}, timeout=seconds)
                except CallTimeout as error:
                    assert error.context["seconds"] == pytest.approx(seconds)
            else:
                with trio.move_on_after(seconds) as scope:
                    answer = await pool.call("slow", {"token": "mine"})
                assert scope.cancelled_caught is (answer is None)
            if answer is None:
                assert trio.current_time() - begins == pytest.approx(seconds)  # neither early nor late
                # A trio deadline of zero is a cancelled caller, who submits nothing.
                expected: dict[str, int] = {} if seconds == 0 and whose != "own" else {"timed_out": 1}
            else:
                assert answer == "mine"
                answered.append(seconds)
                expected = {"answered": 1}
            assert pool.snapshot().ended == expected
            assert await pool.call("echo", {"token": "next"}) == "next"
            await pool.wait_for(PoolState.READY)
            assert pool.snapshot().in_flight == 0
            assert pool.snapshot().restart_tokens == pool.config.restart.burst

    for seconds in SWEEP:
        with SteppedTrio() as loop:
            loop.run(scenario, seconds)
    # There is one moment from which on it is answered.
    assert answered == [seconds for seconds in SWEEP if seconds >= answered[0]]
    assert len(SWEEP) - 5 > len(answered) > 5


@pytest.mark.parametrize("seconds", [0.0, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0])
async def test_two_callers_on_one_worker(simulation: Any, autojump_clock: Any, seconds: float) -> None:
    """The one whose deadline passes is before or behind the other, who notices nothing but a delay."""
    for first in (True, False):
        async with simulation() as (pool, launcher), trio.open_nursery() as nursery:

            async def patient() -> None:
                assert await pool.call("sleep", {"seconds": 1, "token": "other"}) == {
                    "seconds": 1,
                    "token": "other",
                }

            async def hasty() -> None:
                try:
                    args = {"seconds": 1, "token": "mine"}
                    assert await pool.call("sleep", args, timeout=seconds) == args
                except CallTimeout:
                    pass

            for caller in (hasty, patient) if first else (patient, hasty):
                nursery.start_soon(caller)
                await trio.testing.wait_all_tasks_blocked()


async def test_own_timeout(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(name="tea") as (pool, launcher):
        begins = trio.current_time()
        with pytest.raises(CallTimeout) as caught:
            await pool.call("hang", timeout=3)
        assert trio.current_time() - begins == 3
        error = caught.value
        assert isinstance(error, TimeoutError) and error.category is Category.TIMEOUT and error.recoverable
        assert "'hang' passed its deadline after 3 s; its worker was killed" in str(error)
        assert error.context == {
            "attempts": 1,  # it had begun, though nobody had looked until then
            "pool": "tea",
            "command": "hang",
            "worker": 0,
            "generation": 1,
            "seconds": 3.0,
        }
        assert pool.snapshot().ended == {"timed_out": 1}


async def test_trios_own_is_trios(simulation: Any, autojump_clock: Any) -> None:
    async with simulation() as (pool, launcher):
        with pytest.raises(trio.TooSlowError):
            with trio.fail_after(2):
                await pool.call("hang")
        assert pool.snapshot().ended == {"timed_out": 1}
        with trio.move_on_after(2) as scope:
            await pool.call("hang", timeout=50)
        assert scope.cancelled_caught
        assert pool.snapshot().ended == {"timed_out": 2}


async def test_the_earlier_one_holds(simulation: Any, autojump_clock: Any) -> None:
    async with simulation() as (pool, launcher):
        with pytest.raises(CallTimeout), trio.fail_after(20):
            await pool.call("hang", timeout=1)
        with pytest.raises(trio.TooSlowError), trio.fail_after(1):
            await pool.call("hang", timeout=20)
        # At the same instant it is trio's: what its scope caught must be what its scope has meant.
        with trio.move_on_after(1) as scope:
            await pool.call("hang", timeout=1)
        assert scope.cancelled_caught


async def test_a_shield_keeps_trios_away(simulation: Any, autojump_clock: Any) -> None:
    async with simulation() as (pool, launcher):
        with trio.move_on_after(1) as outer:
            with trio.CancelScope(shield=True):
                assert await pool.call("sleep", {"seconds": 3}) == 3
            await trio.lowlevel.checkpoint()
        assert outer.cancelled_caught


async def test_a_cancellation_is_not_a_timeout(simulation: Any, autojump_clock: Any) -> None:
    """Even if there is a deadline around it that would have passed later."""
    async with simulation() as (pool, launcher):
        with trio.move_on_after(10) as scope:
            async with trio.open_nursery() as nursery:

                async def cancel() -> None:
                    await trio.sleep(1)
                    scope.cancel()

                nursery.start_soon(cancel)
                await pool.call("hang", timeout=10)
        assert pool.snapshot().ended == {"cancelled": 1}


async def test_while_it_waits_for_a_worker(simulation: Any, autojump_clock: Any) -> None:
    async with simulation() as (pool, launcher), trio.open_nursery() as nursery:
        nursery.start_soon(pool.call, "sleep", {"seconds": 10})
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(CallTimeout, match="never begun"):
            await pool.call("once", timeout=2)
        with pytest.raises(trio.TooSlowError), trio.fail_after(2):
            await pool.call("once")
        assert pool.snapshot().breaker == "closed"
        assert len(launcher.alive) == 1
    assert launcher.witness.launched == 1
    assert [one.call.command for one in launcher.witness.executions] == ["sleep"]


async def test_between_two_attempts(simulation: Any, autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with simulation(retry=Retry(attempts=10, base=1000.0, cap=1000.0)) as (pool, launcher):
        monkeypatch.setattr(dice, "draw", lambda: 1.0)  # the longest pause there is
        with pytest.raises(CallTimeout, match="its worker had died and it was to be tried again") as caught:
            await pool.call("crash_idempotent", timeout=5)
        assert caught.value.context["attempts"] == 1
        assert await pool.call("echo", {"token": 1}) == 1


async def test_none_at_all(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(call_timeout=math.inf) as (pool, launcher):
        assert await pool.call("sleep", {"seconds": 86_400}) == 86_400
        assert await pool.call("sleep", {"seconds": 90}, timeout=math.inf) == 90


async def test_what_the_command_and_the_pool_say(simulation: Any, autojump_clock: Any) -> None:
    behaviour = Behaviour(commands={"brief": Command((Begin(), Wait(90), Reply(), Finish()), timeout=2.0)})
    async with simulation(behaviour, call_timeout=7) as (pool, launcher):
        for command, seconds in (("brief", 2), ("hang", 7)):
            begins = trio.current_time()
            with pytest.raises(CallTimeout):
                await pool.call(command)
            assert trio.current_time() - begins == seconds
        assert await pool.call("brief", {"token": 1}, timeout=91) == 1


async def test_an_answer_at_the_instant_of_the_deadline_is_in_time(simulation: Any, autojump_clock: Any) -> None:
    """Whoever of the two comes first on the clock: what is there to be read is read."""
    async with simulation() as (pool, launcher):
        for _ in range(30):
            args = {"seconds": 1, "token": 1}
            try:
                assert await pool.call("sleep", args, timeout=1) == args
            except CallTimeout:
                pass
            assert await pool.call("echo", {"token": 2}) == 2


async def test_the_clock_reads_for_those_who_sleep(simulation: Any, autojump_clock: Any) -> None:
    """An answer arrives at the instant of somebody else's deadline, and a third one waits for the worker.

    The clock reads the answer, so the worker belongs to the next one while the last one still stands
    at its channel. Trio shuffles; in twenty rounds every order comes up.
    """
    stuck = Behaviour(commands={"stuck": Command((Begin(), Hang()))})
    for _ in range(20):
        async with simulation(stuck) as (pool, launcher), trio.open_nursery() as nursery:
            answers: list[Any] = []

            async def caller() -> None:
                answers.append(await pool.call("stuck"))

            async def hasty() -> None:
                with pytest.raises(CallTimeout):
                    await pool.call("once", timeout=1)

            first = pool._number + 1
            for task in (caller, caller, hasty):
                nursery.start_soon(task)
                await trio.testing.wait_all_tasks_blocked()
            for number in (first, first + 1):
                await trio.sleep(1 if number == first else 0.5)
                result = messages.Result(number, number)
                launcher.worker(0).emit(frames.pack(messages.encode(result), 4096))
            while len(answers) < 2:
                await trio.sleep(0.1)
            assert answers == [first, first + 1]


@pytest.mark.parametrize("wrong", [-1, math.nan, "1", True, -math.inf, 10**400])
async def test_a_timeout_that_is_none(simulation: Any, autojump_clock: Any, wrong: Any) -> None:
    async with simulation() as (pool, launcher):
        with pytest.raises(ConfigError, match="timeout"):
            await pool.call("echo", {"token": 1}, timeout=wrong)
        with pytest.raises(ConfigError, match="timeout"):
            async with pool.checkout(timeout=wrong):
                pass
        assert launcher.witness.executions == []


async def test_the_loop_was_blocked(simulation: Any, mock_clock: Any) -> None:
    """The process stood still past the deadline, and the answer had come in meanwhile: it is delivered.

    Trio shuffles the clock's task and the caller's; in twenty rounds both orders come up.
    """
    mock_clock.autojump_threshold = 0

    def stand_still(call: Any, memory: Any) -> object:
        mock_clock.jump(60)
        return "in time"

    for _ in range(20):
        async with simulation(Behaviour(calls={1: (Begin(), Reply(stand_still), Finish())})) as (
            pool,
            launcher,
        ):
            assert await pool.call("echo", timeout=5) == "in time"
            assert pool.snapshot().ended == {"answered": 1}


async def test_the_loop_was_blocked_and_no_pipe_holds_the_answer(simulation: Any, mock_clock: Any) -> None:
    """The first bytes of it prove that there is one; the worker could not send the rest before."""
    mock_clock.autojump_threshold = 0

    def stand_still(call: Any, memory: Any) -> object:
        mock_clock.jump(60)
        return "x" * 5000

    play = (Begin(), Reply(stand_still), Finish())
    for _ in range(20):
        async with simulation(Behaviour(calls={1: play}, capacity=64)) as (pool, launcher):
            assert await pool.call("echo", timeout=5) == "x" * 5000
            assert len(launcher.alive) == launcher.witness.launched == 1


async def test_the_loop_was_blocked_again_while_the_answer_came_in(simulation: Any, mock_clock: Any) -> None:
    mock_clock.autojump_threshold = 0

    def stand_still(call: Any, memory: Any) -> object:
        mock_clock.jump(60)
        return "x" * 5000

    async def block() -> None:
        await trio.sleep(60.3)
        mock_clock.jump(60)

    slow = Behaviour(calls={1: (Begin(), Reply(stand_still), Finish())}, chunk=64, chunk_seconds=0.01)
    async with simulation(slow) as (pool, launcher), trio.open_nursery() as nursery:
        nursery.start_soon(block)
        assert await pool.call("echo", timeout=5) == "x" * 5000
        assert len(launcher.alive) == launcher.witness.launched == 1


async def test_the_loop_was_blocked_and_the_worker_sends_half_a_frame(simulation: Any, mock_clock: Any) -> None:
    """It gets a second, not more."""
    mock_clock.autojump_threshold = 0

    def stand_still(call: Any, memory: Any) -> object:
        mock_clock.jump(60)
        return "x" * 50

    async with simulation(Behaviour(calls={1: (Begin(), Reply(stand_still, share=0.5), Hang())})) as (pool, launcher):
        begins = trio.current_time()
        with pytest.raises(CallTimeout):
            await pool.call("echo", timeout=5)
        assert trio.current_time() - begins == 61


@pytest.mark.parametrize("blocked", [0.5, 1.5, 60.0])
@pytest.mark.parametrize("launch", [0.1, 1.0])
async def test_the_loop_was_blocked_while_a_worker_came_up(
    simulation: Any, mock_clock: Any, blocked: float, launch: float
) -> None:
    """Its hello was there, or it would have been, had it been told what to become."""
    mock_clock.autojump_threshold = 0

    async def block() -> None:
        await trio.sleep(0.5)
        mock_clock.jump(blocked)

    for _ in range(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(block)
            behaviour = Behaviour(launch_seconds=launch, boot=(Wait(0.1), Hello()))
            async with simulation(behaviour, init_timeout=1.3) as (pool, launcher):
                assert launcher.witness.launched == 1


async def test_the_loop_was_blocked_and_the_worker_hangs_in_its_setup(simulation: Any, mock_clock: Any) -> None:
    mock_clock.autojump_threshold = 0
    begins = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_block, mock_clock)
        with pytest.raises(PoolStartError, match="init_timeout"):
            async with simulation(Behaviour(boot=(Hang(),)), init_timeout=5):
                pass
    assert trio.current_time() - begins == 61.5


async def _block(clock: trio.testing.MockClock) -> None:
    await trio.sleep(0.5)
    clock.jump(60)
