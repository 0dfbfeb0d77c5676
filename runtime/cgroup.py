"""How much of the machine is ours: what the container allows, not what the hardware has."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cpus", "memory_limit", "oom_kills"]

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def cpus(root: Path = _ROOT) -> int:
    """CPUs this process may use, at least 1.

    The smaller of the affinity mask and the CPU quota of the control group (version 2, or 1),
    rounded up.
    """
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        count = os.cpu_count() or 1
    quota = _quota(root)
    if quota is not None:
        count = min(count, max(1, -(-quota[0] // quota[1])))
    return max(1, count)


def _quota(root: Path) -> tuple[int, int] | None:
    try:
        quota, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (root / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None  # "max", or -1: no limit
    return int(quota), int(period)


def memory_limit(root: Path = _ROOT) -> int | None:
    """Bytes of memory that the control group allows, or None for no limit."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = (root / name).read_text().strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < 1 << 60:  # version 1 says "no limit" with a huge number
            return int(text)
    return None


def oom_kills(root: Path = _ROOT, own: Path = _OWN) -> int | None:
    """Processes of this control group that the kernel has killed for want of memory, or None if it does not say."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return None
    for line in lines:  # "0::/a/b" of version 2, "4:memory:/a/b" of version 1
        _, controllers, path = line.split(":", 2)
        if not controllers:
            folder, name = root, "memory.events"
        elif "memory" in controllers.split(","):
            folder, name = root / "memory", "memory.oom_control"
        else:
            continue
        # In a container the path may be the host's, and the group itself what stands at the root.
        for file in (folder / path.lstrip("/") / name, folder / name):
            try:
                counters = dict(row.split() for row in file.read_text().splitlines())
                return int(counters["oom_kill"])
            except (OSError, LookupError, ValueError):
                continue
    return None
