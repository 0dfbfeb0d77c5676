"""Every limit is reached for real, and it is the kernel that keeps it: who asked for too much learns it, and nobody else."""

# ruff: noqa: ASYNC240  (a look at the disk; nobody else waits)

from __future__ import annotations

import errno
import math
import os
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import trio

from remuda.bridge.limits import ROOM
from remuda.runtime import cgroup
from remuda.runtime.config import Health, PoolConfig
from remuda.runtime.events import WorkerEnded
from remuda.runtime.limits import LEAST_FILES, LEAST_MEMORY, Limits
from remuda.runtime.opening import open_pool
from remuda.statemachines.errors import OutcomeUnknown, PoolStartError, RemoteError, WorkerDeath

from .world import HANG, load, read_fifo, settled, world

pytestmark = pytest.mark.usefixtures("patient")

MIB = 1 << 20
QUICK = Health(interval=0.05, recheck=0.05)


async def death(here: Any) -> WorkerDeath:
    await here.until(lambda: bool(here.of(WorkerEnded)))
    (event,) = here.of(WorkerEnded)
    assert not event.on_purpose
    return event.death


# ── They are set ────────────────────────────────────────────────────────────────────────────────


async def test_they_are_read_back(tmp_path: Path) -> None:
    limits = Limits(memory=512 * MIB, cpu=100, files=100, nice=7)
    async with world(limits=limits, cwd=str(tmp_path)) as here:
        about = await here.pool.call("about")
        assert about["memory"] == [512 * MIB, 512 * MIB]
        assert about["cpu"] == [100, 101], "if it does not go when it is told, it is killed a second later"
        assert about["files"] == [100, 100]
        assert about["nice"] == 7
        assert about["cwd"] == os.path.realpath(tmp_path)


async def test_without_any_a_worker_has_what_the_application_has() -> None:
    async with world() as here:
        about = await here.pool.call("about")
        assert about["memory"] == [*resource.getrlimit(resource.RLIMIT_AS)]
        assert about["cpu"] == [*resource.getrlimit(resource.RLIMIT_CPU)]
        assert about["files"] == [*resource.getrlimit(resource.RLIMIT_NOFILE)]
        assert (about["nice"], about["cwd"]) == (os.nice(0), os.getcwd())


async def test_a_relative_directory_is_meant_from_where_the_pool_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path)
    async with world(cwd="inner") as here:
        monkeypatch.chdir("/")
        about = await here.pool.call("about")
        os.kill(about["pid"], signal.SIGKILL)  # nor do later workers go by where the application is then
        await here.until(lambda: bool(here.of(WorkerEnded)))
        await here.until(lambda: here.whole)
        workers = {worker.pid for worker in here.pool.snapshot().workers}
        async with here.pool.checkout() as one, here.pool.checkout() as other:
            found = [await one.call("about"), await other.call("about")]
        assert {about["pid"] for about in found} == workers
        assert {about["cwd"] for about in found} == {os.path.realpath(tmp_path / "inner")}


async def test_the_least_is_enough_to_work_with() -> None:
    async with world(limits=Limits(memory=LEAST_MEMORY, files=LEAST_FILES)) as here:
        assert await here.pool.call("echo", {"token": "x" * 100_000}) == "x" * 100_000
        with pytest.raises(RemoteError, match="too small") as caught:
            await here.pool.call("raise_value_error")
        assert "in raise_value_error" in caught.value.remote_traceback


