"""Why a worker ended: what an exit status means here, in words.

A status says little. SIGKILL may have come from the pool, from somebody at a terminal, or from the
kernel, which sends it when memory is out and tells only its own counters. SIGXCPU is a limit that
somebody has set. So beside the status it counts what the pool did, what the worker was allowed, and
what the counters of the control group say.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

from remuda.bridge.seam import Usage
from remuda.runtime.limits import Limits
from remuda.statemachines.errors import describe_exit

__all__ = ["OutOfMemory", "how", "limit_reached"]


class OutOfMemory:
    """Tells which deaths were the kernel's doing, for want of memory.

    The control group counts the processes that were killed for it, not which ones. Each that is
    counted explains one death, of a worker that was there when the count rose.

    Args:
        count: how many there were so far, or None where that cannot be known.
    """

    def __init__(self, count: Callable[[], int | None]) -> None:
        self._count = count
        self._explained = 0  # up to this one, none is left that explains anything

    def before(self) -> int | None:
        """What to remember of the moment at which a worker is started."""
        return self._count()

    def explains(self, before: int | None) -> bool:
        """Whether a worker that was just killed, by nobody we know of, was killed for memory."""
        now = self._count()
        if now is None or before is None:
            return False
        known = max(before, self._explained)
        if now <= known:
            return False
        self._explained = known + 1
        return True


def limit_reached(status: int | None, usage: Usage, limits: Limits) -> str | None:
    """The cause in words, if it was a limit on CPU time that ended it."""
    own = limits.cpu
    if status == -signal.SIGXCPU:
        of_whom = "the application's own limit, RLIMIT_CPU" if own is None else f"limits.cpu = {own} s"
        return f"it used up its CPU time ({of_whom})"
    if status == -signal.SIGKILL and own is not None and usage.cpu is not None and usage.cpu > own:
        # It has let the signal pass; at the next second comes the one that nobody can.
        return f"it was killed by SIGKILL, perhaps since it had used up its CPU time (limits.cpu = {own} s)"
    return None


def how(status: int | None, *, by_us: bool) -> str:
    """What is known of an end, and no more.

    Args:
        status: the exit status, or None if nobody knows.
        by_us: whether the pool had sent SIGKILL while it was alive.
    """
    if status is None:
        return "it ended and nobody knows how"
    text = f"it {'was' if status < 0 else 'ended with'} {describe_exit(status)}"
    return f"{text}, perhaps out of memory" if status == -signal.SIGKILL and not by_us else text
