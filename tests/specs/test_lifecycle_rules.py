"""The Hypothesis machine for any lifecycle: what it says of ours, and what it finds when something is wrong."""

from __future__ import annotations

import unittest
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.database import InMemoryExampleDatabase
from hypothesis.stateful import precondition, rule, run_state_machine_as_test
from transitions import Machine

from remuda.specs.engines import Law, Probe
from remuda.specs.invariants import InvariantViolated
from remuda.specs.lifecycle_rules import LifecycleRules, machine
from remuda.statemachines.breaker import BREAKER, Breaker, BreakerState, Outcome
from remuda.statemachines.call import CALL
from remuda.statemachines.errors import ConfigError, IllegalTransition
from remuda.statemachines.lifecycle import Lifecycle, Step, Subject
from remuda.statemachines.pool import POOL, PoolState, PoolTrigger
from remuda.statemachines.slot import SLOT
from remuda.statemachines.subjects import Pool, Slot, SlotKind, Worker
from remuda.statemachines.template import TEMPLATE
from remuda.statemachines.worker import WORKER, WorkerState

QUICK = settings(
    max_examples=30,
    stateful_step_count=30,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow],
    report_multiple_bugs=False,
)


def violated(rules: type[LifecycleRules], chosen: settings = QUICK) -> InvariantViolated:
    with pytest.raises(InvariantViolated) as caught:
        rules.run(chosen)
    return caught.value


def shown(error: BaseException) -> list[str]:
    """The steps of the shortest failing run, as Hypothesis prints them, without the looks between them."""
    text = "\n".join(error.__notes__)
    return [line for line in text.splitlines() if line.startswith("state.") and "everything_holds" not in line]


# ── Ours ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("lifecycle", [WORKER, SLOT, POOL, CALL, BREAKER, TEMPLATE], ids=lambda it: it.name)
def test_ours_by_their_declaration(lifecycle: Lifecycle[Any, Any]) -> None:
    coverage = machine(lifecycle).run(QUICK)
    assert coverage.seen.keys() == coverage.declared.keys()


def a_worker() -> Worker:
    return Worker(Slot(0, SlotKind.BASE, now=0.0, history=4), 1, 2, now=5.0, history=4)


class WorkerRules(LifecycleRules, lifecycle=WORKER, subject=a_worker):
    subject: Worker

    @rule(failures=st.integers(0, 3))
    def failures_are_counted(self, failures: int) -> None:
        self.subject.failures = failures


def enough_while_it_resumes(pool: Pool) -> bool:
    last = pool.history[-1] if pool.history else None
    return last is None or last.trigger != PoolTrigger.RESUME or last.dest in (PoolState.READY, PoolState.IMPAIRED)


class PoolLife(machine(POOL, lambda: Pool(now=0.0, history=4, needed=2), invariants=[enough_while_it_resumes])):
    @rule(usable=st.integers(0, 3))
    def workers_come_and_go(self, usable: int) -> None:
        self.subject.usable = usable

    @rule(closed=st.booleans())
    def the_breaker_moves(self, closed: bool) -> None:
        self.subject.circuit_closed = closed


@pytest.mark.parametrize("rules", [WorkerRules, PoolLife])
def test_ours_with_the_guards_that_they_have(rules: type[LifecycleRules]) -> None:
    coverage = rules.run(QUICK)
    assert not coverage.missing
    assert coverage.seen.total() > 100


class BreakerLife(machine(BREAKER, lambda: Breaker(1, 1, 3.0, 3.0, history=4), triggers=())):
    """The breaker steps itself: no raw steps, but its methods."""

    @rule(outcome=st.sampled_from(Outcome))
    def call(self, outcome: Outcome) -> None:
        permit = self.subject.admit(self.now)
        if permit is not None:
            self.subject.record(permit, outcome, self.now)

    @rule()
    def time_passes_until_something_is_due(self) -> None:
        self.subject.admit(self.now)  # a call that never ends
        self.now = max(self.now, self.subject.next_due() or 0.0)
        self.subject.tick(self.now)

    @rule(by_hand=st.sampled_from(["reset", "force_open", "disable"]))
    def somebody_decides(self, by_hand: str) -> None:
        getattr(self.subject, by_hand)(self.now)