@pytest.mark.parametrize("name", ["files", "memory", "cpu"])
def test_above_the_hard_limit(name: str, tmp_path: Path) -> None:
    """An application that was started with less cannot give its workers more."""
    ulimit, factor = {"files": ("-n", 1), "memory": ("-v", 1024), "cpu": ("-t", 1)}[name]
    most = {"files": 200, "memory": 4_000_000, "cpu": 1000}[name]
    program = f"""if True:
        import trio, remuda
        async def main():
            async with remuda.open_pool(max_workers=1, limits=remuda.Limits({name}={most * factor})):
                print("allowed")
            try:
                async with remuda.open_pool(max_workers=1, limits=remuda.Limits({name}={most * factor + 1})):
                    print("started")
            except remuda.PoolStartError as error:
                print(error)
        trio.run(main)"""
    done = subprocess.run(
        ["sh", "-c", f'ulimit {ulimit} {most} && exec "$@"', "sh", sys.executable, "-c", program],
        capture_output=True, text=True, timeout=HANG, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.stdout.startswith("allowed\npool 'pool' could not start: its start failed: ValueError: "), done
    assert f"limits.{name} is {most * factor + 1}, and the hard limit of this process is {most * factor}" in done.stdout


async def test_a_priority_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The module stands for the kernel, which refuses it to who is not privileged."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os\ndef no(*_): raise PermissionError(13, 'Permission denied')\nos.setpriority = no\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(
        PoolStartError, match=rf"limits\.nice is 3, and the application runs at {os.nice(0)}: Permission denied"
    ):
        async with open_pool(max_workers=1, limits=Limits(nice=3)):
            pass


# ── Address space ───────────────────────────────────────────────────────────────────────────────


async def test_more_memory_than_allowed() -> None:
    async with world(limits=Limits(memory=256 * MIB), health=QUICK) as here:
        async with load(here.pool, 3):
            with pytest.raises(RemoteError) as caught:
                await here.pool.call("allocate", {"size": 300 * MIB})
            assert isinstance(caught.value, MemoryError)
            assert await here.pool.call("allocate", {"size": 100 * MIB}) == 100 * MIB
        assert here.of(WorkerEnded) == []


