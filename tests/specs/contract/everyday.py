"""The commands of a simulated worker that the contract needs, for a real one."""

from __future__ import annotations

import signal
import subprocess
import sys

from remuda.bridge.adapters import command
from remuda.statemachines.errors import WorkerUnfit


class Everyday:
    @command(idempotent=True)
    def echo(self, value: object) -> object:
        return value

    @command(journal="key")
    def remember(self, key: str, value: object) -> None: ...

    @command
    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    @command
    def chat(self) -> None:
        print("".join(f"line {number}\n" for number in range(300)), file=sys.stderr, end="", flush=True)

    @command
    def mutter(self) -> None:
        print("half a line", end="", file=sys.stderr, flush=True)
        signal.pause()

    @command
    def hang(self) -> None:
        print("begun", file=sys.stderr, flush=True)
        signal.pause()

    @command
    def fail(self, message: str) -> None:
        raise ValueError(message)

    @command
    def exit(self, status: int) -> None:
        sys.exit(status)

    @command
    def unfit(self) -> None:
        raise WorkerUnfit("the worker says so itself")

    @command
    def unserializable(self) -> object:
        return object()

    @command
    def leave_child(self) -> None:
        subprocess.Popen(["sleep", "1000"])
