"""The worker: what runs in the process, around the user's code.

A loop: read a message, do it, answer, again. One thing at a time, one answer to each question, in
order; blocking reads and writes, no threads, no event loop. It is boring on purpose: the process may
be killed at any instruction, and everything that has to survive that lives elsewhere.

The rules:

* **The channel belongs to the loop alone.** Its descriptors are nobody's stdin or stdout, are not
  inherited by what the user's code starts, and are closed in what it forks: a forked child that
  wanders back into the loop cannot answer for its parent.
* **Evidence first.** "Begun" is recorded before the first line of user code for a call can run,
  unpickling its arguments included; "answered" when the last byte of the answer is written.
* **Every call is answered,** whatever the user's code raises, be it SystemExit, whatever the result
  is like, however large it is. A worker that cannot keep that promise dies, which is an answer too.
* **An interrupt is meant for one call.** The application stores which one, and sends SIGUSR1; the
  handler raises only while user code of that call runs, and once. A flag says so, which is set right
  before that code and taken away right behind it, inside of a `try` that catches what lands between.
* **The end of the channel is the end.** When the application closes it, the worker tears down and
  goes. When the application dies, the lifeline kills the whole process group, whatever it does.

This module and all it imports use the standard library and msgspec only.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from collections import deque
from typing import Any

from remuda.bridge import functions, lifeline, messages, page, remote
from remuda.bridge.adapters import Adapter, load
from remuda.bridge.frames import HANDSHAKE_LIMIT, Decoder, pack
from remuda.bridge.messages import FailureKind
from remuda.bridge.page import Page
from remuda.statemachines.errors import FrameTooLarge, Interrupted, SerializationError, UnknownCommand, WorkerUnfit

__all__ = ["main"]

_READ = 1 << 16


class Channel:
    """The worker's end: whole messages in, whole frames out.

    Attributes:
        limit: bytes of a frame at most, in both directions.
    """

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self.limit = HANDSHAKE_LIMIT
        self._read_fd, self._write_fd = read_fd, write_fd
        self._decoder = Decoder(HANDSHAKE_LIMIT)
        self._bodies: deque[bytes] = deque()
        for fd in (read_fd, write_fd):
            os.set_inheritable(fd, False)
        os.register_at_fork(after_in_child=self._close)

    def receive(self) -> messages.ToWorker | None:
        """The next message; None when the application has closed the channel."""
        while not self._bodies:
            if self._decoder.pending:
                self._decoder.feed(b"")  # which raises, if what is pending can be no frame
            data = os.read(self._read_fd, _READ)
            if not data:
                return None
            self._bodies.extend(self._decoder.feed(data))
        return messages.decode_to_worker(self._bodies.popleft())

    def send(self, message: messages.ToParent) -> None:
        """Send a message; raises SerializationError or FrameTooLarge before a byte is written."""
        frame: bytes | memoryview = pack(messages.encode(message), self.limit)
        while (written := os.write(self._write_fd, frame)) < len(frame):
            frame = memoryview(frame)[written:]

    def allow(self, limit: int) -> None:
        """Set the largest frame from here on."""
        self.limit = self._decoder.limit = limit

    def _close(self) -> None:
        os.close(self._read_fd)
        os.close(self._write_fd)
        self._read_fd = self._write_fd = -1  # the numbers may soon be somebody else's


class Worker:
    """The loop."""

    def __init__(self, channel: Channel, evidence: Page) -> None:
        self._channel = channel
        self._page = evidence
        self._adapter: Adapter | None = None
        self._open_to_interrupt = 0
        """The call whose user code runs at this moment; 0 for none."""

    def run(self) -> int:
        """Boot, serve, tear down; returns the exit status."""
        boot = self._channel.receive()
        if boot is None:
            return 0
        if not isinstance(boot, messages.Boot):
            raise SystemExit(f"remuda worker: the first message is a {type(boot).__name__}, where Boot was expected")
        if not self._boot(boot):
            return 1
        while True:
            try:
                message = self._channel.receive()
            except messages.UnreadableCall as error:
                self._refuse(error.number, error, FailureKind.UNREADABLE)
                continue
            kind = type(message)
            if kind is messages.Call:
                self._serve(message)  # type: ignore[arg-type]
            elif kind is messages.Ping:
                self._check(message)  # type: ignore[arg-type]
            elif message is None or kind is messages.Shutdown:
                break
            else:
                raise SystemExit(f"remuda worker: a {kind.__name__} message came out of turn")
        if self._adapter is not None:
            self._page.enter(page.TEARING_DOWN)
            self._adapter.teardown()
        return 0

    # ── Becoming a worker ───────────────────────────────────────────────────────────────────────

    def _boot(self, boot: messages.Boot) -> bool:
        commands: list[messages.CommandInfo] = []
        stage = "start"
        try:
            if boot.limits:
                from remuda.bridge import limits  # late: most workers have none

                limits.apply(boot.limits)
            if "tempfile" in sys.modules:  # if we were forked: it may have looked before TMPDIR was ours
                import tempfile

                tempfile.tempdir = None
            os.chdir(boot.cwd)
            sys.path[:] = boot.sys_path
            functions.expect_main(boot.main_path, boot.main_module)
            stage = "import"
            if boot.adapter is not None:
                self._page.enter(page.IMPORTING)
                adapter = load(boot.adapter)
                stage = "setup"
                self._page.enter(page.SETTING_UP)
                adapter.setup(boot.settings)
                self._adapter, commands = adapter, adapter.commands
        except BaseException as error:
            self._channel.send(messages.BootFailed(stage, remote.describe(error)))
            return False
        self._page.enter(page.IDLE)
        self._channel.send(messages.Hello(os.getpid(), messages.VERSION, commands))
        self._channel.allow(boot.max_frame_bytes)
        return True

    # ── Being one ───────────────────────────────────────────────────────────────────────────────

    def _serve(self, call: messages.Call) -> None:
        """Run one call and answer it."""
        evidence = self._page
        try:
            try:
                self._open_to_interrupt = call.id
                if evidence.interrupted == call.id:
                    raise Interrupted  # its time was over before it came here
                if self._adapter is None:
                    evidence.start(call.id)
                    function = functions.resolve(call.command)
                    args, kwargs = functions.read_request(call.args)
                    value: Any = functions.dumps(function(*args, **kwargs))
                else:
                    method = self._adapter.method(call.command)
                    evidence.start(call.id)
                    value = _call(method, call.args)
            finally:
                self._open_to_interrupt = 0
        except BaseException as error:
            evidence.enter(page.ANSWERING)
            self._refuse(call.id, *_judge(error))
        else:
            evidence.enter(page.ANSWERING)
            try:
                self._channel.send(messages.Result(call.id, None if call.quiet else value))
            except FrameTooLarge as error:
                self._refuse(call.id, error, FailureKind.TOO_LARGE)
            except SerializationError as error:
                self._refuse(call.id, error, FailureKind.UNSERIALIZABLE)
        evidence.finish(call.id)

    def interrupt(self, signum: int, frame: object) -> None:
        """The handler of SIGUSR1. Python runs it between two instructions of the main thread."""
        number = self._open_to_interrupt
        if number and number == self._page.interrupted:
            self._open_to_interrupt = 0
            raise Interrupted

    def _refuse(self, number: int, error: BaseException, kind: FailureKind) -> None:
        failure = remote.describe(error)
        try:
            self._channel.send(messages.Failure(number, failure, kind))
        except (FrameTooLarge, SerializationError):  # the latter: arguments at the very limit of nesting
            self._channel.send(messages.Failure(number, remote.brief(failure), kind))

    def _check(self, ping: messages.Ping) -> None:
        self._page.enter(page.CHECKING)
        try:
            healthy, reason = (True, "") if self._adapter is None else self._adapter.health()
        except BaseException as error:
            failure = remote.describe(error)
            healthy, reason = False, f"{failure.type_name}: {failure.message}"[:200]
        self._page.enter(page.IDLE)
        self._channel.send(messages.Pong(ping.id, healthy, reason))


class _BadArguments(Exception):
    """The arguments do not fit the command; its cause says how."""


def _call(method: Any, args: Any) -> Any:
    try:
        return method(**args) if type(args) is dict else method(*args)
    except TypeError as error:
        misfit = _misfit(method, args)
        if misfit is None:
            raise
        raise _BadArguments from TypeError(misfit).with_traceback(error.__traceback__)


def _misfit(method: Any, args: Any) -> str | None:
    """Why the arguments do not fit the signature, or None if they do, and the error is the command's own."""
    import inspect  # late, as in `adapters`; who has commands has loaded it

    try:
        signature = inspect.signature(method)
    except (TypeError, ValueError):
        return None
    try:
        signature.bind(**args) if type(args) is dict else signature.bind(*args)
    except TypeError as error:
        return f"{method.__name__}() {error}; its arguments are {signature}"
    return None


