"""What runs in a simulated worker: the loop of a real one, and plays in place of user code.

It decodes frames and answers them as `remuda.bridge`'s own worker does, one message at a time: the
boot message first, then calls, health checks and the shutdown message, until the parent's end of the
channel is closed. What it does with each of them is the play that its `Behaviour` names; the steps
are carried out here.

What is not a worker's choice is done as a real worker does it: the result that is too large or
cannot be serialized, the command that does not exist, the argument that is missing, the message that
nobody can read. So a test of those needs no script.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping

import trio

from remuda.bridge import frames, messages
from remuda.bridge.page import Report
from remuda.bridge.remote import describe
from remuda.bridge.seam import StartOrder
from remuda.specs import behaviour as play
from remuda.specs.behaviour import Behaviour
from remuda.specs.process import Process
from remuda.specs.witness import Execution, Witness
from remuda.statemachines.errors import FrameTooLarge, Interrupted, ProtocolError, SerializationError, WorkerUnfit

__all__ = ["Program"]


Outcome = tuple[object, tuple[messages.RemoteFailure, messages.FailureKind] | None]


class Turn:
    """A call in the worker's hands, and what has become of it so far."""

    __slots__ = ("call", "execution", "outcome")

    def __init__(self, call: messages.Call) -> None:
        self.call = call
        self.execution: Execution | None = None
        self.outcome: Outcome | None = None


