"""Every error that a user of remuda can meet, and the only module that all rooms share.

Three rules hold here:

* An error says what happened and what to do about it, in that order.
* It carries facts as fields, never only in its text: `category`, `severity`, `recoverable`,
  `retry_after`, `context`, and for errors of the pool a snapshot of the pool at that moment and
  the last death of a worker, with the end of what it wrote to stderr.
* It is told apart by its class. Nobody has to match on a string.

What user code raised inside a worker is a `RemoteError`. The pool's own troubles are everything
else. Cancellation is neither: it is trio's, and passes through untouched.

The worker half imports this module too, so it needs the standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import ClassVar, NamedTuple

__all__ = [
    "CallTimeout",
    "Category",
    "CheckoutTimeout",
    "CircuitOpen",
    "ConfigError",
    "FrameTooLarge",
    "IllegalTransition",
    "Interrupted",
    "InvalidLease",
    "OutcomeUnknown",
    "PoolClosed",
    "PoolFailed",
    "PoolFull",
    "PoolStartError",
    "ProtocolError",
    "RemoteError",
    "RemudaError",
    "SerializationError",
    "SessionExpired",
    "SessionLost",
    "Severity",
    "UnknownCommand",
    "WorkerDeath",
    "WorkerDied",
    "WorkerUnfit",
]


class Category(StrEnum):
    """Where the trouble is. One of nine, the same nine that the original pool of this kind used."""

    INITIALIZATION = "initialization"
    CONNECTION = "connection"
    COMMUNICATION = "communication"
    TIMEOUT = "timeout"
    RESOURCE = "resource"
    HEALTH_CHECK = "health_check"
    SESSION = "session"
    PYTHON = "python"
    SYSTEM = "system"


class Severity(StrEnum):
    """How bad it is for the pool, not for the caller."""

    CRITICAL = "critical"
    MAJOR = "major"
    MINOR = "minor"
    WARNING = "warning"


class WorkerDeath(NamedTuple):
    """How one worker ended: what an operator asks first."""

    slot: int
    generation: int
    cause: str
    """Why, in words: "killed: its call passed its deadline", "exited with status 7"."""
    exit_status: int | None = None
    """As `subprocess` gives it (negative: the signal), or None when nobody could tell."""
    stderr_tail: tuple[str, ...] = ()
    """The last lines it wrote to stderr (or stdout, which goes there too)."""
    cpu: float | None = None
    """Seconds of CPU time that it has used in its life, or None when nobody could tell."""
    max_rss: int | None = None
    """Bytes of memory that it had at most, or None: the kernel tells it only of a worker that was
    larger than the application was when it started it."""
    doing: str = ""
    """What it was doing when it last said so, in words: "running 'classify' (3 of 10: page 3)"."""

    def __str__(self) -> str:
        status = "exit status unknown" if self.exit_status is None else describe_exit(self.exit_status)
        text = f"worker {self.slot}.{self.generation}{self.doing and f', {self.doing}'}: {self.cause}"
        if status not in text:
            text += f" ({status})"
        if self.stderr_tail:
            text += "\nits last words:\n" + "\n".join(f"  | {shown(line)}" for line in self.stderr_tail[-16:])
        return text


def describe_exit(status: int) -> str:
    """Say an exit status as people do: "exit status 7", "killed by SIGSEGV"."""
    if status >= 0:
        return f"exit status {status}"
    import signal  # late: most processes never describe a death

    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"killed by {name}"


_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}


def shown(text: str) -> str:
    """A worker's text as it may stand in an error: what would command a terminal is spelt out."""
    return text.translate(_CONTROLS)


def describe_refusal(error: OSError) -> str:
    """Say what the operating system did not give, and what to do about it."""
    import errno  # late: most processes are never refused anything

    advice = {
        errno.EMFILE: "Raise the limit on open files (ulimit -n; a worker takes six here), or keep fewer open",
        errno.ENFILE: "The whole machine has no file left to open: find out who holds them",
        errno.EAGAIN: "Raise the limit on processes and threads (ulimit -u, or pids of the container), or start fewer",
        errno.ENOMEM: "Give it more memory, or start fewer workers",
        errno.ENOSPC: "Make room, or raise the quota, where it says there is none",
        errno.EFBIG: "Raise the limit on the size of files (ulimit -f)",
        errno.ENOENT: "Look whether the interpreter, and the folder it runs in, are still there",
        errno.EACCES: "Look whether this user may run the interpreter",
    }.get(error.errno or 0)
    text = f"the operating system did not start it: {error}"
    return text if advice is None else f"{text}. {advice}"


class RemudaError(Exception):
    """The base of every error remuda raises.

    Attributes:
        category: where the trouble is (`Category`).
        severity: how bad it is for the pool (`Severity`).
        recoverable: whether the same call may succeed if it is made again.
        retry_after: seconds after which trying again makes sense, or None if nothing is known.
        context: facts by name: pool, worker, generation, session, command, attempt, timings.
        snapshot: what the pool was doing at that moment, or None.
        last_death: how the last worker died, or None.
    """

    category: ClassVar[Category] = Category.SYSTEM
    severity: ClassVar[Severity] = Severity.MAJOR
    recoverable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        context: Mapping[str, object] | None = None,
        snapshot: object | None = None,
        last_death: WorkerDeath | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        self.context: dict[str, object] = dict(context or {})
        self.snapshot = snapshot
        self.last_death = last_death

    def __str__(self) -> str:
        if self.last_death is None:
            return self.message
        return f"{self.message}\nlast death: {self.last_death}"

    def as_dict(self) -> dict[str, object]:
        """The error as plain data, for logs and for callers that match on fields.

        Returns:
            A dict with `type`, `message`, `error_category`, `severity`, `recoverable`,
            `retry_after` and `context`, whose values are plain data.
        """
        return {
            "type": type(self).__name__,
            "message": self.message,
            "error_category": str(self.category),
            "severity": str(self.severity),
            "recoverable": self.recoverable,
            "retry_after": self.retry_after,
            "context": dict(self.context),
        }


