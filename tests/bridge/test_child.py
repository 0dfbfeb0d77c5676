"""The worker's loop, in a process of its own, over its real pipes, with nothing of the pool around it."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from remuda.bridge import functions, messages
from remuda.bridge.frames import HANDSHAKE_LIMIT, pack
from remuda.bridge.messages import FailureKind
from remuda.bridge.remote import rebuild

from .talk import Talk, boot_message, local, started, talking

on_both = pytest.mark.usefixtures("start_method")
"""For what the way in which a worker came to be might change."""


@dataclass(frozen=True)
class Frozen:
    """As the key of a dict it can be written, as a dict, and no dict can be read as a key."""

    field: int = 1


# ── Becoming one ────────────────────────────────────────────────────────────────────────────────


@on_both
async def test_hello_tells_who_it_is_and_what_it_can() -> None:
    async with started() as talk:
        hello = await talk.boot()
        assert isinstance(hello, messages.Hello)
        assert (hello.pid, hello.version) == (talk.worker.pid, messages.VERSION)
        commands = {info.name: info for info in hello.commands}
        assert commands["echo"] == messages.CommandInfo("echo", idempotent=True, timeout=2.5)
        assert commands["remember"] == messages.CommandInfo("remember", journal="key", key_at=0)
        assert "setup" not in commands and "health" not in commands
        assert talk.marks == (0, 0)
        assert await talk.end() == 0


@pytest.mark.parametrize(
    ("fields", "stage", "type_name", "text"),
    [
        ({"cwd": "/no/such/folder"}, "start", "FileNotFoundError", "no/such/folder"),
        ({"adapter": "no_such_module:C"}, "import", "ModuleNotFoundError", "no_such_module"),
        ({"adapter": "unruly:Nothing"}, "import", "remuda.statemachines.errors.ConfigError", "no 'Nothing'"),
        ({"adapter": "unruly"}, "import", "remuda.statemachines.errors.ConfigError", "there are: dspy"),
        ({"adapter": "unruly:sys"}, "import", "remuda.statemachines.errors.ConfigError", "must be a class"),
        ({"adapter": "unruly:Keyword"}, "import", "TypeError", "code"),
        ({"settings": {"setup": "raise"}}, "setup", "LookupError", "no such table"),
        ({"settings": {"setup": "exit"}}, "setup", "SystemExit", "5"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_it_cannot_become_it_says(fields: dict[str, Any], stage: str, type_name: str, text: str) -> None:
    async with started() as talk:
        failed = await talk.boot(**{"adapter": "unruly:Unruly", **fields})
        assert isinstance(failed, messages.BootFailed)
        assert failed.stage == stage
        assert failed.error.type_name == type_name
        assert text in failed.error.message
        assert await talk.receive() is None
        assert await talk.worker.wait() == 1


@on_both
async def test_who_hangs_up_before_the_first_word_ends_it() -> None:
    async with started() as talk:
        hang_up(talk)
        assert await talk.worker.wait() == 0


@pytest.mark.parametrize(
    "frame",
    [
        pack(b"", 100),
        pack(b"junk", 100),
        b"\xff\xff\xff\xff",
        pack(messages.encode(messages.Ping(1)), 100),
        pack(messages.encode(messages.Pong(1, True, "")), 100),
    ],
    ids=["empty", "junk", "too long", "out of turn", "wrong way"],
)
async def test_what_it_cannot_understand_ends_it_with_a_word(frame: bytes) -> None:
    async with started() as talk:
        await talk.send_bytes(frame)
        assert await talk.receive() is None
        assert await talk.worker.wait() == 1
        assert await talk.words()


@on_both
async def test_a_second_boot_message_ends_it() -> None:
    async with talking() as talk:
        await talk.send(boot_message())
        assert await talk.receive() is None
        assert await talk.worker.wait() == 1
        assert "out of turn" in "\n".join(await talk.words())


# ── Calls ───────────────────────────────────────────────────────────────────────────────────────


@on_both
async def test_calls_are_answered_in_order_and_however_they_are_cut() -> None:
    async with talking() as talk:
        calls = [talk.numbered("echo", [number] if number % 2 else {"value": number}) for number in range(200)]
        stream = b"".join(pack(messages.encode(call), HANDSHAKE_LIMIT) for call in calls)
        for start in range(0, len(stream), 7):
            await talk.send_bytes(stream[start : start + 7])
        for number, call in enumerate(calls):
            assert await talk.receive() == messages.Result(call.id, number)
        assert await talk.end() == 0


@pytest.mark.parametrize(
    ("how", "kind", "type_name", "text"),
    [
        ("value", FailureKind.RAISED, "ValueError", "no"),
        ("type", FailureKind.RAISED, "TypeError", "my own"),
        ("keyword", FailureKind.RAISED, "unruly.Keyword", "code 7"),
        ("exit", FailureKind.RAISED, "SystemExit", "3"),
        ("interrupt", FailureKind.RAISED, "KeyboardInterrupt", ""),
        ("generator", FailureKind.RAISED, "GeneratorExit", ""),
        ("stop", FailureKind.RAISED, "StopIteration", "1"),
        ("memory", FailureKind.UNFIT, "MemoryError", ""),
        ("unfit", FailureKind.UNFIT, "remuda.statemachines.errors.WorkerUnfit", "lost my base"),
        ("object", FailureKind.UNSERIALIZABLE, "remuda.statemachines.errors.SerializationError", "object"),
        ("surrogate", FailureKind.UNSERIALIZABLE, "remuda.statemachines.errors.SerializationError", "surrogates"),
        ("endless", FailureKind.UNSERIALIZABLE, "remuda.statemachines.errors.SerializationError", "contains itself"),
        ("group", FailureKind.RAISED, "BaseExceptionGroup", "2 sub-exceptions"),
        ("unspeakable", FailureKind.RAISED, "unruly.Unspeakable", "cannot be had: SystemExit"),
        ("broken pipe", FailureKind.RAISED, "BrokenPipeError", "mine"),
    ],
)
async def test_whatever_a_command_does_the_call_is_answered(
    how: str, kind: FailureKind, type_name: str, text: str
) -> None:
    async with talking() as talk:
        answer = await talk.failure("fail", how)
        assert (answer.id, answer.kind) == (1, kind)
        assert answer.error.type_name == type_name
        assert text in answer.error.message
        rebuild(answer.error)
        assert await talk.value("echo", how) == how, "and the next one as well"
        assert await talk.end() == 0


async def test_a_command_that_does_not_exist_is_not_begun() -> None:
    async with talking() as talk:
        answer = await talk.failure("setup")
        assert answer.kind is FailureKind.UNKNOWN_COMMAND
        assert "'setup'" in answer.error.message and "echo" in answer.error.message
        assert talk.worker.evidence().started == 0
        await until_answered(talk, 1)


@pytest.mark.parametrize(
    "args", [[], ["one", "two"], {"values": 1}, {}, {"value": 1, "more": 2}], ids=["none", "two", "name", "{}", "more"]
)
async def test_arguments_that_do_not_fit(args: Any) -> None:
    async with talking() as talk:
        await talk.send(talk.numbered("echo", args))
        answer = await talk.receive()
        assert isinstance(answer, messages.Failure)
        assert answer.kind is FailureKind.BAD_ARGUMENTS
        assert answer.error.type_name == "TypeError"
        assert "echo() " in answer.error.message and "(value: " in answer.error.message
        assert await talk.value("echo", 1) == 1


@pytest.mark.parametrize("args", [7, None, "text", True], ids=repr)
async def test_arguments_that_are_no_arguments(args: Any) -> None:
    async with talking() as talk:
        await talk.send(talk.numbered("pid", args))
        answer = await talk.receive()
        assert isinstance(answer, messages.Failure)
        assert await talk.value("echo", 1) == 1


@pytest.mark.parametrize(
    "value",
    [{Frozen(): 1}, msgspec.Raw(b"\x91" * 100_000 + b"\xc0"), msgspec.Raw(b"\xc1"), msgspec.Raw(b"")],
    ids=["a key that is no key", "deep", "no type", "nothing"],
)
async def test_arguments_that_can_be_sent_and_not_read(value: object) -> None:
    """Nobody would be left if each worker ended that such a call is given to."""
    async with talking() as talk:
        answer = await talk.call("echo", value)
        assert isinstance(answer, messages.Failure)
        assert (answer.id, answer.kind) == (1, messages.FailureKind.UNREADABLE)
        assert talk.marks == (0, 0)
        assert await talk.value("echo", 1) == 1


async def test_a_quiet_call_has_no_value_but_has_its_failure() -> None:
    async with talking() as talk:
        assert await talk.call("echo", "x", quiet=True) == messages.Result(1, None)
        assert await talk.call("fail", "object", quiet=True) == messages.Result(2, None)
        assert isinstance(await talk.call("fail", "value", quiet=True), messages.Failure)


# ── Evidence ────────────────────────────────────────────────────────────────────────────────────


async def until_answered(talk: Talk, number: int) -> None:
    """Make sure that the worker is past the mark for its last answer: it has answered a ping."""
    await talk.send(messages.Ping(99))
    assert await talk.receive() == messages.Pong(99, True, "")
    assert talk.worker.evidence().finished == number


@on_both
async def test_begun_is_marked_before_user_code_and_answered_after_the_answer() -> None:
    async with talking() as talk:
        await talk.value("echo", 1)
        await until_answered(talk, 1)
        await talk.send(talk.numbered("marks", []))
        assert await talk.line() == "begun"
        assert talk.marks == (2, 1)
        talk.worker.signal(signal.SIGKILL)
        assert await talk.worker.wait() == -signal.SIGKILL
        assert talk.marks == (2, 1)
        assert await talk.receive() is None


@on_both
async def test_a_call_that_was_never_read_is_not_begun() -> None:
    async with talking() as talk:
        talk.worker.signal(signal.SIGSTOP)
        await talk.send(talk.numbered("echo", [1]))
        talk.worker.signal(signal.SIGKILL)
        await talk.worker.wait()
        assert talk.marks == (0, 0)


async def test_an_answer_that_nobody_reads_is_not_marked_as_answered() -> None:
    async with talking() as talk:
        await talk.send(talk.numbered("large", [1_000_000]))
        await talk.worker.readable()  # it is in the middle of it: a pipe is smaller
        assert talk.marks == (1, 0)
        talk.worker.signal(signal.SIGKILL)
        await talk.worker.wait()
        assert talk.marks == (1, 0)


async def test_unpickling_the_arguments_counts_as_begun() -> None:
    async with talking(None) as talk:
        # A pickle that calls print("begun") and signal.pause() when it is read.
        hang = b"cbuiltins\nprint\n(S'begun'\ntR0csignal\npause\n(tR."
        await talk.send(messages.Call(5, "builtins:len", hang))
        assert await talk.line() == "begun"
        assert talk.marks == (5, 0)


# ── The end ─────────────────────────────────────────────────────────────────────────────────────


def hang_up(talk: Talk) -> None:
    """Close the application's writing end, and only that."""
    fd = local(talk)._write_fd
    null = os.open("/dev/null", os.O_WRONLY)
    os.dup2(null, fd, inheritable=False)
    os.close(null)


