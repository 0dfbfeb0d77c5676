"""What a process uses of the machine, as the kernel tells anybody who asks: memory and CPU time.

`/proc` is read where there is one. A process may go at any moment, also between two reads; what is
not known is None, and never an error.

The memory that `wait4` tells of a child at its end needs care. It is the most that the process ever
had, and a process begins as its parent: what the application had when it started the worker counts,
though no line of the worker has run. So a figure that is no larger than the application's own says
nothing about the worker.
"""

from __future__ import annotations

import os
import resource
import sys

from remuda.bridge.seam import Usage

__all__ = ["at_the_end", "inherited", "now"]

_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in which the kernel counts the largest size."""


def now(pid: int) -> Usage:
    """What a process uses that was not reaped yet."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            rss = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            # The name, in the second field, may contain anything; utime and stime are the 14th and 15th.
            fields = file.read().rpartition(")")[2].split()
        return Usage(rss, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))
    except (OSError, LookupError, ValueError):
        return Usage()


def inherited() -> int:
    """The figure that says nothing about a worker that was started just now."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def at_the_end(account: resource.struct_rusage, at_most: int) -> Usage:
    """What a process has used in its life.

    Args:
        account: what `wait4` says.
        at_most: what `inherited` said, at its start.
    """
    most = account.ru_maxrss * _UNIT if account.ru_maxrss > at_most else None
    return Usage(0, account.ru_utime + account.ru_stime, most)
