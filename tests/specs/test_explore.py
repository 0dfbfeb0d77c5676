"""Every state of small pools, and that the walk would have noticed.

The first half walks through worlds that are small enough to be seen whole, each with its own kind of
trouble, and says what was seen on the way: a walk that has gone nowhere finds nothing either. The
second half plants bugs that pools have had, one for each invariant, and wants the *name* of that
invariant, with the shortest way to the bug.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import msgspec
import pytest

from remuda.specs.explore import Exploration, explore, replay
from remuda.specs.invariants import NUMBERS, InvariantViolated
from remuda.specs.model import FAULTS, Profile, World
from remuda.statemachines import core as core_module
from remuda.statemachines import events as ev
from remuda.statemachines.call import CALL, CallState, CallTrigger
from remuda.statemachines.core import Core
from remuda.statemachines.crew import Crew
from remuda.statemachines.effects import Answer, Closed, Verdict
from remuda.statemachines.policy import Breaker, Health, Policy, Restart, Retry
from remuda.statemachines.slot import SlotState
from remuda.statemachines.subjects import Call, Slot, SlotKind, Worker
from remuda.statemachines.timers import Timers
from remuda.statemachines.waiters import Waiters
from remuda.statemachines.worker import WorkerState

CHECKED = Health(interval=30, timeout=5, failures=2, recheck=3)


def policy(
    max_workers: int = 2,
    *,
    min_workers: int = 1,
    overflow: int = 0,
    linger: float = 0.0,
    max_waiting: int = 1000,
    session_ttl: float = 300.0,
    health: Health = Health(interval=math.inf, timeout=5, failures=2, recheck=3),
    breaker: Breaker = Breaker(failures=2, probes=1, open_for=20),
) -> Policy:
    """Numbers that are soon reached: two restarts, two failures, one handover, two attempts."""
    return Policy(
        min_workers=min_workers,
        max_workers=max_workers,
        overflow=overflow,
        linger=linger,
        max_waiting=max_waiting,
        session_ttl=session_ttl,
        health=health,
        breaker=breaker,
        restart=Restart(base=1, cap=2, burst=2, period=10),
        retry=Retry(attempts=2, base=1, cap=1, handovers=1),
        init_timeout=60,
        shutdown_timeout=5,
        history=1,
    )


WORLDS: dict[str, tuple[Profile, int, set[str]]] = {
    # name: the world, the least number of states, what must have been seen in them
    "crashes": (
        Profile(policy=policy(), faults=2, what=("die",)),
        5000,
        {"pool failed", "answer pool_failed", "answer unknown", "answer died", "slot backoff", "slot quarantined"},
    ),
    "retries": (
        Profile(policy=policy(), callers=1, calls=2, kinds=("idempotent",), faults=2, what=("die",)),
        250,
        {"call backing_off", "answer unknown", "breaker closed"},
    ),
    "channel": (
        Profile(policy=policy(), kinds=("idempotent",), faults=1, what=("garbage", "hang up"), look=True),
        3500,
        {"call backing_off", "call running", "stop kill"},
    ),
    "garbage": (
        Profile(policy=policy(1), faults=1, what=("garbage",), calls=2),
        400,
        {"answer violation", "answer answered"},
    ),
    "boot": (
        Profile(policy=policy(), callers=1, faults=2, what=("boot", "hang", "die")),
        200,
        {"pool failed", "answer pool_failed", "slot quarantined"},
    ),
    "timeouts": (
        Profile(policy=policy(), cancel=True, deadline=10.0, faults=1, what=("die",)),
        6000,
        {"answer timed_out", "answer cancelled", "answer answered", "breaker open", "breaker half_open"},
    ),
    "breaker": (
        Profile(
            policy=policy(1, breaker=Breaker(failures=1, probes=1, open_for=20)),
            callers=1,
            calls=3,
            deadline=10.0,
        ),
        50,
        {"answer timed_out", "answer circuit_open", "breaker open", "breaker half_open", "pool impaired"},
    ),
    "full": (
        Profile(policy=policy(1, max_waiting=1), callers=3, cancel=True),
        100,
        {"answer full", "answer cancelled"},
    ),
    "lease": (
        Profile(policy=policy(), cancel=True, kinds=("lease",), calls=2),
        5000,
        {"lease running", "answer granted", "answer returned", "worker draining", "answer cancelled"},
    ),
    "lost leases": (
        Profile(policy=policy(1), deadline=10.0, kinds=("lease",), calls=2, faults=1, what=("die", "garbage")),
        5000,
        {"answer granted", "answer died", "answer unknown", "answer violation", "answer timed_out"},
    ),
    "leases and calls": (
        Profile(policy=policy(1), kinds=("lease", "plain"), calls=2, faults=1, what=("unfit",), retire=1),
        5000,
        {"lease running", "worker draining", "stop ask", "stop term", "stop kill"},
    ),
    "health": (
        Profile(policy=policy(1, health=CHECKED), faults=2, what=("check", "unfit", "hang")),
        900,
        {"worker checking", "worker degraded", "pool impaired"},
    ),
    "health of two": (
        Profile(policy=policy(min_workers=2, health=CHECKED), callers=1, faults=2, what=("check", "unfit")),
        5000,
        {"worker checking", "worker degraded", "worker terminating"},
    ),
    "close": (
        Profile(policy=policy(), close=True, faults=1, what=("die",)),
        4500,
        {"pool draining", "pool closed", "answer closed", "abandon", "worker draining"},
    ),
    "close with leases": (
        Profile(policy=policy(1), close=True, kinds=("plain", "lease"), faults=1, what=("die",)),
        1200,
        {"pool closed", "answer closed", "answer granted", "answer died", "abandon"},
    ),
    "suspend": (
        Profile(policy=policy(1), suspend=1, cancel=True, faults=1, what=("die",)),
        900,
        {"pool suspended", "slot backoff", "answer cancelled"},
    ),
    "overflow": (
        Profile(policy=policy(1, overflow=1, linger=2.0), cancel=True),
        900,
        {"stop ask", "answer cancelled"},
    ),
    "sessions": (
        Profile(policy=policy(1, session_ttl=7.0), kinds=("session", "plain"), calls=2),
        1000,
        {"call queued", "answer answered"},
    ),
    "lanes": (
        Profile(policy=policy(1), callers=3, kinds=("shared", "plain"), deadline=10.0),
        800,
        {"call queued", "answer answered", "answer timed_out"},
    ),
}


def walk(profile: Profile, **options: Any) -> Exploration:
    return explore(lambda: World(profile), **options)


@pytest.mark.parametrize("name", WORLDS)
def test_in_every_state_everything_holds(name: str) -> None:
    profile, least, sights = WORLDS[name]
    found = walk(profile, max_states=20_000, distrust=40)
    assert not found.faults, str(found.faults[0])
    assert found.complete
    assert found.states >= least
    assert sights <= set(found.seen), f"never seen: {sights - set(found.seen)}"


def test_the_worlds_have_every_kind_of_trouble() -> None:
    profiles = [profile for profile, _, _ in WORLDS.values()]
    assert {kind for p in profiles if p.faults for kind in p.what} == set(FAULTS)
    assert {kind for p in profiles for kind in p.kinds} == {"plain", "idempotent", "session", "shared", "lease"}
    never = {Verdict.ANSWERED, *Verdict} - {
        Verdict(sight.removeprefix("answer "))
        for _, _, sights in WORLDS.values()
        for sight in sights
        if sight.startswith("answer ")
    }
    assert not never


def test_a_walk_that_is_cut_short_says_so() -> None:
    found = walk(WORLDS["crashes"][0], max_states=100)
    assert (found.states, found.complete) == (100, False)
    assert walk(Profile(policy=policy(1), callers=1)).complete


# ── Planted bugs ────────────────────────────────────────────────────────────────────────────────

Plant = Callable[[pytest.MonkeyPatch], None]
BUGS: dict[str, tuple[str, Profile, Plant]] = {}
"""What is wrong → the name of the invariant that must say so, where, and how it is brought about."""


def bug(invariant: str, **profile: Any) -> Callable[[Plant], Plant]:
    def register(plant: Plant) -> Plant:
        profile.setdefault("policy", policy())
        BUGS[plant.__name__] = (invariant, Profile(**profile), plant)
        return plant

    return register


def handler(patch: pytest.MonkeyPatch, event: type, wrapped: Callable[[Any, Core, Any, float], None]) -> None:
    """Have `wrapped(original, core, event, now)` handle this kind of event."""
    original = core_module._HANDLERS[event]
    patch.setitem(core_module._HANDLERS, event, lambda core, news, now: wrapped(original, core, news, now))


@bug("conservation", policy=policy(1, overflow=1, linger=1.0), callers=3)
def overflow_is_not_counted(patch: pytest.MonkeyPatch) -> None:
    count = Crew.size
    patch.setattr(Crew, "size", lambda crew, kind: 0 if kind is SlotKind.OVERFLOW else count(crew, kind))
    patch.setattr(Crew, "at_full_size", False)


@bug("conservation", faults=1, what=("garbage",))
def a_worker_is_gone_when_it_is_condemned(patch: pytest.MonkeyPatch) -> None:
    condemn = Crew.condemn

    def forget(crew: Crew, worker: Worker, cause: str, now: float, *, on_purpose: bool) -> None:
        condemn(crew, worker, cause, now, on_purpose=on_purpose)
        crew.slots.pop(worker.slot.index, None)

    patch.setattr(Crew, "condemn", forget)


@bug("exclusive_lease", cancel=True)
def who_leaves_keeps_the_worker(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Core, "_take_off", staticmethod(lambda worker, call: setattr(call, "worker", None)))


@bug("no_lost_worker")
def a_worker_that_was_given_back_is_not_idle(patch: pytest.MonkeyPatch) -> None:
    to_idle = Crew._to_idle
    patch.setattr(Crew, "_to_idle", lambda crew, worker, now: None if worker.served else to_idle(crew, worker, now))


@bug("no_lost_wakeup", policy=policy(1))
def nobody_is_woken_by_a_worker_that_is_given_back(patch: pytest.MonkeyPatch) -> None:
    settle = Core._settle

    def doze(core: Core, now: float) -> None:
        if core.crew.changed or not core.crew.has_idle:
            settle(core, now)

    patch.setattr(Core, "_settle", doze)


@bug("no_lost_wakeup", policy=policy(2))
def the_pool_does_not_grow(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Crew, "at_full_size", True)


@bug("departed_waiters_vanish", cancel=True)
def ghosts_stay_in_the_queue(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Waiters, "remove", lambda waiters, waiter: True)


@bug("one_deadline_bounds_it", deadline=10.0)
def the_time_starts_anew_with_the_worker(patch: pytest.MonkeyPatch) -> None:
    assign = Core._assign

    def generous(core: Core, call: Call, now: float) -> None:
        assign(core, call, now)
        core.timers.arm(call, call.deadline + 10.0)

    patch.setattr(Core, "_assign", generous)


@bug("one_deadline_bounds_it", deadline=10.0)
def deadlines_are_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    def deaf(original: Any, core: Core, event: ev.Tick, now: float) -> None:
        if core.crew.has_idle:
            original(core, event, now)

    handler(patch, ev.Tick, deaf)


@bug("cancelling_spares_the_start", cancel=True)
def who_leaves_takes_the_start_along(patch: pytest.MonkeyPatch) -> None:
    def greedy(original: Any, core: Core, event: ev.GiveUp, now: float) -> None:
        original(core, event, now)
        for worker in list(core.crew.workers()):
            if worker.state is WorkerState.INITIALIZING:
                core.crew.condemn(worker, "nobody waits for it", now, on_purpose=True)

    handler(patch, ev.GiveUp, greedy)


@bug("fifo_within_a_lane", policy=policy(1))
def last_come_first_served(patch: pytest.MonkeyPatch) -> None:
    def last(waiters: Waiters[Call]) -> Call:
        waiter = list(waiters)[-1]
        Waiters.remove(waiters, waiter)
        return waiter

    patch.setattr(Waiters, "pop", last)


@bug("fifo_within_a_lane", policy=policy(1), callers=4, kinds=("shared", "plain"))
def a_lane_is_emptied_before_the_next(patch: pytest.MonkeyPatch) -> None:
    def same(waiters: Waiters[Call]) -> Call:
        waiter = next(iter(waiters))
        Waiters.remove(waiters, waiter)
        return waiter

    patch.setattr(Waiters, "pop", same)


@bug("exactly_one_outcome", deadline=10.0)
def a_timeout_is_told_twice(patch: pytest.MonkeyPatch) -> None:
    conclude = Core._conclude

    def twice(core: Core, call: Call, verdict: Verdict, *rest: Any, **more: Any) -> None:
        conclude(core, call, verdict, *rest, **more)
        if verdict is Verdict.TIMED_OUT:
            core._effects.append(Answer(call, verdict))

    patch.setattr(Core, "_conclude", twice)


@bug("exactly_one_outcome", faults=1, what=("die",))
def a_call_is_forgotten_with_its_worker(patch: pytest.MonkeyPatch) -> None:
    def forget(core: Core, call: Call, worker: Worker, *rest: Any) -> None:
        worker.occupant = None
        del core.calls[call.id]

    patch.setattr(Core, "_lost", forget)


@bug("no_dirty_worker", cancel=True)
def the_worker_of_a_caller_who_left_is_used_again(patch: pytest.MonkeyPatch) -> None:
    condemn = Crew.condemn

    def spare(crew: Crew, worker: Worker, cause: str, now: float, *, on_purpose: bool) -> None:
        if worker.state is WorkerState.BUSY and on_purpose:
            crew.release(worker, now, unfit=False)
        else:
            condemn(crew, worker, cause, now, on_purpose=on_purpose)

    patch.setattr(Crew, "condemn", spare)


@bug("close_ends_everything", close=True)
def who_waits_is_not_told_that_the_pool_closes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Core, "_refuse_all", lambda core, verdict, now: None)


@bug("close_ends_everything", close=True)
def a_closing_pool_starts_workers(patch: pytest.MonkeyPatch) -> None:
    def reopen(original: Any, core: Core, event: ev.Close, now: float) -> None:
        original(core, event, now)
        core.crew.closing = False

    handler(patch, ev.Close, reopen)


@bug("close_ends_everything", close=True)
def closing_has_no_bound(patch: pytest.MonkeyPatch) -> None:
    def endless(original: Any, core: Core, event: ev.Close, now: float) -> None:
        original(core, event, now)
        core.timers.disarm(core._pool_alarm)

    handler(patch, ev.Close, endless)


@bug("not_ready_before_usable")
def a_worker_counts_from_its_start(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Crew, "usable", lambda crew: len(list(crew.workers())))
    add = Crew._add

    def count(crew: Crew, kind: SlotKind, now: float) -> None:
        add(crew, kind, now)
        crew.changed = True

    patch.setattr(Crew, "_add", count)


@bug("what_is_the_users_is_not_touched")
def results_are_looked_into(patch: pytest.MonkeyPatch) -> None:
    def curious(original: Any, core: Core, event: ev.Replied, now: float) -> None:
        assert str(event.reply)
        original(core, event, now)

    handler(patch, ev.Replied, curious)


@bug("dispatch_never_blocks")
def a_call_is_tied_to_a_worker_that_starts(patch: pytest.MonkeyPatch) -> None:
    def tie(original: Any, core: Core, event: ev.Submit, now: float) -> None:
        original(core, event, now)
        call = event.call
        for worker in core.crew.workers():
            if worker.state is WorkerState.INITIALIZING and worker.occupant is None and call in core.waiters:
                core.waiters.remove(call)
                CALL.step(call, CallTrigger.ASSIGN, now)
                call.worker, worker.occupant = worker, call

    handler(patch, ev.Submit, tie)


@bug("destruction_is_idempotent", kinds=("lease",), faults=1, what=("garbage",))
def who_is_killed_and_given_back_is_asked_to_go(patch: pytest.MonkeyPatch) -> None:
    def gullible(original: Any, core: Core, event: ev.Checkin, now: float) -> None:
        worker = event.lease.worker
        original(core, event, now)
        if worker is not None and worker.call is None:
            core.crew.release(worker, now, unfit=False)

    handler(patch, ev.Checkin, gullible)


@bug("nothing_dead_on_arrival", policy=policy(1), deadline=10.0)
def work_is_handed_out_without_a_look_at_the_clock(patch: pytest.MonkeyPatch) -> None:
    def hasty(core: Core, now: float) -> None:
        while core.waiters and core.crew.has_idle:
            core._assign(core.waiters.pop(), now)

    patch.setattr(Core, "_dispatch", hasty)


@bug("time_is_monotonic")
def one_handler_has_a_clock_of_its_own(patch: pytest.MonkeyPatch) -> None:
    handler(patch, ev.Initialized, lambda original, core, event, now: original(core, event, now + 1e9))


@bug("only_legal_steps", close=True)
def a_worker_is_checked_in_twice(patch: pytest.MonkeyPatch) -> None:
    def twice(original: Any, core: Core, event: ev.Replied, now: float) -> None:
        original(core, event, now)
        core.crew.release(event.worker, now, unfit=False)

    handler(patch, ev.Replied, twice)


@bug("never_breaks_down", cancel=True)
def a_bug_in_the_code(patch: pytest.MonkeyPatch) -> None:
    handler(patch, ev.GiveUp, lambda original, core, event, now: core.calls.pop(-1))


@bug("dead_end", faults=1, what=("die",), callers=1)
def nobody_wakes_a_slot_that_backs_off(patch: pytest.MonkeyPatch) -> None:
    arm = Timers.arm
    patch.setattr(Timers, "arm", lambda timers, armed, due: None if type(armed) is Slot else arm(timers, armed, due))


@bug("wedge", faults=1, what=("die",), callers=1, cancel=True)
def nobody_wakes_it_and_only_patience_ends(patch: pytest.MonkeyPatch) -> None:
    nobody_wakes_a_slot_that_backs_off(patch)


@bug("wedge", close=True)
def the_end_is_not_told(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Core, "_end", lambda core, now: core._effects.append(Closed()))


@bug("dishonest_key", policy=policy(health=CHECKED, min_workers=2), callers=1)
def a_key_that_only_ranks_due_times(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(World, "_offsets", lambda world: iter(()))


@bug("dishonest_key", policy=policy(1), calls=2)
def a_key_that_does_not_know_who_may_call(patch: pytest.MonkeyPatch) -> None:
    key = World.key

    def blunt(world: World) -> Hashable:
        numbers = [caller.calls for caller in world.callers]
        for caller in world.callers:
            caller.calls = 0
        try:
            return key(world)
        finally:
            for caller, calls in zip(world.callers, numbers, strict=True):
                caller.calls = calls

    patch.setattr(World, "key", blunt)


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_called_by_its_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    invariant, profile, plant = BUGS[name]
    with monkeypatch.context() as patch:
        plant(patch)
        found = walk(profile, max_states=6000, distrust=3 if invariant == "dishonest_key" else 0)
        assert [fault.name for fault in found.faults] == [invariant], list(map(str, found.faults))
        path = found.faults[0].path
        if invariant in NUMBERS and path:  # the way there is real, and every step of it is needed
            world = replay(lambda: World(profile), path[:-1])
            with pytest.raises(InvariantViolated) as violated:
                world.do(path[-1])
            assert violated.value.name == invariant
    sound = walk(profile, max_states=1500)  # it was the bug, and not the world
    assert not sound.faults, str(sound.faults[0])


def test_there_is_a_bug_for_every_invariant() -> None:
    assert set(NUMBERS) <= {invariant for invariant, _, _ in BUGS.values()}


def test_the_way_to_a_bug_is_the_shortest_and_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    invariant, profile, plant = BUGS["who_is_killed_and_given_back_is_asked_to_go"]
    plant(monkeypatch)
    fault = walk(profile).faults[0]
    assert (fault.name, len(fault.path)) == (invariant, 4)
    assert str(fault).splitlines()[1:] == [
        "  1. come up 0",
        "  2. call 0 lease",
        "  3. write garbage 0",
        "  4. give back 0",
    ]


def test_a_bug_at_the_very_first_event_is_a_fault_without_a_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Crew, "_close_slot", None)
    monkeypatch.setattr(Crew, "_start_some", lambda crew, now: [slot for slot in crew.slots.values() if 1 / 0])
    assert [(fault.name, fault.path) for fault in walk(Profile(policy=policy())).faults] == [("never_breaks_down", ())]


# ── Other models ────────────────────────────────────────────────────────────────────────────────


class Counter(msgspec.Struct):
    """A model that has nothing to do with pools: it counts, and must not get to `worst`."""

    worst: int = 100
    at: int = 0

    def actions(self) -> Sequence[int]:
        return [1, 2] if self.at < 8 else []

    def natural_actions(self) -> Sequence[int]:
        return self.actions()

    def do(self, action: int) -> None:
        self.at += action
        if self.at == self.worst:
            raise InvariantViolated("worst", "it came to the worst")

    redo = do

    def key(self) -> Hashable:
        return self.at

    def pending(self) -> bool:
        return self.at == 9

    def sights(self) -> Iterable[str]:
        return ["even" if self.at % 2 == 0 else "odd"]


def test_any_model_can_be_walked() -> None:
    found = explore(Counter)
    assert (found.states, found.steps, found.complete) == (10, 16, True)
    assert found.seen == {"even": 5, "odd": 5}
    assert [(fault.name, fault.path) for fault in found.faults] == [("dead_end", (1, 2, 2, 2, 2))]


def test_a_walk_may_go_on_behind_a_violation() -> None:
    first = explore(lambda: Counter(worst=4))
    assert [(fault.name, fault.path) for fault in first.faults] == [("worst", (2, 2))]
    assert not first.complete
    everything = explore(lambda: Counter(worst=4), stop_at_first=False)
    assert [fault.name for fault in everything.faults] == ["worst", "dead_end"]
    assert everything.complete
    assert everything.states == 9


def test_what_a_walk_has_seen_is_what_there_was() -> None:
    found = walk(Profile(policy=policy(1), callers=1))
    assert found.actions["come up"] and found.actions["call"] and found.actions["answer"]
    states = {f"worker {state}" for state in (WorkerState.INITIALIZING, WorkerState.READY, WorkerState.BUSY)}
    assert {s for s in found.seen if s.startswith("worker")} == states
    assert {s for s in found.seen if s.startswith("slot")} == {
        f"slot {s}" for s in SlotState if s in ("starting", "serving")
    }
    assert {s for s in found.seen if s.startswith("call")} == {f"call {CallState.QUEUED}", f"call {CallState.ASSIGNED}"}
