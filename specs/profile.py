"""Which world: what the model checker is told about the pool, its callers, and what may go wrong."""

from __future__ import annotations

import math

import msgspec

from remuda.statemachines.policy import Policy

__all__ = ["FAULTS", "Profile"]

FAULTS = ("die", "garbage", "hang up", "unfit", "boot", "check", "hang")
"""What can go wrong: a process dies unbidden, writes garbage, closes its channel, answers with an error
that implicates it, cannot boot, is not well, does not answer in time (boot or check)."""


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Which world: the numbers of the pool, who calls, and what may go wrong.

    Args:
        policy: the pool's.
        callers: how many there are, 1 or more.
        calls: how many calls each makes at most.
        kinds: what they may be: "plain", "idempotent", "soft" (its worker is told to stop and not killed, also
            on a checkout), "session" (each caller has its own),
            "lease" (a checkout, in which it makes calls), "shared" and "shared too" (two sessions for all).
        deadline: seconds each call has, from when it is made.
        faults: how many things may go wrong in all. Whoever is stopped may die, and does not count.
        what: which things, of `FAULTS`.
        cancel: whether callers may go away.
        look: whether somebody may look who has begun (a snapshot).
        retire: how many workers may be retired by hand.
        suspend: how often the pool may be suspended.
        end_sessions: how many sessions may be ended.
        close: whether it may be closed.
    """

    policy: Policy
    callers: int = 2
    calls: int = 1
    kinds: tuple[str, ...] = ("plain",)
    deadline: float = math.inf
    faults: int = 0
    what: tuple[str, ...] = FAULTS
    cancel: bool = False
    look: bool = False
    retire: int = 0
    suspend: int = 0
    end_sessions: int = 0
    close: bool = False
