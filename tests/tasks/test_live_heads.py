"""What a live run remembers of heads: a result counts as known once a poll has stored it."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from db.database import Database
from leadloop.client.errors import ApiError
from leadloop.sandbox import SandboxHandle
from leadloop.settings import Settings
from tasks.context import ApiContext, open_api_context
from tasks.jobs import CampaignsFailed, JobRunner
from tasks.live_heads import LiveHeads
from tasks.poll import HEAD_POLL, POLL
from tests import sql
from tests.factories import CAMPAIGN
from tests.jobs import HOST
from tests.polled_campaigns import pass_time, poll_campaign, process_leads

pytestmark = pytest.mark.usefixtures("quick_retries", "environment")


@dataclass(kw_only=True)
class LivePolls:
    """The polls of one campaign in a live run."""

    context: ApiContext
    heads: LiveHeads = field(default_factory=LiveHeads)

    def has_news(self) -> bool:
        """Look once."""
        (campaign,) = self.context.select_campaigns([CAMPAIGN])
        return self.heads.has_news(self.context, campaign)

    def poll(self, *, is_plain: bool = False) -> None:
        """Poll, and record how that ended."""
        spec = POLL if is_plain else replace(HEAD_POLL, start=self.heads.plan_poll)
        is_completed = False
        try:
            JobRunner(self.context, spec, [CAMPAIGN]).run()
            is_completed = True
        finally:
            self.heads.record_poll(CAMPAIGN, is_completed=is_completed)


@pytest.fixture
def polls(environment: Path, database: Database, vendor: SandboxHandle) -> Iterator[LivePolls]:
    """A live run whose campaign was polled, and whose last look was idle."""
    poll_campaign(database, vendor)
    with open_api_context(Settings.load(), HOST) as context:
        live = LivePolls(context=context)
        while live.has_news():
            live.poll()
        yield live


def test_what_is_stored_is_no_news(
    database: Database, vendor: SandboxHandle, polls: LivePolls
) -> None:
    """A look and its poll are one request; the next look is idle."""
    process_leads(vendor, {"L0": 0})
    sent = len(vendor.requests)
    assert polls.has_news()
    polls.poll()
    assert len(vendor.requests) == sent + 1
    assert "L0" in sql.fetch_outcomes(database)
    assert not polls.has_news()


def test_what_a_failed_poll_has_not_stored_stays_news(
    database: Database, vendor: SandboxHandle, polls: LivePolls
) -> None:
    """The look has shown it, but that is not enough."""
    process_leads(vendor, {"L0": 0})
    sql.execute(
        database,
        "ALTER TABLE leadloop.lead_outcomes ADD CONSTRAINT full_disk CHECK (false) NOT VALID",
    )
    assert polls.has_news()
    with pytest.raises(CampaignsFailed):
        polls.poll()
    sql.execute(database, "ALTER TABLE leadloop.lead_outcomes DROP CONSTRAINT full_disk")
    assert polls.has_news()
    polls.poll()
    assert "L0" in sql.fetch_outcomes(database)


def test_what_no_poll_followed_stays_news(vendor: SandboxHandle, polls: LivePolls) -> None:
    """A run may have been stopped between the look and the poll."""
    process_leads(vendor, {"L0": 0})
    assert polls.has_news()
    assert polls.has_news()


def test_a_plain_poll_moves_the_head(
    database: Database, vendor: SandboxHandle, polls: LivePolls
) -> None:
    """What it stored was known already, and later looks no longer ask for it."""
    pass_time(database, 300)
    process_leads(vendor, {"L3": 300})
    polls.poll(is_plain=True)
    assert not polls.has_news()
    asked = vendor.requests[-1].query
    polls.poll(is_plain=True)
    assert not polls.has_news()
    assert asked < vendor.requests[-1].query


def test_a_look_that_failed_is_followed_by_a_fresh_one(
    vendor: SandboxHandle, polls: LivePolls
) -> None:
    """What fails it may be gone, and a poll may have read around it."""
    vendor.add_fault(route="responses", kind="status", status=500)
    with pytest.raises(ApiError):
        polls.has_news()
    vendor.clear_faults()
    assert polls.has_news()
    polls.poll()
    assert not polls.has_news()
