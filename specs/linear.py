"""Is there an order in which it could all have happened one after the other?

Several callers use one thing at the same time. Each act of theirs takes effect at some instant between
its beginning and its end, and nobody sees when. The history is *linearizable* if these instants can be
chosen so that what was seen is what one caller would have seen who did it all alone, act by act
(Herlihy and Wing, 1990).

`linearize` looks for such an order by trial: the next act may be any that had begun before the first
of the others ended (Wing and Gong, 1993), and a combination of acts done and state reached that has
led nowhere is not tried again (Lowe, 2017). It is quick while few acts overlap. `offence` makes an
impossible history as short as it will go.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

__all__ = ["Act", "Moment", "linearize", "offence"]

Moment: TypeAlias = tuple[float, int]
"""Seconds, and a number that tells apart what happens at the same time."""

S = TypeVar("S", bound=Hashable)
NEVER: Moment = (math.inf, 0)


@dataclass(frozen=True)
class Act(Generic[S]):
    """Something that somebody did, and that took effect at one instant between two moments.

    Args:
        words: what, for people.
        begun: not before this moment.
        ended: not after this one; None if it has not ended, and then it may not have taken effect at all.
        then: from the state before it to the state after it, or None if it is impossible there.
        of: the operation that it is a part of; None for a fact that stands by itself.
    """

    words: str
    begun: Moment
    ended: Moment | None
    then: Callable[[S], S | None]
    of: int | None = None


def linearize(acts: Sequence[Act[S]], state: S) -> list[Act[S]] | None:
    """The acts in an order in which they are possible one after the other; None if there is no such order.

    Args:
        acts: in any order.
        state: in the beginning.
    """
    acts = sorted(acts, key=lambda act: act.begun)
    ends = [NEVER if act.ended is None else act.ended for act in acts]
    open_ends = sum(1 << place for place, act in enumerate(acts) if act.ended is None)
    everything = (1 << len(acts)) - 1
    done, order = 0, list[int]()
    tried: set[tuple[int, S]] = set()
    # Each frame: what is still to be tried next at this point, and the state there.
    frames = [(_next(acts, ends, done), state)]
    while frames:
        if done | open_ends == everything:
            return [acts[place] for place in order]
        choices, state = frames[-1]
        if not choices:
            frames.pop()
            if order:
                done ^= 1 << order.pop()
            continue
        place = choices.pop()
        after = acts[place].then(state)
        if after is None or (done | 1 << place, after) in tried:
            continue
        done |= 1 << place
        tried.add((done, after))
        order.append(place)
        frames.append((_next(acts, ends, done), after))
    return None


def _next(acts: Sequence[Act[S]], ends: Sequence[Moment], done: int) -> list[int]:
    """What may come next, the most urgent last: whatever began before any other that is left ended."""
    choices: list[int] = []
    first_end = NEVER
    place = (~done & (done + 1)).bit_length() - 1  # the first that is not done
    while place < len(acts) and acts[place].begun <= first_end:
        if not done >> place & 1:
            choices.append(place)
            first_end = min(first_end, ends[place])
        place += 1
    choices.sort(key=lambda choice: ends[choice], reverse=True)
    return choices


def offence(acts: Sequence[Act[S]], state: S) -> list[Act[S]]:
    """A part of an impossible history that is impossible by itself, in the order of its beginnings.

    No operation can be left out of it. Empty if the history is possible.
    """
    if linearize(acts, state) is not None:
        return []
    ordered = sorted(acts, key=lambda act: act.begun)
    operations = list(dict.fromkeys(act.of for act in ordered if act.of is not None))
    # Whatever holds an impossible part is impossible. So halving finds where that part ends, and where it
    # begins; what lies between is tried one by one.
    end = _least(len(operations), lambda end: linearize(_only(ordered, operations[:end]), state) is None)
    needed = operations[:end]
    left = _least(end, lambda left: linearize(_only(ordered, needed[end - left :]), state) is None)
    needed = needed[end - left :]
    for operation in list(needed):
        rest = [other for other in needed if other != operation]
        if linearize(_only(ordered, rest), state) is None:
            needed = rest
    return _only(ordered, needed)


def _least(most: int, enough: Callable[[int], bool]) -> int:
    """The least number up to `most` that is enough, where more is enough as well."""
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        if enough(middle):
            high = middle
        else:
            low = middle + 1
    return high


def _only(acts: Sequence[Act[S]], operations: Sequence[int]) -> list[Act[S]]:
    """What these operations did, and the facts that stand by themselves."""
    return [act for act in acts if act.of is None or act.of in operations]
