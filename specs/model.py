"""A world around the core that is small enough to be walked through completely.

The core is the real one. Around it are processes that may come up, answer, write garbage or die,
callers that make calls, hold workers and go away, and a clock that moves when nothing else does.
`actions()` are all the things that may happen next, `do` makes one happen: it feeds the core as the
runtime would, carries out what it says, and asks every invariant.

Each action is a word and what it is about, ("exit", 0, "begun"), so that a path through the world can
be read, and taken again. What is *not* an action is what the runtime does by itself: effects are
carried out at once, as there.

**Faults are counted.** Whatever needs a process to misbehave (to die unbidden, to write garbage, to
hang until its time is over) costs one of the profile's `faults`, and a profile says which kinds there
are. What is left when they are spent is a world in which everything works, and in that world nobody
may wait for ever: the explorer takes *natural* actions to be those that cost nothing and that need no
caller to lose patience.

**Time** passes to the moment when something is due ("wait"), and then the core may or may not hear of
it before other news does ("tick"), as answers can come up together with deadlines in the runtime. So
what is walked is every order of events and due times that whole steps from one due time to the next
can bring about. Calls are not made at moments between; the fuzz has those.

**Two worlds are the same** if their cores' canonical keys are, and what the processes and callers are
up to, *and how far off every due time is*. The canonical key alone tells due times by their order,
which is not enough to be certain of the future (a new alarm may land before or after another one), so
a walk that was complete by it would not be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator
from typing import TypeAlias

import msgspec

from remuda.specs.invariants import InvariantViolated, check
from remuda.specs.ledger import Ledger, Trap
from remuda.statemachines import effects as fx
from remuda.statemachines import events as ev
from remuda.statemachines.core import Core
from remuda.statemachines.effects import Verdict
from remuda.statemachines.errors import IllegalTransition, InvalidLease
from remuda.statemachines.policy import Policy
from remuda.statemachines.pool import PoolState
from remuda.statemachines.subjects import Call, Rung, Worker
from remuda.statemachines.worker import WorkerState

__all__ = ["FAULTS", "Action", "Profile", "World"]

Action: TypeAlias = tuple[str | int, ...]

FAULTS = ("die", "garbage", "hang up", "unfit", "boot", "check", "hang")
"""What can go wrong: a process dies unbidden, writes garbage, closes its channel, answers with an error
that implicates it, cannot boot, is not well, does not answer in time (boot or check)."""

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


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Which world: the numbers of the pool, who calls, and what may go wrong.

    Args:
        policy: the pool's.
        callers: how many there are, 1 or more.
        calls: how many calls each makes at most.
        kinds: what they may be: "plain", "idempotent", "session" (each caller has its own),
            "lease" (a checkout, in which it makes calls), "shared" (one session for all).
        deadline: seconds each call has, from when it is made.
        faults: how many things may go wrong in all. Whoever is stopped may die, and does not count.
        what: which things, of `FAULTS`.
        cancel: whether callers may go away.
        look: whether somebody may look who has begun (a snapshot).
        retire: how many workers may be retired by hand.
        suspend: how often the pool may be suspended.
        close: whether it may be closed.
    """

    policy: Policy
    callers: int = 2
    calls: int = 1
    kinds: tuple[str, ...] = ("plain",)
    deadline: float = math.inf
    faults: int = 0
    what: tuple[str, ...] = FAULTS
    cancel: bool = False
    look: bool = False
    retire: int = 0
    suspend: int = 0
    close: bool = False


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
        self._made = 0
        self._closed_at: float | None = None
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
                    yield ("call", number, "on its lease")
                else:
                    for kind in profile.kinds:
                        yield ("call", number, kind)
            if caller.call is not None and profile.cancel:
                yield ("give up", number)
        if profile.look:
            for slot, worker, process in self._each():
                if process.call is not None and process.call is worker.call and not process.began:
                    yield ("be seen to begin", slot)
        if self._retire:
            yield from (("retire", slot) for slot, _, _ in self._each())
        if self._suspend and state in _SUSPENDABLE:
            yield ("suspend",)
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
            case ("end session", int(number)):
                self.feed(ev.EndSession(f"of {number}"))
            case ("close",):
                self._closed_at = self.now
                self.feed(ev.Close())
            case ("call", int(number), str(kind)):
                self.call(number, kind, self.profile.deadline)
            case ("give up", int(number)):
                call = self.callers[number].call
                assert call is not None
                self.feed(ev.GiveUp(call))
            case ("give back", int(number)):
                lease, self.callers[number].lease = self.callers[number].lease, None
                assert lease is not None
                try:
                    self.feed(ev.Checkin(lease))
                except InvalidLease:
                    pass  # its worker has died
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
        sessions = {"session": f"of {number}", "shared": "shared"}
        call = Call(
            self._made,
            now=self.now,
            deadline=self.now + seconds,
            session=sessions.get(kind),
            idempotent=kind == "idempotent",
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
        closing = self._closed_at is not None and not isinstance(event, ev.Close)
        self.ledger.note(self.core, event, effects, self.now, closing=closing)
        for effect in effects:
            self._carry_out(effect)
        if self._judge:
            check(self.core, self.ledger)

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
            case fx.Answer(call, verdict):
                self._tell(call, verdict)
            case _:
                pass

    def _tell(self, call: Call, verdict: Verdict) -> None:
        self.verdicts.append(verdict)
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

    def sights(self) -> Iterator[str]:
        """What is to be seen here, in words."""
        yield f"pool {self.core.pool.state}"
        yield f"breaker {self.core.breaker.state}"
        for slot in self.core.crew.slots.values():
            yield f"slot {slot.state}"
            yield f"worker {slot.worker.state}" if slot.worker is not None else "no worker"
        for call in self.core.calls.values():
            yield f"{'lease' if call.is_lease else 'call'} {call.state}"
        for effect in self.ledger.effects:
            if isinstance(effect, fx.Answer):
                yield f"answer {effect.verdict}"
            elif isinstance(effect, fx.Stop):
                yield f"stop {effect.rung}"
            elif isinstance(effect, fx.Abandon):
                yield "abandon"

    def key(self) -> Hashable:
        """Where we are: two worlds with the same key have the same future."""
        core, now = self.core, self.now
        calls = {call: number for number, call in enumerate(core.calls.values())}
        processes = tuple(
            (
                slot,
                calls.get(process.call, -1) if process.call is not None else None,
                process.began,
                (process.check > 0) + (process.check == worker.checks),
                process.garbled,
                process.rung,
                worker in self.ledger.dirty,
            )
            for slot, worker, process in self._each()
        )
        callers = tuple(
            (
                caller.calls,
                None if caller.call is None else calls.get(caller.call, -1),
                None if caller.lease is None else calls.get(caller.lease, -1),
            )
            for caller in self.callers
        )
        passed = tuple(
            (lane, tuple(sorted((str(other), times) for other, times in passes.items())))
            for lane, passes in self.ledger.passed.items()
        )
        closing = self._closed_at is not None
        since = now - self._closed_at if self._closed_at is not None and core.crew.slots else 0.0
        left = (self._faults, self._retire, self._suspend, closing, round(since, 6))
        due = core.next_due() <= now
        return core.key(now), tuple(self._offsets()), due, processes, callers, passed, left

    def _offsets(self) -> Iterator[float]:
        """How far off everything is that the core will look at the clock for."""
        core = self.core
        # These two alarms may come up early and find nothing to do; nobody else knows when.
        moments = {core.pool_due, core.breaker.next_due() or 0.0}
        moments |= {core._session_alarm.due, core._breaker_alarm.due}
        for call in core.calls.values():
            moments |= {call.deadline, call.due}
        for slot in core.crew.slots.values():
            moments.add(slot.due)
            if slot.worker is not None:
                active = slot.worker.last_active
                moments |= {slot.worker.due, active + core.policy.health.interval, active + core.policy.linger}
        for _, _, used in core.sessions:
            moments.add(used + core.sessions.ttl)
        return (round(moment - self.now, 6) for moment in sorted(moments) if self.now < moment < math.inf)
