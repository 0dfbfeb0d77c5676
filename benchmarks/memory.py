"""What a process has of its own: USS, the pages that would be free if it ended. Linux only."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["descendants", "own_bytes"]

_OWN = ("Private_Clean:", "Private_Dirty:", "Private_Hugetlb:")


def own_bytes(pid: int, proc: Path = Path("/proc")) -> int | None:
    """Bytes that no other process shares; None where the kernel does not say, or the process has gone."""
    try:
        lines = (proc / str(pid) / "smaps_rollup").read_text("ascii").splitlines()
    except OSError:
        return None
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(_OWN))


def descendants(pid: int | None = None, proc: Path = Path("/proc")) -> list[int]:
    """The processes that come of this one (default: ours), itself not among them."""
    found: list[int] = []
    tasks = proc / str(pid or os.getpid()) / "task"
    try:
        threads = sorted(os.listdir(tasks))
    except OSError:  # it has ended
        return []
    for thread in threads:
        try:
            children = [int(child) for child in (tasks / thread / "children").read_text("ascii").split()]
        except OSError:  # the thread has ended
            continue
        for child in children:
            found += [child, *descendants(child, proc)]
    return found
