"""Every step that a lifecycle declares is taken in the simulated world, or is known not to be, and why.

The scenarios are moves of `PoolRules`, as a search would print them: what chance reaches differs from one
version to the next, and this must not. Each ends as every run does, with a pool that is whole again.
"""

from __future__ import annotations

from typing import Any

import trio
from trio.testing import MockClock

from remuda.cli.fuzz import declared_steps
from remuda.runtime.config import Breaker, Health, Restart, Retry
from remuda.runtime.opening import open_pool
from remuda.specs.behaviour import Behaviour, Hang
from remuda.specs.forking_rules import ForkingRules
from remuda.specs.rules import PoolRules, Request
from remuda.specs.simulated import SimLauncher
from remuda.specs.watch import Watch

Pair = tuple[str, str, str]

BY_HAND = "the breaker is told so by hand, and a pool has no way to do that yet"
LATE = "the core drops late news of a worker that is on its way out, before they become a step"
ONLY_CHANGES = "the core asks for this step only when the state changes by it"
AT_ONCE = "one that must not fork retires in the same breath"
RETIRED_OR_FAILED = "only a worker that has not come up is ended by `terminate`; the others retire or fail"

UNREACHED: dict[Pair, str] = {
    **{
        ("breaker", state, trigger): BY_HAND
        for state in ("closed", "open", "half_open", "forced_open", "disabled")
        for trigger in ("force_open", "disable", "reset")
    },
    **{
        ("worker", "terminating", trigger): LATE
        for trigger in (
            *("init_complete", "checkout", "checkin", "checkin_error", "begin_check", "health_check_passed"),
            *("health_check_failed", "interrupt", "interrupted", "retire", "fail", "terminate"),
        )
    },
    **{
        ("worker", state, "terminate"): RETIRED_OR_FAILED
        for state in ("ready", "busy", "checking", "interrupting", "degraded", "draining")
    },
    ("worker", "initializing", "retire"): "nothing retires a worker that has not come up",
    ("pool", "draining", "drain"): ONLY_CHANGES,
    ("pool", "failed", "fail"): ONLY_CHANGES,
    ("pool", "impaired", "impair"): ONLY_CHANGES,
    ("pool", "ready", "become_ready"): ONLY_CHANGES,
    ("pool", "starting", "impair"): "a pool that starts becomes ready or fails; nobody has it before",
    ("slot", "starting", "restart"): "what is ended on purpose while it starts is stopped first",
    ("slot", "backoff", "quarantine"): "a token is taken before the pause, not behind it",
    **{("template", "unfit", trigger): AT_ONCE for trigger in ("fork", "refuse", "exited")},
    ("template", "retiring", "retire"): "who takes over from it, or closes the pool, has let go of it by then",
    **{("template", "retiring", trigger): "nobody waits for its imports any more" for trigger in ("prepared", "fail")},
}
"""Declared, and never taken. An entry that is taken after all fails the test."""

SOON = Health(interval=2.0, timeout=1.0, failures=3, recheck=50.0)
PATIENT = Retry(base=50.0, cap=50.0)
STRICT = Restart(base=1.0, cap=5.0, burst=1, period=1000.0)
BRITTLE = Breaker(failures=1, probes=2, open_for=5.0)
INTERRUPT: dict[str, Any] = {"on_timeout": "interrupt"}
HASTY = Restart(base=0.001, cap=0.001, burst=2, period=1000.0)


def act(plan: str, seconds: float = 0.0, *, again: bool = False) -> Request:
    return Request("act_again" if again else "act", {"plan": plan, "seconds": seconds})


DIE: dict[str, Any] = {"request": act("die"), "timeout": None}
ANSWER: dict[str, Any] = {"request": act("answer"), "timeout": None}
SLOW: dict[str, Any] = {"request": act("slow", 30.0), "timeout": None}

