"""Messages: everything that a worker and the application can say to each other.

    application → worker                      worker → application
    ──────────────────────────────────────    ───────────────────────────────────────────────
    Boot      what to be; once, first         Hello       I am up, and these are my commands
                                              BootFailed  I cannot be that, because
    Call      run this                        Result      of a call
                                              Failure     of a call, and whose fault it is
    Ping      how are you?                    Pong        well, or not, because
    Shutdown  finish and go

One question is answered by one answer, in order. There is no message for "stop what you are doing", since
nobody would read it: a worker that has to stop gets a signal, and is killed if that does not help. Bodies are MessagePack, with arrays for messages and a small
integer to tell them apart; unknown tags, missing fields and wrong types are refused by the decoder.

What one end can write the other cannot always read: a value that is nested almost too deeply for the
one is too deep for the other, whose stack is fuller; the key of a dict may become a dict itself. Such
a message is whole, and so is its sender. The call that it is about fails, and nothing else.

What a worker says about itself and its errors has bounds, which our own loop keeps: a longer text, more
commands, a timeout that is no number of seconds break the rules, and are refused before they are built.
Only the value of a result is bounded by nothing but the frame.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta

from remuda.statemachines.errors import ProtocolError, SerializationError

__all__ = [
    "VERSION",
    "Boot",
    "BootFailed",
    "Call",
    "CommandInfo",
    "Failure",
    "FailureKind",
    "Hello",
    "Ping",
    "Pong",
    "RemoteFailure",
    "Result",
    "Shutdown",
    "ToParent",
    "ToWorker",
    "UnreadableCall",
    "decode_to_parent",
    "decode_to_worker",
    "encode",
]


VERSION = "3"
"""Of all that is declared here. Both ends must have the same: a worker is no server for others."""


Name: TypeAlias = Annotated[str, Meta(max_length=1000)]
"""Of a type or a command, and other short texts."""
Text: TypeAlias = Annotated[str, Meta(max_length=20_000)]
"""More than `remuda.bridge.remote` ever lets through."""
_FEW = Meta(max_length=32)
_MANY = Meta(max_length=10_000)


class FailureKind(StrEnum):
    """Why a call has no result."""

    RAISED = "raised"
    """User code raised: nobody's fault but the call's."""
    UNFIT = "unfit"
    """It raised `WorkerUnfit`, or there was no memory: the worker's fault."""
    UNKNOWN_COMMAND = "unknown_command"
    BAD_ARGUMENTS = "bad_arguments"
    """They do not fit the command; it was not begun."""
    UNSERIALIZABLE = "unserializable"
    """It ran, but its result cannot be sent."""
    TOO_LARGE = "too_large"
    """It ran, but its result exceeds the largest frame."""
    UNREADABLE = "unreadable"
    """Its arguments arrived, but cannot be read there; it was not begun."""
    INTERRUPTED = "interrupted"
    """It was told to stop, and did."""


class RemoteFailure(msgspec.Struct, frozen=True, array_like=True):
    """An exception, as far as it can travel. See `remuda.bridge.remote`."""

    type_name: Name
    """Qualified, without `builtins.`."""
    message: Text
    args: Annotated[list[Any], _FEW] = []
    """Those that are plain data as they were, the others as text."""
    notes: Annotated[list[Text], _FEW] = []
    traceback: Text = ""
    builtin: Name | None = None
    """The nearest built-in exception that it is an instance of and that can be rebuilt."""


class CommandInfo(msgspec.Struct, frozen=True, array_like=True):
    """What is declared about a command. See `remuda.command` for the meaning of the fields."""

    name: Name
    idempotent: bool = False
    timeout: Annotated[float, Meta(gt=0)] | None = None
    journal: Name | bool | None = None
    forgets: Name | None = None
    key_at: Annotated[int, Meta(ge=0)] | None = None
    """Where the argument that `journal` or `forgets` names stands, if it may be given by position."""
    on_timeout: str | None = None
    """"kill", "interrupt", or None for what the pool says."""


