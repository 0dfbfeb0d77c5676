"""Bar charts as SVG, for the docs: panels below each other, a bar for each subject.

The text takes its color from the page where the picture is part of one, and is readable on light and dark
backgrounds where it is not. A bar that would be too long for its panel is cut, and says so by its number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

__all__ = ["Bar", "Panel", "draw"]

WIDTH, LEFT, RIGHT = 760, 200, 90
ROW, BAR, TITLE = 22, 14, 46
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#333}.title{font-weight:600;font-size:13px}.note{fill:#777}"
    ".ours{fill:#2a7f62}.peer{fill:#8a99ad}.limit{fill:#c9a24b}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.note{fill:#999}}"
)


class Bar(NamedTuple):
    """One bar."""

    name: str
    value: float
    kind: str
    """"ours", "peer" or "limit"."""


class Panel(NamedTuple):
    """Some bars that can be compared."""

    title: str
    note: str
    """What is better, and how it was measured."""
    unit: str
    bars: Sequence[Bar]
    most: float
    """Bars longer than this are cut."""


def draw(panels: Sequence[Panel]) -> str:
    """The picture, as the text of an SVG file."""
    parts: list[str] = []
    top = 8
    for panel in panels:
        parts.append(_text(8, top + 14, panel.title, "title"))
        parts.append(_text(8, top + 31, panel.note, "note"))
        top += TITLE
        longest = min(panel.most, max((bar.value for bar in panel.bars), default=1.0)) or 1.0
        for bar in panel.bars:
            cut = bar.value > longest
            width = (WIDTH - LEFT - RIGHT) * min(bar.value, longest) / longest
            middle = top + ROW / 2 + 4
            parts.append(_text(LEFT - 8, middle, bar.name, "", end=True))
            parts.append(
                f'<rect class="{bar.kind}" x="{LEFT}" y="{top + (ROW - BAR) / 2:g}" '
                f'width="{width:.1f}" height="{BAR}" rx="2"/>'
            )
            parts.append(_text(LEFT + width + 6, middle, f"{'… ' if cut else ''}{bar.value:.3g} {panel.unit}", ""))
            top += ROW
        top += 14
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}">'
    return "\n".join([head, f"<style>{_STYLE}</style>", *parts, "</svg>"]) + "\n"


def _text(x: float, y: float, text: str, kind: str, *, end: bool = False) -> str:
    named = f' class="{kind}"' if kind else ""
    anchor = ' text-anchor="end"' if end else ""
    return f'<text{named} x="{x:.1f}" y="{y:.1f}"{anchor}>{escape(text)}</text>'
