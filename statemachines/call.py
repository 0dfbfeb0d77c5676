"""The life of a call: from the queue to exactly one outcome.

A call waits (`queued`), is sent to a worker (`assigned`: the worker may still replay the journal, or
read), is known to have begun (`running`), and ends. Every end is a final state and no final state
has a way out, so a call has one outcome and not two; a reply that comes after it finds no call.

Whether user code has begun is what the evidence page says. It is looked at when that matters: when
the worker has died, when somebody asks for a snapshot, and a reply is evidence too. Until then a
call that was sent is `assigned`.

* Never begun: `requeue`. Nothing happened, so it costs no attempt.
* Begun, and it may be repeated: `back_off`, and `requeue` when the delay has passed. That is another
  attempt, and attempts are counted in the outcome.
* Begun, and it may not be repeated: `lose`. Nobody knows whether it took effect, and `unknown` says
  exactly this. Only `running` leads there.

Who ends a call:

* the worker, with a result (`succeed`) or an error (`fail`). `fail` is also for what is answered
  before user code began (no such command, arguments that do not fit, a broken frame, the death of a
  worker that the caller holds by a lease, and cannot exchange), hence from `assigned` as well.
* the pool, by refusing (`reject`: full, breaker open, closing, failed), while no worker works on it.
* the clock (`time_out`) and the caller (`cancel`), from anywhere. What becomes of the worker is
  the worker's lifecycle, not this one.
"""

from __future__ import annotations

from enum import StrEnum

from transitions import Machine

from remuda.statemachines.lifecycle import Lifecycle

__all__ = ["CALL", "CallState", "CallTrigger"]


class CallState(StrEnum):
    """Where a call is, or how it ended."""

    QUEUED = "queued"
    """It waits for a worker."""
    ASSIGNED = "assigned"
    """It was sent to a worker."""
    RUNNING = "running"
    """It is known to have begun."""
    BACKING_OFF = "backing_off"
    """It waits for its next attempt."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """It was answered with an error."""
    UNKNOWN = "unknown"
    """It had begun, the worker died, and it may not be repeated."""
    REJECTED = "rejected"
    """The pool refused it; it never ran, or will not run again."""
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"


class CallTrigger(StrEnum):
    """What can happen to a call."""

    ASSIGN = "assign"
    START = "start"
    """The evidence shows that user code has begun."""
    BACK_OFF = "back_off"
    """It will be tried again, later."""
    REQUEUE = "requeue"
    """It goes back to the queue: it never began, or its next attempt is due."""
    SUCCEED = "succeed"
    FAIL = "fail"
    LOSE = "lose"
    """Its worker died with it."""
    REJECT = "reject"
    TIME_OUT = "time_out"
    """Its deadline passed."""
    CANCEL = "cancel"
    """Its caller does not want it any more."""


S, T = CallState, CallTrigger

# fmt: off
_STEPS: list[list[str | None]] = [
    # trigger     from            to
    [T.ASSIGN,    S.QUEUED,       S.ASSIGNED],
    [T.REJECT,    S.QUEUED,       S.REJECTED],
    [T.TIME_OUT,  S.QUEUED,       S.TIMED_OUT],
    [T.CANCEL,    S.QUEUED,       S.CANCELLED],

    [T.START,     S.ASSIGNED,     S.RUNNING],
    [T.REQUEUE,   S.ASSIGNED,     S.QUEUED],
    [T.FAIL,      S.ASSIGNED,     S.FAILED],
    [T.REJECT,    S.ASSIGNED,     S.REJECTED],
    [T.TIME_OUT,  S.ASSIGNED,     S.TIMED_OUT],
    [T.CANCEL,    S.ASSIGNED,     S.CANCELLED],

    [T.SUCCEED,   S.RUNNING,      S.SUCCEEDED],
    [T.FAIL,      S.RUNNING,      S.FAILED],
    [T.LOSE,      S.RUNNING,      S.UNKNOWN],
    [T.BACK_OFF,  S.RUNNING,      S.BACKING_OFF],
    [T.TIME_OUT,  S.RUNNING,      S.TIMED_OUT],
    [T.CANCEL,    S.RUNNING,      S.CANCELLED],

    [T.REQUEUE,   S.BACKING_OFF,  S.QUEUED],
    [T.REJECT,    S.BACKING_OFF,  S.REJECTED],
    [T.TIME_OUT,  S.BACKING_OFF,  S.TIMED_OUT],
    [T.CANCEL,    S.BACKING_OFF,  S.CANCELLED],

    # succeeded, failed, unknown, rejected, timed_out, cancelled: nothing leaves them.
]
# fmt: on

_OUTCOMES = (S.SUCCEEDED, S.FAILED, S.UNKNOWN, S.REJECTED, S.TIMED_OUT, S.CANCELLED)

CALL: Lifecycle[CallState, CallTrigger] = Lifecycle(
    "call",
    Machine(
        model=None,
        states=[{"name": s, "final": s in _OUTCOMES} for s in S],
        initial=S.QUEUED,
        transitions=_STEPS,
        auto_transitions=False,
    ),
)