def test_a_subject_that_steps_itself_is_watched_and_counted() -> None:
    coverage = BreakerLife.run(settings(QUICK, max_examples=200))
    assert not coverage.missing
    names = {made.function.__name__ for made in machine(BREAKER, triggers=())().rules}
    assert names == {"time_passes", "start_over"}, "it does nothing of its own"


# ── A small one, with everything that can be wrong ──────────────────────────────────────────────


class S(StrEnum):
    SHUT = "shut"
    OPEN = "open"
    GONE = "gone"


class T(StrEnum):
    PUSH = "push"
    PULL = "pull"
    UNHINGE = "unhinge"


DOOR: Lifecycle[S, T] = Lifecycle(
    "door",
    Machine(
        model=None,
        states=[S.SHUT, S.OPEN, {"name": S.GONE, "final": True}],
        initial=S.SHUT,
        transitions=[
            [T.PUSH, S.SHUT, None, "locked"],
            [T.PUSH, S.SHUT, S.OPEN],
            [T.PULL, S.OPEN, S.SHUT],
            [T.UNHINGE, S.OPEN, S.GONE],
        ],
        auto_transitions=False,
    ),
)


class Door(Subject[S]):
    """A sound one."""

    def __init__(self, **given: Any) -> None:
        super().__init__(DOOR, **given)
        self.key_turned = False

    @property
    def locked(self) -> bool:
        return self.key_turned


def door_with(guard: Callable[[Any], object]) -> type[Door]:
    return type("Door", (Door,), {"locked": property(guard)})


class DoorRules(machine(DOOR, Door)):
    @rule()
    def turn_key(self) -> None:
        self.subject.key_turned = not self.subject.key_turned


def test_a_sound_door_passes() -> None:
    assert not DoorRules.run(QUICK).missing


def test_a_subject_without_the_guards_is_refused() -> None:
    with pytest.raises(ConfigError, match="the guard locked .* is not defined by Subject"):
        machine(DOOR, lambda: Subject(DOOR))
    plain = type("Plain", (Subject,), {"locked": False})
    with pytest.raises(ConfigError, match="the guard locked .* is not a read-only property of Plain"):
        machine(DOOR, lambda: plain(DOOR))


def test_what_is_no_subject_of_it_is_refused() -> None:
    for wrong in (lambda: Subject(CALL), dict):
        with pytest.raises(ConfigError, match="is not a Subject in a state of door"):
            machine(DOOR, wrong)


def test_a_guard_that_is_no_bool() -> None:
    error = violated(machine(DOOR, door_with(lambda it: it.since)))
    assert error.name == Law.GUARDS_ARE_BOOLS
    assert "the guard locked said 0.0" in error.detail


def test_a_guard_that_changes_its_mind() -> None:
    def moody(it: Any) -> bool:
        it.key_turned = not it.key_turned
        return it.key_turned

    assert violated(machine(DOOR, door_with(moody))).name == Law.GUARDS_ARE_FACTS


def test_a_guard_that_meddles() -> None:
    def meddling(it: Any) -> bool:
        it.history.clear()
        return False

    assert violated(machine(DOOR, door_with(meddling))).name == Law.GUARDS_ARE_FACTS


def a_locked_door_was_shut(door: Any) -> str | None:
    if door.key_turned and door.history and door.history[-1].source == S.SHUT and door.state is S.OPEN:
        return f"it opened at {door.since:g}, locked"
    return None


class LyingRules(machine(DOOR, door_with(lambda it: False), invariants=[a_locked_door_was_shut])):
    @precondition(lambda self: self.subject.state is S.SHUT)
    @rule()
    def turn_key(self) -> None:
        self.subject.key_turned = not self.subject.key_turned


def test_a_guard_that_lies_breaks_the_invariant_of_its_user() -> None:
    """Found in two steps: Hypothesis shows no more than it takes."""
    error = violated(LyingRules)
    assert error.name == "a_locked_door_was_shut"
    assert error.detail == "door in open: it opened at 0, locked"
    assert shown(error)[0] == "state.turn_key()"
    assert len(shown(error)) == 3, "the key, the push, and the end"


