"""The rules: a pool, attacked by Hypothesis with everything that can happen to one.

    class MyRules(remuda.specs.PoolRules):
        adapter = MyAdapter                                  # in simulated workers, in virtual time

        def requests(self):                                  # what callers may ask for
            return st.builds(Request, st.just("classify"), st.fixed_dictionaries({"text": st.text()}))

        def check_answer(self, request, value):              # and what they must get
            assert value in LABELS

    TestMyPool = MyRules.TestCase                            # pytest runs it

Without an adapter of yours it is remuda's own pool that is tried, over workers that die, hang and
answer wrongly on request. With `world = RealWorld` the same rules run over real processes.

A run draws a configuration and a schedule, opens a pool, and then plays rules in any order: callers
call, wait, hold workers, hang up; workers are crashed, stopped, garbled, start badly; the pool is
suspended, looked at, closed; time passes. What must hold:

* after every step of the core, every named invariant (`remuda.specs.invariants`);
* for every call, what its caller was told is true, allowed and in time (`remuda.specs.claims`);
* and the ending: faults stop, and before an hour has passed everybody has exactly one answer, the pool has its
  size and serves, and when it is closed nothing of it is left.

Each fault is a rule with a name of its own, so that Hypothesis can leave some out for a whole run:
that finds what needs many of one kind and none of another.
"""

from __future__ import annotations

import functools
import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import trio
import trio._core._run as trio_run
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from remuda.bridge.adapters import OnTimeout
from remuda.runtime import dice
from remuda.runtime.config import Breaker, Health, PoolConfig, Restart, Retry
from remuda.runtime.handles import Lease
from remuda.runtime.opening import open_pool
from remuda.runtime.pool import Pool
from remuda.runtime.snapshot import WorkerSnapshot
from remuda.specs.claims import CANCELLED, Circumstances, Placed, Request, judge
from remuda.specs.stepped import SteppedTrio
from remuda.specs.watch import Watch
from remuda.specs.worlds import STARTS, Fault, RealWorld, SimWorld, Start, World
from remuda.statemachines.effects import Verdict
from remuda.statemachines.errors import (
    CallTimeout,
    CircuitOpen,
    IllegalTransition,
    OutcomeUnknown,
    PoolFailed,
    PoolFull,
    PoolStartError,
    ProtocolError,
    RemudaError,
    WorkerDied,
)
from remuda.statemachines.pool import PoolState

__all__ = ["PoolRules", "RealWorld", "Request", "SimWorld", "Tally"]

T = TypeVar("T")

HOUR = 3600.0
_log = logging.getLogger("remuda")
WHICH = st.integers(0, 3)
"""Which of those there are; counted round, so that there is always one if there are any."""
SECONDS = st.sampled_from([0.0, 0.01, 0.5, 1.0, 3.0, 10.0, 30.0, 100.0])
TIMEOUTS = st.sampled_from([None, 0.0, 0.5, 1.0, 5.0, 20.0, math.inf])
ENDS = st.sampled_from([None, "kill", "interrupt"])
SESSIONS = st.sampled_from([None, "ann", "bob"])
REQUESTS = st.runner().flatmap(lambda rules: rules.requests())


@dataclass
class Tally:
    """What all runs of one class have done so far.

    Attributes:
        runs, steps: how many.
        seconds: virtual (or real) time that has passed in them.
        pairs: how often each (lifecycle, state, trigger) was taken.
        told: how often callers were told what.
    """

    runs: int = 0
    steps: int = 0
    seconds: float = 0.0
    pairs: Counter[tuple[str, str, str]] = field(default_factory=Counter[tuple[str, str, str]])
    told: Counter[str] = field(default_factory=Counter[str])


