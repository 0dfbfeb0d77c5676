"""Exceptions on their way to the caller: caught as what they were, and never lost, however hostile."""

from __future__ import annotations

import builtins
import traceback
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remuda.bridge import remote
from remuda.bridge.messages import Failure, FailureKind, RemoteFailure, decode_to_parent, encode
from remuda.bridge.remote import brief, describe, rebuild
from remuda.statemachines.errors import RemoteError

NOT_REBUILT = {StopIteration, StopAsyncIteration, ExceptionGroup, BaseExceptionGroup, Exception}

BUILTINS = sorted(
    {value for value in vars(builtins).values() if isinstance(value, type) and issubclass(value, BaseException)},
    key=lambda cls: cls.__name__,
)
REBUILT = [cls for cls in BUILTINS if issubclass(cls, Exception) and cls not in NOT_REBUILT]

ARGUMENTS: dict[type[BaseException], tuple[Any, ...]] = {
    UnicodeDecodeError: ("utf-8", b"\xff\xfe", 0, 1, "invalid start byte"),
    UnicodeEncodeError: ("ascii", "ä", 0, 1, "ordinal not in range"),
    UnicodeTranslateError: ("ä", 0, 1, "no way"),
    SyntaxError: ("invalid syntax", ("script.py", 3, 7, "def f(:", 3, 8)),
    ExceptionGroup: ("several", [ValueError("one")]),
    BaseExceptionGroup: ("several", [KeyboardInterrupt("one")]),
}


def raised(error: BaseException) -> BaseException:
    """The same with a traceback."""
    try:
        raise error
    except BaseException as caught:
        return caught


def travel(error: BaseException) -> RemoteError:
    failure = Failure(1, describe(error), FailureKind.RAISED)
    arrived = decode_to_parent(encode(failure))
    assert arrived == failure
    return rebuild(arrived.error)


# ── Built-in exceptions ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("cls", REBUILT, ids=lambda cls: cls.__name__)
def test_a_built_in_exception_is_caught_by_its_type(cls: type[Exception]) -> None:
    original = raised(cls(*ARGUMENTS.get(cls, ("what happened",))))
    error = travel(original)
    with pytest.raises(cls) as caught:
        raise error
    assert caught.value is error
    assert isinstance(error, RemoteError)
    assert error.type_name == cls.__name__
    assert str(error) == str(original)
    assert cls.__name__ in repr(error)
    assert traceback.format_exception_only(original)[-1].strip() in "".join(traceback.format_exception(error))
    assert "in raised" in error.remote_traceback
    assert "In the worker:\nTraceback" in "".join(traceback.format_exception(error))


@pytest.mark.parametrize("cls", REBUILT, ids=lambda cls: cls.__name__)
def test_a_built_in_exception_without_arguments_says_its_type(cls: type[Exception]) -> None:
    try:
        original = cls()
    except TypeError:
        pytest.skip("it needs arguments")
    if str(original):
        pytest.skip("it has a text even so")
    error = travel(original)
    assert isinstance(error, cls)
    assert str(error) == cls.__name__
    assert error.args == ()


@pytest.mark.parametrize("cls", [cls for cls in BUILTINS if cls not in REBUILT], ids=lambda cls: cls.__name__)
def test_what_must_not_be_raised_here_arrives_as_a_remote_error(cls: type[BaseException]) -> None:
    error = travel(raised(cls(*ARGUMENTS.get(cls, ("what happened",)))))
    assert type(error) is RemoteError
    assert error.type_name == cls.__name__
    assert str(error).startswith(f"{cls.__name__}: ")


def test_the_arguments_of_a_built_in_exception_make_its_attributes() -> None:
    missing = travel(FileNotFoundError(2, "No such file or directory", "here"))
    assert isinstance(missing, FileNotFoundError)
    assert (missing.errno, missing.strerror) == (2, "No such file or directory")
    assert str(missing) == "[Errno 2] No such file or directory: 'here'"

    lookup = travel(KeyError("colour"))
    assert str(lookup) == "'colour'"
    assert lookup.args == ("colour",)

    decoding = travel(UnicodeDecodeError("utf-8", b"\xff\xfe", 0, 1, "invalid start byte"))
    assert isinstance(decoding, UnicodeDecodeError)
    assert (decoding.encoding, decoding.object, decoding.start, decoding.reason) == (
        "utf-8",
        b"\xff\xfe",
        0,
        "invalid start byte",
    )

    syntax = travel(SyntaxError("invalid syntax", ("script.py", 3, 7, "def f(:", 3, 8)))
    assert isinstance(syntax, SyntaxError)
    assert (syntax.filename, syntax.lineno, syntax.msg) == ("script.py", 3, "invalid syntax")