@pytest.mark.parametrize("says", [True, None])
def test_an_invariant_may_say_that_it_holds_in_two_ways(says: bool | None) -> None:
    machine(DOOR, invariants=[lambda door: says]).run(QUICK)


@pytest.mark.parametrize("says", [False, "", "it squeaks"])
def test_an_invariant_may_say_that_it_does_not_hold_in_two_ways(says: bool | str) -> None:
    def it_is_quiet(door: Any) -> bool | str:
        return says if door.state is S.OPEN else True

    error = violated(machine(DOOR, invariants=[it_is_quiet]))
    assert error.name == "it_is_quiet"
    assert error.detail.startswith("door in open: it squeaks" if says == "it squeaks" else "door in open: it does not")


def test_invariants_are_asked_in_the_states_between() -> None:
    """A rule that walks takes several steps at once; every one of them counts."""

    def nobody_is_ever_here(door: Any) -> bool:
        return door.state is not S.OPEN

    rules = machine(DOOR, invariants=[nobody_is_ever_here])()
    with pytest.raises(InvariantViolated, match="nobody_is_ever_here"):
        rules.aim((S.OPEN, T.PULL, S.SHUT))


# ── What the user's own rules do ────────────────────────────────────────────────────────────────


def meddle(what: Callable[[Any], object]) -> type[LifecycleRules]:
    class Meddling(machine(DOOR, Door)):
        @rule()
        def turn_key(self) -> None:
            self.subject.key_turned = not self.subject.key_turned

        @rule()
        def meddle(self) -> None:
            what(self)

    return Meddling


@pytest.mark.parametrize(
    ("law", "what"),
    [
        (Law.STATE_CHANGES_BY_STEPS_ONLY, lambda rules: setattr(rules.subject, "state", S.OPEN)),
        (Law.STATE_CHANGES_BY_STEPS_ONLY, lambda rules: setattr(rules.subject, "since", 7.0)),
        (Law.STATE_CHANGES_BY_STEPS_ONLY, lambda rules: rules.subject.history.clear()),
        (Law.STATE_CHANGES_BY_STEPS_ONLY, lambda rules: setattr(rules.subject, "observer_errors", 3)),
        (Law.TIME_ONLY_PASSES, lambda rules: DOOR.step(rules.subject, T.PUSH, rules.now - 1.0)),
        (Law.STEPS_ARE_DECLARED, lambda rules: GATE.step(rules.subject, T.UNHINGE, rules.now)),
        (
            Law.STEPS_ARE_DECLARED,
            lambda rules: rules.subject.observer(rules.subject, Step(T.PULL, S.OPEN, S.SHUT, rules.now, "")),
        ),
    ],
    ids=["state", "since", "history", "errors", "time", "another_lifecycle", "a_step_that_was_not"],
)
def test_what_a_rule_must_not_do_is_told(law: Law, what: Callable[[Any], object]) -> None:
    def anyhow(rules: Any) -> None:
        try:
            what(rules)
        except IllegalTransition:
            pass

    assert violated(meddle(anyhow)).name == law


GATE: Lifecycle[S, T] = Lifecycle(
    "gate",
    Machine(
        model=None,
        states=[*S],
        initial=S.SHUT,
        transitions=[[T.UNHINGE, S.SHUT, S.GONE], [T.PUSH, S.GONE, S.OPEN]],
        auto_transitions=False,
    ),
)


def test_a_step_that_a_rule_takes_counts() -> None:
    rules = machine(DOOR, Door)()
    rules.now = 3.0
    DOOR.step(rules.subject, T.PUSH, rules.now)
    rules.everything_holds()
    assert rules.coverage.seen == {(S.SHUT, T.PUSH, S.OPEN): 1}


def test_the_users_own_observer_is_called_once_for_each_step() -> None:
    seen: list[Step] = []
    rules = machine(DOOR, lambda: Door(observer=lambda it, step: seen.append(step)))()
    rules.fire(T.PULL)
    rules.fire(T.PUSH)
    rules.fire(T.PULL, observer_raises=True)
    assert [step.trigger for step in seen] == ["push", "pull"]
    assert rules.subject.observer_errors == 1


