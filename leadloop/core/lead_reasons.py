"""Leads by the reason for which they are not sent: their number, and a few ids of each reason."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock

#: The ids that a preview of a push shows of a reason.
MAX_PREVIEW_IDS = 100
# Reasons may name fields of any name, or quote the vendor: more of them are unreadable.
_MAX_REASONS = 50
_OTHER_REASONS = "other reasons"


@dataclass(kw_only=True)
class LeadGroup:
    """The leads of one reason: how many, and the ids of the first ones."""

    leads: int = 0
    lead_ids: list[str] = field(default_factory=list)


class LeadReasons:
    """Counts leads by reason; thread-safe.

    Args:
        max_ids: the most ids that are kept of a reason.
    """

    def __init__(self, *, max_ids: int) -> None:
        self._max_ids = max_ids
        self._lock = Lock()
        self._groups: dict[str, LeadGroup] = {}

    def add_leads(self, reasons: Mapping[str, str]) -> None:
        """Count leads; `reasons` by lead id."""
        with self._lock:
            for lead_id, reason in reasons.items():
                known = reason in self._groups or len(self._groups) < _MAX_REASONS
                group = self._groups.setdefault(reason if known else _OTHER_REASONS, LeadGroup())
                group.leads += 1
                if len(group.lead_ids) < self._max_ids:
                    group.lead_ids.append(lead_id)

    def remove_leads(self, reasons: Mapping[str, str]) -> None:
        """Take back leads that were counted for these reasons."""
        with self._lock:
            for lead_id, reason in reasons.items():
                name = reason if reason in self._groups else _OTHER_REASONS
                group = self._groups.get(name, LeadGroup(leads=1))
                group.leads -= 1
                group.lead_ids = [each for each in group.lead_ids if each != lead_id]
                if not group.leads:
                    self._groups.pop(name, None)

    def list_groups(self) -> dict[str, LeadGroup]:
        """Return the leads by reason, the most frequent reason first."""
        with self._lock:
            return dict(sorted(self._groups.items(), key=lambda item: -item[1].leads))

    @property
    def total(self) -> int:
        """The number of leads."""
        with self._lock:
            return sum(group.leads for group in self._groups.values())
