"""The stream can be cut anywhere, and the same bodies come out; nothing longer than the limit does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remuda.bridge.frames import Decoder, pack
from remuda.statemachines.errors import FrameTooLarge, ProtocolError

LIMIT = 1000


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    """`stream` in pieces, some of which may be empty."""
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in zip(edges, edges[1:], strict=False)]


bodies_strategy = st.lists(st.binary(max_size=60) | st.sampled_from([b"", b"x" * LIMIT, b"\0\0\0\0"]), max_size=8)


@given(bodies_strategy, st.lists(st.integers(min_value=0, max_value=10_000), max_size=12))
def test_any_cutting_gives_the_same_bodies(bodies: list[bytes], places: list[int]) -> None:
    stream = b"".join(pack(body, LIMIT) for body in bodies)
    decoder = Decoder(LIMIT)
    found: list[bytes] = []
    for piece in cut(stream, places):
        found += decoder.feed(piece)
    assert found == bodies
    assert decoder.pending == 0


@given(bodies_strategy)
def test_byte_by_byte_each_body_comes_with_its_last_byte(bodies: list[bytes]) -> None:
    decoder = Decoder(LIMIT)
    for body in bodies:
        frame = pack(body, LIMIT)
        for index in range(len(frame) - 1):
            assert decoder.feed(frame[index : index + 1]) == []
            assert decoder.pending == index + 1
        assert decoder.feed(frame[-1:]) == [body]
        assert decoder.pending == 0


@given(bodies_strategy, st.binary(min_size=1, max_size=50), st.data())
def test_what_is_incomplete_is_pending(bodies: list[bytes], last: bytes, data: st.DataObject) -> None:
    frame = pack(last, LIMIT)
    missing = data.draw(st.integers(min_value=1, max_value=len(frame) - 1))
    stream = b"".join(pack(body, LIMIT) for body in bodies) + frame[:-missing]
    decoder = Decoder(LIMIT)
    found: list[bytes] = []
    for piece in cut(stream, data.draw(st.lists(st.integers(min_value=0, max_value=10_000), max_size=6))):
        found += decoder.feed(piece)
    assert found == bodies
    assert decoder.pending == len(frame) - missing
    assert decoder.feed(frame[-missing:]) == [last]
    assert decoder.pending == 0


@given(st.binary(max_size=400), st.lists(st.integers(min_value=0, max_value=400), max_size=8))
def test_junk_gives_the_same_however_it_is_cut(junk: bytes, places: list[int]) -> None:
    def read(pieces: list[bytes]) -> tuple[list[bytes], bool]:
        decoder, found = Decoder(70_000), list[bytes]()
        try:
            for piece in [*pieces, b""]:
                found += decoder.feed(piece)
        except FrameTooLarge:
            return found, True
        return found, False

    assert read(cut(junk, places)) == read([junk])


def test_what_came_whole_before_too_long_a_frame_comes_out_first() -> None:
    """It used to be lost, if it was read together with the header."""
    decoder = Decoder(LIMIT)
    assert decoder.feed(pack(b"a", LIMIT) + pack(b"b", LIMIT) + b"\xff" * 9) == [b"a", b"b"]
    assert decoder.pending == 9
    for data in (b"", b"more"):
        with pytest.raises(FrameTooLarge, match="4294967295 bytes"):
            decoder.feed(data)


def test_a_body_of_exactly_the_limit_is_allowed_and_one_byte_more_is_not() -> None:
    assert Decoder(LIMIT).feed(pack(b"x" * LIMIT, LIMIT)) == [b"x" * LIMIT]
    with pytest.raises(FrameTooLarge, match="1001 bytes, and 1000 are allowed"):
        pack(b"x" * (LIMIT + 1), LIMIT)
    with pytest.raises(FrameTooLarge, match="1001 bytes, and 1000 are allowed"):
        Decoder(LIMIT).feed(pack(b"x" * (LIMIT + 1), LIMIT + 1))


def test_too_long_a_frame_is_refused_at_its_header() -> None:
    decoder = Decoder(LIMIT)
    assert decoder.feed(b"\xff\xff\xff") == []
    with pytest.raises(ProtocolError, match="4294967295 bytes"):
        decoder.feed(b"\xff")


def test_the_limit_may_change_between_frames() -> None:
    decoder = Decoder(10)
    assert decoder.feed(pack(b"x" * 10, 10)) == [b"x" * 10]
    decoder.limit = 20
    assert decoder.feed(pack(b"y" * 20, 20)) == [b"y" * 20]
    decoder.limit = 5
    with pytest.raises(FrameTooLarge):
        decoder.feed(pack(b"z" * 6, 20))


def test_a_long_frame_in_many_pieces_is_joined_once() -> None:
    joined = 0

    class Counting(Decoder):
        __slots__ = ()

        def _split(self, data: bytes) -> list[bytes]:
            nonlocal joined
            joined += 1
            return super()._split(data)

    body = bytes(range(256)) * 4096
    frame, decoder, found = pack(body, len(body)), Counting(len(body)), list[bytes]()
    for start in range(0, len(frame), 1024):
        found += decoder.feed(frame[start : start + 1024])
    assert found == [body]
    assert joined == 2, "once for the header, once for the whole"
