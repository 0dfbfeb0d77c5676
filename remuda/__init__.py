"""A pool of long-lived Python worker processes for trio, whose every lifecycle is a state machine.

    async with remuda.open_pool(adapter="dspy", max_workers=8) as pool:
        await pool.call("execute_program", {...}, timeout=5)

Every public name is here, and none is loaded before it is asked for: a worker imports this package
too, and needs next to nothing of it. What is not named here is reached by its own module:
`remuda.statemachines` (what may happen), `remuda.bridge` (the process boundary), `remuda.runtime`
(what happens), `remuda.specs` (what must hold).
"""

from __future__ import annotations

TYPE_CHECKING = False  # what type checkers take for true; `typing` itself would be an import
if TYPE_CHECKING:
    from remuda.bridge.adapters import command as command
    from remuda.bridge.page import progress as progress
    from remuda.runtime.config import Breaker as Breaker
    from remuda.runtime.config import Health as Health
    from remuda.runtime.config import Limits as Limits
    from remuda.runtime.config import PoolConfig as PoolConfig
    from remuda.runtime.config import Restart as Restart
    from remuda.runtime.config import Retry as Retry
    from remuda.runtime.handles import Lease as Lease
    from remuda.runtime.handles import Session as Session
    from remuda.runtime.opening import open_pool as open_pool
    from remuda.runtime.opening import run_pool as run_pool
    from remuda.runtime.pool import Pool as Pool
    from remuda.runtime.snapshot import PoolSnapshot as PoolSnapshot
    from remuda.runtime.snapshot import WorkerSnapshot as WorkerSnapshot
    from remuda.statemachines.errors import CallTimeout as CallTimeout
    from remuda.statemachines.errors import Category as Category
    from remuda.statemachines.errors import CheckoutTimeout as CheckoutTimeout
    from remuda.statemachines.errors import CircuitOpen as CircuitOpen
    from remuda.statemachines.errors import ConfigError as ConfigError
    from remuda.statemachines.errors import FrameTooLarge as FrameTooLarge
    from remuda.statemachines.errors import IllegalTransition as IllegalTransition
    from remuda.statemachines.errors import Interrupted as Interrupted
    from remuda.statemachines.errors import InvalidLease as InvalidLease
    from remuda.statemachines.errors import OutcomeUnknown as OutcomeUnknown
    from remuda.statemachines.errors import PoolClosed as PoolClosed
    from remuda.statemachines.errors import PoolFailed as PoolFailed
    from remuda.statemachines.errors import PoolFull as PoolFull
    from remuda.statemachines.errors import PoolStartError as PoolStartError
    from remuda.statemachines.errors import ProtocolError as ProtocolError
    from remuda.statemachines.errors import RemoteError as RemoteError
    from remuda.statemachines.errors import RemudaError as RemudaError
    from remuda.statemachines.errors import SerializationError as SerializationError
    from remuda.statemachines.errors import SessionExpired as SessionExpired
    from remuda.statemachines.errors import SessionLost as SessionLost
    from remuda.statemachines.errors import Severity as Severity
    from remuda.statemachines.errors import UnknownCommand as UnknownCommand
    from remuda.statemachines.errors import WorkerDeath as WorkerDeath
    from remuda.statemachines.errors import WorkerDied as WorkerDied
    from remuda.statemachines.errors import WorkerUnfit as WorkerUnfit
    from remuda.statemachines.lifecycle import Lifecycle as Lifecycle
    from remuda.statemachines.lifecycle import Step as Step
    from remuda.statemachines.lifecycle import Subject as Subject

    __version__: str

_WHERE = {
    "bridge.adapters": "command",
    "bridge.page": "progress",
    "runtime.config": "Breaker Health Limits PoolConfig Restart Retry",
    "runtime.handles": "Lease Session",
    "runtime.opening": "open_pool run_pool",
    "runtime.pool": "Pool",
    "runtime.snapshot": "PoolSnapshot WorkerSnapshot",
    "statemachines.errors": (
        "CallTimeout Category CheckoutTimeout CircuitOpen ConfigError FrameTooLarge IllegalTransition "
        "Interrupted InvalidLease OutcomeUnknown PoolClosed PoolFailed PoolFull PoolStartError ProtocolError RemoteError "
        "RemudaError SerializationError SessionExpired SessionLost Severity UnknownCommand WorkerDeath "
        "WorkerDied WorkerUnfit"
    ),
    "statemachines.lifecycle": "Lifecycle Step Subject",
}
"""The public names, by the module that each comes from."""

_MODULES = {name: module for module, names in _WHERE.items() for name in names.split()}

__all__ = [*_MODULES, "__version__"]  # noqa: PLE0604  # pyright: ignore[reportUnsupportedDunderAll]  (texts, of the table above)


def __getattr__(name: str) -> object:
    """Load a public name when it is first asked for (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        value: object = version("remuda")
    elif name in _MODULES:
        from importlib import import_module

        value = getattr(import_module(f"remuda.{_MODULES[name]}"), name)
    else:
        raise AttributeError(f"module 'remuda' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