def _judge(error: BaseException) -> tuple[BaseException, FailureKind]:
    """What to tell the caller about an exception of a call, and what kind of failure it is."""
    cls = type(error)  # `isinstance` would ask the exception, which may do anything
    if issubclass(cls, _BadArguments):
        return error.__cause__ or error, FailureKind.BAD_ARGUMENTS
    if issubclass(cls, UnknownCommand):
        return error, FailureKind.UNKNOWN_COMMAND
    if issubclass(cls, SerializationError):
        return error, FailureKind.UNSERIALIZABLE
    if issubclass(cls, MemoryError | WorkerUnfit):
        return error, FailureKind.UNFIT
    if issubclass(cls, Interrupted):
        return error, FailureKind.INTERRUPTED
    return error, FailureKind.RAISED


def main(read_fd: int, write_fd: int, lifeline_fd: int, page_fd: int) -> int:
    """Be a worker on these descriptors; returns the exit status."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # inherited: from whoever started us, and its threads
    for signum in (signal.SIGTERM, signal.SIGCHLD):  # the latter, ignored, would hide how children end
        signal.signal(signum, signal.SIG_DFL)
    for fd in (lifeline_fd, page_fd):
        os.set_inheritable(fd, False)
    lifeline.hold(lifeline_fd)
    faulthandler.enable(2)
    evidence = Page(page_fd)
    os.close(page_fd)
    page.own(evidence)
    # Written by the signal's handler itself, so also while C code holds the interpreter.
    faulthandler.register(signal.SIGUSR2, evidence.fd, all_threads=True, chain=False)
    worker = Worker(Channel(read_fd, write_fd), evidence)
    signal.signal(signal.SIGUSR1, worker.interrupt)
    try:
        return worker.run()
    except BrokenPipeError:
        return 1  # the application has closed its end in the middle of an answer
