"""The circuit breaker: when calls fail one after another, stop making them for a while.

The life of a breaker is the small table below; `Breaker` is what walks it. It is a reducer: time
comes in as an argument, nothing is scheduled, nothing is called. `next_due` says when `tick` wants
to be called, and `admit` ticks for itself, so that a late timer refuses nobody.

* `closed`: calls go through. `failures` failures in a row open it; a success starts the count anew.
* `open`: calls are refused, for `open_for` seconds from the failure that opened it. Nothing that
  arrives meanwhile makes this longer.
* `half_open`: a few calls go through as probes. `probes` successes close it; one failure opens it.
* `forced_open`, `disabled`: by hand, until `reset` or the other. Time and outcomes do not matter.

A call that may go through gets a **permit**, and ends it with one `Outcome`. The rules:

* A permit belongs to the *generation* that granted it, and every change of state (and a reset)
  begins a new one. An outcome of an older generation changes nothing: a call admitted before the
  breaker opened says nothing about whether what it protects has recovered since. Neither does a
  second outcome of the same permit.
* Half-open, the probes that are out and the successes so far are together never more than `probes`.
  So there are never more probes than could still close it.
* `NEUTRAL` gives the permit back as if it had never been granted. It is for what says nothing about
  the health of the workers: a cancelled caller, a user's own exception, a full queue, a refusal.
* Half-open with probes out lasts `half_open_for` seconds at most, then it opens again; a probe that
  is never heard of cannot hold it. With no probe out no time runs: nobody has called, and
  whoever calls next is the next probe.
* Time alone moves it only in `tick` and `admit`. A result that arrives before the tick counts, late
  as it may be: the loop may have been the one who was late.

What counts as a failure is the core's to say, and it records how *calls* end, not their attempts.

The generation is what most breakers lack; gobreaker (Go) has it. Permits that are given back, and
the bound on the half-open time, are answers to bugs that resilience4j and Polly had.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import StrEnum

import msgspec
from transitions import Machine

from remuda.statemachines.errors import ConfigError
from remuda.statemachines.lifecycle import Lifecycle, Step, Subject

__all__ = ["BREAKER", "Breaker", "BreakerState", "BreakerTrigger", "Outcome", "Permit"]


class BreakerState(StrEnum):
    """Whether calls go through."""

    CLOSED = "closed"
    """They do."""
    OPEN = "open"
    """They do not, until it has cooled down."""
    HALF_OPEN = "half_open"
    """A few do, to see."""
    FORCED_OPEN = "forced_open"
    """They do not, because somebody said so."""
    DISABLED = "disabled"
    """They do, and nothing is counted, because somebody said so."""


class BreakerTrigger(StrEnum):
    """What can happen to a breaker."""

    TRIP = "trip"
    """Enough failures; half-open: one, or no verdict in time."""
    COOL_DOWN = "cool_down"
    """It was open for long enough."""
    RECOVER = "recover"
    """Enough probes have succeeded."""
    FORCE_OPEN = "force_open"
    DISABLE = "disable"
    RESET = "reset"
    """Somebody wants it closed, with everything forgotten."""


S, T = BreakerState, BreakerTrigger

# fmt: off
_STEPS: list[list[str | None]] = [
    # trigger       from            to
    [T.TRIP,        S.CLOSED,       S.OPEN],
    [T.FORCE_OPEN,  S.CLOSED,       S.FORCED_OPEN],
    [T.DISABLE,     S.CLOSED,       S.DISABLED],
    [T.RESET,       S.CLOSED,       None],

    [T.COOL_DOWN,   S.OPEN,         S.HALF_OPEN],
    [T.FORCE_OPEN,  S.OPEN,         S.FORCED_OPEN],
    [T.DISABLE,     S.OPEN,         S.DISABLED],
    [T.RESET,       S.OPEN,         S.CLOSED],

    [T.RECOVER,     S.HALF_OPEN,    S.CLOSED],
    [T.TRIP,        S.HALF_OPEN,    S.OPEN],
    [T.FORCE_OPEN,  S.HALF_OPEN,    S.FORCED_OPEN],
    [T.DISABLE,     S.HALF_OPEN,    S.DISABLED],
    [T.RESET,       S.HALF_OPEN,    S.CLOSED],

    [T.FORCE_OPEN,  S.FORCED_OPEN,  None],
    [T.DISABLE,     S.FORCED_OPEN,  S.DISABLED],
    [T.RESET,       S.FORCED_OPEN,  S.CLOSED],

    [T.FORCE_OPEN,  S.DISABLED,     S.FORCED_OPEN],
    [T.DISABLE,     S.DISABLED,     None],
    [T.RESET,       S.DISABLED,     S.CLOSED],

    # No state is final: a breaker ends with its pool.
]
# fmt: on

BREAKER: Lifecycle[BreakerState, BreakerTrigger] = Lifecycle(
    "breaker",
    Machine(model=None, states=[*S], initial=S.CLOSED, transitions=_STEPS, auto_transitions=False),
)


class Outcome(StrEnum):
    """How a call ended, as far as the breaker is concerned."""

    SUCCESS = "success"
    FAILURE = "failure"
    """The worker crashed, broke the protocol, or did not answer in time."""
    NEUTRAL = "neutral"
    """It says nothing about the workers."""


class Permit(msgspec.Struct, frozen=True, gc=False):
    """Leave to make one call. Hand it back to `Breaker.record` exactly once."""

    generation: int
    number: int


# What each call asks for. In Python 3.11 a member costs as much to find in its enum as a dict costs twice.
_CLOSED, _SUCCESS = S.CLOSED, Outcome.SUCCESS


class Breaker(Subject[BreakerState]):
    """A circuit breaker. Arguments of time are seconds on one monotonic clock.

    Attributes:
        generation: counts changes of state and resets. Permits carry it.
        failures_in_a_row: how many of the `failures` have come, while closed.
        successes: how many of the `probes` have succeeded, while half-open.
    """

    __slots__ = ("_due", "_issued", "_out", "failures", "failures_in_a_row", "generation",
                 "half_open_for", "open_for", "probes", "successes")  # fmt: skip

    def __init__(
        self,
        failures: int = 5,
        probes: int = 3,
        open_for: float = 60.0,
        half_open_for: float = 60.0,
        *,
        now: float = 0.0,
        history: int = 16,
        observer: Callable[[Subject[BreakerState], Step], None] | None = None,
    ) -> None:
        """Make a closed breaker.

        Args:
            failures: failures in a row that open it, at least 1.
            probes: successes that close it again, and the most probes at a time; at least 1.
            open_for: seconds that it stays open, more than 0.
            half_open_for: seconds that probes may be out without a verdict, more than 0.
            now: the time.
            history: how many of its last steps to keep.
            observer: called after each step, as `Subject` says.

        Raises:
            ConfigError: an argument is out of its range.
        """
        for name, count in ("failures", failures), ("probes", probes):
            if count < 1:
                raise ConfigError(f"breaker: {name}={count!r} must be 1 or more")
        for name, seconds in ("open_for", open_for), ("half_open_for", half_open_for):
            if not 0 < seconds < math.inf:
                raise ConfigError(f"breaker: {name}={seconds!r} must be a finite number of seconds over 0")
        super().__init__(BREAKER, now=now, history=history, observer=observer)
        self.failures = failures
        self.probes = probes
        self.open_for = open_for
        self.half_open_for = half_open_for
        self.generation = 0
        self.failures_in_a_row = 0
        self.successes = 0
        self._issued = 0
        self._out: set[int] = set()  # permits of this generation that have no outcome yet
        self._due: float | None = None  # open: when it has cooled; half-open: when probes are overdue

    # ── Calls ───────────────────────────────────────────────────────────────────────────────────

    def admit(self, now: float) -> Permit | None:
        """Ask whether a call may be made now.

        Returns:
            A permit, to be given to `record` when the call has ended, however it ended; or None if
            the call is refused. A refusal is not recorded anywhere.
        """
        if self.state is not _CLOSED and not self._lets_one_through(now):
            return None
        self._issued = number = self._issued + 1
        self._out.add(number)
        return Permit(self.generation, number)

    def _lets_one_through(self, now: float) -> bool:
        """Whether there is a call that may be made, though it is not closed."""
        state = self.state
        if state is S.OPEN or state is S.HALF_OPEN:
            state = self.tick(now)
        if state is S.HALF_OPEN:
            if not self._has_room():
                return False
            if not self._out:
                self._due = now + self.half_open_for
        return state is not S.OPEN and state is not S.FORCED_OPEN

    def record(self, permit: Permit, outcome: Outcome, now: float) -> None:
        """Say how a call ended, which ends its permit.

        It changes nothing if the permit is of an older generation, or has ended already.
        """
        if permit.generation != self.generation or permit.number not in self._out:
            return
        self._out.remove(permit.number)
        if self.state is _CLOSED:
            if outcome is _SUCCESS:
                self.failures_in_a_row = 0
            elif outcome is Outcome.FAILURE:
                self.failures_in_a_row += 1
                if self.failures_in_a_row >= self.failures:
                    self._step(T.TRIP, now, f"{self.failures} failures in a row")
        elif self.state is S.HALF_OPEN:
            if outcome is Outcome.FAILURE:
                self._step(T.TRIP, now, "a probe failed")
                return
            if outcome is Outcome.SUCCESS:
                self.successes += 1
                if self.successes >= self.probes:
                    self._step(T.RECOVER, now, f"{self.probes} probes succeeded")
                    return
            if not self._out:
                self._due = None

    def holds(self, permit: Permit) -> bool:
        """Whether an outcome of `permit` would still count."""
        return permit.generation == self.generation and permit.number in self._out

    # ── Time ────────────────────────────────────────────────────────────────────────────────────

    def tick(self, now: float) -> BreakerState:
        """Let time act: `open` may have cooled down, probes in `half_open` may be overdue.

        Returns:
            The state after that.
        """
        if self._due is not None and now >= self._due:
            if self.state is S.OPEN:
                self._step(T.COOL_DOWN, now, f"open for {self.open_for:g} s")
            else:
                self._step(T.TRIP, now, f"no verdict from the probes in {self.half_open_for:g} s")
        return self.state

    def next_due(self) -> float | None:
        """When `tick` will change something if nothing else does; None: never."""
        return self._due

    def retry_after(self, now: float) -> float | None:
        """How long a caller should wait. Looking changes nothing.

        Returns:
            Seconds, exactly, until calls go through again: 0.0 if they do now. None if that does
            not depend on time: all probes are out, or it was forced open.
        """
        if self.state is S.OPEN and self._due is not None:
            return max(0.0, self._due - now)
        if self.state is S.FORCED_OPEN or (self.state is S.HALF_OPEN and not self._has_room()):
            return None
        return 0.0

    # ── By hand ─────────────────────────────────────────────────────────────────────────────────

    def force_open(self, now: float, reason: str = "forced open") -> None:
        """Refuse every call from now on, until `reset` or `disable`."""
        self._step(T.FORCE_OPEN, now, reason)

    def disable(self, now: float, reason: str = "disabled") -> None:
        """Admit every call and count nothing from now on, until `reset` or `force_open`."""
        self._step(T.DISABLE, now, reason)

    def reset(self, now: float, reason: str = "reset") -> None:
        """Close it, and forget everything, also the calls that are still out."""
        self._step(T.RESET, now, reason)

    # ── For the specs ───────────────────────────────────────────────────────────────────────────

    @property
    def in_flight(self) -> int:
        """How many permits of this generation have no outcome yet."""
        return len(self._out)

    def key(self, now: float) -> tuple[str, int, int, int, bool | None]:
        """Everything its future depends on, in a form that is equal when the future is.

        Returns:
            The state; failures in a row; successes; permits out; and about the due time: None if
            there is none, else whether it is still to come. Its place among other due times is
            for the caller to tell, by `next_due`; numbers and generations are left out.
        """
        waits = None if self._due is None else now < self._due
        return str(self.state), self.failures_in_a_row, self.successes, len(self._out), waits

    # ────────────────────────────────────────────────────────────────────────────────────────────

    def _has_room(self) -> bool:
        return len(self._out) + self.successes < self.probes

    def _step(self, trigger: BreakerTrigger, now: float, reason: str) -> None:
        source = self.state
        # The books first, the step last: the observer of the step sees them closed. No guard of
        # the table can refuse, so nothing has to be undone.
        dest = BREAKER.table[source][trigger][0].dest
        if dest is not source or trigger is T.RESET:
            self.generation += 1
            self.failures_in_a_row = 0
            self.successes = 0
            self._out.clear()
            self._due = now + self.open_for if dest is S.OPEN else None
        BREAKER.step(self, trigger, now, reason)
