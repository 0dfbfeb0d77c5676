"""A wrong setting is an error where it is made, and says which field, which value, and what is allowed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from remuda.runtime.config import Breaker, Health, Limits, PoolConfig, Restart, Retry
from remuda.runtime.opening import open_pool
from remuda.specs.simulated import SimLauncher
from remuda.statemachines.errors import ConfigError

WRONG: list[tuple[str, Any, str]] = [
    *[("name", value, "a text that is not empty") for value in ("", 3, None, b"pool")],
    *[("adapter", value, "a class, or None") for value in ("", 3, b"x:Y")],
    *[("settings", value, "a dict with text keys") for value in (None, [], {1: 2})],
    *[("env", value, "a dict of texts") for value in (None, {"A": 1}, {"": "a"}, {"A=B": "c"}, {"A": "\0"}, {1: "a"})],
    *[("min_workers", value, "a whole number from 1 to ") for value in (0, -1, 1.0, "1", True, None, 3)],
    *[("max_workers", value, "a whole number of at least 1") for value in (0, -1, 2.0, math.inf, "2", False)],
    *[("overflow", value, "at least 0") for value in (-1, 0.5, None)],
    *[("start_concurrency", value, "at least 1") for value in (0, 1.5)],
    *[("max_waiting", value, "at least 0") for value in (-1, math.inf)],
    *[("start_method", value, "'forkserver', 'spawn', or None") for value in ("fork", "", 3, True)],
    *[("preload", value, "a list of module names") for value in ("json", None, [1], [""], {"json": 1})],
    *[("history", value, "at least 0") for value in (-1, None)],
    *[("max_frame_bytes", value, "from 1024 to 4294967295") for value in (0, 1023, 2**32, 4096.0)],
    *[("overflow_linger", value, "zero or more and finite") for value in (-1, math.nan, math.inf, "1", True)],
    *[("init_timeout", value, "more than zero and finite") for value in (0, -1, math.nan, math.inf, "1")],
    *[("call_timeout", value, "more than zero") for value in (0, -1, math.nan, None, 10**400)],
    *[("checkout_timeout", value, "zero or more") for value in (-1, math.nan, "1")],
    *[("shutdown_timeout", value, "more than zero and finite") for value in (0, math.inf)],
    *[("session_ttl", value, "more than zero and finite") for value in (0, math.inf)],
    *[("cwd", value, "a directory that exists, or None") for value in ("", 3, "/no/such/place", __file__, "\0", b"/")],
    ("health", {}, "a remuda.Health"),
    ("restart", None, "a remuda.Restart"),
    ("retry", Restart(), "a remuda.Retry"),
    ("breaker", 5, "a remuda.Breaker"),
    ("limits", None, "a remuda.Limits"),
]
WRONG_PARTS: list[tuple[type, str, Any]] = [
    *[(Health, "interval", value) for value in (0, -1, math.nan, "1")],
    *[(Health, "timeout", value) for value in (0, math.inf)],
    *[(Health, "failures", value) for value in (0, 1.5)],
    *[(Health, "recheck", value) for value in (0, math.inf)],
    *[(Restart, "base", value) for value in (0, math.inf)],
    *[(Restart, "cap", value) for value in (0, math.nan)],
    *[(Restart, "burst", value) for value in (0, True)],
    *[(Restart, "period", value) for value in (0, -1)],
    *[(Retry, "attempts", value) for value in (0, 2.0)],
    *[(Retry, "base", value) for value in (-1, math.inf)],
    *[(Retry, "cap", value) for value in (-1, math.inf)],
    *[(Retry, "handovers", value) for value in (-1, None)],
    *[(Breaker, "failures", value) for value in (0, math.inf)],
    *[(Breaker, "probes", value) for value in (0,)],
    *[(Breaker, "open_for", value) for value in (0, math.inf)],
    *[(Limits, "memory", value) for value in (0, -1, 64 * 1024 * 1024 - 1, 1e9, math.inf, "1G", True, 2**63)],
    *[(Limits, "cpu", value) for value in (0, -1, 1.5, math.inf, True)],
    *[(Limits, "files", value) for value in (0, 31, 2**31, 100.0)],
    *[(Limits, "nice", value) for value in (-1, 20, 1.0, True)],
]


def build(name: str, value: Any) -> PoolConfig:
    fields: dict[str, Any] = {"max_workers": 2, name: value}
    return PoolConfig(**fields)


@pytest.mark.parametrize(("name", "value", "allowed"), WRONG)
def test_a_wrong_value(name: str, value: Any, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(name, value)
    text = str(caught.value)
    assert text.startswith(f"PoolConfig.{name} is {value!r}; it must be ") and allowed in text
    assert caught.value.context == {"field": name}
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(("part", "name", "value"), WRONG_PARTS)
def test_a_wrong_value_in_a_part(part: Any, name: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        part(**{name: value})
    assert str(caught.value).startswith(f"{part.__name__}.{name} is {value!r}; it must be ")
    assert caught.value.context == {"field": name}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("min_workers", 2),
        ("overflow", 0),
        ("max_waiting", 0),
        ("history", 0),
        ("max_frame_bytes", 1024),
        ("max_frame_bytes", 2**32 - 1),
        ("overflow_linger", 0),
        ("call_timeout", math.inf),
        ("checkout_timeout", 0),
        ("checkout_timeout", math.inf),
        ("session_ttl", 0.001),
        ("adapter", "package.module:Class"),
        ("adapter", PoolConfig),
        ("adapter", None),
        ("env", {"A": "", "B": "x=y"}),
        ("settings", {"a": [1, {"b": None}]}),
        ("health", Health(interval=math.inf)),
        ("limits", Limits(memory=64 * 1024 * 1024, cpu=1, files=32, nice=0)),
        ("limits", Limits(memory=2**62, cpu=2**31, files=2**31 - 1, nice=19)),
        ("cwd", "/"),
        ("cwd", "."),
    ],
)
def test_the_edges_of_what_is_allowed(name: str, value: Any) -> None:
    config = build(name, value)
    assert getattr(config, name) == value
    assert config.policy.max_workers == 2


def test_the_defaults_fit_each_other() -> None:
    config = PoolConfig()
    assert 1 <= config.min_workers <= config.max_workers
    assert config.policy.min_workers == config.min_workers


def test_it_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        PoolConfig().name = "other"  # type: ignore[misc]


@pytest.mark.parametrize("fields", [{"max_worker": 2}, {"timeout": 3}])
async def test_an_unknown_field(fields: dict[str, Any]) -> None:
    (name,) = fields
    with pytest.raises(ConfigError, match=f"has no field '{name}'; it has: name, adapter"):
        async with open_pool(**fields):
            pass
    with pytest.raises(ConfigError, match="configuration is 'dspy'"):
        async with open_pool("dspy"):  # type: ignore[arg-type]
            pass


# ── From mappings, files and the environment ────────────────────────────────────────────────────


def test_from_a_mapping() -> None:
    values = {"name": "tea", "max_workers": 3, "health": {"interval": 5}, "settings": {"model": "x"}}
    config = PoolConfig.from_mapping(values)
    assert config == PoolConfig(name="tea", max_workers=3, health=Health(interval=5), settings={"model": "x"})


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"max_worker": 3}, "max_worker"),
        ({"max_workers": "3"}, "max_workers"),
        ({"max_workers": 0}, "PoolConfig.max_workers is 0"),
        ({"health": {"interval": -5}}, "Health.interval is -5"),
        ({"health": {"intervall": 5}}, "intervall"),
        ({"breaker": 5}, "breaker"),
        ({"limits": {"memory": "1G"}}, "limits: Expected `int | null`, got `str`"),
        ({"limits": {"memory": 1000}}, "Limits.memory is 1000; it must be a whole number from 67108864 to "),
        ({"limits": {"processes": 1}}, "processes"),
        ({"cwd": "/no/such/place"}, "PoolConfig.cwd is '/no/such/place'"),
    ],
)
def test_from_a_wrong_mapping(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match="in the mapping: ") as caught:
        PoolConfig.from_mapping(values)
    assert says in str(caught.value)


def test_from_toml(tmp_path: Path) -> None:
    path = tmp_path / "pools.toml"
    path.write_text(
        """
        [pool]
        adapter = "dspy"
        max_workers = 4
        call_timeout = inf
        env = { OMP_NUM_THREADS = "1" }
        cwd = "/"
        [pool.breaker]
        failures = 9
        [pool.limits]
        memory = 1_000_000_000
        nice = 10
        [tea]
        name = "tea"
        """
    )
    config = PoolConfig.from_toml(path)
    assert (config.adapter, config.max_workers, config.call_timeout) == ("dspy", 4, math.inf)
    assert config.breaker == Breaker(failures=9) and config.env == {"OMP_NUM_THREADS": "1"}
    assert config.limits == Limits(memory=1_000_000_000, nice=10) and config.cwd == "/"
    assert PoolConfig.from_toml(str(path), "tea").name == "tea"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[pool", "is not valid TOML"),
        ("[tea]\n", r"has no table \[pool\]"),
        ("pool = 3\n", r"has no table \[pool\]"),
        ("[pool]\nmax_workers = 0\n", r"in \[pool\] of .*pools.toml: PoolConfig.max_workers is 0"),
        ("[pool]\nmax_workers = 1.5\n", "max_workers"),
        ("[pool]\nhealth.intervall = 1\n", "intervall"),
    ],
)
def test_from_wrong_toml(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "pools.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says):
        PoolConfig.from_toml(path)


def test_from_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "pools.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not valid TOML"):
        PoolConfig.from_toml(path)
    with pytest.raises(FileNotFoundError):
        PoolConfig.from_toml(tmp_path / "nothing.toml")


def test_from_the_environment() -> None:
    environ = {
        "PATH": "/bin",
        "REMUDA_NAME": "tea",
        "REMUDA_ADAPTER": "x:Y",
        "REMUDA_MAX_WORKERS": "7",
        "REMUDA_CALL_TIMEOUT": "2.5",
        "REMUDA_HEALTH_INTERVAL": "9",
        "REMUDA_BREAKER_OPEN_FOR": "3",
        "REMUDA_HEALTH_FAILURES": "2",
        "REMUDA_CWD": "/",
        "REMUDA_LIMITS_MEMORY": "1000000000",
        "REMUDA_LIMITS_CPU": "60",
    }
    config = PoolConfig.from_env(environ)
    assert (config.name, config.adapter, config.max_workers, config.call_timeout) == ("tea", "x:Y", 7, 2.5)
    assert config.health == Health(interval=9.0, failures=2)
    assert config.breaker == Breaker(open_for=3.0)
    assert config.limits == Limits(memory=1_000_000_000, cpu=60) and config.cwd == "/"
    assert PoolConfig.from_env({"REMUDA_CALL_TIMEOUT": "0.5"}, PoolConfig(call_timeout=60)).call_timeout == 0.5
    base = PoolConfig(name="base", retry=Retry(attempts=7))
    assert PoolConfig.from_env({"REMUDA_RETRY_CAP": "2"}, base).retry == Retry(attempts=7, cap=2.0)
    assert PoolConfig.from_env({}, base) == base


@pytest.mark.parametrize(
    ("variable", "text", "says"),
    [
        ("REMUDA_MAX_WORKER", "2", "REMUDA_MAX_WORKER names no setting"),
        ("REMUDA_SETTINGS", "{}", "REMUDA_SETTINGS names no setting"),
        ("REMUDA_HEALTH", "5", "REMUDA_HEALTH names no setting"),
        ("REMUDA_HEALTH_INTERVALL", "5", "names no setting"),
        ("REMUDA_MAX_WORKERS", "two", "REMUDA_MAX_WORKERS is 'two'; it must be a whole number"),
        ("REMUDA_MAX_WORKERS", "2.0", "must be a whole number"),
        ("REMUDA_CALL_TIMEOUT", "soon", "must be a number"),
        ("REMUDA_MAX_WORKERS", "0", "PoolConfig.max_workers is 0"),
        ("REMUDA_CALL_TIMEOUT", "nan", "PoolConfig.call_timeout is nan"),
        ("REMUDA_HEALTH_INTERVAL", "-1", "Health.interval is -1.0"),
        ("REMUDA_NAME", "", "PoolConfig.name is ''"),
        ("REMUDA_CWD", "/no/such/place", "PoolConfig.cwd is '/no/such/place'"),
        ("REMUDA_LIMITS_MEMORY", "1G", "REMUDA_LIMITS_MEMORY is '1G'; it must be a whole number"),
        ("REMUDA_LIMITS_NICE", "20", "Limits.nice is 20; it must be a whole number from 0 to 19"),
        ("REMUDA_LIMITS", "5", "REMUDA_LIMITS names no setting"),
        ("REMUDA_START_METHOD", "fork", "PoolConfig.start_method is 'fork'; it must be 'forkserver', 'spawn', or None"),
    ],
)
def test_from_a_wrong_environment(variable: str, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        PoolConfig.from_env({variable: text})


def test_how_workers_start_can_be_said_in_every_way(tmp_path: Path) -> None:
    path = tmp_path / "pools.toml"
    path.write_text('[pool]\nstart_method = "spawn"\npreload = ["json", "a.b"]\n')
    config = PoolConfig.from_toml(path)
    assert (config.start_method, config.preload) == ("spawn", ("json", "a.b"))
    environ = {"REMUDA_START_METHOD": "forkserver", "REMUDA_PRELOAD": "csv, a.b,"}
    config = PoolConfig.from_env(environ, config)
    assert (config.start_method, config.preload) == ("forkserver", ("csv", "a.b"))
    assert PoolConfig.from_env({"REMUDA_PRELOAD": ""}, config).preload == ()
    assert (PoolConfig().start_method, PoolConfig().preload) == (None, ())
    assert hash(PoolConfig(preload=["json"]).preload), "it is a value, whatever it was made from"  # type: ignore[arg-type]


async def test_fields_override_the_configuration(simulation: Any, autojump_clock: Any) -> None:
    config = PoolConfig(name="tea", adapter="x:Y", max_workers=2, call_timeout=5)
    async with SimLauncher.open() as launcher:
        async with open_pool(config, launcher=launcher, call_timeout=7) as pool:
            assert (pool.config.name, pool.config.call_timeout, pool.config.max_workers) == ("tea", 7, 2)
        with pytest.raises(ConfigError, match="min_workers"):
            async with open_pool(config, launcher=launcher, min_workers=3):
                pass
