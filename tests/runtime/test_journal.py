"""State that lives in workers, declared so that each new one is told it again.

`remember` is written to the journal under its key, `forget` takes it out. A worker is told what it
lacks before it gets its next call, so that all of them agree without anybody waiting for all.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio

from remuda.specs.behaviour import Begin, Behaviour, Command, Die, Finish, Hang, Reply, Script, Wait
from remuda.statemachines.errors import OutcomeUnknown, RemoteError


def replays(launcher: Any) -> list[tuple[int, str]]:
    """What was replayed: in which generation, and which key."""
    return [(one.generation, one.call.args["key"]) for one in launcher.witness.executions if one.quiet]


async def test_a_new_worker_is_told_what_the_old_one_knew(simulation: Any, autojump_clock: Any) -> None:
    async with simulation() as (pool, launcher):
        for key, value in (("a", 1), ("b", 2), ("a", 3)):
            await pool.call("remember", {"key": key, "value": value})
        for _ in range(3):
            launcher.worker(0).crash()
            await trio.testing.wait_all_tasks_blocked()
            assert await pool.call("recall", {"key": "a"}) == 3
            assert await pool.call("recall", {"key": "b"}) == 2
        # Each key once in each generation, and the overwritten value never.
        assert sorted(replays(launcher)) == [(g, key) for g in (2, 3, 4) for key in ("a", "b")]
        assert all(one.call.args["value"] in (2, 3) for one in launcher.witness.executions if one.quiet)
        assert pool.snapshot().ended == {"answered": 9}  # replays are nobody's calls


async def test_what_was_forgotten_is_not_replayed(simulation: Any, autojump_clock: Any) -> None:
    async with simulation() as (pool, launcher):
        for key in ("a", "b"):
            await pool.call("remember", {"key": key, "value": 1})
        await pool.call("forget", {"key": "a"})
        launcher.worker(0).crash()
        with pytest.raises(RemoteError, match="KeyError"):
            await pool.call("recall", {"key": "a"})
        assert await pool.call("recall", {"key": "b"}) == 1
        assert replays(launcher) == [(2, "b")]


async def test_all_workers_agree(simulation: Any, autojump_clock: Any) -> None:
    """What one was told, the next knows before its next call; also what it is to forget."""
    async with simulation(min_workers=2, max_workers=2) as (pool, launcher):
        async with pool.checkout() as one, pool.checkout() as other:
            await one.call("remember", {"key": "a", "value": 1})
            assert await other.call("recall", {"key": "a"}) == 1
            await other.call("remember", {"key": "a", "value": 2})
            assert await one.call("recall", {"key": "a"}) == 2
            await one.call("forget", {"key": "a"})
            for worker in (one, other):
                with pytest.raises(RemoteError, match="KeyError"):
                    await worker.call("recall", {"key": "a"})


async def test_nobody_is_told_twice(simulation: Any, autojump_clock: Any) -> None:
    """A worker is told what is new, and not again what it knows."""
    async with simulation(min_workers=2, max_workers=2) as (pool, launcher):
        async with pool.checkout() as one, pool.checkout() as other:
            for number in range(5):
                await one.call("remember", {"key": str(number), "value": number})
                assert await other.call("recall", {"key": str(number)}) == number
        assert [key for _, key in replays(launcher)] == ["0", "1", "2", "3", "4"]


async def test_what_failed_is_not_written(simulation: Any, autojump_clock: Any) -> None:
    def refuse(call: Any, memory: Any) -> object:
        raise ValueError("not this one")

    behaviour = Behaviour(commands={"refuse": Command((Begin(), Reply(refuse), Finish()), journal="key")})
    async with simulation(behaviour) as (pool, launcher):
        with pytest.raises(RemoteError):
            await pool.call("refuse", {"key": "a"})
        launcher.worker(0).crash()
        assert await pool.call("echo", {"token": 1}) == 1
        assert replays(launcher) == []


async def test_what_has_no_known_outcome_is_not_written(simulation: Any, autojump_clock: Any) -> None:
    cast = Script({(0, 1): Behaviour(calls={1: (Begin(), Die())})})
    async with simulation(cast) as (pool, launcher):
        with pytest.raises(OutcomeUnknown):
            await pool.call("remember", {"key": "a", "value": 1})
        with pytest.raises(RemoteError, match="KeyError"):
            await pool.call("recall", {"key": "a"})


async def test_an_answer_that_came_with_the_death_is_written(simulation: Any, autojump_clock: Any) -> None:
    cast = Script({(0, 1): Behaviour(calls={1: (Begin(), Reply(lambda call, memory: None), Die())})})
    async with simulation(cast) as (pool, launcher):
        await pool.call("remember", {"key": "a", "value": 1})
        assert await pool.call("recall", {"key": "a"}) == 1


@pytest.mark.parametrize("play", [(Begin(), Die()), (Begin(), Reply(share=0.5), Die()), (Die(),)])
async def test_a_worker_dies_of_its_replay(simulation: Any, autojump_clock: Any, play: Any) -> None:
    """It never served; the next one is told again, and the call in the meantime waits."""
    cast = Script({(0, 2): Behaviour(calls={1: play})})
    async with simulation(cast) as (pool, launcher):
        await pool.call("remember", {"key": "a", "value": 1})
        launcher.worker(0).crash()
        assert await pool.call("recall", {"key": "a"}) == 1
        assert launcher.witness.launched == 3


async def test_a_replay_that_fails(simulation: Any, autojump_clock: Any) -> None:
    """A worker that cannot be told what the others know must not serve."""

    def moody(call: Any, memory: Any) -> object:
        raise ValueError("not today")

    cast = Script({(0, 2): Behaviour(commands={"remember": Command((Begin(), Reply(moody), Finish()), journal="key")})})
    async with simulation(cast) as (pool, launcher):
        await pool.call("remember", {"key": "a", "value": 1})
        launcher.worker(0).crash()
        assert await pool.call("recall", {"key": "a"}) == 1
        assert launcher.witness.launched == 3
        assert pool.last_death is not None
        assert "it could not replay 'remember' from the journal: ValueError: not today" in pool.last_death.cause


async def test_a_call_behind_a_replay_that_kills(simulation: Any, autojump_clock: Any) -> None:
    """An entry is replayed in front of a call, and the worker dies of it: the call has not begun."""
    cast = Script({(1, 1): Behaviour(calls={1: (Begin(), Die())})})
    async with simulation(cast, min_workers=2, max_workers=2) as (pool, launcher):
        async with pool.checkout() as one:
            if one.slot == 1:
                async with pool.checkout() as zero:
                    await zero.call("remember", {"key": "a", "value": 1})
            else:
                await one.call("remember", {"key": "a", "value": 1})
                assert await pool.call("recall", {"key": "a"}) == 1
        assert await pool.call("recall", {"key": "a"}) == 1


async def test_in_a_session_it_is_for_everybody(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(min_workers=2, max_workers=2) as (pool, launcher):
        await pool.session("s").call("remember", {"key": "a", "value": 1})
        async with pool.checkout() as one, pool.checkout() as other:
            assert await one.call("recall", {"key": "a"}) == 1
            assert await other.call("recall", {"key": "a"}) == 1


def slow_memory(seconds: float) -> Behaviour:
    """`remember` takes its time."""
    play = (Begin(), Wait(seconds), Reply(lambda call, memory: memory.update({call.args["key"]: 1})), Finish())
    return Behaviour(commands={"remember": Command(play, journal="key")})


async def test_a_journal_may_take_longer_than_a_start(simulation: Any, autojump_clock: Any) -> None:
    """Each entry has the time of a call: else no worker would ever come up again."""
    async with simulation(slow_memory(8), init_timeout=10, call_timeout=9) as (pool, launcher):
        for key in "abc":
            await pool.call("remember", {"key": key})
        launcher.worker(0).crash()
        before = trio.current_time()
        assert await pool.call("recall", {"key": "c"}, timeout=60) == 1
        assert trio.current_time() - before == 24
        assert launcher.witness.launched == 2


async def test_an_entry_that_hangs_has_the_time_of_a_call(simulation: Any, autojump_clock: Any) -> None:
    commands = {"remember": Command((Begin(), Reply(), Finish()), journal="key", timeout=20.0)}
    hanging = {"remember": Command((Begin(), Hang()), journal="key", timeout=20.0)}
    script = Script(
        {(0, 1): Behaviour(commands=commands), (0, 2): Behaviour(commands=hanging)}, Behaviour(commands=commands)
    )
    async with simulation(script, init_timeout=5) as (pool, launcher):
        await pool.call("remember", {"key": "a"})
        launcher.worker(0).crash()
        before = trio.current_time()
        assert await pool.call("echo", {"token": 1}) == 1
        assert trio.current_time() - before >= 20
        assert launcher.witness.launched == 3
        assert pool.last_death is not None
        assert pool.last_death.cause == "it took longer to repeat an entry of the journal than a call has time"


async def test_where_calls_have_no_bound_a_replay_has_that_of_a_start(simulation: Any, autojump_clock: Any) -> None:
    hanging = {"remember": Command((Begin(), Hang()), journal="key")}
    script = Script({(0, 2): Behaviour(commands=hanging)})
    async with simulation(script, init_timeout=5, call_timeout=math.inf) as (pool, launcher):
        await pool.call("remember", {"key": "a", "value": 1})
        launcher.worker(0).crash()
        with trio.fail_after(60):
            assert await pool.call("recall", {"key": "a"}) == 1
        assert launcher.witness.launched == 3
