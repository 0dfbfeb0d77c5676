"""Temporary files of workers: a folder for each, and nothing left of it.

    {tempfile.gettempdir()}/
        remuda-workers-1000-x3k9q2ma/     one pool of user 1000, locked by its application
            0.1/                          TMPDIR of generation 1 of slot 0
            1.1/

A worker's folder is removed when the worker is gone, the pool's when the pool is closed. What an
application left behind that was killed is removed when the next pool of the same user is opened.

* **The lock says whose it is.** The application holds a `flock` on the folder itself, which the
  kernel takes away when the application ends, however it ends. Who gets the lock may remove the
  folder, and nobody else may. (Programs that clean `/tmp` by age leave locked folders alone, too.)
* **What is made is not there before it is locked.** Between the two another application may have
  taken it for left behind. So after it has the lock, the maker looks whether the folder is still the
  one of that name, and makes another if it is not.
* **Nothing is followed and nothing is guessed.** What is removed is reached by descriptors, never by
  paths, and never through a symbolic link or into another file system; and it is begun only with a
  directory of exactly such a name, that is ours, and that is closed to everybody else.

Where a file system has no locks (some network drives), nothing that is left behind is removed there.
All that touches the disk runs in threads: a disk may be slow.
"""

from __future__ import annotations

import errno
import fcntl
import math
import os
import re
import stat
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import TypeVar

import trio

__all__ = ["Folders", "sweep"]

T = TypeVar("T")

_ROUNDS = 3
"""How often a folder is looked through, for what somebody who escaped goes on to put there."""


