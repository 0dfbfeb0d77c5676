"""DSPy programs in the workers of real pools.

A worker that imports DSPy takes one to two seconds to start, so a test asks one pool many things.
The model is the embedded one, or a server on loopback that remembers what it was asked.
"""

from __future__ import annotations

from pathlib import Path

import dspy

from .loopback_openai import COMPLETION_TOKENS, PROMPT_TOKENS, LoopbackOpenAI
from .pools import CONTEXT, EMBEDDED, FOUR, KEY, LEGS, SKY, dspy_pool, kill_all, loopback_settings, refused


async def test_the_three_kinds() -> None:
    async with dspy_pool(EMBEDDED) as pool:
        signature = "context, question -> answer, score: int, ok: bool"
        expected = {"answer": FOUR, "score": 4, "ok": True}
        for kind in ("predict", "chain_of_thought", "react"):
            made = await pool.call("create_program", {"program_id": kind, "signature": signature, "kind": kind})
            assert made == {"program_id": kind, "inputs": ["context", "question"], "outputs": ["answer", "score", "ok"]}
        runs = {
            kind: await pool.call("execute_program", {"program_id": kind, "inputs": LEGS})
            for kind in ("predict", "chain_of_thought", "react")
        }
        for run in runs.values():
            assert {name: run["outputs"][name] for name in expected} == expected
            assert set(run) == {"outputs", "usage", "cost", "calls"}
        assert set(runs["predict"]["outputs"]) == set(expected)
        assert runs["predict"]["calls"] == runs["chain_of_thought"]["calls"] == 1
        assert "Sentence 2 of 3" in runs["chain_of_thought"]["outputs"]["reasoning"]
        assert runs["react"]["calls"] >= 2  # it chooses a tool, and then it answers
        assert runs["react"]["outputs"]["trajectory"]["tool_name_0"] == "finish"


async def test_usage_adds_up_over_the_calls_of_a_run_and_no_history_is_kept() -> None:
    settings = {**EMBEDDED, "programs": {"one": {"signature": "context, question -> answer"}}}
    async with dspy_pool(settings, adapter="dspy_test_probe:Probe") as pool:
        await pool.call("create_program", {"program_id": "two", "factory": "dspy_test_programs:detailed"})
        one = await pool.call("execute_program", {"program_id": "one", "inputs": SKY})
        two = await pool.call("execute_program", {"program_id": "two", "inputs": SKY})
        for run in (one, two):
            usage = run["usage"]
            assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
            assert usage["prompt_tokens"] > usage["completion_tokens"] > 0
        assert (one["calls"], two["calls"]) == (1, 2)
        assert two["usage"]["prompt_tokens"] > one["usage"]["prompt_tokens"]
        assert two["outputs"]["summary"]
        assert one["cost"] is two["cost"] is None  # nobody knows what no model costs
        for _ in range(50):
            assert await pool.call("execute_program", {"program_id": "one", "inputs": SKY}) == one
        seen = await pool.call("probe")
        assert (seen["global"], seen["model"], seen["modules"]) == (0, 0, 0)


async def test_a_users_own_module_with_what_was_compiled(tmp_path: Path) -> None:
    """Demos that an optimizer has chosen reach the model, after a restart too."""
    from dspy_test_programs import Brief  # type: ignore[import-not-found]

    compiled = Brief()
    compiled.answer.demos = [dspy.Example(context="Grass is blue.", question="Grass?", answer="the-demo-of-a-compiler")]
    path = tmp_path / "program.json"
    compiled.save(str(path))
    with LoopbackOpenAI.open() as server:
        async with dspy_pool(loopback_settings(server)) as pool:
            brief = {"program_id": "brief", "factory": "dspy_test_programs:brief"}
            made = await pool.call("create_program", brief)
            assert made == {"program_id": "brief", "inputs": ["context", "question"], "outputs": ["answer"]}
            run = await pool.call("execute_program", {"program_id": "brief", "inputs": {"context": CONTEXT}})
            assert run["outputs"] == {"answer": "green"}
            assert "the-demo-of-a-compiler" not in server.prompts[0]

            await pool.call("create_program", {**brief, "load": str(path)})  # replaces it
            await pool.call("execute_program", {"program_id": "brief", "inputs": SKY})
            assert "the-demo-of-a-compiler" in server.prompts[1]
            assert CONTEXT in server.prompts[1]

            await kill_all(pool)
            await pool.call("execute_program", {"program_id": "brief", "inputs": SKY}, idempotent=True)
            assert "the-demo-of-a-compiler" in server.prompts[2]

            made = await pool.call(
                "create_program", {"program_id": "any", "factory": "dspy_test_programs:without_limits"}
            )
            assert made == {"program_id": "any", "inputs": None, "outputs": []}
            run = await pool.call("execute_program", {"program_id": "any", "inputs": {"a": 1, "b": 2}})
            assert run["outputs"] == {"result": {"sum": 3, "odd": "<class 'object'>"}}
            assert (run["calls"], run["cost"], run["usage"]["total_tokens"]) == (0, None, 0)
            assert len(server.requests) == 3


