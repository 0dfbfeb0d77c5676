"""Template processes that do not exist, and the workers they make: the other half of the simulated seam.

A `SimTemplate` plays what `remuda.bridge.seam.TemplateProcess` asks for, in virtual time, and makes its
workers in a `SimLauncher`, among those that are spawned there. It keeps to what holds for a real one:

* **Its workers are its children.** How one ended is known from it, and from nobody when it is gone; it
  answers nothing while it is stopped.
* **Its death harms none of them,** and there is no worker of a fork that it did not live to answer.
* **All that it says comes from one process**: an import, a fork and an end do not overtake each other.

How one behaves is a `TemplatePlay`, and a test may interfere at any time: `crash`, `freeze`, `thaw`,
`spoil`, `say`. What is left of them is told by `SimTemplates.leftovers`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from signal import SIGKILL
from typing import Literal, TypeAlias

import trio

from remuda.bridge import remote
from remuda.bridge.last_words import LastWords
from remuda.bridge.messages import Boot
from remuda.bridge.seam import StartOrder, TemplateFailed, TemplateLost, TemplateUnfit
from remuda.specs.simulated import SimLauncher, SimWorker

__all__ = ["End", "SimTemplate", "SimTemplates", "TemplateCasting", "TemplatePlay"]

End: TypeAlias = Literal["ready", "unfit", "fails", "dies", "hangs"]

FIRST_PID = 501
STATUS_PATIENCE = 1.0
"""Seconds after which nobody waits any longer for a stopped template to say how a worker ended."""


@dataclass(frozen=True)
class TemplatePlay:
    """How one template behaves. Times are virtual seconds.

    Attributes:
        launch_seconds: how long it takes to start it.
        launch_error: an `errno` with which that fails instead, or None.
        import_seconds: how long its imports take.
        end: how they end.
        says: what it writes to stderr as it begins to import.
        fork_seconds: how long it takes to make a worker.
        kill_seconds: how long it goes on existing, not moving any more, after SIGKILL.
    """

    launch_seconds: float = 0.0
    launch_error: int | None = None
    import_seconds: float = 0.0
    end: End = "ready"
    says: str = ""
    fork_seconds: float = 0.0
    kill_seconds: float = 0.0


TemplateCasting: TypeAlias = TemplatePlay | Callable[[StartOrder], TemplatePlay]
"""Who plays which template: one play for all, or a function of the start order."""


class SimTemplates:
    """Starts simulated templates; `start` is what a `ForkLauncher` makes them by.

    Args:
        launcher: in which they make their workers.
        play: what they do; may be changed, and later ones follow it.

    Attributes:
        templates: all that there were.
    """

    def __init__(self, launcher: SimLauncher, play: TemplateCasting | None = None) -> None:
        self.play: TemplateCasting = TemplatePlay() if play is None else play
        self.templates: list[SimTemplate] = []
        self._launcher = launcher

    async def start(self, order: StartOrder) -> SimTemplate:
        """Start one; raises OSError with its `launch_error`. Cancelled, it leaves nothing behind."""
        play = self.play if isinstance(self.play, TemplatePlay) else self.play(order)
        await trio.sleep(play.launch_seconds)
        if play.launch_error is not None:
            raise OSError(play.launch_error, os.strerror(play.launch_error))
        template = SimTemplate(self._launcher, play, FIRST_PID + len(self.templates))
        self.templates.append(template)
        return template

    @property
    def alive(self) -> list[SimTemplate]:
        """Those that have not ended, in the order in which they were started."""
        return [template for template in self.templates if template.alive]

    def leftovers(self) -> list[str]:
        """What a pool that has closed has left behind, in words; an empty list is what it promises."""
        return [f"template {template} {what}" for template in self.templates for what in template.unburied()]


class SimTemplate:
    """The application's handle on one; an implementation of `TemplateProcess`."""

    def __init__(self, launcher: SimLauncher, play: TemplatePlay, pid: int) -> None:
        self.pid: int | None = pid
        self.play = play
        self.made: list[SimWorker] = []
        self._launcher = launcher
        self._words = LastWords()
        self._spoken = trio.Event()
        self._gone = trio.Event()
        self._moves = trio.Event()
        self._moves.set()
        self._dying = False
        self._unfit = ""
        self._status: int | None = None
        self._reaped = False
        self._closed = False

    def __repr__(self) -> str:
        return f"<SimTemplate pid {self.pid} {'alive' if self.alive else 'dead'}>"

    # ── The seam ────────────────────────────────────────────────────────────────────────────────

    async def prepare(self, boot: Boot, preload: list[str]) -> None:
        """Take as long as its play says, and end as it says."""
        if self.play.says:
            self.say(self.play.says)
        await self._pass_time(self.play.import_seconds)
        match self.play.end:
            case "unfit":
                self._unfit = "it has 2 threads"
                raise TemplateUnfit(self._unfit)
            case "fails":
                raise TemplateFailed(remote.describe(ModuleNotFoundError("No module named 'tea'")))
            case "dies":
                self.crash(-4)
                raise TemplateLost("the template has ended")
            case "hangs":
                await self._gone.wait()
                raise TemplateLost("the template has ended")
            case "ready":
                pass

    async def fork(self, order: StartOrder) -> SimWorker:
        """Make a worker, as the launcher casts it."""
        behaviour = self._launcher.cast(order)
        await self._pass_time(self.play.fork_seconds + behaviour.launch_seconds)
        if self._unfit:
            raise TemplateUnfit(self._unfit)
        if behaviour.launch_error is not None:
            raise OSError(behaviour.launch_error, os.strerror(behaviour.launch_error))
        # No checkpoint from here on: it answers, or it has died.
        worker = self._launcher.launch(order, behaviour, self.collect)
        self.made.append(worker)
        return worker

    async def collect(self) -> bool:
        """Whether it says how a worker of its own has ended."""
        with trio.move_on_after(STATUS_PATIENCE):
            try:
                await self._pass_time(0.0)
            except TemplateLost:
                return False
            return True
        return False

    async def tend(self) -> None:
        """Nothing is to be read; wait for its end."""
        await self._gone.wait()

    async def childless(self) -> None:
        """Wait until its workers are gone."""
        await self._launcher.until(lambda: not self.alive or all(w.reaped or w.is_closed for w in self.made))

    def kill(self) -> None:
        """SIGKILL: also when it is stopped."""
        if self.alive and not self._dying and self.play.kill_seconds:
            self._dying = True
            self._moves = trio.Event()
            self._launcher.nursery.start_soon(self._end_slowly)
        elif not self._dying:
            self.crash()

    async def _end_slowly(self) -> None:
        await trio.sleep(self.play.kill_seconds)
        self.crash()

    async def wait(self) -> int | None:
        """Wait for its end and reap it."""
        await self._gone.wait()
        self._reaped = True
        return self._status

    async def stderr_readable(self) -> None:
        """Wait until it has written something to stderr, or has closed it."""
        if not self._gone.is_set():
            await self._spoken.wait()
        else:
            await trio.lowlevel.checkpoint()

    def read_stderr(self) -> list[str] | None:
        """The lines that were completed since the last time; None at the end of file."""
        self._spoken = trio.Event()
        if not self.alive:
            self._words.end()
        return self._words.take()

    def stderr_tail(self) -> tuple[str, ...]:
        """The last lines it wrote."""
        return self._words.tail()

    def close(self) -> None:
        """Close all descriptors. A process that still lives does not survive it; its workers do."""
        self._closed = True
        self.crash()

    async def _pass_time(self, seconds: float) -> None:
        """Its time, in which it may be stopped; raises TemplateLost if it does not live to the end of it."""
        with trio.move_on_after(seconds):
            await self._gone.wait()
        await trio.lowlevel.checkpoint()
        while self.alive and not self._moves.is_set():
            await self._moves.wait()
        if not self.alive:
            raise TemplateLost("the template has ended")

    # ── What a test does to it, and sees of it ──────────────────────────────────────────────────

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        return not self._gone.is_set()

    def crash(self, status: int = -SIGKILL) -> None:
        """End the process now; nothing if it has ended already."""
        if self.alive:
            self._status = status
            self._gone.set()
            self._spoken.set()
            self._moves.set()
            self._launcher.tell()

    def freeze(self) -> None:
        """Stop it, as SIGSTOP does. Its timers run on, but it does not move."""
        if self.alive:
            self._moves = trio.Event()

    def thaw(self) -> None:
        """Let it go on, as SIGCONT does."""
        if not self._dying:
            self._moves.set()

    def spoil(self, reason: str = "what was imported has left a socket open") -> None:
        """Make it unfit for forking, from now on."""
        self._unfit = reason

    def say(self, text: str) -> None:
        """Write to stderr; a line needs its own newline."""
        self._words.feed(text.encode())
        self._spoken.set()

    def unburied(self) -> list[str]:
        """What was not done for it, in words."""
        done = {"lives": not self.alive, "was not waited for": self._reaped, "has open descriptors": self._closed}
        return [what for what, is_done in done.items() if not is_done]
