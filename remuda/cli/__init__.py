"""The command line: `remuda`, or `python -m remuda`.

Each command is a module of its own, imported when it is asked for. This one says what there is to
ask for, and turns what goes wrong into a line and an exit code:

    0    all is well
    1    it ran, and something in it failed
    2    it was refused, or its pool did not start: nothing was done
    130  it was interrupted by Ctrl-C; 143 by SIGTERM
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

__all__ = ["main"]


def main() -> None:
    """Run the command line of this process; ends with its exit code."""
    try:
        from remuda.cli.commands import app

        _guarded(app)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("typer", "rich"):
            raise
        print(f"this command needs {missing}: pip install 'remuda[cli]'", file=sys.stderr)
        sys.exit(2)


def _guarded(app: typer.Typer) -> None:
    from remuda.statemachines.errors import ConfigError, PoolStartError, RemudaError

    try:
        app()
    except* (RemudaError, OSError) as group:
        leaf: BaseException = group
        while isinstance(leaf, BaseExceptionGroup):
            leaf = leaf.exceptions[0]
        print(f"remuda: {leaf}", file=sys.stderr)
        for note in getattr(leaf, "__notes__", ()):
            print(note, file=sys.stderr)
        code = 2 if isinstance(leaf, ConfigError | PoolStartError | OSError) else 1
    else:
        code = 0
    sys.exit(code)