async def test_a_model_server() -> None:
    with LoopbackOpenAI.open({"score": "3"}) as server:
        programs = {"p": {"signature": "context, question -> answer, score: int", "instructions": "Be as brief as K7."}}
        settings = {**loopback_settings(server, num_retries=0, temperature=0.25), "programs": programs}
        async with dspy_pool(settings, adapter="dspy_test_probe:Probe") as pool:
            call = {"program_id": "p", "inputs": SKY}
            run = await pool.call("execute_program", call)
            assert run["outputs"] == {"answer": "green", "score": 3}
            assert run["usage"] == {
                "prompt_tokens": PROMPT_TOKENS,
                "completion_tokens": COMPLETION_TOKENS,
                "total_tokens": PROMPT_TOKENS + COMPLETION_TOKENS,
            }
            assert run["calls"] == 1
            assert 0 < run["cost"] < 0.01
            assert server.paths == ["/v1/chat/completions"]
            assert server.authorizations == [f"Bearer {KEY}"]
            assert (server.requests[0]["model"], server.requests[0]["temperature"]) == ("gpt-4o-mini", 0.25)
            assert "Be as brief as K7." in server.prompts[0]

            await pool.call("execute_program", call)
            assert len(server.requests) == 2  # not from a cache
            seen = await pool.call("probe")
            assert (seen["litellm"], seen["threads"]) == (False, ["MainThread"])

            options = {"api_base": server.api_base, "api_key": KEY, "num_retries": 1}
            configured = await pool.call("configure_lm", {"model": "openai/of-our-own", "options": options})
            assert configured == {"lm": "openai/of-our-own"}
            for status in (500, 429):
                server.failures = [status]
                before = len(server.requests)
                run = await pool.call("execute_program", call)
                assert run["outputs"]["answer"] == "green"
                assert len(server.requests) == before + 2
                assert run["cost"] is None  # nobody knows the price of this model
            assert server.requests[-1]["model"] == "of-our-own"


async def test_a_model_server_that_fails_does_not_make_the_key_known() -> None:
    with LoopbackOpenAI.open() as server:
        settings = loopback_settings(server, num_retries=0)
        settings["programs"] = {"p": {"signature": "context, question -> answer"}}
        async with dspy_pool(settings, adapter="dspy_test_probe:Probe") as pool:
            pid = (await pool.call("ping"))["pid"]
            for status in (500, 429, 401):
                server.always = status
                error = await refused(pool, "execute_program", {"program_id": "p", "inputs": SKY})
                assert "openai/gpt-4o-mini" in str(error)
                assert "out of order" in str(error)
                assert error.remote_traceback
                told = repr((str(error), error.remote_traceback, error.remote_args, error.notes, error.as_dict()))
                assert KEY not in told
            assert server.authorizations == [f"Bearer {KEY}"] * 3
            seen = await pool.call("probe")
            assert (seen["global"], seen["model"], seen["modules"]) == (0, 0, 0)
            server.always = None
            assert (await pool.call("execute_program", {"program_id": "p", "inputs": SKY}))["calls"] == 1
            ping = await pool.call("ping")
            assert ping["pid"] == pid  # it was the model that failed, not the worker
            assert KEY not in repr(ping)


async def test_files_are_only_written_where_the_cache_is_asked_for(tmp_path: Path) -> None:
    programs = {"p": {"signature": "context, question -> answer"}}
    call = {"program_id": "p", "inputs": SKY}
    with LoopbackOpenAI.open() as server:
        for cache in (False, True):
            folder = tmp_path / str(cache)
            settings = {**loopback_settings(server), "programs": programs, "cache": cache}
            async with dspy_pool(settings, env={"DSPY_CACHEDIR": str(folder)}) as pool:
                server.requests.clear()
                first = await pool.call("execute_program", call)
                second = await pool.call("execute_program", call)
                assert first["outputs"] == second["outputs"] == {"answer": "green"}
                assert len(server.requests) == (1 if cache else 2)
                if cache:  # nor does a worker that comes later ask again
                    await kill_all(pool)
                    await pool.call("execute_program", call, idempotent=True)
                    assert len(server.requests) == 1
                    assert second["usage"]["total_tokens"] == 0  # nothing was used
            files = [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []
            assert bool(files) is cache
