"""What the workers are asked to do: next to nothing, so that what is measured is the way there and back."""

from __future__ import annotations

import os
import time
from typing import TypeVar

from remuda.bridge.adapters import command

__all__ = ["Tasks", "echo", "hold", "whoami"]

T = TypeVar("T")


def echo(data: T) -> T:
    """Give it back."""
    return data


def whoami() -> int:
    """The process id of the worker."""
    return os.getpid()


def hold(fifo: str) -> None:
    """Say through a named pipe that the worker is busy, and stay so until somebody ends it."""
    with open(fifo, "wb", buffering=0) as file:
        file.write(os.getpid().to_bytes(8, "little"))
    time.sleep(3600)


class Tasks:
    """The same as the commands of an adapter."""

    @command
    def echo(self, data: bytes) -> bytes:
        """Give it back."""
        return data

    @command
    def whoami(self) -> int:
        """The process id of the worker."""
        return os.getpid()

    @command
    def hold(self, fifo: str) -> None:
        """As the function of this name."""
        hold(fifo)
