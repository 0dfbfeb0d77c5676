"""Which template serves, as a model: everything that can happen to templates, and what is to be true.

    explore(TemplateModel(faults=3, reloads=2)).check()

The world around `Succession` is small: processes that are prepared, refuse, fail, fork and end, a clock of
which only matters whether the next template is due, somebody who asks for reloads, and a pool that closes.

* **Always**: one template at most is ready and one is building, and it knows which; all others retire. When
  workers are spawned for good there is a reason. What comes late from a template that retires changes nothing.
* **Eventually**, when nothing more goes wrong: a template serves, or it is known why none can; what retires ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

from remuda.specs.explorer import Model, Property, always, eventually, sometimes
from remuda.specs.invariants import InvariantViolated
from remuda.statemachines.template import StartFrom, Succession, Template, TemplateState

__all__ = ["Action", "Scene", "TemplateModel"]

Action: TypeAlias = tuple[str, ...]

_NOW, _LATER, _NEVER = 0.0, 1.0, math.inf
_DRAWS = {"at once": 0.0, "after a pause": 1.0}


class Scene(NamedTuple):
    """All that decides what happens next."""

    current: str = ""
    """"" for none, else whether the one that is ready has made a worker: "fresh" or "used"."""
    coming: bool = False
    retiring: int = 0
    due: float = _NOW
    refused: bool = False
    closed: bool = False
    faults: int = 0
    reloads: int = 0


class TemplateModel(Model[Scene, Action]):
    """See the module's text.

    Args:
        faults: how often something goes wrong.
        reloads: how often somebody asks for a new template.
        succession: what is checked.
    """

    def __init__(self, faults: int, reloads: int, succession: type[Succession] = Succession) -> None:
        self._first = Scene(faults=faults, reloads=reloads)
        self._succession = succession

    def initial(self) -> Iterator[Scene]:
        yield self._first

    def actions(self, state: Scene) -> Sequence[Action]:
        return [*self.prompt(state), *self._others(state)]

    def prompt(self, state: Scene) -> Sequence[Action]:
        found: list[Action] = []
        if state.due == _NOW and not state.coming and not state.closed:
            found.append(("begin",))
        if state.due == _LATER:
            found.append(("time passes",))
        if state.coming:
            found.append(("prepared",))
        if state.retiring:
            found.append(("ends", "retiring", "at once"))
        return found

    def _others(self, state: Scene) -> Iterator[Action]:
        if state.current:
            yield ("forks",)
        if state.reloads:
            yield ("reload",)
        if not state.closed:
            yield ("close",)
        for who in _present(state) if state.faults else ():
            yield "refuses", who
            for draw in _DRAWS:
                yield "ends", who, draw
                if who == "coming":
                    yield "fails", who, draw

    def next(self, state: Scene, action: Action) -> Scene:
        world = _World(state, self._succession)
        succession = world.succession
        faults, reloads = state.faults, state.reloads
        match action:
            case ("begin",):
                succession.begin(_NOW)
            case ("time passes",):
                succession.due = _NOW
            case ("prepared",):
                succession.prepared(world.one("coming"), _NOW)
            case ("forks",):
                succession.forked(world.one("current"), _NOW)
            case ("reload",):
                succession.reload(_NOW)
                reloads -= 1
            case ("close",):
                succession.close(_NOW)
            case ("refuses", who):
                succession.refused(world.one(who), "threads", _NOW)
                faults -= 1
            case ("fails", who, draw):
                succession.failed(world.one(who), "no table", _DRAWS[draw], _NOW)
                faults -= 1
            case ("ends", who, draw):
                succession.exited(world.one(who), "killed", _DRAWS[draw], _NOW)
                faults -= who != "retiring"
            case _:
                raise AssertionError(action)
        return world.scene(faults, reloads)

    def properties(self) -> Sequence[Property[Scene]]:
        return [
            always("what is spawned for good has a reason", self._has_a_reason),
            always("who waits, waits for something", self._waits_for_something),
            always("late news is no news", self._late_news_is_no_news, new_only=True),
            *(sometimes(name, sight) for name, sight in _SIGHTS.items()),
            eventually(
                "a template serves, or it is known why not",
                lambda scene: bool(scene.current or scene.closed or self._start(scene)[1]),
            ),
            eventually("what retires ends", lambda scene: not scene.retiring),
        ]

    def _start(self, scene: Scene) -> tuple[StartFrom, str]:
        succession = _World(scene, self._succession).succession
        return succession.start_from(_NOW), succession.unfit

    def _has_a_reason(self, scene: Scene) -> bool:
        start, unfit = self._start(scene)
        for_good = start is StartFrom.SPAWN and scene.due == _NEVER
        return scene.closed or for_good == bool(unfit)

    def _waits_for_something(self, scene: Scene) -> bool:
        start, _ = self._start(scene)
        return (start is StartFrom.WAIT) == (not scene.current and bool(self._is_on_its_way(scene)))

    def _is_on_its_way(self, scene: Scene) -> bool:
        return scene.coming or (scene.due == _NOW and not scene.closed)

    def _late_news_is_no_news(self, scene: Scene) -> bool:
        if scene.retiring:
            world = _World(scene, self._succession)
            succession, late = world.succession, world.one("retiring")
            succession.prepared(late, _NOW)
            succession.refused(late, "threads", _NOW)
            succession.failed(late, "no table", 0.0, _NOW)
            succession.forked(late, _NOW)
            return world.scene(scene.faults, scene.reloads) == scene
        return True


class _World:
    """A succession in this state, and its templates."""

    def __init__(self, scene: Scene, make: type[Succession]) -> None:
        self.succession = succession = make(_NOW)
        if scene.current:
            succession.current = _template(TemplateState.READY, made=scene.current == "used")
        if scene.coming:
            succession.coming = _template(TemplateState.BUILDING)
        succession.retiring = [_template(TemplateState.RETIRING, made=True) for _ in range(scene.retiring)]
        succession.due = scene.due
        succession._refusal = "threads" if scene.refused else ""
        succession._closed = scene.closed
        self._all = [succession.current, succession.coming, *succession.retiring]

    def one(self, who: str) -> Template:
        succession = self.succession
        one = succession.retiring[0] if who == "retiring" else getattr(succession, who)
        assert isinstance(one, Template)
        return one

    def scene(self, faults: int, reloads: int) -> Scene:
        """What it has become; raises InvariantViolated if it does not know its templates."""
        succession = self.succession
        current, coming, retiring = succession.current, succession.coming, succession.retiring
        known = [current, coming, *retiring]
        states = [None if one is None else one.state for one in known]
        if states[0] not in (None, TemplateState.READY) or states[1] not in (None, TemplateState.BUILDING):
            raise InvariantViolated("it_knows_its_templates", f"ready is {current}, building is {coming}")
        if any(state is not TemplateState.RETIRING for state in states[2:]):
            raise InvariantViolated("it_knows_its_templates", f"{retiring} are to retire")
        for one in self._all:
            if one is not None and one.state is not TemplateState.ENDED and one not in known:
                raise InvariantViolated("it_knows_its_templates", f"nobody ends {one}")
        due = succession.due if succession.due in (_NOW, _NEVER) else _LATER
        used = "" if current is None else "used" if current.made else "fresh"
        refused, closed = bool(succession._refusal), succession._closed
        return Scene(used, coming is not None, len(retiring), due, refused, closed, faults, reloads)


def _template(state: TemplateState, *, made: bool = False) -> Template:
    template = Template(1, now=_NOW, history=0)
    template.state = state
    template.made = int(made)
    return template


def _present(scene: Scene) -> Iterator[str]:
    if scene.current:
        yield "current"
    if scene.coming:
        yield "coming"


def _is_hopeless(scene: Scene) -> bool:
    return scene.due == _NEVER and not (scene.current or scene.coming or scene.closed)


_SIGHTS = {
    "one serves while the next is built": lambda scene: bool(scene.current and scene.coming),
    "workers are spawned for good": lambda scene: _is_hopeless(scene) and scene.refused,
    "workers are spawned for a while": lambda scene: scene.due == _LATER and not scene.current,
    "an old one serves though the new one is unfit": lambda scene: bool(scene.refused and scene.current),
    "two retire": lambda scene: scene.retiring == 2,
}
