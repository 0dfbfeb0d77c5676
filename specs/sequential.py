"""What a history must look like: as if the pool served one caller after the other, and nothing twice.

A function for each rule, as in `remuda.specs.invariants`: it looks at a history and says what is wrong
with it, or None. But where an invariant looks at the core, these look at what callers got and what
workers did. They would hold for any pool.

`judge(history)` asks all of them.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator
from typing import TypeAlias

from remuda.specs.history import ANYTHING, Executed, History, Operation, Outcome, say
from remuda.specs.invariants import InvariantViolated
from remuda.specs.linear import Act, Moment, offence
from remuda.statemachines.effects import Verdict

__all__ = ["RULES", "Rule", "broken_rules", "judge"]

Rule: TypeAlias = Callable[[History], str | None]

RULES: dict[str, Rule] = {}
"""All of them, by name."""


def _rule(rule: Rule) -> Rule:
    RULES[rule.__name__] = rule
    return rule


def judge(history: History) -> None:
    """Ask all; raises InvariantViolated for the first that does not hold."""
    for name, detail in broken_rules(history).items():
        raise InvariantViolated(name, detail)


def broken_rules(history: History) -> dict[str, str]:
    """Which rules do not hold, and what they say."""
    return {name: detail for name, rule in RULES.items() if (detail := rule(history)) is not None}


# ── Calls ───────────────────────────────────────────────────────────────────────────────────────


@_rule
def nothing_ends_before_it_began(history: History) -> str | None:
    """What returned had been called, what was granted had been asked for, what was finished had begun."""
    for operation in history.operations:
        if not _in_order(operation.invoked, operation.granted, operation.released, operation.returned):
            return str(operation)
    for execution in history.executions:
        if not _in_order(execution.begun, execution.finished):
            return str(execution)
    return None


def _in_order(*moments: Moment | None) -> bool:
    known = [moment for moment in moments if moment is not None]
    return known == sorted(known)


@_rule
def at_most_once(history: History) -> str | None:
    """A call that may not be repeated was begun once at most, by any worker."""
    executions = _executions(history)
    for operation in history.operations:
        found = executions[operation.key]
        if not operation.idempotent and len(found) > 1:
            return _with(operation, found)
    return None


@_rule
def unknown_only_if_begun(history: History) -> str | None:
    """Who is told that nobody knows what came of a call is told so because it had begun."""
    executions = _executions(history)
    for operation in history.operations:
        if history.exact and operation.outcome is Outcome.UNKNOWN and not executions[operation.key]:
            return f"{operation}; no worker ever began it"
    return None


@_rule
def an_answer_was_worked_for(history: History) -> str | None:
    """What was answered was begun by a worker."""
    executions = _executions(history)
    for operation in history.operations:
        if operation.outcome is Outcome.ANSWERED and not executions[operation.key]:
            return f"{operation}; no worker ever began it"
    return None


@_rule
def an_answer_is_ones_own(history: History) -> str | None:
    """Nobody gets what was meant for another."""
    for operation in history.operations:
        known = operation.outcome is Outcome.ANSWERED and operation.expected is not ANYTHING
        if known and operation.value != operation.expected:
            return f"{operation}; the answer is {operation.value!r}, and should be {operation.expected!r}"
    return None


@_rule
def nothing_begins_after_the_outcome(history: History) -> str | None:
    """No worker begins a call whose caller has had its outcome already."""
    executions = _executions(history)
    for operation in history.operations:
        late = [e for e in executions[operation.key] if operation.returned is not None and e.begun > operation.returned]
        if late:
            return _with(operation, late)
    return None


@_rule
def a_worker_goes_with_its_caller(history: History) -> str | None:
    """A worker that had begun a call which ended without an answer is killed: it begins nothing any more."""
    executions = _executions(history)
    by_worker: dict[object, list[Executed]] = defaultdict(list)
    for execution in history.executions:
        by_worker[execution.worker].append(execution)
    for operation in history.operations:
        if operation.settled is None or operation.verdict in (Verdict.ANSWERED, None):
            continue
        for execution in executions[operation.key]:
            more = [e for e in by_worker[execution.worker] if e.begun > operation.settled and e.key != operation.key]
            if more and execution.begun < operation.settled:
                return _with(operation, [execution, more[0]])
    return None


# ── Order ───────────────────────────────────────────────────────────────────────────────────────


@_rule
def first_come_first_served(history: History) -> str | None:
    """Of those in one lane, whoever arrives first is given a worker first, unless they have left by then."""
    lanes: dict[str | None, list[Operation]] = defaultdict(list)
    for operation in history.operations:
        if operation.arrived is not None and operation.on is None:
            lanes[operation.session].append(operation)
    for lane in lanes.values():
        waiting: dict[int, Operation] = {}  # in the order of arrival
        for _, what, operation in sorted(_turns(lane), key=lambda turn: turn[0]):
            if what == "arrives":
                waiting[operation.number] = operation
            elif what == "leaves":
                waiting.pop(operation.number, None)
            else:
                first = next(iter(waiting.values()), operation)
                if first is not operation:
                    return (
                        f"{operation}, arrived at {_say(operation.arrived)}, was given a worker at "
                        f"{_say(operation.assigned)}, before {first}, arrived at {_say(first.arrived)}"
                    )
                waiting.pop(operation.number, None)
    return None


def _turns(lane: list[Operation]) -> Iterator[tuple[Moment, str, Operation]]:
    for operation in lane:
        assert operation.arrived is not None
        yield operation.arrived, "arrives", operation
        if operation.assigned is not None:
            yield operation.assigned, "is served", operation
        elif operation.settled is not None:
            yield operation.settled, "leaves", operation


# ── Checkouts ───────────────────────────────────────────────────────────────────────────────────


@_rule
def no_more_holders_than_workers(history: History) -> str | None:
    """Never do more callers hold a worker than the pool may have."""
    if history.size is None:
        return None
    changes: list[tuple[Moment, int, Operation]] = []
    for operation in history.operations:
        if operation.granted is None or operation.worker is None:
            continue
        changes.append((operation.granted, 1, operation))
        lost = history.ended.get(operation.worker)
        ends = [moment for moment in (operation.released, lost) if moment is not None]
        if ends:
            changes.append((max(min(ends), operation.granted), 0, operation))
    holders: dict[int, Operation] = {}
    for _, more, operation in sorted(changes, key=lambda change: change[:2]):
        if more:
            holders[operation.number] = operation
        else:
            holders.pop(operation.number, None)
        if len(holders) > history.size:
            return f"{len(holders)} hold a worker of {history.size}: {'; '.join(map(str, holders.values()))}"
    return None


_Held: TypeAlias = tuple[int, int]
"""A slot: the least generation that may still be had, and the number of the checkout that holds it, or 0."""


@_rule
def leases_are_linearizable(history: History) -> str | None:
    """A worker is one caller's at a time, from some instant of the checkout to some instant of its return.

    Meanwhile it runs no calls but those on that checkout, and those run on no other worker. Once it has
    ended it is nobody's, and who still held it has nothing.
    """
    slots: dict[int, list[Act[_Held]]] = defaultdict(list)
    for operation in history.operations:
        if operation.granted is not None and operation.worker is not None:
            slot, generation = operation.worker
            slots[slot] += _holding(operation, generation)
    executions = _executions(history)
    for operation in history.operations:
        for execution in executions[operation.key]:
            slots[execution.worker[0]].append(_using(operation, execution))
    for (slot, generation), moment in history.ended.items():
        slots[slot].append(Act(f"worker {slot}.{generation} ends", moment, moment, functools.partial(_end, generation)))
    for slot, acts in slots.items():
        impossible = offence(acts, (0, 0))
        if impossible:
            lines = (f"  {say(act.begun)} … {_say(act.ended)}  {act.words}" for act in impossible)
            return "\n".join((f"there is no order in which this could have happened to slot {slot}:", *lines))
    return None


def _holding(operation: Operation, generation: int) -> Iterator[Act[_Held]]:
    assert operation.worker is not None
    number, worker = operation.number, f"{operation.worker[0]}.{operation.worker[1]}"
    take = functools.partial(_take, generation, number)
    yield Act(f"checkout {number} is given worker {worker}", operation.invoked, operation.granted, take, number)
    if operation.released is not None:
        give = functools.partial(_give_back, number)
        yield Act(f"checkout {number} gives it back", operation.released, operation.returned, give, number)


def _using(operation: Operation, execution: Executed) -> Act[_Held]:
    slot, generation = execution.worker
    lease = operation.on
    elsewhere = lease is not None and lease.worker != execution.worker
    use = functools.partial(_use, generation, -1 if elsewhere else 0 if lease is None else lease.number)
    where = f" of checkout {lease.number}" if lease is not None else ""
    words = f"{operation.what} {operation.number}{where} begins on worker {slot}.{generation}"
    return Act(words, execution.begun, execution.begun, use, operation.number)


def _take(generation: int, number: int, held: _Held) -> _Held | None:
    least, holder = held
    return None if holder or generation < least else (generation, number)


def _give_back(number: int, held: _Held) -> _Held:
    least, holder = held
    return (least, 0) if holder == number else held


def _use(generation: int, lease: int, held: _Held) -> _Held | None:
    least, holder = held
    return None if lease < 0 or generation < least or holder not in (0, lease) else held


def _end(generation: int, held: _Held) -> _Held:
    return generation + 1, 0


# ── Reading a history ───────────────────────────────────────────────────────────────────────────


def _executions(history: History) -> dict[Hashable, list[Executed]]:
    found: dict[Hashable, list[Executed]] = defaultdict(list)
    for execution in history.executions:
        found[execution.key].append(execution)
    return found


def _with(operation: Operation, executions: list[Executed]) -> str:
    return "; ".join((str(operation), *(str(execution) for execution in executions)))


def _say(moment: Moment | None) -> str:
    return "…" if moment is None else say(moment)
