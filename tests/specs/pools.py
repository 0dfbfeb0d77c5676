"""Small pools, each with its own kind of trouble, and how many states each of them has.

The counts are exact. They are the regression test of the model and of its key: a change of the core
that adds a way, loses one, or makes the key coarser changes a number here, and has to say why. To
see them all again: `python -m pytest tests/specs/test_worlds.py -k exactly`.
"""

from __future__ import annotations

import math

import msgspec

from remuda.specs.model import Profile
from remuda.statemachines.policy import Breaker, Health, Policy, Restart, Retry

CHECKED = Health(interval=30, timeout=5, failures=2, recheck=3)
ONCE = Breaker(failures=1, probes=1, open_for=20)


def policy(
    max_workers: int = 2,
    *,
    min_workers: int = 1,
    overflow: int = 0,
    spares: int = 0,
    linger: float = 0.0,
    max_starting: int = 4,
    max_waiting: int = 1000,
    session_ttl: float = 300.0,
    health: Health = Health(interval=math.inf, timeout=5, failures=2, recheck=3),
    breaker: Breaker = Breaker(failures=2, probes=1, open_for=20),
    burst: int = 2,
) -> Policy:
    """Numbers that are soon reached: two restarts, two failures, one handover, two attempts."""
    return Policy(
        min_workers=min_workers,
        max_workers=max_workers,
        overflow=overflow,
        spares=spares,
        linger=linger,
        max_starting=max_starting,
        max_waiting=max_waiting,
        session_ttl=session_ttl,
        health=health,
        breaker=breaker,
        restart=Restart(base=1, cap=2, burst=burst, period=10),
        retry=Retry(attempts=2, base=1, cap=1, handovers=1),
        init_timeout=60,
        shutdown_timeout=5,
        history=1,
    )


class Small(msgspec.Struct):
    """A world that can be seen whole.

    Args:
        profile: which.
        states, steps: how many there are, exactly.
        sights: what it is there for, of `remuda.specs.pool_model.SIGHTS`.
    """

    profile: Profile
    states: int
    steps: int
    sights: set[str]


