"""Change the code in every small way there is, and see whether a test notices.

    python tests/mutants.py                     # everything, a quarter of an hour or more; goes on where it was interrupted
    python tests/mutants.py --module waiters    # one module
    python tests/mutants.py --report            # no run: write docs/mutation.md from what is known
    python tests/mutants.py --check             # no run: are the explanations and the page still true?

The changes (*mutants*) are made and run by `mutmut`, in a copy of the tree, so that nothing here is ever
touched. What judges are the tests of the lifecycles and of the core, ordered so that most mutants die
within a second: first those of one part alone, then the written ways through the core, then chance.

A mutant that no test notices is a *survivor*. Either a test is missing, or the mutant does the same as the
code: then it stands in `tests/mutation/equivalents.toml` with the reason. An explanation that is not
needed any more, because its code has changed or a test kills the mutant, is *stale*, and an error.

mutmut changes what stands in functions. It leaves alone what has a decorator (properties) and what stands
outside of functions; for the tables of the lifecycles `tests/statemachines/test_tables.py` does the same.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
EQUIVALENTS = ROOT / "tests" / "mutation" / "equivalents.toml"
PAGE = ROOT / "docs" / "mutation.md"
BEGIN, END = "<!-- begin: made by tests/mutants.py -->", "<!-- end -->"
GOAL = 95.0

MODULES = (
    "breaker", "budget", "core", "crew", "lifecycle", "policy", "sessions", "subjects", "timers", "waiters",
)  # fmt: skip
"""Of `statemachines`: what decides. (What draws, audits and explores is judged by what it finds.)"""
ON_THE_WAYS = ("core", "crew", "breaker", "lifecycle", "waiters", "sessions")
"""Those that are judged first on the written ways, without pytest around them."""

JUDGES = (
    "tests/statemachines",
    "tests/specs/core_paths.py",
    "tests/specs/core_paths_of_interrupts.py",
    "tests/specs/core_paths_of_workers.py",
    "tests/specs/core_rules.py",
    "tests/specs/core_words.txt",
    "tests/specs/test_core_machine.py",
    "tests/specs/test_breaker_machine.py",
)
"""What is copied to judge."""

CONFIG = """\
[tool.mutmut]
source_paths = ["remuda/statemachines"]
only_mutate = [{only}]
also_copy = ["remuda", "conftest.py"]
pytest_add_cli_args_test_selection = ["tests/statemachines", "tests/specs"]
pytest_add_cli_args = ["-p", "no:cacheprovider", "--deselect", "tests/statemachines/test_draw.py"]
use_git_change_detection = false
track_dependencies = false
timeout_multiplier = 4.0
timeout_constant = 4.0

[tool.pytest.ini_options]
addopts = ["--import-mode=importlib"]
filterwarnings = ["error"]
timeout = 600
"""

ORDER = '''\
"""How tests judge a mutant: the quickest to notice first, and by nothing but what they find.

No examples of chance, and no limit of time: a machine that is busy must not look like a mutant that was
noticed. Planted bugs judge nothing.
"""

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "judge", derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
settings.load_profile("judge")

SLOW = ("test_the_breaker_is_what_the_diary_says", "test_the_core_does_what_the_model_says")


def place(item: pytest.Item) -> int:
    if item.name.startswith(SLOW):
        return 3
    return 2 if "core_machine" in item.nodeid else 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = sorted((item for item in items if "planted" not in item.name), key=place)
'''


class Mutant(NamedTuple):
    """One small change, told by what it changes, so that it is found again when lines move."""

    module: str
    function: str
    was: str
    now: str
    status: str

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.module, self.function, self.was, self.now


# ── The run ─────────────────────────────────────────────────────────────────────────────────────


def copy_tree(source: Path, folder: Path) -> None:
    """What is needed to run the judges, with the rooms as folders under the names they are installed by."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("remuda", "tests"):
        shutil.rmtree(folder / name, ignore_errors=True)
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(source / "remuda", folder / "remuda", ignore=ignore)
    for judge in JUDGES:
        target = folder / judge
        target.parent.mkdir(parents=True, exist_ok=True)
        if (source / judge).is_dir():
            shutil.copytree(source / judge, target, ignore=ignore)
        else:
            shutil.copy(source / judge, target)
    (folder / "conftest.py").write_text(ORDER)
    only = ", ".join(f'"remuda/statemachines/{module}.py"' for module in MODULES)
    (folder / "pyproject.toml").write_text(CONFIG.format(only=only))


