"""Lifecycles as diagrams and tables, on the terminal and in documents.

`diagram("worker", "mermaid")` is what `remuda diagram worker` prints. Documents carry the same text
in marked blocks:

    <!-- diagram: worker -->
    (whatever stands here is replaced)
    <!-- /diagram -->

A block is a Mermaid diagram, or with a second word (`worker table`, `worker essay`) the table, or
the essay at the top of the lifecycle's module. Run as a program, this module brings the blocks up to
date, or says which are not:

    python -m remuda.cli.diagram --write README.md docs/lifecycles.md
    python -m remuda.cli.diagram --check README.md docs/lifecycles.md

A file without any block is an error: a check that has nothing to check would always pass.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeAlias, cast

from transitions import Machine

from remuda.cli import find_users_code
from remuda.statemachines.draw import mermaid, table
from remuda.statemachines.errors import ConfigError
from remuda.statemachines.lifecycle import Lifecycle

__all__ = ["FORMATS", "OURS", "diagram", "load", "main", "refresh"]

AnyLifecycle: TypeAlias = Lifecycle[StrEnum, StrEnum]

OURS = {
    "worker": "remuda.statemachines.worker:WORKER",
    "slot": "remuda.statemachines.slot:SLOT",
    "pool": "remuda.statemachines.pool:POOL",
    "call": "remuda.statemachines.call:CALL",
    "breaker": "remuda.statemachines.breaker:BREAKER",
    "template": "remuda.statemachines.template:TEMPLATE",
}
"""The lifecycles of remuda itself, by name."""

FORMATS = ("mermaid", "table", "essay")
"""What `diagram` can make of a lifecycle."""


def load(name: str) -> AnyLifecycle:
    """Find a lifecycle.

    Args:
        name: one of `OURS`, or "module:NAME" for any other. The module is imported, with the
            working directory on the path, as `python -m` has it.

    Raises:
        ConfigError: there is none of that name, or what is there is not a `Lifecycle`.
    """
    module_name, _, attribute = OURS.get(name, name).partition(":")
    if not (module_name and attribute):
        raise ConfigError(f"there is no lifecycle {name!r}; ours are {', '.join(OURS)}, yours are named 'module:NAME'")
    find_users_code()
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise ConfigError(
            f"{name}: the module {module_name!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    found: object = getattr(module, attribute, None)
    if isinstance(found, Lifecycle):
        return cast("AnyLifecycle", found)
    if isinstance(found, Machine):
        raise ConfigError(f"{name} is a bare Machine; make it a lifecycle: Lifecycle({attribute.lower()!r}, …)")
    if found is not None:
        raise ConfigError(f"{name} is of type {type(found).__name__}, not a Lifecycle")
    there = sorted(key for key, value in vars(module).items() if isinstance(value, Lifecycle))
    hint = f"it has {', '.join(there)}" if there else "it has no lifecycle at all"
    raise ConfigError(f"{name}: the module {module_name!r} has no {attribute!r}; {hint}")


def diagram(name: str | None, format: str = "mermaid") -> str:
    """Show a lifecycle.

    Args:
        name: as `load` takes it; None for all of ours, as one Markdown document.
        format: "mermaid" (the source of a state diagram), "table" (Markdown) or "essay" (the
            text at the top of the module that declares it).

    Returns:
        The text, ending in a newline.

    Raises:
        ConfigError: no such lifecycle or format.
    """
    if format not in FORMATS:
        raise ConfigError(f"format={format!r} must be one of {', '.join(FORMATS)}")
    if name is None:
        return "\n".join(f"## {ours.capitalize()}\n\n{_as_markdown(ours, format)}" for ours in OURS)
    lifecycle = load(name)
    if format == "mermaid":
        return mermaid(lifecycle)
    if format == "table":
        return table(lifecycle)
    return _essay(name)


def _as_markdown(name: str, format: str) -> str:
    text = diagram(name, format)
    return f"```mermaid\n{text}```\n" if format == "mermaid" else text


def _essay(name: str) -> str:
    module = sys.modules[OURS.get(name, name).partition(":")[0]]
    text = (module.__doc__ or "").strip()
    if not text:
        raise ConfigError(f"{name}: the module {module.__name__!r} has no docstring")
    return text + "\n"


# ── In documents ────────────────────────────────────────────────────────────────────────────────

_BLOCK = re.compile(
    r"^(?P<open><!-- diagram: (?P<name>\S+)(?: (?P<format>\S+))? -->)\n"
    r"(?P<body>(?:(?!<!-- diagram:).*\n)*?)"
    r"(?P<close><!-- /diagram -->)$",
    re.MULTILINE,
)


def refresh(text: str) -> str:
    """Bring every marked block of a document up to date, and leave the rest alone.

    Raises:
        ConfigError: there is no block, one is not closed, or one names what does not exist.
    """

    def block(match: re.Match[str]) -> str:
        body = _as_markdown(match["name"], match["format"] or "mermaid")
        return f"{match['open']}\n{body}{match['close']}"

    blocks = len(_BLOCK.findall(text))
    if not blocks:
        raise ConfigError("it has no block <!-- diagram: NAME --> … <!-- /diagram -->")
    if blocks != text.count("<!-- diagram:") or blocks != text.count("<!-- /diagram -->"):
        raise ConfigError("a <!-- diagram: NAME --> and its <!-- /diagram --> must each have a line, in turn")
    return _BLOCK.sub(block, text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the marked blocks of documents.

    Returns:
        The exit status: 0, or 1 if a file is stale or cannot be worked on.
    """
    parser = argparse.ArgumentParser(
        prog="python -m remuda.cli.diagram", description="Bring the diagrams in documents up to date."
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help="replace what is stale")
    what.add_argument("--check", action="store_true", help="change nothing; fail if something is stale")
    parser.add_argument("files", nargs="+", type=Path, help="Markdown files with marked blocks")
    chosen: Any = parser.parse_args(arguments)
    files: list[Path] = chosen.files
    failed = False
    for file in files:
        try:
            old = file.read_text(encoding="utf-8")
            new = refresh(old)
        except (OSError, ConfigError) as error:
            print(f"{file}: {error}", file=sys.stderr)
            failed = True
            continue
        if old == new:
            continue
        if chosen.write:
            file.write_text(new, encoding="utf-8")
            print(f"{file}: brought up to date")
        else:
            print(f"{file}: a diagram is stale; run python -m remuda.cli.diagram --write {file}", file=sys.stderr)
            failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
