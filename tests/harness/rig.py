"""A pool that lives through cuts: one worker is the victim, another one serves somebody else all the time.

A round is one session of the victim with one cut. It ends when the pool has its size again, so that the
next round can begin; the victim's place is taken by its next generation. The other worker is never
touched, and whoever holds it must never notice anything.

Time is virtual, but it runs: no deadline is near. When the victim sleeps, and nothing is under way to it
or from it, it will sleep for ever; then, and only then, the clock is set forward to the next thing that is
due. So deadlines pass because of the cut, and never because the machine is slow.
"""

from __future__ import annotations

import os
import re
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
import trio.lowlevel
import trio.testing

from remuda.runtime.config import Breaker, Health, PoolConfig, Restart, Retry
from remuda.runtime.events import CallEnded, Event, Transition, WorkerEnded
from remuda.runtime.handles import Lease
from remuda.runtime.opening import open_pool
from remuda.runtime.pool import Pool
from remuda.statemachines import events as ev
from remuda.statemachines.errors import RemudaError, UnknownCommand
from remuda.statemachines.pool import PoolState
from remuda.statemachines.worker import WorkerState

from ..leaks import _children  # noqa: TID252  # tests are no package that is installed
from ..reality.world import settled  # noqa: TID252  # as above
from .cuts import Cut, Frame, Recording, frames
from .paths import INSIDE, acts, cutting
from .tap import Tapped, tapping

__all__ = ["ADAPTER", "FUNCTIONS", "STEPS", "Rig", "Round", "Seen", "rig", "run", "start_methods"]

ADAPTER, FUNCTIONS = "adapter", "functions"
AGES = 1000.0
"""Seconds that everything may take: as good as for ever, until the clock is set forward."""


@dataclass(frozen=True)
class Step:
    """One step of a session: a call, or a health check."""

    name: str
    does: str
    idempotent: bool = False


STEPS = {
    ADAPTER: (
        Step("once", "once"),
        Step("again", "again", idempotent=True),
        Step("fails", "fails"),
        Step("keep", "keep"),
        Step("look", "look", idempotent=True),
        Step("health", "health"),
        Step("last", "once"),
    ),
    FUNCTIONS: (
        Step("once", "once"),
        Step("again", "again", idempotent=True),
        Step("fails", "fails"),
        Step("health", "health"),
        Step("last", "once"),
    ),
}


@dataclass
class Seen:
    """What was seen of one call.

    Attributes:
        step: which one.
        key: what it traces.
        value, error: what its caller got.
        ended: what the pool reported, each time that it did.
        handed_over: how often the pool said that it had not begun when its worker died.
        begun, done: the processes that traced its beginning and its effect, until its caller had an outcome.
        late: what was traced after that.
    """

    step: Step
    key: str
    value: Any = None
    error: BaseException | None = None
    ended: list[CallEnded] = field(default_factory=list)
    handed_over: int = 0
    begun: list[int] = field(default_factory=list)
    done: list[int] = field(default_factory=list)
    late: list[str] = field(default_factory=list)

    @property
    def outcome(self) -> str:
        return "value" if self.error is None else type(self.error).__name__


@dataclass
class Round:
    """What was seen of one session."""

    cut: Cut | None
    calls: list[Seen] = field(default_factory=list)
    fired: bool = False
    misled: bool = False
    """Whether the pool was told other commands than the adapter has. It is of no use for another round then."""
    kept_before: str | None = None
    left: list[str] = field(default_factory=list)
    """What is there afterwards that was not there before."""
    others: list[str] = field(default_factory=list)
    """What the other caller noticed."""


