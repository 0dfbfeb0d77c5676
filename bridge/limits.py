"""What a worker may use of the machine: it binds itself, before anything of the user's is loaded.

The kernel keeps the limits from then on, whatever the worker does, and what the worker starts has them
as well, each process for itself. They are set by the worker and not by who starts it, so that it is
all the same how it was started.

A limit that cannot be had is an error, never less or more than was asked for. So nobody asks for more
than the hard limit allows, not even who is privileged to raise that.

This module uses the standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

__all__ = ["ROOM", "apply"]

ROOM = 16 * 1024 * 1024
"""Bytes of address space that a worker has left at least, after its limit is set."""


def apply(limits: Mapping[str, int]) -> None:
    """Bind this process.

    Args:
        limits: by the names that the fields of `remuda.Limits` have; those that are not there stay
            as they are.

    Raises:
        ValueError: one cannot be had; the text says which, and why.
    """
    if "nice" in limits:
        try:
            os.setpriority(os.PRIO_PROCESS, 0, limits["nice"])
        except OSError as error:
            now = os.getpriority(os.PRIO_PROCESS, 0)
            raise ValueError(
                f"limits.nice is {limits['nice']}, and the application runs at {now}: {error.strerror}. "
                "Only a privileged process may go below its own"
            ) from None
    if "cpu" in limits:
        _bind_cpu(limits["cpu"])
    if "files" in limits:
        _bind("files", "RLIMIT_NOFILE", limits["files"])
    if "memory" in limits:
        _check_room(limits["memory"])
        _bind("memory", "RLIMIT_AS", limits["memory"])


def _bind(name: str, resource_name: str, value: int, grace: int = 0) -> None:
    """Set the soft limit to `value`, and the hard one too, or to `grace` more if that can be had."""
    import resource  # late: most workers have no limits

    number = getattr(resource, resource_name)
    _, hard = resource.getrlimit(number)
    if hard != resource.RLIM_INFINITY and value > hard:
        raise ValueError(
            f"limits.{name} is {value}, and the hard limit of this process is {hard} ({resource_name}). "
            "Ask for no more than that, or raise it where the application is started"
        )
    most = value + grace if hard == resource.RLIM_INFINITY else min(value + grace, hard)
    try:
        resource.setrlimit(number, (value, most))
    except (OSError, ValueError) as error:
        raise ValueError(f"limits.{name} is {value}, and the system refuses it ({resource_name}): {error}") from None


def _bind_cpu(seconds: int) -> None:
    """At the soft limit the worker says where it is, and dies; at the hard one it is killed if it has not."""
    import faulthandler
    import signal

    _bind("cpu", "RLIMIT_CPU", seconds, grace=1)
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)  # ignored, it would be inherited
    faulthandler.register(signal.SIGXCPU, 2, chain=True)


def _check_room(value: int) -> None:
    """A worker that came with more than it may have (one that was forked) could not even say so."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            present = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return
    if value < present + ROOM:
        raise ValueError(
            f"limits.memory is {value} bytes, and this worker has {present} of address space before it begins. "
            f"Ask for {present + ROOM} at least, and for what your code needs"
        )
