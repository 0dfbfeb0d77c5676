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
    one of several values         the first that the sentence contains; else the first of all
    a choice of tools             `finish`
    a number, true or false       the first of the sentence; else 0, and false
    a list                        of numbers: those of the sentence; else the sentence alone
    a dict                        nothing
    what may be missing           as if it could not be

A context that is a list of texts is read as these texts, one after the other. Tokens are counted as
words. An output of another type (a model of pydantic's, say) is answered with the sentence, which
DSPy then refuses: nothing is made up.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable

from dspy.lm15 import Message, Request, Response, TextPart, Usage

from remuda.bridge.extract import best_sentence

__all__ = ["MODEL", "Engine"]

MODEL = "embedded"

_HEADER = re.compile(r"^\[\[ ## (\w+) ## \]\]\s*$", re.MULTILINE)
_WANTED = re.compile(r"`(?:\[\[ ## )?(\w+)(?: ## \]\])?`(?: \(must be formatted as a valid Python (.*?)\)(?=,|\.|$))?")
_OPTIONAL = re.compile(r"^Union\[(.*), NoneType\]$")
_LISTED = re.compile(r"^(?:\[\d+\] )?(?:«««\n(.*?)\n»»»|«([^«»\n]*)»)$", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"(?:(?<!\w)-)?\d+(?:\.\d+)?")
_NO_CONTEXT = "(nothing to quote: this model only answers from the field `context`)"


class Engine:
    """The engine, as `dspy.LM` wants one."""

    def complete(self, request: Request) -> Response:
        """Answer a request; deterministic."""
        prompt = request.messages[-1].text or ""
        asked, _, instruction = prompt.rpartition("\n\nRespond with ")
        text = _reply(_fields(asked or prompt), instruction)
        told = [str(request.system or ""), *(message.text or "" for message in request.messages)]  # with the examples
        read, written = sum(len(part.split()) for part in told), len(text.split())
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
    latest = ""
    pieces = _HEADER.split(text)
    for name, value in zip(pieces[1::2], pieces[2::2], strict=True):
        if name in fields:
            fields[latest] += f"\n\n[[ ## {name} ## ]]\n{value}"
        else:
            latest = name
            fields[name] = value
    return {name: value.strip() for name, value in fields.items()}


def _passages(context: str) -> str:
    """The context as text, if DSPy wrote it as a list: in JSON, or numbered and in guillemets."""
    if context.startswith("["):
        try:
            listed = json.loads(context)
        except ValueError:
            pass
        else:
            return "\n\n".join(map(str, listed))
    pieces = _LISTED.findall(context)
    if pieces and not _LISTED.sub("", context).strip():
        return "\n\n".join(long or short for long, short in pieces)
    return context


def _reply(fields: dict[str, str], instruction: str) -> str:
    context = _passages(fields.get("context", ""))
    question = fields.get("question") or " ".join(text for name, text in fields.items() if name != "context")
    sentence, number, count = best_sentence(context, question)
    thought = (
        f"Sentence {number} of {count} shares the most telling words with the question (embedded extractive model)."
    )
    if not sentence:
        sentence, thought = _NO_CONTEXT, "There is no context to quote from (embedded extractive model)."
    wanted = {name: hint for name, hint in _WANTED.findall(instruction) if name != "completed"}
    values = {name: _value(name, hint, sentence, thought) for name, hint in wanted.items()}
    if "JSON object" in instruction:
        return json.dumps(values)
    written = {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
    parts = [f"[[ ## {name} ## ]]\n{text}" for name, text in written.items()]
    return "\n\n".join([*parts, "[[ ## completed ## ]]"])


def _value(name: str, hint: str, sentence: str, thought: str) -> object:
    if name == "next_tool_name":
        return "finish"  # the tool that ends a `dspy.ReAct`; its arguments are an empty dict
    if not hint or hint == "str":
        return thought if name in ("reasoning", "next_thought") else sentence
    return _typed(hint, sentence)


def _typed(hint: str, sentence: str) -> object:
    """The sentence as a value of a type, which is written as DSPy writes it."""
    hint = _OPTIONAL.sub(r"\1", hint)
    kind, _, inner = hint.removesuffix("]").partition("[")
    make = _TYPED.get(kind)
    return sentence if make is None else make(inner, sentence)


def _choice(inner: str, sentence: str) -> object:
    try:
        options = ast.literal_eval(f"[{inner}]")
    except (SyntaxError, ValueError):  # members of an enumeration, for example
        return sentence
    for option in options:
        if re.search(rf"(?<!\w){re.escape(str(option))}(?!\w)", sentence, re.IGNORECASE):
            return option
    return options[0]


def _list(inner: str, sentence: str) -> object:
    if inner in ("int", "float"):
        return _numbers(sentence, whole=inner == "int")
    return [_typed(inner, sentence)]


def _numbers(sentence: str, whole: bool) -> list[float]:
    found = [float(number) for number in _NUMBER.findall(sentence)]
    return [int(number) if whole else number for number in found if math.isfinite(number)]


_TYPED: dict[str, Callable[[str, str], object]] = {
    "Literal": _choice,
    "bool": lambda inner, sentence: re.search(r"\b(true|yes)\b", sentence, re.IGNORECASE) is not None,
    "int": lambda inner, sentence: (_numbers(sentence, whole=True) or [0])[0],
    "float": lambda inner, sentence: (_numbers(sentence, whole=False) or [0.0])[0],
    "list": _list,
    "set": _list,
    "frozenset": _list,
    "dict": lambda inner, sentence: {},
}
