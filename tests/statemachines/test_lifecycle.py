"""The kit as its users meet it: their own lifecycle, its subjects, and what is refused."""

from __future__ import annotations

import logging
import pickle
from enum import StrEnum
from typing import Any

import pytest
from transitions import Machine, State

from remuda.statemachines.breaker import BREAKER
from remuda.statemachines.call import CALL
from remuda.statemachines.errors import ConfigError, IllegalTransition
from remuda.statemachines.lifecycle import Guard, Lifecycle, Step, Subject, misfits
from remuda.statemachines.pool import POOL
from remuda.statemachines.slot import SLOT
from remuda.statemachines.template import TEMPLATE
from remuda.statemachines.worker import WORKER


class DoorState(StrEnum):
    SHUT = "shut"
    OPEN = "open"
    GONE = "gone"


class DoorTrigger(StrEnum):
    PUSH = "push"
    PULL = "pull"
    UNHINGE = "unhinge"


S, T = DoorState, DoorTrigger

DOOR: Lifecycle[DoorState, DoorTrigger] = Lifecycle(
    "door",
    Machine(
        model=None,
        states=[S.SHUT, S.OPEN, {"name": S.GONE, "final": True}],
        initial=S.SHUT,
        transitions=[
            [T.PUSH, S.SHUT, None, "locked"],
            [T.PUSH, S.SHUT, S.OPEN],
            [T.PULL, S.OPEN, S.SHUT],
            [T.UNHINGE, S.SHUT, S.GONE],
            [T.UNHINGE, S.OPEN, S.GONE],
        ],
        auto_transitions=False,
    ),
)


class Door(Subject[DoorState]):
    __slots__ = ("key_turned",)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(DOOR, **kwargs)
        self.key_turned = False

    @property
    def locked(self) -> bool:
        return self.key_turned


def test_a_door_opens_and_shuts() -> None:
    door = Door(now=10.0)
    assert (door.state, door.since) == (S.SHUT, 10.0)
    assert DOOR.step(door, T.PUSH, 11.0, "the wind") is S.OPEN
    assert (door.state, door.since) == (S.OPEN, 11.0)
    assert list(door.history) == [Step("push", "shut", "open", 11.0, "the wind")]


def test_a_step_that_stays_is_recorded_and_leaves_since_alone() -> None:
    door = Door(now=10.0)
    door.key_turned = True
    assert DOOR.step(door, T.PUSH, 11.0) is S.SHUT
    assert (door.state, door.since) == (S.SHUT, 10.0)
    assert list(door.history) == [Step("push", "shut", "shut", 11.0, "")]


def test_an_illegal_step_says_so_and_changes_nothing() -> None:
    door = Door(now=10.0)
    with pytest.raises(IllegalTransition, match="door: no step 'pull' from state 'shut'") as caught:
        DOOR.step(door, T.PULL, 11.0)
    assert (caught.value.lifecycle, caught.value.state, caught.value.trigger) == ("door", "shut", "pull")
    assert (door.state, door.since, len(door.history)) == (S.SHUT, 10.0, 0)


def test_the_declaration_can_be_read() -> None:
    assert DOOR.states == (S.SHUT, S.OPEN, S.GONE)
    assert DOOR.triggers == (T.PUSH, T.PULL, T.UNHINGE)
    assert DOOR.initial is S.SHUT
    assert DOOR.final == {S.GONE}
    assert DOOR.guards == ("locked",)
    assert DOOR.table[S.GONE] == {}
    assert [(choice.dest, [*map(str, choice.guards)]) for choice in DOOR.table[S.SHUT][T.PUSH]] == [
        (S.SHUT, ["locked"]),
        (S.OPEN, []),
    ]
    assert repr(DOOR) == "<Lifecycle door: 3 states, 3 triggers>"


@pytest.mark.parametrize("keep", [0, 1, 3])
def test_history_keeps_the_last_steps(keep: int) -> None:
    door = Door(history=keep)
    for at in range(10):
        DOOR.step(door, T.PULL if at % 2 else T.PUSH, float(at))
    assert [step.at for step in door.history] == [float(at) for at in range(10)][10 - keep :]


def test_who_keeps_no_history_tells_its_observer_all_the_same() -> None:
    seen: list[str] = []
    door = Door(history=0, observer=lambda _, step: seen.append(step.trigger))
    DOOR.step(door, T.PUSH, 1.0)
    assert (seen, len(door.history), door.history.maxlen) == (["push"], 0, 0)


def test_history_keeps_sixteen_if_nobody_says_otherwise() -> None:
    assert Door().history.maxlen == 16


def test_doors_do_not_share_their_state() -> None:
    one, other = Door(), Door()
    DOOR.step(one, T.PUSH, 1.0)
    assert (other.state, len(other.history)) == (S.SHUT, 0)


def test_a_subject_is_small_and_can_be_copied() -> None:
    door = Door(history=2)
    DOOR.step(door, T.PUSH, 1.0, "why")
    assert not hasattr(door, "__dict__")
    again = pickle.loads(pickle.dumps(door))
    assert (again.state, again.since, again.history) == (door.state, door.since, door.history)
    assert again.history.maxlen == 2
    DOOR.step(again, T.PULL, 2.0)
    assert door.state is S.OPEN


