"""A refusal of the whole campaign, told from refusals of single leads by the vendor's words."""

import re
from collections.abc import Iterable
from threading import Lock

#: So many leads in a row that the vendor refuses with the same words, and none that it takes, are
#: taken for a refusal of the campaign.
MAX_ALIKE = 100

_DIGITS = re.compile(r"\d+")


class RejectionStreak:
    """Which leads in a row were refused alike; used by several senders."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._words = ""
        self._alike: dict[str, None] = {}

    def add_rejections(self, rejections: Iterable[tuple[str, str]]) -> list[str]:
        """More refusals: each lead's id, and the vendor's words without what they repeat of it.

        Returns:
            The leads in a row, where they are so many that the campaign is meant; else none.
        """
        with self._lock:
            for lead_id, reason in rejections:
                words = _normalise_reason(lead_id, reason)
                if words != self._words:
                    self._words, self._alike = words, {}
                self._alike[lead_id] = None
            return list(self._alike) if len(self._alike) >= MAX_ALIKE else []

    def reset(self) -> None:
        """The vendor took a lead."""
        with self._lock:
            self._alike = {}


def _normalise_reason(lead_id: str, reason: str) -> str:
    """The words alone: neither the lead's id nor any number tells one refusal from another."""
    without_id = re.sub(rf"(?<!\w){re.escape(lead_id)}(?!\w)", "…", reason)
    return _DIGITS.sub("…", without_id).casefold()
