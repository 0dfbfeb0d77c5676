"""The embedded language model, which is none.

It answers with a sentence of the `context` that it is given, the one that shares the most telling
words with the question (`remuda.bridge.extract`). It needs no network, no weights and no time, gives
the same answer to the same question for ever, and so lets everything around a language model be
tried, demonstrated and tested for real. It does not understand, summarize or know anything, and
where a program asks it to reason it says so.

To DSPy it is an engine: `dspy.LM("embedded", engine=Engine())`. It reads the request as DSPy's chat
adapter writes it, and answers in that form: every field that is asked for, in order.

    a field of text               the sentence
    `reasoning`, `next_thought`   which sentence was chosen, of how many, and by what
    one of several texts          the one that the sentence contains; to a choice of tools, `finish`
    a number, true or false       the first of the sentence; else 0, and false
    a list, a dict                the sentence alone; nothing
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from dspy.lm15 import Message, Request, Response, TextPart, Usage

from remuda.bridge.extract import best_sentence

__all__ = ["MODEL", "Engine"]

MODEL = "embedded"

_HEADER = re.compile(r"^\[\[ ## (\w+) ## \]\]\s*$", re.MULTILINE)
_WANTED = re.compile(r"`(?:\[\[ ## )?(\w+)(?: ## \]\])?`(?: \(must be formatted as a valid Python (.*?)\)(?=,|\.|$))?")
_LITERAL = re.compile(r"'((?:[^'\\]|\\.)*)'")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_NO_CONTEXT = "(nothing to quote: this model only answers from the field `context`)"


class Engine:
    """The engine, as `dspy.LM` wants one."""

    def complete(self, request: Request) -> Response:
        """Answer a request; deterministic."""
        prompt = request.messages[-1].text
        asked, _, instruction = prompt.rpartition("\n\nRespond with ")
        text = _reply(_fields(asked or prompt), instruction)
        read, written = len(f"{request.system or ''} {prompt}".split()), len(text.split())
        return Response(
            id=None,
            model=request.model,
            finish_reason="stop",
            message=Message.assistant([TextPart(text)]),
            usage=Usage(input_tokens=read, output_tokens=written, total_tokens=read + written),
        )

    def dump_state(self) -> dict[str, str]:
        """It has none."""
        return {}

    def load_state(self, state: dict[str, str]) -> None:
        """It has none."""


def _fields(text: str) -> dict[str, str]:
    """The fields of a message, by name; what repeats a name belongs to the text before it."""
    fields: dict[str, str] = {}
    pieces = _HEADER.split(text)
    for name, value in zip(pieces[1::2], pieces[2::2], strict=True):
        fields.setdefault(name, value.strip())
    return fields


def _reply(fields: dict[str, str], instruction: str) -> str:
    context = fields.get("context", "")
    question = fields.get("question") or " ".join(text for name, text in fields.items() if name != "context")
    sentence, number, count = best_sentence(context, question)
    thought = f"Sentence {number} of {count} shares the most telling words with the question (embedded extractive model)."
    if not sentence:
        sentence, thought = _NO_CONTEXT, "There is no context to quote from (embedded extractive model)."
    wanted = {name: hint for name, hint in _WANTED.findall(instruction) if name != "completed"}
    values = {name: _value(name, hint, sentence, thought) for name, hint in wanted.items()}
    if "JSON object" in instruction:
        return json.dumps({name: _as_json(value, wanted[name]) for name, value in values.items()})
    parts = [f"[[ ## {name} ## ]]\n{value}" for name, value in values.items()]
    return "\n\n".join([*parts, "[[ ## completed ## ]]"])


def _value(name: str, hint: str, sentence: str, thought: str) -> str:
    if not hint or hint == "str":
        return thought if name in ("reasoning", "next_thought") else sentence
    for kind, make in _TYPED.items():
        if hint.startswith(kind):
            return make(hint, sentence)
    return sentence


def _as_json(value: str, hint: str) -> object:
    if hint and not hint.startswith(("str", "Literal")):
        try:
            return json.loads(value)
        except ValueError:
            pass
    return value


def _choice(hint: str, sentence: str) -> str:
    options = [option.replace("\\'", "'") for option in _LITERAL.findall(hint)]
    if "finish" in options:
        return "finish"
    contained = [option for option in options if option.lower() in sentence.lower()]
    return (contained or options or [sentence])[0]


def _number(sentence: str, whole: bool) -> str:
    found = _NUMBER.search(sentence)
    return "0" if found is None else str(int(float(found[0]))) if whole else found[0]


_TYPED: dict[str, Callable[[str, str], str]] = {
    "Literal": _choice,
    "bool": lambda hint, sentence: "true" if re.search(r"\b(true|yes)\b", sentence, re.IGNORECASE) else "false",
    "int": lambda hint, sentence: _number(sentence, whole=True),
    "float": lambda hint, sentence: _number(sentence, whole=False),
    "list": lambda hint, sentence: json.dumps([sentence]),
    "dict": lambda hint, sentence: "{}",
}
