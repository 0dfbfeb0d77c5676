"""`remuda run`, in real processes: every record has exactly one entry, whatever happens on the way."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from remuda.cli.run import Job, public

QA = ("run", "--signature", "context, question -> answer", "--input", "in.jsonl", "--output", "out.jsonl")
SKY = {"context": "Grass is green. The sky is blue.", "question": "What colour is the sky?"}


def until(stream: Any, text: str) -> str:
    """Read lines until one contains a text; all of what was read."""
    lines = []
    for line in stream:
        lines.append(line)
        if text in line:
            return "".join(lines)
    raise AssertionError(f"{text!r} was not written, but: {''.join(lines)}")


# ── Entries and exit codes ──────────────────────────────────────────────────────────────────────


def test_answers(remuda: Any) -> None:
    remuda.write(SKY, {**SKY, "question": "What colour is grass?"})
    code, out, err = remuda(*QA, "--workers", "1")
    assert (code, remuda.entries()[1]["outputs"], remuda.entries()[2]["outputs"]) == (
        0,
        {"answer": "The sky is blue."},
        {"answer": "Grass is green."},
    )
    usage = remuda.entries()[1]["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0
    both = [
        sum(entry["usage"][name] for entry in remuda.entries().values())
        for name in ("prompt_tokens", "completion_tokens")
    ]
    assert f"2 records: 2 answered, 0 failed; 2 model calls, {both[0]} + {both[1]} tokens" in out
    assert "2 of 2 records" in err
    # Once more: there is nothing to do, and the totals are those of the whole output.
    before = remuda.output.read_bytes()
    again, out_again, err_again = remuda(*QA)
    assert (again, out_again, remuda.output.read_bytes()) == (0, out, before)
    assert "2 of 2 records are done" in err_again


def test_bad_records_are_errors_and_the_others_go_on(remuda: Any) -> None:
    remuda.input.write_text(json.dumps(SKY) + '\n\nnope\n[1]\n{"context": "x"}\n' + json.dumps({**SKY, "z": 1}) + "\n")
    code, out, _ = remuda(*QA, "--kind", "chain_of_thought", "--quiet")
    entries = remuda.entries()
    assert code == 1 and set(entries) == {1, 3, 4, 5, 6}
    assert entries[1]["outputs"]["answer"] == "The sky is blue."
    assert [entries[line]["error"]["type"] for line in (3, 4, 5, 6)] == [
        "BadRecord",
        "BadRecord",
        "ValueError",
        "ValueError",
    ]
    assert "missing: question" in entries[5]["error"]["message"] and "unknown: z" in entries[6]["error"]["message"]
    assert "5 records: 1 answered, 4 failed" in out


def test_what_a_program_does_to_its_worker_is_its_own_business(remuda: Any) -> None:
    """It dies, dies once, raises: an entry each, and nobody else notices."""
    remuda.write({"do": "die"}, {"do": "go", "n": 2}, {"do": "die once", "n": 3}, {"do": "raise"}, {"do": "go", "n": 5})
    code, _, err = remuda(*remuda.obey("--workers", "2", "--concurrency", "3", "--timeout", "100"))
    entries = remuda.entries()
    assert code == 1 and set(entries) == {1, 2, 3, 4, 5}
    assert {line: entries[line]["outputs"]["twice"] for line in (2, 3, 5)} == {2: 4, 3: 6, 5: 10}
    assert entries[1]["error"]["type"] == "OutcomeUnknown" and "It was tried 5 times" in entries[1]["error"]["message"]
    assert entries[4]["error"] == {"type": "LookupError", "message": "it was told to"}
    assert "a worker died: " in err and "workers died like this: " in err
    assert remuda.left() == []


def test_a_program_that_hangs(remuda: Any) -> None:
    """Alone with its worker, and nobody looks: its deadline ends it all the same, and it is not tried again."""
    remuda.write({"do": "hang"}, {"do": "go", "n": 2})
    code, _, _ = remuda(*remuda.obey("--workers", "1", "--timeout", "10"))
    entries = remuda.entries()
    assert code == 1 and set(entries) == {1, 2}
    assert entries[1]["error"]["type"] == "CallTimeout" and "its worker was killed" in entries[1]["error"]["message"]
    assert entries[2]["outputs"] == {"twice": 4}
    assert remuda.left() == []


def test_many_deaths_open_no_breaker_and_fail_no_pool(remuda: Any) -> None:
    """Each dies once, and more in a row than any breaker would bear: all have answers."""
    remuda.write(*({"do": "die once", "n": n} for n in range(1, 9)))
    code, _, _ = remuda(*remuda.obey("--workers", "2"))
    assert code == 0
    assert {line: entry["outputs"]["twice"] for line, entry in remuda.entries().items()} == {
        n: 2 * n for n in range(1, 9)
    }


# ── Interrupted, killed, gone on with ───────────────────────────────────────────────────────────


@pytest.mark.parametrize(("signum", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted(remuda: Any, signum: signal.Signals, expected: int) -> None:
    remuda.write(
        {"do": "go", "n": 1}, {"do": "go", "n": 2}, {"do": "hang", "n": 3}, {"do": "hang", "n": 4}, {"do": "go", "n": 5}
    )
    command = remuda.obey("--workers", "2")
    with remuda.start(*command) as process:
        until(process.stderr, "2 of 5 records")
        process.send_signal(signum)
        out, err = process.communicate()
    assert process.returncode == expected
    assert f"stopped by {signum.name} with 3 records to go; the same command goes on from here" in err
    assert "2 records: 2 answered, 0 failed" in out
    assert "Traceback" not in err
    assert set(remuda.entries()) == {1, 2}  # no entry says that it was interrupted
    assert remuda.left() == []
    (remuda.folder / "open").touch()
    code, _, err = remuda(*command)
    assert code == 0 and "going on: 2 of 5 records are done" in err
    assert {line: entry["outputs"]["twice"] for line, entry in remuda.entries().items()} == {
        n: 2 * n for n in range(1, 6)
    }


def test_killed_again_and_again(remuda: Any) -> None:
    """SIGKILL to the run itself, after each of its first records, until it has done them all."""
    gate = ({"do": "hang", "n": n} for n in (9, 10))  # so that it is never done before it is killed
    remuda.write(*({"do": "go", "n": n} for n in range(1, 9)), *gate)
    command = remuda.obey("--workers", "2")
    for done in (1, 4, 8):
        with remuda.start(*command) as process:
            for line in process.stderr:
                found = re.search(r"(\d+) of 10 records", line)
                if found is not None and int(found[1]) >= done:  # the kill before may have come late
                    break
            process.kill()
            process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert remuda.left() == []
        with open(remuda.output, "ab") as output:  # and what a kill in the middle of a write leaves
            output.write(b'{"line": 9, "outp')
    (remuda.folder / "open").touch()
    code, _, _ = remuda(*command)
    assert code == 0
    assert {line: entry["outputs"]["twice"] for line, entry in remuda.entries().items()} == {
        n: 2 * n for n in range(1, 11)
    }


def test_only_one_at_a_time(remuda: Any) -> None:
    remuda.write({"do": "go", "n": 1}, {"do": "hang"})
    command = remuda.obey("--workers", "1")
    with remuda.start(*command) as process:
        until(process.stderr, "1 of 2 records")
        code, out, err = remuda(*command)
        assert (code, out) == (2, "") and "another run" in err and "out.jsonl" in err
        process.terminate()
        process.communicate()
    assert set(remuda.entries()) == {1}


# ── Refused ─────────────────────────────────────────────────────────────────────────────────────


def test_another_run_is_refused_and_says_what_is_different(remuda: Any) -> None:
    remuda.write(SKY)
    assert remuda(*QA, "--quiet")[0] == 0
    code, out, err = remuda(*QA, "--kind", "chain_of_thought", "--lm", "openai/m", "--lm-option", "temperature=0.5")
    assert (code, out) == (2, "")
    for difference in (
        "program.kind was 'predict' and is 'chain_of_thought'",
        "model was 'embedded' and is 'openai/m'",
        "temperature was None and is 0.5",
    ):
        assert difference in err
    assert "write to another output, or delete both out.jsonl and out.jsonl.run.json" in err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--timeout", "0"], "call_timeout is 0.0"),
        (["--lm-option", "=secret"], "--lm-option takes name=value"),
        (["--lm-option", "secret"], "--lm-option takes name=value"),
        (["--program", "a:b"], "either --signature or --program"),
        (["--kind", "horse"], "'horse' is not one of"),
        (["--load", "none.json"], "none.json cannot be read"),
        (["--concurrency", "0"], "--concurrency"),
    ],
)
def test_a_refusal_leaves_no_file(remuda: Any, arguments: list[str], text: str) -> None:
    remuda.write(SKY)
    code, out, err = remuda(*QA, *arguments)
    assert (code, out) == (2, "")
    assert text in err and "Traceback" not in err
    assert [path.name for path in remuda.folder.iterdir()] == ["in.jsonl"]


def test_a_pool_that_does_not_start(remuda: Any) -> None:
    """Nothing was done, so the same files can be used when the mistake is mended."""
    remuda.write(SKY)
    code, out, err = remuda("run", "--signature", "no arrow", *QA[3:])
    assert code == 2 and err.startswith("remuda: the signature of program 'run' is 'no arrow', which DSPy does not")
    assert remuda.left() == []
    assert remuda(*QA)[0] == 0
    assert remuda.entries()[1]["outputs"] == {"answer": "The sky is blue."}


def test_a_loaded_program_is_known_by_its_content(remuda: Any) -> None:
    make = "import dspy; dspy.Predict('context, question -> answer').save('p.json')"
    assert remuda(python=("-c", make))[0] == 0
    remuda.write(SKY)
    assert remuda(*QA, "--load", "p.json")[0] == 0
    assert remuda.entries()[1]["outputs"] == {"answer": "The sky is blue."}
    program = json.loads((remuda.folder / "p.json").read_text())
    (remuda.folder / "p.json").write_text(json.dumps(program, indent=7))
    code, _, err = remuda(*QA, "--load", "p.json")
    assert code == 2 and "program.load.sha256 was" in err


# ── A model behind HTTP ─────────────────────────────────────────────────────────────────────────


@contextmanager
def model_server() -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """What speaks as OpenAI's API does, as far as a chat needs it; and what it was asked."""
    asked: list[tuple[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.headers["Authorization"], request))
            number = re.search(r"number (\d+)", request["messages"][-1]["content"])
            assert number is not None
            content = f"[[ ## answer ## ]]\n{number[1]}!\n\n[[ ## completed ## ]]"
            body = json.dumps(
                {
                    "id": "1",
                    "object": "chat.completion",
                    "created": 1,
                    "model": request["model"],
                    "choices": [
                        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
                    ],
                    "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
                }
            ).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1", asked
        finally:
            server.shutdown()
            thread.join()


