"""The stepped run: it moves when told to, it settles, and it notices when nothing will ever come."""

import random
from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock

from remuda.specs.stepped import StandStill, SteppedTrio, stepped


@pytest.fixture
def loop() -> Iterator[SteppedTrio]:
    with SteppedTrio() as loop:
        yield loop


async def test_only_one_run_in_a_thread() -> None:
    with pytest.raises(RuntimeError):
        SteppedTrio()


def test_a_step_returns_what_its_function_returns_and_raises_what_it_raises(loop: SteppedTrio) -> None:
    async def double(number: int) -> int:
        await trio.lowlevel.checkpoint()
        return 2 * number

    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise KeyError("no such thing")

    assert loop.run(double, 21) == 42
    with pytest.raises(KeyError, match="no such thing"):
        loop.run(fail)
    assert loop.run(double, 4) == 8  # an error of a step is not the end of the run


def test_virtual_time_passes_in_steps_only(loop: SteppedTrio) -> None:
    woken_at: list[float] = []

    async def sleeper() -> None:
        await trio.sleep(10)
        woken_at.append(trio.current_time())

    began = loop.now
    loop.start_soon(sleeper)
    assert loop.now == began and not woken_at
    loop.run(trio.sleep, 9.5)
    assert not woken_at
    loop.run(trio.sleep, 1)
    assert woken_at == [began + 10]
    assert loop.now == began + 10.5


def test_a_step_ends_when_everybody_has_come_to_rest(loop: SteppedTrio) -> None:
    seen: list[int] = []
    go = trio.Event()

    async def chain() -> None:
        await go.wait()
        for number in range(20):
            await trio.lowlevel.checkpoint()
            seen.append(number)

    async def start() -> None:
        await trio.lowlevel.checkpoint()
        go.set()

    loop.start_soon(chain)
    loop.run(start)
    assert seen == list(range(20))


def test_a_step_that_waits_for_nothing_is_a_stand_still_and_the_run_goes_on(loop: SteppedTrio) -> None:
    cleaned: list[str] = []

    async def deadlock() -> None:
        try:
            await trio.Event().wait()
        finally:
            cleaned.append("yes")

    with pytest.raises(StandStill, match="deadlock"):
        loop.run(deadlock)
    loop.run(trio.lowlevel.checkpoint)
    assert cleaned == ["yes"]


def test_running_in_circles_is_a_stand_still(loop: SteppedTrio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remuda.specs.stepped.MOST_TICKS", 500)

    async def spin() -> None:
        while True:
            await trio.lowlevel.checkpoint()

    with pytest.raises(StandStill, match="in circles"):
        loop.run(spin)


def test_a_crash_in_the_background_ends_the_run() -> None:
    async def crash_later() -> None:
        await trio.sleep(5)
        raise ZeroDivisionError("in the background")

    loop = SteppedTrio()
    loop.start_soon(crash_later)
    with pytest.RaisesGroup(pytest.RaisesGroup(pytest.RaisesExc(ZeroDivisionError))):
        loop.run(trio.sleep, 10)
    with pytest.raises(RuntimeError, match="has ended"):
        loop.run(trio.lowlevel.checkpoint)
    loop.close()


def test_closing_cancels_what_is_left_and_frees_the_thread() -> None:
    ended: list[str] = []

    async def background() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("cancelled")

    loop = SteppedTrio()
    loop.start_soon(background)
    loop.close()
    loop.close()
    assert ended == ["cancelled"]
    with pytest.raises(RuntimeError, match="has ended"):
        loop.start_soon(background)

    with SteppedTrio() as again:
        assert again.run(trio.sleep, 1) is None


def test_what_cannot_be_cancelled_in_time_is_told_when_closing() -> None:
    async def shielded() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(150)

    loop = SteppedTrio(patience=100)
    loop.start_soon(shielded)
    with pytest.raises(StandStill, match="everything cancelled"):
        loop.close()
    loop.close()  # with as much patience again, it does end


def test_the_clock_may_be_a_given_one() -> None:
    clock = MockClock()  # moved by hand only
    with SteppedTrio(clock=clock) as loop:
        woken: list[bool] = []

        async def sleeper() -> None:
            await trio.sleep(1)
            woken.append(True)

        loop.start_soon(sleeper)
        clock.jump(0.5)
        loop.run(trio.lowlevel.checkpoint)
        assert not woken
        clock.jump(0.5)
        loop.run(trio.lowlevel.checkpoint)
        assert woken


class Machine:
    """What a Hypothesis machine looks like from here: steps are its methods."""

    def __init__(self, loop: SteppedTrio) -> None:
        self.loop = loop
        self.log: list[str] = []

    @stepped
    async def rule(self, name: str, *, seconds: float = 0) -> str:
        """A rule."""
        await trio.sleep(seconds)
        self.log.append(name)
        return name.upper()


def test_a_stepped_method_is_called_as_a_plain_one(loop: SteppedTrio) -> None:
    machine = Machine(loop)
    began = loop.now
    assert machine.rule("one", seconds=3) == "ONE"
    assert machine.rule("two") == "TWO"
    assert machine.log == ["one", "two"]
    assert loop.now == began + 3
    assert Machine.rule.__doc__ == "A rule."


def test_the_same_choices_give_the_same_trace() -> None:
    def trace(seed: int) -> list[tuple[float, str]]:
        chance = random.Random(seed)
        events: list[tuple[float, str]] = []

        async def traveller(name: str, stops: list[float]) -> None:
            for stop in stops:
                await trio.sleep(stop)
                events.append((trio.current_time(), name))

        with SteppedTrio() as loop:
            for name in "abc":
                loop.start_soon(traveller, name, [chance.random() for _ in range(5)])
                loop.run(trio.sleep, chance.random())
            loop.run(trio.sleep, 10)
        return events

    assert trace(1) == trace(1)
    assert trace(1) != trace(2)
