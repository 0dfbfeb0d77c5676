"""The core against a naive model, for any sequence of news, and on the ways that chance seldom takes.

The rules are in `core_rules`. Here they are run at random, by Hypothesis; by hand, so that every step that
the core can take at all is taken; and with bugs planted, each of which must be found.

    REMUDA_CORE_EXAMPLES=20000 pytest tests/specs/test_core_machine.py -k model

looks longer than the suite has time for.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from msgspec import structs

from remuda.statemachines import core as core_module
from remuda.statemachines import events as ev
from remuda.statemachines.breaker import Breaker, Outcome
from remuda.statemachines.budget import Budget
from remuda.statemachines.core import Core
from remuda.statemachines.crew import Crew
from remuda.statemachines.effects import Answer, Verdict
from remuda.statemachines.sessions import Sessions
from remuda.statemachines.subjects import Call, SlotKind, Worker
from remuda.statemachines.timers import Timers
from remuda.statemachines.waiters import Waiters

from .core_paths_of_interrupts import PATHS, tell
from .core_rules import LIFECYCLES, CoreRules

WORDS = Path(__file__).with_name("core_words.txt")
EXAMPLES = int(os.environ.get("REMUDA_CORE_EXAMPLES", "150"))


def run(examples: int, number: int = 0, *, shrink: bool = True) -> None:
    run_state_machine_as_test(
        seed(number)(CoreRules),
        settings=settings(
            max_examples=examples,
            stateful_step_count=50,
            deadline=None,
            database=None,
            report_multiple_bugs=False,
            phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )


def test_the_core_does_what_the_model_says() -> None:
    CoreRules.told.clear()
    run(EXAMPLES)
    assert {Verdict.ANSWERED, Verdict.CANCELLED, Verdict.TIMED_OUT} <= set(CoreRules.told), "it went nowhere"


@pytest.mark.parametrize("name", PATHS)
def test_a_way_that_chance_seldom_takes(name: str) -> None:
    tell(name)


# ── What is never done ──────────────────────────────────────────────────────────────────────────

_BY_HAND = "nothing in the pool forces its breaker or resets it"
_ASKS_FIRST = "the core looks at the state first, and says nothing that changes nothing"
_RETIRES = "a pool that closes lets workers finish, and kills by `fail` those who do not; only a boot is terminated"

NEVER: dict[tuple[str, str, str], str] = {
    # What is declared, and no core ever does: why.
    **{
        ("Worker", state, "terminate"): _RETIRES
        for state in ("ready", "checking", "busy", "interrupting", "degraded", "draining")
    },
    **{
        ("Worker", "terminating", str(trigger)): _ASKS_FIRST
        for trigger in LIFECYCLES["Worker"].triggers
        if trigger != "exited"
    },
    ("Slot", "starting", "restart"): "who is ended on purpose while it boots is stopping by the time that it is gone",
    ("Slot", "backoff", "quarantine"): "the token is taken when the pause begins, not when it ends",
    ("Pool", "starting", "impair"): "a pool is starting until it has enough workers, or has failed",
    ("Pool", "ready", "become_ready"): _ASKS_FIRST,
    ("Pool", "impaired", "impair"): _ASKS_FIRST,
    ("Pool", "failed", "fail"): _ASKS_FIRST,
    ("Pool", "draining", "drain"): _ASKS_FIRST,
    **{
        ("Breaker", str(state), str(trigger)): _BY_HAND
        for state, row in LIFECYCLES["Breaker"].table.items()
        for trigger in row
        if trigger in ("force_open", "disable", "reset")
    },
}


def test_every_declared_step_is_taken_or_there_is_a_reason() -> None:
    CoreRules.seen.clear()
    for name in PATHS:
        tell(name)
    declared = {
        (kind, str(state), str(trigger))
        for kind, lifecycle in LIFECYCLES.items()
        for state, row in lifecycle.table.items()
        for trigger in row
    }
    seen = {(kind, str(state), str(trigger)) for kind, state, trigger in CoreRules.seen}
    assert seen <= declared
    assert declared - seen == set(NEVER)


def test_a_step_that_is_missing_or_leads_elsewhere_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What mutation testing does to code, done to the tables: every step that the core takes."""
    ways: dict[tuple[str, str, str], list[str]] = {}
    for name in PATHS:
        CoreRules.seen.clear()
        tell(name)
        for step in CoreRules.seen:
            ways.setdefault(step, []).append(name)
    unnoticed = []
    for (kind, state, trigger), names in ways.items():
        lifecycle = LIFECYCLES[kind]
        row, direct = lifecycle.table[state], lifecycle._direct[state]
        for number, choice in enumerate(row[trigger]):
            other = next(it for it in lifecycle.states if it not in (state, choice.dest) and it not in lifecycle.final)
            elsewhere = (*row[trigger][:number], structs.replace(choice, dest=other), *row[trigger][number + 1 :])
            for changed in elsewhere, (*row[trigger][:number], *row[trigger][number + 1 :]):
                with monkeypatch.context() as patch:
                    patch.setitem(row, trigger, changed)
                    if trigger in direct:
                        patch.setitem(direct, trigger, changed[0].dest if changed else None)
                    if not notices(names):
                        unnoticed.append((kind, state, trigger, choice, changed))
    assert not unnoticed