class Boot(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The first message: what to become."""

    adapter: str | None
    settings: dict[str, Any]
    sys_path: list[str]
    cwd: str
    main_path: str | None
    """The script that runs as `__main__` in the application, or None if there is none to find."""
    main_module: str | None
    """Its module name instead, if it was started with `-m`."""
    codec: str
    """"msgpack" for commands of an adapter, "pickle" for plain functions."""
    max_frame_bytes: int
    limits: dict[str, int] = {}
    """What it may use, by the names of the fields of `remuda.Limits`."""


class Call(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Run a command."""

    id: int
    command: str
    args: Any
    """A dict of named arguments, a list of positional ones, or the bytes of a pickle of both."""
    quiet: bool = False
    """Whether the value of the result is of no interest, as when a journal is replayed."""


class Ping(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """A health check."""

    id: int


class Shutdown(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Call `teardown`, and go."""


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Import and setup have succeeded."""

    pid: int
    version: Name
    """`VERSION`, as the worker has it."""
    commands: Annotated[list[CommandInfo], _MANY]


class BootFailed(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """The worker cannot become what it was told, and ends."""

    stage: Name
    """What failed: "start", "import" or "setup"."""
    error: RemoteFailure


class Result(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """The value of a call."""

    id: int
    value: Any


class Failure(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """A call that has no value."""

    id: int
    error: RemoteFailure
    kind: FailureKind


class Pong(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """The answer to a health check."""

    id: int
    healthy: bool
    reason: Name


ToWorker: TypeAlias = Boot | Call | Ping | Shutdown
ToParent: TypeAlias = Hello | BootFailed | Result | Failure | Pong

_encoder = msgspec.msgpack.Encoder()
_to_parent: msgspec.msgpack.Decoder[ToParent] = msgspec.msgpack.Decoder(ToParent)
_to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)


def encode(message: object) -> bytes:
    """A message as the body of a frame.

    Raises:
        SerializationError: it contains what MessagePack cannot carry: an object that is no plain
            data, an integer beyond 64 bits, a lone surrogate, nesting without end.
    """
    try:
        return _encoder.encode(message)
    except RecursionError:
        raise SerializationError("it is nested too deeply, or contains itself") from None
    except Exception as error:
        raise SerializationError(str(error) or type(error).__name__) from error


class UnreadableCall(ProtocolError):
    """A call that arrived whole, though it cannot be read: it can be answered.

    Attributes:
        number: of the call.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


def decode_to_parent(body: bytes) -> ToParent:
    """What a worker said; raises ProtocolError when it is none of the messages.

    A result whose value cannot be read here is a `Failure` of that call.
    """
    try:
        return _to_parent.decode(body)
    except Exception as error:
        why, number = _why(error), _number(body, Result)
        if number is not None and _is_whole(body):
            return Failure(number, RemoteFailure("SerializationError", why), FailureKind.UNSERIALIZABLE)
        raise ProtocolError(f"it sent what cannot be read: {why}") from None


def decode_to_worker(body: bytes) -> ToWorker:
    """What the application said.

    Raises:
        UnreadableCall: it is a call, and what cannot be read are its arguments.
        ProtocolError: it is none of the messages.
    """
    try:
        return _to_worker.decode(body)
    except Exception as error:
        why, number = _why(error), _number(body, Call)
        if number is not None:
            raise UnreadableCall(why, number) from None
        raise ProtocolError(f"the application sent what cannot be read: {why}") from None


def _why(error: Exception) -> str:
    # An account of what is wrong may quote it, whatever its length.
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)[:300]


_NUMBER_SIZES = {0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9}
"""Bytes of a number, by the first of them; all others are numbers themselves."""


def _number(body: bytes, kind: type[msgspec.Struct]) -> int | None:
    """The number of the call that a message of this kind is about, whatever comes behind it.

    It stands in front: the length of the array, the tag, the number.
    """
    front = bytes((0x91 + len(kind.__struct_fields__), kind.__struct_config__.tag))  # type: ignore[arg-type]  # an int
    if not body.startswith(front):
        return None
    size = _NUMBER_SIZES.get(int.from_bytes(body[2:3]), 1)
    try:
        return msgspec.msgpack.decode(body[2 : 2 + size], type=int)
    except msgspec.DecodeError:
        return None


def _is_whole(body: bytes) -> bool:
    """Whether it is well-formed, as far as can be seen without building anything."""
    try:
        msgspec.msgpack.decode(body, type=msgspec.Raw)
    except RecursionError:
        pass
    except msgspec.DecodeError:
        return False
    return True
