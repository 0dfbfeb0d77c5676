"""One step of a lifecycle, taken on both engines and judged.

A `Lifecycle` has two: the table that runs, and the stock engine of `transitions` that it was compiled
from. For one subject in one state and one trigger, `judge_step` asks both and holds what they did
against the declaration. The laws have names (`Law`), and whoever breaks one is told which.

    engines_agree(DOOR)     # → how many cases were compared; raises InvariantViolated otherwise

tries *everything*: each state, each trigger, each outcome of the guards. The Hypothesis machine of
`remuda.specs.lifecycle_rules` judges the steps of long lives in the same way.

The stock engine goes first, and what it did to the subject is taken back. All that a step may change is
its state, `since`, its history and its count of observer errors; so there is nothing to copy, and a
subject may hold whatever it likes.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from enum import StrEnum
from typing import Any, TypeVar

import msgspec

from remuda.specs.invariants import InvariantViolated
from remuda.specs.lifecycles import choose, family, guards_of
from remuda.statemachines.errors import IllegalTransition
from remuda.statemachines.lifecycle import Lifecycle, Step, Subject

__all__ = ["Law", "Probe", "engines_agree", "judge_step", "probe_of"]

S = TypeVar("S", bound=StrEnum)
T = TypeVar("T", bound=StrEnum)


class Law(StrEnum):
    """What holds for every lifecycle."""

    LEGAL_STEP_IS_TAKEN = "legal_step_is_taken"
    """A declared step whose guards agree leads where the table says."""
    STEP_IS_RECORDED = "step_is_recorded"
    """It is the newest in the history, and `since` is its time if the state is a new one."""
    ILLEGAL_STEP_IS_REFUSED = "illegal_step_is_refused"
    """Any other raises `IllegalTransition`, with the names of lifecycle, state and trigger."""
    ILLEGAL_STEP_CHANGES_NOTHING = "illegal_step_changes_nothing"
    """State, `since`, history and declaration are what they were; no observer hears of it."""
    OBSERVER_SEES_EACH_STEP_ONCE = "observer_sees_each_step_once"
    """When the new state is already visible."""
    OBSERVER_HARMS_NOTHING = "observer_harms_nothing"
    """If it raises, the step stands, and it is counted."""
    ENGINES_AGREE = "engines_agree"
    """The table does what the stock engine does."""
    GUARDS_ARE_BOOLS = "guards_are_bools"
    """A guard says True or False, not something that is as good as one of them."""
    GUARDS_ARE_FACTS = "guards_are_facts"
    """Asked again, a guard says the same, and asking changes nothing."""
    STATE_CHANGES_BY_STEPS_ONLY = "state_changes_by_steps_only"
    """Nobody writes the state, `since` or the history of a subject but its lifecycle."""
    STEPS_ARE_DECLARED = "steps_are_declared"
    """Whoever took it: a step goes from where the subject was to where the table allows."""
    TIME_ONLY_PASSES = "time_only_passes"
    """No step is older than the one before it."""
    EVERY_STEP_IS_TAKEN = "every_step_is_taken"
    """In the course of a whole run, except those that are said to be out of reach."""


# ── One step ────────────────────────────────────────────────────────────────────────────────────


class _Account(msgspec.Struct, frozen=True):
    """What there is to be seen of a subject, and after an attempt, what came of it."""

    state: str
    since: float
    history: tuple[Step, ...]
    errors: int
    """Of its observer; after an attempt, without those that the observer did raise in it."""
    told: tuple[tuple[str, Step], ...] = ()
    """What the observer heard, and the state it saw then."""
    returned: str | None = None
    raised: str | None = None


def judge_step(
    lifecycle: Lifecycle[Any, Any],
    subject: Subject[Any],
    trigger: StrEnum,
    now: float,
    reason: str = "",
    *,
    observer_raises: bool = False,
) -> Step | None:
    """Take a step on the stock engine, take it back, take it on the table, and judge both.

    Args:
        lifecycle: the engines.
        subject: what it happens to. Its observer is called once, by the table.
        trigger: what happens, legal or not.
        now: when, in seconds, monotonic.
        reason: why, in words.
        observer_raises: whether to have the observer fail, after it has been called.

    Returns:
        The step, or None if it was refused, as it had to be.

    Raises:
        InvariantViolated: a `Law` is broken; `name` says which.
    """
    where = f"{lifecycle.name}: {trigger} from {subject.state}"
    choices = lifecycle.table.get(subject.state, {}).get(trigger, ())
    facts = ask(subject, guards_of(choices), where)
    before, theirs = _look(subject), subject.observer
    stock = _attempt(lifecycle.step_stock, subject, (trigger, now, reason), None, observer_raises)
    subject.state, subject.since, subject.observer_errors = before.state, before.since, before.errors
    subject.history.clear()
    subject.history.extend(before.history)
    table = _attempt(lifecycle.step, subject, (trigger, now, reason), theirs, observer_raises)

    choice = choose(choices, facts)
    if choice is None:
        error = _refusal(IllegalTransition(lifecycle.name, str(before.state), str(trigger)))
        _hold(Law.ILLEGAL_STEP_IS_REFUSED, where, "raised", table.raised, error)
        untouched = msgspec.structs.replace(before, raised=error)
        _hold(Law.ILLEGAL_STEP_CHANGES_NOTHING, where, "afterwards", table, untouched)
        taken = None
    else:
        dest = choice.dest
        taken = Step(trigger, before.state, dest, now, reason)
        since = before.since if dest is before.state else now
        law = Law.OBSERVER_HARMS_NOTHING if table.raised == repr(PlantedError()) else Law.LEGAL_STEP_IS_TAKEN
        _hold(law, where, "raised", table.raised, None)
        _hold(Law.LEGAL_STEP_IS_TAKEN, where, "led to", repr(table.state), repr(dest))
        _hold(Law.LEGAL_STEP_IS_TAKEN, where, "returned", repr(table.returned), repr(dest))
        _hold(Law.STEP_IS_RECORDED, where, "since", table.since, since)
        _hold(Law.STEP_IS_RECORDED, where, "history", table.history, _kept(before.history, taken, subject))
        _hold(Law.OBSERVER_SEES_EACH_STEP_ONCE, where, "told", table.told, ((str(dest), taken),))
        _hold(Law.OBSERVER_HARMS_NOTHING, where, "errors counted", table.errors, before.errors)
    _hold(Law.ENGINES_AGREE, where, "the table did", table, stock)
    return taken


def ask(subject: Subject[Any], guards: Sequence[str], where: str) -> dict[str, object]:
    """What the guards say; raises InvariantViolated for one that breaks a law of guards.

    What the guards of a `Probe` say is the test's to choose, whatever it is.
    """
    before = _look(subject)
    facts, again = ({name: _say(subject, name, where) for name in guards} for _ in range(2))
    _hold(Law.GUARDS_ARE_FACTS, where, "asked again, the guards said", again, facts)
    _hold(Law.GUARDS_ARE_FACTS, where, "after asking the guards, it was", _look(subject), before)
    for name, value in facts.items():
        if not isinstance(value, bool) and not isinstance(subject, Probe):
            raise InvariantViolated(Law.GUARDS_ARE_BOOLS, f"{where}: the guard {name} said {value!r}")
    return facts


def _say(subject: Subject[Any], guard: str, where: str) -> object:
    try:
        said: object = getattr(subject, guard)
    except Exception as error:
        error.add_note(f"raised by the guard {guard}, asked for {where}")
        raise
    return said


def _look(subject: Subject[Any]) -> _Account:
    return _Account(subject.state, subject.since, tuple(subject.history), subject.observer_errors)


def _attempt(
    step: Callable[..., object],
    subject: Subject[Any],
    arguments: tuple[StrEnum, float, str],
    theirs: Callable[[Subject[Any], Step], None] | None,
    raises: bool,
) -> _Account:
    told: list[tuple[str, Step]] = []
    failed = 0

    def observe(it: Subject[Any], taken: Step) -> None:
        nonlocal failed
        told.append((str(it.state), taken))
        failed += 1  # unless it gets to its end
        if theirs is not None:
            theirs(it, taken)
        if raises:
            raise PlantedError
        failed -= 1

    returned = raised = None
    before, subject.observer = subject.observer, observe
    try:
        with _quiet():
            returned = step(subject, *arguments)
    except Exception as error:
        raised = _refusal(error) if isinstance(error, IllegalTransition) else repr(error)
    finally:
        subject.observer = before
    now = _look(subject)
    return msgspec.structs.replace(now, errors=now.errors - failed, told=tuple(told), returned=returned, raised=raised)


def _refusal(error: IllegalTransition) -> str:
    return f"IllegalTransition({error.lifecycle!r}, {error.state!r}, {error.trigger!r})"


def _kept(history: tuple[Step, ...], taken: Step, subject: Subject[Any]) -> tuple[Step, ...]:
    keep = subject.history.maxlen
    every = (*history, taken)
    return every if keep is None else every[len(every) - min(keep, len(every)) :]


class PlantedError(Exception):
    """What an observer raises that was told to."""


class _Planted(logging.Filter):
    """Keeps planted errors out of the log, which is for those that nobody expected."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], PlantedError))