def test_the_users_own_observer_must_not_raise() -> None:
    def faulty(it: Subject[S], step: Step) -> None:
        raise ValueError("I saw nothing")

    with pytest.raises(ValueError, match="I saw nothing"):
        machine(DOOR, lambda: Door(observer=faulty)).run(QUICK)


# ── The gate ────────────────────────────────────────────────────────────────────────────────────


def test_a_guard_that_never_agrees_is_a_gap_in_the_coverage() -> None:
    error = violated(machine(DOOR, Door))
    assert error.name == Law.EVERY_STEP_IS_TAKEN
    assert error.detail == (
        "door: 1 of 4 declared steps were never taken:\n"
        "  shut --push--> shut (guarded: locked); to shut: it starts there"
    )


def test_a_gap_that_is_explained_is_none() -> None:
    stuck = {(S.SHUT, T.PUSH, S.SHUT): "there is no key"}
    assert machine(DOOR, Door, unreached=stuck).run(QUICK).missing == []

    class WithKey(machine(DOOR, Door, unreached=stuck)):
        @rule()
        def turn_key(self) -> None:
            self.subject.key_turned = not self.subject.key_turned

    error = violated(WithKey)
    assert error.name == Law.EVERY_STEP_IS_TAKEN
    assert "although said to be out of reach" in error.detail


def test_what_lies_deep_is_reached_in_a_round_of_its_own() -> None:
    """Forty steps in a row, and two ways to fall back from each: no run at random gets there."""
    names = {f"N{n:02}": f"n{n:02}" for n in range(40)}
    Deep: Any = StrEnum("Deep", names)
    Go: Any = StrEnum("Go", {"ON": "on", "BACK": "back", "DOWN": "down"})
    floors = [*Deep]
    deep: Lifecycle[Any, Any] = Lifecycle(
        "deep",
        Machine(
            model=None,
            states=floors,
            initial=floors[0],
            transitions=[
                *([Go.ON, here, there] for here, there in zip(floors, floors[1:], strict=False)),
                *([trigger, floor, floors[0]] for floor in floors for trigger in (Go.BACK, Go.DOWN)),
            ],
            auto_transitions=False,
        ),
    )
    coverage = machine(deep).run(settings(QUICK, max_examples=5))
    assert len(coverage.seen) == 39 + 80


def test_a_run_that_only_tries_again_what_failed_has_no_gate() -> None:
    squeaks = [True]

    def it_is_quiet(door: Any) -> bool:
        return door.state is not S.OPEN or not squeaks[0]

    rules = machine(DOOR, Door, invariants=[it_is_quiet])
    kept = settings(QUICK, derandomize=False, database=InMemoryExampleDatabase())
    assert violated(rules, kept).name == "it_is_quiet"
    again = settings(kept, phases=[Phase.reuse])
    assert violated(rules, again).name == "it_is_quiet"
    squeaks[0] = False
    try:
        assert rules.run(again).missing, "there is a gap, and nobody looked for it"
    except unittest.SkipTest as skipped:  # what Hypothesis says when there is nothing to try again
        pytest.fail(f"another round was run: {skipped}")


# ── As Hypothesis and its users know it ─────────────────────────────────────────────────────────


def test_a_test_case_runs_the_machine_and_the_gate() -> None:
    for rules, passes in ((DoorRules, True), (machine(DOOR, Door), False)):
        rules.TestCase.settings = QUICK
        outcome = unittest.TestResult()
        unittest.defaultTestLoader.loadTestsFromTestCase(rules.TestCase).run(outcome)
        assert (outcome.testsRun, outcome.wasSuccessful()) == (1, passes)
    assert Law.EVERY_STEP_IS_TAKEN in outcome.failures[0][1]


def test_a_test_case_belongs_to_its_machine() -> None:
    assert DoorRules.TestCase is DoorRules.TestCase
    assert DoorRules.TestCase is not WorkerRules.TestCase
    assert DoorRules.TestCase.__qualname__ == "DoorRules.TestCase"
    assert DoorRules.TestCase.runTest.is_hypothesis_test


