"""The logic of the dspy adapter, without a process around it; `tests/dspy` has it in the workers of pools.

The adapter runs in the thread that imports DSPy, as in a worker. What it configures is taken back.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy.clients.base_lm import GLOBAL_HISTORY
from dspy.lm15 import Request

from remuda.bridge.dspy_adapter import DSPyAdapter
from remuda.bridge.embedded import Engine
from remuda.statemachines.errors import ConfigError

SKY = {"context": "The sky is green. Cats have 4 legs.", "question": "Which color has the sky?"}
GREEN = "The sky is green."
QA = "context, question -> answer"

MODULE = "dspy_adapter_programs"
PROGRAMS = """
import dspy

from remuda.bridge.embedded import Engine


class Mine(Engine):
    def complete(self, request):
        raise AssertionError("the model of the module was asked")


mine = dspy.LM("mine", engine=Mine(), cache=False, num_retries=0)


class Toned(dspy.Signature):
    context: str = dspy.InputField()
    tone: str = dspy.InputField(default="kind")
    answer: str = dspy.OutputField()


class Positional(dspy.Module):
    def forward(self, *rest, question, tone="kind"):
        return dspy.Prediction(answer=f"{question} {tone}")


class Anything(dspy.Module):
    def forward(self, question, **rest):
        return dspy.Prediction(answer=[question, *sorted(rest)])


class Fails(dspy.Module):
    def __init__(self):
        super().__init__()
        self.step = dspy.Predict("context, question -> answer")

    def forward(self, context, question):
        self.step(context=context, question=question)
        raise LookupError("after a call of the model")


class Returns(dspy.Module):
    def forward(self, value):
        return dspy.Prediction(value=value)


predict = lambda: dspy.Predict("context, question -> answer")
chain = lambda: dspy.ChainOfThought("context, question -> answer")
react = lambda: dspy.ReAct("context, question -> answer", tools=[])
toned = lambda: dspy.Predict(Toned)


def configures():
    dspy.configure(lm=mine, disable_history=True, max_history_size=5)
    return predict()


def own():
    module = predict()
    module.set_lm(mine)
    return module
"""


class Recorder(Engine):
    """The embedded model, and what it was asked."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def complete(self, request: Request) -> Any:
        self.requests.append(request)
        return super().complete(request)

    @property
    def temperatures(self) -> list[float | None]:
        return [request.config.temperature for request in self.requests]


@pytest.fixture
def engine() -> Recorder:
    return Recorder()


@pytest.fixture
def adapter(engine: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DSPyAdapter]:
    (tmp_path / f"{MODULE}.py").write_text(PROGRAMS)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = {name: dspy.settings[name] for name in ("lm", "disable_history", "max_history_size")}
    adapter = DSPyAdapter()
    adapter.setup({"lm": "recorded", "lm_options": {"engine": engine, "temperature": 0.5}})
    yield adapter
    adapter.teardown()
    sys.modules.pop(MODULE, None)
    dspy.configure(**before)
    assert GLOBAL_HISTORY == []


def by_factory(adapter: DSPyAdapter, name: str, **arguments: Any) -> dict[str, Any]:
    return adapter.create_program(name, factory=f"{MODULE}:{name}", **arguments)


# ── Which programs there are ────────────────────────────────────────────────────────────────────


def test_the_programs_are_listed_as_they_were_created(adapter: DSPyAdapter) -> None:
    assert adapter.list_programs() == []
    second = adapter.create_program("b", signature=QA)
    first = adapter.create_program("a", signature="text -> summary", kind="chain_of_thought")
    third = by_factory(adapter, "Anything")
    assert adapter.list_programs() == [third, first, second]  # by id
    assert first == {"program_id": "a", "inputs": ["text"], "outputs": ["summary"]}
    replaced = adapter.create_program("b", signature="x -> y")
    assert adapter.list_programs() == [third, first, replaced]
    assert adapter.delete_program("a") is True
    assert adapter.list_programs() == [third, replaced]
    assert adapter.ping()["programs"] == ["Anything", "b"]


def test_a_program_that_could_not_be_made_does_not_replace_one(adapter: DSPyAdapter) -> None:
    made = adapter.create_program("p", signature=QA)
    for wrong in ({"signature": "a b"}, {"signature": "a -> b", "load": "/nowhere.json"}, {"factory": f"{MODULE}:no"}):
        with pytest.raises(ConfigError):
            adapter.create_program("p", **wrong)  # type: ignore[arg-type]
    assert adapter.list_programs() == [made]
    assert adapter.execute_program("p", SKY)["outputs"] == {"answer": GREEN}


