"""What callers and workers have on record, held against what a pool promises.

First histories made by hand: for each rule at least one that it alone finds fault with, and good ones
that look suspicious. Then histories of the real runtime over simulated workers in trouble, which must
be good, and over bugs that are planted in it, which must not. Then real processes under SIGKILL.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from remuda.bridge.seam import StartOrder
from remuda.runtime import link as link_module
from remuda.runtime.config import Breaker, Restart
from remuda.runtime.opening import open_pool
from remuda.specs.behaviour import Begin, Behaviour, Die, Finish, Hang, Reply, Wait
from remuda.specs.history import Executed, History, Operation, Outcome, WorkerName
from remuda.specs.invariants import InvariantViolated
from remuda.specs.linear import Act, linearize, offence
from remuda.specs.sequential import RULES, broken_rules, judge
from remuda.specs.simulated import SimLauncher
from remuda.statemachines.core import Core
from remuda.statemachines.crew import Crew
from remuda.statemachines.effects import Verdict
from remuda.statemachines.errors import OutcomeUnknown, RemudaError
from remuda.statemachines.subjects import Call, Worker
from remuda.statemachines.waiters import Waiters

from . import trouble

SEEDS = 25
FOLDER = str(Path(__file__).with_name("histories"))


# ── Made by hand ────────────────────────────────────────────────────────────────────────────────


class Book:
    """Writes a history. Times are whole numbers; a call is `(called, returned)`."""

    def __init__(self, size: int | None = 1) -> None:
        self.history = History(size=size)

    def call(
        self, called: float, returned: float | None, outcome: Outcome | None = Outcome.ANSWERED, **facts: Any
    ) -> Any:
        number = len(self.history.operations) + 1
        end = None if returned is None else at(returned)
        for name in ("arrived", "assigned", "settled"):
            if name in facts:
                facts[name] = at(facts[name])
        operation = Operation(number, "call", at(called), key=number, returned=end, outcome=outcome, **facts)
        self.history.operations.append(operation)
        return operation

    def checkout(
        self, called: float, granted: float, released: float | None, worker: WorkerName = (0, 1), **facts: Any
    ) -> Any:
        lease = self.call(called, released, Outcome.RETURNED, is_lease=True, worker=worker, **facts)
        lease.granted, lease.released = at(granted), None if released is None else at(released)
        return lease

    def ran(self, operation: Operation, begun: float, finished: float | None, worker: WorkerName = (0, 1)) -> None:
        end = None if finished is None else at(finished)
        self.history.executions.append(Executed(operation.key, worker, at(begun), end))

    def ended(self, worker: WorkerName, when: float) -> None:
        self.history.ended[worker] = at(when)


def at(time: float) -> tuple[float, int]:
    return (float(time), 0)


BAD: dict[str, list[Any]] = {}
"""The name of a rule → histories that it, and no other, finds fault with."""


def bad(write: Any) -> Any:
    BAD.setdefault(write.__name__.split("__")[0], []).append(write)
    return write


@bad
def nothing_ends_before_it_began(book: Book) -> None:
    book.call(5, 4, Outcome.REFUSED)


@bad
def nothing_ends_before_it_began__granted_before_it_was_asked_for(book: Book) -> None:
    book.checkout(5, 4, 6)


@bad
def nothing_ends_before_it_began__finished_before_it_was_begun(book: Book) -> None:
    book.ran(book.call(1, 9), 5, 4)


@bad
def at_most_once(book: Book) -> None:
    call = book.call(1, 9)
    book.ran(call, 2, None)
    book.ran(call, 4, 5, (0, 2))


@bad
def unknown_only_if_begun(book: Book) -> None:
    book.call(1, 9, Outcome.UNKNOWN)


@bad
def an_answer_was_worked_for(book: Book) -> None:
    book.call(1, 9)


@bad
def an_answer_was_worked_for__by_another(book: Book) -> None:
    book.ran(book.call(1, 9), 2, 3)
    book.call(1, 9)


@bad
def an_answer_is_ones_own(book: Book) -> None:
    book.ran(book.call(1, 9, value=8, expected=7), 2, 3)


@bad
def nothing_begins_after_the_outcome(book: Book) -> None:
    book.ran(book.call(1, 3, Outcome.TIMED_OUT, settled=3, verdict=Verdict.TIMED_OUT), 4, 5)


@bad
def a_worker_goes_with_its_caller(book: Book) -> None:
    book.ran(book.call(1, 3, Outcome.CANCELLED, settled=3, verdict=Verdict.CANCELLED), 2, 4)
    book.ran(book.call(1, 9), 5, 6)


@bad
def first_come_first_served(book: Book) -> None:
    book.ran(book.call(1, 9, arrived=1, assigned=5), 6, 7)
    book.ran(book.call(2, 9, arrived=2, assigned=3), 4, 5)


@bad
def first_come_first_served__the_first_is_never_served(book: Book) -> None:
    book.call(1, 9, Outcome.TIMED_OUT, arrived=1, settled=9, verdict=Verdict.TIMED_OUT, session="tea")
    book.ran(book.call(2, 9, arrived=2, assigned=3, session="tea"), 4, 5)


@bad
def first_come_first_served__a_checkout_waits_in_the_same_lane(book: Book) -> None:
    book.checkout(1, 6, 9, arrived=1, assigned=6)
    book.ran(book.call(2, 9, arrived=2, assigned=3), 4, 5)


@bad
def no_more_holders_than_workers(book: Book) -> None:
    book.checkout(1, 2, 5, (0, 1))
    book.checkout(1, 4, 6, (1, 1))


@bad
def leases_are_linearizable(book: Book) -> None:
    book.history.size = 2
    book.checkout(1, 2, 5)
    book.checkout(1, 4, 6)


@bad
def leases_are_linearizable__somebody_elses_call(book: Book) -> None:
    book.checkout(1, 2, 5)
    book.ran(book.call(1, 9), 3, 4)


@bad
def leases_are_linearizable__a_worker_that_has_ended(book: Book) -> None:
    book.ended((0, 1), 2)
    book.checkout(3, 4, 5, (0, 1))


@bad
def leases_are_linearizable__an_older_worker_after_a_newer_one(book: Book) -> None:
    book.checkout(1, 2, 3, (0, 2))
    book.checkout(4, 5, 6, (0, 1))


@bad
def leases_are_linearizable__its_call_runs_elsewhere(book: Book) -> None:
    book.history.size = 2
    lease = book.checkout(1, 2, 5, (0, 1))
    book.ran(book.call(3, 4, on=lease), 3.5, 4, (1, 1))


@pytest.mark.parametrize(
    ("rule", "write"), [pytest.param(rule, write, id=write.__name__) for rule in BAD for write in BAD[rule]]
)
def test_a_bad_history_is_called_by_its_name(rule: str, write: Any) -> None:
    book = Book()
    write(book)
    assert set(broken_rules(book.history)) == {rule}
    with pytest.raises(InvariantViolated) as caught:
        judge(book.history)
    assert caught.value.name == rule


def test_there_is_a_bad_history_for_every_rule() -> None:
    assert set(BAD) == set(RULES)


GOOD: list[Any] = []


def good(write: Any) -> Any:
    GOOD.append(write)
    return write


@good
def nothing_at_all(book: Book) -> None:
    pass


@good
def somebody_still_waits(book: Book) -> None:
    book.call(1, None, None, arrived=1)


@good
def repeated_because_it_may_be(book: Book) -> None:
    call = book.call(1, 9, idempotent=True)
    book.ran(call, 2, None)
    book.ended((0, 1), 3)
    book.ran(call, 4, 5, (0, 2))


@good
def unknown_and_begun(book: Book) -> None:
    book.ran(book.call(1, 9, Outcome.UNKNOWN), 2, None)


@good
def cancelled_when_the_answer_was_there(book: Book) -> None:
    """The caller did not take it; the pool did, and the worker has nothing in hand."""
    book.ran(book.call(1, 3, Outcome.CANCELLED, settled=3, verdict=Verdict.ANSWERED), 2, 2.5)
    book.ran(book.call(1, 9), 5, 6)


@good
def whoever_has_left_is_not_overtaken(book: Book) -> None:
    book.call(1, 3, Outcome.CANCELLED, arrived=1, settled=3, verdict=Verdict.CANCELLED)
    book.ran(book.call(2, 9, arrived=2, assigned=3.5), 4, 5)


@good
def lanes_do_not_wait_for_each_other(book: Book) -> None:
    book.ran(book.call(1, 9, arrived=1, assigned=5, session="tea"), 6, 7)
    book.ran(book.call(2, 9, arrived=2, assigned=3, session="coffee"), 4, 5)


@good
def two_holders_of_a_worker_whose_first_one_was_slow_to_say_so(book: Book) -> None:
    """The second is granted it while the first has not quite returned."""
    first = book.checkout(1, 2, 5)
    first.returned = at(7)
    book.checkout(1, 6, 8)


@good
def a_worker_that_died_is_nobodys(book: Book) -> None:
    book.checkout(1, 2, 9, (0, 1))
    book.ended((0, 1), 3)
    book.checkout(4, 5, 6, (0, 2))


@good
def a_lease_that_is_never_given_back(book: Book) -> None:
    book.ran(book.call(0, 1), 0.5, 0.75)
    lease = book.checkout(1, 2, None)
    book.ran(book.call(3, 9, on=lease), 4, 5)


@good
def given_back_while_it_works(book: Book) -> None:
    """The call goes on for its caller, and may even begin after that; the worker does not serve again."""
    lease = book.checkout(1, 2, 4)
    book.ran(book.call(3, 9, on=lease), 5, 6)


@pytest.mark.parametrize("write", GOOD, ids=[write.__name__ for write in GOOD])
def test_a_good_history(write: Any) -> None:
    book = Book()
    write(book)
    assert broken_rules(book.history) == {}


def test_a_missing_execution_proves_nothing_where_workers_are_real() -> None:
    book = Book()
    book.history.exact = False
    unknown_only_if_begun(book)
    assert broken_rules(book.history) == {}


def test_the_error_shows_the_part_of_the_history_that_is_impossible() -> None:
    book = Book(size=9)
    for start in range(0, 100, 10):
        book.checkout(start, start + 1, start + 5)
        book.ran(book.call(start + 6, start + 8), start + 7, start + 8, (1, 1))
    book.checkout(40, 43, 44)
    with pytest.raises(InvariantViolated) as caught:
        judge(book.history)
    assert str(caught.value).splitlines() == [
        "leases_are_linearizable: there is no order in which this could have happened to slot 0:",
        "  40.000000 … 41.000000  checkout 9 is given worker 0.1",
        "  40.000000 … 43.000000  checkout 21 is given worker 0.1",
        "  44.000000 … 44.000000  checkout 21 gives it back",
        "  45.000000 … 45.000000  checkout 9 gives it back",
    ]


# ── The search ──────────────────────────────────────────────────────────────────────────────────


def register(operations: list[tuple[str, int, float, float | None]]) -> list[Act[int]]:
    """Reads and writes of one number, which is 0 in the beginning."""
    return [
        Act(
            f"{what} {value}",
            at(begun),
            None if ended is None else at(ended),
            (lambda _, value=value: value) if what == "write" else (lambda held, v=value: held if held == v else None),
            number,
        )
        for number, (what, value, begun, ended) in enumerate(operations)
    ]


def test_a_register() -> None:
    assert linearize(register([]), 0) == []
    overlap = register([("write", 1, 0, 10), ("read", 0, 1, 5), ("read", 1, 6, 7)])
    assert [act.words for act in linearize(overlap, 0) or ()] == ["read 0", "write 1", "read 1"]
    assert linearize(register([("write", 1, 0, 10), ("read", 1, 1, 5), ("read", 0, 6, 7)]), 0) is None
    # What has not ended may have taken effect, or not.
    assert linearize(register([("write", 1, 0, None), ("read", 1, 1, 2)]), 0) is not None
    assert linearize(register([("write", 1, 0, None), ("read", 0, 1, 2)]), 0) is not None
    assert linearize(register([("write", 1, 3, None), ("read", 1, 1, 2)]), 0) is None


@pytest.mark.parametrize("seed", range(30))
def test_against_trying_every_order(seed: int) -> None:
    chance = Random(seed)
    for _ in range(40):
        operations = []
        for _ in range(chance.randint(1, 6)):
            begun = chance.randint(0, 8)
            ended = chance.choice([None, *[begun + chance.randint(0, 6)] * 5])
            operations.append((chance.choice(["read", "write"]), chance.randint(0, 2), begun, ended))
        acts = register(operations)
        assert (linearize(acts, 0) is not None) is possible(acts, 0)
        impossible = offence(acts, 0)
        assert bool(impossible) is not possible(acts, 0)
        for act in impossible:  # none of it can be left out
            assert linearize([other for other in impossible if other is not act], 0) is not None or not possible(
                [other for other in impossible if other is not act], 0
            )


def possible(acts: list[Act[int]], state: int) -> bool:
    """By trying every order."""
    if all(act.ended is None for act in acts):
        return True
    for act in acts:
        rest = [other for other in acts if other is not act]
        if all(other.ended is None or other.ended >= act.begun for other in rest):
            after = act.then(state)
            if after is not None and possible(rest, after):
                return True
    return False


def test_many_that_overlap() -> None:
    """Eight callers at a time, for long, on one lock: each order but one is wrong at every turn."""
    book = Book(size=1)
    for turn in range(400):
        book.checkout(max(0, turn - 8), turn + 0.25, turn + 0.5)
    assert broken_rules(book.history) == {}
    book.checkout(300, 300.3, 300.4)
    assert set(broken_rules(book.history)) == {"leases_are_linearizable", "no_more_holders_than_workers"}


# ── The real runtime, in simulation ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(SEEDS))
def test_in_every_kind_of_trouble(seed: int) -> None:
    history = History()
    trouble.run(seed, history=history)
    judge(history)
    assert all(operation.returned is not None for operation in history.operations)


def test_the_trouble_is_real() -> None:
    """Among a few seeds there is every outcome, and something repeated, and something lost."""
    outcomes: set[Outcome | None] = set()
    repeated = unfinished = held = 0
    for seed in range(12):
        history = History()
        trouble.run(seed, history=history)
        outcomes |= {operation.outcome for operation in history.operations}
        keys = [execution.key for execution in history.executions]
        repeated += len(keys) - len(set(keys))
        unfinished += sum(execution.finished is None for execution in history.executions)
        held += sum(operation.on is not None for operation in history.operations)
    assert outcomes == set(Outcome) - {Outcome.RAISED}
    assert repeated and unfinished and held


async def test_what_is_on_record(autojump_clock: Any) -> None:
    history = History()
    crash = (Begin(), Wait(1), Die())
    async with SimLauncher.open(lambda order: Behaviour(calls={2: crash} if order.generation == 1 else {})) as launcher:
        history.listen(launcher)
        async with open_pool(launcher=launcher, adapter="s:A", max_workers=1, observers=[history]) as pool:
            recorded = history.around(pool)
            assert await recorded.call("once", {"token": 7}, answer=7) == 7
            async with recorded.checkout() as worker:
                with pytest.raises(OutcomeUnknown):
                    await worker.call("once", {"token": 8})
            with pytest.raises(RemudaError):
                await recorded.call("fail", {"message": "boo"})
            with trio.move_on_after(2):
                await recorded.call("hang")
    judge(history)
    first, checkout, lost, failed, left = history.operations
    assert [str(operation.outcome) for operation in history.operations] == [
        "answered", "returned", "unknown", "raised", "timed out" if left.outcome is Outcome.TIMED_OUT else "cancelled",
    ]  # fmt: skip
    assert (first.value, first.expected, first.on, checkout.worker, lost.on) == (7, 7, None, (0, 1), checkout)
    assert failed.verdict is Verdict.ANSWERED and left.verdict is Verdict.TIMED_OUT
    assert [(execution.key, execution.worker) for execution in history.executions] == [
        (first.key, (0, 1)), (lost.key, (0, 1)), (failed.key, (0, 2)), (left.key, (0, 2)),
    ]  # fmt: skip
    assert [execution.finished is None for execution in history.executions] == [False, True, False, True]
    assert lost.returned is not None and lost.returned[0] - lost.invoked[0] == 1
    assert history.size == 1 and set(history.ended) >= {(0, 1), (0, 2)}


async def test_who_comes_back_has_had_its_turn(autojump_clock: Any) -> None:
    """A call whose worker dies before it began is given to another; meanwhile others were served, rightly."""
    slow = Behaviour(calls={1: (Wait(1), Die())})
    history = History()
    async with SimLauncher.open(
        lambda order: slow if (order.slot, order.generation) == (0, 1) else Behaviour()
    ) as launcher:
        history.listen(launcher)
        async with open_pool(
            launcher=launcher, adapter="s:A", min_workers=2, max_workers=2, observers=[history]
        ) as pool:
            recorded = history.around(pool)
            async with trio.open_nursery() as nursery:
                for token in range(6):
                    nursery.start_soon(recorded.call, "sleep_once", {"seconds": 0.2})
                    await trio.sleep(0.01)
    judge(history)
    assert [operation.outcome for operation in history.operations] == [Outcome.ANSWERED] * 6
    waits = [o.settled[0] - o.assigned[0] for o in history.operations if o.settled and o.assigned]
    assert sum(wait > 1 for wait in waits) == 1  # from when it was given a worker first


async def test_a_history_of_another_pool(autojump_clock: Any) -> None:
    history = History()
    async with SimLauncher.open() as launcher:
        async with open_pool(launcher=launcher, adapter="s:A") as pool:
            with pytest.raises(ValueError, match="without this history"):
                history.around(pool)
            with pytest.raises(ValueError, match="nobody has listened"):
                history.listen(launcher)
        async with open_pool(launcher=launcher, adapter="s:A", observers=[history]) as pool:
            history.around(pool)
        async with open_pool(launcher=launcher, adapter="s:A", observers=[history]) as pool:
            with pytest.raises(ValueError, match="take another"):
                history.around(pool)


# ── Planted bugs ────────────────────────────────────────────────────────────────────────────────

PLANTS: dict[str, tuple[set[str], Any]] = {}
"""What is wrong → the rules of which one must say so, and how it is brought about."""


def plant(*rules: str) -> Any:
    def register(patch: Any) -> Any:
        PLANTS[patch.__name__] = (set(rules), patch)
        return patch

    return register


@plant("at_most_once")
def whatever_dies_is_tried_again(patch: pytest.MonkeyPatch) -> None:
    lost = Core._lost

    def again(core: Core, call: Call, *rest: Any) -> None:
        call.idempotent = call.lease is None
        lost(core, call, *rest)

    patch.setattr(Core, "_lost", again)


@plant("at_most_once")
def the_evidence_is_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    lost = Core._lost
    patch.setattr(
        Core, "_lost", lambda core, call, worker, began, draw, now: lost(core, call, worker, False, draw, now)
    )


@plant("unknown_only_if_begun")
def whatever_dies_is_unknown(patch: pytest.MonkeyPatch) -> None:
    lost = Core._lost
    patch.setattr(Core, "_lost", lambda core, call, worker, began, draw, now: lost(core, call, worker, True, draw, now))


@plant("an_answer_is_ones_own")
def answers_are_not_told_apart(patch: pytest.MonkeyPatch) -> None:
    """The worker of a caller who has left goes on, and its late answer is the next caller's."""
    condemn, replied = Crew.condemn, link_module.Link._take_reply

    def spare(crew: Crew, worker: Worker, cause: str, now: float, *, on_purpose: bool) -> None:
        if on_purpose and worker.state == "busy":
            crew.release(worker, now, unfit=False)
        else:
            condemn(crew, worker, cause, now, on_purpose=on_purpose)

    def whose(link: Any, reply: Any) -> None:
        item = link._expected[-1][1] if link._expected else None
        if isinstance(item, Call):
            link._expected.clear()
            link._expected.append((item.id, item))
            reply = type(reply)(item.id, *[getattr(reply, name) for name in reply.__struct_fields__[1:]])
            replied(link, reply)

    patch.setattr(Crew, "condemn", spare)
    patch.setattr(link_module.Link, "_must_be_asked_for", lambda link, message, place: None)
    patch.setattr(link_module.Link, "_take_reply", whose)


