"""The statistics: what is made of the numbers of many drivers."""

from __future__ import annotations

from remuda.benchmarks.measures import quantile
from remuda.benchmarks.results import ratio
from remuda.benchmarks.scale import Cell, Outcome

from .made import outcome, run_of


def test_a_quantile_is_one_of_the_values() -> None:
    assert quantile([5.0], 0.99) == 5.0
    assert quantile([4.0, 1.0, 3.0, 2.0], 0.5) == 2.0
    assert quantile([float(value) for value in range(100, 0, -1)], 0.99) == 99.0
    assert quantile([float(value) for value in range(1, 102)], 0.99) == 100.0
    assert quantile([2.0, 1.0], 0.001) == 1.0
    assert quantile([2.0, 1.0], 1.0) == 2.0


def test_the_median_is_over_the_rounds_of_one_subject_in_one_mode() -> None:
    results = run_of(
        outcome("latency", "remuda", 0, p50=[9.0]),
        outcome("latency", "remuda", 1, p50=[1.0]),
        outcome("latency", "remuda", 2, p50=[2.0]),
        outcome("latency", "remuda", 0, "free", p50=[100.0]),
        outcome("latency", "remuda, an adapter", 0, p50=[100.0]),
        outcome("throughput", "remuda", 0, p50=[100.0]),
    )
    assert results.median("latency", "pinned", "remuda", "p50") == 2.0
    assert results.samples("latency", "pinned", "remuda", "p50") == [9.0, 1.0, 2.0]
    assert results.subjects("latency", "pinned") == ["remuda", "remuda, an adapter"]


def test_few_samples_of_many_rounds_are_one_pool() -> None:
    results = run_of(*(outcome("recovery", "remuda, spawn", n, idle=[n, n + 0.5]) for n in range(50)))
    assert results.quantile("recovery", "pinned", "remuda, spawn", "idle", 0.99) == 49.0
    assert results.mean("recovery", "pinned", "remuda, spawn", "idle") == 24.75


def test_what_is_not_there_is_not_zero() -> None:
    results = run_of(outcome("latency", "remuda", 0, p50=[1.0]))
    for found in (results.median, results.mean):
        assert found("latency", "pinned", "loky", "p50") is None
        assert found("latency", "pinned", "remuda", "p75") is None
    assert results.quantile("latency", "free", "remuda", "p50", 0.5) is None
    assert results.succeeded("latency", "pinned", "loky") is None
    assert ratio(None, 1.0) is None
    assert ratio(1.0, None) is None
    assert ratio(1.0, 0.0) is None
    assert ratio(3.0, 2.0) == 1.5


def test_who_was_absent_and_what_failed() -> None:
    results = run_of(
        Outcome(Cell("latency", "loky", "pinned"), absent="loky is not installed"),
        Outcome(Cell("latency", "loky", "free"), absent="loky is not installed"),
        Outcome(Cell("latency", "remuda", "pinned", 0), error="it broke"),
        outcome("latency", "remuda", 1, p50=[1.0]),
    )
    assert results.absent() == {"loky is not installed": ["loky"]}
    assert results.errors() == [(Cell("latency", "remuda", "pinned", 0), "it broke")]
    assert results.succeeded("latency", "pinned", "remuda") == 0.5
    assert results.succeeded("latency", "pinned", "loky") is None
