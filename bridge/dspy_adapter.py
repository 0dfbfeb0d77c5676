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

**The pool says which model.** Users' modules often call `dspy.configure` when they are imported. Every
run takes place under the pool's own settings, so that this cannot put another model in the place of
the configured one, nor hide what a run uses. A predictor that has a model of its own keeps it, and
where the pool has no model, that of the module counts.

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

_OF_THE_MODEL = ("api_base", "api_key", "base_url", "engine", "headers", "timeout")
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

    def describe(self, program_id: str) -> dict[str, Any]:
        """As callers see it."""
        return {"program_id": program_id, "inputs": self.inputs, "outputs": self.outputs}

    def check(self, program_id: str, inputs: dict[str, Any]) -> None:
        """DSPy itself only logs a warning about fields that are missing or too many."""
        if not isinstance(inputs, dict):
            raise TypeError(
                f"the inputs of program {program_id!r} are a {type(inputs).__name__}; "
                f"they must be a dict of: {', '.join(self.inputs or self.required) or 'whatever it takes'}"
            )
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
        self._model: str | None = None
        self._lm: dspy.LM | None = None
        self._cache = bool(settings.get("cache"))
        if settings.get("lm") is None and settings.get("lm_options"):
            raise ConfigError(f"settings['lm_options'] needs settings['lm'], which must be {_SETTINGS['lm'][1]}")
        if settings.get("lm") is not None:
            self._configure(settings["lm"], settings.get("lm_options") or {}, self._cache)
        else:
            dspy.configure_cache(enable_disk_cache=self._cache, enable_memory_cache=self._cache)
        names = list(inspect.signature(self.create_program).parameters)[1:]
        for program_id, arguments in (settings.get("programs") or {}).items():
            if not isinstance(arguments, dict) or not set(arguments) <= set(names):
                given = ", ".join(map(str, arguments)) if isinstance(arguments, dict) else type(arguments).__name__
                raise ConfigError(
                    f"settings['programs'][{program_id!r}] has {given}; it must be a dict with some of: {', '.join(names)}"
                )
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
    def configure_lm(
        self, model: str, options: dict[str, Any] | None = None, cache: bool | None = None
    ) -> dict[str, Any]:
        """Use another model from here on, in all workers.

        Args:
            model: "embedded", or a model as `dspy.LM` takes it.
            options: other arguments of `dspy.LM`, such as `api_base`, `api_key`, `temperature`.
            cache: whether to use DSPy's cache; default: what the pool's settings say.
        """
        if cache is not None and not isinstance(cache, bool):
            raise ConfigError(f"cache is {cache!r}; it must be {_SETTINGS['cache'][1]}")
        self._configure(model, {} if options is None else options, self._cache if cache is None else cache)
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
            if kind != "predict" or instructions is not None or tools:
                raise ConfigError(
                    f"program {program_id!r} has a factory; kind, instructions and tools only go with a signature"
                )
            program = _from_factory(program_id, factory)
        else:
            program = _from_signature(program_id, str(signature), kind, instructions, tools or [])
        if load is not None:
            _load(program, program_id, load)
        self._programs[program_id] = program
        return program.describe(program_id)

    @command(idempotent=True)
    def list_programs(self) -> list[dict[str, Any]]:
        """All programs of this worker by id, each as `create_program` returns it."""
        return [self._programs[program_id].describe(program_id) for program_id in sorted(self._programs)]

    @command
    def execute_program(
        self, program_id: str, inputs: dict[str, Any], options: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Run a program.

        Args:
            program_id: which one.
            inputs: its input fields by name.
            options: what to ask of the pool's model in this run only, such as `temperature`,
                `max_tokens` or `num_retries`.

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
        # Module histories off; the one that is left is read and emptied by every run.
        ours: dict[str, Any] = {"disable_history": False, "max_history_size": 0}
        if options is not None and options != {}:
            ours["lm"] = self._with_options(program_id, program, options)
        elif self._lm is not None:
            ours["lm"] = self._lm
        GLOBAL_HISTORY.clear()
        try:
            with dspy.context(**ours):
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
        if not isinstance(options, dict):
            raise ConfigError(f"the options of model {model!r} are a {type(options).__name__}; they must be a dict")
        for name, instead in (("model", "the model itself"), ("cache", "`cache`, beside the options")):
            if name in options:
                raise ConfigError(f"the options of model {model!r} have {name!r}; say it with {instead}")
        if model == MODEL:
            if options:
                raise ConfigError(f"the embedded model has no options, and was given: {', '.join(sorted(options))}")
            lm = dspy.LM(MODEL, engine=Engine(), cache=False)
        else:
            lm = dspy.LM(model, cache=cache, **options)
        # The cache of DSPy and that of a model are two switches; only both together do something.
        dspy.configure_cache(enable_disk_cache=cache, enable_memory_cache=cache)
        dspy.configure(lm=lm)
        self._model, self._lm = model, lm

    def _with_options(self, program_id: str, program: _Program, options: dict[str, Any]) -> dspy.LM:
        """The pool's model, asked in another way. What would have no effect is refused."""
        where = f"the options of a run of program {program_id!r}"
        if not isinstance(options, dict):
            raise ConfigError(
                f"{where} are a {type(options).__name__}; they must be a dict, such as {{'temperature': 1}}"
            )
        if self._lm is None:
            raise ConfigError(f"{where} need a model; choose one with the settings' `lm` or with configure_lm")
        if self._model == MODEL:
            raise ConfigError(f"the embedded model has no options, and was given: {', '.join(map(str, options))}")
        if any(predictor.lm is not None for predictor in program.module.predictors()):
            raise ConfigError(f"{where} would not reach all of it: it has predictors with a model of their own")
        wrong = [str(name) for name in options if not _for_a_run(name, self._lm)]
        if wrong:
            raise ConfigError(
                f"{where} have {', '.join(wrong)}, which belongs to the model and not to a run; use configure_lm"
            )
        return self._lm.copy(**options)


def _for_a_run(name: object, lm: dspy.LM) -> bool:
    """Whether this is a parameter of requests: what is an attribute of the model makes it another one."""
    return name == "num_retries" or (isinstance(name, str) and name not in _OF_THE_MODEL and not hasattr(lm, name))


def _from_signature(program_id: str, signature: str, kind: str, instructions: str | None, tools: list[str]) -> _Program:
    if kind not in _KINDS:
        raise ConfigError(f"kind of program {program_id!r} is {kind!r}; it must be one of: {', '.join(_KINDS)}")
    if not isinstance(tools, list):
        raise ConfigError(
            f"tools of program {program_id!r} is a {type(tools).__name__}; it must be a list of 'package.module:function'"
        )
    if tools and kind != "react":
        raise ConfigError(f"program {program_id!r} has tools, which only the kind 'react' uses")
    make: Any = dspy.Signature  # its metaclass makes a class of it, which type checkers do not see
    try:
        made = make(signature, instructions) if instructions else make(signature)
    except Exception as error:
        raise ConfigError(
            f"the signature of program {program_id!r} is {signature!r}, which DSPy does not understand: {error}"
        ) from error
    module: dspy.Module
    if kind == "react":
        module = dspy.ReAct(made, tools=[_function(program_id, "tool", tool) for tool in tools])
    else:
        module = dspy.ChainOfThought(made) if kind == "chain_of_thought" else dspy.Predict(made)
    inputs, outputs = list(made.input_fields), list(made.output_fields)
    return _Program(module, inputs, inputs, outputs)


def _from_factory(program_id: str, factory: str) -> _Program:
    module: Any = _function(program_id, "factory", factory)()
    if not isinstance(module, dspy.Module):
        raise ConfigError(
            f"the factory {factory!r} of program {program_id!r} returned a {type(module).__name__}; "
            "it must return a dspy.Module"
        )
    predictors: list[Any] = module.predictors()
    outputs = list(predictors[-1].signature.output_fields) if predictors else []
    forward = getattr(type(module), "forward", None)  # of the class: DSPy warns about that of an object
    if forward is None:
        raise ConfigError(
            f"the factory {factory!r} of program {program_id!r} returned a {type(module).__name__}, which has no "
            "method forward; a dspy.Module needs one"
        )
    signature = _signature_of(module, forward)
    if signature is not None:
        fields = signature.input_fields
        return _Program(module, list(fields), [name for name in fields if fields[name].is_required()], outputs)
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = list(inspect.signature(forward).parameters.values())[1:]
    known = [parameter for parameter in parameters if parameter.kind in named]
    required = [parameter.name for parameter in known if parameter.default is parameter.empty]
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    return _Program(module, None if anything else [parameter.name for parameter in known], required, outputs)


def _signature_of(module: Any, forward: object) -> Any:
    """The signature of one of DSPy's own modules, whose `forward(**kwargs)` does not show what it takes."""
    if forward is dspy.Predict.forward or forward is dspy.ReAct.forward:
        return module.signature
    return module.predict.signature if forward is dspy.ChainOfThought.forward else None


def _function(program_id: str, what: str, reference: str) -> Callable[..., object]:
    """What a factory or a tool names; what is wrong with a name does not say whose it is."""
    allowed = "it must be 'package.module:function'"
    if not isinstance(reference, str):
        raise ConfigError(f"the {what} of program {program_id!r} is {reference!r}; {allowed}")
    try:
        found: object = functions.resolve(reference)
    except ModuleNotFoundError as error:
        module = reference.partition(":")[0]
        if not f"{module}.".startswith(f"{error.name}."):
            raise  # the module is there; it is one that it imports itself which is not
        raise ConfigError(
            f"the {what} {reference!r} of program {program_id!r} was not found: {error}; {allowed}"
        ) from error
    except ConfigError as error:
        raise ConfigError(
            f"the {what} {reference!r} of program {program_id!r} was not found: {error}; {allowed}"
        ) from error
    if not callable(found):
        raise ConfigError(f"the {what} {reference!r} of program {program_id!r} is a {type(found).__name__}; {allowed}")
    return found


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
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{path!r} does not fit program {program_id!r}: {type(error).__name__}: {error}. "
            "Was it saved by a program of the same shape?"
        ) from error


def _plain(prediction: Any) -> Any:
    """The fields of a prediction as plain data: bytes as base64 (URL-safe), what has no such form as text."""
    fields: Any = prediction.toDict() if isinstance(prediction, dspy.Prediction) else {"result": prediction}
    return pydantic_core.to_jsonable_python(fields, serialize_unknown=True, bytes_mode="base64")


def _used(history: list[dict[str, Any]]) -> dict[str, Any]:
    """The totals of the model calls of one run."""
    usage = dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), 0)
    for entry in history:
        reported = dict(entry.get("usage") or {})
        for name in usage:
            usage[name] += int(reported.get(name) or 0)
    costs = [cost for entry in history if (cost := entry.get("cost")) is not None]
    known = len(costs) == len(history) > 0
    return {"usage": usage, "cost": sum(costs) if known else None, "calls": len(history)}
