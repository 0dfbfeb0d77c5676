"""What has gone into a core and come out of it: what invariants about the past are judged by.

A core knows the present. That a call got one answer and not two, that a worker that was killed never
got work again, that nobody was overtaken, can only be told by somebody who kept the books. A ledger
is told every event and its effects, by a model or by whoever watches a live pool, and keeps no more
than the rules need.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from remuda.statemachines import effects as fx
from remuda.statemachines import events as ev
from remuda.statemachines.core import Core
from remuda.statemachines.pool import PoolState
from remuda.statemachines.subjects import Call, Rung, Worker

__all__ = ["Ledger", "Trap"]

_ENDED_CLEANLY = frozenset({fx.Verdict.ANSWERED, fx.Verdict.RETURNED})


class Trap:
    """Stands for what belongs to users: arguments, results. It notices whoever looks into it."""

    touched: str | None = None

    def __getattribute__(self, name: str) -> object:
        if name not in ("touched", "__class__", "__dict__"):
            Trap.touched = name
        return object.__getattribute__(self, name)

    def __str__(self) -> str:
        Trap.touched = "__str__"
        return "<trap>"

    __repr__ = __str__


class Ledger:
    """The books of one core.

    Attributes:
        submitted: the calls that were made, by id.
        verdicts: the final verdicts that each of them got, until they are forgotten.
        begun: the calls that have begun: seen to, answered, or said by a worker's end.
        sent: how often each call was sent to a worker.
        holder: who was sent to, or granted, which worker last, and has had no verdict since.
        started, ended: workers whose start was ordered; whose end was told.
        up: workers that were initialized.
        served: workers that have answered a call.
        stopped: workers that were told to go.
        dirty: workers whose caller went away, or whose call ended without an answer: they may have
            half-done work in them, unless they were told to stop and have answered to that.
        rungs: the rungs of the stop ladder that each worker was sent.
        beyond: workers that were told to go when they had gone already.
        strays: calls that got a verdict and were not under way.
        passed: for each lane that waits, how often each other lane had its turn since it last had one.
        event, effects: the last event and what came of it.
        at: when that was.
        before: when the event before it was.
        was_closing: whether the pool was closing before it.
        closing_since: when it was told to close; None before.
        failed_start: whether the pool has failed because it could not start, and is that still.
        had: the call that the last event was about, if these books know of it: what its worker had in
            hand, or the checkout that was given back.
    """

    def __init__(self) -> None:
        self.submitted: dict[int, Call] = {}
        self.verdicts: dict[int, list[fx.Verdict]] = {}
        self.begun: set[int] = set()
        self.sent: Counter[int] = Counter()
        self.holder: dict[int, Worker] = {}
        self.started: set[Worker] = set()
        self.ended: set[Worker] = set()
        self.up: set[Worker] = set()
        self.served: set[Worker] = set()
        self.stopped: set[Worker] = set()
        self.dirty: set[Worker] = set()
        self.rungs: dict[Worker, list[Rung]] = {}
        self.beyond: list[Worker] = []
        self.strays: list[Call] = []
        self.passed: dict[str | None, Counter[str | None]] = {}
        self.event: ev.Event | None = None
        self.effects: Sequence[fx.Effect] = ()
        self.at = self.before = 0.0
        self.was_closing = False
        self.closing_since: float | None = None
        self.failed_start = False
        self._pool = PoolState.STARTING
        self.had: int | None = None
        self._told_to_stop: dict[Worker, int] = {}
        self._in_hand: dict[Worker, int] = {}  # what was last sent to each worker, until it answers

    def note(self, core: Core, event: ev.Event, effects: Sequence[fx.Effect], now: float, *, closing: bool) -> None:
        """Enter an event and its effects.

        Args:
            core: the core, after it.
            event, effects: what went in, and what came out.
            now: monotonic seconds.
            closing: whether the pool was closing before.
        """
        self.event, self.effects = event, effects
        self.before, self.at, self.was_closing = self.at, now, closing
        self._note_event(event, now)
        for effect in effects:
            self._note_effect(effect)
        self._note_turns(core)
        before, self._pool = self._pool, core.pool.state
        self.failed_start = self._pool is PoolState.FAILED and (self.failed_start or before is PoolState.STARTING)

    def _note_event(self, event: ev.Event, now: float) -> None:
        self.had = None
        match event:
            case ev.Submit(call):
                self.submitted[call.id] = call
                self.verdicts.setdefault(call.id, [])
            case ev.Initialized(worker):
                self.up.add(worker)
            case ev.Began(call):
                self._has_begun(call.id)
            case ev.Replied(worker, number):
                self.had = self._in_hand.get(worker)
                if self.had == number:
                    del self._in_hand[worker]
                    self.served.add(worker)
                    self._has_begun(number)
                if self._told_to_stop.get(worker) == number and worker.interrupted is None:
                    del self._told_to_stop[worker]
                    self.dirty.discard(worker)  # it has answered: nothing of the call is in it any more
            case ev.Exited(worker):
                self.ended.add(worker)
                self.had = self._in_hand.pop(worker, None)
                if self.had is not None and event.began:
                    self._has_begun(self.had)
            case ev.Checkin(lease):
                self.had = lease.id if lease.id in self.holder else None
            case ev.Close():
                self.closing_since = now if self.closing_since is None else self.closing_since
            case _:
                pass

    def _has_begun(self, number: int) -> None:
        if number in self.submitted:  # else it is over, and the news is late
            self.begun.add(number)

    def _note_effect(self, effect: fx.Effect) -> None:
        if isinstance(effect, fx.StartWorker):
            self.started.add(effect.worker)
        elif isinstance(effect, fx.SendCall):
            self.holder[effect.call.id] = effect.worker
            self._in_hand[effect.worker] = effect.call.id
            self.sent[effect.call.id] += 1
        elif isinstance(effect, fx.Interrupt):
            self._told_to_stop[effect.worker] = effect.call.id
        elif isinstance(effect, fx.Stop):
            self.rungs.setdefault(effect.worker, []).append(effect.rung)
            self.stopped.add(effect.worker)
            if effect.worker in self.ended or effect.worker not in self.started:
                self.beyond.append(effect.worker)
        elif isinstance(effect, fx.Abandon):
            self.ended.add(effect.worker)  # what it had begun was seen before, or it never will
        elif isinstance(effect, fx.Answer):
            call = effect.call
            if effect.verdict is fx.Verdict.GRANTED:
                assert call.worker is not None
                self.holder[call.id] = call.worker
                return
            if call.id not in self.submitted:
                self.strays.append(call)
            self.verdicts.setdefault(call.id, []).append(effect.verdict)
            worker = self.holder.pop(call.id, None)
            if worker is not None and effect.verdict not in _ENDED_CLEANLY:
                self.dirty.add(worker)

    def _note_turns(self, core: Core) -> None:
        back = self.submitted.get(self.had) if isinstance(self.event, ev.Exited) and self.had is not None else None
        if back is not None and back in core.waiters:  # it had not begun: that was no turn
            for passes in self.passed.values():
                passes[back.session] = max(0, passes[back.session] - 1)
        for effect in self.effects:
            call = served(effect)
            if call is not None and call.lease is None:
                self.passed.pop(call.session, None)
                if not call.attempts:  # one that is tried again is first, by right
                    for passes in self.passed.values():
                        passes[call.session] += 1
        lanes = {call.session for call in core.waiters}
        self.passed = {lane: self.passed.get(lane, Counter()) for lane in lanes}

    def forget(self) -> None:
        """Drop what is over, for a core that runs for long: workers that have ended, calls that had their verdict."""
        for worker in self.ended:
            for known in (self.started, self.up, self.served, self.stopped, self.dirty):
                known.discard(worker)
            self.rungs.pop(worker, None)
            self._told_to_stop.pop(worker, None)
            self._in_hand.pop(worker, None)
        self.ended.clear()
        for number in [number for number in self.submitted if self.verdicts.get(number)]:
            del self.submitted[number]
            del self.verdicts[number]
            self.sent.pop(number, None)
            self.begun.discard(number)


def served(effect: fx.Effect) -> Call | None:
    """The call that gets a worker by this effect, if one does."""
    if isinstance(effect, fx.SendCall):
        return effect.call
    if isinstance(effect, fx.Answer) and effect.verdict is fx.Verdict.GRANTED:
        return effect.call
    return None
