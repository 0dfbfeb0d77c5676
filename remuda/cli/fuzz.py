"""`remuda fuzz`: attack a pool with Hypothesis until the time is over, or until something breaks.

It plays `remuda.specs.ForkingRules`, or a subclass of yours, run after run, and says how far it got:
runs, steps, the time that passed in them, and which steps of the lifecycles were taken. When a rule
is broken it prints the shortest scenario that breaks it, as a test to be pasted into a file.

The same seed gives the same runs, on the same version of everything. A run in which something broke
does not need the seed: its scenario says all.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from remuda.statemachines.errors import ConfigError

if TYPE_CHECKING:
    from remuda.specs.rules import PoolRules

__all__ = ["Campaign", "Report", "declared_steps", "find_rules", "fuzz"]

BATCH = 20
"""Runs after which the clock is looked at; each batch has a seed of its own."""


@dataclass(frozen=True)
class Report:
    """How it went.

    Attributes:
        runs, steps: how many.
        seconds: the time that passed in the runs, virtual in simulation.
        taken, declared: steps of lifecycles, as (lifecycle, state, trigger).
        told: how often callers were told what.
        error: what was found, or None.
        scenario: a test that shows it, or "".
    """

    runs: int
    steps: int
    seconds: float
    taken: frozenset[tuple[str, str, str]]
    declared: frozenset[tuple[str, str, str]]
    told: dict[str, int]
    error: BaseException | None = None
    scenario: str = ""


def find_rules(target: str | None, *, real: bool) -> type[PoolRules]:
    """The rules to play.

    Args:
        target: "module:Class", a subclass of `PoolRules`; None: remuda's own.
        real: whether they are played on real processes, whatever the class says.

    Raises:
        ConfigError: there is no such class, or the extra is not installed.
    """
    try:
        from remuda.specs.rules import PoolRules, RealWorld
    except ModuleNotFoundError as error:
        if error.name != "hypothesis":
            raise
        raise ConfigError("fuzzing needs hypothesis: pip install 'remuda[specs]'") from None
    found = _load(target or "remuda.specs:ForkingRules")
    if not (isinstance(found, type) and issubclass(found, PoolRules)):
        raise ConfigError(f"{target!r} is {found!r}; it must be a subclass of remuda.specs.PoolRules")
    if real and found.world.simulated:
        return type(f"Real{found.__name__}", (found,), {"world": RealWorld})
    return found


def _load(target: str) -> object:
    module, colon, name = target.partition(":")
    if not (module and colon and name):
        raise ConfigError(f"{target!r} names no rules; write module:Class")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: object = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{target!r} cannot be loaded: {error}") from error
    return found


class Campaign:
    """Runs of one class of rules, batch after batch.

    Args:
        rules: what is played.
        seed: of the first batch; the next has the next number.
        on_run: called after every run.
    """

    def __init__(self, rules: type[PoolRules], seed: int, on_run: Callable[[], None] = lambda: None) -> None:
        class Played(rules):  # type: ignore[misc, valid-type]  # with a tally of its own, and a bell
            def _count(self) -> None:
                super()._count()
                on_run()

        Played.__module__, Played.__name__, Played.__qualname__ = rules.__module__, rules.__name__, rules.__qualname__
        self._rules, self._seed = Played, seed

    def play(self, runs: int) -> BaseException | None:
        """Play a batch; what was found, or None."""
        from hypothesis import seed, settings
        from hypothesis.stateful import run_state_machine_as_test

        chosen = settings(self._rules.TestCase.settings, max_examples=runs, database=None, print_blob=False)
        number, self._seed = self._seed, self._seed + 1
        try:
            run_state_machine_as_test(seed(number)(self._rules), settings=chosen)
        except Exception as error:
            return error
        return None

    def report(self, error: BaseException | None = None) -> Report:
        """How it went so far."""
        tally = self._rules.tally
        scenario = "" if error is None else _scenario(error, self._rules)
        told = dict(tally.told.most_common())
        return Report(
            tally.runs, tally.steps, tally.seconds, frozenset(tally.pairs), declared_steps(), told, error, scenario
        )


def declared_steps() -> frozenset[tuple[str, str, str]]:
    """Every (lifecycle, state, trigger) that one of our lifecycles declares."""
    from remuda.cli.diagram import OURS, load

    lifecycles = [load(name) for name in OURS]
    return frozenset(
        (lifecycle.name, str(state), str(trigger))
        for lifecycle in lifecycles
        for state, row in lifecycle.table.items()
        for trigger in row
    )


def _scenario(error: BaseException, rules: type[PoolRules]) -> str:
    """The steps that Hypothesis has noted on the error, as a test."""
    noted = "\n".join(getattr(error, "__notes__", ()))
    steps = re.search(r"^state = .*?^state\.teardown\(\)", noted, re.DOTALL | re.MULTILINE)
    if steps is None:
        return ""
    body = "\n".join(f"    {line}" for line in steps[0].splitlines())
    return (
        "from remuda import Breaker, Health, Restart, Retry\n"
        f"from {rules.__module__} import {rules.__name__}\n"
        "from remuda.specs import Request\n\n\n"
        f"def test_found_by_fuzzing():\n{body}\n"
    )


def fuzz(target: str | None, minutes: float, seed: int, *, real: bool, quiet: bool) -> int:
    """Play until the time is over or something breaks; print what came of it.

    Returns:
        The exit code: 0 if nothing broke, else 1.
    """
    rules = find_rules(target, real=real)
    out, progress = Console(highlight=False), _progress(quiet=quiet)
    end = time.monotonic() + minutes * 60
    error: BaseException | None = None
    with progress:
        task = progress.add_task("", total=minutes * 60, runs=0, found="")

        def on_run() -> None:
            done = minutes * 60 - max(0.0, end - time.monotonic())
            progress.update(task, completed=done, runs=campaign.report().runs)

        campaign = Campaign(rules, seed, on_run)
        while error is None and time.monotonic() < end:
            error = campaign.play(BATCH)
    report = campaign.report(error)
    for line in _lines(report, rules, seed, real or not rules.world.simulated):
        out.print(line, markup=False)
    return 0 if error is None else 1


def _progress(*, quiet: bool) -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("fuzzing"), BarColumn(), TextColumn("{task.fields[runs]} runs"), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal)


def _lines(report: Report, rules: type[PoolRules], seed: int, real: bool) -> list[str]:
    hours = report.seconds / 3600
    passed = f"{report.seconds:.0f} s on real processes" if real else f"{hours:.1f} hours in simulation"
    told = ", ".join(f"{count} {what}" for what, count in report.told.items()) or "nothing"
    taken = report.taken & report.declared
    lines = [
        f"{rules.__name__}, seed {seed}: {report.runs} runs, {report.steps} steps, {passed}",
        f"callers were told: {told}",
        f"steps of the lifecycles: {len(taken)} of {len(report.declared)} taken",
    ]
    if report.error is None:
        return [*lines, "nothing broke"]
    lines += ["", f"it broke: {report.error}"]
    return [*lines, "", report.scenario] if report.scenario else lines
