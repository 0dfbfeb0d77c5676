"""An adapter whose setup and health check wait for somebody."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from remuda.bridge.adapters import command


class Patient:
    def setup(self, settings: dict[str, Any]) -> None:
        self.fifo = settings["fifo"]
        self.health()

    def health(self) -> None:
        print("waiting", file=sys.stderr, flush=True)
        Path(self.fifo).read_text()

    @command
    def nothing(self) -> None: ...
