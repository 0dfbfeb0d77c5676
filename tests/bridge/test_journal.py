"""What workers are told again: after it, every one of them is as if it had done everything itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from remuda.bridge.journal import Applied, Journal
from remuda.bridge.messages import CommandInfo

CREATE = CommandInfo("create", journal="name", key_at=0)
DELETE = CommandInfo("delete", forgets="name", key_at=0)
CONFIGURE = CommandInfo("configure", journal=True)
ASK = CommandInfo("ask")
INFOS = {info.name: info for info in (CREATE, DELETE, CONFIGURE, ASK)}


def told(journal: Journal, applied: Applied) -> list[tuple[str, Any]]:
    """Tell a worker everything, as the pool does."""
    entries = journal.missing(applied)
    for entry in entries:
        applied.note(entry)
    return [(entry.command, entry.args) for entry in entries]


def done(journal: Journal, applied: Applied, command: str, *args: Any) -> None:
    """A worker has done this itself."""
    entry = journal.record(INFOS[command], command, list(args))
    if entry is not None:
        applied.note(entry)


# ── Single rules ────────────────────────────────────────────────────────────────────────────────


def test_a_command_without_a_declaration_is_not_kept() -> None:
    journal = Journal()
    assert journal.record(ASK, "ask", ["x"]) is None
    assert len(journal) == 0 and journal.version == 0


def test_one_call_is_kept_for_each_value_and_it_is_the_latest() -> None:
    journal = Journal()
    one, other = journal.add_worker(), journal.add_worker()
    done(journal, one, "create", "a", 1)
    done(journal, one, "create", "b", 1)
    done(journal, one, "create", "a", 2)
    assert len(journal) == 2
    assert told(journal, one) == []
    assert told(journal, other) == [("create", ["a", 2]), ("create", ["b", 1])], "what was changed keeps its place"
    assert told(journal, other) == []


def test_true_keeps_the_latest_call_only() -> None:
    journal = Journal()
    one, other = journal.add_worker(), journal.add_worker()
    done(journal, one, "configure", "x")
    done(journal, one, "configure", "y")
    assert told(journal, other) == [("configure", ["y"])]
    done(journal, other, "configure", "z")
    assert told(journal, one) == [("configure", ["z"])]
    assert told(journal, other) == []


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (["a"], {"name": "a"}, True),
        (["a"], ["a", 7], True),
        (["a"], ["b"], False),
        (["a"], {"other": "a"}, False),
        ([], {}, True),
        ([], [None], True),
        ([1], [1.0], False),
        ([1], [True], False),
        ([["a", 1]], [("a", 1)], True),
    ],
)
def test_by_position_and_by_name_the_value_is_the_same(first: Any, second: Any, same: bool) -> None:
    journal = Journal()
    journal.record(CREATE, "create", first)
    journal.record(CREATE, "create", second)
    assert len(journal) == (1 if same else 2)


def test_who_has_it_is_told_to_take_it_back_and_nobody_else_is() -> None:
    journal = Journal()
    one, other, new = journal.add_worker(), journal.add_worker(), journal.add_worker()
    done(journal, one, "create", "a")
    told(journal, other)
    done(journal, one, "delete", "a")
    assert len(journal) == 0
    assert told(journal, new) == []
    assert told(journal, other) == [("delete", ["a"])]
    assert told(journal, one) == []
    assert journal._entries == {}, "nobody needs it any more"


def test_who_was_being_told_when_it_was_taken_back_is_told_that_too() -> None:
    journal = Journal()
    one, other = journal.add_worker(), journal.add_worker()
    done(journal, one, "create", "a")
    (entry,) = journal.missing(other)  # sent, and not answered yet
    done(journal, one, "delete", "a")
    assert told(journal, one) == [], "nobody takes the tombstone along meanwhile"
    other.note(entry)
    assert told(journal, other) == [("delete", ["a"])]


def test_to_forget_what_was_never_kept_is_nothing() -> None:
    journal = Journal()
    assert journal.record(DELETE, "delete", ["a"]) is None
    assert journal.version == 0


def test_two_workers_that_take_it_back_at_the_same_time_do_not_do_it_again() -> None:
    journal = Journal()
    one, other, third = journal.add_worker(), journal.add_worker(), journal.add_worker()
    done(journal, one, "create", "a")
    told(journal, other)
    told(journal, third)
    done(journal, one, "delete", "a")
    done(journal, other, "delete", "a")
    assert told(journal, one) == []
    assert told(journal, other) == []
    assert told(journal, third) == [("delete", ["a"])]


def test_what_is_made_anew_comes_after_all_that_is_there() -> None:
    journal = Journal()
    one, new = journal.add_worker(), journal.add_worker()
    for name in "ab":
        done(journal, one, "create", name)
    told(journal, new)
    done(journal, one, "delete", "a")
    done(journal, one, "create", "a")
    assert told(journal, journal.add_worker()) == [("create", ["b"]), ("create", ["a"])]


def test_the_last_one_who_needs_a_tombstone_takes_it_along() -> None:
    journal = Journal()
    one, other = journal.add_worker(), journal.add_worker()
    done(journal, one, "create", "a")
    told(journal, other)
    done(journal, one, "delete", "a")
    journal.forget_worker(other)
    journal.forget_worker(other)
    assert journal._entries == {}


# ── Against a naive model ───────────────────────────────────────────────────────────────────────

names = st.sampled_from("abc")


class Pool(RuleBasedStateMachine):
    """Workers whose state is a dict, and one that did everything.

    As in the pool, a worker is told what it misses before it does anything; a call in it is recorded
    when its answer comes, which may be after other workers' calls.
    """

    def __init__(self) -> None:
        super().__init__()
        self.journal = Journal()
        self.model: dict[str, Any] = {}
        self.states: dict[int, dict[str, Any]] = {}
        self.applied: dict[int, Applied] = {}
        self.behind: dict[int, list[Any]] = {}  # entries that were sent, and not answered
        self.number = 0

    def run(self, worker: int, command: str, args: list[Any]) -> None:
        apply(self.states[worker], command, args, strict=True)

    def tell(self, worker: int) -> None:
        applied = self.applied[worker]
        for entry in self.journal.missing(applied):
            self.run(worker, entry.command, entry.args)
            applied.note(entry)

    def pick(self, data: st.DataObject) -> int:
        return data.draw(st.sampled_from(sorted(self.states)))

    @rule()
    def start(self) -> None:
        if len(self.states) < 4:
            self.number += 1
            self.states[self.number] = {}
            self.applied[self.number] = self.journal.add_worker()

    @precondition(lambda self: self.states)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        worker = self.pick(data)
        del self.states[worker]
        self.journal.forget_worker(self.applied.pop(worker))

    @precondition(lambda self: self.states)
    @rule(data=st.data())
    def die_while_being_told(self, data: st.DataObject) -> None:
        worker = self.pick(data)
        self.journal.missing(self.applied[worker])
        del self.states[worker]
        self.journal.forget_worker(self.applied.pop(worker))

    @precondition(lambda self: self.states)
    @rule(data=st.data(), command=st.sampled_from(["create", "delete", "configure", "ask"]), name=names)
    def call(self, data: st.DataObject, command: str, name: str) -> None:
        worker = self.pick(data)
        self.tell(worker)
        self.number += 1
        args = [name, self.number] if command == "create" else [name]
        if command == "delete" and name not in self.states[worker]:
            return  # it fails, and what fails is not kept
        self.run(worker, command, args)
        apply(self.model, command, args, strict=True)
        done(self.journal, self.applied[worker], command, *args)

    @precondition(lambda self: len(self.states) >= 2)
    @rule(data=st.data(), name=names)
    def both_delete(self, data: st.DataObject, name: str) -> None:
        one = self.pick(data)
        other = self.pick(data)
        self.tell(one)
        self.tell(other)
        if one == other or name not in self.model:
            return
        for worker in (one, other):
            self.run(worker, "delete", [name])
        apply(self.model, "delete", [name], strict=True)
        for worker in (one, other):
            done(self.journal, self.applied[worker], "delete", name)

    @precondition(lambda self: len(self.states) >= 2)
    @rule(data=st.data(), name=names)
    def taken_back_while_another_is_being_told(self, data: st.DataObject, name: str) -> None:
        slow, quick = self.pick(data), self.pick(data)
        if slow == quick:
            return
        sent = self.journal.missing(self.applied[slow])
        self.tell(quick)
        if name in self.states[quick]:
            self.run(quick, "delete", [name])
            apply(self.model, "delete", [name], strict=True)
            done(self.journal, self.applied[quick], "delete", name)
        self.tell(quick)
        for entry in sent:
            self.run(slow, entry.command, entry.args)
            self.applied[slow].note(entry)

    @precondition(lambda self: self.states)
    @rule(data=st.data())
    def catch_up(self, data: st.DataObject) -> None:
        worker = self.pick(data)
        self.tell(worker)
        assert self.states[worker] == self.model
        assert self.journal.missing(self.applied[worker]) == []

    @invariant()
    def a_new_worker_becomes_what_all_are(self) -> None:
        state: dict[str, Any] = {}
        new = self.journal.add_worker()
        for entry in self.journal.missing(new):
            apply(state, entry.command, entry.args, strict=True)
        self.journal.forget_worker(new)
        assert state == self.model
        assert len(self.journal) == len(self.model)

    @invariant()
    def there_is_no_tombstone_that_nobody_needs(self) -> None:
        self.journal._bury()
        for key, entry in self.journal._entries.items():
            if entry.is_tombstone:
                assert any(key in applied.told for applied in self.applied.values())

    def teardown(self) -> None:
        for worker in self.states:
            self.tell(worker)
            assert self.states[worker] == self.model
        self.journal._bury()
        assert not any(entry.is_tombstone for entry in self.journal._entries.values())


def apply(state: dict[str, Any], command: str, args: list[Any], *, strict: bool) -> None:
    """What the commands do; to delete what is not there is an error, as it may be in reality."""
    if command == "create":
        state[args[0]] = args[1]
    elif command == "delete":
        del state[args[0]]
    elif command == "configure":
        state["configuration"] = args[0]


TestPool = Pool.TestCase
TestPool.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)


@given(st.lists(st.tuples(st.sampled_from(["create", "delete", "configure"]), names), max_size=20))
def test_the_order_is_that_in_which_things_came_to_be(calls: list[tuple[str, str]]) -> None:
    journal, worker = Journal(), Applied()
    order: list[tuple[str, str]] = []
    for command, name in calls:
        journal.record(INFOS[command], command, [name])
        thing = ("configuration", "") if command == "configure" else ("program", name)
        if command == "delete":
            order = [each for each in order if each != thing]
        elif thing not in order:
            order.append(thing)
    told_in_order = [
        ("configuration", "") if command == "configure" else ("program", args[0])
        for command, args in told(journal, worker)
    ]
    assert told_in_order == order
