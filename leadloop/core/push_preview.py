"""The preview of a push (dry run): counts of what it would do, and a sample without values."""

import json
from collections import Counter
from typing import Any

from leadloop.core.lead_reasons import MAX_PREVIEW_IDS, LeadReasons
from leadloop.core.leads import PreparedLead

#: The counts of a preview by name, each with its description.
PREVIEW_COUNTS = {
    "send": "leads that would be sent",
    "refuse": "leads that validation would reject; `refusals` gives the reasons",
    "cancel": "leads that would be cancelled; `cancellations` gives the reasons",
    "requests": "create requests needed, if the vendor rejects none",
    "from_source": "leads that would be inserted from the source",
    "refreshed": "leads that would be updated from the source",
    "gone": "leads that would no longer be sent, because the source has dropped them",
    "passed_over": "rows of the source with a missing, unusable or duplicate `lead_id`, and rows"
    " that cannot be read",
    "left_source": "leads that were sent, and whose rows have left the source: they would opt out,"
    " or wait for a person if they are many",
    "opt_outs": "lead ids and phone numbers that are new in the opt-out source",
    "to_disable": "leads that were sent, and would opt out because of these",
    "refused_opt_outs": "new rows of the opt-out source by which nobody would opt out, because they"
    " cannot be read or name no valid lead id or phone number",
}

_COUNT_OF_ROW_KIND = {
    "new": "from_source",
    "changed": "refreshed",
    "gone": "gone",
    "left": "left_source",
    "unnamed": "passed_over",
    "twin": "passed_over",
    "unreadable": "passed_over",
}
_VALUE_KINDS = {
    type(None): "null",
    str: "text",
    bool: "true or false",
    int: "number",
    list: "list",
    dict: "object",
}
_OPTED_OUT = "opted out"


class PushPreview:
    """The counts of what a push of one campaign would do.

    Args:
        batch_size: the most leads of a request.
        batch_bytes: the most bytes of a request's body.
    """

    def __init__(self, *, batch_size: int, batch_bytes: int) -> None:
        self._batch_size, self._batch_bytes = batch_size, batch_bytes
        # The leads and bytes of the last request.
        self._leads, self._bytes = batch_size, 0
        self._counts: Counter[str] = Counter()
        self._sent_ids: list[str] = []
        self._refusals = LeadReasons(max_ids=MAX_PREVIEW_IDS)
        self._cancellations = LeadReasons(max_ids=MAX_PREVIEW_IDS)
        self._sample: dict[str, str] | None = None

    def add_source_row(self, kind: str) -> None:
        """Count a row of the source by its kind (see `db.source`)."""
        if kind in _COUNT_OF_ROW_KIND:
            self._counts[_COUNT_OF_ROW_KIND[kind]] += 1

    def add_opt_outs(self, *, opt_outs: int, to_disable: int, refused: int) -> None:
        """Count what is new in the opt-out source, and the sent leads that it opts out."""
        self._counts.update(opt_outs=opt_outs, to_disable=to_disable, refused_opt_outs=refused)

    def add_sendable(self, lead: PreparedLead) -> None:
        """Count a lead that would be sent; the first one becomes the sample."""
        self._counts["send"] += 1
        if len(self._sent_ids) < MAX_PREVIEW_IDS:
            self._sent_ids.append(lead.lead_id)
        self._sample = self._sample or mask_values(lead.body)
        added = len(lead.body) + 1
        if self._leads == self._batch_size or self._bytes + added > self._batch_bytes:
            self._counts["requests"] += 1
            self._leads, self._bytes = 0, 1
        self._leads += 1
        self._bytes += added

    def add_refused(self, lead_id: str, reason: str) -> None:
        """Count a lead that validation rejects."""
        self._refusals.add_leads({lead_id: reason})

    def add_cancelled(self, lead_id: str, reason: str = _OPTED_OUT) -> None:
        """Count a lead that must not be sent at all."""
        self._cancellations.add_leads({lead_id: reason})

    def to_json(self) -> dict[str, Any]:
        """Return the counts, reasons, first lead ids and sample as JSON."""
        counts = {
            **self._counts,
            "refuse": self._refusals.total,
            "cancel": self._cancellations.total,
        }
        refusals, cancellations = self._refusals.list_groups(), self._cancellations.list_groups()
        return {
            **{name: counts.get(name, 0) for name in PREVIEW_COUNTS},
            "refusals": {reason: group.leads for reason, group in refusals.items()},
            "cancellations": {reason: group.leads for reason, group in cancellations.items()},
            "lead_ids": {
                "send": self._sent_ids,
                "refusals": {reason: group.lead_ids for reason, group in refusals.items()},
                "cancellations": {
                    reason: group.lead_ids for reason, group in cancellations.items()
                },
            },
            "sample": self._sample,
        }


#: The preview of a campaign that has nothing to push.
NOTHING_TO_PUSH = PushPreview(batch_size=1, batch_bytes=1).to_json()


def mask_values(body: bytes) -> dict[str, str]:
    """Return a lead's JSON object with each value replaced by its kind."""
    # Numbers parse to 0: Python refuses thousands of digits, and their value is not shown.
    lead: dict[str, Any] = json.loads(body, parse_int=lambda _: 0, parse_float=lambda _: 0)
    return {key: f"<{_VALUE_KINDS[type(value)]}>" for key, value in lead.items()}
