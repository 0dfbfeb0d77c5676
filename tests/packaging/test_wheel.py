"""What is in the wheel, and that it works without the checkout."""

from __future__ import annotations

import re
import subprocess
import zipfile
from pathlib import Path

from .conftest import ROOMS, ROOT


def test_the_wheel_has_what_the_tree_has(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {"remuda/py.typed", "remuda/__init__.py", "remuda/__main__.py", "remuda/testing.py"}
    expected |= {f"remuda/cli/{path.name}" for path in (ROOT / "remuda" / "cli").glob("*.py")}
    for room in ROOMS:
        expected |= {f"remuda/{path.relative_to(ROOT)}" for path in (ROOT / room).rglob("*.py")}
    assert found == expected


def test_its_metadata(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(name for name in names if name.endswith("/METADATA"))).decode()
        entries = archive.read(next(name for name in names if name.endswith("/entry_points.txt"))).decode()
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "License-Expression: MIT" in metadata and "Requires-Python: >=3.11" in metadata
    for entry in ("remuda.cli:main", "remuda.runtime.dice:register", "remuda.specs.plugin"):
        assert f"remuda = {entry}" in entries


def test_the_first_program_of_the_readme(python: Path, tmp_path: Path) -> None:
    """Pasted into a file outside the checkout, it prints what the README says."""
    readme = (ROOT / "README.md").read_text("utf-8")
    program = _block(readme, "first program", "python")
    said = _block(readme, "first output", "text")
    (tmp_path / "first.py").write_text(program)
    done = _run(python, tmp_path, "first.py")
    assert done.stdout == said, done.stderr
    assert done.returncode == 0


def test_it_is_the_wheel_that_runs(python: Path, tmp_path: Path) -> None:
    (tmp_path / "where.py").write_text("import remuda.bridge.child; print(remuda.bridge.child.__file__)")
    done = _run(python, tmp_path, "where.py")
    assert done.stdout.strip().startswith(str(python.parents[1])), done.stdout + done.stderr


def test_a_users_own_runtime_is_theirs(python: Path, tmp_path: Path) -> None:
    """The rooms have plain names; installed, they are nobody's but remuda's."""
    (tmp_path / "runtime").mkdir()
    (tmp_path / "runtime" / "__init__.py").write_text("mine = True")
    (tmp_path / "both.py").write_text("import runtime, remuda; print(runtime.mine, remuda.open_pool.__module__)")
    done = _run(python, tmp_path, "both.py")
    assert done.stdout.split() == ["True", "remuda.runtime.opening"], done.stderr


def test_the_benchmarks_run_from_the_wheel(python: Path, tmp_path: Path) -> None:
    (tmp_path / "bench.py").write_text(
        "import sys, remuda.cli\n"
        "sys.argv += 'bench --quick --rounds 1 --measure latency --mode free --subject remuda'.split()\n"
        "remuda.cli.main()\n"
    )
    done = _run(python, tmp_path, "bench.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| remuda, an adapter " in done.stdout
    assert "from a checkout" not in done.stdout


def _run(python: Path, folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "TMPDIR": str(folder)}
    return subprocess.run(
        [str(python), script], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def _block(text: str, name: str, language: str) -> str:
    found = re.search(rf"<!-- {name} -->\n```{language}\n(.*?)```", text, re.DOTALL)
    assert found is not None, f"the README has no block {name!r}"
    return found[1]
