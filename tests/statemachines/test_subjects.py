"""What the things with a lifecycle are when they begin, and how they are printed."""

from __future__ import annotations

import math

from remuda.statemachines.call import CallState
from remuda.statemachines.pool import PoolState
from remuda.statemachines.slot import SlotState
from remuda.statemachines.subjects import Call, Pool, Slot, SlotKind, Worker
from remuda.statemachines.worker import WorkerState


def test_a_call_begins() -> None:
    request = object()
    call = Call(7, now=3.0, session="s", request=request, history=2)
    assert (call.id, call.state, call.since, call.history.maxlen) == (7, CallState.QUEUED, 3.0, 2)
    assert (call.session, call.request, call.deadline, call.idempotent, call.is_lease) == (
        "s", request, math.inf, False, False,
    )  # fmt: skip
    assert call.lease is call.worker is call.permit is None
    assert [call.attempts, call.handovers, call.alarm, call.due] == [0, 0, 0, math.inf]
    assert Call(1, now=0.0).history.maxlen == 16


def test_a_worker_begins() -> None:
    slot = Slot(4, SlotKind.BASE, now=1.0, history=2)
    worker = Worker(slot, 9, 3, now=3.0, history=2)
    assert (worker.slot, worker.generation, worker.failure_limit) == (slot, 9, 3)
    assert (worker.state, worker.since, worker.last_active, worker.history.maxlen) == (
        WorkerState.INITIALIZING, 3.0, 3.0, 2,
    )  # fmt: skip
    assert worker.occupant is worker.call is worker.rung is None
    assert worker.was_ready is worker.set_up is worker.on_purpose is worker.violation is False
    assert [worker.failures, worker.served, worker.checks, worker.alarm, worker.due] == [0, 0, 0, 0, math.inf]
    assert worker.cause == ""


def test_it_is_at_its_limit_when_it_has_failed_as_often() -> None:
    worker = Worker(Slot(0, SlotKind.BASE, now=0.0, history=0), 1, 2, now=0.0, history=0)
    limits = []
    for worker.failures in range(4):
        limits.append(worker.at_failure_limit)
    assert limits == [False, False, True, True]


def test_a_slot_begins() -> None:
    slot = Slot(4, SlotKind.OVERFLOW, now=3.0, history=2)
    assert (slot.index, slot.kind, slot.state, slot.since) == (4, SlotKind.OVERFLOW, SlotState.STARTING, 3.0)
    assert slot.worker is None
    assert [slot.generation, slot.attempts, slot.alarm, slot.due, slot.history.maxlen] == [0, 0, 0, math.inf, 2]


def test_a_pool_begins_and_is_whole_with_enough_workers_and_a_closed_circuit() -> None:
    pool = Pool(now=3.0, history=2, needed=2)
    assert (pool.state, pool.since, pool.history.maxlen, pool.usable, pool.needed) == (
        PoolState.STARTING, 3.0, 2, 0, 2,
    )  # fmt: skip
    assert pool.circuit_closed is True
    whole = {}
    for pool.usable in (1, 2, 3):
        for pool.circuit_closed in (True, False):
            whole[pool.usable, pool.circuit_closed] = pool.enough_workers
    assert {case for case, enough in whole.items() if enough} == {(2, True), (3, True)}


def test_they_are_printed_by_what_they_are() -> None:
    slot = Slot(4, SlotKind.OVERFLOW, now=0.0, history=0)
    assert repr(slot) == "<slot 4 overflow starting>"
    assert repr(Worker(slot, 9, 3, now=0.0, history=0)) == "<worker 4.9 initializing>"
    assert repr(Call(7, now=0.0)) == "<call 7 queued>"
    assert repr(Call(7, now=0.0, is_lease=True)) == "<lease 7 queued>"
