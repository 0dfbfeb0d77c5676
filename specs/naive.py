"""What a pool must do, said a second time, in the plainest way there is.

The core keeps heaps, sets and counters so that it is fast. This model keeps lists and looks through all
of them every time. It is told each event before the core is, and reads what the core answers, effect by
effect. From that alone it says

* what every call must come to, and when: its verdict, and whether the breaker counts it;
* who is next: arrival within a lane, turns between lanes; and which worker it gets: the one of its
  session, else the one that became idle last, base before overflow;
* what every worker is doing, and which rung of the stop ladder it is on;
* what becomes of a slot: filled again at once, after a pause, or when a token has come. Tokens are
  counted anew from the list of all that were ever taken;
* what state the pool and its breaker are in, and by when the core has to hear a tick.

Whatever is different is a `Disagreement`. The first half of the model, `naive_news`, hears the events; this is
the other half, which reads the effects. The model has no opinion on two things, which it takes from
the core: the order in which things that are due at one tick come about, and the texts of reasons.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from remuda.specs.naive_news import CLOSING, USABLE, Expectations
from remuda.specs.naive_parts import ALMOST, Disagreement, KnownCall, KnownSlot, KnownWorker, disagree, want
from remuda.statemachines import effects as fx
from remuda.statemachines import events as ev
from remuda.statemachines.breaker import BreakerState, Outcome
from remuda.statemachines.call import CallState, CallTrigger
from remuda.statemachines.effects import Verdict
from remuda.statemachines.lifecycle import Step
from remuda.statemachines.pool import PoolState
from remuda.statemachines.slot import SlotState, SlotTrigger
from remuda.statemachines.subjects import Call, Rung, Slot, SlotKind, Worker
from remuda.statemachines.worker import WorkerState

__all__ = ["Disagreement", "NaivePool"]

W = WorkerState
_AFTER = {
    str(SlotTrigger.RESTART): SlotState.STARTING,
    str(SlotTrigger.BACK_OFF): SlotState.BACKOFF,
    str(SlotTrigger.QUARANTINE): SlotState.QUARANTINED,
    str(SlotTrigger.CLOSE): SlotState.CLOSED,
}
"""How a slot goes on."""


class NaivePool(Expectations):
    """The model. For each event: `expect`, then tell the core, then `compare`."""

    def compare(self, effects: Sequence[fx.Effect]) -> None:
        """Go through what the core has said about the event, and look at where that has left it.

        Raises:
            Disagreement: it is not what the model says.
        """
        if self._by_order:
            self._takes_their_kinds()
        for effect in effects:
            if isinstance(effect, fx.Stepped):
                step = effect.step
                want(step.at == self.now, "time", f"{effect.subject} took {step.trigger} at {step.at}, not {self.now}")
            match effect:
                case fx.StartWorker(worker):
                    self._is_started(worker)
                case fx.SendCall(worker, call) if call.lease is not None:
                    want(call is self.sent and self.workers[worker].call is None, "sends", f"{call} was sent")
                    self._has(call, self.workers[worker])
                case fx.SendCall(worker, call):
                    self._is_served(call, worker)
                case fx.SendCheck(worker, number):
                    wanted = worker in self.checks and number == self.workers[worker].checks
                    want(wanted, "checks", f"{worker} was sent check {number} at {self.now}")
                    self.checks.discard(worker)
                case fx.Interrupt(worker, call):
                    due = self.interrupts.pop(worker, None)
                    want(due is call, "interrupts", f"{worker} was told to stop {call}, and not {due}")
                case fx.Stop(worker, rung):
                    self._is_stopped(worker, rung)
                case fx.Answer(call, Verdict.GRANTED):
                    want(call.worker is not None, "grants", f"{call} was granted nothing")
                    assert call.worker is not None
                    self._is_served(call, call.worker)
                case fx.Answer(call, verdict):
                    self._is_answered(effect, call, verdict)
                case fx.Abandon(worker):
                    gone = self.workers[worker].state is W.TERMINATED
                    want(self.lenient and gone, "abandons", f"{worker} was abandoned at {self.now}")
                case fx.Closed():
                    want(self.pool is PoolState.DRAINING and not self.slots, "closes", "it is not at its end")
                    self.pool, self.closes_at = PoolState.CLOSED, math.inf
                case fx.Stepped(subject, step) if isinstance(subject, Slot):
                    self._slot_steps(self.slots[subject], step)
                case fx.Stepped(subject, step) if isinstance(subject, Call) and step.trigger == CallTrigger.REQUEUE:
                    want(subject in self.back, "requeues", f"{subject} was put back into the queue")
                    self.back.discard(subject)
                    self._waits(self.calls[subject], back=True)
                case fx.Stepped(subject, step) if subject is self.core.pool:
                    self.pool_steps.append(step.dest)
                case fx.Stepped(subject, step) if subject is self.core.breaker:
                    self._breaker_steps_now(step)
                case _:
                    pass
        self._all_has_come()
        self._the_core_is_there()

    def _waits(self, known: KnownCall, *, back: bool) -> None:
        known.where, known.worker, known.running, known.until = "queue", None, False, math.inf
        self.lanes.add(known.call, back=back)

    def _has(self, call: Call, worker: KnownWorker) -> None:
        known = self.calls[call]
        known.where, known.worker = "worker", worker
        worker.call = known
        self.sent = None if call is self.sent else self.sent

    def _is_served(self, call: Call, worker: Worker) -> None:
        known, has = self.calls[call], self.workers[worker]
        # A checkout's deadline is for the waiting, and this one does not wait.
        at_once = call.is_lease and known.where != "queue"
        want(at_once or call.deadline > self.now, "turns", f"{call} was dead on arrival")
        if known.where == "queue":
            want(self.lanes.all()[:1] == [call], "turns", f"{call} was served; in turn: {self.lanes.all()}")
            self.lanes.take()
        else:
            in_turn = call is self.sent and not self.lanes.all()
            want(in_turn, "turns", f"{call} was served at once; waiting: {self.lanes.all()}")
        if has in self.spares:  # there is a new slot, and it has taken the place
            self._all_slots()
        base = [each for each in self.idle if self._kind(each) is SlotKind.BASE]
        want(bool(self.idle), "serves", f"{call} got {worker}, and nobody was idle")
        right = base[-1] if base else self.idle[-1]
        if call.session is not None:
            bound, used = self.bound.get(call.session, (None, 0.0))
            if bound in self.idle and used + self.policy.session_ttl > self.now:
                right = bound
            self.bound[call.session] = has, self.now
        either = self._by_order and has in base  # the last may have become so later
        want(has is right or either, "serves", f"{call} got {worker}; it was the turn of {right.worker}")
        self._turns(has, W.BUSY)
        self._has(call, has)
        has.occupant = known
        if call.is_lease:
            known.where, has.call = "lease", None

    def _is_started(self, worker: Worker) -> None:
        want(self.pool not in CLOSING, "starts", f"{worker} was started by a pool that closes")
        slot = self._slot(worker.slot)
        slot.workers += 1
        new = (worker.generation, worker.since, worker.history.maxlen)
        want(new == (slot.workers, self.now, self.policy.history), "starts", f"{worker} begins as {new}")
        free = slot.worker is None and slot.state is SlotState.STARTING
        want(free, "starts", f"{worker} was started in a slot that is {slot.state}")
        self.workers[worker] = slot.worker = KnownWorker(worker, self.now)
        self.workers[worker].boots_until = self.now + self.policy.init_timeout

    def _slot(self, slot: Slot) -> KnownSlot:
        if slot not in self.slots:
            new = (slot.index, slot.since, slot.history.maxlen)
            want(new == (self.made, self.now, self.policy.history), "slots", f"{slot} begins as {new}")
            self.slots[slot] = known = KnownSlot(slot)
            self.fresh.append(slot)
            self.made += 1
            if slot.kind is SlotKind.OVERFLOW:
                known.kind = slot.kind
            elif isinstance(self.event, ev.Open) and self.made > self.policy.min_workers:
                known.kind = SlotKind.SPARE
            if self._by_order:
                known.kind = slot.kind
            else:
                self._stands_in(known)
            self.grown += known.kind is SlotKind.SPARE
        return self.slots[slot]

    def _all_slots(self) -> None:
        for slot in self.core.crew.slots.values():
            self._slot(slot)

    def _is_stopped(self, worker: Worker, rung: Rung) -> None:
        known, due = self.workers[worker], self.stops.get(worker)
        on_the_way = self.killed_all and rung is Rung.TERM and known.rung is Rung.ASK and due is Rung.KILL
        if due is rung:
            del self.stops[worker]
        else:
            want(on_the_way or self.lenient, "stops", f"{worker} was sent {rung} at {self.now}, and not {due}")
        known.rung, known.rung_at = rung, self.now

    def _is_answered(self, answer: fx.Answer, call: Call, verdict: Verdict) -> None:
        known = self.calls[call]
        due = self.answers.pop(call, None)
        want(known.where != "over", "verdict", f"{call} got {verdict}, and had its verdict")
        if due is None:
            popped = known.where == "queue" and verdict is Verdict.TIMED_OUT and call.deadline <= self.now
            if popped:  # it would have been its turn, and is too late; its lane is still next
                want(self.lanes.all()[:1] == [call], "turns", f"{call} was out of turn")
            elif verdict is Verdict.FULL:
                full = len(self.lanes.all()) >= self.policy.max_waiting and call is self.sent
                free = self.had_idle and self.pool is not PoolState.SUSPENDED and not self.lanes.all()
                want(full and not free, "verdict", f"{call} got full; waiting: {self.lanes.all()}")
                self.sent = None
            else:
                failed = verdict is Verdict.POOL_FAILED and self.core.pool.state is PoolState.FAILED
                want(failed and known.where in ("queue", "pause"), "verdict", f"{call} got {verdict} for nothing")
        else:
            want(verdict is due, "verdict", f"{call} got {verdict}, and not {due}")
        on_worker, tried = known.where == "worker", known.where == "worker" or known.begun > 0
        if verdict is Verdict.TIMED_OUT:
            told = known.worker is not None and known.worker.interrupted is known
            where = "interrupted" if told else "on a worker"
            cause = where if on_worker else "between attempts" if known.begun else "waiting for a worker"
            want(answer.cause == cause, "cause", f"{call} timed out {answer.cause!r}, and not {cause!r}")
        if verdict is Verdict.ANSWERED:
            theirs = isinstance(self.event, ev.Replied) and answer.reply is self.event.reply
            want(theirs, "reply", f"{call} got the reply of another")
        if verdict is Verdict.CIRCUIT_OPEN:
            wait = self.breaker.retry_after(self.now)
            want(answer.retry_after == wait, "retry_after", f"{call}: {answer.retry_after}, and not {wait}")
        if verdict in (Verdict.UNKNOWN, Verdict.VIOLATION, Verdict.POOL_FAILED):
            want(answer.cause != "", "cause", f"{call} was not told why")
        self.verdicts.append(verdict)
        known.end = self._end(known, verdict)
        self._is_over(known)
        failed = verdict in (Verdict.DIED, Verdict.UNKNOWN, Verdict.VIOLATION) or (
            verdict is Verdict.TIMED_OUT and tried
        )
        outcome = Outcome.SUCCESS if verdict is Verdict.ANSWERED else Outcome.FAILURE if failed else Outcome.NEUTRAL
        if step := self.breaker.record(call, outcome, self.now):
            seen = self.breaker_steps[:1]
            want(seen == [step], "breaker", f"{call} ended with {outcome}: {step}; seen: {seen}")
            self.breaker_steps.pop(0)

    def _end(self, known: KnownCall, verdict: Verdict) -> CallState:
        """The state in which a call ends that gets this verdict."""
        if verdict is Verdict.ANSWERED:
            ok = isinstance(self.event, ev.Replied) and self.event.ok
            return CallState.SUCCEEDED if ok else CallState.FAILED
        if verdict is Verdict.DIED and known.where == "nowhere":
            return CallState.REJECTED
        return {
            Verdict.RETURNED: CallState.SUCCEEDED,
            Verdict.DIED: CallState.FAILED,
            Verdict.TIMED_OUT: CallState.TIMED_OUT,
            Verdict.CANCELLED: CallState.CANCELLED,
            Verdict.UNKNOWN: CallState.UNKNOWN,
            Verdict.VIOLATION: CallState.UNKNOWN,
        }.get(verdict, CallState.REJECTED)

    def _is_over(self, known: KnownCall) -> None:
        self.lanes.remove(known.call)
        worker = known.worker
        if worker is not None:
            worker.call = None if worker.call is known else worker.call
            worker.occupant = None if worker.occupant is known else worker.occupant
        known.where, known.worker = "over", None

    def _breaker_steps_now(self, step: Step) -> None:
        """It steps by itself when its time has come, else with the next answer."""
        if self.breaker_steps[:1] == [step.trigger] and isinstance(self.event, ev.Submit):
            self.breaker_steps.pop(0)
            return
        by_itself = self.breaker.tick(self.now) if isinstance(self.event, ev.Tick) else None
        if by_itself is None:
            self.breaker_steps.append(step.trigger)
        else:
            want(by_itself == step.trigger, "breaker", f"{step.trigger}, and not {by_itself}")

    def _slot_steps(self, slot: KnownSlot, step: Step) -> None:
        trigger, now = step.trigger, self.now
        if trigger in (SlotTrigger.SERVE, SlotTrigger.STOP):
            return
        allowed = self.exits.pop(slot.slot, None)
        if allowed is None:  # its pause may be over
            unwanted = slot.kind is SlotKind.OVERFLOW and not self.lanes.all()
            waited = slot.state in (SlotState.BACKOFF, SlotState.QUARANTINED) and slot.until <= now + ALMOST
            want(waited and isinstance(self.event, ev.Tick), "slots", f"{slot.slot} took {trigger} at {now}")
            allowed = {SlotTrigger.CLOSE if unwanted else SlotTrigger.RESTART}
            if slot.state is SlotState.QUARANTINED and trigger == SlotTrigger.RESTART:
                want(self.bucket.tokens(now) >= 1 - ALMOST, "budget", f"{slot.slot} restarted without a token")
                self.bucket.takes.append(now)
        want(trigger in allowed, "slots", f"{slot.slot} took {trigger}; it may: {allowed}")
        slot.state = _AFTER[trigger]
        want(step.dest == slot.state, "slots", f"{slot.slot} is {step.dest} after {trigger}")
        if trigger == SlotTrigger.BACK_OFF:
            self.bucket.takes.append(now)
        elif trigger == SlotTrigger.QUARANTINE:
            slot.until = max(slot.until, self.bucket.next_token(now))
        elif trigger == SlotTrigger.CLOSE:
            del self.slots[slot.slot]

    # ── When the dust has settled ───────────────────────────────────────────────────────────────

    def _all_has_come(self) -> None:
        if self.sent is not None:  # neither sent nor refused: it waits
            known = self.calls[self.sent]
            want(self.sent.lease is None, "sends", f"{self.sent} was not sent to the worker that its caller holds")
            full = len(self.lanes.all()) >= self.policy.max_waiting
            failed = self.core.pool.state is PoolState.FAILED
            want(not full and not failed, "verdict", f"{self.sent} waits; before it: {self.lanes.all()}")
            self._waits(known, back=False)
        want(not self.answers, "verdict", f"not told: {self.answers}")
        want(not self.back, "requeues", f"not put back: {self.back}")
        want(not self.checks, "checks", f"not checked at {self.now}: {self.checks}")
        want(not self.interrupts, "interrupts", f"not told to stop at {self.now}: {self.interrupts}")
        want(not self.stops or self.lenient, "stops", f"not stopped at {self.now}: {self.stops}")
        want(not self.exits, "slots", f"what has become of {self.exits}?")
        want(not self.breaker_steps, "breaker", f"for no reason: {self.breaker_steps}")
        for worker in self.workers.values():
            if worker.state is W.TERMINATED:
                worker.call = worker.occupant = None
        if isinstance(self.event, ev.Tick):
            want(self.breaker.due() > self.now, "breaker", f"it was due at {self.breaker.due()}")
            for slot in self.slots.values():
                empty = slot.worker is None and slot.state is not SlotState.STARTING
                quarantined = slot.state is SlotState.QUARANTINED
                if empty and slot.until <= self.now + (ALMOST if quarantined else 0.0):
                    spent = quarantined and self.bucket.tokens(self.now) <= 1 + ALMOST
                    want(spent, "slots", f"{slot.slot} was due at {slot.until}, and it is {self.now}")
                    slot.until = self.bucket.next_token(self.now)

    def _the_core_is_there(self) -> None:
        core, now = self.core, self.now
        for known in self.calls.values():
            call = known.call
            want(call.state is known.state(), "call", f"{call} should be {known.state()}")
            if self.lenient:  # what came first, its deadline or the end, decides whether it is counted
                known.begun = call.attempts
            counts = (call.attempts, call.handovers)
            want(counts == (known.begun, known.moved), "call", f"{call} counts {counts}: {known.begun}, {known.moved}")
        for worker in self.workers.values():
            it = worker.worker
            want(it.state is worker.state, "worker", f"{it} should be {worker.state}")
            want(it.served == worker.served, "worker", f"{it} has served {it.served}, not {worker.served}")
            same = it.call is (worker.call and worker.call.call)
            same &= it.occupant is (worker.occupant and worker.occupant.call)
            want(same, "worker", f"{it} has {it.call} and {it.occupant}")
            want(it.on_purpose is worker.on_purpose, "worker", f"{it}: on purpose is {it.on_purpose}")
            told = worker.interrupted and worker.interrupted.call
            want(it.interrupted is told, "worker", f"{it} was told to stop {it.interrupted}, and not {told}")
        for worker in self._alive():
            self.slots[worker.worker.slot].state = {
                W.INITIALIZING: SlotState.STARTING,
                W.TERMINATING: SlotState.STOPPING,
            }.get(worker.state, SlotState.SERVING)
        self._as_many_slots_as_are_wanted()
        for slot in self.slots.values():
            want(slot.slot.kind is slot.kind, "kinds", f"{slot.slot} should be {slot.kind}")
            want(slot.slot.state is slot.state, "slots", f"{slot.slot} should be {slot.state}")
        spares = sum(slot.kind is SlotKind.SPARE for slot in self.slots.values())
        want(spares == self.policy.spares or self.pool in CLOSING, "kinds", f"{spares} slots are for spares")
        want(list(core.waiters) == self.lanes.all(), "turns", f"{list(core.waiters)}, and not {self.lanes.all()}")
        want(core.breaker.state is self.breaker.state, "breaker", f"{core.breaker.state}, not {self.breaker.state}")
        self._the_pool_is_as_it_should_be()
        ttl = self.policy.session_ttl
        bound = {name: (worker.worker, used) for name, (worker, used) in self.bound.items() if used + ttl > now}
        lapsed = {name for name, _, used in core.sessions if used + ttl <= now}
        kept = {name: (worker, used) for name, worker, used in core.sessions if name not in lapsed}
        want(bound == kept, "sessions", f"{kept}, and not {bound}")
        want(not lapsed or not isinstance(self.event, ev.Tick), "sessions", f"{lapsed} have lapsed")
        due = min(self._dues(), default=math.inf)
        want(core.next_due() <= due + ALMOST, "due", f"something is due at {due}, and the tick at {core.next_due()}")
        tokens = core.crew.budget.tokens(now)
        want(abs(tokens - self.bucket.tokens(now)) < ALMOST, "budget", f"{tokens}, not {self.bucket.tokens(now)}")

    def _as_many_slots_as_are_wanted(self) -> None:
        """Of those that are new there are no more than callers wait who will find none."""
        coming = sum(self._is_coming(slot) for slot in self.slots.values() if slot.slot not in self.fresh)
        self._all_slots()
        waiting = self.policy.min_workers if isinstance(self.event, ev.Open) else len(self.lanes.all())
        wanted = max(0, waiting + self.grown - coming)
        want(len(self.fresh) <= wanted, "slots", f"{len(self.fresh)} more, and {wanted} are wanted")
        want(len(self.slots) == len(self.core.crew.slots), "slots", f"{self.core.crew.slots}, not {list(self.slots)}")
        held_back = [slot for slot in self.slots.values() if slot.state is SlotState.STARTING and slot.worker is None]
        starting = sum(worker.state is W.INITIALIZING for worker in self._alive())
        want(starting <= self.policy.max_starting, "starts", f"{starting} workers start at a time")
        if held_back and all(worker.up for worker in self._alive()):
            disagree("starts", f"{held_back[0].slot} waits for its turn, and nobody is before it")

    @property
    def _by_order(self) -> bool:
        """Whether it depends on what was due first which spare has taken whose place: that is for the core to say."""
        return self.policy.spares > 0 and isinstance(self.event, ev.Tick)

    def _takes_their_kinds(self) -> None:
        for slot in self.slots.values():
            slot.kind = slot.slot.kind
        for worker in [worker for worker in self.spares if self._kind(worker) is not SlotKind.SPARE]:
            self.spares.remove(worker)
            self.idle.append(worker)
        for worker in [worker for worker in self.idle if self._kind(worker) is SlotKind.SPARE]:
            self.idle.remove(worker)
            self.spares.append(worker)

    def _is_coming(self, slot: KnownSlot) -> bool:
        if slot.kind is SlotKind.SPARE:
            return False
        if slot.state is SlotState.STOPPING:
            return slot.kind is SlotKind.BASE
        return slot.state is not SlotState.SERVING

    def _the_pool_is_as_it_should_be(self) -> None:
        # One that is checked because it is under suspicion serves nobody until it has passed.
        usable = sum(
            it.state in USABLE and self._kind(it) is not SlotKind.SPARE and not (it.state is W.CHECKING and it.failures)
            for it in self._alive()
        )
        states = [slot.state for slot in self.slots.values()]
        hopeless = SlotState.QUARANTINED in states and {SlotState.QUARANTINED, SlotState.BACKOFF} >= set(states)
        enough = usable >= self.policy.min_workers and self.breaker.state is BreakerState.CLOSED
        was, state = self.pool, self.core.pool.state
        if was in (PoolState.SUSPENDED, *CLOSING):
            wanted = {was}
        elif self.boot_failed or (not usable and hopeless):
            wanted = {PoolState.FAILED}
        elif was is PoolState.FAILED and usable:  # it failed to start, which the next change makes good
            wanted = {PoolState.READY if enough else PoolState.IMPAIRED, PoolState.FAILED}
        elif enough:
            wanted = {PoolState.READY}
        else:
            wanted = {PoolState.IMPAIRED if was is PoolState.READY else was}
        want(state in wanted, "pool", f"the pool was {was} and is {state}; usable: {usable}, slots: {states}")
        detour = isinstance(self.event, ev.Resume) and state is PoolState.READY and len(self.pool_steps) > 1
        want(not detour, "pool", f"it resumed by way of {self.pool_steps}")
        self.pool = state
        if state is PoolState.FAILED:
            waiting = [known.call for known in self._open_calls("queue", "pause")]
            want(not waiting, "verdict", f"the pool has failed, and {waiting} wait")
