"""Where the rules are played: over simulated workers in virtual time, or over real processes.

A `World` gives a pool its workers and does to them what rules ask for. Both kinds offer the same
faults, by the same names. What one of them cannot do (a real process cannot be made to answer a call
that nobody made, and nobody's laptop refuses to fork on request) it says by `can`, and a rule that
needs it does nothing there.

Where a world has `templates`, its workers are forked from one, or spawned when that cannot be; what can be
done to workers can be done to templates.

`SimWorld` moves on a virtual clock, and nothing in it is left to chance: the same choices give the
same run. `RealWorld` starts processes, sends signals and waits in real time, which it makes short: a
second of a rule is a hundredth of a second there.
"""

from __future__ import annotations

import errno
import shutil
import signal
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import trio

from remuda.bridge import escaped
from remuda.bridge.forkserver import Template
from remuda.bridge.process import LocalWorker
from remuda.bridge.seam import Launcher, StartOrder, WorkerProcess
from remuda.bridge.spawn import SpawnLauncher
from remuda.runtime.templates import ForkLauncher
from remuda.specs.behaviour import Behaviour, Die, FailBoot, Fork, Hang, Pong, Wait
from remuda.specs.hosted import hosting
from remuda.specs.probe import GARBAGE, HALF_A_FRAME, PLANS, Probe, acting, token_of
from remuda.specs.simulated import SimLauncher, SimWorker
from remuda.specs.simulated_templates import SimTemplates, TemplatePlay
from remuda.specs.stepped import SteppedTrio

__all__ = [
    "FAULTS", "STARTS", "TEMPLATES", "Fault", "RealWorld", "SimWorld", "Start", "TemplateFault", "TemplateStart", "World",
]  # fmt: skip

Fault: TypeAlias = Literal["crash", "freeze", "garbage", "half a frame", "hang up"]
Start: TypeAlias = Literal[
    "slow", "hangs", "fails", "dies", "is refused", "is deaf", "lingers", "is narrow", "leaves a child", "is unwell"
]

FAULTS: tuple[Fault, ...] = ("crash", "freeze", "garbage", "half a frame", "hang up")
"""What can be done to a live worker: SIGKILL, SIGSTOP, bytes on its channel, its channel closed."""

STARTS: tuple[Start, ...] = get_args(Start)
"""How the next worker may start: late, never, with an error, with a crash, refused by the operating
system, deaf to SIGTERM, slow to die, with a channel that takes a few bytes at a time, with a child that
escapes and holds its descriptors, or so that it fails its health checks."""

TemplateFault: TypeAlias = Literal["crash", "freeze", "spoil"]
"""What can be done to a live template: SIGKILL, SIGSTOP, and that it finds itself unfit."""

TemplateStart: TypeAlias = Literal["slow", "hangs", "fails", "dies", "is unfit", "is refused", "lingers"]

TEMPLATES: tuple[TemplateStart, ...] = get_args(TemplateStart)
"""How the next template may be: late with its imports, never done with them; so that they raise, or kill it, or
leave a thread behind; refused by the operating system; or slow to make workers and to die."""

IMPORT_PATIENCE = 20.0
"""Seconds that a template has for its imports."""

PATIENCE = 2 * 3600.0
"""Virtual seconds after which a step counts as hanging: longer than anything that a rule waits for."""