def test_a_model_behind_http_and_no_secret_in_any_file(remuda: Any) -> None:
    remuda.write(*({"question": f"number {n}"} for n in range(1, 4)))
    remuda.env["NO_PROXY"] = "127.0.0.1"
    with model_server() as (url, asked):
        code, out, err = remuda(
            *("run", "--signature", "question -> answer", *QA[3:], "--lm", "openai/some-model", "--workers", "2"),
            *(
                "--lm-option",
                f"api_base={url}?sig=hush1",
                "--lm-option",
                "api_key=hush2",
                "--lm-option",
                "max_tokens=77",
            ),
            *("--lm-option", 'extra_headers={"X-Api-Key": "hush3"}'),
        )
    assert code == 0, err
    assert {line: entry["outputs"]["answer"] for line, entry in remuda.entries().items()} == {
        n: f"{n}!" for n in (1, 2, 3)
    }
    assert remuda.entries()[1]["usage"] == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    assert "3 model calls, 21 + 9 tokens" in out
    assert {key for key, _ in asked} == {"Bearer hush2"} and {request["max_tokens"] for _, request in asked} == {77}
    written = "".join(path.read_text("latin-1") for path in remuda.folder.rglob("*") if path.is_file())
    assert "hush" not in written + out + err
    assert json.loads(remuda.manifest.read_text())["settings"]["model options"] == {"api_base": url, "max_tokens": 77}