def test_an_operating_system_error_keeps_its_file() -> None:
    with pytest.raises(FileNotFoundError) as real:
        open("/nowhere/at/all")
    error = travel(real.value)
    assert isinstance(error, FileNotFoundError)
    assert error.filename == "/nowhere/at/all"
    with pytest.raises(FileNotFoundError) as real:
        __import__("os").rename("/nowhere/at/all", "/nowhere/else")
    error = travel(real.value)
    assert isinstance(error, FileNotFoundError)
    assert (error.filename, error.filename2) == ("/nowhere/at/all", "/nowhere/else")
    assert str(error) == str(real.value)


# ── Exceptions of users ─────────────────────────────────────────────────────────────────────────


class Plain(Exception):
    pass


class Derived(KeyError):
    pass


class Keyword(ValueError):
    """Its arguments do not make another one."""

    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


class Errno(OSError):
    def __init__(self, one: object, two: object, three: object, four: object, five: object, six: object) -> None:
        super().__init__(one, two, three, four, five, six)


def test_a_users_exception_is_caught_by_the_nearest_built_in_type() -> None:
    error = travel(Derived("k"))
    assert isinstance(error, KeyError)
    assert error.type_name == f"{__name__}.Derived"
    assert str(error) == f"{__name__}.Derived: 'k'"
    keyword = travel(Keyword(code=7))
    assert isinstance(keyword, ValueError)
    assert str(keyword) == f"{__name__}.Keyword: code 7"
    assert type(travel(Plain("p"))) is RemoteError
    assert str(travel(Plain("p"))) == f"{__name__}.Plain: p"
    assert isinstance(travel(Errno(1, 2, 3, 4, 5, 6)), OSError)


def test_what_cannot_be_carried_arrives_as_text() -> None:
    error = travel(ValueError({"plain": [1, 2]}, object, 2**70, "x" * 100_000))
    plain, cls, huge, long = error.args
    assert plain == {"plain": [1, 2]}
    assert cls == "<class 'object'>"
    assert huge == str(2**70)
    assert isinstance(long, str) and len(long) <= 4096


def test_notes_and_causes_arrive() -> None:
    error = ValueError("v")
    error.add_note("look here")
    error.__cause__ = KeyError("because")
    arrived = travel(raised(error))
    assert arrived.notes == ("look here",)
    assert "look here" in getattr(arrived, "__notes__", [])
    assert "because" in arrived.remote_traceback
    printed = "".join(traceback.format_exception(arrived))
    assert "look here" in printed and "direct cause" in printed


def test_an_exception_group_tells_all_its_members() -> None:
    arrived = travel(raised(ExceptionGroup("several", [ValueError("one"), KeyError("two")])))
    assert type(arrived) is RemoteError
    assert "ValueError: one" in arrived.remote_traceback
    assert "KeyError: 'two'" in arrived.remote_traceback


# ── Hostile ones ────────────────────────────────────────────────────────────────────────────────


class Gone(BaseException):
    pass


class Slippery(str):
    __slots__ = ()

    def encode(self, *args: object) -> bytes:
        raise Gone

    def __len__(self) -> int:
        raise Gone


def refuse(*args: object) -> Any:
    raise RuntimeError("do not look at me")


def leave(*args: object) -> Any:
    raise SystemExit("gone")


def hostile(**body: object) -> BaseException:
    error: BaseException = type("Hostile", (ValueError,), body)("argument")
    return error


def with_notes(notes: object) -> BaseException:
    error = ValueError("v")
    error.__notes__ = notes  # type: ignore[assignment]
    return error


class Unspeakable:
    __repr__ = leave


class Shown:
    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


class Meta(type):
    @property
    def __module__(cls) -> str:  # type: ignore[override]
        raise Gone


class Nameless(ValueError, metaclass=Meta):
    pass


def deep(depth: int) -> Any:
    value: Any = None
    for _ in range(depth):
        value = [value]
    return value


def own() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def circular() -> BaseException:
    error = ValueError("c")
    error.__cause__ = error
    return error


def chained(length: int) -> BaseException:
    error: BaseException = ValueError(0)
    for number in range(length):
        after = ValueError(number)
        after.__cause__ = error
        error = after
    return error


