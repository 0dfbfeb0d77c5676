"""The adapter that the rules run: its one command does what its call says, well or badly.

A request carries a *plan*, the name of what the worker is to do, and a token, by which its answer is
known. So whoever looks at a call knows what may come of it, and no script for workers has to be kept
in step with what callers do.

    pool.call("act", {"token": 7, "plan": "die once", "seconds": 0.0})

Each plan exists twice: here as real Python for a real process, and in `_PLAYS` as the steps of a
simulated worker. Some can only be simulated, where a worker can be made to answer a call that nobody
made. `PLANS` says for each what may come of it.

Executions are counted by a witness outside of the pool. A real worker adds a line to a file before it
does anything; a simulated one tells its `Witness`.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from remuda.bridge import messages
from remuda.bridge.adapters import command
from remuda.specs.behaviour import (
    Begin,
    Behaviour,
    CallStep,
    Command,
    Die,
    Emit,
    Finish,
    Hang,
    Reply,
    Say,
    Wait,
    argument,
)
from remuda.specs.witness import Witness
from remuda.statemachines.errors import WorkerUnfit

__all__ = ["GARBAGE", "HALF_A_FRAME", "PLANS", "Plan", "Probe", "acting", "token_of"]

GARBAGE = b"\xff" * 32
"""No frame: the length that it says is above every limit."""

HALF_A_FRAME = b"\x00\x00\x00\x08abc"


@dataclass(frozen=True)
class Plan:
    """What a call may come to, if nothing but its plan goes wrong.

    Attributes:
        answers: whether it may be answered with its token.
        raises: the type name of the exception that its caller may get from the worker.
        ends: verdicts other than "answered" that the plan itself brings about.
        ends_by_itself: whether it comes to anything, if it is left alone.
        simulated: whether it needs a simulated worker.
    """

    answers: bool = True
    raises: str = ""
    ends: frozenset[str] = frozenset()
    ends_by_itself: bool = True
    simulated: bool = False


_LOST = frozenset({"unknown"})
_VIOLATED = frozenset({"violation", "unknown"})

PLANS: Mapping[str, Plan] = {
    "answer": Plan(),
    "slow": Plan(),
    "stubborn": Plan(),
    "say": Plan(),
    "raise": Plan(answers=False, raises="ValueError"),
    "exit": Plan(answers=False, raises="SystemExit"),
    "unfit": Plan(answers=False, raises="WorkerUnfit"),
    "unserializable": Plan(answers=False, raises="SerializationError"),
    "die": Plan(answers=False, ends=_LOST),
    "die once": Plan(ends=_LOST),
    "hang": Plan(answers=False, ends_by_itself=False),
    "garbage": Plan(answers=False, ends=_VIOLATED),
    "half a frame": Plan(answers=False, ends=_LOST),
    # A worker can be killed before it begins, after it answered, or between two bytes. Here it is so
    # always; real processes are killed at moments that nobody chooses.
    "die before": Plan(answers=False, ends=frozenset({"died"}), simulated=True),
    "die before once": Plan(simulated=True),
    "die answered": Plan(simulated=True),
    "die half answered": Plan(answers=False, ends=_LOST, simulated=True),
    "answer slowly": Plan(simulated=True),
    "answer twice": Plan(ends=_VIOLATED, simulated=True),
    "answer another": Plan(answers=False, ends=_VIOLATED, simulated=True),
}
"""All plans, and what each may come to."""


def token_of(call: messages.Call) -> object:
    """By what the simulated witness tells calls apart."""
    token: object = call.args.get("token") if isinstance(call.args, dict) else None
    return ("call", call.id) if token is None else token


# ── In a real process ───────────────────────────────────────────────────────────────────────────


class Probe:
    """The adapter. Its settings: `witness`, the file to which each execution adds a line."""

    def setup(self, settings: dict[str, Any]) -> None:
        """Open the witness' file; each line is written in one piece, whoever else writes."""
        self._witness = os.open(settings["witness"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._notes: dict[str, object] = {}

    @command
    def act(self, token: int, plan: str = "answer", seconds: float = 0.0) -> object:
        """Do what the plan says; return the token, if that is part of it."""
        return self._act(token, plan, seconds)

    @command(idempotent=True)
    def act_again(self, token: int, plan: str = "answer", seconds: float = 0.0) -> object:
        """The same, for calls that may be repeated."""
        return self._act(token, plan, seconds)

    @command(journal="key")
    def note(self, key: str, value: int) -> None:
        """Remember something that every worker has to know."""
        self._notes[key] = value

    @command(forgets="key")
    def drop(self, key: str) -> None:
        """Forget it."""
        self._notes.pop(key, None)

    @command(idempotent=True)
    def noted(self, key: str) -> object:
        """What is remembered, or None."""
        return self._notes.get(key)

    def _act(self, token: int, plan: str, seconds: float) -> object:
        before = _count(self._witness, token) if plan.endswith(" once") else 0
        os.write(self._witness, f"{token}\n".encode())
        match plan:
            case "slow":
                time.sleep(seconds)
            case "stubborn":
                _sleep_on(seconds)
            case "say":
                print("a line for the log")
            case "raise":
                raise ValueError(token)
            case "exit":
                raise SystemExit(token)
            case "unfit":
                time.sleep(seconds)
                raise WorkerUnfit(str(token))
            case "unserializable":
                return object()
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "die once":
                if not before:
                    os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                while True:
                    signal.pause()
            case "garbage":
                os.write(_channel(), GARBAGE)
            case "half a frame":
                os.write(_channel(), HALF_A_FRAME)
                os._exit(5)
            case _:
                pass
        return token


def _sleep_on(seconds: float) -> None:
    """Sleep, whatever anybody says."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        try:
            time.sleep(left)
        except BaseException:
            pass


def _count(fd: int, token: int) -> int:
    with open(f"/proc/self/fd/{fd}", "rb") as file:
        return file.read().split().count(str(token).encode())


def _channel() -> int:
    """The descriptor that answers are written to, which is nobody's business."""
    import gc

    from remuda.bridge.child import Channel

    (channel,) = (each for each in gc.get_objects() if isinstance(each, Channel))
    return channel._write_fd


# ── In a simulated one ──────────────────────────────────────────────────────────────────────────


def acting(witness: Witness) -> Behaviour:
    """A simulated worker with the same commands, and no faults of its own.

    Args:
        witness: of whom it is looked up what was begun before; tokens are its keys (`token_of`).
    """
    asked: Counter[object] = Counter()

    def act(call: messages.Call) -> tuple[CallStep, ...]:
        token, args = argument(call, "token"), call.args
        plan, seconds = ("answer", 0.0) if isinstance(args, list) else (args.get("plan"), args.get("seconds", 0.0))
        asked[token] += 1  # the witness does not know of what never began
        if (plan == "die once" and witness.begun[token]) or (plan == "die before once" and asked[token] > 1):
            plan = "answer"
        steps = _PLAYS.get(plan)
        if steps is None:
            raise TypeError(f"there is no plan {plan!r}")
        times = {_ITS_TIME: Wait(seconds), _ITS_TIME_DEAF: Wait(seconds, deaf=True)}
        return tuple(times.get(step, step) if isinstance(step, Wait) else step for step in steps)

    return Behaviour(
        commands={
            "act": Command(act),
            "act_again": Command(act, idempotent=True),
            "note": Command((Begin(), Reply(_note), Finish()), journal="key"),
            "drop": Command((Begin(), Reply(_drop), Finish()), forgets="key"),
            "noted": Command((Begin(), Reply(_noted), Finish()), idempotent=True),
        }
    )


def _token(call: messages.Call, memory: dict[str, object]) -> object:
    return argument(call, "token")


def _raise_value_error(call: messages.Call, memory: dict[str, object]) -> object:
    raise ValueError(argument(call, "token"))


def _raise_system_exit(call: messages.Call, memory: dict[str, object]) -> object:
    raise SystemExit(argument(call, "token"))


def _raise_unfit(call: messages.Call, memory: dict[str, object]) -> object:
    raise WorkerUnfit(str(argument(call, "token")))


def _something_odd(call: messages.Call, memory: dict[str, object]) -> object:
    return object()


def _note(call: messages.Call, memory: dict[str, object]) -> object:
    memory[str(argument(call, "key"))] = argument(call, "value", 1)
    return None


def _drop(call: messages.Call, memory: dict[str, object]) -> object:
    memory.pop(str(argument(call, "key")), None)
    return None


def _noted(call: messages.Call, memory: dict[str, object]) -> object:
    return memory.get(str(argument(call, "key")))


_ITS_TIME = Wait(-1.0)
"""Stands for the seconds that the call asks for."""

_ITS_TIME_DEAF = Wait(-1.0, deaf=True)
"""The same, of one who does not hear an interrupt."""

_PLAYS: Mapping[str, tuple[CallStep, ...]] = {
    "answer": (Begin(), Reply(_token), Finish()),
    "slow": (Begin(), _ITS_TIME, Reply(_token), Finish()),
    "stubborn": (Begin(), _ITS_TIME_DEAF, Reply(_token), Finish()),
    "say": (Begin(), Say("a line for the log\n"), Reply(_token), Finish()),
    "raise": (Begin(), Reply(_raise_value_error), Finish()),
    "exit": (Begin(), Reply(_raise_system_exit), Finish()),
    "unfit": (Begin(), _ITS_TIME, Reply(_raise_unfit), Finish()),
    "unserializable": (Begin(), Reply(_something_odd), Finish()),
    "die": (Begin(), Die()),
    "die once": (Begin(), Die()),
    "hang": (Begin(), Hang()),
    "garbage": (Begin(), Emit(GARBAGE), Reply(_token), Finish()),
    "half a frame": (Begin(), Emit(HALF_A_FRAME), Die(5)),
    "die before": (Die(),),
    "die before once": (Die(),),
    "die answered": (Begin(), Reply(_token), Die()),
    "die half answered": (Begin(), Reply(_token, share=0.5), Die()),
    "answer slowly": (Begin(), Reply(_token, share=0.5), _ITS_TIME, Reply(_token, skip=0.5), Finish()),
    "answer twice": (Begin(), Reply(_token), Reply(_token), Finish()),
    "answer another": (Begin(), Reply(_token, shift=1000), Finish()),
}
"""The plans as plays."""
