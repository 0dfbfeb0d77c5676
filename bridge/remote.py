"""Exceptions across the boundary: told by the worker, rebuilt for the caller.

An exception is not sent, for that would mean to run its class here. Told are its type's name, its
text, its arguments as far as they are plain data, its notes and its traceback. From that the caller
gets a `RemoteError`, and if the original was a built-in exception, or derived from one, an error
that is *also* of that type: what `except ValueError` catches around a plain call, it catches around
a call in a worker.

`describe` does not raise, whatever the exception does when it is looked at, be it to exit, and its
account is bounded: it has to arrive.
"""

from __future__ import annotations

import builtins
from functools import lru_cache
from typing import Any

import msgspec

from remuda.bridge.messages import RemoteFailure, encode
from remuda.statemachines.errors import RemoteError, SerializationError, shown

__all__ = ["brief", "describe", "rebuild"]

MAX_TEXT = 16 * 1024
"""Characters of a message or traceback at most; what is cut out of the middle is said."""
MAX_NAME = 500  # characters
MAX_ARGS = 16
MAX_ARG = 4 * 1024  # bytes of an argument that is carried as it is
MAX_DEPTH = 50  # levels of one that is; the application's stack may be fuller than ours, where it is read

_NOT_REBUILT = {
    Exception,  # says nothing
    StopIteration,  # a coroutine cannot let it pass
    StopAsyncIteration,
    ExceptionGroup,  # its members are exceptions themselves, which do not travel
}


# ── In the worker ───────────────────────────────────────────────────────────────────────────────


def describe(error: BaseException) -> RemoteFailure:
    """An account of an exception, small enough to be sent, whatever the exception is like."""
    return RemoteFailure(
        type_name=_type_name(type(error)),
        message=_text(error),
        args=_args(error),
        notes=_notes(error),
        traceback=_traceback(error),
        builtin=_builtin(type(error)),
    )


def brief(failure: RemoteFailure) -> RemoteFailure:
    """The same in 300 bytes at most, for where nothing more fits."""
    return RemoteFailure(_ascii(failure.type_name)[:60], _ascii(failure.message)[:100], builtin=failure.builtin)


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()


def _type_name(cls: type) -> str:
    try:
        module, name = cls.__module__, cls.__qualname__
        return _clean(name if module == "builtins" else f"{module}.{name}", MAX_NAME)
    except BaseException:
        return "an exception whose name cannot be had"


def _builtin(cls: type[BaseException]) -> str | None:
    for base in cls.__mro__:
        if base in _NOT_REBUILT or not issubclass(base, Exception):
            return None
        name: str = base.__name__
        if vars(builtins).get(name) is base:
            return name
    return None


def _text(error: BaseException) -> str:
    try:
        return _clean(str(error))
    except BaseException as failure:
        return f"(its text cannot be had: {_type_name(type(failure))})"


def _clean(text: str, most: int = MAX_TEXT) -> str:
    """`text` such that it can be encoded, and not too long."""
    text = text.encode("utf-8", "backslashreplace").decode()
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"


def _args(error: BaseException) -> list[Any]:
    try:
        args = error.args[:MAX_ARGS]
        if isinstance(error, OSError) and len(args) == 2 and error.filename is not None:
            # It keeps its files elsewhere; these are the arguments that make them.
            args = (*args, error.filename)
            if error.filename2 is not None:
                args = (*args, None, error.filename2)
        return [_carried(arg) for arg in args]
    except BaseException:
        return []


def _carried(arg: object) -> Any:
    try:
        body = encode(arg)
        if len(body) <= MAX_ARG:
            copy = msgspec.msgpack.decode(body)  # which nobody can change or refuse to show
            if _is_flat(copy):
                return copy
    except (SerializationError, msgspec.DecodeError, RecursionError):
        pass
    try:
        return _clean(repr(arg))[:MAX_ARG]
    except BaseException:
        return f"<{_type_name(type(arg))}>"