class World(ABC):
    """What a rule sees of the ground it is played on.

    Args:
        adapter: a user's own, by name or class; None for the `Probe`.
        work: seconds that each command of a user's own adapter takes, in simulation.

    Attributes:
        loop: the trio run.
        launcher: what starts the workers.
        can: the faults and starts there are.
        plans: the plans of the `Probe` that can be played.
        templates: whether workers are forked; said before the ground is entered.
        forking: what starts the workers then.
    """

    templates = False
    forking: ForkLauncher | None = None

    simulated: ClassVar[bool]
    """Whether time is virtual and every moment exact."""
    can: ClassVar[frozenset[str]]
    plans: ClassVar[tuple[str, ...]]

    loop: SteppedTrio

    def __init__(self, adapter: str | type | None = None, work: float = 0.0) -> None:
        self.adapter = adapter
        self.work = work

    # ── Made and unmade ─────────────────────────────────────────────────────────────────────────

    @abstractmethod
    def ground(self) -> AbstractAsyncContextManager[Launcher]:
        """The launcher, for the length of a block in the run. Entered once."""

    @abstractmethod
    def leftovers(self) -> list[str]:
        """What a pool that has closed has left behind, in words."""

    def close(self) -> None:
        """Whatever happened: the run ends and nothing is left."""
        self.loop.close()

    def fields(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of `PoolConfig` for this world, from those for any."""
        return {**fields, "adapter": Probe if self.adapter is None else self.adapter}

    # ── Time ────────────────────────────────────────────────────────────────────────────────────

    def seconds(self, seconds: float) -> float:
        """How long that is here."""
        return seconds

    # ── Workers ─────────────────────────────────────────────────────────────────────────────────

    @abstractmethod
    def do(self, fault: Fault, slot: int) -> bool:
        """Do it to the worker in this slot; False if there is none, or it cannot be done here."""

    @abstractmethod
    def thaw(self) -> None:
        """Let every worker that is stopped go on."""

    @abstractmethod
    def start_next(self, start: Start | None) -> None:
        """Let the next worker start like this; None: no such order, and no faults any more."""

    # ── Templates ───────────────────────────────────────────────────────────────────────────────

    @abstractmethod
    def do_to_template(self, fault: TemplateFault) -> bool:
        """Do it to the template that was started last; False if it has ended, or it cannot be done here."""

    @abstractmethod
    def next_template(self, start: TemplateStart | None) -> None:
        """Let the next template be like this; None: no such order."""

    def has_settled(self) -> bool:
        """Whether workers are forked, or it is known why they are not."""
        return self.forking is None or self.forking.template is not None or bool(self.forking.refusal)

    # ── The truth ───────────────────────────────────────────────────────────────────────────────

    @abstractmethod
    def begun(self) -> Counter[object]:
        """How often each token was begun, by what the workers told; only for the `Probe`."""


# ── Simulated ───────────────────────────────────────────────────────────────────────────────────


class SimWorld(World):
    """Simulated workers on a virtual clock."""

    simulated = True
    can = frozenset((*FAULTS, *STARTS))
    plans = tuple(PLANS)

    def __init__(self, adapter: str | type | None = None, work: float = 0.0) -> None:
        super().__init__(adapter, work)
        self.loop = SteppedTrio(patience=PATIENCE)
        self._next: list[Start] = []
        self._next_templates: list[TemplateStart] = []
        self._launcher: SimLauncher | None = None
        self._templates: list[SimTemplates] = []
        self._plain = Behaviour()

    @asynccontextmanager
    async def ground(self) -> AsyncGenerator[Launcher]:
        """The launcher, for the length of a block."""
        async with SimLauncher.open(self._cast, key=token_of) as self._launcher:
            witness = self._launcher.witness
            self._plain = acting(witness) if self.adapter is None else hosting(self.adapter, self.work)
            if not self.templates:
                yield self._launcher
                return
            made = SimTemplates(self._launcher, self._cast_template)
            self._templates.append(made)
            self.forking = ForkLauncher("pool", made.start, self._launcher, patience=IMPORT_PATIENCE)
            yield self.forking

    def _cast_template(self, order: StartOrder) -> TemplatePlay:
        """Who plays the next template."""
        match self._next_templates.pop(0) if self._next_templates else None:
            case "slow":
                return TemplatePlay(launch_seconds=1.0, import_seconds=10.0)
            case "hangs":
                return TemplatePlay(end="hangs")
            case "fails":
                return TemplatePlay(import_seconds=0.1, end="fails")
            case "dies":
                return TemplatePlay(import_seconds=0.1, end="dies")
            case "is unfit":
                return TemplatePlay(import_seconds=0.1, end="unfit")
            case "is refused":
                return TemplatePlay(launch_error=errno.EAGAIN)
            case "lingers":
                return TemplatePlay(fork_seconds=0.5, kill_seconds=0.25)
            case None:
                return TemplatePlay()

    def _cast(self, order: StartOrder) -> Behaviour:
        """Who plays the next worker."""
        plain = self._plain
        start = self._next.pop(0) if self._next else None
        match start:
            case "slow":
                return replace(plain, launch_seconds=1.0, boot=(Wait(10.0), *plain.boot))
            case "hangs":
                return replace(plain, boot=(Hang(),))
            case "fails":
                return replace(plain, boot=(FailBoot(), Die(1)))
            case "dies":
                return replace(plain, boot=(Wait(0.1), Die(3)))
            case "is refused":
                return replace(plain, launch_error=errno.EAGAIN)
            case "is deaf":
                return replace(plain, ignores=frozenset({signal.SIGTERM}), shutdown=(Hang(),))
            case "lingers":
                return replace(plain, kill_seconds=0.5)
            case "is narrow":
                return replace(plain, capacity=16, chunk=5, chunk_seconds=0.001)
            case "leaves a child":
                return replace(plain, boot=(Fork(escapes=True), Wait(1.0), *plain.boot))
            case "is unwell":
                return replace(plain, ping=(Wait(0.5), Pong(healthy=False, reason="unwell")))
            case None:
                return plain

    def leftovers(self) -> list[str]:
        """What the witness says of processes that nobody ended, waited for or closed."""
        workers = [] if self._launcher is None else self._launcher.witness.leftovers()
        return workers + [left for made in self._templates for left in made.leftovers()]

    def do(self, fault: Fault, slot: int) -> bool:
        """Do it to the worker in this slot."""
        worker = self._worker(slot)
        if worker is None:
            return False
        match fault:
            case "crash":
                worker.crash()
            case "freeze":
                worker.freeze()
            case "garbage":
                return worker.emit(GARBAGE) > 0
            case "half a frame":
                return worker.emit(HALF_A_FRAME) > 0
            case "hang up":
                worker.hang_up()
        return True

    def _worker(self, slot: int) -> SimWorker | None:
        try:
            return None if self._launcher is None else self._launcher.worker(slot)
        except LookupError:
            return None

    def thaw(self) -> None:
        """Let every worker that is stopped go on."""
        for worker in [] if self._launcher is None else self._launcher.alive:
            worker.thaw()
        for made in self._templates:
            for template in made.alive:
                template.thaw()

    def start_next(self, start: Start | None) -> None:
        """Let the next worker start like this."""
        if start is None:
            self._next.clear()
        else:
            self._next.append(start)

    def do_to_template(self, fault: TemplateFault) -> bool:
        """Do it to the template that was started last."""
        if not self._templates or not self._templates[-1].alive:
            return False
        template = self._templates[-1].alive[-1]
        {"crash": template.crash, "freeze": template.freeze, "spoil": template.spoil}[fault]()
        return True

    def next_template(self, start: TemplateStart | None) -> None:
        """Let the next template be like this."""
        if start is None:
            self._next_templates.clear()
        else:
            self._next_templates.append(start)

    def begun(self) -> Counter[object]:
        """How often each token was begun."""
        return Counter() if self._launcher is None else Counter(self._launcher.witness.begun)


# ── Real ────────────────────────────────────────────────────────────────────────────────────────


class RealWorld(World):
    """Real processes, real signals, real time.

    A rule's second is a hundredth of one here. What depends on the exact moment is not asserted, and
    the operating system decides in which order things happen.
    """

    simulated = False
    can = frozenset({"crash", "freeze"})
    plans = tuple(name for name, plan in PLANS.items() if not plan.simulated)

    def __init__(self, adapter: str | type | None = None, work: float = 0.0) -> None:
        super().__init__(adapter, work)
        self.loop = SteppedTrio(clock=_RealClock(), patience=60.0)
        self._folder = Path(tempfile.mkdtemp(prefix="remuda-world-"))
        self._witness = self._folder / "witness"
        self._launcher = _Register(SpawnLauncher())
        self._templates: list[Template] = []

    @asynccontextmanager
    async def ground(self) -> AsyncGenerator[Launcher]:
        """The launcher of every pool, with a list of whom it has started."""
        if not self.templates:
            yield self._launcher
            return
        spawn = SpawnLauncher()

        async def start(order: StartOrder) -> Template:
            template = await Template.start(spawn, order)
            self._templates.append(template)
            return template

        self.forking = ForkLauncher("pool", start, spawn, patience=IMPORT_PATIENCE)
        self._launcher = _TendedRegister(self.forking)
        yield self._launcher

    def fields(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The same, and where the `Probe` finds its witness."""
        fields = super().fields(fields)
        return {**fields, "settings": {"witness": str(self._witness)}} if self.adapter is None else fields

    def leftovers(self) -> list[str]:
        """Processes that run, or were not waited for."""
        all_of_them: list[LocalWorker | Template] = [*self._launcher.workers, *self._templates]
        pids = [one.pid for one in all_of_them if one.pid is not None]
        until = time.monotonic() + _GOING
        while (left := [pid for pid in pids if escaped.is_left(pid)]) and time.monotonic() < until:
            for thread in threading.enumerate():
                if thread.name.startswith("remuda-reaper-"):  # one that did not die in the pool's time; it was killed
                    thread.join(0.01)
        return [f"process {pid} was left behind" for pid in left]

    def close(self) -> None:
        """Whatever happened: the run ends and nothing is left."""
        try:
            super().close()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def seconds(self, seconds: float) -> float:
        """A hundredth of it."""
        return seconds / 100

    def do(self, fault: Fault, slot: int) -> bool:
        """Send the signal to the worker in this slot."""
        signum = {"crash": signal.SIGKILL, "freeze": signal.SIGSTOP}.get(fault)
        worker = self._launcher.latest.get(slot)
        if signum is None or worker is None:
            return False
        worker.signal(signum)
        return True

    def thaw(self) -> None:
        """Let every worker that is stopped go on."""
        for worker in self._launcher.workers:
            worker.signal(signal.SIGCONT)
        for template in self._templates:
            template.signal(signal.SIGCONT)

    def do_to_template(self, fault: TemplateFault) -> bool:
        """Send the signal to the template that was started last."""
        signum = {"crash": signal.SIGKILL, "freeze": signal.SIGSTOP}.get(fault)
        if signum is None or not self._templates:
            return False
        self._templates[-1].signal(signum)
        return True

    def next_template(self, start: TemplateStart | None) -> None:
        """Nothing: real templates are as they are."""

    def start_next(self, start: Start | None) -> None:
        """Nothing: real workers start as they start."""

    def begun(self) -> Counter[object]:
        """How often each token was begun: the lines of the witness' file."""
        if not self._witness.exists():
            return Counter()
        return Counter(int(line) for line in self._witness.read_text().split())


_GOING = 10.0
"""Seconds that what was killed may take to go."""


class _Register:
    """A launcher that knows whom it has started."""

    local = True

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self.workers: list[LocalWorker] = []
        self.latest: dict[int, LocalWorker] = {}

    async def start(self, order: StartOrder) -> WorkerProcess:
        worker = await self._launcher.start(order)
        assert isinstance(worker, LocalWorker)
        self.workers.append(worker)
        self.latest[order.slot] = worker
        return worker


class _TendedRegister(_Register):
    """The same, of one that has something to do between starts."""

    def __init__(self, launcher: ForkLauncher) -> None:
        super().__init__(launcher)
        self.tend = launcher.tend
        self.stderr_tail = launcher.stderr_tail


class _RealClock(trio.abc.Clock):
    """Time as it passes, from zero on."""

    def __init__(self) -> None:
        self._zero = time.perf_counter()

    def start_clock(self) -> None:
        """Nothing to start."""

    def current_time(self) -> float:
        return time.perf_counter() - self._zero

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return deadline - self.current_time()
