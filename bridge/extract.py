"""Finding the sentence that answers a question, by counting words.

The sentences of a text are ranked by BM25 (S. Robertson, H. Zaragoza, "The Probabilistic Relevance
Framework: BM25 and Beyond", 2009) against the words of the question, with the sentences themselves
as the collection: a word that few of them contain says more. Nothing is learned, nothing is random,
and equals stay in the order of the text.
"""

from __future__ import annotations

import math
import re
from collections import Counter

__all__ = ["best_sentence", "sentences", "words"]

_K1, _B = 1.2, 0.75  # the usual values: how fast repetition wears off, how much length counts

_END = re.compile(r"([.!?][\"')\]]*)\s+(?=[\"'(\[`]*[A-Z0-9])")
_GAP = re.compile(r"\n\s*\n")
_WORD = re.compile(r"[A-Za-z]+|[0-9]+")
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")
_SUFFIXES = ("ations", "ation", "ings", "ing", "ies", "ied", "ions", "ion", "ed", "es", "s", "e", "y")
_EMPTY = frozenset(
    "a an and are as at be by can do does for from has have how if in into is it its may of on or that the their "
    "there these this those to was what when where which who why will with you your".split()
)


def best_sentence(text: str, question: str) -> tuple[str, int, int]:
    """The sentence of `text` that answers `question` best.

    Returns:
        The sentence, its number (from 1), and how many there are. An empty text has the sentence "".
    """
    found = sentences(text)
    if not found:
        return "", 0, 0
    scores = _scores([Counter(words(sentence)) for sentence in found], set(words(question)))
    best = max(range(len(found)), key=lambda index: (scores[index], -index))
    return found[best], best + 1, len(found)


def sentences(text: str) -> list[str]:
    """The sentences of a text, each on one line."""
    parts = _GAP.split(_END.sub(r"\1\n\n", text))  # what closes a quotation stays with its sentence
    return [" ".join(part.split()) for part in parts if part.strip()]


def words(text: str) -> list[str]:
    """The words that carry meaning, lower-cased and without their endings. `getFile` and `get_file` are two."""
    found = (word.lower() for word in _WORD.findall(_HUMP.sub(" ", text)))
    return [_stem(word) for word in found if word not in _EMPTY]


def _stem(word: str) -> str:
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            return word.removesuffix(suffix)
    return word


def _scores(documents: list[Counter[str]], query: set[str]) -> list[float]:
    count = len(documents)
    lengths = [max(1, document.total()) for document in documents]
    average = sum(lengths) / count
    scores = [0.0] * count
    for word in sorted(query):  # sorted: sums of floats depend on their order
        holders = sum(word in document for document in documents)
        weight = math.log(1 + (count - holders + 0.5) / (holders + 0.5))
        for index, document in enumerate(documents):
            times = document[word]
            if times:
                norm = _K1 * (1 - _B + _B * lengths[index] / average)
                scores[index] += weight * times * (_K1 + 1) / (times + norm)
    return scores
