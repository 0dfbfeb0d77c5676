"""The page about the faults of an earlier pool: every item is there, and every test that it names."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "original.md"
LINK = re.compile(r"\[[^\]]+\]\(\.\./(?P<path>tests/[\w/]+\.py)#(?P<name>test_\w+)\)")
TABLES = ("## The 16 failures", "## The 16 bugs")


def rows(table: str) -> list[list[str]]:
    """The cells of each line of a table, without its head."""
    section = PAGE.read_text("utf-8").split(f"{table}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("| ") and line[2].isdigit()]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


@cache
def functions_of(path: str) -> frozenset[str]:
    """The names of the tests of a module."""
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(function.name for function in functions if function.name.startswith("test_"))


@pytest.mark.parametrize("table", TABLES)
def test_every_item_is_there_and_has_what_makes_it_impossible(table: str) -> None:
    found = rows(table)
    assert [cells[0] for cells in found] == [str(number) for number in range(1, 17)]
    for number, wrong, different, tests in found:
        assert wrong.endswith(".") and different.endswith("."), f"{table}, {number}"
        assert LINK.search(tests), f"{table}, {number}: no test is named"


def test_every_test_that_is_named_exists() -> None:
    links = list(LINK.finditer(PAGE.read_text("utf-8")))
    assert len(links) >= 32
    missing = [link[0] for link in links if not (ROOT / link["path"]).exists()]
    missing += [link[0] for link in links if not missing and link["name"] not in functions_of(link["path"])]
    assert missing == []


def test_every_link_of_the_page_is_one_to_a_test() -> None:
    """So that none is passed over because it is written in another way."""
    text = PAGE.read_text("utf-8")
    assert len(re.findall(r"\]\(", text)) == len(LINK.findall(text))


def test_what_was_written_for_the_page_is_on_it() -> None:
    named = {link["name"] for link in LINK.finditer(PAGE.read_text("utf-8"))}
    modules = sorted((ROOT / "tests" / "original").glob("test_*.py"))
    assert len(modules) >= 5
    for module in modules:
        assert functions_of(str(module.relative_to(ROOT))) & named, f"{module.name} is on no line"
