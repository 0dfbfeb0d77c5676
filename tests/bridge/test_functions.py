"""Plain functions by name: which ones have one, and that a worker finds the same under it."""

from __future__ import annotations

import functools
import math
import operator
import os
import re
import struct
import subprocess
import sys
import textwrap
from collections import OrderedDict
from enum import IntEnum
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from remuda.bridge import functions
from remuda.bridge.functions import dumps, loads, read_request, request, resolve
from remuda.statemachines.errors import ConfigError, SerializationError

from .talk import HANG


def double(value: int) -> int:
    return 2 * value


class Thing:
    """Something with methods of every kind."""

    def __init__(self, value: int) -> None:
        self.value = value

    def plus(self, other: int) -> int:
        return self.value + other

    @classmethod
    def make(cls, value: int) -> Thing:
        return cls(value)

    @staticmethod
    def twice(value: int) -> int:
        return 2 * value

    def __call__(self, value: int) -> int:
        return self.value * value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Thing) and self.value == other.value

    __hash__ = None  # type: ignore[assignment]

    class Inner:
        @staticmethod
        def triple(value: int) -> int:
            return 3 * value


class Colour(IntEnum):
    RED = 1


class Text(str):
    __slots__ = ()


class Meta(type):
    __hash__ = None  # type: ignore[assignment]


class Unhashable(metaclass=Meta):
    def __reduce__(self) -> Any:
        raise ValueError("it cannot be pickled")


def same(value: Any, _: Any) -> Any:
    return value


