"""The small version of the harness: cuts at the borders of all messages, and here and there in between.

`make harness` has every byte. What it has found is here by name, and so are bugs that it has to find.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio.testing

from remuda.bridge.spawn import SpawnedWorker
from remuda.runtime.link import Link

from .cuts import TO_APPLICATION, TO_WORKER, Recording, at, some
from .judge import wrong
from .rig import ADAPTER, FUNCTIONS, Round, rig, run, start_methods

pytestmark = pytest.mark.timeout(900)  # hundreds of workers are started, and the cores may be busy


@pytest.fixture
def running_clock() -> trio.testing.MockClock:
    """Time that runs, and can be set forward."""
    return trio.testing.MockClock(rate=1.0)


@pytest.mark.parametrize("kind", [ADAPTER, FUNCTIONS])
async def test_cuts_here_and_there(kind: str, running_clock: object, tmp_path: Path) -> None:
    trouble: list[str] = []

    def judge(seen: Round, recording: Recording) -> None:
        trouble.extend(f"{seen.cut}: {what}" for what in wrong(seen, recording))

    await run(kind, start_methods()[-1], tmp_path, partial(some, step=100), lambda cut: None, judge)
    assert not trouble


FOUND = {
    "an answer that is read together with a header that is too long": ("burst", TO_APPLICATION, "once", -1),
    "half a header behind an answer": ("stray", TO_APPLICATION, "once", -1),
    "a page that names another call, and a reply to it": ("flip", TO_WORKER, "once", 8),
    "a page that names what was repeated for the journal": ("kill", TO_APPLICATION, "replay", -1),
}
"""What the harness has found, in the product or in a first way to mend it: the name of the test, and the cut."""


@pytest.mark.parametrize("name", FOUND)
async def test_what_it_has_found(name: str, running_clock: object, tmp_path: Path) -> None:
    async with rig(ADAPTER, "spawn", tmp_path) as here:
        seen = await here.round(at(here.recording, *FOUND[name]))
        assert not wrong(seen, here.recording)


# ── It can fail ─────────────────────────────────────────────────────────────────────────────────


Plant = Callable[[pytest.MonkeyPatch], None]


def never_begun(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Link, "has_begun", lambda link, call: False)


def always_begun(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Link, "has_begun", lambda link, call: True)


def no_journal(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Link, "_replay", lambda link: b"")


class Kept:
    """A page that cannot be closed."""

    def __init__(self, page: Any) -> None:
        self._page = page

    def __getattr__(self, name: str) -> Any:
        return getattr(self._page, name)

    def close(self) -> None:
        pass

    def __del__(self) -> None:
        self._page.close()  # when the test is over


def leak(patch: pytest.MonkeyPatch) -> None:
    close = SpawnedWorker.close

    def close_most(worker: SpawnedWorker) -> None:
        kept.append(worker._page)
        worker._page = Kept(worker._page)
        close(worker)

    kept: list[object] = []
    patch.setattr(SpawnedWorker, "close", close_most)


PLANTED: dict[str, tuple[Plant, tuple[str, str, str, int], str]] = {
    "a call that had begun is repeated": (never_begun, ("kill", TO_APPLICATION, "once", 5), "must not be repeated"),
    "a call that had not begun is lost": (always_begun, ("kill", TO_WORKER, "once", 5), "it is said to have begun"),
    "an idempotent call is not counted": (never_begun, ("kill", TO_APPLICATION, "again", 5), "1 attempts only"),
    "a new worker lacks its journal": (no_journal, ("kill", TO_APPLICATION, "keep", -1), "the last that succeeded"),
    "a page is left behind": (leak, ("kill", TO_APPLICATION, "once", 5), "evidence pages"),
}


@pytest.mark.parametrize("name", PLANTED)
async def test_a_planted_bug_is_found(
    name: str, running_clock: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant, place, says = PLANTED[name]
    async with rig(ADAPTER, "spawn", tmp_path) as here:
        with monkeypatch.context() as patch:
            plant(patch)
            seen = await here.round(at(here.recording, *place))
        assert any(says in what for what in wrong(seen, here.recording)), wrong(seen, here.recording)
