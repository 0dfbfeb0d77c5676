"""What commands say, and to whom: results to stdout, everything else to stderr.

A run is not over because nobody listens. Whoever reads may go (`remuda run … | head -1`), a terminal
may be closed, a descriptor may have been closed from the start: what is said then is lost, and the
work goes on.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TextIO

from remuda.statemachines.errors import PoolStartError, RemudaError

__all__ = ["explain", "note", "open_streams", "say"]

_OURS = str(Path(__file__).parents[1]) + os.sep
_FRAME = re.compile(r'^  File "(?P<path>.*?)", line .*\n(?:    .*\n)*', re.MULTILINE)
_REFUSED = re.compile(r"\bremuda\.statemachines\.errors\.ConfigError: (?P<reason>.*)", re.DOTALL)


def open_streams() -> None:
    """See to it that descriptors 0 to 2 are open, and that there is a stdout and a stderr.

    One that is closed would become that of the next file which is opened: the output of a run.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest that is free
    # What Python had no descriptor for when it started is None, whatever its type says.
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  (for good)


def say(text: str) -> None:
    """A line of a result."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        _nobody_reads(sys.stdout)


def note(text: str) -> None:
    """A line about how it goes."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:  # the terminal may be gone, too
        _nobody_reads(sys.stderr)


def _nobody_reads(stream: TextIO) -> None:
    """Let what is written to it from here on, and what waits to be written, go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def explain(error: RemudaError | OSError) -> str:
    """An error in the words of the command line: what happened, what to do, and nothing about our own insides."""
    if isinstance(error, OSError):
        text = error.strerror or str(error)
        return text if error.filename is None else f"{os.fsdecode(error.filename)}: {text}"
    if not isinstance(error, PoolStartError) or error.last_death is None:
        return str(error)
    death = error.last_death
    refused = _REFUSED.search(death.cause)
    if refused is not None:  # the worker has understood what is wrong, and said so
        return refused["reason"]
    lines = [f"the workers do not start: {death.cause}", *(f"  | {line}" for line in death.stderr_tail[-12:])]
    lines += [trimmed for trace in getattr(error, "__notes__", ()) if (trimmed := _without_ours(trace))]
    return "\n".join(lines)


def _without_ours(traceback: str) -> str:
    """A traceback of a worker, without the frames of remuda and of the import system; "" if none is left."""
    kept = 0

    def frame(match: re.Match[str]) -> str:
        nonlocal kept
        path = match["path"]
        if path.startswith((_OURS, "<frozen importlib")) or path.endswith(f"importlib{os.sep}__init__.py"):
            return ""
        kept += 1
        return match[0]

    text = _FRAME.sub(frame, traceback)
    return text.rstrip() if kept else ""