_PLANTED = _Planted()


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    log = logging.getLogger("remuda.statemachines")
    log.addFilter(_PLANTED)
    try:
        yield
    finally:
        log.removeFilter(_PLANTED)


def _hold(law: Law, where: str, what: str, found: object, expected: object) -> None:
    if found != expected:
        raise InvariantViolated(law, f"{where}: {what} {found!r}, not {expected!r}")


# ── Every step ──────────────────────────────────────────────────────────────────────────────────


class Probe(Subject[Any]):
    """A subject whose guards say what they are told to. `probe_of` makes the class for a lifecycle."""

    __slots__ = ("facts",)

    def __init__(self, lifecycle: Lifecycle[Any, Any], *, now: float = 0.0, history: int = 4) -> None:
        super().__init__(lifecycle, now=now, history=history)
        self.facts: dict[str, object] = dict.fromkeys(lifecycle.guards, False)


def probe_of(lifecycle: Lifecycle[Any, Any]) -> type[Probe]:
    """Make a class of subjects for `lifecycle`: each of its guards says what stands in `facts`."""

    def says(guard: str) -> property:
        return property(lambda probe: probe.facts[guard])

    guards: Mapping[str, object] = {guard: says(guard) for guard in lifecycle.guards}
    return type("Probe", (Probe,), {"__slots__": (), **guards})


