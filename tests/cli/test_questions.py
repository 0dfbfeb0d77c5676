"""The questions of the demonstration: enough of them, fair, and the same every time."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace

import pytest

from remuda.bridge.extract import best_sentence
from remuda.cli import questions as module
from remuda.cli.questions import PASSAGES, Question, is_right, questions
from remuda.statemachines.errors import ConfigError

ALL = questions()
BY_ID = {question.id: question for question in ALL}
NOT_EVERYWHERE = {"bz2", "curses", "dbm.gnu", "lzma", "readline", "sqlite3", "ssl", "tkinter", "zlib"}
NOISY = {"antigravity", "this", "idlelib", "turtle"}


def passages(question: Question) -> list[str]:
    return question.context.split("\n\n")


def test_there_are_enough_and_no_two_are_the_same() -> None:
    assert len(ALL) >= 300
    assert len(BY_ID) == len({question.question for question in ALL}) == len(ALL)
    with pytest.raises(FrozenInstanceError):
        ALL[0].id = "another"  # type: ignore[misc]


def test_the_right_passage_is_among_others_once_and_anywhere() -> None:
    for question in ALL:
        found = passages(question)
        assert len(found) == len(set(found)) == PASSAGES
        assert found.count(question.passage) == 1
        assert question.passage.startswith(f"{question.id}: ")
    places = [passages(question).index(question.passage) for question in ALL]
    # Shuffled: whoever always quotes the same passage gets about a fifth, not most of it.
    assert max(places.count(place) for place in range(PASSAGES)) < len(ALL) / 3


def test_no_question_gives_the_answer_away() -> None:
    """The name is in both, on purpose; what the function does is only in the passage."""
    for question in ALL:
        said = question.passage.removeprefix(f"{question.id}: ")
        assert len(said.split()) >= 5
        assert said not in question.question
        assert question.question == f"What does {question.id} do?"


def test_the_embedded_model_is_right_about_most_and_not_by_luck() -> None:
    right = sum(is_right(question, best_sentence(question.context, question.question)[0]) for question in ALL)
    first = sum(is_right(question, passages(question)[0]) for question in ALL)
    assert right / len(ALL) > 0.6
    assert first / len(ALL) < 0.4


def test_what_is_right() -> None:
    right, wrong = "m.f: It opens a door. It is old.", "m.g: It shuts a door. It is old."
    question = Question("m.f", "What does m.f do?", f"{wrong}\n\n{right}", right)
    for answer in (right, "m.f: It opens a door.", "It opens  a\ndoor."):
        assert is_right(question, answer)
    # The other passage's, in both, in none, over the border of two, and nothing at all.
    for answer in (wrong, "It shuts a door.", "It is old.", "o", "It opens a window.", f"{wrong} {right}", "", " \n"):
        assert not is_right(question, answer)


def test_a_limit_takes_the_first() -> None:
    assert questions(0) == []
    assert questions(7) == questions()[:7]  # not `ALL`: importing DSPy meanwhile replaces `inspect.getfile`
    assert questions(len(ALL) + 1) == ALL
    assert len({question.id.split(".", 1)[0] for question in questions(40)}) > 10  # of many modules


def test_they_are_the_same_in_every_process() -> None:
    code = "from remuda.cli.questions import questions; print(hash_of(questions()))"
    prelude = "import hashlib\ndef hash_of(x): return hashlib.sha256(repr(x).encode()).hexdigest()\n"
    found = {
        subprocess.run(
            [sys.executable, "-P", "-W", "error", "-c", prelude + code],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in (1, 2)
    }
    assert len(found) == 1


def test_making_them_shows_nothing_and_starts_nothing() -> None:
    code = (
        "import sys, threading, os\n"
        "from remuda.cli.questions import questions\n"
        "questions()\n"
        "assert threading.active_count() == 1\n"
        "print(' '.join(sorted(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-P", "-W", "error", "-c", code], check=True, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1  # the modules, and nothing else was printed
    assert not {"tkinter", "dspy", *NOISY} & set(done.stdout.split())
    assert not (NOT_EVERYWHERE | NOISY) & set(module._MODULES)


def test_a_python_without_docstrings_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.inspect, "getdoc", lambda thing: None)
    with pytest.raises(ConfigError, match="-OO"):
        questions()


def test_a_passage_that_is_not_there_is_never_right() -> None:
    question = replace(ALL[0], passage="elsewhere: something else entirely, of no passage here")
    assert not any(is_right(question, passage) for passage in passages(question))
