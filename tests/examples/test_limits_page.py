"""docs/limits.md does what it says: its example is run, and what it says of errors is what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from remuda.bridge.limits import ROOM
from remuda.runtime.ends import how, limit_reached
from remuda.runtime.limits import LEAST_MEMORY, Limits

TEXT = (Path(__file__).parents[2] / "docs" / "limits.md").read_text("utf-8")


def block(name: str) -> str:
    found = re.search(rf"<!-- {re.escape(name)} -->\n```\w+\n(.*?)```", TEXT, re.DOTALL)
    assert found is not None, f"the page has no block {name!r}"
    return found[1]


def test_the_example(tmp_path: Path) -> None:
    (tmp_path / "limited.py").write_text(block("file: limited.py"))
    done = subprocess.run(
        [sys.executable, "limited.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=110
    )
    assert (done.returncode, done.stdout) == (0, block("output of limited.py")), done.stderr


def test_the_words_and_numbers() -> None:
    from remuda.bridge.seam import Usage

    assert f'"{limit_reached(-24, Usage(), Limits(cpu=60))}"' in TEXT
    assert f'"{how(-9, by_us=False).removeprefix("it was ")}"' in TEXT
    assert f"The least is {LEAST_MEMORY >> 20} MiB." in TEXT
    assert f"less than {ROOM >> 20} MiB" in TEXT
