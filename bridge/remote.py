"""Exceptions across the boundary: told by the worker, rebuilt for the caller.

An exception is not sent, for that would mean to run its class here. Told are its type's name, its
text, its arguments as far as they are plain data, its notes and its traceback. From that the caller
gets a `RemoteError`, and if the original was a built-in exception, or derived from one, an error
that is *also* of that type: what `except ValueError` catches around a plain call, it catches around
a call in a worker.

`describe` does not raise, whatever the exception does when it is looked at, and its account is
bounded: it has to arrive.
"""

from __future__ import annotations

import builtins
from functools import lru_cache
from typing import Any

from remuda.bridge.messages import RemoteFailure, encode
from remuda.statemachines.errors import RemoteError, SerializationError

__all__ = ["brief", "describe", "rebuild"]

MAX_TEXT = 16 * 1024
"""Characters of a message or traceback at most; what is cut out of the middle is said."""
MAX_ARGS = 16
MAX_ARG = 4 * 1024  # bytes of an argument that is carried as it is

_NOT_REBUILT = {
    Exception,  # says nothing
    StopIteration,  # a coroutine cannot let it pass
    StopAsyncIteration,
    ExceptionGroup,  # its members are exceptions themselves, which do not travel
}


# ── In the worker ───────────────────────────────────────────────────────────────────────────────


def describe(error: BaseException) -> RemoteFailure:
    """An account of an exception, small enough to be sent, whatever the exception is like."""
    try:
        args = [_carried(arg) for arg in error.args[:MAX_ARGS]]
    except Exception:
        args = []
    return RemoteFailure(
        type_name=_type_name(type(error)),
        message=_text(error),
        args=args,
        notes=_notes(error),
        traceback=_traceback(error),
        builtin=_builtin(type(error)),
    )


def brief(failure: RemoteFailure) -> RemoteFailure:
    """The same in 300 bytes at most, for where nothing more fits."""
    return RemoteFailure(failure.type_name[:60], _ascii(failure.message)[:100], builtin=failure.builtin)


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()


def _type_name(cls: type) -> str:
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def _builtin(cls: type[BaseException]) -> str | None:
    for base in cls.__mro__:
        if base in _NOT_REBUILT or not issubclass(base, Exception):
            return None
        if base.__module__ == "builtins":
            return base.__name__
    return None


def _text(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception as failure:
        text = f"(its text cannot be had: {type(failure).__name__})"
    return _clean(text)


def _clean(text: str) -> str:
    """`text` such that it can be encoded, and not too long."""
    text = text.encode("utf-8", "backslashreplace").decode()
    if len(text) <= MAX_TEXT:
        return text
    half = MAX_TEXT // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"


def _carried(arg: object) -> Any:
    try:
        if len(encode(arg)) <= MAX_ARG:
            return arg
    except SerializationError:
        pass
    try:
        return _clean(repr(arg))[:MAX_ARG]
    except Exception:
        return f"<{_type_name(type(arg))}>"


def _notes(error: BaseException) -> list[str]:
    notes = getattr(error, "__notes__", ())
    if not isinstance(notes, list | tuple):
        return []
    return [_clean(note) for note in notes[:MAX_ARGS] if isinstance(note, str)]


def _traceback(error: BaseException) -> str:
    import traceback  # late: most workers never need it

    try:
        return _clean("".join(traceback.format_exception(error)))
    except Exception:
        pass
    try:  # the exception cannot be printed, but where it comes from can
        return _clean("".join(traceback.format_tb(error.__traceback__)))
    except Exception:
        return ""


# ── In the application ──────────────────────────────────────────────────────────────────────────


def rebuild(failure: RemoteFailure) -> RemoteError:
    """The error that a caller gets for what was raised in a worker.

    Its text is the original's, preceded by the type's name if that is not to be seen from its own.
    The remote traceback is one of its notes, so that it is printed with it.
    """
    error = _instance(failure)
    text = failure.message
    if failure.type_name != failure.builtin or not text:
        text = f"{failure.type_name}: {text}" if text else failure.type_name
    RemoteError.__init__(error, "")
    error.args = tuple(failure.args)
    error.message = text
    error.type_name = failure.type_name
    error.remote_args = tuple(failure.args)
    error.notes = tuple(failure.notes)
    error.remote_traceback = failure.traceback
    for note in failure.notes:
        error.add_note(note)
    if failure.traceback:
        error.add_note(f"In the worker:\n{failure.traceback.rstrip()}")
    return error


def _instance(failure: RemoteFailure) -> RemoteError:
    """An error of the right class, with what the built-in one makes of the arguments."""
    cls, builtin = _class(failure.builtin)
    error: RemoteError
    try:
        error = cls.__new__(cls, *failure.args)
        builtin.__init__(error, *failure.args)  # such as the `errno` of an OSError
    except Exception:
        # Its class took other arguments than the built-in one does, or (MemoryError) that one's
        # `__new__` is not for derived classes.
        error = BaseException.__new__(cls)
    return error


@lru_cache(maxsize=128)
def _class(name: str | None) -> tuple[type[RemoteError], type[Exception]]:
    builtin = None if name is None else getattr(builtins, name, None)
    if not (isinstance(builtin, type) and issubclass(builtin, Exception)):
        return RemoteError, Exception
    body = {
        "__module__": "remuda",
        "__doc__": f"A `RemoteError` that is a {name} as well.",
        "__str__": RemoteError.__str__,  # KeyError and others would show something else
    }
    return type(f"Remote{name}", (RemoteError, builtin), body), builtin
