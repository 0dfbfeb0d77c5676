"""What callers did and what came of it, and what the workers did meanwhile: the record of a pool.

    history = History()
    async with SimLauncher.open(behaviour) as launcher:
        history.listen(launcher)                                   # the workers' side
        async with open_pool(launcher=launcher, observers=[history]) as pool:
            recorded = history.around(pool)                        # the callers' side
            await recorded.call("once", {"token": 7}, answer=7)
    judge(history)                                                 # remuda.specs.sequential

The rules that a history is judged by are in `remuda.specs.sequential`. Here it is only written down, by
those who can know:

* **Callers** say when they called, when that returned, and with what. That is all that a promise of
  the pool can be held against.
* **Workers** say which call they began and finished, and when. Simulated ones tell their witness; real
  ones have to leave it somewhere, and the test reads it in (`executed`).
* **The core** is watched for what nobody outside can see: the order in which calls arrived, were given
  to workers and were settled, and when a worker had ended.

Whatever happens gets a `Moment`: the time, and a running number. On a virtual clock a whole exchange
takes no time at all, and only the number tells what came first.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

import trio

from remuda.bridge import messages
from remuda.runtime.events import Event, WorkerReady
from remuda.runtime.handles import Lease
from remuda.runtime.pool import Pool
from remuda.specs.linear import Moment
from remuda.specs.simulated import SimLauncher
from remuda.specs.witness import Execution, Witness
from remuda.statemachines import effects as fx
from remuda.statemachines import errors
from remuda.statemachines import events as ev
from remuda.statemachines.core import Core

__all__ = ["ANYTHING", "Executed", "History", "Operation", "Outcome", "RecordedLease", "RecordedPool", "WorkerName"]

WorkerName: TypeAlias = tuple[int, int]
"""Slot and generation."""


class _Anything:
    def __repr__(self) -> str:
        return "ANYTHING"


ANYTHING: object = _Anything()
"""In the place of an answer: whatever it is, it is right."""


class Outcome(StrEnum):
    """What a caller got."""

    ANSWERED = "answered"
    """A result."""
    RAISED = "raised"
    """An error that the worker reported: the command raised, or was never one."""
    RETURNED = "returned"
    """Of a checkout: it was granted, and is over."""
    UNKNOWN = "unknown"
    """`OutcomeUnknown` or `ProtocolError`: it had begun, and nobody knows what came of it."""
    DIED = "died"
    TIMED_OUT = "timed out"
    REFUSED = "refused"
    """The pool did not take it, or took it and gave it back undone."""
    CANCELLED = "cancelled"
    """The caller went away."""


_OUTCOMES: tuple[tuple[type[BaseException], Outcome], ...] = (
    (errors.OutcomeUnknown, Outcome.UNKNOWN),
    (errors.ProtocolError, Outcome.UNKNOWN),
    (errors.WorkerDied, Outcome.DIED),
    (errors.CallTimeout, Outcome.TIMED_OUT),
    (errors.CheckoutTimeout, Outcome.TIMED_OUT),
    (errors.PoolFull, Outcome.REFUSED),
    (errors.PoolClosed, Outcome.REFUSED),
    (errors.PoolFailed, Outcome.REFUSED),
    (errors.CircuitOpen, Outcome.REFUSED),
    (errors.InvalidLease, Outcome.REFUSED),
    (errors.RemudaError, Outcome.RAISED),
    (BaseException, Outcome.CANCELLED),
)


@dataclass(eq=False)
class Operation:
    """A call or a checkout, as its caller saw it.

    Attributes:
        number: counts the operations of a history.
        what: the command, or "checkout".
        key: what tells its executions from those of others.
        is_lease: whether it is a checkout.
        on: the checkout on whose worker it was called, if it was.
        session, idempotent: as the caller said.
        expected: what the answer has to be.
        invoked, returned: when the caller called, and had its outcome; of a checkout: was through with it.
        outcome, value: what the caller got.
        granted, released: of a checkout: when the caller had the worker, and let go of it.
        worker: of a checkout: which one that was.
        arrived: when the pool took note of it.
        assigned: when it was first given a worker.
        settled: when the pool had decided on its outcome.
        verdict: which one.
    """

    number: int
    what: str
    invoked: Moment
    key: Hashable = None
    is_lease: bool = False
    on: Operation | None = None
    session: str | None = None
    idempotent: bool = False
    expected: object = ANYTHING
    returned: Moment | None = None
    outcome: Outcome | None = None
    value: object = None
    granted: Moment | None = None
    released: Moment | None = None
    worker: WorkerName | None = None
    arrived: Moment | None = None
    assigned: Moment | None = None
    settled: Moment | None = None
    verdict: fx.Verdict | None = None

    def __str__(self) -> str:
        where = "" if self.on is None else f" on checkout {self.on.number}"
        end = "has not returned" if self.returned is None else f"{self.outcome} at {say(self.returned)}"
        return f"{self.what} {self.number}{where}, called at {say(self.invoked)}: {end}"


@dataclass
class Executed:
    """A worker ran a call. `finished` is None if it did not come to the end of it."""

    key: Hashable
    worker: WorkerName
    begun: Moment
    finished: Moment | None = None

    def __str__(self) -> str:
        slot, generation = self.worker
        end = "never finished" if self.finished is None else f"finished at {say(self.finished)}"
        return f"worker {slot}.{generation} began {self.key!r} at {say(self.begun)}, {end}"


@dataclass(eq=False)
class History:
    """The record of one pool: an observer to hand to it. See the module's text.

    Args:
        clock: what tells the time; trio's own unless told otherwise. Where real workers leave their
            moments, it has to be a clock that is the same in every process, `time.perf_counter`.
        exact: whether every beginning of a call is on record. It is, of simulated workers. A real one
            can be killed after it has marked its page and before the first line of the command, so that
            nothing follows from an execution that is missing.

    Attributes:
        operations: what callers did, in the order of their calls.
        executions: what workers did, in the order of their beginnings.
        ended: when the end of each worker was known.
        size: how many workers the pool may have; None if that is not known.
    """

    clock: Callable[[], float] = trio.current_time
    exact: bool = True
    operations: list[Operation] = field(default_factory=list[Operation])
    executions: list[Executed] = field(default_factory=list[Executed])
    ended: dict[WorkerName, Moment] = field(default_factory=dict[WorkerName, Moment])
    size: int | None = None

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1)
        self._calling: dict[trio.lowlevel.Task, Operation] = {}
        self._by_call: dict[int, Operation] = {}
        self._by_pid: dict[int | None, WorkerName] = {}
        self._pool: Pool | None = None

    def moment(self) -> Moment:
        """Now."""
        return self.clock(), next(self._numbers)

    # ── The callers' side ───────────────────────────────────────────────────────────────────────

    def around(self, pool: Pool) -> RecordedPool:
        """The pool, with whatever is called through this put on record.

        Raises:
            ValueError: this history does not observe that pool, or is about another one.
        """
        if not any(observer is self for observer in pool._observers):
            raise ValueError(f"{pool.label} was opened without this history among its observers")
        if self._pool not in (None, pool):
            raise ValueError(f"this is the history of {self._pool.label if self._pool else ''}; take another")
        self._pool = pool
        self.size = pool.config.max_workers + pool.config.overflow
        return RecordedPool(self, pool)

    @asynccontextmanager
    async def operation(self, what: str, **facts: Any) -> AsyncGenerator[Operation]:
        """Put on record what the body of the block calls, and what it gets."""
        operation = Operation(len(self.operations) + 1, what, self.moment(), **facts)
        self.operations.append(operation)
        task = trio.lowlevel.current_task()
        self._calling[task] = operation
        try:
            yield operation
        except BaseException as error:
            if operation.outcome is None:
                operation.outcome = next(outcome for kind, outcome in _OUTCOMES if isinstance(error, kind))
            raise
        finally:
            self._calling.pop(task, None)
            operation.returned = self.moment()

    # ── The workers' side ───────────────────────────────────────────────────────────────────────

    def listen(self, launcher: SimLauncher) -> None:
        """Have the workers of this launcher tell what they do.

        Raises:
            ValueError: it has started some already.
        """
        if launcher.witness.launched:
            raise ValueError("this launcher has started workers already, and nobody has listened to them")
        launcher.witness = _Scribe(self, launcher.witness)

    def executed(self, key: Hashable, pid: int, begun: float, finished: float | None = None) -> None:
        """Put on record what a real worker has left about a call: its process id, and when."""
        worker = self._by_pid[pid]
        end = None if finished is None else (finished, 0)
        self.executions.append(Executed(key, worker, (begun, 0), end))
        self.executions.sort(key=lambda execution: execution.begun)

    # ── The core ────────────────────────────────────────────────────────────────────────────────

    def __call__(self, event: Event, /) -> None:
        """Learn the process ids of workers."""
        if type(event) is WorkerReady:
            self._by_pid[event.pid] = event.slot, event.generation

    def handled(
        self, pool: str, core: Core, event: ev.Event, effects: Sequence[fx.Effect], now: float
    ) -> Iterable[Event]:
        """Put a step of the core on record; see `remuda.runtime.events.Watcher`."""
        if type(event) is ev.Submit:
            operation = self._calling.pop(trio.lowlevel.current_task(), None)
            if operation is not None:
                self._by_call[event.call.id] = operation
                operation.arrived = self.moment()
                if operation.key is None:
                    operation.key = event.call.id
        elif type(event) is ev.Exited:
            self._end(event)
        for effect in effects:
            if type(effect) is fx.Abandon:
                self._end(effect)
            elif type(effect) is fx.SendCall or type(effect) is fx.Answer:
                self._settle(effect)
        return ()

    def _end(self, what: ev.Exited | fx.Abandon) -> None:
        worker = what.worker
        self.ended.setdefault((worker.slot.index, worker.generation), self.moment())

    def _settle(self, effect: fx.SendCall | fx.Answer) -> None:
        operation = self._by_call.get(effect.call.id)
        if operation is None:
            return
        if isinstance(effect, fx.SendCall) or effect.verdict is fx.Verdict.GRANTED:
            operation.assigned = operation.assigned or self.moment()
        else:
            operation.settled, operation.verdict = self.moment(), effect.verdict
            del self._by_call[effect.call.id]


class RecordedPool:
    """A pool whose callers say what they do. Made by `History.around`."""

    def __init__(self, history: History, pool: Pool) -> None:
        self.history = history
        self.pool = pool

    async def call(
        self,
        command: str,
        args: Mapping[str, object] | None = None,
        /,
        *,
        timeout: float | None = None,
        session: str | None = None,
        idempotent: bool = False,
        key: Hashable = None,
        answer: object = ANYTHING,
    ) -> Any:
        """As `Pool.call`.

        Args:
            command, args, timeout, session, idempotent: as there; idempotent only if it is said here.
            key: what the workers will call it; by default its number on the wire, as the simulated do.
            answer: what it has to return.
        """
        facts = {"session": session, "idempotent": idempotent, "key": key, "expected": answer}
        async with self.history.operation(command, **facts) as operation:
            value = await self.pool.call(command, args, timeout=timeout, session=session, idempotent=idempotent)
            operation.outcome, operation.value = Outcome.ANSWERED, value
            return value

    @asynccontextmanager
    async def checkout(
        self, *, timeout: float | None = None, session: str | None = None
    ) -> AsyncGenerator[RecordedLease]:
        """As `Pool.checkout`."""
        history = self.history
        async with (
            history.operation("checkout", is_lease=True, session=session) as operation,
            self.pool.checkout(timeout=timeout, session=session) as lease,
        ):
            operation.granted, operation.outcome = history.moment(), Outcome.RETURNED
            operation.worker = lease.slot, lease.generation
            try:
                yield RecordedLease(history, lease, operation)
            finally:
                operation.released = operation.released or history.moment()


class RecordedLease:
    """A checkout whose holder says what they do with it."""

    def __init__(self, history: History, lease: Lease, operation: Operation) -> None:
        self.history = history
        self.lease = lease
        self.operation = operation

    async def call(
        self,
        command: str,
        args: Mapping[str, object] | None = None,
        /,
        *,
        timeout: float | None = None,
        key: Hashable = None,
        answer: object = ANYTHING,
    ) -> Any:
        """As `Lease.call`; `key` and `answer` as in `RecordedPool.call`."""
        facts = {"on": self.operation, "key": key, "expected": answer}
        async with self.history.operation(command, **facts) as operation:
            value = await self.lease.call(command, args, timeout=timeout)
            operation.outcome, operation.value = Outcome.ANSWERED, value
            return value

    def give_back(self) -> None:
        """As `Lease.give_back`."""
        self.operation.released = self.operation.released or self.history.moment()
        self.lease.give_back()


class _Scribe(Witness):
    """A witness that also writes the history."""

    def __init__(self, history: History, witness: Witness) -> None:
        super().__init__(witness._key)
        self._history = history
        self._open: dict[int, Executed] = {}

    def begin(self, slot: int, generation: int, call: messages.Call, now: float) -> Execution:
        execution = super().begin(slot, generation, call, now)
        if not call.quiet:
            executed = Executed(execution.key, (slot, generation), self._history.moment())
            self._open[id(execution)] = executed
            self._history.executions.append(executed)
        return execution

    def finish(self, execution: Execution, now: float) -> None:
        super().finish(execution, now)
        executed = self._open.pop(id(execution), None)
        if executed is not None:
            executed.finished = self._history.moment()


def say(moment: Moment) -> str:
    """A moment, for people."""
    seconds, number = moment
    return f"{seconds:g} (#{number})" if number else f"{seconds:.6f}"
