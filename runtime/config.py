"""What a pool is told, checked before anything starts.

A `PoolConfig` is a frozen value. Making one checks every field: a wrong value is a `ConfigError`
that names the field, the value and what is allowed, whether it came from code, from a TOML file or
from the environment. The defaults suit a container: the number of workers is what its control group
grants, not what the host has.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec

from remuda.runtime.cgroup import cpus
from remuda.runtime.limits import Limits
from remuda.statemachines.errors import ConfigError
from remuda.statemachines.policy import Breaker, Health, Policy, Restart, Retry, check_int, check_seconds

__all__ = ["Breaker", "Health", "Limits", "PoolConfig", "Restart", "Retry"]

_MIB = 1024 * 1024
_PREFIX = "REMUDA_"
_OURS = "REMUDA_WORKER"
"""By which a worker's processes are known; a pool may be opened in one of them."""
_PARTS: dict[str, type[msgspec.Struct]] = {
    "health": Health,
    "restart": Restart,
    "retry": Retry,
    "breaker": Breaker,
    "limits": Limits,
}


class PoolConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of one pool.

    Args:
        name: what logs, errors and snapshots call it.
        adapter: what runs in the workers: "dspy", "package.module:Class", the name of an installed
            adapter (entry point group `remuda.adapters`), or the class itself. None makes a pool
            for plain functions.
        settings: what the adapter's `setup` gets, in every worker. Plain data.
        min_workers: workers that are always there, at least 1. The pool is ready when they are.
        max_workers: workers at most, default: the CPUs that the control group grants. Those beyond
            `min_workers` start when callers wait.
        overflow: workers beyond `max_workers` for a peak.
        overflow_linger: seconds an overflow worker stays without work.
        spares: workers beyond those, kept ready but without work. When a worker is lost one takes its
            place at once, and the next spare is started.
        start_method: "forkserver": workers are forked from a template process that has imported the
            adapter already, which takes milliseconds and little memory; where forking would be unsafe
            they are spawned. "spawn": each worker is a fresh interpreter. None: "forkserver" where the
            system has what it needs (Linux), else "spawn".
        preload: modules that the template imports beside the adapter.
        start_concurrency: workers that start at the same time, default: the CPUs.
        max_waiting: callers that may wait for a worker; one more gets `PoolFull`.
        init_timeout: seconds a worker has to start, import and set up. After that it has, for each
            entry of the journal that it repeats, the time of a call.
        call_timeout: seconds a call has for everything (waiting, running, every attempt), unless
            the call or its command says otherwise; infinity for none.
        checkout_timeout: seconds that `checkout` waits for a worker; infinity for no limit.
        shutdown_timeout: seconds that closing takes at most, whatever the workers do.
        session_ttl: seconds since its last use that a session keeps its preferred worker.
        on_timeout: what becomes of a worker when the time of its call is over, or its caller has left, unless
            the call or its command says otherwise. "kill": it is killed, and another one takes its place.
            "interrupt": `remuda.Interrupted` is raised in the call; a worker that answers to that is kept,
            and `CallTimeout` says where it was. Commands with a journal are not interrupted.
        interrupt_grace: seconds that an interrupted worker has to answer, before it is killed.
        max_frame_bytes: the largest message in either direction, from 1 KiB up to 4 GiB - 1.
        env: added to the environment of the workers.
        cwd: the working directory of the workers, default: the application's when the pool is opened.
        history: steps that each worker and slot remembers; and each call, where a `Watcher` could look at it.
        health, restart, retry, breaker, limits: see their classes.

    Raises:
        ConfigError: a value is not allowed.
    """

    name: str = "pool"
    adapter: str | type | None = None
    settings: dict[str, Any] = {}
    min_workers: int = 1
    max_workers: int = msgspec.field(default_factory=cpus)
    overflow: int = 0
    overflow_linger: float = 10.0
    spares: int = 0
    start_method: str | None = None
    preload: tuple[str, ...] = ()
    start_concurrency: int = msgspec.field(default_factory=cpus)
    max_waiting: int = 1000
    init_timeout: float = 60.0
    call_timeout: float = 60.0
    checkout_timeout: float = 5.0
    shutdown_timeout: float = 10.0
    session_ttl: float = 300.0
    on_timeout: Literal["kill", "interrupt"] = "kill"
    interrupt_grace: float = 1.0
    max_frame_bytes: int = 64 * _MIB
    env: dict[str, str] = {}
    cwd: str | None = None
    history: int = 16
    health: Health = Health()
    restart: Restart = Restart()
    retry: Retry = Retry()
    breaker: Breaker = Breaker()
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        own = "PoolConfig"
        if not isinstance(self.name, str) or not self.name:
            raise _wrong("name", self.name, "a text that is not empty")
        if not (self.adapter is None or isinstance(self.adapter, type) or _is_text(self.adapter)):
            raise _wrong("adapter", self.adapter, "a name, 'package.module:Class', a class, or None")
        if not isinstance(self.settings, dict) or not all(isinstance(key, str) for key in self.settings):
            raise _wrong("settings", self.settings, "a dict with text keys")
        if not isinstance(self.env, dict) or not all(
            _is_text(key) and "=" not in key and isinstance(value, str) and _is_for_the_system(key + value)
            for key, value in self.env.items()
        ):
            raise _wrong("env", self.env, "a dict of texts that the system can encode, without '=' in a name or NUL")
        if self.cwd is not None and not (
            _is_text(self.cwd) and _is_for_the_system(self.cwd) and os.path.isdir(self.cwd)
        ):
            raise _wrong("cwd", self.cwd, "the path of a directory that exists, or None")
        check_int(own, "max_workers", self.max_workers, 1)
        check_int(own, "min_workers", self.min_workers, 1, self.max_workers)
        check_int(own, "overflow", self.overflow, 0)
        check_seconds(own, "overflow_linger", self.overflow_linger, zero=True)
        check_int(own, "spares", self.spares, 0)
        if self.start_method not in (None, "forkserver", "spawn"):
            raise _wrong("start_method", self.start_method, "'forkserver', 'spawn', or None")
        if not isinstance(self.preload, tuple | list) or not all(_is_text(name) for name in self.preload):
            raise _wrong("preload", self.preload, "a list of module names")
        msgspec.structs.force_setattr(self, "preload", tuple(self.preload))  # files have lists
        check_int(own, "start_concurrency", self.start_concurrency, 1)
        check_int(own, "max_waiting", self.max_waiting, 0)
        check_seconds(own, "init_timeout", self.init_timeout)
        check_seconds(own, "call_timeout", self.call_timeout, endless=True)
        check_seconds(own, "checkout_timeout", self.checkout_timeout, zero=True, endless=True)
        check_seconds(own, "shutdown_timeout", self.shutdown_timeout)
        check_seconds(own, "session_ttl", self.session_ttl)
        if self.on_timeout not in ("kill", "interrupt"):
            raise _wrong("on_timeout", self.on_timeout, "'kill' or 'interrupt'")
        check_seconds(own, "interrupt_grace", self.interrupt_grace)
        check_int(own, "max_frame_bytes", self.max_frame_bytes, 1024, 2**32 - 1)
        check_int(own, "history", self.history, 0)
        for name, kind in _PARTS.items():
            if not isinstance(getattr(self, name), kind):
                raise _wrong(name, getattr(self, name), f"a remuda.{kind.__name__}")

    @property
    def policy(self) -> Policy:
        """The part of the settings by which the core decides."""
        return Policy(
            min_workers=self.min_workers,
            max_workers=self.max_workers,
            overflow=self.overflow,
            linger=self.overflow_linger,
            spares=self.spares,
            max_starting=self.start_concurrency,
            max_waiting=self.max_waiting,
            init_timeout=self.init_timeout,
            shutdown_timeout=self.shutdown_timeout,
            session_ttl=self.session_ttl,
            interrupt_grace=self.interrupt_grace,
            health=self.health,
            restart=self.restart,
            retry=self.retry,
            breaker=self.breaker,
            history=self.history,
        )

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], *, source: str = "the mapping") -> PoolConfig:
        """Make one from plain data, such as a parsed file.

        Args:
            values: fields by name; `health`, `restart`, `retry`, `breaker` and `limits` as mappings.
            source: what errors call the origin.

        Raises:
            ConfigError: a field is unknown, of the wrong type, or not allowed.
        """
        fields: dict[str, Any] = dict(values)
        unknown = sorted((key for key in fields if key not in cls.__struct_fields__), key=str)
        if unknown:
            known = ", ".join(cls.__struct_fields__)
            raise ConfigError(
                f"in {source}: PoolConfig has no field {unknown[0]!r}; it has: {known}",
                context={"field": unknown[0]},
            )
        try:
            for name, kind in _PARTS.items():
                if name in fields:
                    fields[name] = _part(name, kind, fields[name])
            return cls(**fields)  # which checks the rest (msgspec cannot convert to `str | type`)
        except ConfigError as error:
            raise ConfigError(f"in {source}: {error.message}", context=error.context) from None

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str], table: str = "pool") -> PoolConfig:
        """Read the table `[pool]` (or another one) of a TOML file.

        Raises:
            ConfigError: the file has no such table, or a value is not allowed.
            OSError: the file cannot be read.
        """
        import tomllib  # late: most pools are not made from files

        try:
            document = tomllib.loads(Path(path).read_text("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{os.fspath(path)} is not valid TOML: {error}") from None
        found = document.get(table)
        if not isinstance(found, dict):
            raise ConfigError(f"{os.fspath(path)} has no table [{table}]; put the settings of the pool there")
        return cls.from_mapping(found, source=f"[{table}] of {os.fspath(path)}")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, base: PoolConfig | None = None) -> PoolConfig:
        """Override a configuration with variables.

        `REMUDA_MAX_WORKERS=4` sets `max_workers`, `REMUDA_HEALTH_INTERVAL=10` the `interval` of
        `health`, `REMUDA_PRELOAD=json,csv` a list; `settings` and `env` cannot be set this way. A
        `REMUDA_` variable that names no field is refused, so that a typing error is not silence.

        Args:
            environ: the variables, default `os.environ`.
            base: what is overridden, default `PoolConfig()`.

        Raises:
            ConfigError: a variable names no field, or its value is not allowed.
        """
        environ = os.environ if environ is None else environ
        base = cls() if base is None else base
        changes: dict[str, Any] = {}
        for variable, text in environ.items():
            if variable.startswith(_PREFIX) and not (variable.startswith("REMUDA_TEST_") or variable == _OURS):
                _set(changes, base, variable, text)
        for name, part in list(changes.items()):
            if isinstance(part, dict):
                changes[name] = msgspec.structs.replace(getattr(base, name), **part)
        return msgspec.structs.replace(base, **changes)


def _part(name: str, kind: type[msgspec.Struct], value: object) -> msgspec.Struct:
    try:
        return msgspec.convert(value, kind, strict=True)
    except msgspec.ValidationError as error:
        cause = error.__cause__
        if isinstance(cause, ConfigError):
            raise cause from None
        raise ConfigError(f"{name}: {error}", context={"field": name}) from None


def _set(changes: dict[str, Any], base: PoolConfig, variable: str, text: str) -> None:
    name = variable.removeprefix(_PREFIX).lower()
    if name in PoolConfig.__struct_fields__ and name not in ("settings", "env", *_PARTS):
        changes[name] = _parsed(variable, text, PoolConfig, name)
        return
    part, _, field = name.partition("_")
    if part in _PARTS:
        kind = _PARTS[part]
        if field in kind.__struct_fields__:
            changes.setdefault(part, {})[field] = _parsed(variable, text, kind, field)
            return
    raise ConfigError(f"{variable} names no setting of a pool; unset it, or see PoolConfig for the names")


def _parsed(variable: str, text: str, owner: type[msgspec.Struct], field: str) -> object:
    (declared,) = (each.type for each in msgspec.structs.fields(owner) if each.name == field)
    if get_origin(declared) is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    kinds = get_args(declared) or (declared,)  # those of `int | None`
    try:
        if int in kinds:
            return int(text)
        return float(text) if float in kinds else text
    except ValueError:
        kind = "a whole number" if int in kinds else "a number"
        raise ConfigError(f"{variable} is {text!r}; it must be {kind}") from None


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_for_the_system(text: str) -> bool:
    """Whether the operating system can be given this text."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def _wrong(name: str, value: object, allowed: str) -> ConfigError:
    return ConfigError(f"PoolConfig.{name} is {value!r}; it must be {allowed}", context={"field": name})
