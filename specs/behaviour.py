"""What a simulated worker does, written down as data.

A `Behaviour` is the whole character of one worker process: how it starts, what its commands do,
how it answers a health check, how it takes a signal. What it does at each occasion is a *play*: a
tuple of steps, carried out one after the other in virtual time. An ordinary call is

    (Begin(), Reply(), Finish())

and everything that can go wrong with one is another order of the same few steps:

    (Die(),)                                     killed before it touched the call
    (Begin(), Die())                             killed while user code ran
    (Begin(), Reply(share=0.5), Die())           half a frame, then gone
    (Begin(), Reply(), Die())                    a whole reply, then gone before anybody read it
    (Begin(), Wait(90), Reply(), Finish())       too late
    (Begin(), Reply(), Reply(), Finish())        twice
    (Begin(), Reply(shift=1), Finish())          to a call that nobody made
    (Begin(), Hang())                            never

Two rules hold here:

* A step is a frozen value whose `repr` is the code that makes it, so that a scenario which a search
  has found can be pasted into a test.
* There is no randomness and no clock. A play may be chosen by a function of the call, a behaviour by
  a function of the start order; whoever wants chance hands in a function that holds a seeded
  `random.Random`.

What the steps *mean* is in `remuda.specs.simulated`.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from remuda.bridge import messages
from remuda.bridge.adapters import OnTimeout
from remuda.bridge.seam import StartOrder
from remuda.statemachines.errors import WorkerUnfit

__all__ = [
    "ANSWER",
    "STANDARD",
    "Begin",
    "Behaviour",
    "BootStep",
    "CallPlay",
    "CallStep",
    "Command",
    "Compute",
    "Die",
    "Do",
    "Emit",
    "Examine",
    "FailBoot",
    "Finish",
    "Fork",
    "Freeze",
    "Hang",
    "HangUp",
    "Hello",
    "PingStep",
    "Pong",
    "Progress",
    "Reply",
    "Say",
    "Script",
    "Send",
    "Step",
    "Wait",
    "argument",
]

Compute: TypeAlias = Callable[[messages.Call, dict[str, object]], object]
"""The body of a command: from the call and the worker's memory to a value, or an exception."""


def echo(call: messages.Call, memory: dict[str, object]) -> object:
    """The arguments, as they came: one argument as itself, several as their list or dict."""
    if isinstance(call.args, bytes) or len(call.args) != 1:
        return call.args
    return next(iter(call.args.values())) if isinstance(call.args, dict) else call.args[0]


# ── Steps that fit anywhere ─────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Wait:
    """Take `seconds` of virtual time. Nothing is read meanwhile: a worker has one thread.

    In a call that has begun, an interrupt ends it, and the call; unless it is `deaf`, as C code is.
    """

    seconds: float
    deaf: bool = False


@dataclass(frozen=True)
class Hang:
    """Never go on. Only a signal helps; an interrupt is none if it is `deaf`, as code is that swallows it."""

    deaf: bool = False


@dataclass(frozen=True)
class Die:
    """End the process at once, as `os._exit(status)` or, when negative, a signal would."""

    status: int = -signal.SIGKILL


@dataclass(frozen=True)
class Freeze:
    """Stop, as by SIGSTOP: nothing moves until somebody thaws or kills the process."""


@dataclass(frozen=True)
class Emit:
    """Write raw bytes to the channel, whatever they do to the frames there."""

    data: bytes


@dataclass(frozen=True)
class Send:
    """Send a well-formed message out of turn."""

    message: messages.ToParent


@dataclass(frozen=True)
class HangUp:
    """Close the worker's ends of the channel and live on."""


@dataclass(frozen=True)
class Say:
    """Write `text` to stderr, as it is: a line needs its own newline."""

    text: str


@dataclass(frozen=True)
class Fork:
    """Leave a child that inherits all descriptors: no end of file comes while it lives.

    The child dies with the process group, unless it `escapes` into a group of its own.
    """

    escapes: bool = False


@dataclass(frozen=True)
class Do:
    """Run some code in the worker, on its memory and settings. What it raises ends the process; at
    the start it is told to the parent first, as a setup that failed.
    """

    action: Callable[[dict[str, object], Mapping[str, Any]], object]