class PoolRules(RuleBasedStateMachine):
    """See the module's text. Subclass it, and have pytest find `YourRules.TestCase`.

    Attributes:
        world: where it is played, `SimWorld` or `RealWorld`.
        adapter: yours, as a class or by name; None: the `Probe`.
        config: fields of `PoolConfig` that are fixed; they override what `configurations` draws.
        tally: what all runs of this class have done.
    """

    world: ClassVar[type[World]] = SimWorld
    adapter: ClassVar[str | type | None] = None
    config: ClassVar[Mapping[str, Any]] = {}
    tally: ClassVar[Tally] = Tally()

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if cls.__name__.startswith("Test"):
            raise TypeError(
                f"pytest would look for test methods in {cls.__name__} and find none. Give the rules another "
                f"name, such as {cls.__name__.removeprefix('Test') or 'My'}Rules, and write: "
                f"{cls.__name__} = {cls.__name__.removeprefix('Test') or 'My'}Rules.TestCase"
            )
        cls.tally = Tally()
        cls.TestCase.settings = REALITY if not cls.world.simulated else SIMULATION

    # ── What subclasses say ─────────────────────────────────────────────────────────────────────

    def requests(self) -> st.SearchStrategy[Request]:
        """What callers may ask for. Without an adapter of yours: the `Probe`'s plans."""
        if self.adapter is not None:
            raise NotImplementedError(f"{type(self).__name__} has an adapter; say by requests() what callers ask of it")
        plans = st.sampled_from(self.world.plans)
        args = st.fixed_dictionaries({"plan": plans, "seconds": SECONDS})
        return st.builds(Request, st.sampled_from(["act", "act_again"]), args)

    def configurations(self) -> st.SearchStrategy[dict[str, Any]]:
        """Fields of `PoolConfig`, drawn anew for every run."""
        return _configurations() if self.world.simulated else _real_configurations()

    def check_answer(self, request: Request, value: Any) -> None:
        """Called with each answer; raises AssertionError if it is wrong."""

    def check_error(self, request: Request, error: RemudaError) -> None:
        """Called with each error that came instead of one; raises AssertionError if it must not be."""

    # ── The beginning ───────────────────────────────────────────────────────────────────────────

    @initialize(
        fields=st.runner().flatmap(lambda machine: machine.configurations()),
        starts=st.lists(st.sampled_from(STARTS), max_size=3),
        work=st.sampled_from([0.0, 0.5, 50.0]),
        schedule=st.integers(0, 2**16),
    )
    def open(self, fields: dict[str, Any], starts: Sequence[Start], work: float, schedule: int) -> None:
        """Open a pool; if it could not start because of how its workers started, open it again.

        Args:
            fields: of `PoolConfig`.
            starts: how the first workers start.
            work: seconds that a command of an adapter takes, in simulation.
            schedule: what decides in which order trio runs tasks, and the jitter of backoff.
        """
        dice.seed(schedule)
        trio_run._r.seed(schedule)  # trio has no public way, and allows it where Hypothesis is loaded
        self.requests()  # says at once if there are none
        self.ground = self.world(self.adapter, work)
        self._log_was_off, _log.disabled = _log.disabled, True  # many workers die here, each worth a line
        self.placed: list[Placed] = []
        self.holders: list[_Holder] = []
        self.wrong: list[str] = []
        self.broken = False
        self.watch = Watch()
        self.disturbed = self.garbled = self.closing = False
        self._pool: Pool | None = None
        self._leave = trio.Event()
        self._left = False
        self._notes: dict[str, set[object]] = {}
        for start in starts if self.world.simulated else ():
            self.ground.start_next(start)
        for template in fields.get("templates", ()):
            self.ground.next_template(template)
        chosen = {**self.ground.fields(fields), **self.config}
        chosen.pop("templates", None)
        self.ground.templates = chosen.get("start_method") == "forkserver"
        config = PoolConfig(**chosen)
        self._attempts = config.retry.attempts
        refusal = self._begin(config)
        if refusal is not None:
            assert starts or self.ground.templates, f"nothing kept it from starting, and it said {refusal}"
            self.ground.start_next(None)
            self.ground.next_template(None)
            refusal = self._begin(config)
        assert refusal is None, f"the pool did not start: {refusal!r}"

    def _begin(self, config: PoolConfig) -> PoolStartError | None:
        opened, refusals = trio.Event(), list[PoolStartError]()

        async def live() -> None:
            try:
                async with self.ground.ground() as launcher:
                    async with open_pool(config, launcher=launcher, observers=[self.watch]) as self._pool:
                        opened.set()
                        await self._leave.wait()
                    self._left = True
            except PoolStartError as error:
                refusals.append(error)
            finally:
                opened.set()

        self._start(live)
        self._run(opened.wait)
        return refusals[0] if refusals else None

    @property
    def pool(self) -> Pool:
        """The pool that is tried."""
        assert self._pool is not None
        return self._pool

    @property
    def loop(self) -> SteppedTrio:
        """The run; `stepped` methods of a subclass move it."""
        return self.ground.loop

    def _start(self, async_fn: Callable[..., Awaitable[object]], *args: object) -> None:
        self._move(lambda: self.ground.loop.start_soon(async_fn, *args))

    def _move(self, step: Callable[[], T]) -> T:
        """Move the run, and remember if it broke: then there is nothing left to look at."""
        self.tally.steps += 1
        try:
            result = step()
        except BaseException:
            self.broken = True
            raise
        self._check()
        return result

    def _run(self, async_fn: Callable[..., Awaitable[T]], *args: object) -> T:
        return self._move(lambda: self.ground.loop.run(async_fn, *args))

    # ── Callers ─────────────────────────────────────────────────────────────────────────────────

    @rule(request=REQUESTS, timeout=TIMEOUTS)
    def call(self, request: Request, timeout: float | None) -> None:
        """Somebody makes a call."""
        self._place(request, timeout, False, functools.partial(self._of_pool, session=None))

    @rule(request=REQUESTS, timeout=TIMEOUTS, on_timeout=ENDS)
    def call_and_say_how_it_ends(self, request: Request, timeout: float | None, on_timeout: OnTimeout | None) -> None:
        """Somebody says what is to become of the worker when the time is over."""
        if self.adapter is not None and on_timeout == "interrupt":
            on_timeout = None  # a command of it may have a journal; the pool's own word holds for the others
        make = functools.partial(self._of_pool, session=None, on_timeout=on_timeout)
        self._place(request, timeout, False, make, on_timeout=on_timeout)

    @rule(requests=st.lists(REQUESTS, min_size=2, max_size=6))
    def call_at_the_same_time(self, requests: Sequence[Request]) -> None:
        """Several do, before any of them has an answer."""
        for request in requests:
            self._place(request, None, False, functools.partial(self._of_pool, session=None), settle=False)
        self._settle()

    @rule(request=REQUESTS, session=st.sampled_from(["ann", "bob"]), timeout=TIMEOUTS)
    def call_in_a_session(self, request: Request, session: str, timeout: float | None) -> None:
        """Somebody makes a call that belongs to others."""
        self._place(request, timeout, False, functools.partial(self._of_pool, session=session))

    @rule(request=REQUESTS, seconds=SECONDS)
    def call_with_a_deadline_around_it(self, request: Request, seconds: float) -> None:
        """Somebody has `trio.fail_after` around a call."""
        self._place(request, seconds, True, functools.partial(self._of_pool, session=None))

    @rule(session=st.sampled_from(["ann", "bob"]))
    def end_a_session(self, session: str) -> None:
        """Somebody is done with a session."""
        self._run(self.pool.session(session).end)

    async def _of_pool(
        self, request: Request, timeout: float | None, session: str | None, on_timeout: OnTimeout | None = None
    ) -> object:
        return await self.pool.call(
            request.command,
            request.args,
            timeout=timeout,
            session=session,
            idempotent=request.idempotent,
            on_timeout=on_timeout,
        )

    @rule(timeout=TIMEOUTS, session=SESSIONS)
    def checkout(self, timeout: float | None, session: str | None) -> None:
        """Somebody wants a worker to hold."""
        placed = self._new(None, timeout, around=False)
        holder = _Holder(placed)
        self.holders.append(holder)

        async def hold() -> None:
            try:
                async with self.pool.checkout(timeout=self._timeout(timeout), session=session) as holder.lease:
                    placed.end(None, self.now)
                    await holder.done.wait()
            finally:
                holder.lease = None

        self._start(self._attend, placed, hold)

    @rule(which=WHICH, request=REQUESTS, timeout=TIMEOUTS)
    def call_on_a_worker_that_is_held(self, which: int, request: Request, timeout: float | None) -> None:
        """Somebody who holds a worker makes a call on it."""
        holder = _nth([h for h in self.holders if h.lease is not None and not h.busy], which)
        if holder is None or holder.lease is None:
            return
        lease, holder.busy = holder.lease, True

        async def on_lease(request: Request, timeout: float | None) -> object:
            try:
                return await lease.call(request.command, request.args, timeout=timeout)
            finally:
                holder.busy = False

        self._place(request, timeout, False, on_lease, lease=True)

    @rule(which=WHICH)
    def give_back(self, which: int) -> None:
        """Somebody gives a worker back, perhaps with a call on it under way."""
        holder = _nth([h for h in self.holders if h.lease is not None], which)
        if holder is not None:
            self.disturbed = self.disturbed or holder.busy
            holder.done.set()
            self._settle()

    @rule(which=WHICH)
    def hang_up(self, which: int) -> None:
        """Somebody who waits is cancelled."""
        placed = _nth([one for one in self.placed if not one.over], which)
        if placed is not None:
            placed.cancelled = True
            placed.scope.cancel()
            self._settle()

    @rule(key=st.sampled_from("ab"), value=st.integers(1, 9))
    def note(self, key: str, value: int) -> None:
        """Something is told that every worker has to know."""
        self._tell("note", {"key": key, "value": value}, key, value)

    @rule(key=st.sampled_from("ab"), value=st.integers(1, 9))
    def note_and_take_back(self, key: str, value: int) -> None:
        """Something is told, and taken back."""
        self._tell("note", {"key": key, "value": value}, key, value)
        self._tell("drop", {"key": key}, key, None)

    @rule(key=st.sampled_from("ab"))
    def ask_what_was_noted(self, key: str) -> None:
        """Whichever worker answers, it knows what was told last."""
        if self.adapter is None:
            answer = self._try("noted", {"key": key}, HOUR)
            allowed = self._notes.get(key, {None})
            if not isinstance(answer, BaseException) and answer not in allowed:
                self.wrong.append(f"journal_is_kept: {key!r} is {answer!r}, and was told to be one of {allowed}")

    def _tell(self, command: str, args: dict[str, object], key: str, value: object) -> None:
        if self.adapter is not None:
            return
        answer = self._try(command, args, 20.0)
        # Without an answer nobody knows whether it was kept: both are right from now on.
        before = self._notes.get(key, {None}) if isinstance(answer, BaseException) else set[object]()
        self._notes[key] = before | {value}

    def _try(self, command: str, args: dict[str, object], timeout: float) -> object:
        async def try_it() -> object:
            try:
                return await self.pool.call(command, args, timeout=self._timeout(timeout))
            except RemudaError as error:
                return error

        return self._run(try_it)

    # ── Time and the pool ───────────────────────────────────────────────────────────────────────

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        """Time passes."""
        self._run(trio.sleep, self.ground.seconds(seconds))

    @rule()
    def suspend(self) -> None:
        """The pool gives out no more work."""
        self._ask(self.pool.suspend)

    @rule()
    def resume(self) -> None:
        """And does again."""
        self._ask(self.pool.resume)

    @rule()
    def look(self) -> None:
        """Somebody looks at what the pool is doing."""
        self._ask(self.pool.snapshot)

    def _ask(self, sync_fn: Callable[[], object]) -> None:
        async def ask() -> None:
            try:
                sync_fn()
            except IllegalTransition:
                pass  # it cannot be suspended, or is not: it said so, and nothing has changed

        self._run(ask)

    @rule(luck=st.integers(0, 4))
    def close(self, luck: int) -> None:
        """The pool is closed while callers are at work; not often, since little happens afterwards."""
        if luck == 0:
            self.closing = True
            self._start(self.pool.aclose)

    # ── Workers ─────────────────────────────────────────────────────────────────────────────────

    @rule(which=WHICH)
    def crash_an_idle_worker(self, which: int) -> None:
        """SIGKILL, between two calls."""
        self._fault("crash", which, "ready")

    @rule(which=WHICH)
    def crash_a_busy_worker(self, which: int) -> None:
        """SIGKILL, in the middle of a call."""
        self._fault("crash", which, "busy", "draining")

    @rule(which=WHICH)
    def crash_a_worker_that_starts(self, which: int) -> None:
        """SIGKILL, before it has come up."""
        self._fault("crash", which, "initializing")

    @rule(which=WHICH)
    def crash_a_worker_that_is_checked(self, which: int) -> None:
        """SIGKILL, during a health check, or while it is degraded."""
        self._fault("crash", which, "checking", "degraded")

    @rule(which=WHICH)
    def crash_a_worker_that_was_told_to_stop(self, which: int) -> None:
        """SIGKILL, in its time of grace."""
        self._fault("crash", which, "interrupting")

    @rule(which=WHICH)
    def stop_a_worker(self, which: int) -> None:
        """SIGSTOP: it is there, and does nothing."""
        self._fault("freeze", which)

    @rule()
    def let_them_go_on(self) -> None:
        """SIGCONT, for all."""
        self.ground.thaw()
        self._settle()

    @rule(which=WHICH)
    def garbage_from_an_idle_worker(self, which: int) -> None:
        """Bytes on the channel that are no message, between two calls."""
        self._fault("garbage", which, "ready")

    @rule(which=WHICH)
    def garbage_from_a_busy_worker(self, which: int) -> None:
        """The same, in the middle of a call."""
        self._fault("garbage", which, "busy", "draining", "checking")

    @rule(which=WHICH)
    def half_a_frame_from_a_worker(self, which: int) -> None:
        """The beginning of a message."""
        self._fault("half a frame", which)

    @rule(which=WHICH)
    def a_worker_closes_its_channel(self, which: int) -> None:
        """It lives on, and cannot be reached."""
        self._fault("hang up", which)

    def _fault(self, fault: Fault, which: int, *states: str) -> None:
        worker = _nth([w for w in self._workers() if not states or w.state in states], which)
        if worker is not None and fault in self.world.can and self.ground.do(fault, worker.slot):
            self.disturbed = True
            self.garbled = self.garbled or fault in ("garbage", "half a frame")
        self._settle()

    def _workers(self) -> Sequence[WorkerSnapshot]:
        async def look() -> Sequence[WorkerSnapshot]:
            return self.pool.snapshot().workers

        return self._run(look)

    @rule()
    def the_next_worker_is_slow(self) -> None:
        """It takes ten seconds to come up."""
        self._next("slow")

    @rule()
    def the_next_worker_never_comes_up(self) -> None:
        """It hangs at its start."""
        self._next("hangs")

    @rule()
    def the_next_worker_fails_to_start(self) -> None:
        """Its setup raises."""
        self._next("fails")

    @rule()
    def the_next_worker_dies_at_its_start(self) -> None:
        """Without a word."""
        self._next("dies")

    @rule()
    def the_next_worker_is_refused(self) -> None:
        """By the operating system."""
        self._next("is refused")

    @rule()
    def the_next_worker_is_deaf(self) -> None:
        """To being asked to go, and to SIGTERM."""
        self._next("is deaf")

    @rule()
    def the_next_worker_lingers(self) -> None:
        """SIGKILL takes its time."""
        self._next("lingers")

    @rule()
    def the_next_worker_is_narrow(self) -> None:
        """A few bytes at a time go through its channel."""
        self._next("is narrow")

    @rule()
    def the_next_worker_leaves_a_child_behind(self) -> None:
        """It holds all its descriptors: when the worker dies, no end of file comes."""
        self._next("leaves a child")

    @rule()
    def the_next_worker_is_unwell(self) -> None:
        """It does its work, and fails its health checks."""
        self._next("is unwell")

    def _next(self, start: Start) -> None:
        if start in self.world.can:
            self.ground.start_next(start)

    # ── What must hold ──────────────────────────────────────────────────────────────────────────

    def _check(self) -> None:
        """No rule was seen broken, in the core or by a caller. (As an invariant it would fill the scenario.)"""
        complaints = [*self.watch.broken, *self.wrong]
        if self._pool is not None and self._pool.observer_errors:
            complaints.append("watching the pool has failed")
        if self._pool is not None and self.world.simulated:
            complaints += self._compare_accounts(self._pool)
        if complaints:
            self.broken = True
            raise AssertionError("; ".join(complaints))

    def _compare_accounts(self, pool: Pool) -> Iterator[str]:
        """What callers know of their calls, and what the pool does, is the same."""
        waiting = sum(not placed.over for placed in self.placed)
        learning = sum(not placed.over and placed.learns_where(self.now) for placed in self.placed)
        holding = sum(holder.lease is not None for holder in self.holders)
        calls, ended = len(pool._core.calls), pool._ended  # a snapshot would be a step of its own
        if (
            not waiting - learning <= calls <= waiting + holding
        ):  # who holds a worker that has died knows it at its next use
            yield f"accounts_agree: the pool has {calls} calls in hand; {waiting} wait and {holding} hold a worker"
        told: Counter[str] = Counter()
        for placed in self.placed:
            kind = _kind(placed) if placed.over and placed.request is not None else None
            if kind is not None:
                told[kind] += 1
        for kind, count in told.items():
            counted = ended[_VERDICTS[kind]]
            if counted < count:
                yield f"accounts_agree: {count} callers were told {kind!r}, and the pool has counted {counted}"

    def teardown(self) -> None:
        """Faults stop, and before an hour has passed all is well."""
        if not hasattr(self, "ground"):
            return
        try:
            if not (self.broken or self.loop.ended or self._pool is None):
                self._end_well()
        finally:
            _log.disabled = self._log_was_off
            self._count()
            self.ground.close()

    def _end_well(self) -> None:
        self.ground.start_next(None)
        self.ground.thaw()
        self.resume()
        for holder in self.holders:
            holder.done.set()
        self._run(self._until_all_have_ended)
        self.wrong += [f"everybody_is_answered: {one} has no outcome" for one in self.placed if not one.over]
        if not self.closing and not self.wrong:
            self._run(self._until_it_serves)
            self._ask_everybody()
        self._leave.set()
        self._run(self._until_it_has_closed)
        if not self._left:
            self.wrong.append("close_ends: the pool is still there")
        self.wrong += [f"nothing_is_left: {what}" for what in self.ground.leftovers()]
        self._check()

    def _ask_everybody(self) -> None:
        """What was noted is known to those who are there, and to those who come after them."""
        for key in self._notes:
            self.ask_what_was_noted(key)
        for worker in self._workers():
            self.ground.do("crash", worker.slot)
        for key in self._notes:
            self.ask_what_was_noted(key)

    async def _until_all_have_ended(self) -> None:
        for placed in self.placed:
            if placed.plan is not None and not placed.plan.ends_by_itself and placed.deadline == math.inf:
                placed.cancelled = True  # it asked for ever, and gets it
                placed.scope.cancel()
        with trio.move_on_after(HOUR if self.world.simulated else 30):
            while not all(placed.over for placed in self.placed):
                await trio.sleep(self.ground.seconds(1))

    async def _until_it_serves(self) -> None:
        """The pool is whole again, with nobody in it, and answers."""
        with trio.move_on_after(HOUR if self.world.simulated else 30):
            while not (self._is_whole() and await self._answers()):
                await trio.sleep(self.ground.seconds(1))
            return
        self.wrong.append(f"it_heals: the pool is {self.pool.snapshot()}")

    def _is_whole(self) -> bool:
        seen = self.pool.snapshot()
        ready = sum(worker.state == "ready" for worker in seen.workers)
        return ready >= self.pool.config.min_workers and seen.in_flight == 0

    async def _answers(self) -> bool:
        """Whether a call is answered as if nothing had ever been; only the `Probe` can be asked for one."""
        if self.adapter is not None:
            return True
        try:
            await self.pool.call("noted", {"key": "a"}, timeout=self._timeout(100.0))
        except (CallTimeout, CircuitOpen, PoolFailed, PoolFull, WorkerDied):
            # Not yet: it still meets what was done before, such as a worker that cannot be reached while a child of
            # it holds its channel open.
            return False
        except RemudaError as error:
            self.wrong.append(f"it_heals: with nothing in its way, a call got {error!r}")
            return True
        return self.pool.state is PoolState.READY

    async def _until_it_has_closed(self) -> None:
        bound = self.pool.config.shutdown_timeout
        with trio.move_on_after(bound + (1e-6 if self.world.simulated else 10)):
            while not self._left:
                await trio.sleep(0.001 if not self.world.simulated else bound / 16)

    def _count(self) -> None:
        tally = self.tally
        tally.runs += 1
        tally.seconds += self.ground.loop.now
        tally.pairs.update(self.watch.pairs)
        for placed in self.placed:
            tally.told[type(placed.outcome).__name__ if isinstance(placed.outcome, BaseException) else "answer"] += 1

    # ── Calls ───────────────────────────────────────────────────────────────────────────────────

    @property
    def now(self) -> float:
        """Seconds of the run."""
        return self.ground.loop.now

    def _timeout(self, timeout: float | None) -> float | None:
        return None if timeout is None else self.ground.seconds(timeout)

    def _settle(self) -> None:
        """Let everything that has been set off happen, as far as it needs no time."""
        self._run(trio.lowlevel.checkpoint)

    def _new(self, request: Request | None, timeout: float | None, *, around: bool) -> Placed:
        number = len(self.placed) + 1
        if request is not None and self.adapter is None:
            args = {**request.args, "token": number}
            args["seconds"] = self.ground.seconds(args.get("seconds", 0.0))
            request = Request(request.command, args, request.idempotent)
        config = self.pool.config
        default = config.checkout_timeout if request is None else config.call_timeout
        deadline = self.now + (default if timeout is None else self.ground.seconds(timeout))
        placed = Placed(number, request, self.now, deadline, around)
        placed.interrupts = config.on_timeout == "interrupt"
        placed.repeatable = request is not None and (request.idempotent or request.command == "act_again")
        self.placed.append(placed)
        return placed

    def _place(
        self,
        request: Request,
        timeout: float | None,
        around: bool,
        make: Callable[[Request, float | None], Awaitable[object]],
        *,
        lease: bool = False,
        settle: bool = True,
        on_timeout: OnTimeout | None = None,
    ) -> None:
        placed = self._new(request, timeout, around=around)
        if on_timeout is not None:
            placed.interrupts = on_timeout == "interrupt"
        if lease:
            placed.repeatable = False

        async def one() -> None:
            asked = placed.request
            assert asked is not None
            if placed.around:
                with trio.fail_at(placed.deadline):
                    value = await make(asked, math.inf)
            else:
                value = await make(asked, self._timeout(timeout))
            placed.end(value, self.now)

        if settle:
            self._start(self._attend, placed, one)
        else:
            self.ground.loop.spawn(self._attend, placed, one)

    async def _attend(self, placed: Placed, make: Callable[[], Awaitable[None]]) -> None:
        """Be the caller of `placed`, to its end, and judge that."""
        with placed.scope:
            try:
                await make()
            except (RemudaError, trio.TooSlowError) as error:
                placed.end(error, self.now)
        if not placed.over:
            placed.end(CANCELLED, self.now)
        self._judge(placed)

    def _judge(self, placed: Placed) -> None:
        begun = self.ground.begun()[placed.number] if self.adapter is None and placed.request is not None else None
        others = any(other.plan is not None and other.plan.ends for other in self.placed if other is not placed)
        seen = Circumstances(
            exact=self.world.simulated,
            begun=begun,
            attempts=self._attempts,
            lost=self.disturbed or placed.cancelled or others,
            garbled=self.garbled or others,
            closing=self.closing or self._leave.is_set(),
        )
        self.wrong += judge(placed, seen)
        if placed.request is None or placed.outcome is CANCELLED:
            return
        try:
            if isinstance(placed.outcome, RemudaError):
                self.check_error(placed.request, placed.outcome)
            elif not isinstance(placed.outcome, BaseException):
                self.check_answer(placed.request, placed.outcome)
        except AssertionError as error:
            self.wrong.append(f"{placed}: {error or 'its check failed'}")


