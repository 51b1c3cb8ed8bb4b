"""Batch limits: the leads and bytes of a create request that the vendor takes of a campaign.

They are learned from contrasts: a batch gets a 413 that its parts do not get. If a batch with as
many leads passes, the vendor limits bytes; otherwise it limits leads, as far as one can see. A lead
that gets a 413 alone shows neither, and makes no later batch smaller. It is rejected only if
another part passed: a proxy may answer everybody with a 413.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from db.learned_limits import LearnedLimit
from leadloop.core.leads import PreparedLead, count_body_bytes

#: The names of the limits in `leadloop.learned_limits`.
SIZE, BYTES = "batch_size", "batch_bytes"


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """The largest parts of a batch that passed, and the smallest ones that did not."""

    accepted_leads: int
    accepted_bytes: int
    refused_leads: int
    refused_bytes: int


class BatchParts:
    """The parts in which one batch was sent, each accepted or too large (413)."""

    def __init__(self) -> None:
        self._too_large: list[Sequence[PreparedLead]] = []
        self._accepted: list[Sequence[PreparedLead]] = []

    def record_too_large(self, leads: Sequence[PreparedLead]) -> None:
        """Record that a request with these leads got a 413."""
        self._too_large.append(leads)

    def record_accepted(self, leads: Sequence[PreparedLead]) -> None:
        """Record that a request with these leads was not too large."""
        self._accepted.append(leads)

    @property
    def has_accepted(self) -> bool:
        """Whether any part was not too large."""
        return bool(self._accepted)

    def find_contrast(self) -> Contrast | None:
        """Return what the parts show together, without those that hold a lead too large alone."""
        alone = {leads[0].lead_id for leads in self._too_large if len(leads) == 1}
        refused = [
            leads for leads in self._too_large if alone.isdisjoint(lead.lead_id for lead in leads)
        ]
        if not refused or not self._accepted:
            return None
        return Contrast(
            accepted_leads=max(map(len, self._accepted)),
            accepted_bytes=max(map(count_body_bytes, self._accepted)),
            refused_leads=min(map(len, refused)),
            refused_bytes=min(map(count_body_bytes, refused)),
        )


class BatchLimits:
    """The limits in use for a campaign; thread-safe.

    Args:
        learned: what earlier pushes have learned. A stale limit is not heeded, which tries it
            again.
    """

    def __init__(self, learned: Mapping[str, LearnedLimit]) -> None:
        self._lock = threading.Lock()
        self._learned = {name: learned[name] for name in (SIZE, BYTES) if name in learned}
        self._changes: dict[str, int | None] = {}
        self._largest_accepted = self._heeded(SIZE) or 0

    def cap_leads(self, batch_size: int) -> int:
        """Return the most leads of the next request, given the setting's."""
        with self._lock:
            return min(batch_size, self._heeded(SIZE) or batch_size)

    def cap_bytes(self, batch_bytes: int) -> int:
        """Return the most bytes of the next request's body, given the setting's."""
        with self._lock:
            return min(batch_bytes, self._heeded(BYTES) or batch_bytes)

    def record_accepted(self, leads: Sequence[PreparedLead]) -> None:
        """Record that a request passed; one beyond a learned limit ends that limit."""
        with self._lock:
            self._largest_accepted = max(self._largest_accepted, len(leads))
            for name, value in ((SIZE, len(leads)), (BYTES, count_body_bytes(leads))):
                if name in self._learned and value > self._learned[name].value:
                    del self._learned[name]
                    self._changes[name] = None

    def record_contrast(self, contrast: Contrast) -> None:
        """Learn the limit that explains why a batch was too large and its parts were not."""
        with self._lock:
            if self._largest_accepted < contrast.refused_leads:
                self._learn(SIZE, contrast.accepted_leads)
            elif contrast.accepted_bytes < contrast.refused_bytes:
                self._learn(BYTES, contrast.accepted_bytes)

    def take_changes(self) -> Mapping[str, int | None]:
        """Return what was learned since the last call, to be stored; None: a limit has ended."""
        with self._lock:
            changes, self._changes = self._changes, {}
            return changes

    def _learn(self, name: str, value: int) -> None:
        value = min(value, self._heeded(name) or value)
        self._learned[name] = LearnedLimit(value=value, is_stale=False)
        self._changes[name] = value

    def _heeded(self, name: str) -> int | None:
        limit = self._learned.get(name)
        return None if limit is None or limit.is_stale else limit.value
