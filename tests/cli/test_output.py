"""What commands say: in words for their users, and to whoever may have gone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from remuda import cli
from remuda.cli.output import explain
from remuda.statemachines.errors import CallTimeout, ConfigError, PoolStartError, WorkerDeath

TRACE = f"""in the worker:
Traceback (most recent call last):
  File "{Path(cli.__file__).parents[1]}/bridge/child.py", line 129, in _boot
    adapter.setup(boot.settings)
  File "/usr/lib/python3.11/importlib/__init__.py", line 126, in import_module
    return _bootstrap._gcd_import(name[level:], package, level)
           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "<frozen importlib._bootstrap>", line 1204, in _gcd_import
  File "/home/me/mine.py", line 1, in <module>
    raise RuntimeError("no licence")
RuntimeError: no licence
"""


def not_started(cause: str, *words: str, trace: str = "") -> PoolStartError:
    error = PoolStartError("pool 'run' could not start", last_death=WorkerDeath(0, 1, cause, -9, words))
    if trace:
        error.add_note(trace)
    return error


def test_what_the_worker_understood_is_all_that_is_said() -> None:
    cause = "its setup failed: remuda.statemachines.errors.ConfigError: the model is ''; it must be a text"
    assert explain(not_started(cause, trace=TRACE)) == "the model is ''; it must be a text"


def test_a_failure_of_users_code_is_shown_where_it_is() -> None:
    text = explain(not_started("its setup failed: RuntimeError: no licence", "a word", trace=TRACE))
    assert text.splitlines() == [
        "the workers do not start: its setup failed: RuntimeError: no licence",
        "  | a word",
        "in the worker:",
        "Traceback (most recent call last):",
        '  File "/home/me/mine.py", line 1, in <module>',
        '    raise RuntimeError("no licence")',
        "RuntimeError: no licence",
    ]
    nothing_of_theirs = TRACE.replace("/home/me/mine.py", "<frozen importlib._bootstrap>")
    assert explain(not_started("it exited", trace=nothing_of_theirs)) == "the workers do not start: it exited"


def test_errors_of_the_system_are_told_without_their_numbers(tmp_path: Path) -> None:
    with pytest.raises(OSError) as missing:
        open(tmp_path / "nothing")
    assert explain(missing.value) == f"{tmp_path / 'nothing'}: No such file or directory"
    assert explain(OSError("out of order")) == "out of order"
    assert explain(CallTimeout("too slow")) == "too slow"  # which is an OSError as well
    assert explain(ConfigError("mend it")) == "mend it"


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_a_descriptor_that_was_closed_is_not_that_of_the_next_file(tmp_path: Path, closed: tuple[int, ...]) -> None:
    program = (
        "import os; from remuda.cli.output import note, open_streams, say\n"
        "open_streams()\n"
        f"fd = os.open({str(tmp_path / 'file')!r}, os.O_CREAT | os.O_WRONLY)\n"
        "print('out'); say('said'); note('noted'); os.write(2, b'raw')\n"
        "os._exit(0 if fd > 2 else 7)"
    )

    def close() -> None:
        for fd in closed:
            os.close(fd)

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, preexec_fn=close, check=False)
    assert done.returncode == 0
    assert (tmp_path / "file").read_bytes() == b""
    assert done.stdout == (b"" if 1 in closed else b"out\nsaid\n")


def test_nobody_reads(tmp_path: Path) -> None:
    """Not now, not later, not when Python empties its buffers at the end."""
    program = (
        "import sys; from remuda.cli.output import note, say\n"
        "sys.stdin.read()\n"
        "for _ in range(3): say('said'); note('noted'); print('more'); print('more', file=sys.stderr)\n"
        "sys.exit(3)"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", program], **pipes) as process:  # type: ignore[call-overload]
        process.stdout.close()
        process.stderr.close()
        process.stdin.close()
        assert process.wait() == 3


def test_users_code_is_found_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path, found in ((["/a"], [str(tmp_path), "/a"]), (["", "/a"], ["", "/a"]), ([str(tmp_path)], [str(tmp_path)])):
        monkeypatch.setattr(sys, "path", path)
        cli.find_users_code()
        assert sys.path == found
    program = (
        "import sys; sys.path.remove(''); from remuda.cli import find_users_code; find_users_code(); print(sys.path)"
    )
    for flag, there in (("-B", True), ("-P", False)):  # -P says: not the working directory
        program_then = program if there else program.replace("sys.path.remove('');", "")
        shown = subprocess.run(
            [sys.executable, flag, "-c", program_then], capture_output=True, text=True, check=True, cwd=tmp_path
        )
        assert (repr(str(tmp_path)) in shown.stdout) == there


def test_a_working_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setattr(sys, "path", ["/a"])
    cli.find_users_code()
    assert sys.path == ["/a"]
