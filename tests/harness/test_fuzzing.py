"""The decoders, with a fixed number of inputs. `make harness` looks for others, guided by coverage."""

from __future__ import annotations

import pytest

from remuda.bridge import messages
from remuda.bridge.frames import Decoder
from remuda.statemachines.errors import FrameTooLarge

from .fuzzing import check, check_memory, corpus, mutants

MUTANTS = 3000


def test_the_corpus() -> None:
    for data in corpus():
        check_memory(data)


def test_mutants_of_the_corpus() -> None:
    for number, data in enumerate(mutants(MUTANTS)):
        (check_memory if number % 30 == 0 else check)(data)


def try_all() -> None:
    for data in [*corpus(), *mutants(MUTANTS)]:
        check(data)


def test_it_notices_bodies_that_depend_on_the_cutting(monkeypatch: pytest.MonkeyPatch) -> None:
    split = Decoder._split

    def all_or_nothing(decoder: Decoder, data: bytes) -> list[bytes]:
        bodies = split(decoder, data)
        if bodies and decoder.pending >= 4:
            split(decoder, b"")  # as it was: an error swallowed what had come in one piece with it
        return bodies

    monkeypatch.setattr(Decoder, "_split", all_or_nothing)
    with pytest.raises(AssertionError, match="how the stream was cut"):
        try_all()


def test_it_notices_a_decoder_that_lets_an_error_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "decode_to_parent", messages._to_parent.decode)
    with pytest.raises(Exception) as caught:
        try_all()
    assert not isinstance(caught.value, FrameTooLarge | AssertionError)


def test_it_notices_memory_that_is_made_for_what_was_only_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = Decoder.feed

    def greedy(decoder: Decoder, data: bytes) -> list[bytes]:
        bytearray(min(int.from_bytes(data[:4], "big"), decoder.limit))
        return feed(decoder, data)

    monkeypatch.setattr(Decoder, "feed", greedy)
    with pytest.raises(AssertionError, match="bytes took"):
        check_memory(bytes([3, 0]) + (1 << 24).to_bytes(4, "big"))
