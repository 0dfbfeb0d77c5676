"""Folders for temporary files: nothing of them is left, and nothing else is touched."""

# ruff: noqa: ASYNC220, ASYNC222, ASYNC240  (the disk is what this is about, and nobody else waits)

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from remuda.runtime import folders as module
from remuda.runtime.folders import Folders, sweep

ROOT = Path(__file__).parents[2]
NOBODY = 65534
HANG = 60.0


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The temporary directory, and open to everybody."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o1777)
        monkeypatch.setattr(tempfile, "tempdir", name)
        yield Path(name)


def name(number: int = 0) -> str:
    return f"remuda-workers-{os.geteuid()}-abcdefg{number}"


def stale(base: Path, number: int = 0) -> Path:
    """What an application leaves behind that is killed."""
    path = base / name(number)
    path.mkdir(mode=0o700)
    (path / "0.1").mkdir()
    (path / "0.1" / "file").write_text("text")
    return path


# ── Making and removing ─────────────────────────────────────────────────────────────────────────


async def test_from_the_first_to_the_last(base: Path) -> None:
    folders = Folders()
    assert list(base.iterdir()) == [], "none is made before one is needed"
    one, other = Path(await folders.make("0.1")), Path(await folders.make("1.1"))
    assert one.is_dir() and other.is_dir() and one.parent == other.parent
    assert [path.name for path in base.iterdir()] == [one.parent.name]
    (one / "file").write_text("text")
    await folders.remove("0.1")
    await folders.remove("0.1")
    await folders.remove("7.7")
    assert not one.exists() and other.is_dir()
    (other / "file").write_text("text")
    await folders.close()
    assert list(base.iterdir()) == []
    await folders.close()
    await folders.remove("1.1")
    with pytest.raises(OSError, match="closed"):
        await folders.make("1.2")
    assert list(base.iterdir()) == []


async def test_many_at_once_get_the_same_pool(base: Path) -> None:
    folders = Folders()
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(folders.make, f"{number}.1")
    (pools,) = base.iterdir()
    assert len(list(pools.iterdir())) == 20
    await folders.close()


async def test_somebody_has_removed_it(base: Path) -> None:
    """As those do who clean up what has not been used for days."""
    folders = Folders()
    first = Path(await folders.make("0.1"))
    first.rmdir()
    first.parent.rmdir()
    second = Path(await folders.make("0.2"))
    assert second.is_dir() and second.parent != first.parent
    await folders.close()
    assert list(base.iterdir()) == []


class Held:
    """A removal that is held up, as by a slow disk, until it may go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.go, self.done = threading.Event(), threading.Event(), False
        self._real = module._remove_tree
        monkeypatch.setattr(module, "_remove_tree", self._remove_tree)

    def _remove_tree(self, name: str, parent: int) -> None:
        self.begun.set()
        assert self.go.wait(HANG)
        self._real(name, parent)
        self.done = True


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(HANG):
        while not condition():
            await trio.lowlevel.checkpoint()


async def test_close_waits_for_what_is_under_way(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders, removal = Folders(), Held(monkeypatch)
    await folders.make("0.1")

    async def let_it_go_on() -> None:
        await until(lambda: folders._closed)
        assert not removal.done
        removal.go.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(folders.remove, "0.1")
        await until(removal.begun.is_set)
        nursery.start_soon(let_it_go_on)
        await folders.close()
        assert removal.done and list(base.iterdir()) == []


async def test_close_goes_on_when_it_was_cancelled(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if it had to wait: the time for the end of a pool may be over as soon as its workers are gone."""
    folders, removal = Folders(), Held(monkeypatch)
    await folders.make("0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(folders.remove, "0.1")
        await until(removal.begun.is_set)
        nursery.start_soon(folders.close)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert not removal.done and len(list(base.iterdir())) == 1
    removal.go.set()
    await until(lambda: not list(base.iterdir()))
    await until(lambda: folders._fd < 0)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EMFILE, errno.EROFS])
