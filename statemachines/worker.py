"""The life of a worker: one operating-system process, one generation of its slot.

A worker is never reused. It boots, serves, and ends; what takes its place is another worker, in the
same slot, with the next generation number. So this table has one way in and one way out.

It serves one thing at a time. `busy` is one call, one lease or one batch; `checking` is a health
check, which uses the same channel and therefore excludes a call; `interrupting` is a call whose
soft timeout has passed, in the time of grace it has to answer. From each of these there is a way
back to `ready`, and each can be told to `retire`: it then finishes what it does, in `draining`, and
goes. A worker that is doing nothing goes at once.

A worker may be *suspected*. An error that implicates the worker and not the call (it ran out of
memory, the adapter raised `WorkerUnfit`), or a health check that failed, makes it `degraded`: it
gets health checks, and no calls, until one passes. At the limit of failures it is ended instead.
The guard `at_failure_limit` includes the failure that is being reported: count first, then step.

`terminating` begins when the decision has fallen, and lasts until the process has ended.
Whatever the process had already sent, or the runtime had already asked, may arrive in that time,
so every trigger is declared there, as a step that stays. Only `exited` leads on, and it may come
from anywhere: processes die without asking.

Three triggers end a worker, and differ only in what they say about it. `retire` is a policy (age,
number of calls, memory, a reload, a smaller pool) and waits for the work in hand. `fail` is a
verdict on this worker (deadline, cancelled caller, grace over, protocol error, failed boot).
`terminate` is the shutdown of the pool. The last two do not wait.

What does not fit the table: whether the process is still alive when `terminating` is entered, and
which rung of the stop ladder it is on. That is the runtime's, who owns the process.
"""

from __future__ import annotations

from enum import StrEnum

from transitions import Machine

from remuda.statemachines.lifecycle import Lifecycle

__all__ = ["WORKER", "WorkerState", "WorkerTrigger"]


class WorkerState(StrEnum):
    """Where a worker is in its life."""

    INITIALIZING = "initializing"
    """Booting: interpreter, imports, the adapter's setup, the replay of the journal."""
    READY = "ready"
    """Idle, and fit for a call."""
    CHECKING = "checking"
    """Answering a health check."""
    BUSY = "busy"
    """Running one call, held by one lease, or working on one batch."""
    INTERRUPTING = "interrupting"
    """Its call was told to stop, and has a time of grace to do so."""
    DEGRADED = "degraded"
    """Under suspicion: checked, but given no calls."""
    DRAINING = "draining"
    """Finishing what it does, its last."""
    TERMINATING = "terminating"
    """Being ended; the process may still be there."""
    TERMINATED = "terminated"
    """Its process has ended."""


class WorkerTrigger(StrEnum):
    """What can happen to a worker."""

    INIT_COMPLETE = "init_complete"
    """Handshake, setup and replay are done."""
    CHECKOUT = "checkout"
    """It was given a call, a lease or a batch."""
    CHECKIN = "checkin"
    """It is done with that, and nothing speaks against it."""
    CHECKIN_ERROR = "checkin_error"
    """It is done with that, and the way it ended implicates the worker."""
    BEGIN_CHECK = "begin_check"
    """A health check was sent."""
    HEALTH_CHECK_PASSED = "health_check_passed"
    HEALTH_CHECK_FAILED = "health_check_failed"
    """It answered that it is not well, or did not answer in time."""
    INTERRUPT = "interrupt"
    """The soft timeout of its call has passed."""
    INTERRUPTED = "interrupted"
    """It answered within the time of grace, with whatever."""
    RETIRE = "retire"
    """Policy: it shall go when it has finished what it does."""
    FAIL = "fail"
    """Verdict: it shall go now."""
    TERMINATE = "terminate"
    """Shutdown: it shall go now."""
    EXITED = "exited"
    """The process has ended."""


S, T = WorkerState, WorkerTrigger

