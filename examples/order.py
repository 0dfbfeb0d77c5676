"""An order in a shop. `python examples/order.py` audits, explores, draws and fuzzes it; so does pytest."""

from enum import StrEnum

from hypothesis import strategies as st
from hypothesis.stateful import rule
from transitions import Machine

from remuda import Lifecycle, Subject, specs
from remuda.statemachines.draw import mermaid

S = StrEnum("S", "CART PLACED PAID SHIPPED CANCELLED")
T = StrEnum("T", "PLACE PAY SHIP CANCEL")

ORDER: Lifecycle[S, T] = Lifecycle("order", Machine(
    model=None, auto_transitions=False, initial=S.CART,
    states=[S.CART, S.PLACED, S.PAID, {"name": S.SHIPPED, "final": True}, {"name": S.CANCELLED, "final": True}],
    transitions=[
        [T.PLACE,  S.CART,   S.PLACED],
        [T.CANCEL, S.CART,   S.CANCELLED],
        [T.PAY,    S.PLACED, S.PAID, "covered"],
        [T.PAY,    S.PLACED, None],               # some of the money is there
        [T.CANCEL, S.PLACED, S.CANCELLED],
        [T.SHIP,   S.PAID,   S.SHIPPED, "covered"],
        [T.SHIP,   S.PAID,   S.PLACED],           # it was there, and has been charged back
        [T.CANCEL, S.PAID,   S.CANCELLED],
    ],
))  # fmt: skip


class Order(Subject[S]):
    def __init__(self) -> None:
        super().__init__(ORDER)
        self.price, self.received = 30, 0

    @property
    def covered(self) -> bool:
        return self.received >= self.price


def nothing_leaves_unpaid(order: Order) -> bool:
    return order.state is not S.SHIPPED or order.received >= order.price


class OrderRules(specs.machine(ORDER, Order, invariants=[nothing_leaves_unpaid])):
    @rule(amount=st.integers(-40, 40))
    def money_moves(self, amount: int) -> None:
        if self.subject.state not in ORDER.final:
            self.subject.received = max(0, self.subject.received + amount)


TestOrder = OrderRules.TestCase

if __name__ == "__main__":
    print(specs.audit(ORDER, Order), specs.explore(ORDER), mermaid(ORDER), sep="\n\n")
    print(sorted(OrderRules.run().seen.items()))
