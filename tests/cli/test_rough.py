"""`remuda run` and `remuda demo` where things are not as they should be: streams, disks, programs, installations.

The command is the installed one here, as far as that is different from `python -m remuda`: the folder
of its script is on the path of modules, and the working directory is not.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SKY = {"context": "Grass is green. The sky is blue.", "question": "What colour is the sky?"}
QA = ("run", "--signature", "context, question -> answer", "--input", "in.jsonl", "--output", "out.jsonl")


@pytest.fixture
def installed(tmp_path: Path) -> tuple[str, ...]:
    """A script such as an installer makes, in a folder of its own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "remuda").write_text("import sys\nfrom remuda.cli import main\nsys.exit(main())\n")
    return (str(folder / "remuda"),)


def hidden(module: str) -> tuple[str, ...]:
    """Python without a module that is installed."""
    return ("-c", f"import sys; sys.modules[{module!r}] = None; from remuda.cli import main; main()")


# ── Programs ────────────────────────────────────────────────────────────────────────────────────


def test_a_program_in_the_working_directory(remuda: Any, installed: tuple[str, ...]) -> None:
    remuda.write({"do": "go", "n": 4})
    code, _, err = remuda(*remuda.obey(), python=installed)
    assert code == 0, err
    assert remuda.entries()[1]["outputs"] == {"twice": 8}


def test_an_adapter_in_the_working_directory(remuda: Any, installed: tuple[str, ...]) -> None:
    (remuda.folder / "mine.py").write_text("import remuda\nclass A:\n    @remuda.command\n    def go(self): ...\n")
    code, out, err = remuda("doctor", "--adapter", "mine:A", python=installed)
    assert (code, err) == (0, "") and "ok    adapter mine:A" in out


def test_a_program_that_cannot_be_imported(remuda: Any) -> None:
    """What is wrong is said once, where it is, and nothing else is."""
    remuda.write(SKY)
    for source, said in (
        ("import notinstalled\n", ["No module named 'notinstalled'", 'mine.py", line 1, in <module>']),
        ("raise RuntimeError('no licence')\n", ["RuntimeError: no licence", 'mine.py", line 1, in <module>']),
        ("", ["the factory 'mine:make' of program 'run' was not found: mine has no 'make'"]),
    ):
        (remuda.folder / "mine.py").write_text(source)
        code, out, err = remuda("run", "--program", "mine:make", *QA[3:])
        assert (code, out) == (2, ""), err
        assert all(text in err for text in said), err
        assert "child.py" not in err and "pool.failed" not in err and "worker.ended" not in err


def test_a_program_that_kills_its_worker_at_its_import_is_refused(remuda: Any) -> None:
    remuda.write(SKY)
    (remuda.folder / "mine.py").write_text("import os\nprint('no licence', flush=True)\nos._exit(3)\n")
    # However busy the machine is, the template has the time to say how its workers end.
    patient = "import remuda.bridge.forkserver as f; f._STATUS_PATIENCE = 60; from remuda.cli import main; main()"
    code, out, err = remuda("run", "--program", "mine:make", *QA[3:], "--workers", "1", python=("-c", patient))
    assert (code, out) == (2, "")
    assert "remuda: the workers do not start: it closed its channel, and ended with exit status 3" in err
    assert err.count("| no licence") == 2  # when it happened first, and in the end
    assert remuda.left() == []


def test_what_failed_is_said(remuda: Any) -> None:
    remuda.write({"do": "raise"}, {"do": "go", "n": 2}, {"do": "raise"})
    code, out, err = remuda(*remuda.obey("--workers", "1"))
    assert code == 1 and "3 records: 1 answered, 2 failed" in out
    assert "2 × LookupError, first in line 1: it was told to" in err
    assert "each has an error in out.jsonl; to try some again, delete their lines there and start this again" in err
    # And so it is.
    lines = remuda.output.read_text().splitlines(keepends=True)
    remuda.output.write_text("".join(line for line in lines if '"error"' not in line))
    code, out, _ = remuda(*remuda.obey("--workers", "1"))
    assert code == 1 and set(remuda.entries()) == {1, 2, 3}


@pytest.mark.parametrize("command", [(*QA,), ("demo",)], ids=["run", "demo"])
def test_without_dspy(remuda: Any, command: tuple[str, ...]) -> None:
    remuda.write(SKY)
    code, out, err = remuda(*command, python=hidden("dspy"))
    assert (code, out, err) == (2, "", "remuda: this command needs dspy: pip install 'remuda[dspy]'\n")
    assert [path.name for path in remuda.folder.iterdir()] == ["in.jsonl"]


# ── Streams ─────────────────────────────────────────────────────────────────────────────────────


def test_a_run_goes_on_when_nobody_reads(remuda: Any) -> None:
    remuda.write(SKY, SKY, SKY)
    with remuda.start(*QA, "--workers", "1") as process:
        process.stdout.close()
        process.stderr.close()
        assert process.wait() == 0
    assert set(remuda.entries()) == {1, 2, 3}