@pytest.mark.parametrize("half", [0, 1, 4, 7])
async def test_the_end_of_file_means_teardown_and_exit(tmp_path: Path, half: int) -> None:
    path = tmp_path / "teardown"
    async with talking(settings={"teardown": str(path)}) as talk:
        assert await talk.value("echo", 1) == 1
        await talk.send_bytes(pack(messages.encode(talk.numbered("echo", [2])), 1000)[:half])
        hang_up(talk)
        assert await talk.receive() is None
        assert await talk.worker.wait() == 0
    assert path.read_text() == "torn down"


@on_both
async def test_what_was_sent_before_the_end_of_file_is_done() -> None:
    async with talking() as talk:
        await talk.send(talk.numbered("echo", [1]))
        hang_up(talk)
        assert await talk.receive() == messages.Result(1, 1)
        assert await talk.receive() is None
        assert await talk.worker.wait() == 0


@on_both
async def test_shutdown_means_teardown_and_exit(tmp_path: Path) -> None:
    path = tmp_path / "teardown"
    async with talking(settings={"teardown": str(path)}) as talk:
        assert await talk.end() == 0
    assert path.read_text() == "torn down"


@on_both
async def test_a_teardown_that_fails_is_to_be_seen() -> None:
    async with talking(settings={"teardown": "raise"}) as talk:
        assert await talk.end() == 1
        assert "RuntimeError: teardown failed" in await talk.words()


