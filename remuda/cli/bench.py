"""`remuda bench`: remuda, other pools and the bare limits, side by side.

What it does is in `remuda.benchmarks`; this is how it is asked for. Results go to stdout, as tables in
Markdown; how it goes, to stderr. `--write` keeps a run: the tables between the markers of docs/benchmarks.md,
the plot beside it, and the ratios in benchmarks/recorded.json. `--compare` judges a run by those.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec

from remuda.benchmarks import gate
from remuda.benchmarks.chart import draw
from remuda.benchmarks.plan import MEASURES, MODES, cells
from remuda.benchmarks.report import BEGIN, END, panels, report
from remuda.benchmarks.results import Results
from remuda.benchmarks.rounds import machine, run_cells
from remuda.benchmarks.scale import FULL, QUICK, Outcome, Scale
from remuda.cli.output import note, say
from remuda.statemachines.errors import ConfigError

__all__ = ["bench"]

PAGE, PLOT, RECORDED = Path("docs/benchmarks.md"), Path("docs/benchmarks.svg"), Path("benchmarks/recorded.json")
"""Where a run is kept, in a checkout."""


def bench(
    rounds: int,
    measures: Sequence[str] = (),
    modes: Sequence[str] = (),
    subjects: Sequence[str] = (),
    *,
    quick: bool = False,
    records: int | None = None,
    raw: Path | None = None,
    write: bool = False,
    compare: bool = False,
    quiet: bool = False,
) -> int:
    """Measure, and show it.

    Args:
        rounds: how often everything is measured, at least 1.
        measures: which; empty: all.
        modes: "pinned", "free"; empty: both.
        subjects: parts of the names of those that take part; empty: all.
        quick: so little of everything that the numbers mean nothing: to see that it runs.
        records: how many DSPy records, default 10 000.
        raw: where to write all that was measured, as JSON.
        write: whether to keep it: the page, the plot, the ratios.
        compare: whether to compare with the ratios that were kept.
        quiet: no progress.

    Returns:
        0; 1 if something failed, or has become worse than it may. A signal ends the process: 128 + its number.

    Raises:
        ConfigError: there is nothing of this name to measure, or nothing to compare with.
        OSError: a file cannot be read or written.
    """
    for name, known, given in (("measure", tuple(MEASURES), measures), ("mode", MODES, modes)):
        for one in given:
            if one not in known:
                raise ConfigError(f"there is no {name} {one!r}; there are: {', '.join(known)}")
    before = _recorded() if compare else None
    page = _page() if write else None
    if write and quick:
        raise ConfigError("--quick measures too little to be kept; leave --write away")
    scale: Scale = QUICK if quick else FULL
    if records is not None:
        scale = msgspec.structs.replace(scale, records=records)
    todo = list(cells(rounds, measures or MEASURES, modes or MODES, subjects or None))
    if not todo:
        raise ConfigError(
            f"nobody who is measured there is called {' or '.join(subjects)}; `remuda bench` names them all"
        )
    here, done = machine(), 0
    if here.load > here.cores / 2 and not quick:
        note(f"this machine is busy (load {here.load:g} on {here.cores} cores): the numbers will say so")

    def tell(outcome: Outcome, seconds: float) -> None:
        nonlocal done
        done += 1
        cell = outcome.cell
        if not quiet:
            verdict = f"absent: {outcome.absent}" if outcome.absent else outcome.error or "ok"
            width = int(math.log10(len(todo))) + 1
            note(
                f"{done:{width}}/{len(todo)}  {cell.measure}, {cell.mode}, round {cell.round + 1}: "
                f"{cell.subject}: {verdict} ({seconds:.1f} s)"
            )

    results = Results(here, scale, run_cells(todo, scale, tell))
    text = report(results)
    say(text.rstrip())
    if raw is not None:
        raw.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")
    if page is not None:
        _keep(page, text, results)
    worse = [] if before is None else gate.compare(gate.ratios(results), before.ratios)
    if before is not None:
        same = "" if before.machine.system == here.system else f", on another machine ({before.machine.system})"
        say(f"\nCompared with {before.machine.at} UTC{same}: {len(worse) or 'nothing'} worse than it may be")
        for regression in worse:
            say(f"  {regression}")
    return 1 if worse or results.errors() else 0


def _recorded() -> gate.Recorded:
    try:
        return gate.read(RECORDED)
    except FileNotFoundError:
        raise ConfigError(
            f"there is nothing to compare with: no {RECORDED} in this folder. Keep a run of a quiet machine there "
            "with `remuda bench --write`, in a checkout"
        ) from None
    except msgspec.DecodeError as error:
        raise ConfigError(f"{RECORDED} is not what `remuda bench --write` makes: {error}") from None


def _page() -> tuple[str, str]:
    """What stands before and after the tables; asked for before anything takes minutes."""
    try:
        text = PAGE.read_text("utf-8")
    except FileNotFoundError:
        raise ConfigError(f"--write is for a checkout: there is no {PAGE} in this folder") from None
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ConfigError(f"{PAGE} has no lines {BEGIN!r} and {END!r}; put them where the tables shall be")
    return before, after


def _keep(page: tuple[str, str], text: str, results: Results) -> None:
    picture = f"![What stands in the tables, as bars]({PLOT.name})"
    PAGE.write_text(f"{page[0]}{BEGIN}\n\n{picture}\n\n{text}\n{END}{page[1]}", "utf-8")
    PLOT.write_text(draw(panels(results)), "utf-8")
    gate.write(RECORDED, results)
    note(f"kept in {PAGE}, {PLOT} and {RECORDED}")