class Program:
    """The worker's own loop, in a simulated process.

    Args:
        process: where it runs.
        behaviour: what it does.
        order: what it was started for.
        witness: told what it begins and finishes.
        tell: called when something has happened that a test may be waiting for.

    Attributes:
        boot: the boot message, once it has come.
        memory: the state that the commands keep in the process.
    """

    def __init__(
        self,
        process: Process,
        behaviour: Behaviour,
        order: StartOrder,
        witness: Witness,
        tell: Callable[[], None],
    ) -> None:
        self.boot: messages.Boot | None = None
        self.memory: dict[str, object] = {}
        self._process = process
        self._behaviour = behaviour
        self._commands: Mapping[str, play.Command] = {**play.STANDARD, **behaviour.commands}
        self._order = order
        self._witness = witness
        self._tell = tell
        self._decoder = frames.Decoder(frames.HANDSHAKE_LIMIT)
        self._limit = frames.HANDSHAKE_LIMIT
        self._inbox: deque[bytes] = deque()
        self._calls = 0
        self._pings = 0

    async def run(self) -> None:
        """Live until the process ends."""
        with self._process.life:
            async with trio.open_nursery() as threads:
                threads.start_soon(self._act, self._behaviour.meanwhile)
                try:
                    await self._serve()
                except ProtocolError as error:
                    await self._process.write(self._process.errors, f"{type(error).__name__}: {error}\n".encode())
                    await self._process.exit(1)

    async def _serve(self) -> None:
        message = await self._receive()
        if message is None:
            return await self._process.exit(0)
        if not isinstance(message, messages.Boot):
            raise ProtocolError(f"expected the boot message, got {type(message).__name__}")
        self.boot = message
        self._limit = message.max_frame_bytes
        await self._act(self._behaviour.boot)
        self._process.enter("idle")
        while True:
            match await self._receive():
                case messages.Call() as call:
                    self._calls += 1
                    await self._serve_call(call)
                case messages.Ping() as ping:
                    self._pings += 1
                    steps = self._behaviour.pings.get(self._pings, self._behaviour.ping)
                    self._process.enter("checking")
                    await self._act(steps, ping=ping)
                    self._process.enter("idle")
                case messages.Shutdown():
                    self._process.enter("tearing down")
                    await self._act(self._behaviour.shutdown)
                case messages.Boot():
                    raise ProtocolError("a second boot message")
                case None:
                    await self._process.exit(0)

    async def _serve_call(self, call: messages.Call) -> None:
        """Play the scene written for this call, else that of its command."""
        chosen = self._behaviour.calls.get(self._calls)
        if chosen is None:
            command = self._commands.get(call.command)
            if command is None:
                error = LookupError(f"no command {call.command!r}")
                await self._refuse(call, error, messages.FailureKind.UNKNOWN_COMMAND)
                return
            chosen = command.play
        try:
            steps = chosen(call) if callable(chosen) else chosen
        except TypeError as error:
            await self._refuse(call, error, messages.FailureKind.BAD_ARGUMENTS)
            return
        turn = Turn(call)
        try:
            await self._act(steps, turn=turn)
        except Interrupted as error:
            self._process.enter("answering")
            await self._refuse(call, error, messages.FailureKind.INTERRUPTED)
            self._finish(turn)

    async def _refuse(self, call: messages.Call, error: BaseException, kind: messages.FailureKind) -> None:
        await self._send(messages.Failure(call.id, describe(error), kind))

    # ── Plays ───────────────────────────────────────────────────────────────────────────────────

    async def _act(
        self,
        steps: Iterable[play.BootStep | play.CallStep | play.PingStep],
        *,
        turn: Turn | None = None,
        ping: messages.Ping | None = None,
    ) -> None:
        """Carry out a play. `turn` or `ping` is what it answers, if it answers anything."""
        process = self._process
        for step in steps:
            await process.gate()
            match step:
                case play.Wait(seconds, deaf):
                    await self._user_code(turn, deaf, process.pause, seconds)
                case play.Hang(deaf):
                    await self._user_code(turn, deaf, trio.sleep_forever)
                case play.Die(status):
                    await process.exit(status)
                case play.Freeze():
                    process.freeze()
                case play.Emit(data):
                    await process.write(process.to_parent, data)
                case play.Send(message):
                    await self._send(message)
                case play.HangUp():
                    process.hang_up()
                case play.Say(text):
                    await process.write(process.errors, text.encode("utf-8", "surrogateescape"))
                case play.Fork(escapes):
                    process.fork(escapes=escapes)
                case play.Hello():
                    await self._send(self._hello())
                    self._tell()
                case play.FailBoot(stage, error):
                    await self._send(messages.BootFailed(stage, describe(error)))
                case play.Pong(healthy, reason) if ping is not None:
                    await self._send(messages.Pong(ping.id, healthy, reason))
                case play.Examine(judge) if ping is not None:
                    await self._send(messages.Pong(ping.id, *judge(self.memory)))
                case play.Do(action):
                    await self._do(action, booting=turn is None and ping is None)
                case play.Begin() if turn is not None:
                    self._begin(turn)
                case play.Progress(done, total, note) if turn is not None:
                    process.report, process.beat = Report(done, total, note), trio.current_time()
                case play.Reply(compute, shift, share, skip) if turn is not None:
                    frame = self._answer(turn, compute, shift)
                    process.enter("answering")
                    await process.write(process.to_parent, frame[_cut(frame, skip) : _cut(frame, share)])
                case play.Finish() if turn is not None:
                    self._finish(turn)
                case _:
                    raise TypeError(f"{step} does not belong in this play")

    async def _do(self, action: Callable[[dict[str, object], Mapping[str, object]], object], *, booting: bool) -> None:
        try:
            action(self.memory, {} if self.boot is None else self.boot.settings)
        except Exception as error:
            if booting:
                await self._send(messages.BootFailed("setup", describe(error)))
            await self._process.exit(1)

    async def _user_code(
        self, turn: Turn | None, deaf: bool, async_fn: Callable[..., Awaitable[object]], *args: object
    ) -> None:
        """Let time pass. In user code, and nowhere else, an interrupt ends that."""
        if turn is None or turn.execution is None or turn.outcome is not None or deaf:
            await async_fn(*args)
            return
        with trio.CancelScope() as scope:
            self._process.in_user_code = scope
            try:
                await async_fn(*args)
            finally:
                self._process.in_user_code = None
        if scope.cancelled_caught:
            await self._process.gate()
            raise Interrupted

    def _begin(self, turn: Turn) -> None:
        if self._process.to_stop == turn.call.id:
            raise Interrupted  # its time was over before it came here
        self._process.started = turn.call.id
        self._process.starts += 1
        self._process.report = None
        self._process.enter("running")
        slot, generation = self._order.slot, self._order.generation
        turn.execution = self._witness.begin(slot, generation, turn.call, trio.current_time())
        self._tell()

    def _finish(self, turn: Turn) -> None:
        self._process.finished = turn.call.id
        self._process.enter("idle")
        if turn.execution is not None:
            self._witness.finish(turn.execution, trio.current_time())
        self._tell()

    def _hello(self) -> messages.Hello:
        infos = [
            messages.CommandInfo(
                name=name,
                idempotent=command.idempotent,
                timeout=command.timeout,
                journal=command.journal,
                forgets=command.forgets,
                key_at=command.key_at,
                on_timeout=command.on_timeout,
            )
            for name, command in self._commands.items()
        ]
        return messages.Hello(self._process.pid, messages.VERSION, infos)

    def _answer(self, turn: Turn, compute: play.Compute, shift: int) -> bytes:
        """The frame that answers a call. User code runs once, however often the answer is sent."""
        call = turn.call
        if turn.outcome is None:
            turn.outcome = self._outcome(call, compute)
        value, failure = turn.outcome
        target = call.id + shift
        try:
            if failure is not None:
                return self._pack(messages.Failure(target, *failure))
            return self._pack(messages.Result(target, value))
        except FrameTooLarge as error:
            return self._pack(messages.Failure(target, describe(error), messages.FailureKind.TOO_LARGE))
        except SerializationError as error:
            return self._pack(messages.Failure(target, describe(error), messages.FailureKind.UNSERIALIZABLE))

    def _outcome(self, call: messages.Call, compute: play.Compute) -> Outcome:
        try:
            value = compute(call, self.memory)
        except (MemoryError, WorkerUnfit) as error:
            return None, (describe(error), messages.FailureKind.UNFIT)
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            return None, (describe(error), messages.FailureKind.RAISED)
        return (None if call.quiet else value), None

    # ── Messages ────────────────────────────────────────────────────────────────────────────────

    def _pack(self, message: messages.ToParent) -> bytes:
        return frames.pack(messages.encode(message), self._limit)

    async def _send(self, message: messages.ToParent) -> None:
        await self._process.write(self._process.to_parent, self._pack(message))

    async def _receive(self) -> messages.ToWorker | None:
        """The next message, or None at the end of file. Raises ProtocolError."""
        await self._process.gate()
        while not self._inbox:
            if self._decoder.pending:
                self._decoder.feed(b"")  # which raises, if what is pending can be no frame
            data = await self._process.read()
            if not data:
                return None
            self._inbox.extend(self._decoder.feed(data))
        body = self._inbox.popleft()
        if len(body) > self._limit:
            raise FrameTooLarge(f"a frame of {len(body)} bytes, where {self._limit} are allowed")
        return messages.decode_to_worker(body)


def _cut(frame: bytes, share: float) -> int:
    """How many bytes this share of a frame is; only the whole of it has the last one."""
    return len(frame) if share >= 1 else min(int(len(frame) * share), len(frame) - 1)
