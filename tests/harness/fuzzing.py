"""What the decoders must do with any bytes whatever: one function of bytes, and what drives it.

* `check` takes the bytes as a stream of frames, cut into pieces in a way that they name themselves, and reads
  it as both ends would. Out come bodies, messages, or a `ProtocolError`, and nothing else; the cutting changes
  nothing; what is held and what is built is bounded by what has come in.
* `mutants` makes inputs from the corpus, by a seed: what the suite runs, the same ones every time.
* `python -m tests.harness.fuzzing --seconds 600` lets atheris (libFuzzer) look for inputs that reach new code of the
  two modules. What it finds that reaches more goes into a folder, what breaks a rule into a file.

An input is one byte for the limit, one for the number of cuts, one for each of them, and the stream.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

from remuda.bridge import messages
from remuda.bridge.frames import Decoder, pack
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
)
from remuda.statemachines.errors import FrameTooLarge, ProtocolError

__all__ = ["BOUND", "LIMITS", "check", "corpus", "mutants"]

LIMITS = (16, 200, 1 << 16, 1 << 26)
"""The largest bodies that an input may ask for."""

BOUND = 1 << 16
"""Bytes of memory that reading may take beside a multiple of the input."""

_FAILURE = RemoteFailure("E", "why", [1, "two", b"3", None], ["a note"], "Traceback", "ValueError")
_MESSAGES: tuple[object, ...] = (
    Boot("a:B", {"x": [1, {"y": 2.5}]}, ["/p"], "/w", None, "m", "msgpack", 1 << 20),
    Call(1, "f", {"a": [1, -1, 2.5, None, True, "é", b"\0"]}),
    Call(1 << 16, "f", [1, 1 << 40, -(1 << 40)], True),
    Ping(300),
    Shutdown(),
    Hello(1234, "1", [CommandInfo("f", True, 1.5, "k", None, 0), CommandInfo("g", journal=True), CommandInfo("h")]),
    BootFailed("setup", _FAILURE),
    Result(1, {"k": [1, 2, {"d": "e"}]}),
    Result(1 << 33, "x" * 40),
    *(Failure(7, _FAILURE, kind) for kind in FailureKind),
    Pong(1, True, ""),
    Pong(300, False, "why"),
)
_TO_PARENT = (Hello, BootFailed, Result, Failure, Pong)
_TO_WORKER = (Boot, Call, Ping, Shutdown)


def corpus() -> list[bytes]:
    """Inputs to begin with: every message alone, all of them in one stream, and bodies that no one can read."""
    bodies = [messages.encode(message) for message in _MESSAGES]
    bodies += [
        b"\x93\x03\x01" + b"\x91" * 2000 + b"\xc0",  # a result that is nested too deeply
        b"\x95\x02\x01\xa1f" + b"\x91" * 2000 + b"\xc0\xc2",  # such a call
        b"\x93\x03\x01\x81\x80\x01",  # a dict as the key of a dict
        b"\x93\x03\x01\xc7\x03\xff\x00\x00\x00",  # no time
        b"\x93\x03\x01\xdd\xff\xff\xff\xff",  # an array of four billion, none of which is there
    ]
    streams = [pack(body, LIMITS[-1]) for body in bodies]
    streams += [b"".join(streams[: len(_MESSAGES)]), streams[0] + b"\xff" * 9, b"\0" * 12]
    return [bytes([index % len(LIMITS), 2, 3, 17]) + stream for index, stream in enumerate(streams)] + [b""]


def check(data: bytes) -> None:
    """Read the input in one piece and in many; raises AssertionError if a rule does not hold."""
    limit, pieces = _pieces(data)
    whole = _read(limit, [b"".join(pieces)])
    assert _read(limit, pieces) == whole, "it depends on how the stream was cut"
    for body in whole[0]:
        _decode(body, messages.decode_to_parent, _TO_PARENT)
        _decode(body, messages.decode_to_worker, _TO_WORKER)


def check_memory(data: bytes) -> None:
    """The same, and what it takes is bounded by what came in."""
    check(b"")  # what is built once is there
    tracemalloc.start()
    try:
        check(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= BOUND + 100 * len(data), f"{len(data)} bytes took {peak}"


def _pieces(data: bytes) -> tuple[int, list[bytes]]:
    limit = LIMITS[data[0] % len(LIMITS)] if data else LIMITS[0]
    count = data[1] % 8 if len(data) > 1 else 0
    places, stream = data[2 : 2 + count], data[2 + count :]
    pieces = []
    for place in places:
        pieces.append(stream[:place])
        stream = stream[place:]
    return limit, [*pieces, stream]


def _read(limit: int, pieces: list[bytes]) -> tuple[list[bytes], bool]:
    """The bodies that come out, and whether the stream is broken behind them."""
    decoder, found = Decoder(limit), list[bytes]()
    try:
        for piece in [*pieces, b""]:
            bodies = decoder.feed(piece)
            assert type(bodies) is list and all(type(body) is bytes and len(body) <= limit for body in bodies)
            found += bodies
            assert decoder.pending <= 4 + limit + len(piece), "it holds more than a frame"
    except FrameTooLarge:
        return found, True
    taken = sum(len(body) + 4 for body in found)
    assert decoder.pending == sum(map(len, pieces)) - taken, "it has lost a byte, or found one"
    return found, False


def _decode(body: bytes, decode: Callable[[bytes], object], kinds: tuple[type, ...]) -> None:
    try:
        message = decode(body)
    except ProtocolError:
        return
    assert type(message) in kinds, f"that is no message: {message!r}"


# ── The suite ───────────────────────────────────────────────────────────────────────────────────


def mutants(count: int, seed: int = 0) -> Iterator[bytes]:
    """Inputs made from those of the corpus: bytes are changed, lost, doubled, inserted, and two are joined."""
    dice, seeds = random.Random(seed), corpus()
    for _ in range(count):
        data = bytearray(dice.choice(seeds))
        for _ in range(dice.randrange(1, 6)):
            place = dice.randrange(len(data) + 1)
            end = min(len(data), place + dice.randrange(1, 9))
            match dice.randrange(6):
                case 0:
                    data[place:end] = dice.randbytes(end - place)
                case 1:
                    del data[place:end]
                case 2:
                    data[place:place] = data[place:end]
                case 3:
                    data[place:place] = dice.choice(
                        (b"\xff\xff\xff\xff", b"\0\0\0\1", b"\xc1", b"\xdd\x7f\xff\xff\xff")
                    )
                case 4 if data:
                    data[place % len(data)] ^= 1 << dice.randrange(8)
                case _:
                    data += dice.choice(seeds)[4:]
        yield bytes(data)


# ── Guided by coverage ──────────────────────────────────────────────────────────────────────────


def main() -> None:
    """Let atheris drive `check`; it ends the process itself."""
    parser = argparse.ArgumentParser(prog="python -m tests.harness.fuzzing", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--folder", type=Path, default=Path(".fuzzing"), help="where inputs are kept from run to run")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    import atheris  # not among the requirements: `make harness` installs it

    found = args.folder / "corpus"
    found.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(corpus()):
        (found / f"seed-{number:02}").write_bytes(data)
    for function in (Decoder.feed, Decoder._split):
        setattr(Decoder, function.__name__, atheris.instrument_func(function))
    for name in ("decode_to_parent", "decode_to_worker", "_number", "_why", "_is_whole"):
        setattr(messages, name, atheris.instrument_func(getattr(messages, name)))
    counter = 0

    def one(data: bytes) -> None:
        nonlocal counter
        counter += 1
        (check_memory if counter % 64 == 0 else check)(data)

    atheris.Setup(
        [
            sys.argv[0],
            f"-max_total_time={args.seconds}",
            f"-seed={args.seed}",
            "-max_len=8192",
            "-rss_limit_mb=1024",
            "-timeout=10",
            "-print_final_stats=1",
            f"-artifact_prefix={args.folder}{os.sep}",
            str(found),
        ],
        one,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
