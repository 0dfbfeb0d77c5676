"""Whether something that is to come always comes: a question about a finished graph.

Given which states lead to which, and in which of them it *holds*, a state is **sure** if it holds
there, or if something leads on and all that leads on leads to sure states. What is not sure has a
run along which it never comes; as there are finitely many states, that run gets stuck or goes round.

This is the `AF` of temporal logic, computed backwards (E. Clarke, E. Emerson, 1981).
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Sequence

__all__ = ["first_lasting"]


def first_lasting(edges: Sequence[int], ends: Sequence[int], holds: Sequence[int]) -> list[int] | None:
    """Where it can fail to come for ever.

    Args:
        edges: where each state leads, one state after the other.
        ends: `edges[ends[n]:ends[n + 1]]` are those of state `n`.
        holds: of each state, whether it holds there.

    Returns:
        None, if it always comes. Else one state that leads nowhere, the first there is; or, if there is
        none, the states of a circle in which it does not hold.
    """
    states = len(holds)
    sure = bytearray(holds)
    open_ways = array("l", bytes(states * array("l").itemsize))
    before: dict[int, list[int]] = {}
    for state in range(states):
        if not holds[state]:
            open_ways[state] = ends[state + 1] - ends[state]
            for target in edges[ends[state] : ends[state + 1]]:
                before.setdefault(target, []).append(state)
    queue = deque(state for state in before if holds[state])
    while queue:
        for source in before.get(queue.popleft(), ()):
            open_ways[source] -= 1
            if not open_ways[source]:
                sure[source] = True
                queue.append(source)
    unsure = [state for state in range(states) if not sure[state]]
    if not unsure:
        return None
    for state in unsure:
        if ends[state] == ends[state + 1]:
            return [state]
    walk = [unsure[0]]
    places: dict[int, int] = {}
    while walk[-1] not in places:
        places[walk[-1]] = len(walk) - 1
        here = walk[-1]
        walk.append(next(target for target in edges[ends[here] : ends[here + 1]] if not sure[target]))
    return walk[places[walk[-1]] :]