@plant("first_come_first_served")
def last_come_first_served(patch: pytest.MonkeyPatch) -> None:
    def last(waiters: Waiters[Call]) -> Call:
        waiter = list(waiters)[-1]
        Waiters.remove(waiters, waiter)
        return waiter

    patch.setattr(Waiters, "first", lambda waiters: list(waiters)[-1])
    patch.setattr(Waiters, "pop", last)


@plant("leases_are_linearizable", "no_more_holders_than_workers")
def a_worker_that_is_held_is_idle(patch: pytest.MonkeyPatch) -> None:
    assign = Core._assign

    def share(core: Core, call: Call, now: float) -> None:
        assign(core, call, now)
        if call.is_lease and call.worker is not None:
            core.crew.release(call.worker, now, unfit=False)

    patch.setattr(Core, "_assign", share)


@plant("nothing_begins_after_the_outcome")
def who_left_is_still_served(patch: pytest.MonkeyPatch) -> None:
    """A worker is not killed for a call it has been sent, but has not begun."""
    patch.setattr(Crew, "condemn", lambda *_, **__: None)


ILL: tuple[Any, ...] = (
    (Die(),),
    (Begin(), Die()),
    (Wait(3), Begin(), Reply(), Finish()),
    (Begin(), Wait(3), Reply(), Finish()),
    (Hang(),),
)
"""What becomes of the second call of a worker; in its fourth it dies."""

