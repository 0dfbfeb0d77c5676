"""What a worker can do wrong, and what comes of it: the table in the docs, and what it is tested by.

Each row is a test (`test_failures.py` runs them all on real processes, under load) and a line of
`docs/failures.md`. So the documentation says what is tested, no more and no less.

    python tests/reality/table.py            print the page
    python tests/reality/table.py --check    fail if docs/failures.md is not it
    python tests/reality/table.py --write
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from remuda.statemachines import errors

LIMIT = 256 * 1024
"""`max_frame_bytes` of the pools that the rows are tested with."""


@dataclass(frozen=True)
class Row:
    """One thing that goes wrong.

    Attributes:
        happens: what, in words; also the name of the test.
        command, args: the call that it happens in, or before which it happens.
        signal: what the test sends to the worker once the call has begun.
        gets: the error of that call, or None if it is answered.
        says: what its text contains.
        value: what it is answered, if it is.
        worker: what becomes of the worker.
        idempotent: whether the call may be repeated.
    """

    happens: str
    command: str
    args: dict[str, Any] = field(default_factory=dict)
    signal: str = ""
    gets: type[errors.RemudaError] | None = None
    says: tuple[str, ...] = ()
    value: object = None
    worker: Literal["kept", "replaced", "checked"] = "replaced"
    idempotent: bool = False
    timeout: float = 30.0
    builtin: type[Exception] | None = None

    @property
    def deadline(self) -> bool:
        """Whether the row is about the deadline of the call."""
        return self.gets is errors.CallTimeout


@dataclass(frozen=True)
class Frozen:
    """It becomes a dict on its way."""

    field: int = 1


FIFO = "{fifo}"  # the test puts a path there
ROWS = (
    # ── It dies ─────────────────────────────────────────────────────────────────────────────────
    Row(
        "SIGKILL in the middle of a call",
        "pause", {"path": FIFO}, signal="SIGKILL",
        gets=errors.OutcomeUnknown, says=("killed by SIGKILL", "idempotent=True"),
    ),
    Row(
        "SIGKILL in the middle of a call that is idempotent",
        "pause_once", {"path": FIFO, "done": FIFO + ".done"}, signal="SIGKILL",
        value="the second time", idempotent=True,
    ),
    Row(
        "`os._exit(3)`",
        "leave", {"status": 3},
        gets=errors.OutcomeUnknown, says=("exit status 3", "the end is near", "and here it"),
    ),
    Row(
        "a segmentation fault",
        "segfault",
        gets=errors.OutcomeUnknown, says=("killed by SIGSEGV", "Segmentation fault", "in segfault"),
    ),
    # ── It hangs ────────────────────────────────────────────────────────────────────────────────
    Row(
        "SIGSTOP in the middle of a call",
        "pause", {"path": FIFO}, signal="SIGSTOP",
        gets=errors.CallTimeout, says=("passed its deadline", "its worker was killed"),
    ),
    Row(
        "`while True: pass`, past the deadline",
        "spin",
        gets=errors.CallTimeout, says=("passed its deadline", "its worker was killed"),
    ),
    Row(
        "C code that holds the interpreter's lock, past the deadline",
        "spin_in_c",
        gets=errors.CallTimeout, says=("passed its deadline", "its worker was killed"),
    ),
    # ── It raises ───────────────────────────────────────────────────────────────────────────────
    Row(
        "an exception",
        "raise_value_error",
        gets=errors.RemoteError, builtin=ValueError, says=("too small",), worker="kept",
    ),
    Row(
        "an exception that cannot be serialized, and whose arguments cannot rebuild it",
        "raise_picky",
        gets=errors.RemoteError, says=("Picky", "that"), worker="kept",
    ),
    Row(
        "an exception whose text raises as well",
        "raise_mute",
        gets=errors.RemoteError, builtin=ValueError, says=("Mute", "RuntimeError"), worker="kept",
    ),
    Row(
        "`sys.exit`",
        "exit",
        gets=errors.RemoteError, says=("SystemExit", "enough"), worker="kept",
    ),
    Row(
        "KeyboardInterrupt",
        "interrupt",
        gets=errors.RemoteError, says=("KeyboardInterrupt",), worker="kept",
    ),
    Row(
        "recursion without end",
        "recurse",
        gets=errors.RemoteError, builtin=RecursionError, says=("recursion",), worker="kept",
    ),
    Row(
        "`remuda.WorkerUnfit`",
        "unfit",
        gets=errors.RemoteError, says=("the accelerator is gone",), worker="checked",
    ),
    Row(
        "MemoryError",
        "exhaust",
        gets=errors.RemoteError, builtin=MemoryError, says=("MemoryError",), worker="checked",
    ),
    # ── It writes where it should not ───────────────────────────────────────────────────────────
    Row(
        "a stray `print`, a write to descriptor 1, output from C",
        "say", {"text": "hello"},
        value="hello", worker="kept",
    ),
    Row(
        "garbage on the channel, then an answer",
        "garble", {"data": b"\xff" * 32, "then": "return"},
        gets=errors.ProtocolError, says=("broke the rules of its channel", "4294967295 bytes"),
    ),
    Row(
        "garbage that looks like a frame",
        "garble", {"data": b"\x00\x00\x00\x03abc", "then": "return"},
        gets=errors.ProtocolError, says=("broke the rules of its channel", "cannot be read"),
    ),
    Row(
        "half a frame, then an answer",
        "garble", {"data": b"\x00\x00\x00\x08abc", "then": "return"},
        gets=errors.ProtocolError, says=("broke the rules of its channel",),
    ),
    Row(
        "half a frame, then nothing",
        "garble", {"data": b"\x00\x00\x00\x08abc", "then": "hang"},
        gets=errors.CallTimeout, says=("passed its deadline",),
    ),
    Row(
        "half a frame, then death",
        "garble", {"data": b"\x00\x00\x00\x08abc", "then": "die"},
        gets=errors.OutcomeUnknown, says=("exit status 5",),
    ),
    # ── Its result cannot travel ────────────────────────────────────────────────────────────────
    Row(
        "a result over `max_frame_bytes`",
        "large", {"size": LIMIT + 1},
        gets=errors.FrameTooLarge, says=("large", "max_frame_bytes"), worker="kept",
    ),
    Row(
        "a result that cannot be serialized",
        "handle",
        gets=errors.SerializationError, says=("handle", "lock", "plain data"), worker="kept",
    ),
    Row(
        "a result that can be sent, but not read: nested too deeply, a dict as the key of a dict",
        "unreadable",
        gets=errors.SerializationError, says=("unreadable", "plain data"), worker="kept",
    ),
    # ── The call is wrong ───────────────────────────────────────────────────────────────────────
    Row(
        "a command that does not exist",
        "classify",
        gets=errors.UnknownCommand, says=("'classify'", "echo, exhaust"), worker="kept",
    ),
    Row(
        "an argument that is missing",
        "echo",
        gets=errors.RemoteError, builtin=TypeError, says=("echo()", "'token'"), worker="kept",
    ),
    Row(
        "an argument too many",
        "echo", {"token": 1, "tone": 2},
        gets=errors.RemoteError, builtin=TypeError, says=("echo()", "'tone'"), worker="kept",
    ),
    Row(
        "an argument that can be sent, but not read",
        "echo", {"token": {Frozen(): 1}},
        gets=errors.SerializationError, says=("echo", "plain data"), worker="kept",
    ),
    # ── It has company ──────────────────────────────────────────────────────────────────────────
    Row(
        "a fork whose child comes back out of the command",
        "fork",
        worker="kept",
    ),
)  # fmt: skip

BEFORE = (
    ("SIGKILL between two calls", "nobody notices", "replaced"),
    ("SIGSTOP between two calls", "nobody notices, if a health check comes before the next call", "replaced"),
    ("garbage on the channel between two calls", "nobody notices", "replaced"),
    ("half a frame between two calls", "nobody notices", "replaced"),
    ("the channel is closed between two calls", "nobody notices", "replaced"),
)

STARTS = (
    ("the adapter's module cannot be imported", "`PoolStartError`, with the worker's traceback"),
    ("the adapter's `setup` raises", "`PoolStartError`, with the worker's traceback"),
    ("the adapter's `setup` hangs", "`PoolStartError` after `init_timeout`"),
    ("the adapter's `setup` kills the process", "`PoolStartError`, when the restart budget is spent"),
)

HOSTILE = (
    ("small messages without end, while it is busy, idle, starting or going", "that worker's call fails; others go on"),
    ("a frame that comes byte by byte, for ever", "`CallTimeout` for that call; others go on"),
    ("an answer to a call or a health check that it does not have", "`ProtocolError`"),
    ("its own answer twice, or answers to the calls behind it", "the first is its caller's; nobody gets the others"),
    ("a second hello, a hello that is no adapter's", "`ProtocolError`, or `PoolStartError`"),
    ("an exception whose texts have no end, or cannot be text", "`ProtocolError`, with a short text"),
    ("a text with control characters", "the error, with them spelt out"),
    ("a pickle that would run code", "bytes: with an adapter nothing is unpickled"),
    ("stderr without end and without a newline", "nothing; lines of 8 KiB, of which the last are kept"),
    ("it closes its descriptors", "nothing, if it was stderr; else its call fails"),
    ("it writes on its evidence page what is not so", "its own calls are judged by that, and no others"),
    ("it cuts its evidence page off", "it cannot (on Linux)"),
    ("what it has started leaves the group, and holds its pipes", "nothing; it ends with the worker (on Linux)"),
)

TROUBLE = (
    ("stopped past the deadlines of calls, checks and starts", "what had arrived is delivered; no worker is lost"),
    ("its loop blocked past a deadline of trio's around a call", "no worker is lost"),
    ("out of descriptors", "calls go on; a start says so, and succeeds when there are some"),
    ("out of processes or memory to start one", "calls go on; a start says so, and succeeds when there is some"),
    ("a start that hangs in the kernel", "leaving the pool does not wait for it"),
    ("no space on the disk for `remuda run`", "an error; what is there stays valid, and it can be gone on with"),
    ("a signal in every moment", "nothing"),
)


def page() -> str:
    """The page of the docs."""
    lines = [
        "# When a worker fails",
        "",
        "Every line of these tables is a test with real processes, two workers and other callers at work",
        "meanwhile (`tests/reality`). In each case the call in question ends as the table says, no other",
        "call is touched, the pool returns to its size, and nothing is left behind.",
        "",
        "## During a call",
        "",
        "| what happens in the worker | what the caller gets | the worker is |",
        "|---|---|---|",
    ]
    lines += [f"| {row.happens} | {_outcome(row)} | {row.worker} |" for row in ROWS]
    lines += ["", "## Between calls", "", "| what happens | who notices | the worker is |", "|---|---|---|"]
    lines += [f"| {happens} | {who} | {worker} |" for happens, who, worker in BEFORE]
    lines += ["", "## At the start", "", "| what happens | what `open_pool` raises |", "|---|---|"]
    lines += [f"| {happens} | {raises} |" for happens, raises in STARTS]
    lines += ["", "## On purpose", "", "| what the worker does | what comes of it |", "|---|---|"]
    lines += [f"| {does} | {comes} |" for does, comes in HOSTILE]
    lines += ["", "## When it is the application", "", "| its trouble | what comes of it |", "|---|---|"]
    lines += [f"| {trouble} | {comes} |" for trouble, comes in TROUBLE]
    lines += [
        "",
        "*kept*: it serves the next call. *checked*: it serves none until a health check has found it well,",
        "and is replaced when it is reported unfit again and again. *replaced*: it is killed, with everything",
        "in its process group, and another is started.",
        "",
    ]
    return "\n".join(lines)


def _outcome(row: Row) -> str:
    if row.gets is None:
        return "its result, from another worker" if row.worker == "replaced" else "its result"
    also = "" if row.builtin is None else f" that is a `{row.builtin.__name__}`"
    return f"`{row.gets.__name__}`{also}"


def main(arguments: list[str]) -> int:
    path = Path(__file__).parents[2] / "docs" / "failures.md"
    if arguments == ["--write"]:
        path.write_text(page(), "utf-8")
    elif arguments == ["--check"]:
        if not path.exists() or path.read_text("utf-8") != page():
            print(f"{path.name} is stale; run: python tests/reality/table.py --write", file=sys.stderr)
            return 1
    else:
        print(page(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
