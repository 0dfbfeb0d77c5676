"""The pool, as an application uses it.

This is the place where the core meets trio. `feed` gives the core an event and carries out what it
says; everything else here is a caller who waits, or a task that reports. Nothing in this file
decides which worker, when, or whether: if it looks as if it did, it is a bug.

The tasks of a pool live in one nursery: the clock, which wakes the core when something is due, and
one supervisor for each worker. Calls run in the tasks of their callers.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar, TypeVarTuple, Unpack, overload

import trio

from remuda.bridge import functions, messages
from remuda.bridge.adapters import OnTimeout, check_on_timeout, command_name, reference_to
from remuda.bridge.frames import pack
from remuda.bridge.journal import Journal
from remuda.bridge.messages import CommandInfo, RemoteFailure
from remuda.bridge.seam import Launcher, Usage
from remuda.runtime import cgroup
from remuda.runtime.boot import boot_frame, boot_message
from remuda.runtime.config import PoolConfig
from remuda.runtime.ends import OutOfMemory
from remuda.runtime.events import CallEnded, Event, Observer, PoolChanged, Transition, Watcher
from remuda.runtime.folders import Folders
from remuda.runtime.handles import Lease, Session
from remuda.runtime.link import Link
from remuda.runtime.outcomes import value_of
from remuda.runtime.snapshot import PoolSnapshot, WorkerSnapshot
from remuda.runtime.templates import ForkLauncher, TendedLauncher
from remuda.runtime.ticket import Ticket
from remuda.statemachines import effects as fx
from remuda.statemachines import events as ev
from remuda.statemachines.breaker import Breaker
from remuda.statemachines.call import CallState
from remuda.statemachines.core import Core
from remuda.statemachines.errors import (
    ConfigError,
    FrameTooLarge,
    IllegalTransition,
    InvalidLease,
    PoolClosed,
    PoolStartError,
    SerializationError,
    UnknownCommand,
    WorkerDeath,
)
from remuda.statemachines.lifecycle import Subject
from remuda.statemachines.policy import check_seconds
from remuda.statemachines.pool import PoolState
from remuda.statemachines.subjects import Call, Slot, Worker

__all__ = ["Pool"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Pool:
    """A pool of worker processes. Made by `open_pool` and `run_pool`, never by hand.

    Attributes:
        config: what it was made with.
        last_death: how the last worker ended that the pool had not ended itself, or None.
    """

    def __init__(self, config: PoolConfig, launcher: Launcher, observers: Sequence[Observer]) -> None:
        self.config = config
        self.launcher = launcher
        self.label = f"pool {config.name!r}"
        self.now = trio.lowlevel.current_clock().current_time
        """Monotonic seconds; what `trio.current_time` says."""
        self.journal = Journal()
        self.last_death: WorkerDeath | None = None
        self.boot_error: RemoteFailure | None = None
        self.observer_errors = 0
        self.out_of_memory = OutOfMemory(cgroup.oom_kills)
        self.folders = Folders() if launcher.local else None
        self.shutdown_frame = self.pack(messages.Shutdown())
        self._adapter = None if config.adapter is None else reference_to(config.adapter)
        self._boot = boot_message(config, self._adapter)
        self.boot_frame = boot_frame(self._boot)
        self._commands: dict[str, CommandInfo] | None = None
        self._observers = tuple(observers)
        self._watchers = tuple(observer for observer in observers if isinstance(observer, Watcher))
        self._history = config.history if self._watchers else 0  # of a call: nobody else could see it
        self._number = 0
        self._core = Core(config.policy, trio.current_time(), observed=bool(observers))
        self._state = self._core.pool.state
        self._links: dict[Worker, Link] = {}
        self._ended: Counter[fx.Verdict] = Counter()
        self._inbox: deque[ev.Event] = deque()
        self._feeding = False
        self._nap = trio.CancelScope()
        self._wakes_at = math.inf
        self._background: set[trio.CancelScope] = set()
        self._put_off: set[trio.CancelScope] = set()
        self._nursery: trio.Nursery
        self._changed = trio.Event()
        self._closed = trio.Event()

    # ── For callers ─────────────────────────────────────────────────────────────────────────────

    @overload
    async def call(
        self,
        command: str,
        args: Mapping[str, object] | None = None,
        /,
        *,
        timeout: float | None = None,
        session: str | None = None,
        idempotent: bool | None = None,
        on_timeout: OnTimeout | None = None,
    ) -> Any: ...

    @overload
    async def call(
        self,
        command: Callable[[Any, Unpack[Ts]], T],
        /,
        *args: Unpack[Ts],
        timeout: float | None = None,
        session: str | None = None,
        idempotent: bool | None = None,
        on_timeout: OnTimeout | None = None,
    ) -> T: ...

    async def call(  # type: ignore[misc]  # mypy does not see that *args: Any takes what *args: *Ts does
        self,
        command: Any,
        /,
        *args: Any,
        timeout: float | None = None,
        session: str | None = None,
        idempotent: bool | None = None,
        on_timeout: OnTimeout | None = None,
    ) -> Any:
        """Run a command of the adapter in a worker.

        Args:
            command: its name, with a dict of named arguments; or the adapter's own function, with
                positional ones, which type checkers can check.
            args: see above.
            timeout: seconds for everything (waiting, running, all attempts), zero or more;
                infinity for none. Default: the command's own, else the pool's `call_timeout`. A
                deadline of trio's around the call counts as well; the earlier one holds.
            session: a name. Calls of a session go to the same worker, as long as that one is free.
            idempotent: whether doing it twice is harmless, so that it may be tried again when a
                worker has died with it. Default: what the command says.
            on_timeout: what becomes of the worker when the time is over, or the caller is cancelled: "kill",
                or "interrupt" (see `PoolConfig`). Default: the command's own, else the pool's.

        Returns:
            What the command returned, as plain data.

        Raises:
            RemoteError: the command raised. A built-in exception can also be caught by its own type.
            CallTimeout: the deadline passed.
            OutcomeUnknown: the worker died after the command had begun, and it may not be repeated.
            WorkerDied, ProtocolError, PoolFull, PoolClosed, PoolFailed, CircuitOpen, UnknownCommand,
            SerializationError, FrameTooLarge: as their texts say.
        """
        return await self._outcome(self._command(command, args, timeout, session, idempotent, on_timeout, None))

    async def run_sync(
        self,
        sync_fn: Callable[[Unpack[Ts]], T],
        /,
        *args: Unpack[Ts],
        timeout: float | None = None,
        session: str | None = None,
        idempotent: bool = False,
        on_timeout: OnTimeout | None = None,
    ) -> T:
        """Run a plain function in a worker, as `trio.to_thread.run_sync` does in a thread.

        Only for a pool without an adapter. The function goes by name; its arguments and its result are
        pickled, unless they are short single values. For keyword arguments use `functools.partial`.

        Args:
            sync_fn: a function that can be imported, or one of the running script.
            args: its arguments.
            timeout, session, idempotent, on_timeout: as for `call`.

        Raises:
            As `call` does.
        """
        ticket = self._function(sync_fn, args, timeout, session, idempotent, on_timeout, None)
        return functions.loads(await self._outcome(ticket), ticket.command)  # type: ignore[no-any-return]

    def session(self, name: str) -> Session:
        """Calls that belong together. See `Session`."""
        return Session(self, name)

    @asynccontextmanager
    @trio.lowlevel.enable_ki_protection
    async def checkout(
        self, *, timeout: float | None = None, session: str | None = None
    ) -> AsyncGenerator[Lease, None]:
        """Hold one worker for several calls.

        Args:
            timeout: seconds to wait for one, zero or more; infinity for no limit. Default: the
                pool's `checkout_timeout`.
            session: prefer the worker that served this session last.

        Raises:
            CheckoutTimeout: none came free in time.
            PoolFull, PoolClosed, PoolFailed: as their texts say.
        """
        timeout = self.config.checkout_timeout if timeout is None else timeout
        ticket = self._ticket("checkout", None, None, timeout, session, False, "kill", None)
        try:
            await self._outcome(ticket)
        except BaseException:
            if ticket.answer is not None and ticket.answer.verdict is _GRANTED:
                self.feed(ev.Checkin(ticket.call))  # cancelled at the last checkpoint, with a worker in hand
            raise
        lease = Lease(self, ticket.call)
        try:
            yield lease
        finally:
            lease.give_back()

    def snapshot(self) -> PoolSnapshot:
        """What the pool is doing at this moment."""
        return self.look(measure=True)

    def look(self, *, measure: bool = False) -> PoolSnapshot:
        """A snapshot; it is asked of the system only on demand what the workers use, for that takes time."""
        core, now = self._core, self.now()
        workers = []
        for worker in core.crew.workers():
            link = self._links.get(worker)
            call = worker.call
            if link is not None:
                self._note_begun(link)
            process = link.process if measure and link is not None else None
            usage = Usage() if process is None else process.usage()
            activity = None if link is None or link.process is None else link.process.activity()
            workers.append(
                WorkerSnapshot(
                    slot=worker.slot.index,
                    generation=worker.generation,
                    kind=worker.slot.kind,
                    state=worker.state,
                    pid=None if link is None else link.pid,
                    calls_served=worker.served,
                    failures=worker.failures,
                    command=None if call is None else call.request.command,
                    seconds_in_state=now - worker.since,
                    rss=usage.rss,
                    cpu=usage.cpu,
                    phase=None if activity is None else activity.phase,
                    silent_for=None if activity is None else activity.silent,
                    progress=activity.report if activity is not None and activity.phase == "running" else None,
                )
            )
        return PoolSnapshot(
            name=self.config.name,
            state=core.pool.state,
            breaker=core.breaker.state,
            workers=tuple(workers),
            slots=dict(Counter(str(slot.state) for slot in core.crew.slots.values())),
            waiting=len(core.waiters),
            in_flight=len(core.calls),
            sessions=len(core.sessions),
            restart_tokens=core.crew.budget.tokens(now),
            ended={str(verdict): count for verdict, count in self._ended.items()},
            last_death=self.last_death,
            template_pid=self.launcher.template_pid if isinstance(self.launcher, ForkLauncher) else None,
        )

    @property
    def state(self) -> PoolState:
        """The state of the pool's lifecycle."""
        return self._core.pool.state

    async def wait_for(self, *states: PoolState) -> PoolState:
        """Wait until the pool is in one of `states`; returns which.

        Raises:
            PoolClosed: it is closed, and `states` does not have that.
        """
        await trio.lowlevel.checkpoint()
        while self._core.pool.state not in states:
            if self._closed.is_set():
                raise PoolClosed(f"{self.label} is closed and will not be {', '.join(states)} any more; open a new one")
            await self._changed.wait()
        return self._core.pool.state

    def suspend(self) -> None:
        """Give no more work to workers until `resume`; callers wait, within their deadlines.

        Raises:
            IllegalTransition: the pool is not serving.
        """
        self.feed(ev.Suspend())

    def resume(self) -> None:
        """End a suspension.

        Raises:
            IllegalTransition: the pool is not suspended.
        """
        self.feed(ev.Resume())

    async def aclose(self) -> None:
        """Take no more calls, let the running ones finish, end the workers.

        It takes `shutdown_timeout` seconds at most: what runs longer is killed. Callers that wait
        for a worker get `PoolClosed` at once. Closing twice is harmless.
        """
        began = self.now()
        self.feed(ev.Close())
        await self._closed.wait()
        if self.folders is not None:
            left = self.config.shutdown_timeout - (self.now() - began)
            with trio.move_on_after(max(left, _AT_LEAST)):
                await self.folders.close()

    # ── Making calls ────────────────────────────────────────────────────────────────────────────

    def _command(
        self,
        command: Any,
        args: tuple[Any, ...],
        timeout: float | None,
        session: str | None,
        idempotent: bool | None,
        on_timeout: OnTimeout | None,
        lease: Call | None,
    ) -> Ticket:
        """A call of a command. What is wrong with it is an error here, before anything is sent."""
        if self._adapter is None:
            raise ConfigError(f"{self.label} has no adapter, so no commands; use run_sync, or give it one")
        payload: dict[str, object] | list[object]
        if isinstance(command, str):
            name, payload = command, _named(command, args)
        else:
            name, payload = command_name(command), list(args)
        commands = self._commands
        info = None if commands is None else commands.get(name)
        if info is None and commands is not None:
            known = ", ".join(sorted(commands)) or "none"
            raise UnknownCommand(
                f"the adapter of {self.label} has no command {name!r}; it has: {known}",
                context={"pool": self.config.name, "command": name},
            )
        if info is not None:
            timeout = info.timeout if timeout is None else timeout
            idempotent = info.idempotent if idempotent is None else idempotent
            on_timeout = _on_timeout_of(info, on_timeout)
        return self._ticket(name, payload, info, timeout, session, bool(idempotent), on_timeout, lease)

    def _function(
        self,
        sync_fn: Callable[..., Any],
        args: Sequence[Any],
        timeout: float | None,
        session: str | None,
        idempotent: bool,
        on_timeout: OnTimeout | None,
        lease: Call | None,
    ) -> Ticket:
        """A call of a plain function; else as `_command`."""
        if self._adapter is not None:
            raise ConfigError(
                f"{self.label} runs the commands of its adapter, so use call; "
                "for plain functions open a pool without one"
            )
        name, payload = functions.request(sync_fn, args)
        return self._ticket(name, payload, None, timeout, session, idempotent, on_timeout, lease)

    def _frame(self, number: int, command: str, args: Any) -> bytes:
        """What is sent, whoever runs it; fails at the edge."""
        try:
            return self.pack(messages.Call(number, command, args))
        except FrameTooLarge as error:
            raise FrameTooLarge(
                f"the arguments of {command!r} are too large: {error.message}. "
                "Raise max_frame_bytes, or pass a path instead of the data"
            ) from None
        except SerializationError as error:
            raise SerializationError(
                f"the arguments of {command!r} cannot be sent: {error.message}. "
                "Pass plain data: numbers, text, bytes, lists, dicts"
            ) from error.__cause__

    def _ticket(
        self,
        command: str,
        payload: dict[str, object] | list[object] | bytes | None,
        info: CommandInfo | None,
        timeout: float | None,
        session: str | None,
        idempotent: bool,
        on_timeout: OnTimeout | None,
        lease: Call | None,
    ) -> Ticket:
        """A call that is not submitted yet; without a payload it is a checkout."""
        config, number = self.config, self.next_id()
        frame = b"" if payload is None else self._frame(number, command, payload)
        if timeout is None:
            timeout = config.call_timeout
        else:
            check_seconds("call", "timeout", timeout, zero=True, endless=True)
        if session is not None and not (isinstance(session, str) and session):
            raise ConfigError(f"call.session is {session!r}; it must be a text that is not empty")
        if on_timeout is None:
            on_timeout = config.on_timeout
        else:
            check_on_timeout("call", on_timeout)
        now = self.now()
        deadline, outer = now + timeout, trio.current_effective_deadline()
        call = Call(
            number,
            now=now,
            deadline=min(deadline, outer),
            session=session,
            idempotent=idempotent,
            interrupt=on_timeout == "interrupt",
            is_lease=payload is None,
            lease=lease,
            history=self._history,
        )
        call.request = ticket = Ticket(call, command, now, frame, info)
        if info is not None and (info.journal or info.forgets):
            ticket.args = payload
        return ticket

    @trio.lowlevel.enable_ki_protection
    async def _outcome(self, ticket: Ticket) -> Any:
        """Submit the call and stay until it has its answer, or its caller is cancelled."""
        call = ticket.call
        if call.deadline == -math.inf:
            await trio.lowlevel.checkpoint()  # its caller is cancelled already
        if call.lease is not None:
            await self._until_it_has_stopped(call.lease.worker, call.deadline)
        waited = False
        try:
            self.feed(ev.Submit(call))
            while ticket.answer is None:
                waited = True
                if ticket.link is not None and not ticket.link.over:
                    await ticket.link.turn()
                else:
                    await self._park(ticket)
        except BaseException:  # trio.Cancelled; but also KeyboardInterrupt, which trio raises in the main task
            if ticket.answer is None and ticket.link is not None:
                ticket.link.read()  # the answer may be there already: then its worker need not die
                await self._let_it_catch_up(ticket, ticket.link)
            if ticket.answer is None:
                if ticket.link is not None:
                    self._note_begun(ticket.link)
                self.feed(ev.GiveUp(call))
            raise
        if not waited or ticket.answer.verdict is _TIMED_OUT:
            # If it was trio's deadline that passed, this is where trio says so, in its own way.
            await trio.lowlevel.checkpoint()
            if ticket.dumped is not None:
                await ticket.dumped.wait()  # a moment: its caller shall learn where the worker was
        return value_of(self, ticket)

    async def _until_it_has_stopped(self, worker: Worker | None, deadline: float) -> None:
        """If the last call of its holder is over, but not yet for the worker: it has `interrupt_grace` for that."""
        link = None if worker is None or worker.interrupted is None else self._links.get(worker)
        if link is not None and link.stopping is not None:
            with trio.move_on_at(deadline):
                await link.stopping.wait()

    async def _let_it_catch_up(self, ticket: Ticket, link: Link) -> None:
        """After a deadline of the caller's own that was noticed late: as the clock does for the others.

        What does not fit a pipe could not be read while the loop was blocked. The caller has hung up; but
        its worker is not killed for it, if it comes to the end of its answer in the time that it lost.
        """
        late = self.now() - ticket.call.deadline
        if _LATE < late < math.inf and link.is_under_way:
            with trio.CancelScope(shield=True, deadline=self.now() + min(late, _CATCHING_UP)):
                while ticket.answer is None and not link.over:
                    await link.turn()

    async def _park(self, ticket: Ticket) -> None:
        def leave(_: object) -> trio.lowlevel.Abort:
            # At once, so that no worker is spent on it between now and the end of its task's sleep.
            ticket.task = None
            self.feed(ev.GiveUp(ticket.call))
            return trio.lowlevel.Abort.SUCCEEDED

        ticket.task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(leave)

    def _note_begun(self, link: Link) -> None:
        """Tell the core if the call of this worker has begun: nobody says so at that moment; its page does."""
        call = link.worker.call
        if call is not None and call.state is CallState.ASSIGNED and link.has_begun(call):
            self.feed(ev.Began(call))

    # ── The core and its effects ────────────────────────────────────────────────────────────────

    @trio.lowlevel.enable_ki_protection
    def feed(self, event: ev.Event) -> None:
        """Tell the core, and carry out what it wants; events that this causes come after it."""
        if self._feeding:
            self._inbox.append(event)
            return
        core, inbox = self._core, self._inbox
        self._feeding = True
        news: ev.Event | None = event
        try:
            while news is not None:
                try:
                    now = self.now()
                    effects = core.handle(news, now)
                    for watcher in self._watchers:
                        self._show(watcher, news, effects, now)
                    for effect in effects:
                        _CARRY_OUT[type(effect)](self, effect)
                except (IllegalTransition, InvalidLease) as error:
                    if news is event:
                        raise
                    # An observer asked for it, in the middle of somebody else's step.
                    self._observer_failed(None, news, error)
                news = inbox.popleft() if inbox else None
        finally:
            self._feeding = False
        if core.pool.state is not self._state:
            self._note_state()
        if self._put_off and core.waiters.count:
            for scope in self._put_off:
                scope.cancel()
        due = core.timers.next_due()
        if due < self._wakes_at:
            self._nap.deadline = self._wakes_at = due

    def _start_worker(self, effect: fx.StartWorker) -> None:
        link = Link(self, effect.worker)
        self._links[effect.worker] = link
        self.spawn(link.supervise)

    def _send_call(self, effect: fx.SendCall) -> None:
        self._links[effect.worker].send_call(effect.call)

    def _send_check(self, effect: fx.SendCheck) -> None:
        link = self._links[effect.worker]
        link.send_check(effect.number)
        if not link.checking:
            self.spawn(link.serve_checks)

    def _interrupt(self, effect: fx.Interrupt) -> None:
        self._links[effect.worker].interrupt(effect.call)

    def _stop(self, effect: fx.Stop) -> None:
        link = self._links.get(effect.worker)
        if link is not None:
            link.stop(effect.rung)

    def _abandon(self, effect: fx.Abandon) -> None:
        link = self._links.get(effect.worker)
        if link is not None:
            link.abandon()

    def _answer(self, effect: fx.Answer) -> None:
        ticket: Ticket = effect.call.request
        ticket.answered(effect)
        verdict = effect.verdict
        if verdict is _GRANTED:
            return  # that is no end
        self._ended[verdict] += 1
        if self._observers:
            now = self.now()
            call = effect.call
            self.emit(
                CallEnded(self.config.name, call.id, ticket.command, verdict, now - ticket.made, call.attempts, now)
            )

    def _all_closed(self, effect: fx.Closed) -> None:
        """The workers have ended; what they left behind has as much time as they had."""
        for link in self._links.values():
            link.hurry(self._core.closes_at)
        self._close_when_alone()

    def _close_when_alone(self) -> None:
        if self._core.pool.state is PoolState.CLOSED and not self._links:
            self._closed.set()

    def _stepped(self, effect: fx.Stepped) -> None:
        step = effect.step
        kind, name = _identity(effect.subject)
        self.emit(Transition(self.config.name, kind, name, step.trigger, step.source, step.dest, step.reason, step.at))

    def _note_state(self) -> None:
        before, self._state = self._state, self._core.pool.state
        self._changed.set()
        self._changed = trio.Event()
        history = self._core.pool.history
        reason = history[-1].reason if history else ""
        self.emit(PoolChanged(self.config.name, before.value, self._state.value, reason, self.now()))

    # ── For the links ───────────────────────────────────────────────────────────────────────────

    def next_id(self) -> int:
        """A number for a call, never used before in this pool."""
        self._number += 1
        return self._number

    def pack(self, message: messages.ToWorker) -> bytes:
        """A message as a frame; raises SerializationError or FrameTooLarge."""
        return pack(messages.encode(message), self.config.max_frame_bytes)

    def hands_over_from(self, worker: Worker) -> bool:
        """Whether the call that this worker has, if it has not begun, is given to another when this one has ended."""
        return self._core.hands_over_from(worker)

    def words_before_start(self) -> tuple[str, ...]:
        """What was said, by whatever that was, before a worker had a process that could."""
        return self.launcher.stderr_tail() if isinstance(self.launcher, TendedLauncher) else ()

    def learn_commands(self, commands: Sequence[CommandInfo]) -> None:
        """What a worker said in its handshake that its adapter can do."""
        self._commands = {info.name: info for info in commands}

    def time_of(self, command: str) -> float:
        """Seconds that a call of this command has, if its caller does not say otherwise."""
        info = None if self._commands is None else self._commands.get(command)
        return self.config.call_timeout if info is None or info.timeout is None else info.timeout

    def moment(self) -> float:
        """Seconds by which what nobody waits for comes later than the answers that somebody waits for.

        A spare that takes the place of a dead worker is idle at that moment, and has its first call to do. To find
        what the dead one had started, and to bring up the next spare, takes longer than that call, as a rule.
        Who waits for a worker waits for the next one: then nothing is put off.
        """
        core = self._core
        answers = core.calls and not core.waiters.count
        return _A_MOMENT if answers and core.pool.state not in (PoolState.DRAINING, PoolState.CLOSED) else 0.0

    async def after_those_who_wait(self) -> None:
        """Wait for a moment, or until somebody waits for a worker."""
        if pause := self.moment():
            with trio.move_on_after(pause) as scope:
                self._put_off.add(scope)
                try:
                    await trio.sleep_forever()
                finally:
                    self._put_off.discard(scope)

    def forget(self, link: Link) -> None:
        self._links.pop(link.worker, None)
        self.journal.forget_worker(link.applied)
        self._close_when_alone()

    def next_restart(self) -> float | None:
        """Seconds until a failed pool tries to start a worker again."""
        now = self.now()
        dues = [slot.due - now for slot in self._core.crew.slots.values() if slot.due < math.inf]
        return max(0.0, min(dues)) if dues else None

    def emit(self, event: Event) -> None:
        """Tell the observers, of which the log is one; none of them can harm the pool.

        Not even by wanting to end the program: it would end in the middle of a step, in whose task
        ever that happens to be.
        """
        for observer in self._observers:
            try:
                observer(event)
            except BaseException as error:
                self._observer_failed(observer, event, error)
        if type(event) not in _FREQUENT:
            try:
                from remuda.runtime.logs import log_event  # which takes descriptors, and there may be none

                log_event(event)
            except Exception as error:
                self._observer_failed(None, event, error)

    def _show(self, watcher: Watcher, news: ev.Event, effects: Sequence[fx.Effect], now: float) -> None:
        """Let a watcher see a step of the core; what it has to say is an event for all observers."""
        try:
            for event in watcher.handled(self.config.name, self._core, news, effects, now):
                self.emit(event)
        except BaseException as error:
            self._observer_failed(watcher, news, error)

    def _observer_failed(self, observer: Observer | None, event: object, error: BaseException) -> None:
        self.observer_errors += 1
        if self.observer_errors == 1:
            try:
                from remuda.runtime.logs import log_observer_error
            except Exception:  # nothing can be opened now, not even that; it is counted
                return
            log_observer_error(self.config.name, observer, event, error)

    # ── Its tasks ───────────────────────────────────────────────────────────────────────────────

    async def _start(self, nursery: trio.Nursery) -> None:
        """Start the workers; returns when the pool is ready.

        Raises:
            PoolStartError: it cannot be.
        """
        self._nursery = nursery
        self.spawn(self._keep_time)
        launcher = self.launcher
        if isinstance(launcher, TendedLauncher):
            self.spawn(partial(launcher.tend, self._boot, self.emit))
        self.feed(ev.Open())
        if self.folders is not None:
            with trio.move_on_after(_SWEEPING):
                await self.folders.sweep()
        while self._core.pool.state is PoolState.STARTING:
            await self._changed.wait()
        if self._core.pool.state is PoolState.FAILED:
            cause, snapshot = self._core.last_cause, self.snapshot()
            await self.aclose()  # so that the worker has ended, and its last words are there
            error = PoolStartError(
                f"{self.label} could not start: {cause.rstrip('.')}. See its last words, and try `remuda doctor`",
                last_death=self.last_death,
                snapshot=snapshot,
                context={"pool": self.config.name},
            )
            if self.boot_error is not None and self.boot_error.traceback:
                error.add_note(f"in the worker:\n{self.boot_error.traceback}")
            raise error

    async def _keep_time(self) -> None:
        """Tell the core when something is due, after reading whatever has arrived by then.

        If the loop was blocked, or the process stopped, answers and deadlines come up together.
        The answers go first: nothing is called late that was there in time to be read. And a worker
        that is in the middle of its start, or of a frame that no pipe holds, had to wait for us: it
        gets as much time as it has lost, up to a second, before it is judged.
        """
        while True:
            self._wakes_at = self._core.next_due()
            with trio.CancelScope(deadline=self._wakes_at) as self._nap:
                await trio.sleep_forever()
            late = self.now() - self._core.next_due()
            self._read_all()
            while late > _LATE and any(link.is_under_way for link in self._links.values()):
                until = self.now() + min(late, _CATCHING_UP)
                await trio.sleep_until(until)
                late = self.now() - until
                self._read_all()
            for link in list(self._links.values()):
                if self._core.pool_due <= self.now():
                    link.last_look()  # those that do not even die are given up now
                self._note_begun(link)  # a call whose deadline passes is told whether it had begun
            self.feed(ev.Tick())

    def _read_all(self) -> None:
        for link in list(self._links.values()):
            if link.read():
                link.wake()

    def spawn(self, async_fn: Callable[[], Awaitable[None]]) -> None:
        self._nursery.start_soon(self._in_background, async_fn)

    async def _in_background(self, async_fn: Callable[[], Awaitable[None]]) -> None:
        """Run a task of the pool.

        It is shielded: when the block around the pool is cancelled, the pool closes in order, and
        for that its tasks have to be there. If one crashes, that is a bug in remuda; nobody shall
        hang for it.
        """
        with trio.CancelScope(shield=True) as scope:
            self._background.add(scope)
            try:
                await async_fn()
            except BaseException:  # also trio.Cancelled: then all this has been done already
                self._halt()
                for call in list(self._core.calls.values()):
                    call.request.answered(fx.Answer(call, fx.Verdict.CLOSED))
                raise
            finally:
                self._background.discard(scope)

    def _halt(self) -> None:
        """Stop all tasks of the pool, also those that were on their way."""
        self._closed.set()
        self._changed.set()
        self._nursery.cancel_scope.cancel()
        for scope in self._background:
            scope.cancel()

    async def _end(self) -> None:
        """Close, whatever has happened, and stop the clock.

        Control-C while it closes (by then it was pressed twice, as a rule) ends it at once.
        """
        try:
            with trio.CancelScope(shield=True):
                await self.aclose()
        finally:
            self._halt()