class Rig:
    """See the module's text. Made by `rig`."""

    def __init__(self, kind: str, trace: Path, folder: Path) -> None:
        self.kind = kind
        self.steps: Sequence[Step] = STEPS[kind]
        self.recording: dict[str, list[Frame]] = {}
        self.pool: Pool
        self._trace, self._folder = trace, folder
        self._read = 0  # bytes of the trace
        self._traced: list[tuple[str, str, str]] = []
        """What was traced between the last two outcomes."""
        self._rounds = 0
        self._events: list[Event] = []
        self._gone: set[tuple[int, int]] = set()
        self._news = trio.Event()
        self._kept: str | None = None
        self._other_wanted = 0
        self._other_calls = 0
        self._other_trouble: list[str] = []
        self._there: dict[str, Any] = {}
        self._commands: object = None

    # ── What happens ────────────────────────────────────────────────────────────────────────────

    def observe(self, event: Event) -> None:
        self._events.append(event)
        if isinstance(event, WorkerEnded):
            self._gone.add((event.slot, event.generation))
        if isinstance(event, CallEnded) and not event.command.endswith("pulse"):
            self._traced = self._new_lines()  # before anybody can be told to repeat it for the journal
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._news.wait()

    def _has_ended(self, worker: Tapped) -> bool:
        return (worker.slot, worker.generation) in self._gone

    @property
    def _victim(self) -> Tapped:
        return self.tap.workers[self.tap.victim]  # type: ignore[index]

    @property
    def _whole(self) -> bool:
        """Whether the pool is as large as it shall be, and at rest but for the other caller."""
        workers = self.pool.snapshot().workers
        return self.pool.state is PoolState.READY and sorted(worker.state for worker in workers) == [
            WorkerState.BUSY,
            WorkerState.READY,
        ]

    @property
    def _is_misled(self) -> bool:
        """Whether the pool takes other commands for the adapter's than those that it has.

        What a worker says in its hello is believed, for all calls of the pool, until the next one says something
        else. So garbage that can be read may mean that there is no such command, or that it has another journal.
        """
        return self._commands is not None and self.pool._commands != self._commands

    @asynccontextmanager
    async def _waiting_for_the_victim(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._set_the_clock, self._victim)
            yield
            nursery.cancel_scope.cancel()

    async def _set_the_clock(self, victim: Tapped) -> None:
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, trio.testing.MockClock)
        while not self._has_ended(victim):
            await trio.testing.wait_all_tasks_blocked()
            if victim.waits and not self._has_ended(victim):
                clock.jump(max(0.0, self.pool._core.next_due() - trio.current_time()))
            else:
                await trio.sleep(0.001)  # who sleeps tells nobody: one has to look

    # ── The other caller ────────────────────────────────────────────────────────────────────────

    async def _call_all_the_time(self, lease: Lease) -> None:
        adapter = self.kind == ADAPTER
        while True:
            token = self._other_calls
            try:
                if self._other_wanted and adapter:
                    await lease.call("keep", {"name": "other", **self._args("other")}, timeout=float("inf"))
                    self._other_wanted = 0
                if adapter:
                    answer = await lease.call("pulse", {"token": token}, timeout=float("inf"))
                else:
                    answer = await lease.run_sync(acts.pulse, token, timeout=float("inf"))
            except UnknownCommand as error:
                self._other_wanted = 0
                if not self._is_misled:
                    self._other_trouble.append(repr(error))
            except Exception as error:
                self._other_trouble.append(repr(error))
                self._tell()
                return
            else:
                if answer != token:
                    self._other_trouble.append(f"asked for {token}, got {answer!r}")
            self._other_calls += 1
            self._tell()
            await trio.sleep(0.002)

    async def _other_works(self) -> None:
        goal = self._other_calls + 2
        await self._until(lambda: self._other_calls >= goal or bool(self._other_trouble))

    # ── A round ─────────────────────────────────────────────────────────────────────────────────

    def _args(self, name: str) -> dict[str, Any]:
        key = f"{self._rounds:06}.{name}"
        return {"key": key, "sum": acts.check(key)}

    async def round(self, cut: Cut | None, *, record: bool = False) -> Round:
        """One session, with a cut or without one."""
        self._rounds += 1
        self._events.clear()
        seen = Round(cut, kept_before=self._kept)
        victim: Tapped | None = None
        if record or (cut is not None and cut.part == "boot"):
            old = self._victim
            self.tap.next_cut = cut
            await self._retire(old)
            victim = self._victim
            await self._until_whole()
            if record:
                self._record("boot", victim)
        if cut is not None and cut.part == "calls":
            victim = self._victim
            victim.arm(cut)
        recorded = self._victim
        seen.misled = self._is_misled
        for step in self.steps:
            if step.does == "health":
                await self._be_checked()
            else:
                seen.calls.append(await self._call(step))
            if step.does == "keep":
                self._other_wanted = 1
                await self._until(lambda: not self._other_wanted or bool(self._other_trouble))
        if record:
            self._record("calls", recorded)
            await self._retire(recorded)
            self._record("end", recorded)
        if cut is not None and cut.part == "end":
            victim = self._victim
            victim.arm(cut)
            await self._retire(victim)
        if cut is not None and victim is not None:
            seen.fired = victim.fired
            if cut.fault == "kill" and seen.fired:
                await self._until(lambda: self._has_ended(victim))
            elif not self._has_ended(victim):
                await self._retire(victim)
            victim.disarm()
        await self._until_whole()
        await self._other_works()
        await settled(self.pool)
        self._note(seen)
        return seen

    async def _until_whole(self) -> None:
        """Wait until both workers are there, whatever has to happen for it."""
        while not self._whole:
            async with self._waiting_for_the_victim():
                victim = self._victim
                await self._until(lambda: self._whole or self._has_ended(victim))
            if self._has_ended(victim):
                await self._until(lambda: self._whole or self._victim is not victim)

    async def _retire(self, victim: Tapped) -> None:
        """Ask it to go, wait until it is gone and its successor is there to be told what to be."""
        link = next(link for link in self.pool._links.values() if link.process is victim)
        self.pool.feed(ev.Retire(link.worker, "the session is over"))
        async with self._waiting_for_the_victim():
            await self._until(lambda: self._has_ended(victim))
        while self._victim is victim:
            await trio.lowlevel.checkpoint()  # it starts in a thread, which tells the pool and nobody else

    async def _be_checked(self) -> None:
        victim, start = self._victim, len(self._events)

        def checked() -> bool:
            steps = [event.trigger for event in self._events[start:] if isinstance(event, Transition)]
            return "health_check_passed" in steps or self._has_ended(victim)

        async with self._waiting_for_the_victim():
            await self._until(checked)
        await self._until_whole()

    async def _call(self, step: Step) -> Seen:
        args = self._args(step.name)
        seen, start = Seen(step, args["key"]), len(self._events)
        async with self._waiting_for_the_victim():
            try:
                if self.kind == FUNCTIONS:
                    function = getattr(acts, step.does)
                    seen.value = await self.pool.run_sync(
                        function, args["key"], args["sum"], idempotent=step.idempotent
                    )
                elif step.does == "keep":
                    seen.value = await self.pool.call("keep", {"name": "main", **args})
                else:
                    seen.value = await self.pool.call(step.does, args)
            except RemudaError as error:
                seen.error = error
        lines, self._traced = self._traced, []
        seen.begun = [int(pid) for key, what, pid in lines if (key, what) == (seen.key, "begins")]
        seen.done = [int(pid) for key, what, pid in lines if (key, what) == (seen.key, "ends")]
        seen.late = [" ".join(line) for line in lines if line[0] != seen.key and not self._is_replay(line[0])]
        mine: set[str] = set()
        for event in self._events[start:]:
            if isinstance(event, CallEnded) and not event.command.endswith("pulse"):
                seen.ended.append(event)
                mine.add(str(event.call))
        for event in self._events[start:]:
            if isinstance(event, Transition) and event.lifecycle == "call" and event.subject in mine:
                seen.handed_over += event.trigger == "requeue" and event.source == "assigned"
        if step.does == "keep" and seen.outcome == "value":
            self._kept = seen.key
        return seen

    def _is_replay(self, key: str) -> bool:
        """Whether a worker that comes up is to do this again; the other caller's own is as good."""
        return key == self._kept or key.endswith(".other")

    def _new_lines(self) -> list[tuple[str, str, str]]:
        with open(self._trace, "rb") as file:
            file.seek(self._read)
            data = file.read()
        self._read += len(data)
        lines = [line.split(" ") for line in data.decode().splitlines()]
        return [(key, what, pid) for key, what, pid in lines]

    # ── Before and after ────────────────────────────────────────────────────────────────────────

    def _record(self, part: str, victim: Tapped) -> None:
        names = [step.name for step in self.steps if step.does != "health"] if part == "calls" else []
        self.recording[part] = frames(bytes(victim.said), bytes(victim.heard), names)
        victim.said.clear()
        victim.heard.clear()

    def _note(self, seen: Round) -> None:
        late = [" ".join(line) for line in self._new_lines() if not self._is_replay(line[0])]
        seen.calls[-1].late += late
        seen.others = list(self._other_trouble)
        if not self._there:
            self._there = self._population()
            return
        for name, now in self._population().items():
            if now != self._there[name]:
                seen.left.append(f"{name}: {now}, before: {self._there[name]}")
        snapshot = self.pool.snapshot()
        if snapshot.waiting or snapshot.in_flight > 2 or snapshot.breaker != "closed":
            seen.left.append(f"the pool is not at rest: {snapshot}")

    def _population(self) -> dict[str, Any]:
        """What there is in this process, by kind."""
        targets: Counter[str] = Counter()
        for name in os.listdir("/proc/self/fd"):
            try:
                targets[re.sub(r"\d+", "*", os.readlink(f"/proc/self/fd/{name}"))] += 1
            except OSError:
                pass  # the one of the listing itself
        with open("/proc/self/maps") as maps:
            pages = sum("remuda-evidence" in line for line in maps)
        workers = {worker.pid for worker in self.tap.workers.values()}
        others = set(_children()) - workers  # the template, where there is one
        return {
            "descriptors": targets,
            "evidence pages": pages,
            "other children": len(others),
            "their descriptors": [len(os.listdir(f"/proc/{pid}/fd")) for pid in sorted(others)],
            "files": sorted(path.name for path in self._folder.iterdir()),
            "slots": len(self.tap.workers),
        }


