"""Spares: who stands in for whom, and when. That nothing else changes is for the model checker to say."""

from __future__ import annotations

from typing import Any

from remuda.statemachines import events as ev
from remuda.statemachines.core import Core
from remuda.statemachines.effects import Answer, Effect, SendCall, StartWorker, Stop
from remuda.statemachines.policy import Health, Policy
from remuda.statemachines.pool import PoolState
from remuda.statemachines.subjects import Call, SlotKind, Worker
from remuda.statemachines.worker import WorkerState


class Played:
    """A core, and the workers it has started, in order."""

    def __init__(self, **policy: Any) -> None:
        self.core = Core(Policy(history=3, **policy), 0.0)
        self.workers: list[Worker] = []
        self.calls = 0
        self.do(ev.Open())

    def do(self, event: ev.Event, now: float = 1.0) -> list[Effect]:
        effects = self.core.handle(event, now)
        self.workers += [effect.worker for effect in effects if isinstance(effect, StartWorker)]
        return effects

    def up(self, *numbers: int) -> None:
        for number in numbers:
            self.do(ev.Initialized(self.workers[number]))

    def call(self) -> list[Worker]:
        """One more call; returns who got one."""
        self.calls += 1
        return [it.worker for it in self.do(ev.Submit(Call(self.calls, now=1.0))) if isinstance(it, SendCall)]

    def kinds(self) -> dict[Worker, str]:
        return {worker: worker.slot.kind.value for worker in self.core.crew.workers()}


def test_a_spare_is_started_after_the_others_and_serves_nobody() -> None:
    pool = Played(spares=1)
    first, spare = pool.workers
    assert pool.kinds() == {first: "base", spare: "spare"}
    pool.up(0)
    assert pool.core.pool.state is PoolState.READY
    pool.up(1)
    assert (pool.core.crew.usable(), pool.core.crew.spares()) == (1, (spare,))
    assert pool.call() == [first]
    assert pool.call() == []


def test_it_takes_the_place_of_a_worker_that_is_killed_and_its_call() -> None:
    pool = Played(spares=1)
    pool.up(0, 1)
    first, spare = pool.workers
    (worker,) = pool.call()
    assert pool.call() == []  # one waits
    effects = pool.do(ev.Exited(worker, "it died", began=True))
    assert [it.worker for it in effects if isinstance(it, SendCall)] == [spare]
    assert spare.slot.kind is SlotKind.BASE
    assert first.slot.kind is SlotKind.SPARE
    assert pool.core.pool.state is PoolState.READY
    pool.do(ev.Tick(), 2.0)  # it had served nobody, so its slot has backed off
    third = pool.workers[2]
    assert third.slot is first.slot  # the next spare, in the slot that has lost its worker
    pool.do(ev.Initialized(third), 2.0)
    assert pool.core.crew.spares() == (third,)


def test_it_does_so_while_the_other_is_still_on_its_way_out() -> None:
    pool = Played(spares=1)
    pool.up(0, 1)
    first, spare = pool.workers
    pool.call()
    pool.call()
    effects = pool.do(ev.GiveUp(first.occupant or Call(0, now=0.0)))
    assert [type(it) for it in effects if not isinstance(it, Answer)] == [Stop, SendCall]
    assert (first.state, spare.state) == (WorkerState.TERMINATING, WorkerState.BUSY)


def test_the_first_to_come_up_is_no_spare() -> None:
    pool = Played(spares=1)
    pool.up(1)
    _, second = pool.workers
    assert second.slot.kind is SlotKind.BASE
    assert pool.core.pool.state is PoolState.READY


def test_a_pool_that_grows_takes_the_spare_and_starts_another() -> None:
    pool = Played(max_workers=2, spares=1)
    pool.up(0, 1)
    assert pool.call() == [pool.workers[0]]
    assert pool.call() == [pool.workers[1]]
    assert pool.kinds() == dict(zip(pool.workers, ["base", "base", "spare"], strict=True))


def test_a_spare_is_checked_like_any_idle_worker_and_stands_in_when_it_is_well() -> None:
    pool = Played(spares=1, health=Health(interval=10.0, failures=2, recheck=3.0))
    pool.up(0, 1)
    first, spare = pool.workers
    pool.do(ev.Tick(), 11.0)
    assert (first.state, spare.state) == (WorkerState.CHECKING, WorkerState.CHECKING)
    pool.do(ev.HealthChecked(first, first.checks, False, "not well"), 12.0)
    assert pool.core.pool.state is PoolState.IMPAIRED
    pool.do(ev.HealthChecked(spare, spare.checks, True, ""), 12.0)
    assert (spare.slot.kind, first.slot.kind) == (SlotKind.BASE, SlotKind.SPARE)
    assert pool.core.pool.state is PoolState.READY
    pool.do(ev.Tick(), 15.0)
    pool.do(ev.HealthChecked(first, first.checks, True, ""), 15.0)
    assert pool.core.crew.spares() == (first,)


def test_a_pool_that_closes_needs_none() -> None:
    pool = Played(spares=1)
    pool.up(0, 1)
    pool.call()
    pool.do(ev.Close())
    assert pool.kinds() == dict(zip(pool.workers, ["base", "spare"], strict=True))
    assert pool.workers[1].state is WorkerState.TERMINATING
    for worker in pool.workers:
        pool.do(ev.Exited(worker, "it went", began=True))
    assert pool.core.pool.state is PoolState.CLOSED
