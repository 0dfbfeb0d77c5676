"""Adapters: a class whose marked methods are the commands of a pool.

    class Sentiment:
        def setup(self, settings): ...            # once per worker, before its first call
        def health(self): ...                     # raises, or returns False, when something is wrong
        def teardown(self): ...                   # when the worker is asked to go

        @remuda.command(idempotent=True, timeout=30)
        def classify(self, text: str) -> str: ...

No base class, and the three methods on top are optional. Only marked methods are commands; nothing
else of the class can be called from outside. The application never has to import the module: a
worker tells it the commands when it says hello, with everything that was declared about them.

An adapter goes by name: "dspy", "package.module:Class", or what an installed package has registered
in the entry point group `remuda.adapters`. The class itself will do as well, also one of the
running script.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar, get_args, overload

from remuda.bridge import functions
from remuda.bridge.messages import CommandInfo
from remuda.statemachines.errors import ConfigError, SerializationError, UnknownCommand

__all__ = ["Adapter", "OnTimeout", "check_on_timeout", "command", "command_name", "load", "reference_to"]

F = TypeVar("F", bound=Callable[..., Any])

OnTimeout = Literal["kill", "interrupt"]
"""What becomes of a worker when the time of its call is over, or its caller has left."""

_MARK = "__remuda_command__"
_GROUP = "remuda.adapters"
_OURS = {"dspy": "remuda.bridge.dspy_adapter:DSPyAdapter"}


def check_on_timeout(owner: str, value: object) -> None:
    """Refuse anything but the two."""
    if value not in get_args(OnTimeout):
        raise ConfigError(
            f"on_timeout of {owner} is {value!r}; it must be 'kill' or 'interrupt'", context={"field": "on_timeout"}
        )


@overload
def command(function: F, /) -> F: ...


@overload
def command(
    *,
    idempotent: bool = False,
    timeout: float | None = None,
    journal: str | bool | None = None,
    forgets: str | None = None,
    on_timeout: OnTimeout | None = None,
) -> Callable[[F], F]: ...


def command(
    function: F | None = None,
    /,
    *,
    idempotent: bool = False,
    timeout: float | None = None,
    journal: str | bool | None = None,
    forgets: str | None = None,
    on_timeout: OnTimeout | None = None,
) -> F | Callable[[F], F]:
    """Mark a method of an adapter as a command.

    Args:
        idempotent: whether doing it twice is harmless. If a worker dies with it, it is then tried
            again in another one.
        timeout: seconds a call of it has, above zero; default: what the pool says.
        journal: it leaves something behind in the worker that every other one needs as well. The
            application keeps the call, once it has succeeded, and repeats it in every worker before
            that one's next call. The name of an argument: one call is kept for each of its values,
            the latest. True: only the latest call is kept.
        forgets: the name of an argument: a success takes back what was kept for its value.
        on_timeout: what becomes of the worker when the time of a call is over, or its caller gone:
            "kill", or "interrupt" (see `PoolConfig.on_timeout`); default: what the pool says. A command
            with `journal` or `forgets` is never interrupted: half of it might stay behind.

    Raises:
        ConfigError: one of these is not as described, or the function is a coroutine or generator.
    """

    def mark(function: F) -> F:
        info = _declare(function, idempotent, timeout, journal, forgets, on_timeout)
        setattr(function, _MARK, info)
        return function

    return mark if function is None else mark(function)


def _declare(
    function: Callable[..., Any],
    idempotent: bool,
    timeout: float | None,
    journal: str | bool | None,
    forgets: str | None,
    on_timeout: str | None,
) -> CommandInfo:
    import inspect  # late: a worker that runs plain functions has no use for it, and it is a third of its start

    if not inspect.isfunction(function):
        raise ConfigError(f"@command is for methods written with def, and {function!r} is none; put it right above one")
    name = function.__name__
    if (
        inspect.iscoroutinefunction(function)
        or inspect.isgeneratorfunction(function)
        or inspect.isasyncgenfunction(function)
    ):
        raise ConfigError(
            f"the command {name!r} is a coroutine or generator; a worker runs one plain function at a time. "
            "Write it as such (it may call asyncio.run)"
        )
    if type(idempotent) is not bool:
        raise ConfigError(f"idempotent of the command {name!r} is {idempotent!r}; it must be True or False")
    if timeout is not None and not (type(timeout) in (int, float) and timeout > 0):
        raise ConfigError(f"timeout of the command {name!r} is {timeout!r}; it must be seconds above zero")
    if journal is not None and forgets is not None:
        raise ConfigError(f"the command {name!r} has both journal and forgets; it can leave something or take it back")
    if on_timeout is not None:
        check_on_timeout(f"the command {name!r}", on_timeout)
    if on_timeout == "interrupt" and (journal is not None or forgets is not None):
        raise ConfigError(
            f"the command {name!r} has {'journal' if forgets is None else 'forgets'} and on_timeout='interrupt'; "
            "half of what it leaves in its worker might stay behind. Drop one of the two"
        )
    arguments = list(inspect.signature(function).parameters.values())[1:]
    kinds = inspect.Parameter
    names = [each.name for each in arguments if each.kind not in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)]
    by_position = [each.name for each in arguments if each.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    key_at = None
    for option, value in (("journal", journal), ("forgets", forgets)):
        if isinstance(value, str):
            if value not in names:
                known = ", ".join(names) or "none"
                raise ConfigError(f"{option} of the command {name!r} is {value!r}; its arguments are: {known}")
            key_at = by_position.index(value) if value in by_position else None
        elif value is not None and not (option == "journal" and value is True):
            raise ConfigError(f"{option} of the command {name!r} is {value!r}; it must name an argument")
    return CommandInfo(name, idempotent, timeout, journal, forgets, key_at, on_timeout)


# ── In the application ──────────────────────────────────────────────────────────────────────────


def command_name(function: Callable[..., Any]) -> str:
    """The name of the command that this method is; raises ConfigError if it is none."""
    info = getattr(function, _MARK, None)
    if not isinstance(info, CommandInfo):
        raise ConfigError(
            f"{function!r} is not a command: pass the name of one, or a method of the adapter that is "
            "marked with @remuda.command"
        )
    return info.name


def reference_to(adapter: str | type) -> str:
    """How a worker finds this adapter.

    Raises:
        ConfigError: no worker could.
    """
    if isinstance(adapter, str):
        return adapter
    if not any(isinstance(value, CommandInfo) for value in _marks(adapter).values()):
        raise ConfigError(f"{adapter!r} has no commands; mark the methods to call with @remuda.command")
    if "<locals>" in adapter.__qualname__:
        raise ConfigError(
            f"{adapter!r} is defined inside a function, where no worker can find it; move it to the top of its module"
        )
    if adapter.__module__ == "__main__":
        try:
            functions.check_main(f"the adapter {adapter.__qualname__}")
        except SerializationError as error:
            raise ConfigError(error.message) from None
    return f"{adapter.__module__}:{adapter.__qualname__}"


# ── In the worker ───────────────────────────────────────────────────────────────────────────────


class Adapter:
    """An adapter that was loaded, as the worker's loop uses it.

    Attributes:
        commands: what is declared about each command.
    """

    def __init__(self, instance: object) -> None:
        self._instance = instance
        marks = _marks(type(instance))
        self.commands = [marks[name] for name in sorted(marks)]
        self._methods: dict[str, Callable[..., Any]] = {
            info.name: getattr(instance, attribute) for attribute, info in marks.items()
        }
        if not marks:
            raise ConfigError(f"{type(instance)!r} has no commands; mark the methods to call with @remuda.command")

    def setup(self, settings: dict[str, Any]) -> None:
        """Call its `setup`, if it has one."""
        setup = getattr(self._instance, "setup", None)
        if setup is not None:
            setup(settings)
        elif settings:
            raise ConfigError(
                f"{type(self._instance)!r} has no setup(settings), but the pool has settings for it: "
                f"{', '.join(sorted(settings))}. Add the method, or drop the settings"
            )

    def health(self) -> tuple[bool, str]:
        """Ask how it is: whether it is well, and why not. What it raises counts as "not well"."""
        health = getattr(self._instance, "health", None)
        if health is not None and health() is False:
            return False, "health() returned False"
        return True, ""

    def teardown(self) -> None:
        """Call its `teardown`, if it has one."""
        teardown = getattr(self._instance, "teardown", None)
        if teardown is not None:
            teardown()

    def method(self, name: str) -> Callable[..., Any]:
        """The method of a command; raises UnknownCommand."""
        method = self._methods.get(name)
        if method is None:
            known = ", ".join(sorted(self._methods))
            raise UnknownCommand(f"the adapter has no command {name!r}; it has: {known}")
        return method


def load(reference: str) -> Adapter:
    """Import an adapter's class and make one.

    Raises:
        ConfigError: there is none of that name.
        Exception: whatever its module or class raises.
    """
    return Adapter(adapter_class(reference)())


def adapter_class(reference: str) -> type:
    """Import an adapter's class; raises as `load` does."""
    target = reference if ":" in reference else _OURS.get(reference) or _registered(reference)
    found = functions.resolve(target)
    if not isinstance(found, type):
        raise ConfigError(f"the adapter {reference!r} is {found!r}; it must be a class")
    return found


def _registered(name: str) -> str:
    from importlib.metadata import entry_points  # late: it costs more than all the rest here

    points = entry_points(group=_GROUP)
    for point in points:
        if point.name == name:
            return str(point.value)
    known = ", ".join(sorted({*_OURS, *points.names}))
    raise ConfigError(
        f"no adapter is called {name!r}; there are: {known}. For one of your own write 'package.module:Class'"
    )


def _marks(cls: type) -> dict[str, CommandInfo]:
    """The commands of a class, by the name of the attribute."""
    import inspect  # late, as above

    marks = {}
    for name in dir(cls):
        info = getattr(inspect.getattr_static(cls, name, None), _MARK, None)
        if isinstance(info, CommandInfo):
            marks[name] = info
    return marks
