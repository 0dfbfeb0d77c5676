"""The core of the pool: one synchronous object that makes every decision.

`handle(event, now)` takes what has happened and returns what is to be done; `next_due()` says when
it wants to hear a `Tick`. In between it does nothing. It never waits, never calls user code, has no
clock and no dice, so the object that runs under trio is the object that is explored state by state
and fuzzed.

It couples small parts, each of which can be read alone: the *crew* (slots and workers), the
*waiters* (lanes), the *sessions* (which worker served whom), the *breaker* (permits), the *timers*.
What it adds is the life of a call. The rules:

* **One outcome.** Every call that is submitted gets exactly one `Answer` with a final verdict.
* **A worker belongs to one occupant.** It is given to the next one only when the last has ended by
  a reply (or a checkin with nothing in hand). Otherwise it is killed; or, if its call may be
  interrupted, told to stop, and killed when it has not answered after a time of grace. What it
  answers then reaches nobody. A worker that is already on its way out is not interrupted.
* **Dispatch after everything.** Whatever may have freed a worker or brought a waiter, `_settle` runs:
  it is never observable that a worker is idle while somebody who may have it waits.
* **Evidence, not hope.** What becomes of a call whose worker died is decided when the process is gone
  and its channel read to the end, by what is proven: not begun, it is handed to another worker, free
  of charge; begun and idempotent, it is tried again, up to its attempts; begun and not idempotent,
  its outcome is unknown and its caller is told so.
* **Nothing dead on arrival.** A call whose deadline has passed is never given to a worker. The deadline
  of a checkout is for the waiting: who does not have to wait gets a worker, also with no time to wait.
* **The breaker counts calls**, not attempts. An answer counts as a success, whatever it says: the
  pool did its work. Death, violation and a deadline on a worker are failures. A caller that hangs
  up, and one that waited in vain, prove nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator
from typing import Any

from remuda.statemachines import events as ev
from remuda.statemachines.breaker import Breaker, BreakerState, Outcome
from remuda.statemachines.call import CALL, CallState, CallTrigger
from remuda.statemachines.crew import Crew
from remuda.statemachines.effects import (
    Abandon,
    Answer,
    Closed,
    Effect,
    SendCall,
    Stepped,
    Verdict,
)
from remuda.statemachines.errors import InvalidLease
from remuda.statemachines.lifecycle import Step, Subject
from remuda.statemachines.policy import Policy, full_jitter
from remuda.statemachines.pool import POOL, PoolState, PoolTrigger
from remuda.statemachines.sessions import Sessions
from remuda.statemachines.subjects import Call, Pool, Slot, Worker
from remuda.statemachines.timers import Alarm, Timers
from remuda.statemachines.waiters import Waiters
from remuda.statemachines.worker import WorkerState

__all__ = ["Core"]

_SERVING = frozenset({PoolState.STARTING, PoolState.READY, PoolState.IMPAIRED})
"""Pool states in which waiters are given workers."""

_REFUSING = {
    PoolState.FAILED: Verdict.POOL_FAILED,
    PoolState.DRAINING: Verdict.CLOSED,
    PoolState.CLOSED: Verdict.CLOSED,
}
"""Pool states in which a new call is refused, and how."""

_WITH_WORKER = (CallState.ASSIGNED, CallState.RUNNING)

# What each call asks for. In Python 3.11 a member costs more to find in its enum than a step of a table does.
_ASSIGNED = CallState.ASSIGNED
_ASSIGN, _START, _SUCCEED, _FAIL = CallTrigger.ASSIGN, CallTrigger.START, CallTrigger.SUCCEED, CallTrigger.FAIL
_BUSY, _HALF_OPEN = WorkerState.BUSY, BreakerState.HALF_OPEN
_ANSWERED, _SUCCESS = Verdict.ANSWERED, Outcome.SUCCESS


class Core:
    """See the module's text.

    Args:
        policy: the numbers.
        now: monotonic seconds.
        observed: whether steps are to be reported as `Stepped` effects.
    """

    def __init__(self, policy: Policy, now: float, *, observed: bool = False) -> None:
        self.policy = policy
        self.observed = observed
        observer = self._observe if observed else None
        self.timers = Timers()
        self.crew = Crew(policy, self.timers, now, observer)
        self.waiters: Waiters[Call] = Waiters()
        self.sessions: Sessions[Worker] = Sessions(policy.session_ttl)
        self.breaker = Breaker(
            failures=policy.breaker.failures,
            probes=policy.breaker.probes,
            open_for=policy.breaker.open_for,
            half_open_for=policy.breaker.open_for,
            now=now,
            history=policy.history,
            observer=observer,
        )
        self.pool = Pool(now=now, history=policy.history, needed=policy.min_workers)
        self.pool.observer = observer
        self.calls: dict[int, Call] = {}
        """Calls without an outcome, by id."""
        self.last_cause = ""
        """How the last worker that ended did so."""
        self.cannot_start = ""
        """Why the pool cannot start, once that is known (only while it starts)."""
        self._breaker_alarm = Alarm("breaker")
        self._session_alarm = Alarm("sessions")
        self._pool_alarm = Alarm("pool")
        self._breaker_state = self.breaker.state
        self._closes_at = math.inf
        self._effects: list[Effect] = []

    # ── The interface ───────────────────────────────────────────────────────────────────────────

    def handle(self, event: ev.Event, now: float) -> list[Effect]:
        """Take note of an event and say what is to be done, in order.

        Args:
            event: what happened.
            now: monotonic seconds; never less than at the last call.

        Raises:
            InvalidLease: a checkout is given back, or used, after it has ended. Nothing has changed.
        """
        effects: list[Effect] = []
        self._effects = self.crew.effects = effects
        _HANDLERS[type(event)](self, event, now)
        if self.waiters.count or self.crew.changed or self.breaker.state is not self._breaker_state:
            self._settle(now)
        return effects

    def next_due(self) -> float:
        """When to send a `Tick`, if nothing happens before: monotonic seconds, or infinity."""
        return self.timers.next_due()

    def key(self, now: float) -> Hashable:
        """What decides the future, and nothing else: two cores with the same key behave the same.

        Ids are renumbered in order of appearance, due times replaced by their rank, history and
        generations left out.
        """
        from remuda.statemachines.canonical import canonical  # only explorers need it

        return canonical(self, now)

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """The alarms of what has no object of its own."""
        return self._breaker_alarm, self._session_alarm, self._pool_alarm

    @property
    def pool_due(self) -> float:
        """When the shutdown goes on by itself; infinity while there is none."""
        return self._pool_alarm.due

    @property
    def closes_at(self) -> float:
        """When closing is over at the latest; infinity before it has begun."""
        return self._closes_at

    # ── After every event ───────────────────────────────────────────────────────────────────────

    def _settle(self, now: float) -> None:
        crew = self.crew
        if crew.changed or self.breaker.state is not self._breaker_state:
            self._assess(now)
        if self.waiters.count and self.pool.state in _SERVING:
            if crew.has_idle:
                self._dispatch(now)
                if self.breaker.state is not self._breaker_state:
                    self._assess(now)  # a call that had been tried before timed out in its lane
            if self.waiters.count and not crew.at_full_size:
                crew.grow(self.waiters.count, now)
                if crew.has_idle:  # a spare has taken the new place
                    self._assess(now)
                    self._dispatch(now)

    def _dispatch(self, now: float) -> None:
        """Give idle workers to waiters, each in turn."""
        waiters, crew = self.waiters, self.crew
        while waiters.count and crew.has_idle:
            call = waiters.first()
            if call.deadline <= now:
                self._time_out(call, now)  # that was no turn: its lane is still next
            else:
                waiters.pop()
                self._assign(call, now)

    def _assign(self, call: Call, now: float) -> None:
        session = call.session
        preferred = None if session is None else self.sessions.worker(session, now)
        worker = self.crew.take(preferred, now)
        if session is not None:
            self.sessions.bind(session, worker, now)
            if not self._session_alarm.alarm:
                self.timers.arm(self._session_alarm, self.sessions.next_due())
        CALL.step(call, _ASSIGN, now)
        call.worker = worker
        worker.occupant = call
        if call.is_lease:
            CALL.step(call, CallTrigger.START, now)
            self.timers.disarm(call)  # its deadline was for the waiting
            self._effects.append(Answer(call, Verdict.GRANTED))
        else:
            worker.call = call
            self._effects.append(SendCall(worker, call))

    def _assess(self, now: float) -> None:
        """What state the pool is in, after workers or the breaker have changed."""
        self.crew.changed = False
        if self.breaker.state is not self._breaker_state:
            self._breaker_state = self.breaker.state
            self._arm_breaker()
        pool = self.pool
        pool.usable = usable = self.crew.usable()
        pool.circuit_closed = self.breaker.state in (BreakerState.CLOSED, BreakerState.DISABLED)
        state = pool.state
        if state is PoolState.DRAINING:
            if not self.crew.slots:
                self._end(now)
        elif state is PoolState.CLOSED or state is PoolState.SUSPENDED:
            pass
        elif self.cannot_start or (not usable and self.crew.hopeless()):
            self.cannot_start = ""
            if state is not PoolState.FAILED:
                POOL.step(pool, PoolTrigger.FAIL, now, self.last_cause)
                self._refuse_all(Verdict.POOL_FAILED, now)
        elif pool.enough_workers:
            if state is not PoolState.READY:
                POOL.step(pool, PoolTrigger.BECOME_READY, now)
        elif state is PoolState.READY or (state is PoolState.FAILED and usable):
            reason = f"{usable} of {pool.needed} workers" if pool.circuit_closed else "the circuit is open"
            POOL.step(pool, PoolTrigger.IMPAIR, now, reason)

    # ── Callers ─────────────────────────────────────────────────────────────────────────────────

    def _submit(self, event: ev.Submit, now: float) -> None:
        call = event.call
        if self.observed:
            call.observer = self._observe
        if call.lease is not None:
            self._submit_on_lease(call, call.lease, now)
            return
        self.calls[call.id] = call
        state = self.pool.state
        if state in _REFUSING:
            self._refuse(call, _REFUSING[state], now)
            return
        at_once = not self.waiters.count and self.crew.has_idle and state in _SERVING
        if call.deadline <= now and not (call.is_lease and at_once):
            self._time_out(call, now)
            return
        if not self._admit(call, now):
            return
        self.timers.arm(call, call.deadline)
        if at_once:
            self._assign(call, now)
        elif self.waiters.count >= self.policy.max_waiting:
            self._refuse(call, Verdict.FULL, now)
        else:
            self.waiters.add(call)

    def _submit_on_lease(self, call: Call, lease: Call, now: float) -> None:
        """A call on a worker that its caller holds: it does not wait, and is never moved."""
        worker = lease.worker
        alive = (WorkerState.BUSY, WorkerState.INTERRUPTING, WorkerState.DRAINING)
        if worker is not None:
            if worker.call is not None:
                raise InvalidLease("this worker is busy with another call of its holder; await that one first")
            if worker.interrupted is not None and worker.state in alive and call.deadline > now:
                raise InvalidLease("this worker has yet to stop a call of its holder; try again when it has")
        self.calls[call.id] = call
        if worker is None or worker.state not in alive:
            self._refuse(call, Verdict.DIED, now, "the worker that was checked out has ended")
        elif call.deadline <= now:
            self._time_out(call, now)
        elif self._admit(call, now):
            self.timers.arm(call, call.deadline)
            CALL.step(call, CallTrigger.ASSIGN, now)
            call.worker = worker
            worker.call = call
            self._effects.append(SendCall(worker, call))

    def _admit(self, call: Call, now: float) -> bool:
        """Ask the breaker, for what will run; a checkout runs nothing by itself."""
        if call.is_lease:
            return True
        call.permit = self.breaker.admit(now)
        if call.permit is None:
            self._refuse(call, Verdict.CIRCUIT_OPEN, now, retry_after=self.breaker.retry_after(now))
            return False
        if self.breaker.state is _HALF_OPEN:
            self._arm_breaker()  # the first probe starts its clock
        return True

    def _arm_breaker(self) -> None:
        due = self.breaker.next_due()
        self.timers.arm(self._breaker_alarm, math.inf if due is None else due)

    def _give_up(self, event: ev.GiveUp, now: float) -> None:
        call = event.call
        if call.id not in self.calls:
            return  # it had its outcome already; the news crossed
        if call.deadline <= now and not (call.is_lease and call.worker is not None):
            self._time_out(call, now)
        else:
            self._leave(call, CallTrigger.CANCEL, "its caller was cancelled", now)
            self._conclude(call, Verdict.CANCELLED, Outcome.NEUTRAL, now)

    def _time_out(self, call: Call, now: float) -> None:
        on_worker = call.state in _WITH_WORKER
        tried = on_worker or call.attempts > 0
        interrupted = self._leave(call, CallTrigger.TIME_OUT, "its call passed its deadline", now)
        if on_worker:
            cause = "interrupted" if interrupted else "on a worker"
        else:
            cause = "between attempts" if call.attempts else "waiting for a worker"
        self._conclude(call, Verdict.TIMED_OUT, Outcome.FAILURE if tried else Outcome.NEUTRAL, now, cause=cause)

    def _leave(self, call: Call, trigger: CallTrigger, cause: str, now: float) -> bool:
        """The call ends where it is; a worker that has it in hand is killed, or told to stop (True)."""
        worker = call.worker
        if call.state is CallState.QUEUED:
            self.waiters.remove(call)
        CALL.step(call, trigger, now, cause)
        if worker is not None:
            self._take_off(worker, call)
            if call.interrupt and worker.state is WorkerState.BUSY:
                self.crew.interrupt(worker, call, cause, now)
                return True
            self.crew.condemn(worker, cause, now, on_purpose=True)
            self._break_lease(worker, now)
        return False

    def _checkin(self, event: ev.Checkin, now: float) -> None:
        lease = event.lease
        worker = lease.worker
        if lease.id not in self.calls or worker is None:
            raise InvalidLease("this checkout has ended already; a worker can be given back once")
        call = worker.call
        CALL.step(lease, CallTrigger.SUCCEED, now)
        self._take_off(worker, lease)
        self._conclude(lease, Verdict.RETURNED, Outcome.NEUTRAL, now)
        if worker.state not in (WorkerState.BUSY, WorkerState.DRAINING) or worker.interrupted is not None:
            pass  # it is on its way out already, or has yet to stop
        elif call is None:
            self.crew.release(worker, now, unfit=False)
        else:  # given back with a call in hand: the call goes on for its caller, the worker does not
            self.crew.retire(worker, "it was given back while it worked", now)

    def _began(self, event: ev.Began, now: float) -> None:
        if event.call.state is CallState.ASSIGNED:
            event.call.attempts += 1
            CALL.step(event.call, CallTrigger.START, now)

    # ── Workers ─────────────────────────────────────────────────────────────────────────────────

    def _replaying(self, event: ev.Replaying, now: float) -> None:
        self.crew.replaying(event.worker, event.seconds, now)

    def _initialized(self, event: ev.Initialized, now: float) -> None:
        self.crew.initialized(event.worker, now)

    def _boot_failed(self, event: ev.BootFailed, now: float) -> None:
        if event.worker.state is WorkerState.INITIALIZING:
            self._cannot_boot(event.worker, event.cause)
            self.crew.condemn(event.worker, event.cause, now, on_purpose=False)

    def _cannot_boot(self, worker: Worker, cause: str) -> None:
        """A boot that fails by the worker's own word, or hangs, fails the start: it would again."""
        self.last_cause = cause
        if self.pool.state is PoolState.STARTING:
            self.cannot_start = cause

    def _replied(self, event: ev.Replied, now: float) -> None:
        worker = event.worker
        call = worker.call
        if call is None or call.id != event.call_id:
            if self._has_grace(worker) and worker.interrupted.id == event.call_id:  # type: ignore[union-attr]
                self.crew.stopped(worker, now)
                if event.unfit:
                    self.crew.retire(worker, "an error implicated it", now)
            return  # the call is over for its caller
        worker.call = None
        worker.served += 1
        if call.state is _ASSIGNED:
            call.attempts += 1
            CALL.step(call, _START, now)
        CALL.step(call, _SUCCEED if event.ok else _FAIL, now)
        self._conclude(call, _ANSWERED, _SUCCESS, now, reply=event.reply)
        lease = call.lease
        if lease is None or worker.occupant is not lease:
            worker.occupant = None
            if worker.state is _BUSY or worker.state is WorkerState.DRAINING:
                self.crew.release(worker, now, event.unfit)
        elif event.unfit:  # on a lease: the holder keeps it until it lets go
            self.crew.retire(worker, "an error implicated it", now)

    @staticmethod
    def _has_grace(worker: Worker) -> bool:
        """Whether it was told to stop a call, and may still answer to it."""
        return worker.interrupted is not None and worker.state in (WorkerState.INTERRUPTING, WorkerState.DRAINING)

    def _health_checked(self, event: ev.HealthChecked, now: float) -> None:
        self.crew.checked(event.worker, event.number, event.healthy, event.reason, now)

    def _channel_failed(self, event: ev.ChannelFailed, now: float) -> None:
        self.crew.condemn(event.worker, event.cause, now, on_purpose=False)
        event.worker.violation = event.worker.violation or event.violation

    def _exited(self, event: ev.Exited, now: float) -> None:
        worker = event.worker
        if worker.state is WorkerState.TERMINATED:
            return
        call = worker.call
        worker.call = None
        self.crew.exited(worker, event.cause, event.draw, now)
        self.last_cause = worker.cause
        if call is not None:
            self._lost(call, worker, event.began, event.draw, now)
        self._break_lease(worker, now)

    def _lost(self, call: Call, worker: Worker, began: bool, draw: float, now: float) -> None:
        """The worker of this call is gone for good: what has been proven decides."""
        retry = self.policy.retry
        stay = call.lease is None and self.pool.state not in _REFUSING
        call.worker = None
        if worker.occupant is call:
            worker.occupant = None
        if not began and call.state is CallState.ASSIGNED:
            if call.deadline <= now:
                self._time_out(call, now)
            elif stay and call.handovers < retry.handovers:
                call.handovers += 1
                CALL.step(call, CallTrigger.REQUEUE, now, "it had not begun")
                self.waiters.put_back(call)
            elif stay or call.lease is not None:
                CALL.step(call, CallTrigger.FAIL, now, worker.cause)
                self._conclude(call, Verdict.DIED, Outcome.FAILURE, now, cause=worker.cause)
            else:
                self._refuse(call, _REFUSING[self.pool.state], now)
            return
        if call.state is CallState.ASSIGNED:
            call.attempts += 1
            CALL.step(call, CallTrigger.START, now)
        if call.deadline <= now:
            self._time_out(call, now)
        elif stay and call.idempotent and call.attempts < retry.attempts:
            CALL.step(call, CallTrigger.BACK_OFF, now, worker.cause)
            pause = full_jitter(call.attempts, retry.base, retry.cap, draw)
            self.timers.arm(call, min(call.deadline, now + pause))
        else:
            CALL.step(call, CallTrigger.LOSE, now, worker.cause)
            verdict = Verdict.VIOLATION if worker.violation else Verdict.UNKNOWN
            self._conclude(call, verdict, Outcome.FAILURE, now, cause=worker.cause)

    def hands_over_from(self, worker: Worker) -> bool:
        """Whether nobody will ask how this worker ended: the call that it has not begun goes to another."""
        call = worker.call
        return (
            call is not None
            and call.state is CallState.ASSIGNED
            and call.lease is None
            and call.handovers < self.policy.retry.handovers
            and worker.was_useful  # else the pool may fail of it, and says why
            and self.pool.state not in _REFUSING
        )

    def _break_lease(self, worker: Worker, now: float) -> None:
        """The worker that somebody had checked out is gone; its holder learns it at its next use."""
        lease = worker.occupant
        if lease is None or not lease.is_lease:
            return
        self._take_off(worker, lease)
        CALL.step(lease, CallTrigger.FAIL, now, worker.cause)
        self._conclude(lease, Verdict.DIED, Outcome.NEUTRAL, now, cause=worker.cause)

    @staticmethod
    def _take_off(worker: Worker, call: Call) -> None:
        if worker.call is call:
            worker.call = None
        if worker.occupant is call:
            worker.occupant = None
        call.worker = None

    def _retire(self, event: ev.Retire, now: float) -> None:
        self.crew.retire(event.worker, event.reason, now)

    # ── Ends ────────────────────────────────────────────────────────────────────────────────────

    def _refuse(
        self, call: Call, verdict: Verdict, now: float, cause: str = "", retry_after: float | None = None
    ) -> None:
        CALL.step(call, CallTrigger.REJECT, now, verdict)
        self._conclude(call, verdict, Outcome.NEUTRAL, now, cause=cause or self.last_cause, retry_after=retry_after)

    def _refuse_all(self, verdict: Verdict, now: float) -> None:
        """Everybody who waits, in lanes or between attempts, is told at once."""
        self.waiters.clear()
        for call in list(self.calls.values()):
            if call.state in (CallState.QUEUED, CallState.BACKING_OFF):
                self._refuse(call, verdict, now)

    def _conclude(
        self,
        call: Call,
        verdict: Verdict,
        outcome: Outcome,
        now: float,
        *,
        reply: object = None,
        cause: str = "",
        retry_after: float | None = None,
    ) -> None:
        """The one place where a call ends."""
        del self.calls[call.id]
        self.timers.disarm(call)
        if call.permit is not None:
            self.breaker.record(call.permit, outcome, now)
        self._effects.append(Answer(call, verdict, reply, cause, retry_after))

    # ── The pool ────────────────────────────────────────────────────────────────────────────────

    def _open(self, event: ev.Open, now: float) -> None:
        self.crew.grow(0, now)

    def _suspend(self, event: ev.Suspend, now: float) -> None:
        POOL.step(self.pool, PoolTrigger.SUSPEND, now)

    def _resume(self, event: ev.Resume, now: float) -> None:
        POOL.step(self.pool, PoolTrigger.RESUME, now)
        self.crew.changed = True  # whatever has become of the workers meanwhile is looked at now

    def _end_session(self, event: ev.EndSession, now: float) -> None:
        self.sessions.end(event.session)

    def _close(self, event: ev.Close, now: float) -> None:
        if self.pool.state in (PoolState.DRAINING, PoolState.CLOSED):
            return
        POOL.step(self.pool, PoolTrigger.DRAIN, now)
        self._refuse_all(Verdict.CLOSED, now)
        self.crew.close(now)
        self.crew.changed = True
        # The last part of the time is for those who do not go by themselves.
        self._closes_at = now + self.policy.shutdown_timeout
        self.timers.arm(self._pool_alarm, self._closes_at - self.policy.stop_grace)

    def _end(self, now: float) -> None:
        POOL.step(self.pool, PoolTrigger.CLOSE, now)
        self.timers.disarm(self._pool_alarm)
        self._effects.append(Closed())

    def _pool_due(self, now: float) -> None:
        if self.pool.state is not PoolState.DRAINING:
            return
        if now < self._closes_at:
            self.crew.kill_all(now)
            self.timers.arm(self._pool_alarm, self._closes_at)
            return
        for worker in list(self.crew.workers()):
            self._effects.append(Abandon(worker))
            # What it had begun was looked up before this tick; it was killed, and begins nothing more.
            self._exited(ev.Exited(worker, "it did not go when it was killed"), now)

    # ── Time ────────────────────────────────────────────────────────────────────────────────────

    def _tick(self, event: ev.Tick, now: float) -> None:
        while (armed := self.timers.pop(now)) is not None:
            if type(armed) is Call:
                if armed.state is CallState.BACKING_OFF and now < armed.deadline:
                    CALL.step(armed, CallTrigger.REQUEUE, now)
                    self.timers.arm(armed, armed.deadline)
                    self.waiters.put_back(armed)
                else:
                    self._time_out(armed, now)
            elif type(armed) is Worker:
                if armed.state is WorkerState.INITIALIZING:
                    self._cannot_boot(armed, self.crew.too_slow(armed))
                self.crew.worker_due(armed, now)
                if armed.interrupted is not None:
                    self._break_lease(armed, now)  # it did not stop in time
            elif type(armed) is Slot:
                self.crew.slot_due(armed, wanted=self.waiters.count > 0, now=now)
            elif armed is self._breaker_alarm:
                self.breaker.tick(now)
                self._arm_breaker()
            elif armed is self._session_alarm:
                self.sessions.sweep(now)
                self.timers.arm(self._session_alarm, self.sessions.next_due())
            else:
                self._pool_due(now)

    # ── Observing ───────────────────────────────────────────────────────────────────────────────

    def _observe(self, subject: Subject[Any], step: Step) -> None:
        self._effects.append(Stepped(subject, step))

    def leases(self) -> Iterator[Call]:
        """Checkouts that hold a worker."""
        return (call for call in self.calls.values() if call.is_lease and call.worker is not None)


_HANDLERS: dict[type, Callable[[Core, Any, float], None]] = {
    ev.Open: Core._open,
    ev.Submit: Core._submit,
    ev.GiveUp: Core._give_up,
    ev.Checkin: Core._checkin,
    ev.Began: Core._began,
    ev.Replaying: Core._replaying,
    ev.Initialized: Core._initialized,
    ev.BootFailed: Core._boot_failed,
    ev.Replied: Core._replied,
    ev.HealthChecked: Core._health_checked,
    ev.ChannelFailed: Core._channel_failed,
    ev.Exited: Core._exited,
    ev.Retire: Core._retire,
    ev.EndSession: Core._end_session,
    ev.Suspend: Core._suspend,
    ev.Resume: Core._resume,
    ev.Close: Core._close,
    ev.Tick: Core._tick,
}