def msgpack(payload: Any) -> Any:
    """As it comes out of a message."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(payload))


def run(function: Any, *args: Any) -> Any:
    """What a worker makes of it, without one."""
    name, payload = request(function, args)
    positional, named = read_request(payload)
    return loads(dumps(resolve(name)(*positional, **named)), name)


# ── What has a name ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("function", "args", "result"),
    [
        (double, (4,), 8),
        (len, ([1, 2],), 2),
        (math.hypot, (3, 4), 5.0),
        (divmod, (7, 3), (2, 1)),
        (Thing, (3,), Thing(3)),
        (dict, ([("a", 1)],), {"a": 1}),
        (Thing.plus, (Thing(3), 4), 7),
        (Thing(3).plus, (4,), 7),
        (Thing(3), (4,), 12),
        (Thing.make, (3,), Thing(3)),
        (Thing.twice, (3,), 6),
        (Thing.Inner.triple, (3,), 9),
        ("a,b".split, (",",), ["a", "b"]),
        (str.upper, ("a",), "A"),
        (OrderedDict.fromkeys, (["a"],), OrderedDict(a=None)),
        (operator.itemgetter(1), ([1, 2],), 2),
        (functools.partial(double, 4), (), 8),
        (functools.partial(pow, exp=3), (2,), 8),
        (functools.partial(Thing(3).plus, 4), (), 7),
        (functools.partial(functools.partial(int, base=2), base=16), ("ff",), 255),
        (functools.partial(functools.partial(divmod, 7), 3), (), (2, 1)),
    ],
    ids=lambda value: re.sub(" at 0x[0-9a-f]+", "", repr(value)),
)
def test_what_has_a_name_is_found_by_it(function: Any, args: tuple[Any, ...], result: Any) -> None:
    assert run(function, *args) == result


SHORT = [
    None, True, False, 0, -1, 2**63 - 1, -(2**63), 0.0, -0.0, math.inf, 1e-320, b"", bytes(range(256)), b"x" * 4096,
    "", "a\0b", "~" * 4096,
]  # fmt: skip
LONG = [
    2**63,
    -(2**63) - 1,
    2**64,
    b"x" * 4097,
    "~" * 4097,
    "é",
    "\ud800",
    [1],
    (1,),
    {"a": 1},
    1j,
    Colour.RED,
    Text("a"),
]


@pytest.mark.parametrize("value", [*SHORT, *LONG], ids=lambda value: repr(value)[:20])
def test_what_is_short_goes_as_it_is_and_all_comes_as_it_was(value: Any) -> None:
    name, payload = request(same, (value, 1))
    assert (type(payload) is list) == (type(dumps(value)) is list) == any(value is one for one in SHORT)
    for through in (payload, msgpack(payload)):
        positional, named = read_request(through)
        assert [*positional] == [value, 1] and type(positional[0]) is type(value) and named == {}
        assert repr(positional[0]) == repr(value)
        found = loads(msgpack(dumps(value)), name)
        assert found == value and type(found) is type(value) and repr(found) == repr(value)


def test_what_is_not_a_number_comes_as_it_was() -> None:
    for bits in (0x7FF8000000000000, 0xFFF8000000000001, 0x7FF0000000000001):
        nan = struct.unpack("<d", bits.to_bytes(8, "little"))[0]
        assert struct.pack("<d", loads(msgpack(dumps(nan)), "f")) == struct.pack("<d", nan)


def test_a_long_argument_that_is_there_twice_is_sent_once() -> None:
    blob = bytes(100_000)
    _, payload = request(same, (blob, blob))
    assert len(payload) < 101_000
    first, second = read_request(payload)[0]
    assert first is second


def test_a_type_that_has_no_hash_is_no_trouble() -> None:
    with pytest.raises(SerializationError, match="cannot be pickled"):
        request(same, (Unhashable(), 1))
    with pytest.raises(SerializationError):
        dumps(Unhashable())


def test_the_name_is_module_and_path() -> None:
    assert request(os.path.join, ("a", "b"))[0] == "posixpath:join"
    assert request(len, ([],))[0] == "builtins:len"
    assert request(double, (1,))[0] == f"{__name__}:double"
    assert request(Thing(1).plus, (1,))[0] == "operator:call"


@given(
    st.lists(st.tuples(st.lists(st.integers(), max_size=3), st.dictionaries(st.sampled_from("abc"), st.integers()))),
    st.lists(st.integers(), max_size=3),
)
def test_partials_of_partials_mean_what_they_mean_here(
    layers: list[tuple[list[int], dict[str, int]]], last: list[int]
) -> None:
    function: Any = collect
    for position, (args, named) in enumerate(layers):
        function = functools.partial(function, *args, **named)
        function.layer = position  # one with attributes of its own is not merged into the next
    assert run(function, *last) == function(*last)


def collect(*args: int, **named: int) -> tuple[tuple[int, ...], dict[str, int]]:
    return args, named


# ── What has none ───────────────────────────────────────────────────────────────────────────────


def undressed(function: Any) -> Any:
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


@undressed
def decorated(value: int) -> int:
    return value


def replaced(value: int) -> int:
    return value


first_replaced = replaced


def replaced(value: int) -> int:  # type: ignore[no-redef]  # noqa: F811
    return -value


def dressed(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return 10 * function(*args)

    return wrapper


wrapped_double = dressed(double)


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda: None, "is a lambda"),
        (functools.partial(lambda value: value, 1), "is a lambda"),
        (undressed(double), "inside another function"),
        (decorated, "inside another function"),
        (first_replaced, "does not lead back to the function"),
        (wrapped_double, "does not lead back to the function"),
    ],
    ids=["lambda", "partial of a lambda", "closure", "decorated", "replaced", "wrapped under another name"],
)
def test_what_has_no_name_is_refused_with_advice(function: Any, why: str) -> None:
    with pytest.raises(SerializationError, match=why) as caught:
        request(function, (1,))
    assert "Define it at the top of a module" in str(caught.value)


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(SerializationError, match="7 cannot be called; pass a function"):
        request(7, ())  # type: ignore[arg-type]


def test_arguments_that_cannot_be_pickled_are_refused() -> None:
    with pytest.raises(SerializationError, match="arguments of 'builtins:len' cannot be pickled.*Pass plain data"):
        request(len, ([lambda: None],))
    with pytest.raises(SerializationError, match="cannot be pickled"):
        request(functools.partial(len, sys), ())
    endless: list[Any] = []
    for _ in range(100_000):
        endless = [endless]
    with pytest.raises(SerializationError, match="cannot be pickled"):
        request(len, (endless,))


class Vanishing:
    def __reduce__(self) -> Any:
        return resolve, ("no_such_module:thing",)


def test_a_result_that_cannot_be_rebuilt_here_says_why() -> None:
    with pytest.raises(SerializationError, match="the result of 'f' cannot be read here: ModuleNotFoundError"):
        loads(dumps(Vanishing()), "f")
    for junk in (b"junk", [], [1, 2], {}, 7, None):
        with pytest.raises(SerializationError, match="cannot be read here"):
            loads(junk, "f")  # type: ignore[arg-type]
    with pytest.raises(SerializationError, match="TypeError|AttributeError|PicklingError"):
        dumps(lambda: None)


@given(st.binary(max_size=30))
def test_a_junk_result_is_an_error_of_ours(junk: bytes) -> None:
    try:
        loads(junk.replace(b"c", b"K").replace(b"i", b"K"), "f")  # what would import something
    except SerializationError:
        pass


@pytest.mark.parametrize("reference", ["", ":", "os", "os:", ":getcwd", "os:nothing", "os:path.nothing"])
def test_a_reference_that_names_nothing(reference: str) -> None:
    with pytest.raises(ConfigError):
        resolve(reference)


# ── The running script ──────────────────────────────────────────────────────────────────────────

PREAMBLE = """
import os, sys
import trio
from remuda.runtime.config import PoolConfig
from remuda.runtime.opening import open_pool
with open(os.environ["LOADED"], "a") as file:
    print(__name__, os.getpid(), file=file)
CONFIG = PoolConfig(min_workers=1, max_workers=1, shutdown_timeout=10)
"""

SCRIPT = (
    PREAMBLE
    + """
class Point:
    def __init__(self, x, y):
        self.x, self.y = x, y
    def moved(self, by):
        return Point(self.x + by.x, self.y + by.y)
    class Kind:
        pass

class Trouble(Exception):
    pass

LOADS = 0
def count():
    global LOADS
    LOADS += 1
    return LOADS

