"""Detection of a campaign that the vendor rejects as a whole, by a streak of equal reasons."""

import re
from collections.abc import Iterable
from threading import Lock

from leadloop.core.redaction import replace_lead_id

#: This many leads rejected in a row for the same reason, and none accepted, mean that the vendor
#: rejects the campaign.
MAX_ALIKE = 100

_DIGITS = re.compile(r"\d+")


class RejectionStreak:
    """The leads rejected in a row for the same reason; thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._reason = ""
        self._alike: dict[str, None] = {}

    def add_rejections(self, rejections: Iterable[tuple[str, str]]) -> list[str]:
        """Add rejections and return the lead ids of the streak once it is MAX_ALIKE long.

        Args:
            rejections: each lead's id, and the vendor's reason after redaction.

        Returns:
            The lead ids of the streak, or an empty list while the streak is shorter.
        """
        with self._lock:
            for lead_id, text in rejections:
                # Compare reasons without the lead's id and without all digits.
                without_id = replace_lead_id(text, lead_id, "…")
                reason = _DIGITS.sub("…", without_id).casefold()
                if reason != self._reason:
                    self._reason, self._alike = reason, {}
                self._alike[lead_id] = None
            return list(self._alike) if len(self._alike) >= MAX_ALIKE else []

    def reset(self) -> None:
        """End the streak: the vendor accepted a lead."""
        with self._lock:
            self._alike = {}
