"""An adapter that forgets, and the rules that find out. `python examples/adapter_under_attack.py` shows how.

A price list is kept in the workers. `Forgetful` loses a price with the worker that was told it, because
its command does not say that every worker needs it. `Prices` says so, by `journal`, and withstands the
same rules. Those know what callers ask for and what they must get; the crashes, the hangs and the
schedules come from remuda. `pytest examples/adapter_under_attack.py` plays them, too, and
docs/testing.md goes through it.
"""

import logging
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

import remuda
from remuda.specs import PoolRules, Request
from remuda.specs.stepped import stepped


class Prices:
    def __init__(self) -> None:
        self.prices: dict[str, int] = {}

    @remuda.command(journal="item")  # of each item, the last price it was given is kept, and told to new workers
    def set_price(self, item: str, price: int) -> None:
        self.prices[item] = price

    @remuda.command(idempotent=True)
    def price_of(self, item: str) -> int | None:
        return self.prices.get(item)


class Forgetful(Prices):
    @remuda.command  # the bug
    def set_price(self, item: str, price: int) -> None:
        self.prices[item] = price


ITEMS = st.sampled_from(["apple", "pear"])


class PriceRules(PoolRules):
    adapter = Prices

    def __init__(self) -> None:
        super().__init__()
        self.told: dict[str, set[int | None]] = {}  # what each price may be, by what callers were told

    def configurations(self) -> st.SearchStrategy[dict[str, Any]]:
        return st.just({"max_workers": 2})

    def requests(self) -> st.SearchStrategy[Request]:
        return st.builds(Request, st.just("price_of"), st.fixed_dictionaries({"item": ITEMS}))

    @rule(item=ITEMS, price=st.integers(1, 9))
    @stepped
    async def set_a_price(self, item: str, price: int) -> None:
        try:
            await self.pool.call(Prices.set_price, item, price)
            self.told[item] = {price}
        except remuda.RemudaError:  # nobody knows whether it was set
            self.told[item] = self.told.get(item, {None}) | {price}

    @rule(item=ITEMS)
    @stepped
    async def ask_for_a_price(self, item: str) -> None:
        try:
            price = await self.pool.call(Prices.price_of, item)
        except remuda.RemudaError:
            return
        told = self.told.get(item, {None})
        assert price in told, f"the price of {item} is {price}, and was told to be one of {told}"


TestPrices = PriceRules.TestCase
TestPrices.settings = settings(TestPrices.settings, max_examples=30)


def attack() -> None:
    class ForgetfulRules(PriceRules):
        adapter = Forgetful

    logging.getLogger("remuda").setLevel(logging.CRITICAL)  # thousands of workers are about to die
    chosen = settings(TestPrices.settings, derandomize=True, database=None)
    for rules, runs in ((PriceRules, 50), (ForgetfulRules, 300)):
        try:
            run_state_machine_as_test(rules, settings=settings(chosen, max_examples=runs))
        except AssertionError as error:
            print(f"{rules.__name__}: {error}", *error.__notes__, sep="\n")
        else:
            print(f"{rules.__name__}: nothing broke in {rules.tally.runs} runs\n")


if __name__ == "__main__":
    attack()
