"""For tests of your own code on real workers: have something happen to one at a named point, and wait for it.

In the adapter, a point is a line that does nothing:

    from remuda.testing import point

    @remuda.command
    def order(self, item: str) -> int:
        number = self.book(item)
        point("booked")                       # what if the worker is killed right here?
        return self.confirm(number)

until a test arms it:

    with remuda.testing.armed(pool, "booked", do="kill"):
        with pytest.raises(remuda.OutcomeUnknown):
            await pool.call(Shop.order, "apples")

or lets the worker stand there, and decides when it has come:

    with remuda.testing.armed(pool, "booked") as point:
        nursery.start_soon(pool.call, Shop.order, "apples")
        worker = await point.reached()
        ...
        worker.release()                      # or worker.kill()

`kill`, `freeze` and `thaw` send a signal to a worker, wherever it is; `until` waits for a state of the
pool. Nothing here sleeps, and no test has to: whoever waits is woken by what it waits for.

The workers have to know where a test arms points. The fixtures `remuda_pool` and `remuda_sim` see to
that, and so does `env=remuda.testing.env(folder)` for a pool that you open yourself. How it works is
in `remuda.bridge.points`.

Workers load this module too, for `point`. So all the rest loads what it needs when it is called.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager

from remuda.bridge.points import ARRIVALS, DIE, GATE, GO, ORDER_BYTES, ORDERS, VARIABLE, point, simulated, write_to

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypeAlias

    import trio

    from remuda.runtime.events import Event
    from remuda.runtime.link import Link
    from remuda.runtime.pool import Pool
    from remuda.runtime.snapshot import PoolSnapshot, WorkerSnapshot

    Deed: TypeAlias = Literal["hang", "kill", "slow"]

__all__ = ["Arrival", "Point", "armed", "env", "freeze", "kill", "point", "thaw", "until"]

_MOST = 100
"""Orders of one point at most: they have to fit into a pipe."""


# ── Points ────────────────────────────────────────────────────────────────────────────────────────


def env(folder: str | os.PathLike[str]) -> dict[str, str]:
    """What workers need in their environment to take part: `open_pool(..., env=remuda.testing.env(tmp_path))`.

    Args:
        folder: an empty one that exists, for this pool alone. pytest's `tmp_path` will do.
    """
    return {VARIABLE: os.path.abspath(folder)}


@contextmanager
def armed(
    where: Pool | str | os.PathLike[str],
    name: str,
    /,
    *,
    do: Deed = "hang",
    times: int = 1,
    seconds: float | None = None,
) -> Generator[Point]:
    """Have something happen to the next workers that come to a point.

    When the block ends the point is harmless again, and who still stands there goes on.

    Args:
        where: the pool; or the folder that was given to `env`, to arm a point before the pool is opened.
        name: of the point.
        do: "hang": the worker stands there until it is released or killed; "kill": it dies by SIGKILL;
            "slow": it takes some more seconds. In a simulated worker only "kill" is possible, because
            its code runs in the thread of the test, which would have to wait for itself.
        times: to how many it happens, 1 to 100. Who comes after them passes.
        seconds: with "slow", how long; zero or more.

    Raises:
        ValueError: an argument is not as described.
        RuntimeError: the pool was opened without points, or this one is armed already.
        AssertionError: the block has ended and nobody has come.
    """
    folder = _folder_of(where)
    if not name or "/" in name or "\0" in name or name.startswith("."):
        raise ValueError(f"the point {name!r} must have a name without '/', and not begin with '.'")
    if do not in ("hang", "kill", "slow"):
        raise ValueError(f"do is {do!r}; it must be 'hang', 'kill' or 'slow'")
    if (do == "slow") != (seconds is not None) or (seconds is not None and not 0 <= seconds < float("inf")):
        raise ValueError(f"seconds is {seconds!r}; it must be zero or more with do='slow', and not given otherwise")
    if not 1 <= times <= _MOST:
        raise ValueError(f"times is {times!r}; it must be 1 to {_MOST}")
    if do != "kill" and folder in simulated:
        raise ValueError(
            f"do is {do!r}, and a simulated worker can only be killed at a point: its code runs in the thread of "
            "the test. Use remuda_pool, or slow all commands with work=, or freeze it: launcher.worker(0).freeze()"
        )
    armed_point = Point(folder, name, do)
    armed_point._arm(f"{do} {seconds or 0.0:g}", times)
    try:
        yield armed_point
    except BaseException:
        armed_point._disarm()
        raise
    if not armed_point._disarm():
        raise AssertionError(
            f"nobody has come to the point {name!r}. Is this its name in the adapter, and is it on the way of the "
            "call that was made?"
        )


def _folder_of(where: Pool | str | os.PathLike[str]) -> str:
    if isinstance(where, str | os.PathLike):
        return os.path.abspath(where)
    folder = where.config.env.get(VARIABLE)
    if folder is None:
        raise RuntimeError(
            f"{where.label} was opened without points: use the fixture remuda_pool, or open it with "
            "env=remuda.testing.env(tmp_path)"
        )
    return folder


class Point:
    """A point that is armed. Made by `armed`.

    Attributes:
        name: as in the adapter.
    """

    def __init__(self, folder: str, name: str, do: str) -> None:
        self.name = name
        self._do = do
        self._here = f"{folder}/{name}"
        self._arrived: list[Arrival] = []
        self._taken = 0
        self._orders = self._arrivals = -1

    async def reached(self, *, timeout: float = 10.0) -> Arrival:
        """Wait until the next worker has come, and say which.

        One task at a time may wait.

        Args:
            timeout: seconds of trio's clock after which it is given up.

        Raises:
            TimeoutError: nobody has come.
        """
        import trio

        await trio.lowlevel.checkpoint()
        with trio.move_on_after(timeout):
            while not self._read(more_than=self._taken):
                await trio.lowlevel.wait_readable(self._arrivals)
        if len(self._arrived) == self._taken:
            earlier = f" after {self._taken} others" if self._taken else ""
            raise TimeoutError(f"nobody has come to the point {self.name!r} within {timeout:g} s{earlier}")
        self._taken += 1
        return self._arrived[self._taken - 1]

    def _read(self, more_than: int) -> bool:
        """Note who has come; whether there are more than so many."""
        try:
            lines = os.read(self._arrivals, 1 << 16).decode().splitlines()
        except BlockingIOError:
            lines = []
        for line in lines:
            pid, _, gate = line.partition(" ")
            self._arrived.append(Arrival(int(pid), self._here, gate))
        return len(self._arrived) > more_than

    def _arm(self, order: str, times: int) -> None:
        # Under another name, until all is there that a worker may look for.
        folder, name = os.path.split(self._here)
        making = f"{folder}/.{name}"
        if os.path.exists(self._here):
            raise RuntimeError(f"the point {self.name!r} is armed already")
        os.mkdir(making)
        for fifo in (ORDERS, ARRIVALS):
            os.mkfifo(f"{making}/{fifo}")
        self._orders = os.open(f"{making}/{ORDERS}", os.O_RDWR | os.O_NONBLOCK)
        self._arrivals = os.open(f"{making}/{ARRIVALS}", os.O_RDWR | os.O_NONBLOCK)
        os.write(self._orders, order.ljust(ORDER_BYTES).encode() * times)
        os.rename(making, self._here)

    def _disarm(self) -> bool:
        """Let everybody go on; whether anybody has come."""
        import shutil

        os.unlink(f"{self._here}/{ORDERS}")
        os.close(self._orders)
        came = self._read(more_than=0)
        # From here on nobody can say that he has come; and who has said so has a gate by now.
        os.close(self._arrivals)
        for name in os.listdir(self._here):
            if name.startswith(GATE):
                Arrival(0, self._here, name).release()
        shutil.rmtree(self._here, ignore_errors=True)
        return came


class Arrival:
    """A worker that has come to a point.

    Attributes:
        pid: its process id, as in `pool.snapshot()`.
    """

    def __init__(self, pid: int, here: str, gate: str) -> None:
        self.pid = pid
        self._gate = f"{here}/{gate}" if gate else None

    def __repr__(self) -> str:
        return f"<Arrival of pid {self.pid}>"

    def release(self) -> None:
        """Let it go on. Nothing happens if it has gone on, or has died.

        Raises:
            RuntimeError: it does not wait: the point was not armed with "hang".
        """
        self._say(GO)

    def kill(self) -> None:
        """End it by SIGKILL, right there. Nothing happens if it has gone on, or has died.

        Raises:
            RuntimeError: as for `release`.
        """
        self._say(DIE)

    def _say(self, word: bytes) -> None:
        if self._gate is None:
            raise RuntimeError('it does not wait at its point; arm that with do="hang"')
        try:
            write_to(self._gate, word)
        except OSError:
            pass  # it is not there any more


# ── Signals and states ────────────────────────────────────────────────────────────────────────────


def kill(
    pool: Pool, /, *, slot: int | None = None, session: str | None = None, command: str | None = None
) -> WorkerSnapshot:
    """End a worker by SIGKILL, as the system does when memory runs out.

    Args:
        pool: real or simulated.
        slot: its place in the pool, as in `pool.snapshot()`.
        session: the one that it served last.
        command: the one that it is running.

    Returns:
        What it was doing.

    Raises:
        LookupError: no worker is like that, or several are. Without any argument: the pool has not
            exactly one.
    """
    return _signal(pool, signal.SIGKILL, slot, session, command)


def freeze(
    pool: Pool, /, *, slot: int | None = None, session: str | None = None, command: str | None = None
) -> WorkerSnapshot:
    """Stop a worker by SIGSTOP: it is there, and does nothing. Args, returns and errors as for `kill`."""
    return _signal(pool, signal.SIGSTOP, slot, session, command)


def thaw(
    pool: Pool, /, *, slot: int | None = None, session: str | None = None, command: str | None = None
) -> WorkerSnapshot:
    """Let a worker go on by SIGCONT. Args, returns and errors as for `kill`."""
    return _signal(pool, signal.SIGCONT, slot, session, command)


def _signal(pool: Pool, signum: int, slot: int | None, session: str | None, command: str | None) -> WorkerSnapshot:
    snapshot, core = pool.snapshot(), pool._core
    bound = None if session is None else core.sessions.worker(session, pool.now())
    # A number of a process could be another's by now; a link's process knows whether it was reaped.
    links: dict[tuple[int, int], Link] = {
        (link.worker.slot.index, link.worker.generation): link for link in pool._links.values()
    }
    fitting: list[WorkerSnapshot] = []
    for worker in snapshot.workers:
        link = links.get((worker.slot, worker.generation))
        if link is None or link.process is None:
            continue
        if slot not in (None, worker.slot) or command not in (None, worker.command):
            continue
        if session is None or link.worker is bound:
            fitting.append(worker)
    if len(fitting) != 1:
        asked = {"slot": slot, "session": session, "command": command}
        said = ", ".join(f"{name}={value!r}" for name, value in asked.items() if value is not None)
        there = ", ".join(
            f"slot {w.slot} {w.state}" + (f" with {w.command}" if w.command else "") for w in snapshot.workers
        )
        raise LookupError(f"{len(fitting)} workers of {pool.label} fit ({said or 'any'}); there are: {there or 'none'}")
    process = links[fitting[0].slot, fitting[0].generation].process
    assert process is not None
    process.signal(signum)
    return fitting[0]


async def until(pool: Pool, condition: Callable[[PoolSnapshot], object], /, *, timeout: float = 10.0) -> PoolSnapshot:
    """Wait for a state of the pool.

        await until(pool, lambda now: now.state == "ready" and len(now.workers) == 2)

    The condition is asked at once, and again after whatever happens in the pool: a call comes, begins
    or ends, a worker comes up, is checked, goes. It is not asked as time passes.

    Args:
        pool: real or simulated.
        condition: is given a snapshot.
        timeout: seconds of trio's clock after which it is given up.

    Returns:
        The snapshot for which it holds.

    Raises:
        TimeoutError: it did not hold in time; the text says how the pool is.
        PoolClosed: the pool is closed and it will not hold any more.
    """
    import trio

    from remuda.statemachines.errors import PoolClosed

    await trio.lowlevel.checkpoint()
    bell = _Bell(trio.Event)
    # Observers are given when a pool is opened; this one comes and goes, whoever opened it.
    pool._watchers = (*pool._watchers, bell)
    try:
        with trio.move_on_after(timeout):
            while True:
                rung = bell.rung
                snapshot = pool.snapshot()
                if condition(snapshot):
                    return snapshot
                if snapshot.state == "closed":
                    raise PoolClosed(f"{pool.label} is closed, and what was waited for has not come", snapshot=snapshot)
                await rung.wait()
    finally:
        pool._watchers = tuple(watcher for watcher in pool._watchers if watcher is not bell)
    raise TimeoutError(f"what was waited for has not come within {timeout:g} s: {pool.snapshot()}")


class _Bell:
    """A watcher of a pool that rings at each step of its core.

    Attributes:
        rung: set at the next one.
    """

    def __init__(self, make: Callable[[], trio.Event]) -> None:
        self._make = make
        self.rung = make()

    def __call__(self, event: Event, /) -> None:
        """Events are made of steps, which it sees."""

    def handled(self, pool: str, core: object, event: object, effects: object, now: float) -> Iterable[Event]:
        """Ring."""
        self.rung.set()
        self.rung = self._make()
        return ()