def kind_of(value):
    assert isinstance(value, Point.Kind), type(value)
    return value

def fail():
    raise Trouble("of the script")

async def main():
    async with open_pool(CONFIG) as pool:
        moved = await pool.run_sync(Point(1, 2).moved, Point(3, 4))
        assert type(moved) is Point, type(moved)
        assert (moved.x, moved.y) == (4, 6)
        assert type(await pool.run_sync(Point, 1, 2)) is Point
        assert type(await pool.run_sync(kind_of, Point.Kind())) is Point.Kind
        assert [await pool.run_sync(count) for _ in range(3)] == [1, 2, 3]
        assert await pool.run_sync(os.getpid) != os.getpid()
        try:
            await pool.run_sync(fail)
        except Exception as error:
            assert str(error) == "__remuda_main__.Trouble: of the script", error
        else:
            raise AssertionError
    print("well")

if __name__ == "__main__":
    trio.run(main)
"""
)

NO_GUARD = (
    PREAMBLE
    + """
def double(value):
    return 2 * value

async def main():
    async with open_pool(CONFIG) as pool:
        print(await pool.run_sync(double, 4))

START
"""
)


def script(
    tmp_path: Path, *command: str, stdin: str | None = None
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run Python; what it did, and who loaded the script."""
    loaded = tmp_path / "loaded"
    done = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "LOADED": str(loaded)},
        cwd=tmp_path,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    return done, [line.split()[0] for line in loaded.read_text().splitlines()]


@pytest.mark.parametrize("how", ["script", "module", "package", "folder"])
def test_what_a_script_defines_is_found_by_its_workers(tmp_path: Path, how: str) -> None:
    package = tmp_path / "pkg"
    package.mkdir()
    (package / "__init__.py").touch()
    for name in ("mod", "__main__"):
        (package / f"{name}.py").write_text(SCRIPT)
    command = {
        "script": ["pkg/mod.py"],
        "module": ["-m", "pkg.mod"],
        "package": ["-m", "pkg"],
        "folder": ["pkg"],
    }[how]
    done, loaded = script(tmp_path, *command)
    assert (done.returncode, done.stdout) == (0, "well\n"), done.stderr
    assert loaded == ["__main__", "__remuda_main__"], "once here, once in the worker"


@pytest.mark.parametrize(
    "start",
    [
        "trio.run(main)",
        "try:\n    trio.run(main)\nexcept Exception as error:\n    print(error)\n    sys.exit(1)",
        "try:\n    trio.run(main)\nexcept BaseException as error:\n    print(error)",
    ],
    ids=["plain", "exit", "swallowed"],
)
@pytest.mark.parametrize("how", ["script", "module"])
def test_a_script_without_a_guard_is_told_so_and_starts_no_more(tmp_path: Path, start: str, how: str) -> None:
    (tmp_path / "unguarded.py").write_text(NO_GUARD.replace("START", start))
    done, loaded = script(tmp_path, *(["unguarded.py"] if how == "script" else ["-m", "unguarded"]))
    assert "the script opens a pool when it is loaded, and every worker loads it" in done.stderr + done.stdout
    assert 'if __name__ == "__main__":' in done.stderr + done.stdout
    assert loaded == ["__main__", "__remuda_main__"]
    assert "8" not in done.stdout


@pytest.mark.parametrize("how", ["stdin", "-c"])
def test_a_script_that_is_nowhere_is_told_so(tmp_path: Path, how: str) -> None:
    content = NO_GUARD.replace("START", 'if __name__ == "__main__":\n    trio.run(main)')
    command = ["-"] if how == "stdin" else ["-c", content]
    done, loaded = script(tmp_path, *command, stdin=content if how == "stdin" else None)
    assert done.returncode == 1
    assert "double was typed at a prompt or read from standard input" in done.stderr
    assert "Put it into a module and import it" in done.stderr
    assert loaded == ["__main__"]


def test_what_others_define_can_be_called_from_a_script_that_is_nowhere(tmp_path: Path) -> None:
    content = NO_GUARD.replace("START", "trio.run(main)").replace("double, 4", "abs, -4")
    done, loaded = script(tmp_path, "-", stdin=content)
    assert (done.returncode, done.stdout) == (0, "4\n"), done.stderr
    assert loaded == ["__main__"]


def test_a_script_that_fails_to_load_in_a_worker_says_why(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(
        textwrap.dedent("""
            if __name__ != "__main__":
                raise LookupError("only here")
        """)
        + NO_GUARD.replace("START", 'if __name__ == "__main__":\n    trio.run(main)')
    )
    done, loaded = script(tmp_path, "broken.py")
    assert done.returncode == 1
    assert "LookupError: only here" in done.stderr
    assert loaded == ["__main__"]


def test_pools_are_refused_only_while_a_script_is_being_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    functions.refuse_inside_main_load()
    monkeypatch.setattr(functions._Main, "loading", True)
    monkeypatch.setattr(functions._Main, "refused", False)
    with pytest.raises(ConfigError, match="opens a pool when it is loaded"):
        functions.refuse_inside_main_load()