def test_its_settings_are_those_of_the_profile_without_the_deadline() -> None:
    chosen = machine(DOOR).TestCase.settings
    assert (chosen.deadline, chosen.max_examples) == (None, settings().max_examples)
    assert Phase.explain not in chosen.phases and Phase.shrink in chosen.phases

    @settings(max_examples=7)
    class Few(machine(DOOR)):
        pass

    assert Few.TestCase.settings.max_examples == 7


def test_hypothesis_can_run_it_without_us() -> None:
    DoorRules.coverage.seen.clear()
    run_state_machine_as_test(DoorRules, settings=QUICK)
    assert DoorRules.coverage.seen


def test_what_hypothesis_prints_can_be_pasted() -> None:
    state = DoorRules()
    state.everything_holds()
    state.turn_key()
    state.take_step(after=1.0, observer_raises=True, trigger=T.PUSH)
    state.turn_key()
    state.walk_to(state=S.OPEN)
    state.take_step(after=60.0, observer_raises=False, trigger=T.PULL)
    assert [(step.trigger, step.at) for step in state.subject.history] == [
        ("push", 1.0),
        ("push", 1.0),
        ("pull", 61.0),
    ]
    state.teardown()


def test_the_same_seed_takes_the_same_steps() -> None:
    def trace(number: int) -> list[Step]:
        steps: list[Step] = []
        told = machine(DOOR, lambda: Door(observer=lambda it, step: steps.append(step)))
        run_state_machine_as_test(hypothesis.seed(number)(told), settings=settings(QUICK, derandomize=False))
        return steps

    assert trace(1) == trace(1)
    assert trace(1) != trace(2)


# ── Aiming ──────────────────────────────────────────────────────────────────────────────────────


def test_an_aim_goes_as_far_as_the_guards_allow_and_on_when_they_do() -> None:
    rules = DoorRules()
    rules.turn_key()
    rules.aim((S.OPEN, T.PULL, S.SHUT))
    assert (rules.subject.state, [*rules.subject.history]) == (S.SHUT, [])
    rules.turn_key()
    rules.go_on()
    assert [step.trigger for step in rules.subject.history] == ["push", "pull"]


def test_an_aim_of_a_stand_in_sets_what_its_guards_say() -> None:
    rules = machine(DOOR)()
    assert isinstance(rules.subject, Probe)
    for says, dest in ((True, S.SHUT), (False, S.OPEN)):
        rules.subject.facts["locked"] = not says
        rules.aim((S.SHUT, T.PUSH, dest))
        assert (rules.subject.state, rules.subject.facts["locked"]) == (dest, says)


def test_an_aim_that_cannot_be_reached_any_more_begins_a_new_life() -> None:
    rules = machine(DOOR)()
    rules.aim((S.OPEN, T.UNHINGE, S.GONE))
    gone, rules.now = rules.subject, 5.0
    rules.aim((S.OPEN, T.PULL, S.SHUT))
    assert gone.state is S.GONE and rules.subject is not gone
    assert [step.trigger for step in rules.subject.history] == ["push", "pull"]


def test_an_aim_goes_around_a_guard_that_is_in_the_way() -> None:
    class Town(StrEnum):
        HOME = "home"
        BRIDGE = "bridge"
        FORD = "ford"
        MARKET = "market"

    class Walk(StrEnum):
        LEFT = "left"
        RIGHT = "right"
        ON = "on"

    walk: Lifecycle[Town, Walk] = Lifecycle(
        "walk",
        Machine(
            model=None,
            states=[*Town],
            initial=Town.HOME,
            transitions=[
                [Walk.LEFT, Town.HOME, Town.MARKET, "bridge_is_open"],
                [Walk.LEFT, Town.HOME, None],
                [Walk.RIGHT, Town.HOME, Town.FORD],
                [Walk.ON, Town.FORD, Town.BRIDGE],
                [Walk.ON, Town.BRIDGE, Town.MARKET],
                [Walk.ON, Town.MARKET, Town.HOME],
            ],
            auto_transitions=False,
        ),
    )
    closed = type("Closed", (Subject,), {"bridge_is_open": property(lambda it: False)})
    rules = machine(walk, lambda: closed(walk))()
    rules.aim((Town.MARKET, Walk.ON, Town.HOME))
    assert [step.trigger for step in rules.subject.history] == ["right", "on", "on", "on"]