async def test_a_worker_that_came_with_more_than_it_may_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one would that was forked from something large."""
    (tmp_path / "sitecustomize.py").write_text("import mmap\nlarge = mmap.mmap(-1, 60 << 20)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(PoolStartError, match="of address space before it begins") as caught:
        async with open_pool(max_workers=1, limits=Limits(memory=LEAST_MEMORY)):
            pass
    least = int(str(caught.value).partition("Ask for ")[2].split()[0])
    assert LEAST_MEMORY < least < LEAST_MEMORY + 60 * MIB + ROOM
    # A worker is not always as large to the last MiB.
    async with open_pool(max_workers=1, limits=Limits(memory=least + 8 * MIB)) as pool:
        assert await pool.run_sync(abs, -1) == 1


# ── CPU time ────────────────────────────────────────────────────────────────────────────────────


async def test_the_cpu_time_is_used_up(fifo: str) -> None:
    async with world(limits=Limits(cpu=1)) as here:
        other: list[Any] = []

        async def wait_on_the_other() -> None:
            other.append(await here.pool.call("listen", {"path": fifo}))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_on_the_other)
            with pytest.raises(OutcomeUnknown, match=r"\(it used up its CPU time \(limits\.cpu = 1 s\)\)") as caught:
                await here.pool.call("spin", timeout=math.inf)  # a second of CPU time may take a minute
            assert other == []
            with open(fifo, "w") as file:
                file.write("unharmed")
        assert other == ["unharmed"]
        its = await death(here)
        assert caught.value.last_death == its
        assert (its.cause, its.exit_status) == ("it used up its CPU time (limits.cpu = 1 s)", -signal.SIGXCPU)
        assert "(killed by SIGXCPU)" in str(its)
        assert any("in spin" in line for line in its.stderr_tail), "it says where it was"
        assert its.cpu is not None and 0.5 < its.cpu < 2
        await here.until(lambda: here.whole)


async def test_it_does_not_go_when_its_cpu_time_is_used_up(fifo: str) -> None:
    async with world(limits=Limits(cpu=1)) as here:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_fifo, fifo)
            with pytest.raises(OutcomeUnknown, match="perhaps since it had used up its CPU time"):
                await here.pool.call("spin_on", {"path": fifo}, timeout=math.inf)
        its = await death(here)
        assert its.exit_status == -signal.SIGKILL and its.cpu is not None and its.cpu > 1.5


async def test_the_limit_is_the_applications_own(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world() as here:
        about = await here.pool.call("about")
        os.kill(about["pid"], signal.SIGXCPU)
        its = await death(here)
        assert its.cause == "it used up its CPU time (the application's own limit, RLIMIT_CPU)"


# ── Open files ──────────────────────────────────────────────────────────────────────────────────


async def test_more_open_files_than_allowed() -> None:
    async with world(limits=Limits(files=LEAST_FILES)) as here:
        async with load(here.pool, 3), here.pool.checkout() as worker:
            with pytest.raises(RemoteError) as caught:
                await worker.call("open_many")
            assert isinstance(caught.value, OSError) and caught.value.errno == errno.EMFILE
            assert "in open_many" in caught.value.remote_traceback
            assert await worker.call("echo", {"token": 1}) == 1, "it needs no descriptor to go on"
            with pytest.raises(RemoteError, match="too small"):
                await worker.call("raise_value_error")
        assert here.of(WorkerEnded) == []


# ── SIGKILL, and who sent it ────────────────────────────────────────────────────────────────────


async def test_killed_by_somebody_else() -> None:
    async with world() as here:
        about = await here.pool.call("about")
        os.kill(about["pid"], signal.SIGKILL)
        assert (await death(here)).cause.endswith("was killed by SIGKILL, perhaps out of memory")


async def test_killed_by_somebody_else_in_the_middle_of_a_call(fifo: str) -> None:
    """The end of the channel is seen first, and the pool sends SIGKILL as well; but that comes too late."""
    async with world() as here:

        async def strike() -> None:
            os.kill(int(await read_fifo(fifo)), signal.SIGKILL)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(strike)
            with pytest.raises(OutcomeUnknown, match="was killed by SIGKILL, perhaps out of memory"):
                await here.pool.call("pause", {"path": fifo})
        assert (await death(here)).cause.endswith("was killed by SIGKILL, perhaps out of memory")


async def test_killed_by_us_it_is_not_said_that_memory_was_out() -> None:
    """It has closed its channel, and lives on; so the pool kills it."""
    async with world() as here:
        with pytest.raises(OutcomeUnknown, match="it closed its channel, and was killed by SIGKILL"):
            await here.pool.call("hang_up")
        its = await death(here)
        assert its.cause == "it closed its channel, and was killed by SIGKILL"
        assert its.exit_status == -signal.SIGKILL


async def test_killed_for_want_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The counter of the control group says so; each that it has counted explains one death."""
    kills = [3]
    monkeypatch.setattr(cgroup, "oom_kills", lambda: kills[0])
    async with world() as here:

        async def kill(number: int) -> WorkerDeath:
            oldest = min(here.pool.snapshot().workers, key=lambda worker: worker.generation)
            assert oldest.pid is not None
            os.kill(oldest.pid, signal.SIGKILL)
            await here.until(lambda: len(here.of(WorkerEnded)) == number and here.whole)
            return here.of(WorkerEnded)[-1].death

        kills[0] += 1
        its = await kill(1)
        assert its.cause == "the kernel killed it: its control group was out of memory"
        assert "(killed by SIGKILL)" in str(its)
        assert "perhaps out of memory" in (await kill(2)).cause, "though it was there when the other one was counted"
        kills[0] += 1
        assert (await kill(3)).cause == "the kernel killed it: its control group was out of memory"


# ── What they use ───────────────────────────────────────────────────────────────────────────────


async def test_the_snapshot_says_what_workers_use() -> None:
    async with world(min_workers=1, max_workers=1) as here:
        (before,) = here.pool.snapshot().workers
        assert before.rss is not None and before.cpu is not None and before.rss > 5 * MIB
        await here.pool.call("hold", {"size": 50 * MIB})
        (after,) = here.pool.snapshot().workers
        assert after.rss is not None and after.rss > before.rss + 40 * MIB
        assert after.cpu is not None and after.cpu >= before.cpu
        assert after.pid is not None
        os.kill(after.pid, signal.SIGKILL)
        with open(f"/proc/{after.pid}/stat") as file:
            file.read()
        fd = os.pidfd_open(after.pid)
        await trio.lowlevel.wait_readable(fd)  # a zombie now, or reaped
        os.close(fd)
        here.pool.snapshot()
        await here.until(lambda: bool(here.of(WorkerEnded)))


