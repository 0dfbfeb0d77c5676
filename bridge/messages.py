"""placeholder messages (lead), to be replaced"""
from __future__ import annotations
from enum import StrEnum
from typing import Any
import msgspec
from remuda.statemachines.errors import ProtocolError, SerializationError
class FailureKind(StrEnum):
    RAISED="raised"; UNFIT="unfit"; UNKNOWN_COMMAND="unknown_command"; BAD_ARGUMENTS="bad_arguments"; UNSERIALIZABLE="unserializable"; TOO_LARGE="too_large"
class RemoteFailure(msgspec.Struct, array_like=True):
    type_name: str; message: str; args: list[Any] = []; notes: list[str] = []; traceback: str = ""; builtin: str | None = None
class CommandInfo(msgspec.Struct, array_like=True, frozen=True):
    name: str; idempotent: bool=False; timeout: float|None=None; journal: str|bool|None=None; forgets: str|None=None
class Boot(msgspec.Struct, array_like=True, tag=1, frozen=True):
    adapter: str|None; settings: dict[str,Any]; sys_path: list[str]; cwd: str; main_path: str|None; codec: str; max_frame_bytes: int
class Call(msgspec.Struct, array_like=True, tag=2, frozen=True):
    id: int; command: str; args: Any; quiet: bool=False
class Ping(msgspec.Struct, array_like=True, tag=3, frozen=True): id: int
class Shutdown(msgspec.Struct, array_like=True, tag=4, frozen=True): pass
class Hello(msgspec.Struct, array_like=True, tag=1, frozen=True):
    pid: int; version: str; commands: list[CommandInfo]
class BootFailed(msgspec.Struct, array_like=True, tag=2, frozen=True):
    stage: str; error: RemoteFailure
class Result(msgspec.Struct, array_like=True, tag=3, frozen=True):
    id: int; value: Any
class Failure(msgspec.Struct, array_like=True, tag=4, frozen=True):
    id: int; error: RemoteFailure; kind: FailureKind
class Pong(msgspec.Struct, array_like=True, tag=5, frozen=True):
    id: int; healthy: bool; reason: str
ToWorker = Boot | Call | Ping | Shutdown
ToParent = Hello | BootFailed | Result | Failure | Pong
_e = msgspec.msgpack.Encoder(); _p = msgspec.msgpack.Decoder(ToParent); _w = msgspec.msgpack.Decoder(ToWorker)
def encode(m: Any) -> bytes:
    try: return _e.encode(m)
    except Exception as x: raise SerializationError(str(x)) from x
def decode_to_parent(b: bytes) -> ToParent:
    try: return _p.decode(b)
    except Exception as x: raise ProtocolError(str(x)) from x
def decode_to_worker(b: bytes) -> ToWorker:
    try: return _w.decode(b)
    except Exception as x: raise ProtocolError(str(x)) from x
