"""The person at a first contact, in this process."""

from collections.abc import Callable, Sequence
from typing import Any

from db.database import Database
from leadloop.core.summaries import Summary, collect_summary
from leadloop.sandbox import SandboxHandle
from leadloop.settings import Settings
from tasks.first_contact import FirstContact
from tests.factories import CAMPAIGN


class Person:
    """Agrees to each step, but for those whose announcement holds a word of `declines`.

    Attributes:
        asked: the announcements so far.
        reported: the lines so far.
        on_ask: is called with each announcement before the answer; may raise.
    """

    def __init__(
        self, *declines: str, on_ask: Callable[[str], object] = lambda announcement: None
    ) -> None:
        self._declines = declines
        self._on_ask = on_ask
        self.asked: list[str] = []
        self.reported: list[str] = []

    def ask(self, announcement: str) -> bool:
        """Agree or decline."""
        self.asked.append(announcement)
        self._on_ask(announcement)
        return not any(word in announcement for word in self._declines)

    def report(self, line: str) -> None:
        """Listen."""
        self.reported.append(line)


def run_contact(
    database: Database,
    *lead_ids: str,
    person: Person | None = None,
    repeats_id: bool = False,
    campaign: str = CAMPAIGN,
) -> Summary:
    """Run a first contact; return its summary."""
    with collect_summary() as collected:
        FirstContact(
            Settings.load(),
            database,
            campaign,
            lead_ids,
            person or Person(),
            repeats_id=repeats_id,
        ).run()
    return collected.summary


def process(vendor: SandboxHandle, *lead_ids: str, **fields: Any) -> None:
    """Have the vendor call these people."""
    vendor.put_outcomes(
        [{"campaign_id": CAMPAIGN, "lead_id": lead_id, **fields} for lead_id in lead_ids]
    )


def list_calls(vendor: SandboxHandle) -> Sequence[str]:
    """List the kinds of the requests so far."""
    return [request.kind for request in vendor.requests]
