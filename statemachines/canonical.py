"""The canonical form of a core: equal for two cores that will behave the same from now on.

An explorer that walks all states needs to know when it has been somewhere before. So everything
that only grows is left out or renumbered (ids of calls, generations, history, absolute times), and
everything that decides stays in: states, who holds whom, the order of waiters and of idle workers,
counters that guards look at, and the *order* in which things fall due.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

from remuda.statemachines.subjects import Call, Worker

if TYPE_CHECKING:
    from remuda.statemachines.core import Core

__all__ = ["canonical"]


def canonical(core: Core, now: float) -> Hashable:
    """The canonical form of `core` at `now` (monotonic seconds); hashable."""
    calls = {call: number for number, call in enumerate(core.calls.values())}
    slots = {slot: number for number, slot in enumerate(core.crew.slots.values())}
    health, linger = core.policy.health, core.policy.linger

    # Every moment that something will be compared with, as its rank; what has passed is rank 0.
    moments: set[float] = set()
    for call in calls:
        moments.update((call.deadline, call.due))
    for slot in slots:
        moments.add(slot.due)
        if slot.worker is not None:
            moments.update((slot.worker.due, slot.worker.last_active + health.interval))
            moments.add(slot.worker.last_active + linger)
    for _, _, used in core.sessions:
        moments.add(used + core.sessions.ttl)
    breaker_due = core.breaker.next_due()
    if breaker_due is not None:
        moments.add(breaker_due)
    moments.add(core.pool_due)
    ranks = {moment: rank for rank, moment in enumerate(sorted(m for m in moments if m > now), start=1)}

    def rank(moment: float) -> int:
        return ranks.get(moment, 0)

    def call_key(call: Call | None) -> Hashable:
        return None if call is None else calls.get(call, -1)

    def worker_key(worker: Worker | None) -> Hashable:
        if worker is None:
            return None
        idle = worker.last_active
        return (
            worker.state,
            call_key(worker.occupant),
            call_key(worker.call),
            worker.failures,
            worker.served > 0,
            worker.was_ready,
            worker.on_purpose,
            worker.violation,
            worker.rung,
            rank(worker.due),
            rank(idle + health.interval),
            rank(idle + linger),
        )

    def place(worker: Worker | None) -> Hashable:
        """Which worker: the place of its slot, or None when it is gone."""
        return slots.get(worker.slot) if worker is not None and worker.slot.worker is worker else None

    return (
        core.pool.state,
        core.cannot_start != "",
        rank(core.pool_due),
        core.breaker.key(now),
        rank(breaker_due) if breaker_due is not None else None,
        round(core.crew.budget.tokens(now), 6),
        tuple((s.kind, s.state, s.attempts, rank(s.due), worker_key(s.worker)) for s in slots),
        tuple(slots[slot] for slot in core.crew.to_start()),
        tuple(place(worker) for worker in core.crew.idle()),
        tuple(
            (
                call.state,
                call.is_lease,
                call_key(call.lease),
                call.session,
                call.idempotent,
                call.attempts,
                call.handovers,
                call.permit is not None and core.breaker.holds(call.permit),
                place(call.worker),
                rank(call.deadline),
                rank(call.due),
            )
            for call in calls
        ),
        tuple(calls[call] for call in core.waiters),
        tuple((name, place(worker), rank(used + core.sessions.ttl)) for name, worker, used in core.sessions),
    )
