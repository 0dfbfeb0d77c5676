"""The rules with templates: workers are forked, or spawned, and what they are forked from is attacked too.

    class MyRules(remuda.specs.ForkingRules):
        adapter = MyAdapter

They are those of `PoolRules`, which draw whether there are templates at all, with a rule for each thing that can
happen to a template. What must hold is the same, since callers must not notice how a worker came to be; and in
the end workers are forked, or it is known why they cannot be.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from remuda.specs.rules import PoolRules
from remuda.specs.worlds import TEMPLATES, TemplateFault, TemplateStart

__all__ = ["ForkingRules"]


class ForkingRules(PoolRules):
    """See the module's text. Subclass it, and have pytest find `YourRules.TestCase`."""

    def configurations(self) -> st.SearchStrategy[dict[str, Any]]:
        """What `PoolRules` draws, then how workers start, and how the first templates are."""
        ways = st.fixed_dictionaries(
            {
                "start_method": st.sampled_from(["forkserver", "forkserver", "forkserver", "spawn"]),
                "templates": st.lists(st.sampled_from(TEMPLATES), max_size=2 if self.world.simulated else 0),
            }
        )
        return st.tuples(super().configurations(), ways).map(lambda drawn: {**drawn[0], **drawn[1]})

    @rule()
    def the_template_dies(self) -> None:
        """SIGKILL, while it imports, forks, or waits; its workers go on."""
        self._to_template("crash")

    @rule()
    def the_template_is_stopped(self) -> None:
        """SIGSTOP: it makes no worker, and tells how none has ended."""
        self._to_template("freeze")

    @rule()
    def the_template_becomes_unfit(self) -> None:
        """What it has imported opens something late."""
        self._to_template("spoil")

    @rule()
    def reload(self) -> None:
        """Somebody asks for a new template."""
        if self.ground.forking is not None:
            self._ask(self.ground.forking.reload)

    @rule()
    def the_next_template_is_slow(self) -> None:
        """Its imports take ten seconds."""
        self._next_template("slow")

    @rule()
    def the_next_template_hangs(self) -> None:
        """Its imports take for ever."""
        self._next_template("hangs")

    @rule()
    def the_next_template_fails(self) -> None:
        """An import raises."""
        self._next_template("fails")

    @rule()
    def the_next_template_dies(self) -> None:
        """Of its imports."""
        self._next_template("dies")

    @rule()
    def the_next_template_is_unfit(self) -> None:
        """An import leaves a thread behind."""
        self._next_template("is unfit")

    @rule()
    def the_next_template_is_refused(self) -> None:
        """By the operating system."""
        self._next_template("is refused")

    @rule()
    def the_next_template_lingers(self) -> None:
        """It takes its time to make a worker, and to die."""
        self._next_template("lingers")

    def _to_template(self, fault: TemplateFault) -> None:
        self.ground.do_to_template(fault)
        self._settle()

    def _next_template(self, start: TemplateStart) -> None:
        self.ground.next_template(start)

    def _end_well(self) -> None:
        self.ground.next_template(None)
        super()._end_well()

    def _is_whole(self) -> bool:
        return super()._is_whole() and self.ground.has_settled()