# fmt: off
_STEPS: list[list[str | None]] = [
    # trigger                from             to             guard
    [T.INIT_COMPLETE,        S.INITIALIZING,  S.READY],
    [T.RETIRE,               S.INITIALIZING,  S.TERMINATING],
    [T.FAIL,                 S.INITIALIZING,  S.TERMINATING],
    [T.TERMINATE,            S.INITIALIZING,  S.TERMINATING],
    [T.EXITED,               S.INITIALIZING,  S.TERMINATED],

    [T.CHECKOUT,             S.READY,         S.BUSY],
    [T.BEGIN_CHECK,          S.READY,         S.CHECKING],
    [T.RETIRE,               S.READY,         S.TERMINATING],
    [T.FAIL,                 S.READY,         S.TERMINATING],
    [T.TERMINATE,            S.READY,         S.TERMINATING],
    [T.EXITED,               S.READY,         S.TERMINATED],

    [T.HEALTH_CHECK_PASSED,  S.CHECKING,      S.READY],
    [T.HEALTH_CHECK_FAILED,  S.CHECKING,      S.TERMINATING, "at_failure_limit"],
    [T.HEALTH_CHECK_FAILED,  S.CHECKING,      S.DEGRADED],
    [T.RETIRE,               S.CHECKING,      S.DRAINING],
    [T.FAIL,                 S.CHECKING,      S.TERMINATING],
    [T.TERMINATE,            S.CHECKING,      S.TERMINATING],
    [T.EXITED,               S.CHECKING,      S.TERMINATED],

    [T.CHECKIN,              S.BUSY,          S.READY],
    [T.CHECKIN_ERROR,        S.BUSY,          S.TERMINATING, "at_failure_limit"],
    [T.CHECKIN_ERROR,        S.BUSY,          S.DEGRADED],
    [T.INTERRUPT,            S.BUSY,          S.INTERRUPTING],
    [T.RETIRE,               S.BUSY,          S.DRAINING],
    [T.FAIL,                 S.BUSY,          S.TERMINATING],
    [T.TERMINATE,            S.BUSY,          S.TERMINATING],
    [T.EXITED,               S.BUSY,          S.TERMINATED],

    [T.INTERRUPTED,          S.INTERRUPTING,  S.READY],
    [T.RETIRE,               S.INTERRUPTING,  S.DRAINING],
    [T.FAIL,                 S.INTERRUPTING,  S.TERMINATING],
    [T.TERMINATE,            S.INTERRUPTING,  S.TERMINATING],
    [T.EXITED,               S.INTERRUPTING,  S.TERMINATED],

    [T.BEGIN_CHECK,          S.DEGRADED,      S.CHECKING],
    [T.RETIRE,               S.DEGRADED,      S.TERMINATING],
    [T.FAIL,                 S.DEGRADED,      S.TERMINATING],
    [T.TERMINATE,            S.DEGRADED,      S.TERMINATING],
    [T.EXITED,               S.DEGRADED,      S.TERMINATED],

    [T.CHECKIN,              S.DRAINING,      S.TERMINATING],
    [T.CHECKIN_ERROR,        S.DRAINING,      S.TERMINATING],
    [T.HEALTH_CHECK_PASSED,  S.DRAINING,      S.TERMINATING],
    [T.HEALTH_CHECK_FAILED,  S.DRAINING,      S.TERMINATING],
    [T.INTERRUPTED,          S.DRAINING,      S.TERMINATING],
    [T.FAIL,                 S.DRAINING,      S.TERMINATING],
    [T.TERMINATE,            S.DRAINING,      S.TERMINATING],
    [T.EXITED,               S.DRAINING,      S.TERMINATED],

    # Too late to matter, not too late to arrive: None stays.
    [T.INIT_COMPLETE,        S.TERMINATING,   None],
    [T.CHECKOUT,             S.TERMINATING,   None],
    [T.CHECKIN,              S.TERMINATING,   None],
    [T.CHECKIN_ERROR,        S.TERMINATING,   None],
    [T.BEGIN_CHECK,          S.TERMINATING,   None],
    [T.HEALTH_CHECK_PASSED,  S.TERMINATING,   None],
    [T.HEALTH_CHECK_FAILED,  S.TERMINATING,   None],
    [T.INTERRUPT,            S.TERMINATING,   None],
    [T.INTERRUPTED,          S.TERMINATING,   None],
    [T.RETIRE,               S.TERMINATING,   None],
    [T.FAIL,                 S.TERMINATING,   None],
    [T.TERMINATE,            S.TERMINATING,   None],
    [T.EXITED,               S.TERMINATING,   S.TERMINATED],

    # terminated: nothing leaves it.
]
# fmt: on

WORKER: Lifecycle[WorkerState, WorkerTrigger] = Lifecycle(
    "worker",
    Machine(
        model=None,
        states=[*(s for s in S if s is not S.TERMINATED), {"name": S.TERMINATED, "final": True}],
        initial=S.INITIALIZING,
        transitions=_STEPS,
        auto_transitions=False,
    ),
)