def notices(names: list[str]) -> bool:
    for name in names:
        try:
            tell(name)
        except Exception:
            return True
    return False


def test_what_is_said_to_people() -> None:
    """The reasons of all steps and the causes in all answers, on all the ways: `core_words.txt` lists them."""
    CoreRules.said.clear()
    for name in PATHS:
        tell(name)
    said = sorted({f"{kind} {trigger}: {words}".rstrip() for kind, trigger, words in CoreRules.said})
    assert said == WORDS.read_text().splitlines()


# ── Planted bugs ────────────────────────────────────────────────────────────────────────────────

Plant = Callable[[pytest.MonkeyPatch], None]
BUGS: dict[str, Plant] = {}
"""Found by chance, within the time that the suite has."""
RARE: dict[str, Plant] = {}
"""Found on one of the ways that chance seldom takes."""


def bug(plant: Plant) -> Plant:
    BUGS[plant.__name__] = plant
    return plant


def rare(plant: Plant) -> Plant:
    RARE[plant.__name__] = plant
    return plant


def handler(patch: pytest.MonkeyPatch, event: type, wrapped: Callable[[Any, Core, Any, float], None]) -> None:
    """Have `wrapped(original, core, event, now)` handle this kind of event."""
    original = core_module._HANDLERS[event]
    patch.setitem(core_module._HANDLERS, event, lambda core, news, now: wrapped(original, core, news, now))


@bug
def a_late_reply_goes_to_the_next_caller(patch: pytest.MonkeyPatch) -> None:
    def gullible(original: Any, core: Core, event: ev.Replied, now: float) -> None:
        call = event.worker.call
        number = event.call_id if call is None else call.id
        original(core, ev.Replied(event.worker, number, event.reply, event.ok, event.unfit), now)

    handler(patch, ev.Replied, gullible)


@bug
def a_waiter_is_not_woken_when_a_worker_comes_back(patch: pytest.MonkeyPatch) -> None:
    settle = Core._settle

    def doze(core: Core, now: float) -> None:
        if core.crew.changed or len(core.waiters) != 1:
            settle(core, now)

    patch.setattr(Core, "_settle", doze)


@bug
def a_cancelled_waiter_is_still_counted(patch: pytest.MonkeyPatch) -> None:
    remove = Waiters.remove

    def forgetful(waiters: Waiters[Call], waiter: Call) -> bool:
        removed = remove(waiters, waiter)
        waiters.count += removed
        return removed

    patch.setattr(Waiters, "remove", forgetful)


@bug
def a_worker_that_is_busy_is_retired_at_once(patch: pytest.MonkeyPatch) -> None:
    def hasty(crew: Crew, worker: Worker, reason: str, now: float) -> None:
        crew.condemn(worker, reason, now, on_purpose=True)

    patch.setattr(Crew, "retire", hasty)


