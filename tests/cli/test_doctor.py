"""`remuda doctor`: what is in order, what is not, and what it says is to be done."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import resource
from typing import Any

import pytest

from remuda.cli import doctor as module
from remuda.cli.doctor import Finding, examine

ADAPTERS = """
import sys
import remuda

class Good:
    @remuda.command
    def go(self): ...

class Bad:
    def setup(self, settings):
        print("no licence was found", file=sys.stderr)
        raise RuntimeError("cannot go on")

    @remuda.command
    def go(self): ...
"""


def look(name: str) -> Finding:
    """The finding of one of the looks that need no worker."""
    [finding] = [found for found in (look() for look in module._LOOKS) if found.what == name]
    return finding


def test_this_machine(remuda: Any) -> None:
    code, out, err = remuda("doctor")
    assert (code, err) == (0, ""), out
    for words in (
        "Python",
        "remuda",
        "system",
        "CPUs",
        "memory limit",
        "open files",
        "extra cli",
        "extra dspy",
        "extra specs",
    ):
        assert f" {words} " in out
    assert f"CPython {platform.python_version()}" in out
    assert importlib.metadata.version("remuda") in out
    assert "up after" in out and "(median of 100)" in out and "adapter dspy" in out
    assert "fail" not in out
    assert remuda.left() == []


@pytest.mark.parametrize(
    ("adapter", "code", "words"),
    [
        ("adapters:Good", 0, ["ok    adapter adapters:Good", "worker ready"]),
        ("adapters:Bad", 1, ["fail  adapter adapters:Bad", "cannot go on"]),
        ("adapters:Ugly", 1, ["fail  adapter adapters:Ugly", "Ugly"]),
        ("no_such_module:Thing", 1, ["fail  adapter no_such_module:Thing", "no_such_module"]),
        ("nonsense", 1, ["fail  adapter nonsense", "nonsense"]),
    ],
)
def test_an_adapter(remuda: Any, adapter: str, code: int, words: list[str]) -> None:
    (remuda.folder / "adapters.py").write_text(ADAPTERS)
    found, out, err = remuda("doctor", "--adapter", adapter)
    assert found == code, out
    assert all(word in out for word in words), out
    assert "Traceback" not in out + err
    assert remuda.left() == []


def test_too_few_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (65, 100))
    finding = look("open files")
    assert finding.verdict == "fail" and finding.found == "65 (at most 100)" and "ulimit -n" in finding.remedy
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert look("open files").verdict == "ok"


def test_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cpus", lambda: 4)
    for limit, verdict in ((None, "ok"), (2**40, "ok"), (100 * 2**20, "warn")):
        monkeypatch.setattr(module, "memory_limit", lambda limit=limit: limit)
        assert look("memory limit").verdict == verdict
    assert "set max_workers lower" in look("memory limit").remedy


@pytest.mark.parametrize(("system", "verdict"), [("Linux", "ok"), ("Darwin", "warn"), ("Windows", "fail")])
def test_systems(monkeypatch: pytest.MonkeyPatch, system: str, verdict: str) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    finding = look("system")
    assert finding.verdict == verdict and bool(finding.remedy) == (verdict != "ok")


def test_without_the_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not a must, and without dspy its adapter is not tried."""
    real = importlib.util.find_spec
    hidden = ("dspy", "hypothesis")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in hidden else real(name))
    findings = {finding.what: finding for finding in examine()}
    assert [findings[f"extra {name}"].verdict for name in ("cli", "dspy", "specs")] == ["ok", "warn", "warn"]
    assert "pip install 'remuda[dspy]'" in findings["extra dspy"].remedy
    assert findings["a worker"].verdict == "ok" and not any(what.startswith("adapter") for what in findings)


def test_a_worker_that_gets_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remuda.runtime.pool._CATCHING_UP", 0.0)  # nor any if it is us who are late
    findings = {finding.what: finding for finding in examine("remuda.none:Such", timeout=1e-6)}
    assert findings["a worker"].verdict == "fail" and findings["a worker"].remedy
    assert "round trip" not in findings
