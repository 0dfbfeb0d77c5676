"""The same invariants, asked of a pool that is at work.

    monitor = Monitor()
    async with open_pool(adapter="dspy", observers=[monitor]) as pool:
        ...
    monitor.violations      # Counter(): nothing to report

A monitor is an observer that is shown every step of the core (a `Watcher`). It keeps the books of
each pool that it is handed to, and asks the rules of `remuda.specs.invariants` after the step, before
its effects are carried out. A rule that does not hold is a bug in remuda. It is counted, and told to
all observers as an `InvariantBroken` event, which is also a line in the log, with the evidence: what
the rule says, what the core looks like, and the last steps that led there. What holds here:

* **It only looks.** Nothing it does or raises reaches a caller. A rule that breaks down counts as broken.
* **It keeps nothing that is over.** A call is forgotten with its outcome, a worker with its end, a
  pool with its close. What it holds grows with what the pool holds, and not with time.
* **It does not look at what is the users'.** Arguments and results are neither read nor kept.
* **It does not flood.** A pool that is broken stays broken, at each step. Every time is counted; the
  first is told, and then the second, the fourth, the eighth.

The rules look at every call and worker that there is, so a step costs more the more callers wait.
`every` bounds that: of the steps in which callers do something, only each n-th is judged. What happens
to workers and to the pool itself is rare, and always judged; and the books are always kept.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from remuda.runtime.events import Event, InvariantBroken
from remuda.specs.invariants import INVARIANTS, what_is_the_users_is_not_touched
from remuda.specs.ledger import Ledger
from remuda.statemachines import effects as fx
from remuda.statemachines import events as ev
from remuda.statemachines.core import Core
from remuda.statemachines.pool import PoolState
from remuda.statemachines.subjects import Call, Worker

__all__ = ["Evidence", "Monitor"]

_OF_CALLERS = frozenset({ev.Submit, ev.GiveUp, ev.Checkin, ev.Began, ev.Replied, ev.Tick})
"""Steps of which there are as many as calls."""

_CLIPPED = 400
"""Characters of one text in the evidence: a rule may name every call of a thousand."""

_LISTED = 8
"""Workers, or waiting calls, that are named in a summary."""

_KEPT = 100
"""Pieces of evidence that a monitor keeps."""

_FORGETTING = 64
"""Steps after which what is over is dropped from the books, once it was judged. To look for it costs as
much as a rule."""


class Evidence(msgspec.Struct, frozen=True):
    """What there is to say about a rule that does not hold.

    Attributes:
        pool: the name of the pool.
        name: which rule.
        detail: what the rule said.
        summary: the core at that moment, in words.
        steps: the last steps before it and, last of all, the one after which it did not hold.
        count: how often it has been seen broken in this pool, this time included.
        at: monotonic seconds.
    """

    pool: str
    name: str
    detail: str
    summary: str
    steps: tuple[str, ...]
    count: int
    at: float

    def __str__(self) -> str:
        return "\n".join(
            (f"{self.name}: {self.detail}", f"  {self.summary}", *(f"  {step}" for step in self.steps)),
        )


class Monitor:
    """Asks the invariants of live pools. Hand it to `open_pool(..., observers=[monitor])`.

    One monitor may watch any number of pools, one after the other or at the same time, in one thread.

    Args:
        every: judge each n-th step of callers, 1 or more; 1 judges all. Steps of workers and of the
            pool are judged always.
        remember: how many steps before a violation are part of its evidence, 1 or more.

    Attributes:
        violations: how often each rule has been seen broken, by name, over all pools.
        evidence: the newest violations that were told, oldest first; a hundred at most.
        steps: how many steps it has seen.
        judged: after how many of them it has asked the rules.

    Raises:
        ValueError: `every` or `remember` is below 1.
    """

    def __init__(self, *, every: int = 1, remember: int = 32) -> None:
        if every < 1 or remember < 1:
            raise ValueError(f"every is {every!r} and remember {remember!r}; both must be 1 or more")
        self.violations: Counter[str] = Counter()
        self.evidence: deque[Evidence] = deque(maxlen=_KEPT)
        self.steps = 0
        self.judged = 0
        self._every = every
        self._remember = remember
        self._books: dict[Core, _Books] = {}

    def __call__(self, event: Event, /) -> None:
        """Events tell it nothing: it sees the steps that they are made from."""

    def handled(
        self, pool: str, core: Core, event: ev.Event, effects: Sequence[fx.Effect], now: float
    ) -> Iterable[Event]:
        """Enter a step into the books and ask the rules; see `remuda.runtime.events.Watcher`."""
        self.steps += 1
        books = self._books.get(core)
        if books is None:
            books = self._books[core] = _Books(self._remember)
        books.enter(core, event, effects, now)
        books.routine = books.routine + 1 if type(event) in _OF_CALLERS else self._every
        events: list[InvariantBroken] = []
        if books.routine >= self._every:
            books.routine = 0
            self.judged += 1
            for name, detail in _ask(core, books.ledger):
                events += self._tell(pool, core, books, name, detail, now)
            if books.remembered >= _FORGETTING:
                books.remembered = 0
                books.ledger.forget()
        if core.pool.state is PoolState.CLOSED:
            del self._books[core]
        return events

    def _tell(
        self, pool: str, core: Core, books: _Books, name: str, detail: str, now: float
    ) -> Iterator[InvariantBroken]:
        self.violations[name] += 1
        books.broken[name] += 1
        count = books.broken[name]
        if count & (count - 1):
            return  # told when it had been half as many, or will be when it is twice as many
        evidence = Evidence(pool, name, _clip(detail), _summary(core), tuple(books.trace), count, now)
        self.evidence.append(evidence)
        words = f"{evidence.detail}. {evidence.summary}. The last steps: {'; '.join(evidence.steps)}"
        yield InvariantBroken(pool, name, words, count, now)


class _Books:
    """What is known of one pool."""

    __slots__ = ("broken", "closing", "ledger", "remembered", "routine", "trace")

    def __init__(self, remember: int) -> None:
        self.ledger = Ledger()
        self.broken: Counter[str] = Counter()
        self.trace: deque[str] = deque(maxlen=remember)
        self.closing = False
        self.routine = 0  # steps of callers since the last one that was judged
        self.remembered = 0  # steps since what is over was forgotten

    def enter(self, core: Core, event: ev.Event, effects: Sequence[fx.Effect], now: float) -> None:
        """Note a step."""
        self.remembered += 1
        effects = [effect for effect in effects if type(effect) is not fx.Stepped]  # most are, and say nothing new
        self.trace.append(f"{now:.6f} {' → '.join([_say(event), *map(_say, effects)])}")
        self.ledger.note(core, event, effects, now, closing=self.closing)
        self.closing = self.closing or type(event) is ev.Close


_RULES = {name: rule for name, rule in INVARIANTS.items() if rule is not what_is_the_users_is_not_touched}
"""That one needs traps in the place of arguments and results, which only a model has."""


def _ask(core: Core, ledger: Ledger) -> Iterator[tuple[str, str]]:
    """Every rule that does not hold, and what it says."""
    for name, rule in _RULES.items():
        try:
            detail = rule(core, ledger)
        except Exception as error:  # the core is in a state that the rule could not imagine
            detail = f"the rule broke down: {error!r}"
        if detail is not None:
            yield name, detail


# ── In words ────────────────────────────────────────────────────────────────────────────────────


def _summary(core: Core) -> str:
    """The core in one line."""
    workers = [
        f"{_name(worker)} {worker.state}" + (f" with {_name(worker.occupant)}" if worker.occupant else "")
        for worker in core.crew.workers()
    ]
    slots = Counter(str(slot.state) for slot in core.crew.slots.values())
    waiting = [_name(call) for call in core.waiters]
    leases = [_name(lease) for lease in core.leases()]
    return "; ".join(
        (
            f"the pool is {core.pool.state}, its breaker {core.breaker.state}",
            f"workers: {_list(workers)}",
            f"slots: {', '.join(f'{count} {state}' for state, count in slots.items()) or 'none'}",
            f"{len(core.calls)} calls, of which {len(waiting)} wait: {_list(waiting)}",
            f"checked out: {_list(leases)}",
        )
    )


def _list(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return (", ".join(names[:_LISTED]) or "none") + more


def _name(subject: Call | Worker) -> str:
    if isinstance(subject, Worker):
        return f"{subject.slot.index}.{subject.generation}"
    return f"{'lease' if subject.is_lease else 'call'} {subject.id}"


def _say(what: ev.Event | fx.Effect) -> str:
    """An event or effect in a few words, without anything that is the users'."""
    wording = _WORDING.get(type(what))
    return type(what).__name__ if wording is None else f"{type(what).__name__} {wording(what)}"


