"""The command line: `remuda`, or `python -m remuda`.

Each command is a module of its own, imported when it is asked for. This one says what there is to
ask for, and turns what goes wrong into a line and an exit code:

    0    all is well
    1    it ran, and something in it failed
    2    it was refused: a wrong option, another run, a missing extra
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
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        print(f"the command line needs {error.name}: pip install 'remuda[cli]'", file=sys.stderr)
        sys.exit(2)
    _guarded(app)


def _guarded(app: typer.Typer) -> None:
    from remuda.statemachines.errors import ConfigError, RemudaError

    try:
        app()
    except* (ConfigError, RemudaError, OSError) as group:
        leaf: BaseException = group
        while isinstance(leaf, BaseExceptionGroup):
            leaf = leaf.exceptions[0]
        print(f"remuda: {leaf}", file=sys.stderr)
        for note in getattr(leaf, "__notes__", ()):
            print(note, file=sys.stderr)
        code = 2 if isinstance(leaf, ConfigError | OSError) else 1
    else:
        code = 0
    sys.exit(code)
