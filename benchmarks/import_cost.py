"""What it costs to begin: imports in fresh interpreters, side by side, as ratios of medians.

    python benchmarks/import_cost.py [--rounds 40]

The statements take turns, so that a busy machine is unfair to all of them alike. What an interpreter
costs that imports nothing is taken off each. Run it with an interpreter that has the wheel installed:
the hook of an editable install costs every interpreter as much as a large import.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

BASE = "pass"
STATEMENTS = {
    "import trio": "import trio",
    "from remuda import open_pool, PoolConfig": "from remuda import open_pool, PoolConfig",
    "import msgspec": "import msgspec",
    "import remuda.bridge.child": "import remuda.bridge.child",
    "import remuda": "import remuda",
}
RATIOS = [
    ("from remuda import open_pool, PoolConfig", "import trio", 1.2),
    ("import remuda.bridge.child", "import msgspec", 1.5),
]


def seconds(statement: str) -> float:
    """One fresh interpreter, from its start to its end."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-I", "-c", statement], check=True)
    return time.perf_counter() - start


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40, help="interpreters for each statement")
    rounds = parser.parse_args().rounds
    times: dict[str, list[float]] = {statement: [] for statement in (BASE, *STATEMENTS.values())}
    for _ in range(rounds):
        for statement, taken in times.items():
            taken.append(seconds(statement))
    medians = {statement: statistics.median(taken) for statement, taken in times.items()}
    print(f"an interpreter that imports nothing: {medians[BASE] * 1000:.1f} ms; beyond that, medians of {rounds}:")
    for name, statement in STATEMENTS.items():
        print(f"  {(medians[statement] - medians[BASE]) * 1000:7.1f} ms  {name}")
    for what, over, budget in RATIOS:
        ratio = (medians[what] - medians[BASE]) / (medians[over] - medians[BASE])
        print(f"{what} = {ratio:.2f} × {over} (budget {budget})")


if __name__ == "__main__":
    main()
