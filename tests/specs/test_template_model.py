"""Every state of the succession of templates: what must be true of it is, and there are as many as there were."""

from __future__ import annotations

import pytest

from remuda.specs.explorer import explore
from remuda.specs.template_model import TemplateModel
from remuda.statemachines.template import Succession, Template


@pytest.mark.parametrize(("faults", "reloads", "states", "steps"), [(2, 1, 172, 643), (4, 3, 1_632, 9_161)])
def test_everything_holds_in_exactly_so_many_states(faults: int, reloads: int, states: int, steps: int) -> None:
    found = explore(TemplateModel(faults, reloads), distrust=200).check()
    assert (found.states, found.steps) == (states, steps)


class NeverAgain(Succession):
    """Who comes to nothing is not replaced."""

    def _again(self, draw: float, now: float) -> None:
        pass


class Forgetful(Succession):
    """The one that another takes over from is forgotten, and nobody ends it."""

    def prepared(self, template: Template, now: float) -> None:
        if template is self.coming:
            self.current = None
        super().prepared(template, now)


class Silent(Succession):
    """It does not say why."""

    def refused(self, template: Template, reason: str, now: float) -> None:
        super().refused(template, "", now)


class Open(Succession):
    """It builds one for a pool that has closed."""

    def reload(self, now: float) -> None:
        self.due = min(self.due, now)


class Credulous(Succession):
    """News of a template that retires is believed."""

    def failed(self, template: Template, cause: str, draw: float, now: float) -> None:
        super().failed(template, cause, draw, now)
        self._again(draw, now)


class Stubborn(Succession):
    """One that must not fork is replaced by another that must not."""

    def refused(self, template: Template, reason: str, now: float) -> None:
        wanted = template in (self.current, self.coming)
        super().refused(template, reason, now)
        if wanted:
            self.due = now + 1.0


@pytest.mark.parametrize(
    ("bug", "what"),
    [
        (NeverAgain, "what is spawned for good has a reason"),
        (Forgetful, "it_knows_its_templates"),
        (Silent, "what is spawned for good has a reason"),
        (Open, "who waits, waits for something"),
        (Credulous, "late news is no news"),
        (Stubborn, "workers are spawned for good"),
    ],
)
def test_a_bug_is_found_and_called_by_its_name(bug: type[Succession], what: str) -> None:
    found = explore(TemplateModel(3, 1, bug), stop_at_first=False)
    assert not found.ok
    assert what in {one.name for one in found.counterexamples} | set(found.missing)
