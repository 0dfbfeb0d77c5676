"""The evidence page: what a worker's calls have come to, readable after it was killed.

The application and the worker map the same memory. The worker stores the number of a call there
before it runs user code for it, and again when the answer has been written. A store costs a
twentieth of a microsecond, and needs no cooperation afterwards: whatever kills the worker, the page
stays. So for any death it can be said whether the call had begun, and what the worker was doing.

    offset    0    8 bytes   what this is, and of which version
    offset   64    u64       started: the last call that was begun
    offset   72    u64       starts: how many were begun, stored after `started`
    offset  128    u64       finished: the last call that was answered
    offset  192    u64       interrupt: the call that is to stop; the only one that the application stores
    offset  256    u64       phase: what the worker is doing, as an index into `PHASES`
    offset  264    u64       beat: its last sign of life, in nanoseconds of CLOCK_MONOTONIC
    offset  320    u64       report: the number of the last report on progress; 0 for none
    offset  512    256 bytes  the last report with an even number
    offset  768    256 bytes  the last report with an odd number
    offset 4096    64 KiB    the stacks of the worker's threads, as `faulthandler` writes them

Each number lies aligned and is stored in one instruction: it is never seen half written. A report is
written beside the one that is shown, and then its number is stored. It carries that number in front
and behind, so that one that was overwritten while it was read is known.

The stacks are written through the descriptor, not the mapping, and the descriptor that the worker
got shares its offset with the application's: it is one open file. The application sets it to the
beginning before it asks, and it says how far the worker has come. Nothing old can be taken for new.

The worker may write there what it likes; what it says is believed of its own calls only. What it
cannot do on Linux is take the page away: its size is sealed. A page that was cut off would end the
application with SIGBUS, at its next look.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
import re
import struct
import sys
import time
from itertools import count

import msgspec

from remuda.statemachines.errors import ProtocolError

__all__ = ["PHASES", "Activity", "Evidence", "Page", "Report", "create", "own", "progress"]

_MAGIC = b"remuda\x00\x03"
_STARTED, _STARTS, _FINISHED, _INTERRUPT = 64 // 8, 72 // 8, 128 // 8, 192 // 8
_PHASE, _BEAT, _REPORT = 256 // 8, 264 // 8, 320 // 8
_STACK = 4096
_SIZE = _STACK + 64 * 1024

PHASES = ("booting", "importing", "setting up", "idle", "running", "answering", "checking", "tearing down")
BOOTING, IMPORTING, SETTING_UP, IDLE, RUNNING, ANSWERING, CHECKING, TEARING_DOWN = range(len(PHASES))

_REPORTS = (512, 768)
_NOTE = 200
"""Bytes of a note at most."""
_report = struct.Struct(f"<QQddH{_NOTE}sQ")
_ATTEMPTS = 5
"""How often a report is read that is written at the same time."""

_LOOP = re.compile(r'^  File ".*bridge/child\.py", line \d+ in .*$', re.MULTILINE)
"""A line of a stack that is the worker's own loop: below it there is nothing of the user's."""

_monotonic = time.monotonic_ns


class Evidence(msgspec.Struct, frozen=True):
    """What a worker has recorded about its calls, provable also after it was killed."""

    started: int
    """The id of the last call that user code was begun for; 0 for none."""
    finished: int
    """The id of the last call whose answer was written in full; 0 for none."""
    starts: int
    """How many calls user code was begun for. Unlike an id, it cannot come garbled from the channel."""


class Report(msgspec.Struct, frozen=True):
    """How far a call has come, by its own word (`remuda.progress`)."""

    done: float
    total: float | None = None
    note: str = ""

    def __str__(self) -> str:
        text = _plain(self.done) if self.total is None else f"{_plain(self.done)} of {_plain(self.total)}"
        return f"{text}: {self.note}" if self.note else text


def _plain(number: float) -> str:
    return str(int(number)) if abs(number) < 1e15 and number == int(number) else f"{number:g}"


class Activity(msgspec.Struct, frozen=True):
    """What a worker was doing when it last said so; known also after it was killed."""

    phase: str
    """"booting", "importing", "setting up", "idle", "running", "answering", "checking" or "tearing down"."""
    silent: float | None = None
    """Seconds since its last sign of life (a change of phase, or a report); None if there was none."""
    call: int = 0
    """The call that it has begun last; 0 for none."""
    report: Report | None = None
    """The last report on that call, if it has made one."""


def create() -> int:
    """A descriptor of a new page, which nothing in the file system names."""
    if sys.platform == "linux":
        fd = os.memfd_create("remuda-evidence", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    else:
        import tempfile  # late: it costs a worker more than all the rest here, and none needs it

        fd, path = tempfile.mkstemp(prefix="remuda-evidence-")
        os.unlink(path)
    try:
        os.ftruncate(fd, _SIZE)
        os.pwrite(fd, _MAGIC, 0)
        if sys.platform == "linux":
            # Who shortens what another has mapped kills it at its next look.
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except OSError:
        os.close(fd)
        raise
    return fd


class Page:
    """The page, mapped. The descriptor may be closed then: this one has its own, with the same offset.

    Attributes:
        fd: where `faulthandler` is to write.

    Raises:
        ProtocolError: the descriptor is of something else.
        OSError: there is no memory or no descriptor for it.
    """

    __slots__ = ("_count", "_map", "_numbers", "_view", "fd")

    def __init__(self, fd: int) -> None:
        try:
            self._map = mmap.mmap(fd, _SIZE)
        except (ValueError, PermissionError) as error:  # too short; no memory
            raise ProtocolError(f"what was given as the evidence page is none: {error}") from error
        try:
            if self._map[: len(_MAGIC)] != _MAGIC:
                raise ProtocolError("what was given as the evidence page is none")
            self.fd = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
        except BaseException:
            self._map.close()
            raise
        self._view = memoryview(self._map)
        self._numbers = self._view.cast("Q")
        self._count = count(1)

    # ── The calls ───────────────────────────────────────────────────────────────────────────────

    def evidence(self) -> Evidence:
        """What the worker has recorded so far."""
        numbers = self._numbers
        return Evidence(numbers[_STARTED], numbers[_FINISHED], numbers[_STARTS])

    @property
    def started(self) -> int:
        """The last call that was begun; 0 for none."""
        return self._numbers[_STARTED]

    @property
    def finished(self) -> int:
        """The last call that was answered; 0 for none."""
        return self._numbers[_FINISHED]

    def start(self, number: int) -> None:
        """Record that a call begins."""
        numbers = self._numbers
        numbers[_STARTED] = number
        numbers[_STARTS] += 1
        numbers[_PHASE] = RUNNING
        numbers[_BEAT] = _monotonic()

    def finish(self, number: int) -> None:
        """Record that its answer was written."""
        numbers = self._numbers
        numbers[_FINISHED] = number
        numbers[_PHASE] = IDLE
        numbers[_BEAT] = _monotonic()

    # ── What it is doing ────────────────────────────────────────────────────────────────────────

    def enter(self, phase: int) -> None:
        """Record what the worker is doing from now on."""
        numbers = self._numbers
        numbers[_PHASE] = phase
        numbers[_BEAT] = _monotonic()

    def report(self, done: float, total: float | None, note: str) -> None:
        """Record how far the call has come that is running."""
        text = note.encode("utf-8", "replace")[:_NOTE]
        number, numbers = next(self._count), self._numbers
        _report.pack_into(
            self._map, _REPORTS[number & 1], number, numbers[_STARTED], done, math.nan if total is None else total,
            len(text), text, number,
        )  # fmt: skip
        numbers[_REPORT] = number
        numbers[_BEAT] = _monotonic()

    def activity(self) -> Activity:
        """What the worker was doing when it last said so. Whatever it wrote here, this can be read."""
        numbers = self._numbers
        phase, beat = numbers[_PHASE], numbers[_BEAT]
        return Activity(
            phase=PHASES[phase] if phase < len(PHASES) else "unknown",
            silent=max(0.0, (_monotonic() - beat) / 1e9) if beat else None,
            call=numbers[_STARTED],
            report=self._last_report(),
        )

    def _last_report(self) -> Report | None:
        for _ in range(_ATTEMPTS):
            number = self._numbers[_REPORT]
            if not number:
                return None
            first, call, done, total, length, text, last = _report.unpack_from(self._map, _REPORTS[number & 1])
            if first == last == number == self._numbers[_REPORT]:
                if call != self.started:
                    return None  # of a call before this one
                note = text[: min(length, _NOTE)].decode("utf-8", "ignore")
                return Report(done, None if math.isnan(total) else total, note)
        return None

    # ── Interrupts ──────────────────────────────────────────────────────────────────────────────

    @property
    def interrupted(self) -> int:
        """The call that is to stop; 0 for none."""
        return self._numbers[_INTERRUPT]

    def interrupt(self, number: int) -> None:
        """Record which call is to stop. Numbers are never used twice, so that it need not be taken back."""
        self._numbers[_INTERRUPT] = number

    def rewind(self) -> None:
        """Let what is written to `fd` begin where stacks are read."""
        os.lseek(self.fd, _STACK, os.SEEK_SET)

    def stack(self) -> tuple[str, bool]:
        """The stacks that were written since `rewind`, without the worker's own loop; and whether that is all.

        The thread that is dumped last is the main one: when its way down has come to the loop, all is there.
        """
        end = os.lseek(self.fd, 0, os.SEEK_CUR)
        text = self._map[_STACK : max(_STACK, min(end, _SIZE))].decode("utf-8", "replace")
        loop = _LOOP.search(text)
        return (text, False) if loop is None else (text[: loop.start()], True)

    def close(self) -> None:
        """Unmap it."""
        self._numbers.release()
        self._view.release()
        if not self._map.closed:
            os.close(self.fd)
        self._map.close()


# ── For the code that runs in a worker ──────────────────────────────────────────────────────────

_own: Page | None = None


def own(page: Page) -> None:
    """Make this the page of this process: `progress` reports there."""
    global _own  # noqa: PLW0603  # a process has one page
    _own = page


def progress(done: float, total: float | None = None, note: str = "") -> None:
    """Say how far the call has come that is running in this worker.

    It costs a microsecond, and nobody is told: whoever looks (`Pool.snapshot`), and whoever has to say
    what a worker was doing when it died, reads the last report. Outside of a worker it does nothing.

    Args:
        done: how much has been done, in units of your own.
        total: how much there is to do, or None if that is not known.
        note: a few words, at most 200 bytes of UTF-8; what is longer is cut.
    """
    if _own is not None:
        _own.report(done, total, note)
