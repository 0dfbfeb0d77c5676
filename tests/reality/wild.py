"""An adapter whose commands do everything that an adapter must not do."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import msgspec

import remuda.bridge.child
from remuda.bridge.adapters import command
from remuda.statemachines.errors import WorkerUnfit


class Picky(Exception):
    """Its arguments do not rebuild it, and one of them cannot be sent."""

    def __init__(self, *, what: object) -> None:
        super().__init__(what, object(), "plain")


class Mute(ValueError):
    """Cannot be looked at."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


def _channel() -> int:
    """The descriptor that answers are written to, which is nobody's business."""
    (channel,) = (each for each in gc.get_objects() if isinstance(each, remuda.bridge.child.Channel))
    return channel._write_fd


def _announce(path: str) -> None:
    """Tell the test, through a FIFO, that the command has begun, and in which process."""
    with open(path, "w") as fifo:
        fifo.write(f"{os.getpid()}\n")


class Wild:
    def setup(self, settings: dict[str, Any]) -> None:
        if "announce" in settings:
            _announce(settings["announce"])
        if settings.get("hang"):
            signal.pause()
        if settings.get("crash"):
            os._exit(11)
        if settings.get("fail"):
            raise LookupError("no such table")
        self.count = 0
        self.held: list[int] = []

    @command
    def echo(self, token: object) -> object:
        return token

    @command
    def pid(self) -> int:
        return os.getpid()

    @command
    def pause(self, path: str) -> None:
        _announce(path)
        while True:
            signal.pause()

    @command
    def pause_once(self, path: str, done: str) -> str:
        """The first time it waits to be killed; the second time it returns."""
        if Path(done).exists():
            return "the second time"
        Path(done).touch()
        return self.pause(path)  # type: ignore[func-returns-value]

    @command
    def listen(self, path: str) -> str:
        """What somebody writes to the FIFO."""
        return Path(path).read_text()

    @command
    def leave(self, status: int) -> None:
        os.write(2, b"the end is near\nand here it")
        os._exit(status)

    @command
    def leave_in_tears(self, lines: int) -> None:
        os.write(2, b"".join(b"%d\n" % number for number in range(lines)))
        os._exit(1)

    @command
    def segfault(self) -> None:
        ctypes.string_at(0)

    @command
    def spin(self) -> None:
        while True:
            pass

    @command
    def spin_in_c(self) -> int:
        return sum(range(10**14))

    @command
    def exit(self) -> None:
        sys.exit("enough")

    @command
    def interrupt(self) -> None:
        raise KeyboardInterrupt

    @command
    def say(self, text: str) -> str:
        print(text)
        os.write(1, f"{text}, to descriptor 1\n".encode())
        ctypes.CDLL(None).puts(f"{text}, from C".encode())
        ctypes.CDLL(None).fflush(None)
        return text

    @command
    def garble(self, data: bytes, then: str) -> str:
        """Write to the channel, and then return, or hang, or die."""
        os.write(_channel(), data)
        if then == "hang":
            signal.pause()
        if then == "die":
            os._exit(5)
        return "answered"

    @command
    def garble_later(self, data: bytes, path: str, done: str) -> int:
        """Write to the channel when nobody has asked anything: when the FIFO `path` is opened."""
        fd = _channel()

        def wait() -> None:
            with open(path):
                os.write(fd, data)
            Path(done).write_text("done")  # a FIFO: the test waits for this

        threading.Thread(target=wait, daemon=True).start()
        return os.getpid()

    @command
    def large(self, size: int) -> bytes:
        return bytes(size)

    @command
    def handle(self) -> object:
        return threading.Lock()

    @command
    def unreadable(self) -> object:
        return msgspec.Raw(b"\x91" * 100_000 + b"\xc0")

    @command
    def raise_picky(self) -> None:
        raise Picky(what="that")

    @command
    def raise_mute(self) -> None:
        raise Mute

    @command
    def raise_value_error(self) -> None:
        raise ValueError("too small", 3)

    @command
    def unfit(self) -> None:
        raise WorkerUnfit("the accelerator is gone")

    @command
    def exhaust(self) -> None:
        raise MemoryError

    @command
    def allocate(self, size: int) -> int:
        return len(bytearray(size))

    @command
    def hold(self, size: int) -> None:
        """Have that much memory from now on, all of it used."""
        self.memory = b"x" * size

    @command
    def hang_up(self) -> None:
        """Close the channel and live on."""
        os.close(_channel())
        signal.pause()

    @command
    def open_many(self) -> None:
        """Open files until there are no more descriptors, and keep them open."""
        while True:
            self.held.append(os.open("/dev/null", os.O_RDONLY))

    @command
    def spin_on(self, path: str) -> None:
        """Spin, also when told that the time is up."""
        signal.signal(signal.SIGXCPU, signal.SIG_IGN)
        _announce(path)
        self.spin()

    @command
    def about(self) -> dict[str, Any]:
        """What this process may use, and where it is."""
        names = {"memory": "AS", "cpu": "CPU", "files": "NOFILE"}
        limits = {name: resource.getrlimit(getattr(resource, f"RLIMIT_{rest}")) for name, rest in names.items()}
        about = {"nice": os.nice(0), "cwd": os.getcwd(), "TMPDIR": os.environ["TMPDIR"], "temp": tempfile.gettempdir()}
        return {**limits, **about, "pid": os.getpid()}

    @command
    def scribble(self) -> str:
        """Leave files behind, in folders that nobody may write to."""
        folder = Path(tempfile.mkdtemp())
        inner = folder / "a" / "b"
        inner.mkdir(parents=True)
        (inner / "file").write_text("text")
        (folder / "link").symlink_to("/")
        for path in (inner, inner.parent):
            path.chmod(0o500)
        return str(folder)

    @command
    def recurse(self) -> None:
        self.recurse()

    @command
    def fork(self) -> int:
        """The child comes back out of the command as well."""
        return os.fork()

    @command
    def abandon(self) -> int:
        """Leave a process behind, in the worker's group."""
        return subprocess.Popen(["sleep", "1000"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid
