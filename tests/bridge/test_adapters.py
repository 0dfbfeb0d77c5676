"""Adapters: what can be declared, what is refused, and how a worker finds one by name."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from remuda.bridge.adapters import Adapter, command, command_name, load, reference_to
from remuda.bridge.functions import resolve
from remuda.bridge.messages import CommandInfo
from remuda.statemachines.errors import ConfigError, UnknownCommand

from .talk import HANG


class Sentiment:
    def __init__(self) -> None:
        self.done: list[Any] = []

    def setup(self, settings: dict[str, Any]) -> None:
        self.done.append(settings)

    def teardown(self) -> None:
        self.done.append("down")

    @command
    def classify(self, text: str) -> str:
        return text.upper()

    @command(idempotent=True, timeout=30)
    def score(self, text: str) -> int:
        return len(text)

    @command(journal="name")
    def learn(self, text: str, /, name: str, *more: str, weight: int = 1, **rest: int) -> None: ...

    @command(journal="weight")
    def weigh(self, *more: str, weight: int = 1) -> None: ...

    @command(forgets="name")
    def unlearn(self, name: str) -> None: ...

    @command(journal=True)
    def configure(self, settings: dict[str, Any]) -> None: ...

    def internal(self) -> None: ...

    def health(self) -> bool | None:
        return {"false": False, "none": None, "true": True}[self.done[-1]["health"]]


class Derived(Sentiment):
    def classify(self, text: str) -> str:  # not marked: it is no command any more
        return text

    @command
    def score(self, text: str) -> int:
        return -1


class Empty:
    def classify(self, text: str) -> str:
        return text


class Outer:
    class Inner:
        @command
        def one(self) -> int:
            return 1


# ── Declarations ────────────────────────────────────────────────────────────────────────────────


def test_what_is_declared_is_what_a_worker_tells() -> None:
    assert Adapter(Sentiment()).commands == [
        CommandInfo("classify"),
        CommandInfo("configure", journal=True),
        CommandInfo("learn", journal="name", key_at=1),
        CommandInfo("score", idempotent=True, timeout=30),
        CommandInfo("unlearn", forgets="name", key_at=0),
        CommandInfo("weigh", journal="weight", key_at=None),
    ]


def test_a_marked_method_is_still_that_method() -> None:
    assert Sentiment().classify("a") == "A"
    assert command_name(Sentiment.classify) == command_name(Sentiment().classify) == "classify"


def test_only_what_a_class_itself_marks_is_a_command() -> None:
    adapter = Adapter(Derived())
    assert "classify" not in [info.name for info in adapter.commands]
    assert adapter.method("score")("x") == -1
    assert CommandInfo("score") in adapter.commands


def plain(self: object, name: str, *more: int, other: int = 0, **rest: int) -> None: ...


async def coroutine(self: object) -> None: ...


def generator(self: object) -> Any:
    yield 1


async def async_generator(self: object) -> Any:
    yield 1


@pytest.mark.parametrize(
    ("function", "options", "why"),
    [
        (coroutine, {}, "'coroutine' is a coroutine or generator"),
        (generator, {}, "'generator' is a coroutine or generator"),
        (async_generator, {}, "'async_generator' is a coroutine or generator"),
        (len, {}, "put it right above one"),
        (Empty, {}, "put it right above one"),
        (staticmethod(plain), {}, "put it right above one"),
        (property(lambda self: None), {}, "put it right above one"),
        (plain, {"idempotent": 1}, "idempotent of the command 'plain' is 1; it must be True or False"),
        (plain, {"timeout": 0}, "timeout of the command 'plain' is 0"),
        (plain, {"timeout": -1.5}, "must be seconds above zero"),
        (plain, {"timeout": float("nan")}, "must be seconds above zero"),
        (plain, {"timeout": "3"}, "must be seconds above zero"),
        (plain, {"timeout": True}, "must be seconds above zero"),
        (plain, {"journal": "nmae"}, "journal of the command 'plain' is 'nmae'; its arguments are: name, other"),
        (plain, {"journal": "self"}, "its arguments are: name, other"),
        (plain, {"journal": "more"}, "its arguments are: name, other"),
        (plain, {"journal": "rest"}, "its arguments are: name, other"),
        (plain, {"journal": False}, "it must name an argument"),
        (plain, {"journal": 7}, "it must name an argument"),
        (plain, {"forgets": True}, "forgets of the command 'plain' is True; it must name an argument"),
        (plain, {"forgets": "nmae"}, "its arguments are: name, other"),
        (plain, {"journal": "name", "forgets": "name"}, "both journal and forgets"),
    ],
)
def test_a_wrong_declaration_is_refused(function: Any, options: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        command(**options)(function) if options else command(function)
    assert why in str(caught.value)


def test_what_is_no_command_has_no_name() -> None:
    for function in (Sentiment.internal, len, asyncio.run):
        with pytest.raises(ConfigError, match="is not a command: pass the name of one, or a method"):
            command_name(function)


# ── Names ───────────────────────────────────────────────────────────────────────────────────────


def test_a_class_is_found_by_module_and_name() -> None:
    assert reference_to("dspy") == "dspy"
    assert reference_to(Sentiment) == f"{__name__}:Sentiment"
    assert reference_to(Outer.Inner) == f"{__name__}:Outer.Inner"


def test_a_class_that_no_worker_can_find_is_refused() -> None:
    class Local(Sentiment):
        pass

    with pytest.raises(ConfigError, match="defined inside a function"):
        reference_to(Local)
    with pytest.raises(ConfigError, match="has no commands"):
        reference_to(Empty)


def test_a_class_that_was_typed_at_a_prompt_is_refused() -> None:
    code = """
