"""What can happen to a core, as rules, with a naive model beside it that says what must come of it.

`remuda.specs.naive` judges every event; the named invariants are asked beside it. Nothing is kept from
the core that could reach it: answers come twice, for calls that are over, from workers that are gone;
ticks come early and late; numbers are drawn. When a run ends the faults stop, time passes, and then
everybody must have one verdict, the pool must be whole, and nothing may be left.

One rule is one thing that happens, so that Hypothesis can leave any of them out for a whole run. How many
things may go wrong in a run is drawn as well: a pool to which everything happens at once has soon failed,
and then there is little to see.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from remuda.specs.model import Profile, World
from remuda.specs.naive import NaivePool
from remuda.statemachines import events as ev
from remuda.statemachines.breaker import BREAKER, BreakerState
from remuda.statemachines.call import CALL
from remuda.statemachines.core import Core
from remuda.statemachines.effects import Answer, SendCall, Stepped, Verdict
from remuda.statemachines.errors import InvalidLease
from remuda.statemachines.policy import Breaker, Health, Policy, Restart, Retry
from remuda.statemachines.pool import POOL, PoolState
from remuda.statemachines.slot import SLOT, SlotState
from remuda.statemachines.subjects import Call, Worker
from remuda.statemachines.worker import WORKER, WorkerState

LIFECYCLES = {"Worker": WORKER, "Slot": SLOT, "Pool": POOL, "Breaker": BREAKER, "Call": CALL}
DEADLINES = st.sampled_from([math.inf, 60.0, 8.0, 3.0, 20.0, 0.0])
SESSIONS = st.sampled_from([None, "a", "b"])
DRAWS = st.sampled_from([1.0, 0.5, 0.0])
WHICH = st.integers(0, 5)


class CoreRules(RuleBasedStateMachine):
    seen: ClassVar[Counter[tuple[str, str, str]]] = Counter()
    told: ClassVar[Counter[Verdict]] = Counter()
    said: ClassVar[set[tuple[str, str, str]]] = set()

    @initialize(
        workers=st.sampled_from([(1, 1), (1, 2), (2, 2), (2, 3)]),
        overflow=st.sampled_from([0, 0, 1]),
        spares=st.sampled_from([0, 0, 1, 2]),
        linger=st.sampled_from([2.0, 0.0, 15.0]),
        max_starting=st.sampled_from([4, 1]),
        max_waiting=st.sampled_from([1000, 1000, 2, 0]),
        interval=st.sampled_from([math.inf, 6.0]),
        limit=st.sampled_from([2, 1, 3]),
        breaker=st.sampled_from([(100, 1), (1, 1), (2, 2)]),
        burst=st.sampled_from([2, 1, 3]),
        attempts=st.sampled_from([2, 1, 3]),
        handovers=st.sampled_from([1, 0, 2]),
        faults=st.sampled_from([4, 0, 2, 12]),
        may_close=st.sampled_from([False, False, True]),
        warm=st.sampled_from([True, True, False]),
    )
    def open(
        self,
        workers: tuple[int, int],
        overflow: int,
        spares: int,
        linger: float,
        max_starting: int,
        max_waiting: int,
        interval: float,
        limit: int,
        breaker: tuple[int, int],
        burst: int,
        attempts: int,
        handovers: int,
        faults: int,
        may_close: bool,
        warm: bool,
    ) -> None:
        policy = Policy(
            min_workers=workers[0],
            max_workers=workers[1],
            overflow=overflow,
            spares=spares,
            linger=linger,
            max_starting=max_starting,
            max_waiting=max_waiting,
            init_timeout=12.0,
            shutdown_timeout=5.0,
            interrupt_grace=2.5,
            session_ttl=7.0,
            health=Health(interval=interval, timeout=4.0, failures=limit, recheck=3.0),
            breaker=Breaker(failures=breaker[0], probes=breaker[1], open_for=9.0),
            restart=Restart(base=1.0, cap=2.0, burst=burst, period=10.0),
            retry=Retry(attempts=attempts, base=1.0, cap=1.5, handovers=handovers),
            history=2,
        )
        self.calls: list[Call] = []
        self.sent: list[tuple[Worker, int]] = []
        self.broken = False
        self.faults, self.may_close = faults, may_close
        self.world = World(Profile(policy=policy, callers=1), self.core_to_watch)
        self.judge()
        if warm:
            for worker in list(self.alive()):
                self.feed(ev.Initialized(worker))

    # ── Between the rules and the core ──────────────────────────────────────────────────────────

    def core_to_watch(self, policy: Policy, now: float) -> Core:
        core = Core(policy, now, observed=True)
        self.naive = NaivePool(core)
        self.naive.expect(ev.Open(), now)
        return core

    def feed(self, event: ev.Event) -> None:
        self.broken = True
        refused = self.naive.expect(event, self.world.now)
        try:
            self.world.feed(event)
        except InvalidLease as error:
            assert refused, f"{event} was refused"
            self.said.add(("Call", "InvalidLease", str(error)))
            self.naive.compare([])
        else:
            assert not refused, f"{event} was not refused"
            self.judge()
        self.broken = False

    def judge(self) -> None:
        effects = self.world.ledger.effects
        for effect in effects:
            if isinstance(effect, Stepped):
                kind, step = type(effect.subject).__name__, effect.step
                self.seen[kind, step.source, step.trigger] += 1
                self.said.add((kind, str(step.trigger), f"{step.reason}"))
            elif isinstance(effect, Answer):
                self.said.add(("Answer", str(effect.verdict), f"{effect.cause}"))
            elif isinstance(effect, SendCall):
                self.sent.append((effect.worker, effect.call.id))
        self.naive.compare(effects)

    @property
    def pool(self) -> PoolState:
        return self.naive.pool

    def alive(self, *states: WorkerState) -> list[Worker]:
        known = self.naive.workers.values()
        gone = WorkerState.TERMINATED
        return [it.worker for it in known if (it.state in states if states else it.state is not gone)]

    def in_hand(self) -> list[tuple[Worker, Call]]:
        return [(it.worker, it.call.call) for it in self.naive.workers.values() if it.call is not None]

    def open_calls(self, *where: str) -> list[Call]:
        return [
            it.call for it in self.naive.calls.values() if it.where in (where or ("queue", "pause", "worker", "lease"))
        ]

    # ── Callers ─────────────────────────────────────────────────────────────────────────────────

    def call(self, seconds: float, *, lease: Call | None = None, **what: Any) -> None:
        now = self.world.now
        call = Call(len(self.calls) + 1, now=now, deadline=now + seconds, history=2, **what)
        call.lease = lease
        self.calls.append(call)
        self.feed(ev.Submit(call))

    def takes_calls(self) -> bool:
        waiting = len(self.open_calls("queue"))
        open_for_calls = self.pool not in (PoolState.FAILED, PoolState.DRAINING, PoolState.CLOSED)
        return open_for_calls and (bool(self.naive.idle) or waiting < min(4, self.naive.policy.max_waiting))

    @precondition(lambda self: not self.takes_calls() and len(self.calls) < 12)
    @rule(seconds=DEADLINES, is_lease=st.booleans())
    def make_a_call_to_be_refused(self, seconds: float, is_lease: bool) -> None:
        self.call(seconds, is_lease=is_lease)

    @precondition(lambda self: self.takes_calls())
    @rule(seconds=DEADLINES, session=SESSIONS)
    def make_a_call(self, seconds: float, session: str | None = None) -> None:
        self.call(seconds, session=session)

    @precondition(lambda self: self.takes_calls())
    @rule(seconds=DEADLINES, session=SESSIONS)
    def make_a_call_that_may_be_repeated(self, seconds: float, session: str | None = None) -> None:
        self.call(seconds, session=session, idempotent=True)

    @precondition(lambda self: self.takes_calls())
    @rule(seconds=DEADLINES, session=SESSIONS, idempotent=st.booleans())
    def make_a_call_that_may_be_interrupted(
        self, seconds: float, session: str | None = None, idempotent: bool = False
    ) -> None:
        self.call(seconds, session=session, idempotent=idempotent, interrupt=True)

    @precondition(lambda self: self.takes_calls())
    @rule(many=st.integers(2, 4))
    def many_make_a_call(self, many: int) -> None:
        for _ in range(many):
            self.call(20.0)

    @precondition(lambda self: self.takes_calls())
    @rule(seconds=DEADLINES, session=st.sampled_from([None, None, "a"]))
    def check_out(self, seconds: float, session: str | None) -> None:
        self.call(seconds, is_lease=True, session=session)

    @precondition(lambda self: self.open_calls("lease"))
    @rule(which=WHICH, seconds=DEADLINES, idempotent=st.booleans(), interrupt=st.booleans())
    def make_a_call_on_a_checkout(self, which: int, seconds: float, idempotent: bool, interrupt: bool = False) -> None:
        leases = self.open_calls("lease")
        self.call(seconds, lease=leases[which % len(leases)], idempotent=idempotent, interrupt=interrupt)

    @precondition(lambda self: any(call.is_lease and call not in self.open_calls() for call in self.calls))
    @rule(which=WHICH)
    def make_a_call_on_a_checkout_that_may_be_over(self, which: int) -> None:
        leases = [call for call in self.calls if call.is_lease]
        self.call(9.0, lease=leases[which % len(leases)])

    @precondition(lambda self: self.open_calls("lease"))
    @rule(which=WHICH)
    def give_back(self, which: int) -> None:
        leases = self.open_calls("lease")
        self.feed(ev.Checkin(leases[which % len(leases)]))

    @precondition(lambda self: any(call.is_lease and call not in self.open_calls() for call in self.calls))
    @rule(which=WHICH)
    def give_back_late_or_twice(self, which: int) -> None:
        leases = [call for call in self.calls if call.is_lease]
        self.feed(ev.Checkin(leases[which % len(leases)]))

    @precondition(lambda self: self.open_calls())
    @rule(which=WHICH)
    def give_up(self, which: int) -> None:
        calls = self.open_calls()
        self.feed(ev.GiveUp(calls[which % len(calls)]))

    # ── Workers that do what they should ────────────────────────────────────────────────────────

    @precondition(lambda self: self.alive(WorkerState.INITIALIZING))
    @rule(which=WHICH)
    def come_up(self, which: int) -> None:
        workers = self.alive(WorkerState.INITIALIZING)
        self.feed(ev.Initialized(workers[which % len(workers)]))

    @precondition(lambda self: self.alive(WorkerState.INITIALIZING))
    @rule(which=WHICH, seconds=st.sampled_from([20.0, 2.0]))
    def repeat_the_journal(self, which: int, seconds: float) -> None:
        workers = self.alive(WorkerState.INITIALIZING)
        self.feed(ev.Replaying(workers[which % len(workers)], seconds))

    @precondition(lambda self: len(self.alive(WorkerState.INITIALIZING)) > 1)
    @rule()
    def all_come_up(self) -> None:
        for worker in self.alive(WorkerState.INITIALIZING):
            self.feed(ev.Initialized(worker))

    @precondition(lambda self: self.in_hand())
    @rule(which=WHICH, ok=st.booleans())
    def answer(self, which: int, ok: bool) -> None:
        self.answers(self.in_hand(), which, ok=ok)

    def answers(self, pairs: list[tuple[Worker, Call]], which: int, **what: bool) -> None:
        worker, call = pairs[which % len(pairs)]
        self.feed(ev.Replied(worker, call.id, "a reply", **what))

    def stopping(self) -> list[tuple[Worker, Call]]:
        """Workers that were told to stop a call, and may still answer to it."""
        known = (self.naive.workers[it] for it in self.alive(WorkerState.INTERRUPTING, WorkerState.DRAINING))
        return [(it.worker, it.interrupted.call) for it in known if it.interrupted is not None]

    @precondition(lambda self: self.stopping())
    @rule(which=WHICH, ok=st.booleans())
    def stop_the_call(self, which: int, ok: bool = False) -> None:
        self.answers(self.stopping(), which, ok=ok)

    @precondition(lambda self: self.alive(WorkerState.CHECKING, WorkerState.DRAINING))
    @rule(which=WHICH)
    def be_well(self, which: int) -> None:
        self.checked(which, healthy=True)

    def checked(self, which: int, *, healthy: bool) -> None:
        workers = self.alive(WorkerState.CHECKING, WorkerState.DRAINING)
        worker = workers[which % len(workers)]
        self.feed(ev.HealthChecked(worker, self.naive.workers[worker].checks, healthy, "it said so"))

    @precondition(lambda self: self.alive(WorkerState.TERMINATING))
    @rule(which=WHICH, began=st.booleans(), draw=DRAWS)
    def exit_when_told_to(self, which: int, began: bool, draw: float) -> None:
        workers = self.alive(WorkerState.TERMINATING)
        self.exits(workers[which % len(workers)], began, draw)

    def exits(self, worker: Worker, began: bool, draw: float) -> None:
        self.world.processes.pop(worker, None)
        self.feed(ev.Exited(worker, "it exited", began=began, draw=draw))

    @precondition(lambda self: self.open_calls("worker"))
    @rule(which=WHICH)
    def be_seen_to_have_begun(self, which: int) -> None:
        calls = self.open_calls("worker")
        self.feed(ev.Began(calls[which % len(calls)]))

    @rule(times=st.integers(1, 4))
    def everything_works_for_a_while(self, times: int) -> None:
        for _ in range(times):
            self.everything_works()

    # ── Workers that do not ─────────────────────────────────────────────────────────────────────

    @precondition(lambda self: self.faults and self.alive(WorkerState.INITIALIZING))
    @rule(which=WHICH)
    def fail_to_boot(self, which: int) -> None:
        self.faults -= 1
        workers = self.alive(WorkerState.INITIALIZING)
        self.feed(ev.BootFailed(workers[which % len(workers)], "an import failed"))

    @precondition(lambda self: self.faults and self.alive(WorkerState.INITIALIZING))
    @rule(which=WHICH, draw=DRAWS)
    def die_while_booting(self, which: int, draw: float) -> None:
        self.faults -= 1
        workers = self.alive(WorkerState.INITIALIZING)
        self.exits(workers[which % len(workers)], False, draw)

    @precondition(lambda self: self.faults and self.in_hand())
    @rule(which=WHICH)
    def answer_that_it_is_unfit(self, which: int) -> None:
        self.faults -= 1
        self.answers(self.in_hand(), which, ok=False, unfit=True)

    @precondition(lambda self: self.faults and self.stopping())
    @rule(which=WHICH)
    def stop_the_call_and_be_unfit(self, which: int) -> None:
        self.faults -= 1
        self.answers(self.stopping(), which, ok=False, unfit=True)

    @precondition(lambda self: self.faults and self.alive(WorkerState.CHECKING, WorkerState.DRAINING))
    @rule(which=WHICH)
    def be_unwell(self, which: int) -> None:
        self.faults -= 1
        self.checked(which, healthy=False)

    @precondition(lambda self: self.faults and self.in_hand())
    @rule(which=WHICH, draw=DRAWS)
    def die_before_it_begins(self, which: int, draw: float) -> None:
        self.faults -= 1
        pairs = self.in_hand()
        self.exits(pairs[which % len(pairs)][0], False, draw)

    @precondition(lambda self: self.faults and self.in_hand())
    @rule(which=WHICH, draw=DRAWS)
    def die_with_a_call(self, which: int, draw: float) -> None:
        self.faults -= 1
        pairs = self.in_hand()
        self.exits(pairs[which % len(pairs)][0], True, draw)

    @precondition(lambda self: self.faults and self.alive())
    @rule(which=WHICH, draw=DRAWS)
    def die(self, which: int, draw: float) -> None:
        self.faults -= 1
        workers = self.alive()
        self.exits(workers[which % len(workers)], False, draw)

    @precondition(lambda self: self.faults and self.alive())
    @rule(which=WHICH)
    def write_garbage(self, which: int) -> None:
        self.faults -= 1
        workers = self.alive()
        self.feed(ev.ChannelFailed(workers[which % len(workers)], "garbage"))

    @precondition(lambda self: self.faults and self.alive())
    @rule(which=WHICH)
    def hang_up(self, which: int) -> None:
        self.faults -= 1
        workers = self.alive()
        self.feed(ev.ChannelFailed(workers[which % len(workers)], "the end", violation=False))

    # ── News that comes late, twice, or from the dead ───────────────────────────────────────────

    def some_worker(self, which: int) -> Worker:
        workers = list(self.naive.workers)
        return workers[-1 - which % len(workers)]

    @precondition(lambda self: self.sent)
    @rule(which=WHICH, unfit=st.booleans())
    def answer_late_or_twice(self, which: int, unfit: bool) -> None:
        worker, number = self.sent[-1 - which % len(self.sent)]
        self.feed(ev.Replied(worker, number, "a reply", ok=not unfit, unfit=unfit))

    @rule(which=WHICH, number=st.integers(0, 2), healthy=st.booleans())
    def a_check_ends_late_or_twice(self, which: int, number: int, healthy: bool) -> None:
        worker = self.some_worker(which)
        self.feed(ev.HealthChecked(worker, max(0, self.naive.workers[worker].checks - number), healthy))

    @precondition(lambda self: self.alive(WorkerState.TERMINATING, WorkerState.TERMINATED))
    @rule(which=WHICH, kind=st.sampled_from(["up", "boot", "channel", "retire", "journal"]))
    def news_come_from_the_dead(self, which: int, kind: str) -> None:
        dead = self.alive(WorkerState.TERMINATING, WorkerState.TERMINATED)
        worker = dead[-1 - which % len(dead)]
        news: dict[str, ev.Event] = {
            "up": ev.Initialized(worker),
            "boot": ev.BootFailed(worker, "an import failed"),
            "channel": ev.ChannelFailed(worker, "garbage"),
            "retire": ev.Retire(worker, "by hand"),
            "journal": ev.Replaying(worker, 9.0),
        }
        self.feed(news[kind])

    @precondition(lambda self: len(self.naive.workers) > len(self.alive()))
    @rule(which=WHICH, began=st.booleans())
    def exit_twice(self, which: int, began: bool) -> None:
        gone = self.alive(WorkerState.TERMINATED)
        event = ev.Exited(gone[which % len(gone)], "it exited", began=began)
        self.naive.expect(event, self.world.now)
        assert not self.world.core.handle(event, self.world.now)
        self.naive.compare([])

    @precondition(lambda self: len(self.calls) > len(self.open_calls()))
    @rule(which=WHICH, kind=st.sampled_from(["begun", "give up", "come up"]))
    def news_come_about_what_is_over(self, which: int, kind: str) -> None:
        over = [call for call in self.calls if call not in self.open_calls()]
        call = over[-1 - which % len(over)]
        if kind == "come up":
            self.feed(ev.Initialized(self.some_worker(which)))
        else:
            self.feed(ev.Began(call) if kind == "begun" else ev.GiveUp(call))

    # ── Whoever runs the pool ───────────────────────────────────────────────────────────────────

    @precondition(lambda self: self.alive())
    @rule(which=WHICH)
    def retire(self, which: int) -> None:
        workers = self.alive()
        self.feed(ev.Retire(workers[which % len(workers)], "by hand"))

    @precondition(lambda self: self.pool in (PoolState.READY, PoolState.IMPAIRED))
    @rule()
    def suspend(self) -> None:
        self.feed(ev.Suspend())

    @precondition(lambda self: self.pool is PoolState.SUSPENDED)
    @rule()
    def resume(self) -> None:
        self.feed(ev.Resume())

    @precondition(lambda self: self.naive.bound)
    @rule(session=st.sampled_from(["a", "b"]))
    def end_a_session(self, session: str) -> None:
        self.feed(ev.EndSession(session))

    @precondition(lambda self: self.may_close and len(self.calls) > 6)
    @rule()
    def close(self) -> None:
        self.feed(ev.Close())

    # ── Time ────────────────────────────────────────────────────────────────────────────────────

    @rule(seconds=st.sampled_from([0.25, 1.0, 3.0, 7.0, 30.0, 1e6]))
    def time_passes(self, seconds: float) -> None:
        self.world.now += seconds

    @rule()
    def tick(self) -> None:
        self.feed(ev.Tick())

    @rule()
    def the_next_thing_is_due(self) -> None:
        self.wait()

    def wait(self) -> None:
        due = self.world.core.next_due()
        if due < math.inf:
            self.world.now = max(self.world.now, due)
        self.feed(ev.Tick())

    @rule()
    def the_next_thing_is_almost_due(self) -> None:
        due = self.world.core.next_due()
        if due < math.inf:
            self.world.now = max(self.world.now, due - 0.125)

    # ── The end ─────────────────────────────────────────────────────────────────────────────────

    def teardown(self) -> None:
        if self.broken or not hasattr(self, "world"):
            return
        for verdict in self.naive.verdicts:
            self.told[verdict] += 1
        self.all_is_well_again()
        if self.pool is not PoolState.CLOSED:
            self.nothing_is_left_after_a_while()
            self.feed(ev.Close())
            self.go_on_until(lambda: self.pool is PoolState.CLOSED)
        assert not self.alive() and not self.world.core.crew.slots and not self.world.core.calls

    def go_on_until(self, done: Callable[[], bool]) -> None:
        """Everything works, and time passes."""
        for _ in range(2000):
            if done():
                return
            if not self.everything_works():
                self.wait()
        core = self.world.core
        raise AssertionError(
            f"after a long time: {self.open_calls()}, {self.pool}, {core.breaker.state}, {core.crew.slots}"
        )

    def everything_works(self) -> bool:
        """Everybody does what is expected of them next. False if nothing is."""
        if self.pool is PoolState.SUSPENDED:
            self.feed(ev.Resume())
            return True
        for worker in self.alive():
            it = self.naive.workers[worker]
            if it.state is WorkerState.INITIALIZING:
                self.feed(ev.Initialized(worker))
            elif it.state is WorkerState.TERMINATING:
                self.exits(worker, it.call is not None, 0.5)
            elif it.call is not None:
                self.feed(ev.Replied(worker, it.call.call.id, "a reply"))
            elif it.interrupted is not None:
                self.feed(ev.Replied(worker, it.interrupted.call.id, "a reply", ok=False))
            elif it.check_is_out:
                self.feed(ev.HealthChecked(worker, it.checks, True))
            elif it.occupant is not None:
                self.feed(ev.Checkin(it.occupant.call))
            else:
                continue
            return True
        return False

    def all_is_well_again(self) -> None:
        core = self.world.core

        def well() -> bool:
            if self.open_calls():
                return False
            if core.breaker.state is BreakerState.HALF_OPEN and self.pool in (PoolState.IMPAIRED, PoolState.STARTING):
                self.call(math.inf)  # somebody has to try whether it works again
                return False
            pausing = any(slot.state in (SlotState.BACKOFF, SlotState.QUARANTINED) for slot in core.crew.slots.values())
            return self.pool in (PoolState.READY, PoolState.CLOSED) and not pausing

        self.go_on_until(well)
        told = self.world.ledger.verdicts
        assert len(told) == sum(map(len, told.values())), "not everybody has exactly one verdict"
        assert not core.calls and not core.waiters and core.breaker.in_flight == 0

    def nothing_is_left_after_a_while(self) -> None:
        core, until = self.world.core, self.world.now + 20.0
        self.go_on_until(lambda: self.world.now >= until or core.next_due() > until)
        self.world.now = max(self.world.now, until)
        self.feed(ev.Tick())
        assert core.crew.usable() >= core.policy.min_workers
        assert core.crew.budget.tokens(self.world.now) == core.policy.restart.burst
        assert len(core.sessions) == 0