Step: TypeAlias = Wait | Hang | Die | Freeze | Emit | Send | HangUp | Say | Fork | Do

# ── Steps for one occasion ──────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Hello:
    """Tell the parent that the worker is set up, and which commands it has."""


@dataclass(frozen=True)
class FailBoot:
    """Tell the parent that the boot failed. What follows is up to the play: usually `Die(1)`."""

    stage: str = "setup"
    error: BaseException = field(default_factory=lambda: RuntimeError("setup failed"))


@dataclass(frozen=True)
class Begin:
    """Record on the evidence page that this call has begun: from here on user code runs."""


@dataclass(frozen=True)
class Reply:
    """Compute the answer (once a call, however often it is sent) and write it to the channel.

    Args:
        compute: the command's body; what it raises is sent as the failure that it is.
        shift: added to the call's id, to answer a call that was not made.
        share: up to where the frame is written, 0 to 1; below 1 at least its last byte is missing.
        skip: from where on, 0 to 1, so that a second step can write what a first one with this
            `share` left out.
    """

    compute: Compute = echo
    shift: int = 0
    share: float = 1.0
    skip: float = 0.0


@dataclass(frozen=True)
class Progress:
    """Report how far the call has come, as `remuda.progress` does."""

    done: float
    total: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Finish:
    """Record on the evidence page that the reply to this call has been written in full."""


@dataclass(frozen=True)
class Pong:
    """Answer a health check."""

    healthy: bool = True
    reason: str = ""


@dataclass(frozen=True)
class Examine:
    """Answer a health check with what some code makes of the worker's memory: well or not, and why."""

    judge: Callable[[dict[str, object]], tuple[bool, str]]


BootStep: TypeAlias = Step | Hello | FailBoot
CallStep: TypeAlias = Step | Begin | Progress | Reply | Finish
PingStep: TypeAlias = Step | Pong | Examine

CallPlay: TypeAlias = tuple[CallStep, ...] | Callable[[messages.Call], tuple[CallStep, ...]]
"""What is done with one call. A function that raises TypeError has refused the arguments."""

ANSWER: tuple[CallStep, ...] = (Begin(), Reply(), Finish())

# ── Commands ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Command:
    """A command of the simulated adapter; the fields are those of `remuda.command`, and of `CommandInfo`."""

    play: CallPlay = ANSWER
    idempotent: bool = False
    timeout: float | None = None
    journal: str | bool | None = None
    forgets: str | None = None
    key_at: int | None = None
    on_timeout: OnTimeout | None = None


def argument(call: messages.Call, name: str, position: int = 0) -> Any:
    """One argument of `call`, by name or by position; TypeError if it was not given."""
    if isinstance(call.args, dict) and name in call.args:
        return call.args[name]
    if isinstance(call.args, list) and position < len(call.args):
        return call.args[position]
    raise TypeError(f"{call.command}() misses its argument {name!r}")


def _needs(*names: str, body: Compute) -> CallPlay:
    """The ordinary play, for a command that cannot begin without these arguments."""

    def play(call: messages.Call) -> tuple[CallStep, ...]:
        for position, name in enumerate(names):
            argument(call, name, position)
        return Begin(), Reply(body), Finish()

    return play


def _sleep(call: messages.Call) -> tuple[CallStep, ...]:
    return Begin(), Wait(float(argument(call, "seconds"))), Reply(), Finish()


def _crash(call: messages.Call) -> tuple[CallStep, ...]:
    return Begin(), Die(int(argument(call, "status")) if call.args else -signal.SIGKILL)


def _say(call: messages.Call) -> tuple[CallStep, ...]:
    return Begin(), Say(f"{argument(call, 'text')}\n"), Reply(), Finish()


def _fail(call: messages.Call, memory: dict[str, object]) -> object:
    raise ValueError(argument(call, "message"))


def _exit(call: messages.Call, memory: dict[str, object]) -> object:
    raise SystemExit(argument(call, "status"))


def _unfit(call: messages.Call, memory: dict[str, object]) -> object:
    raise WorkerUnfit("the worker says so itself")


def _unserializable(call: messages.Call, memory: dict[str, object]) -> object:
    return object()


def _large(call: messages.Call, memory: dict[str, object]) -> object:
    return "x" * int(argument(call, "size"))


