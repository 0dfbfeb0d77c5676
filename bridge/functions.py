"""Plain functions by name, and everything that names bring with them.

A pool without an adapter runs functions. A function is not sent; its name is, "module:qualname",
and the worker imports it. Arguments and results are pickled, in both directions by the user's own
code: such a pool trusts its workers as it trusts itself. Short single values need no pickle,
and a small call is a quarter faster without.

**The running script.** What is defined in `__main__` cannot be imported under that name, so a worker
loads the script under another, `__remuda_main__`, as `multiprocessing` does. Its
`if __name__ == "__main__":` part does not run then. A script without that guard would start pools
of its own, in every worker, for ever; `refuse_inside_main_load` stops that at the first.

**What has no name** (lambdas, functions inside functions, a prompt's) is refused at the edge, with
advice.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, NamedTuple

from remuda.statemachines.errors import ConfigError, SerializationError

__all__ = [
    "check_main",
    "dumps",
    "expect_main",
    "loads",
    "main_module",
    "main_path",
    "read_request",
    "refuse_inside_main_load",
    "request",
    "resolve",
]

_ALIAS = "__remuda_main__"
_ADVICE = "Define it at the top of a module, or pass a functools.partial of such a function"


class _Main:
    """What a worker knows of the application's script."""

    path: str | None = None
    module: str | None = None
    loading = False
    refused = False


# ── In the application ──────────────────────────────────────────────────────────────────────────


def request(function: Callable[..., Any], args: Sequence[Any]) -> tuple[str, bytes | list[Any]]:
    """A call as what is sent: the function's name, and its arguments, pickled or as they are.

    Raises:
        SerializationError: the function cannot be found by name, or an argument cannot be pickled.
    """
    kwargs: dict[str, Any] = {}
    while isinstance(function, functools.partial):
        args = (*function.args, *args)
        kwargs = {**function.keywords, **kwargs}
        function = function.func
    if type(function) is FunctionType or (isinstance(function, BuiltinFunctionType | type) and _is_plain(function)):
        name = _name_of(function)
    elif callable(function):
        args, name = (function, *args), "operator:call"  # a bound method, or an object that can be called
    else:
        raise SerializationError(f"{function!r} cannot be called; pass a function")
    if not kwargs and _need_no_pickle(args):
        return name, [*args]
    try:
        return name, _pickles().dump((tuple(args), kwargs))
    except Exception as error:
        raise SerializationError(
            f"the arguments of {name!r} cannot be pickled: {error}. Pass plain data, or objects that can be"
        ) from error


def _is_plain(function: BuiltinFunctionType | type) -> bool:
    """Whether it is a thing of a module, not the method of an object."""
    owner = getattr(function, "__self__", None)
    return owner is None or isinstance(owner, ModuleType)


def _name_of(function: FunctionType | BuiltinFunctionType | type) -> str:
    module, path = function.__module__ or "", function.__qualname__
    if getattr(sys.modules.get(module), path, None) is function and module != "__main__":
        return f"{module}:{path}"  # as nearly always
    if path.endswith("<lambda>") or "<locals>" in path:
        kind = "a lambda" if path.endswith("<lambda>") else "defined inside another function"
        raise SerializationError(f"{path} is {kind}, so no worker can find it by name. {_ADVICE}")
    if module == "__main__":
        check_main(f"the function {path}")
    try:
        found: Any = sys.modules[module]
        for part in path.split("."):
            found = getattr(found, part)
    except (KeyError, AttributeError):
        found = None
    if found is not function:
        raise SerializationError(
            f"the name {module}.{path} does not lead back to the function (was it decorated or replaced?). {_ADVICE}"
        )
    return f"{module}:{path}"


def loads(data: bytes | list[Any], command: str) -> Any:
    """A result, as `dumps` has made it ready.

    Raises:
        SerializationError: it cannot be rebuilt here.
    """
    try:
        if type(data) is list:
            [value] = data
            return value
        return _pickles().load(data)  # type: ignore[arg-type]  # or else it says so
    except Exception as error:
        raise SerializationError(
            f"the result of {command!r} cannot be read here: {type(error).__name__}: {error}"
        ) from error


def main_path() -> str | None:
    """The file of the running script, if workers can load it."""
    main = sys.modules.get("__main__")
    path = getattr(main, "__file__", None)
    if main is None or not isinstance(path, str) or main_module() is not None:
        return None
    path = os.path.abspath(path)
    return path if os.path.isfile(path) else None


def main_module() -> str | None:
    """The name of the running module, if it was started with `-m`."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is None or spec.name == "__main__":  # the latter: a folder or an archive was started
        return None
    return str(spec.name)


def check_main(what: str) -> None:
    """Raise SerializationError if workers cannot load what is defined in `__main__`."""
    if main_path() is None and main_module() is None:
        raise SerializationError(
            f"{what} was typed at a prompt or read from standard input, where no worker can find it. "
            "Put it into a module and import it"
        )


# ── In the worker ───────────────────────────────────────────────────────────────────────────────


def expect_main(path: str | None, module: str | None) -> None:
    """Remember where the application's script is; it is loaded when something of it is needed."""
    _Main.path, _Main.module = path, module