class ConfigError(RemudaError, ValueError):
    """A setting is wrong: the text names the field, the value and what is allowed."""

    severity = Severity.CRITICAL


class IllegalTransition(RemudaError):
    """A step that the lifecycle does not declare. Nothing has changed."""

    severity = Severity.CRITICAL

    def __init__(self, lifecycle: str, state: str, trigger: str) -> None:
        super().__init__(f"{lifecycle}: no step {trigger!r} from state {state!r}; nothing was changed")
        self.lifecycle = lifecycle
        self.state = state
        self.trigger = trigger

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.lifecycle, self.state, self.trigger)


class InvalidLease(RemudaError):
    """A lease was used after it ended. Leases are single-use; nothing has changed."""


# ── The call ────────────────────────────────────────────────────────────────────────────────────


class CallTimeout(RemudaError, TimeoutError):
    """The call's deadline passed. If a worker had it, that one was killed, or interrupted.

    Attributes:
        stack: what all threads of the worker were doing when the time ran out, the one that ran the call
            last; None if its worker was not to be interrupted, or did not say so within a tenth of a second.
    """

    category = Category.TIMEOUT
    recoverable = True
    stack: str | None = None

    def __str__(self) -> str:
        text = super().__str__()
        return text if self.stack is None else f"{text}\nin the worker, at that moment:\n{self.stack.rstrip()}"

    def as_dict(self) -> dict[str, object]:
        """As of every error, and with `stack`."""
        return {**super().as_dict(), "stack": self.stack}


class CheckoutTimeout(RemudaError, TimeoutError):
    """No worker came free in time."""

    category = Category.TIMEOUT
    severity = Severity.MINOR
    recoverable = True


class WorkerDied(RemudaError):
    """The worker died, and the call is known not to have begun (or its lease is gone with it)."""

    category = Category.CONNECTION
    recoverable = True


class OutcomeUnknown(RemudaError):
    """The call had begun when its worker died: it may have had its effect, or not.

    It was not repeated, because it is not marked idempotent. Find out whether it took effect, or
    mark the command `idempotent=True` if doing it twice is harmless.
    """

    category = Category.CONNECTION


class ProtocolError(RemudaError):
    """A worker broke the rules of the channel. It was killed; only its own call is touched."""

    category = Category.COMMUNICATION


class FrameTooLarge(ProtocolError):
    """A message exceeds `max_frame_bytes`. Raise the limit, or pass a path instead of the data."""


class SerializationError(RemudaError):
    """A value cannot cross the process boundary. The text says which and why."""

    category = Category.COMMUNICATION


class UnknownCommand(RemudaError):
    """The adapter has no such command. The text lists those it has."""

    category = Category.PYTHON
    severity = Severity.MINOR


# ── The pool ────────────────────────────────────────────────────────────────────────────────────


class PoolFull(RemudaError):
    """As many callers are waiting as `max_waiting` allows. Slow down, or raise the bound."""

    category = Category.RESOURCE
    severity = Severity.MINOR
    recoverable = True


class PoolClosed(RemudaError):
    """The pool is closing or closed and takes no more calls."""

    category = Category.RESOURCE
    severity = Severity.MINOR


class PoolFailed(RemudaError):
    """No worker can be had: starting them fails again and again. The pool goes on trying."""

    category = Category.INITIALIZATION
    severity = Severity.CRITICAL
    recoverable = True


class PoolStartError(RemudaError):
    """The pool could not start. The text carries the worker's last words."""

    category = Category.INITIALIZATION
    severity = Severity.CRITICAL


class CircuitOpen(RemudaError):
    """Too many calls have failed in a row; calls are refused until `retry_after` has passed."""

    category = Category.RESOURCE
    recoverable = True


# ── Sessions ────────────────────────────────────────────────────────────────────────────────────


class SessionLost(RemudaError):
    """The worker that held the session's state died, and nothing could restore it."""

    category = Category.SESSION
    severity = Severity.MINOR


class SessionExpired(RemudaError):
    """The session was not used for longer than its time to live, or was ended."""

    category = Category.SESSION
    severity = Severity.MINOR


# ── The worker ──────────────────────────────────────────────────────────────────────────────────


class RemoteError(RemudaError):
    """User code raised in the worker. If it raised a built-in exception, that type catches it too.

    Attributes:
        type_name: the qualified name of the exception's class, as the worker knew it.
        remote_args: its arguments, as far as they could be carried.
        notes: what `add_note` had added.
        remote_traceback: the traceback as text, as the worker would have printed it.
    """

    category = Category.PYTHON
    severity = Severity.MINOR
    type_name: str = ""
    remote_args: tuple[object, ...] = ()
    notes: tuple[str, ...] = ()
    remote_traceback: str = ""


class Interrupted(BaseException):
    """Raised in a command whose time is over or whose caller has left, where on_timeout="interrupt".

    It can come between any two steps, as KeyboardInterrupt can, and like that it is no `Exception`. A
    command may catch it to clean up, within the pool's `interrupt_grace`; what it returns reaches nobody.
    """


class WorkerUnfit(Exception):
    """Raise this in an adapter's command to say that the *worker* is at fault, not the call.

    The caller gets it as a `RemoteError`; the worker is set aside, checked, and replaced when it
    fails again.
    """