def _named(command: str, args: tuple[Any, ...]) -> dict[str, object]:
    """The arguments of a command that was given by name."""
    named, more = (args[0], args[1:]) if args else (None, ())
    if named is None and not more:
        return {}
    if more or not isinstance(named, Mapping):
        raise ConfigError(
            f"call({command!r}, …) takes one dict of named arguments; for positional ones pass the adapter's "
            "own function instead of its name"
        )
    return dict(named)


def _on_timeout_of(info: CommandInfo, asked: OnTimeout | None) -> OnTimeout | None:
    """What a call of this command says about its end, if it or the command does; None: what the pool says."""
    if info.journal is not None or info.forgets is not None:
        if asked == "interrupt":
            raise ConfigError(
                f"{info.name!r} leaves something in its worker, of which an interrupt might leave a half; "
                "call it without on_timeout"
            )
        return "kill"
    return info.on_timeout if asked is None else asked  # type: ignore[return-value]  # checked by the declaration


def _identity(subject: Subject[Any]) -> tuple[str, str]:
    """What a transition is about: the lifecycle, and which one."""
    if isinstance(subject, Worker):
        return "worker", f"{subject.slot.index}.{subject.generation}"
    if isinstance(subject, Slot):
        return "slot", str(subject.index)
    if isinstance(subject, Call):
        return "call", str(subject.id)
    return ("breaker" if isinstance(subject, Breaker) else "pool"), ""


_LATE = 0.05
"""Seconds by which the clock may be late without anybody having been held up."""

_CATCHING_UP = 1.0
"""Seconds that a worker gets at most to catch up with, when it was the application that was late."""

_SWEEPING = 5.0
"""Seconds for which the start of a pool waits until what killed applications left behind is removed."""

_A_MOMENT = 0.01
"""Seconds in which a call is answered that was waiting for a worker, if it is a short one."""

_AT_LEAST = 0.05
"""Seconds that the removal of temporary files gets, so that it begins; after that it goes on in its thread."""

_FREQUENT = frozenset({Transition, CallEnded})

_GRANTED, _TIMED_OUT = fx.Verdict.GRANTED, fx.Verdict.TIMED_OUT

_CARRY_OUT: dict[type, Callable[[Pool, Any], None]] = {
    fx.StartWorker: Pool._start_worker,
    fx.SendCall: Pool._send_call,
    fx.SendCheck: Pool._send_check,
    fx.Interrupt: Pool._interrupt,
    fx.Stop: Pool._stop,
    fx.Answer: Pool._answer,
    fx.Abandon: Pool._abandon,
    fx.Closed: Pool._all_closed,
    fx.Stepped: Pool._stepped,
}
