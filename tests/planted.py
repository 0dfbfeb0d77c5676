"""Plant every known bug, one after the other, and write down which net catches it, and how soon.

    python tests/planted.py            print the page (a few minutes)
    python tests/planted.py --write    and write it to docs/planted-bugs.md

That every bug is caught by the rule that is named for it is asserted in the suite. This says more: how
far each net had to look. Exit code 1 if one was not caught.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "planted-bugs.md"

HEAD = """\
# Planted bugs

A net that has never caught anything is not trusted. So bugs are planted: each is a small patch on the
real code, of a kind that pools have had, and each must make the rule fail that is there for it.
`python tests/planted.py --write` makes this page; the suite asserts what is in it.

"""


def core() -> Iterator[tuple[str, str, str, bool]]:
    """Net 1, the model checker over the core: the bug, its rule, how far it had to look, whether it was that rule."""
    from tests.specs.test_planted_core import BUGS, walk

    for name, (rule, profile, blind, plant) in BUGS.items():
        with pytest.MonkeyPatch.context() as patch:
            plant(patch)
            found = walk(profile, blind, max_states=6000, distrust=1 if rule == "dishonest key" else 0)
        one = found.counterexamples[0] if found.counterexamples else None
        far = f"{found.states} states; the way has {len(one.path)} steps" if one else f"not in {found.states} states"
        yield name.replace("_", " "), rule, far, one is not None and one.name == rule


def runtime() -> Iterator[tuple[str, str, str, str, bool]]:
    """Net 3, the rules over the runtime in simulation: the same, and where the like of the bug was."""
    from tests.specs.planted_runtime import BUGS
    from tests.specs.test_planted_runtime import hunt

    for bug in BUGS:
        with pytest.MonkeyPatch.context() as patch:
            rule, runs = hunt(bug, patch)
        yield bug.name, bug.seen_in, rule or "nothing", f"{runs} runs", rule in bug.rules


def page() -> tuple[str, int]:
    """The page, and how many bugs were not caught."""
    first, second = list(core()), list(runtime())
    missed = sum(not caught for *_, caught in (*first, *second))
    lines = [
        f"{len(first) + len(second)} bugs, of which {missed or 'none'} got away.",
        "",
        "## In the core, found by the model checker",
        "",
        "Breadth first, so the way is the shortest there is. A few rules see a bug sooner than the one it is",
        "planted for; those are blinded for it (`blind=` in `tests/specs/test_planted_core.py`).",
        "",
        "| what is wrong | the rule that says so | found after |",
        "|---|---|---|",
        *(f"| {name} | `{rule}` | {far} |" for name, rule, far, _ in first),
        "",
        "## In the runtime and the bridge, found by `PoolRules` in simulation",
        "",
        "| what is wrong | where the like of it was | the rule that says so | found after |",
        "|---|---|---|---|",
        *(f"| {name} | {where} | `{rule}` | {far} |" for name, where, rule, far, _ in second),
        "",
    ]
    return HEAD + "\n".join(lines), missed


def main(arguments: list[str]) -> int:
    sys.path.insert(0, str(ROOT))
    logging.getLogger("remuda").setLevel(logging.CRITICAL)
    text, missed = page()
    print(text, end="")
    if arguments == ["--write"]:
        PAGE.write_text(text, "utf-8")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
