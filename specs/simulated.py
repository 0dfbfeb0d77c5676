"""Worker processes that do not exist: the seam of the bridge, played in virtual time.

The real runtime cannot tell a `SimWorker` from a process. It has a channel that fills up, tears
frames and ends; it decodes what it is sent and runs it, one message at a time; it can be stopped,
thawed, killed, can ignore a signal, die with a reply unread, or leave a child behind. Its evidence
page and its stderr outlive it. But all of it is trio tasks on trio's clock: on a `MockClock` an hour
of hangs and restarts takes milliseconds, and nothing happens that was not scripted.

    async with SimLauncher.open(Behaviour(calls={2: (Begin(), Die())})) as launcher:
        async with open_pool(launcher=launcher) as pool: ...
    assert launcher.witness.leftovers() == []

Three layers stand behind it, each of which can be read alone: the process as a kernel sees it
(`process`), the program that runs in it (`program`), and here the parent's handle. They keep to what
holds for a real process:

* **What a worker wrote, remains.** Bytes in the channel, lines on stderr and the evidence page can
  be read after its death, until `close`.
* **Nothing else is shared.** The worker knows only the bytes it was sent; the parent only the bytes
  it gets, the evidence, and the exit status once it has waited for it.
* **Closing the parent's ends kills it,** as the lifeline of a real worker does.

What a worker does is a `Behaviour`, and a test may interfere with a live one at any time: `crash`,
`freeze`, `thaw`, `emit`, `say`, `hang_up`. What the workers have seen is told to the `Witness`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from signal import SIGKILL
from typing import TypeAlias

import trio

from remuda.bridge import messages
from remuda.bridge.last_words import LastWords
from remuda.bridge.seam import Activity, Evidence, StartOrder, Usage
from remuda.specs.behaviour import Behaviour
from remuda.specs.pipe import Pipe
from remuda.specs.process import Process
from remuda.specs.program import Program
from remuda.specs.witness import Witness, by_id

__all__ = ["Casting", "SimLauncher", "SimWorker"]

Casting: TypeAlias = Behaviour | Callable[[StartOrder], Behaviour]
"""Who plays which worker: one behaviour for all, or a function of the start order, as a `Script`."""

FIRST_PID = 1001
READ_BYTES = 65536


class SimLauncher:
    """Starts simulated workers; an implementation of `Launcher`.

    Args:
        nursery: where the workers live. They end with it.
        behaviour: what the workers do.
        key: how the witness tells calls apart; by their ids unless told otherwise.

    Attributes:
        behaviour: as given; a test may change it, and later starts follow it.
        witness: what the workers have seen.
        nursery: as given.
        workers: the workers that are not yet buried: alive, not waited for, or not closed.
    """

    local = False

    def __init__(
        self,
        nursery: trio.Nursery,
        behaviour: Casting | None = None,
        *,
        key: Callable[[messages.Call], Hashable] = by_id,
    ) -> None:
        self.behaviour: Casting = Behaviour() if behaviour is None else behaviour
        self.witness = Witness(key)
        self.workers: list[SimWorker] = []
        self.nursery = nursery
        self._news = trio.lowlevel.ParkingLot()
        self._closed = False

    @classmethod
    @asynccontextmanager
    async def open(
        cls, behaviour: Casting | None = None, *, key: Callable[[messages.Call], Hashable] = by_id
    ) -> AsyncGenerator[SimLauncher]:
        """A launcher for the length of the block. An exception of the body arrives unwrapped."""
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            launcher = cls(nursery, behaviour, key=key)
            try:
                yield launcher
            except Exception as error:
                failure = error
            finally:
                launcher.close()
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def start(self, order: StartOrder) -> SimWorker:
        """Start a worker; takes its `launch_seconds`, raises OSError with its `launch_error`.

        Cancelled, it leaves nothing behind.
        """
        behaviour = self.cast(order)
        await trio.sleep(behaviour.launch_seconds)
        if behaviour.launch_error is not None:
            raise OSError(behaviour.launch_error, os.strerror(behaviour.launch_error))
        # From here to the return there is no checkpoint: who is cancelled gets no worker, and there
        # is none.
        return self.launch(order, behaviour)

    def cast(self, order: StartOrder) -> Behaviour:
        """Who plays the next worker."""
        return self.behaviour if isinstance(self.behaviour, Behaviour) else self.behaviour(order)

    def launch(
        self, order: StartOrder, behaviour: Behaviour, collect: Callable[[], Awaitable[bool]] | None = None
    ) -> SimWorker:
        """Start a worker, at this moment.

        Args:
            order: for whom.
            behaviour: what it does.
            collect: waits for whoever knows how it ended, and says whether they told; None: we do.
        """
        if self._closed:
            raise trio.ClosedResourceError("this launcher is closed")
        pid = FIRST_PID + self.witness.launched
        worker = SimWorker(self, self.nursery, order, behaviour, pid, collect)
        self.witness.launched += 1
        self.workers.append(worker)
        self.tell()
        return worker

    def worker(self, slot: int) -> SimWorker:
        """The live worker in this slot; raises LookupError if there is none."""
        for worker in self.workers:
            if worker.order.slot == slot and worker.alive:
                return worker
        raise LookupError(f"no live worker in slot {slot}")

    @property
    def alive(self) -> list[SimWorker]:
        """The workers that have not ended, in the order they were started."""
        return [worker for worker in self.workers if worker.alive]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition()` holds.

        It is asked whenever a worker is launched, says hello, begins or finishes a call, ends, is
        waited for or closed.
        """
        await trio.lowlevel.checkpoint()
        while not condition():
            await self._news.park()

    def close(self) -> None:
        """Kill every worker that is left, and start no more. Idempotent."""
        self._closed = True
        for worker in list(self.workers):
            worker.crash()

    def tell(self) -> None:
        """Wake those who wait `until` something; forget the workers that are buried."""
        self.workers = [worker for worker in self.workers if not worker.buried]
        self._news.unpark_all()