def engines_agree(lifecycle: Lifecycle[Any, Any], outcomes: Sequence[object] = (True, False)) -> int:
    """Try every state, trigger and outcome of the guards on both engines.

    Also tried are the members of both enums that the declaration does not use: they are illegal.
    A guard that a step does not ask cannot be asked for it: it would raise.

    Args:
        lifecycle: what to try.
        outcomes: what each guard may say. The engines agree on what is no bool, too.

    Returns:
        How many cases there were.

    Raises:
        InvariantViolated: a `Law` is broken; `name` says which, the text says where.
    """
    made, cases = probe_of(lifecycle), 0
    declared = _sources(lifecycle)
    for state, trigger in itertools.product(family(lifecycle.initial), family(lifecycle.triggers[0])):
        guards = guards_of(lifecycle.table.get(state, {}).get(trigger, ()))
        for values in itertools.product(outcomes, repeat=len(guards)):
            for observer_raises in False, True:
                subject = made(lifecycle, now=1.0)
                subject.state = state
                subject.facts = dict(zip(guards, values, strict=True))
                judge_step(lifecycle, subject, trigger, 2.0, "why", observer_raises=observer_raises)
            cases += 1
    # `transitions` keeps its sources in a defaultdict, to which a careless look-up would add.
    _hold(Law.ILLEGAL_STEP_CHANGES_NOTHING, lifecycle.name, "declared are", _sources(lifecycle), declared)
    return cases


def _sources(lifecycle: Lifecycle[Any, Any]) -> dict[str, list[str]]:
    return {str(trigger): [*event.transitions] for trigger, event in lifecycle.machine.events.items()}