_VERDICTS = {
    "timed out": Verdict.TIMED_OUT,
    "unknown": Verdict.UNKNOWN,
    "violation": Verdict.VIOLATION,
    "full": Verdict.FULL,
    "circuit open": Verdict.CIRCUIT_OPEN,
    "pool failed": Verdict.POOL_FAILED,
}
"""What callers are told, and how the pool counts it."""


def _kind(placed: Placed) -> str | None:
    match placed.outcome:
        case CallTimeout() | trio.TooSlowError():
            # What was late before it was made never came to the pool.
            return "timed out" if placed.deadline > placed.made else None
        case OutcomeUnknown():
            return "unknown"
        case ProtocolError():
            return "violation"
        case PoolFull():
            return "full"
        case CircuitOpen():
            return "circuit open"
        case PoolFailed():
            return "pool failed"
        case _:
            return None


@dataclass(eq=False)
class _Holder:
    """Somebody who holds a worker, or waits for one."""

    placed: Placed
    lease: Lease | None = None
    busy: bool = False
    done: trio.Event = field(default_factory=trio.Event)


def _nth(items: Sequence[T], which: int) -> T | None:
    return items[which % len(items)] if items else None


# ── What is drawn ───────────────────────────────────────────────────────────────────────────────


@st.composite
def _configurations(draw: st.DrawFn) -> dict[str, Any]:
    """Pools that soon come to their limits."""
    workers = draw(st.integers(1, 3))
    return {
        "max_workers": workers,
        "min_workers": draw(st.integers(1, workers)),
        "overflow": draw(st.integers(0, 1)),
        "overflow_linger": draw(st.sampled_from([0.0, 2.0])),
        "start_concurrency": draw(st.sampled_from([4, 1])),
        "max_waiting": draw(st.sampled_from([1000, 1000, 1000, 1, 0])),
        "init_timeout": 30.0,
        "call_timeout": 60.0,
        "checkout_timeout": 5.0,
        "shutdown_timeout": draw(st.sampled_from([5.0, 0.5])),
        "session_ttl": draw(st.sampled_from([300.0, 5.0])),
        "health": draw(st.sampled_from([Health(), Health(interval=2.0, timeout=1.0, failures=1, recheck=1.0)])),
        "restart": draw(st.sampled_from([Restart(), Restart(base=1.0, cap=5.0, burst=2, period=20.0)])),
        "retry": draw(st.sampled_from([Retry(), Retry(attempts=2, base=1.0, cap=2.0, handovers=1)])),
        "breaker": draw(st.sampled_from([Breaker(), Breaker(failures=1, probes=2, open_for=5.0)])),
        "history": draw(st.sampled_from([16, 0])),
        "on_timeout": draw(st.sampled_from(["kill", "interrupt"])),
    }


