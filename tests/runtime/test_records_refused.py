"""What a run makes of odd inputs, and which outputs it refuses to go on with.

Nothing is guessed: what cannot be understood is said with its place, and nothing is changed.
"""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import trio

from remuda.runtime.records import Entry, open_run
from remuda.statemachines.errors import ConfigError

SETTINGS: dict[str, Any] = {"program": {"signature": "a -> b"}, "model": "m", "options": {"temperature": 0.5}}


async def echo(record: dict[str, Any]) -> Entry:
    """The work: the answer is the record."""
    return {"outputs": record}


async def run(folder: Path, data: bytes) -> dict[int, Any]:
    """Run an input of these bytes; the outputs, or the text of the error, by number of line."""
    (folder / "in").write_bytes(data)
    with open_run(folder / "in", folder / "out", {}) as one:
        await one.process(echo, concurrency=2)
        assert one.done == one.records
    lines = (folder / "out").read_bytes().decode("utf-8").split("\n")
    assert lines.pop() == ""
    entries = [json.loads(line) for line in lines]
    found = {}
    for entry in entries:
        if "error" in entry:
            assert entry["error"]["type"] == "BadRecord"
            assert entry["error"]["message"].startswith(f"line {entry['line']}: it ")
        found[entry["line"]] = entry["outputs"] if "outputs" in entry else entry["error"]["message"]
    assert len(found) == len(entries) == one.records
    return found


# ── Inputs ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", {}),
        (b"\n\n  \t \r\n", {}),
        (b'{"a": 1}\n\n \r\n{"a": 2}\n', {1: {"a": 1}, 4: {"a": 2}}),
        (b'\xef\xbb\xbf{"a": 1}\n{"a": 2}\n', {1: {"a": 1}, 2: {"a": 2}}),
        (b"\xef\xbb\xbf\n{}", {2: {}}),
        (b'{"a": 1}\r\n{"a": 2}\r\n', {1: {"a": 1}, 2: {"a": 2}}),
        (b'{"a": 1}\n{"a": 2}', {1: {"a": 1}, 2: {"a": 2}}),
        (b'{"a": "x\xe2\x80\xa8y\\n\\u0000"}', {1: {"a": "x\u2028y\n\0"}}),  # no ends of lines, whatever they look like
        (b'{"line": 7}\n', {1: {"line": 7}}),
    ],
    ids=["empty", "blank", "blanks between", "BOM", "BOM alone", "CRLF", "no newline", "separators", "line"],
)
async def test_lines(tmp_path: Path, data: bytes, lines: dict[int, Any]) -> None:
    assert await run(tmp_path, data) == lines


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "it is not JSON"),
        (b'{"a": 1} {"b": 2}', "it is not JSON"),
        (b'{"a": NaN}', "it is not JSON"),
        (b'{"a": "\xff"}', "it is not JSON"),
        (b'{"a": "\\ud800"}', "it is not JSON"),
        (b"\xff\xfe{\x00}\x00", "it is not JSON"),
        (b'{"a": "\x00"}', "it is not JSON"),
        (b"[1, 2]", "it is a JSON list; a record is an object"),
        (b'"text"', "it is a JSON str; a record is an object"),
        (b"null", "it is a JSON NoneType; a record is an object"),
        (b"[" * 100_000, "it is"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "it is nested too deeply"),
    ],
    ids=lambda value: None if isinstance(value, str) else value[:20].hex(),
)
async def test_a_bad_record_is_an_entry_and_the_others_go_on(tmp_path: Path, line: bytes, reason: str) -> None:
    found = await run(tmp_path, b'{"n": 1}\n' + line + b'\n{"n": 3}\n')
    assert (found[1], found[3]) == ({"n": 1}, {"n": 3})
    assert reason in found[2]
    assert len(found[2]) < 500  # a reason, not the record


async def test_a_line_of_five_megabytes(tmp_path: Path) -> None:
    text = "ü" * 2_500_000
    found = await run(tmp_path, json.dumps({"a": text}, ensure_ascii=False).encode() + b'\n{"a": "b"}')
    assert found == {1: {"a": text}, 2: {"a": "b"}}


def test_an_input_that_can_be_read_only_once_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "in")
    with pytest.raises(ConfigError, match="in is not a regular file"), open_run(tmp_path / "in", tmp_path / "out", {}):
        pass
    assert not (tmp_path / "out").exists()


def test_no_input(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), open_run(tmp_path / "in", tmp_path / "out", {}):
        pass
    assert list(tmp_path.iterdir()) == []


async def test_an_input_that_changes_while_it_is_read(tmp_path: Path) -> None:
    """Its records would not be those that were counted."""
    (tmp_path / "in").write_bytes(b'{"n": 1}\n{"n": 2}\n{"n": 3}\n')
    with open_run(tmp_path / "in", tmp_path / "out", {}) as one:
        (tmp_path / "in").write_bytes(b'{"n": 1}\n')
        with pytest.raises(ConfigError, match="has changed"):
            await one.process(echo, concurrency=1)
    assert (tmp_path / "out").read_bytes() == b'{"line":1,"outputs":{"n":1}}\n'


# ── Outputs ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def done(tmp_path: Path) -> Path:
    """A folder in which a run has ended: `in`, `out` and its manifest."""
    # With a loop of its own: the tests that look at what it left have none, and could not use a fixture of trio's.
    (tmp_path / "in").write_bytes(b'{"n": 1}\n\n{"n": 3}\n{"n": 4}\n')
    with open_run(tmp_path / "in", tmp_path / "out", SETTINGS) as one:
        trio.run(lambda: one.process(echo, concurrency=1))
    return tmp_path