# ── Observers ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stock", [False, True], ids=["table", "stock"])
def test_an_observer_sees_the_new_state(stock: bool) -> None:
    seen: list[tuple[str, Step]] = []
    door = Door(observer=lambda it, step: seen.append((it.state, step)))
    (DOOR.step_stock if stock else DOOR.step)(door, T.PUSH, 3.0, "why")
    assert seen == [("open", Step("push", "shut", "open", 3.0, "why"))]


@pytest.mark.parametrize("stock", [False, True], ids=["table", "stock"])
def test_an_observer_that_raises_breaks_nothing(stock: bool, caplog: pytest.LogCaptureFixture) -> None:
    def faulty(it: Subject[DoorState], step: Step) -> None:
        raise ValueError("I saw nothing")

    door = Door(observer=faulty)
    step = DOOR.step_stock if stock else DOOR.step
    with caplog.at_level(logging.ERROR, "remuda.statemachines"):
        assert step(door, T.PUSH, 1.0) is S.OPEN
        assert step(door, T.PULL, 2.0) is S.SHUT
    assert (door.state, door.since, len(door.history), door.observer_errors) == (S.SHUT, 2.0, 2, 2)
    ours = [record for record in caplog.records if record.name == "remuda.statemachines"]
    assert len(ours) == 2
    assert ours[0].getMessage() == "an observer of Door failed at the step push: shut -> open; the step stands"
    assert ours[0].exc_info is not None and "I saw nothing" in str(ours[0].exc_info[1])


def test_what_an_observer_may_not_swallow_passes_and_the_step_stands() -> None:
    def interrupted(it: Subject[DoorState], step: Step) -> None:
        raise KeyboardInterrupt

    door = Door(observer=interrupted)
    with pytest.raises(KeyboardInterrupt):
        DOOR.step(door, T.PUSH, 1.0)
    assert (door.state, len(door.history), door.observer_errors) == (S.OPEN, 1, 0)


# ── What is refused ─────────────────────────────────────────────────────────────────────────────


class Other(StrEnum):
    ELSE = "else"


class Sub(Machine):
    pass


def called(*_: object) -> bool:
    return True


def machine(cls: type[Machine] = Machine, **changes: Any) -> Machine:
    settings: dict[str, Any] = {
        "model": None,
        "states": [S.SHUT, S.OPEN],
        "initial": S.SHUT,
        "transitions": [[T.PUSH, S.SHUT, S.OPEN], [T.PULL, S.OPEN, S.SHUT]],
        "auto_transitions": False,
    }
    return cls(**settings | changes)


def row(**settings: object) -> list[dict[str, object]]:
    return [{"trigger": T.PUSH, "source": S.SHUT, "dest": S.OPEN} | settings]


@pytest.mark.parametrize(
    ("refused", "complaint"),
    [
        (lambda: machine(Sub), "it is a Sub, not a stock transitions.Machine"),
        (lambda: machine(model="self"), "it has a model"),
        (lambda: machine(queued=True), "it is queued"),
        (lambda: machine(auto_transitions=True), "it adds a step to every state"),
        (lambda: machine(ignore_invalid_triggers=True), "it ignores invalid triggers"),
        (
            lambda: machine(states=[S.OPEN, {"name": S.SHUT, "ignore_invalid_triggers": True}]),
            "it ignores invalid triggers",
        ),
        (lambda: machine(model_attribute="status"), "it keeps the state in 'status'"),
        (lambda: machine(transitions=[]), "it declares no step"),
        (lambda: machine(states=[S.SHUT, S.OPEN, "ajar"]), "state 'ajar' is not a member of a StrEnum"),
        (lambda: machine(initial="shutt"), "state 'shutt' is not a member of a StrEnum"),
        (lambda: machine(states=[S.SHUT, S.OPEN, Other.ELSE]), "states come from several enums: DoorState, Other"),
        (lambda: machine(transitions=[["push", S.SHUT, S.OPEN]]), "trigger 'push' is not a member of a StrEnum"),
        (
            lambda: machine(transitions=[[T.PUSH, S.SHUT, S.OPEN], [Other.ELSE, S.OPEN, S.SHUT]]),
            "triggers come from several enums",
        ),
        (lambda: machine(prepare_event="f"), "the machine has callbacks"),
        (lambda: machine(before_state_change="f"), "the machine has callbacks"),
        (lambda: machine(after_state_change="f"), "the machine has callbacks"),
        (lambda: machine(finalize_event="f"), "the machine has callbacks"),
        (lambda: machine(on_exception="f"), "the machine has callbacks"),
        (lambda: machine(on_final="f"), "the machine has callbacks"),
        (lambda: machine(states=[S.SHUT, State(S.OPEN, on_enter="f")]), "state OPEN has callbacks"),
        (lambda: machine(states=[S.SHUT, State(S.OPEN, on_exit="f")]), "state OPEN has callbacks"),
        (lambda: machine(transitions=row(prepare="f")), "push from SHUT has callbacks"),
        (lambda: machine(transitions=row(before="f")), "push from SHUT has callbacks"),
        (lambda: machine(transitions=row(after="f")), "push from SHUT has callbacks"),
        (lambda: machine(transitions=row(conditions=called)), "push from SHUT has a guard that is not the name"),
        (lambda: machine(transitions=row(unless=called)), "push from SHUT has a guard that is not the name"),
        (lambda: machine(transitions=row(source="BENT")), "push has the unknown source BENT"),
        (lambda: machine(transitions=row(dest="BENT")), "push from SHUT has the unknown destination BENT"),
    ],
)
def test_what_the_table_cannot_mean_is_refused(refused: Any, complaint: str) -> None:
    with pytest.raises(ConfigError, match="lifecycle 'door' cannot be compiled") as caught:
        Lifecycle("door", refused())
    assert complaint in str(caught.value)


