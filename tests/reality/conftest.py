"""Fixtures of the tests on real processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from trio.testing import MockClock

from .world import HANG, HERE


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))


@pytest.fixture
def fifo(tmp_path: Path) -> str:
    path = str(tmp_path / "fifo")
    os.mkfifo(path)
    return path


@pytest.fixture
def clock(mock_clock: MockClock) -> MockClock:
    """Goes as clocks do, since the processes are real; and can be put forward."""
    mock_clock.rate = 1.0
    return mock_clock


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers may catch up for as long as it takes. A second is enough for one that can run, but whether it can?"""
    monkeypatch.setattr("remuda.runtime.pool._CATCHING_UP", HANG)
