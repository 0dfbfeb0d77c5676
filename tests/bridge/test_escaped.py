"""Finding what has escaped from a worker: what is found, and above all what is not."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from remuda.bridge import escaped
from remuda.bridge.escaped import MARK, Traces, clock, end_all, find, new_mark

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it asks /proc")


@contextmanager
def sleeping(mark: str = "", **named: Any) -> Iterator[int]:
    """A process that waits for us, in a session of its own."""
    env = {**os.environ, **({MARK: mark} if mark else {})}
    program = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"]
    with subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, start_new_session=True, **named
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.stdin.close()


def test_by_its_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(escaped, "_DYING", 60_000)  # or it would be found, and counted, again
    (word, value), born = new_mark(), clock()
    with sleeping(value) as pid, sleeping() as _, sleeping(new_mark()[1]) as _:
        assert find(Traces(word, (), born)) == [pid]
        assert end_all(Traces(word, (), born)) == 1
        assert find(Traces(word, (), born)) == []


def test_a_mark_is_a_word_among_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker's application may be in a worker itself; and a mark that only begins like one is another."""
    outer, value = new_mark()
    monkeypatch.setenv(MARK, value)
    (inner, both), born = new_mark(), clock()
    assert both == f"{outer} {inner}"
    with sleeping(both) as pid, sleeping(f"{inner}0") as _:
        assert find(Traces(inner, (), born)) == find(Traces(outer, (), born)) == [pid]


def test_by_the_end_of_a_pipe() -> None:
    """The end matters: we hold the others, and so does what is forked from us until it runs its own program."""
    reader, writer = os.pipe()
    (word, _), born, inode = new_mark(), clock(), os.fstat(reader).st_ino
    with sleeping(pass_fds=[writer]) as writes, sleeping(pass_fds=[reader]) as reads, sleeping() as _:
        assert find(Traces(word, [(inode, True)], born)) == [writes]
        assert find(Traces(word, [(inode, False)], born)) == [reads]
    os.close(reader)
    os.close(writer)


def test_whoever_is_older_is_let_be() -> None:
    (word, value) = new_mark()
    with sleeping(value):
        born = clock() + os.sysconf("SC_CLK_TCK")
        assert end_all(Traces(word, (), born)) == 0


ANCESTOR = """
import os, subprocess, sys
program = "from remuda.bridge.escaped import *; print(find(Traces(sys.argv[1], (), 0)), end_all(Traces(sys.argv[1], (), 0)))"
done = subprocess.run([sys.executable, "-c", "import sys; " + program, sys.argv[1]], stdout=subprocess.PIPE)
print(done.stdout.decode().strip(), "and lives")
"""


def test_an_ancestor_of_ours_is_let_be() -> None:
    """Whatever it carries, and however old the worker claims to be."""
    word, value = new_mark()
    done = subprocess.run(
        [sys.executable, "-c", ANCESTOR, word], env={**os.environ, MARK: value}, capture_output=True, check=False
    )
    assert done.stdout.decode().strip() == "[] 0 and lives", done.stderr.decode()


@pytest.mark.parametrize("mark", ["", "0", "0" * 15, "0" * 17, "Z" * 16, "0123456789abcde\n", " " * 16])
def test_what_is_no_mark_is_refused(mark: str) -> None:
    """What could be a default, or half of something, would lead to strangers."""
    with pytest.raises(ValueError, match="is no mark of a worker"):
        Traces(mark, (), clock())


def test_nothing_leads_to_those_who_have_nothing() -> None:
    """Each process of this machine is looked at, those of the kernel and of other sessions included."""
    (word, _), reader_writer = new_mark(), os.pipe()
    inode = os.fstat(reader_writer[0]).st_ino
    assert find(Traces(word, (), 0)) == []
    assert find(Traces(word, [(inode, True), (inode, False)], 0)) == []
    for fd in reader_writer:
        os.close(fd)


def test_the_number_is_another_ones_by_the_time_it_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    (word, value), born = new_mark(), clock()
    traces = Traces(word, (), born)
    with sleeping() as stranger, sleeping(value) as pid:
        with monkeypatch.context() as patch:
            patch.setattr(escaped, "find", lambda _: [stranger])
            assert end_all(traces) == 0
        assert find(traces) == [pid]


NO_DESCRIPTORS = """
import json, os, resource, sys
from remuda.bridge.escaped import *
traces = Traces(sys.argv[1], (), 0)
before = len(os.listdir("/proc/self/fd"))
told = []
for spare in range(4):
    resource.setrlimit(resource.RLIMIT_NOFILE, (before - 1 + spare, 4096))
    try:
        end_all(traces)
        told.append(0)
    except OSError as error:
        told.append(error.errno)
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
print(json.dumps([told, len(os.listdir("/proc/self/fd")) - before]))
"""


def test_without_descriptors_it_says_so() -> None:
    """Not that there is nobody."""
    word, value = new_mark()
    with sleeping(value):
        done = subprocess.run([sys.executable, "-c", NO_DESCRIPTORS, word], capture_output=True, check=True)
        told, leaked = json.loads(done.stdout)
        assert told[0] == errno.EMFILE and set(told) <= {0, errno.EMFILE} and told[-1] == 0
        assert leaked == 0
