"""What is refused, and that the refusal names the thing and what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from remuda.statemachines.errors import PoolStartError

from .pools import CONTEXT, EMBEDDED, KEY, SKY, dspy_pool, refused

KINDS = ("predict", "chain_of_thought", "react")
MODULE = "dspy_test_programs"
SIGNATURE = {"program_id": "x", "signature": "a -> b"}
REACT = {**SIGNATURE, "kind": "react"}
BY_FACTORY = {"program_id": "x", "factory": f"{MODULE}:brief"}

SETTINGS: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"model": "embedded"}, ("settings['model']", "lm, lm_options, cache, programs")),
    ({"lm": 7}, ("settings['lm']", "int", "'embedded'", "openai/")),
    ({"lm": ""}, ("the model is ''", "'embedded'", "openai/")),
    ({"lm": "openai/x", "lm_options": ["api_key"]}, ("settings['lm_options']", "list", "a dict")),
    ({"lm": "embedded", "lm_options": {"temperature": 1}}, ("embedded", "no options", "temperature")),
    ({"lm_options": {"temperature": 1}}, ("settings['lm_options']", "needs settings['lm']", "'embedded'")),
    ({"cache": "yes"}, ("settings['cache']", "str", "true or false")),
    ({"programs": ["p"]}, ("settings['programs']", "list", "a dict")),
    ({"programs": {"p": "a -> b"}}, ("settings['programs']['p']", "str", "a dict", "signature", "factory")),
    ({"programs": {"p": {"sign": "a -> b"}}}, ("settings['programs']['p']", "sign;", "signature", "factory")),
    ({"programs": {"p": {"signature": "a b"}}}, ("the signature of program 'p'", "'a b'", "->")),
]

ARGUMENTS: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    ("create_program", {"program_id": "x"}, ("'x'", "a signature or a factory")),
    ("create_program", {**SIGNATURE, "factory": f"{MODULE}:brief"}, ("'x'", "a signature or a factory")),
    ("create_program", {**SIGNATURE, "program_id": ""}, ("program_id is ''", "not empty")),
    ("create_program", {**SIGNATURE, "program_id": 3}, ("program_id is 3", "not empty")),
    ("create_program", {**SIGNATURE, "colour": 1}, ("colour", "signature", "factory")),
    ("create_program", {**SIGNATURE, "signature": "a b"}, ("the signature of program 'x'", "'a b'", "->")),
    ("create_program", {**SIGNATURE, "signature": "a -> b: Nope"}, ("the signature of program 'x'", "Nope")),
    ("create_program", {**SIGNATURE, "kind": "poem"}, ("kind of program 'x'", "'poem'", *KINDS)),
    ("create_program", {**SIGNATURE, "tools": [f"{MODULE}:search"]}, ("'x' has tools", "'react'")),
    ("create_program", {**REACT, "tools": f"{MODULE}:search"}, ("tools of program 'x'", "str", "a list")),
    ("create_program", {**REACT, "tools": [3]}, ("the tool of program 'x' is 3", "package.module:function")),
    ("create_program", {**REACT, "tools": [f"{MODULE}:nope"]}, (f"{MODULE}:nope", "'x'", "package.module:function")),
    ("create_program", {**REACT, "tools": ["nowhere:f"]}, ("nowhere:f", "'x'", "package.module:function")),
    ("create_program", {**REACT, "tools": [f"{MODULE}:not_callable"]}, (f"{MODULE}:not_callable", "'x'", "int")),
    ("create_program", {**BY_FACTORY, "factory": MODULE}, (f"'{MODULE}'", "'x'", "package.module:function")),
    ("create_program", {**BY_FACTORY, "factory": "nowhere:f"}, ("nowhere:f", "'x'", "package.module:function")),
    ("create_program", {**BY_FACTORY, "factory": f"{MODULE}:not_callable"}, ("not_callable", "'x'", "int")),
    ("create_program", {**BY_FACTORY, "factory": f"{MODULE}:no_module"}, ("no_module", "'x'", "dict", "dspy.Module")),
    ("create_program", {**BY_FACTORY, "factory": f"{MODULE}:no_forward"}, ("no_forward", "'x'", "forward")),
    ("create_program", {**BY_FACTORY, "kind": "react"}, ("'x' has a factory", "kind", "signature")),
    ("create_program", {**BY_FACTORY, "instructions": "Be kind."}, ("'x' has a factory", "instructions", "signature")),
    ("create_program", {**BY_FACTORY, "tools": [f"{MODULE}:search"]}, ("'x' has a factory", "tools", "signature")),
    ("create_program", {**BY_FACTORY, "load": "/nowhere/p.json"}, ("'x'", "'/nowhere/p.json'", "there is no file")),
    ("create_program", {**BY_FACTORY, "load": "/nowhere/p.pkl"}, ("'x'", "'/nowhere/p.pkl'", ".json")),
    ("configure_lm", {"model": ""}, ("the model is ''", "'embedded'", "openai/")),
    ("configure_lm", {"model": None}, ("the model is None", "'embedded'", "openai/")),
    ("configure_lm", {"model": "embedded", "options": {"n": 1}}, ("embedded", "no options", "n")),
    ("configure_lm", {"model": "openai/x", "options": [KEY]}, ("'openai/x'", "list", "a dict")),
    ("configure_lm", {"model": "openai/x", "options": {"api_key": KEY, "num_retries": -1}}, ("num_retries", "nonneg")),
    ("execute_program", {"program_id": "nope", "inputs": SKY}, ("'nope'", "there are: brief, qa", "create_program")),
    ("execute_program", {"program_id": "qa", "inputs": [1]}, ("'qa'", "list", "a dict of: context, question")),
    ("execute_program", {"program_id": "qa", "inputs": None}, ("'qa'", "NoneType", "a dict of: context, question")),
    ("execute_program", {"program_id": "qa", "inputs": {}}, ("missing: context, question",)),
    (
        "execute_program",
        {"program_id": "qa", "inputs": {"context": CONTEXT, "k": 1}},
        ("'qa'", "missing: question", "unknown: k", "it takes: context, question"),
    ),
    ("execute_program", {"program_id": "brief", "inputs": {"question": "?"}}, ("'brief'", "missing: context)")),
    (
        "execute_program",
        {"program_id": "brief", "inputs": {"context": "", "j": 1, "k": 2}},
        ("'brief'", "(unknown: j, k)", "it takes: context, question"),
    ),
]


async def test_settings() -> None:
    async with dspy_pool({}, adapter="dspy_test_probe:Probe") as pool:
        for settings, expected in SETTINGS:
            said = await pool.call("try_setup", {"settings": settings})
            assert said.startswith("ConfigError: "), settings
            assert [part for part in expected if part not in said] == [], said
        for settings in ({}, {"lm": None, "lm_options": None, "cache": None, "programs": None}, EMBEDDED):
            assert await pool.call("try_setup", {"settings": settings}) == "accepted"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"model": "embedded"}, "settings['model'] is unknown to the dspy adapter; it has: lm, lm_options, cache"),
        ({"lm": "openai/x", "lm_options": {"api_key": KEY, "num_retries": -1}}, "num_retries must be"),
    ],
)
async def test_a_pool_with_wrong_settings_does_not_start(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(PoolStartError) as caught:
        async with dspy_pool(settings):
            raise AssertionError("it has started")
    assert expected in str(caught.value)
    assert KEY not in repr((str(caught.value), caught.value.as_dict(), caught.value.last_death))


async def test_arguments(tmp_path: Path) -> None:
    programs = {"qa": {"signature": "context, question -> answer"}, "brief": {"factory": f"{MODULE}:brief"}}
    async with dspy_pool({**EMBEDDED, "programs": programs}) as pool:
        ping = await pool.call("ping")
        for command, arguments, expected in ARGUMENTS:
            error = await refused(pool, command, arguments)
            said = str(error)
            assert [part for part in expected if part not in said] == [], (command, arguments, said)
            assert KEY not in said + error.remote_traceback
        for number, content in enumerate(("", "7", "[]", "{}", "nope", '{"answer": 7, "metadata": {}}')):
            path = tmp_path / f"{number}.json"
            path.write_text(content)
            said = str(await refused(pool, "create_program", {**BY_FACTORY, "load": str(path)}))
            assert "ConfigError" in said
            assert f"{str(path)!r} does not fit program 'x'" in said
        assert await pool.call("ping") == ping  # the same worker, with the same programs and model
        run = await pool.call("execute_program", {"program_id": "qa", "inputs": SKY})
        assert run["calls"] == 1
