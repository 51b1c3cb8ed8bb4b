"""Looks at the head, and the polls that follow, as a program that stays up makes them."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.database import Database
from leadloop.client.errors import ApiError
from leadloop.core.timestamps import EPOCH
from leadloop.core.windows import Window
from leadloop.sandbox import SandboxHandle
from leadloop.settings import Settings
from tasks.context import ApiContext, open_api_context
from tasks.head_look import (
    HeadLook,
    SeenHead,
    compare_head,
    find_head_start,
    look_at_head,
)
from tasks.jobs import CampaignsFailed, JobRunner
from tasks.poll import HEAD_POLL, plan_head_poll
from tasks.window_pages import ParsedPage, ParsedRow
from tests import factories, sql
from tests.factories import CAMPAIGN
from tests.jobs import HOST, poll_heads, poll_outcomes
from tests.polled_campaigns import pass_time, poll_campaign, process_leads, push_campaign

_MARK = "SELECT processed_through FROM leadloop.watermarks"

pytestmark = pytest.mark.usefixtures("quick_retries", "environment")


@dataclass(kw_only=True)
class HeadWatcher:
    """One campaign's looks and polls, and what is kept between them."""

    context: ApiContext
    seen: SeenHead = field(default_factory=SeenHead)

    def look(self) -> HeadLook:
        """Look once; the state stays as it was."""
        (campaign,) = self.context.select_campaigns([CAMPAIGN])
        return look_at_head(self.context, campaign, self.seen, find_head_start)

    def take_turn(self) -> bool:
        """Look, and poll where that shows something new; return whether it did."""
        look = self.look()
        if not look.has_news:
            self.seen = look.seen
            return False
        self.seen = SeenHead()
        spec = replace(HEAD_POLL, start=partial(plan_head_poll, look=look))
        JobRunner(self.context, spec, [CAMPAIGN]).run()
        self.seen = look.seen.after_poll()
        return True


@pytest.fixture
def watcher(environment: None, database: Database, vendor: SandboxHandle) -> Iterator[HeadWatcher]:
    """A program that stays up."""
    with open_api_context(Settings.load(), HOST) as context:
        yield HeadWatcher(context=context)


def count_reads(vendor: SandboxHandle) -> int:
    """Count the reads that the vendor has answered."""
    return sum(entry.kind == "responses" for entry in vendor.requests)


def settle(watcher: HeadWatcher) -> None:
    """Take turns until a look shows nothing new."""
    for _ in range(3):
        if not watcher.take_turn():
            return
    raise AssertionError("looks show news without end")


def test_an_idle_look_is_one_request_and_nothing_else(
    database: Database, vendor: SandboxHandle, watcher: HeadWatcher
) -> None:
    """It opens no run, moves nothing, and needs no database but for the first time."""
    poll_campaign(database, vendor)
    settle(watcher)
    state = "SELECT (SELECT max(run_id) FROM leadloop.sync_runs), w.* FROM leadloop.watermarks AS w"
    before, reads = sql.fetch_rows(database, state), count_reads(vendor)
    nowhere: Any = None
    (campaign,) = watcher.context.select_campaigns([CAMPAIGN])
    for turn in range(1, 4):
        look = look_at_head(
            replace(watcher.context, database=nowhere), campaign, watcher.seen, find_head_start
        )
        assert not look.has_news
        assert count_reads(vendor) == reads + turn
    assert sql.fetch_rows(database, state) == before


def test_a_new_outcome_is_stored_by_the_look_s_own_page(
    database: Database, vendor: SandboxHandle, watcher: HeadWatcher
) -> None:
    """No further request: the page that shows it is what the poll stores and proves."""
    poll_campaign(database, vendor)
    settle(watcher)
    pass_time(database, 200)
    mark, reads = sql.fetch_value(database, _MARK), count_reads(vendor)
    process_leads(vendor, {"L0": 1})
    watcher.seen = watcher.seen.after_poll()
    assert watcher.take_turn()
    assert count_reads(vendor) == reads + 1
    assert "L0" in sql.fetch_outcomes(database)
    assert sql.fetch_value(database, _MARK) > mark + timedelta(seconds=190)
    assert not watcher.take_turn()
    assert count_reads(vendor) == reads + 2


