"""Makes docs/errors.md from the classes: `--write` it, or `--check` that it is up to date."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

from remuda.statemachines import errors

PAGE = Path(__file__).with_name("errors.md")

TOP = """\
# The errors

Every error that a caller can meet derives from `remuda.RemudaError`, and all of them are
`remuda.<Name>`. Each says in its text what happened and what to do, and carries the facts as fields:

| field | what it is |
|---|---|
| `category`, `severity` | where the trouble is, and how bad it is for the pool |
| `recoverable` | whether the same call may succeed if it is made again |
| `retry_after` | seconds after which trying again makes sense, or None |
| `context` | facts by name: pool, command, worker, generation, attempts, session, seconds |
| `snapshot` | what the pool was doing at that moment, for errors of the pool |
| `last_death` | how the last worker died, with its exit status and the end of its stderr |
| `as_dict()` | all of it as plain data |

What user code raises in a worker arrives as a `RemoteError`. If it was a built-in exception, or derived
from one, `except ValueError` catches it as well; the worker's traceback is one of its notes.
`SystemExit` and `KeyboardInterrupt` of a command are ordinary remote errors. Cancellation is trio's own
and passes through untouched.

| error | also a | category | severity | recoverable | what it means |
|---|---|---|---|---|---|
"""


def page() -> str:
    """The page."""
    rows = []
    for name in errors.__all__:
        cls = getattr(errors, name)
        if not (inspect.isclass(cls) and issubclass(cls, errors.RemudaError)) or cls is errors.RemudaError:
            continue
        also = ", ".join(f"`{base.__name__}`" for base in cls.__bases__ if not issubclass(base, errors.RemudaError))
        over = next((base.__name__ for base in cls.__bases__ if base is not errors.RemudaError and not also), "")
        meaning = " ".join((cls.__doc__ or "").split("\n\n")[0].split())
        recoverable = "yes" if cls.recoverable else ""
        kind = also or (f"`{over}`" if over else "")
        rows.append(f"| `{name}` | {kind} | {cls.category} | {cls.severity} | {recoverable} | {meaning} |")
    return TOP + "\n".join(rows) + "\n"


def main(arguments: list[str]) -> int:
    """Print, write or check the page; returns the exit status."""
    if arguments == ["--write"]:
        PAGE.write_text(page(), "utf-8")
    elif arguments == ["--check"]:
        if not PAGE.exists() or PAGE.read_text("utf-8") != page():
            print(f"{PAGE.name} is stale; run: make docs", file=sys.stderr)
            return 1
    else:
        print(page(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