from remuda.bridge.adapters import command, reference_to
from remuda.statemachines.errors import ConfigError
class Typed:
    @command
    def one(self): ...
try:
    reference_to(Typed)
except ConfigError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-"], input=code, capture_output=True, text=True, timeout=HANG, check=True)
    assert "the adapter Typed was typed at a prompt or read from standard input" in done.stdout


# ── In the worker ───────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to import from, with a module `shop` in it."""
    (tmp_path / "shop.py").write_text(
        "from remuda.bridge.adapters import command\n"
        "class Shop:\n"
        "    @command\n"
        "    def sell(self): return 'sold'\n"
        "    class Corner:\n"
        "        @command\n"
        "        def sell(self): return 'out'\n"
        "class Demanding:\n"
        "    def __init__(self, money): ...\n"
        "shop = Shop()\n"
        "class Empty: ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    resolve.cache_clear()
    importlib.invalidate_caches()
    return tmp_path


def register(folder: Path, *lines: str) -> None:
    """What an installed package leaves behind."""
    info = folder / "shopping-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shopping\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[remuda.adapters]\n" + "\n".join(lines) + "\n")
    importlib.invalidate_caches()


@pytest.mark.parametrize(("reference", "result"), [("shop:Shop", "sold"), ("shop:Shop.Corner", "out")])
def test_an_adapter_by_module_and_name(folder: Path, reference: str, result: str) -> None:
    assert load(reference).method("sell")() == result


def test_an_adapter_by_entry_point(folder: Path) -> None:
    register(folder, "corner = shop:Shop.Corner", "shop = shop:Shop")
    assert load("shop").method("sell")() == "sold"
    assert load("corner").method("sell")() == "out"


def test_a_wrong_name_lists_what_there_is(folder: Path) -> None:
    register(folder, "corner = shop:Shop.Corner", "shop = shop:Shop")
    with pytest.raises(ConfigError) as caught:
        load("shpo")
    assert "no adapter is called 'shpo'; there are: " in str(caught.value)
    for name in ("corner", "dspy", "shop"):
        assert name in str(caught.value)
    assert "'package.module:Class'" in str(caught.value)


@pytest.mark.parametrize(
    ("reference", "error", "why"),
    [
        ("shop:Nothing", ConfigError, "shop has no 'Nothing'"),
        ("shop:Shop.Nothing", ConfigError, "shop has no 'Shop.Nothing'"),
        ("shop:shop", ConfigError, "it must be a class"),
        ("shop:Empty", ConfigError, "has no commands"),
        ("shop:", ConfigError, "names nothing"),
        (":Shop", ConfigError, "names nothing"),
        ("no_such_module:Shop", ModuleNotFoundError, "no_such_module"),
        ("shop:Demanding", TypeError, "money"),
    ],
)
def test_what_cannot_be_loaded_says_why(folder: Path, reference: str, error: type[Exception], why: str) -> None:
    with pytest.raises(error) as caught:
        load(reference)
    assert why in str(caught.value)


def test_setup_gets_the_settings_and_an_adapter_without_it_refuses_them() -> None:
    sentiment = Sentiment()
    Adapter(sentiment).setup({"a": 1})
    assert sentiment.done == [{"a": 1}]
    bare = Adapter(Outer.Inner())
    bare.setup({})
    with pytest.raises(ConfigError, match="has no setup.* but the pool has settings for it: a, b"):
        bare.setup({"b": 1, "a": 2})


@pytest.mark.parametrize(
    ("health", "answer"),
    [("false", (False, "health() returned False")), ("none", (True, "")), ("true", (True, ""))],
)
def test_only_false_is_ill(health: str, answer: tuple[bool, str]) -> None:
    adapter = Adapter(Sentiment())
    adapter.setup({"health": health})
    assert adapter.health() == answer
    assert Adapter(Outer.Inner()).health() == (True, "")


def test_teardown_is_called_if_there_is_one() -> None:
    sentiment = Sentiment()
    Adapter(sentiment).teardown()
    assert sentiment.done == ["down"]
    Adapter(Outer.Inner()).teardown()


def test_nothing_but_commands_can_be_called() -> None:
    adapter = Adapter(Sentiment())
    for name in ("internal", "setup", "health", "teardown", "__init__", "__class__", "nothing", ""):
        with pytest.raises(UnknownCommand) as caught:
            adapter.method(name)
        assert "it has: classify, configure, learn, score, unlearn, weigh" in str(caught.value)
