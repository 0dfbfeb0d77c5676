"""A token bucket: how much trouble may follow trouble.

It holds at most `burst` tokens and fills evenly, an empty one in `period` seconds. Over any window
of w seconds no more than burst + w * burst / period tokens can be taken.
"""

from __future__ import annotations

__all__ = ["Budget"]

_ALMOST = 1.0 - 1e-9
"""A token that has come up to rounding has come: else an alarm set for its time finds it missing."""


class Budget:
    __slots__ = ("_at", "_tokens", "burst", "rate")

    def __init__(self, burst: int, period: float, now: float) -> None:
        self.burst = burst
        self.rate = burst / period
        self._tokens = float(burst)
        self._at = now

    def tokens(self, now: float) -> float:
        """Tokens in the bucket at `now`, from 0 to `burst`."""
        return min(float(self.burst), self._tokens + max(0.0, now - self._at) * self.rate)

    def take(self, now: float) -> bool:
        """Take one token, if there is one."""
        tokens = self.tokens(now)
        if tokens < _ALMOST:
            return False
        self._tokens, self._at = max(0.0, tokens - 1.0), now
        return True

    def next_token(self, now: float) -> float:
        """When the next whole token is there: `now` if one is."""
        missing = 1.0 - self.tokens(now)
        return now if missing <= 1e-9 else now + missing / self.rate
