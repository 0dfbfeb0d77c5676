"""What must be true after a cut, and whether it is.

There are two judges, who do not know of each other:

* `by_trace` believes the traces alone. A worker traces the beginning and the effect of each call itself, so
  it is known what was executed, how often and by whom. What the caller got and what the pool reported must
  agree with that, whatever was cut where.
* `by_place` knows the place of the cut and the recorded session, and says beforehand what each caller must
  get and how often the call must have begun. It has an opinion about killed and stalled workers, and about
  garbage between two messages; what comes of other garbage depends on what it happens to mean.

One thing cannot be told apart: a worker that the application kills right after it has sent the whole of a
call may be anywhere in it. Only there the pool may say "begun" of a call that had not reached its first line.
"""

from __future__ import annotations

from collections.abc import Iterator

from remuda.statemachines.effects import Verdict

from .cuts import TO_APPLICATION, TO_WORKER, Cut, Frame, Recording
from .paths import acts
from .rig import Round, Seen

__all__ = ["by_place", "by_trace", "wrong"]

_VERDICTS = {
    "value": Verdict.ANSWERED,
    "RemoteValueError": Verdict.ANSWERED,
    "OutcomeUnknown": Verdict.UNKNOWN,
    "CallTimeout": Verdict.TIMED_OUT,
    "ProtocolError": Verdict.VIOLATION,
}
"""What the pool has to have reported for each thing that a caller can get without garbage, or because of it."""

_ONLY_GARBAGE = ("SerializationError", "UnknownCommand", "RemoteError", "ProtocolError")
"""What is only ever right if garbage has come through, as a message or as none."""


def wrong(round: Round, recording: Recording) -> list[str]:
    """All that is not as it must be."""
    found = [*by_trace(round), *by_place(round, recording)]
    found += [f"another caller was harmed: {what}" for what in round.others]
    found += [f"left behind: {what}" for what in round.left]
    if round.cut is not None and not round.fired:
        found.append("the place of the cut was not reached")
    return found


# ── By what was executed ────────────────────────────────────────────────────────────────────────


def by_trace(round: Round) -> Iterator[str]:
    """Compare what callers got and what the pool reported with what was executed."""
    cut = round.cut
    garbled = cut is not None and cut.fault not in ("kill", "stall")
    touched = 0
    for call in round.calls:
        touched += call.outcome != _plain(call)
        if round.misled:
            call.late.clear()  # what a journal repeats that the adapter does not have
        for what in _of_call(call, cut, garbled):
            yield f"{call.step.name} ({call.outcome}, begun {len(call.begun)}×): {what}"
    if touched > (2 if garbled else 1) and not (garbled and cut is not None and cut.part == "boot"):
        yield f"{touched} calls were touched by one cut"
    yield from _of_state(round, garbled)


def _plain(call: Seen) -> str:
    return "RemoteValueError" if call.step.does == "fails" else "value"


def _of_call(call: Seen, cut: Cut | None, garbled: bool) -> Iterator[str]:
    begun, outcome = len(call.begun), call.outcome
    if outcome == "UnknownCommand" and garbled and not begun and not call.ended:
        return  # the garbage was the name of a command in the worker's hello, and the call never left
    if len(call.ended) != 1:
        yield f"the pool reported {len(call.ended)} outcomes"
        return
    report = call.ended[0]
    # What was executed.
    if len(set(call.begun)) != begun or len(set(call.done)) != len(call.done):
        yield f"a worker executed it twice: {call.begun}"
    if begun > 1 and not call.step.idempotent:
        yield f"it was executed {begun} times, and must not be repeated"
    if call.late:
        yield f"something was executed when it had its outcome: {call.late}"
    # What its caller got.
    if report.verdict is not _VERDICTS.get(outcome, Verdict.ANSWERED):
        yield f"the pool reported {report.verdict}"
    if outcome == "value":
        if not call.done:
            yield "it has a value without having been executed"
        if not garbled and call.value[:2] != [call.key, acts.check(call.key)]:
            yield f"it got another value: {call.value!r}"
    elif outcome == "RemoteValueError":
        if not garbled and (call.step.does != "fails" or not call.done):  # arguments can be such, too
            yield "it raised what it does not raise"
    elif outcome in _ONLY_GARBAGE:
        if not garbled:
            yield f"nobody sent garbage: {call.error}"
    elif outcome == "CallTimeout":
        if cut is None or cut.fault == "kill":
            yield "no deadline was near"
    elif outcome != "OutcomeUnknown" and not (garbled and outcome.startswith("Remote")):
        yield f"what is that? {call.error!r}"
    # Whether the evidence is right.
    if outcome in ("OutcomeUnknown", "ProtocolError") and call.step.idempotent:
        yield "it may be repeated, and was lost"
    if outcome == "OutcomeUnknown" and not begun and not _may_be_early(cut) and not garbled:
        yield "it is said to have begun, and had not"
    if report.attempts < begun:
        yield f"the pool knows of {report.attempts} attempts only"
    if report.attempts > begun and not garbled and not _may_be_early(cut):
        yield f"the pool tells of {report.attempts} attempts"
    if call.handed_over > 1:
        yield f"one cut, and it was handed over {call.handed_over} times"


