"""The application's side of one worker, without a pool: a test says exactly what is sent, and when."""

from __future__ import annotations

import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import trio

from remuda.bridge import forkserver, messages
from remuda.bridge.forkserver import ForkedWorker, Template
from remuda.bridge.frames import HANDSHAKE_LIMIT, Decoder, pack
from remuda.bridge.process import LocalWorker
from remuda.bridge.seam import Launcher, StartOrder, WorkerProcess
from remuda.bridge.spawn import SpawnLauncher

__all__ = [
    "HANG",
    "HERE",
    "WILD",
    "ForkingLauncher",
    "Talk",
    "boot_message",
    "default",
    "descriptors",
    "local",
    "started",
    "state_of",
    "stop",
    "talking",
    "template",
]

HANG = 60.0
"""Seconds after which a test is given up: a guard, not a threshold."""

HERE = Path(__file__).parent
WILD = HERE / "wild"


def boot_message(adapter: str | None = "unruly:Unruly", **fields: Any) -> messages.Boot:
    """What the pool would send, with the folder of the tests' adapters in the path."""
    return messages.Boot(
        **{
            "adapter": adapter,
            "settings": {},
            "sys_path": [str(WILD), *sys.path],
            "cwd": str(WILD),
            "main_path": None,
            "main_module": None,
            "codec": "pickle" if adapter is None else "msgpack",
            "max_frame_bytes": HANDSHAKE_LIMIT,
            **fields,
        }
    )


class Talk:
    """Messages to and from a worker."""

    def __init__(self, worker: WorkerProcess) -> None:
        self.worker = worker
        self._decoder = Decoder(HANDSHAKE_LIMIT)
        self._arrived: deque[messages.ToParent] = deque()
        self._number = 0

    async def send_bytes(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            taken = self.worker.write(rest)
            rest = rest[taken:]
            if not taken:
                await self.worker.writable()

    async def send(self, message: messages.ToWorker) -> None:
        await self.send_bytes(pack(messages.encode(message), HANDSHAKE_LIMIT))

    async def receive(self) -> messages.ToParent | None:
        """The next message; None at the end of file, with nothing half left behind it."""
        while not self._arrived:
            data = self.worker.read()
            if data is None:
                await self.worker.readable()
            elif not data:
                assert not self._decoder.pending, "the worker ended within a message"
                return None
            else:
                self._arrived.extend(map(messages.decode_to_parent, self._decoder.feed(data)))
        return self._arrived.popleft()

    async def boot(self, adapter: str | None = "unruly:Unruly", **fields: Any) -> messages.ToParent | None:
        await self.send(boot_message(adapter, **fields))
        return await self.receive()

    async def call(self, command: str, *args: Any, quiet: bool = False, **named: Any) -> messages.ToParent | None:
        """Send a call and wait for its answer."""
        await self.send(self.numbered(command, named or list(args), quiet=quiet))
        return await self.receive()

    async def value(self, command: str, *args: Any, **named: Any) -> Any:
        answer = await self.call(command, *args, **named)
        assert isinstance(answer, messages.Result), answer
        return answer.value

    async def failure(self, command: str, *args: Any, **named: Any) -> messages.Failure:
        answer = await self.call(command, *args, **named)
        assert isinstance(answer, messages.Failure), answer
        return answer

    def numbered(self, command: str, args: Any, *, quiet: bool = False) -> messages.Call:
        self._number += 1
        return messages.Call(self._number, command, args, quiet)

    @property
    def marks(self) -> tuple[int, int]:
        """The evidence: the last call that was begun, and the last that was answered."""
        evidence = self.worker.evidence()
        return evidence.started, evidence.finished

    async def words(self) -> list[str]:
        """All that it writes to stderr, up to its end."""
        lines: list[str] = []
        while (new := self.worker.read_stderr()) is not None:
            lines += new
            if not new:
                await self.worker.stderr_readable()
        return lines

    async def line(self) -> str:
        """The next lines that it writes to stderr, as soon as there is one."""
        while True:
            new = self.worker.read_stderr()
            assert new is not None, "the end of its stderr"
            if new:
                return "\n".join(new)
            await self.worker.stderr_readable()

    async def end(self) -> int | None:
        """The orderly end: the shutdown message, the end of file, the exit status."""
        await self.send(messages.Shutdown())
        assert await self.receive() is None
        return await self.worker.wait()


class ForkingLauncher:
    """Forks workers from one template, which must not become unfit."""

    def __init__(self, template: Template) -> None:
        self.template = template

    async def start(self, order: StartOrder) -> ForkedWorker:
        return await self.template.fork(order)


@contextmanager
def patient() -> Iterator[None]:
    """Wait for the exit status of a forked worker as long as it takes."""
    before, forkserver._STATUS_PATIENCE = forkserver._STATUS_PATIENCE, HANG
    try:
        yield
    finally:
        forkserver._STATUS_PATIENCE = before


@asynccontextmanager
async def template(
    adapter: str | None = "unruly:Unruly", preload: Sequence[str] = (), *, prepared: bool = True, **fields: Any
) -> AsyncIterator[Template]:
    """A template; gone at the end of the block. However busy the machine is, it has the time to say how workers end."""
    with trio.fail_after(HANG), patient():
        one = await Template.start(SpawnLauncher(), StartOrder(pool="tests", slot=-1, generation=1))
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one.tend)
                if prepared:
                    await one.prepare(boot_message(adapter, **fields), list(preload))
                yield one
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                one.kill()
                await one.wait()
                one.close()


@asynccontextmanager
async def forking() -> AsyncIterator[Launcher]:
    """A launcher with a template of its own."""
    async with template() as one:
        yield ForkingLauncher(one)


class _Default:
    """How workers are started if nothing else is said; the fixture `start_method` sets it."""

    method = "spawn"


default = _Default()


def _launching() -> AbstractAsyncContextManager[Launcher]:
    return forking() if default.method == "forkserver" else nullcontext(SpawnLauncher())


@asynccontextmanager
async def started(launcher: Launcher | None = None, **env: str) -> AsyncIterator[Talk]:
    """A worker that has been told nothing yet; gone at the end of the block."""
    with trio.fail_after(HANG):
        async with _launching() if launcher is None else nullcontext(launcher) as starts:
            worker = await starts.start(StartOrder(pool="tests", slot=1, generation=1, env=env))
            try:
                yield Talk(worker)
            finally:
                with trio.CancelScope(shield=True):
                    worker.signal(signal.SIGKILL)
                    await worker.wait()
                    worker.close()


@asynccontextmanager
async def talking(
    adapter: str | None = "unruly:Unruly", *, launcher: Launcher | None = None, **fields: Any
) -> AsyncIterator[Talk]:
    """A worker that has said hello."""
    async with started(launcher) as talk:
        hello = await talk.boot(adapter, **fields)
        assert isinstance(hello, messages.Hello), hello
        yield talk


def local(talk: Talk) -> LocalWorker:
    """The worker, which is a process of this machine."""
    assert isinstance(talk.worker, LocalWorker)
    return talk.worker


def state_of(pid: int) -> str:
    """What the kernel says that a process is doing: a letter."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def stop(pid: int) -> None:
    """Stop a process, and make sure that it is: it goes on until the signal has reached it."""
    os.kill(pid, signal.SIGSTOP)
    while state_of(pid) != "T":
        await trio.lowlevel.checkpoint()


def descriptors() -> list[str]:
    """The descriptors of this process, and what each of them is."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
        except FileNotFoundError:
            pass  # that of the listing itself
    return sorted(found)
