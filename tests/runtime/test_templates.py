"""The pool over workers that are forked: whatever becomes of templates, workers start, and callers do not notice.

On the virtual clock, over simulated templates; at the end a few on real ones, for what `open_pool` itself does.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel

from remuda.bridge import messages
from remuda.bridge.seam import StartOrder
from remuda.bridge.spawn import SpawnLauncher
from remuda.runtime import dice, opening, templates
from remuda.runtime.config import PoolConfig
from remuda.runtime.events import Event, TemplateChanged, TemplateWrote, Transition, WorkerEnded
from remuda.runtime.opening import open_pool
from remuda.runtime.pool import Pool
from remuda.runtime.templates import ForkLauncher
from remuda.specs.behaviour import Behaviour, Die, FailBoot
from remuda.specs.checkpoints import Mark, Points, cancel_everywhere
from remuda.specs.simulated import Casting, SimLauncher, SimWorker
from remuda.specs.simulated_templates import SimTemplate, SimTemplates, TemplateCasting, TemplatePlay
from remuda.statemachines.errors import ConfigError, PoolStartError

READY = TemplatePlay()

EMPTY: dict[str, Any] = {
    "adapter": None,
    "settings": {},
    "sys_path": [],
    "cwd": "/",
    "main_path": None,
    "main_module": None,
    "codec": "pickle",
    "max_frame_bytes": 1024,
}


@dataclass
class Play:
    """All that takes part in a test."""

    workers: SimLauncher
    templates: SimTemplates
    launcher: ForkLauncher
    events: list[Event]
    _pool: Pool | None = None

    @property
    def pool(self) -> Pool:
        assert self._pool is not None
        return self._pool

    def forked_from(self, slot: int = 0) -> SimTemplate | None:
        """The template that made this slot's worker; None if it was spawned."""
        worker = self.workers.worker(slot)
        return next((template for template in self.templates.templates if worker in template.made), None)

    async def replace(self, slot: int = 0) -> SimWorker:
        """Crash this slot's worker, and wait for the next to be there."""
        self.workers.worker(slot).crash()
        await self.pool.wait_for("impaired")
        await self.pool.wait_for("ready")
        return self.workers.worker(slot)

    def steps(self) -> list[str]:
        """What has become of templates."""
        return [f"{e.number} {e.dest}" for e in self.events if isinstance(e, TemplateChanged)]


@asynccontextmanager
async def ground(
    play: TemplateCasting | None = None, behaviour: Casting | None = None, *, patience: float = 60.0
) -> AsyncIterator[Play]:
    async with SimLauncher.open(behaviour) as workers:
        made = SimTemplates(workers, play)
        yield Play(workers, made, ForkLauncher("tea", made.start, workers, patience=patience), [])
        assert workers.witness.leftovers() == []
        assert made.leftovers() == []


@asynccontextmanager
async def forking(
    play: TemplateCasting | None = None, behaviour: Casting | None = None, *, patience: float = 60.0, **fields: Any
) -> AsyncIterator[Play]:
    async with ground(play, behaviour, patience=patience) as all_of_it:
        chosen = {"adapter": "simulated:Adapter", "name": "tea", "max_workers": 1, **fields}
        async with open_pool(launcher=all_of_it.launcher, observers=[all_of_it.events.append], **chosen) as pool:
            all_of_it._pool = pool
            yield all_of_it


def first(play: TemplatePlay, rest: TemplatePlay = READY) -> TemplateCasting:
    """The first template is like this, all others like that."""
    return lambda order: play if order.generation == 1 else rest


@pytest.fixture
def longest_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dice, "draw", lambda: 1.0)


# ── How a worker comes to be ────────────────────────────────────────────────────────────────────


async def test_a_worker_waits_for_a_template_that_is_on_its_way(autojump_clock: Any) -> None:
    async with forking(TemplatePlay(launch_seconds=1, import_seconds=2)) as play:
        assert trio.current_time() == 3
        assert play.forked_from() is play.templates.templates[0]
        assert play.workers.witness.launched == 1
        assert play.pool.snapshot().template_pid == play.templates.templates[0].pid
        assert await play.pool.call("echo", {"token": 1}) == 1
    assert play.steps() == ["1 ready", "1 retiring", "1 ended"]


async def test_workers_are_spawned_during_a_pause(autojump_clock: Any, longest_pauses: None) -> None:
    async with forking(first(TemplatePlay(end="dies"))) as play:
        assert trio.current_time() == 0
        assert play.forked_from() is None
        await trio.sleep(0.5)
        assert len(play.templates.templates) == 1
        await trio.sleep(1)
        await play.replace()
        assert play.forked_from() is play.templates.templates[1]


