"""Finding the sentence that answers a question."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from remuda.bridge.extract import best_sentence, sentences, words

STORY = "The sky is green. Cats have 4 legs. Dogs bark at night. Fish swim in the sea."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n\t\n ", []),
        ("No end at all", ["No end at all"]),
        ("One. Two! Three? 4 is a number.", ["One.", "Two!", "Three?", "4 is a number."]),
        ("It weighs 3.5 kg, i.e. little. Yes.", ["It weighs 3.5 kg, i.e. little.", "Yes."]),
        ("It\nruns   over\ttwo lines. Then stops.", ["It runs over two lines.", "Then stops."]),
        ("A heading\n\nthen lower case", ["A heading", "then lower case"]),
        ("A heading\n  \n\n\nthen lower case", ["A heading", "then lower case"]),
        ("Call it (`now`). `Then` wait. [See] it.", ["Call it (`now`).", "`Then` wait.", "[See] it."]),
    ],
)
def test_the_sentences_of_a_text(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


@pytest.mark.parametrize(
    "text", ['He said "No." Then he left.', "(It was late.) Then he left.", "It is [so.] Then he left."]
)
def test_a_sentence_keeps_what_closes_it(text: str) -> None:
    """Quotation marks and brackets after the full stop are part of the sentence that is quoted."""
    found = sentences(text)
    assert len(found) == 2
    assert " ".join(found) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("What is the of and", []),
        ("The CAT", ["cat"]),
        ("getFile get_file", ["get", "fil", "get", "fil"]),
        ("timeout30 30", ["timeout", "30", "30"]),
        ("jumped jumping jumps jump", ["jump"] * 4),
        ("city cities", ["cit", "cit"]),
        ("is red", ["red"]),  # what would be left of it is too short
        ("a-b: naïve", ["b", "na", "ve"]),
    ],
)
def test_the_words_that_carry_meaning(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@pytest.mark.parametrize(
    ("question", "number"),
    [
        ("How many legs has a cat?", 2),
        ("Which color has the SKY?", 1),
        ("Where do fish swim?", 4),
        ("What does a dog do when it is night?", 3),
    ],
)
def test_the_sentence_with_the_words_of_the_question_is_found(question: str, number: int) -> None:
    assert best_sentence(STORY, question) == (sentences(STORY)[number - 1], number, 4)


def test_a_rare_word_says_more_than_a_common_one() -> None:
    text = "Pools have workers. Pools have queues. Pools have limits. Budgets have limits too."
    assert best_sentence(text, "pools budgets")[1] == 4


def test_repetition_counts() -> None:
    assert best_sentence("Cold rain fell today. Rain after rain fell.", "rain")[1] == 2


def test_a_long_sentence_counts_less_than_a_short_one() -> None:
    text = "Among many other colours of many other things the apple seems red today. Apple: red."
    assert best_sentence(text, "apple red")[1] == 2


@pytest.mark.parametrize("question", ["", "the of and", "zebra"])
def test_without_a_shared_word_it_is_the_first(question: str) -> None:
    assert best_sentence(STORY, question) == ("The sky is green.", 1, 4)


def test_equals_stay_in_the_order_of_the_text() -> None:
    assert best_sentence("Ants walk. Red cats. Red dogs. Red mice.", "red")[:2] == ("Red cats.", 2)


@pytest.mark.parametrize("text", ["", "   ", "\n\n\n"])
def test_an_empty_text_has_no_sentence(text: str) -> None:
    assert best_sentence(text, "why?") == ("", 0, 0)


def test_the_ranking_is_the_same_in_every_process() -> None:
    """Sets of texts have another order in every process; the sums must not."""
    names = [f"word{first}{second}" for first in "bcdfghjk" for second in "lmnpqrst"]
    text = " ".join(f"S {' '.join(names[:: step + 1])}." for step in range(len(names)))
    code = (
        "import sys\n"
        "from remuda.bridge.extract import _scores, words, sentences\n"
        "from collections import Counter\n"
        "text = sys.argv[1]\n"
        "print(_scores([Counter(words(s)) for s in sentences(text)], set(words(text))))\n"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-P", "-c", code, text],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in range(1, 6)
    }
    assert len(answers) == 1
    assert "." in answers.pop()
