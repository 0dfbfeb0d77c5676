"""Which template serves, and when another is built: each of the rules, by itself."""

from __future__ import annotations

import math

import pytest

from remuda.statemachines.errors import IllegalTransition
from remuda.statemachines.template import StartFrom, Succession, Template, TemplateState

FORK, WAIT, SPAWN = StartFrom.FORK, StartFrom.WAIT, StartFrom.SPAWN


def ready(succession: Succession, now: float = 0.0) -> Template:
    template = succession.begin(now)
    succession.prepared(template, now)
    return template


def served(succession: Succession, now: float = 0.0) -> Template:
    template = ready(succession, now)
    succession.forked(template, now)
    return template


def test_the_first_is_due_at_once_and_workers_wait_for_it() -> None:
    succession = Succession(5.0)
    assert (succession.due, succession.start_from(5.0)) == (5.0, WAIT)
    template = succession.begin(5.0)
    assert (template.number, template.state, succession.coming) == (1, TemplateState.BUILDING, template)
    assert (succession.due, succession.start_from(5.0)) == (math.inf, WAIT)
    succession.prepared(template, 6.0)
    assert (succession.current, succession.coming, succession.start_from(6.0)) == (template, None, FORK)
    succession.forked(template, 7.0)
    succession.forked(template, 7.0)
    assert template.made == 2


def test_one_that_had_made_a_worker_is_replaced_at_once() -> None:
    succession = Succession(0.0)
    succession.exited(served(succession), "killed", 1.0, 9.0)
    assert (succession.current, succession.due, succession.start_from(9.0)) == (None, 9.0, WAIT)


def test_one_that_comes_to_nothing_is_replaced_after_a_pause_that_doubles() -> None:
    succession, pauses = Succession(0.0), []
    for number in range(9):
        template = succession.begin(100.0)
        assert template.number == number + 1
        if number % 3 == 0:
            succession.failed(template, "no table", 1.0, 100.0)
            assert (template.state, succession.retiring) == (TemplateState.RETIRING, [template])
        elif number % 3 == 2:
            succession.prepared(template, 100.0)  # to be ready is not enough
        pause = succession.due
        succession.exited(template, "it ended", 1.0, 100.0)
        assert number % 3 or succession.due == pause, "it was counted already"
        pauses.append(succession.due - 100.0)
        assert succession.start_from(100.0) is SPAWN, "meanwhile"
        assert succession.start_from(succession.due) is WAIT
        assert not succession.unfit
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    succession.exited(served(succession), "killed", 1.0, 100.0)
    succession.failed(succession.begin(100.0), "no table", 0.5, 100.0)
    assert succession.due == 100.5, "a worker that was made ends the series; the draw is a part of the pause"


@pytest.mark.parametrize("made", [True, False])
def test_one_that_dies_while_another_is_built_is_replaced_by_that(made: bool) -> None:
    succession = Succession(0.0)
    old = served(succession) if made else ready(succession)
    succession.reload(1.0)
    new = succession.begin(1.0)
    succession.exited(old, "killed", 1.0, 2.0)
    assert (succession.due, succession.start_from(2.0)) == (math.inf, WAIT)
    succession.prepared(new, 3.0)
    assert (succession.due, succession.current) == (math.inf, new), "there is no third"


@pytest.mark.parametrize("when", ["after its imports", "at a fork"])
def test_an_unfit_one_is_not_replaced(when: str) -> None:
    succession = Succession(0.0)
    template = succession.begin(0.0) if when == "after its imports" else served(succession)
    succession.refused(template, "it has 2 threads", 1.0)
    assert template.state is TemplateState.RETIRING, "it may have workers to collect"
    assert [step.dest for step in template.history][-2:] == ["unfit", "retiring"]
    for _ in range(2):
        assert (succession.start_from(1.0), succession.due, succession.unfit) == (SPAWN, math.inf, "it has 2 threads")
        succession.refused(template, "and sockets", 1.0)  # the second that was asked for
        succession.forked(template, 1.0)  # one that was on its way
    succession.exited(template, "it ended", 1.0, 2.0)
    assert (succession.start_from(2.0), succession.retiring) == (SPAWN, [])


def test_a_reload_after_a_refusal_tries_again() -> None:
    succession = Succession(0.0)
    succession.refused(succession.begin(0.0), "it has 2 threads", 1.0)
    succession.reload(2.0)
    assert (succession.start_from(2.0), succession.unfit) == (WAIT, "")
    ready(succession, 3.0)
    assert (succession.start_from(3.0), succession.unfit) == (FORK, "")


def test_a_reload_builds_beside_the_one_that_serves() -> None:
    succession = Succession(0.0)
    old = served(succession)
    succession.reload(1.0)
    new = succession.begin(1.0)
    assert (succession.current, succession.coming, succession.start_from(1.0)) == (old, new, FORK)
    succession.prepared(new, 2.0)
    assert (succession.current, succession.retiring, old.state) == (new, [old], TemplateState.RETIRING)
    succession.exited(old, "it ended", 1.0, 3.0)
    assert (succession.retiring, succession.due) == ([], math.inf)


@pytest.mark.parametrize("how", ["fails", "is unfit", "dies"])
def test_a_reload_that_comes_to_nothing_leaves_the_old_one(how: str) -> None:
    succession = Succession(0.0)
    old = served(succession)
    succession.reload(1.0)
    new = succession.begin(1.0)
    if how == "fails":
        succession.failed(new, "no table", 1.0, 2.0)
    elif how == "is unfit":
        succession.refused(new, "it has 2 threads", 2.0)
    else:
        succession.exited(new, "killed", 1.0, 2.0)
    assert (succession.current, succession.start_from(2.0), succession.unfit) == (old, FORK, "")
    assert succession.due == (math.inf if how == "is unfit" else 3.0)


def test_a_reload_that_is_asked_for_while_one_is_built_is_another() -> None:
    """The one that is built may have read what is old already."""
    succession = Succession(0.0)
    first = succession.begin(0.0)
    succession.reload(1.0)
    succession.reload(1.0)
    succession.prepared(first, 2.0)
    assert succession.due <= 2.0
    ready(succession, 3.0)
    assert succession.due == math.inf


def test_closed_it_builds_no_more() -> None:
    succession = Succession(0.0)
    old = served(succession)
    succession.reload(1.0)
    new = succession.begin(1.0)
    succession.close(2.0)
    succession.close(2.0)
    assert {old.state, new.state} == {TemplateState.RETIRING} and succession.retiring == [old, new]
    succession.reload(3.0)
    succession.prepared(new, 3.0)
    for one in (old, new):
        succession.exited(one, "it ended", 1.0, 4.0)
    assert (succession.due, succession.start_from(4.0), succession.retiring) == (math.inf, SPAWN, [])


def test_observers_hear_every_step_and_an_end_is_the_end() -> None:
    heard: list[str] = []
    succession = Succession(0.0, lambda subject, step: heard.append(f"{step.trigger} {step.reason}".strip()))
    template = served(succession)
    succession.exited(template, "killed", 1.0, 1.0)
    assert heard == ["prepared", "fork", "exited killed"]
    with pytest.raises(IllegalTransition):
        succession.exited(template, "killed", 1.0, 1.0)
