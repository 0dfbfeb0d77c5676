"""What every test of this folder needs."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The users' modules can be imported, here and (sys.path is sent) in workers."""
    monkeypatch.syspath_prepend(str(Path(__file__).with_name("programs")))
