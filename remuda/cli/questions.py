"""Questions about the Python standard library, made from what every machine has: its docstrings.

Each question asks what one function does, and comes with a context of several passages in an order
that is shuffled but always the same: the first paragraph of that function's docstring, and those of
other functions, of the same module where there are enough. The answer is right if it was taken from
the right passage. It is real text, with all that is odd about it, and no network is needed.
"""

from __future__ import annotations

import importlib
import inspect
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from remuda.statemachines.errors import ConfigError

__all__ = ["Question", "is_right", "questions"]

PASSAGES = 5
"""In each context."""

# Those that need no library beside Python's own: a Python may have been built without bz2, lzma, sqlite3 or zlib.
_MODULES = (
    "ast base64 binascii bisect calendar cmath codecs collections colorsys configparser contextlib copy csv "
    "datetime decimal difflib dis email.utils enum filecmp fileinput fnmatch fractions functools gc getpass gettext "
    "glob hashlib heapq html inspect io ipaddress itertools json keyword linecache locale logging math "
    "mimetypes netrc operator os os.path pathlib pickle pkgutil platform plistlib posixpath pprint quopri random re "
    "reprlib sched secrets selectors shelve shlex shutil signal site socket stat statistics string struct "
    "subprocess symtable sys sysconfig tarfile tempfile textwrap threading time timeit tokenize traceback types "
    "typing unicodedata urllib.parse urllib.request uuid warnings weakref webbrowser zipfile"
).split()

_SIGNATURE = re.compile(r"^\w[\w.]*\(.*\)\s*(->.*)?$")


@dataclass(frozen=True)
class Question:
    """One question, and what its answer is to be found in.

    Attributes:
        id: the function's qualified name.
        question: what is asked.
        context: the passages, one per paragraph.
        passage: the right one.
    """

    id: str
    question: str
    context: str
    passage: str


def questions(limit: int | None = None) -> list[Question]:
    """The questions, in the same order every time.

    Args:
        limit: how many at most; default: all there are, more than 300.

    Raises:
        ConfigError: this Python has no docstrings.
    """
    found = [_of_module(name) for name in _MODULES]
    everything = [passage for passages in found for passage in passages]
    if len(everything) <= PASSAGES:
        raise ConfigError(
            "this Python runs without docstrings (-OO), and the questions are made from them; run without"
        )
    made = [_question(name, text, passages, everything) for passages in found for name, text in passages]
    random.Random(0).shuffle(made)
    return made[:limit]


def is_right(question: Question, answer: str) -> bool:
    """Whether the answer was taken from the right passage, and could not be from another one of the context."""
    quoted = " ".join(answer.split())
    holders = [passage for passage in question.context.split("\n\n") if quoted in " ".join(passage.split())]
    return bool(quoted) and holders == [question.passage]


def _question(name: str, text: str, siblings: list[tuple[str, str]], everything: list[tuple[str, str]]) -> Question:
    draw = random.Random(name)
    pool = siblings if len(siblings) > PASSAGES else everything
    others = draw.sample([passage for other, passage in pool if other != name], PASSAGES - 1)
    passages = [text, *others]
    draw.shuffle(passages)
    return Question(name, f"What does {name} do?", "\n\n".join(passages), text)


def _of_module(module_name: str) -> list[tuple[str, str]]:
    """The public functions of a module, with a paragraph about each."""
    module = importlib.import_module(module_name)
    names = getattr(module, "__all__", None) or [name for name in dir(module) if not name.startswith("_")]
    return sorted(dict(_paragraphs(module_name, module, names)).items())


def _paragraphs(module_name: str, module: object, names: list[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        thing = getattr(module, name, None)
        if inspect.isroutine(thing) and getattr(thing, "__module__", None) in (module_name, f"_{module_name}"):
            lines = (inspect.getdoc(thing) or "").split("\n\n")[0].splitlines()
            text = " ".join(line.strip() for line in lines if not _SIGNATURE.match(line.strip()))
            if len(text.split()) >= 5:
                qualified = f"{module_name}.{name}"
                yield qualified, f"{qualified}: {text}"
