"""Pictures of a lifecycle, drawn from its declaration.

Two forms, both plain text, both the same on every run, so that docs can carry them and a check can
tell when they are stale:

* `mermaid`: a state diagram, for GitHub, MkDocs and whatever else draws Mermaid. One arrow per pair
  of states, with all its triggers; steps that stay stand in a note beside their state, because a
  dozen loops on one box is not a picture. No colours: the reader's theme has them, light or dark.
* `table`: triggers down, states across, and in each cell where it leads. Better for looking up what
  happens in one case, and for seeing what does not happen at all. Markdown, and legible as text.

Guards stand in brackets in the diagram, behind "if" in the table. Choices are tried in the order in
which they stand, and "otherwise" and "else" are the choice without a guard.
"""

from __future__ import annotations

import re
import textwrap
from enum import StrEnum
from typing import TypeVar

from remuda.statemachines.lifecycle import Choice, Lifecycle

__all__ = ["mermaid", "table"]

S = TypeVar("S", bound=StrEnum)
T = TypeVar("T", bound=StrEnum)

_LABEL_WIDTH = 32
"""Characters of triggers on one line of a label or note; about as wide as two boxes."""

_RESERVED = frozenset("as class classdef click default direction end hide note scale state statediagram style".split())
"""Words that mean something else to Mermaid where the name of a state is expected."""


def mermaid(lifecycle: Lifecycle[S, T]) -> str:
    """Draw a lifecycle as a Mermaid state diagram.

    Returns:
        The diagram's source, ending in a newline, without a Markdown fence.
    """
    names = {state: _identifier(state, i) for i, state in enumerate(lifecycle.states)}
    lines = ["stateDiagram-v2"]
    for state, name in names.items():
        if name != state:
            lines.append(f'    state "{_escape(state)}" as {name}')
    lines.append(f"    [*] --> {names[lifecycle.initial]}")
    for source, row in lifecycle.table.items():
        arrows: dict[S, list[str]] = {}
        for trigger, choices in row.items():
            for position, choice in enumerate(choices):
                arrows.setdefault(choice.dest, []).append(_label(trigger, choice, position))
        stays = arrows.pop(source, [])
        for dest in lifecycle.states:
            if dest in arrows:
                label = "<br/>".join(_wrapped(arrows[dest]))
                lines.append(f"    {names[source]} --> {names[dest]}: {label}")
        if stays:
            lines.append(f"    note right of {names[source]}")
            lines += [f"        {line}" for line in _wrapped(["stays on " + stays[0], *stays[1:]])]
            lines.append("    end note")
    lines += [f"    {names[state]} --> [*]" for state in lifecycle.states if state in lifecycle.final]
    return "\n".join(lines) + "\n"


def table(lifecycle: Lifecycle[S, T]) -> str:
    """Write a lifecycle as a Markdown table: trigger and state, to the state that follows.

    Final states have no column. A dot is a step that does not exist: it raises `IllegalTransition`.

    Returns:
        The table and a line about where it starts and ends, ending in a newline.
    """
    columns = [state for state in lifecycle.states if state not in lifecycle.final]
    rows = [["", *(f"**{_cell_text(state)}**" for state in columns)]]
    for trigger in lifecycle.triggers:
        cells = [_cell(state, lifecycle.table[state].get(trigger, ())) for state in columns]
        rows.append([f"`{_cell_text(trigger)}`", *cells])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    ends = ", ".join(f"**{_cell_text(state)}**" for state in lifecycle.states if state in lifecycle.final)
    starts = f"It starts in **{_cell_text(lifecycle.initial)}**"
    lines += ["", f"{starts} and ends in {ends}." if ends else f"{starts}; no state is final."]
    return "\n".join(lines) + "\n"


# ── The diagram's words ─────────────────────────────────────────────────────────────────────────


def _identifier(state: str, position: int) -> str:
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", state) is not None
    return state if plain and state.lower() not in _RESERVED else f"state_{position + 1}"


def _label(trigger: str, choice: Choice[S], position: int) -> str:
    if choice.guards:
        return f"{_escape(trigger)} [{_escape(' and '.join(map(str, choice.guards)))}]"
    return f"{_escape(trigger)} [otherwise]" if position else _escape(trigger)


def _wrapped(labels: list[str]) -> list[str]:
    # A label is kept whole, also where it holds spaces.
    glued = [label.replace(" ", "\N{NO-BREAK SPACE}") for label in labels]
    lines = textwrap.wrap(", ".join(glued), _LABEL_WIDTH, break_long_words=False, break_on_hyphens=False)
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def _escape(text: str) -> str:
    """Write what has a meaning in Mermaid's labels as the entity that does not."""
    return re.sub(r'[#;:<>"{}\[\]\n\r]', lambda match: f"#{ord(match[0])};", text)


# ── The table's words ───────────────────────────────────────────────────────────────────────────


def _cell(source: S, choices: tuple[Choice[S], ...]) -> str:
    words: list[str] = []
    for choice in choices:
        to = "stays" if choice.dest is source else _cell_text(choice.dest)
        if choice.guards:
            words.append(f"{to} if {_cell_text(' and '.join(map(str, choice.guards)))}")
        else:
            words.append(f"else {to}" if words else to)
    return ", ".join(words) or "·"


def _cell_text(text: str) -> str:
    return re.sub(r"[|<\\]", r"\\\g<0>", text).replace("\n", " ")