def test_a_changed_outcome_is_news(
    database: Database, vendor: SandboxHandle, watcher: HeadWatcher
) -> None:
    """A lead may be processed again, or its result change without a later time."""
    poll_campaign(database, vendor)
    at = vendor.now()
    item = {"campaign_id": CAMPAIGN, "lead_id": "L0", "processed_at": at, "outcome_id": "1"}
    for name in ("No Answer", "Interested"):
        vendor.put_outcomes([{**item, "outcome_name": name}])
        assert watcher.take_turn()
        assert sql.fetch_outcomes(database)["L0"] == name
        assert not watcher.take_turn()


def test_what_a_failed_poll_did_not_store_stays_news(
    database: Database, vendor: SandboxHandle, watcher: HeadWatcher
) -> None:
    """The look has shown it, but that is not enough."""
    poll_campaign(database, vendor)
    settle(watcher)
    process_leads(vendor, {"L0": 0})
    sql.execute(
        database, "ALTER TABLE leadloop.lead_outcomes ADD CONSTRAINT no CHECK (false) NOT VALID"
    )
    with pytest.raises(CampaignsFailed):
        watcher.take_turn()
    sql.execute(database, "ALTER TABLE leadloop.lead_outcomes DROP CONSTRAINT no")
    assert watcher.take_turn()
    assert "L0" in sql.fetch_outcomes(database)


def test_more_than_a_page_is_left_to_the_poll(
    database: Database, vendor: SandboxHandle, watcher: HeadWatcher
) -> None:
    """The look sees the first page only; the poll reads all, and looks are idle soon after."""
    poll_campaign(database, vendor, amount=12, page_size=5, lookback_s=0, settle_s=0)
    pass_time(database, 100)
    process_leads(vendor, {f"L{number}": 50 for number in range(12)})
    assert watcher.take_turn()
    assert len(sql.fetch_outcomes(database)) == 13
    settle(watcher)


@pytest.mark.parametrize(("is_sent", "has_news"), [(False, False), (True, True)])
def test_a_campaign_that_was_never_polled_has_news_once_a_lead_is_sent(
    database: Database, vendor: SandboxHandle, watcher: HeadWatcher, is_sent: bool, has_news: bool
) -> None:
    """No request is needed to know that."""
    if is_sent:
        push_campaign(database, 1)
    else:
        factories.add_campaign(database)
    assert watcher.look().has_news == has_news
    assert count_reads(vendor) == 0


def test_the_first_outcome_of_a_campaign_is_seen_whenever_it_was_processed(
    database: Database, vendor: SandboxHandle, watcher: HeadWatcher
) -> None:
    """Until there is one, the head begins at the first lead, as polls do."""
    push_campaign(database, 1)
    watcher.take_turn()
    pass_time(database, 5000)
    poll_outcomes()
    watcher.seen = SeenHead()
    assert not watcher.take_turn()
    process_leads(vendor, {"L0": 4000})
    assert watcher.take_turn()
    assert "L0" in sql.fetch_outcomes(database)


@pytest.mark.parametrize("ahead", [3, 60, 3600])
def test_an_outcome_ahead_of_our_clock_is_stored(
    database: Database, vendor: SandboxHandle, watcher: HeadWatcher, ahead: int
) -> None:
    """The vendor's clock sets the time; the page is stored, and the same page is no news again."""
    vendor.change_rules(clock_offset=ahead)
    poll_campaign(database, vendor)
    settle(watcher)
    process_leads(vendor, {"L0": 0})
    assert watcher.take_turn()
    assert "L0" in sql.fetch_outcomes(database)
    assert not watcher.take_turn()


