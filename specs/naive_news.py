"""The naive model hears the news: what must come of each event.

This is the first half of the model. It says which answers, stops and checks an event must bring about, and
what everybody is doing after it. `remuda.specs.naive` is the other half, which looks at what the core did.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from remuda.specs.naive_parts import ALMOST, Bucket, KnownCall, KnownSlot, KnownWorker, Lanes, NaiveBreaker
from remuda.statemachines import events as ev
from remuda.statemachines.core import Core
from remuda.statemachines.effects import Verdict
from remuda.statemachines.pool import PoolState
from remuda.statemachines.slot import SlotState, SlotTrigger
from remuda.statemachines.subjects import Call, Rung, Slot, SlotKind, Worker
from remuda.statemachines.worker import WorkerState

__all__ = ["CLOSING", "USABLE", "Expectations"]

W = WorkerState
USABLE = (W.READY, W.BUSY, W.CHECKING, W.INTERRUPTING)
_HELD = (W.BUSY, W.INTERRUPTING, W.DRAINING)
"""States in which a worker is still of use to who has checked it out."""
CLOSING = (PoolState.DRAINING, PoolState.CLOSED)


class Expectations:
    """What is known, and what must happen next.

    Args:
        core: what it is compared with; it has to be `observed`, and not opened yet.
    """

    def __init__(self, core: Core) -> None:
        self.core, self.policy = core, core.policy
        self.breaker = NaiveBreaker(core.policy)
        self.lanes = Lanes()
        self.bucket = Bucket(core.policy.restart.burst, core.policy.restart.period)
        self.calls: dict[Call, KnownCall] = {}
        self.workers: dict[Worker, KnownWorker] = {}
        self.idle: list[KnownWorker] = []
        self.spares: list[KnownWorker] = []  # that are ready
        self.slots: dict[Slot, KnownSlot] = {}
        self.bound: dict[str, tuple[KnownWorker, float]] = {}
        self.pool = PoolState.STARTING
        self.verdicts: list[Verdict] = []
        self.closes_at = math.inf
        self.killed_all = False
        self.now = 0.0
        self.made = 0  # slots
        # What the event that is being looked at must bring about.
        self.event: ev.Event = ev.Open()
        self.answers: dict[Call, Verdict] = {}
        self.stops: dict[Worker, Rung] = {}
        self.back: set[Call] = set()
        self.checks: set[Worker] = set()
        self.interrupts: dict[Worker, Call] = {}
        self.exits: dict[Slot, set[str]] = {}
        self.sent: Call | None = None
        self.breaker_steps: list[str] = []
        self.pool_steps: list[str] = []
        self.fresh: list[Slot] = []
        self.grown = 0  # of these, how many a spare has taken
        self.had_idle = self.boot_failed = self.lenient = False

    # ── Before: what must come of it ────────────────────────────────────────────────────────────

    def expect(self, event: ev.Event, now: float) -> bool:
        """Take note of an event that is about to happen.

        Returns:
            Whether the core has to refuse it (`InvalidLease`), and change nothing.
        """
        self.event, self.now = event, now
        self.answers, self.stops, self.back, self.checks, self.exits = {}, {}, set(), set(), {}
        self.interrupts, self.grown = {}, 0
        self.sent, self.breaker_steps, self.pool_steps, self.fresh = None, [], [], []
        self.had_idle, self.boot_failed, self.lenient = bool(self.idle), False, False
        handle: Callable[..., bool | None] = getattr(self, f"_{type(event).__name__.lower()}")
        return bool(handle(event))

    def _open(self, event: ev.Open) -> None:
        pass

    def _submit(self, event: ev.Submit) -> bool:
        call = event.call
        lease = None if call.lease is None else self.calls.get(call.lease)
        held = lease.worker if lease is not None and lease.where == "lease" else None
        if held is not None and held.call is not None:
            return True
        if held is not None and held.interrupted is not None and held.state in _HELD and call.deadline > self.now:
            return True
        self.calls[call] = KnownCall(call)
        refusing = {PoolState.FAILED: Verdict.POOL_FAILED, **dict.fromkeys(CLOSING, Verdict.CLOSED)}
        if call.lease is None and self.pool in refusing:
            self.answers[call] = refusing[self.pool]
        elif call.lease is not None and (held is None or held.state not in _HELD):
            self.answers[call] = Verdict.DIED
        elif call.deadline <= self.now and not (call.is_lease and self._has_one_to_spare()):
            self.answers[call] = Verdict.TIMED_OUT
        elif not call.is_lease and not self._admitted(call):
            self.answers[call] = Verdict.CIRCUIT_OPEN
        else:
            self.sent = call
        return False

    def _has_one_to_spare(self) -> bool:
        """Whether somebody who checks out does not have to wait."""
        serving = self.pool in (PoolState.STARTING, PoolState.READY, PoolState.IMPAIRED)
        return serving and bool(self.idle) and not self.lanes.all()

    def _admitted(self, call: Call) -> bool:
        if step := self.breaker.tick(self.now):
            self.breaker_steps.append(step)
        if not self.breaker.admits():
            return False
        self.breaker.entries.append((self.now, call, None))
        return True

    def _giveup(self, event: ev.GiveUp) -> None:
        known = self.calls.get(event.call)
        if known is None or known.where == "over":
            return
        late = event.call.deadline <= self.now and known.where != "lease"
        self._must_end(known, Verdict.TIMED_OUT if late else Verdict.CANCELLED)

    def _must_end(self, known: KnownCall, verdict: Verdict) -> None:
        """Its caller or the clock ends it.

        The worker that has it goes, and so does the checkout it is on; or it is told to stop.
        """
        self.answers[known.call] = verdict
        worker = known.worker
        if worker is not None and known.call.interrupt and worker.state is W.BUSY:
            self._turns(worker, W.INTERRUPTING)
            worker.interrupted, worker.stops_until = known, self.now + self.policy.interrupt_grace
            worker.on_purpose = True
            self.interrupts[worker.worker] = known.call
        elif worker is not None:
            if worker.occupant is not None and worker.occupant is not known:
                self.answers[worker.occupant.call] = Verdict.DIED
            self._condemned(worker, on_purpose=True)

    def _condemned(self, worker: KnownWorker, *, on_purpose: bool) -> None:
        if worker.state not in (W.TERMINATING, W.TERMINATED):
            self._stopped(worker, Rung.KILL, on_purpose=on_purpose)

    def _stopped(self, worker: KnownWorker, rung: Rung, *, on_purpose: bool) -> None:
        self._turns(worker, W.TERMINATING)
        worker.on_purpose |= on_purpose
        self.stops[worker.worker] = rung

    def _turns(self, worker: KnownWorker, state: WorkerState) -> None:
        worker.state, worker.since = state, self.now
        for free in self.idle, self.spares:
            if worker in free:
                free.remove(worker)
        slot = self.slots[worker.worker.slot]
        if state is W.READY and slot.kind is SlotKind.SPARE:
            self.spares.append(worker)
            for other in self.slots.values():
                if other.worker is None or other.worker.state not in USABLE:
                    self._stands_in(other)
        elif state is W.READY:
            self.idle.append(worker)
        elif state not in USABLE:
            self._stands_in(slot)

    def _stands_in(self, slot: KnownSlot) -> None:
        """A slot is without a worker that serves: a spare takes its place, and leaves it its own."""
        if slot.kind is SlotKind.BASE and self.spares and self.pool not in CLOSING:
            spare = self.spares.pop(0)
            slot.kind, self.slots[spare.worker.slot].kind = SlotKind.SPARE, SlotKind.BASE
            self.idle.append(spare)

    def _kind(self, worker: KnownWorker) -> SlotKind:
        return self.slots[worker.worker.slot].kind

    def _retired(self, worker: KnownWorker) -> None:
        if worker.state in (W.BUSY, W.CHECKING, W.INTERRUPTING):
            worker.on_purpose = True
            since = worker.since
            self._turns(worker, W.DRAINING)
            worker.since = since  # a check goes on, and has the time that it had
        elif worker.state in (W.INITIALIZING, W.READY, W.DEGRADED):
            self._stopped(worker, Rung.ASK, on_purpose=True)

    def _released(self, worker: KnownWorker, *, unfit: bool) -> None:
        worker.active = self.now
        worker.failures = worker.failures + 1 if unfit else 0
        if worker.state is W.DRAINING or worker.failures >= self.policy.health.failures:
            self._stopped(worker, Rung.ASK, on_purpose=False)
        else:
            self._turns(worker, W.DEGRADED if unfit else W.READY)

    def _checkin(self, event: ev.Checkin) -> bool:
        known = self.calls.get(event.lease)
        if known is None or known.where != "lease" or known.worker is None:
            return True
        worker = known.worker
        self.answers[event.lease] = Verdict.RETURNED
        if worker.state in (W.BUSY, W.DRAINING) and worker.interrupted is None:
            if worker.call is None:
                self._released(worker, unfit=False)
            else:
                self._retired(worker)
        return False

    def _began(self, event: ev.Began) -> None:
        known = self.calls.get(event.call)
        if known is not None and known.where == "worker" and not known.running:
            known.running = True
            known.begun += 1

    def _initialized(self, event: ev.Initialized) -> None:
        worker = self.workers[event.worker]
        if worker.state is W.INITIALIZING:
            worker.up, worker.active = True, self.now
            self._turns(worker, W.READY)

    def _replaying(self, event: ev.Replaying) -> None:
        worker = self.workers[event.worker]
        if worker.state is W.INITIALIZING:
            worker.boots_until = self.now + event.seconds

    def _bootfailed(self, event: ev.BootFailed) -> None:
        self._does_not_come_up(self.workers[event.worker])

    def _does_not_come_up(self, worker: KnownWorker) -> None:
        if worker.state is W.INITIALIZING:
            self.boot_failed |= self.pool is PoolState.STARTING
            self._condemned(worker, on_purpose=False)

    def _replied(self, event: ev.Replied) -> None:
        worker = self.workers[event.worker]
        known = worker.call
        if known is None or known.call.id != event.call_id:
            stops = worker.interrupted is not None and worker.interrupted.call.id == event.call_id
            if stops and worker.state in (W.INTERRUPTING, W.DRAINING):
                self._has_stopped(worker, unfit=event.unfit)
            return
        self.answers[known.call] = Verdict.ANSWERED
        worker.served += 1
        known.begun += not known.running
        on_lease = worker.occupant is not None and worker.occupant is not known
        if worker.state not in (W.BUSY, W.DRAINING):
            return
        if not on_lease:
            self._released(worker, unfit=event.unfit)
        elif event.unfit:
            self._retired(worker)

    def _has_stopped(self, worker: KnownWorker, *, unfit: bool) -> None:
        """It has answered in time to the call that it was told to stop, which is over for its caller."""
        worker.interrupted, worker.active = None, self.now
        worker.served += 1
        if worker.state is W.INTERRUPTING:
            worker.on_purpose = False
            self._turns(worker, W.READY if worker.occupant is None else W.BUSY)
        elif worker.occupant is None:
            self._stopped(worker, Rung.ASK, on_purpose=True)
        if unfit:
            self._retired(worker)

    def _healthchecked(self, event: ev.HealthChecked) -> None:
        worker = self.workers[event.worker]
        if worker.check_is_out and event.number == worker.checks and worker.state in (W.CHECKING, W.DRAINING):
            self._checked(worker, event.healthy)

    def _checked(self, worker: KnownWorker, healthy: bool) -> None:
        worker.check_is_out, worker.active = False, self.now
        if worker.state is W.DRAINING:
            self._stopped(worker, Rung.ASK if healthy else Rung.KILL, on_purpose=False)
            return
        worker.failures = 0 if healthy else worker.failures + 1
        if worker.failures >= self.policy.health.failures:
            self._stopped(worker, Rung.KILL, on_purpose=False)
        else:
            self._turns(worker, W.READY if healthy else W.DEGRADED)

    def _channelfailed(self, event: ev.ChannelFailed) -> None:
        worker = self.workers[event.worker]
        worker.violation |= event.violation
        self._condemned(worker, on_purpose=False)

    def _exited(self, event: ev.Exited) -> None:
        worker = self.workers[event.worker]
        if worker.state is not W.TERMINATED:
            self._gone(worker, began=event.began, draw=event.draw)

    def _gone(self, worker: KnownWorker, *, began: bool, draw: float) -> None:
        self._turns(worker, W.TERMINATED)
        self._goes_on(self.slots[worker.worker.slot], worker, draw)
        if worker.occupant is not None and worker.occupant is not worker.call:
            self.answers[worker.occupant.call] = Verdict.DIED
        known = worker.call
        if known is None:
            return
        call, retry = known.call, self.policy.retry
        stays = call.lease is None and self.pool not in (PoolState.FAILED, *CLOSING)
        began = began or known.running
        if began and not known.running:
            known.begun += 1
        if call.deadline <= self.now:
            self.answers[call] = Verdict.TIMED_OUT
        elif not began and stays and known.moved < retry.handovers:
            known.moved += 1
            self.back.add(call)
        elif not began and (stays or call.lease is not None):
            self.answers[call] = Verdict.DIED
        elif not began:
            self.answers[call] = Verdict.POOL_FAILED if self.pool is PoolState.FAILED else Verdict.CLOSED
        elif stays and call.idempotent and known.begun < retry.attempts:
            known.where, known.worker, known.running = "pause", None, False
            known.until = min(call.deadline, self.now + draw * min(retry.cap, retry.base * 2 ** (known.begun - 1)))
        else:
            self.answers[call] = Verdict.VIOLATION if worker.violation else Verdict.UNKNOWN

    def _goes_on(self, slot: KnownSlot, worker: KnownWorker, draw: float) -> None:
        """What becomes of a slot whose worker has gone."""
        slot.worker = None
        useful = worker.up and (worker.served > 0 or worker.on_purpose)
        slot.attempts = 0 if useful else slot.attempts
        if self.pool in CLOSING or (useful and slot.kind is SlotKind.OVERFLOW):
            self.exits[slot.slot] = {SlotTrigger.CLOSE}
        elif useful or worker.on_purpose:
            self.exits[slot.slot] = {SlotTrigger.RESTART}
        else:
            restart = self.policy.restart
            slot.attempts += 1
            slot.until = self.now + draw * min(restart.cap, restart.base * 2 ** (slot.attempts - 1))
            tokens = self.bucket.tokens(self.now) if slot.attempts <= restart.burst else 0.0
            self.exits[slot.slot] = set()
            if tokens >= 1 - ALMOST:
                self.exits[slot.slot].add(SlotTrigger.BACK_OFF)
            if tokens <= 1 + ALMOST and not tokens >= 1:
                self.exits[slot.slot].add(SlotTrigger.QUARANTINE)

    def _retire(self, event: ev.Retire) -> None:
        self._retired(self.workers[event.worker])

    def _endsession(self, event: ev.EndSession) -> None:
        self.bound.pop(event.session, None)

    def _suspend(self, event: ev.Suspend) -> None:
        self.pool = PoolState.SUSPENDED

    def _resume(self, event: ev.Resume) -> None:
        self.pool = PoolState.READY  # or not: that is looked at when the dust has settled

    def _close(self, event: ev.Close) -> None:
        if self.pool in CLOSING:
            return
        self.pool = PoolState.DRAINING
        self.closes_at = self.now + self.policy.shutdown_timeout
        for known in self._open_calls("queue", "pause"):
            self.answers[known.call] = Verdict.CLOSED
        for slot in self.slots.values():
            if slot.worker is None:
                self.exits[slot.slot] = {SlotTrigger.CLOSE}
            elif slot.worker.state is W.INITIALIZING:
                self._condemned(slot.worker, on_purpose=True)
            else:
                self._retired(slot.worker)

    def _tick(self, event: ev.Tick) -> None:
        now = self.now
        over = self.pool is PoolState.DRAINING and self.closes_at <= now
        ttl = self.policy.session_ttl
        self.bound = {name: (worker, used) for name, (worker, used) in self.bound.items() if used + ttl > now}
        for known in self._open_calls("queue", "pause", "worker"):
            if known.call.deadline <= now:
                self._must_end(known, Verdict.TIMED_OUT)
            elif known.where == "pause" and known.until <= now:
                self.back.add(known.call)
        for worker in self._alive():
            self._worker_is_due(worker)
        if over:  # whatever else was due may have come before it or not
            self.lenient = True
            for worker in self._alive():
                self._gone(worker, began=False, draw=1.0)
        elif self.pool is PoolState.DRAINING and not self.killed_all and self._kills_at() <= now:
            self.killed_all = True
            for worker in self._alive():
                if worker.state is not W.TERMINATING or worker.rung is not Rung.KILL:
                    self._stopped(worker, Rung.KILL, on_purpose=True)

    def _worker_is_due(self, worker: KnownWorker) -> None:
        if self._worker_due(worker) > self.now:
            return
        match worker.state:
            case W.INITIALIZING:
                self._does_not_come_up(worker)
            case W.READY if self._lingers_until(worker) <= self.now:
                self._stopped(worker, Rung.ASK, on_purpose=True)
            case W.READY | W.DEGRADED:
                self._turns(worker, W.CHECKING)
                worker.checks += 1
                worker.check_is_out = True
                self.checks.add(worker.worker)
            case W.INTERRUPTING | W.DRAINING if worker.interrupted is not None:
                self._condemned(worker, on_purpose=True)
                if worker.occupant is not None:
                    self.answers[worker.occupant.call] = Verdict.DIED
            case W.TERMINATING:
                if worker.worker not in self.stops:  # else it was sentenced this moment
                    self.stops[worker.worker] = Rung.TERM if worker.rung is Rung.ASK else Rung.KILL
            case _:
                self._checked(worker, healthy=False)

    # ── When something is due ───────────────────────────────────────────────────────────────────

    def _dues(self) -> Iterator[float]:
        for known in self._open_calls("queue", "pause", "worker"):
            yield min(known.call.deadline, known.until if known.where == "pause" else math.inf)
        for worker in self._alive():
            yield self._worker_due(worker)
        for slot in self.slots.values():
            if slot.state in (SlotState.BACKOFF, SlotState.QUARANTINED):
                yield slot.until
        for _, used in self.bound.values():
            yield used + self.policy.session_ttl
        yield self.breaker.due()
        yield self.closes_at if self.killed_all else self._kills_at()

    def _worker_due(self, worker: KnownWorker) -> float:
        """When it is time to do something about it."""
        health = self.policy.health
        match worker.state:
            case W.INITIALIZING:
                return worker.boots_until
            case W.READY:
                return min(worker.active + health.interval, self._lingers_until(worker))
            case W.CHECKING:
                return worker.since + health.timeout
            case W.INTERRUPTING | W.DRAINING if worker.interrupted is not None:
                return worker.stops_until
            case W.DRAINING if worker.check_is_out:
                return worker.since + health.timeout
            case W.DEGRADED:
                return worker.since + health.recheck
            case W.TERMINATING if worker.rung is not Rung.KILL and worker.rung is not None:
                return worker.rung_at + self.policy.stop_grace
            case _:
                return math.inf

    def _lingers_until(self, worker: KnownWorker) -> float:
        return worker.active + self.policy.linger if self._kind(worker) is SlotKind.OVERFLOW else math.inf

    def _kills_at(self) -> float:
        """The last part of the time is for those who do not go by themselves."""
        return self.closes_at - self.policy.stop_grace

    def _open_calls(self, *where: str) -> list[KnownCall]:
        return [known for known in self.calls.values() if known.where in where]

    def _alive(self) -> list[KnownWorker]:
        return [worker for worker in self.workers.values() if worker.state is not W.TERMINATED]
