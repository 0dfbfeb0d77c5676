"""What runs inside the workers is found by its bare name, on both sides: it is to be imported from here."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["INSIDE", "acts", "cutting", "gate"]

INSIDE = Path(__file__).parent / "inside"

if str(INSIDE) not in sys.path:
    sys.path.insert(0, str(INSIDE))  # a pool tells its workers to look where the application does

import acts  # noqa: E402
import cutting  # noqa: E402
import gate  # noqa: E402
