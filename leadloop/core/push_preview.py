"""What a push would do with leads, counted; and what it would send, without what it says."""

import json
from collections import Counter
from typing import Any

from leadloop.core.leads import PreparedLead

#: The counts of a plan by name, each with what it counts.
PREVIEW_COUNTS = {
    "send": "leads that would be sent",
    "refuse": "leads that our checks would refuse; `refusals` says why",
    "cancel": "leads that would be cancelled; `cancellations` says why",
    "requests": "create requests that would take, if the vendor refuses none",
    "from_source": "of the leads, those that would be taken from the source now",
    "refreshed": "of the leads, those that would be brought up to date from it",
    "gone": "leads that would not be sent any more, since the source has them no longer",
    "passed_over": "rows of the source without a usable `lead_id`, or with one that another has",
}

_KINDS = {
    "new": "from_source",
    "changed": "refreshed",
    "gone": "gone",
    "unnamed": "passed_over",
    "twin": "passed_over",
}
_OPTED_OUT = "opted out"
# Reasons name fields, and custom fields may have any names: no more of them than one can read.
_MOST_REASONS = 50
_OTHERS = "other reasons"


class PushPreview:
    """What a push of one campaign would do."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._refusals: Counter[str] = Counter()
        self._cancellations: Counter[str] = Counter()
        self._sample: dict[str, str] | None = None

    def add_source_row(self, kind: str) -> None:
        """A row of that kind (see `db.source.compared`)."""
        if kind in _KINDS:
            self._counts[_KINDS[kind]] += 1

    def add_sendable(self, lead: PreparedLead) -> None:
        """A lead that may be sent."""
        self._counts["send"] += 1
        self._sample = self._sample or mask_values(lead.body)

    def add_refused(self, reason: str) -> None:
        """A lead that must not be sent as it is."""
        known = reason in self._refusals or len(self._refusals) < _MOST_REASONS
        self._refusals[reason if known else _OTHERS] += 1

    def add_cancelled(self, reason: str = _OPTED_OUT) -> None:
        """A lead that must not be sent at all."""
        self._cancellations[reason] += 1

    def to_json(self, batch_size: int) -> dict[str, Any]:
        """The counts, why, and a sample; `batch_size`: leads a request."""
        counts = {
            **self._counts,
            "refuse": self._refusals.total(),
            "cancel": self._cancellations.total(),
            "requests": -(-self._counts["send"] // batch_size),
        }
        return {
            **{name: counts.get(name, 0) for name in PREVIEW_COUNTS},
            "refusals": dict(self._refusals.most_common()),
            "cancellations": dict(self._cancellations.most_common()),
            "sample": self._sample,
        }


def mask_values(body: bytes) -> dict[str, str]:
    """A lead's JSON object with the kind of each value in its place."""
    # Python refuses to parse numbers of thousands of digits, and their value does not matter.
    lead: dict[str, Any] = json.loads(body, parse_int=_zero, parse_float=_zero)
    return {key: _kind(value) for key, value in lead.items()}


def _zero(_: str) -> int:
    return 0


def _kind(value: object) -> str:
    if value is None:
        return "<null>"
    kinds = {str: "text", bool: "true or false", int: "number", list: "list", dict: "object"}
    return f"<{kinds[type(value)]}>"
