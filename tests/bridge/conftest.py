"""How the workers of a test are started."""

from __future__ import annotations

import pytest

from .talk import default


@pytest.fixture(params=["spawn", "forkserver"])
def start_method(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """For tests that hold for both: spawned, and forked from a template of their own."""
    monkeypatch.setattr(default, "method", request.param)
    return str(request.param)
