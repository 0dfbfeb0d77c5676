"""The pool as a model: the world around the core, and what is to be true of it.

    explore(PoolModel(Profile(policy=Policy(max_workers=2), faults=1))).check()

* **Always**: every invariant of `remuda.specs.invariants`, after every step. And that *late news is no
  news*: in each state, all that may still arrive from a worker or a call that is over (an answer, a
  health result, an exit told twice, ...) is told to the core, which must neither do anything nor change.
* **Sometimes**: what a profile is made for. Of `SIGHTS`, everything that can be seen in a pool, a model
  is told which ones it has to come by.
* **Eventually**, when nothing more goes wrong and nobody is slow: every call ends, a pool that closes is
  closed, and there are `min_workers` again, without anybody calling.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

from remuda.specs.explorer import Model, Property, always, eventually, sometimes
from remuda.specs.invariants import INVARIANTS, Invariant, InvariantViolated
from remuda.specs.model import Action, Profile, World
from remuda.statemachines import effects as fx
from remuda.statemachines import events as ev
from remuda.statemachines.breaker import BreakerState
from remuda.statemachines.call import CALL
from remuda.statemachines.canonical import canonical
from remuda.statemachines.core import Core
from remuda.statemachines.policy import Policy
from remuda.statemachines.pool import PoolState
from remuda.statemachines.slot import SLOT
from remuda.statemachines.subjects import Rung
from remuda.statemachines.worker import WORKER, WorkerState

__all__ = ["SIGHTS", "PoolModel", "late_news"]

Sight = Callable[[World], bool]

SIGHTS: dict[str, Sight] = {}
"""What can be seen in a world, in words."""


class PoolModel(Model[World, Action]):
    """See the module's text.

    Args:
        profile: which world.
        sights: what has to be seen in it, of `SIGHTS`.
        core: what is checked.
    """

    def __init__(
        self, profile: Profile, sights: Iterable[str] = (), core: Callable[[Policy, float], Core] = Core
    ) -> None:
        self.profile = profile
        self.sights = tuple(sights)
        self.core = core

    def initial(self) -> Iterator[World]:
        yield World(self.profile, self.core)

    def actions(self, state: World) -> Sequence[Action]:
        return state.actions()

    def prompt(self, state: World) -> Sequence[Action]:
        return state.prompt_actions()

    def next(self, state: World, action: Action) -> World:
        return self.advance(state.copy(), action)

    def advance(self, state: World, action: Action) -> World:
        state.redo(action)  # it is judged by the properties
        return state

    def key(self, state: World) -> Hashable:
        return state.key()

    def properties(self) -> Sequence[Property[World]]:
        return [
            *(always(name, _obeys(name, rule)) for name, rule in INVARIANTS.items()),
            always("late_news_is_no_news", _late_news_is_no_news, new_only=True),
            *(sometimes(name, SIGHTS[name]) for name in self.sights),
            eventually("every call ends", lambda world: all(caller.call is None for caller in world.callers)),
            eventually("a pool that closes is closed", _is_not_closing),
            eventually("there are enough workers again", _has_enough),
        ]


def _obeys(name: str, rule: Invariant) -> Sight:
    def obeys(world: World) -> bool:
        detail = rule(world.core, world.ledger)
        if detail is not None:
            raise InvariantViolated(name, detail)
        return True

    return obeys


def _is_not_closing(world: World) -> bool:
    return world.ledger.closing_since is None or world.core.pool.state is PoolState.CLOSED


def _has_enough(world: World) -> bool:
    core = world.core
    enough = core.crew.usable() >= core.policy.min_workers and core.pool.state is not PoolState.FAILED
    return enough or world.ledger.closing_since is not None


# ── Late news ───────────────────────────────────────────────────────────────────────────────────


def late_news(world: World) -> Iterator[ev.Event]:
    """All that may arrive now and is out of date."""
    core, (worker, call) = world.core, world.gone
    if core.next_due() > world.now:
        yield ev.Tick()
    if world.ledger.closing_since is not None:
        yield ev.Close()
    yield ev.EndSession("nobody's")
    number = 0 if call is None else call.id
    if call is not None:
        yield ev.GiveUp(call)
        yield ev.Began(call)
    if worker is not None:
        yield ev.Initialized(worker)
        yield ev.BootFailed(worker, "late")
        yield ev.Replied(worker, number, None)
        yield ev.HealthChecked(worker, worker.checks, healthy=False)
        yield ev.ChannelFailed(worker, "late")
        yield ev.Retire(worker, "late")
        yield ev.Exited(worker, "late", began=True)
    for worker in core.crew.workers():
        if worker.state is not WorkerState.INITIALIZING:
            yield ev.Initialized(worker)
            yield ev.BootFailed(worker, "late")
        if worker.interrupted is None or worker.interrupted.id != number:
            yield ev.Replied(worker, number, None, unfit=True)
        asked = world.processes[worker].check
        yield ev.HealthChecked(worker, worker.checks if not asked else worker.checks - 1, healthy=False)


def _late_news_is_no_news(world: World) -> bool:
    core, now = world.core, world.now
    before, news = canonical(core, now, exact=True), list(late_news(world))
    for event in news:
        try:
            effects = core.handle(event, now)
        except Exception as error:
            raise InvariantViolated(
                "late_news_is_no_news", f"{event} came late, and the core said {error!r}"
            ) from error
        if effects:
            raise InvariantViolated("late_news_is_no_news", f"{event} came late, and the core did {effects}")
    if canonical(core, now, exact=True) != before:
        raise InvariantViolated("late_news_is_no_news", f"something has changed by one of {news}")
    _, call = world.gone
    if call is not None and call.is_lease:
        world.refused(ev.Checkin(call))
    return True


# ── Sights ──────────────────────────────────────────────────────────────────────────────────────


def _pool_is(state: str) -> Sight:
    return lambda world: world.core.pool.state == state


def _breaker_is(state: str) -> Sight:
    return lambda world: world.core.breaker.state == state


def _slot_is(state: str) -> Sight:
    return lambda world: any(slot.state == state for slot in world.core.crew.slots.values())


def _worker_is(state: str) -> Sight:
    return lambda world: any(worker.state == state for worker in world.core.crew.workers())


def _call_is(state: str, *, is_lease: bool) -> Sight:
    return lambda world: any(c.state == state and c.is_lease is is_lease for c in world.core.calls.values())


def _answered(verdict: fx.Verdict) -> Sight:
    return lambda world: any(isinstance(e, fx.Answer) and e.verdict is verdict for e in world.ledger.effects)


def _stopped(rung: Rung) -> Sight:
    return lambda world: any(isinstance(e, fx.Stop) and e.rung is rung for e in world.ledger.effects)


SIGHTS.update({f"pool {state}": _pool_is(state) for state in PoolState})
SIGHTS.update({f"breaker {state}": _breaker_is(state) for state in BreakerState})
SIGHTS.update({f"slot {state}": _slot_is(state) for state in SLOT.states})
SIGHTS.update({f"worker {state}": _worker_is(state) for state in WORKER.states})
SIGHTS.update({f"call {state}": _call_is(state, is_lease=False) for state in CALL.states})
SIGHTS.update({f"lease {state}": _call_is(state, is_lease=True) for state in CALL.states})
SIGHTS.update({f"answer {verdict}": _answered(verdict) for verdict in fx.Verdict})
SIGHTS.update({f"stop {rung}": _stopped(rung) for rung in Rung})
SIGHTS["abandon"] = lambda world: any(isinstance(effect, fx.Abandon) for effect in world.ledger.effects)
SIGHTS["a spare is ready"] = lambda world: bool(world.core.crew.spares())
SIGHTS["two sessions"] = lambda world: len(world.core.sessions) == 2
