"""Workers forked by a template: the application's half.

A `Template` is a process that was started like a worker (`remuda.bridge.spawn`), has imported everything
(`remuda.bridge.template`), and makes workers when asked. The workers are its children, not ours, which
changes two things and no more:

* **Signals.** As long as the template has not reaped a worker, its number is its own. The template reaps
  when it is told to, and it is told when the end was seen here and the group has been killed. But if
  the template itself dies, its children are reaped by somebody who asks nobody. So signals go through the
  pidfd, which is of a process and not of a number: to the whole group, where the kernel can do that
  (Linux 6.9), else to the group's number as long as the pidfd says that its leader lives.
* **The exit status** is what the template says. If it is gone, or does not say, nobody knows it; except
  that an application which is process 1 of its container, or a subreaper, inherits the template's
  children, and has to reap them.

A template's death does no harm to its workers: nothing of theirs goes through it.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import weakref
from contextlib import ExitStack, suppress

import msgspec
import trio

from remuda.bridge import escaped, messages
from remuda.bridge.ends import OurEnds, TheirEnds, above_stderr, make_ends
from remuda.bridge.frames import HANDSHAKE_LIMIT, Decoder, pack
from remuda.bridge.messages import Boot
from remuda.bridge.process import LocalWorker
from remuda.bridge.seam import StartOrder, TemplateFailed, TemplateLost, TemplateUnfit, Usage
from remuda.bridge.spawn import SpawnedWorker, SpawnLauncher
from remuda.bridge.template import (
    NUMBER_BYTES,
    Fork,
    Forked,
    FromTemplate,
    ImportFailed,
    NotForked,
    Prepare,
    Prepared,
    Reap,
    Reaped,
    ToTemplate,
    Unfit,
    decode_from_template,
)
from remuda.statemachines.errors import ProtocolError

__all__ = ["ForkedWorker", "Template", "can_fork"]

_GROUP = 4
"""`PIDFD_SIGNAL_PROCESS_GROUP`, which Python has no name for."""

_STATUS_PATIENCE = 1.0
"""Seconds to wait for the exit status of a worker that has ended: its template may have been stopped."""


def can_fork() -> bool:
    """Whether this system has what templates need."""
    return hasattr(os, "pidfd_open") and hasattr(socket, "send_fds") and os.path.isdir("/proc/self/fd")


class _Reply:
    """What comes for one request."""

    __slots__ = ("arrived", "message", "pidfd")

    def __init__(self) -> None:
        self.arrived = trio.Event()
        self.message: FromTemplate | None = None  # None when it has arrived: there will never be one
        self.pidfd = -1


class Template:
    """One template process; an implementation of `TemplateProcess`. Made by `start`."""

    def __init__(self, process: SpawnedWorker, control: socket.socket) -> None:
        self.pid = process.pid
        self._process = process
        self._control = control
        self._decoder = Decoder(HANDSHAKE_LIMIT)
        self._outbox = memoryview(b"")
        self._sending = trio.Lock()
        self._handing_over = trio.Lock()
        self._number = 0
        self._replies: dict[int, _Reply] = {}
        self._children: set[int] = set()
        self._reaped: dict[int, Reaped] = {}  # those whose reply came when nobody waited for it
        self._childless = trio.Event()
        self._over = False
        self._closed = False
        _templates.add(self)

    @classmethod
    async def start(cls, launcher: SpawnLauncher, order: StartOrder) -> Template:
        """Start the process; raises OSError, and then there is none."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ExitStack() as stack:
            stack.callback(theirs.close)
            control = socket.socket(fileno=above_stderr(ours.detach()))
            stack.callback(control.close)
            process = await launcher.run(order, "template", (above_stderr(theirs.detach()),))
            control.setblocking(False)
            stack.pop_all()
        return cls(process, control)

    def __repr__(self) -> str:
        return f"<Template pid {self.pid}>"

    # ── Its work ────────────────────────────────────────────────────────────────────────────────

    async def prepare(self, boot: Boot, preload: list[str]) -> None:
        """Have it import everything.

        Raises:
            TemplateFailed: an import raised.
            TemplateUnfit: it must not fork.
            TemplateLost: it died of it.
        """
        # It calls no setup, and what is in the settings is none of its business.
        order = Prepare(msgspec.structs.replace(boot, settings={}), preload)
        message = (await self._ask(0, order)).message
        if isinstance(message, ImportFailed):
            raise TemplateFailed(message.error)
        if isinstance(message, Unfit):
            raise TemplateUnfit(message.reason)

    async def fork(self, order: StartOrder) -> ForkedWorker:
        """Have it make a worker.

        Raises:
            OSError: the system refuses.
            TemplateUnfit: it must not fork any more.
            TemplateLost: it has died. There is no worker then.
        """
        (mark, marks), born = escaped.new_mark(), escaped.clock()
        with make_ends() as (ours, theirs, keep):
            self._number += 1
            number = self._number
            await self._hand_over(number, theirs)
            reply = await self._ask(number, Fork(number, {**order.env, escaped.MARK: marks}))
            message = reply.message
            if isinstance(message, NotForked):
                if message.errno:
                    raise OSError(message.errno, message.reason)
                raise TemplateUnfit(message.reason)
            assert isinstance(message, Forked)
            if reply.pidfd < 0:
                self.collect_later(number)
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            self._children.add(number)
            worker = ForkedWorker(self, number, message.pid, reply.pidfd, ours, mark, born)
            keep()
            return worker

    async def collect(self, number: int) -> Reaped:
        """Have it reap a worker that has ended; the status is None if nobody knows it."""
        with trio.move_on_after(_STATUS_PATIENCE), suppress(TemplateLost):
            if number not in self._reaped:
                message = (await self._ask(number, Reap(number))).message
                assert isinstance(message, Reaped)
                self._reaped[number] = message
        if number not in self._reaped and not self._over:
            # If it is us who are late, the answer may be there. It goes first.
            try:
                self._hear()
            except (ProtocolError, OSError):
                self.kill()  # `tend` will see its end
        reaped = self._reaped.get(number, Reaped(number, None))
        self._lose(number)
        return reaped

    def collect_later(self, number: int) -> None:
        """Have it kill and reap a worker; nobody waits for that."""
        self._post(Reap(number))
        self._lose(number)

    async def childless(self) -> None:
        """Wait until none of its workers is left that it has to reap."""
        while self._children and not self._over:
            await self._childless.wait()

    def _lose(self, number: int) -> None:
        self._children.discard(number)
        self._reaped.pop(number, None)
        if not self._children:
            self._childless.set()
            self._childless = trio.Event()

    async def tend(self) -> None:
        """Read what it says, until it ends."""
        try:
            while not self._over:
                if not self._hear():
                    await self._process.readable()
        except (ProtocolError, OSError, trio.ClosedResourceError):
            pass
        finally:
            self._over = True
            self._childless.set()
            replies, self._replies = self._replies, {}
            for reply in replies.values():
                reply.arrived.set()

    def _hear(self) -> bool:
        """Take what it has said since the last time; False if that is nothing."""
        data = self._process.read()
        if data is None:
            return False
        self._over = self._over or not data
        for body in self._decoder.feed(data):
            self._take(decode_from_template(body))
        return True

    @property
    def is_dying(self) -> bool:
        """Whether it has said its last word, and has not ended yet."""
        pidfd = self._process._pidfd
        return self._over and not self._closed and pidfd is not None and not _readable(pidfd)

    def signal(self, signum: int) -> None:
        """Send a signal to it, and to none of its workers."""
        self._process.signal(signum)

    def kill(self) -> None:
        """Send SIGKILL to it. Its workers go on."""
        self.signal(signal.SIGKILL)

    async def wait(self) -> int | None:
        """Wait for its end and reap it."""
        return await self._process.wait()

    def close(self) -> None:
        """Close all descriptors. A process that still lives does not survive it; its workers do."""
        if not self._closed:
            self._closed = self._over = True
            _templates.discard(self)
            trio.lowlevel.notify_closing(self._control)
            self._control.close()
            self._process.close()

    # ── Its words ───────────────────────────────────────────────────────────────────────────────

    async def stderr_readable(self) -> None:
        """Wait until it has written something to stderr, or has closed it."""
        await self._process.stderr_readable()

    def read_stderr(self) -> list[str] | None:
        """The lines that were completed since the last time; None at the end of file."""
        return self._process.read_stderr()

    def stderr_tail(self) -> tuple[str, ...]:
        """The last lines it wrote."""
        return self._process.stderr_tail()

    # ── Messages ────────────────────────────────────────────────────────────────────────────────

    async def _ask(self, number: int, message: ToTemplate) -> _Reply:
        """Send a request and wait for its reply. If that is given up, what comes of it is undone."""
        if self._over:
            raise TemplateLost("the template has ended")
        reply = self._replies[number] = _Reply()
        try:
            await self._send(message)
            await reply.arrived.wait()
        except BaseException:
            if reply.message is not None:  # it came at the last moment
                self._undo(reply)
            raise
        finally:
            if self._replies.get(number) is reply:
                del self._replies[number]
        if reply.message is None:
            raise TemplateLost("the template has ended")
        return reply

    async def _hand_over(self, number: int, fds: TheirEnds) -> None:
        async with self._handing_over:  # one waits for room at a time
            while not self._over:
                try:
                    socket.send_fds(self._control, [number.to_bytes(NUMBER_BYTES, "big")], fds)
                    return
                except BlockingIOError:
                    with suppress(trio.ClosedResourceError):
                        await trio.lowlevel.wait_writable(self._control)
                except OSError as error:
                    if error.errno in (errno.EPIPE, errno.ECONNRESET):
                        break
                    raise
            raise TemplateLost("the template has ended")

    async def _send(self, message: ToTemplate) -> None:
        async with self._sending:
            self._put(message)
            while not self._flush():
                with suppress(trio.ClosedResourceError):  # then there is nothing left to write
                    await self._process.writable()

    def _post(self, message: ToTemplate) -> None:
        """Send without waiting; what does not fit goes out with the next message."""
        if not self._over:
            self._put(message)
            if not self._sending.locked():
                self._flush()

    def _put(self, message: ToTemplate) -> None:
        """Behind what is left to be written."""
        self._outbox = memoryview(bytes(self._outbox) + pack(messages.encode(message), HANDSHAKE_LIMIT))

    def _flush(self) -> bool:
        """Write what can be written; True if nothing is left."""
        try:
            while self._outbox and (taken := self._process.write(self._outbox)):
                self._outbox = self._outbox[taken:]
        except (OSError, trio.ClosedResourceError):
            self._outbox = memoryview(b"")  # its end is near, and `tend` will see it
        return not self._outbox

    def _take(self, message: FromTemplate) -> None:
        number = 0 if isinstance(message, Prepared | Unfit | ImportFailed) else message.number
        reply = self._replies.get(number)
        arrived = reply if reply is not None else _Reply()
        arrived.message = message
        if isinstance(message, Forked):
            arrived.pidfd = self._receive_pidfd(number)
        if reply is None:
            self._undo(arrived)
        else:
            del self._replies[number]
            reply.arrived.set()

    def _receive_pidfd(self, number: int) -> int:
        """What is in the packet that was sent before the message; -1 if there was no room here for it."""
        data, fds, flags, _ = socket.recv_fds(self._control, NUMBER_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
        if int.from_bytes(data, "big") == number and not fds and flags & socket.MSG_CTRUNC:
            return -1
        if int.from_bytes(data, "big") != number or len(fds) != 1:
            for fd in fds:
                os.close(fd)
            raise ProtocolError("a template sent a packet out of turn")
        return above_stderr(fds[0])

    def _undo(self, reply: _Reply) -> None:
        """Nobody waits for this any more: a worker that nobody has must not be."""
        if isinstance(reply.message, Forked):
            if reply.pidfd >= 0:
                os.close(reply.pidfd)
            self.collect_later(reply.message.number)
        elif isinstance(reply.message, Reaped) and reply.message.number in self._children:
            self._reaped[reply.message.number] = reply.message  # who gave up may ask again

    def forget(self) -> None:
        """In a process that was forked from the application: let go of what is not its own."""
        self._closed = self._over = True
        self._control.close()


class ForkedWorker(LocalWorker):
    """A child of a template."""

    def __init__(
        self, template: Template, number: int, pid: int, pidfd: int, ends: OurEnds, mark: str, born: int
    ) -> None:
        super().__init__(pid, pidfd, ends, mark, born)
        self._template = template
        self._number = number

    def signal(self, signum: int) -> None:
        """Send a signal to the whole process group; nothing, once it has been reaped."""
        if self._reaped:
            return
        assert self._pidfd is not None
        try:
            signal.pidfd_send_signal(self._pidfd, signum, None, _GROUP)
        except ProcessLookupError:
            pass  # all of it has ended
        except OSError:  # an older kernel, which knows no groups here
            self._reaches_group = False
            if not self._has_ended():
                with suppress(ProcessLookupError):
                    os.killpg(self._pid, signum)

    async def wait(self) -> int | None:
        """Wait until it has ended, and have it reaped."""
        if not self._reaped:
            await self.ended()
            reaped = await self._template.collect(self._number)
            status = reaped.status
            if status is None and not self._reaped:
                status = await self._collect_ourselves()
            if not self._reaped:
                self._reaped, self._status = True, status
                self._usage = Usage(0, reaped.cpu, reaped.max_rss)
        return self._status

    async def _collect_ourselves(self) -> int | None:
        """Reap it if it has become our child; returns its exit status, or None."""
        with trio.move_on_after(_STATUS_PATIENCE):
            while self._template.is_dying:  # its children have no new parent yet
                await trio.sleep(0.005)
        return None if self._reaped else self._status_of_our_own()

    def _status_of_our_own(self) -> int | None:
        assert self._pidfd is not None
        try:
            found = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:  # as a rule: it is init's
            return None
        if found is None:
            return None
        return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status

    def _has_ended(self) -> bool:
        assert self._pidfd is not None
        return _readable(self._pidfd)

    def _reap_later(self) -> None:
        self._template.collect_later(self._number)


def _readable(fd: int) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(0))


def _forked() -> None:
    for template in list(_templates):
        template.forget()
    _templates.clear()


_templates: weakref.WeakSet[Template] = weakref.WeakSet()

os.register_at_fork(after_in_child=_forked)