SMALL: dict[str, Small] = {
    "crashes": Small(
        Profile(policy=policy(burst=1), faults=2, what=("die",)),
        569,
        1_131,
        {"pool failed", "answer pool_failed", "answer unknown", "answer died", "slot backoff", "slot quarantined"},
    ),
    "retries": Small(
        Profile(policy=policy(), callers=1, calls=2, kinds=("idempotent",), faults=2, what=("die",)),
        144,
        201,
        {"call backing_off", "answer unknown", "slot backoff"},
    ),
    "retries in time": Small(
        Profile(
            policy=policy(1, breaker=ONCE), callers=1, calls=2, kinds=("idempotent",), faults=1, what=("die",),
            deadline=5.0,
        ),
        362,
        726,
        {"call backing_off", "answer timed_out", "breaker open", "breaker half_open"},
    ),
    "channel": Small(
        Profile(policy=policy(), kinds=("idempotent",), faults=1, what=("garbage", "hang up"), look=True),
        350,
        836,
        {"call backing_off", "call running", "stop kill"},
    ),
    "garbage": Small(
        Profile(policy=policy(1), faults=1, what=("garbage",), calls=2),
        182,
        308,
        {"answer violation", "answer answered"},
    ),
    "boot": Small(
        Profile(policy=policy(burst=1), callers=1, faults=2, what=("boot", "hang", "die")),
        136,
        221,
        {"pool failed", "answer pool_failed", "slot quarantined", "slot starting"},
    ),
    "boot, one by one": Small(
        Profile(policy=policy(3, min_workers=3, max_starting=1), callers=1, faults=1, what=("boot", "die")),
        142,
        277,
        {"pool failed", "pool impaired", "slot backoff", "worker initializing"},
    ),
    "timeouts": Small(
        Profile(policy=policy(), cancel=True, deadline=10.0, faults=1, what=("die",)),
        1_468,
        4_585,
        {"answer timed_out", "answer cancelled", "answer answered", "breaker open", "breaker half_open"},
    ),
    "breaker": Small(
        Profile(policy=policy(1, breaker=ONCE), callers=2, calls=2, deadline=10.0, cancel=True),
        650,
        2_251,
        {"answer timed_out", "answer circuit_open", "breaker open", "breaker half_open", "pool impaired"},
    ),
    "full": Small(
        Profile(policy=policy(1, max_waiting=1), callers=3, cancel=True),
        43,
        111,
        {"answer full", "answer cancelled"},
    ),
    "lease": Small(
        Profile(policy=policy(), cancel=True, kinds=("lease",), calls=2),
        725,
        2_650,
        {"lease queued", "lease running", "answer granted", "answer returned", "worker draining", "answer cancelled"},
    ),
    "lost leases": Small(
        Profile(policy=policy(1), deadline=10.0, kinds=("lease",), calls=2, faults=1, what=("die", "garbage")),
        2_027,
        5_315,
        {"answer granted", "answer died", "answer unknown", "answer violation", "answer timed_out"},
    ),
    "leases and calls": Small(
        Profile(policy=policy(1), kinds=("lease", "plain"), calls=2, faults=1, what=("unfit",), retire=1),
        1_793,
        4_727,
        {"lease running", "worker draining", "stop ask", "stop term", "stop kill"},
    ),
    "leases, checked": Small(
        Profile(policy=policy(1, health=CHECKED), callers=1, kinds=("lease", "plain"), calls=3, retire=1),
        1_023,
        2_482,
        {"lease running", "worker draining", "worker checking"},
    ),
    "health": Small(
        Profile(policy=policy(1, health=CHECKED), faults=2, what=("check", "unfit", "hang")),
        547,
        1_181,
        {"worker checking", "worker degraded", "pool impaired"},
    ),
    "health of two": Small(
        Profile(policy=policy(min_workers=2, health=CHECKED), callers=1, faults=2, what=("check", "unfit")),
        1_713,
        3_052,
        {"worker checking", "worker degraded", "worker terminating"},
    ),
    "close": Small(
        Profile(policy=policy(), close=True, faults=1, what=("die",)),
        1_050,
        2_904,
        {"pool draining", "pool closed", "answer closed", "abandon", "worker draining"},
    ),
    "close with leases": Small(
        Profile(policy=policy(1), close=True, kinds=("plain", "lease"), faults=1, what=("die",)),
        561,
        1_551,
        {"pool closed", "answer closed", "answer granted", "answer died", "abandon"},
    ),
    "suspend": Small(
        Profile(policy=policy(1), suspend=1, cancel=True, faults=1, what=("die",)),
        374,
        1_019,
        {"pool suspended", "slot backoff", "answer cancelled"},
    ),
    "overflow": Small(
        Profile(policy=policy(1, overflow=1, linger=2.0), cancel=True),
        365,
        981,
        {"stop ask", "answer cancelled"},
    ),
    "overflow that dies": Small(
        Profile(policy=policy(1, overflow=1, linger=2.0, burst=1), faults=1, what=("die",)),
        1_620,
        3_222,
        {"slot backoff", "stop ask"},
    ),
    "a spare": Small(
        Profile(policy=policy(1, spares=1, burst=1), callers=1, faults=2, what=("die", "boot"), cancel=True),
        515,
        1_420,
        {"a spare is ready", "slot backoff", "answer unknown", "answer cancelled"},
    ),
    "a spare for a larger pool": Small(
        Profile(policy=policy(2, spares=1), callers=2, retire=1),
        562,
        1_651,
        {"a spare is ready", "worker draining"},
    ),
    "a spare under suspicion": Small(
        Profile(policy=policy(1, spares=1, health=CHECKED), callers=1, faults=2, what=("unfit", "check")),
        1_297,
        2_391,
        {"a spare is ready", "worker degraded", "worker checking"},
    ),
    "a spare that closes": Small(
        Profile(policy=policy(1, spares=1), callers=1, faults=1, what=("die",), close=True),
        800,
        2_131,
        {"a spare is ready", "pool closed"},
    ),
    "sessions": Small(
        Profile(policy=policy(session_ttl=7.0), kinds=("session", "plain"), end_sessions=1),
        268,
        675,
        {"call queued", "answer answered", "two sessions"},
    ),
    "lanes": Small(
        Profile(policy=policy(1), callers=3, kinds=("shared", "plain"), deadline=10.0),
        1_464,
        3_672,
        {"call queued", "answer answered", "answer timed_out"},
    ),
    "interrupts": Small(
        Profile(policy=policy(1), kinds=("soft",), deadline=10.0, cancel=True, faults=1, what=("die", "unfit")),
        682,
        1_832,
        {"worker interrupting", "answer timed_out", "answer cancelled", "stop ask", "stop kill"},
    ),
    "interrupts of two": Small(
        Profile(policy=policy(), kinds=("soft", "plain"), deadline=10.0, cancel=True),
        714,
        2_206,
        {"worker interrupting", "stop kill"},
    ),
    "interrupts on checkouts": Small(
        Profile(
            policy=policy(1), callers=1, calls=3, kinds=("lease", "soft"), deadline=10.0, cancel=True, retire=1,
        ),
        2_980,
        10_085,
        {"worker interrupting", "worker draining", "lease running", "answer died"},
    ),
    "interrupts, garbled": Small(
        Profile(
            policy=policy(1), callers=1, calls=3, kinds=("soft", "lease"), cancel=True, faults=1,
            what=("garbage", "hang up"),
        ),
        1_021,
        2_885,
        {"worker interrupting", "answer violation"},
    ),
    "interrupts of a pool that closes": Small(
        Profile(policy=policy(1), kinds=("soft", "lease"), deadline=10.0, cancel=True, retire=1, close=True),
        2_640,
        10_181,
        {"worker interrupting", "pool closed", "abandon"},
    ),
    "everything, one worker": Small(
        Profile(policy=policy(1, burst=1), faults=1, cancel=True, retire=1, suspend=1, close=True),
        8_105,
        29_038,
        {"pool closed", "pool suspended", "pool failed", "answer cancelled", "answer violation", "worker draining"},
    ),
    "everything but faults, two workers": Small(
        Profile(policy=policy(burst=1), cancel=True, retire=1, suspend=1, close=True),
        3_257,
        14_026,
        {"pool closed", "pool suspended", "answer cancelled", "worker draining", "abandon"},
    ),
}  # fmt: skip
