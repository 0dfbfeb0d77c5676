"""What the core is apart from its decisions; those are judged in `tests/specs/test_core_machine.py`."""

from __future__ import annotations

import math
from typing import Any

from remuda.statemachines import events as ev
from remuda.statemachines.canonical import canonical
from remuda.statemachines.core import Core
from remuda.statemachines.effects import Answer, Effect, SendCall, StartWorker, Stepped, Verdict
from remuda.statemachines.policy import Policy, Retry
from remuda.statemachines.subjects import Call


def opened(**policy: Any) -> tuple[Core, list[Effect]]:
    core = Core(Policy(history=3, **policy), 5.0)
    return core, core.handle(ev.Open(), 5.0)


def test_it_begins_now_and_remembers_as_much_as_it_is_told() -> None:
    core, _ = opened()
    for subject in core.pool, core.breaker:
        assert (subject.since, subject.history.maxlen) == (5.0, 3)
    assert core.crew.budget.tokens(5.0) == core.policy.restart.burst


def test_steps_are_told_to_those_who_want_to_know_and_to_nobody_else() -> None:
    quiet, effects = opened()
    (start,) = effects
    assert isinstance(start, StartWorker)
    assert not [it for it in quiet.handle(ev.Initialized(start.worker), 6.0) if isinstance(it, Stepped)]
    told = Core(Policy(), 0.0, observed=True)
    (start,) = told.handle(ev.Open(), 0.0)
    assert isinstance(start, StartWorker)
    assert [type(it.subject).__name__ for it in told.handle(ev.Initialized(start.worker), 1.0)
            if isinstance(it, Stepped)] == ["Worker", "Slot", "Pool"]  # fmt: skip


def test_alarms_have_names() -> None:
    core, _ = opened()
    names = [repr(alarm) for alarm in (core._breaker_alarm, core._session_alarm, core._pool_alarm)]
    assert names == ["<Alarm breaker>", "<Alarm sessions>", "<Alarm pool>"]
    assert core.pool_due == math.inf


def test_its_key_is_the_canonical_form() -> None:
    core, _ = opened(min_workers=2, max_workers=2)
    core.handle(ev.Submit(Call(1, now=5.0, deadline=9.0)), 5.0)
    assert core.key(6.0) == canonical(core, 6.0)
    assert core.key(6.0) != core.key(10.0)


def test_leases_are_the_checkouts_that_hold_a_worker() -> None:
    core, effects = opened()
    (start,) = effects
    assert isinstance(start, StartWorker)
    core.handle(ev.Initialized(start.worker), 6.0)
    holds, waits = (Call(number, now=6.0, is_lease=True) for number in (1, 2))
    core.handle(ev.Submit(holds), 6.0)
    core.handle(ev.Submit(waits), 6.0)
    call = Call(3, now=6.0, lease=holds)
    assert [type(effect) for effect in core.handle(ev.Submit(call), 6.0)] == [SendCall]
    assert list(core.leases()) == [holds]


def test_whose_call_goes_to_another_without_a_question() -> None:
    """A worker that has served, with a call that it is not known to have begun, and that may still be moved."""
    core, (start, *_) = opened(retry=Retry(handovers=1), min_workers=2, max_workers=2)
    assert isinstance(start, StartWorker)
    worker = start.worker
    assert not core.hands_over_from(worker), "it has no call"
    core.handle(ev.Initialized(worker), 6.0)
    first, second = (Call(number, now=6.0) for number in (1, 2))
    core.handle(ev.Submit(first), 6.0)
    assert not core.hands_over_from(worker), "it has served nobody: its slot may be in trouble"
    core.handle(ev.Replied(worker, 1, "done"), 6.0)
    core.handle(ev.Submit(second), 6.0)
    assert core.hands_over_from(worker)
    second.handovers = 1
    assert not core.hands_over_from(worker), "it was handed over as often as it may be"
    second.handovers = 0
    core.handle(ev.Began(second), 6.0)
    assert not core.hands_over_from(worker), "it has begun"
    core.handle(ev.Replied(worker, 2, "done"), 6.0)
    lease = Call(3, now=6.0, is_lease=True)
    core.handle(ev.Submit(lease), 6.0)
    core.handle(ev.Submit(Call(4, now=6.0, lease=lease)), 6.0)
    assert not core.hands_over_from(worker), "it is its holder's"
    core.handle(ev.Replied(worker, 4, "done"), 6.0)
    core.handle(ev.Checkin(lease), 6.0)
    core.handle(ev.Submit(Call(5, now=6.0)), 6.0)
    assert core.hands_over_from(worker)
    core.handle(ev.Close(), 6.0)
    assert not core.hands_over_from(worker), "there will be no other"


def test_a_closed_pool_says_why_it_refuses() -> None:
    core, _ = opened()
    core.handle(ev.Close(), 6.0)
    call = Call(1, now=6.0)
    (answer,) = core.handle(ev.Submit(call), 6.0)
    assert isinstance(answer, Answer)
    assert (answer.call, answer.verdict, answer.reply, answer.retry_after) == (call, Verdict.CLOSED, None, None)
