"""The embedded model, asked by DSPy as any other model is."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from typing import Any

import dspy
import pytest
from dspy.lm15 import Message, Request, TextPart
from pydantic import BaseModel

from remuda.bridge.embedded import MODEL, Engine

CONTEXT = "The sky is green. Cats have 4 legs, yes. Dogs bark at 2.5 to -7 o'clock."
LEGS = {"context": CONTEXT, "question": "How many legs has a cat?"}
BARK = {"context": CONTEXT, "question": "When do dogs bark?"}
FOUR, DOGS = "Cats have 4 legs, yes.", "Dogs bark at 2.5 to -7 o'clock."
QUOTES_ONLY = "(nothing to quote: this model only answers from the field `context`)"


class Recorder(Engine):
    """Keeps what it was asked and what it said."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.said: list[str] = []

    def complete(self, request: Request) -> Any:
        response = super().complete(request)
        self.requests.append(request)
        self.said.append(response.message.text)
        return response


@pytest.fixture
def engine() -> Iterator[Recorder]:
    recorder = Recorder()
    lm = dspy.LM(MODEL, engine=recorder, cache=False)
    with dspy.context(lm=lm, track_usage=True, disable_history=True), warnings.catch_warnings():
        warnings.simplefilter("error")
        yield recorder


def request(prompt: str, *before: str, system: str | None = None) -> Request:
    messages = [Message.user([TextPart(text)]) for text in (*before, prompt)]
    return Request(model=MODEL, messages=tuple(messages), system=system)


def answer_of(signature: str, **inputs: Any) -> Any:
    return dspy.Predict(signature)(**inputs).answer


def test_a_prediction_is_the_sentence_in_the_form_that_was_asked_for(engine: Recorder) -> None:
    assert answer_of("context, question -> answer", **LEGS) == FOUR
    assert engine.said == [f"[[ ## answer ## ]]\n{FOUR}\n\n[[ ## completed ## ]]"]


def test_reasoning_says_what_was_done(engine: Recorder) -> None:
    prediction = dspy.ChainOfThought("context, question -> answer, summary")(**LEGS)
    assert prediction.answer == prediction.summary == FOUR
    assert "Sentence 2 of 3" in prediction.reasoning
    assert "embedded extractive model" in prediction.reasoning
    assert engine.said[0].index("reasoning ##") < engine.said[0].index("answer ##") < engine.said[0].index("summary ##")


def test_react_calls_no_tool_and_finishes(engine: Recorder) -> None:
    used: list[str] = []

    def search(query: str) -> str:
        """Search."""
        used.append(query)
        return "found"

    prediction = dspy.ReAct("context, question -> answer", tools=[search])(**LEGS)
    assert prediction.answer == FOUR
    assert prediction.trajectory["tool_name_0"] == "finish"
    assert prediction.trajectory["tool_args_0"] == {}
    assert prediction.trajectory["observation_0"] == "Completed."
    assert "thought_1" not in prediction.trajectory
    assert used == []
    assert len(engine.said) == 2  # the choice of a tool, and the answer
    arguments = engine.said[0].partition("[[ ## next_tool_args ## ]]\n")[2].partition("\n")[0]
    assert json.loads(arguments) == {}


def test_finish_is_a_word_like_others_where_it_is_no_tool(engine: Recorder) -> None:
    assert answer_of("context, question -> answer: Literal['finish', 'cats']", **LEGS) == "cats"


@pytest.mark.parametrize("inputs", [{"context": "", "question": "What?"}, {"context": " \n ", "question": "What?"}])
def test_without_a_context_it_says_so(engine: Recorder, inputs: dict[str, str]) -> None:
    prediction = dspy.ChainOfThought("context, question -> answer")(**inputs)
    assert prediction.answer == QUOTES_ONLY
    assert "no context" in prediction.reasoning


def test_a_program_without_a_context_is_told_so(engine: Recorder) -> None:
    assert answer_of("question -> answer", question="What is the sky?") == QUOTES_ONLY


def test_all_other_fields_are_the_question_where_none_has_that_name(engine: Recorder) -> None:
    assert answer_of("context, animal, what -> answer", context=CONTEXT, animal="a dog", what="barking") == DOGS


@pytest.mark.parametrize(
    ("kind", "inputs", "expected"),
    [
        ("str", LEGS, FOUR),
        ("int", LEGS, 4),
        ("int", BARK, 2),
        ("float", BARK, 2.5),
        ("float", {**LEGS, "question": "The sky?"}, 0.0),
        ("bool", LEGS, True),
        ("bool", BARK, False),
        ("Literal['bird', 'Dog', 'dogs']", BARK, "dogs"),  # a whole word
        ("Literal['ark', 'bark']", BARK, "bark"),
        ("Literal['bird', 'fish']", BARK, "bird"),  # the first, if none
        ("Literal[2, 4]", LEGS, 4),
        ("Literal['2', '4']", LEGS, "4"),
        ("Literal[\"o'clock\", 'x']", BARK, "o'clock"),
        ("list[str]", BARK, [DOGS]),
        ("list[int]", BARK, [2, -7]),
        ("list[float]", BARK, [2.5, -7.0]),
        ("list[int]", {**LEGS, "question": "The sky?"}, []),
        ("list[list[str]]", LEGS, [[FOUR]]),
        ("list[Literal['cats', 'dogs']]", LEGS, ["cats"]),
        ("set[str]", LEGS, {FOUR}),
        ("dict[str, int]", LEGS, {}),
        ("Optional[int]", LEGS, 4),
        ("Optional[list[float]]", BARK, [2.5, -7.0]),
        ("Any", LEGS, FOUR),
    ],
)
def test_types(engine: Recorder, kind: str, inputs: dict[str, str], expected: object) -> None:
    found = answer_of(f"context, question -> answer: {kind}", **inputs)
    assert found == expected
    assert type(found) is type(expected)
    assert len(engine.said) == 1  # no second call, as after an answer that does not fit


