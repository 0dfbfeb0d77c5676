"""One worker as the runtime sees it: its process, its channel, and the task that looks after it.

The supervising task brings the worker up (start, handshake, replay of the journal), passes on what it
writes to stderr, and waits for its end. It does not read replies: who has the worker reads its
channel, and when nobody has it nobody reads. So there is never a question of whose a reply is.

The order at the end is what makes the evidence hold: the process ends; its group is killed; the
channel is read until nothing is left in it, because what a worker wrote before it died still counts;
then the evidence page says whether the call had begun. If it had not, the core is told at once, and
another worker has the call; else when the worker is reaped, and it is known how it ended.

A worker runs code that may write to the channel whatever it likes, as much as it likes. So each
message has to answer a question that had been asked when it was read; the first that does not is the
last that is read. And nobody reads on and on: who comes first in a turn shall not be who comes only.
"""

from __future__ import annotations

import math
import signal
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

import trio

from remuda.bridge import messages
from remuda.bridge.frames import GREETING_LIMIT, Decoder
from remuda.bridge.journal import Entry
from remuda.bridge.messages import BootFailed, Failure, Hello, Pong, Result, ToParent
from remuda.bridge.seam import StartOrder, Usage, WorkerProcess
from remuda.runtime import dice, ends
from remuda.runtime.events import WorkerEnded, WorkerReady, WorkerWrote
from remuda.runtime.ticket import Ticket
from remuda.statemachines import events as ev
from remuda.statemachines.errors import ProtocolError, WorkerDeath, describe_refusal, shown
from remuda.statemachines.subjects import Call, Rung, SlotKind, Worker
from remuda.statemachines.worker import WorkerState

if TYPE_CHECKING:
    from remuda.runtime.pool import Pool

__all__ = ["Link"]

_HUNG_UP = "it closed its channel"
"""What is seen of most deaths first: the end of the channel comes before the exit status."""

_ENDED = "it ended"
"""What is known of an end before the exit status."""

_LAST_WORDS = 16
"""Reads of stderr after the end: as many as empty a pipe, and no more, for a grandchild may go on writing."""

_IN_A_TURN = 16
"""Reads of the channel before others have their turn, and after the end: as many as empty the largest pipe."""

_STACK_WITHIN = 0.1
"""Seconds that a worker has to write down its stack. It takes a tenth of a millisecond, if it can run at all."""

_LOOK_EVERY = 0.001
"""Seconds between two looks whether it has: nobody says so."""

_AGAIN_AFTER = 0.01
"""Seconds, and then twice as many, after which the signal is sent again. One that comes between Python's look for
signals and a system call, or while the stack is written, does not end the system call. It is raised once anyway."""

_GREETINGS = Hello, BootFailed
_REPLIES = Result, Failure

_UNDER_CHECK = frozenset({WorkerState.CHECKING, WorkerState.DEGRADED, WorkerState.DRAINING})
"""States in which nobody but a health check reads the channel (draining: if it began as a check)."""


