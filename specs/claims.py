"""What a caller may be told: the rules by which the outcome of one call is judged.

A call that a rule has made is a `Placed`. When it ends, `judge` holds what its caller got against what
was asked, what was done to it, and what the workers say they began. It knows nothing of how a pool
works, only what one promises.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import trio

from remuda.specs.probe import PLANS, Plan
from remuda.statemachines.errors import (
    CallTimeout,
    CheckoutTimeout,
    CircuitOpen,
    FrameTooLarge,
    OutcomeUnknown,
    PoolClosed,
    PoolFailed,
    PoolFull,
    ProtocolError,
    RemoteError,
    RemudaError,
    SerializationError,
    WorkerDied,
)
from remuda.statemachines.pool import PoolState

__all__ = ["CANCELLED", "Circumstances", "Placed", "Request", "judge"]

CANCELLED = "cancelled"
"""The outcome of a call whose caller was cancelled."""

_A_MOMENT = 1e-6

_FOR_ITS_STACK = 0.1 + _A_MOMENT
"""What a caller waits at most to learn where its worker was: as long, if that one is stopped."""


@dataclass(frozen=True)
class Request:
    """What a call asks for: the arguments of `Pool.call`.

    Attributes:
        command: the name of a command.
        args: its named arguments.
        idempotent: as for `Pool.call`; None: as the command says.
    """

    command: str
    args: dict[str, Any] = field(default_factory=dict[str, Any])
    idempotent: bool | None = None


@dataclass(eq=False)
class Placed:
    """A call, or a checkout (without a request), from the caller's side.

    Attributes:
        number: its token.
        request: what was asked; None for a checkout.
        made: when, in seconds of the run.
        deadline: when it has to be over.
        around: whether the deadline is one of trio's, around the call.
        repeatable: whether it may be begun more than once.
        interrupts: whether its worker is told to stop when its time is over.
        scope: how a rule cancels it.
        cancelled: whether one did.
        outcome: a value, an exception, or `CANCELLED`; None while it is under way.
        ended: when that was.
    """

    number: int
    request: Request | None
    made: float
    deadline: float = math.inf
    around: bool = False
    repeatable: bool = False
    interrupts: bool = False
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    cancelled: bool = False
    over: bool = False
    outcome: object = None
    ended: float = math.inf

    @property
    def may_end_by(self) -> float:
        """The latest at which its caller may learn that its time is over, if its worker was told to stop."""
        return max(self.deadline, self.made) + _FOR_ITS_STACK

    def learns_where(self, now: float) -> bool:
        """Whether its time is over, and its caller may be waiting, for a moment, to learn where the worker was."""
        return self.interrupts and now - self.deadline >= -_A_MOMENT and now <= self.may_end_by

    def end(self, outcome: object, now: float) -> None:
        """Note what its caller got."""
        self.over, self.outcome, self.ended = True, outcome, now

    @property
    def plan(self) -> Plan | None:
        """What the worker was to do, if it was told by a plan."""
        return None if self.request is None else PLANS.get(str(self.request.args.get("plan")))

    def __str__(self) -> str:
        what = "checkout" if self.request is None else f"{self.request.command}({self.request.args})"
        return f"{what} #{self.number}, made at {self.made:g}"


@dataclass
class Circumstances:
    """What else happened, that may explain an outcome.

    Attributes:
        exact: whether time is virtual, so that what happens at a deadline happens exactly then, and what a
            worker has begun is known even if it was killed at that moment.
        begun: how often the call was begun, as the workers say; None if nobody knows.
        attempts: how often an idempotent call may be begun.
        lost: whether a worker was crashed, stopped or garbled by a rule.
        garbled: whether a rule, or another call's plan, wrote to a channel.
        closing: whether the pool was closed.
    """

    exact: bool
    begun: int | None
    attempts: int
    lost: bool
    garbled: bool
    closing: bool


def judge(placed: Placed, seen: Circumstances) -> Iterator[str]:
    """Say what is wrong with how this call ended."""
    most = seen.attempts if placed.repeatable else 1
    if seen.begun is not None and seen.begun > most:
        yield f"at_most_once: {placed} was begun {seen.begun} times"
    complaint = _of_the_outcome(placed, seen)
    if complaint:
        yield f"{complaint}; {placed} got {placed.outcome!r} at {placed.ended:g}"


def _of_the_outcome(placed: Placed, seen: Circumstances) -> str | None:
    outcome, plan, begun = placed.outcome, placed.plan, seen.begun
    if outcome is CANCELLED:
        return None if placed.cancelled else "cancellation_is_asked_for: nobody cancelled it"
    if isinstance(outcome, CallTimeout | CheckoutTimeout | trio.TooSlowError):
        return _of_the_deadline(placed, seen)
    if isinstance(outcome, RemoteError | SerializationError | FrameTooLarge):
        return _of_the_error(placed, plan)
    if isinstance(outcome, OutcomeUnknown):
        if begun == 0 and seen.exact:
            return "unknown_only_where_it_began: no worker has begun it"
        if plan is not None and not plan.ends and not seen.lost and not seen.closing:
            return "no_death_without_a_cause: nothing was done to its worker"
        return None
    if isinstance(outcome, ProtocolError):
        violated = seen.garbled or (plan is not None and "violation" in plan.ends)
        return None if violated else "no_violation_without_a_cause: nobody wrote to its channel"
    if isinstance(outcome, WorkerDied):
        return "died_only_before_it_began: it was begun" if begun else None
    if isinstance(outcome, RemudaError):
        return _of_the_refusal(outcome, seen)
    if isinstance(outcome, BaseException):
        return "documented_errors_only: this is none"
    if placed.request is None:
        return None
    if plan is not None and not plan.answers:
        return "answers_are_earned: its plan has no answer"
    if plan is not None and outcome != placed.number:
        return "answers_reach_their_callers: that is not its own"
    return "answers_are_earned: no worker has begun it" if begun == 0 else None


def _of_the_deadline(placed: Placed, seen: Circumstances) -> str | None:
    if isinstance(placed.outcome, trio.TooSlowError) != placed.around:
        return "deadlines_are_told_apart: it is the other one that passed"
    if placed.ended < placed.deadline - _A_MOMENT:
        return f"deadlines_are_kept: it had until {placed.deadline:g}"
    told = placed.interrupts and isinstance(placed.outcome, CallTimeout)
    if seen.exact and placed.ended > (placed.may_end_by if told else max(placed.deadline, placed.made) + _A_MOMENT):
        return f"deadlines_are_kept: it was to end at {placed.deadline:g}"
    if isinstance(placed.outcome, CallTimeout) and placed.outcome.stack is not None and not told:
        return "stacks_are_asked_for: its worker was not to be told to stop"
    return None


def _of_the_error(placed: Placed, plan: Plan | None) -> str | None:
    error = placed.outcome
    if plan is None:
        return None  # a user's own command raises what it likes
    name = error.type_name if isinstance(error, RemoteError) else type(error).__name__
    if name.rpartition(".")[2] != plan.raises:
        return f"errors_reach_their_callers: its plan raises {plan.raises or 'nothing'}"
    if isinstance(error, RemoteError) and str(placed.number) not in error.message:
        return "errors_reach_their_callers: that is not its own"
    return None


def _of_the_refusal(error: RemudaError, seen: Circumstances) -> str | None:
    snapshot = error.snapshot
    if isinstance(error, PoolClosed):
        return None if seen.closing else "closed_only_when_closing: nobody closed the pool"
    if snapshot is None:
        return "documented_errors_only: it has no picture of the pool"
    state, breaker = getattr(snapshot, "state", None), getattr(snapshot, "breaker", None)
    if isinstance(error, PoolFailed):
        return None if state is PoolState.FAILED else f"failed_only_when_failed: the pool was {state}"
    if isinstance(error, CircuitOpen):
        return "open_only_when_open: the breaker was closed" if breaker == "closed" else None
    if isinstance(error, PoolFull):
        return None
    return "documented_errors_only: a call does not end like this"
