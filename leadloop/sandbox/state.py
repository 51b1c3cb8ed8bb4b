"""Everything that one stand-in holds."""

from leadloop.sandbox.access import Access
from leadloop.sandbox.books import Books, Clock
from leadloop.sandbox.faults import Faults
from leadloop.sandbox.rules import Rules
from leadloop.sandbox.traffic import Traffic


class Sandbox:
    """The rules in force and all that depends on them."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.clock = Clock(lambda: self.rules)
        self.books = Books(lambda: self.rules, self.clock.now)
        self.access = Access()
        self.traffic = Traffic()
        self.faults = Faults()

    def reset(self) -> None:
        """Forget leads, requests, tokens and faults; the rules stay."""
        self.books.reset()
        self.access.reset()
        self.traffic.reset()
        self.faults.clear()