def test_the_machine_that_the_refusals_start_from_is_accepted() -> None:
    made: Lifecycle[DoorState, DoorTrigger] = Lifecycle("door", machine())
    assert made.step(Subject(made), T.PUSH, 1.0) is S.OPEN


def test_all_complaints_come_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Lifecycle("door", machine(queued=True, transitions=row(dest="BENT", after="f")))
    assert str(caught.value) == (
        "lifecycle 'door' cannot be compiled: it is queued (one queue would serve every subject); "
        "push from SHUT has callbacks; push from SHUT has the unknown destination BENT. "
        "The rules are in the documentation of remuda.statemachines.lifecycle"
    )


def test_complaints_say_what_to_do_instead() -> None:
    wrong = machine(
        model="self", queued=True, auto_transitions=True, ignore_invalid_triggers=True, model_attribute="status",
        before_state_change="f", states=[State(S.SHUT, on_enter="f"), S.OPEN, "ajar", Other.ELSE, "bent"],
        transitions=row(conditions=called, after="f"),
    )  # fmt: skip
    assert [*misfits(wrong)] == [
        "it has a model (declare it with model=None)",
        "it is queued (one queue would serve every subject)",
        "it adds a step to every state from everywhere (declare it with auto_transitions=False)",
        "it ignores invalid triggers (declare a step that stays where one may come late)",
        "it keeps the state in 'status' (it has to be 'state')",
        "state 'ajar' is not a member of a StrEnum",
        "state 'bent' is not a member of a StrEnum",
        "its states come from several enums: DoorState, Other",
        *[
            f"trigger 'to_status_{state}' is not a member of a StrEnum"
            for state in ("SHUT", "OPEN", "ajar", "ELSE", "bent")
        ],
        "the machine has callbacks",
        "state SHUT has callbacks",
        "push from SHUT has callbacks",
        "push from SHUT has a guard that is not the name of a property",
    ]
    assert [*misfits(machine(transitions=[]))] == ["it declares no step"]
    assert [*misfits(machine(Sub))] == ["it is a Sub, not a stock transitions.Machine"]
    mixed = machine(transitions=[["zzz", S.SHUT, S.OPEN], [T.PUSH, S.SHUT, S.OPEN], [Other.ELSE, S.OPEN, S.SHUT]])
    assert [*misfits(mixed)] == [
        "trigger 'zzz' is not a member of a StrEnum",
        "its triggers come from several enums: DoorTrigger, Other",
    ]


@pytest.mark.parametrize("lifecycle", [WORKER, SLOT, POOL, CALL, BREAKER, TEMPLATE], ids=lambda it: it.name)
def test_a_declaration_that_is_compiled_again_means_the_same(lifecycle: Lifecycle[Any, Any]) -> None:
    again: Lifecycle[Any, Any] = Lifecycle(lifecycle.name, lifecycle.machine)
    for attribute in Lifecycle.__slots__:
        assert getattr(again, attribute) == getattr(lifecycle, attribute), attribute
    assert again.name == lifecycle.name and again.final == lifecycle.final and again.states
    choices = [choice for row in again.table.values() for some in row.values() for choice in some]
    for choice in choices:
        assert choice.dest in again.states and all(type(guard.name) is str for guard in choice.guards)
    assert {(str(g), g.expected) for choice in choices for g in choice.guards} == {
        (name, True) for name in again.guards
    }


def test_a_guard_is_printed_as_what_it_wants() -> None:
    assert [str(Guard("locked", True)), str(Guard("locked", False))] == ["locked", "not locked"]


def test_both_engines_refuse_in_the_same_words() -> None:
    for step in DOOR.step, DOOR.step_stock:
        door = Door()
        with pytest.raises(IllegalTransition) as caught:
            step(door, T.PULL, 1.0)
        assert (caught.value.lifecycle, caught.value.state, caught.value.trigger) == ("door", "shut", "pull")
        assert type(caught.value.state) is type(caught.value.trigger) is str
        step(door, T.PUSH, 1.0)
        assert door.history[-1].reason == ""
        door.state = "ajar"  # type: ignore[assignment]
        with pytest.raises(IllegalTransition) as caught:
            step(door, T.PUSH, 1.0)
        assert (caught.value.lifecycle, caught.value.state, caught.value.trigger) == ("door", "ajar", "push")
