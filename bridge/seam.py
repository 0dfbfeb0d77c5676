"""The seam: what the runtime wants of a worker, whoever provides it.

The runtime knows workers only through these two protocols. Processes of this machine are one
implementation (`remuda.bridge.spawn`), simulated workers another (`remuda.specs.simulated`); one
suite of tests runs over both, so that the simulation cannot drift from what it stands for.

The rules that an implementation keeps:

* `start` is all or nothing: it returns a worker, or there is none, also when it is cancelled. That
  it may ignore, for as long as the order's patience.
* Reading and writing never wait; `readable` and `writable` do nothing else. At most one task waits
  in each.
* What a worker wrote before it ended can be read afterwards, until `close`; so can its evidence.
* `wait` returns when the process has ended *and* what was left of its process group has been
  killed *and* it has been reaped, in that order: as long as it is not reaped nobody else can get
  its number, so the signal cannot hit a stranger. `ended` returns before the last of these, which
  may depend on somebody else.
* `close` never leaves a live process behind.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from remuda.bridge.messages import Boot, RemoteFailure
from remuda.bridge.page import Activity, Evidence

__all__ = [
    "Activity",
    "Evidence",
    "Launcher",
    "StartOrder",
    "TemplateFailed",
    "TemplateLost",
    "TemplateProcess",
    "TemplateUnfit",
    "Usage",
    "WorkerProcess",
]


class StartOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What a launcher has to know. What the worker shall become goes over the channel."""

    pool: str
    slot: int
    generation: int
    env: dict[str, str] = {}
    """Added to the environment."""
    patience: float = 1.0
    """Seconds that a start may go on after it was cancelled."""


class Usage(msgspec.Struct, frozen=True):
    """What a worker uses of the machine. Each is None where nobody can say.

    What its own children use counts in once it has waited for them, and it has ended.
    """

    rss: int | None = None
    """Bytes of memory that it has at this moment; 0 from its end on, also before it is reaped."""
    cpu: float | None = None
    """Seconds of CPU time since its start, in the kernel's as well as in its own code."""
    max_rss: int | None = None
    """The most memory that it ever had, in bytes; None as long as it is not reaped."""


class WorkerProcess(Protocol):
    """The application's end of one worker."""

    @property
    def pid(self) -> int | None:
        """Its process id, if it has one."""

    def read(self) -> bytes | None:
        """What has arrived; b"" at the end of file, None when there is nothing now."""

    def is_quiet(self) -> bool:
        """Whether `read` would have nothing to bring, not even the end of file."""
        ...

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Send as much as fits now, and say how much.

        Raises:
            BrokenPipeError: nobody reads at the other end any more.
        """
        ...

    async def readable(self) -> None:
        """Wait until there is something to read, the end of file included. `wake` ends it early."""

    async def writable(self) -> None:
        """Wait until there is room to write, or nobody left to read. `wake` ends it early."""

    def wake(self) -> None:
        """Let whoever waits in `readable` or `writable` return at once."""

    def signal(self, signum: int) -> None:
        """Send a signal to the whole process group; nothing, once it has been reaped."""

    async def ended(self) -> bool:
        """Wait for its end, and kill the rest of its group. May be called again.

        Returns:
            Whether that could be killed now, so that nothing new will come from there; else `wait` does it.
        """
        ...

    async def wait(self) -> int | None:
        """Wait until it has `ended`, and reap it. May be called again.

        Returns:
            The exit status as `subprocess` gives it (negative: the signal), or None if nobody knows.
        """

    async def kill_escaped(self, after: float = 0.0) -> None:
        """After `wait`: kill what it had started and what has left its group, as far as it can be found.

        Args:
            after: seconds by which to do that later. It is done also if nobody waits for it any more.
        """

    def evidence(self) -> Evidence:
        """What it has recorded so far."""
        ...

    def usage(self) -> Usage:
        """What it uses now; once it has ended, what it has used in its life. Never raises.

        Any of it may be None, all of it for a worker that is no process of this machine, or that
        somebody else has reaped.
        """
        ...

    def activity(self) -> Activity:
        """What it is doing, by what it has recorded."""
        ...

    def ask_for_stack(self) -> None:
        """Have it write down what all its threads are doing; nothing, once it has been reaped."""

    def stack(self) -> tuple[str, bool]:
        """What it has written of that since it was last asked, at most 64 KiB; and whether that is all.

        It never waits. After `close` it is ("", False).
        """
        ...

    def interrupt(self, call: int) -> None:
        """Raise `remuda.Interrupted` in its main thread, if user code of this very call runs there.

        If the call has yet to begin, it will not; in all other cases nothing happens. Only the process
        itself is disturbed, not its group. It is raised once; but a signal can come too early to end a system
        call, so whoever wants to be sure sends it again.
        """

    async def stderr_readable(self) -> None:
        """Wait until it has written something to stderr, or has closed it."""

    def read_stderr(self) -> list[str] | None:
        """The lines that were completed since the last time; None at the end of file."""

    def stderr_tail(self) -> tuple[str, ...]:
        """The last lines it wrote, at most 200 and 64 KiB, an unfinished one included."""
        ...

    def close(self) -> None:
        """Close all descriptors. A worker that still lives does not survive it. May be called again."""


class Launcher(Protocol):
    """Starts workers."""

    @property
    def local(self) -> bool:
        """Whether they are processes of this machine, and get folders on its disk for their temporary files."""
        ...

    async def start(self, order: StartOrder) -> WorkerProcess:
        """Start one.

        Raises:
            OSError: the operating system refuses.
        """
        ...


class TemplateUnfit(Exception):
    """Forking this template would be unsafe; its text says why."""


class TemplateFailed(Exception):
    """What a template was to import raised.

    Attributes:
        error: what.
    """

    def __init__(self, error: RemoteFailure) -> None:
        super().__init__(f"{error.type_name}: {error.message}")
        self.error = error


class TemplateLost(Exception):
    """The template has ended, or broken the rules of its channel."""


class TemplateProcess(Protocol):
    """The application's end of a process that makes workers by forking itself.

    `tend` has to run for as long as anything else is to return.
    """

    @property
    def pid(self) -> int | None:
        """Its process id, if it has one."""

    async def prepare(self, boot: Boot, preload: list[str]) -> None:
        """Have it import everything.

        Args:
            boot: what its workers will be told.
            preload: modules to import beside the adapter.

        Raises:
            TemplateFailed: an import raised.
            TemplateUnfit: it must not fork.
            TemplateLost: it has ended.
        """

    async def fork(self, order: StartOrder) -> WorkerProcess:
        """Have it make a worker; all or nothing, as `Launcher.start`.

        Raises:
            OSError: the operating system refuses.
            TemplateUnfit: it must not fork any more.
            TemplateLost: it has ended.
        """
        ...

    async def tend(self) -> None:
        """Read what it says; returns when it has no more to say, because it has ended or was closed."""

    async def childless(self) -> None:
        """Wait until none of its workers is left that it has to reap."""

    def kill(self) -> None:
        """Send SIGKILL to it. Its workers go on."""

    async def wait(self) -> int | None:
        """Wait for its end and reap it; returns the exit status, None if nobody knows."""

    async def stderr_readable(self) -> None:
        """Wait until it has written something to stderr, or has closed it."""

    def read_stderr(self) -> list[str] | None:
        """The lines that were completed since the last time; None at the end of file."""

    def stderr_tail(self) -> tuple[str, ...]:
        """The last lines it wrote."""
        ...

    def close(self) -> None:
        """Close all descriptors. A process that still lives does not survive it; its workers do."""
