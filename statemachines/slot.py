"""The life of a slot: a place in the pool, through which workers come and go.

The slot is what stays. It has a number, a kind (base, overflow, spare) and a generation, which
counts its workers; slot and generation together name one worker for ever. They are part of every
lease, timer and late event, so that what belongs to a worker that is gone is recognised and dropped.

A slot has one worker at a time, from `restart` until that worker's process has ended:

    starting → serving → stopping → (the process ends) → starting, backoff, quarantined or closed

The process may also die by itself, and then the slot goes on from where it was. Which way it goes
is a decision about *why* the worker is gone, and the core makes it, with the budget at hand:

* `restart`, at once: the worker was ended on purpose (a cancelled caller, a deadline, retirement,
  a reload), or died after it had served. Clients that hang up cost nothing.
* `back_off`: it did not get through its boot, or died before its first call. The next one waits,
  longer each time, and each attempt spends from the restart budget.
* `quarantine`: the budget is spent. The slot starts nothing until the budget refills.

That is why these three are three triggers without guards, and not one with: what decides between
them (budget, cause of death, jitter) belongs to no slot alone.

`closed` is final. A slot is closed when its worker has ended and it will not get another one: the
pool shuts down or shrinks, or it was overflow and is no longer needed.
"""

from __future__ import annotations

from enum import StrEnum

from transitions import Machine

from remuda.statemachines.lifecycle import Lifecycle

__all__ = ["SLOT", "SlotState", "SlotTrigger"]


class SlotState(StrEnum):
    """Where a slot is between two workers."""

    STARTING = "starting"
    """A worker of the current generation is booting."""
    SERVING = "serving"
    """Its worker has completed its handshake."""
    STOPPING = "stopping"
    """Its worker is being ended, and has not yet."""
    BACKOFF = "backoff"
    """Empty; the next worker waits for its delay to pass."""
    QUARANTINED = "quarantined"
    """Empty; the restart budget is spent."""
    CLOSED = "closed"
    """Empty, for good."""


class SlotTrigger(StrEnum):
    """What can happen to a slot."""

    SERVE = "serve"
    """Its worker completed its handshake."""
    STOP = "stop"
    """Its worker is to go."""
    RESTART = "restart"
    """The next generation starts now."""
    BACK_OFF = "back_off"
    """The next generation starts later."""
    QUARANTINE = "quarantine"
    """The next generation starts when the restart budget allows it."""
    CLOSE = "close"
    """There is no next generation."""


S, T = SlotState, SlotTrigger

# fmt: off
_STEPS: list[list[str | None]] = [
    # trigger       from            to
    [T.SERVE,       S.STARTING,     S.SERVING],
    [T.STOP,        S.STARTING,     S.STOPPING],
    [T.RESTART,     S.STARTING,     S.STARTING],     # it died, or never came up; a new generation all the same
    [T.BACK_OFF,    S.STARTING,     S.BACKOFF],
    [T.QUARANTINE,  S.STARTING,     S.QUARANTINED],
    [T.CLOSE,       S.STARTING,     S.CLOSED],

    [T.STOP,        S.SERVING,      S.STOPPING],
    [T.RESTART,     S.SERVING,      S.STARTING],
    [T.BACK_OFF,    S.SERVING,      S.BACKOFF],
    [T.QUARANTINE,  S.SERVING,      S.QUARANTINED],
    [T.CLOSE,       S.SERVING,      S.CLOSED],

    [T.RESTART,     S.STOPPING,     S.STARTING],
    [T.BACK_OFF,    S.STOPPING,     S.BACKOFF],
    [T.QUARANTINE,  S.STOPPING,     S.QUARANTINED],
    [T.CLOSE,       S.STOPPING,     S.CLOSED],

    [T.RESTART,     S.BACKOFF,      S.STARTING],
    [T.QUARANTINE,  S.BACKOFF,      S.QUARANTINED],
    [T.CLOSE,       S.BACKOFF,      S.CLOSED],

    [T.RESTART,     S.QUARANTINED,  S.STARTING],
    [T.CLOSE,       S.QUARANTINED,  S.CLOSED],

    # closed: nothing leaves it.
]
# fmt: on

SLOT: Lifecycle[SlotState, SlotTrigger] = Lifecycle(
    "slot",
    Machine(
        model=None,
        states=[*(s for s in S if s is not S.CLOSED), {"name": S.CLOSED, "final": True}],
        initial=S.STARTING,
        transitions=_STEPS,
        auto_transitions=False,
    ),
)
