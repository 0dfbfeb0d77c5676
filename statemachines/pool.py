"""The life of a pool: what it can do for its callers.

`ready`, `impaired` and `failed` are three verdicts on the same facts, and the core gives one
whenever the facts have changed: enough usable workers; fewer than `min_workers`, or the breaker
open; none to be had and the restart budget spent. A verdict that only confirms the state is a step
that stays, so that the core need not remember the last one.

* `impaired` still serves, with what there is.
* `failed` refuses: callers are told at once, with the last worker's words, instead of waiting for
  a worker that will not come. One careful restart at a time goes on, so the pool heals without
  anybody touching it: straight to `ready`, or over `impaired`.
* `suspended` is not a verdict but somebody's wish: calls wait, workers live. How many workers there
  are may change meanwhile, and no verdict is given on it: nobody is being served who would have to
  be told. `resume` looks at the facts afresh (`enough_workers`), and a verdict of failure can
  follow in the next breath. So there is no step from `suspended` to `failed`, which would also lose
  the wish.

`draining` takes no new calls and finishes, or gives up, those it has; it is entered from anywhere,
also from `starting` when the pool cannot come up at all, and only `closed` follows. Asked to drain
again, it stays.
"""

from __future__ import annotations

from enum import StrEnum

from transitions import Machine

from remuda.statemachines.lifecycle import Lifecycle

__all__ = ["POOL", "PoolState", "PoolTrigger"]


class PoolState(StrEnum):
    """What a pool can do for its callers."""

    STARTING = "starting"
    """Its first workers are booting."""
    READY = "ready"
    """At least `min_workers` are usable."""
    IMPAIRED = "impaired"
    """It serves with fewer workers than it should have, or its breaker is open."""
    SUSPENDED = "suspended"
    """Calls wait, on request."""
    FAILED = "failed"
    """No worker is to be had; callers are told so at once."""
    DRAINING = "draining"
    """It takes no new calls and ends those it has."""
    CLOSED = "closed"
    """No call waits and no worker lives."""


class PoolTrigger(StrEnum):
    """What can happen to a pool."""

    BECOME_READY = "become_ready"
    """Verdict: enough usable workers, breaker not open."""
    IMPAIR = "impair"
    """Verdict: too few usable workers, or breaker open."""
    FAIL = "fail"
    """Verdict: no worker, and the restart budget is spent."""
    SUSPEND = "suspend"
    RESUME = "resume"
    DRAIN = "drain"
    """It shall close."""
    CLOSE = "close"
    """The last call has its outcome and the last worker has ended."""


S, T = PoolState, PoolTrigger

# fmt: off
_STEPS: list[list[str | None]] = [
    # trigger         from          to           guard
    [T.BECOME_READY,  S.STARTING,   S.READY],
    [T.IMPAIR,        S.STARTING,   S.IMPAIRED],
    [T.FAIL,          S.STARTING,   S.FAILED],
    [T.DRAIN,         S.STARTING,   S.DRAINING],

    [T.BECOME_READY,  S.READY,      None],
    [T.IMPAIR,        S.READY,      S.IMPAIRED],
    [T.FAIL,          S.READY,      S.FAILED],
    [T.SUSPEND,       S.READY,      S.SUSPENDED],
    [T.DRAIN,         S.READY,      S.DRAINING],

    [T.BECOME_READY,  S.IMPAIRED,   S.READY],
    [T.IMPAIR,        S.IMPAIRED,   None],
    [T.FAIL,          S.IMPAIRED,   S.FAILED],
    [T.SUSPEND,       S.IMPAIRED,   S.SUSPENDED],
    [T.DRAIN,         S.IMPAIRED,   S.DRAINING],

    [T.RESUME,        S.SUSPENDED,  S.READY,     "enough_workers"],
    [T.RESUME,        S.SUSPENDED,  S.IMPAIRED],
    [T.DRAIN,         S.SUSPENDED,  S.DRAINING],

    [T.BECOME_READY,  S.FAILED,     S.READY],
    [T.IMPAIR,        S.FAILED,     S.IMPAIRED],
    [T.FAIL,          S.FAILED,     None],
    [T.DRAIN,         S.FAILED,     S.DRAINING],

    [T.DRAIN,         S.DRAINING,   None],
    [T.CLOSE,         S.DRAINING,   S.CLOSED],

    # closed: nothing leaves it.
]
# fmt: on

POOL: Lifecycle[PoolState, PoolTrigger] = Lifecycle(
    "pool",
    Machine(
        model=None,
        states=[*(s for s in S if s is not S.CLOSED), {"name": S.CLOSED, "final": True}],
        initial=S.STARTING,
        transitions=_STEPS,
        auto_transitions=False,
    ),
)
