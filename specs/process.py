"""A simulated process as its kernel sees it: descriptors, signals, children, and an end.

It knows nothing of messages or calls. A program (`remuda.specs.program`) lives in it, as one or
several trio tasks; the parent holds a handle on it (`remuda.specs.simulated`).

The rule that makes it a process: **death is an instant.** After it the program does nothing any
more, not even what it was just about to do. trio would let a task that has already been woken run on
to its next checkpoint; so every step of the program passes `gate` first, which lets nobody through
who is dead, stopped, or being killed.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

import trio

from remuda.bridge.page import Report
from remuda.specs.behaviour import Behaviour
from remuda.specs.pipe import Pipe

__all__ = ["Process"]

# Signals that end nothing when nobody handles them.
HARMLESS = frozenset({0, signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH})


class Process:
    """One process, from its start to its end.

    Args:
        pid: its number.
        behaviour: how it takes signals, and how large its pipes are.
        nursery: where its tasks live.
        on_end: called once, when it has ended.

    Attributes:
        to_worker, to_parent, errors: its channel and its stderr.
        started, finished, starts: what its evidence page says of its calls.
        phase, beat, report: what that says it is doing, and when it said so.
        to_stop: the call that it was told to stop, as the page says; 0 for none.
        in_user_code: what an interrupt cancels; None while there is no user code to interrupt.
        ended: set when it has ended.
        status: how, as `subprocess` gives it (negative: the signal); None before.
        life: the cancel scope in which the program runs.
        has_channel: whether it still holds its own ends of the channel.
    """

    def __init__(self, pid: int, behaviour: Behaviour, nursery: trio.Nursery, on_end: Callable[[], None]) -> None:
        self.pid = pid
        self.to_worker = Pipe(behaviour.capacity)
        self.to_parent = Pipe(behaviour.capacity)
        self.errors = Pipe(behaviour.capacity)
        self.started = 0
        self.starts = 0
        self.finished = 0
        self.phase = "booting"
        self.beat: float | None = None
        self.report: Report | None = None
        self.to_stop = 0
        self.in_user_code: trio.CancelScope | None = None
        self.ended = trio.Event()
        self.status: int | None = None
        self.life = trio.CancelScope()
        self.has_channel = True
        self._behaviour = behaviour
        self._nursery = nursery
        self._on_end = on_end
        self._frozen = False
        self._dying = False  # SIGKILL has come, and the kernel is not done with it
        self._moving = trio.lowlevel.ParkingLot()
        self._pending: list[int] = []  # signals that came while it was stopped
        self._children = 0  # in the process group; an escaped one is nobody's any more

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.status is None

    # ── From outside ────────────────────────────────────────────────────────────────────────────

    def signal_group(self, signum: int) -> None:
        """What a signal does to the process and to the children in its group."""
        if signum == signal.SIGSTOP:
            self.freeze()
        elif signum == signal.SIGCONT:
            self.thaw()
        elif signum == signal.SIGKILL:
            self.kill_children()
            self._kill()
        elif signum not in HARMLESS:
            self.kill_children()
            self._deliver(signum)

    @property
    def moves(self) -> bool:
        """Whether it lives and is not stopped."""
        return self.alive and not self._frozen and not self._dying

    def interrupt(self, call: int) -> None:
        """Store which call is to stop, and send SIGUSR1, for which there is a handler."""
        self.to_stop = call
        self._deliver(signal.SIGUSR1)

    def _deliver(self, signum: int) -> None:
        if signum in self._behaviour.ignores:
            return
        if self._frozen:
            self._pending.append(signum)
        elif signum == signal.SIGUSR1:
            if self.in_user_code is not None and self.to_stop == self.started:
                self.in_user_code.cancel()
        else:
            self.end(-signum)

    def _kill(self) -> None:
        if self._behaviour.kill_seconds <= 0:
            self.end(-signal.SIGKILL)
        elif self.alive and not self._dying:
            self._dying = True
            self._nursery.start_soon(self._end_slowly)

    async def _end_slowly(self) -> None:
        await trio.sleep(self._behaviour.kill_seconds)
        self.end(-signal.SIGKILL)

    def freeze(self) -> None:
        """Stop it, as SIGSTOP does. Its timers run on, but it does not move."""
        self._frozen = True

    def thaw(self) -> None:
        """Let it go on, as SIGCONT does. Signals that came meanwhile arrive now."""
        self._frozen = False
        self._moving.unpark_all()
        pending, self._pending = self._pending, []
        for signum in pending:
            self._deliver(signum)

    def end(self, status: int) -> None:
        """End it now; nothing happens if it has ended already."""
        if not self.alive:
            return
        self.status = status
        self.life.cancel()
        self.hang_up()
        self.errors.drop_writer()
        self.ended.set()
        self._on_end()

    def kill_children(self) -> None:
        """SIGKILL for what is in its group beside itself."""
        while self._children:
            self._children -= 1
            self.to_worker.drop_reader()
            self.to_parent.drop_writer()
            self.errors.drop_writer()

    # ── From inside ─────────────────────────────────────────────────────────────────────────────

    def enter(self, phase: str) -> None:
        """Note what it is doing from now on."""
        self.phase, self.beat = phase, trio.current_time()

    def hang_up(self) -> None:
        """Close its own ends of the channel."""
        if self.has_channel:
            self.has_channel = False
            self.to_worker.drop_reader()
            self.to_parent.drop_writer()

    def fork(self, *, escapes: bool) -> None:
        """Make a child that holds all its descriptors, inside or outside its group."""
        if self.has_channel:
            self.to_worker.add_holder(writer=False)
            self.to_parent.add_holder(writer=True)
        self.errors.add_holder(writer=True)
        if not escapes:
            self._children += 1

    async def gate(self) -> None:
        """Pass if the process can move; every step of its program begins here."""
        await trio.lowlevel.checkpoint()
        while self._frozen or self._dying:
            await self._moving.park()
        if not self.alive:
            # The scope is cancelled; a task that was woken before that does not know it yet.
            await trio.sleep_forever()

    async def pause(self, seconds: float) -> None:
        """Take virtual time. The timer runs on while the process is stopped."""
        await trio.sleep(seconds)
        await self.gate()

    async def exit(self, status: int) -> None:
        """End the process from within; does not return."""
        self.end(status)
        await trio.sleep_forever()

    async def read(self) -> bytes:
        """The next bytes from the parent; b"" at the end of file."""
        while True:
            if not self.has_channel:
                await trio.sleep_forever()
            data = self.to_worker.read(self._behaviour.chunk)
            if data is not None:
                if self._behaviour.chunk_seconds:
                    await self.pause(self._behaviour.chunk_seconds)
                return data
            await self.to_worker.arrived.park()
            await self.gate()

    async def write(self, pipe: Pipe, data: bytes) -> None:
        """Write all of `data`, waiting for room. The process does not survive a broken pipe."""
        rest = memoryview(data)
        while rest:
            if pipe is self.to_parent and not self.has_channel:
                await self.exit(1)
            try:
                taken = pipe.write(rest[: self._behaviour.chunk])
            except BrokenPipeError:
                await self.exit(1)
                return
            rest = rest[taken:]
            if not taken:
                await pipe.drained.park()
                await self.gate()
            elif self._behaviour.chunk_seconds:
                await self.pause(self._behaviour.chunk_seconds)
