"""An adapter whose commands take long, and take it well or badly when they are told to stop."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

import remuda
from remuda.bridge.adapters import command
from remuda.statemachines.errors import Interrupted


def _announce(path: str) -> None:
    """Tell the test, through a FIFO, that the command has begun, and in which process."""
    with open(path, "w") as fifo:
        fifo.write(f"{os.getpid()}\n")


def _wait_for_ever() -> NoReturn:
    while True:
        signal.pause()


class Stubborn:
    def setup(self, settings: dict[str, Any]) -> None:
        if "witness" in settings:
            self.witness = os.open(settings["witness"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    @command
    def pid(self) -> int:
        return os.getpid()

    @command
    def sleep(self, path: str) -> None:
        _announce(path)
        time.sleep(1000)

    @command
    def loop(self, path: str) -> None:
        _announce(path)
        while True:
            pass

    @command
    def read(self, path: str) -> bytes:
        reader, _ = os.pipe()
        _announce(path)
        return os.read(reader, 1)

    @command
    def wait_for_a_lock(self, path: str) -> None:
        lock = threading.Lock()
        lock.acquire()
        _announce(path)
        lock.acquire()

    @command
    def add(self, path: str) -> int:
        _announce(path)
        return sum(range(10**12))

    @command
    def swallow(self, path: str) -> None:
        _announce(path)
        while True:
            try:
                _wait_for_ever()
            except BaseException:
                pass

    @command
    def handle(self, path: str) -> None:
        """Take the signal for itself."""
        signal.signal(signal.SIGUSR1, lambda signum, frame: None)
        _announce(path)
        _wait_for_ever()

    @command
    def die_of_it(self, path: str) -> None:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        _announce(path)
        _wait_for_ever()

    @command
    def not_an_exception(self, path: str) -> str:
        _announce(path)
        try:
            _wait_for_ever()
        except Exception:
            return "swallowed"

    @command
    def clean_up(self, path: str, done: str) -> str:
        try:
            _announce(path)
            _wait_for_ever()
        except Interrupted:
            Path(done).write_text("cleaned up")
            return "this answer reaches nobody"

    @command
    def deep(self, path: str) -> None:
        """Deeper than faulthandler goes: 100 frames."""

        def dive(depth: int) -> None:
            if depth:
                dive(depth - 1)
            else:
                _announce(path)
                _wait_for_ever()

        dive(300)

    @command
    def report(self, path: str) -> None:
        remuda.progress(3, 10, "page 3")
        _announce(path)
        _wait_for_ever()

    @command
    def with_a_thread(self, path: str) -> None:
        done = threading.Event()

        def beside() -> None:
            done.wait()

        thread = threading.Thread(target=beside)
        thread.start()
        try:
            _announce(path)
            _wait_for_ever()
        finally:
            done.set()
            thread.join()

    @command(journal=True)
    def remember(self, path: str) -> None:
        _announce(path)
        _wait_for_ever()

    @command
    def work(self, number: int, loops: int) -> int:
        """Count who is told to stop: a line for each."""
        try:
            for _ in range(loops):
                pass
        except Interrupted:
            os.write(self.witness, f"{number}\n".encode())
            raise
        return number