class Folders:
    """The folders of one pool."""

    def __init__(self) -> None:
        self._fd = -1  # of the pool's folder, locked
        self._path = ""
        self._closed = False
        self._access = threading.Condition()
        self._removals = 0  # under way, in their threads
        self._threads = trio.CapacityLimiter(math.inf)  # not trio's own, which others may have filled
        _open.add(self)

    async def make(self, name: str) -> str:
        """Make the folder of one worker; returns its path. Not cut short when it is cancelled.

        Raises:
            OSError: it cannot be made; the text says where.
        """
        return await self._in_thread(lambda: self._make(name), abandon=False)

    async def remove(self, name: str) -> None:
        """Remove the folder of one worker, if there is one. Never raises; what cannot be removed stays, until `close`."""
        with suppress(OSError):
            await self._in_thread(lambda: self._remove(name))

    async def sweep(self) -> None:
        """Remove what applications left behind that are no more. Goes on in its thread when it is cancelled."""
        with suppress(OSError):
            await self._in_thread(lambda: sweep(tempfile.gettempdir()))

    async def close(self) -> None:
        """Remove the pool's folder, after all that is under way. May be called again.

        It goes on in its thread when it is cancelled, and does its waiting there: whatever it has to wait
        for, it has begun.
        """
        with suppress(OSError):
            await self._in_thread(self._close)

    async def _in_thread(self, sync_fn: Callable[[], T], *, abandon: bool = True) -> T:
        try:
            return await trio.to_thread.run_sync(sync_fn, limiter=self._threads, abandon_on_cancel=abandon)
        except RuntimeError as error:  # Python's own way to say that no thread is to be had
            raise OSError(errno.EAGAIN, str(error)) from error

    def _make(self, name: str) -> str:
        base = "the temporary directory"
        try:
            base = tempfile.gettempdir()
            with self._access:
                try:
                    self._make_in_ours(name)
                except FileNotFoundError:  # not there yet, or somebody has removed it
                    self._claim(base)
                    self._make_in_ours(name)
                return os.path.join(self._path, name)
        except OSError as error:
            reason = error.strerror or str(error)
            raise OSError(error.errno or errno.EIO, f"it gets no folder in {base}: {reason}") from error

    def _make_in_ours(self, name: str) -> None:
        if self._closed:
            raise OSError(errno.ESHUTDOWN, "the pool is closed")
        if self._fd < 0:
            raise FileNotFoundError
        os.mkdir(name, 0o700, dir_fd=self._fd)

    def _claim(self, base: str) -> None:
        """Make the pool's folder and lock it."""
        self._let_go()
        while True:
            path = tempfile.mkdtemp(prefix=_prefix(), dir=base)
            try:
                self._fd = os.open(path, _DIRECTORY)
            except FileNotFoundError:
                continue  # taken for left behind, before we had it open
            except OSError:  # no descriptors
                os.rmdir(path)
                raise
            if _lock(self._fd) and _is_at(path, self._fd):
                self._path = path
                return
            self._let_go()

    def _remove(self, name: str) -> None:
        with self._access:
            if self._fd < 0:
                return
            fd = os.open(".", _DIRECTORY, dir_fd=self._fd)  # one that does not hold the lock
            self._removals += 1
        try:
            _remove_tree(name, fd)
        finally:
            os.close(fd)
            with self._access:
                self._removals -= 1
                self._access.notify_all()

    def _close(self) -> None:
        with self._access:
            self._closed = True
            self._access.wait_for(lambda: not self._removals)
            if self._fd >= 0:
                with suppress(OSError):
                    _empty(self._fd)
                    os.rmdir(self._path)
                self._let_go()
            _open.discard(self)

    def _let_go(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def forget(self) -> None:
        """In a process that was forked from the application: hold the lock no longer, and touch nothing."""
        self._closed = True
        with suppress(OSError):
            self._let_go()


def sweep(base: str) -> None:
    """Remove the folders of pools whose application is no more. Never raises.

    Args:
        base: the directory to look in.
    """
    pattern = re.compile(re.escape(_prefix()) + "[a-z0-9_]{8}")
    try:
        names = [name for name in os.listdir(base) if pattern.fullmatch(name)]
    except OSError:
        return
    for name in names:
        path = os.path.join(base, name)
        try:
            fd = os.open(path, _DIRECTORY)
        except OSError:
            continue  # a link, no directory, not for us to read, or gone
        try:
            if _is_ours(fd) and _lock(fd, sure=True):
                _empty(fd)
                if _is_at(path, fd):
                    os.rmdir(path)
        except OSError:
            pass  # the next one may have more luck
        finally:
            os.close(fd)


_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def _prefix() -> str:
    return f"remuda-workers-{os.geteuid()}-"


def _is_ours(fd: int) -> bool:
    status = os.fstat(fd)
    return status.st_uid == os.geteuid() and not status.st_mode & 0o077


def _is_at(path: str, fd: int) -> bool:
    """Whether the directory is still the one of that name."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def _lock(fd: int, *, sure: bool = False) -> bool:
    """Take the lock, without waiting; False if somebody has it.

    Where there are no locks the maker goes on without; who has to be `sure` does not.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return not sure
    return True


# ── Removing ────────────────────────────────────────────────────────────────────────────────────


def _remove_tree(name: str, parent: int) -> None:
    """Remove a directory with all that is in it."""
    fd = _open_directory(name, parent)
    try:
        _empty(fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent)


def _empty(top: int) -> None:
    """Remove all that is in a directory, whatever it is, however deep; what cannot be removed stays.

    Directories within directories are first moved to the top: so two descriptors and no recursion
    will do, for a tree that may be as deep as a disk allows.
    """
    device, mark, numbers = os.fstat(top).st_dev, os.urandom(8).hex(), count()
    for _ in range(_ROUNDS):
        left = _remove_files(top)
        if not left:
            return
        while left:
            name = left.pop()
            try:
                fd = _open_directory(name, top)
            except OSError:
                continue
            try:
                if os.fstat(fd).st_dev != device:
                    continue
                for inner in _remove_files(fd):
                    with suppress(OSError):
                        os.close(_open_directory(inner, fd))  # which lets us move it
                        moved = f"{mark}.{next(numbers)}"
                        os.rename(inner, moved, src_dir_fd=fd, dst_dir_fd=top)
                        left.append(moved)
            finally:
                os.close(fd)
            with suppress(OSError):
                os.rmdir(name, dir_fd=top)


def _remove_files(fd: int) -> list[str]:
    """Remove what is no directory; returns the names of those that are."""
    directories = []
    with os.scandir(fd) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                directories.append(entry.name)
            else:
                with suppress(OSError):
                    os.unlink(entry.name, dir_fd=fd)
    return directories


def _open_directory(name: str, parent: int) -> int:
    """Open a directory, and make it one that its owner may change: whoever wrote in it may have thought otherwise."""
    try:
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
    except PermissionError:
        _unlock_directory(name, parent)
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
    with suppress(OSError):  # it may be another's
        if os.fstat(fd).st_mode & stat.S_IRWXU != stat.S_IRWXU:
            os.fchmod(fd, stat.S_IRWXU)
    return fd


def _unlock_directory(name: str, parent: int) -> None:
    """Let the owner into a directory that cannot be opened, and into nothing else that has its name by now."""
    if sys.platform == "linux":
        fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            os.chmod(f"/proc/self/fd/{fd}", stat.S_IRWXU)
        finally:
            os.close(fd)
    else:
        os.chmod(name, stat.S_IRWXU, dir_fd=parent, follow_symlinks=False)


def _forked() -> None:
    for folders in list(_open):
        folders.forget()
    _open.clear()


_open: weakref.WeakSet[Folders] = weakref.WeakSet()
"""The folders of this process."""

os.register_at_fork(after_in_child=_forked)
