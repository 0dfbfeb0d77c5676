"""Larger pools than a test suite has time for: `python -m remuda.specs.deep` (`make explore`).

Each is explored to its end or to a bound, whichever comes first, and it is said which. A walk that is cut
short has still seen every state that is nearer than the ones it left out; what is to come *eventually*
can then not be decided.

    python -m remuda.specs.deep                      the small and the medium ones
    python -m remuda.specs.deep crowd --states 3000000
    python -m remuda.specs.deep --list

It needs some hundred bytes for each state, and some kilobytes for each of the 20 000 that it keeps as they are.
Exit status 1: something does not hold, or was to be seen and is not. 0 otherwise, also if it was cut short.
"""

from __future__ import annotations

import argparse
import math
import resource
import sys
from collections.abc import Sequence

from remuda.specs.explorer import Exploration, Progress, explore
from remuda.specs.model import Profile
from remuda.specs.pool_model import PoolModel
from remuda.statemachines.policy import Breaker, Health, Policy, Restart, Retry

__all__ = ["POOLS", "main"]


def _policy(workers: int, *, min_workers: int = 1, health: float = math.inf) -> Policy:
    return Policy(
        min_workers=min_workers,
        max_workers=workers,
        health=Health(interval=health, timeout=5, failures=2, recheck=3),
        breaker=Breaker(failures=2, probes=1, open_for=20),
        restart=Restart(base=1, cap=2, burst=1, period=10),
        retry=Retry(attempts=2, base=1, cap=1, handovers=1),
        shutdown_timeout=5,
        history=1,
    )


_SESSIONS = ("shared", "shared too")

POOLS: dict[str, Profile] = {
    "deadlines": Profile(policy=_policy(1), calls=2, cancel=True, deadline=10.0, faults=1),
    "sessions": Profile(policy=_policy(2), callers=3, kinds=_SESSIONS, cancel=True, faults=1, what=("die",)),
    "health": Profile(policy=_policy(2, min_workers=2, health=30), faults=2, what=("check", "unfit", "die")),
    "everything": Profile(
        policy=_policy(2), cancel=True, retire=1, suspend=1, close=True, faults=1, what=("die", "boot", "hang")
    ),
    "crowd": Profile(policy=_policy(3), callers=3, kinds=_SESSIONS, cancel=True, faults=2, what=("die",)),
    "crowd that closes": Profile(
        policy=_policy(3), callers=3, kinds=_SESSIONS, cancel=True, retire=1, suspend=1, close=True, faults=2
    ),
}
"""By name, from small to large. The last two have three workers, three callers, two sessions, two faults."""

_USUAL = ("deadlines", "sessions", "health", "everything", "crowd")


def main(arguments: Sequence[str] | None = None) -> int:
    """Explore and report.

    Args:
        arguments: of the command line; those of the process if None.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m remuda.specs.deep", description="Explore pools of some size.")
    parser.add_argument("pool", nargs="*", metavar="POOL", help=f"which; usually {', '.join(_USUAL)}")
    parser.add_argument("--states", type=int, default=400_000, help="at most, of each (default: %(default)s)")
    parser.add_argument("--distrust", type=int, default=2000, help="look at the key again, each so many times")
    parser.add_argument("--list", action="store_true", help="say what there is, and do nothing")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.pool if name not in POOLS]:
        parser.error(f"there is no pool {unknown[0]!r}; there are {', '.join(POOLS)}")
    if options.list:
        for name, profile in POOLS.items():
            print(f"{name}: {_words(profile)}")
        return 0
    good = True
    for name in options.pool or _USUAL:
        print(f"{name}: {_words(POOLS[name])}", flush=True)
        found = explore(
            PoolModel(POOLS[name]),
            max_states=options.states,
            distrust=options.distrust,
            compact=True,
            keep=20_000,
            progress=_tell,
        )
        print(f"{found}\n{_cost(found)}\n", flush=True)
        good = good and not found.counterexamples and not found.missing
    return 0 if good else 1


def _words(profile: Profile) -> str:
    moves = [
        name for name in ("cancel", "look", "retire", "suspend", "end_sessions", "close") if getattr(profile, name)
    ]
    trouble = f"{profile.faults} faults of {', '.join(profile.what)}" if profile.faults else "no faults"
    return (
        f"{profile.policy.max_workers} workers, {profile.callers} callers with {profile.calls} calls "
        f"({', '.join(profile.kinds)}), {trouble}; {', '.join(moves) or 'no other moves'}"
    )


def _tell(progress: Progress) -> None:
    print(
        f"  {progress.states:>10,} states, {progress.waiting:>9,} of them to go, "
        f"{progress.steps:>11,} steps, {progress.seconds:>7.0f} s",
        flush=True,
    )


def _cost(found: Exploration) -> str:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    memory = most / (1024 * 1024 if sys.platform == "darwin" else 1024)  # bytes there, kilobytes elsewhere
    return f"{found.steps / max(found.seconds, 1e-9):,.0f} steps a second, {memory:,.0f} MB at most so far"


if __name__ == "__main__":
    sys.exit(main())
