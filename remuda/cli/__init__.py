"""The command line: `remuda`, or `python -m remuda`.

Each command is a module of its own, imported when it is asked for. This one says what there is to
ask for, and turns what goes wrong into a line and an exit code:

    0    all is well
    1    it ran, and something in it failed
    2    it was refused, or its pool did not start: nothing was done
    130  it was interrupted by Ctrl-C; 143 by SIGTERM; 129 by SIGHUP, when its terminal was closed
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import typer

__all__ = ["find_users_code", "main"]


def main() -> None:
    """Run the command line of this process; ends with its exit code."""
    try:
        from remuda.cli.commands import app
        from remuda.cli.output import open_streams

        open_streams()
        _guarded(app)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("typer", "rich"):
            raise
        print(f"this command needs {missing}: pip install 'remuda[cli]'", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:  # before there was anything to be stopped
        sys.exit(130)


def find_users_code() -> None:
    """Let modules be found in the working directory, as `python -m` does; the installed command would not."""
    try:
        here = os.getcwd()
    except FileNotFoundError:  # it was deleted
        return
    if here not in sys.path and "" not in sys.path and not sys.flags.safe_path:
        sys.path.insert(0, here)


def _guarded(app: typer.Typer) -> None:
    from remuda.cli.output import explain, note
    from remuda.statemachines.errors import ConfigError, PoolStartError, RemudaError

    try:
        app()
    except BaseException as error:
        leaves = list(_leaves(error))
        if not all(isinstance(leaf, RemudaError | OSError | SystemExit) for leaf in leaves):
            raise
        said = next((leaf for leaf in leaves if isinstance(leaf, RemudaError | OSError)), None)
        if said is None:  # also one that rich raises when nobody reads any more, from the middle of a nursery
            raise leaves[0] from None
        if isinstance(said, BrokenPipeError):
            sys.exit(1)
        note(f"remuda: {explain(said)}")
        sys.exit(2 if isinstance(said, ConfigError | PoolStartError | OSError) else 1)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
