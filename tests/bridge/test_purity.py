"""The worker half loads the standard library and msgspec, and not a heavy part of the former."""

from __future__ import annotations

import json
import os
import subprocess
import sys

CODE = """
import sys
sys.modules["typing_extensions"] = None  # which msgspec takes along where it is installed; and it takes `inspect`
before = set(sys.modules)
import remuda.bridge.child
import json
print(json.dumps(sorted(set(sys.modules) - before - {"json"})))
"""


def test_a_worker_loads_little() -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    done = subprocess.run([sys.executable, "-I", "-c", CODE], env=clean, capture_output=True, check=True, text=True)
    loaded = json.loads(done.stdout)
    tops = {name.partition(".")[0] for name in loaded}
    assert tops.isdisjoint({"trio", "transitions", "structlog", "asyncio", "dspy", "typer", "rich", "hypothesis"})
    foreign = tops - set(sys.stdlib_module_names) - {"remuda", "msgspec"}
    assert foreign == set(), f"all that is loaded: {loaded}"
    ours = {name for name in loaded if name.startswith("remuda.")}
    assert ours == {
        "remuda.bridge",
        "remuda.bridge.adapters",
        "remuda.bridge.child",
        "remuda.bridge.frames",
        "remuda.bridge.functions",
        "remuda.bridge.lifeline",
        "remuda.bridge.messages",
        "remuda.bridge.page",
        "remuda.bridge.remote",
        "remuda.statemachines",
        "remuda.statemachines.errors",
    }
    late = {
        *("importlib.metadata", "logging", "multiprocessing", "runpy", "socket", "ssl", "subprocess", "tempfile"),
        *("concurrent.futures", "inspect", "traceback", "unittest"),
    }
    assert late.isdisjoint(loaded)
