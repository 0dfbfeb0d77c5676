"""From the core's verdict on a call to what its caller gets: a value, or an error that explains.

One table, so that every way a call can end is seen side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from remuda.bridge.messages import Failure, FailureKind, Result
from remuda.bridge.remote import rebuild
from remuda.runtime.ticket import Ticket
from remuda.statemachines.effects import Answer, Verdict
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
    RemudaError,
    SerializationError,
    UnknownCommand,
    WorkerDied,
)

if TYPE_CHECKING:
    from remuda.runtime.pool import Pool

__all__ = ["error_for", "value_of"]


def value_of(pool: Pool, ticket: Ticket) -> object:
    """The result of an ended call, None of a checkout that has its worker; raises its error."""
    answer = ticket.answer
    assert answer is not None
    reply = answer.reply
    if answer.verdict is _ANSWERED and type(reply) is Result:
        ticket.call.request = None  # they hold each other, and should not have to wait for the garbage collector
        return reply.value
    if answer.verdict is Verdict.GRANTED:
        return None
    raise error_for(pool, ticket, answer)


def error_for(pool: Pool, ticket: Ticket, answer: Answer) -> Exception:
    """The error that tells the caller how its call ended."""
    error: RemudaError
    if answer.verdict is Verdict.ANSWERED and isinstance(answer.reply, Failure):
        error = _from_worker(ticket, answer.reply)
    else:
        error = _ENDS[answer.verdict](pool, ticket, answer)
        error.retry_after = answer.retry_after if answer.retry_after is not None else error.retry_after
        error.snapshot = pool.look()
        if answer.verdict in _BLAME_A_DEATH:
            error.last_death = pool.last_death
    call = ticket.call
    error.context.update(pool=pool.config.name, command=ticket.command, attempts=call.attempts)
    if call.session is not None:
        error.context["session"] = call.session
    if ticket.link is not None:
        worker = ticket.link.worker
        error.context.update(worker=worker.slot.index, generation=worker.generation)
    error.context["seconds"] = pool.now() - ticket.made
    return error


_ANSWERED = Verdict.ANSWERED
_BLAME_A_DEATH = frozenset({Verdict.DIED, Verdict.UNKNOWN, Verdict.VIOLATION, Verdict.POOL_FAILED})


def _from_worker(ticket: Ticket, failure: Failure) -> RemudaError:
    kind = failure.kind
    if kind is FailureKind.UNKNOWN_COMMAND:
        return UnknownCommand(failure.error.message)
    if kind is FailureKind.UNREADABLE:
        return SerializationError(
            f"the arguments of {ticket.command!r} cannot be read in the worker: {failure.error.message}. "
            "Pass plain data: numbers, text, bytes, lists, dicts; and not nested by the hundreds"
        )
    if kind is FailureKind.UNSERIALIZABLE:
        return SerializationError(
            f"the result of {ticket.command!r} cannot be sent back: {failure.error.message}. "
            "Return plain data (numbers, text, bytes, lists, dicts), or convert it in the command"
        )
    if kind is FailureKind.TOO_LARGE:
        return FrameTooLarge(
            f"the result of {ticket.command!r} is too large: {failure.error.message}. "
            "Raise max_frame_bytes, or write the result to a file and return its path"
        )
    return rebuild(failure.error)


def _full(pool: Pool, ticket: Ticket, answer: Answer) -> RemudaError:
    bound = pool.config.max_waiting
    return PoolFull(
        f"{pool.label} is full: {bound} callers are waiting already. "
        "Call less at the same time, raise max_waiting, or add workers"
    )


def _circuit_open(pool: Pool, ticket: Ticket, answer: Answer) -> RemudaError:
    when = "for now" if answer.retry_after is None else f"for another {answer.retry_after:.3g} s"
    return CircuitOpen(
        f"{pool.label} refuses calls {when}: {pool.config.breaker.failures} calls in a row failed by "
        "crash, protocol error or deadline. Try again after retry_after"
    )


def _closed(pool: Pool, ticket: Ticket, answer: Answer) -> RemudaError:
    return PoolClosed(f"{pool.label} is closed or closing and takes no more calls; open a new one")


def _pool_failed(pool: Pool, ticket: Ticket, answer: Answer) -> RemudaError:
    return PoolFailed(
        f"{pool.label} has no worker, and starting one fails again and again ({answer.cause}). "
        "It goes on trying, one at a time; what the last one wrote is below",
        retry_after=pool.next_restart(),
    )


def _timed_out(pool: Pool, ticket: Ticket, answer: Answer) -> RemudaError:
    call = ticket.call
    seconds = max(0.0, call.deadline - ticket.made)
    if call.is_lease:
        return CheckoutTimeout(
            f"no worker of {pool.label} came free within {seconds:.3g} s. "
            "Raise checkout_timeout, add workers, or hold them for less time"
        )
    end = {
        "interrupted": "its worker was told to stop, and is killed if it does not do so within "
        f"{pool.config.interrupt_grace:g} s",
        "on a worker": "its worker was killed and is being replaced",
        "between attempts": "its worker had died and it was to be tried again",
        "waiting for a worker": "it waited for a worker all the time and was never begun",
    }[answer.cause]
    error = CallTimeout(
        f"{ticket.command!r} passed its deadline after {seconds:.3g} s; {end}. "
        "Give it a longer timeout, or more workers if it had to wait"
    )
    error.stack = ticket.stack
    return error


def _died(pool: Pool, ticket: Ticket, answer: Answer) -> RemudaError:
    if ticket.call.is_lease:
        return WorkerDied(
            f"the worker that was to be checked out ended at that moment ({answer.cause}). Check out another one"
        )
    if ticket.call.lease is not None:
        return WorkerDied(
            f"the worker that was checked out has ended ({answer.cause}), and {ticket.command!r} was not "
            "begun. Check out another one"
        )
    return WorkerDied(
        f"{ticket.command!r} was given to {ticket.call.handovers + 1} workers, each of which died before "
        f"it had begun, the last one: {answer.cause}. If its arguments are what kills them, do not repeat it"
    )


def _unknown(pool: Pool, ticket: Ticket, answer: Answer) -> RemudaError:
    attempts = ticket.call.attempts
    text = f"{ticket.command!r} had begun when its worker died ({answer.cause}); nobody knows whether it took effect. "
    if ticket.call.idempotent:
        text += f"It was tried {attempts} times" if attempts > 1 else "There was no time, or no way, to try it again"
    else:
        text += "It was not repeated: mark it idempotent=True if doing it twice is harmless"
    return OutcomeUnknown(text)


def _violation(pool: Pool, ticket: Ticket, answer: Answer) -> RemudaError:
    return ProtocolError(
        f"the worker of {ticket.command!r} broke the rules of its channel and was killed: {answer.cause}. "
        "The command had begun; whether it took effect is not known. Look for code that writes to "
        "descriptors it did not open"
    )


_ENDS: dict[Verdict, Callable[[Pool, Ticket, Answer], RemudaError]] = {
    Verdict.FULL: _full,
    Verdict.CIRCUIT_OPEN: _circuit_open,
    Verdict.CLOSED: _closed,
    Verdict.POOL_FAILED: _pool_failed,
    Verdict.TIMED_OUT: _timed_out,
    Verdict.DIED: _died,
    Verdict.UNKNOWN: _unknown,
    Verdict.VIOLATION: _violation,
}
