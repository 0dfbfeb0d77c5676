"""The rules, played on the pool as it is, and on pools with known bugs.

The first half is net 3 (simulation) and net 4 (real processes) themselves. The second shows that the
nets hold: the same choices give the same run, a bug is found and called by its name, and rules that
would try nothing are refused.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar

import pytest
from hypothesis import Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

import remuda
from remuda.specs.forking_rules import ForkingRules
from remuda.specs.probe import PLANS
from remuda.specs.rules import REALITY, SIMULATION, PoolRules, RealWorld, Request, Tally
from remuda.statemachines.errors import RemoteError, RemudaError

DEEPER = int(os.environ.get("REMUDA_TEST_DEPTH", "1"))
"""How many times as many runs as in the suite; `make fuzz` sets it."""


def play(rules: type[PoolRules], runs: int, number: int = 0, **more: Any) -> Tally:
    """Play some runs of the rules; what they have done."""
    chosen = settings(rules.TestCase.settings, max_examples=runs, database=None, print_blob=False, **more)
    run_state_machine_as_test(seed(number)(rules), settings=chosen)
    return rules.tally


# ── The nets ────────────────────────────────────────────────────────────────────────────────────


def test_simulation() -> None:
    class Simulated(PoolRules):
        pass

    tally = play(Simulated, 50 * DEEPER)
    assert tally.runs >= 50 * DEEPER and tally.seconds > 900
    assert {"answer", "CallTimeout", "OutcomeUnknown"} <= set(tally.told)


def test_reality() -> None:
    class Real(PoolRules):
        world = RealWorld

    tally = play(Real, 8 * DEEPER)
    assert tally.runs >= 8 * DEEPER and tally.told["answer"]


def test_simulation_with_templates() -> None:
    class Forking(ForkingRules):
        pass

    tally = play(Forking, 40 * DEEPER)
    assert tally.runs >= 40 * DEEPER and tally.told["answer"]
    taken = {(state, str(trigger)) for kind, state, trigger in tally.pairs if kind == "template"}
    assert {("building", "refuse"), ("building", "fail"), ("ready", "exited")} <= taken


def test_reality_with_templates() -> None:
    class Real(ForkingRules):
        world = RealWorld

    tally = play(Real, 3 * DEEPER)
    assert tally.runs >= 3 * DEEPER
    assert tally.pairs["template", "ready", "fork"]


# ── That a run can be repeated ──────────────────────────────────────────────────────────────────


SCENARIO: list[tuple[str, dict[str, Any]]] = [
    (
        "call_at_the_same_time",
        {"requests": [Request("act_again", {"plan": p}) for p in ("slow", "die once", "answer")]},
    ),
    ("time_passes", {"seconds": 1.0}),
    ("crash_a_busy_worker", {"which": 0}),
    ("call_in_a_session", {"request": Request("act", {"plan": "say"}), "session": "ann", "timeout": None}),
    ("checkout", {"session": None, "timeout": 5.0}),
    ("garbage_from_an_idle_worker", {"which": 1}),
    ("time_passes", {"seconds": 100.0}),
]


def trace(schedule: int, **fields: Any) -> list[str]:
    """Everything that the observers of one pool are told, in a scenario that leaves much to chance."""
    rules = ForkingRules() if fields else PoolRules()
    rules.open(fields={"min_workers": 3, "max_workers": 3, **fields}, starts=[], work=0.0, schedule=schedule)
    for name, arguments in SCENARIO:
        getattr(rules, name)(**arguments)
    rules.teardown()
    return [repr(event) for event in rules.watch.trace]


def test_the_same_seed_gives_the_same_trace() -> None:
    assert trace(7) == trace(7)
    assert len(trace(7)) > 100


def test_the_same_seed_gives_the_same_trace_with_templates() -> None:
    forked: dict[str, Any] = {"start_method": "forkserver", "templates": ["lingers"]}
    assert trace(7, **forked) == trace(7, **forked) != trace(7)


def test_different_seeds_give_different_schedules() -> None:
    assert len({tuple(trace(schedule)) for schedule in range(5)}) > 1


def test_a_campaign_can_be_repeated() -> None:
    def tally(number: int) -> Tally:
        class Repeated(PoolRules):
            pass

        return play(Repeated, 5, number)

    assert tally(3) == tally(3)
    assert tally(3) != tally(4)


# ── A user's own adapter ────────────────────────────────────────────────────────────────────────


class Shelf:
    """It keeps what it is told; and one of its commands forgot to say so."""

    made: ClassVar[int] = 0

    def setup(self, settings: dict[str, Any]) -> None:
        type(self).made += 1
        self.things: dict[str, int] = {}

    @remuda.command(journal="name")
    def put(self, name: str, value: int) -> None:
        self.things[name] = value

    @remuda.command
    def put_and_forget(self, name: str, value: int) -> None:
        self.things[name] = value

    @remuda.command(idempotent=True)
    def get(self, name: str) -> int:
        return self.things[name]

    @remuda.command
    def fail(self) -> None:
        raise LookupError("as it should")


class _ShelfRules(PoolRules):
    """Things are put there, and looked up."""

    adapter = Shelf
    asks = ("put", "get", "fail")

    def requests(self) -> st.SearchStrategy[Request]:
        names = st.fixed_dictionaries({"name": st.sampled_from("ab")})
        arguments = {
            "put": st.fixed_dictionaries({"name": st.sampled_from("ab"), "value": st.just(1)}),
            "put_and_forget": st.fixed_dictionaries({"name": st.sampled_from("ab"), "value": st.just(1)}),
            "get": names,
            "fail": st.just({}),
        }
        drawn = st.sampled_from(self.asks).flatmap(lambda name: st.builds(Request, st.just(name), arguments[name]))
        return drawn.map(self.note)

    def note(self, request: Request) -> Request:
        """What was there when it was asked for; what is put there meanwhile may come later."""
        self.asked = {**getattr(self, "asked", {}), id(request): (request, frozenset(getattr(self, "known", ())))}
        return request

    def check_answer(self, request: Request, value: Any) -> None:
        assert value == (1 if request.command == "get" else None)
        if request.command.startswith("put"):
            self.known = {*getattr(self, "known", ()), request.args["name"]}

    def check_error(self, request: Request, error: RemudaError) -> None:
        if isinstance(error, RemoteError) and request.command == "get":
            name = request.args["name"]
            assert name not in self.asked[id(request)][1], f"{name!r} was put there, and has been forgotten"


def test_an_adapter_that_says_what_it_keeps() -> None:
    class Careful(_ShelfRules):
        pass

    before = Shelf.made
    tally = play(Careful, 60)
    assert Shelf.made > before + 60 and tally.told["RemoteKeyError"] and tally.told["RemoteLookupError"]


def test_an_adapter_that_does_not_is_found_out() -> None:
    class Careless(_ShelfRules):
        asks = ("put_and_forget", "get")

    with pytest.raises(AssertionError, match="was put there, and has been forgotten") as caught:
        play(Careless, 1000, 3, phases=[Phase.generate])
    scenario = "\n".join(getattr(caught.value, "__notes__", ()))
    assert "state = Careless()" in scenario and "state.teardown()" in scenario


def test_an_adapter_on_real_processes() -> None:
    class Real(_ShelfRules):
        world = RealWorld

    assert play(Real, 3).runs >= 3


# ── Rules that would try nothing ────────────────────────────────────────────────────────────────


def test_a_name_under_which_pytest_would_find_nothing() -> None:
    with pytest.raises(TypeError, match=r"write: TestMyPool = MyPoolRules\.TestCase"):
        type("TestMyPool", (PoolRules,), {})


def test_an_adapter_without_requests() -> None:
    class Silent(PoolRules):
        adapter = Shelf

    with pytest.raises(NotImplementedError, match="say by requests"):
        play(Silent, 1)


def test_a_subclass_has_its_own_settings_and_tally() -> None:
    class Real(PoolRules):
        world = RealWorld

    class Simulated(PoolRules):
        pass

    assert Real.TestCase.settings == REALITY and Simulated.TestCase.settings == SIMULATION
    assert Real.tally is not Simulated.tally is not PoolRules.tally


def test_every_plan_is_played_somewhere() -> None:
    assert set(PoolRules.world.plans) == set(PLANS) > set(RealWorld.plans)