async def test_it_cannot_be_made(base: Path, error: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says where, and nothing is left; the next one may have more luck."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(error, os.strerror(error))

    folders = Folders()
    with monkeypatch.context() as patch:
        patch.setattr(os, "open" if error == errno.EMFILE else "mkdir", refuse)
        with pytest.raises(OSError, match=f"it gets no folder in {base}: {os.strerror(error)}") as caught:
            await folders.make("0.1")
    assert caught.value.errno == error
    assert list(base.iterdir()) == []
    assert Path(await folders.make("0.1")).is_dir()
    await folders.close()


async def test_no_thread_is_to_be_had(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def none(*_: Any, **__: Any) -> Any:
        raise RuntimeError("can't start new thread")

    folders = Folders()
    with monkeypatch.context() as patch:
        patch.setattr(trio.to_thread, "run_sync", none)
        with pytest.raises(OSError, match="can't start new thread"):
            await folders.make("0.1")
        await folders.remove("0.1")
        await folders.sweep()
        await folders.close()


# ── What was left behind ────────────────────────────────────────────────────────────────────────


def test_what_is_left_behind_is_removed(base: Path) -> None:
    stale(base, 1)
    (stale(base, 2) / "0.1").chmod(0)
    sweep(str(base))
    assert list(base.iterdir()) == []


async def test_what_is_in_use_is_not(base: Path) -> None:
    folders = Folders()
    path = Path(await folders.make("0.1"))
    stale(base)
    sweep(str(base))
    assert [each.name for each in base.iterdir()] == [path.parent.name] and path.is_dir()
    await folders.close()


def not_ours(base: Path) -> dict[str, Path]:
    """What looks like it, and is not."""
    others = {
        "another name": base / f"{name()}0",
        "no more letters": base / f"remuda-workers-{os.geteuid()}-ABCDEFGH",
        "another user's name": base / "remuda-workers-12345-abcdefgh",
        "open to others": base / name(2),
        "a file": base / name(3),
        "a link": base / name(4),
        "a FIFO": base / name(5),
        "another user's": base / name(6),
    }
    for what, path in others.items():
        if what == "a file":
            path.write_text("text")
        elif what == "a link":
            (base / "elsewhere").mkdir(mode=0o700)
            (base / "elsewhere" / "file").write_text("text")
            path.symlink_to(base / "elsewhere")
        elif what == "a FIFO":
            os.mkfifo(path)
        else:
            path.mkdir(mode=0o755 if what == "open to others" else 0o700)
            (path / "file").write_text("text")
    if os.geteuid() == 0:
        os.chown(others["another user's"], NOBODY, NOBODY)
    else:
        (others["another user's"] / "file").unlink()
        others.pop("another user's").rmdir()
    return others


def test_nothing_else_is_touched(base: Path) -> None:
    not_ours(base)
    before = sorted(base.rglob("*"))
    sweep(str(base))
    assert sorted(base.rglob("*")) == before


def test_there_is_nothing_to_look_in(base: Path) -> None:
    sweep(str(base / "none"))


def test_where_there_are_no_locks_nothing_is_removed(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any) -> None:
        raise OSError(errno.EBADF, "no locks here")

    async def life() -> None:
        folders = Folders()
        assert Path(await folders.make("0.1")).is_dir()
        await folders.close()

    path = stale(base)
    monkeypatch.setattr(fcntl, "flock", none)
    sweep(str(base))
    trio.run(life)
    assert (path / "0.1" / "file").exists() and list(base.iterdir()) == [path]


@pytest.mark.parametrize("moment", ["it is made", "it is opened", "it is locked", "somebody has the lock"])
async def test_swept_while_it_is_made(base: Path, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another application looks around at the worst of moments: there is a folder in the end, and a lock on it."""
    tried: list[str] = []
    mkdtemp, flock = tempfile.mkdtemp, fcntl.flock
    held: list[int] = []

    def make(*args: Any, **more: Any) -> str:
        tried.append(mkdtemp(*args, **more))
        if len(tried) == 1 and moment == "it is made":
            sweep(str(base))
        return tried[-1]

    def lock(fd: int, how: int) -> None:
        first = len(tried) == 1 and os.path.exists(tried[0]) and os.path.samestat(os.fstat(fd), os.stat(tried[0]))
        if not first or held:
            flock(fd, how)
        elif moment == "it is opened":
            held.append(-1)
            sweep(str(base))
            flock(fd, how)
        elif moment == "somebody has the lock":
            held.append(os.open(tried[0], os.O_RDONLY))
            flock(held[0], fcntl.LOCK_EX)
            flock(fd, how)
        else:
            flock(fd, how)
            sweep(str(base))

    monkeypatch.setattr(tempfile, "mkdtemp", make)
    monkeypatch.setattr(fcntl, "flock", lock)
    folders = Folders()
    path = Path(await folders.make("0.1"))
    assert len(tried) == (1 if moment == "it is locked" else 2)
    assert path.is_dir() and str(path.parent) == tried[-1]
    sweep(str(base))
    assert path.is_dir()
    if moment == "somebody has the lock":
        assert os.path.exists(tried[0]), "it is theirs now"
        os.close(held[0])
        sweep(str(base))
    assert list(base.iterdir()) == [path.parent]
    await folders.close()
    assert list(base.iterdir()) == []


RACE = """
import sys, trio, tempfile
from pathlib import Path
from remuda.runtime.folders import Folders, sweep
tempfile.tempdir = sys.argv[1]
async def main():
    for _ in range(150):
        folders = Folders()
        paths = [Path(await folders.make(f"{n}.1")) for n in range(2)]
        await folders.sweep()
        assert all(path.is_dir() for path in paths)
        await folders.close()
        assert not paths[0].parent.exists()
trio.run(main)
"""


def test_many_applications_make_and_sweep(base: Path) -> None:
    racers = [subprocess.Popen([sys.executable, "-c", RACE, str(base)], cwd=ROOT) for _ in range(4)]
    assert [racer.wait(HANG) for racer in racers] == [0] * 4
    assert list(base.iterdir()) == []


# ── Applications that are killed, and that fork ─────────────────────────────────────────────────

KILLED = """
import os, signal, sys, trio
import remuda
async def main():
    async with remuda.open_pool(min_workers=2, max_workers=2) as pool:
        assert await pool.run_sync(os.getpid) != os.getpid()
        if sys.argv[1] == "forked" and os.fork() == 0:
            os.close(1)
            signal.pause()
        print(await pool.run_sync(os.getenv, "TMPDIR"), os.getpid(), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
trio.run(main)
"""


@pytest.mark.parametrize("how", ["alone", "forked"])
async def test_the_next_pool_removes_what_a_killed_application_left(
    base: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if something that it had forked lives on: that holds no lock."""
    from remuda.runtime import pool as runtime
    from remuda.runtime.opening import open_pool

    monkeypatch.setattr(runtime, "_SWEEPING", HANG)
    program = [sys.executable, "-W", "ignore", "-c", KILLED, how]
    environment = {**os.environ, "TMPDIR": str(base)}
    application = subprocess.Popen(
        program, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment, start_new_session=True
    )
    try:
        assert application.stdout is not None
        with application.stdout:
            folder = Path(application.stdout.read().split()[0])
        assert application.wait(HANG) == -signal.SIGKILL
        assert folder.is_dir() and folder.parent.parent == base
        async with open_pool(max_workers=1):
            assert not folder.parent.exists()
            assert len(list(base.iterdir())) == 1, "its own"
        assert list(base.iterdir()) == []
    finally:
        if how == "forked":
            os.killpg(application.pid, signal.SIGKILL)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of threads and forks, from Python 3.12 on
async def test_a_forked_child_neither_removes_nor_makes(base: Path) -> None:
    folders = Folders()
    path = Path(await folders.make("0.1"))
    child = os.fork()
    if child == 0:
        try:
            folders._remove("0.1")
            folders._close()
            try:
                folders._make("0.2")
            except OSError:
                os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert path.is_dir() and not (path.parent / "0.2").exists()
    sweep(str(base))
    assert path.is_dir(), "the lock is still ours"
    await folders.close()


async def test_what_is_executed_does_not_inherit_the_lock(base: Path) -> None:
    folders = Folders()
    await folders.make("0.1")
    assert not os.get_inheritable(folders._fd)
    await folders.close()


# ── Whatever workers have made of it ────────────────────────────────────────────────────────────


def as_user(base: Path, act: Callable[[Path], None]) -> None:
    """In a process that the system refuses things to, and that has `base` as its working directory."""
    child = os.fork()
    if child == 0:
        try:
            os.chdir(base)
            if os.geteuid() == 0:
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            act(Path())
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_folders_that_nobody_may_write_to_or_look_into(base: Path) -> None:
    def act(here: Path) -> None:
        top = stale(here)
        for mode in (0, 0o100, 0o200, 0o400, 0o500):
            inner = top / "0.1" / f"{mode:o}" / "inner"
            inner.mkdir(parents=True)
            (inner / "file").write_text("text")
            (inner.parent / "file").write_text("text")
            (inner / "file").chmod(0)
            inner.chmod(mode)
            inner.parent.chmod(mode)
        (top / "0.1").chmod(0o500)
        sweep(".")
        assert not top.exists()

    as_user(base, act)


def test_links_are_removed_and_not_followed(base: Path) -> None:
    outside = base / "outside"
    outside.mkdir()
    (outside / "file").write_text("text")
    outside.chmod(0o500)
    top = stale(base)
    (top / "0.1" / "to a folder").symlink_to(outside)
    (top / "0.1" / "to a file").symlink_to(outside / "file")
    (top / "0.1" / "to nothing").symlink_to("nothing")
    (top / "link").symlink_to(outside)
    os.link(outside / "file", top / "0.1" / "the same file")
    sweep(str(base))
    assert not top.exists()
    assert (outside / "file").read_text() == "text" and outside.stat().st_mode & 0o777 == 0o500


def test_everything_that_is_no_folder(base: Path) -> None:
    top = stale(base)
    os.mkfifo(top / "0.1" / "fifo")
    import socket

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(top / "0.1" / "socket"))
    (top / "0.1" / "\udcff").write_text("no UTF-8")
    (top / "0.1" / ("x" * 255)).mkdir()
    sweep(str(base))
    assert not top.exists()


@pytest.fixture
def quick_base(base: Path) -> Iterator[Path]:
    """One in memory, where there is one: some disks take milliseconds for each folder."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else base) as name:
        yield Path(name)


DEPTH = 1500


def test_as_deep_as_you_like(quick_base: Path) -> None:
    """Neither recursion nor a descriptor for each level."""
    assert DEPTH > sys.getrecursionlimit()
    top = stale(quick_base)
    fd = os.open(top, os.O_RDONLY)
    for _ in range(DEPTH):
        os.mkdir("d", dir_fd=fd)
        os.mkdir("e", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 10, hard))
    try:
        sweep(str(quick_base))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not top.exists()


def test_what_cannot_be_removed_stays_and_the_rest_goes(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.unlink

    def unlink(path: Any, *args: Any, **more: Any) -> None:
        if path == "stubborn":
            raise PermissionError(errno.EPERM, "immutable")
        real(path, *args, **more)

    top, other = stale(base, 1), stale(base, 2)
    (top / "0.1" / "stubborn").write_text("text")
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", unlink)
        sweep(str(base))
    assert [path.name for path in top.rglob("*") if path.is_file()] == ["stubborn"]
    assert not other.exists()
    sweep(str(base))
    assert not top.exists()


def test_another_file_system_is_not_entered(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was mounted there is somebody's; a worker of root can do that."""
    top = stale(base)
    (top / "0.1" / "mounted").mkdir()
    (top / "0.1" / "mounted" / "file").write_text("text")
    inode, real = (top / "0.1" / "mounted").stat().st_ino, os.fstat

    def fstat(fd: int) -> Any:
        found = real(fd)
        if found.st_ino == inode:
            return os.stat_result((*found[:2], found.st_dev + 1, *found[3:]))
        return found

    monkeypatch.setattr(os, "fstat", fstat)
    sweep(str(base))
    assert [path.read_text() for path in top.rglob("file")] == ["text"]
    monkeypatch.undo()
    sweep(str(base))
    assert not top.exists()