SCENARIOS: dict[str, tuple[dict[str, Any], list[str], list[tuple[str, dict[str, Any]]]]] = {
    # name: fields of the configuration, how the first workers start, the moves
    "a call that had not begun when its pool closed": (
        {},
        [],
        [
            ("stop_a_worker", {"which": 0}),
            ("call", {"request": act("answer"), "timeout": None}),
            ("close", {"luck": 0}),
            ("crash_a_busy_worker", {"which": 0}),
        ],
    ),
    "a call is cancelled between attempts": (
        {"retry": PATIENT},
        [],
        [("call", {"request": act("die", again=True), "timeout": None}), ("hang_up", {"which": 0})],
    ),
    "a call passes its deadline between attempts": (
        {"retry": PATIENT},
        [],
        [
            ("call", {"request": act("die", again=True), "timeout": 1.0}),
            ("time_passes", {"seconds": 3.0}),
        ],
    ),
    "a pool closes while a call is between attempts": (
        {"retry": PATIENT},
        [],
        [("call", {"request": act("die", again=True), "timeout": None}), ("close", {"luck": 0})],
    ),
    "a pool closes with a worker that is degraded": (
        {"health": SOON},
        ["is unwell"],
        [("time_passes", {"seconds": 3.0}), ("close", {"luck": 0})],
    ),
    "a degraded worker dies": (
        {"health": SOON},
        ["is unwell"],
        [("time_passes", {"seconds": 3.0}), ("crash_a_worker_that_is_checked", {"which": 0})],
    ),
    "a degraded worker dies, and a child of it holds its channel": (
        {"health": SOON},
        ["leaves a child"],
        [
            ("call", {"request": act("unfit"), "timeout": None}),
            ("crash_a_worker_that_is_checked", {"which": 0}),
        ],
    ),
    "a pool closes while a worker that is unwell is asked": (
        {"health": SOON},
        ["is unwell"],
        [("time_passes", {"seconds": 2.2}), ("close", {"luck": 0})],
    ),
    "a pool closes while a worker is asked": (
        {"health": SOON},
        ["is narrow"],
        [("time_passes", {"seconds": 2.001}), ("close", {"luck": 0})],
    ),
    "a worker is unfit at its last call": (
        {},
        [],
        [("call", {"request": act("unfit", 1.0), "timeout": None}), ("close", {"luck": 0})],
    ),
    "a worker dies at its last call, and a child of it holds its channel": (
        {},
        ["leaves a child"],
        [
            ("call", {"request": act("slow", 3.0), "timeout": None}),
            ("close", {"luck": 0}),
            ("crash_a_busy_worker", {"which": 0}),
        ],
    ),
    "a worker dies while it is asked, and a child of it holds its channel": (
        {"health": SOON},
        ["leaves a child"],
        [
            ("stop_a_worker", {"which": 0}),
            ("time_passes", {"seconds": 2.5}),
            ("crash_a_worker_that_is_checked", {"which": 0}),
        ],
    ),
    "a worker dies at its start again and again, and a child of it holds its channel": (
        {"restart": HASTY},
        ["slow", "leaves a child", "leaves a child"],
        [
            ("crash_an_idle_worker", {"which": 0}),
            ("time_passes", {"seconds": 0.01}),
            ("crash_a_worker_that_starts", {"which": 0}),
            ("time_passes", {"seconds": 0.01}),
            ("crash_a_worker_that_starts", {"which": 0}),
        ],
    ),
    "a call that has not begun is cancelled": (
        {},
        [],
        [
            ("stop_a_worker", {"which": 0}),
            ("call", {"request": act("answer"), "timeout": None}),
            ("hang_up", {"which": 0}),
        ],
    ),
    "a call that has not begun passes its deadline": (
        {},
        [],
        [
            ("stop_a_worker", {"which": 0}),
            ("call", {"request": act("answer"), "timeout": 1.0}),
            ("time_passes", {"seconds": 3.0}),
        ],
    ),
    "a pool closes while a call runs to its end": (
        {},
        [],
        [("call", {"request": act("slow", 1.0), "timeout": None}), ("close", {"luck": 0})],
    ),
    "a pool closes while a worker waits for its turn to start": (
        {"max_workers": 3, "start_concurrency": 1},
        ["is narrow", "slow"],
        [
            ("call_at_the_same_time", {"requests": [act("slow", 3.0)] * 3}),
            ("close", {"luck": 0}),
        ],
    ),
    "a worker fails while it is degraded": (
        {"health": SOON},
        ["is unwell"],
        [("time_passes", {"seconds": 3.0}), ("half_a_frame_from_a_worker", {"which": 0})],
    ),
    "the budget is spent when the last worker dies": (
        {"restart": STRICT},
        ["leaves a child", "leaves a child"],
        [
            ("crash_an_idle_worker", {"which": 0}),
            ("time_passes", {"seconds": 10.0}),
            ("crash_an_idle_worker", {"which": 0}),
        ],
    ),
    "a pool closes while it is impaired": (
        {"breaker": Breaker(failures=1)},
        [],
        [("call", {"request": act("die"), "timeout": None}), ("close", {"luck": 0})],
    ),
    "a pool closes while it is suspended": ({}, [], [("suspend", {}), ("close", {"luck": 0})]),
    "a pool is suspended while it is impaired, and goes on": (
        {"breaker": BRITTLE},
        [],
        [("call", {"request": act("die"), "timeout": None}), ("suspend", {}), ("resume", {})],
    ),
    "the breaker's probe fails": (
        {"breaker": BRITTLE},
        [],
        [("call", DIE), ("time_passes", {"seconds": 10.0}), ("call", DIE)],
    ),
    "the breaker's probes succeed": (
        {"breaker": BRITTLE},
        [],
        [("call", DIE), ("time_passes", {"seconds": 10.0}), ("call", ANSWER), ("call", ANSWER)],
    ),
    "a call kills every worker that it is given to": (
        {"retry": Retry(handovers=1)},
        [],
        [("call", {"request": act("die before"), "timeout": None}), ("time_passes", {"seconds": 30.0})],
    ),
    "a call is repeated": (
        {},
        [],
        [
            ("call", {"request": act("die once", again=True), "timeout": None}),
            ("time_passes", {"seconds": 10.0}),
        ],
    ),
    "a call that waits is cancelled": (
        {},
        [],
        [("call", SLOW), ("call", ANSWER), ("hang_up", {"which": 1})],
    ),
    "a call that waits passes its deadline": (
        {},
        [],
        [
            ("call", SLOW),
            ("call", {"request": act("answer"), "timeout": 1.0}),
            ("time_passes", {"seconds": 3.0}),
        ],
    ),
    "a call that runs is cancelled": ({}, [], [("call", SLOW), ("look", {}), ("hang_up", {"which": 0})]),
    "a call that runs passes its deadline": (
        {},
        [],
        [("call", {"request": act("slow", 30.0), "timeout": 1.0}), ("time_passes", {"seconds": 3.0})],
    ),
    "a call is told to stop, and does": (
        INTERRUPT,
        [],
        [("call", {"request": act("slow", 30.0), "timeout": 1.0}), ("time_passes", {"seconds": 3.0})],
    ),
    "a call is told to stop, and does not": (
        INTERRUPT,
        [],
        [("call", {"request": act("stubborn", 30.0), "timeout": 1.0}), ("time_passes", {"seconds": 3.0})],
    ),
    "a worker dies when it is told to stop, and a child of it holds its channel": (
        INTERRUPT,
        ["leaves a child"],
        [
            ("call", {"request": act("stubborn", 30.0), "timeout": 1.0}),
            ("time_passes", {"seconds": 1.1}),
            ("crash_a_worker_that_was_told_to_stop", {"which": 0}),
        ],
    ),
    "a pool closes while a call is told to stop": (
        INTERRUPT,
        [],
        [
            ("call", {"request": act("stubborn", 1.5), "timeout": 1.0}),
            ("time_passes", {"seconds": 1.1}),
            ("close", {"luck": 0}),
        ],
    ),
    "a worker dies in a call, and a child of it holds its channel": (
        {},
        ["leaves a child"],
        [("call", SLOW), ("crash_a_busy_worker", {"which": 0})],
    ),
    "a worker that is asked is well": ({"health": SOON}, [], [("time_passes", {"seconds": 10.0})]),
    "garbage that nobody waits for": (
        {"health": SOON},
        [],
        [("garbage_from_an_idle_worker", {"which": 0}), ("time_passes", {"seconds": 10.0})],
    ),
    "a first worker that never comes up": ({}, ["hangs"], []),
    "a pool fails, and heals": (
        {"max_workers": 2, "min_workers": 2, "restart": STRICT},
        [],
        [
            ("crash_an_idle_worker", {"which": 0}),
            ("crash_an_idle_worker", {"which": 0}),
            ("time_passes", {"seconds": 10.0}),
            ("crash_an_idle_worker", {"which": 0}),
        ],
    ),
    "a pool fails, and is closed": (
        {"restart": STRICT},
        [],
        [
            ("call", {"request": act("garbage"), "timeout": None}),
            ("time_passes", {"seconds": 10.0}),
            ("call", {"request": act("garbage"), "timeout": None}),
            ("close", {"luck": 0}),
        ],
    ),
}


