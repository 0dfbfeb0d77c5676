"""What runs inside the workers is found by its bare name, on both sides. To be imported first."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["INSIDE"]

INSIDE = Path(__file__).parent / "inside"

if str(INSIDE) not in sys.path:
    sys.path.insert(0, str(INSIDE))  # a pool tells its workers to look where the application does
