"""What was configured and created once is there in every worker, whenever it was started."""

from __future__ import annotations

import pytest

from remuda.statemachines.errors import RemoteError

from .loopback_openai import LoopbackOpenAI
from .pools import CONTEXT, EMBEDDED, GREEN, KEY, SKY, dspy_pool, kill_all

PROGRAM = {"program_id": "p", "signature": "context, question -> answer"}
RUN = {"program_id": "p", "inputs": SKY}


async def test_a_new_generation_has_the_programs_and_the_model() -> None:
    with LoopbackOpenAI.open() as server:
        async with dspy_pool(EMBEDDED, workers=2) as pool:
            await pool.call("create_program", PROGRAM)
            run = await pool.call("execute_program", RUN)
            assert run["outputs"] == {"answer": GREEN}
            options = {"api_base": server.api_base, "api_key": KEY}
            await pool.call("configure_lm", {"model": "openai/first", "options": options})
            await pool.call("configure_lm", {"model": "openai/second", "options": options})
            killed = await kill_all(pool)
            assert len(killed) == 2
            run = await pool.call("execute_program", RUN, idempotent=True)
            assert run["outputs"] == {"answer": "green"}
            async with pool.checkout(timeout=60) as one, pool.checkout(timeout=60) as other:  # who are just coming up
                for worker in (one, other):
                    ping = await worker.call("ping")
                    assert ping["pid"] not in killed
                    assert ping["lm"] == "openai/second"
                    assert ping["programs"] == ["p"]
                    assert (await worker.call("execute_program", RUN))["outputs"] == {"answer": "green"}
            assert [request["model"] for request in server.requests] == ["second"] * 3
            assert server.authorizations == [f"Bearer {KEY}"] * 3


async def test_what_was_deleted_does_not_come_back() -> None:
    async with dspy_pool({**EMBEDDED, "programs": {"of-the-settings": {"signature": "a -> b"}}}) as pool:
        await pool.call("create_program", PROGRAM)
        await pool.call("create_program", {**PROGRAM, "program_id": "kept"})
        assert await pool.call("delete_program", {"program_id": "p"}) is True
        assert await pool.call("delete_program", {"program_id": "p"}) is False
        for restart in (False, True):
            killed = await kill_all(pool) if restart else set[int]()
            ping = await pool.call("ping")
            assert ping["programs"] == ["kept", "of-the-settings"]
            assert ping["pid"] not in killed
            with pytest.raises(
                RemoteError, match="there is no program 'p'; there are: kept, of-the-settings"
            ) as caught:
                await pool.call("execute_program", RUN)
            assert isinstance(caught.value, LookupError)
        await pool.call("create_program", PROGRAM)
        assert (await pool.call("ping"))["programs"] == ["kept", "of-the-settings", "p"]


async def test_both_workers_know_what_was_told_once() -> None:
    async with dspy_pool(EMBEDDED, workers=2) as pool:
        await pool.call("create_program", PROGRAM)
        async with pool.checkout() as one, pool.checkout() as other:
            assert one.slot != other.slot
            for worker in (one, other):
                run = await worker.call("execute_program", RUN)
                assert run["outputs"] == {"answer": GREEN}
        await pool.call("create_program", {"program_id": "p", "signature": "context -> summary"})  # replaced
        async with pool.checkout() as one, pool.checkout() as other:
            for worker in (one, other):
                run = await worker.call("execute_program", {"program_id": "p", "inputs": {"context": CONTEXT}})
                assert list(run["outputs"]) == ["summary"]
        await pool.call("delete_program", {"program_id": "p"})
        async with pool.checkout() as one, pool.checkout() as other:
            for worker in (one, other):
                assert (await worker.call("ping"))["programs"] == []
