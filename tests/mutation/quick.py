"""The first judge of mutants: the written ways through the core, each mutant in a fork of its own.

It runs in the copy that `tests/mutants.py` makes, has `mutmut` make the mutants, and tries every one that
has not been judged on all the ways, without pytest around them. A mutant that is noticed is entered as
killed. That takes a tenth of a second; what is left is for the tests, which mutmut runs.

    python quick.py core crew
"""

from __future__ import annotations

import importlib
import os
import resource
import signal
import sys
import types
from pathlib import Path

from mutmut.__main__ import copy_also_copy_files, copy_src_dir, create_mutants, setup_source_paths
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.state import state
from mutmut.utils.format_utils import mangled_name_from_mutant_name

KILLED, TIMEOUT = 1, 36
SECONDS, MEMORY = 12, 2 * 1024**3
"""What a mutant may use: seconds of processor time, and bytes."""


def make_mutants() -> None:
    set_mutant_under_test("mutant_generation")
    Path("mutants").mkdir(exist_ok=True)
    copy_src_dir()
    copy_also_copy_files()
    setup_source_paths()
    create_mutants(1)


class Ways:
    """The ways, what is said on each of them, and which functions each of them calls."""

    def __init__(self) -> None:
        set_mutant_under_test("")
        sys.path.insert(0, str(Path("mutants").resolve()))
        package = types.ModuleType("judges")
        package.__path__ = [str(Path("tests/specs").resolve())]
        sys.modules["judges"] = package
        self.paths = importlib.import_module("judges.core_paths_of_interrupts")
        self.said = importlib.import_module("judges.core_rules").CoreRules.said
        self.words = {name: self.go(name) for name in self.paths.PATHS}
        set_mutant_under_test("stats")
        self.calls: dict[str, set[str]] = {}
        for name in self.paths.PATHS:
            state()._stats.clear()
            self.go(name)
            self.calls[name] = set(state()._stats)
        set_mutant_under_test("")

    def go(self, name: str) -> set[tuple[str, str, str]]:
        self.said.clear()
        self.paths.tell(name)
        return set(self.said)

    def are_sound(self, function: str) -> bool:
        """Whether all is as it was on the ways that call this function."""
        for name, calls in self.calls.items():
            if function in calls:
                try:
                    if self.go(name) != self.words[name]:
                        return False
                except BaseException:
                    return False
        return True


def judge(name: str, ways: Ways) -> int | None:
    """How it ended: killed, timeout, or None if nothing was noticed."""
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))  # one that does not end has been noticed
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        set_mutant_under_test(name)
        os._exit(0 if ways.are_sound(mangled_name_from_mutant_name(name)) else KILLED)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return TIMEOUT if os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL) else -os.WTERMSIG(status)
    return KILLED if os.WEXITSTATUS(status) else None


def main() -> None:
    make_mutants()
    ways = Ways()
    for module in sys.argv[1:]:
        data = SourceFileMutationData(path=Path("remuda") / "statemachines" / f"{module}.py")
        data.load()
        waiting = [name for name, code in data.exit_code_by_key.items() if code not in (KILLED, 3)]
        for number, name in enumerate(waiting, start=1):
            code = judge(name, ways)
            if code is not None:
                data.exit_code_by_key[name] = code
            if number % 25 == 0 or number == len(waiting):
                data.save()
                print(f"{module}: {number} of {len(waiting)}", flush=True)


if __name__ == "__main__":
    main()
