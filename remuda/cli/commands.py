"""What can be typed after `remuda`."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from remuda.cli import find_users_code
from remuda.runtime.cgroup import cpus
from remuda.statemachines.errors import ConfigError

__all__ = ["app"]

app = typer.Typer(
    name="remuda",
    help="A pool of long-lived Python worker processes, whose every lifecycle is a declared state machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Kind(StrEnum):
    """What is made of a signature."""

    PREDICT = "predict"
    CHAIN_OF_THOUGHT = "chain_of_thought"
    REACT = "react"


@app.command()
def run(
    input: Annotated[Path, typer.Option(help="The records: JSONL, one object per line, a program's input fields.")],
    output: Annotated[Path, typer.Option(help="The entries: JSONL, one per record, in the order of completion.")],
    signature: Annotated[str | None, typer.Option(help="A DSPy signature: 'context, question -> answer'.")] = None,
    kind: Annotated[Kind | None, typer.Option(help="With a signature; default: predict.")] = None,
    instructions: Annotated[str | None, typer.Option(help="With a signature: what the model is told.")] = None,
    program: Annotated[str | None, typer.Option(help="Instead: 'package.module:factory' of a dspy.Module.")] = None,
    load: Annotated[Path | None, typer.Option(help="A compiled program.json to load into the program.")] = None,
    lm: Annotated[
        str, typer.Option(help="'embedded', or a model as dspy.LM takes it: 'openai/gpt-4o-mini'.")
    ] = "embedded",
    lm_option: Annotated[
        list[str] | None,
        typer.Option(
            help="An argument of dspy.LM as name=value, the value as JSON or text. "
            "For a key rather set its environment variable: others can see command lines."
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes; default: the CPUs.")] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Records at the same time, waiting ones included; default: the workers.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for each record.")] = 60.0,
    cache: Annotated[bool, typer.Option(help="Use DSPy's cache, which all processes of a user share.")] = False,
    quiet: Annotated[bool, typer.Option(help="No progress.")] = False,
) -> None:
    """Run a DSPy program over a file of records. Interrupted and started again, it goes on where it was."""
    from remuda.cli.run import Job
    from remuda.cli.run import run as run_job

    if (signature is None) == (program is None):
        raise ConfigError("give either --signature or --program")
    find_users_code()
    arguments: dict[str, Any] = {"load": None if load is None else str(load.absolute())}
    if program is not None:
        if kind is not None or instructions is not None:
            raise ConfigError("--kind and --instructions go with --signature; a --program has its own")
        arguments["factory"] = program
    else:
        arguments |= {"signature": signature, "kind": str(kind or Kind.PREDICT), "instructions": instructions}
    options = dict(_option(text) for text in lm_option or ())
    job = Job(input, output, arguments, lm, options, workers or cpus(), concurrency, timeout, cache)
    raise typer.Exit(run_job(job, quiet=quiet))


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ConfigError(f"--lm-option takes name=value, such as temperature=0.2, and got {name!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


@app.command()
def demo(
    answers: Annotated[int, typer.Option(min=25, help="Questions to ask.")] = 300,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes; default: the CPUs, at least 2.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the moments of the kills; default: others every time.")] = None,
    plain: Annotated[bool, typer.Option(help="No live table, also in a terminal.")] = False,
) -> None:
    """Answer questions about the standard library while workers are killed with SIGKILL."""
    from remuda.cli.demo import demo as run_demo

    raise typer.Exit(run_demo(answers, workers or max(2, cpus()), seed, plain=plain))


@app.command()
def doctor(
    adapter: Annotated[
        str | None, typer.Option(help="The adapter to try in a worker; default: dspy, if installed.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds that a worker gets to come up.")] = 60.0,
) -> None:
    """Look whether this machine has what a pool needs."""
    from remuda.cli.doctor import examine

    find_users_code()
    failed = False
    for finding in examine(adapter, timeout):
        failed |= finding.verdict == "fail"
        typer.echo(f"{finding.verdict:5} {finding.what:16} {finding.found}")
        if finding.remedy:
            typer.echo(f"{'':22} {finding.remedy}")
    raise typer.Exit(1 if failed else 0)


@app.command()
def diagram(
    lifecycle: Annotated[
        str | None, typer.Argument(help="One of ours (worker, slot, pool, call, breaker, template) or 'module:NAME'.")
    ] = None,
    format: Annotated[str, typer.Option(help="mermaid, table or essay.")] = "mermaid",
) -> None:
    """Draw a lifecycle: one of remuda's, or one of your own."""
    from remuda.cli.diagram import diagram as draw

    typer.echo(draw(lifecycle, format))


@app.command()
def fuzz(
    rules: Annotated[
        str | None, typer.Argument(help="'module:Class', a subclass of remuda.specs.PoolRules; default: remuda's own.")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.01, help="How long.")] = 5.0,
    seed: Annotated[int, typer.Option(min=0, help="Which runs: the same number gives the same ones.")] = 0,
    real: Annotated[bool, typer.Option(help="On real processes instead of simulated ones.")] = False,
    quiet: Annotated[bool, typer.Option(help="No progress.")] = False,
) -> None:
    """Attack a pool with everything that can happen to one, until the time is over or something breaks."""
    from remuda.cli.fuzz import fuzz as run_fuzz

    raise typer.Exit(run_fuzz(rules, minutes, seed, real=real, quiet=quiet))


@app.command()
def bench(
    rounds: Annotated[int, typer.Option(min=1, help="How often everything is measured.")] = 5,
    measure: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this: latency, throughput, recovery, 'recovery with DSPy', features, beginning, profile or records."
        ),
    ] = None,
    mode: Annotated[list[str] | None, typer.Option(help="Only pinned (all on one core) or free.")] = None,
    subject: Annotated[list[str] | None, typer.Option(help="Only those whose names have this in them.")] = None,
    quick: Annotated[bool, typer.Option(help="So little that the numbers mean nothing: to see that it runs.")] = False,
    records: Annotated[int | None, typer.Option(min=1, help="DSPy records for the model; default: 10 000.")] = None,
    raw: Annotated[Path | None, typer.Option("--json", help="Write all that was measured to this file.")] = None,
    write: Annotated[bool, typer.Option(help="Keep it, in a checkout: docs/benchmarks.md, plot, ratios.")] = False,
    compare: Annotated[bool, typer.Option(help="Fail if it is worse than the ratios that were kept.")] = False,
    quiet: Annotated[bool, typer.Option(help="No progress.")] = False,
) -> None:
    """Measure remuda, other pools that are installed, and the bare limits, side by side."""
    from remuda.cli.bench import bench as run_bench

    raise typer.Exit(
        run_bench(
            rounds,
            measure or (),
            mode or (),
            subject or (),
            quick=quick,
            records=records,
            raw=raw,
            write=write,
            compare=compare,
            quiet=quiet,
        )
    )