def refuse_inside_main_load() -> None:
    """Raise ConfigError when a script is being loaded by a worker: pools do not belong there."""
    if _Main.loading:
        _Main.refused = True
        raise ConfigError(_NO_GUARD)


_NO_GUARD = (
    "the script opens a pool when it is loaded, and every worker loads it. "
    'Put what starts the program under: if __name__ == "__main__":'
)


@functools.lru_cache(maxsize=1024)
def resolve(reference: str) -> Any:
    """What "module:qualname" names; raises whatever importing it raises, or ConfigError."""
    module_name, _, path = reference.partition(":")
    if not module_name or not path:
        raise ConfigError(f"{reference!r} names nothing; it must be 'package.module:Name'")
    found: Any = _main() if module_name in ("__main__", _ALIAS) else importlib.import_module(module_name)
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ConfigError(f"{module_name} has no {path!r} where a worker looks for it") from None
    return found


def read_request(data: bytes | list[Any]) -> tuple[Sequence[Any], dict[str, Any]]:
    """The arguments of a call, as `request` has made them ready; raises whatever unpickling them raises."""
    if type(data) is list:
        return data, {}
    args, kwargs = _pickles().load(data)  # type: ignore[arg-type]  # as above
    return args, kwargs


def dumps(value: object) -> bytes | list[Any]:
    """A result as what is sent: pickled, or as it is, in a list of one.

    Raises:
        SerializationError: it cannot be pickled.
    """
    if _need_no_pickle((value,)):
        return [value]
    try:
        return _pickles().dump(value)
    except Exception as error:
        raise SerializationError(f"{type(error).__name__}: {error}") from error


def _main() -> ModuleType:
    loaded = sys.modules.get(_ALIAS)
    if loaded is not None:
        return loaded
    if _Main.path is None and _Main.module is None:
        return sys.modules["__main__"]  # this is the application itself, or it has no script
    import runpy

    _Main.loading = True
    content: dict[str, Any] = {}
    refused: BaseException | None = None
    try:
        if _Main.module is not None:
            content = runpy.run_module(_Main.module, run_name=_ALIAS, alter_sys=True)
        else:
            content = runpy.run_path(str(_Main.path), run_name=_ALIAS)
    except BaseException as error:  # the script may have made a SystemExit of the refusal
        if not _Main.refused:
            raise
        refused = error
    finally:
        _Main.loading = False
    if _Main.refused:
        _Main.refused = False
        raise ConfigError(_NO_GUARD) from refused
    module = ModuleType(_ALIAS)
    module.__dict__.update(content)
    # What the script pickles names `__main__` here and `__remuda_main__` there: both are this.
    sys.modules["__main__"] = sys.modules[_ALIAS] = module
    return module


# ── In both ─────────────────────────────────────────────────────────────────────────────────────


def _need_no_pickle(values: Sequence[Any]) -> bool:
    """Whether a message carries all of them as they are, equal and of the same types.

    That is so for single values of just these types. A message has lists where Python has tuples, and knows nothing
    of an object that is there twice: what is long is pickled, and so sent once. Text has to be ASCII, as it can be
    said at once whether it is: a message cannot carry a lone surrogate.
    """
    for value in values:
        kind = type(value)
        if kind is bytes:
            fits = len(value) <= _SHORT
        elif kind is str:
            fits = len(value) <= _SHORT and value.isascii()
        elif kind is int:
            fits = -(2**63) <= value < 2**63
        else:
            fits = value is None or kind is bool or kind is float
        if not fits:
            return False
    return True


_SHORT = 4096
"""Bytes, or characters. What is longer takes so long to send that a pickle does not matter."""


class _Pickles(NamedTuple):
    dump: Callable[[object], bytes]
    load: Callable[[bytes], Any]


@functools.cache
def _pickles() -> _Pickles:
    """To pickle, and to unpickle; made when first needed, for most pools and workers never are."""
    import io
    import pickle

    class Unpickler(pickle.Unpickler):
        """Finds what belongs to the script, whichever of its two names a pickle uses."""

        def find_class(self, module: str, name: str) -> Any:
            if module in ("__main__", _ALIAS):
                found: Any = _main()
                for part in name.split("."):
                    found = getattr(found, part)
                return found
            return super().find_class(module, name)

    def dump(value: object) -> bytes:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)

    def load(data: bytes) -> Any:
        if b"_main__" not in data:  # what a pickle names stands in it, letter by letter
            return pickle.loads(data)
        return Unpickler(io.BytesIO(data)).load()

    return _Pickles(dump, load)