@on_both
async def test_how_its_own_children_end_is_not_hidden_from_it() -> None:
    """Even if the application does not want to hear of its own: what is ignored is inherited."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        async with talking(None) as talk:
            await talk.send(messages.Call(1, "subprocess:call", functions.dumps(((["false"],), {}))))
            answer = await talk.receive()
            assert isinstance(answer, messages.Result) and functions.loads(answer.value, "call") == 1
    finally:
        signal.signal(signal.SIGCHLD, before)


@on_both
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT])
async def test_a_signal_ends_it(signum: signal.Signals) -> None:
    async with talking() as talk:
        talk.worker.signal(signum)
        assert await talk.worker.wait() == -signum


@on_both
async def test_a_crash_shows_where_it_was() -> None:
    async with talking() as talk:
        await talk.send(talk.numbered("marks", []))
        assert await talk.line() == "begun"
        talk.worker.signal(signal.SIGSEGV)
        assert any("in marks" in line for line in await talk.words())


# ── The channel belongs to the loop alone ───────────────────────────────────────────────────────


@on_both
@pytest.mark.parametrize("how", ["return", "raise"])
async def test_a_forked_child_that_comes_back_does_not_answer(how: str) -> None:
    async with talking() as talk:
        answer = await talk.call("fork", how)
        assert isinstance(answer, messages.Result), answer
        assert answer.value > 0, "the child has ended with an error"
        await until_answered(talk, 1)
        assert await talk.value("echo", 1) == 1
        assert await talk.end() == 0


@on_both
async def test_a_child_that_was_forked_in_setup_does_not_answer() -> None:
    async with talking(settings={"setup": "fork"}) as talk:
        assert await talk.value("pid") == talk.worker.pid
        assert await talk.end() == 0


@on_both
async def test_a_program_that_it_starts_inherits_nothing() -> None:
    async with talking() as talk:
        assert await talk.value("open_in_child") == ["0", "1", "2"]


@on_both
async def test_whatever_is_printed_goes_to_stderr() -> None:
    async with talking(settings={"setup": "print"}) as talk:
        assert await talk.value("shout", "it") is None
        assert await talk.value("stdin") == ""
        assert await talk.end() == 0
        assert await talk.words() == ["from setup", "print it", "write it", "printf it", "echo it", "unfinished"]


# ── Health ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("health", "well", "reason"),
    [
        ("", True, ""),
        ("false", False, "health() returned False"),
        ("raise", False, "ConnectionError: the base is gone xx"),
        ("exit", False, "SystemExit: 3"),
    ],
)
async def test_a_ping_is_answered_whatever_health_does(health: str, well: bool, reason: str) -> None:
    async with talking(settings={"health": health}) as talk:
        await talk.send(messages.Ping(2**64 - 1))
        pong = await talk.receive()
        assert isinstance(pong, messages.Pong)
        assert (pong.id, pong.healthy) == (2**64 - 1, well)
        assert pong.reason.startswith(reason) and len(pong.reason) <= 200
        assert await talk.value("echo", 1) == 1


# ── The largest frame ───────────────────────────────────────────────────────────────────────────


async def test_a_result_that_is_too_large_is_refused_and_a_smaller_one_is_not() -> None:
    async with talking(max_frame_bytes=1024) as talk:
        assert len(await talk.value("large", 1000)) == 1000
        answer = await talk.failure("large", 2000)
        assert answer.kind is FailureKind.TOO_LARGE
        assert "and 1024 are allowed" in answer.error.message
        assert await talk.value("echo", 1) == 1


async def test_an_error_that_is_too_large_is_told_in_brief() -> None:
    async with talking(max_frame_bytes=1024) as talk:
        answer = await talk.failure("fail_large", 16)
        assert answer.kind is FailureKind.RAISED
        assert answer.error.builtin == "ValueError"
        assert not answer.error.traceback
        assert await talk.value("echo", 1) == 1


async def test_a_call_that_is_too_large_ends_it() -> None:
    async with talking(max_frame_bytes=1024) as talk:
        await talk.send(talk.numbered("echo", ["x" * 2000]))
        assert await talk.receive() is None
        assert await talk.worker.wait() == 1
        assert talk.marks == (0, 0)
        assert "and 1024 are allowed" in "\n".join(await talk.words())


# ── Plain functions ─────────────────────────────────────────────────────────────────────────────


@on_both
async def test_functions_are_found_by_name_and_their_results_are_pickled() -> None:
    async with talking(None) as talk:
        name, payload = functions.request(divmod, (17, 5))
        answer = await talk.send(messages.Call(1, name, payload)) or await talk.receive()
        assert isinstance(answer, messages.Result)
        assert functions.loads(answer.value, name) == (3, 2)


@pytest.mark.parametrize(
    ("command", "payload", "kind", "type_name"),
    [
        ("no_such_module:f", functions.dumps(((), {})), FailureKind.RAISED, "ModuleNotFoundError"),
        ("os:nothing", functions.dumps(((), {})), FailureKind.RAISED, "remuda.statemachines.errors.ConfigError"),
        ("nonsense", functions.dumps(((), {})), FailureKind.RAISED, "remuda.statemachines.errors.ConfigError"),
        ("builtins:len", b"junk", FailureKind.RAISED, "_pickle.UnpicklingError"),
        ("builtins:len", functions.dumps(7), FailureKind.RAISED, "TypeError"),
        ("builtins:open", functions.dumps((("/dev/null",), {})), FailureKind.UNSERIALIZABLE, ""),
        ("threading:Lock", functions.dumps(((), {})), FailureKind.UNSERIALIZABLE, ""),
        ("sys:exit", functions.dumps(((4,), {})), FailureKind.RAISED, "SystemExit"),
    ],
)
async def test_a_function_that_cannot_be_called(
    command: str, payload: bytes, kind: FailureKind, type_name: str
) -> None:
    async with talking(None) as talk:
        await talk.send(messages.Call(1, command, payload))
        answer = await talk.receive()
        assert isinstance(answer, messages.Failure)
        assert answer.kind is kind
        assert not type_name or answer.error.type_name == type_name
        await talk.send(messages.Ping(2))
        assert await talk.receive() == messages.Pong(2, True, "")