@bug
def a_failed_start_is_repeated_without_a_pause(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("remuda.statemachines.crew.full_jitter", lambda *numbers: 0.0)


@bug
def the_restart_budget_has_no_bottom(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Budget, "take", lambda budget, now: True)


@bug
def a_probe_that_says_nothing_is_never_given_back(patch: pytest.MonkeyPatch) -> None:
    record = Breaker.record

    def leak(breaker: Breaker, permit: Any, outcome: Outcome, now: float) -> None:
        if outcome is not Outcome.NEUTRAL:
            record(breaker, permit, outcome, now)

    patch.setattr(Breaker, "record", leak)


@bug
def callers_who_hang_up_open_the_circuit(patch: pytest.MonkeyPatch) -> None:
    conclude = Core._conclude

    def blame(core: Core, call: Call, verdict: Verdict, outcome: Outcome, now: float, **more: Any) -> None:
        blamed = Outcome.FAILURE if verdict is Verdict.CANCELLED else outcome
        conclude(core, call, verdict, blamed, now, **more)

    patch.setattr(Core, "_conclude", blame)


@bug
def callers_who_hang_up_spend_the_restart_budget(patch: pytest.MonkeyPatch) -> None:
    condemn = Crew.condemn

    def blame(crew: Crew, worker: Worker, cause: str, now: float, *, on_purpose: bool) -> None:
        condemn(crew, worker, cause, now, on_purpose=False)

    patch.setattr(Crew, "condemn", blame)


@rare
def what_may_not_be_repeated_is(patch: pytest.MonkeyPatch) -> None:
    def careless(original: Any, core: Core, event: ev.Exited, now: float) -> None:
        if event.worker.call is not None:
            event.worker.call.idempotent = True
        original(core, event, now)

    handler(patch, ev.Exited, careless)


@rare
def a_session_has_no_worker_of_its_own(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Sessions, "worker", lambda sessions, session, now: None)


@rare
def overflow_workers_are_used_first(patch: pytest.MonkeyPatch) -> None:
    take = Crew.take

    def odd(crew: Crew, preferred: Worker | None, now: float) -> Worker:
        overflow = [worker for worker in crew.idle() if worker.slot.kind is SlotKind.OVERFLOW]
        return take(crew, preferred or (overflow[-1] if overflow else None), now)

    patch.setattr(Crew, "take", odd)


@bug
def alarms_that_were_dropped_go_off(patch: pytest.MonkeyPatch) -> None:
    disarm = Timers.disarm

    def half(timers: Timers, armed: Any) -> None:
        if type(armed) is not Call:
            disarm(timers, armed)

    patch.setattr(Timers, "disarm", half)


@bug
def whoever_is_told_to_go_is_killed_at_once(patch: pytest.MonkeyPatch) -> None:
    sentenced = Crew._sentenced

    def harsh(crew: Crew, worker: Worker, cause: str, now: float, **how: bool) -> None:
        sentenced(crew, worker, cause, now, **(how | {"gently": False}))

    patch.setattr(Crew, "_sentenced", harsh)


@rare
def one_who_comes_back_goes_to_the_end_of_the_queue(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Waiters, "put_back", Waiters.add)


@rare
def who_is_suspended_does_not_notice_that_all_is_lost(patch: pytest.MonkeyPatch) -> None:
    def blind(original: Any, core: Core, event: ev.Resume, now: float) -> None:
        original(core, event, now)
        core.crew.changed = False

    handler(patch, ev.Resume, blind)


@rare
def an_answer_is_given_twice(patch: pytest.MonkeyPatch) -> None:
    def twice(original: Any, core: Core, event: ev.Replied, now: float) -> None:
        call = event.worker.call
        original(core, event, now)
        if call is not None and call.id == event.call_id and call.attempts > 1:
            core._effects.append(Answer(call, Verdict.ANSWERED))

    handler(patch, ev.Replied, twice)


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found_by_chance(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        BUGS[name](patch)
        with pytest.raises((AssertionError, KeyError, ValueError)):
            for number in range(3):  # a seed does not always lead to the same runs
                run(EXAMPLES, number, shrink=False)


@pytest.mark.parametrize("name", RARE)
def test_a_planted_bug_is_found_on_its_way(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        RARE[name](patch)
        assert notices(list(PATHS))