FORKED: dict[str, tuple[list[str], list[tuple[str, dict[str, Any]]]]] = {
    # name: how the first templates are, the moves; with three workers, so that the template has one to stay for
    "a template serves": ([], []),
    "the imports of a template fail": (["fails"], []),
    "a template dies of its imports": (["dies"], []),
    "a template is unfit": (["is unfit"], []),
    "a template becomes unfit while two workers are forked": (
        ["lingers"],
        [
            ("crash_an_idle_worker", {"which": 0}),
            ("crash_an_idle_worker", {"which": 0}),
            ("time_passes", {"seconds": 0.3}),
            ("the_template_becomes_unfit", {}),
            ("time_passes", {"seconds": 1.0}),
        ],
    ),
    "a template dies": ([], [("the_template_dies", {})]),
    "a template makes a worker after another has taken over": (
        ["lingers"],
        [
            ("crash_an_idle_worker", {"which": 0}),
            ("time_passes", {"seconds": 0.3}),
            ("reload", {}),
            ("time_passes", {"seconds": 1.0}),
        ],
    ),
    "a pool closes while a template is built": (
        [],
        [("the_next_template_hangs", {}), ("reload", {}), ("close", {"luck": 0})],
    ),
}


def on_purpose(name: str) -> set[Pair]:
    """What a scenario takes; its ending is that of every run."""
    rules: PoolRules
    if name in FORKED:
        (templates, moves), starts, rules = FORKED[name], list[Any](), ForkingRules()
        fields = {"min_workers": 3, "max_workers": 3, "start_concurrency": 3}
        fields |= {"start_method": "forkserver", "templates": templates}
    else:
        (fields, starts, moves), rules = SCENARIOS[name], PoolRules()
    try:
        rules.open(fields={"max_workers": 1, **fields}, starts=starts, work=0.0, schedule=0)
        for move, arguments in moves:
            getattr(rules, move)(**arguments)
    finally:
        rules.teardown()
    return set(rules.watch.pairs)


def while_it_starts() -> set[Pair]:
    """A pool that is given up before it is there."""
    watch = Watch()

    async def give_up() -> None:
        async with SimLauncher.open(Behaviour(boot=(Hang(),))) as launcher:
            with trio.move_on_after(1):
                async with open_pool(adapter="simulated:Adapter", launcher=launcher, observers=[watch]):
                    pass
            assert launcher.witness.leftovers() == []

    trio.run(give_up, clock=MockClock(autojump_threshold=0))
    return set(watch.pairs)


def test_every_declared_step_is_taken_or_known_not_to_be() -> None:
    taken = while_it_starts()
    for name in (*SCENARIOS, *FORKED):
        taken |= on_purpose(name)
    taken &= declared_steps()  # a step is recorded with the state it was taken in, also those that stay
    missing = declared_steps() - taken - set(UNREACHED)
    assert not missing, f"never taken: {sorted(missing)}"
    stale = taken & set(UNREACHED)
    assert not stale, f"taken after all: {sorted(stale)}"
    assert set(UNREACHED) <= declared_steps()