HOSTILE: dict[str, BaseException] = {
    "str raises": hostile(__str__=refuse),
    "str leaves": hostile(__str__=leave),
    "str is not one": hostile(__str__=lambda self: 7),
    "str is slippery": hostile(__str__=lambda self: Slippery("s")),
    "repr leaves": hostile(__repr__=leave, __str__=leave),
    "args raise": hostile(args=property(refuse)),
    "args leave": hostile(args=property(leave)),
    "args are not a sequence": hostile(args=7),
    "attributes raise": hostile(__getattribute__=refuse),
    "attributes leave": hostile(__getattribute__=leave),
    "notes raise": hostile(__notes__=property(refuse)),
    "notes are not a list": with_notes(7),
    "notes are not texts": with_notes([1, None, "yes", Slippery("s")]),
    "many long notes": with_notes(["😀" * 100_000] * 1000),
    "its module is no text": hostile(__module__=7),
    "its module cannot be had": Nameless("n"),
    "its module is not utf-8": hostile(__module__="\ud800"),
    "its name is not utf-8": hostile(__qualname__="\ud800"),
    "its name is long": hostile(__qualname__="N" * 1_000_000),
    "it says it is built in": hostile(__module__="builtins", __qualname__="print"),
    "surrogates": ValueError("\ud800 \udfff", "\udcff"),
    "huge text": ValueError("😀" * 1_000_000),
    "many huge arguments": ValueError(*["😀" * 1000] * 1000),
    "deep argument": ValueError(deep(100_000)),
    "its argument contains itself": ValueError(own()),
    "unspeakable argument": ValueError(Unspeakable()),
    "slippery argument": ValueError(Slippery("s")),
    "not utf-8 argument": ValueError(Shown("\ud800")),
    "keys of keys": ValueError({(1, (2, 3)): 1, frozenset({1}): 2}),
    "long chain": chained(200),
    "endless chain": chained(50_000),
    "a circle": circular(),
    "stop": StopIteration(3),
    "exit": SystemExit(object()),
    "group": BaseExceptionGroup("g", [KeyboardInterrupt()]),
    "group of groups": ExceptionGroup("g", [ExceptionGroup("h", [ValueError(n)]) for n in range(300)]),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_exception_arrives_even_so(what: str) -> None:
    original = HOSTILE[what]
    failure = describe(original)
    body = encode(Failure(1, failure, FailureKind.RAISED))
    assert len(body) <= 2 * 1024 * 1024, "it is bounded"
    arrived = decode_to_parent(body)
    assert isinstance(arrived, Failure)
    error = rebuild(arrived.error)
    assert isinstance(error, RemoteError)
    assert len(str(error)) < 70_000
    str(error), repr(error), "".join(traceback.format_exception(error)), error.as_dict()
    if failure.builtin:
        assert isinstance(error, ValueError)
    short = encode(Failure(2**64 - 1, brief(failure), FailureKind.UNSERIALIZABLE))
    assert len(short) <= 350


@pytest.mark.parametrize("depth", range(0, 1000, 7))
def test_an_argument_at_the_limit_of_nesting_does_not_keep_it_from_arriving(depth: int) -> None:
    encode(Failure(1, describe(ValueError(deep(depth))), FailureKind.RAISED))


def test_an_argument_that_is_nested_deeply_arrives_as_text() -> None:
    """The application may have less room to read it than the worker had to write it."""
    assert travel(raised(ValueError(deep(remote.MAX_DEPTH)))).remote_args == (deep(remote.MAX_DEPTH),)
    for value in (deep(remote.MAX_DEPTH + 1), {"a": deep(remote.MAX_DEPTH)}, {(((), "a"),): deep(remote.MAX_DEPTH)}):
        (told,) = travel(raised(ValueError(value))).remote_args
        assert told == repr(value)


plain = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)  # what has travelled is compared
    | st.text(st.characters(), max_size=20)
    | st.binary(max_size=20)
)
"""What can arrive."""


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner, max_size=3)
        ),
        max_leaves=8,
    )


values = nested(plain | st.just(object) | st.builds(Unspeakable) | st.builds(Slippery))
"""What can be sent off."""


@given(st.sampled_from(BUILTINS), st.lists(values, max_size=7), st.lists(st.text(st.characters()), max_size=3))
def test_whatever_the_class_and_its_arguments_it_arrives(
    cls: type[BaseException], arguments: list[Any], notes: list[str]
) -> None:
    try:
        original = cls(*arguments)
    except Exception:
        return
    for note in notes:
        original.add_note(note)
    error = travel(original)
    if type(original) in REBUILT:
        assert isinstance(error, type(original))
    assert isinstance(str(error), str)
    "".join(traceback.format_exception(error))


@given(
    st.builds(
        RemoteFailure,
        type_name=st.text(),
        message=st.text(),
        args=st.lists(nested(plain), max_size=6),
        notes=st.lists(st.text(), max_size=2),
        traceback=st.text(),
        builtin=st.sampled_from([cls.__name__ for cls in BUILTINS]) | st.sampled_from(["print", "int", "nothing", ""]),
    )
)
def test_whatever_arrives_can_be_rebuilt(failure: RemoteFailure) -> None:
    error = rebuild(failure)
    assert isinstance(error, RemoteError)
    assert not isinstance(error, StopIteration | StopAsyncIteration | BaseExceptionGroup)
    assert error.message in str(error)
    "".join(traceback.format_exception(error))


def test_what_is_cut_out_of_a_long_text_is_said() -> None:
    error = travel(ValueError("begin" + "x" * 100_000 + "end"))
    assert str(error).startswith("begin") and str(error).endswith("end")
    assert f"{100_008 - remote.MAX_TEXT} characters left out" in str(error)
