"""Where the time of a small call goes in the application's process.

    python benchmarks/profile_call.py [--calls 5000]

One function at a time gets a clock around it, which counts what the thread computes in there; then the next
one, over as many calls again. So no clock measures another, and the calls run as they always do. What a clock
costs itself is measured on a function that does nothing, and taken off. The process is pinned to one core.

The functions of the stages do not contain each other, so their times may be added; what is left over is trio, the
task of the caller, and what lies between the functions. Below them stands what a bare pipe costs in trio's loop.
The parts of the core are within the core's time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any

import trio

from remuda.benchmarks.limits import TrioPipe
from remuda.benchmarks.plan import Absent, pin
from remuda.benchmarks.tasks import echo
from remuda.runtime.opening import open_pool

__all__ = ["BARE", "CALL", "COMPUTED", "CORE", "PARTS", "STAGES", "profile"]

CALL = "a call, by the clock"
COMPUTED = "a call, computed"
BARE = "a bare pipe in trio, computed"
CORE = "the state machines"

STAGES = {
    "name and arguments": ("remuda.bridge.functions:request",),
    "making the message": ("remuda.runtime.pool:Pool._frame",),
    "trio's deadline": ("trio:current_effective_deadline",),
    "the call, as an object": ("remuda.statemachines.subjects:Call.__init__", "remuda.runtime.ticket:Ticket.__init__"),
    CORE: ("remuda.statemachines.core:Core.handle",),
    "when something is due next": ("remuda.statemachines.timers:Timers.next_due",),
    "whether the worker is quiet": ("remuda.bridge.process:LocalWorker.is_quiet",),
    "what it had begun before": ("remuda.bridge.process:LocalWorker.evidence",),
    "writing to the pipe": ("remuda.bridge.process:LocalWorker.write",),
    "reading from the pipe": ("remuda.bridge.process:LocalWorker.read",),
    "finding frames": ("remuda.bridge.frames:Decoder.feed",),
    "decoding the reply": ("remuda.bridge.messages:decode_to_parent",),
    "the outcome": ("remuda.runtime.pool:value_of", "remuda.bridge.functions:loads"),
}
"""Functions of the hot path, as module:name."""

PARTS = {
    "five steps of a lifecycle": ("remuda.statemachines.lifecycle:Lifecycle.step",),
    "its alarm, set and taken back": (
        "remuda.statemachines.timers:Timers.arm",
        "remuda.statemachines.timers:Timers.disarm",
    ),
    "the breaker, asked and told": (
        "remuda.statemachines.breaker:Breaker.admit",
        "remuda.statemachines.breaker:Breaker.record",
    ),
}
"""Of the state machines: what each call needs of them, whatever decides about it."""


class Clock:
    """How often a function was called, and what it computed."""

    def __init__(self) -> None:
        self.calls = 0
        self.seconds = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, with this clock around it."""
        now = time.thread_time

        def timed(*args: Any, **options: Any) -> Any:
            start = now()
            try:
                return function(*args, **options)
            finally:
                self.seconds += now() - start
                self.calls += 1

        return timed


@contextmanager
def clock_around(where: str) -> Generator[Clock]:
    """Put a clock around the function that is called so.

    Raises:
        AttributeError: there is none of that name.
    """
    module, _, name = where.partition(":")
    *path, last = name.split(".")
    owner: Any = import_module(module)
    for part in path:
        owner = getattr(owner, part)
    original, clock = getattr(owner, last), Clock()
    setattr(owner, last, clock.around(original))
    try:
        yield clock
    finally:
        setattr(owner, last, original)


def _cost_of_a_clock(times: int) -> float:
    clock = Clock()
    timed = clock.around(lambda: None)
    for _ in range(times):
        timed()
    return clock.seconds / times


def profile(calls: int, size: int = 100) -> dict[str, list[float]]:
    """Seconds for each stage of a call: one worker, one caller, plain functions."""
    return trio.run(_profile, calls, b"x" * size)


async def _profile(calls: int, data: bytes) -> dict[str, list[float]]:
    cost, found = _cost_of_a_clock(calls), {}
    async with open_pool(min_workers=1, max_workers=1) as pool:
        for _ in range(calls // 10):
            await pool.run_sync(echo, data)
        taken, computed = [], time.process_time()
        for _ in range(calls):
            start = time.perf_counter()
            await pool.run_sync(echo, data)
            taken.append(time.perf_counter() - start)
        found[COMPUTED] = [(time.process_time() - computed) / calls]
        found[CALL] = [statistics.median(taken)]
        for name, functions in (STAGES | PARTS).items():
            with ExitStack() as stack:
                clocks = [stack.enter_context(clock_around(where)) for where in functions]
                for _ in range(calls):
                    await pool.run_sync(echo, data)
            found[name] = [sum(max(0.0, clock.seconds - cost * clock.calls) for clock in clocks) / calls]
    bare = TrioPipe(1)
    async with bare.opened():
        computed = time.process_time()
        for _ in range(calls):
            await bare.call(echo, data)
        found[BARE] = [(time.process_time() - computed) / calls]
    return found


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=5000, help="calls for each function")
    calls = parser.parse_args().calls
    try:
        pin()
    except Absent as reason:
        print(f"not pinned: {reason}")
    found = {name: values[0] for name, values in profile(calls).items()}
    stages = {name: found[name] for name in STAGES}
    total = found[COMPUTED]
    for name, seconds in [*stages.items(), ("the rest: trio, and what lies between", total - sum(stages.values()))]:
        print(f"  {seconds * 1e6:7.1f} us  {seconds / total:6.1%}  {name}")
    for name in PARTS:
        print(f"  {found[name] * 1e6:7.1f} us          of {CORE}: {name}")
    print(f"  {total * 1e6:7.1f} us          {COMPUTED}; by the clock, the worker included: {found[CALL] * 1e6:.1f} us")
    print(f"  {found[BARE] * 1e6:7.1f} us          {BARE}")


if __name__ == "__main__":
    main()
