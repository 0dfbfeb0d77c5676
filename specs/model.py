"""A world around the core that is small enough to be walked through completely.

The core is the real one. Around it are processes that may come up, answer, write garbage or die,
callers that make calls, hold workers and go away, and a clock that moves when nothing else does.
`actions()` are all the things that may happen next, `do` makes one happen: it feeds the core as the
runtime would, carries out what it says, and asks every invariant. `remuda.specs.pool_model` gives it
to the model checker.

Each action is a word and what it is about, ("exit", 0, "begun"), so that a path through the world can
be read, and taken again. What is *not* an action is what the runtime does by itself: effects are
carried out at once, as there.

**Faults are counted.** Whatever needs a process to misbehave (to die unbidden, to write garbage, to
hang until its time is over) costs one of the profile's `faults`, and a profile says which kinds there
are. What is left when they are spent is a world in which everything works. *Natural* actions are
those that cost nothing and that need no caller to lose patience. *Prompt* actions are those of them
that happen if processes are quick as well: time passes only when nobody has anything to do. In a
prompt world nobody may wait for ever.

**Time** passes to the moment when something is due ("wait"), and then the core may or may not hear of
it before other news does ("tick"), as answers can come up together with deadlines in the runtime. So
what is walked is every order of events and due times that whole steps from one due time to the next
can bring about. Calls are not made at moments between; the fuzz has those.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator
from typing import TypeAlias

from remuda.specs.duplicate import Duplicator
from remuda.specs.invariants import InvariantViolated, check
from remuda.specs.ledger import Ledger, Trap
from remuda.specs.profile import FAULTS, Profile
from remuda.statemachines import effects as fx
from remuda.statemachines import events as ev
from remuda.statemachines.canonical import canonical, session_numbers
from remuda.statemachines.core import Core
from remuda.statemachines.effects import Verdict
from remuda.statemachines.errors import IllegalTransition, InvalidLease
from remuda.statemachines.policy import Policy
from remuda.statemachines.pool import PoolState
from remuda.statemachines.subjects import Call, Rung, Worker
from remuda.statemachines.worker import WorkerState

__all__ = ["FAULTS", "Action", "Profile", "World"]

Action: TypeAlias = tuple[str | int, ...]

_SUSPENDABLE = frozenset({PoolState.READY, PoolState.IMPAIRED})
_TIMED = frozenset({WorkerState.INITIALIZING, WorkerState.CHECKING})
"""States in which the process has to do something before its alarm."""
_COSTLY = {
    "fail to boot": "boot",
    "answer unfit": "unfit",
    "be unwell": "check",
    "write garbage": "garbage",
    "hang up": "hang up",
}


class Process:
    """What the world knows of a worker's process."""

    __slots__ = ("began", "call", "check", "garbled", "rung")

    def __init__(self) -> None:
        self.call: Call | None = None
        self.began = False  # it was seen to have begun
        self.check = 0
        self.garbled = False
        self.rung: Rung | None = None


class Caller:
    """One who calls."""

    __slots__ = ("call", "calls", "lease")

    def __init__(self, calls: int) -> None:
        self.calls = calls  # how many it may still make
        self.call: Call | None = None
        self.lease: Call | None = None