def refusal(folder: Path, settings: dict[str, Any] = SETTINGS, *, output: str = "out") -> str:
    """Why a run is refused; no file is changed by it."""
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(ConfigError) as refused, open_run(folder / "in", folder / output, settings):
        pass
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    return str(refused.value)


def test_another_run_is_refused_with_every_difference(done: Path) -> None:
    other = {"program": {"signature": "a -> c", "load": {"sha256": "9"}}, "model": "n", "options": {"temperature": 0.5}}
    (done / "in").write_bytes(b'{"n": 5}\n')
    text = refusal(done, other)
    assert "model was 'm' and is 'n'" in text
    assert "program.signature was 'a -> b' and is 'a -> c'" in text
    assert "program.load was None and is {'sha256': '9'}" in text
    assert "input.records was 3 and is 1" in text
    assert "input.sha256 was '" in text
    assert "options" not in text and "version" not in text
    assert "delete both out and out.run.json" in text


def test_one_byte_of_the_input_is_a_difference(done: Path) -> None:
    (done / "in").write_bytes(b'{"n": 1}\n\n{"n": 3}\n{"n": 5}\n')
    assert refusal(done).count(" was ") == 1


@pytest.mark.parametrize("value", [float("inf"), float("nan"), (1, 2), {"b": (1,), "a": {}}, 1e22, "é\ud7ff"])
async def test_settings_are_the_same_after_they_were_written(tmp_path: Path, value: object) -> None:
    (tmp_path / "in").write_bytes(b"{}\n")
    for _ in range(2):
        with open_run(tmp_path / "in", tmp_path / "out", {"option": value}) as one:
            await one.process(echo, concurrency=1)
    assert one.resumed == 1


def test_as_long_as_there_is_no_entry_another_run_may_have_it(tmp_path: Path) -> None:
    """A run that failed at its start, for a mistake in its settings, is not gone on with but mended."""
    (tmp_path / "in").write_bytes(b"{}\n")
    for settings in ({"signature": "oops"}, {"signature": "a -> b"}):
        with open_run(tmp_path / "in", tmp_path / "out", settings):
            pass
    assert json.loads((tmp_path / "out.run.json").read_bytes())["settings"] == {"signature": "a -> b"}


@pytest.mark.parametrize("there", [b"{}", b"[]", b'{"n": 1}\n', b"", b"\xff", b"[" * 100_000])
def test_what_is_no_manifest_is_not_written_over(tmp_path: Path, there: bytes) -> None:
    (tmp_path / "in").write_bytes(b"{}\n")
    (tmp_path / "out").touch()
    (tmp_path / "out.run.json").write_bytes(there)
    assert "out.run.json" in refusal(tmp_path)


def test_an_output_without_a_manifest(done: Path) -> None:
    (done / "out.run.json").unlink()
    assert "out has entries, but no manifest (out.run.json)" in refusal(done)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (b"rubbish", "line 2 of the output is not an entry"),
        (b"\xff", "line 2 of the output is not an entry"),
        (b"", "line 2 of the output is not an entry"),
        (b"[]", "line 2 of the output is not an entry"),
        (b"7", "line 2 of the output is not an entry"),
        (b"[" * 100_000, "line 2 of the output is not an entry"),
        (b'{"outputs": {}}', "line 2 of the output is not an entry"),
        (b'{"line": 99, "outputs": {}}', "line 2 of the output is not an entry"),
        (b'{"line": 3}', "line 2 of the output is not an entry"),
        (b'{"line": 3, "error": "x"}', "line 2 of the output is not an entry"),
        (b'{"line": -1, "outputs": {}}', "about line -1 of the input, which is no record"),
        (b'{"line": 2, "outputs": {}}', "about line 2 of the input, which is no record"),
        (b'{"line": 1, "outputs": {}}', "about line 1 of the input, which has an entry already"),
    ],
    ids=lambda value: None if isinstance(value, str) else value[:20].decode("latin-1"),
)
def test_an_entry_that_cannot_be(done: Path, entry: bytes, reason: str) -> None:
    lines = (done / "out").read_bytes().split(b"\n")
    lines[1] = entry
    (done / "out").write_bytes(b"\n".join(lines))
    text = refusal(done)
    assert reason in text and "Mend that line, or write to another output" in text


def test_input_and_output_are_the_same(done: Path) -> None:
    assert "same file" in refusal(done, output="in")
    (done / "link").symlink_to("in")
    assert "same file" in refusal(done, output="link")
    os.link(done / "in", done / "hard")
    assert "same file" in refusal(done, output="hard")


def test_no_room_for_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left but an empty output, with which any run can begin."""
    (tmp_path / "in").write_bytes(b"{}\n")

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(os, "fsync", full)
        with open_run(tmp_path / "in", tmp_path / "out", SETTINGS):
            pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    with open_run(tmp_path / "in", tmp_path / "out", {"another": "run"}) as one:
        assert one.records == 1


def test_an_output_that_is_no_regular_file(done: Path) -> None:
    os.mkfifo(done / "pipe")
    assert "pipe is not a regular file" in refusal(done, output="pipe")
    assert "null is not a regular file" in refusal(done, output="/dev/null")
