"""The workers of a pool: how many there are, which are free, how they come and how they go.

The crew knows nothing of calls but that a worker has an occupant. It owns the slots, starts as many
at a time as it may, restarts what is lost, and takes what has to go down the stop ladder. Rules:

* A worker ends in one way only: it is *condemned* (a step to `terminating` or `draining`), goes
  down the ladder, and its exit is what frees its slot. Nothing is counted as gone before it is.
* A slot whose worker was ended on purpose, or had served, is refilled at once. One whose worker
  came to nothing backs off, and takes a token from the restart budget; without a token it is
  quarantined until one has come. So callers who hang up cannot bring the pool down, and a worker
  that cannot start does not spin.
* A spare serves nobody. When a base slot is left without a worker that serves, it and the slot of a
  ready spare change kinds, at once: the spare is idle now, and the slot that lost its worker brings up
  the next spare. So no worker ever moves, and there are as many slots of each kind as before.
* Everything that counts workers is derived from their states; there is no counter to go wrong.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator

from remuda.statemachines.budget import Budget
from remuda.statemachines.effects import Effect, Interrupt, SendCheck, StartWorker, Stop
from remuda.statemachines.policy import Policy, full_jitter
from remuda.statemachines.slot import SLOT, SlotState, SlotTrigger
from remuda.statemachines.subjects import Call, Observer, Rung, Slot, SlotKind, Worker
from remuda.statemachines.timers import Timers
from remuda.statemachines.worker import WORKER, WorkerState, WorkerTrigger

__all__ = ["USABLE", "Crew"]

USABLE = frozenset({WorkerState.READY, WorkerState.BUSY, WorkerState.CHECKING, WorkerState.INTERRUPTING})
"""States in which a worker serves, or will in a moment."""

_ENDING = frozenset({WorkerState.DRAINING, WorkerState.TERMINATING, WorkerState.TERMINATED})

# What each call asks for. In Python 3.11 a member costs more to find in its enum than a step of a table does.
_READY, _CHECKOUT, _CHECKIN = WorkerState.READY, WorkerTrigger.CHECKOUT, WorkerTrigger.CHECKIN
_BASE = SlotKind.BASE


class Crew:
    __slots__ = (
        "_full_size",
        "_idle",
        "_idle_overflow",
        "_observer",
        "_policy",
        "_spares",
        "_to_start",
        "budget",
        "changed",
        "closing",
        "effects",
        "next_index",
        "slots",
        "timers",
    )

    def __init__(self, policy: Policy, timers: Timers, now: float, observer: Observer | None) -> None:
        self._policy = policy
        self._observer = observer
        self._full_size = policy.max_workers + policy.overflow + policy.spares
        self.timers = timers
        self.budget = Budget(policy.restart.burst, policy.restart.period, now)
        self.slots: dict[int, Slot] = {}
        self.next_index = 0
        self._to_start: deque[Slot] = deque()
        # Last in, first out: the busiest workers stay warm, the others age and can be let go.
        self._idle: dict[Worker, None] = {}
        self._idle_overflow: dict[Worker, None] = {}
        self._spares: dict[Worker, None] = {}
        self.effects: list[Effect] = []
        """Where effects go: the core puts its own list here."""
        self.changed = False
        """Whether the number of usable workers may have changed since the core last asked."""
        self.closing = False

    # ── What there is ───────────────────────────────────────────────────────────────────────────

    def workers(self) -> Iterator[Worker]:
        """Every worker whose process may still exist."""
        return (slot.worker for slot in self.slots.values() if slot.worker is not None)

    def usable(self) -> int:
        """Workers that serve, or will in a moment. One that is checked under suspicion is not among them."""
        return sum(
            worker.state in USABLE
            and worker.slot.kind is not SlotKind.SPARE
            and not (worker.state is WorkerState.CHECKING and worker.failures)
            for worker in self.workers()
        )

    def size(self, kind: SlotKind) -> int:
        """Slots of a kind that are not closed."""
        return sum(slot.kind is kind for slot in self.slots.values())

    def idle(self) -> tuple[Worker, ...]:
        """Free workers; the last is the next to be taken."""
        return (*self._idle_overflow, *self._idle)

    def spares(self) -> tuple[Worker, ...]:
        """Spare workers that are ready; the first is the next to take a place."""
        return tuple(self._spares)

    def to_start(self) -> tuple[Slot, ...]:
        """Slots that wait for their turn to start a worker."""
        return tuple(self._to_start)

    @property
    def has_idle(self) -> bool:
        return bool(self._idle) or bool(self._idle_overflow)

    def hopeless(self) -> bool:
        """No worker serves or is on its way, and at least one slot is out of restarts."""
        quarantined = False
        for slot in self.slots.values():
            if slot.state is SlotState.QUARANTINED:
                quarantined = True
            elif slot.state is not SlotState.BACKOFF:
                return False
        return quarantined

    # ── Coming ──────────────────────────────────────────────────────────────────────────────────

    def grow(self, waiting: int, now: float) -> None:
        """See that there are `min_workers` slots, and more if callers wait who will find none; and the spares."""
        policy = self._policy
        base = self.size(SlotKind.BASE)
        while base < policy.min_workers:
            self._add(SlotKind.BASE, now)
            base += 1
        for _ in range(self.size(SlotKind.SPARE), policy.spares):
            self._add(SlotKind.SPARE, now)
        if waiting:
            coming = sum(self._is_coming(slot) for slot in self.slots.values())
            while waiting > coming and base < policy.max_workers:
                self._fill(self._add(SlotKind.BASE, now), now)
                base += 1
                coming += 1
            overflow = self.size(SlotKind.OVERFLOW)
            while waiting > coming and overflow < policy.overflow:
                self._add(SlotKind.OVERFLOW, now)
                overflow += 1
                coming += 1
        self._start_some(now)

    @staticmethod
    def _is_coming(slot: Slot) -> bool:
        if slot.kind is SlotKind.SPARE:
            return False
        if slot.state is SlotState.STOPPING:
            return slot.kind is SlotKind.BASE  # an overflow slot closes instead
        return slot.state is not SlotState.SERVING

    @property
    def at_full_size(self) -> bool:
        """Whether `grow` could add nothing (a cheap test for the busiest path)."""
        return len(self.slots) >= self._full_size

    def _add(self, kind: SlotKind, now: float) -> Slot:
        slot = Slot(self.next_index, kind, now=now, history=self._policy.history)
        slot.observer = self._observer
        self.next_index += 1
        self.slots[slot.index] = slot
        self._to_start.append(slot)
        return slot

    def _start_some(self, now: float) -> None:
        if not self._to_start:
            return
        starting = sum(worker.state is WorkerState.INITIALIZING for worker in self.workers())
        while self._to_start and starting < self._policy.max_starting:
            slot = self._to_start.popleft()
            slot.generation += 1
            worker = Worker(slot, slot.generation, self._policy.health.failures, now=now, history=self._policy.history)
            worker.observer = self._observer
            slot.worker = worker
            self.timers.arm(worker, now + self._policy.init_timeout)
            self.effects.append(StartWorker(worker))
            starting += 1

    def replaying(self, worker: Worker, seconds: float, now: float) -> None:
        """The worker is set up, and has this long for the next entry of the journal."""
        if worker.state is WorkerState.INITIALIZING:
            worker.set_up = True
            self.timers.arm(worker, now + seconds)

    def too_slow(self, worker: Worker) -> str:
        """Why a worker is given up whose time to come up is over."""
        if worker.set_up:
            return "it took longer to repeat an entry of the journal than a call has time"
        return f"not ready within init_timeout ({self._policy.init_timeout:g} s)"

    def initialized(self, worker: Worker, now: float) -> None:
        """The worker is up. It is idle now, unless it had been given up meanwhile."""
        if worker.state is not WorkerState.INITIALIZING:
            return
        WORKER.step(worker, WorkerTrigger.INIT_COMPLETE, now)
        SLOT.step(worker.slot, SlotTrigger.SERVE, now)
        self.timers.disarm(worker)
        worker.was_ready = True
        worker.last_active = now
        self.changed = True
        self._to_idle(worker, now)
        self._start_some(now)  # there is room for the next one to start

    # ── Working ─────────────────────────────────────────────────────────────────────────────────

    def take(self, preferred: Worker | None, now: float) -> Worker:
        """An idle worker, `preferred` if that one is; it is busy now. There must be one."""
        if preferred is not None and (preferred in self._idle or preferred in self._idle_overflow):
            worker = preferred
            self._not_idle(worker)
        elif self._idle:
            worker = self._idle.popitem()[0]
        else:
            worker = self._idle_overflow.popitem()[0]
        WORKER.step(worker, _CHECKOUT, now)
        return worker

    def release(self, worker: Worker, now: float, unfit: bool) -> None:
        """The occupant has left and the worker has nothing in hand."""
        worker.last_active = now
        if unfit:
            worker.failures += 1
            state = WORKER.step(worker, WorkerTrigger.CHECKIN_ERROR, now, "the error implicates the worker")
            self.changed = True
        else:
            worker.failures = 0
            state = WORKER.step(worker, _CHECKIN, now)
        if state is _READY:
            self._to_idle(worker, now)
        elif state is WorkerState.DEGRADED:
            self.timers.arm(worker, now + self._policy.health.recheck)
            self._fill(worker.slot, now)
        elif unfit:
            self._sentenced(worker, "it failed too often", now, gently=True)
        else:  # it was draining
            self._down_the_ladder(worker, Rung.ASK, now)

    def _to_idle(self, worker: Worker, now: float) -> None:
        kind = worker.slot.kind
        if kind is _BASE:
            self._idle[worker] = None
        elif kind is SlotKind.OVERFLOW:
            self._idle_overflow[worker] = None
        else:
            self._spares[worker] = None
            if (empty := self._without_worker()) is not None:
                self._fill(empty, now)
        # The busiest path does not touch the heap: an alarm of the last time it was idle is too early, and is
        # set right when it comes up. (While it is busy it has no other: it shows its health by working.)
        if not worker.alarm:
            self.timers.arm(worker, now + self._patience(worker))

    def _patience(self, worker: Worker) -> float:
        """Seconds without work after which something is to be done about an idle worker."""
        if worker.slot.kind is SlotKind.OVERFLOW:
            return min(self._policy.linger, self._policy.health.interval)
        return self._policy.health.interval

    def _not_idle(self, worker: Worker) -> None:
        self._idle.pop(worker, None)
        self._idle_overflow.pop(worker, None)
        self._spares.pop(worker, None)

    # ── Spares ──────────────────────────────────────────────────────────────────────────────────

    def _fill(self, slot: Slot, now: float) -> None:
        """A base slot is without a worker that serves: let a spare take its place, if one is ready."""
        if slot.kind is SlotKind.BASE and self._spares and not self.closing:
            worker = next(iter(self._spares))
            del self._spares[worker]
            worker.slot.kind, slot.kind = SlotKind.BASE, SlotKind.SPARE
            self.changed = True
            self._to_idle(worker, now)

    def _without_worker(self) -> Slot | None:
        """A base slot that has no worker, or none that serves, or will in a moment."""
        for slot in self.slots.values():
            if slot.kind is SlotKind.BASE and (slot.worker is None or slot.worker.state not in USABLE):
                return slot
        return None

    def interrupt(self, worker: Worker, call: Call, cause: str, now: float) -> None:
        """The call is over for its caller; the worker has a time of grace to be done with it as well."""
        WORKER.step(worker, WorkerTrigger.INTERRUPT, now, cause)
        worker.interrupted = call
        worker.on_purpose = True  # whatever comes of it
        self.timers.arm(worker, now + self._policy.interrupt_grace)
        self.effects.append(Interrupt(worker, call))

    def stopped(self, worker: Worker, now: float) -> None:
        """It has answered in time, with whatever. Who has it checked out has it still."""
        worker.interrupted = None
        worker.last_active = now
        worker.served += 1
        self.timers.disarm(worker)
        if worker.state is WorkerState.DRAINING and worker.occupant is not None:
            return  # to be retired, and still checked out
        if WORKER.step(worker, WorkerTrigger.INTERRUPTED, now) is not WorkerState.READY:
            self._down_the_ladder(worker, Rung.ASK, now)
            return
        worker.on_purpose = False
        if worker.occupant is not None:
            WORKER.step(worker, WorkerTrigger.CHECKOUT, now, "its holder still has it")
        else:
            self._to_idle(worker, now)

    # ── Health ──────────────────────────────────────────────────────────────────────────────────

    def _begin_check(self, worker: Worker, now: float) -> None:
        self._not_idle(worker)
        WORKER.step(worker, WorkerTrigger.BEGIN_CHECK, now)
        worker.checks += 1
        self.timers.arm(worker, now + self._policy.health.timeout)
        self.effects.append(SendCheck(worker, worker.checks))

    def checked(self, worker: Worker, number: int, healthy: bool, reason: str, now: float) -> None:
        """A check has ended. An answer to an earlier check, or after the end, changes nothing."""
        if number != worker.checks or not self._is_checking(worker):
            return
        worker.last_active = now
        if worker.state is WorkerState.DRAINING:
            trigger = WorkerTrigger.HEALTH_CHECK_PASSED if healthy else WorkerTrigger.HEALTH_CHECK_FAILED
            WORKER.step(worker, trigger, now, reason)
            self._down_the_ladder(worker, Rung.ASK if healthy else Rung.KILL, now)
        elif healthy:
            worker.failures = 0
            WORKER.step(worker, WorkerTrigger.HEALTH_CHECK_PASSED, now)
            self.changed = True
            self.timers.disarm(worker)
            self._to_idle(worker, now)
        else:
            worker.failures += 1
            self.changed = True
            if WORKER.step(worker, WorkerTrigger.HEALTH_CHECK_FAILED, now, reason) is WorkerState.DEGRADED:
                self.timers.arm(worker, now + self._policy.health.recheck)
                self._fill(worker.slot, now)
            else:
                self._sentenced(worker, f"it failed {worker.failures} health checks: {reason}", now)

    @staticmethod
    def _is_checking(worker: Worker) -> bool:
        """Whether a check is out. One that drains with a call in hand had its last check before."""
        idle = worker.occupant is None and worker.call is None and worker.interrupted is None
        return worker.state is WorkerState.CHECKING or (worker.state is WorkerState.DRAINING and idle)

    # ── Going ───────────────────────────────────────────────────────────────────────────────────

    def condemn(self, worker: Worker, cause: str, now: float, *, on_purpose: bool) -> None:
        """Kill the worker now: it is of no use, or what it does must not go on."""
        if worker.state in (WorkerState.TERMINATING, WorkerState.TERMINATED):
            return
        WORKER.step(worker, WorkerTrigger.FAIL, now, cause)
        self._sentenced(worker, cause, now, on_purpose=on_purpose)

    def retire(self, worker: Worker, reason: str, now: float) -> None:
        """Let the worker finish what it does, then end it and fill its slot again."""
        if worker.state in _ENDING:
            return
        if WORKER.step(worker, WorkerTrigger.RETIRE, now, reason) is WorkerState.TERMINATING:
            self._sentenced(worker, reason, now, on_purpose=True, gently=True)
        else:
            worker.cause, worker.on_purpose = reason, True
            self.changed = True
            self._fill(worker.slot, now)

    def _sentenced(
        self, worker: Worker, cause: str, now: float, *, on_purpose: bool = False, gently: bool = False
    ) -> None:
        self._not_idle(worker)
        self.changed = True
        worker.cause = worker.cause or cause
        worker.on_purpose = worker.on_purpose or on_purpose
        self._down_the_ladder(worker, Rung.ASK if gently else Rung.KILL, now)
        self._fill(worker.slot, now)

    def _down_the_ladder(self, worker: Worker, rung: Rung, now: float) -> None:
        if worker.rung is None:
            SLOT.step(worker.slot, SlotTrigger.STOP, now, worker.cause)
        worker.rung = rung
        self.effects.append(Stop(worker, rung))
        self.timers.arm(worker, math.inf if rung is Rung.KILL else now + self._policy.stop_grace)

    def exited(self, worker: Worker, cause: str, draw: float, now: float) -> None:
        """The process has ended: what becomes of its slot."""
        WORKER.step(worker, WorkerTrigger.EXITED, now, worker.cause or cause)
        self._not_idle(worker)
        self.timers.disarm(worker)
        worker.cause = worker.cause or cause
        self.changed = True
        slot = worker.slot
        slot.worker = None
        if worker.was_useful:
            slot.attempts = 0
        if self.closing or (slot.kind is SlotKind.OVERFLOW and worker.was_useful):
            self._close_slot(slot, now)
        elif worker.was_useful or worker.on_purpose:
            SLOT.step(slot, SlotTrigger.RESTART, now, worker.cause)
            self._to_start.append(slot)
        else:
            slot.attempts += 1
            self._restart_later(slot, draw, now)
        if not self.closing:
            self._fill(slot, now)
        self._start_some(now)

    def _restart_later(self, slot: Slot, draw: float, now: float) -> None:
        """After a pause, and with a token. A slot alone may spend `burst` tokens in a row, no more.

        The pauses of a lone slot grow beyond the time in which a token comes back, so that the
        budget alone would let it try for ever, and its pool would never be seen to have failed.
        """
        restart = self._policy.restart
        due = now + full_jitter(slot.attempts, restart.base, restart.cap, draw)
        if slot.attempts <= restart.burst and self.budget.take(now):
            SLOT.step(slot, SlotTrigger.BACK_OFF, now, f"start {slot.attempts} came to nothing")
            self.timers.arm(slot, due)
        else:
            SLOT.step(slot, SlotTrigger.QUARANTINE, now, "the restart budget is spent")
            self.timers.arm(slot, max(due, self.budget.next_token(now)))

    def _close_slot(self, slot: Slot, now: float) -> None:
        SLOT.step(slot, SlotTrigger.CLOSE, now)
        self.timers.disarm(slot)
        del self.slots[slot.index]

    # ── Time ────────────────────────────────────────────────────────────────────────────────────

    def worker_due(self, worker: Worker, now: float) -> None:
        """The alarm of a worker went off: what that means depends on its state."""
        state, health = worker.state, self._policy.health
        if worker.interrupted is not None and state is not WorkerState.TERMINATING:
            grace = self._policy.interrupt_grace
            self.condemn(worker, f"it was told to stop, and had not after {grace:g} s", now, on_purpose=True)
        elif state is WorkerState.INITIALIZING:
            self.condemn(worker, self.too_slow(worker), now, on_purpose=False)
        elif state is WorkerState.READY:
            if worker.slot.kind is SlotKind.OVERFLOW and now >= worker.last_active + self._policy.linger:
                self.retire(worker, "an overflow worker without work", now)
            elif now >= worker.last_active + health.interval:
                self._begin_check(worker, now)
            else:
                self.timers.arm(worker, worker.last_active + self._patience(worker))
        elif state is WorkerState.DEGRADED:
            self._begin_check(worker, now)
        elif state in (WorkerState.CHECKING, WorkerState.DRAINING):
            reason = f"no answer to a health check within {health.timeout:g} s"
            self.checked(worker, worker.checks, False, reason, now)
        elif state is WorkerState.TERMINATING:
            self._down_the_ladder(worker, Rung.TERM if worker.rung is Rung.ASK else Rung.KILL, now)

    def slot_due(self, slot: Slot, wanted: bool, now: float) -> None:
        """The backoff or quarantine of a slot is over."""
        if slot.kind is SlotKind.OVERFLOW and not wanted:
            self._close_slot(slot, now)
            return
        if slot.state is SlotState.QUARANTINED and not self.budget.take(now):
            self.timers.arm(slot, self.budget.next_token(now))  # another slot was first
            return
        SLOT.step(slot, SlotTrigger.RESTART, now)
        self._to_start.append(slot)
        self._start_some(now)

    # ── The end ─────────────────────────────────────────────────────────────────────────────────

    def close(self, now: float) -> None:
        """No more starts: idle workers are asked to go, busy ones may finish, unborn ones are not born."""
        self.closing = True
        self._to_start.clear()
        for slot in list(self.slots.values()):
            worker = slot.worker
            if worker is None:
                self._close_slot(slot, now)
            elif worker.state is WorkerState.INITIALIZING:
                WORKER.step(worker, WorkerTrigger.TERMINATE, now, "the pool closes")
                self._sentenced(worker, "the pool closes", now, on_purpose=True)
            else:
                self.retire(worker, "the pool closes", now)

    def kill_all(self, now: float) -> None:
        """The time for an orderly end is over."""
        for worker in list(self.workers()):
            if worker.state is WorkerState.TERMINATING:
                if worker.rung is not Rung.KILL:
                    self._down_the_ladder(worker, Rung.KILL, now)
            else:
                self.condemn(worker, "the pool closed before it had finished", now, on_purpose=True)
