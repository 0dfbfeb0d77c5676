"""What a worker has started and what has left its process group: found, and ended.

The kernel's own means reach a group: a process that calls `setsid` or `setpgid` is out of it. It is
found by what it still has from its worker, either of these:

    mark     a word in a variable of the environment, which children inherit
    pipes    the worker's end of its lifeline, its channel or its stderr

(A worker that was forked by a template has its mark in what it starts, and not in what it forks: that
shows the environment with which the template was started. It is known by its pipes.)

A process that has dropped both (a daemon with an environment and descriptors of its own) cannot be told
from any other, and is left alone. That is also how to start one that shall stay.

This kills processes that are not ours by birth, so it would rather miss one than hit a stranger:

* Nothing is taken for a trace that could be a default: a mark is sixteen hexadecimal digits that were
  drawn for this worker, and a pipe is one that we hold the other end of at this moment.
* Whoever is older than the worker, another user's, init, or an ancestor of ours is never touched,
  whatever it has.
* It is killed by pidfd, and looked at once more after that was opened: a number may become another's.

Looking costs some ten microseconds for each process of the machine, and may hang if one of them hangs in
the kernel; so it is done in a thread, and when nobody waits for the worker any more.
"""

from __future__ import annotations

import errno
import os
import re
import select
import signal
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress

__all__ = ["MARK", "Traces", "clock", "end_all", "find", "is_left", "new_mark", "stat_of"]

MARK = "REMUDA_WORKER"
"""The variable. The application may be in a worker itself, so there may be several words, with spaces between."""

_PASSES = 10
"""How often it is looked again, because what is being killed may start others meanwhile."""

_DYING = 1000  # milliseconds that one may take to go

_NO_MEANS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)

_ENVIRON = 1 << 18  # bytes of an environment that are read; the kernel allows more, nobody uses it


class Traces:
    """By what the processes of one worker are known.

    Args:
        mark: its word in the variable, from `new_mark`.
        pipes: those that somebody still holds at the worker's end: inode, and whether that is for writing.
        born: when the worker was started, from `clock`.

    Raises:
        ValueError: the mark could be anybody's.
    """

    __slots__ = ("born", "mark", "pipes")

    def __init__(self, mark: str, pipes: Iterable[tuple[int, bool]], born: int) -> None:
        if not re.fullmatch("[0-9a-f]{16}", mark):
            raise ValueError(f"{mark!r} is no mark of a worker; it is drawn by new_mark()")
        self.mark = mark.encode()
        self.pipes = frozenset(pipes)
        self.born = born

    def lead_to(self, pid: int) -> bool:
        """Whether this process was started by the worker, or by what that had started.

        Raises:
            OSError: it cannot be looked: no descriptor is to be had.
        """
        try:
            return (self.mark in _marks(pid) or self._holds(pid)) and self._may_be_ours(pid)
        except OSError as error:
            if error.errno in _NO_MEANS:
                raise
            return False  # it has gone, or is another user's

    def _holds(self, pid: int) -> bool:
        return bool(self.pipes) and any(end in self.pipes for end in _ends(pid))

    def _may_be_ours(self, pid: int) -> bool:
        state, _, started = stat_of(pid)
        same_user = os.stat(f"/proc/{pid}").st_uid == os.geteuid()
        return state != "Z" and started >= self.born and same_user and pid not in _family()


def new_mark() -> tuple[str, str]:
    """A word for a new worker, and the value of its variable: the word, beside what it inherits."""
    word = os.urandom(8).hex()
    return word, f"{os.environ.get(MARK, '')} {word}".strip()


def clock() -> int:
    """Now, as the kernel notes the start of a process: ticks since the machine was started."""
    if sys.platform != "linux":
        return 0
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))


def is_left(pid: int) -> bool:
    """Whether there is such a process that has not ended, or that we have not waited for."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):  # no such process, or the number is somebody else's by now
        return False
    if sys.platform != "linux":
        return True
    try:
        state, parent, _ = stat_of(pid)
    except OSError:
        return False
    # A worker whose template has died is not ours to reap; whoever inherited it does so when it gets to it.
    return state not in "ZX" or parent == os.getpid()


def find(traces: Traces) -> list[int]:
    """The processes that the traces lead to; raises OSError when it cannot be looked."""
    if sys.platform != "linux":
        return []
    own = os.getpid()
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if pid not in (1, own) and traces.lead_to(pid)]


def end_all(traces: Traces, after: float = 0.0) -> int:
    """Kill every process that the traces lead to; returns how many there were.

    Args:
        traces: what it had left.
        after: seconds before it is looked.

    Raises:
        OSError: it cannot be looked: no descriptor is to be had.
    """
    if after:
        time.sleep(after)
    ended = 0
    for _ in range(_PASSES):
        killed = sum(_kill(pid, traces) for pid in find(traces))
        if not killed:
            break
        ended += killed
    return ended


def _kill(pid: int, traces: Traces) -> bool:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if not traces.lead_to(pid):
            return False
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        poller.poll(_DYING)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        os.close(pidfd)
    with suppress(ChildProcessError):  # as a rule it is init's; in a container we may be that
        os.waitpid(pid, os.WNOHANG)
    return True


# ── What the kernel says of a process ───────────────────────────────────────────────────────────


def _marks(pid: int) -> list[bytes]:
    fd = os.open(f"/proc/{pid}/environ", os.O_RDONLY | os.O_CLOEXEC)
    try:
        environ = b"\0" + os.read(fd, _ENVIRON)
    finally:
        os.close(fd)
    _, found, rest = environ.partition(b"\0" + MARK.encode() + b"=")
    return rest.partition(b"\0")[0].split() if found else []


def _ends(pid: int) -> Iterator[tuple[int, bool]]:
    """The ends of pipes that a process holds: which pipe, and whether for writing."""
    folder = f"/proc/{pid}/fd"
    for name in os.listdir(folder):
        try:
            target, mode = os.readlink(f"{folder}/{name}"), os.lstat(f"{folder}/{name}").st_mode
        except FileNotFoundError:  # closed meanwhile
            continue
        if target.startswith("pipe:["):
            yield int(target[6:-1]), bool(mode & stat.S_IWUSR)


def stat_of(pid: int) -> tuple[str, int, int]:
    """Its state, its parent, and when it was started."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()  # its name, in front, may contain anything
    return fields[0].decode(), int(fields[1]), int(fields[19])


def _family() -> set[int]:
    """This process, and those that it descends from."""
    family, pid = {0, 1}, os.getpid()
    while pid not in family:
        family.add(pid)
        pid = stat_of(pid)[1]
    return family
