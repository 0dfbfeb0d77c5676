"""The regression gate: what it lets pass, and what not."""

from __future__ import annotations

from pathlib import Path

import pytest

from remuda.benchmarks import gate
from remuda.benchmarks.beginning import HANDSHAKE, INTERPRETER
from remuda.benchmarks.gate import Kind, Ratio, compare
from remuda.benchmarks.plan import OURS, TRIO_SOCKETPAIR
from remuda.benchmarks.scale import Cell, Outcome

from .made import HERE, outcome, run_of


@pytest.mark.parametrize(
    ("kind", "before", "passes", "fails"),
    [
        (Kind.LATENCY, 2.0, 2.4, 2.41),
        (Kind.THROUGHPUT, 2.0, 1.6, 1.59),
        (Kind.SUCCESS, 1.0, 0.9, 0.89),
    ],
)
def test_how_much_worse_it_may_be(kind: Kind, before: float, passes: float, fails: float) -> None:
    recorded = {"x": Ratio(kind, before)}
    better = before * (0.1 if kind is Kind.LATENCY else 10)
    for value in (before, passes, better):
        assert compare({"x": Ratio(kind, value)}, recorded) == []
    (found,) = compare({"x": Ratio(kind, fails)}, recorded)
    assert (found.name, found.before, found.now) == ("x", before, fails)


def test_what_was_tried_and_has_no_number_any_more_is_lost() -> None:
    recorded = {"x": Ratio(Kind.LATENCY, 1.0)}
    (found,) = compare({"x": Ratio(Kind.LATENCY, None)}, recorded)
    assert "no number" in str(found)


def test_what_only_one_of_the_runs_has_tried_is_not_compared() -> None:
    assert compare({}, {"x": Ratio(Kind.LATENCY, 1.0)}) == []
    assert compare({"x": Ratio(Kind.LATENCY, 100.0)}, {}) == []
    assert compare({"x": Ratio(Kind.LATENCY, 100.0)}, {"x": Ratio(Kind.LATENCY, None)}) == []


def test_it_looks_at_ratios_to_what_ran_beside() -> None:
    """A machine that is ten times slower has the same ratios."""

    def ratios_on(slow: float) -> dict[str, Ratio]:
        ways = [
            outcome("recovery", "remuda, spawn", **{"idle": [0.1 * slow], "idle, survived": [1.0, 0.0]}),
            outcome("recovery", "loky", **{"idle": [0.1 * slow], "idle, survived": [1.0]}),
        ]
        return gate.ratios(
            run_of(
                *(outcome("latency", one, p50=[3.0 * slow]) for one in OURS),
                outcome("latency", TRIO_SOCKETPAIR, p50=[2.0 * slow]),
                *(outcome("throughput", one, **{"64 callers": [3.0 / slow]}) for one in OURS),
                outcome("throughput", TRIO_SOCKETPAIR, **{"64 callers": [6.0 / slow]}),
                outcome("features", "remuda", plain=[1.0 * slow], session=[1.1 * slow]),
                outcome("beginning", "remuda", **{HANDSHAKE: [0.3 * slow], INTERPRETER: [0.2 * slow]}),
                *ways,
            )
        )

    found = ratios_on(1.0)
    slow = ratios_on(10.0)
    assert set(found) == set(slow)
    for name, ratio in found.items():
        assert ratio.value == pytest.approx(slow[name].value), name
    assert found[f"pinned: a small call, remuda ÷ {TRIO_SOCKETPAIR}"] == Ratio(Kind.LATENCY, 1.5)
    assert found[f"pinned: calls per second, 64 callers, remuda ÷ {TRIO_SOCKETPAIR}"] == Ratio(Kind.THROUGHPUT, 0.5)
    assert found["pinned: session ÷ plain"].value == pytest.approx(1.1)
    assert found[f"pinned: recovery, remuda, spawn, idle ÷ {INTERPRETER}"].value == pytest.approx(0.5)
    assert found["pinned: recovery, remuda, spawn, idle: survived"] == Ratio(Kind.SUCCESS, 0.5)
    assert not any("loky" in name for name in found), "what others do is theirs"


def test_a_driver_that_fails_costs_success() -> None:
    good = run_of(outcome("latency", "remuda", 0, p50=[1.0]), outcome("latency", "remuda", 1, p50=[1.0]))
    bad = run_of(outcome("latency", "remuda", 0, p50=[1.0]), Outcome(Cell("latency", "remuda", "pinned", 1), error="!"))
    (found,) = compare(gate.ratios(bad), gate.ratios(good))
    assert found.kind is Kind.SUCCESS
    assert found.now == 0.5


def test_a_part_of_a_run_is_compared_in_its_part() -> None:
    """Without the bare limit beside it there is no ratio, and that is no regression."""
    found = gate.ratios(run_of(*(outcome("latency", one, p50=[3.0]) for one in OURS)))
    assert not any(ratio.kind is Kind.LATENCY for ratio in found.values())


def test_what_is_recorded_can_be_read(tmp_path: Path) -> None:
    results = run_of(
        *(outcome("latency", one, p50=[3.0]) for one in OURS), outcome("latency", TRIO_SOCKETPAIR, p50=[2.0])
    )
    gate.write(tmp_path / "recorded.json", results)
    recorded = gate.read(tmp_path / "recorded.json")
    assert recorded.machine == HERE
    assert recorded.ratios == gate.ratios(results)
    assert compare(gate.ratios(results), recorded.ratios) == []
