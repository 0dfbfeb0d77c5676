"""A worker dies, or breaks the rules, at every moment of a call.

What its caller gets depends on what is proven and nothing else: that it had not begun, that it had,
or that the answer was there.
"""

from __future__ import annotations

import signal
from typing import Any

import pytest
import trio

from remuda.bridge import frames, messages
from remuda.runtime.config import Breaker, Restart, Retry
from remuda.runtime.snapshot import PoolSnapshot
from remuda.specs.behaviour import (
    ANSWER,
    Begin,
    Behaviour,
    Command,
    Die,
    Emit,
    Finish,
    Fork,
    Freeze,
    Hang,
    HangUp,
    Reply,
    Say,
    Script,
    Send,
    Wait,
)
from remuda.specs.simulated import SimWorker
from remuda.specs.witness import by_argument
from remuda.statemachines.errors import (
    CallTimeout,
    FrameTooLarge,
    OutcomeUnknown,
    PoolFailed,
    ProtocolError,
    RemoteError,
    SerializationError,
    UnknownCommand,
    WorkerDied,
)
from remuda.statemachines.pool import PoolState

PATIENT = Breaker(failures=1000)


def once(*play: Any) -> Script:
    """The first call of the first worker goes like this; everything else goes well."""
    return Script({(0, 1): Behaviour(calls={1: play})})


# ── Before it began ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "play",
    [
        (Die(),),
        (Die(0),),
        (Wait(1), Die(7)),
        (HangUp(), Hang()),
        (Wait(1), Emit(b"\x00\x00\x00\x02zz"), Hang()),
        (Emit(b"\xff" * 100), Hang()),
        (Reply(share=0.5), Die()),
        (Reply(shift=1), Hang()),
    ],
)
async def test_what_had_not_begun_is_handed_over(simulation: Any, autojump_clock: Any, play: Any) -> None:
    """The same caller gets its answer from another worker, and does not even notice."""
    key = by_argument("token")
    async with simulation(once(*play), key=key) as (pool, launcher):
        assert await pool.call("once", {"token": "mine"}) == "mine"
        assert launcher.witness.begun == {("token", "mine"): 1}
        assert pool.snapshot().ended == {"answered": 1}
        assert pool.last_death is not None and pool.last_death.generation == 1
        await pool.wait_for(PoolState.READY)


