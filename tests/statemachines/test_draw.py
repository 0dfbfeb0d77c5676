"""Diagrams and tables say what the declaration says: they are read back and compared with it."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any

import pytest
from transitions import Machine

from remuda.statemachines.breaker import BREAKER
from remuda.statemachines.call import CALL
from remuda.statemachines.draw import mermaid, table
from remuda.statemachines.lifecycle import Lifecycle
from remuda.statemachines.pool import POOL
from remuda.statemachines.slot import SLOT
from remuda.statemachines.template import TEMPLATE
from remuda.statemachines.worker import WORKER

OURS: list[Lifecycle[Any, Any]] = [WORKER, SLOT, POOL, CALL, BREAKER, TEMPLATE]

# source, trigger, guard ("" none, "otherwise"), destination
Edge = tuple[str, str, str, str]


def declared(lifecycle: Lifecycle[Any, Any]) -> set[Edge]:
    """The edges by the stock machine, not by the table from which they were drawn."""
    machine = lifecycle.machine
    edges: set[Edge] = set()
    for trigger, event in machine.events.items():
        for source, choices in event.transitions.items():
            for position, one in enumerate(choices):
                guard = " and ".join(str(c.func) if c.target else f"not {c.func}" for c in one.conditions)
                edges.add(
                    (
                        str(machine.states[source].value),
                        str(trigger),
                        guard or ("otherwise" if position else ""),
                        str(machine.states[one.dest or source].value),
                    )
                )
    return edges


def labels(text: str) -> list[tuple[str, str]]:
    """The triggers and guards of a label: "a, b [g]" is a without a guard, and b with g."""
    found: list[tuple[str, str]] = []
    for part in re.split(r",(?: |<br/>|\n)", text):
        match = re.fullmatch(r"(\w+)(?: \[(.+)\])?", part.strip())
        assert match is not None, part
        found.append((match[1], match[2] or ""))
    return found


def drawn(source: str) -> tuple[set[Edge], set[str], set[str]]:
    """The edges of a diagram, the states it starts in and those it ends in."""
    head, *lines = source.splitlines()
    assert head == "stateDiagram-v2"
    edges: set[Edge] = set()
    starts: set[str] = set()
    ends: set[str] = set()
    noted = ""
    note: list[str] = []
    for line in lines:
        if match := re.fullmatch(r"    note right of (\w+)", line):
            noted, note = match[1], []
        elif line == "    end note":
            said = "\n".join(note).removeprefix("stays on ")
            edges |= {(noted, trigger, guard, noted) for trigger, guard in labels(said)}
            noted = ""
        elif noted:
            note.append(line.strip())
        elif match := re.fullmatch(r"    \[\*\] --> (\w+)", line):
            starts.add(match[1])
        elif match := re.fullmatch(r"    (\w+) --> \[\*\]", line):
            ends.add(match[1])
        else:
            match = re.fullmatch(r"    (\w+) --> (\w+): (.+)", line)
            assert match is not None, line
            edges |= {(match[1], trigger, guard, match[2]) for trigger, guard in labels(match[3])}
    return edges, starts, ends


@pytest.mark.parametrize("lifecycle", OURS, ids=lambda it: it.name)
def test_the_diagram_has_every_step_and_no_other(lifecycle: Lifecycle[Any, Any]) -> None:
    edges, starts, ends = drawn(mermaid(lifecycle))
    assert edges == declared(lifecycle)
    assert starts == {lifecycle.initial}
    assert ends == lifecycle.final


def cells(text: str) -> tuple[set[Edge], list[str], str]:
    """The edges of a table, its columns, and the line below it."""
    head, rule, *rows = [line for line in text.splitlines() if line.startswith("|")]
    columns = re.findall(r"\*\*(.+?)\*\*", head)
    assert re.fullmatch(r"\|(-+\|)+", rule)
    assert {len(line) for line in (head, rule, *rows)} == {len(head)}, "the columns do not line up"
    edges: set[Edge] = set()
    for line in rows:
        trigger, *nexts = (cell.strip() for cell in line.strip("|").split("|"))
        for source, cell in zip(columns, nexts, strict=True):
            for position, part in enumerate(cell.split(", ")):
                if part != "·":
                    to, _, guard = part.removeprefix("else ").partition(" if ")
                    guard = guard or ("otherwise" if position else "")
                    edges.add((source, trigger.strip("`"), guard, source if to == "stays" else to))
    return edges, columns, text.splitlines()[-1]


@pytest.mark.parametrize("lifecycle", OURS, ids=lambda it: it.name)
def test_the_table_has_every_step_and_no_other(lifecycle: Lifecycle[Any, Any]) -> None:
    edges, columns, below = cells(table(lifecycle))
    assert edges == declared(lifecycle)
    assert columns == [s for s in lifecycle.states if s not in lifecycle.final]
    starts, *ends = re.findall(r"\*\*(.+?)\*\*", below)
    assert starts == lifecycle.initial
    assert set(ends) == lifecycle.final


@pytest.mark.parametrize("lifecycle", OURS, ids=lambda it: it.name)
def test_pictures_have_no_colours_and_are_the_same_every_time(lifecycle: Lifecycle[Any, Any]) -> None:
    again: Lifecycle[Any, Any] = Lifecycle(lifecycle.name, lifecycle.machine)
    assert (mermaid(again), table(again)) == (mermaid(lifecycle), table(lifecycle))
    assert not re.search(r"classDef|style|fill|%%\{|#[0-9a-fA-F]{3}", mermaid(lifecycle))


class S(StrEnum):
    END = "end"  # a word of Mermaid's
    SPACED = "white space"
    MARKS = "a:b;<c>|d"


class T(StrEnum):
    GO = "go: now"
    ON = "on|off"


ODD: Lifecycle[S, T] = Lifecycle(
    "odd",
    Machine(
        model=None,
        states=[*S],
        initial=S.END,
        transitions=[
            {"trigger": T.GO, "source": S.END, "dest": S.SPACED, "conditions": ["warm", "dry"], "unless": "late"},
            {"trigger": T.GO, "source": S.END, "dest": None, "conditions": "dry"},
            {"trigger": T.GO, "source": S.END, "dest": S.MARKS},
            {"trigger": T.ON, "source": [S.SPACED, S.MARKS], "dest": S.END},
        ],
        auto_transitions=False,
    ),
)


def test_words_that_mean_something_to_mermaid_are_written_so_that_they_do_not() -> None:
    assert mermaid(ODD) == (
        "stateDiagram-v2\n"
        '    state "end" as state_1\n'
        '    state "white space" as state_2\n'
        '    state "a#58;b#59;#60;c#62;|d" as state_3\n'
        "    [*] --> state_1\n"
        "    state_1 --> state_2: go#58; now [warm and dry and not late]\n"
        "    state_1 --> state_3: go#58; now [otherwise]\n"
        "    note right of state_1\n"
        "        stays on go#58; now [dry]\n"
        "    end note\n"
        "    state_2 --> state_1: on|off\n"
        "    state_3 --> state_1: on|off\n"
    )


def test_words_that_mean_something_to_markdown_do_not_break_the_table() -> None:
    head, _, go, on, *_ = table(ODD).splitlines()
    assert re.split(r" *(?<!\\)\| *", head) == ["", "", "**end**", "**white space**", r"**a:b;\<c>\|d**", ""]
    assert re.split(r" *(?<!\\)\| *", go) == [
        "",
        "`go: now`",
        r"white space if warm and dry and not late, stays if dry, else a:b;\<c>\|d",
        "·",
        "·",
        "",
    ]
    assert re.split(r" *(?<!\\)\| *", on) == ["", r"`on\|off`", "·", "end", "end", ""]