class Link:
    """The connection to one worker.

    Attributes:
        worker: the core's view of it.
        process: its process, once it has been started.
        pid: its process id, kept after the end.
    """

    def __init__(self, pool: Pool, worker: Worker) -> None:
        self._pool = pool
        self.worker = worker
        self.process: WorkerProcess | None = None
        self.pid: int | None = None
        self._decoder = Decoder(GREETING_LIMIT)
        self._outbox: bytes | memoryview = b""
        # Answers that are due, in order: of replayed journal entries, then of the call behind them; of health checks.
        self._expected: deque[tuple[int, Call | Entry | None]] = deque()
        self._before = 0  # how many calls it had begun, by its page, before the one that it has now
        self.applied = pool.journal.add_worker()
        self._journal_version = 0
        self._greeting: Hello | BootFailed | None = None
        self.checking = False
        """Whether a task reads the answers to health checks."""
        self.over = False
        """Whether the channel is of no more use, because the worker is on its way out."""
        self._garbled = False
        """Whether it has broken the rules of the channel: nothing on it is believed any more."""
        self._struck = False
        """Whether it got SIGKILL from us while it was alive."""
        self._kills_before: int | None = None
        self._sent: tuple[int, str] = 0, ""  # the last call, and its command
        self.stopping: trio.Event | None = None
        """Set when the call that the worker was told to stop is behind it, or the worker is."""
        self._waited_for = False
        """Whether a task waits for the channel at this moment."""
        self._scope = trio.CancelScope()
        self._started = pool.now()

    # ── The life of the worker ──────────────────────────────────────────────────────────────────

    async def supervise(self) -> None:
        """Start the worker, bring it up, wait for its end, and tell the core of each."""
        process = await self._start()
        try:
            if process is not None:
                with self._scope:
                    await self._live(process)
        finally:
            if process is not None:
                # Normally it is reaped by now. If the pool itself is being torn down, it has to go too.
                process.signal(signal.SIGKILL)
                process.close()
            self._pool.forget(self)
            if self._pool.folders is not None:
                await self._pool.folders.remove(self._name)

    async def _start(self) -> WorkerProcess | None:
        pool, worker = self._pool, self.worker
        env, process = pool.config.env, None
        words: tuple[str, ...] = ()
        try:
            with self._scope:
                if worker.slot.kind is SlotKind.SPARE:
                    await pool.after_those_who_wait()
                self._kills_before = pool.out_of_memory.before()
                if pool.folders is not None:
                    env = {"TMPDIR": await pool.folders.make(self._name), **env}
                order = StartOrder(
                    pool=pool.config.name,
                    slot=worker.slot.index,
                    generation=worker.generation,
                    env=env,
                    patience=pool.config.policy.stop_grace,
                )
                try:
                    process = await pool.launcher.start(order)
                except trio.Cancelled:
                    words = pool.words_before_start()
                    raise
        except OSError as error:
            cause = describe_refusal(error)
            pool.feed(ev.BootFailed(worker, cause))
            self._exited(None, cause, ())
            return None
        if process is None:
            self._exited(None, "given up before it was started", words)
            return None
        self._scope = trio.CancelScope()
        self.process, self.pid = process, process.pid
        if worker.rung is not None:  # condemned while it was being started
            self.stop(Rung.KILL)
        return process

    async def _live(self, process: WorkerProcess) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pass_on_stderr, process)
            nursery.start_soon(self._bring_up, process)
            all_of_it = await process.ended()
            nursery.cancel_scope.cancel()
        self._read_the_rest(process)
        call = self.worker.call
        if all_of_it and call is not None and not self.has_begun(call) and self._pool.hands_over_from(self.worker):
            # Another worker can have this call at once. How this one ended may take a while to be known.
            self._gone(_ENDED)
        for _ in range(_LAST_WORDS):
            if not self._note_stderr(process):
                break
            await trio.lowlevel.checkpoint()
        status = await process.wait()
        self._exited(status, ends.how(status, by_us=self._struck), process.stderr_tail())
        await process.kill_escaped(self._pool.moment())  # when everybody has been told: it takes a while

    async def _bring_up(self, process: WorkerProcess) -> None:
        """Handshake, then the journal, then the worker is ready."""
        pool, worker = self._pool, self.worker
        self._write(pool.boot_frame)
        while self._greeting is None and not self.over:
            await self.turn()
        greeting = self._greeting
        if type(greeting) is BootFailed:
            cause = shown(f"its {greeting.stage} failed: {greeting.error.type_name}: {greeting.error.message}")
            pool.boot_error = greeting.error
            pool.feed(ev.BootFailed(worker, cause))
        elif type(greeting) is Hello:
            pool.learn_commands(greeting.commands)
            replay = self._replay()
            self._next_of_the_journal()
            self._write(replay)
            while (self._expected or self._outbox) and not self.over:
                await self.turn()
            if not self.over:
                seconds = pool.now() - self._started
                pool.emit(
                    WorkerReady(pool.config.name, worker.slot.index, worker.generation, self.pid, seconds, pool.now())
                )
                pool.feed(ev.Initialized(worker))

    def _exited(self, status: int | None, cause: str, tail: tuple[str, ...]) -> None:
        pool, worker, process = self._pool, self.worker, self.process
        usage = Usage() if process is None else process.usage()
        if worker.cause in ("", _HUNG_UP, _ENDED) and (reason := self._reason(status, usage)):
            worker.cause = reason
        elif worker.cause == _HUNG_UP and status is not None:
            # Now it is known how that came, and that is what its caller should read.
            worker.cause = f"{_HUNG_UP}, and {cause.removeprefix('it ')}"
        elif worker.cause == _ENDED:
            worker.cause = cause
        cause = worker.cause or cause
        death = WorkerDeath(
            worker.slot.index, worker.generation, cause, status, tail, usage.cpu, usage.max_rss, self._doing()
        )
        if not worker.on_purpose:
            pool.last_death = death
        self._gone(cause)
        pool.emit(
            WorkerEnded(
                pool.config.name, worker.slot.index, worker.generation, self.pid, death, worker.on_purpose, pool.now()
            )
        )

    def _gone(self, cause: str) -> None:
        """It runs no more, and all that it said was read: tell the core, if it does not know, what that means."""
        call = self.worker.call
        began = call is not None and self.has_begun(call)
        ticket: Ticket | None = None if call is None else call.request
        self.over = True
        self._expected.clear()
        if self.worker.state is not WorkerState.TERMINATED:
            self._pool.feed(ev.Exited(self.worker, cause, began=began, draw=dice.draw()))
        if ticket is not None and ticket.answer is None and ticket.link is self:
            ticket.taken_back()
        self.wake()

    def _reason(self, status: int | None, usage: Usage) -> str | None:
        """Why it ended, if that was neither its own doing nor ours, and if it is known."""
        if self._struck:
            return None
        reached = ends.limit_reached(status, usage, self._pool.config.limits)
        if reached is None and status == -signal.SIGKILL and self._pool.out_of_memory.explains(self._kills_before):
            return "the kernel killed it: its control group was out of memory"
        return reached

    @property
    def _name(self) -> str:
        return f"{self.worker.slot.index}.{self.worker.generation}"

    def _doing(self) -> str:
        """What the worker was doing when it last said so, in words."""
        if self.process is None:
            return ""
        activity, (number, command) = self.process.activity(), self._sent
        if activity.phase != "running":
            return activity.phase
        text = f"running {command!r}" if activity.call == number else "repeating what the journal has"
        return text if activity.report is None else f"{text} ({activity.report})"

    async def _pass_on_stderr(self, process: WorkerProcess) -> None:
        while self._note_stderr(process):
            await process.stderr_readable()

    def _note_stderr(self, process: WorkerProcess) -> bool:
        lines = process.read_stderr()
        for line in lines or ():
            worker = self.worker
            event = WorkerWrote(self._pool.config.name, worker.slot.index, worker.generation, line, self._pool.now())
            self._pool.emit(event)
        return lines is not None

    # ── The stop ladder ─────────────────────────────────────────────────────────────────────────

    def stop(self, rung: Rung) -> None:
        """Ask the worker to go, or make it."""
        self.over = True  # from now on a reply is only read at the end
        process = self.process
        if process is None:
            self._scope.cancel()  # give up the start
        elif rung is Rung.KILL:
            # Most deaths are seen first as the end of the channel. Then it has no memory any more, and this is late.
            self._struck = self._struck or process.usage().rss != 0
            process.signal(signal.SIGKILL)
        elif rung is Rung.TERM:
            process.signal(signal.SIGTERM)
        else:
            self._write(self._pool.shutdown_frame)

    def last_look(self) -> None:
        """If it has been killed and does not go: read what it had said before."""
        if self.worker.rung is Rung.KILL and self.process is not None:
            self._read_the_rest(self.process)

    def abandon(self) -> None:
        """Stop waiting for a process that does not go."""
        self.over = True
        self._scope.cancel()

    def hurry(self, deadline: float) -> None:
        """It has ended: what is still to be done after it has time until then."""
        self._scope.deadline = deadline

    # ── Interrupts ──────────────────────────────────────────────────────────────────────────────

    def interrupt(self, call: Call) -> None:
        """Have the worker say where it is, and stop this call."""
        ticket: Ticket = call.request
        process = self.process
        assert process is not None
        ticket.dumped, self.stopping = trio.Event(), trio.Event()
        process.ask_for_stack()
        self._pool.spawn(partial(self._see_it_stop, ticket, process, self.stopping))

    async def _see_it_stop(self, ticket: Ticket, process: WorkerProcess, stopped: trio.Event) -> None:
        """First its stack, then the interrupt, then whatever it answers."""
        assert ticket.dumped is not None
        call, worker = ticket.call, self.worker
        try:
            try:
                ticket.stack = await self._stack(call, process)
            finally:
                ticket.dumped.set()
            pause = _AGAIN_AFTER
            while worker.interrupted is call and not self.over:
                process.interrupt(call.id)
                with trio.move_on_after(pause):
                    while worker.interrupted is call and not self.over:
                        await self.turn()
                pause *= 2
        finally:
            stopped.set()

    async def _stack(self, call: Call, process: WorkerProcess) -> str | None:
        """Where the worker is, as far as it can be had in a moment.

        Once it has answered nothing more is read there: the next stack would be that of the next call.
        """
        text, whole = "", False
        with trio.move_on_after(_STACK_WITHIN):
            while self.worker.interrupted is call and not self.over:
                text, whole = process.stack()
                if whole:
                    break
                if self.read():
                    self.wake()
                await trio.sleep(_LOOK_EVERY)
        return text if "File " in text else None

    # ── Sending ─────────────────────────────────────────────────────────────────────────────────

    def send_call(self, call: Call) -> None:
        """Send a call, after the journal entries that this worker lacks."""
        ticket: Ticket = call.request
        process = self.process
        assert process is not None
        self._before = process.evidence().starts
        if self._is_quiet():
            replay = b"" if self._journal_version == self._pool.journal.version else self._replay()
            self._sent = call.id, ticket.command
            self._expected.append((call.id, call))
            self._write(replay + ticket.frame if replay else ticket.frame)
        ticket.assigned(self)

    def send_check(self, number: int) -> None:
        """Ask how the worker is; `serve_checks` reads what it says."""
        if self._is_quiet():
            self._expected.append((number, None))
            self._write(self._pool.pack(messages.Ping(number)))

    def _is_quiet(self) -> bool:
        """Look whether a worker that nobody has has said anything: it must not have.

        A look at the channel before each use costs a microsecond, and catches garbage before
        it could be taken for the answer to the call that is about to be sent.
        """
        process = self.process
        assert process is not None
        if not process.is_quiet():
            data = process.read()
            if data:
                self._receive(data)  # a late answer to a health check is allowed
            elif data is not None and not self.over:
                self._fail(_HUNG_UP, violation=False)
        if self._decoder.pending and not self.over:  # also if it came together with the last answer
            self._fail("it wrote to its channel when it had nothing to say")
        return not self.over

    def _replay(self) -> bytes:
        """The journal entries that this worker lacks, as frames; their answers are expected."""
        pool = self._pool
        self._journal_version = pool.journal.version
        frames = []
        for entry in pool.journal.missing(self.applied):
            number = pool.next_id()
            frames.append(pool.pack(messages.Call(number, entry.command, entry.args, True)))
            self._expected.append((number, entry))
        return b"".join(frames)

    def _write(self, data: bytes) -> None:
        if not data or self.process is None:
            return
        self._outbox = bytes(self._outbox) + data if self._outbox else data
        self._flush()

    def _flush(self) -> None:
        assert self.process is not None
        try:
            while (outbox := self._outbox) and (taken := self.process.write(outbox)):
                self._outbox = b"" if taken == len(outbox) else memoryview(outbox)[taken:]
        except OSError:
            # Its end of the channel is closed. It may still have answered; the supervisor will see.
            self._outbox = b""
            if not self.over:
                self._fail(_HUNG_UP, violation=False)

    # ── Receiving ───────────────────────────────────────────────────────────────────────────────

    async def turn(self) -> None:
        """Wait for the channel once: until it can be written to, if something is left to write, else to read it."""
        process = self.process
        assert process is not None
        if self._waited_for:
            # The clock has read the answer of whoever waits here, and we have the worker now. That
            # one is about to leave; only one task may wait on a channel.
            self.wake()
            await trio.lowlevel.checkpoint()
            return
        self._waited_for = True
        try:
            if self._outbox:
                await process.writable()
            else:
                await process.readable()
        except trio.ClosedResourceError:
            if not self.over:
                raise
            return  # the worker has ended and was buried before we had our turn; the core knows
        finally:
            self._waited_for = False
        if self._outbox:
            if not self.over:
                self._flush()
        else:
            self.read()

    async def serve_checks(self) -> None:
        """Read the answers to health checks, also late ones, until the worker is well or goes."""
        self.checking = True
        try:
            while self.worker.state in _UNDER_CHECK and not self.over:
                await self.turn()
        finally:
            self.checking = False

    @property
    def is_under_way(self) -> bool:
        """Whether the worker may have something to say that it could not, for want of our attention."""
        if self.over:
            return False
        return self.worker.state is WorkerState.INITIALIZING or bool(self._outbox) or bool(self._decoder.pending)

    def read(self) -> bool:
        """Take what has arrived, without waiting; False if nothing had."""
        process, reads = self.process, 0
        while process is not None and not self.over and reads < _IN_A_TURN:
            data = process.read()
            if data is None:
                break
            reads += 1
            if not data:
                self._fail(_HUNG_UP, violation=False)
                break
            self._receive(data)
            if not self._decoder.pending:
                break
        return reads > 0

    def _receive(self, data: bytes) -> None:
        """Take what was read, up to the first message that nobody asked for.

        That one is seen before anything is done about those in front of it: an answer frees the worker for
        the next call, which could else be given to a worker that has just answered it in advance.
        """
        said: list[ToParent] = []
        try:
            for body in self._decoder.feed(data):
                message = messages.decode_to_parent(body)
                self._must_be_asked_for(message, len(said))
                said.append(message)
            if self._decoder.pending:
                self._decoder.feed(b"")  # which raises, if what is pending can be no frame
        except ProtocolError as error:
            self._fail(error.message)
        for message in said:
            self._take(message)

    def _must_be_asked_for(self, message: ToParent, place: int) -> None:
        """Raise ProtocolError if a message does not answer the question at this place."""
        if isinstance(message, _GREETINGS) or self._greeting is None:
            if self._greeting is not None or place or not isinstance(message, _GREETINGS):
                raise ProtocolError(f"it sent {type(message).__name__} out of turn")
            if isinstance(message, Hello):
                _check_greeting(message)
            return
        is_check = type(message) is Pong
        if place < len(self._expected):
            number, item = self._expected[place]
            if number == message.id and is_check is (item is None):
                return
        what = "health check" if is_check else "call"
        raise ProtocolError(f"it answered {what} {message.id}, which it does not have")

    def _take(self, message: ToParent) -> None:
        """Act on a message that was asked for."""
        if isinstance(message, _REPLIES):
            self._take_reply(message)
        elif isinstance(message, Pong):
            self._expected.popleft()
            self._pool.feed(ev.HealthChecked(self.worker, message.id, message.healthy, shown(message.reason)))
        else:
            self._greeting = message
            self._decoder.limit = self._pool.config.max_frame_bytes

    def _take_reply(self, reply: Result | Failure) -> None:
        _, item = self._expected.popleft()
        if isinstance(item, Call):
            ticket: Ticket = item.request
            ok = type(reply) is Result
            if ok and ticket.info is not None and (ticket.info.journal or ticket.info.forgets):
                self._note_in_journal(ticket)
            unfit = type(reply) is Failure and reply.kind is messages.FailureKind.UNFIT
            self._pool.feed(ev.Replied(self.worker, reply.id, reply, ok, unfit))
        elif item is not None and type(reply) is Failure:
            error = reply.error
            self._fail(
                shown(f"it could not replay {item.command!r} from the journal: {error.type_name}: {error.message}"),
                violation=False,
            )
        elif item is not None:
            self._before += 1
            self.applied.note(item)
            self._next_of_the_journal()

    def _next_of_the_journal(self) -> None:
        """A worker that comes up has, for each entry of the journal, the time that the entry had as a call.

        Where calls have no bound it is that of a start: nobody waits for a start with a deadline of his own.
        """
        entry = self._expected[0][1] if self._expected else None
        if isinstance(entry, Entry) and self.worker.state is WorkerState.INITIALIZING:
            seconds, least = self._pool.time_of(entry.command), self._pool.config.init_timeout
            self._pool.feed(ev.Replaying(self.worker, least if math.isinf(seconds) else max(seconds, least)))

    def _note_in_journal(self, ticket: Ticket) -> None:
        assert ticket.info is not None
        entry = self._pool.journal.record(ticket.info, ticket.command, ticket.args)
        if entry is not None:
            self.applied.note(entry)

    def _read_the_rest(self, process: WorkerProcess) -> None:
        """After the end: everything that the worker still managed to say counts, if it can be believed."""
        self.over = True
        if self._garbled:
            return
        try:
            for _ in range(_IN_A_TURN):  # no more than a pipe holds: what it left behind may go on writing
                if not (data := process.read()):
                    break
                for body in self._decoder.feed(data):
                    message = messages.decode_to_parent(body)
                    self._must_be_asked_for(message, 0)
                    self._take(message)
        except (ProtocolError, OSError):
            pass  # it is dead already; what cannot be read is as good as not said

    def _fail(self, cause: str, *, violation: bool = True) -> None:
        self.over = True
        self._garbled = self._garbled or violation
        self._pool.feed(ev.ChannelFailed(self.worker, cause, violation))

    def has_begun(self, call: Call) -> bool:
        """Whether this call, which the worker was given, has begun, or nobody can say that it has not.

        It has not if no more have begun than before; or if no more have than were to be repeated first, and
        the last of them was one of these. A page that says anything else is no proof, and a call is repeated
        on proof only.
        """
        if self.process is None:
            return False
        evidence = self.process.evidence()
        begun = evidence.starts - self._before
        ahead = [number for number, item in self._expected if item is not call]
        return begun != 0 and not (0 < begun <= len(ahead) and evidence.started in ahead)

    def wake(self) -> None:
        """Let whoever waits on the channel look again. Who reads it at this moment need not be woken."""
        if self._waited_for and self.process is not None:
            self.process.wake()


def _check_greeting(hello: Hello) -> None:
    if hello.version != messages.VERSION:
        raise ProtocolError(
            f"it runs another version of remuda (messages {shown(hello.version)}, here {messages.VERSION}); "
            "is there a second one on its path?"
        )
    for info in hello.commands:
        if not (info.name and info.name.isprintable()):
            raise ProtocolError(f"it has a command called {info.name!r}")
