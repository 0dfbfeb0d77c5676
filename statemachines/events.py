"""What the core is told.

Every event is a value. Those that come from a worker carry the `Worker` they are about, so that
news of one generation can never touch another. Random draws come in here too, from [0, 1): the
core has none of its own.
"""

from __future__ import annotations

import msgspec

from remuda.statemachines.subjects import Call, Worker

__all__ = [
    "Began",
    "BootFailed",
    "ChannelFailed",
    "Checkin",
    "Close",
    "EndSession",
    "Event",
    "Exited",
    "GiveUp",
    "HealthChecked",
    "Initialized",
    "Open",
    "Replaying",
    "Replied",
    "Resume",
    "Retire",
    "Submit",
    "Suspend",
    "Tick",
]


class Open(msgspec.Struct, frozen=True, gc=False):
    """Begin: start the first workers."""


class Submit(msgspec.Struct, frozen=True):
    """A caller wants a worker: for one call, for a checkout, or for a call on its checkout."""

    call: Call


class GiveUp(msgspec.Struct, frozen=True):
    """The caller was cancelled. If its deadline has passed as well, that is what ended it."""

    call: Call


class Checkin(msgspec.Struct, frozen=True):
    """The holder of a checkout gives the worker back."""

    lease: Call


class Began(msgspec.Struct, frozen=True):
    """The evidence page shows that the call has begun."""

    call: Call


class Replaying(msgspec.Struct, frozen=True):
    """The worker is set up and repeats what the journal has; it has so many seconds for the next entry.

    An entry was a call once, and had a call's time. It gets it again: a journal that takes longer than
    a start would else keep every new worker from becoming ready.
    """

    worker: Worker
    seconds: float


class Initialized(msgspec.Struct, frozen=True):
    """Handshake, setup and replay are done."""

    worker: Worker


class BootFailed(msgspec.Struct, frozen=True):
    """The worker said, or its launcher did, that it cannot start, and why."""

    worker: Worker
    cause: str


class Replied(msgspec.Struct, frozen=True):
    """The worker has answered call `call_id`.

    `ok`: with a result, else with an error. `unfit`: the error implicates the worker.
    """

    worker: Worker
    call_id: int
    reply: object
    ok: bool = True
    unfit: bool = False


class HealthChecked(msgspec.Struct, frozen=True):
    """The worker has answered check number `number`."""

    worker: Worker
    number: int
    healthy: bool
    reason: str = ""


class ChannelFailed(msgspec.Struct, frozen=True):
    """The channel of a worker is of no more use: garbage, a frame out of turn, or its end.

    `violation`: the worker broke the rules (as opposed to: it is gone).
    """

    worker: Worker
    cause: str
    violation: bool = True


class Exited(msgspec.Struct, frozen=True):
    """The process has ended, its group was killed, its channel read to the end, the evidence looked at.

    `began`: whether the call it had been sent is shown to have begun. `draw`: for a backoff.
    """

    worker: Worker
    cause: str
    began: bool = False
    draw: float = 1.0


class Retire(msgspec.Struct, frozen=True):
    """Replace this worker when it has finished what it does."""

    worker: Worker
    reason: str


class EndSession(msgspec.Struct, frozen=True):
    session: str


class Suspend(msgspec.Struct, frozen=True, gc=False):
    """Assign nothing until `Resume`; callers wait, within their deadlines."""


class Resume(msgspec.Struct, frozen=True, gc=False):
    pass


class Close(msgspec.Struct, frozen=True, gc=False):
    """Drain and end, within the policy's `shutdown_timeout`."""


class Tick(msgspec.Struct, frozen=True, gc=False):
    """Time has passed: see to what is due."""


Event = (
    Open
    | Submit
    | GiveUp
    | Checkin
    | Began
    | Initialized
    | BootFailed
    | Replaying
    | Replied
    | HealthChecked
    | ChannelFailed
    | Exited
    | Retire
    | EndSession
    | Suspend
    | Resume
    | Close
    | Tick
)