# ── What goes in ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "inputs", "accepted", "refused"),
    [
        ("predict", ["context", "question"], SKY, {"context": ""}),
        ("chain", ["context", "question"], SKY, {"context": ""}),
        ("react", ["context", "question"], SKY, {**SKY, "tone": "odd"}),
        ("toned", ["context", "tone"], {"context": GREEN}, {"tone": "odd"}),
        ("toned", ["context", "tone"], {"context": GREEN, "tone": "odd"}, {}),
        ("Positional", ["question", "tone"], {"question": "q"}, {"question": "q", "rest": 1}),
        ("Positional", ["question", "tone"], {"question": "q", "tone": "odd"}, {"tone": "odd"}),
        ("Anything", None, {"question": "q", "more": 1}, {"more": 1}),
    ],
)
def test_the_inputs_of_a_users_module(
    adapter: DSPyAdapter,
    engine: Recorder,
    name: str,
    inputs: list[str] | None,
    accepted: dict[str, Any],
    refused: dict[str, Any],
) -> None:
    assert by_factory(adapter, name)["inputs"] == inputs
    with pytest.raises(ValueError, match=f"the inputs of program '{name}' do not fit"):
        adapter.execute_program(name, refused)
    assert engine.requests == []  # before anything was asked
    assert adapter.execute_program(name, accepted)["outputs"]["answer"]


# ── Which model, and how it is asked ────────────────────────────────────────────────────────────


def test_the_model_is_the_pools_whatever_a_module_configures(adapter: DSPyAdapter, engine: Recorder) -> None:
    by_factory(adapter, "configures")
    assert dspy.settings.lm.model == "mine"
    for _ in range(3):
        run = adapter.execute_program("configures", SKY)
        assert run["outputs"] == {"answer": GREEN}
        assert run["calls"] == 1
        assert run["usage"]["total_tokens"] > 0
    assert len(engine.requests) == 3
    assert GLOBAL_HISTORY == []
    module = adapter._programs["configures"].module
    assert module.history == engine_history(adapter) == []


def engine_history(adapter: DSPyAdapter) -> list[Any]:
    assert adapter._lm is not None
    return adapter._lm.history


def test_a_predictor_keeps_a_model_of_its_own(adapter: DSPyAdapter, engine: Recorder) -> None:
    by_factory(adapter, "own")
    with pytest.raises(Exception, match="the model of the module was asked"):
        adapter.execute_program("own", SKY)
    assert engine.requests == []


def test_without_a_model_that_of_the_module_counts(adapter: DSPyAdapter, engine: Recorder) -> None:
    bare = DSPyAdapter()
    bare.setup({})
    assert bare.ping()["lm"] is None
    by_factory(bare, "configures")
    with pytest.raises(Exception, match="the model of the module was asked"):
        bare.execute_program("configures", SKY)
    with pytest.raises(ConfigError, match="need a model; choose one with the settings' `lm` or with configure_lm"):
        bare.execute_program("configures", SKY, {"temperature": 1})


def test_a_run_that_fails_leaves_no_history(adapter: DSPyAdapter, engine: Recorder) -> None:
    by_factory(adapter, "Fails")
    with pytest.raises(LookupError, match="after a call"):
        adapter.execute_program("Fails", SKY)
    assert len(engine.requests) == 1
    assert GLOBAL_HISTORY == []
    adapter.create_program("p", signature=QA)
    assert adapter.execute_program("p", SKY)["calls"] == 1