def _is_flat(value: object, levels: int = MAX_DEPTH) -> bool:
    """Whether it has at most so many levels."""
    if type(value) is dict:
        return levels > 0 and all(_is_flat(key, levels - 1) and _is_flat(value[key], levels - 1) for key in value)
    if type(value) in (list, tuple):
        return levels > 0 and all(_is_flat(each, levels - 1) for each in value)  # type: ignore[attr-defined]
    return True


def _notes(error: BaseException) -> list[str]:
    try:
        return [_clean(note) for note in error.__notes__[:MAX_ARGS] if isinstance(note, str)]
    except BaseException:  # it has none, as a rule
        return []


def _traceback(error: BaseException) -> str:
    try:
        import traceback  # late: most workers never need it
    except BaseException:  # it is read from a file, and there may be no descriptor left to open one
        return _places(error)
    try:
        return _clean("".join(traceback.format_exception(error)))
    except BaseException:
        pass
    try:  # the exception cannot be printed, but where it comes from can
        return _clean("".join(traceback.format_tb(error.__traceback__)))
    except BaseException:
        return ""


def _places(error: BaseException) -> str:
    """Where an exception comes from, for when not even that module can be loaded: without the lines of the source."""
    lines: list[str] = []
    step = error.__traceback__
    while step is not None and len(lines) < 100:
        code = step.tb_frame.f_code
        lines.append(f'  File "{code.co_filename}", line {step.tb_lineno}, in {code.co_name}\n')
        step = step.tb_next
    return _clean("Traceback (most recent call last):\n" + "".join(lines))


# ── In the application ──────────────────────────────────────────────────────────────────────────


def rebuild(failure: RemoteFailure) -> RemoteError:
    """The error that a caller gets for what was raised in a worker.

    Its text is the original's, preceded by the type's name if that is not to be seen from its own.
    The remote traceback is one of its notes, so that it is printed with it. What is printed has no
    control characters but newlines and tabs; the fields have the text as it came.
    """
    error = _instance(failure)
    text = failure.message
    if failure.type_name != failure.builtin or not text:
        text = f"{failure.type_name}: {text}" if text else failure.type_name
    text = shown(text)
    # Not by calling `__init__`: it would go on to that of the built-in class.
    vars(error).update(vars(RemoteError(text)))
    error.type_name = failure.type_name
    error.remote_args = error.args
    error.notes = tuple(failure.notes)
    error.remote_traceback = failure.traceback
    for note in failure.notes:
        error.add_note(shown(note))
    if failure.traceback:
        error.add_note(f"In the worker:\n{shown(failure.traceback.rstrip())}")
    return error


def _instance(failure: RemoteFailure) -> RemoteError:
    """An error of the right class, with what the built-in one makes of the arguments."""
    cls, builtin = _class(failure.builtin)
    error = _blank(cls)
    try:
        builtin.__init__(error, *failure.args)  # such as the `errno` of an OSError
    except Exception:  # the original's class took other arguments than the built-in one does
        error = _blank(cls)
        error.args = tuple(failure.args)
    return error


def _blank(cls: type[RemoteError]) -> RemoteError:
    try:
        return cls.__new__(cls)
    except TypeError:  # that of MemoryError is not for derived classes
        error: RemoteError = BaseException.__new__(cls)
        return error


@lru_cache(maxsize=128)
def _class(name: str | None) -> tuple[type[RemoteError], type[Exception]]:
    builtin = None if name is None else getattr(builtins, name, None)
    if not (isinstance(builtin, type) and issubclass(builtin, Exception)) or builtin in _NOT_REBUILT:
        return RemoteError, Exception
    body = {
        "__module__": "remuda",
        "__doc__": f"A `RemoteError` that is a {name} as well.",
    }
    return type(f"Remote{name}", (RemoteError, builtin), body), builtin
