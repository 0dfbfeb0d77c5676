"""What the core wants done.

The runtime carries these out in order and at once; none of them waits. What comes of them returns
as events.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from remuda.statemachines.lifecycle import Step, Subject
from remuda.statemachines.subjects import Call, Rung, Worker

__all__ = [
    "Abandon",
    "Answer",
    "Closed",
    "Effect",
    "Interrupt",
    "SendCall",
    "SendCheck",
    "StartWorker",
    "Stepped",
    "Stop",
    "Verdict",
]


class Verdict(StrEnum):
    """How a call ended: one of these, once."""

    ANSWERED = "answered"
    """The worker replied, with a result or with an error of user code."""
    GRANTED = "granted"
    """Not an end: a checkout has its worker now."""
    RETURNED = "returned"
    """A checkout was given back."""
    FULL = "full"
    CIRCUIT_OPEN = "circuit_open"
    CLOSED = "closed"
    POOL_FAILED = "pool_failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    DIED = "died"
    """Its worker died and it had not begun."""
    UNKNOWN = "unknown"
    """It had begun, its worker died, and it may not be repeated (or was, often enough)."""
    VIOLATION = "violation"
    """It had begun, and its worker broke the rules of the channel."""


class StartWorker(msgspec.Struct, frozen=True):
    """Start the process of this worker and bring it up."""

    worker: Worker


class SendCall(msgspec.Struct, frozen=True):
    """Send the call to the worker, after the journal entries that the worker lacks."""

    worker: Worker
    call: Call


class SendCheck(msgspec.Struct, frozen=True):
    """Ask the worker whether it is well. The answer carries the number."""

    worker: Worker
    number: int


class Interrupt(msgspec.Struct, frozen=True):
    """Tell the worker to stop this call. Whatever it answers to it is still to be told."""

    worker: Worker
    call: Call


class Stop(msgspec.Struct, frozen=True):
    """Climb one rung of the stop ladder."""

    worker: Worker
    rung: Rung


class Answer(msgspec.Struct, frozen=True):
    """The call has ended (or the checkout was granted): tell its caller."""

    call: Call
    verdict: Verdict
    reply: object = None
    cause: str = ""
    retry_after: float | None = None


class Abandon(msgspec.Struct, frozen=True):
    """The bound of the shutdown has passed and this process has still not gone: let go of it."""

    worker: Worker


class Closed(msgspec.Struct, frozen=True, gc=False):
    """The pool is closed: no worker is left, nobody waits."""


class Stepped(msgspec.Struct, frozen=True):
    """Something took a step of its lifecycle. Only made when somebody observes."""

    subject: Subject[Any]
    step: Step


Effect = StartWorker | SendCall | SendCheck | Interrupt | Stop | Answer | Abandon | Closed | Stepped