def _real_configurations() -> st.SearchStrategy[dict[str, Any]]:
    """Two workers that answer soon, or are given up soon."""
    return st.fixed_dictionaries(
        {
            "max_workers": st.just(2),
            "min_workers": st.integers(1, 2),
            "call_timeout": st.just(2.0),
            "checkout_timeout": st.just(1.0),
            "shutdown_timeout": st.just(1.0),
            "health": st.just(Health(interval=0.5, timeout=1.0, failures=2, recheck=0.1)),
            "breaker": st.just(Breaker(failures=50)),
            "on_timeout": st.sampled_from(["kill", "interrupt"]),
            "interrupt_grace": st.just(0.1),
        }
    )


_QUICK = (Phase.explicit, Phase.reuse, Phase.generate, Phase.target, Phase.shrink)
"""Not `explain`, which traces every line while it shrinks: that takes ten times as long."""

SIMULATION = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    phases=_QUICK,
    suppress_health_check=[*HealthCheck],  # pyright: ignore[reportArgumentType]  (an enum of its own kind)
)
"""The settings of a `TestCase` in simulation; assign others to `YourRules.TestCase.settings`."""

REALITY = settings(SIMULATION, max_examples=10, stateful_step_count=12, phases=(Phase.explicit, Phase.generate))
"""On real processes: fewer and shorter runs, which are not shrunk, since no two are the same."""

PoolRules.TestCase.settings = SIMULATION
