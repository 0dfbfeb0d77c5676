"""The pytest plugin, as a user of pytest meets it: each test runs pytest on a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import trio

import remuda
from remuda.bridge.seam import StartOrder
from remuda.specs import monitor
from remuda.specs.fixtures import RealPools, SimulatedPools

INSTALLED = any(point.value == "remuda.specs.plugin" for point in entry_points(group="pytest11"))
LOADED = () if INSTALLED else ("-p", "remuda.specs.plugin")

ADAPTER = """
import remuda

class Echo:
    @remuda.command(idempotent=True)
    def echo(self, value: int) -> int:
        return value
"""

FIXTURES = """
import pytest, remuda, trio
from echo import Echo

async def test_real(remuda_pool):
    async with remuda_pool(adapter=Echo, max_workers=1) as pool:
        assert await pool.call(Echo.echo, 7) == 7

async def test_simulated(remuda_sim):
    async with remuda_sim(adapter=Echo, max_workers=1) as (pool, workers):
        start = trio.current_time()
        workers.worker(0).freeze()
        with pytest.raises(remuda.CallTimeout):
            await pool.call(Echo.echo, 7, timeout=3600)
        assert trio.current_time() - start == 3600
        assert await pool.call(Echo.echo, 7) == 7
"""


def run_pytest(folder: Path, files: dict[str, str], *arguments: str, code: int = 0) -> str:
    """What pytest says to these files; it has to end with this code."""
    for name, text in {"echo.py": ADAPTER, **files}.items():
        (folder / name).write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *LOADED, "-W", "error", *arguments, str(folder)],
        cwd=folder, capture_output=True, text=True, check=False, timeout=100,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


# ── Loading ─────────────────────────────────────────────────────────────────────────────────────


def test_loading_the_plugin_loads_nothing_but_pytest() -> None:
    program = (
        "import pytest, sys; before = set(sys.modules); import remuda.specs.plugin; print(*set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"remuda", "remuda.specs", "remuda.specs.plugin"}


def test_a_run_that_does_not_use_it_loads_nothing_more(tmp_path: Path) -> None:
    test = """
    import sys
    def test_light():
        heavy = {"trio", "transitions", "hypothesis", "msgspec", "structlog", "remuda.runtime", "remuda.testing"}
        assert "remuda.specs.plugin" in sys.modules and not heavy & set(sys.modules)
    """
    quiet = ("-p", "no:trio", "-p", "no:hypothesispytest", "-p", "no:anyio")
    run_pytest(tmp_path, {"test_light.py": test.replace("\n    ", "\n")}, *quiet)


# ── Fixtures ────────────────────────────────────────────────────────────────────────────────────


def test_with_pytest_trio(tmp_path: Path) -> None:
    assert "2 passed" in run_pytest(tmp_path, {"test_it.py": FIXTURES}, "-o", "trio_mode=true")


def test_with_pytest_trio_by_marks_and_a_clock_of_ones_own(tmp_path: Path) -> None:
    marked = FIXTURES.replace("async def test", "@pytest.mark.trio\nasync def test")
    clock = """
@pytest.mark.trio
async def test_clock(remuda_sim, mock_clock):
    mock_clock.autojump_threshold = 0
    async with remuda_sim(adapter=Echo) as (pool, workers):
        assert trio.lowlevel.current_clock() is mock_clock
"""
    assert "3 passed" in run_pytest(tmp_path, {"test_it.py": marked + clock})


def test_without_pytest_trio(tmp_path: Path) -> None:
    test = """
import trio
from echo import Echo

def test_real(remuda_pool):
    async def main():
        async with remuda_pool(adapter=Echo, max_workers=1) as pool:
            return await pool.call(Echo.echo, 7)
    assert trio.run(main) == 7

def test_simulated(remuda_sim):
    async def main(value):
        async with remuda_sim(adapter=Echo) as (pool, workers):
            await trio.sleep(3600)
            return await pool.call(Echo.echo, value)
    assert remuda_sim.run(main, 7) == 7
