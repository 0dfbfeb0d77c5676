"""The template: a process that has imported everything, and makes workers by forking itself.

A worker that starts as a fresh interpreter imports what it needs, and with DSPy that takes more than a
second and 60 MB. A template does it once per pool. Its children have it all from their first instruction,
in pages of memory that they share with it, and differ from a spawned worker in nothing else: the same
loop, the same messages, a channel, a lifeline and an evidence page of their own.

Forking copies one thread, and every descriptor. So the template is only fit for it if it has one thread,
and nothing open that two processes must not share; it looks before each fork, and refuses with the reason.
The rules:

* It runs no user code but imports: no adapter is made and no `setup` called here.
* What belongs to one worker is closed here before the next is made. Close-on-exec does nothing for a child
  that does not exec, and a worker that held its elder sister's channel would keep her from being missed.
* It reaps its children when it is told to, and not before: until then a child's number is its own, and the
  application can signal its group. (`wait` of the application's handle says when: the end is seen there,
  through a pidfd that is made here, where the number cannot have been reused.)

    application → template                    template → application
    ──────────────────────────────────────    ────────────────────────────────────────────────
    Prepare   import this; once, first        Prepared    ready to fork
                                              Unfit       forking would be unsafe, because
                                              ImportFailed  what was to be imported raised
    Fork      make a worker                   Forked      its process id
      + its five descriptors, in a packet       + its pidfd, in a packet
                                              NotForked   the system refuses, or it has become unfit
    Reap      kill its group, collect it      Reaped      its exit status

Messages travel on pipes, like a worker's; descriptors on a socket beside them, each packet with the number
that the message has.

This module and all it imports use the standard library and msgspec only.
"""

from __future__ import annotations

import errno
import faulthandler
import gc
import os
import select
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias

import msgspec

from remuda.bridge import child, functions, lifeline, messages, remote, usage
from remuda.bridge.adapters import adapter_class
from remuda.bridge.ends import TheirEnds
from remuda.bridge.frames import HANDSHAKE_LIMIT, Decoder, pack
from remuda.bridge.messages import Boot, RemoteFailure
from remuda.statemachines.errors import ProtocolError

__all__ = [
    "DESCRIPTORS",
    "NUMBER_BYTES",
    "Fork",
    "Forked",
    "ImportFailed",
    "NotForked",
    "Prepare",
    "Prepared",
    "Reap",
    "Reaped",
    "Unfit",
    "decode_from_template",
    "decode_to_template",
    "main",
    "unfitness",
]

DESCRIPTORS = 5
"""What a worker is given: the ends of its channel (read, write), lifeline, evidence page, stderr."""

NUMBER_BYTES = 8
"""A packet of descriptors carries the number of the worker that they are for, big-endian."""

_MOMENTS, _MOMENT = 100, 0.005
"""How often, and after how many seconds, it is looked again for threads: `join` returns before the system's
own has gone, and where the system is busy that takes its time. What is refused is refused for good."""


