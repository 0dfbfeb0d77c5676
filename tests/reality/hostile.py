"""An adapter that is after the application: what a worker can do that runs code which nobody has read."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from wild import Wild, _announce

from remuda.bridge.adapters import command
from remuda.bridge.child import Channel
from remuda.bridge.frames import pack
from remuda.bridge.messages import (
    VERSION,
    BootFailed,
    CommandInfo,
    Failure,
    FailureKind,
    Hello,
    Pong,
    RemoteFailure,
    Result,
    encode,
)
from remuda.bridge.page import Page

LIMIT = 2**32 - 1
LIBC = ctypes.CDLL(None, use_errno=True)
PTRACE_SEIZE, PR_SET_PTRACER, ANYBODY = 0x4206, 0x59616D61, ctypes.c_ulong(-1)


def framed(message: object) -> bytes:
    return pack(encode(message), LIMIT)


def failure(**fields: Any) -> RemoteFailure:
    return RemoteFailure(**{"type_name": "X", "message": "x", **fields})


FLOODS = {
    "pongs": framed(Pong(1, True, "")),
    "replies": framed(Result(2**63, None)),
    "failures": framed(Failure(2**63, failure(), FailureKind.RAISED)),
    "hellos": framed(Hello(1, VERSION, [CommandInfo("echo")])),
    "empty frames": bytes(4),
    "large frames": b"\x00\x03\xff\xff" + bytes(60_000),
}


def _found(kind: type) -> Any:
    (one,) = (each for each in gc.get_objects() if type(each) is kind)
    return one


def _flood(what: str) -> None:
    data = FLOODS[what] * (1 + 65536 // len(FLOODS[what]))
    fd = _found(Channel)._write_fd
    while True:
        os.write(fd, data)


def _forged(what: str, own: int, text: str) -> Iterator[bytes]:
    """The bytes of a message that is not to be said."""
    match what:
        case "an answer to another's call":
            yield framed(Result(own + int(text), "forged"))
        case "its own answer twice":
            yield framed(Result(own, "forged")) * 2
        case "its own answer, and those to the calls behind it":
            yield b"".join(framed(Result(number, "forged")) for number in range(own, own + 200))
        case "an answer to a health check":
            yield framed(Pong(1, True, "well"))
        case "hello":
            yield framed(Hello(os.getpid(), VERSION, [CommandInfo("echo")]))
        case "that it cannot start":
            yield framed(BootFailed("setup", failure()))
        case "an exception with a name without end":
            yield framed(Failure(own, failure(type_name="N" * 30_000_000), FailureKind.RAISED))
        case "an exception with a traceback without end":
            yield framed(Failure(own, failure(traceback="N" * 30_000_000), FailureKind.RAISED))
        case "an exception with notes without end":
            yield framed(Failure(own, failure(notes=["N"] * 1_000_000), FailureKind.RAISED))
        case "a kind of failure without end":
            body = msgspec.msgpack.encode([4, own, ["X", "x"], "N" * 30_000_000])
            yield pack(body, LIMIT)
        case "an exception with lone surrogates":
            body = encode(Failure(own, failure(message="SSS"), FailureKind.RAISED))
            yield pack(body.replace(b"SSS", b"\xed\xa0\x80"), LIMIT)
        case "an exception that is nested without end":
            body = msgspec.msgpack.encode([4, own, ["X", "x", msgspec.Raw(b"\x91" * 200_000 + b"\xc0")], "raised"])
            yield pack(body, LIMIT)
        case "an exception with control characters":
            error = failure(
                type_name="X\x1b[2J", message="\x1b]0;title\x07 \x9b31m", traceback="\x1b[31m", notes=["\x1bc"]
            )
            yield framed(Failure(own, error, FailureKind.RAISED))
        case "hello, with a million commands":
            yield framed(Hello(os.getpid(), VERSION, [CommandInfo(f"c{n}") for n in range(200_000)]))
        case "hello, with a name without end":
            yield framed(Hello(os.getpid(), VERSION, [CommandInfo("c" * 100_000)]))
        case "hello, with a name for a terminal":
            yield framed(Hello(os.getpid(), VERSION, [CommandInfo("\x1b[2J")]))
        case "hello, with a timeout that is no number":
            yield framed(Hello(os.getpid(), VERSION, [CommandInfo("echo", timeout=float("nan"))]))
        case "hello, with a place before all arguments":
            yield framed(Hello(os.getpid(), VERSION, [CommandInfo("echo", journal="token", key_at=-9)]))
        case "hello, larger than any":
            yield b"\x03\xff\xff\xff" + bytes(1000)
        case _:
            raise LookupError(what)


class Hostile(Wild):
    def setup(self, settings: dict[str, Any]) -> None:
        self._last_act = settings.get("last act")
        if "only if" in settings and not Path(settings["only if"]).exists():
            return
        if "flood" in settings:
            _flood(settings["flood"])
        if "forge" in settings:
            os.write(_found(Channel)._write_fd, b"".join(_forged(settings["forge"], 0, "")))
            signal.pause()

    def teardown(self) -> None:
        if self._last_act is not None:
            _flood(self._last_act)

    # ── On the channel ──────────────────────────────────────────────────────────────────────────

    @command
    def flood(self, what: str) -> None:
        _flood(what)

    @command
    def flood_later(self, what: str, path: str) -> int:
        """When the FIFO is opened."""

        def later() -> None:
            with open(path):
                _flood(what)

        threading.Thread(target=later, daemon=True).start()
        return os.getpid()

    @command
    def trickle(self, data: bytes) -> None:
        """Write this, and then single bytes, for ever."""
        fd = _found(Channel)._write_fd
        os.write(fd, data)
        while True:
            os.write(fd, b"\x00")

    @command
    def forge(self, what: str, text: str = "") -> str:
        fd = _found(Channel)._write_fd
        for data in _forged(what, _found(Page).started, text):
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(fd, rest) :]
        return "answered"

    @command
    def nest(self, depth: int, kind: str) -> object:
        opening = b"\x91" if kind == "list" else b"\x81\xa1k"
        return msgspec.Raw(opening * depth + b"\xc0")

    @command
    def extension(self, data: bytes) -> object:
        return [data, msgspec.msgpack.Ext(1, data), {"args": data}]

    @command
    def raise_with(self, data: bytes) -> None:
        raise ValueError(data)

    # ── With its descriptors ────────────────────────────────────────────────────────────────────

    @command
    def close(self, what: str) -> str:
        channel = _found(Channel)
        match what:
            case "stderr":
                os.close(1)
                os.close(2)
            case "what it reads":
                os.close(channel._read_fd)
            case "what it writes":
                os.close(channel._write_fd)
            case _:
                os.closerange(0, 256)
        return "answered"

    @command
    def shout(self) -> int:
        """Write to stderr for ever, without a newline, and go on."""

        def endlessly() -> None:
            while True:
                os.write(2, b"x" * 65536)

        threading.Thread(target=endlessly, daemon=True).start()
        return os.getpid()

    # ── On the page ─────────────────────────────────────────────────────────────────────────────

    @command
    def scribble(self, started: int, finished: int, witness: str) -> None:
        """Claim that, and die."""
        with open(witness, "a") as file:
            file.write("begun\n")
        page = _found(Page)
        page.start(started)
        page.finish(finished)
        os.kill(os.getpid(), signal.SIGKILL)

    @command
    def cut_the_page(self) -> str:
        """Make it shorter, by every way there is; returns what was refused."""
        refused = []
        for line in Path("/proc/self/maps").read_text().splitlines():
            if "remuda-evidence" in line:
                with open(f"/proc/self/map_files/{line.split()[0]}", "r+b") as file:
                    for size in (0, 1, 8192):
                        try:
                            file.truncate(size)
                        except PermissionError:
                            refused.append(size)
        return str(refused)

    # ── Through others ──────────────────────────────────────────────────────────────────────────

    @command
    def leave_behind(self, how: str) -> int:
        """A process that has left the group."""
        return _leave_behind(how)

    @command
    def leave_behind_and_wait(self, how: str, path: str) -> None:
        pid = _leave_behind(how)
        Path(f"{path}.left").write_text(str(pid))
        _announce(path)
        signal.pause()


SLEEP = ["sleep", "1000"]


def _leave_behind(how: str) -> int:
    away: dict[str, Any] = {"start_new_session": True, "stdin": subprocess.DEVNULL}
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    match how:
        case "a session of its own":
            return subprocess.Popen(SLEEP, **away, **quiet).pid
        case "a group of its own":
            return subprocess.Popen(SLEEP, process_group=0, **quiet).pid
        case "another environment, and our stderr":
            return subprocess.Popen(SLEEP, env={"PATH": os.environ["PATH"]}, **away).pid
        case "a parent that has gone":
            program = (
                "import subprocess; "
                f"print(subprocess.Popen({SLEEP}, stdout=subprocess.DEVNULL, start_new_session=True).pid)"
            )
            done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=False, **away)
            return int(done.stdout)
        case "nothing of ours":
            return subprocess.Popen(SLEEP, env={"PATH": os.environ["PATH"]}, **away, **quiet).pid
        case "the channel" | "the channel, and it floods it" | "it traces the worker":
            return _forked(how)
        case _:
            raise LookupError(how)


def _forked(how: str) -> int:
    """Forked so that Python does not notice, and does not close the channel in the child."""
    fd, parent = _found(Channel)._write_fd, os.getpid()
    LIBC.prctl(PR_SET_PTRACER, ANYBODY, 0, 0, 0)
    reader, writer = os.pipe()
    if pid := LIBC.fork():
        os.close(writer)
        os.read(reader, 1)  # it is where it should be
        return int(pid)
    os.setsid()
    if how == "it traces the worker":
        LIBC.ptrace(PTRACE_SEIZE, parent, None, None)
    os.write(writer, b".")
    if "floods" in how:
        while os.getppid() == parent:  # as soon as that is dead, and its last words are read
            pass
        while True:
            os.write(fd, FLOODS["pongs"] * 5000)
    while True:
        signal.pause()
