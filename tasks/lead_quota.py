"""The quota of one run: how many leads it may still send, over all its campaigns and senders."""

import sys
from dataclasses import dataclass, field
from threading import Lock


@dataclass(kw_only=True)
class LeadQuota:
    """A number of leads that is reserved before a claim, and given back if not sent; thread-safe.

    Attributes:
        left: leads that may still be claimed.
    """

    left: int = sys.maxsize
    _lock: Lock = field(default_factory=Lock, repr=False)

    @property
    def is_spent(self) -> bool:
        """Whether no more lead may be claimed, unless leads are given back."""
        return self.left <= 0

    def reserve(self, amount: int) -> int:
        """Reserve up to `amount` leads; return how many."""
        with self._lock:
            granted = min(amount, self.left)
            self.left -= granted
            return granted

    def give_back(self, amount: int) -> None:
        """Give back leads that were reserved and certainly not sent."""
        with self._lock:
            self.left += amount
