"""A caller's side of one call: what it sends, where it waits, and what came of it.

The core knows a `Call`; the runtime hangs a `Ticket` on it. Whoever makes the call waits on the
ticket in one of two ways. Without a worker it is parked, and whoever assigns one reschedules it.
With a worker, *it reads the worker's channel itself*: for a lone caller that saves a task switch per
call, which is a third of what a small call costs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from remuda.bridge.messages import CommandInfo
from remuda.statemachines.effects import Answer
from remuda.statemachines.subjects import Call

if TYPE_CHECKING:
    from remuda.runtime.link import Link

__all__ = ["Ticket"]


class Ticket:
    __slots__ = (
        "answer", "args", "call", "command", "dumped", "frame", "info", "link", "made", "stack", "task",
    )  # fmt: skip

    def __init__(
        self,
        call: Call,
        command: str,
        made: float,
        frame: bytes,
        info: CommandInfo | None,
    ) -> None:
        self.call = call
        self.command = command
        self.made = made
        self.frame = frame
        """What is sent; for a checkout nothing is."""
        self.args: object = None
        """Only kept for commands with a journal, which needs them."""
        self.info = info
        self.answer: Answer | None = None
        self.link: Link | None = None
        self.task: trio.lowlevel.Task | None = None
        """The parked caller."""
        self.stack: str | None = None
        """What the worker was doing when the time ran out, if it was interrupted and has said so."""
        self.dumped: trio.Event | None = None
        """Set when `stack` is as good as it will be; None if there is none to come."""

    def wake(self) -> None:
        """Let the caller look again, wherever it waits."""
        if self.task is not None:
            task, self.task = self.task, None
            trio.lowlevel.reschedule(task)
        elif self.link is not None:
            self.link.wake()

    def assigned(self, link: Link) -> None:
        """The call was sent over `link`: its caller is to read there."""
        self.link = link
        self.wake()

    def taken_back(self) -> None:
        """The worker is gone and the call waits for another."""
        self.wake()
        self.link = None

    def answered(self, answer: Answer) -> None:
        self.answer = answer
        self.wake()
