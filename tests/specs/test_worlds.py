"""Every state of small pools: what must be true of them is, and there are as many as there were."""

from __future__ import annotations

import os
import random

import pytest

from remuda.specs import deep
from remuda.specs.explorer import explore, replay
from remuda.specs.model import FAULTS, Profile, World
from remuda.specs.pool_model import SIGHTS, PoolModel
from remuda.statemachines.breaker import BreakerState
from remuda.statemachines.core import Core
from remuda.statemachines.pool import PoolState
from remuda.statemachines.waiters import Waiters
from remuda.statemachines.worker import WorkerState
from tests.specs.pools import CHECKED, ONCE, SMALL, policy

DEEPER = os.environ.get("REMUDA_TEST_DEPTH", "1") != "1"
LONG = {
    "everything but faults, two workers",
    "everything, one worker",
    "interrupts of a pool that closes",
    "interrupts on checkouts",
}
"""Take most of the time of all; `make fuzz` walks through them."""


@pytest.mark.parametrize("name", [name for name in SMALL if DEEPER or name not in LONG])
def test_everything_holds_in_exactly_so_many_states(name: str) -> None:
    small = SMALL[name]
    found = explore(PoolModel(small.profile, small.sights), distrust=200).check()
    assert (found.states, found.steps) == (small.states, small.steps)


def test_the_pools_have_every_kind_of_trouble() -> None:
    profiles = [small.profile for small in SMALL.values()]
    assert {kind for p in profiles if p.faults for kind in p.what} == set(FAULTS)
    assert {kind for p in profiles for kind in p.kinds} == {
        "plain", "idempotent", "session", "shared", "lease", "soft",
    }  # fmt: skip

    assert all(any(getattr(p, move) for p in profiles) for move in ("cancel", "close", "look", "retire", "suspend"))


NEVER = {
    "breaker forced_open", "breaker disabled",  # nobody forces it
    "worker terminated", "slot closed",  # it has left the crew by then
    *(f"{kind} {state}" for kind in ("call", "lease")
      for state in ("succeeded", "failed", "unknown", "rejected", "timed_out", "cancelled")),  # it has left the core
    "lease backing_off",  # a checkout is not repeated
    "lease assigned",  # who is given a worker has it
}  # fmt: skip
"""What cannot be seen, and why."""


def test_what_can_be_seen_in_a_pool_is_seen_in_one_of_them() -> None:
    wanted = set().union(*(small.sights for small in SMALL.values()))
    first = explore(PoolModel(SMALL["close"].profile, SIGHTS), stop_at_first=False)
    assert wanted | set(first.seen) == set(SIGHTS) - NEVER


def test_a_walk_that_is_cut_short_says_so() -> None:
    found = explore(PoolModel(SMALL["crashes"].profile), max_states=100)
    assert (found.states, found.complete, found.ok) == (100, False, False)
    assert len(found.undecided) == 3


def test_callers_and_workers_are_interchangeable() -> None:
    two = Profile(policy=policy(2, min_workers=2), callers=2)
    one, other = World(two), World(two)
    for action in ("come up", 0), ("call", 0, "plain"):
        one.do(action)
    for action in ("come up", 1), ("call", 1, "plain"):
        other.do(action)
    assert one.key() == other.key()
    assert one.core.key(one.now) == other.core.key(other.now)
    for world, caller in (one, 0), (other, 0):
        if world.callers[caller].call is None:
            world.do(("call", caller, "plain"))
    assert one.key() != other.key()


def test_a_copy_of_a_world_is_like_it_and_its_own() -> None:
    """Along random paths: a copy, and a world that was led there anew, do the same; the original is left alone."""
    chance = random.Random(3)
    for name in ("sessions", "close with leases", "health of two", "retries"):
        profile = SMALL[name].profile
        for _ in range(20):
            world, path = World(profile), []
            while (actions := world.actions()) and len(path) < 15:
                action = chance.choice(actions)
                copy, before = world.copy(), world.key()
                assert copy.key() == before
                assert copy.actions() == actions
                copy.do(action)
                assert world.key() == before
                path.append(action)
                world.do(action)
                assert copy.key() == world.key() == replay(PoolModel(profile), path).key()
                if chance.random() < 0.5:
                    world = copy


def test_the_deep_walk_reports_and_says_whether_all_is_well(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert deep.main(["crowd", "--states", "50"]) == 0
    assert "50 states (not all there are)" in capsys.readouterr().out
    assert deep.main(["--list"]) == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == list(deep.POOLS)
    with pytest.raises(SystemExit):
        deep.main(["puddle"])
    monkeypatch.setattr(Waiters, "remove", lambda waiters, waiter: True)
    assert deep.main(["crowd", "--states", "50"]) == 1
    assert "departed_waiters_vanish" in capsys.readouterr().out


# ── What the model checker has found ────────────────────────────────────────────────────────────


def led(profile: Profile, *path: tuple[str | int, ...]) -> Core:
    """The core of a world that has gone this way."""
    world = World(profile)
    for action in path:
        world.do(action)
    return world.core


def test_a_breaker_that_opens_while_work_is_handed_out_is_seen_to() -> None:
    """A call that had been tried before timed out in its lane, which opened the breaker; nobody set its alarm."""
    profile = Profile(
        policy=policy(1, breaker=ONCE), callers=1, kinds=("idempotent",), faults=1, what=("die",), deadline=5.0
    )
    begun = ("come up", 0), ("call", 0, "idempotent"), ("exit", 0, "begun")
    core = led(profile, *begun, ("wait",), ("tick",), ("wait",), ("come up", 0))
    assert core.breaker.state is BreakerState.OPEN
    assert core.pool.state is PoolState.IMPAIRED
    assert core.next_due() == core.breaker.next_due() == 25.0


def test_a_worker_that_is_given_back_at_work_may_finish() -> None:
    """Its alarm of idle days came up while it drained, and was taken for a health check that had failed."""
    profile = Profile(policy=policy(1, health=CHECKED), callers=1, kinds=("lease",), calls=2)
    held = ("come up", 0), ("call", 0, "lease"), ("call", 0, "on its lease"), ("give back", 0)
    core = led(profile, *held, ("wait",), ("tick",))
    assert [worker.state for worker in core.crew.workers()] == [WorkerState.DRAINING]
    assert core.calls