def run(folder: Path, modules: list[str], children: int, *, again: bool) -> None:
    """Judge every mutant that has not been judged. It may be interrupted, and goes on.

    Args:
        folder: the copy.
        modules: whose mutants.
        children: how many at a time.
        again: judge once more what was not killed, as after new tests; also what took too long.
    """
    log = folder / "mutmut.log"
    # Examples: enough to notice, not to prove.
    env = os.environ | {"REMUDA_CORE_EXAMPLES": "40", "PYTHONDONTWRITEBYTECODE": "1"}
    print(f"judging; how far it is stands at the end of {log}", flush=True)
    ways = [module for module in modules if module in ON_THE_WAYS]
    call([sys.executable, str(Path(__file__).parent / "mutation" / "quick.py"), *ways], folder, env, log)
    waiting = [name for module in modules for name in to_judge(folder, module, again=again)]
    if waiting:
        mutmut = [sys.executable, "-m", "mutmut", "run", "--max-children", str(children)]
        call([*mutmut, *waiting], folder, env, log)


def call(command: list[str], folder: Path, env: dict[str, str], log: Path) -> None:
    with log.open("w") as out:
        polite = ["nice", "-n", "10", *command]
        ended = subprocess.run(polite, cwd=folder, env=env, stdout=out, stderr=subprocess.STDOUT)
    if ended.returncode:
        sys.exit(f"{command[1]} ended with {ended.returncode}:\n{log.read_text()[-2000:]}")


def verdicts(folder: Path, module: str) -> dict[str, int | None] | None:
    """How the tests ended, by mutant; None for one that has not been judged. None at all: there are no mutants yet."""
    meta = folder / "mutants" / "remuda" / "statemachines" / f"{module}.py.meta"
    return json.loads(meta.read_text())["exit_code_by_key"] if meta.exists() else None


def to_judge(folder: Path, module: str, *, again: bool) -> list[str]:
    known = verdicts(folder, module) or {}
    return [name for name, code in known.items() if code is None or (again and code not in (1, 3))]


# ── The results ─────────────────────────────────────────────────────────────────────────────────


def results(folder: Path) -> Iterator[Mutant]:
    """Every mutant, with what became of it."""
    from mutmut.stats import status_by_exit_code

    for module in MODULES:
        known = verdicts(folder, module)
        if known is None:
            continue
        functions = sources(folder / "mutants" / "remuda" / "statemachines" / f"{module}.py")
        for name, code in known.items():
            mangled = name.rpartition(".")[2]
            base = mangled.partition("__mutmut_")[0]
            was, now = changed(functions[f"{base}__mutmut_orig"], functions[mangled])
            yield Mutant(module, plain(mangled), was, now, status_by_exit_code[code])


def plain(mangled: str) -> str:
    """The name of the function that a mutant is of."""
    return mangled.partition("__mutmut_")[0].removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")


def sources(path: Path) -> dict[str, list[str]]:
    """The lines of every generated function of a mutated file, by its mangled name."""
    import ast

    text = path.read_text()
    lines = text.splitlines()
    found: dict[str, list[str]] = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and "__mutmut_" in node.name:
            own = lines[node.lineno - 1 : node.end_lineno]
            own[0] = own[0].replace(node.name, plain(node.name).rpartition(".")[2])
            found[node.name] = [line.strip() for line in own]
    return found


def changed(before: list[str], after: list[str]) -> tuple[str, str]:
    """What was removed and what was put there, as one line each."""
    removed, added = [], []
    for line in difflib.ndiff(before, after):
        if line.startswith("- "):
            removed.append(line[2:])
        elif line.startswith("+ "):
            added.append(line[2:])
    return " ".join(removed), " ".join(added)


def explained() -> dict[tuple[str, str, str, str], str]:
    """The reasons, by mutant."""
    if not EQUIVALENTS.exists():
        return {}
    table = tomllib.loads(EQUIVALENTS.read_text())
    return {
        (entry["module"], entry["function"], entry["was"], now): entry["why"]
        for entry in table.get("equivalent", [])
        for now in entry["now"]
    }


_DEAD = {"killed", "timeout", "segfault", "suspicious"}
"""A mutant that hangs or breaks the interpreter has been noticed."""


def judge(mutants: list[Mutant]) -> tuple[list[Mutant], list[str]]:
    """The survivors without an explanation, and the explanations without a survivor."""
    reasons = explained()
    alive = {mutant.key for mutant in mutants if mutant.status not in _DEAD and mutant.status != "not checked"}
    survivors = [mutant for mutant in mutants if mutant.key in alive and mutant.key not in reasons]
    known = {mutant.module for mutant in mutants}
    stale = [" | ".join(key) for key in reasons if key[0] in known and key not in alive]
    return survivors, stale