class World:
    """See the module's text.

    Attributes:
        core: the real one.
        now: monotonic seconds.
        ledger: the books.
        verdicts: what the calls have come to, in order.
        processes: those that have not ended; callers: those who call.
        gone: a worker that has ended, and a call that is over: the last of each. Of them there may
            still be news, which must not change anything.
    """

    def __init__(self, profile: Profile, core: Callable[[Policy, float], Core] = Core) -> None:
        self.profile = profile
        self.now = 0.0
        self.core = core(profile.policy, self.now)
        self.ledger = Ledger()
        self.verdicts: list[Verdict] = []
        self.processes: dict[Worker, Process] = {}
        self.callers = [Caller(profile.calls) for _ in range(profile.callers)]
        self._faults = profile.faults
        self._retire = profile.retire
        self._suspend = profile.suspend
        self._end_sessions = profile.end_sessions
        self._made = 0
        self._closed_at: float | None = None
        self.gone: tuple[Worker | None, Call | None] = (None, None)
        self._judge = True
        self.feed(ev.Open())

    # ── What may happen ─────────────────────────────────────────────────────────────────────────

    def actions(self) -> list[Action]:
        """Everything that may happen next."""
        return [*self.natural_actions(), *self._faulty_actions(), *self._actions_of_users()]

    def natural_actions(self) -> list[Action]:
        """What happens if everything works and everybody is patient."""
        actions: list[Action] = []
        due = self.core.next_due()
        if due <= self.now:
            actions.append(("tick",))
        elif due < math.inf and not self._would_hang(due):
            actions.append(("wait",))
        for slot, worker, process in self._each():
            if worker.state is WorkerState.INITIALIZING:
                actions.append(("come up", slot))
            if process.call is not None and not process.garbled:
                actions.append(("answer", slot))
            if process.check and not process.garbled:
                actions.append(("be well", slot))
            if process.rung is not None:
                actions += self._exits(slot, process)
        actions += [("give back", n) for n, caller in enumerate(self.callers) if caller.lease is not None]
        if self.core.pool.state is PoolState.SUSPENDED:
            actions.append(("resume",))
        return actions

    def prompt_actions(self) -> list[Action]:
        """What happens if everything works, everybody is patient, and nobody is slow."""
        actions = self.natural_actions()
        return actions[1:] if len(actions) > 1 and actions[0] == ("wait",) else actions

    def _faulty_actions(self) -> Iterator[Action]:
        if not self._faults:
            return
        what = self.profile.what
        due = self.core.next_due()
        if self.now < due < math.inf and self._would_hang(due) and "hang" in what:
            yield ("wait",)
        for slot, worker, process in self._each():
            if "boot" in what and worker.state is WorkerState.INITIALIZING:
                yield ("fail to boot", slot)
            if "unfit" in what and process.call is not None and not process.garbled:
                yield ("answer unfit", slot)
            if "check" in what and process.check and not process.garbled:
                yield ("be unwell", slot)
            if process.rung is None:
                if "die" in what:
                    yield from self._exits(slot, process)
                if not process.garbled:
                    for word in ("write garbage", "hang up"):
                        if _COSTLY[word] in what:
                            yield (word, slot)

    @staticmethod
    def _exits(slot: int, process: Process) -> Iterator[Action]:
        if not process.began:
            yield ("exit", slot, "not begun")
        if process.call is not None:
            yield ("exit", slot, "begun")

    def _each(self) -> Iterator[tuple[int, Worker, Process]]:
        """Every process, with the place of its slot: that is how actions name it."""
        for place, slot in enumerate(self.core.crew.slots.values()):
            worker = slot.worker
            if worker is not None and worker in self.processes:
                yield place, worker, self.processes[worker]

    def _would_hang(self, due: float) -> bool:
        """Whether time can only pass until `due` if a process does not do what it should have done."""
        return any(w.due <= due and w.state in _TIMED for w in self.processes)

    def _actions_of_users(self) -> Iterator[Action]:
        profile, state = self.profile, self.core.pool.state
        for number, caller in enumerate(self.callers):
            if caller.call is None and caller.calls and state is not PoolState.CLOSED:
                if caller.lease is not None:
                    if caller.lease.worker is None or caller.lease.worker.interrupted is None:
                        yield ("call", number, "on its lease")
                        if "soft" in profile.kinds:
                            yield ("call", number, "soft, on its lease")
                else:
                    for kind in profile.kinds:
                        yield ("call", number, kind)
            if caller.call is not None and profile.cancel:
                yield ("give up", number)
            if caller.lease is not None and profile.cancel:
                yield ("let go", number)
        if profile.look:
            for slot, worker, process in self._each():
                if process.call is not None and process.call is worker.call and not process.began:
                    yield ("be seen to begin", slot)
        if self._retire:
            yield from (("retire", slot) for slot, _, _ in self._each())
        if self._suspend and state in _SUSPENDABLE:
            yield ("suspend",)
        if self._end_sessions:
            yield from (("end session", name) for name, _, _ in self.core.sessions)
        if profile.close and self._closed_at is None:
            yield ("close",)

    # ── Making it happen ────────────────────────────────────────────────────────────────────────

    def do(self, action: Action) -> None:
        """Make one of the actions happen, and ask every invariant.

        Raises:
            InvariantViolated: one does not hold; or the core refused a step (`only_legal_steps`), or
                broke down (`never_breaks_down`).
        """
        match action:
            case ("tick",):
                self.feed(ev.Tick())
            case ("wait",):
                due = self.core.next_due()
                self._faults -= self._would_hang(due)
                self.now = due
            case ("suspend",):
                self._suspend -= 1
                self.feed(ev.Suspend())
            case ("resume",):
                self.feed(ev.Resume())
            case ("end session", str(name)):
                self._end_sessions -= 1
                self.feed(ev.EndSession(name))
            case ("close",):
                self.feed(ev.Close())
            case ("call", int(number), str(kind)):
                self.call(number, kind, self.profile.deadline)
            case ("give up", int(number)):
                call = self.callers[number].call
                assert call is not None
                self.feed(ev.GiveUp(call))
            case ("let go", int(number)):
                lease, self.callers[number].lease = self.callers[number].lease, None
                assert lease is not None
                self.feed(ev.GiveUp(lease))
            case ("give back", int(number)):
                lease, self.callers[number].lease = self.callers[number].lease, None
                assert lease is not None
                if lease.id in self.core.calls:
                    self.feed(ev.Checkin(lease))
                else:
                    self.refused(ev.Checkin(lease))  # its worker has died
            case (str(what), int(slot), *rest):
                self._worker_does(what, self._worker(slot), rest)
            case _:
                raise ValueError(f"there is no action {action!r}")

    def redo(self, action: Action) -> None:
        """As `do`, for a path that was taken before: what was judged then is not judged again."""
        self._judge = False
        self.do(action)
        self._judge = True

    def _worker_does(self, what: str, worker: Worker, rest: list[str | int]) -> None:
        process = self.processes[worker]
        self._faults -= what in _COSTLY
        match what:
            case "come up":
                self.feed(ev.Initialized(worker))
            case "fail to boot":
                self.feed(ev.BootFailed(worker, "it said so"))
            case "answer" | "answer unfit":
                call, process.call, process.began = process.call, None, False
                assert call is not None
                self.feed(ev.Replied(worker, call.id, Trap(), ok=True, unfit=what == "answer unfit"))
            case "be well" | "be unwell":
                number, process.check = process.check, 0
                self.feed(ev.HealthChecked(worker, number, what == "be well", "it said so"))
            case "write garbage" | "hang up":
                process.garbled = True
                self.feed(ev.ChannelFailed(worker, what, violation=what == "write garbage"))
            case "be seen to begin":
                process.began = True
                assert process.call is not None
                self.feed(ev.Began(process.call))
            case "retire":
                self._retire -= 1
                self.feed(ev.Retire(worker, "by hand"))
            case "exit":
                self._faults -= process.rung is None
                del self.processes[worker]
                self.feed(ev.Exited(worker, "it died", began=rest == ["begun"], draw=1.0))
            case _:
                raise ValueError(f"a worker cannot {what!r}")

    def call(self, number: int, kind: str, seconds: float) -> None:
        """Caller `number` makes a call of this kind, and has so many seconds for it."""
        caller = self.callers[number]
        caller.calls -= 1
        self._made += 1
        sessions = {"session": f"of {number}", "shared": "shared", "shared too": "shared too"}
        call = Call(
            self._made,
            now=self.now,
            deadline=self.now + seconds,
            session=sessions.get(kind),
            idempotent=kind == "idempotent",
            interrupt=kind.startswith("soft"),
            is_lease=kind == "lease",
            request=Trap(),
            history=self.profile.policy.history,
        )
        call.lease = caller.lease
        caller.call = call
        self.feed(ev.Submit(call))

    def _worker(self, place: int) -> Worker:
        return next(worker for slot, worker, _ in self._each() if slot == place)

    # ── The runtime's part ──────────────────────────────────────────────────────────────────────

    def feed(self, event: ev.Event) -> None:
        """Tell the core, do what it says, and ask every invariant."""
        try:
            effects = self.core.handle(event, self.now)
        except InvalidLease:
            raise
        except IllegalTransition as error:
            raise InvariantViolated("only_legal_steps", str(error)) from error
        except Exception as error:
            raise InvariantViolated("never_breaks_down", repr(error)) from error
        self.ledger.note(self.core, event, effects, self.now, closing=self._closed_at is not None)
        if isinstance(event, ev.Close) and self._closed_at is None:
            self._closed_at = self.now
        elif isinstance(event, ev.Exited):
            self.gone = event.worker, self.gone[1]
        for effect in effects:
            self._carry_out(effect)
        if self._judge:
            check(self.core, self.ledger)

    def refused(self, event: ev.Event) -> None:
        """Tell the core something that it has to refuse, because it comes too late.

        Raises:
            InvariantViolated: it did not, or something changed all the same.
        """
        name, before = "late_news_is_no_news", self.core.key(self.now)
        try:
            self.core.handle(event, self.now)
        except InvalidLease:
            if self.core.key(self.now) != before:
                raise InvariantViolated(name, f"{event} was refused, and something has changed") from None
        else:
            raise InvariantViolated(name, f"{event} was not refused")

    def _carry_out(self, effect: fx.Effect) -> None:
        match effect:
            case fx.StartWorker(worker):
                self.processes[worker] = Process()
            case fx.SendCall(worker, call):
                if worker in self.processes:
                    self.processes[worker].call = call
            case fx.SendCheck(worker, number):
                self.processes[worker].check = number
            case fx.Stop(worker, rung):
                if worker in self.processes:
                    self.processes[worker].rung = rung
            case fx.Abandon(worker):
                self.processes.pop(worker, None)
                self.gone = worker, self.gone[1]
            case fx.Answer(call, verdict):
                self._tell(call, verdict)
            case _:
                pass

    def _tell(self, call: Call, verdict: Verdict) -> None:
        self.verdicts.append(verdict)
        if verdict is not Verdict.GRANTED:
            self.gone = self.gone[0], call
        for caller in self.callers:
            if caller.call is call:
                caller.call = None
                if verdict is Verdict.GRANTED:
                    caller.lease = call

    # ── Where we are ────────────────────────────────────────────────────────────────────────────

    def pending(self) -> bool:
        """Whether somebody waits for something: a caller for its answer, a closed pool for its end."""
        waits = any(caller.call is not None for caller in self.callers)
        return waits or (self._closed_at is not None and self.core.pool.state is not PoolState.CLOSED)

    def copy(self) -> World:
        """A world of its own that is like this one. What is over is forgotten, and so is the last step."""
        self.ledger.forget()
        self.ledger.event, self.ledger.effects = None, ()
        self.core.crew.effects = self.core._effects = []
        return _duplicate(self)

    def key(self) -> Hashable:
        """What decides the future of this world, and of what its invariants will say.

        The core's canonical form, with due times told by how far off they are; what processes and
        callers are up to; and what the ledger remembers. Callers are interchangeable, and sorted.
        """
        core = self.core
        calls = {call: number for number, call in enumerate(core.calls.values())}
        sessions = session_numbers(core)

        def number(call: Call | None) -> int:
            return -1 if call is None else calls.get(call, -3)

        def about(worker: Worker) -> tuple[int | str, ...]:
            process = self.processes.get(worker, _NO_PROCESS)
            return (
                number(process.call),
                process.began,
                (process.check > 0) + (process.check == worker.checks),
                process.garbled,
                process.rung or "",
                worker in self.ledger.dirty,
                process is _NO_PROCESS,
            )

        def lane(name: str | None) -> tuple[int, int | str]:
            return (0, "") if name is None else (1, sessions[name]) if name in sessions else (2, name)

        own = "session" in self.profile.kinds
        callers = sorted(
            (caller.calls, number(caller.call), number(caller.lease), sessions.get(f"of {place}", -1) if own else -1)
            for place, caller in enumerate(self.callers)
        )
        passed = sorted(
            (lane(name), tuple(sorted((lane(other), times) for other, times in passes.items() if times)))
            for name, passes in self.ledger.passed.items()
        )
        known = tuple((call.id in self.ledger.begun, self.ledger.sent.get(call.id, 0)) for call in core.calls.values())
        since = round(self.now - self._closed_at, 6) if self._closed_at is not None and core.crew.slots else 0.0
        left = (self._faults, self._retire, self._suspend, self._end_sessions)
        ending = (self._closed_at is not None, since, self.ledger.failed_start)
        form = canonical(core, self.now, exact=True, about=about)
        return form, tuple(callers), tuple(passed), known, left, ending


_NO_PROCESS = Process()
_duplicate = Duplicator(Trap)