def _may_be_early(cut: Cut | None) -> bool:
    """Whether the worker may have been killed between the record of a beginning and the first line of the call."""
    return cut is not None and cut.fault == "kill" and cut.direction == TO_WORKER and cut.border


def _of_state(round: Round, garbled: bool) -> Iterator[str]:
    """What a worker keeps must be what its journal says: the last that has succeeded."""
    by_name = {call.step.name: call for call in round.calls}
    keep, look = by_name.get("keep"), by_name.get("look")
    if keep is None or look is None or look.outcome != "value" or garbled:
        return
    expected = keep.key if keep.outcome == "value" else round.kept_before
    if look.value[2] != expected:
        yield f"the worker keeps {look.value[2]!r}, and {expected!r} was the last that succeeded"


# ── By the place of the cut ─────────────────────────────────────────────────────────────────────


def by_place(round: Round, recording: Recording) -> Iterator[str]:
    """Compare with what must come of a cut at this place."""
    cut = round.cut
    if cut is None or _may_be_early(cut):
        return
    if cut.fault not in ("kill", "stall"):
        in_between = cut.border and not (cut.part == "calls" and recording["calls"][cut.frame].about == "replay")
        if not (in_between and cut.fault in ("stray", "burst")):
            return  # behind what is repeated for the journal comes the call, in one piece with it
    struck, outcome, attempts = _struck(cut, recording, round)
    for call in round.calls:
        must = (outcome, attempts) if call.step.name == struck else (_plain(call), 1)
        got = (call.outcome, call.ended[0].attempts if call.ended else 0)
        if got != must:
            yield f"{call.step.name}: {got[0]} after {got[1]} attempts, and it must be {must[0]} after {must[1]}"


def _struck(cut: Cut, recording: Recording, round: Round) -> tuple[str, str, int]:
    """Which call the cut strikes, what its caller must get, and how often it must have begun."""
    if cut.fault in ("stray", "burst"):
        return "", "", 0  # what came before it counts, and nobody is given what comes behind it
    frame = recording[cut.part][cut.frame]
    call = next((call for call in round.calls if call.step.name == frame.about), None)
    if cut.fault == "kill":
        if call is None or cut.border or cut.direction == TO_WORKER:
            return "", "", 0  # not begun, or answered: whoever waits gets an answer
        return (frame.about, "value", 2) if call.step.idempotent else (frame.about, "OutcomeUnknown", 1)
    if call is not None and not cut.border:
        return frame.about, "CallTimeout", int(cut.direction == TO_APPLICATION)
    behind = _behind(cut, recording) if cut.border or frame.about == "replay" else None
    if behind is None or cut.part == "end" or (cut.part == "boot" and not cut.border):
        return "", "", 0
    return behind.about, "CallTimeout", 0


def _behind(cut: Cut, recording: Recording) -> Frame | None:
    """The next frame that is no replay: who waits for it waits for ever. None if it is nobody's but the pool's."""
    rest = list(recording[cut.part][cut.frame + 1 :])
    if cut.part == "boot":
        if rest:
            return None  # it never comes up, and that is seen
        rest = list(recording["calls"])
    frame = next((frame for frame in rest if frame.about != "replay"), None)
    return None if frame is None or frame.about in ("health", "shutdown") else frame