PATIENT = Breaker(failures=1000)


async def shift(pool: Any, number: int) -> None:
    """What callers do in the pools with bugs: hold a worker for a while, or call and be in a hurry."""
    token = f"token {number}"
    try:
        if number % 3 == 0:
            async with pool.checkout() as worker:
                await trio.sleep(0.5)
                await worker.call("once", {"token": token}, answer=token)
        else:
            await pool.call("once", {"token": token}, answer=token, timeout=2.5)
    except (RemudaError, AssertionError):
        pass


async def work_for_an_hour() -> History:
    history = History()

    def character(order: StartOrder) -> Behaviour:
        return Behaviour(calls={2: ILL[order.generation % len(ILL)], 4: ILL[order.generation % 2]})

    async with SimLauncher.open(character) as launcher:
        history.listen(launcher)
        async with open_pool(
            launcher=launcher,
            adapter="s:A",
            min_workers=2,
            max_workers=2,
            observers=[history],
            call_timeout=60,
            breaker=PATIENT,
        ) as pool:
            recorded = history.around(pool)
            with trio.move_on_after(3600):
                async with trio.open_nursery() as nursery:
                    for number in range(90):
                        nursery.start_soon(shift, recorded, number)
                        await trio.sleep(0.1)
    return history


@pytest.mark.parametrize("name", PLANTS)
async def test_a_planted_bug_is_on_record(name: str, monkeypatch: pytest.MonkeyPatch, autojump_clock: Any) -> None:
    rules, patch = PLANTS[name]
    judge(await work_for_an_hour())  # it will be the bug, and not the work
    patch(monkeypatch)
    histories: list[History] = []
    kept = History.around
    monkeypatch.setattr(History, "around", lambda self, pool: histories.append(self) or kept(self, pool))
    try:
        with trio.move_on_after(7200):
            await work_for_an_hour()
    except Exception:
        pass  # a pool with a bug may well break down; the history is what it is
    assert rules & set(broken_rules(histories[0])), broken_rules(histories[0])


