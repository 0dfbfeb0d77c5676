"""A Hypothesis machine for any lifecycle: long lives of one subject, every step of them judged.

    class DoorRules(machine(DOOR, subject=Door, invariants=[a_locked_door_is_shut])):
        @rule()
        def turn_key(self):
            self.subject.key_turned = not self.subject.key_turned

    TestDoor = DoorRules.TestCase

A run takes legal and illegal steps in any order, and for each of them judges both engines by the laws
of `remuda.specs.engines`. Time only passes. Its observer fails now and then. After every rule, ours and
the user's, the invariants are asked: functions of the subject that return None or True when they hold.

The guards: without `subject`, a stand-in is made, and what its guards say is drawn. With it, they say
what they say, and the user adds rules for what changes it, as above.

At random, what lies deep would hardly be reached. So there are rules that know the way: `walk_to` goes
to a state and `aim` to a step, which it takes, by the shortest way and as far as the guards allow; `go_on`
goes further when something has changed meanwhile. And there is a gate: `TestCase` (and `run`) adds short
rounds that aim at what was not taken, and fails if a declared step is missing after that, unless
`unreached` says why. That is not taken on trust: a last round aims at those.

If a subject steps itself, as the breaker does, raw steps would go behind its back. `triggers=()` leaves
them out: the user's rules call its methods, and the steps that these take are watched and counted.
"""

from __future__ import annotations

import functools
import types
import unittest
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any, ClassVar, Final

import hypothesis
import msgspec
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    TestCaseProperty,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from remuda.specs.coverage import Coverage, Taken
from remuda.specs.engines import Probe, probe_of
from remuda.specs.life import Life, Saying
from remuda.specs.lifecycles import Move, family, moves, ways
from remuda.statemachines.audit import FaultKind, faults
from remuda.statemachines.errors import ConfigError
from remuda.statemachines.lifecycle import Lifecycle, Step, Subject

__all__ = ["LifecycleRules", "machine"]

_ROUNDS: Final = 5
"""How often a machine is run, at most, until every step has been taken. One or two is usual."""

_FEWER: Final = 25
"""Examples of each round after the first."""

_PATIENCE: Final = 5
"""How often it tries to get on with an aim; meanwhile, the user's rules may open the way."""


_SECONDS = st.sampled_from([0.0, 1.0, 60.0])
_IF_FREE = precondition(lambda rules: rules._aim is None)


class _Gated(TestCaseProperty):
    """`Machine.TestCase`, as Hypothesis has it, with the gate behind it."""

    def __get__(self, obj: RuleBasedStateMachine | None, typ: type[RuleBasedStateMachine] | None = None) -> Any:
        return _test_case(type(obj) if obj is not None else typ)


class _Given(msgspec.Struct, frozen=True):
    """What a machine was made of."""

    subject: Callable[[], Subject[Any]]
    invariants: tuple[Saying, ...]
    triggers: list[StrEnum]
    """Those that it fires."""
    moves: list[Move[Any, Any]]
    """What can happen by them."""
    aims: list[Taken[Any, Any]]
    """What it may aim at."""
    ends: list[StrEnum]
    """The states that nothing leads out of."""


