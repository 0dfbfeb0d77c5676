"""The harness: what happens when a worker is cut off, at every byte, and when it is killed a thousand times.

    python -m tests.harness cuts                      every byte, both directions, every fault
    python -m tests.harness cuts --every 7            fewer of them
    python -m tests.harness kills --times 1000        SIGKILL for busy workers, under load

A failure prints the cut, and the command that repeats it alone.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import structlog
import trio
import trio.testing

from ..leaks import Before  # noqa: TID252  # tests are no package that is installed
from .cuts import FAULTS, PARTS, Cut, Recording, every
from .judge import wrong
from .kills import WAYS, kill_many
from .rig import ADAPTER, FUNCTIONS, Round, run, start_methods

PATIENCE = 120
"""Seconds that one round may take before it is given up: a guard, not a threshold."""


class _Guard:
    """Says which round hangs, and ends it all."""

    def __init__(self) -> None:
        self.cut: Cut | None = None
        signal.signal(signal.SIGALRM, self._too_long)

    def begin(self, cut: Cut) -> None:
        self.cut = cut
        signal.alarm(PATIENCE)

    def _too_long(self, *_: object) -> None:
        print(f"\nhangs: {self.cut}", file=sys.stderr, flush=True)
        os._exit(2)


class _Cuts:
    """One run over the cuts of one pool."""

    def __init__(self, kind: str, start_method: str, args: argparse.Namespace) -> None:
        self.name = f"{kind}, {start_method}"
        self.args = args
        self.guard = _Guard()
        self.done = self.failures = 0
        self.outcomes: Counter[str] = Counter()
        self.again = f"python -m tests.harness cuts --kind {kind} --start {start_method} --only"
        self.began = time.monotonic()

    def choose(self, recording: Recording) -> Iterator[Cut]:
        args = self.args
        for number, cut in enumerate(every(recording, args.fault or FAULTS)):
            if number % args.every == args.first and (cut.border or not args.borders):
                if cut.part in (args.part or PARTS) and args.only in ("", str(cut)):
                    yield cut

    def judge(self, seen: Round, recording: Recording) -> None:
        self.done += 1
        self.outcomes.update(call.outcome for call in seen.calls)
        trouble = wrong(seen, recording)
        if trouble:
            self.failures += 1
            print(f"{self.name}: {seen.cut}", *trouble, f"again: {self.again} '{seen.cut}'", sep="\n    ")
        if self.done % 500 == 0:
            print(f"    … {self.done} cuts, {self.each:.0f} ms each", flush=True)

    @property
    def each(self) -> float:
        return 1000 * (time.monotonic() - self.began) / max(self.done, 1)

    def __str__(self) -> str:
        outcomes = dict(self.outcomes.most_common())
        return f"{self.name}: {self.done} cuts, {self.each:.0f} ms each, {self.failures} with trouble; {outcomes}"


def cuts(args: argparse.Namespace) -> int:
    """Run the cuts that were asked for; the number of those that went wrong."""
    failures = 0
    for start_method in args.start or start_methods():
        for kind in args.kind or (ADAPTER, FUNCTIONS):
            it = _Cuts(kind, start_method, args)
            with tempfile.TemporaryDirectory() as folder:
                before = Before("", None)
                todo = partial(run, kind, start_method, Path(folder), it.choose, it.guard.begin, it.judge)
                trio.run(todo, clock=trio.testing.MockClock(rate=1.0))
                signal.alarm(0)
                left = before.left()
            print(it)
            if left:
                print(f"    left behind: {'; '.join(left)}")
            failures += it.failures + bool(left)
    return failures


def kills(args: argparse.Namespace) -> int:
    """Run the kills that were asked for; the number of things that went wrong."""
    failures = 0
    for way in args.way or WAYS:
        with tempfile.TemporaryDirectory() as folder:
            result = trio.run(kill_many, way, args.times, Path(folder), args.seed)
        print(result)
        failures += len(result.wrong)
    return failures


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.harness", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("cuts", help="cut a worker off, at every byte")
    one.add_argument("--kind", action="append", choices=[ADAPTER, FUNCTIONS], help="what runs in the pool")
    one.add_argument("--start", action="append", choices=start_methods(), help="how workers are started")
    one.add_argument("--fault", action="append", choices=FAULTS, help="what happens there")
    one.add_argument("--part", action="append", choices=PARTS, help="which part of the session")
    one.add_argument("--every", type=int, default=1, metavar="N", help="only each Nth cut")
    one.add_argument("--first", type=int, default=0, metavar="N", help="of those, begin with this one (below --every)")
    one.add_argument("--borders", action="store_true", help="only the ends of frames")
    one.add_argument("--only", default="", metavar="CUT", help="this one, as it was printed")
    one.set_defaults(run=cuts)
    two = commands.add_parser("kills", help="kill busy workers under load")
    two.add_argument("--times", type=int, default=1000)
    two.add_argument("--seed", type=int, default=0)
    two.add_argument("--way", action="append", choices=WAYS, help="how workers are started")
    two.set_defaults(run=kills)
    args = parser.parse_args(argv)
    structlog.configure(processors=[lambda *_: ""], logger_factory=structlog.ReturnLoggerFactory())
    return 1 if args.run(args) else 0


if __name__ == "__main__":
    sys.exit(main())
