"""What a test may leave behind: nothing.

`Before` looks around before a test, and `left()` says afterwards what is there that was not: processes
(children of this one, zombies among them, and whatever else was started, however far away: each test
has a mark in its environment that all its descendants inherit), descriptors, threads, and files in
the folder that was `TMPDIR` to the test.

What is on its way out is waited for, on the thing itself: a process that was killed takes a moment to
go, and that is no leak.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import threading
import time
from collections import Counter
from pathlib import Path

from remuda.runtime.folders import sweep

__all__ = ["MARK", "Before"]

MARK = "REMUDA_TEST_MARK"
"""The variable of the environment that says which test a process belongs to."""

SECONDS = 10.0
"""How long something that is on its way out may take: a guard, not a threshold."""

_KEPT = ("Trio thread", "pytest_timeout", "asyncio_", "OptunaHub", "tqdm_monitor")
"""Threads that belong to no test: caches, watchdogs."""

_SHARED = ("anon_inode:[eventpoll]", "/dev/null", "/dev/urandom")


class Before:
    """What there is before a test.

    Args:
        mark: what the variable `MARK` says to the processes of this test; "" to look at children only.
        folder: where its temporary files go, or None.
    """

    def __init__(self, mark: str, folder: Path | None) -> None:
        self._mark, self._folder = f"{MARK}={mark}".encode() if mark else None, folder
        self._children = set(_children())
        self._descriptors = _descriptors()
        self._threads = {(thread, thread.name) for thread in threading.enumerate()}
        self._files = set(folder.iterdir()) if folder is not None else set()

    def left(self) -> list[str]:
        """What was left behind, in words; processes among it are killed, so that the next test has peace."""
        threads = self._new_threads()  # first, since some of them wait for processes
        found = [f"process {pid} ({words})" for pid, words in self._processes()]
        found += [f"thread {thread.name}" for thread in threads]
        until = time.monotonic() + SECONDS
        while things := self._things():  # a thread may have a name, and what it opens, a moment later
            if time.monotonic() > until:
                break
            gc.collect()  # what only a cycle holds is closed late, but it is closed
        return found + things

    def _things(self) -> list[str]:
        """Descriptors and files."""
        new = _descriptors() - self._descriptors
        found = [f"descriptor of {target} ({count}×)" for target, count in new.items()]
        if self._folder is not None:
            sweep(str(self._folder))  # of applications that were killed, as the next one does it
            found += [f"file {path.name}" for path in sorted(set(self._folder.iterdir()) - self._files)]
        return found

    def _processes(self) -> list[tuple[int, str]]:
        suspects = set(_children()) - self._children
        if self._mark is not None:
            suspects |= _marked(self._mark)
        left = []
        for pid in suspects:
            if not _ends(pid):
                left.append((pid, _words(pid)))
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        return left

    def _new_threads(self) -> list[threading.Thread]:
        """Those that still have something to do. A thread of trio's is called by its job, and when that is done it
        is kept for the next one: a thread that was there before may be busy with something of this test."""
        until = time.monotonic() + SECONDS
        while new := [
            thread
            for thread in threading.enumerate()
            if (thread, thread.name) not in self._threads and not thread.name.startswith(_KEPT)
        ]:
            if time.monotonic() > until:
                break
            new[0].join(0.01)
        return new


def _children() -> list[int]:
    """Children of this process, those that have ended and were not waited for included.

    They are listed by the thread that started them; when that ends, another one inherits them, which may be
    one that was looked at before.
    """
    tasks, after = None, set(os.listdir("/proc/self/task"))
    while tasks != after:
        tasks = after
        found = [int(pid) for task in tasks for pid in _read(Path(f"/proc/self/task/{task}/children")).split()]
        after = set(os.listdir("/proc/self/task"))
    return found


def _marked(mark: bytes) -> set[int]:
    """Processes that inherited the mark, wherever they are by now."""
    found = set()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and mark in _read(Path(entry.path) / "environ").split(b"\0"):
            found.add(int(entry.name))
    return found - {os.getpid()}


def _descriptors() -> Counter[str]:
    """What the descriptors of this process are open on, and how many on each."""
    targets: Counter[str] = Counter()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the one of the listing itself
        targets[target] += 1
    return Counter({target: count for target, count in targets.items() if target not in _SHARED})


def _ends(pid: int) -> bool:
    """Whether it has gone, or goes in a moment. A zombie of ours has not: nobody waited for it."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        if not select.select([fd], [], [], SECONDS)[0]:
            return False
    finally:
        os.close(fd)
    return pid not in _children()


def _words(pid: int) -> str:
    return _read(Path(f"/proc/{pid}/cmdline")).replace(b"\0", b" ").decode("utf-8", "replace")[:200] or "a zombie"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended, or is none of our business
        return b""