class Prepare(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """What to import."""

    boot: Boot
    """What the workers will be told: the adapter, and where to find things."""
    preload: list[str]
    """Modules beside it."""


class Fork(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Make a worker of the descriptors that come with this number."""

    number: int
    env: dict[str, str]
    """Added to the environment."""


class Reap(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Kill what is left of the worker's group, collect it when it has ended, and say how it did."""

    number: int


class Prepared(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Everything is imported, and it is safe to fork."""


class Unfit(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """It is not safe to fork."""

    reason: str


class ImportFailed(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """An import raised."""

    error: RemoteFailure


class Forked(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """A worker is there; its pidfd is in the packet with this number."""

    number: int
    pid: int


class NotForked(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """There is no worker of this number."""

    number: int
    errno: int
    """The system's reason; 0 if the template has become unfit."""
    reason: str


class Reaped(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """A worker is gone."""

    number: int
    status: int | None
    """As `subprocess` gives it; None if it was collected by somebody else."""
    cpu: float | None = None
    max_rss: int | None = None
    """What it has used in its life, as `Usage` has it."""


ToTemplate: TypeAlias = Prepare | Fork | Reap
FromTemplate: TypeAlias = Prepared | Unfit | ImportFailed | Forked | NotForked | Reaped

_to_template: msgspec.msgpack.Decoder[ToTemplate] = msgspec.msgpack.Decoder(ToTemplate)
_from_template: msgspec.msgpack.Decoder[FromTemplate] = msgspec.msgpack.Decoder(FromTemplate)


def decode_to_template(body: bytes) -> ToTemplate:
    """A message for the template; raises ProtocolError."""
    try:
        return _to_template.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProtocolError(f"a template was sent what it cannot read: {error}") from None


def decode_from_template(body: bytes) -> FromTemplate:
    """A message from the template; raises ProtocolError."""
    try:
        return _from_template.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProtocolError(f"a template sent what cannot be read: {error}") from None


# ── Whether it may fork ─────────────────────────────────────────────────────────────────────────


def unfitness(own: frozenset[int]) -> str | None:
    """Why forking this process would be unsafe, as far as can be seen; None if nothing speaks against it.

    Args:
        own: descriptors that it is known to have.
    """
    tasks = _other_threads()
    if tasks:
        names = sorted(map(_thread_name, tasks))
        return (
            f"it has {len(tasks) + 1} threads, and a fork would copy only one (the others: {', '.join(names)}). "
            "See whether what was imported can start without threads (for BLAS: OPENBLAS_NUM_THREADS=1, "
            "OMP_NUM_THREADS=1 in env), or set start_method='spawn'"
        )
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd > 2 and fd not in own and (what := _must_not_be_shared(fd)):
            return (
                f"what was imported has left {what} open (descriptor {fd}), which two processes must not share. "
                "Open it in setup(), or set start_method='spawn'"
            )
    return None


def _other_threads() -> list[str]:
    """Threads beside this one; one that was joined just now has a moment to be gone."""
    own = str(threading.get_native_id())
    tasks: list[str] = []
    for _ in range(_MOMENTS):
        tasks = [task for task in os.listdir("/proc/self/task") if task != own]
        if not tasks:
            return []
        time.sleep(_MOMENT)
    return tasks


def _thread_name(task: str) -> str:
    try:
        with open(f"/proc/self/task/{task}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:  # it has ended just now
        return "one that has ended"


def _must_not_be_shared(fd: int) -> str | None:
    """What this descriptor is of, if a fork would do harm to it."""
    try:
        target = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:  # the one that the list itself was read by
        return None
    if target.startswith("socket:"):
        return "a socket"
    if target.startswith("anon_inode:") and any(word in target for word in ("eventpoll", "io_uring")):
        return "an event loop"
    try:
        # Only of a file: to read from a device may take for ever.
        if stat.S_ISREG(os.fstat(fd).st_mode) and os.pread(fd, 16, 0) == b"SQLite format 3\x00":
            return f"the SQLite database {target}"
    except OSError:  # it is open for writing only
        pass
    return None


# ── The process ─────────────────────────────────────────────────────────────────────────────────


class _Child(NamedTuple):
    """A worker that was forked here."""

    pid: int
    pidfd: int
    inherited: int
    """What `usage.inherited` said when it was."""


class _End(Exception):
    """The application has closed the channel."""


class _Template:
    """The loop of the template. In a child, `serve` returns what the child was handed."""

    def __init__(self, read_fd: int, write_fd: int, lifeline_fd: int, control_fd: int) -> None:
        self._read_fd, self._write_fd, self._lifeline_fd = read_fd, write_fd, lifeline_fd
        self._control = socket.socket(fileno=control_fd)
        self._own = frozenset((read_fd, write_fd, lifeline_fd, control_fd))
        self._decoder = Decoder(HANDSHAKE_LIMIT)
        self._bodies: list[bytes] = []
        self._children: dict[int, _Child] = {}
        self._to_reap: set[int] = set()

    def serve(self) -> TheirEnds | None:
        """Prepare, then fork and reap as asked; None when the application has closed the channel."""
        try:
            prepare = self._receive()
            if not isinstance(prepare, Prepare):
                raise SystemExit(f"remuda template: {type(prepare).__name__} came where Prepare was expected")
            self._prepare(prepare)
            while True:
                message = self._receive()
                if isinstance(message, Fork):
                    if (handed := self._fork(message)) is not None:
                        return handed
                elif isinstance(message, Reap):
                    self._to_reap.add(message.number)
                    self._reap()
                else:
                    raise SystemExit(f"remuda template: {type(message).__name__} came out of turn")
        except _End:
            return None

    def _prepare(self, prepare: Prepare) -> None:
        boot = prepare.boot
        # LiteLLM would look for prices on the network, in a thread. With this it uses those it brings along.
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        try:
            os.chdir(boot.cwd)
            sys.path[:] = boot.sys_path
            functions.expect_main(boot.main_path, boot.main_module)
            for name in prepare.preload:
                __import__(name)
            if boot.adapter is not None:
                adapter_class(boot.adapter)
        except BaseException as error:
            self._send(ImportFailed(remote.describe(error)))
            return
        reason = unfitness(self._own)
        if reason is not None:
            self._send(Unfit(reason))
            return
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, children would be reaped before they are to be
        # What is there now is there for good: a collection in a child would touch, and so copy, all of it.
        gc.collect()
        gc.freeze()
        self._send(Prepared())

    def _fork(self, order: Fork) -> TheirEnds | None:
        handed = self._take(order.number)
        if handed is None:
            self._send(NotForked(order.number, errno.EMFILE, "the template has no descriptors left"))
            return None
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # what was imported may have put anything there
                stream.flush()
        try:
            reason = unfitness(self._own)
            if reason is not None:
                self._close(handed)
                self._send(NotForked(order.number, 0, reason))
                return None
            # Nobody may signal its group before it has one: the end of this pipe says that it has.
            alone, in_company = os.pipe()
            try:
                pid = os.fork()
                if pid == 0:
                    self._become_a_child(order, handed)
                    return handed
                os.close(in_company)
                in_company = -1
                os.read(alone, 1)
            finally:
                for fd in (alone, in_company):
                    if fd >= 0:
                        os.close(fd)
            try:
                pidfd = os.pidfd_open(pid)
            except OSError:  # no descriptors left
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise
        except OSError as error:
            self._close(handed)
            self._send(NotForked(order.number, error.errno or 0, str(error)))
            return None
        self._close(handed)
        self._children[order.number] = _Child(pid, pidfd, usage.inherited())
        socket.send_fds(self._control, [order.number.to_bytes(NUMBER_BYTES, "big")], [pidfd])
        self._send(Forked(order.number, pid))
        return None

    def _take(self, number: int) -> TheirEnds | None:
        """The descriptors that came for this worker; None if there was no room here for all of them."""
        while True:
            data, fds, _, _ = socket.recv_fds(self._control, NUMBER_BYTES, DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
            if not data:
                raise _End
            found = int.from_bytes(data, "big") == number
            if found and len(fds) == DESCRIPTORS:
                return TheirEnds(*fds)
            self._close(fds)  # or it is of a start that was given up before it was asked for
            if found:
                return None

    @staticmethod
    def _close(fds: Sequence[int]) -> None:
        for fd in fds:
            os.close(fd)

    def _become_a_child(self, order: Fork, handed: TheirEnds) -> None:
        """Let go of all that is the template's.

        It leads a session as well as a group: a stopped process whose group was left alone in the session
        of one that has died would be sent SIGHUP.
        """
        try:
            os.setsid()
            os.dup2(handed.stderr_fd, 1)
            os.dup2(handed.stderr_fd, 2)
            self._control.close()
            pidfds = [child.pidfd for child in self._children.values()]
            self._close((self._read_fd, self._write_fd, self._lifeline_fd, handed.stderr_fd, *pidfds))
            os.environ.update(order.env)
            _reseed()
        except BaseException as error:  # it must not go on as if it were the template
            sys.excepthook(type(error), error, error.__traceback__)
            os._exit(1)

    def _reap(self) -> None:
        """Collect those that are to be collected and have ended."""
        for number in list(self._to_reap):
            if number not in self._children:
                self._to_reap.discard(number)
                self._send(Reaped(number, None))
                continue
            one = self._children[number]
            with suppress(ProcessLookupError):
                os.killpg(one.pid, signal.SIGKILL)
            reaped = Reaped(number, None)
            try:
                done, status, account = os.wait4(one.pid, os.WNOHANG)
            except ChildProcessError:
                pass
            else:
                if not done:
                    continue
                used = usage.at_the_end(account, one.inherited)
                reaped = Reaped(number, os.waitstatus_to_exitcode(status), used.cpu, used.max_rss)
            self._to_reap.discard(number)
            del self._children[number]
            os.close(one.pidfd)
            self._send(reaped)

    def _receive(self) -> ToTemplate:
        while not self._bodies:
            self._wait()
            data = os.read(self._read_fd, 1 << 16)
            if not data:
                raise _End
            self._bodies = self._decoder.feed(data)
        return decode_to_template(self._bodies.pop(0))

    def _wait(self) -> None:
        """Until there is something to read; meanwhile, collect children whose end is near."""
        while self._to_reap:
            poller = select.poll()
            poller.register(self._read_fd, select.POLLIN)
            for number in self._to_reap:
                poller.register(self._children[number].pidfd, select.POLLIN)
            if any(fd == self._read_fd for fd, _ in poller.poll()):
                return
            self._reap()

    def _send(self, message: FromTemplate) -> None:
        frame = memoryview(pack(messages.encode(message), HANDSHAKE_LIMIT))
        while frame:
            frame = frame[os.write(self._write_fd, frame) :]


def _reseed() -> None:
    """What would be the same in every worker and must not be. Python's own `random` sees to itself."""
    for name in ("numpy.random", "torch"):
        module = sys.modules.get(name)
        seed = getattr(module, "seed", None)
        if seed is not None:
            seed()
    tempfile: Any = sys.modules.get("tempfile")
    if tempfile is not None:
        tempfile.tempdir = None  # looked up once; the worker's environment may name another


def main(read_fd: int, write_fd: int, lifeline_fd: int, page_fd: int, control_fd: int) -> int:
    """Be a template on these descriptors; in a child, be a worker. Returns the exit status."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for signum in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(signum, signal.SIG_DFL)
    for fd in (read_fd, write_fd, lifeline_fd, control_fd):
        os.set_inheritable(fd, False)
    os.close(page_fd)  # it has no calls
    lifeline.hold(lifeline_fd)
    faulthandler.enable(2)
    try:
        handed = _Template(read_fd, write_fd, lifeline_fd, control_fd).serve()
    except BrokenPipeError:
        return 1  # the application has closed its end
    if handed is None:
        return 0
    return child.main(*handed[:4])