# ── The page ────────────────────────────────────────────────────────────────────────────────────


def table(mutants: list[Mutant]) -> list[str]:
    reasons = explained()
    lines = [
        "| module | mutants | killed | of these by time | explained | survivors | score |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    rows: dict[str, Counter[str]] = {}
    for mutant in mutants:
        if mutant.status == "not checked":
            continue
        for row in (mutant.module, "all"):
            count = rows.setdefault(row, Counter())
            count["mutants"] += 1
            if mutant.status in _DEAD:
                count["killed"] += 1
                count["time"] += mutant.status == "timeout"
            else:
                count["explained" if mutant.key in reasons else "survivors"] += 1
    for name in (*MODULES, "all"):
        if name in rows:
            c = rows[name]
            score = 100 * c["killed"] / max(1, c["mutants"] - c["explained"])
            label = f"`{name}`" if name != "all" else "**all**"
            cells = c["mutants"], c["killed"], c["time"], c["explained"], c["survivors"]
            lines.append(f"| {label} | {' | '.join(map(str, cells))} | {score:.1f} % |")
    return lines


def cell(text: str) -> str:
    return "`` " + text.replace("|", "\\|") + " ``" if text else "(nothing)"


def page(mutants: list[Mutant]) -> str:
    survivors, _ = judge(mutants)
    lines = [*table(mutants), ""]
    if waiting := sum(mutant.status == "not checked" for mutant in mutants):
        lines += [f"{waiting} mutants have not been judged yet.", ""]
    lines += ["## Survivors", ""]
    if survivors:
        lines += ["| where | was | is | |", "|---|---|---|---|"]
        lines += [f"| `{m.module}`: `{m.function}` | {cell(m.was)} | {cell(m.now)} | {m.status} |" for m in survivors]
    else:
        lines += ["None."]
    lines += ["", "## Explained", "", "| where | was | is | why it changes nothing |", "|---|---|---|---|"]
    for (module, function, was, now), why in explained().items():
        lines.append(f"| `{module}`: `{function}` | {cell(was)} | {cell(now)} | {why} |")
    return "\n".join(lines)


def write(text: str) -> None:
    whole = PAGE.read_text()
    before, _, rest = whole.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def check() -> list[str]:
    """Without a run: explanations of code that is not there any more, or that the page does not have."""
    complaints = []
    shown = PAGE.read_text()
    for (module, function, was, now), why in explained().items():
        code = " ".join((ROOT / "statemachines" / f"{module}.py").read_text().split())
        if " ".join(was.split()) not in code:
            complaints.append(f"{module}: {function}: there is no {was!r} any more")
        if f"| `{module}`: `{function}` | {cell(was)} | {cell(now)} | {why} |" not in shown:
            complaints.append(f"{module}: {function}: {was!r} is not on the page; run with --report")
    return complaints


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--module", action="append", choices=MODULES, help="only this one; may be given again")
    parser.add_argument("--again", action="store_true", help="judge once more what was not killed, as after new tests")
    parser.add_argument("--children", type=int, default=1, help="how many mutants are judged at a time")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "remuda-mutants")
    parser.add_argument("--source", type=Path, default=ROOT, help="the tree that is copied")
    parser.add_argument("--report", action="store_true", help="write the page from what is known")
    parser.add_argument("--check", action="store_true", help="see whether page and explanations are still true")
    arguments = parser.parse_args()
    if arguments.check:
        complaints = check()
        print(*complaints, sep="\n") if complaints else print("the explanations are as the code is")
        return bool(complaints)
    if not arguments.report:
        copy_tree(arguments.source, arguments.folder)
        run(arguments.folder, arguments.module or list(MODULES), arguments.children, again=arguments.again)
    mutants = list(results(arguments.folder))
    survivors, stale = judge(mutants)
    write(page(mutants))
    print("\n".join(table(mutants)))
    for line in stale:
        print("stale:", line)
    dead = sum(mutant.status in _DEAD for mutant in mutants)
    judged = sum(mutant.status != "not checked" for mutant in mutants)
    score = 100 * dead / max(1, dead + len(survivors))
    print(f"{judged} of {len(mutants)} judged, {len(survivors)} survive unexplained: {score:.1f} %; goal: {GOAL} %")
    return bool(stale) or score < GOAL


if __name__ == "__main__":
    sys.exit(main())
