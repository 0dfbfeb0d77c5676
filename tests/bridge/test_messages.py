"""Every message survives the journey; what cannot travel says so before it leaves."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from remuda.bridge import messages
from remuda.bridge.messages import (
    Boot,
    BootFailed,
    Call,
    CommandInfo,
    Failure,
    FailureKind,
    Hello,
    Ping,
    Pong,
    RemoteFailure,
    Result,
    Shutdown,
    UnreadableCall,
    decode_to_parent,
    decode_to_worker,
    encode,
)
from remuda.statemachines.errors import ProtocolError, SerializationError

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
number = st.integers(min_value=0, max_value=2**64 - 1)
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**63), max_value=2**64 - 1)
    | st.floats(allow_nan=False)
    | text
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)
failure = st.builds(
    RemoteFailure,
    type_name=text,
    message=text,
    args=st.lists(plain, max_size=3),
    notes=st.lists(text, max_size=3),
    traceback=text,
    builtin=st.none() | text,
)
info = st.builds(
    CommandInfo,
    name=text,
    idempotent=st.booleans(),
    timeout=st.none() | st.floats(min_value=0, exclude_min=True, allow_nan=False),
    journal=st.none() | text | st.booleans(),
    forgets=st.none() | text,
    key_at=st.none() | st.integers(min_value=0, max_value=9),
)
to_worker = st.one_of(
    st.builds(
        Boot,
        adapter=st.none() | text,
        settings=st.dictionaries(text, plain, max_size=3),
        sys_path=st.lists(text, max_size=3),
        cwd=text,
        main_path=st.none() | text,
        main_module=st.none() | text,
        codec=st.sampled_from(["msgpack", "pickle"]),
        max_frame_bytes=number,
    ),
    st.builds(Call, id=number, command=text, args=plain, quiet=st.booleans()),
    st.builds(Ping, id=number),
    st.just(Shutdown()),
)
to_parent = st.one_of(
    st.builds(Hello, pid=number, version=text, commands=st.lists(info, max_size=3)),
    st.builds(BootFailed, stage=text, error=failure),
    st.builds(Result, id=number, value=plain),
    st.builds(Failure, id=number, error=failure, kind=st.sampled_from(FailureKind)),
    st.builds(Pong, id=number, healthy=st.booleans(), reason=text),
)


# Values that can be written, and not read: nested without end, a dict as the key of a dict, no time.
DEEP = b"\x91" * 200_000 + b"\xc0"
KEYED = b"\x81\x80\x01"
TIMED = msgspec.msgpack.encode(msgspec.msgpack.Ext(-1, b"xyz"))


@given(to_worker)
def test_what_the_application_says_arrives(message: messages.ToWorker) -> None:
    assert decode_to_worker(encode(message)) == message


@given(to_parent)
def test_what_a_worker_says_arrives(message: messages.ToParent) -> None:
    assert decode_to_parent(encode(message)) == message


def test_every_message_is_tried_above() -> None:
    said = {*messages.ToWorker.__args__, *messages.ToParent.__args__}
    declared = {
        value
        for value in vars(messages).values()
        if isinstance(value, type) and issubclass(value, msgspec.Struct) and value.__struct_config__.tag is not None
    }
    assert said == declared
    assert len(said) == 9


def test_tuples_and_sets_arrive_as_lists() -> None:
    arrived = decode_to_parent(encode(Result(1, {"a": (1, 2), "b": {3}})))
    assert arrived == Result(1, {"a": [1, 2], "b": [3]})


def test_nan_arrives() -> None:
    arrived = decode_to_parent(encode(Result(1, math.nan)))
    assert isinstance(arrived, Result) and math.isnan(arrived.value)


def endless() -> list[Any]:
    own: list[Any] = []
    own.append(own)
    return own


def nested(depth: int) -> Any:
    value: Any = None
    for _ in range(depth):
        value = [value]
    return value


class Hostile:
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("do not look at me")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (object(), "object"),
        (2**64, "ints"),
        (-(2**63) - 1, "ints"),
        ("\ud800", "surrogate"),
        ({"\ud800": 1}, "surrogate"),
        (endless(), "nested too deeply, or contains itself"),
        (nested(100_000), "nested too deeply"),
        (lambda: None, "function"),
        (Hostile(), "Hostile|look"),
        ((_ for _ in ()), "generator"),
        (1j, "complex"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_encoded_says_why(value: object, why: str) -> None:
    with pytest.raises(SerializationError, match=why):
        encode(Call(1, "f", [value]))
    encode(Call(1, "f", []))  # the encoder is as good as before


@given(st.binary(max_size=100))
def test_junk_is_refused_or_understood_but_nothing_else(junk: bytes) -> None:
    for decode in (decode_to_parent, decode_to_worker):
        try:
            decode(junk)
        except ProtocolError:
            pass


@given(to_parent, st.data())
def test_a_damaged_message_is_refused_or_understood_but_nothing_else(
    message: messages.ToParent, data: st.DataObject
) -> None:
    body = bytearray(encode(message))
    for _ in range(data.draw(st.integers(min_value=1, max_value=3))):
        body[data.draw(st.integers(min_value=0, max_value=len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode_to_parent(bytes(body))
    except ProtocolError:
        pass


@given(to_parent, st.integers(min_value=1, max_value=20))
def test_a_shortened_message_is_refused(message: messages.ToParent, missing: int) -> None:
    with pytest.raises(ProtocolError):
        decode_to_parent(encode(message)[:-missing])


@given(to_parent, st.binary(min_size=1, max_size=10))
def test_a_message_with_more_behind_it_is_refused(message: messages.ToParent, more: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_to_parent(encode(message) + more)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        msgspec.msgpack.encode(None),
        msgspec.msgpack.encode([]),
        msgspec.msgpack.encode([99, 1]),
        msgspec.msgpack.encode([3]),
        msgspec.msgpack.encode([3, "one", None]),
        msgspec.msgpack.encode({"id": 1}),
        msgspec.msgpack.encode([4, 1, ["E", "m"], "no such kind"]),
        b"\x93\x03\xc1" + DEEP,
        b"\x93\x01\x01" + DEEP,
    ],
    ids=["empty", "none", "no tag", "tag", "fields", "type", "map", "kind", "depth, no number", "depth, no result"],
)
def test_what_is_no_message_of_a_worker(body: bytes) -> None:
    with pytest.raises(ProtocolError, match="it sent what cannot be read: ."):
        decode_to_parent(body)


@pytest.mark.parametrize("number", [0, 7, 127, 128, 255, 256, 65_535, 65_536, 2**32, 2**64 - 1])
@pytest.mark.parametrize(
    ("value", "why"),
    [(DEEP, "nested too deeply"), (KEYED, "hashable"), (TIMED, "timestamp")],
    ids=["depth", "key", "time"],
)
def test_a_value_that_cannot_be_read_fails_its_call_and_nothing_else(number: int, value: bytes, why: str) -> None:
    """Whole messages, whose sender could write what the other end cannot build: who asked is told."""
    head = msgspec.msgpack.encode(number)
    arrived = decode_to_parent(b"\x93\x03" + head + value)
    assert isinstance(arrived, Failure)
    assert (arrived.id, arrived.kind) == (number, FailureKind.UNSERIALIZABLE)
    assert why in arrived.error.message
    with pytest.raises(UnreadableCall, match=why) as caught:
        decode_to_worker(b"\x95\x02" + head + b"\xa1f" + value + b"\xc2")
    assert caught.value.number == number


@given(st.integers(0, 2**64 - 1), plain, st.integers(min_value=1, max_value=20))
def test_a_call_that_is_damaged_is_known_by_its_number(number: int, value: Any, missing: int) -> None:
    body = encode(Call(number, "f", value))
    with pytest.raises(ProtocolError) as caught:
        decode_to_worker(body[:-missing])
    if isinstance(caught.value, UnreadableCall):
        assert caught.value.number == number
    else:
        assert missing >= len(body) - 11  # not even the number was left whole


def test_a_request_is_no_answer() -> None:
    with pytest.raises(ProtocolError):
        decode_to_parent(encode(Call(1, "f", {})))
    with pytest.raises(ProtocolError, match="the application sent"):
        decode_to_worker(encode(Pong(1, True, "")))
