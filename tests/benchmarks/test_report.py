"""The budget's verdicts, the tables and the plot."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from remuda.benchmarks.budgets import Line, Verdict, budgets
from remuda.benchmarks.chart import LEFT, RIGHT, WIDTH, Bar, Panel, draw
from remuda.benchmarks.plan import OURS, PEERS, TRIO_PIPE, TRIO_SOCKETPAIR
from remuda.benchmarks.profile_call import CALL, CORE
from remuda.benchmarks.report import number, panels, report, table
from remuda.benchmarks.results import Results
from remuda.benchmarks.scale import Cell, Outcome

from .made import outcome, run_of


def whole(ours: float = 30e-6, others: float = 100e-6, bare: float = 25e-6) -> Results:
    """Calls of remuda, of all peers, and of the limits."""
    latency = {**dict.fromkeys(OURS, ours), **dict.fromkeys(PEERS, others), TRIO_SOCKETPAIR: bare, TRIO_PIPE: bare / 2}
    return run_of(
        *(outcome("latency", who, p50=[p50], p99=[3 * p50], first=[0.1], own=[8e6]) for who, p50 in latency.items()),
        *(
            outcome("throughput", who, **{"1 caller": [1 / p50], "2 callers": [2 / p50], "64 callers": [3 / p50]})
            for who, p50 in latency.items()
        ),
    )


def verdicts(results: Results) -> dict[str, Verdict]:
    return {line.what: line.verdict for line in budgets(results)}


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        (Line("", 1.5, 1.5), Verdict.MET),
        (Line("", 1.51, 1.5), Verdict.NOT_MET),
        (Line("", 2.0, 2.0, False), Verdict.MET),
        (Line("", 1.99, 2.0, False), Verdict.NOT_MET),
        (Line("", float("inf"), 25.0), Verdict.NOT_MET),
        (Line("", None, 1.5), Verdict.NOT_MEASURED),
        (Line("", 12.0), Verdict.REPORTED),
    ],
)
def test_a_verdict(line: Line, verdict: Verdict) -> None:
    assert line.verdict is verdict


def test_a_fast_pool_meets_its_budget_and_a_slow_one_does_not() -> None:
    of_calls = [what for what in verdicts(whole()) if "small call" in what or "calls per second" in what]
    of_calls.remove("the state machines' share of a small call")
    assert len(of_calls) == 12
    fast, slow = verdicts(whole()), verdicts(whole(ours=200e-6))
    assert {fast[what] for what in of_calls} == {Verdict.MET}
    assert {slow[what] for what in of_calls} == {Verdict.NOT_MET}


def test_nothing_is_met_that_was_not_measured() -> None:
    assert set(verdicts(run_of()).values()) == {Verdict.NOT_MEASURED}


def test_a_pool_that_did_not_recover_has_no_budget_kept_by_the_times_it_did() -> None:
    def recovered(*survived: float) -> Verdict:
        samples = {"idle": [0.001], "busy": [0.001], "idle, survived": [1.0], "busy, survived": list(survived)}
        results = run_of(outcome("recovery with DSPy", "remuda, forkserver", **samples))
        return verdicts(results)["kill -9, DSPy loaded, forkserver: to the next success, p99"]

    assert recovered(1.0) is Verdict.MET
    assert recovered(1.0, 0.0) is Verdict.NOT_MET


def test_the_share_of_the_state_machines() -> None:
    lines = {line.what: line for line in budgets(run_of(outcome("profile", "remuda", **{CORE: [3.0], CALL: [20.0]})))}
    assert lines["the state machines' share of a small call"].measured == 15.0


def test_a_table_is_aligned_and_cannot_be_broken_by_what_is_in_it() -> None:
    assert table(["", "µs"], [["a|b", "1"], ["c", "1 000"]]) == [
        "|      |    µs |",
        "|------|------:|",
        "| a\\|b |     1 |",
        "| c    | 1 000 |",
    ]


@pytest.mark.parametrize(
    ("value", "scale", "text"),
    [
        (None, 1e6, "–"),
        (0.0, 1.0, "0"),
        (1.2345, 1.0, "1.23"),
        (0.000123456, 1e6, "123"),
        (12_345.6, 1.0, "12 346"),
        (0.00123, 1.0, "0.00123"),
        (float("inf"), 1.0, "∞"),
    ],
)
def test_a_number(value: float | None, scale: float, text: str) -> None:
    assert number(value, scale) == text


def test_a_report_has_ratios_and_says_who_is_missing() -> None:
    results = whole()
    results.outcomes.append(Outcome(Cell("latency", "ray", "pinned"), absent="ray is not installed"))
    results.outcomes.append(Outcome(Cell("latency", "dask", "free"), error="it broke"))
    text = report(results)
    (row,) = [line for line in text.splitlines() if line.startswith("| loky ") and "8" in line]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["loky", "100", "300", "4", "8", "3.33", "100", "8", "–"]
    assert "Absent, because ray is not installed: ray." in text
    assert "Failed: dask, latency, free, round 0: it broke" in text
    for line in text.splitlines():
        assert line == line.rstrip()


def test_the_plot_has_a_bar_for_everybody_as_long_as_its_value() -> None:
    panel = Panel("a < b", "less is better", "×", [Bar("one & all", 1.0, "ours"), Bar("two", 4.0, "peer")], 2.0)
    root = ElementTree.fromstring(draw([panel]))
    names = {"svg": "http://www.w3.org/2000/svg"}
    widths = [float(bar.get("width", "")) for bar in root.findall("svg:rect", names)]
    assert widths == pytest.approx([(WIDTH - LEFT - RIGHT) / 2, WIDTH - LEFT - RIGHT])
    texts = [text.text for text in root.findall("svg:text", names)]
    assert texts == ["a < b", "less is better", "one & all", "1 ×", "two", "… 4 ×"]


def test_the_panels_of_a_run() -> None:
    small, many = panels(whole())
    assert [bar.value for bar in small.bars if bar.name == "remuda"] == pytest.approx([1.2])
    assert [bar.value for bar in many.bars if bar.name == "loky"] == pytest.approx([0.3])
    assert panels(run_of()) == []
    draw([])