async def test_the_pauses_grow(autojump_clock: Any, longest_pauses: None) -> None:
    began: list[float] = []

    def note(order: Any) -> TemplatePlay:
        began.append(trio.current_time())
        return TemplatePlay(launch_error=errno.EAGAIN) if len(began) % 2 else TemplatePlay(end="dies")

    async with forking(note) as play:
        await trio.sleep(250)
        assert began == [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]
        assert await play.pool.call("echo", {"token": 1}) == 1


async def test_a_refusal_is_for_good_and_is_told_once(autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "remuda")
    async with forking(TemplatePlay(end="unfit"), max_workers=2, min_workers=2) as play:
        for _ in range(3):
            await play.replace()
            assert play.forked_from() is None
        await trio.sleep(7200)
        assert len(play.templates.templates) == 1 and not play.templates.alive
        assert play.launcher.refusal == "it has 2 threads"
        assert play.pool.snapshot().template_pid is None
    told = [e.reason for e in play.events if isinstance(e, TemplateChanged) and e.dest == "unfit"]
    assert told == ["it has 2 threads"]
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len([text for text in warnings if "template" in text]) == 1
    assert "it has 2 threads" in next(text for text in warnings if "template" in text)


async def test_one_that_becomes_unfit_collects_its_workers_and_goes(autojump_clock: Any) -> None:
    async with forking(max_workers=2, min_workers=2) as play:
        (template,) = play.templates.templates
        template.spoil("a late thread")
        await play.replace(0)
        assert play.forked_from(0) is None and play.forked_from(1) is template
        assert play.launcher.refusal == "a late thread"
        await trio.sleep(100)
        assert template.alive
        ended = [e.death.exit_status for e in play.events if isinstance(e, WorkerEnded)]
        assert ended == [-signal.SIGKILL], "it says how that one ended"
        await play.replace(1)
        await trio.testing.wait_all_tasks_blocked()
        assert not template.alive
        assert play.steps() == ["1 ready", "1 unfit", "1 retiring", "1 ended"]


async def test_a_reload_after_a_refusal_tries_again(autojump_clock: Any) -> None:
    async with forking(first(TemplatePlay(end="unfit"))) as play:
        assert play.forked_from() is None
        play.launcher.reload()
        await trio.sleep(1)
        await play.replace()
        assert play.forked_from() is play.templates.templates[1]
        assert not play.launcher.refusal


async def test_a_fork_that_the_system_refuses_is_tried_again_later(autojump_clock: Any) -> None:
    async with forking(max_workers=1) as play:
        play.workers.behaviour = Behaviour(launch_error=errno.EAGAIN)
        play.workers.worker(0).crash()
        await play.pool.wait_for("impaired")
        await trio.sleep(0.5)
        play.workers.behaviour = Behaviour()
        await play.pool.wait_for("ready")
        assert play.forked_from() is play.templates.templates[0]


# ── Reload ──────────────────────────────────────────────────────────────────────────────────────


async def test_a_reload_builds_beside_the_one_that_serves(autojump_clock: Any) -> None:
    plays = first(READY, TemplatePlay(import_seconds=10))
    async with forking(plays, max_workers=2, min_workers=2, call_timeout=1000) as play, trio.open_nursery() as nursery:
        (old,) = play.templates.templates

        async def long_call() -> None:
            await play.pool.call("sleep", {"seconds": 30})

        nursery.start_soon(long_call)
        await trio.testing.wait_all_tasks_blocked()
        (busy,) = (worker.slot for worker in play.pool.snapshot().workers if worker.state == "busy")
        play.launcher.reload()
        await trio.sleep(5)
        await play.replace(1 - busy)
        assert play.forked_from(1 - busy) is old, "which goes on meanwhile"
        await trio.sleep(6)
        new = play.templates.templates[1]
        assert play.pool.snapshot().template_pid == new.pid
        await play.replace(1 - busy)
        assert play.forked_from(1 - busy) is new
        assert old.alive, "it has a worker that is busy"
        await trio.sleep(30)
        await play.replace(busy)
        await trio.testing.wait_all_tasks_blocked()
        assert not old.alive and play.forked_from(busy) is new


@pytest.mark.parametrize("end", ["fails", "unfit", "dies", "hangs"])
async def test_a_reload_that_comes_to_nothing_changes_nothing(autojump_clock: Any, end: Any) -> None:
    async with forking(first(READY, TemplatePlay(end=end)), patience=5) as play:
        play.launcher.reload()
        await trio.sleep(10)
        await play.replace()
        assert play.forked_from() is play.templates.templates[0]
        assert not play.launcher.refusal


