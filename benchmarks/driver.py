"""One round of one subject, in a process of its own.

    python -m remuda.benchmarks.driver CELL SCALE FILE

The first two are JSON. What comes of it is written to the file, as JSON. Nothing is loaded before the process
is pinned, and only what the subject needs: some pools load this module again in their workers.
"""

from __future__ import annotations

import os
import sys

__all__ = ["main"]


def main(cell_text: str, scale_text: str, path: str) -> None:
    """Measure, and write the outcome."""
    import traceback

    import msgspec

    from remuda.benchmarks.plan import Absent, measure, pin
    from remuda.benchmarks.scale import Cell, Outcome, Scale

    cell = msgspec.json.decode(cell_text, type=Cell)
    try:
        if cell.mode == "pinned":
            pin()
        outcome = Outcome(cell, samples=measure(cell, msgspec.json.decode(scale_text, type=Scale)))
    except Absent as reason:
        outcome = Outcome(cell, absent=str(reason))
    except BaseException as error:
        traceback.print_exc()
        outcome = Outcome(cell, error=f"{type(error).__name__}: {error}"[:500])
    with open(path, "wb") as file:
        file.write(msgspec.json.encode(outcome))


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # some pools would wait for ever for a worker that was killed
