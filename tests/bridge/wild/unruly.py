"""An adapter that tries everything which could confuse the loop around it."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from remuda.bridge.adapters import command
from remuda.statemachines.errors import WorkerUnfit


class Keyword(ValueError):
    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}", object())


class Unspeakable(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("do not look at me")

    def __str__(self) -> str:
        raise SystemExit(9)


class Unruly:
    def setup(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.child = 0
        match settings.get("setup"):
            case "raise":
                raise LookupError("no such table")
            case "exit":
                sys.exit(5)
            case "fork":
                if not os.fork():
                    return  # into the loop
            case "print":
                print("from setup")
            case "reap":
                signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    def health(self) -> bool | None:
        match self.settings.get("health"):
            case "false":
                return False
            case "raise":
                raise ConnectionError("the base is gone " + "x" * 1000)
            case "exit":
                sys.exit(3)
        return None

    def teardown(self) -> None:
        path = self.settings.get("teardown")
        if path == "raise":
            raise RuntimeError("teardown failed")
        if path:
            Path(path).write_text("torn down")

    @command(idempotent=True, timeout=2.5)
    def echo(self, value: object) -> object:
        return value

    @command(journal="key")
    def remember(self, key: str, value: object = None) -> None: ...

    @command
    def pid(self) -> int:
        return os.getpid()

    @command
    def fail(self, how: str) -> object:
        match how:
            case "value":
                raise ValueError("no")
            case "type":
                raise TypeError("my own, not the arguments'")
            case "keyword":
                raise Keyword(code=7)
            case "exit":
                sys.exit(3)
            case "interrupt":
                raise KeyboardInterrupt
            case "generator":
                raise GeneratorExit
            case "stop":
                raise StopIteration(1)
            case "memory":
                raise MemoryError
            case "unfit":
                raise WorkerUnfit("lost my base")
            case "object":
                return object()
            case "surrogate":
                return "\ud800"
            case "endless":
                own: list[object] = []
                own.append(own)
                return own
            case "group":
                raise BaseExceptionGroup("g", [KeyboardInterrupt(), ValueError("in")])
            case "unspeakable":
                raise Unspeakable
            case "broken pipe":
                raise BrokenPipeError(32, "mine")
        raise AssertionError(how)

    @command
    def large(self, size: int) -> str:
        return "x" * size

    @command
    def fail_large(self, size: int) -> None:
        raise ValueError(*["😀" * 900] * size)

    @command
    def marks(self) -> None:
        """Say that it has begun, and wait until the test has looked."""
        print("begun", file=sys.stderr)
        signal.pause()

    @command
    def empty_lines(self, count: int) -> None:
        rest = count
        while rest:
            rest -= os.write(2, b"\n" * min(rest, 1 << 16))

    @command
    def shout(self, text: str) -> None:
        print(f"print {text}")
        os.write(1, f"write {text}\n".encode())
        libc = ctypes.CDLL(None)
        libc.printf(f"printf {text}\n".encode())
        libc.fflush(None)
        subprocess.run(["echo", f"echo {text}"], check=True)
        os.write(1, b"unfinished")

    @command
    def stdin(self) -> str:
        return sys.stdin.read()

    @command
    def fork(self, how: str) -> int:
        """A child that comes back into the loop, one way or another."""
        pid = os.fork()
        if not pid:
            if how == "raise":
                raise ValueError("from the child")
            return -1
        self.child = pid
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status)

    @command
    def open_in_child(self) -> list[str]:
        """What a program that this worker starts finds open."""
        code = "import os; print([f for f in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{f}')])"
        done = subprocess.run([sys.executable, "-c", code], close_fds=False, capture_output=True, check=True, text=True)
        return sorted(eval(done.stdout))

    @command
    def leave_child_elsewhere(self) -> int:
        """Leave a child behind, in a session of its own."""
        quiet = subprocess.DEVNULL
        return subprocess.Popen(["sleep", "1000"], start_new_session=True, stdin=quiet, stdout=quiet, stderr=quiet).pid

    @command
    def leave_child(self) -> int:
        """A child in its group that outlives it."""
        return subprocess.Popen(["sleep", "1000"]).pid

    @command
    def fork_forever(self) -> int:
        pid = os.fork()
        if not pid:
            while True:
                signal.pause()
        return pid

    @command
    def thread(self) -> None:
        threading.Thread(target=threading.Event().wait, daemon=True).start()

    @command
    def mask(self) -> list[int]:
        return sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ()))

    @command
    def environment(self, name: str) -> str | None:
        return os.environ.get(name)

    @command
    def exit_now(self, status: int) -> None:
        os._exit(status)

    @command
    def hang(self, how: str) -> None:
        print(f"hanging {os.getpid()}", file=sys.stderr, flush=True)
        match how:
            case "sleep":
                signal.pause()
            case "python":
                while True:
                    pass
            case "c":
                sum(range(10**14))
            case "blocked":
                signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
                while True:
                    pass