def test_only_the_triggers_that_are_named_are_fired() -> None:
    coverage_of = machine(WORKER, triggers=["init_complete", "checkout", "checkin"])
    error = violated(coverage_of)
    assert error.name == Law.EVERY_STEP_IS_TAKEN
    taken = {trigger for _, trigger, _ in coverage_of.coverage.seen}
    assert taken == {"init_complete", "checkout", "checkin"}
    assert {source for source, _, _ in coverage_of.coverage.seen} == {
        WorkerState.INITIALIZING,
        WorkerState.READY,
        WorkerState.BUSY,
    }


def test_a_walk_ends_where_it_should_and_an_aim_one_step_later() -> None:
    rules = machine(DOOR)()
    rules.walk_to(S.OPEN)
    assert (rules.subject.state, rules._aim) == (S.OPEN, None)
    rules.walk_to(S.OPEN)
    assert len(rules.subject.history) == 1
    rules.aim((S.OPEN, T.UNHINGE, S.GONE))
    assert (rules.subject.state, rules._aim) == (S.GONE, None)


def test_an_aim_is_given_up_after_a_while() -> None:
    """Else one that cannot be reached would keep the machine from everything else."""
    rules = DoorRules()
    rules.turn_key()
    rules.walk_to(S.OPEN)
    for _ in range(3):
        rules.go_on()
        assert rules._aim is not None
    rules.go_on()
    assert rules._aim is None


def test_everything_illegal_is_tried_in_each_state_of_each_life() -> None:
    tried: list[tuple[str, str]] = []

    class Told(Lifecycle[S, T]):
        __slots__ = ()

        def step(self, subject: Subject[Any], trigger: T, now: float, reason: str = "") -> S:
            if reason == "illegal":
                tried.append((subject.state, trigger))
            return super().step(subject, trigger, now, reason)

    rules = machine(Told("door", DOOR.machine))()
    rules.everything_holds()
    rules.everything_holds()
    assert tried == [(S.SHUT, T.PULL), (S.SHUT, T.UNHINGE)]
    tried.clear()
    rules.walk_to(S.OPEN)
    rules.fire(T.UNHINGE)
    assert tried == [(S.OPEN, T.PUSH), (S.GONE, T.PUSH), (S.GONE, T.PULL), (S.GONE, T.UNHINGE)]
    rules.begin()
    tried.clear()
    rules.everything_holds()
    assert tried == [(S.SHUT, T.PULL), (S.SHUT, T.UNHINGE)]


def test_what_is_legal_depends_on_the_guards() -> None:
    partial: Lifecycle[S, T] = Lifecycle(
        "partial",
        Machine(
            model=None,
            states=[*S],
            initial=S.SHUT,
            transitions=[[T.PUSH, S.SHUT, S.OPEN, "greased"], [T.PULL, S.SHUT, None], [T.PULL, S.OPEN, S.SHUT]],
            auto_transitions=False,
        ),
    )
    rules = machine(partial)()
    assert rules.legal() == [T.PULL]
    rules.guards_turn(guard="greased", says=True)
    assert rules.legal() == [T.PUSH, T.PULL]


def test_a_new_life_begins_where_the_old_one_has_ended() -> None:
    assert BreakerLife()._given.ends == []
    door = machine(DOOR)()
    assert door._given.ends == [S.GONE]
    first = door.subject
    door.start_over()
    assert door.subject is not first and door.subject.state is S.SHUT


def test_the_breaker_that_forgets_its_generation_is_not_our_business_but_its_state_is() -> None:
    class Sloppy(Breaker):
        __slots__ = ()

        def reset(self, now: float, reason: str = "reset") -> None:
            self.state = BreakerState.CLOSED  # and nobody hears of it

    class SloppyLife(BreakerLife):
        def begin(self) -> None:
            super().begin()
            self.subject.__class__ = Sloppy

    assert violated(SloppyLife).name == Law.STATE_CHANGES_BY_STEPS_ONLY
