"""A watcher for tests: every invariant after every step of the core, and what was seen on the way.

Unlike a monitor of a live pool (`remuda.specs.monitor`) it keeps everything and spares nothing: it is
thrown away with the run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from remuda.runtime.events import Event, Transition
from remuda.specs.invariants import InvariantViolated, check
from remuda.specs.ledger import Ledger
from remuda.statemachines import effects as fx
from remuda.statemachines import events as ev
from remuda.statemachines.core import Core
from remuda.statemachines.pool import PoolState

__all__ = ["Watch"]

_CLOSING = frozenset({PoolState.DRAINING, PoolState.CLOSED})


class Watch:
    """An observer of one pool.

    Attributes:
        broken: which rules did not hold, and what was seen; the first of each name.
        pairs: how often each (lifecycle, state, trigger) was taken.
        trace: every event, in order.
    """

    def __init__(self) -> None:
        self.broken: list[str] = []
        self.pairs: Counter[tuple[str, str, str]] = Counter()
        self.trace: list[Event] = []
        self._ledger = Ledger()
        self._core: Core | None = None
        self._closing = False

    def __call__(self, event: Event) -> None:
        """Note an event."""
        self.trace.append(event)
        if isinstance(event, Transition):
            self.pairs[event.lifecycle, event.source, event.trigger] += 1

    def handled(
        self, pool: str, core: Core, event: ev.Event, effects: Sequence[fx.Effect], now: float
    ) -> Iterable[Event]:
        """Ask all invariants."""
        if core is not self._core:  # the pool was opened anew
            self._core, self._ledger, self._closing = core, Ledger(), False
        self._ledger.note(core, event, effects, now, closing=self._closing)
        self._closing = core.pool.state in _CLOSING
        try:
            check(core, self._ledger)
        except InvariantViolated as violation:
            if not any(one.startswith(violation.name) for one in self.broken):
                self.broken.append(f"{violation.name}: {violation.detail}")
        return ()