"""
    assert "2 passed" in run_pytest(tmp_path, {"test_it.py": test}, "-p", "no:trio")


def test_it_says_what_is_missing(tmp_path: Path) -> None:
    said = run_pytest(tmp_path, {"test_it.py": FIXTURES}, "-p", "no:trio", code=1)
    assert "test_real uses remuda_pool and is async, and nothing is there to run it: pip install pytest-trio" in said
    assert "call trio.run, which remuda_sim.run does on a virtual clock" in said


def test_it_says_what_is_missing_in_the_configuration(tmp_path: Path) -> None:
    said = run_pytest(tmp_path, {"test_it.py": FIXTURES}, code=1)
    assert "nothing is there to run it: mark it with @pytest.mark.trio, or set trio_mode = true" in said


def test_simulated_workers_want_virtual_time() -> None:
    async def main() -> None:
        async with SimulatedPools()(adapter="x:Y"):
            pass

    with pytest.raises(RuntimeError, match=r"call remuda_sim.run\(main\)"):
        trio.run(main)


def test_simulated_workers_want_an_adapter() -> None:
    async def main() -> None:
        async with SimulatedPools()(max_workers=1):
            pass

    with pytest.raises(remuda.ConfigError, match="give one"):
        SimulatedPools().run(main)


class Notes:
    def __init__(self) -> None:
        self.notes: dict[str, int] = {}

    @remuda.command(journal="key")
    def note(self, key: str, value: int) -> None:
        self.notes[key] = value

    @remuda.command
    def all(self) -> dict[str, int]:
        return self.notes


@pytest.mark.parametrize("by_name", [False, True])
def test_what_is_journaled_by_position_is_known_to_the_next_simulated_worker(by_name: bool) -> None:
    """Found by the rules of docs/testing.md: a simulated worker did not say where the key stands."""

    async def main() -> None:
        async with SimulatedPools()(adapter=Notes, max_workers=1) as (pool, workers):
            for key, value in (("a", 1), ("b", 2), ("a", 3)):
                if by_name:
                    await pool.call("note", {"key": key, "value": value})
                else:
                    await pool.call(Notes.note, key, value)
            workers.worker(0).crash()
            assert await pool.call(Notes.all) == {"a": 3, "b": 2}
            assert len(pool.journal) == 2

    SimulatedPools().run(main)


# ── What the fixtures notice ────────────────────────────────────────────────────────────────────


class Echo:
    @remuda.command
    def echo(self, value: int) -> int:
        return value


async def test_a_config_observers_and_an_environment_are_passed_on() -> None:
    events: list[object] = []
    config = remuda.PoolConfig(max_workers=1, name="mine", env={"REMUDA_TEST_X": "1"})
    async with RealPools()(config, observers=[events.append], call_timeout=7.0) as pool:
        assert pool.config.call_timeout == 7.0 and pool.config.name == "mine"
        assert await pool.run_sync(os.getenv, "REMUDA_TEST_X") == "1"
    assert events


async def test_a_process_that_is_left_behind_is_an_error() -> None:
    with pytest.raises(AssertionError, match=r"^left behind: the worker process \d+$"):
        async with RealPools()(max_workers=1) as pool:
            worker = await pool.launcher.start(StartOrder(pool="pool", slot=7, generation=1))
    assert worker._closed  # and is gone, for the next test


def test_a_simulated_process_that_is_left_behind_is_an_error() -> None:
    async def main() -> None:
        async with SimulatedPools()(adapter=Echo) as (_, workers):
            await workers.start(StartOrder(pool="pool", slot=7, generation=1))

    with pytest.raises(AssertionError, match="left behind: 1 of 2 workers still alive"):
        SimulatedPools().run(main)


async def test_it_is_noted_on_the_error_that_ends_the_block_anyway() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        async with RealPools()(max_workers=1) as pool:
            await pool.launcher.start(StartOrder(pool="pool", slot=7, generation=1))
            raise ZeroDivisionError
    (note,) = caught.value.__notes__
    assert note.startswith("remuda: left behind: the worker process")


@pytest.mark.parametrize("fixture", [RealPools, SimulatedPools])
def test_a_rule_that_was_broken_is_an_error(monkeypatch: pytest.MonkeyPatch, fixture: type) -> None:
    monkeypatch.setitem(monitor._RULES, "nobody_calls", lambda core, ledger: "somebody does" if core.calls else None)

    async def main() -> None:
        async with fixture()(adapter=Echo, max_workers=1) as opened:
            pool = opened[0] if isinstance(opened, tuple) else opened
            await pool.call(Echo.echo, 1)

    with pytest.raises(AssertionError) as caught:
        SimulatedPools().run(main) if fixture is SimulatedPools else trio.run(main)
    words = str(caught.value)
    assert words.startswith("an invariant did not hold, which is a bug in remuda: nobody_calls: somebody does\n")
    assert "Submit call 1" in words  # the step after which it did not


async def test_an_observer_that_fails_is_an_error() -> None:
    def observer(event: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(AssertionError, match="errors of observers"):
        async with RealPools()(max_workers=1, observers=[observer]):
            pass


# ── Rules that nobody would run ─────────────────────────────────────────────────────────────────

RULES = """
from hypothesis import settings
from hypothesis import strategies as st
from remuda.specs import PoolRules, Request
from echo import Echo

class EchoRules(PoolRules):
    adapter = Echo
    def requests(self):
        return st.builds(Request, st.just("echo"), st.just({"value": 7}))
    def check_answer(self, request, value):
        assert value == 7
"""
FEW = "settings = settings(EchoRules.TestCase.settings, max_examples=3, derandomize=True, database=None)"


def test_rules_without_a_test_case_are_an_error(tmp_path: Path) -> None:
    said = run_pytest(tmp_path, {"test_it.py": RULES}, code=2)
    assert "EchoRules are rules, and nothing here runs them" in said
    assert "TestEcho = EchoRules.TestCase" in said and "Traceback" not in said


@pytest.mark.parametrize(
    "rest",
    [
        f"TestEcho = EchoRules.TestCase\nTestEcho.{FEW}",
        f"class TestEcho(EchoRules.TestCase):\n    {FEW}",
        f"class Derived(EchoRules):\n    pass\nTestDerived = Derived.TestCase\nTestDerived.{FEW}",
    ],
)
def test_rules_with_a_test_case_are_run(tmp_path: Path, rest: str) -> None:
    assert "1 passed" in run_pytest(tmp_path, {"test_it.py": f"{RULES}\n{rest}\n"})


def test_rules_of_another_module_and_bases_are_no_business_of_a_test_module(tmp_path: Path) -> None:
    test = "from rules import EchoRules\nfrom remuda.specs import PoolRules\nclass _Base(PoolRules):\n    pass\ndef test_it(): pass\n"
    assert "1 passed" in run_pytest(tmp_path, {"rules.py": RULES, "test_it.py": test})


def test_a_derived_class_without_a_test_case_is_an_error_too(tmp_path: Path) -> None:
    rest = f"class Derived(EchoRules):\n    pass\nTestEcho = EchoRules.TestCase\nTestEcho.{FEW}"
    assert "Derived are rules" in run_pytest(tmp_path, {"test_it.py": f"{RULES}\n{rest}\n"}, code=2)
