"""What only several workers, pools or files can show: settings of one pool are not those of another."""

from __future__ import annotations

from pathlib import Path

import pytest

from remuda.statemachines.errors import RemoteError

from .loopback_openai import LoopbackOpenAI
from .pools import EMBEDDED, GREEN, KEY, SKY, dspy_pool, kill_all, loopback_settings

PROGRAM = {"program_id": "p", "signature": "context, question -> answer"}
RUN = {"program_id": "p", "inputs": SKY}
CONFIGURES = """
import dspy

dspy.configure(lm=dspy.LM("openai/of-the-module", api_base={api_base!r}, api_key="k"), disable_history=True)


def make():
    return dspy.Predict("context, question -> answer")
"""


def databases(folder: Path) -> list[Path]:
    return list(folder.rglob("*.db"))


async def test_two_pools_do_not_know_each_other() -> None:
    with LoopbackOpenAI.open() as server:
        async with dspy_pool(EMBEDDED) as one, dspy_pool(loopback_settings(server)) as other:
            made = {pool: await pool.call("create_program", PROGRAM) for pool in (one, other)}
            also = await other.call("create_program", {**PROGRAM, "program_id": "also"})
            for restart in (False, True):
                killed = [await kill_all(pool) if restart else set[int]() for pool in (one, other)]
                run = await one.call("execute_program", RUN, idempotent=True)
                assert run["outputs"] == {"answer": GREEN}
                run = await other.call("execute_program", RUN, idempotent=True)
                assert run["outputs"] == {"answer": "green"}
                assert await one.call("list_programs") == [made[one]]
                assert await other.call("list_programs") == [also, made[other]]
                pids = {(await pool.call("ping"))["pid"] for pool in (one, other)}
                assert len(pids) == 2
                assert not pids & set().union(*killed)
            await other.call("delete_program", {"program_id": "p"})
            assert await one.call("list_programs") == [made[one]]
            assert len(server.requests) == 2


async def test_a_module_that_configures_dspy_does_not_replace_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is imported again in every new worker, after or before the journal's `configure_lm`."""
    monkeypatch.syspath_prepend(str(tmp_path))
    with LoopbackOpenAI.open() as server:
        (tmp_path / "dspy_test_configures.py").write_text(CONFIGURES.format(api_base=server.api_base))
        program = {"program_id": "p", "factory": "dspy_test_configures:make"}
        async with dspy_pool(loopback_settings(server)) as pool:
            await pool.call("create_program", program)
            for restart in (False, True):
                if restart:
                    await kill_all(pool)
                run = await pool.call("execute_program", RUN, idempotent=True)
                assert (run["calls"], run["outputs"]) == (1, {"answer": "green"})
                assert run["usage"]["total_tokens"] > 0
                assert (await pool.call("ping"))["lm"] == "openai/gpt-4o-mini"
            assert {request["model"] for request in server.requests} == {"gpt-4o-mini"}
            assert set(server.authorizations) == {f"Bearer {KEY}"}


async def test_options_of_a_run_reach_the_server_once() -> None:
    with LoopbackOpenAI.open() as server:
        settings = {
            **loopback_settings(server, temperature=0.25),
            "programs": {"p": {"signature": PROGRAM["signature"]}},
        }
        async with dspy_pool(settings) as pool:
            await pool.call("execute_program", {**RUN, "options": {"temperature": 0.75}})
            await pool.call("execute_program", RUN)
            assert [request["temperature"] for request in server.requests] == [0.75, 0.25]
            with pytest.raises(RemoteError, match="have api_base, which belongs to the model"):
                await pool.call("execute_program", {**RUN, "options": {"api_base": server.api_base}})
            assert len(server.requests) == 2


async def test_a_model_that_is_configured_with_a_cache_has_one_after_a_restart(tmp_path: Path) -> None:
    with LoopbackOpenAI.open() as server:
        settings = {**loopback_settings(server), "programs": {"p": {"signature": PROGRAM["signature"]}}}
        async with dspy_pool(settings, env={"DSPY_CACHEDIR": str(tmp_path)}) as pool:
            for _ in range(2):
                await pool.call("execute_program", RUN)
            assert len(server.requests) == 2
            assert databases(tmp_path) == []
            options = settings["lm_options"]
            await pool.call("configure_lm", {"model": "openai/gpt-4o-mini", "options": options, "cache": True})
            for restart in (False, False, True):
                if restart:
                    await kill_all(pool)
                run = await pool.call("execute_program", RUN, idempotent=True)
                assert run["outputs"] == {"answer": "green"}
                assert len(server.requests) == 3
            assert databases(tmp_path) != []
            await pool.call("configure_lm", {"model": "openai/gpt-4o-mini", "options": options})  # as the settings say
            await pool.call("execute_program", RUN)
            assert len(server.requests) == 4