def test_options_are_for_one_run(adapter: DSPyAdapter, engine: Recorder) -> None:
    adapter.create_program("p", signature=QA)
    adapter.create_program("r", signature=QA, kind="react")
    plain = adapter.execute_program("p", SKY)
    run = adapter.execute_program("p", SKY, {"temperature": 0.9, "max_tokens": 7, "num_retries": 0})
    assert run == plain
    assert engine.requests[1].config.max_tokens == 7
    adapter.execute_program("p", SKY, {})
    adapter.execute_program("p", SKY, None)
    assert engine.temperatures == [0.5, 0.9, 0.5, 0.5]
    assert engine.requests[2].config.max_tokens == engine.requests[0].config.max_tokens != 7
    adapter.execute_program("r", SKY, {"temperature": 0.7})
    assert engine.temperatures[4:] == [0.7, 0.7]  # all calls of the run
    assert engine_history(adapter) == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "the options of a run of program 'p' are a list; they must be a dict"),
        ("hot", "are a str; they must be a dict"),
        ({"api_key": "k", "temperature": 1}, "have api_key, which belongs to the model"),
        ({"api_base": "http://127.0.0.1"}, "have api_base, which belongs to the model"),
        ({"engine": 1, "model": "x", "cache": True}, "have engine, model, cache, which belongs"),
        ({"history": []}, "have history"),
        ({"kwargs": {}}, "have kwargs"),
        ({1: 2}, "have 1"),
    ],
)
def test_options_that_are_none(adapter: DSPyAdapter, engine: Recorder, options: Any, expected: str) -> None:
    adapter.create_program("p", signature=QA)
    with pytest.raises(ConfigError) as caught:
        adapter.execute_program("p", SKY, options)
    assert expected in str(caught.value)
    assert "'k'" not in str(caught.value)
    assert engine.requests == []


def test_options_that_would_have_no_effect(adapter: DSPyAdapter) -> None:
    by_factory(adapter, "own")
    with pytest.raises(ConfigError, match="predictors with a model of their own"):
        adapter.execute_program("own", SKY, {"temperature": 1})
    adapter.create_program("p", signature=QA)
    adapter.configure_lm("embedded")
    with pytest.raises(ConfigError, match="the embedded model has no options, and was given: temperature"):
        adapter.execute_program("p", SKY, {"temperature": 1})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"cache": True}, "the options of model 'recorded' have 'cache'; say it with `cache`, beside the options"),
        ({"model": "x"}, "the options of model 'recorded' have 'model'; say it with the model itself"),
    ],
)
def test_what_has_a_place_of_its_own_is_no_option(adapter: DSPyAdapter, options: dict[str, Any], expected: str) -> None:
    for attempt in (
        lambda: adapter.configure_lm("recorded", options),
        lambda: DSPyAdapter().setup({"lm": "recorded", "lm_options": options}),
    ):
        with pytest.raises(ConfigError) as caught:
            attempt()
        assert expected in str(caught.value)


def test_the_cache_is_switched_in_both_places(adapter: DSPyAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    """DSPy has a switch for its cache, and one for each model."""
    switched: list[tuple[bool, bool]] = []

    def configure_cache(*, enable_disk_cache: bool, enable_memory_cache: bool) -> None:
        switched.append((enable_disk_cache, enable_memory_cache))

    monkeypatch.setattr(dspy, "configure_cache", configure_cache)
    for settings, cache, expected in [
        ({}, None, False),
        ({}, True, True),
        ({"cache": True}, None, True),
        ({"cache": True}, False, False),
    ]:
        adapter.setup({"lm": "recorded", "lm_options": {"engine": Recorder()}, **settings})
        assert switched.pop() == (bool(settings),) * 2
        adapter.configure_lm("recorded", {"engine": Recorder()}, cache)
        assert switched.pop() == (expected, expected)
        assert dspy.settings.lm.cache is expected
    adapter.setup({"cache": True})
    assert switched.pop() == (True, True)
    assert switched == []
    with pytest.raises(ConfigError, match="cache is 'yes'; it must be true or false"):
        adapter.configure_lm("recorded", None, "yes")  # type: ignore[arg-type]


# ── What comes out ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text", "text"),
        (7, 7),
        (None, None),
        ((1, 2.5), [1, 2.5]),
        ({1: {"a"}}, {"1": ["a"]}),
        (b"\xff\x00", "_wA="),
        (b"text", "dGV4dA=="),
        (Path("a/b"), "a/b"),
        (object, "<class 'object'>"),
        (dspy.History(messages=[{"a": "b"}]), {"messages": [{"a": "b"}]}),
    ],
)
def test_outputs_are_plain_data(adapter: DSPyAdapter, value: object, expected: object) -> None:
    by_factory(adapter, "Returns")
    run = adapter.execute_program("Returns", {"value": value})
    assert run["outputs"] == {"value": expected}
    assert (run["calls"], run["cost"]) == (0, None)
