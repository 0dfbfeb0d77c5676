"""The numbers by which the core decides, checked where they enter.

Each is a frozen value with a default and a range. A wrong one is a `ConfigError` that names the
field, the value and what is allowed; after that nobody checks again. `remuda.PoolConfig` carries
the same small parts (`Health`, `Restart`, `Retry`, `Breaker`), so there is one definition of each.
"""

from __future__ import annotations

import math

import msgspec

from remuda.statemachines.errors import ConfigError

__all__ = ["Breaker", "Health", "Policy", "Restart", "Retry", "check_int", "check_seconds", "full_jitter"]


def check_int(owner: str, name: str, value: object, least: int, most: int | None = None) -> None:
    """Refuse anything but an int of at least `least` (and at most `most`)."""
    allowed = f"a whole number of at least {least}" if most is None else f"a whole number from {least} to {most}"
    if type(value) is not int or value < least or (most is not None and value > most):
        raise ConfigError(f"{owner}.{name} is {value!r}; it must be {allowed}", context={"field": name})


def check_seconds(owner: str, name: str, value: object, *, zero: bool = False, endless: bool = False) -> None:
    """Refuse anything but a number of seconds: positive, or zero or infinite where that makes sense."""
    try:
        seconds = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:  # an int can be larger than time is
        seconds = math.nan
    if not (seconds > 0 or (zero and seconds == 0)) or (math.isinf(seconds) and not endless):
        allowed = "a number of seconds, " + ("zero or more" if zero else "more than zero")
        if not endless:
            allowed += " and finite"
        raise ConfigError(f"{owner}.{name} is {value!r}; it must be {allowed}", context={"field": name})


class Health(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a worker is asked whether it is well.

    Args:
        interval: seconds without work after which an idle worker is checked.
        timeout: seconds it has to answer.
        failures: failed checks and implicating errors in a row after which it is replaced.
        recheck: seconds after which a degraded worker is checked again.
    """

    interval: float = 30.0
    timeout: float = 5.0
    failures: int = 3
    recheck: float = 5.0

    def __post_init__(self) -> None:
        check_seconds("Health", "interval", self.interval, endless=True)
        check_seconds("Health", "timeout", self.timeout)
        check_int("Health", "failures", self.failures, 1)
        check_seconds("Health", "recheck", self.recheck)


class Restart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a slot comes back whose worker failed to start, or died before it had served a call.

    The delay before attempt k is drawn uniformly from 0 to min(cap, base * 2**(k-1)): "full jitter"
    (M. Brooker, Exponential Backoff And Jitter, 2015). Each such restart takes a token from a bucket
    that the whole pool shares; when it is empty the slot is quarantined until a token has come.

    Args:
        base: seconds, the longest first delay.
        cap: seconds, the longest delay of all.
        burst: tokens in the full bucket: how many such restarts may follow one another.
        period: seconds in which an empty bucket fills.
    """

    base: float = 0.1
    cap: float = 30.0
    burst: int = 10
    period: float = 60.0

    def __post_init__(self) -> None:
        check_seconds("Restart", "base", self.base)
        check_seconds("Restart", "cap", self.cap)
        check_int("Restart", "burst", self.burst, 1)
        check_seconds("Restart", "period", self.period)


class Retry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often a call is given to another worker after its own died.

    Args:
        attempts: how often an *idempotent* call may begin in all (1: never again).
        base: seconds, the longest delay before the second attempt; it doubles, with full jitter.
        cap: seconds, the longest delay between attempts.
        handovers: how often a call that provably never began is handed to another worker, free of
            charge. The bound is there for the call whose mere arrival kills.
    """

    attempts: int = 3
    base: float = 0.05
    cap: float = 1.0
    handovers: int = 5

    def __post_init__(self) -> None:
        check_int("Retry", "attempts", self.attempts, 1)
        check_seconds("Retry", "base", self.base, zero=True)
        check_seconds("Retry", "cap", self.cap, zero=True)
        check_int("Retry", "handovers", self.handovers, 0)


class Breaker(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When the pool stops taking calls because they fail one after another.

    Args:
        failures: calls in a row that failed by the pool's fault (death, protocol error, deadline).
        probes: calls let through when the pause is over; if all succeed, the breaker closes.
        open_for: seconds of the pause, and the longest that probing may last.
    """

    failures: int = 5
    probes: int = 3
    open_for: float = 60.0

    def __post_init__(self) -> None:
        check_int("Breaker", "failures", self.failures, 1)
        check_int("Breaker", "probes", self.probes, 1)
        check_seconds("Breaker", "open_for", self.open_for)


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """All that the core is told before it begins.

    Args:
        min_workers: usable workers below which the pool is impaired, started with the pool.
        max_workers: base workers at most; the ones beyond `min_workers` start when callers wait.
        overflow: workers beyond `max_workers`, for a peak; they leave after `linger` idle seconds.
        linger: seconds an overflow worker stays without work.
        spares: workers that are kept ready beside those that serve, to take the place of one that is lost.
        max_starting: workers that start at the same time.
        max_waiting: callers that may wait for a worker.
        init_timeout: seconds a worker has from its start to the end of its setup.
        shutdown_timeout: seconds from closing the pool to its end, whatever the workers do.
        session_ttl: seconds after its last use that a session is remembered.
        interrupt_grace: seconds that a worker which was told to stop its call has to answer.
        health, restart, retry, breaker: as their classes say.
        history: steps remembered per object.
    """

    min_workers: int = 1
    max_workers: int = 1
    overflow: int = 0
    linger: float = 10.0
    spares: int = 0
    max_starting: int = 4
    max_waiting: int = 1000
    init_timeout: float = 60.0
    shutdown_timeout: float = 10.0
    session_ttl: float = 300.0
    interrupt_grace: float = 1.0
    health: Health = Health()
    restart: Restart = Restart()
    retry: Retry = Retry()
    breaker: Breaker = Breaker()
    history: int = 16

    def __post_init__(self) -> None:
        check_int("Policy", "max_workers", self.max_workers, 1)
        check_int("Policy", "min_workers", self.min_workers, 1, self.max_workers)
        check_int("Policy", "overflow", self.overflow, 0)
        check_seconds("Policy", "linger", self.linger, zero=True)
        check_int("Policy", "spares", self.spares, 0)
        check_int("Policy", "max_starting", self.max_starting, 1)
        check_int("Policy", "max_waiting", self.max_waiting, 0)
        check_seconds("Policy", "init_timeout", self.init_timeout)
        check_seconds("Policy", "shutdown_timeout", self.shutdown_timeout)
        check_seconds("Policy", "session_ttl", self.session_ttl)
        check_seconds("Policy", "interrupt_grace", self.interrupt_grace)
        check_int("Policy", "history", self.history, 0)

    @property
    def stop_grace(self) -> float:
        """Seconds between the rungs of the stop ladder (ask, SIGTERM, SIGKILL)."""
        return min(1.0, self.shutdown_timeout / 5)


def full_jitter(attempt: int, base: float, cap: float, draw: float) -> float:
    """The delay before attempt `attempt` (from 1), for a `draw` from [0, 1].

    Never negative, never above `cap`, whatever the attempt.
    """
    exponent = min(attempt - 1, 62)  # 2.0**1024 overflows; 2**62 is beyond any cap
    return draw * min(cap, base * 2.0**exponent)
