"""Two ways to have a pool: in a session, and one of its workers for oneself.

Neither does anything by itself. A session puts its name on each call; a lease, which is what a checkout
gives, puts on each the checkout that it belongs to, and the core knows what that means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, Unpack, overload

import trio

from remuda.bridge import functions
from remuda.bridge.adapters import OnTimeout
from remuda.statemachines import events as ev
from remuda.statemachines.errors import InvalidLease
from remuda.statemachines.subjects import Call

if TYPE_CHECKING:
    from remuda.runtime.pool import Pool

__all__ = ["Lease", "Session"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Session:
    """Calls that belong together: they prefer the worker that served the last of them.

    It is a preference. A call goes to another worker rather than wait, and state that has to be
    there belongs into the journal (`remuda.command(journal=…)`), not into a worker's memory.
    """

    def __init__(self, pool: Pool, name: str) -> None:
        self._pool = pool
        self.name = name

    @overload
    async def call(
        self,
        command: str,
        args: Mapping[str, object] | None = None,
        /,
        *,
        timeout: float | None = None,
        idempotent: bool | None = None,
        on_timeout: OnTimeout | None = None,
    ) -> Any: ...

    @overload
    async def call(
        self,
        command: Callable[[Any, Unpack[Ts]], T],
        /,
        *args: Unpack[Ts],
        timeout: float | None = None,
        idempotent: bool | None = None,
        on_timeout: OnTimeout | None = None,
    ) -> T: ...

    async def call(  # type: ignore[misc]  # as in `Pool.call`
        self,
        command: Any,
        /,
        *args: Any,
        timeout: float | None = None,
        idempotent: bool | None = None,
        on_timeout: OnTimeout | None = None,
    ) -> Any:
        """As `Pool.call`, in this session."""
        pool = self._pool
        return await pool._outcome(pool._command(command, args, timeout, self.name, idempotent, on_timeout, None))

    async def end(self) -> None:
        """Forget the session's worker. Its name may be used again, as a new session."""
        self._pool.feed(ev.EndSession(self.name))
        await trio.lowlevel.checkpoint()


class Lease:
    """A worker that was checked out: yours until the block ends. One call at a time."""

    def __init__(self, pool: Pool, call: Call) -> None:
        self._pool = pool
        self._lease = call
        worker = call.worker
        assert worker is not None
        self.slot = worker.slot.index
        self.generation = worker.generation

    @overload
    async def call(
        self,
        command: str,
        args: Mapping[str, object] | None = None,
        /,
        *,
        timeout: float | None = None,
        on_timeout: OnTimeout | None = None,
    ) -> Any: ...

    @overload
    async def call(
        self,
        command: Callable[[Any, Unpack[Ts]], T],
        /,
        *args: Unpack[Ts],
        timeout: float | None = None,
        on_timeout: OnTimeout | None = None,
    ) -> T: ...

    async def call(  # type: ignore[misc]  # as in `Pool.call`
        self,
        command: Any,
        /,
        *args: Any,
        timeout: float | None = None,
        on_timeout: OnTimeout | None = None,
    ) -> Any:
        """As `Pool.call`, on this worker. It is never repeated on another one.

        If it is interrupted and the worker stops in time, the worker is still yours; the next call waits for
        that. If not, the worker is killed, and the checkout ends with it.

        Raises:
            WorkerDied: the worker has ended; check out another.
            InvalidLease: the block has ended, or another call on this worker is under way.
        """
        pool = self._pool
        return await pool._outcome(pool._command(command, args, timeout, None, False, on_timeout, self._lease))

    async def run_sync(
        self,
        sync_fn: Callable[[Unpack[Ts]], T],
        /,
        *args: Unpack[Ts],
        timeout: float | None = None,
        on_timeout: OnTimeout | None = None,
    ) -> T:
        """As `Pool.run_sync`, on this worker."""
        pool = self._pool
        ticket = pool._function(sync_fn, args, timeout, None, False, on_timeout, self._lease)
        return functions.loads(await pool._outcome(ticket), ticket.command)  # type: ignore[no-any-return]

    def give_back(self) -> None:
        """Give the worker back. The block does this by itself; doing it earlier, or again, is fine."""
        try:
            self._pool.feed(ev.Checkin(self._lease))
        except InvalidLease:
            pass  # the worker died, or it was given back already
