"""One trio run, moved step by step from synchronous code.

Hypothesis calls its rules synchronously, one after the other; a pool is asynchronous and keeps tasks
alive between them. Trio's guest mode joins the two: the run lives on a queue of callbacks that is
ours, so it moves only while a step pumps that queue. Between steps everything stands still, the clock
included, however long the caller thinks. That is what makes a run replayable.

    with SteppedTrio() as loop:                     # on a virtual clock
        pool = loop.run(open_something)
        loop.start_soon(a_caller, pool)             # goes on in the background
        loop.run(trio.sleep, 3600)                  # a virtual hour, in no time

The rules that hold:

* A step ends when its function has ended *and* every other task has come to rest. What a rule looks
  at afterwards does not depend on who happened to be scheduled first.
* A step that waits for what never comes is an error, `StandStill`, and not an endless test. On the
  virtual clock a task of our own sleeps in long strides, so that time passes even when nothing else
  would let it, and a step may take `patience` of it. So is a step in which tasks run in circles
  while no time passes.
* A background task that crashes ends the run: the step under way (or else the next one) raises what
  the nursery raises.
* One run at a time in a thread, which is trio's own rule. So `close` is called always, whatever
  happened; as a context manager the object sees to it.
"""

from __future__ import annotations

import functools
import queue
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import outcome
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

__all__ = ["HasLoop", "StandStill", "SteppedTrio", "stepped"]

T = TypeVar("T")
P = ParamSpec("P")

A_DAY = 24 * 60 * 60.0  # longer than any timeout that a pool would sensibly have
MOST_TICKS = 100_000  # of trio's loop, while the clock stands: thousands of times what a call takes


class StandStill(AssertionError):
    """A step waits for something that will never come."""


class SteppedTrio:
    """A trio run that moves only when it is told to.

    Args:
        clock: what the run takes for time; by default a fresh virtual clock that jumps to the next
            deadline whenever nothing can run.
        patience: how long one step may take on that clock, in seconds, before it is `StandStill`.
        instruments: handed to trio.

    Raises:
        RuntimeError: when this thread has a trio run already.
    """

    def __init__(
        self,
        *,
        clock: trio.abc.Clock | None = None,
        patience: float = A_DAY,
        instruments: Sequence[trio.abc.Instrument] = (),
    ) -> None:
        self._clock: trio.abc.Clock = MockClock(autojump_threshold=0) if clock is None else clock
        self._patience = patience
        self._callbacks: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._ended: outcome.Outcome[None] | None = None
        self._nursery: trio.Nursery | None = None
        self._at_rest = False
        trio.lowlevel.start_guest_run(
            self._main,
            run_sync_soon_threadsafe=self._callbacks.put,
            done_callback=self._end,
            clock=self._clock,
            instruments=instruments,
        )
        self._pump(lambda: self._at_rest, "the start of the run")

    def __enter__(self) -> SteppedTrio:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def now(self) -> float:
        """The run's time, in seconds; it moves only during a step."""
        return self._clock.current_time()

    @property
    def ended(self) -> bool:
        """Whether the run is over: closed, or ended by a crash."""
        return self._ended is not None

    def run(self, async_fn: Callable[..., Awaitable[T]], *args: object) -> T:
        """Run `async_fn(*args)` to its end and every other task until it waits.

        Returns what `async_fn` returns and raises what it raises; raises StandStill when that takes
        longer than the patience, and cancels it.
        """
        results: list[outcome.Outcome[T]] = []
        scope = trio.CancelScope()

        async def step() -> None:
            with scope:
                result = await outcome.acapture(async_fn, *args)
                await wait_all_tasks_blocked()
                results.append(result)

        self.spawn(step, name=_name(async_fn))
        try:
            self._pump(lambda: bool(results), f"{_name(async_fn)} and all who run beside it")
        finally:
            # Whoever gave up on the step must not leave it running.
            if not results and self._ended is None:
                scope.cancel()
        return results[0].unwrap()

    def start_soon(self, async_fn: Callable[..., Awaitable[object]], *args: object) -> None:
        """Start `async_fn(*args)` in the background and let it run until it waits."""
        self.spawn(async_fn, *args)
        self.run(trio.lowlevel.checkpoint)

    def close(self) -> None:
        """Cancel whatever is left, end the run, and raise what it ends with. Idempotent."""
        if self._ended is None and self._nursery is not None:
            self._nursery.cancel_scope.cancel()
            self._pump(lambda: self._ended is not None, "the end of the run, with everything cancelled")

    def spawn(self, async_fn: Callable[..., Awaitable[object]], *args: object, name: str | None = None) -> None:
        """Have `async_fn(*args)` run in the background, from the next step on."""
        if self._ended is not None or self._nursery is None:
            raise RuntimeError("this run has ended")
        self._nursery.start_soon(async_fn, *args, name=name)

    async def _main(self) -> None:
        async with trio.open_nursery() as keeper:
            # Outside of what `close` cancels, so that also a close that hangs is noticed.
            keeper.start_soon(self._let_time_pass)
            await self._hold_tasks()
            keeper.cancel_scope.cancel()

    async def _hold_tasks(self) -> None:
        async with trio.open_nursery() as self._nursery:
            # Our own tasks must not be on the move any more when the first step begins: what an
            # instrument counts there would begin differently every time.
            await wait_all_tasks_blocked()
            self._at_rest = True
            await trio.sleep_forever()

    async def _let_time_pass(self) -> None:
        while True:
            await trio.sleep(self._patience / 4)

    def _end(self, result: outcome.Outcome[None]) -> None:
        self._ended = result

    def _pump(self, done: Callable[[], bool], what: str) -> None:
        began = moved = self._clock.current_time()
        ticks = 0
        while not done():
            self._callbacks.get()()
            if self._ended is not None:
                self._ended.unwrap()
                if not done():
                    raise RuntimeError("this run has ended")
                return
            now = self._clock.current_time()
            ticks = 0 if now != moved else ticks + 1
            moved = now
            if now - began > self._patience:
                raise StandStill(f"after {self._patience:g} s still waiting for {what}")
            if ticks > MOST_TICKS:
                raise StandStill(f"tasks run in circles, and no time passes, in {what}")


class HasLoop(Protocol):
    """A test, or a Hypothesis machine, with a stepped run."""

    @property
    def loop(self) -> SteppedTrio: ...


S = TypeVar("S", bound=HasLoop)


def stepped(body: Callable[Concatenate[S, P], Awaitable[T]]) -> Callable[Concatenate[S, P], T]:
    """Let an `async def` method serve as a rule, an invariant or a teardown: a step of `self.loop`."""

    @functools.wraps(body)
    def step(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.loop.run(functools.partial(body, self, *args, **kwargs))

    return step


def _name(async_fn: Callable[..., object]) -> str:
    while isinstance(async_fn, functools.partial):
        async_fn = async_fn.func
    return getattr(async_fn, "__qualname__", repr(async_fn))