# ── Lost, stopped, slow ─────────────────────────────────────────────────────────────────────────


async def test_one_that_dies_is_replaced_at_once_and_its_workers_go_on(autojump_clock: Any) -> None:
    async with forking(max_workers=2, min_workers=2) as play, trio.open_nursery() as nursery:

        async def call() -> None:
            await play.pool.call("sleep", {"seconds": 5})

        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        play.templates.templates[0].crash()
        await trio.testing.wait_all_tasks_blocked()
        assert play.steps() == ["1 ready", "1 ended", "2 ready"]
        await trio.sleep(6)
        assert play.workers.witness.died == 0
        await play.replace()
        assert play.forked_from() is play.templates.templates[1]
        deaths = [e.death.exit_status for e in play.events if isinstance(e, WorkerEnded)]
        assert deaths == [None], "who could tell is gone"


@pytest.mark.parametrize("moment", [0.0, 1.0, 1.999])
async def test_one_is_lost_in_the_middle_of_a_fork(autojump_clock: Any, moment: float) -> None:
    async with forking(first(TemplatePlay(fork_seconds=2)), init_timeout=30) as play:
        assert trio.current_time() == 2
        await play.pool.call("echo", {"token": 1})  # who has served is replaced at once
        play.workers.worker(0).crash()
        await trio.sleep(moment)
        play.templates.templates[0].crash()
        await play.pool.wait_for("impaired")
        await play.pool.wait_for("ready")
        assert play.forked_from() is play.templates.templates[1]
        assert play.workers.witness.launched == 2
        assert trio.current_time() == 2 + moment


async def test_one_that_is_stopped_keeps_no_worker_from_starting(autojump_clock: Any) -> None:
    async with forking() as play:
        await play.pool.call("echo", {"token": 1})
        play.templates.templates[0].freeze()
        begins = trio.current_time()
        await play.replace()
        assert play.forked_from() is None
        assert trio.current_time() - begins == 1 + templates._FORK_PATIENCE, "its end is seen after a second"
        assert [e.death.exit_status for e in play.events if isinstance(e, WorkerEnded)] == [None]
        play.templates.templates[0].thaw()
        await play.replace()
        assert play.forked_from() is play.templates.templates[0]


async def test_what_a_template_says_is_told_to_its_last_word(autojump_clock: Any) -> None:
    async with forking(TemplatePlay(says="loading\nand ")) as play:
        template = play.templates.templates[0]
        await trio.testing.wait_all_tasks_blocked()
        template.say("done\n")
        await trio.testing.wait_all_tasks_blocked()
        template.say("goodbye\nfor ev")
        template.crash(-signal.SIGSEGV)
        await trio.testing.wait_all_tasks_blocked()
        said = [e.line for e in play.events if isinstance(e, TemplateWrote) and e.number == 1]
        assert said == ["loading", "and done", "goodbye", "for ev"]
        ended = [e for e in play.events if isinstance(e, TemplateChanged) and e.dest == "ended"]
        assert ended[0].reason == "it ended: killed by SIGSEGV"
        assert [e.pid for e in ended] == [template.pid]


async def test_every_step_is_told_to_observers(autojump_clock: Any) -> None:
    async with forking() as play:
        await play.replace()
    steps = [(e.subject, e.trigger) for e in play.events if isinstance(e, Transition) and e.lifecycle == "template"]
    assert steps == [("1", t) for t in ("prepared", "fork", "fork", "retire", "exited")]


# ── A pool that cannot start ────────────────────────────────────────────────────────────────────


async def test_an_import_that_fails_reaches_the_caller(autojump_clock: Any) -> None:
    failing = Behaviour(boot=(FailBoot("import", ModuleNotFoundError("No module named 'tea'")), Die(1)))
    async with ground(TemplatePlay(end="fails"), failing) as play:
        with pytest.raises(PoolStartError, match="its import failed: ModuleNotFoundError: No module named 'tea'"):
            async with open_pool(adapter="tea:Tea", max_workers=1, launcher=play.launcher):
                raise AssertionError("it cannot have started")