def start_methods() -> list[str]:
    """Those that this version has."""
    return ["spawn", "forkserver"] if "start_method" in PoolConfig.__struct_fields__ else ["spawn"]


@asynccontextmanager
async def rig(kind: str, start_method: str, folder: Path) -> AsyncIterator[Rig]:
    """A pool that has been through one session without a cut, and recorded another one."""
    trace, orders = folder / "trace", folder / "orders"
    trace.touch()
    orders.mkdir()
    self = Rig(kind, trace, orders)
    path = [str(INSIDE), *filter(None, [os.environ.get("PYTHONPATH")])]
    fields: dict[str, Any] = {"start_method": start_method} if "start_method" in PoolConfig.__struct_fields__ else {}
    config = PoolConfig(
        name="rig",
        adapter="acts:Acts" if kind == ADAPTER else None,
        min_workers=2,
        max_workers=2,
        init_timeout=AGES,
        call_timeout=AGES,
        shutdown_timeout=AGES,
        max_frame_bytes=1024,
        env={"PYTHONPATH": os.pathsep.join(path), cutting.FOLDER: str(orders), acts.TRACE: str(trace)},
        health=Health(interval=AGES, timeout=AGES, failures=1),
        restart=Restart(base=1e-6, cap=1e-6, burst=10**9),
        retry=Retry(base=0, cap=0),
        breaker=Breaker(failures=10**9),
        **fields,
    )
    with tapping(orders) as taps:
        async with open_pool(config, observers=[self.observe]) as self.pool, self.pool.checkout() as lease:
            self.tap = taps[0]
            (self.tap.victim,) = set(self.tap.workers) - {lease.slot}
            self.pool._number = 1 << 16  # numbers of calls take as many bytes from here on
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._call_all_the_time, lease)
                for record in (False, True, False):
                    plain = await self.round(None, record=record)
                    assert not plain.others, plain.others
                self._commands = self.pool._commands
                assert not getattr(self.pool.launcher, "refusal", ""), "workers are spawned, and were to be forked"
                yield self
                nursery.cancel_scope.cancel()


async def run(
    kind: str,
    start_method: str,
    folder: Path,
    choose: Callable[[Recording], Iterable[Cut]],
    before: Callable[[Cut], None],
    after: Callable[[Round, Recording], None],
) -> None:
    """One round for each cut, in one pool as long as that is of use.

    Args:
        kind, start_method: which pool.
        folder: where it keeps its files; empty.
        choose: the cuts, of a session that was recorded.
        before, after: called around each round.
    """
    cuts: deque[Cut] | None = None
    number = 0
    while cuts is None or cuts:
        number += 1
        place = folder / str(number)
        place.mkdir()
        async with rig(kind, start_method, place) as here:
            cuts = deque(choose(here.recording)) if cuts is None else cuts
            misled = False
            while cuts and not misled:
                cut = cuts.popleft()
                before(cut)
                seen = await here.round(cut)
                after(seen, here.recording)
                misled = seen.misled