class LifecycleRules(RuleBasedStateMachine):
    """What `machine` makes. Subclass the result, and add rules.

    Attributes:
        lifecycle: what is tried.
        coverage: which of its steps the last `run` has taken.
        subject: what the steps happen to; another one when its life is over.
        now: the time, in seconds. Rules that take steps themselves take them at this time.
    """

    lifecycle: ClassVar[Lifecycle[Any, Any]]
    coverage: ClassVar[Coverage[Any, Any]]
    TestCase = _Gated()

    _given: ClassVar[_Given]

    def __init_subclass__(
        cls,
        *,
        lifecycle: Lifecycle[Any, Any] | None = None,
        subject: Callable[[], Subject[Any]] | None = None,
        invariants: Iterable[Saying] = (),
        triggers: Iterable[StrEnum] | None = None,
        unreached: Mapping[Taken[Any, Any], str] | None = None,
    ) -> None:
        super().__init_subclass__()
        if lifecycle is None:  # a subclass of what has been set up
            return
        stands_in = subject is None
        if subject is None:
            subject = functools.partial(probe_of(lifecycle), lifecycle)
        _refuse_misfit(lifecycle, subject())
        wanted = None if triggers is None else {*triggers}
        fired = [trigger for trigger in family(lifecycle.triggers[0]) if wanted is None or trigger in wanted]
        cls.lifecycle = lifecycle
        cls.coverage = Coverage(lifecycle, unreached)
        known = moves(lifecycle)
        away = {move.source for move in known if move.dest is not move.source}
        aims = [step for step in cls.coverage.declared if step[1] in fired]
        cls._given = _Given(
            subject,
            tuple(invariants),
            triggers=fired,
            moves=[move for move in known if move.trigger in fired],
            aims=aims,
            ends=[state for state in lifecycle.states if state not in away],
        )
        rules: dict[str, object] = {}
        if fired:
            legal = st.runner().flatmap(lambda rules: st.sampled_from(rules.legal()))
            raises = st.sampled_from([False, False, True])
            takes = rule(trigger=legal, after=_SECONDS, observer_raises=raises)
            rules["take_step"] = takes(precondition(lambda rules: bool(rules.legal()))(LifecycleRules.take_step))
        else:
            rules["time_passes"] = rule(seconds=_SECONDS)(LifecycleRules.time_passes)
        if aims:
            goals = [*dict.fromkeys(source for source, _, _ in aims)]
            rules["walk_to"] = rule(state=st.sampled_from(goals))(_IF_FREE(LifecycleRules.walk_to))
            rules["go_on"] = rule()(precondition(lambda rules: rules._aim is not None)(LifecycleRules.go_on))
        if lifecycle.guards and stands_in:
            guard = st.sampled_from(lifecycle.guards)
            rules["guards_turn"] = rule(guard=guard, says=st.booleans())(LifecycleRules.guards_turn)
        for name, made in rules.items():
            setattr(cls, name, made)

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.begin()

    def begin(self) -> None:
        """Put a new subject in the place of the old one, if there was one.

        Override it, and call it, to begin anew with what your rules note about the subject.
        """
        self.subject: Any = self._given.subject()
        self.now = max(self.now, self.subject.since)
        self._life = Life(self.lifecycle, self.subject, self._saw)
        self._number = 0
        self._aim: tuple[StrEnum, Taken[Any, Any] | None] | None = None
        self._tries = 0

    def fire(self, trigger: StrEnum, *, observer_raises: bool = False) -> Step | None:
        """Ask for a step, legal or not, have both engines judged, and the invariants asked.

        Args:
            trigger: whose step.
            observer_raises: whether the observer fails at it, which must not matter.

        Returns:
            The step; None if it was illegal, and refused.

        Raises:
            InvariantViolated: a law or an invariant does not hold.
        """
        self._number += 1
        taken = self._life.step(trigger, self.now, f"step {self._number}", observer_raises=observer_raises)
        self.everything_holds()
        return taken

    def legal(self) -> list[StrEnum]:
        """The triggers that would lead somewhere now, or stay, of those that are fired."""
        return [trigger for trigger in self._given.triggers if self._life.choice(trigger) is not None]

    @invariant()
    def everything_holds(self) -> None:
        """Judge what is there, and try what is illegal where that has not been tried."""
        self._life.check(self._given.invariants)
        self._life.refuse(self._given.triggers, self.now)
        self._life.check()

    def _saw(self, subject: Subject[Any], step: Step) -> None:
        self.coverage.saw(subject, step)
        if hypothesis.currently_in_test_context():
            hypothesis.event(f"{step.source} --{step.trigger}--> {step.dest}")

    # ── Rules ───────────────────────────────────────────────────────────────────────────────────
    # `__init_subclass__` makes rules of those that have to know the lifecycle.

    def take_step(self, trigger: StrEnum, after: float, observer_raises: bool) -> None:
        """A step that is legal now."""
        self.now += after
        self.fire(trigger, observer_raises=observer_raises)

    def walk_to(self, state: StrEnum) -> None:
        """Go the shortest way to a state, and stay there for whatever comes next."""
        self._aim, self._tries = (state, None), 0
        self.go_on()

    def aim(self, step: Taken[Any, Any]) -> None:
        """Go the shortest way to where `step` is possible, and take it."""
        self._aim, self._tries = (step[0], step), 0
        self.go_on()

    def go_on(self) -> None:
        """Go on to where it was going to last, if guards were in the way of it."""
        assert self._aim is not None
        goal, step = self._aim
        closed: list[Move[Any, Any]] = []
        began_anew = False
        while True:
            here = self.subject.state
            open_moves = [move for move in self._given.moves if move not in closed]
            if here is not goal:
                way = [*ways(open_moves, here).get(goal, ())]
            elif step is not None:
                way = [move for move in open_moves if (move.source, move.trigger, move.dest) == step]
            else:
                self._aim = None
                return
            if way and self._is_open(way[0]):
                self.fire(way[0].trigger)
                if here is goal:
                    self._aim = None
                    return
            elif way:
                closed.append(way[0])
            elif closed or began_anew:
                self._tries += 1
                if self._tries >= _PATIENCE:
                    self._aim = None
                return
            else:
                self.begin()
                self._aim, began_anew = (goal, step), True

    def guards_turn(self, guard: str, says: bool) -> None:
        """A guard of the stand-in says something else from now on."""
        self.subject.facts[guard] = says

    def time_passes(self, seconds: float) -> None:
        """The user's rules take the steps, at the time that it is now."""
        self.now += seconds

    @precondition(lambda self: self._life.state in self._given.ends)
    @rule()
    def start_over(self) -> None:
        """Nothing leads out of its state: take a new one."""
        self.begin()

    def _is_open(self, move: Move[Any, Any]) -> bool:
        """Whether the step of `move` would lead where it should; a stand-in is told to see to it."""
        if isinstance(self.subject, Probe):
            self.subject.facts.update((guard.name, guard.expected) for guard in move.guards)
        choice = self._life.choice(move.trigger)
        return choice is not None and choice.dest is move.dest

    # ── The whole run ───────────────────────────────────────────────────────────────────────────

    @classmethod
    def run(cls, chosen: settings | None = None) -> Coverage[Any, Any]:
        """Run it, a few times if need be, until every declared step has been taken.

        Args:
            chosen: the settings of each round; None: those of `TestCase`.

        Returns:
            What has been taken, and how often.

        Raises:
            InvariantViolated: what a rule found, after Hypothesis has printed the shortest way to it;
                or `every_step_is_taken`.
        """
        using: settings = cls.TestCase.settings if chosen is None else chosen
        cls.coverage = Coverage(cls.lifecycle, cls.coverage.unreached)
        run_state_machine_as_test(cls, settings=using)
        if Phase.generate not in using.phases:
            return cls.coverage  # what was found before is tried again, and nothing else
        fewer = settings(using, max_examples=min(using.max_examples, _FEWER))
        for number in range(1, _ROUNDS):
            missing = cls.coverage.missing
            if aims := [step for step in missing if step in cls._given.aims]:
                run_state_machine_as_test(hypothesis.seed(number)(cls._aimed(aims)), settings=fewer)
            elif missing:  # only the user's rules get there
                run_state_machine_as_test(hypothesis.seed(number)(cls._aimed([])), settings=using)
            else:
                break
        if aims := [step for step in cls.coverage.unreached if step in cls._given.aims]:
            # Said to be out of reach: let us see.
            run_state_machine_as_test(hypothesis.seed(_ROUNDS)(cls._aimed(aims)), settings=fewer)
        cls.coverage.check()
        return cls.coverage

    @classmethod
    def _aimed(cls, missing: list[Taken[Any, Any]]) -> type[LifecycleRules]:
        """The same machine, but nothing of ours happens that does not lead to what is missing."""
        body: dict[str, object] = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
        if missing:
            aim = rule(step=st.sampled_from(missing))(_IF_FREE(LifecycleRules.aim))
            body |= {"take_step": None, "walk_to": None, "aim": aim}
        aimed: type[LifecycleRules] = types.new_class(cls.__name__, (cls,), exec_body=lambda space: space.update(body))
        return aimed