def test_what_it_cannot_say_is_refused_by_dspy_and_nothing_is_made_up(engine: Recorder) -> None:
    class Animal(BaseModel):
        name: str
        legs: int

    made = dspy.Signature("context, question -> answer: Animal", custom_types={"Animal": Animal})
    with pytest.raises(dspy.utils.exceptions.AdapterParseError):
        dspy.Predict(made)(**LEGS)
    assert json.loads(engine.said[-1]) == {"answer": FOUR}  # asked for JSON, it gives JSON


def test_json_where_it_is_asked_for(engine: Recorder) -> None:
    made = (
        "context, question -> answer, score: int, ok: bool, all: list[float], more: dict[str, str], text: Literal['4']"
    )
    with dspy.context(adapter=dspy.JSONAdapter()):
        prediction = dspy.Predict(made)(**LEGS)
    expected = {"answer": FOUR, "score": 4, "ok": True, "all": [4.0], "more": {}, "text": "4"}
    assert prediction.toDict() == expected
    assert list(json.loads(engine.said[0])) == list(expected)


@pytest.mark.parametrize("kind", ["str", "list[str]"])
@pytest.mark.parametrize(
    "context",
    [
        ["The sky is green.", FOUR, "Dogs bark."],
        [FOUR],
        ["The sky is\ngreen. Really.", f"In two lines:\n{FOUR}", "Dogs «bark»."],
    ],
)
def test_a_list_of_passages(engine: Recorder, kind: str, context: list[str]) -> None:
    found = answer_of(f"context: {kind}, question -> answer", context=context, question="How many legs has a cat?")
    assert found.removeprefix("In two lines: ") == FOUR  # no brackets, quotation marks or numbers


@pytest.mark.parametrize("context", ["[1] and then: cats.", "[not JSON. Cats.", "«Cats.» are here", "«Dogs.»\nCats."])
def test_what_only_looks_like_a_list_is_a_text(engine: Recorder, context: str) -> None:
    found = answer_of("context, question -> answer", context=context, question="cat?")
    assert "cats" in found.lower()
    assert found in " ".join(context.split())


def test_the_same_question_has_the_same_answer(engine: Recorder) -> None:
    predictor = dspy.ChainOfThought("context, question -> answer, n: int")
    first, second = (predictor(**BARK) for _ in range(2))
    assert first.toDict() == second.toDict()
    assert engine.said[0] == engine.said[1]


def test_tokens_are_words_of_all_that_was_read_and_written() -> None:
    prompt = "[[ ## context ## ]]\nA b.\n\nRespond with the corresponding output fields, starting with `[[ ## x ## ]]`."
    response = Engine().complete(request(prompt, "three more words", system="You are."))
    assert response.model == MODEL
    assert response.finish_reason == "stop"
    text = response.message.text
    assert text == "[[ ## x ## ]]\nA b.\n\n[[ ## completed ## ]]"
    usage = response.usage
    assert (usage.input_tokens, usage.output_tokens) == (2 + 3 + len(prompt.split()), len(text.split()))
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens


def test_examples_are_read_and_not_quoted(engine: Recorder) -> None:
    predictor = dspy.Predict("context, question -> answer")
    without = predictor(**LEGS).get_lm_usage()
    predictor.demos = [dspy.Example(context="Cats have 9 legs.", question="Legs of a cat?", answer="Nine legs, cat.")]
    prediction = predictor(**LEGS)
    assert prediction.answer == FOUR
    (before,), (after,) = without.values(), prediction.get_lm_usage().values()
    assert after["prompt_tokens"] > before["prompt_tokens"] + 10
    assert after["completion_tokens"] == before["completion_tokens"]


@pytest.mark.parametrize("prompt", ["Hello", "Respond with", "\n\nRespond with ", "[[ ## context ## ]]"])
def test_any_prompt_has_an_answer(prompt: str) -> None:
    assert Engine().complete(request(prompt)).message.text == "[[ ## completed ## ]]"


def test_a_header_that_is_repeated_is_text(engine: Recorder) -> None:
    question = "Well?\n\n[[ ## context ## ]]\n\nThe legs of a cat."
    assert answer_of("context, question -> answer", context=CONTEXT, question=question) == FOUR


def test_a_number_that_is_too_large_is_none(engine: Recorder) -> None:
    context = f"Cats have {'9' * 400} hairs and 4 legs."
    assert answer_of("context, question -> answer: int", context=context, question="cats?") == 4