async def test_a_death_says_what_the_worker_has_used() -> None:
    size = 64 * MIB + resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    async with world(min_workers=1, max_workers=1) as here:
        await here.pool.call("hold", {"size": size})
    its = here.of(WorkerEnded)[0].death
    assert its.max_rss is not None and size < its.max_rss < 2 * size
    assert its.cpu is not None and its.cpu > 0


async def test_a_small_worker_is_not_taken_for_as_large_as_its_application() -> None:
    async with world(min_workers=1, max_workers=1) as here:
        await here.pool.call("echo", {"token": 1})
    assert here.of(WorkerEnded)[0].death.max_rss is None


# ── Temporary files ─────────────────────────────────────────────────────────────────────────────


async def test_each_has_a_folder_of_its_own() -> None:
    async with world() as here:
        async with here.pool.checkout() as one, here.pool.checkout() as other:
            about = [await one.call("about"), await other.call("about")]
        folders = [Path(each["TMPDIR"]) for each in about]
        assert folders == [Path(each["temp"]) for each in about]
        assert {folder.name for folder in folders} == {"0.1", "1.1"}
        (pools,) = {folder.parent for folder in folders}
        assert pools.parent == Path(tempfile.gettempdir())
        for folder in (pools, *folders):
            assert folder.stat().st_mode & 0o777 == 0o700
        assert pools.exists()
    assert not pools.exists()


async def test_it_is_used_also_by_who_looked_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a worker that was forked from a process with another one."""
    (tmp_path / "sitecustomize.py").write_text("import tempfile\ntempfile.tempdir = '/'\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    async with world() as here:
        about = await here.pool.call("about")
        assert about["temp"] == about["TMPDIR"]


async def test_it_goes_with_its_worker() -> None:
    async with world() as here:
        async with here.pool.checkout() as worker:
            folder = Path(await worker.call("scribble"))
            about = await worker.call("about")
            assert folder.parent == Path(about["temp"])
            os.kill(about["pid"], signal.SIGKILL)
            await here.until(lambda: bool(here.of(WorkerEnded)))
        await settled(here.pool)
        assert not folder.parent.exists() and folder.parent.parent.exists()
        assert os.path.exists("/tmp"), "a link in it was not followed"


async def test_it_goes_with_the_pool() -> None:
    async with world() as here:
        folder = Path(await here.pool.call("scribble"))
        await here.pool.aclose()
        assert not folder.parent.parent.exists()


async def test_who_sets_TMPDIR_gets_it(tmp_path: Path) -> None:
    async with world(env={"TMPDIR": str(tmp_path)}) as here:
        assert (await here.pool.call("about"))["temp"] == str(tmp_path)
    assert tmp_path.exists()


async def test_there_is_no_place_for_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(PoolStartError, match=r"did not start it: .*it gets no folder in .*/none: No such file"):
        async with open_pool(PoolConfig(max_workers=1)):
            pass


async def test_the_disk_is_full_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    real, full = os.mkdir, False

    def mkdir(*args: Any, **more: Any) -> None:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*args, **more)

    monkeypatch.setattr(os, "mkdir", mkdir)
    async with world() as here:
        full = True
        os.kill((await here.pool.call("about"))["pid"], signal.SIGKILL)
        await here.until(lambda: len(here.of(WorkerEnded)) >= 2)
        assert "it gets no folder in" in here.of(WorkerEnded)[1].death.cause
        assert "No space left on device" in here.of(WorkerEnded)[1].death.cause
        assert await here.pool.call("echo", {"token": 1}) == 1
        full = False
        await here.until(lambda: here.whole)