def machine(
    lifecycle: Lifecycle[Any, Any],
    subject: Callable[[], Subject[Any]] | None = None,
    *,
    invariants: Iterable[Saying] = (),
    triggers: Iterable[StrEnum] | None = None,
    unreached: Mapping[Taken[Any, Any], str] | None = None,
) -> type[LifecycleRules]:
    """Make a Hypothesis machine for a lifecycle.

    Use its `.TestCase`, or subclass it, add rules, and use the subclass's. Type checkers do not like a
    base class that a function returns; for them there is `class DoorRules(LifecycleRules,
    lifecycle=DOOR, subject=Door)`, with the same arguments.

    Args:
        lifecycle: what to try.
        subject: makes a subject, in whatever state: its class, if that needs no arguments. None: a
            stand-in is made, and what its guards say is drawn.
        invariants: what must hold in every state, of the subject.
        triggers: those that the machine fires by itself; None: all of them, also illegal ones.
        unreached: declared steps (source, trigger, destination) that cannot be taken, each with the
            reason. If one is taken, that is an error too.

    Raises:
        ConfigError: what `subject` makes does not fit the lifecycle, or `unreached` does not.
    """
    given = {"lifecycle": lifecycle, "subject": subject, "invariants": invariants, "triggers": triggers}
    name = "".join(part.capitalize() for part in lifecycle.name.replace("_", " ").split()) + "Rules"
    made: type[LifecycleRules] = types.new_class(name, (LifecycleRules,), {**given, "unreached": unreached})
    return made


def _refuse_misfit(lifecycle: Lifecycle[Any, Any], made: object) -> None:
    if not isinstance(made, Subject) or made.state not in lifecycle.states:
        raise ConfigError(f"subject: {made!r} is not a Subject in a state of {lifecycle.name}")
    wrong = [
        f for f in faults(lifecycle, type(made)) if f.kind in (FaultKind.UNKNOWN_GUARD, FaultKind.GUARD_NOT_PROPERTY)
    ]
    if wrong:
        raise ConfigError(f"subject: {'; '.join(map(str, wrong))}")


@functools.cache
def _test_case(cls: type[LifecycleRules]) -> type[unittest.TestCase]:
    class LifecycleTestCase(unittest.TestCase):
        settings = settings(
            deadline=None,
            phases=[phase for phase in settings().phases if phase is not Phase.explain],  # minutes, for little
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
        )

        def runTest(self) -> None:  # noqa: N802  (unittest's name)
            cls.run(self.settings)

    run: Any = LifecycleTestCase.runTest
    run.is_hypothesis_test = True  # what the plugin of Hypothesis for pytest looks for
    run._hypothesis_state_machine_class = cls
    LifecycleTestCase.__name__ = f"{cls.__name__}.TestCase"
    LifecycleTestCase.__qualname__ = f"{cls.__qualname__}.TestCase"
    return LifecycleTestCase
