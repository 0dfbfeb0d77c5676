"""Which cuts there are: a recorded session, frame by frame, and every place in it.

A session of a worker has three parts, each of which can be cut without the ones before it: it comes
up (`boot`), it works (`calls`), it is asked to go (`end`). Frames are counted from the beginning of
the part. One question has one answer, so that frame i of one direction is about the same as frame i
of the other.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from remuda.bridge import messages
from remuda.bridge.frames import HANDSHAKE_LIMIT, Decoder

from .paths import gate

__all__ = [
    "FAULTS",
    "PARTS",
    "TO_APPLICATION",
    "TO_WORKER",
    "Cut",
    "Frame",
    "Recording",
    "at",
    "every",
    "frames",
    "some",
]

PARTS = ("boot", "calls", "end")
TO_WORKER, TO_APPLICATION = "to worker", "to application"
FAULTS: tuple[str, ...] = gate.FAULTS


@dataclass(frozen=True)
class Frame:
    """One question, and its answer.

    Attributes:
        about: the step of the session, or "boot", "replay", "health", "shutdown".
        sizes: bytes in each direction, header included; 0 if there is no answer.
    """

    about: str
    sizes: Mapping[str, int]


Recording = Mapping[str, Sequence[Frame]]
"""The frames of each part."""


@dataclass(frozen=True)
class Cut:
    """One thing that goes wrong in a session, at one byte.

    Attributes:
        part, frame, offset: where: `offset` bytes of that frame pass.
        direction: `TO_WORKER` or `TO_APPLICATION`.
        fault: one of `FAULTS`.
        border: whether all of the frame passes.
    """

    part: str
    frame: int
    offset: int
    direction: str
    fault: str
    border: bool

    def __str__(self) -> str:
        return f"{self.fault}, {self.direction}, {self.part}, frame {self.frame}, after byte {self.offset}"


def frames(said: bytes, heard: bytes, steps: Sequence[str]) -> list[Frame]:
    """Take the two streams of one part of a session apart.

    Args:
        said: what the application sent.
        heard: what the worker sent.
        steps: what the calls were about, in order.
    """
    names = iter(steps)
    answers = [len(body) + 4 for body in Decoder(HANDSHAKE_LIMIT).feed(heard)]
    found = []
    for index, body in enumerate(Decoder(HANDSHAKE_LIMIT).feed(said)):
        message = messages.decode_to_worker(body)
        match message:
            case messages.Boot():
                about = "boot"
            case messages.Ping():
                about = "health"
            case messages.Shutdown():
                about = "shutdown"
            case messages.Call():
                about = "replay" if message.quiet else next(names)
        answer = answers[index] if index < len(answers) else 0
        found.append(Frame(about, {TO_WORKER: len(body) + 4, TO_APPLICATION: answer}))
    return found


def every(recording: Recording, faults: Sequence[str] = FAULTS) -> Iterator[Cut]:
    """Each byte, in both directions, with each fault."""
    for part in PARTS:
        for index, frame in enumerate(recording[part]):
            for direction, size in frame.sizes.items():
                for offset in range(size + 1 if size else 0):
                    for fault in faults:
                        yield Cut(part, index, offset, direction, fault, offset == size)


def some(recording: Recording, step: int, seed: int = 0) -> Iterator[Cut]:
    """The borders of each frame and the bytes beside them, and every `step`-th byte; each with one fault, drawn."""
    dice = random.Random(seed)
    for cut in every(recording, ("kill",)):
        size = recording[cut.part][cut.frame].sizes[cut.direction]
        if cut.offset in (0, 1, size - 1, size) or cut.offset % step == 0:
            yield replace(cut, fault=dice.choice(FAULTS))


def at(recording: Recording, fault: str, direction: str, about: str, offset: int, part: str = "calls") -> Cut:
    """The cut in the first frame about something; a negative offset counts from the frame's end, -1 is all of it."""
    index, frame = next((i, frame) for i, frame in enumerate(recording[part]) if frame.about == about)
    size = frame.sizes[direction]
    offset = size + 1 + offset if offset < 0 else offset
    return Cut(part, index, offset, direction, fault, offset == size)