@pytest.mark.parametrize("patience", [5.0, 100.0])
@pytest.mark.parametrize("number", range(4))  # which of two deadlines at the same moment comes first, is chance
async def test_an_import_that_hangs(autojump_clock: Any, patience: float, number: int) -> None:
    async with ground(TemplatePlay(end="hangs", says="loading the weights\n"), patience=patience) as play:
        with pytest.raises(PoolStartError, match=r"init_timeout \(5 s\)") as caught:
            async with open_pool(adapter="tea:Tea", max_workers=1, init_timeout=5, launcher=play.launcher):
                raise AssertionError("it cannot have started")
        assert caught.value.last_death is not None
        assert caught.value.last_death.stderr_tail == ("loading the weights",)
        assert "| loading the weights" in str(caught.value)
        assert trio.current_time() == 5
        assert play.workers.witness.launched == 0


async def test_a_template_that_hangs_alone_is_given_up(autojump_clock: Any, longest_pauses: None) -> None:
    async with forking(first(TemplatePlay(end="hangs")), patience=5, init_timeout=30) as play:
        assert trio.current_time() == 5
        assert play.forked_from() is None, "it was spawned then"
        await trio.sleep(2)
        await play.replace()
        assert play.forked_from() is play.templates.templates[1]


# ── Closing ─────────────────────────────────────────────────────────────────────────────────────


def test_closing_at_any_moment_ends_the_template() -> None:
    async def scenario(mark: Mark) -> None:
        plays = first(TemplatePlay(launch_seconds=1, import_seconds=1, fork_seconds=0.5))
        async with ground(plays, Behaviour(launch_seconds=0.5)) as play:
            with mark:
                async with open_pool(adapter="x:Y", max_workers=2, min_workers=2, launcher=play.launcher) as pool:
                    play.launcher.reload()
                    play.templates.templates[0].crash()
                    await trio.lowlevel.checkpoint()
                    await pool.call("echo", {"token": 1})

    tried = cancel_everywhere(scenario, points=Points.ALL)
    assert len(tried) > 50


@pytest.mark.parametrize("what", ["importing", "forking", "stopped", "lingering", "retiring"])
async def test_a_pool_closes_whatever_its_template_does(autojump_clock: Any, what: str) -> None:
    plays = {"importing": TemplatePlay(import_seconds=100), "lingering": TemplatePlay(kill_seconds=0.5)}
    slow = TemplatePlay(fork_seconds=4)
    async with forking(first(slow if what == "forking" else READY, plays.get(what, READY))) as play:
        template = play.templates.templates[0]
        if what in ("importing", "lingering", "retiring"):
            play.launcher.reload()
            await trio.testing.wait_all_tasks_blocked()
        if what == "lingering":
            await trio.sleep(1)
        if what == "forking":
            play.workers.worker(0).crash()
            await trio.sleep(1)
        if what == "stopped":
            template.freeze()
        begins = trio.current_time()
        await play.pool.aclose()
        play.launcher.reload()  # too late
    assert trio.current_time() - begins <= play.pool.config.shutdown_timeout + templates._END_PATIENCE


async def test_a_template_that_cannot_be_killed_is_not_waited_for(autojump_clock: Any) -> None:
    async with SimLauncher.open() as workers:
        made = SimTemplates(workers, TemplatePlay(kill_seconds=1000))
        launcher = ForkLauncher("tea", made.start, workers)
        async with open_pool(adapter="x:Y", max_workers=1, launcher=launcher):
            begins = trio.current_time()
        assert trio.current_time() - begins == templates._END_PATIENCE
        assert made.templates[0].unburied() == ["was not waited for"]


@pytest.mark.parametrize("never", [TemplatePlay(end="hangs"), TemplatePlay(launch_seconds=1e9)], ids=["hangs", "late"])
async def test_who_waits_for_a_template_that_will_never_be_is_spawned(never: TemplatePlay, mock_clock: Any) -> None:
    async with ground(never) as play, trio.open_nursery() as nursery:
        tending = trio.CancelScope()

        async def tend() -> None:
            with tending:
                await play.launcher.tend(messages.Boot(**EMPTY), play.events.append)

        nursery.start_soon(tend)
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as inner:

            async def start() -> None:
                worker = await play.launcher.start(StartOrder(pool="tea", slot=0, generation=1))
                worker.close()
                await worker.wait()

            inner.start_soon(start)
            await trio.testing.wait_all_tasks_blocked()
            tending.cancel()
        assert play.workers.witness.launched == 1


# ── What `open_pool` chooses ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "kind"), [(None, ForkLauncher), ("forkserver", ForkLauncher), ("spawn", SpawnLauncher)]
)
async def test_the_start_method_says_which_launcher(method: str | None, kind: type) -> None:
    assert type(opening._launcher(PoolConfig(start_method=method))) is kind


