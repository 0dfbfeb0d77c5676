"""DSPy programs as the commands of a pool.

    async with remuda.open_pool(adapter="dspy", settings={"lm": "openai/gpt-4o-mini"}) as pool:
        await pool.call("create_program", {"program_id": "qa", "signature": "context, question -> answer"})
        answer = await pool.call("execute_program", {"program_id": "qa", "inputs": {...}})

A program is what DSPy users have: a signature with `predict`, `chain_of_thought` or `react`, or a
`dspy.Module` of their own, made by a function that is named "package.module:factory"; with a
compiled `program.json` loaded into it, if there is one.

Programs and the choice of model are journaled: whoever created a program once can run it in every
worker of the pool, also in those that were started later. `execute_program` is not idempotent by
itself, because a program may use tools that do things; callers who know better say `idempotent=True`.

**What a run has used** is read from DSPy's own record of its model calls, which is emptied after
every run: it would otherwise grow by every prompt. Where nobody knows the price, `cost` is None.

Settings: `lm` ("embedded", or anything that `dspy.LM` accepts), `lm_options` (its other arguments),
`cache` (DSPy's cache, off unless asked for: its files are shared by all processes of a user), and
`programs`, what is created in every worker at its start (id → the arguments of `create_program`).

This module imports DSPy, which takes more than a second. Only workers import it.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pydantic_core
from dspy.clients.base_lm import GLOBAL_HISTORY

from remuda.bridge import functions
from remuda.bridge.adapters import command
from remuda.bridge.embedded import MODEL, Engine
from remuda.statemachines.errors import ConfigError

__all__ = ["DSPyAdapter"]

_KINDS = ("predict", "chain_of_thought", "react")
_SETTINGS: dict[str, tuple[type, str]] = {
    "lm": (str, "'embedded', or a model as dspy.LM takes it, such as 'openai/gpt-4o-mini'"),
    "lm_options": (dict, "a dict of arguments of dspy.LM"),
    "cache": (bool, "true or false"),
    "programs": (dict, "a dict from program ids to arguments of create_program"),
}


class _Program:
    """A program, and the names of its fields as far as they are known."""

    def __init__(self, module: dspy.Module, inputs: list[str] | None, required: list[str], outputs: list[str]) -> None:
        self.module = module
        self.inputs = inputs  # None: it takes whatever it is given
        self.required = required
        self.outputs = outputs

    def check(self, program_id: str, inputs: dict[str, Any]) -> None:
        """DSPy itself only logs a warning about fields that are missing or too many."""
        missing = [name for name in self.required if name not in inputs]
        extra = [name for name in inputs if self.inputs is not None and name not in self.inputs]
        if missing or extra:
            wrong = [f"missing: {', '.join(missing)}"] * bool(missing) + [f"unknown: {', '.join(extra)}"] * bool(extra)
            raise ValueError(
                f"the inputs of program {program_id!r} do not fit ({'; '.join(wrong)}); "
                f"it takes: {', '.join(self.inputs or self.required)}"
            )


class DSPyAdapter:
    """The adapter called "dspy"."""

    def setup(self, settings: dict[str, Any]) -> None:
        """Configure DSPy and create the programs that the settings name."""
        self._programs: dict[str, _Program] = {}
        for name, value in settings.items():
            if name not in _SETTINGS:
                raise ConfigError(f"settings[{name!r}] is unknown to the dspy adapter; it has: {', '.join(_SETTINGS)}")
            kind, allowed = _SETTINGS[name]
            if value is not None and not isinstance(value, kind):
                raise ConfigError(f"settings[{name!r}] is a {type(value).__name__}; it must be {allowed}")
        # Module histories off; the one that is left is read and emptied by every run.
        dspy.configure(max_history_size=0)
        self._model: str | None = None
        cache = bool(settings.get("cache"))
        dspy.configure_cache(enable_disk_cache=cache, enable_memory_cache=cache)
        if settings.get("lm") is not None:
            self._configure(settings["lm"], settings.get("lm_options") or {}, cache)
        self._cache = cache
        for program_id, arguments in (settings.get("programs") or {}).items():
            self.create_program(program_id, **arguments)

    def teardown(self) -> None:
        """Let go of the programs."""
        self._programs.clear()

    # ── Commands ────────────────────────────────────────────────────────────────────────────────

    @command(idempotent=True)
    def ping(self) -> dict[str, Any]:
        """Versions, the model, the programs of this worker."""
        return {
            "status": "ok",
            "dspy": dspy.__version__,
            "lm": self._model,
            "programs": sorted(self._programs),
            "pid": os.getpid(),
        }

    @command(idempotent=True, journal=True)
    def configure_lm(self, model: str, options: dict[str, Any] | None = None) -> dict[str, Any]:
        """Use another model from here on, in all workers."""
        self._configure(model, options or {}, self._cache)
        return {"lm": self._model}

    @command(idempotent=True, journal="program_id")
    def create_program(
        self,
        program_id: str,
        signature: str | None = None,
        kind: str = "predict",
        instructions: str | None = None,
        tools: list[str] | None = None,
        factory: str | None = None,
        load: str | None = None,
    ) -> dict[str, Any]:
        """Create a program in all workers, or replace one.

        Args:
            program_id: what it shall be called.
            signature: as DSPy writes it, "context, question -> answer"; or
            factory: "package.module:function", which takes nothing and returns a `dspy.Module`.
            kind: with a signature: "predict", "chain_of_thought" or "react".
            instructions: with a signature: what the model is told about its task.
            tools: with "react": functions as "package.module:function".
            load: the path of a `program.json` that `module.save` has written.

        Returns:
            Its id and the names of its fields, `inputs` and `outputs`.
        """
        if not isinstance(program_id, str) or not program_id:
            raise ConfigError(f"program_id is {program_id!r}; it must be a text that is not empty")
        if (signature is None) == (factory is None):
            raise ConfigError(f"program {program_id!r} needs either a signature or a factory, and has both or neither")
        if factory is not None:
            program = _from_factory(program_id, factory)
        else:
            program = _from_signature(program_id, str(signature), kind, instructions, tools or [])
        if load is not None:
            _load(program, program_id, load)
        self._programs[program_id] = program
        return {"program_id": program_id, "inputs": program.inputs, "outputs": program.outputs}

    @command
    def execute_program(self, program_id: str, inputs: dict[str, Any]) -> dict[str, Any]:
        """Run a program.

        Args:
            program_id: which one.
            inputs: its input fields by name.

        Returns:
            `outputs` (its output fields as plain data), `usage` (`prompt_tokens`, `completion_tokens`,
            `total_tokens`, as far as the model reports them), `cost` (US dollars, or None where it
            is not known) and `calls` (how often the model was called).
        """
        program = self._programs.get(program_id)
        if program is None:
            known = ", ".join(sorted(self._programs)) or "none"
            raise LookupError(f"there is no program {program_id!r}; there are: {known}. Create it with create_program")
        program.check(program_id, inputs)
        GLOBAL_HISTORY.clear()
        try:
            prediction = program.module(**inputs)
            return {"outputs": _plain(prediction), **_used(GLOBAL_HISTORY)}
        finally:
            GLOBAL_HISTORY.clear()

    @command(idempotent=True, forgets="program_id")
    def delete_program(self, program_id: str) -> bool:
        """Delete a program in all workers; whether there was one."""
        return self._programs.pop(program_id, None) is not None

    # ── The model ───────────────────────────────────────────────────────────────────────────────

    def _configure(self, model: str, options: dict[str, Any], cache: bool) -> None:
        if not isinstance(model, str) or not model:
            raise ConfigError(f"the model is {model!r}; it must be {_SETTINGS['lm'][1]}")
        if model == MODEL:
            if options:
                raise ConfigError(f"the embedded model has no options, and was given: {', '.join(sorted(options))}")
            lm = dspy.LM(MODEL, engine=Engine(), cache=False)
        else:
            lm = dspy.LM(model, **{"cache": cache, **options})
        dspy.configure(lm=lm)
        self._model = model


def _from_signature(program_id: str, signature: str, kind: str, instructions: str | None, tools: list[str]) -> _Program:
    if kind not in _KINDS:
        raise ConfigError(f"kind of program {program_id!r} is {kind!r}; it must be one of: {', '.join(_KINDS)}")
    if tools and kind != "react":
        raise ConfigError(f"program {program_id!r} has tools, which only the kind 'react' uses")
    try:
        made = dspy.Signature(signature, instructions) if instructions else dspy.Signature(signature)
    except Exception as error:
        raise ConfigError(
            f"the signature of program {program_id!r} is {signature!r}, which DSPy does not understand: {error}"
        ) from error
    module: dspy.Module
    if kind == "react":
        module = dspy.ReAct(made, tools=[functions.resolve(tool) for tool in tools])
    else:
        module = dspy.ChainOfThought(made) if kind == "chain_of_thought" else dspy.Predict(made)
    inputs, outputs = list(made.input_fields), list(made.output_fields)
    return _Program(module, inputs, inputs, outputs)


def _from_factory(program_id: str, factory: str) -> _Program:
    make: Callable[[], object] = functions.resolve(factory)
    module = make()
    if not isinstance(module, dspy.Module):
        raise ConfigError(
            f"the factory {factory!r} of program {program_id!r} returned a {type(module).__name__}; "
            "it must return a dspy.Module"
        )
    predictors = module.predictors()
    outputs = list(predictors[-1].signature.output_fields) if predictors else []
    parameters = inspect.signature(module.forward).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        inputs = list(module.signature.input_fields) if isinstance(module, dspy.Predict) else None
        return _Program(module, inputs, inputs or [], outputs)
    names = [parameter.name for parameter in parameters]
    required = [parameter.name for parameter in parameters if parameter.default is parameter.empty]
    return _Program(module, names, required, outputs)


def _load(program: _Program, program_id: str, path: str) -> None:
    if Path(path).suffix != ".json":
        raise ConfigError(
            f"load of program {program_id!r} is {path!r}; it must be the path of a .json file "
            "(other forms can run code when they are loaded)"
        )
    try:
        program.module.load(path)
    except FileNotFoundError:
        raise ConfigError(f"load of program {program_id!r} is {path!r}, where there is no file") from None
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"{path!r} does not fit program {program_id!r}: {type(error).__name__}: {error}. "
            "Was it saved by a program of the same shape?"
        ) from error


def _plain(prediction: object) -> Any:
    """The fields of a prediction as plain data; what has no such form is shown as text."""
    fields = prediction.toDict() if isinstance(prediction, dspy.Prediction) else {"result": prediction}
    return pydantic_core.to_jsonable_python(fields, serialize_unknown=True)


def _used(history: list[dict[str, Any]]) -> dict[str, Any]:
    """The totals of the model calls of one run."""
    usage = dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), 0)
    for entry in history:
        reported = dict(entry.get("usage") or {})
        for name in usage:
            usage[name] += int(reported.get(name) or 0)
    costs = [entry.get("cost") for entry in history]
    known = bool(costs) and all(cost is not None for cost in costs)
    return {"usage": usage, "cost": sum(costs) if known else None, "calls": len(history)}
