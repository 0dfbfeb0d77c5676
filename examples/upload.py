"""An upload that takes its own steps: the rules call its methods. `python examples/upload.py` shows it all."""

from enum import StrEnum

from hypothesis import strategies as st
from hypothesis.stateful import rule
from transitions import Machine

from remuda import IllegalTransition, Lifecycle, Subject, specs
from remuda.statemachines.draw import table

S = StrEnum("S", "WAITING SENDING DONE FAILED")
T = StrEnum("T", "CONNECT SENT DROP")

UPLOAD: Lifecycle[S, T] = Lifecycle("upload", Machine(
    model=None, auto_transitions=False, initial=S.WAITING,
    states=[S.WAITING, S.SENDING, {"name": S.DONE, "final": True}, {"name": S.FAILED, "final": True}],
    transitions=[
        [T.CONNECT, S.WAITING, S.SENDING],
        [T.SENT,    S.SENDING, S.DONE, "complete"],
        [T.SENT,    S.SENDING, None],
        [T.DROP,    S.SENDING, S.FAILED, "hopeless"],
        [T.DROP,    S.SENDING, S.WAITING],
    ],
))  # fmt: skip


class Upload(Subject[S]):
    def __init__(self) -> None:
        super().__init__(UPLOAD)
        self.parts, self.drops = 0, 0

    complete = property(lambda self: self.parts == 3)
    hopeless = property(lambda self: self.drops == 3)

    def happen(self, trigger: T, now: float) -> None:
        if UPLOAD.allows(self.state, trigger):  # the books first, and only if the step will be taken
            self.parts += trigger is T.SENT
            self.drops += trigger is T.DROP
        UPLOAD.step(self, trigger, now)


def the_books_are_right(upload: Upload) -> bool:
    return upload.parts == 3 if upload.state is S.DONE else upload.parts < 3 >= upload.drops


class UploadRules(specs.machine(UPLOAD, Upload, invariants=[the_books_are_right], triggers=())):
    @rule(trigger=st.sampled_from(UPLOAD.triggers))
    def happens(self, trigger: T) -> None:
        try:
            self.subject.happen(trigger, self.now)
        except IllegalTransition:
            assert not UPLOAD.allows(self.subject.state, trigger)


TestUpload = UploadRules.TestCase

if __name__ == "__main__":
    print(specs.audit(UPLOAD, Upload), specs.explore(UPLOAD), table(UPLOAD), UploadRules.run().seen, sep="\n\n")