async def test_where_there_is_no_forkserver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remuda.bridge.forkserver.can_fork", lambda: False)
    assert type(opening._launcher(PoolConfig())) is SpawnLauncher
    with pytest.raises(ConfigError, match="start_method is 'forkserver', which needs") as caught:
        opening._launcher(PoolConfig(start_method="forkserver"))
    assert caught.value.context == {"field": "start_method"}


ADAPTER = """
import os, sys, threading
import remuda

{more}

class Tea:
    @remuda.command
    def look(self):
        return os.getpid(), os.getppid(), "preloaded" in sys.modules
"""


def adapter(folder: Path, monkeypatch: pytest.MonkeyPatch, more: str = "") -> str:
    name = f"tea_{folder.name}"
    (folder / f"{name}.py").write_text(ADAPTER.format(more=more))
    (folder / "preloaded.py").write_text("print('preloading')")
    monkeypatch.syspath_prepend(str(folder))
    return f"{name}:Tea"


async def test_forked_for_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Event] = []
    monkeypatch.setattr(templates, "_FORK_PATIENCE", 60.0)  # a busy machine is no reason to spawn here
    tea = adapter(tmp_path, monkeypatch)
    async with open_pool(adapter=tea, max_workers=1, preload=("preloaded",), observers=[events.append]) as pool:
        _, parent, preloaded = await pool.call("look")
        assert (parent, preloaded) == (pool.snapshot().template_pid, True)
    assert "preloading" in [e.line for e in events if isinstance(e, TemplateWrote)]


async def test_spawned_for_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tea = adapter(tmp_path, monkeypatch)
    async with open_pool(adapter=tea, max_workers=1, preload=("preloaded",), start_method="spawn") as pool:
        _, parent, preloaded = await pool.call("look")
        assert (parent, preloaded, pool.snapshot().template_pid) == (os.getpid(), False, None)


async def test_an_adapter_that_starts_a_thread_is_spawned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Event] = []
    tea = adapter(tmp_path, monkeypatch, "threading.Thread(target=threading.Event().wait, daemon=True).start()")
    async with open_pool(adapter=tea, max_workers=1, observers=[events.append]) as pool:
        _, parent, _ = await pool.call("look")
        assert parent == os.getpid()
    (unfit,) = [e for e in events if isinstance(e, TemplateChanged) and e.dest == "unfit"]
    assert "it has 2 threads" in unfit.reason


async def test_an_adapter_that_is_not_there() -> None:
    with pytest.raises(PoolStartError, match="its import failed: ModuleNotFoundError: No module named 'no_such_tea'"):
        async with open_pool(adapter="no_such_tea:Tea", max_workers=1):
            raise AssertionError("it cannot have started")


CHATTY = """
flag = __file__ + ".was_here"
if not os.path.exists(flag):
    open(flag, "w").close()
    os.write(2, b"".join(b"line number %d\\n" % number for number in range(3000)))
    os._exit(3)
"""


async def test_all_that_a_template_said_before_it_died_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Event] = []
    tea = adapter(tmp_path, monkeypatch, CHATTY)
    async with open_pool(adapter=tea, max_workers=1, observers=[events.append]) as pool:
        assert await pool.call("look")
    said = [e.line for e in events if isinstance(e, TemplateWrote) and e.number == 1]
    assert said == [f"line number {number}" for number in range(3000)]


ESCAPING = """
escaped, done = os.pipe()
child = os.fork() if os.environ.get("REMUDA_TEST_ESCAPE") else 1
if not child:
    import signal
    os.setsid()
    os.close(done)
    while True:
        signal.pause()
os.close(done)
if child > 1:
    os.read(escaped, 1)
    print("escaped", child)
os.close(escaped)
"""


async def test_what_an_import_has_forked_does_not_hide_the_end_of_the_template(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds the template's end of the channel, and lives on."""
    events: list[Event] = []
    tea = adapter(tmp_path, monkeypatch, ESCAPING)
    monkeypatch.setenv("REMUDA_TEST_ESCAPE", "1")
    async with open_pool(adapter=tea, max_workers=1, observers=[events.append]) as pool:
        one = pool.snapshot().template_pid
        assert one is not None
        os.kill(one, signal.SIGKILL)
        with trio.fail_after(60):
            while pool.snapshot().template_pid in (None, one):
                await trio.sleep(0.01)
    for event in events:
        if isinstance(event, TemplateWrote) and event.line.startswith("escaped"):
            os.kill(int(event.line.split()[1]), signal.SIGKILL)
