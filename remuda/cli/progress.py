"""What a run shows while it goes on: a bar in a terminal, a line now and then elsewhere.

A worker that dies is worth a line, with its last words: what kills workers is in the program or in
its records, and somebody has to look. The same death again is only counted; a thousand lines would
say no more than one. What the pool ends on purpose (a deadline that passed) is an entry's business.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from remuda.cli.output import note
from remuda.runtime.events import Event, PoolChanged, WorkerEnded, WorkerReady
from remuda.runtime.records import Run

__all__ = ["News", "showing"]


class News:
    """Tells how a run goes.

    Attributes:
        deaths: the workers that have died, by cause.
    """

    def __init__(self, tell: Callable[[str], None], tick: Callable[[], None], ready: Callable[[], None]) -> None:
        self.tick = tick
        """To be called after every new entry."""
        self.deaths: Counter[str] = Counter()
        self._tell = tell
        self._ready = ready
        self._was_ready = False
        self._given_up = False

    def observe(self, event: Event) -> None:
        """An observer of the pool."""
        if isinstance(event, WorkerReady):
            self._was_ready = True
            self._ready()
        elif isinstance(event, PoolChanged) and event.dest == "failed":
            self._given_up = not self._was_ready  # then the error that follows says it all
            if self._was_ready:
                self._tell(f"no worker comes up any more ({event.reason}); trying on, one at a time")
        elif isinstance(event, WorkerEnded) and not event.on_purpose and not self._given_up:
            self.deaths[event.death.cause] += 1
            if self.deaths[event.death.cause] == 1:
                words = "".join(f"\n  | {line}" for line in event.death.stderr_tail[-5:])
                self._tell(f"a worker died: {event.death.cause}{words}")

    def close(self) -> None:
        """Say what was only counted."""
        for cause, count in self.deaths.items():
            if count > 1:
                self._tell(f"{count} workers died like this: {cause}")


@contextmanager
def showing(records: Run, *, quiet: bool) -> Generator[News]:
    """Show how a run goes, on stderr; nothing if `quiet`."""
    with _place(records, quiet) as news:
        try:
            yield news
        finally:
            news.close()


@contextmanager
def _place(records: Run, quiet: bool) -> Generator[News]:
    console = Console(stderr=True)
    if quiet:
        yield News(lambda text: None, lambda: None, lambda: None)
    elif console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("starting", total=records.records, completed=records.done)
            yield News(
                lambda text: bar.console.print(escape(text), highlight=False, soft_wrap=True),
                lambda: bar.update(task, completed=records.done),
                lambda: bar.update(task, description="records "),
            )
    else:
        step = max(1, records.records // 10)

        def tick() -> None:
            if records.done % step == 0 or records.done == records.records:
                note(f"{records.done} of {records.records} records")

        yield News(note, tick, lambda: None)