class SimWorker:
    """The parent's handle on one simulated process; an implementation of `WorkerProcess`.

    The first half is the seam, which the runtime uses. The second is for tests: what fate does to a
    process, and what can be seen of it from outside.

    Attributes:
        pid: made up, and never used twice by one launcher.
        order: what it was started for.
        behaviour: what it does.
    """

    pid: int | None

    def __init__(
        self,
        launcher: SimLauncher,
        nursery: trio.Nursery,
        order: StartOrder,
        behaviour: Behaviour,
        pid: int,
        collect: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        self.pid = pid
        self.order = order
        self.behaviour = behaviour
        self._launcher = launcher
        self._collect = collect
        self._status_known = behaviour.status_known
        self._process = Process(pid, behaviour, nursery, self._bury_the_dead)
        self._program = Program(self._process, behaviour, order, launcher.witness, launcher.tell)
        self._inbound = self._process.to_parent
        self._outbound = self._process.to_worker
        self._errors = self._process.errors
        self._words = LastWords()
        self._waiting_for: set[Pipe] = set()
        self._stack = ""
        self._reaped = False
        self._closed = False
        nursery.start_soon(self._program.run, name=f"simulated worker {order.slot}.{order.generation}")

    def __repr__(self) -> str:
        condition = "alive" if self.alive else "reaped" if self._reaped else "dead"
        return f"<SimWorker {self.order.slot}.{self.order.generation} pid {self.pid} {condition}>"

    # ── The seam ────────────────────────────────────────────────────────────────────────────────

    def read(self) -> bytes | None:
        """What has arrived from the worker; b"" at the end of file, None when nothing is there."""
        self._check_open()
        return self._inbound.read(READ_BYTES)

    def is_quiet(self) -> bool:
        """Whether `read` would have nothing to bring, not even the end of file."""
        self._check_open()
        return not self._inbound.readable

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Send as much as fits, and say how much; BrokenPipeError when nobody will ever read it."""
        self._check_open()
        return self._outbound.write(data)

    async def readable(self) -> None:
        """Wait until `read` would bring something, or for `wake`."""
        await self._wait_on(self._inbound, self._inbound.arrived, lambda: self._inbound.readable)

    async def writable(self) -> None:
        """Wait until `write` would take something, or for `wake`."""
        await self._wait_on(self._outbound, self._outbound.drained, lambda: self._outbound.writable)

    def wake(self) -> None:
        """Let whoever waits in `readable` or `writable` return at once."""
        self._inbound.arrived.unpark_all()
        self._outbound.drained.unpark_all()

    def signal(self, signum: int) -> None:
        """Send a signal to the process group; nothing happens once the process was waited for."""
        if not self._reaped:
            self._process.signal_group(signum)

    async def ended(self) -> bool:
        """Wait for the end of the process, and kill what is left of its group."""
        await self._process.ended.wait()
        self._process.kill_children()
        return True

    async def wait(self) -> int | None:
        """Wait for the end of the process, kill what is left of its group, and reap it."""
        await self._process.ended.wait()
        if self._collect is not None and not self._reaped:
            self._process.kill_children()
            told = await self._collect()
            self._status_known = self._status_known and told
        if not self._reaped:
            self._process.kill_children()
            self._reaped = True
            self._launcher.witness.reaped += 1
            self._launcher.tell()
        return self._process.status if self._status_known else None

    async def kill_escaped(self, after: float = 0.0) -> None:
        """Nothing leaves a simulated group that could be found."""

    def evidence(self) -> Evidence:
        """What the worker has recorded on its page; readable after its death."""
        process = self._process
        return Evidence(started=process.started, finished=process.finished, starts=process.starts)

    def usage(self) -> Usage:
        """Nothing is known of what is played; but an ended process has no memory."""
        return Usage() if self.alive else Usage(rss=0)

    def activity(self) -> Activity:
        """What it is doing, by what it has recorded."""
        process = self._process
        silent = None if process.beat is None else trio.current_time() - process.beat
        return Activity(process.phase, silent, process.started, process.report)

    def ask_for_stack(self) -> None:
        """Have it write down what it is doing: at once, or, when it is stopped, not at all."""
        doing = self._process.phase if self._process.moves and not self._reaped else None
        self._stack = "" if doing is None else f'Current thread (most recent call first):\n  File "play" in {doing}\n'

    def stack(self) -> tuple[str, bool]:
        """What it has written of that, and whether that is all."""
        return ("", False) if self._closed else (self._stack, bool(self._stack))

    def interrupt(self, call: int) -> None:
        """Raise `Interrupted` in it, if user code of this very call runs there."""
        if not self._reaped:
            self._process.interrupt(call)

    async def stderr_readable(self) -> None:
        """Wait until the worker has written something to stderr, or has closed it."""
        await self._wait_on(self._errors, self._errors.arrived, lambda: self._errors.readable)

    def read_stderr(self) -> list[str] | None:
        """The lines that were completed since the last time; None at the end of file."""
        if not self._closed:
            self._drain_stderr()
        return self._words.take()

    def stderr_tail(self) -> tuple[str, ...]:
        """The last lines the worker wrote, an unfinished one included."""
        if not self._closed:
            self._drain_stderr()
        return self._words.tail()

    def close(self) -> None:
        """Close all descriptors. A worker that still lives does not survive it."""
        if self._closed:
            return
        self._closed = True
        self._inbound.drop_reader()
        self._errors.drop_reader()
        self._outbound.drop_writer()
        self.wake()
        self._errors.arrived.unpark_all()
        self._launcher.witness.closed += 1
        if not self._reaped:
            self._process.signal_group(SIGKILL)
        self._launcher.tell()

    async def _wait_on(self, pipe: Pipe, lot: trio.lowlevel.ParkingLot, ready: Callable[[], bool]) -> None:
        self._check_open()
        if pipe in self._waiting_for:
            raise trio.BusyResourceError("another task waits for this already")
        self._waiting_for.add(pipe)
        try:
            if ready():
                await trio.lowlevel.checkpoint()
            else:
                await lot.park()
        finally:
            self._waiting_for.discard(pipe)
        self._check_open()

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this worker's descriptors have been closed")

    def _drain_stderr(self) -> None:
        while data := self._errors.read(READ_BYTES):
            self._words.feed(data)
        if data == b"":
            self._words.end()

    def _bury_the_dead(self) -> None:
        self._launcher.witness.died += 1
        self._launcher.tell()

    # ── What a test does to it, and sees of it ──────────────────────────────────────────────────

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.alive

    @property
    def reaped(self) -> bool:
        """Whether somebody has waited for it after its end."""
        return self._reaped

    @property
    def is_closed(self) -> bool:
        """Whether the application has closed its descriptors."""
        return self._closed

    @property
    def buried(self) -> bool:
        """Whether it has ended, was waited for, and its descriptors are closed."""
        return self._reaped and self._closed

    @property
    def boot(self) -> messages.Boot | None:
        """The boot message, once the worker has received it."""
        return self._program.boot

    @property
    def memory(self) -> dict[str, object]:
        """The state that its commands keep in the process."""
        return self._program.memory

    def crash(self, status: int = -SIGKILL) -> None:
        """End the process now, whatever its behaviour says; nothing if it has ended already."""
        self._process.end(status)

    def freeze(self) -> None:
        """Stop it, as SIGSTOP does. Its timers run on, but it does not move."""
        self._process.freeze()

    def thaw(self) -> None:
        """Let it go on, as SIGCONT does. Signals that came meanwhile arrive now."""
        self._process.thaw()

    def emit(self, data: bytes) -> int:
        """Put raw bytes on the channel, as a stray write in the process would.

        Returns:
            How many bytes fitted; 0 from a process that is dead or has no channel any more.
        """
        if not self._process.has_channel or self._closed:
            return 0
        return self._inbound.write(data)

    def say(self, text: str) -> None:
        """Write to stderr what fits there; a line needs its own newline."""
        if self.alive and not self._closed:
            self._errors.write(text.encode("utf-8", "surrogateescape"))

    def hang_up(self) -> None:
        """Close the worker's own ends of the channel, though it lives on."""
        self._process.hang_up()
