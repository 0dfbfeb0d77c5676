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
from remuda.statemachines.subjects import Call, Rung, Worker

__all__ = ["Ledger", "Trap"]

_ENDED_CLEANLY = frozenset({fx.Verdict.ANSWERED, fx.Verdict.RETURNED})


class Trap:
    """Stands for what belongs to users: arguments, results. It notices whoever looks into it."""

    touched: str | None = None

    def __getattribute__(self, name: str) -> object:
        if name not in ("touched", "__class__", "__reduce_ex__", "__dict__"):
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
        verdicts: the final verdicts that each of them got.
        started, ended: workers whose start was ordered; whose end was told.
        up: workers that were initialized.
        dirty: workers whose caller went away, or whose call ended without an answer: they may have
            half-done work in them.
        rungs: the rungs of the stop ladder that each worker was sent.
        passed: for each lane that waits, how often each other lane had its turn since it last had one.
        event, effects: the last event and what came of it.
        at: when that was.
        before: when the event before it was.
        waiting: who was waiting before it, by lane.
        was_closing: whether the pool was closing before it.
    """

    def __init__(self) -> None:
        self.submitted: dict[int, Call] = {}
        self.verdicts: dict[int, list[fx.Verdict]] = {}
        self.started: set[Worker] = set()
        self.ended: set[Worker] = set()
        self.up: set[Worker] = set()
        self.dirty: set[Worker] = set()
        self.rungs: dict[Worker, list[Rung]] = {}
        self.passed: dict[str | None, Counter[str | None]] = {}
        self.event: ev.Event | None = None
        self.effects: Sequence[fx.Effect] = ()
        self.at = self.before = 0.0
        self.was_closing = False
        self._holds: dict[int, Worker] = {}  # who was sent to, or granted, which worker

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
        if isinstance(event, ev.Submit):
            self.submitted[event.call.id] = event.call
            self.verdicts.setdefault(event.call.id, [])
        elif isinstance(event, ev.Initialized):
            self.up.add(event.worker)
        elif isinstance(event, ev.Exited):
            self.ended.add(event.worker)
        for effect in effects:
            self._note_effect(effect)
        self._note_turns(core)

    def _note_effect(self, effect: fx.Effect) -> None:
        if isinstance(effect, fx.StartWorker):
            self.started.add(effect.worker)
        elif isinstance(effect, fx.SendCall):
            self._holds[effect.call.id] = effect.worker
        elif isinstance(effect, fx.Stop):
            self.rungs.setdefault(effect.worker, []).append(effect.rung)
        elif isinstance(effect, fx.Abandon):
            self.ended.add(effect.worker)
        elif isinstance(effect, fx.Answer):
            call = effect.call
            if effect.verdict is fx.Verdict.GRANTED:
                assert call.worker is not None
                self._holds[call.id] = call.worker
                return
            self.verdicts.setdefault(call.id, []).append(effect.verdict)
            worker = self._holds.pop(call.id, None)
            if worker is not None and effect.verdict not in _ENDED_CLEANLY:
                self.dirty.add(worker)

    def _note_turns(self, core: Core) -> None:
        for effect in self.effects:
            call = served(effect)
            if call is not None and call.lease is None:
                self.passed.pop(call.session, None)
                if not call.handovers and not call.attempts:  # one that comes back is first, by right
                    for passes in self.passed.values():
                        passes[call.session] += 1
        lanes = {call.session for call in core.waiters}
        self.passed = {lane: self.passed.get(lane, Counter()) for lane in lanes}

    def forget(self) -> None:
        """Drop what is over, for a core that runs for long."""
        for worker in list(self.ended):
            self.ended.discard(worker)
            for known in (self.started, self.up, self.dirty):
                known.discard(worker)
            self.rungs.pop(worker, None)


def served(effect: fx.Effect) -> Call | None:
    """The call that gets a worker by this effect, if one does."""
    if isinstance(effect, fx.SendCall):
        return effect.call
    if isinstance(effect, fx.Answer) and effect.verdict is fx.Verdict.GRANTED:
        return effect.call
    return None