def test_a_run_without_any_stream(remuda: Any) -> None:
    """As a daemon may start it; a program that prints does not write into the output."""
    (remuda.folder / "loud.py").write_text(
        "import dspy, os\n"
        "class Loud(dspy.Module):\n"
        "    def forward(self, n: int):\n"
        "        print('loud'); os.write(1, b'loud'); os.write(2, b'loud')\n"
        "        return dspy.Prediction(n=n)\n"
    )
    remuda.write({"n": 1}, {"n": 2})
    command = [sys.executable, "-m", "remuda", "run", "--program", "loud:Loud", *QA[3:]]
    closed = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command], cwd=remuda.folder, env=remuda.env, check=False
    )
    assert closed.returncode == 0
    assert {line: entry["outputs"]["n"] for line, entry in remuda.entries().items()} == {1: 1, 2: 2}


def test_a_demo_that_nobody_reads_ends_quietly(remuda: Any) -> None:
    with remuda.start("demo", "--answers", "25", "--plain") as process:
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 1
    assert remuda.left() == [] and list(remuda.folder.iterdir()) == []


def test_a_terminal_that_is_closed(remuda: Any) -> None:
    remuda.write({"do": "go", "n": 1}, {"do": "hang"})
    with remuda.start(*remuda.obey("--workers", "1")) as process:
        assert process.stderr.readline() == "1 of 2 records\n"
        process.send_signal(signal.SIGHUP)
        _, err = process.communicate()
    assert process.returncode == 129
    assert "stopped by SIGHUP with 1 records to go; the same command goes on from here" in err
    assert set(remuda.entries()) == {1} and remuda.left() == []
    with remuda.start("demo", "--answers", "600", "--plain") as process:
        assert "600 questions" in process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        out, _ = process.communicate()
    assert process.returncode == 129 and "stopped by SIGHUP" in out
    assert not list(remuda.folder.glob("remuda-demo-*"))


def test_nohup(remuda: Any) -> None:
    """SIGHUP is ignored where somebody has said so."""
    remuda.write({"do": "go", "n": 1}, {"do": "hang", "n": 2})
    program = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); from remuda.cli import main; main()"
    with remuda.start(*remuda.obey("--workers", "1"), python=("-c", program)) as process:
        assert process.stderr.readline() == "1 of 2 records\n"
        process.send_signal(signal.SIGHUP)
        process.terminate()  # the signals arrive in the order of their numbers: SIGHUP is first
        process.communicate()
    assert process.returncode == 143


# ── Disks and machines ──────────────────────────────────────────────────────────────────────────


def test_a_disk_that_is_full(remuda: Any) -> None:
    """It stops, says how far it is and that it can go on; and it can."""
    remuda.write(*({"do": "go", "n": n} for n in range(1, 1601)))
    full = (  # a worker's evidence page has some 70 000
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (80_000, 80_000)); "  # a write beyond fails with EFBIG
        "from remuda.cli import main; main()"
    )
    code, out, err = remuda(*remuda.obey("--workers", "1"), python=("-c", full))
    done = len(remuda.entries())
    assert code == 1 and 0 < done < 1600
    assert f"{done} records: {done} answered, 0 failed" in out
    assert f"stopped (File too large) with {1600 - done} records to go; the same command goes on from here" in err
    assert "Traceback" not in err and remuda.left() == []
    code, _, err = remuda(*remuda.obey("--workers", "1"))
    assert code == 0 and f"going on: {done} of 1600 records are done" in err
    assert set(remuda.entries()) == set(range(1, 1601))


def test_a_bare_environment(remuda: Any) -> None:
    """As cron has it: no home, no language, nearly no variable. Letters beyond ASCII come through."""
    remuda.write({"context": "Grün ist das Gras. 空は青い。", "question": "Grün?"})
    remuda.env = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    remuda.env |= dict([remuda.mark.split("=", 1)])
    code, _, err = remuda(*QA)
    assert code == 0, err
    assert remuda.entries()[1]["outputs"]["answer"].startswith("Grün")


def test_answers_do_not_depend_on_the_seed_of_hashes(remuda: Any) -> None:
    remuda.write(*({**SKY, "question": f"Which {word}?"} for word in ("sky grass", "green blue", "colour is")))
    written = set()
    for seed in ("1", "2"):
        remuda.env["PYTHONHASHSEED"] = seed
        assert remuda(*QA, "--workers", "1", "--kind", "chain_of_thought", "--quiet")[0] == 0
        written.add(remuda.output.read_text())
        remuda.output.unlink()
        assert json.loads(remuda.manifest.read_text())["input"]["records"] == 3
    assert len(written) == 1


def test_interrupted_in_its_first_moments(remuda: Any) -> None:
    """Nothing but the exit code: there is nothing to say yet."""
    hurry = (
        "import os, signal, sys\n"
        "import remuda.cli.commands as commands\n"
        "commands.app = lambda: os.kill(os.getpid(), signal.SIGINT)\n"
        "from remuda.cli import main; main()"
    )
    code, out, err = remuda(*QA, python=("-c", hurry))
    assert (code, out, err) == (130, "", "")
    assert os.listdir(remuda.folder) == []
