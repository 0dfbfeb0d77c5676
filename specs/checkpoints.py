"""Cancel everywhere: one scenario, cancelled at each of its checkpoints in turn.

A cancellation may arrive at every `await`, and some of those moments are rare: the reply is on its
way to the caller, the worker is checked out and not yet noted. Real pools have lost connections at
just such a moment, had it fixed, and lost them at the next. So we try them all.

    async def scenario(mark: Mark) -> None:
        async with SimLauncher.open() as launcher, open_pool(launcher=launcher) as pool:
            with mark:                                   # what is cancelled
                await pool.call("sleep", {"seconds": 1})
            assert pool.snapshot().waiting == 0          # what must hold, wherever it was cancelled
        assert launcher.witness.leftovers() == []

    cancel_everywhere(scenario)

The scenario runs again and again, each time on a fresh virtual clock, and each time the marked part
is cancelled one schedule point later, until a run gets to the end of it first. What comes after the
mark is the check, and it runs every time.

*Where* is counted from outside, by a trio instrument. A schedule point is the moment at which trio
is about to run a task. Cancelling there catches the hand-over: what the task has waited for has been
given to it already, and it hears of the cancellation only when it looks for it again. Point 0 is the
mark itself: cancelled before it began.

* `Points.OWN` counts the schedule points of the marked task: every checkpoint of the scenario.
* `Points.ALL` counts those of all tasks while the mark is entered: also the moments when the marked
  task sleeps and others, half-way through something for it, move.

Trio shuffles the tasks that run in one tick, so two runs may differ. Hence no count is taken from a
first run to be trusted in the next, and `rounds` repeats the whole: with `Points.ALL`, where a
shuffle can move a point from one side of another task's step to the other, take several.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import FrameType, TracebackType

import trio

from remuda.specs.stepped import A_DAY, SteppedTrio

__all__ = ["Cancelled", "Mark", "Points", "cancel_everywhere"]

MOST_POINTS = 100_000  # no scenario that terminates has so many; one whose every run is longer does


class Points(enum.StrEnum):
    """Whose schedule points are counted."""

    OWN = "own"
    ALL = "all"


@dataclass(frozen=True)
class Cancelled:
    """One cancellation that was tried.

    `delivered` tells whether the marked part heard of it: a cancellation that arrives after its last
    checkpoint comes too late to matter, and must.
    """

    point: int
    where: str
    delivered: bool


class Mark(trio.abc.Instrument):
    """The part of a scenario that is cancelled: enter it around that part, once.

    Attributes:
        point: at which schedule point this run is cancelled.
        cancelled: whether that point has come.
        delivered: after the mark, whether the cancellation was raised in it.
    """

    def __init__(self, point: int, points: Points) -> None:
        self.point = point
        self.cancelled = False
        self.delivered = False
        self.entered = False
        self.where = "before it began"
        self._points = points
        self._seen = 0
        self._task: trio.lowlevel.Task | None = None
        self._scope = trio.CancelScope()

    def __enter__(self) -> Mark:
        if self.entered:
            raise RuntimeError("a mark is entered once in a run")
        self.entered = True
        self._task = trio.lowlevel.current_task()
        self._scope.__enter__()
        if self.point == 0:
            self._cancel()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._task = None
        swallowed = self._scope.__exit__(kind, error, trace)
        self.delivered = self._scope.cancelled_caught
        return swallowed

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count; cancel when it is time. Called by trio, outside of all tasks."""
        if self._task is None or self.cancelled or (self._points is Points.OWN and task is not self._task):
            return
        self._seen += 1
        if self._seen == self.point:
            self.where = f"at {_await_line(self._task)}"
            if task is not self._task:
                self.where += f", while {task.name} was at {_await_line(task)}"
            self._cancel()

    def _cancel(self) -> None:
        self.cancelled = True
        self._scope.cancel()


def cancel_everywhere(
    scenario: Callable[[Mark], Awaitable[object]],
    *,
    points: Points = Points.OWN,
    rounds: int = 1,
    patience: float = A_DAY,
) -> list[Cancelled]:
    """Run `scenario` again and again, cancelling its marked part one schedule point later each time.

    Args:
        scenario: gets the `Mark` to enter. What it does after the mark is the check.
        points: whose schedule points are counted.
        rounds: how often all of it is done; trio's own shuffling differs from run to run.
        patience: virtual seconds that one run may take before it counts as hanging.

    Returns:
        What was tried, in order.

    Raises:
        whatever the scenario raises, with a note that says where it was cancelled;
        StandStill when a run hangs; ValueError when the scenario does not enter its mark, so that
        nothing was tried.
    """
    tried: list[Cancelled] = []
    for _ in range(rounds):
        for point in range(MOST_POINTS):
            mark = _run_once(scenario, point, points, patience)
            if not mark.cancelled:
                break
            tried.append(Cancelled(point, mark.where, mark.delivered))
        else:
            raise ValueError(f"the marked part has no end after {MOST_POINTS} schedule points")
    return tried


def _run_once(scenario: Callable[[Mark], Awaitable[object]], point: int, points: Points, patience: float) -> Mark:
    mark = Mark(point, points)
    try:
        with SteppedTrio(patience=patience, instruments=[mark]) as loop:
            loop.run(scenario, mark)
    except BaseException as error:
        if mark.cancelled:
            error.add_note(f"cancelled at schedule point {point}, {mark.where}")
        raise
    if not mark.entered:
        raise ValueError("the scenario did not enter its mark; nothing would be cancelled")
    return mark


def _await_line(task: trio.lowlevel.Task) -> str:
    """The innermost line of the task that is not trio's own, as file:line function."""
    found = "its start"
    for frame, line in task.iter_await_frames():
        if not _is_trios(frame):
            found = f"{frame.f_code.co_filename.rpartition('/')[2]}:{line} {frame.f_code.co_qualname}"
    return found


def _is_trios(frame: FrameType) -> bool:
    module = str(frame.f_globals.get("__name__", ""))
    return module == "trio" or module.startswith("trio.")