_WORDING: dict[type, Callable[[Any], str]] = {
    ev.Submit: lambda e: _name(e.call) + (f" on {_name(e.call.lease)}" if e.call.lease else ""),
    ev.GiveUp: lambda e: _name(e.call),
    ev.Checkin: lambda e: _name(e.lease),
    ev.Began: lambda e: _name(e.call),
    ev.Initialized: lambda e: _name(e.worker),
    ev.BootFailed: lambda e: f"{_name(e.worker)} ({_clip(e.cause)})",
    ev.Replied: lambda e: f"{_name(e.worker)} to call {e.call_id}" + (", unfit" if e.unfit else ""),
    ev.HealthChecked: lambda e: f"{_name(e.worker)} number {e.number}, {'well' if e.healthy else 'not well'}",
    ev.ChannelFailed: lambda e: f"{_name(e.worker)} ({_clip(e.cause)})",
    ev.Exited: lambda e: f"{_name(e.worker)} ({_clip(e.cause)}){', its call had begun' if e.began else ''}",
    ev.Retire: lambda e: f"{_name(e.worker)} ({_clip(e.reason)})",
    fx.StartWorker: lambda e: _name(e.worker),
    fx.SendCall: lambda e: f"{_name(e.call)} to {_name(e.worker)}",
    fx.SendCheck: lambda e: f"{_name(e.worker)} number {e.number}",
    fx.Stop: lambda e: f"{_name(e.worker)} {e.rung}",
    fx.Abandon: lambda e: _name(e.worker),
    fx.Answer: lambda e: f"{_name(e.call)} {e.verdict}",
}


def _clip(text: str) -> str:
    return text if len(text) <= _CLIPPED else f"{text[:_CLIPPED]}…"
