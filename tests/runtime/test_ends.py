"""What is said of a death: what is known of it, and no more."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from remuda.bridge.seam import Usage
from remuda.runtime.cgroup import oom_kills
from remuda.runtime.ends import OutOfMemory, how, limit_reached
from remuda.runtime.limits import Limits
from remuda.statemachines.errors import WorkerDeath


@pytest.mark.parametrize(
    ("status", "by_us", "text"),
    [
        (None, False, "it ended and nobody knows how"),
        (0, False, "it ended with exit status 0"),
        (3, True, "it ended with exit status 3"),
        (-signal.SIGSEGV, False, "it was killed by SIGSEGV"),
        (-signal.SIGKILL, False, "it was killed by SIGKILL, perhaps out of memory"),
        (-signal.SIGKILL, True, "it was killed by SIGKILL"),
        (-200, False, "it was killed by signal 200"),
    ],
)
def test_how(status: int | None, by_us: bool, text: str) -> None:
    assert how(status, by_us=by_us) == text


@pytest.mark.parametrize(
    ("status", "cpu", "limit", "text"),
    [
        (-signal.SIGXCPU, 5.0, 5, "it used up its CPU time (limits.cpu = 5 s)"),
        (-signal.SIGXCPU, None, None, "it used up its CPU time (the application's own limit, RLIMIT_CPU)"),
        (
            -signal.SIGKILL, 6.0, 5,
            "it was killed by SIGKILL, perhaps since it had used up its CPU time (limits.cpu = 5 s)",
        ),
        (-signal.SIGKILL, 4.0, 5, None),
        (-signal.SIGKILL, None, 5, None),
        (-signal.SIGKILL, 6.0, None, None),
        (0, 6.0, 5, None),
        (None, None, 5, None),
    ],
)  # fmt: skip
def test_a_limit_was_reached(status: int | None, cpu: float | None, limit: int | None, text: str | None) -> None:
    assert limit_reached(status, Usage(cpu=cpu), Limits(cpu=limit)) == text


def test_a_death_says_its_status_once() -> None:
    assert str(WorkerDeath(0, 1, how(-9, by_us=False), -9)) == (
        "worker 0.1: it was killed by SIGKILL, perhaps out of memory"
    )
    assert str(WorkerDeath(0, 1, "it used up its CPU time", -24)).endswith("CPU time (killed by SIGXCPU)")


# ── Out of memory ───────────────────────────────────────────────────────────────────────────────


class Counter:
    value: int | None = 10


def test_each_that_is_counted_explains_one_death() -> None:
    counter = Counter()
    memory = OutOfMemory(lambda: counter.value)
    assert memory.before() == 10
    assert not memory.explains(10)
    counter.value = 12
    assert memory.explains(10) and memory.explains(10)
    assert not memory.explains(10)
    assert not memory.explains(12), "who was started after that"
    counter.value = 13
    assert memory.explains(10)
    assert not memory.explains(12)
    counter.value = 20
    assert not memory.explains(20)
    assert memory.explains(19)
    assert not memory.explains(19)


def test_where_nobody_counts_nothing_is_explained() -> None:
    counter = Counter()
    memory = OutOfMemory(lambda: counter.value)
    assert not memory.explains(None)
    counter.value = None
    assert memory.before() is None
    assert not memory.explains(5)


V1 = "12:pids:/x\n4:cpu,memory:/the/group\n0::/\n"
V2 = "0::/the/group\n"
EVENTS = "low 0\nhigh 0\nmax 9\noom 3\noom_kill 7\noom_group_kill 0\n"
CONTROL = "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"


@pytest.mark.parametrize(
    ("own", "file", "text", "found"),
    [
        (V2, "the/group/memory.events", EVENTS, 7),
        (V2, "memory.events", EVENTS, 7),
        ("0::/\n", "memory.events", EVENTS, 7),
        (V1, "memory/the/group/memory.oom_control", CONTROL, 7),
        (V1, "memory/memory.oom_control", CONTROL, 7),
        (V2, "the/group/memory.events", "low 0\n", None),
        (V1, "memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n", None),
        (V1, "memory/memory.oom_control", "garbage\n", None),
        ("1:name=systemd:/\n", "memory.events", EVENTS, None),
        (V1, "memory.events", EVENTS, 7),  # both versions are there, and the second has the memory
    ],
)
def test_the_counter_of_the_control_group(tmp_path: Path, own: str, file: str, text: str, found: int | None) -> None:
    (tmp_path / "own").write_text(own)
    path = tmp_path / "root" / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert oom_kills(tmp_path / "root", tmp_path / "own") == found


def test_there_are_no_control_groups(tmp_path: Path) -> None:
    assert oom_kills(tmp_path, tmp_path / "none") is None
