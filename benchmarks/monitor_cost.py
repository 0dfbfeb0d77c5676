"""What a monitor costs: small calls on real workers, with and without it, side by side, as ratios of medians.

    python benchmarks/monitor_cost.py [--rounds 15]

Each column is a pool of two workers of its own, all open at the same time; they take turns, so that a
busy machine is unfair to all of them alike. A line is a number of callers. What is measured is time per
call, from the first of a round to the last: by the clock, and what this process has computed, which a busy
machine changes less. A round begins when all callers wait, and as many wait until its end.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import AsyncExitStack

import trio
import trio.testing

from remuda.runtime.events import Observer
from remuda.runtime.opening import open_pool
from remuda.runtime.pool import Pool
from remuda.specs.monitor import Monitor

WORKERS = 2
COLUMNS: dict[str, Callable[[], list[Observer]]] = {
    "without": list,
    "an idle observer": lambda: [lambda event: None],
    "Monitor()": lambda: [Monitor()],
    "Monitor(every=10)": lambda: [Monitor(every=10)],
    "Monitor(every=100)": lambda: [Monitor(every=100)],
}
LINES = {
    # callers: calls in a round
    1: 200,
    64: 400,
    WORKERS + 1000: 400,
}


def clocks() -> tuple[float, float]:
    """The time, and the time that this process has computed, in seconds."""
    return time.perf_counter(), time.process_time()


async def seconds_per_call(pool: Pool, callers: int, calls: int) -> tuple[float, float]:
    """One round."""
    begun = ended = 0
    finish = start = clocks()

    async def call_and_call_again() -> None:
        nonlocal begun, ended, finish
        while begun < callers or ended < calls:
            begun += 1
            await pool.run_sync(abs, -1)
            ended += 1
            if ended == calls:
                finish = clocks()

    async with trio.open_nursery() as nursery:
        pool.suspend()
        for _ in range(callers):
            nursery.start_soon(call_and_call_again)
        await trio.testing.wait_all_tasks_blocked()
        start = clocks()
        pool.resume()
    return (finish[0] - start[0]) / calls, (finish[1] - start[1]) / calls


async def measure(rounds: int) -> None:
    """All rounds of all lines, and a table."""
    width = max(map(len, COLUMNS)) + 2
    print("callers, waiting".ljust(26) + "".join(name.rjust(width) for name in COLUMNS))
    async with AsyncExitStack() as stack:
        pools = {}
        for name, observers in COLUMNS.items():
            opened = open_pool(
                observers=observers(),
                min_workers=WORKERS,
                max_workers=WORKERS,
                max_waiting=10_000,
                call_timeout=float("inf"),
            )
            pools[name] = await stack.enter_async_context(opened)
        for callers, calls in LINES.items():
            rows: dict[str, list[tuple[float, float]]] = {name: [] for name in COLUMNS}
            for _ in range(rounds + 1):
                for name, pool in pools.items():
                    rows[name].append(await seconds_per_call(pool, callers, calls))
            for place, clock in enumerate(("by the clock", "computed")):
                medians = {name: statistics.median(row[place] for row in some[1:]) for name, some in rows.items()}
                base = medians["without"]
                cells = (f"{median * 1e6:.0f} us  {median / base:.2f}".rjust(width) for median in medians.values())
                label = f"{callers}, {max(0, callers - WORKERS)}, {clock}"
                print(label.ljust(26) + "".join(cells), flush=True)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="rounds of each column in each line")
    trio.run(measure, parser.parse_args().rounds)


if __name__ == "__main__":
    main()
