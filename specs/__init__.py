"""What must hold, whatever happens: the tools that remuda is tested with, for your pools and lifecycles.

    remuda.specs.PoolRules      a pool, attacked by Hypothesis: over your adapter, in simulation or for real
    remuda.specs.ForkingRules   the same, with templates that workers are forked from
    remuda.specs.Monitor        the invariants, asked of a live pool
    remuda.specs.audit          the faults of a lifecycle's declaration
    remuda.specs.explore        all states of a lifecycle, or of a model
    remuda.specs.machine        a Hypothesis machine for a lifecycle

They come with the extra `specs`, and are loaded when they are asked for.
"""

from __future__ import annotations

TYPE_CHECKING = False  # what type checkers take for true
if TYPE_CHECKING:
    from remuda.specs.checkpoints import Mark as Mark
    from remuda.specs.checkpoints import Points as Points
    from remuda.specs.checkpoints import cancel_everywhere as cancel_everywhere
    from remuda.specs.claims import Request as Request
    from remuda.specs.coverage import Coverage as Coverage
    from remuda.specs.engines import engines_agree as engines_agree
    from remuda.specs.explorer import Model as Model
    from remuda.specs.explorer import always as always
    from remuda.specs.explorer import eventually as eventually
    from remuda.specs.explorer import explore as explore
    from remuda.specs.explorer import sometimes as sometimes
    from remuda.specs.forking_rules import ForkingRules as ForkingRules
    from remuda.specs.history import History as History
    from remuda.specs.invariant import InvariantViolated as InvariantViolated
    from remuda.specs.lifecycle_rules import LifecycleRules as LifecycleRules
    from remuda.specs.lifecycle_rules import machine as machine
    from remuda.specs.lifecycles import audit as audit
    from remuda.specs.monitor import Monitor as Monitor
    from remuda.specs.rules import PoolRules as PoolRules
    from remuda.specs.sequential import judge as judge
    from remuda.specs.simulated import SimLauncher as SimLauncher
    from remuda.specs.stepped import SteppedTrio as SteppedTrio
    from remuda.specs.stepped import stepped as stepped
    from remuda.specs.worlds import RealWorld as RealWorld
    from remuda.specs.worlds import SimWorld as SimWorld

_WHERE = {
    "checkpoints": "Mark Points cancel_everywhere",
    "claims": "Request",
    "coverage": "Coverage",
    "engines": "engines_agree",
    "forking_rules": "ForkingRules",
    "explorer": "Model always eventually explore sometimes",
    "history": "History",
    "invariant": "InvariantViolated",
    "lifecycle_rules": "LifecycleRules machine",
    "lifecycles": "audit",
    "monitor": "Monitor",
    "rules": "PoolRules",
    "sequential": "judge",
    "simulated": "SimLauncher",
    "stepped": "SteppedTrio stepped",
    "worlds": "RealWorld SimWorld",
}
"""The public names, by the module that each comes from."""

_MODULES = {name: module for module, names in _WHERE.items() for name in names.split()}

__all__ = [*_MODULES]  # noqa: PLE0604  # pyright: ignore[reportUnsupportedDunderAll]  (texts, of the table above)


def __getattr__(name: str) -> object:
    """Load a public name when it is first asked for (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module 'remuda.specs' has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"remuda.specs.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
