"""What is kept of stderr: every line once, however it arrives, and no more of it than is said."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from remuda.bridge.last_words import LINE_BYTES, TAIL_BYTES, TAIL_LINES, LastWords

BLOCKS = {
    "a": b"a" * LINE_BYTES,
    "b": b"b" * (LINE_BYTES - 1),
    "u": "äöü€😀".encode() * 2000,
    "j": b"\xff\xfe" * 5000,
    "c": b"\x80" * 9000,
}


class Stream(bytes):
    """One that does not print itself when a test fails."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


streams = st.one_of(
    st.binary(max_size=300).map(Stream),
    st.text(max_size=200).map(lambda text: Stream(text.encode())),
    st.text("abujc.\n\r", max_size=12).map(lambda code: Stream(b"".join(BLOCKS.get(c, c.encode()) for c in code))),
)
pieces = st.lists(st.integers(min_value=0, max_value=200_000), max_size=8)


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in zip(edges, edges[1:], strict=False)]


def heard(stream: bytes, places: list[int]) -> tuple[list[str], tuple[str, ...]]:
    words, lines = LastWords(), list[str]()
    for piece in cut(stream, places):
        words.feed(piece)
        check_bounds(words)
        lines += words.take() or []
    words.end()
    check_bounds(words)
    lines += words.take() or []
    assert words.take() is None
    return lines, words.tail()


def check_bounds(words: LastWords) -> None:
    tail = words.tail()
    assert len(tail) <= TAIL_LINES
    assert sum(len(line.encode()) for line in tail) <= TAIL_BYTES


@given(streams, pieces)
def test_however_it_is_cut_the_lines_are_the_same(stream: bytes, places: list[int]) -> None:
    assert heard(stream, places) == heard(stream, [])


@given(streams, pieces)
def test_the_tail_is_the_end_of_the_lines(stream: bytes, places: list[int]) -> None:
    lines, tail = heard(stream, places)
    assert tail == tuple(lines[len(lines) - len(tail) :])


@given(st.lists(st.text(alphabet=st.characters(exclude_characters="\n\r"), max_size=200), max_size=30), pieces)
def test_text_comes_as_it_was_written(lines: list[str], places: list[int]) -> None:
    stream = "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")
    expected = [line.encode("utf-8", "replace").decode() for line in lines]
    assert heard(stream, places)[0] == expected


@given(st.text(alphabet="aä€😀", min_size=1, max_size=4))
def test_a_long_line_is_cut_between_characters(unit: str) -> None:
    text = unit * 9000
    lines, _ = heard(text.encode() + b"\n", [])
    assert "".join(lines) == text
    assert all(len(line.encode()) <= LINE_BYTES for line in lines)
    assert all(len(line.encode()) > LINE_BYTES - 4 for line in lines[:-1])


def test_an_unfinished_line_is_in_the_tail_and_not_yet_a_line() -> None:
    words = LastWords()
    words.feed(b"whole\nhalf")
    assert words.take() == ["whole"]
    assert words.tail() == ("whole", "half")
    words.feed(b" and half")
    assert words.take() == []
    assert words.tail() == ("whole", "half and half")
    words.end()
    assert words.take() == ["half and half"]
    assert words.take() is None
    assert words.tail() == ("whole", "half and half")


def test_the_end_without_a_word() -> None:
    words = LastWords()
    assert words.take() == []
    words.end()
    words.end()
    assert words.take() is None
    assert words.tail() == ()


def test_a_line_without_end_takes_bounded_room() -> None:
    words = LastWords()
    for _ in range(64):
        words.feed(b"x" * 65536)
        assert all(len(line) <= LINE_BYTES for line in words.take() or [])
        check_bounds(words)


def test_the_last_lines_are_the_ones_that_are_kept() -> None:
    words = LastWords()
    words.feed(b"".join(b"%d\n" % number for number in range(1000)))
    assert words.tail() == tuple(str(number) for number in range(800, 1000))
    words.feed(b"unfinished")
    assert words.tail() == (*(str(number) for number in range(801, 1000)), "unfinished")
