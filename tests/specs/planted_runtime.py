"""Known bugs of pools, planted in the runtime and in the bridge: each must be called by its name.

A bug is a small patch on the real code. Next to it stands the rule that must notice it, and what it is
like: bugs of this kind were in pools that people used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
import trio

from remuda.bridge import messages
from remuda.bridge.journal import Journal
from remuda.bridge.seam import Evidence
from remuda.runtime.handles import Lease
from remuda.runtime.link import Link
from remuda.runtime.pool import Pool
from remuda.runtime.ticket import Ticket
from remuda.specs.probe import PLANS
from remuda.specs.program import Program, Turn
from remuda.specs.simulated import SimWorker
from remuda.statemachines import effects as fx
from remuda.statemachines import events as ev
from remuda.statemachines.core import Core
from remuda.statemachines.crew import Crew
from remuda.statemachines.errors import Interrupted
from remuda.statemachines.subjects import Call, Rung, Worker
from remuda.statemachines.timers import Timers

__all__ = ["BUGS", "Bug"]

Plant = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Bug:
    """A planted bug.

    Attributes:
        name: what is wrong, in words.
        rules: the rules any of which may be the first to notice.
        plant: how it is brought about.
        seen_in: where the like of it was.
        plans: what callers ask for while it is looked for.
        seed: where the search begins; one that gets there soon.
        fields: of `PoolConfig`, that are fixed while it is looked for.
    """

    name: str
    rules: tuple[str, ...]
    plant: Plant
    seen_in: str
    plans: tuple[str, ...]
    seed: int
    fields: dict[str, Any] = field(default_factory=dict[str, Any])


BUGS: list[Bug] = []


def bug(
    *rules: str, seen_in: str, plans: tuple[str, ...] = tuple(PLANS), seed: int = 1, **fields: Any
) -> Callable[[Plant], Plant]:
    def register(plant: Plant) -> Plant:
        BUGS.append(Bug(plant.__name__.replace("_", " "), rules, plant, seen_in, plans, seed, fields))
        return plant

    return register


@bug("no_dirty_worker", "answers_reach_their_callers", seen_in="pools that return a worker after a timeout")
def a_worker_whose_call_timed_out_goes_back_to_the_pool(patch: pytest.MonkeyPatch) -> None:
    condemn = Crew.condemn

    def spare(crew: Crew, worker: Worker, cause: str, now: float, *, on_purpose: bool) -> None:
        if on_purpose and worker.state == "busy":
            crew.release(worker, now, unfit=False)
        else:
            condemn(crew, worker, cause, now, on_purpose=on_purpose)

    patch.setattr(Crew, "condemn", spare)


@bug("at_most_once", "died_only_before_it_began", seen_in="retries after a crash, without evidence")
def a_call_that_began_counts_as_not_begun(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SimWorker, "evidence", lambda worker: Evidence(0, 0, 0))


@bug(
    "unknown_only_where_it_began", "died_only_before_it_began", seen_in="pools that call every crash an unknown outcome"
)
def a_call_that_did_not_begin_counts_as_begun(patch: pytest.MonkeyPatch) -> None:
    looks = count(1)
    patch.setattr(SimWorker, "evidence", lambda worker: Evidence(0, 0, next(looks)))


@bug(
    "no_death_without_a_cause",
    seen_in="pools that classify a death before the channel is drained",
    plans=("die answered", "answer"),
)
def what_a_worker_said_before_it_died_is_not_read(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Link, "_read_the_rest", lambda link, process: None)
    patch.setattr(Link, "read", lambda link: False if link.process is None or not link.process.alive else _read(link))  # type: ignore[attr-defined]


_read = Link.read


@bug("journal_is_kept", seen_in="the pool this one answers: a program was known to one worker of many")
def what_was_noted_is_not_told_to_other_workers(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Link, "_replay", lambda link: b"")


@bug("journal_is_kept", seen_in="caches that forget what is deleted")
def what_was_taken_back_stays_in_other_workers(patch: pytest.MonkeyPatch) -> None:
    record = Journal.record

    def forget(journal: Journal, info: messages.CommandInfo, command: str, args: Any) -> Any:
        return None if info.forgets else record(journal, info, command, args)

    patch.setattr(Journal, "record", forget)


@bug(
    "accounts_agree",
    "departed_waiters_vanish",
    seen_in="psycopg_pool: waiters that timed out stayed in the queue",
    seed=3,
)
def a_waiter_that_was_cancelled_is_still_counted(patch: pytest.MonkeyPatch) -> None:
    feed = Pool.feed

    def lose(pool: Pool, event: ev.Event) -> None:
        if not (isinstance(event, ev.GiveUp) and event.call.worker is None):
            feed(pool, event)

    patch.setattr(Pool, "feed", lose)


@bug("accounts_agree", "it_heals", seen_in="httpcore, mysql2: a connection lost when its holder was cancelled")
def a_worker_is_not_given_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Lease, "give_back", lambda lease: None)


@bug("deadlines_are_kept", "stand_still", seen_in="timers that are armed once and not moved forward")
def the_clock_is_not_told_of_an_earlier_deadline(patch: pytest.MonkeyPatch) -> None:
    feed = Pool.feed

    def forget(pool: Pool, event: ev.Event) -> None:
        nap, pool._nap = pool._nap, trio.CancelScope()
        try:
            feed(pool, event)
        finally:
            pool._nap = nap

    patch.setattr(Pool, "feed", forget)


@bug("accounts_agree", "deadlines_are_kept", "stand_still", seen_in="lost wake-ups, in nearly every pool", seed=2)
def a_caller_is_not_woken_by_its_answer(patch: pytest.MonkeyPatch) -> None:
    def answered(ticket: Ticket, answer: fx.Answer) -> None:
        ticket.answer = answer
        if answer.verdict is not fx.Verdict.TIMED_OUT:
            ticket.wake()

    patch.setattr(Ticket, "answered", answered)


@bug(
    "it_heals",
    "everybody_is_answered",
    "close_ends",
    "stand_still",
    seen_in="workers that are given up and never killed",
)
def a_kill_does_not_arrive(patch: pytest.MonkeyPatch) -> None:
    stop = Link.stop

    def gently(link: Link, rung: Rung) -> None:
        if rung is not Rung.KILL:
            stop(link, rung)
        else:
            link.over = True

    patch.setattr(Link, "stop", gently)


@bug("nothing_is_left", seen_in="descriptors that leak with each worker")
def descriptors_of_the_dead_stay_open(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SimWorker, "close", lambda worker: None)


@bug(
    "answers_are_earned",
    "answers_reach_their_callers",
    "fifo_within_a_lane",
    seen_in="channels that are shared or out of step",
    plans=("answer another", "answer twice", "slow"),
)
def an_answer_goes_to_whoever_is_next(patch: pytest.MonkeyPatch) -> None:
    take, check = Link._take, Link._must_be_asked_for

    def blind(link: Link, message: messages.ToParent) -> None:
        if isinstance(message, messages.Result | messages.Failure):
            if not link._expected:
                return
            kind = type(message)
            rest = (message.value,) if isinstance(message, messages.Result) else (message.error, message.kind)
            message = kind(link._expected[0][0], *rest)  # type: ignore[arg-type]
        take(link, message)

    def lenient(link: Link, message: messages.ToParent, place: int) -> None:
        if not isinstance(message, messages.Result | messages.Failure):
            check(link, message, place)

    patch.setattr(Link, "_take", blind)
    patch.setattr(Link, "_must_be_asked_for", lenient)


@bug(
    "errors_reach_their_callers",
    seen_in="signals that arrive when what they were meant for is over",
    plans=("slow",),
    on_timeout="interrupt",
    max_workers=1,
    min_workers=1,
    max_waiting=1000,
)
def an_interrupt_that_comes_again_hits_the_next_call(patch: pytest.MonkeyPatch) -> None:
    user_code = Program._user_code

    async def hit(program: Program, turn: Turn | None, deaf: bool, async_fn: Any, *args: object) -> None:
        process = program._process
        if turn is not None and turn.execution is not None and 0 < process.to_stop < turn.call.id:
            process.to_stop = 0
            raise Interrupted
        await user_code(program, turn, deaf, async_fn, *args)

    patch.setattr(Program, "_user_code", hit)


@bug("permits_end_with_their_calls", seen_in="pybreaker, purgatory: probes that were cancelled kept their permit")
def a_probe_that_is_cancelled_keeps_its_permit(patch: pytest.MonkeyPatch) -> None:
    conclude = Core._conclude

    def keep(core: Core, call: Call, verdict: fx.Verdict, *rest: Any, **more: Any) -> None:
        if verdict in (fx.Verdict.CANCELLED, fx.Verdict.TIMED_OUT):
            call.permit = None
        conclude(core, call, verdict, *rest, **more)

    patch.setattr(Core, "_conclude", keep)


@bug(
    "one_deadline_bounds_it",
    "deadlines_are_kept",
    "only_legal_steps",
    seen_in="timers of a predecessor that still fire",
)
def a_timer_that_was_set_aside_still_comes_up(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Timers, "disarm", lambda timers, armed: None)


@bug("deadlines_are_told_apart", seen_in="pools whose timeout cannot be told from the caller's own")
def a_deadline_around_a_call_is_turned_into_a_timeout(patch: pytest.MonkeyPatch) -> None:
    outcome = Pool._outcome

    async def swallow(pool: Pool, ticket: Ticket) -> object:
        with trio.CancelScope(shield=True):
            return await outcome(pool, ticket)

    patch.setattr(Pool, "_outcome", swallow)
