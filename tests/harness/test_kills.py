"""A few kills of busy workers under load. `make harness` has a thousand for each way to start a worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from .kills import WAYS, kill_many

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("way", WAYS)
async def test_every_caller_is_told_the_truth(way: str, tmp_path: Path) -> None:
    result = await kill_many(way, 6, tmp_path)
    assert not result.wrong, str(result)
    assert len(result.recovery) == 6