# ── Real processes ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(2))
async def test_real_processes_under_fire(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    chance = Random(seed)
    history = History(time.perf_counter, exact=False)
    gunman = trouble.Gunman(chance, 15, [signal.SIGKILL] * 8)
    log = tmp_path / "log"
    log.touch()
    with trio.fail_after(60):
        async with open_pool(
            adapter="notary:Notary",
            settings={"log": str(log)},
            min_workers=2,
            max_workers=3,
            observers=[history, gunman],
            breaker=PATIENT,
            restart=Restart(base=0.001, cap=0.01, burst=100),
        ) as pool:
            recorded = history.around(pool)
            async with trio.open_nursery() as nursery:
                for name in range(6):
                    nursery.start_soon(work, Random(chance.random()), recorded, name)
    begun: dict[str, tuple[int, float]] = {}
    finished: dict[str, float] = {}
    for line in log.read_text().splitlines():
        what, token, pid, when = line.split()
        if what == "begun":
            assert token not in begun  # no call here may be repeated
            begun[token] = int(pid), float(when)
        else:
            finished[token] = float(when)
    for token, (pid, when) in begun.items():
        history.executed(token, pid, when, finished.get(token))
    judge(history)
    outcomes = [operation.outcome for operation in history.operations]
    assert outcomes.count(Outcome.ANSWERED) > 100 and outcomes.count(Outcome.RETURNED) > 10
    assert outcomes.count(Outcome.UNKNOWN) >= 6  # those who asked for it, at least
    assert gunman.shots == 8 and len(history.ended) > 6 + 3


async def work(chance: Random, pool: Any, name: int) -> None:
    await call(pool, "die", f"{name}.die")
    for number in range(40):
        token, command = f"{name}.{number}", chance.choice(["once", "linger"])
        with trio.move_on_after(chance.choice([60.0, 60.0, 60.0, 0.003])):
            if number % 4:
                await call(pool, command, token)
                continue
            try:
                async with pool.checkout() as worker:
                    for part in range(3):
                        await call(worker, command, f"{token}.{part}")
            except RemudaError:
                pass


async def call(caller: Any, command: str, token: str) -> None:
    try:
        await caller.call(command, {"token": token}, key=token, answer=token)
    except RemudaError:
        pass