def _remember(call: messages.Call, memory: dict[str, object]) -> object:
    memory[str(argument(call, "key"))] = argument(call, "value", 1)
    return None


def _recall(call: messages.Call, memory: dict[str, object]) -> object:
    return memory[str(argument(call, "key"))]


def _forget(call: messages.Call, memory: dict[str, object]) -> object:
    return memory.pop(str(argument(call, "key")), None)


STANDARD: Mapping[str, Command] = {
    "echo": Command(idempotent=True),
    "once": Command(),  # as echo, but not to be repeated
    "sleep": Command(_sleep, idempotent=True),
    "sleep_once": Command(_sleep),
    "fail": Command(_needs("message", body=_fail)),
    "exit": Command(_needs("status", body=_exit)),
    "unfit": Command(_needs(body=_unfit)),
    "unserializable": Command(_needs(body=_unserializable)),
    "large": Command(_needs("size", body=_large)),
    "crash": Command(_crash),
    "crash_idempotent": Command(_crash, idempotent=True),
    "hang": Command((Begin(), Hang())),
    "say": Command(_say),
    # State that lives in the worker, declared so that the parent can replay it.
    "remember": Command(_needs("key", "value", body=_remember), journal="key"),
    "recall": Command(_needs("key", body=_recall), idempotent=True),
    "forget": Command(_needs("key", body=_forget), forgets="key"),
}
"""The commands that every simulated worker has."""

# ── The whole character ─────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """How one worker process behaves, from its start to its end.

    Every default is the good citizen; times are virtual seconds.

    Attributes:
        launch_seconds: how long `Launcher.start` takes.
        launch_error: an `errno` with which `Launcher.start` fails instead, or None.
        boot: done once the boot message is there; without a `Hello` the worker is never ready.
        commands: commands beside the `STANDARD` ones, or in their place.
        calls: what the worker does with its first (1), second (2), … call, whatever its command.
        ping: what it does with a health check, and `pings` with its first, second, … one.
        shutdown: what it does with the shutdown message.
        meanwhile: done in the background from the start on, as by a second thread of the process.
        ignores: signal numbers that leave it cold. SIGKILL and SIGSTOP cannot be ignored.
        kill_seconds: how long it goes on existing, not moving any more, after SIGKILL.
        status_known: whether anybody will learn how it ended.
        capacity: bytes that fit into each direction of the channel, and into stderr; at least 1.
        chunk: the most bytes it reads or writes at a time; at least 1.
        chunk_seconds: how long each such chunk takes.
    """

    launch_seconds: float = 0.0
    launch_error: int | None = None
    boot: tuple[BootStep, ...] = (Hello(),)
    commands: Mapping[str, Command] = field(default_factory=dict[str, Command])
    calls: Mapping[int, CallPlay] = field(default_factory=dict[int, CallPlay])
    ping: tuple[PingStep, ...] = (Pong(),)
    pings: Mapping[int, tuple[PingStep, ...]] = field(default_factory=dict[int, tuple[PingStep, ...]])
    shutdown: tuple[Step, ...] = (Die(0),)
    meanwhile: tuple[Step, ...] = ()
    ignores: frozenset[int] = frozenset()
    kill_seconds: float = 0.0
    status_known: bool = True
    capacity: int = 65536
    chunk: int = 65536
    chunk_seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.capacity < 1 or self.chunk < 1:
            raise ValueError("nothing moves through a channel with a capacity or chunk below 1")
        unstoppable = {signal.SIGKILL, signal.SIGSTOP} & self.ignores
        if unstoppable:
            raise ValueError(f"no process can ignore {unstoppable}")


@dataclass(frozen=True)
class Script:
    """Behaviours by (slot, generation), and one for all that are not named.

        Script({(0, 1): Behaviour(boot=(Hang(),))})     # the first start of slot 0 hangs; no other

    A key `(slot, None)` stands for every generation of that slot that is not named itself.
    """

    scenes: Mapping[tuple[int, int | None], Behaviour]
    default: Behaviour = field(default_factory=Behaviour)

    def __call__(self, order: StartOrder) -> Behaviour:
        by_slot = self.scenes.get((order.slot, None), self.default)
        return self.scenes.get((order.slot, order.generation), by_slot)
