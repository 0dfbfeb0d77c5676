"""What holds for every test: it leaves nothing behind (`leaks.py` says what that means)."""

from __future__ import annotations

import os
import signal
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from .leaks import MARK, Before

# The same examples every time, however busy the machine is. `make fuzz` looks for new ones.
settings.register_profile("suite", deadline=None, database=None, derandomize=True)
settings.load_profile("suite")

# A shell that starts the tests in the background has them ignore Control-C, and all that they start; `nohup`
# has them ignore the end of a terminal.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def patient() -> Iterator[None]:
    """However busy the machine is, a template has the time to say how its workers end."""
    from .bridge.talk import patient

    with patient():
        yield


@pytest.fixture(scope="session")
def _temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("TMPDIR")


@pytest.fixture(autouse=True)
def _leaves_nothing_behind(_temporary: Path) -> Iterator[None]:
    """Fail the test if a process, a descriptor, a thread or a temporary file is left when it ends."""
    mark = uuid.uuid4().hex
    before = os.environ.get(MARK), os.environ.get("TMPDIR"), tempfile.tempdir
    os.environ[MARK], os.environ["TMPDIR"], tempfile.tempdir = mark, str(_temporary), str(_temporary)
    there = Before(mark, _temporary)
    yield
    for name, value in zip((MARK, "TMPDIR"), before, strict=False):
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    tempfile.tempdir = before[2]
    left = there.left()
    assert not left, f"left behind: {'; '.join(left)}"
