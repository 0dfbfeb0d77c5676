"""Cancel everywhere finds the one checkpoint at which something is lost, and says where it is."""

import pytest
import trio

from remuda.specs.checkpoints import Mark, Points, cancel_everywhere
from remuda.specs.stepped import StandStill


class Shelf:
    """A toy pool of things, with bugs that can be put in one by one."""

    def __init__(self, *, bug: str = "") -> None:
        self.bug = bug
        self.free = ["thing"]
        self.borrowed: list[str] = []

    async def use(self) -> None:
        await trio.lowlevel.checkpoint()
        thing = self.free.pop()
        if self.bug == "unprotected":
            await trio.lowlevel.checkpoint()  # outside of the try: cancelled here, the thing is gone
        try:
            await trio.lowlevel.checkpoint()
            await trio.sleep(1)
        finally:
            if self.bug == "awaits in cleanup":
                await trio.lowlevel.checkpoint()
            self.free.append(thing)


async def sound(mark: Mark) -> None:
    shelf = Shelf()
    with mark:
        await shelf.use()
    assert shelf.free == ["thing"]


def test_sound_code_is_cancelled_at_each_of_its_checkpoints() -> None:
    tried = cancel_everywhere(sound)
    assert [cancelled.point for cancelled in tried] == [0, 1, 2, 3]  # it has three checkpoints
    assert all(cancelled.delivered for cancelled in tried)
    assert tried[0].where == "before it began"
    assert all("test_checkpoints.py" in cancelled.where and "use" in cancelled.where for cancelled in tried[1:])


@pytest.mark.parametrize(
    ("bug", "point"),
    [
        ("unprotected", 2),
        ("awaits in cleanup", 2),
    ],
)
def test_the_planted_bug_is_found_at_its_checkpoint(bug: str, point: int) -> None:
    async def scenario(mark: Mark) -> None:
        shelf = Shelf(bug=bug)
        with mark:
            await shelf.use()
        assert shelf.free == ["thing"], "a thing was lost"

    with pytest.raises(AssertionError, match="a thing was lost") as caught:
        cancel_everywhere(scenario)
    (note,) = caught.value.__notes__
    assert note.startswith(f"cancelled at schedule point {point}, ")
    assert "Shelf.use" in note


class Desk:
    """Hands a thing to a waiter; its bug is that of many pools: the thing is lost in the hand-over.

    The waiter is woken, is cancelled before it runs, and nobody has the thing any more. Only a
    cancellation between waking and running shows it.
    """

    def __init__(self) -> None:
        self.free: list[str] = []
        self.arrived = trio.Event()
        self.handed: list[str] = []

    async def ask(self) -> None:
        await self.arrived.wait()
        await trio.lowlevel.checkpoint_if_cancelled()  # the bug: the thing is ours, and unguarded
        try:
            await trio.sleep(1)
        finally:
            self.free.append(self.handed.pop())

    def hand_over(self) -> None:
        self.handed.append("thing")
        self.arrived.set()


def test_a_loss_between_waking_and_running_is_found() -> None:
    async def scenario(mark: Mark) -> None:
        desk = Desk()
        async with trio.open_nursery() as nursery:

            async def clerk() -> None:
                await trio.sleep(1)
                if not mark.cancelled:
                    desk.hand_over()

            nursery.start_soon(clerk)
            with mark:
                await desk.ask()
        assert not desk.handed, "lost in the hand-over"

    with pytest.raises(AssertionError, match="lost in the hand-over") as caught:
        cancel_everywhere(scenario)
    assert "schedule point 1, at test_checkpoints.py" in caught.value.__notes__[0]


def test_a_cancellation_that_comes_too_late_is_told_apart() -> None:
    """The last thing that the marked part waits for was given to it before the cancellation."""

    async def scenario(mark: Mark) -> None:
        given = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_set_after, given, 1)
            with mark:
                await given.wait()

    tried = cancel_everywhere(scenario)
    assert [cancelled.delivered for cancelled in tried] == [True, False]


async def _set_after(event: trio.Event, seconds: float) -> None:
    await trio.sleep(seconds)
    event.set()


def test_points_of_all_tasks_find_what_the_own_ones_cannot() -> None:
    """The marked task sleeps; meanwhile somebody is half-way through something for it."""

    async def scenario(mark: Mark) -> None:
        half_way = False
        harmed = False

        async def helper() -> None:
            nonlocal half_way
            half_way = True
            for _ in range(8):  # so many points that no shuffle hides them all
                await trio.sleep(0.1)
            half_way = False

        async with trio.open_nursery() as nursery:
            with mark:
                nursery.start_soon(helper)
                try:
                    await trio.sleep(1)
                except trio.Cancelled:
                    harmed = half_way and trio.current_time() > 0
                    raise
        assert not harmed or mark.point == 0, "cancelled half-way"

    assert len(cancel_everywhere(scenario)) == 2
    with pytest.raises(AssertionError, match="cancelled half-way") as caught:
        cancel_everywhere(scenario, points=Points.ALL)
    assert "helper" in caught.value.__notes__[0]


def test_rounds_repeat_the_whole() -> None:
    assert len(cancel_everywhere(sound, rounds=3)) == 3 * len(cancel_everywhere(sound))


def test_a_run_that_hangs_after_its_cancellation_is_told() -> None:
    async def scenario(mark: Mark) -> None:
        lock = trio.Lock()
        with mark:
            await lock.acquire()
            await trio.sleep(1)  # cancelled here, the lock stays locked
            lock.release()
        await _locked_by_another(lock)

    with pytest.raises(StandStill) as caught:
        cancel_everywhere(scenario)
    assert "cancelled at schedule point" in caught.value.__notes__[0]


async def _locked_by_another(lock: trio.Lock) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lock.acquire)


def test_a_scenario_that_tries_nothing_is_refused() -> None:
    async def without_mark(mark: Mark) -> None:
        await trio.sleep(1)

    with pytest.raises(ValueError, match="did not enter its mark"):
        cancel_everywhere(without_mark)


def test_a_mark_is_entered_once() -> None:
    async def twice(mark: Mark) -> None:
        with mark:
            pass
        with mark:
            pass

    with pytest.raises(RuntimeError, match="once"):
        cancel_everywhere(twice)


def test_every_run_has_a_fresh_clock() -> None:
    began: list[float] = []

    async def scenario(mark: Mark) -> None:
        began.append(trio.current_time())
        with mark:
            await trio.sleep(100)

    cancel_everywhere(scenario)
    assert len(began) > 2
    assert set(began) == {0.0}