@pytest.mark.parametrize(
    "name",
    "api_key apiKey apikey azure_ad_token AZURE_AD_TOKEN aws_secret_access_key password Authorization auth "
    "vertex_credentials extra_headers headers cookie X-Api-Key".split(),
)
def test_secrets(name: str) -> None:
    assert public({"a": 1, name: "hush", "b": [{name: {"c": "hush"}, "d": 2}]}) == {"a": 1, "b": [{"d": 2}]}


@pytest.mark.parametrize(
    "name", "max_tokens max_completion_tokens temperature top_p keywords author num_retries".split()
)
def test_what_is_no_secret_tells_runs_apart(name: str, tmp_path: Path) -> None:
    job = Job(tmp_path, tmp_path, {"signature": "a -> b", "load": None}, "m", {name: 5, "api_key": "hush"})
    assert job.settings == {"program": {"signature": "a -> b"}, "model": "m", "model options": {name: 5}}


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:hush@host:8000/v1", "https://host:8000/v1"),
        ("https://hush@host/v1?key=hush#hush", "https://host/v1"),
        ("http://[::1]:80/v1", "http://[::1]:80/v1"),
        ("http://[hush", "(a URL that cannot be read)"),
    ],
)
def test_urls(url: str, shown: str) -> None:
    assert public({"api_base": url}) == {"api_base": shown}


def test_interrupted_before_anything_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the input is still being counted: no traceback, and the exit code of a signal."""
    from remuda.cli import run as module

    def interrupted(*args: object) -> Any:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(module, "open_run", interrupted)
    assert module.run(Job(tmp_path / "in", tmp_path / "out", {"signature": "a -> b"}), quiet=True) == 130
