"""The canonical form of a core: equal for two cores that will behave the same from now on.

An explorer that walks all states needs to know when it has been somewhere before. So everything
that only grows is left out or renumbered (ids of calls, names of sessions, generations, history,
absolute times), and everything that decides stays in: states, who holds whom, the order of waiters
and of idle workers, counters that guards look at, and when things fall due.

**Slots are interchangeable.** Which number a slot has decides nothing, so each slot is described by
all that does decide about it, its places in the queues included, and the descriptions are sorted.
Two pools that differ only in *which* worker is busy have one form: with three workers that is up to
six times fewer states. It is sound because the description is complete: everything that refers to a
worker (a call, a session, the idle queue) refers to its place after sorting, and slots with equal
descriptions are referred to by nothing that could tell them apart.

**Sessions are interchangeable** as well: they are numbered in the order in which they are met.
**Calls** are numbered by arrival, which decides who is next, and so is not left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

from remuda.statemachines.subjects import Call, Slot, Worker
from remuda.statemachines.worker import WorkerState

if TYPE_CHECKING:
    from remuda.statemachines.core import Core

__all__ = ["canonical", "session_numbers"]

_NONE = -1
"""Stands for None where things are sorted: None does not compare."""


def canonical(
    core: Core, now: float, *, exact: bool = False, about: Callable[[Worker], tuple[int | str, ...]] | None = None
) -> Hashable:
    """The canonical form of `core`.

    Args:
        core: whose.
        now: monotonic seconds.
        exact: tell due times by how far off they are (to a microsecond), not only by their order. A
            new alarm falls before or after one that is set, and only the distance says which.
        about: what else is known of a worker from outside, which decides about it too; it is
            sorted with the worker's slot.
    """
    calls = {call: number for number, call in enumerate(core.calls.values())}
    sessions = session_numbers(core)
    crew, health, linger, ttl = core.crew, core.policy.health, core.policy.linger, core.sessions.ttl
    moment = _offset(now) if exact else _rank(core, now)
    # Alarms that are due together come up in the order in which they were set. It matters between calls
    # that come back and slots that do (lanes, tokens); what else time does to a worker, to the breaker
    # or to the pool concerns nobody else.
    coming_back = (armed for armed in core.timers.order() if isinstance(armed, Slot | Call))
    turns: dict[object, int] = {armed: turn for turn, armed in enumerate(coming_back)}
    idle = {worker: turn for turn, worker in enumerate((*crew.idle(), *crew.spares()))}
    to_start = {slot: turn for turn, slot in enumerate(crew.to_start())}
    bound: dict[Worker, list[int]] = {}
    for turn, (_, worker, _) in enumerate(core.sessions):
        bound.setdefault(worker, []).append(turn)

    def number(call: Call | None) -> int:
        return _NONE if call is None else calls.get(call, -3)

    def worker_form(worker: Worker | None) -> tuple[object, ...]:
        if worker is None:
            return ()
        active = worker.last_active
        return (
            worker.state,
            number(worker.occupant),
            number(worker.call),
            worker.failures,
            worker.served > 0,
            worker.was_ready,
            worker.on_purpose,
            worker.violation,
            worker.interrupted is not None and worker.state is WorkerState.DRAINING,
            worker.rung or "",
            moment(worker.due),
            moment(active + health.interval),
            moment(active + linger),
            idle.get(worker, _NONE),
            tuple(bound.get(worker, ())),
            about(worker) if about is not None else (),
        )

    def slot_form(slot: Slot) -> tuple[object, ...]:
        return (
            slot.kind,
            slot.state,
            slot.attempts,
            moment(slot.due),
            turns.get(slot, _NONE),
            to_start.get(slot, _NONE),
            worker_form(slot.worker),
        )

    forms = sorted((slot_form(slot), slot.index) for slot in crew.slots.values())
    places = {index: turn for turn, (_, index) in enumerate(forms)}

    def place(worker: Worker | None) -> int:
        """Which worker: the place of its slot, or none when it is gone."""
        if worker is None or worker.slot.worker is not worker:
            return _NONE
        return places.get(worker.slot.index, _NONE)

    breaker_due = core.breaker.next_due()
    return (
        (
            core.pool.state,
            core.cannot_start != "",
            core.breaker.key(now),
            _NONE if breaker_due is None else moment(breaker_due),
            round(crew.budget.tokens(now), 6),
            moment(core._closes_at),
            *(moment(alarm.due) for alarm in core.alarms),
        ),
        tuple(form for form, _ in forms),
        tuple(
            (
                call.state,
                call.is_lease,
                number(call.lease),
                _NONE if call.session is None else sessions[call.session],
                call.idempotent,
                call.interrupt,
                call.attempts,
                call.handovers,
                call.permit is not None and core.breaker.holds(call.permit),
                place(call.worker),
                moment(call.deadline),
                moment(call.due),
                turns.get(call, _NONE),
            )
            for call in calls
        ),
        (core.waiters.returned, *(calls.get(call, -3) for call in core.waiters)),
        tuple((sessions[name], place(worker), moment(used + ttl)) for name, worker, used in core.sessions),
    )


def session_numbers(core: Core) -> dict[str, int]:
    """The sessions that the core knows of, numbered in an order that does not depend on their names."""
    numbers: dict[str, int] = {}
    for name, _, _ in core.sessions:
        numbers.setdefault(name, len(numbers))
    for call in (*core.waiters, *core.calls.values()):
        if call.session is not None:
            numbers.setdefault(call.session, len(numbers))
    return numbers


def _offset(now: float) -> Callable[[float], float]:
    """How far off a moment is; 0 if it has passed."""

    def offset(moment: float) -> float:
        return round(moment - now, 6) if moment > now else 0.0

    return offset


def _rank(core: Core, now: float) -> Callable[[float], float]:
    """Which one a moment is of all those that something will be compared with; 0 if it has passed."""
    health, linger = core.policy.health, core.policy.linger
    moments = {alarm.due for alarm in core.alarms}
    for call in core.calls.values():
        moments |= {call.deadline, call.due}
    for slot in core.crew.slots.values():
        moments.add(slot.due)
        if slot.worker is not None:
            active = slot.worker.last_active
            moments |= {slot.worker.due, active + health.interval, active + linger}
    moments |= {used + core.sessions.ttl for _, _, used in core.sessions}
    moments |= {core.breaker.next_due() or 0.0, core._closes_at}
    ranks = {moment: rank for rank, moment in enumerate(sorted(m for m in moments if now < m < math.inf), start=1)}
    ranks[math.inf] = len(ranks) + 1
    return lambda moment: ranks.get(moment, 0)