async def test_it_is_handed_over_before_it_is_known_how_its_worker_ended(
    simulation: Any, autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who reaps it may be busy, or stand still. That it has not begun is known without."""
    told, wait = trio.Event(), SimWorker.wait

    async def late(worker: SimWorker) -> int | None:
        if worker.order.generation == 1:
            await told.wait()
        return await wait(worker)

    monkeypatch.setattr(SimWorker, "wait", late)
    async with simulation(Script({(0, 1): Behaviour(calls={2: (Die(3),)})})) as (pool, launcher):
        assert await pool.call("echo", {"token": 1}) == 1
        assert await pool.call("once", {"token": "mine"}) == "mine"
        assert pool.last_death is None
        told.set()
        await trio.testing.wait_all_tasks_blocked()
        assert pool.last_death is not None and pool.last_death.exit_status == 3
        assert pool.last_death.cause == "it closed its channel, and ended with exit status 3"


async def test_a_pool_that_fails_of_it_says_how_it_ended(simulation: Any, autojump_clock: Any) -> None:
    """The last worker of a pool came to nothing: then its call is not handed over, and there is an end to tell of."""
    deadly = Behaviour(commands={"poison": Command((Say("last words"), Die(3)))})
    fields = {"restart": Restart(burst=1, period=1000), "breaker": PATIENT}
    async with simulation(deadly, **fields) as (pool, launcher):
        with pytest.raises(PoolFailed, match="and ended with exit status 3") as caught:
            await pool.call("poison")
        assert caught.value.last_death is not None
        assert caught.value.last_death.generation == launcher.witness.launched
        assert caught.value.last_death.stderr_tail == ("last words",)


async def test_a_call_that_was_seen_to_begin_is_lost_with_an_account_whatever_its_worker_writes_later(
    simulation: Any, autojump_clock: Any
) -> None:
    lost: list[OutcomeUnknown] = []

    async def call(pool: Any) -> None:
        with pytest.raises(OutcomeUnknown, match="and ended with exit status 3") as caught:
            await pool.call("hang")
        lost.append(caught.value)

    async with simulation() as (pool, launcher):
        assert await pool.call("echo", {"token": 1}) == 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, pool)
            await trio.testing.wait_all_tasks_blocked()
            assert pool.snapshot().workers[0].phase == "running"
            worker = launcher.worker(0)
            worker._process.starts = 1
            worker.crash(3)
        assert lost[0].last_death is not None and lost[0].last_death.exit_status == 3


async def test_the_next_spare_does_not_wait_if_somebody_waits_for_it(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(Behaviour(commands={"once": Command((Wait(0.002), *ANSWER))}), spares=1) as (pool, launcher):
        assert await pool.call("echo", {"token": 1}) == 1
        await launcher.until(lambda: launcher.witness.launched == 2)
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.call, "once", {"token": 2})
            await trio.testing.wait_all_tasks_blocked()
            begins = trio.current_time()
            for worker in list(launcher.alive):
                worker.crash()
        assert trio.current_time() == pytest.approx(begins + 0.002)


async def test_who_waits_for_an_answer_goes_before_the_dead_and_the_spare(
    simulation: Any, autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[float] = []

    async def search(worker: SimWorker, after: float = 0.0) -> None:
        searched.append(trio.current_time() + after)

    monkeypatch.setattr(SimWorker, "kill_escaped", search)
    slow = {"once": Command((Wait(0.002), *ANSWER))}
    mortal = Behaviour(commands=slow, calls={2: (Die(),)})
    behaviour = Script({(0, 1): mortal, (1, 1): mortal}, Behaviour(commands=slow))
    async with simulation(behaviour, spares=1) as (pool, launcher):
        assert await pool.call("echo", {"token": 1}) == 1
        begins = trio.current_time()
        assert await pool.call("once", {"token": "mine"}) == "mine"
        assert trio.current_time() - begins == pytest.approx(0.002)
        assert launcher.witness.launched == 2
        await pool.wait_for(PoolState.READY)
        await trio.sleep(0.1)
        assert launcher.witness.launched == 3
        assert searched == [pytest.approx(begins + 0.01)]
        for slot in (0, 1):
            launcher.worker(slot).crash()
        begins = trio.current_time()
        await trio.testing.wait_all_tasks_blocked()
        assert searched[1:] == [begins, begins], "nobody waits"


async def test_handing_over_has_a_bound(simulation: Any, autojump_clock: Any) -> None:
    """A call whose mere arrival kills is not given to worker after worker for ever."""
    deadly = Behaviour(commands={"poison": Command((Die(),))})
    async with simulation(deadly, retry=Retry(handovers=2)) as (pool, launcher):
        with pytest.raises(WorkerDied, match="given to 3 workers") as caught:
            await pool.call("poison")
        assert caught.value.context["attempts"] == 0
        assert pool.snapshot().ended == {"died": 1}
        assert caught.value.last_death is not None and caught.value.last_death.generation == 3, "it was waited for"
        assert await pool.call("echo", {"token": 1}) == 1
    assert launcher.witness.begun.total() == 1


async def test_a_worker_that_died_idle_is_noticed_before_the_call_is_given_to_it(
    simulation: Any, autojump_clock: Any
) -> None:
    async with simulation() as (pool, launcher):
        launcher.worker(0).crash(3)
        assert await pool.call("once", {"token": 1}) == 1  # nobody has looked yet that it is gone
        assert launcher.witness.launched == 2
        launcher.worker(0).crash(3)
        await trio.testing.wait_all_tasks_blocked()  # now it is replaced
        assert await pool.call("once", {"token": 2}) == 2
        assert pool.last_death is not None and pool.last_death.exit_status == 3


# ── After it began ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("play", [(Begin(), Die()), (Begin(), Reply(share=0.5), Die())])
async def test_what_had_begun_is_not_repeated(simulation: Any, autojump_clock: Any, play: Any) -> None:
    async with simulation(once(*play), key=by_argument("token")) as (pool, launcher):
        with pytest.raises(OutcomeUnknown, match="mark it idempotent=True") as caught:
            await pool.call("once", {"token": "mine"})
        assert caught.value.context["attempts"] == 1
        assert not caught.value.recoverable
        assert "it closed its channel, and was killed by SIGKILL" in str(caught.value)
        assert pool.snapshot().ended == {"unknown": 1}
        assert await pool.call("once", {"token": "next"}) == "next"
        assert launcher.witness.begun == {("token", "mine"): 1, ("token", "next"): 1}


@pytest.mark.parametrize(
    "play",
    [
        (Begin(), Die()),
        (Begin(), Reply(share=0.5), Die()),
        (Begin(), HangUp(), Hang()),
        (Begin(), Emit(b"\xff" * 9), Hang()),
        (Begin(), Reply(shift=1), Hang()),
    ],
)
async def test_what_is_idempotent_is_repeated(simulation: Any, autojump_clock: Any, play: Any) -> None:
    async with simulation(once(*play), key=by_argument("token")) as (pool, launcher):
        assert await pool.call("echo", {"token": "mine"}) == "mine"
        assert launcher.witness.begun == {("token", "mine"): 2}
        assert pool.snapshot().ended == {"answered": 1}
    async with simulation(once(*play), key=by_argument("token")) as (pool, launcher):
        assert await pool.call("once", {"token": "mine"}, idempotent=True) == "mine"  # the caller may say it, too
        assert launcher.witness.begun == {("token", "mine"): 2}


async def test_repeating_has_a_bound(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(retry=Retry(attempts=4)) as (pool, launcher):
        with pytest.raises(OutcomeUnknown, match="It was tried 4 times") as caught:
            await pool.call("crash_idempotent")
        assert caught.value.context["attempts"] == 4
        assert launcher.witness.begun.total() == 4
        with pytest.raises(OutcomeUnknown):
            await pool.call("crash_idempotent", idempotent=False)
        assert launcher.witness.begun.total() == 5


async def test_an_answer_in_full_is_delivered(simulation: Any, autojump_clock: Any) -> None:
    """The worker died before it could note that it had finished; what it said still counts."""
    for play in ((Begin(), Reply(), Die()), (Begin(), Reply(), Finish(), Die(9))):
        async with simulation(once(*play)) as (pool, launcher):
            assert await pool.call("once", {"token": "mine"}) == "mine"
            assert pool.snapshot().ended == {"answered": 1}
            assert await pool.call("once", {"token": "next"}) == "next"


async def test_an_answer_is_found_though_its_caller_is_slow_to_look(simulation: Any, autojump_clock: Any) -> None:
    """The worker answered, ended and was reaped before the caller's task ever ran."""
    async with simulation(once(Begin(), Reply(), Die())) as (pool, launcher):
        (link,) = pool._links.values()

        async def serve(ticket: Any) -> None:
            await trio.sleep(1)

        link.serve = serve
        assert await pool.call("once", {"token": "mine"}) == "mine"


async def test_a_child_that_holds_the_channel_hides_no_death(simulation: Any, autojump_clock: Any) -> None:
    """No end of file comes, because a forked child has the descriptors; the exit is seen all the same."""
    for escapes in (False, True):
        async with simulation(once(Begin(), Fork(escapes), Wait(1), Die(4))) as (pool, launcher):
            begins = trio.current_time()
            with pytest.raises(OutcomeUnknown, match="exit status 4"):
                await pool.call("once", {"token": "mine"})
            assert trio.current_time() - begins == 1


# ── Against the rules ───────────────────────────────────────────────────────────────────────────


def too_large(limit: int) -> bytes:
    return frames.pack(b"x" * (limit + 1), limit + 1)


@pytest.mark.parametrize(
    ("play", "says"),
    [
        ((Begin(), Emit(b"\x00\x00\x00\x02zz"), Hang()), ""),
        ((Begin(), Emit(b"print('hello')\n" * 10), Hang()), ""),
        ((Begin(), Emit(too_large(2048)), Hang()), ""),
        ((Begin(), Reply(shift=1), Hang()), "it answered call"),
        ((Begin(), Send(messages.Hello(1, "again", [])), Hang()), "it sent Hello out of turn"),
    ],
)
async def test_garbage_while_it_works(simulation: Any, autojump_clock: Any, play: Any, says: str) -> None:
    async with simulation(once(*play), max_frame_bytes=2048) as (pool, launcher):
        with pytest.raises(ProtocolError, match="broke the rules of its channel") as caught:
            await pool.call("once", {"token": "mine"})
        assert says in str(caught.value)
        assert pool.snapshot().ended == {"violation": 1}
        assert pool.last_death is not None and pool.last_death.exit_status == -signal.SIGKILL
        assert await pool.call("once", {"token": "next"}) == "next"


@pytest.mark.parametrize("garbage", [b"\x00", b"hello", b"\x00\x00\x00\x02zz", b"\xff" * 64])
async def test_garbage_while_it_is_idle(simulation: Any, autojump_clock: Any, garbage: bytes) -> None:
    """It is found before the next call is given to that worker; the call goes to another."""
    async with simulation() as (pool, launcher):
        launcher.worker(0).emit(garbage)
        assert await pool.call("once", {"token": "mine"}) == "mine"
        assert launcher.witness.launched == 2
        assert {one.generation for one in launcher.witness.executions} == {2}
        assert pool.last_death is not None and pool.last_death.exit_status == -signal.SIGKILL


async def test_an_answer_to_nothing(simulation: Any, autojump_clock: Any) -> None:
    """A forged answer to the *next* call must not be taken for it."""
    async with simulation() as (pool, launcher):
        forged = frames.pack(messages.encode(messages.Result(pool._number + 1, "forged")), 1 << 20)
        launcher.worker(0).emit(forged)
        assert await pool.call("once", {"token": "true"}) == "true"
        assert launcher.witness.launched == 2


@pytest.mark.parametrize(
    "play", [(Begin(), Reply(), Reply(), Finish()), (Begin(), Reply(), Finish(), Wait(1), Reply())]
)
async def test_it_answers_twice(simulation: Any, autojump_clock: Any, play: Any) -> None:
    """The first answer is the caller's; the second is nobody's, and costs the worker."""
    async with simulation(once(*play)) as (pool, launcher):
        assert await pool.call("once", {"token": "mine"}) == "mine"
        await trio.sleep(2)
        assert await pool.call("once", {"token": "next"}) == "next"
        assert await pool.call("once", {"token": "third"}) == "third"
        assert launcher.witness.launched == 2
        assert pool.snapshot().ended == {"answered": 3}


async def test_what_it_left_behind_writes_on_and_on(
    simulation: Any, autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its end no more is read than a pipe holds: a child of it may have the other end, and never stop."""
    reads = 0

    def read(worker: SimWorker) -> bytes | None:
        nonlocal reads
        if worker.alive or worker.order.generation > 1:
            return real(worker)
        reads += 1
        assert reads < 1000
        return b"\x03\xff\xff\xff" if reads == 1 else bytes(1000)  # a frame that is never complete

    real = SimWorker.read
    monkeypatch.setattr(SimWorker, "read", read)
    async with simulation(once(Begin(), Die())) as (pool, launcher):
        with pytest.raises(OutcomeUnknown):
            await pool.call("once", {"token": "mine"})
        assert await pool.call("once", {"token": "next"}) == "next"
    assert 0 < reads < 100


async def test_it_closes_its_channel_and_lives_on(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(once(Begin(), HangUp(), Hang())) as (pool, launcher):
        first = launcher.worker(0)
        begins = trio.current_time()
        with pytest.raises(OutcomeUnknown, match="it closed its channel"):
            await pool.call("once", {"token": "mine"})
        assert trio.current_time() == begins  # nobody waits for the deadline
        assert not first.alive
        assert await pool.call("once", {"token": "next"}) == "next"
    async with simulation() as (pool, launcher):  # and while it is idle
        launcher.worker(0).hang_up()
        assert await pool.call("once", {"token": "next"}) == "next"
        assert launcher.witness.launched == 2


# ── Standing still ──────────────────────────────────────────────────────────────────────────────


async def test_it_freezes_while_it_works(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(once(Begin(), Freeze(), Reply(), Finish())) as (pool, launcher):
        first = launcher.worker(0)
        with pytest.raises(CallTimeout, match="its worker was killed"):
            await pool.call("once", {"token": "mine"}, timeout=5)
        await launcher.until(lambda: not first.alive)
        first.thaw()  # it is dead; nothing comes of it
        assert await pool.call("once", {"token": "next"}) == "next"


async def test_it_is_thawed_in_time(simulation: Any, autojump_clock: Any) -> None:
    async with simulation() as (pool, launcher), trio.open_nursery() as nursery:
        worker = launcher.worker(0)
        worker.freeze()

        async def thaw() -> None:
            await trio.sleep(3)
            worker.thaw()

        nursery.start_soon(thaw)
        assert await pool.call("once", {"token": "mine"}, timeout=5) == "mine"
        assert worker.alive


async def test_a_slow_channel_tears_frames(simulation: Any, autojump_clock: Any) -> None:
    """A call and its answer that are many times the size of the pipe pass, byte by byte."""
    behaviour = Behaviour(capacity=64, chunk=7)
    async with simulation(behaviour) as (pool, launcher):
        text = "x" * 5000
        assert await pool.call("once", {"token": text}) == text
        assert launcher.witness.launched == 1


# ── Errors of user code harm no worker ──────────────────────────────────────────────────────────


async def test_what_user_code_raises(simulation: Any, autojump_clock: Any) -> None:
    async with simulation() as (pool, launcher):
        with pytest.raises(RemoteError, match="boo") as caught:
            await pool.call("fail", {"message": "boo"})
        assert "ValueError" in caught.value.type_name
        assert caught.value.context["command"] == "fail"
        with pytest.raises(RemoteError, match="SystemExit"):
            await pool.call("exit", {"status": 3})
        with pytest.raises(UnknownCommand, match="it has: .*echo"):
            await pool.call("no_such")
        with pytest.raises(RemoteError) as missing:
            await pool.call("sleep")
        assert "TypeError" in missing.value.type_name
        with pytest.raises(SerializationError, match="the result of 'unserializable' cannot be sent back"):
            await pool.call("unserializable")
        with pytest.raises(SerializationError, match="the arguments of 'echo' cannot be sent"):
            await pool.call("echo", {"token": object()})
        assert await pool.call("echo", {"token": 1}) == 1
        assert launcher.witness.launched == 1


async def test_what_is_too_large(simulation: Any, autojump_clock: Any) -> None:
    async with simulation(max_frame_bytes=2048) as (pool, launcher):
        with pytest.raises(FrameTooLarge, match="the result of 'large' is too large"):
            await pool.call("large", {"size": 5000})
        with pytest.raises(FrameTooLarge, match="the arguments of 'echo' are too large"):
            await pool.call("echo", {"token": "x" * 5000})
        assert await pool.call("large", {"size": 1000}) == "x" * 1000
        assert launcher.witness.launched == 1


async def test_a_worker_that_says_it_is_unfit(simulation: Any, autojump_clock: Any) -> None:
    """The caller gets its error; the worker is set aside, checked, and comes back if it is well."""
    async with simulation() as (pool, launcher):
        with pytest.raises(RemoteError, match="the worker says so itself"):
            await pool.call("unfit")
        assert [worker.state for worker in pool.snapshot().workers] == ["degraded"]
        assert await pool.call("echo", {"token": 1}) == 1
        assert launcher.witness.launched == 1


async def test_last_words(simulation: Any, autojump_clock: Any) -> None:
    play = (Begin(), Say("Segmentation fault ahead\n"), Say("unfinished"), Die(-signal.SIGSEGV))
    async with simulation(once(*play), name="tea") as (pool, launcher):
        with pytest.raises(OutcomeUnknown) as caught:
            await pool.call("once", {"token": "mine"})
        death = caught.value.last_death
        assert death is not None and death == pool.last_death
        assert (death.slot, death.generation, death.exit_status) == (0, 1, -signal.SIGSEGV)
        assert death.stderr_tail == ("Segmentation fault ahead", "unfinished")
        assert "  | Segmentation fault ahead" in str(caught.value)
        assert "killed by SIGSEGV" in str(caught.value)
        assert isinstance(caught.value.snapshot, PoolSnapshot) and caught.value.snapshot.name == "tea"


async def test_nobody_knows_how_it_ended(simulation: Any, autojump_clock: Any) -> None:
    cast = Script({(0, 1): Behaviour(calls={1: (Begin(), Die())}, status_known=False)})
    async with simulation(cast) as (pool, launcher):
        with pytest.raises(OutcomeUnknown):
            await pool.call("once", {"token": "mine"})
        assert pool.last_death is not None and pool.last_death.exit_status is None
        assert "exit status unknown" in str(pool.last_death)


async def test_crash_after_crash(simulation: Any, autojump_clock: Any) -> None:
    """A worker that had served is replaced at once, and costs no restart; so a crashing command does not
    bring the pool down."""
    async with simulation(breaker=PATIENT) as (pool, launcher):
        for number in range(50):
            assert await pool.call("echo", {"token": number}) == number
            with pytest.raises(OutcomeUnknown):
                await pool.call("crash")
        assert pool.snapshot().restart_tokens == pool.config.restart.burst
        assert trio.current_time() < 1


ALL_PLAYS = [
    ANSWER,
    (Begin(), Die()),
    (Die(),),
    (Begin(), Reply(), Die()),
    (Begin(), Reply(share=0.3), Die()),
]


async def test_many_callers_and_a_mortal_crew(simulation: Any, autojump_clock: Any) -> None:
    """Everybody gets their own answer or an honest error, and nothing runs twice that may not."""

    def cast(order: Any) -> Behaviour:
        play = ALL_PLAYS[order.generation % len(ALL_PLAYS)]
        return Behaviour(calls={2: (Wait(0.01), *play), 3: (Wait(0.02), *play)})

    unknown: list[int] = []
    async with simulation(cast, key=by_argument("token"), max_workers=4, breaker=PATIENT) as (pool, launcher):

        async def caller(number: int) -> None:
            try:
                assert await pool.call("once", {"token": number}) == number
            except OutcomeUnknown:
                unknown.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(caller, number)
        assert launcher.witness.repeated() == {}
        assert launcher.witness.begun.total() == 200
        ended = pool.snapshot().ended
        assert ended == {"answered": 200 - len(unknown), "unknown": len(unknown)}
        assert 0 < len(unknown) < 100
