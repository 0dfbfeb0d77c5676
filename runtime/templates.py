"""Workers from a template: the launcher that keeps one, and spawns where it cannot.

`remuda.statemachines.template` decides which template serves and when another is built; this carries it
out. A worker that is wanted is forked, waits for a template that is on its way, or is spawned. Whatever
becomes of templates, workers start: the worst that a template can do is to be of no use. So one that does
not answer (somebody has stopped it) is not waited for either; it is asked again for the next worker.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, runtime_checkable

import trio

from remuda.bridge.messages import Boot
from remuda.bridge.seam import (
    Launcher,
    StartOrder,
    TemplateFailed,
    TemplateLost,
    TemplateProcess,
    TemplateUnfit,
    WorkerProcess,
)
from remuda.runtime import dice
from remuda.runtime.events import Event, TemplateChanged, TemplateWrote, Transition
from remuda.statemachines.errors import describe_exit
from remuda.statemachines.lifecycle import Step, Subject
from remuda.statemachines.template import StartFrom, Succession, Template

__all__ = ["ForkLauncher", "TendedLauncher"]

_FORK_PATIENCE = 5.0
"""Seconds that a template has to make a worker, before that is spawned."""

_LAST_WORDS = 16
"""Reads of stderr after the end: as many as empty a pipe, and no more, for a grandchild may go on writing."""

_END_PATIENCE = 1.0
"""Seconds that a killed template has to be gone, when the pool closes."""


@runtime_checkable
class TendedLauncher(Launcher, Protocol):
    """A launcher with something to do between starts."""

    async def tend(self, boot: Boot, emit: Callable[[Event], None]) -> None:
        """Do it, until cancelled; then leave nothing behind.

        Args:
            boot: what workers will be told.
            emit: tells the observers of the pool.
        """

    def stderr_tail(self) -> tuple[str, ...]:
        """The last words of what it has running, for a start that was given up while it waited for that."""
        ...


class ForkLauncher:
    """Forks workers from a template, or spawns them; an implementation of `Launcher`.

    Args:
        pool: the name of the pool.
        make: starts a template process.
        fallback: starts workers when there is no template.
        preload: modules that templates import beside the adapter.
        env: added to the environment of templates.
        patience: seconds that a template has to import everything.
    """

    def __init__(
        self,
        pool: str,
        make: Callable[[StartOrder], Awaitable[TemplateProcess]],
        fallback: Launcher,
        *,
        preload: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
        patience: float = math.inf,
    ) -> None:
        self._pool = pool
        self._make = make
        self._fallback = fallback
        self._preload = list(preload)
        self._env = {} if env is None else env
        self._patience = patience
        self._succession = Succession(trio.current_time(), self._observe)
        self._processes: dict[Template, TemplateProcess] = {}
        self._last_words: tuple[str, ...] = ()
        self._changed = trio.Event()
        self._emit: Callable[[Event], None] | None = None

    @property
    def local(self) -> bool:
        """As those that it spawns."""
        return self._fallback.local

    @property
    def template(self) -> Template | None:
        """The template that serves, if there is one."""
        return self._succession.current

    @property
    def template_pid(self) -> int | None:
        """The process id of that."""
        template = self._succession.current
        return None if template is None else self._processes[template].pid

    @property
    def refusal(self) -> str:
        """Why workers are spawned instead; "" if they are not."""
        return self._succession.unfit

    def reload(self) -> None:
        """Build a new template beside the one that serves, which goes on until the new one is ready."""
        self._succession.reload(trio.current_time())
        self._wake()

    def stderr_tail(self) -> tuple[str, ...]:
        """The last words of the template that is being built, or of the last one that came to nothing."""
        coming = self._succession.coming
        process = None if coming is None else self._processes.get(coming)
        return self._last_words if process is None else process.stderr_tail()

    # ── Workers ─────────────────────────────────────────────────────────────────────────────────

    async def start(self, order: StartOrder) -> WorkerProcess:
        """Start a worker; raises OSError."""
        while True:
            succession, changed = self._succession, self._changed
            match succession.start_from(trio.current_time()):
                case StartFrom.SPAWN:
                    return await self._fallback.start(order)
                case StartFrom.WAIT:
                    await changed.wait()
                case StartFrom.FORK:
                    assert succession.current is not None
                    worker = await self._fork(succession.current, order, changed)
                    if worker is not None:
                        return worker

    async def _fork(self, template: Template, order: StartOrder, changed: trio.Event) -> WorkerProcess | None:
        try:
            with trio.fail_after(_FORK_PATIENCE):
                worker = await self._processes[template].fork(order)
        except trio.TooSlowError:
            return await self._fallback.start(order)
        except TemplateUnfit as error:
            self._succession.refused(template, str(error), trio.current_time())
            self._wake()
            return None
        except TemplateLost:
            if template is self._succession.current:
                await changed.wait()  # for whoever tends it to see that it has ended
            return None
        self._succession.forked(template, trio.current_time())
        return worker

    # ── Templates ───────────────────────────────────────────────────────────────────────────────

    async def tend(self, boot: Boot, emit: Callable[[Event], None]) -> None:
        """Build templates when they are due, until cancelled; then end them all."""
        self._emit = emit
        try:
            async with trio.open_nursery() as nursery:
                while True:
                    while self._succession.due <= trio.current_time() and self._succession.coming is None:
                        template = self._succession.begin(trio.current_time())
                        nursery.start_soon(self._keep, template, boot)
                    changed = self._changed
                    with trio.CancelScope(
                        deadline=self._succession.due if self._succession.coming is None else math.inf
                    ):
                        await changed.wait()
        finally:
            self._succession.close(trio.current_time())
            self._wake()

    async def _keep(self, template: Template, boot: Boot) -> None:
        """One template, from its start to its end."""
        order = StartOrder(pool=self._pool, slot=-1, generation=template.number, env=self._env)
        try:
            process = await self._make(order)
        except OSError as error:
            self._exited(template, f"the operating system did not start it: {error}")
            return
        self._processes[template] = process
        status = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pass_on_stderr, process, template)
                nursery.start_soon(self._prepare, template, process, boot)
                # Both: what an import has forked may hold the channel open, and one whose channel is garbled lives.
                for end in (process.wait, process.tend):
                    nursery.start_soon(_first, end, nursery.cancel_scope)
        except BaseException:  # cancelled, alone or several times over: the pool closes
            self._succession.close(trio.current_time())
            raise
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _END_PATIENCE):
                process.kill()
                status = await process.wait()
            for _ in range(_LAST_WORDS):
                if not self._note_stderr(process, template):
                    break
            if template.made == 0:
                self._last_words = process.stderr_tail()
            process.close()
            self._exited(template, "it ended" if status is None else f"it ended: {describe_exit(status)}")
            del self._processes[template]

    async def _prepare(self, template: Template, process: TemplateProcess, boot: Boot) -> None:
        """Have it import everything; later, when it is not needed any more, end it."""
        succession = self._succession
        try:
            with trio.fail_after(self._patience):
                await process.prepare(boot, self._preload)
        except TemplateUnfit as error:
            succession.refused(template, str(error), trio.current_time())
        except TemplateFailed as error:
            succession.failed(template, f"its imports failed: {error}", dice.draw(), trio.current_time())
        except trio.TooSlowError:
            cause = f"it did not import everything within {self._patience:g} s"
            succession.failed(template, cause, dice.draw(), trio.current_time())
        except TemplateLost:
            return  # and whoever tends it will see that
        else:
            succession.prepared(template, trio.current_time())
        self._last_words = process.stderr_tail() if template is not succession.current else ()
        self._wake()
        while template not in succession.retiring:
            await self._changed.wait()
        await process.childless()
        process.kill()

    def _exited(self, template: Template, cause: str) -> None:
        self._succession.exited(template, cause, dice.draw(), trio.current_time())
        self._wake()

    async def _pass_on_stderr(self, process: TemplateProcess, template: Template) -> None:
        while self._note_stderr(process, template):
            await process.stderr_readable()

    def _note_stderr(self, process: TemplateProcess, template: Template) -> bool:
        lines = process.read_stderr()
        for line in lines or ():
            self._tell(TemplateWrote(self._pool, template.number, line, trio.current_time()))
        return lines is not None

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _observe(self, subject: Subject[Any], step: Step) -> None:
        assert isinstance(subject, Template)
        number, source, dest = subject.number, str(step.source), str(step.dest)
        self._tell(Transition(self._pool, "template", str(number), step.trigger, source, dest, step.reason, step.at))
        if source != dest:
            process = self._processes.get(subject)
            pid = None if process is None else process.pid
            self._tell(TemplateChanged(self._pool, number, pid, source, dest, step.reason, step.at))

    def _tell(self, event: Event) -> None:
        if self._emit is not None:
            self._emit(event)


async def _first(end: Callable[[], Awaitable[object]], scope: trio.CancelScope) -> None:
    await end()
    scope.cancel()
