"""An adapter that leaves on record what it does: a line when a command begins, and one when it ends."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from remuda.bridge.adapters import command


class Notary:
    def setup(self, settings: dict[str, Any]) -> None:
        self.log = os.open(settings["log"], os.O_WRONLY | os.O_APPEND)

    def note(self, what: str, token: str) -> None:
        os.write(self.log, f"{what} {token} {os.getpid()} {time.perf_counter()!r}\n".encode())

    @command
    def once(self, token: str) -> str:
        self.note("begun", token)
        self.note("finished", token)
        return token

    @command
    def linger(self, token: str) -> str:
        """Take a while, so that whoever kills at random finds somebody at work."""
        self.note("begun", token)
        time.sleep(0.005)
        self.note("finished", token)
        return token

    @command
    def die(self, token: str) -> None:
        self.note("begun", token)
        os.kill(os.getpid(), signal.SIGKILL)