def test_an_owed_window_that_a_look_shows_is_owed_no_more(
    database: Database, vendor: SandboxHandle, watcher: HeadWatcher
) -> None:
    """One page that holds the whole head holds what is owed there."""
    poll_campaign(database, vendor, settle_s=0)
    process_leads(vendor, {"L0": 5})
    vendor.add_fault(route="responses", kind="status", status=500, lead_id="L0")
    with pytest.raises(CampaignsFailed, match="owed"):
        poll_heads()
    vendor.clear_faults()
    assert watcher.take_turn()
    assert "L0" in sql.fetch_outcomes(database)
    assert sql.fetch_rows(database, "SELECT 1 FROM leadloop.owed_windows") == []


def test_a_look_from_before_the_watermark_was_set_back_is_not_enough(
    database: Database, vendor: SandboxHandle, watcher: HeadWatcher
) -> None:
    """Its page does not reach back so far: the poll reads for itself."""
    poll_campaign(database, vendor)
    settle(watcher)
    pass_time(database, 3000)
    poll_outcomes()
    watcher.seen = SeenHead()
    settle(watcher)
    process_leads(vendor, {"L0": 0, "L1": 2000})
    sql.execute(
        database,
        "UPDATE leadloop.watermarks SET processed_through = now() - interval '2500 seconds'",
    )
    assert watcher.take_turn()
    assert {"L0", "L1"} <= set(sql.fetch_outcomes(database))


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_look_that_fails_is_reported_to_the_caller(
    database: Database, vendor: SandboxHandle, watcher: HeadWatcher, status: int
) -> None:
    """A poll finds out why."""
    poll_campaign(database, vendor)
    vendor.add_fault(route="responses", kind="status", status=status)
    with pytest.raises(ApiError, match=str(status)):
        watcher.look()


def test_a_look_uses_the_page_size_that_was_learned(
    database: Database, vendor: SandboxHandle, watcher: HeadWatcher
) -> None:
    """A vendor that refuses larger pages fails no look."""
    poll_campaign(database, vendor, page_size=10)
    sql.execute(
        database,
        "INSERT INTO leadloop.learned_limits VALUES ('C1', 'page_size', 5)",
    )
    watcher.look()
    assert "page_size=5" in vendor.requests[-1].query


def test_no_state_shows_a_person(
    database: Database, vendor: SandboxHandle, watcher: HeadWatcher
) -> None:
    """Neither of a look nor of what is kept."""
    poll_campaign(database, vendor)
    process_leads(vendor, {"L0": 0})
    look = watcher.look()
    assert look.page is not None
    assert "L0" not in repr(look)
    assert "L0" not in repr(look.seen)


_DIGESTS = st.frozensets(st.sampled_from((b"a", b"b", b"c")))


@given(
    stored=_DIGESTS,
    shown=_DIGESTS,
    uncounted=st.integers(0, 2),
    has_next=st.booleans(),
)
def test_only_a_whole_page_of_known_results_is_no_news(
    stored: frozenset[bytes], shown: frozenset[bytes], uncounted: int, has_next: bool
) -> None:
    """Whatever else a page may be, a poll has to read; and only what was whole is remembered."""
    page = ParsedPage(
        count=len(shown) + uncounted,
        rows=[ParsedRow(key=(str(digest), EPOCH)) for digest in shown],
        has_next=has_next,
        vendor_now=None,
        database_now=EPOCH,
        size=10,
    )
    window = Window(after=EPOCH, before=EPOCH)
    look = compare_head(SeenHead(stored=stored), window, page, shown)
    is_whole = not uncounted and not has_next
    assert look.has_news == (not is_whole or not shown <= stored)
    assert look.seen.stored == (shown if is_whole else frozenset())
    assert (look.page is not None) == is_whole
