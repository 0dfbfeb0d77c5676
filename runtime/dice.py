"""Where chance comes from: one generator for every pool, outside of the core.

The core takes random draws as arguments; the runtime draws them here, for the jitter of backoff. It is
one object so that a test can make it repeatable. Hypothesis does so by itself: it finds `register` by
the entry point of this package, and seeds the generator anew for each example, as it does with trio's.
"""

from __future__ import annotations

import random

__all__ = ["draw", "register", "seed"]

_random = random.Random()

draw = _random.random
"""A number from 0 up to, and not including, 1."""

seed = _random.seed
"""Begin again, as everybody does who gives the same number."""


def register() -> None:
    """Hand the generator to Hypothesis. Called by Hypothesis, when it is imported."""
    import hypothesis

    hypothesis.register_random(_random)
