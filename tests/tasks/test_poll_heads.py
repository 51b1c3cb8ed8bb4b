"""Head polls beside plain polls, against the sandbox over real HTTP."""

from datetime import UTC, datetime, timedelta

import pytest

from db import watermarks
from db.database import Database
from leadloop.sandbox import SandboxHandle
from tasks.jobs import CampaignsFailed
from tests import sql
from tests.factories import CAMPAIGN
from tests.jobs import backfill_outcomes, poll_heads, poll_outcomes
from tests.polled_campaigns import pass_time, poll_campaign, process_leads, push_campaign

pytestmark = pytest.mark.usefixtures("quick_retries", "environment")


def test_a_head_poll_moves_the_watermark_and_not_the_lookback(
    database: Database, vendor: SandboxHandle
) -> None:
    """Others rely on the watermark; the next plain poll reads on where the last one did."""
    poll_campaign(database, vendor)
    pass_time(database, 700)
    before = fetch_marks(database)
    poll_heads()
    after = fetch_marks(database)
    assert after["processed_through"] > before["processed_through"] + timedelta(seconds=600)
    assert after["reread_through"] == before["reread_through"]
    poll_outcomes()
    assert fetch_marks(database)["reread_through"] > after["reread_through"]


def fetch_marks(database: Database) -> dict[str, datetime]:
    """Return the row of the watermark."""
    (row,) = sql.fetch_rows(database, "SELECT * FROM leadloop.watermarks")
    return row


def test_a_head_poll_costs_the_new_outcomes_only(database: Database, vendor: SandboxHandle) -> None:
    """A poll that reads the lookback again costs a request a page of it, and its proof."""
    poll_campaign(database, vendor, amount=51, page_size=10)
    known = [f"L{number}" for number in (*range(50), 51)]
    process_leads(vendor, dict.fromkeys(known, 0))
    poll_heads()
    pass_time(database, 300)
    process_leads(vendor, dict.fromkeys(known, 300))
    poll_heads()
    process_leads(vendor, {"L50": 0})
    head = poll_heads()
    assert (head["requests"], head["seen"], head["inserted"]) == (1, 1, 1)
    assert poll_outcomes()["requests"] > 5


def test_a_late_outcome_between_two_plain_polls_needs_no_longer_lookback(
    database: Database, vendor: SandboxHandle
) -> None:
    """Head polls had read its time; the plain poll finds it without any lookback."""
    poll_campaign(database, vendor)
    pass_time(database, 3000)
    poll_heads()
    pass_time(database, 100)
    process_leads(vendor, {"L0": 1500})
    assert poll_heads()["inserted"] == 0
    summary = poll_outcomes()
    found = summary["campaigns"][CAMPAIGN]
    assert (found["inserted"], found["late"], found["lookback_needed_s"]) == (1, 1, 0)


def test_a_watermark_that_was_set_back_counts_for_polls_of_both_kinds(
    database: Database, vendor: SandboxHandle
) -> None:
    """The head poll reads from there on, and the next plain poll from the lookback before."""
    poll_campaign(database, vendor)
    pass_time(database, 5000)
    poll_heads()
    poll_outcomes()
    pass_time(database, 10)
    process_leads(vendor, {"L0": 2990, "L1": 3500, "L2": 4500})
    sql.execute(
        database,
        "UPDATE leadloop.watermarks SET processed_through = now() - interval '3000 seconds'",
    )
    poll_heads()
    assert set(sql.fetch_outcomes(database)) == {"L0", "L3"}
    poll_outcomes()
    assert set(sql.fetch_outcomes(database)) == {"L0", "L1", "L3"}


@pytest.mark.parametrize("lookback_s", [0, 10, 3600])
def test_a_head_poll_reads_no_more_than_the_lookback_again(
    database: Database, vendor: SandboxHandle, lookback_s: int
) -> None:
    """With no lookback, nothing is read twice."""
    poll_campaign(database, vendor, lookback_s=lookback_s, settle_s=0)
    before = fetch_marks(database)["read_through"]
    poll_heads()
    start = sql.fetch_value(
        database,
        "SELECT window_after FROM leadloop.poll_windows ORDER BY window_id DESC LIMIT 1",
    )
    assert before - start == timedelta(seconds=min(lookback_s, 30))


def test_polls_are_plain_until_the_first_outcome(database: Database, vendor: SandboxHandle) -> None:
    """If a setting was wrong at first, no outcome is lost: each poll begins at the first lead."""
    push_campaign(database, 1)
    poll_heads()
    pass_time(database, 5000)
    poll_heads()
    process_leads(vendor, {"L0": 4000})
    assert poll_heads()["inserted"] == 1


def test_a_head_poll_tries_what_is_owed(database: Database, vendor: SandboxHandle) -> None:
    """What cannot be read in the head is owed, and whichever poll comes next tries it when due."""
    poll_campaign(database, vendor, settle_s=0)
    process_leads(vendor, {"L0": 5})
    vendor.add_fault(route="responses", kind="status", status=500, lead_id="L0")
    with pytest.raises(CampaignsFailed, match="owed"):
        poll_heads()
    vendor.clear_faults()
    assert poll_heads()["inserted"] == 0
    sql.execute(database, "UPDATE leadloop.owed_windows SET next_try_at = now()")
    assert poll_heads()["inserted"] == 1
    assert sql.fetch_rows(database, "SELECT 1 FROM leadloop.owed_windows") == []


@pytest.mark.parametrize(("length_s", "counts"), [(3000, True), (1000, False)])
def test_a_backfill_leaves_late_results_to_the_next_poll(
    database: Database, vendor: SandboxHandle, length_s: int, counts: bool
) -> None:
    """One that begins within the lookback has not read the rest of it: a result may show there."""
    poll_campaign(database, vendor)
    pass_time(database, 600)
    before = fetch_marks(database)
    process_leads(vendor, {"L0": 1200})
    now = datetime.now(UTC)
    backfill_outcomes(after=now - timedelta(seconds=length_s), before=now)
    after = fetch_marks(database)
    assert after["read_through"] > before["read_through"]
    assert (after["reread_through"] > before["reread_through"]) == counts
    pass_time(database, 600)
    process_leads(vendor, {"L0": 1800})
    poll_outcomes()
    assert "L0" in sql.fetch_outcomes(database)


def test_a_resumed_backfill_counts_as_no_read_of_the_lookback(
    database: Database, vendor: SandboxHandle
) -> None:
    """Windows that were closed before may show late results since; the next poll reads them."""
    poll_campaign(database, vendor)
    pass_time(database, 2000)
    now = datetime.now(UTC)
    wanted = {"after": now - timedelta(seconds=3000), "before": now}
    with database.transaction() as connection:
        before = watermarks.get_reread_through(connection, CAMPAIGN)
    run_id = sql.fetch_value(
        database,
        """INSERT INTO leadloop.sync_runs (flow, campaign_id, state)
           VALUES ('backfill-outcomes', 'C1', 'failed') RETURNING run_id""",
    )
    sql.execute(
        database,
        """INSERT INTO leadloop.poll_windows
               (campaign_id, run_id, window_after, window_before, status, claimed_count,
                stored_count, pages, closed_through, range_after, range_before)
           VALUES ('C1', :run, :after, :closed, 'closed', 0, 0, 1, :closed, :after, :before)""",
        run=run_id,
        closed=now - timedelta(seconds=300),
        **wanted,
    )
    backfill_outcomes(after=wanted["after"], before=wanted["before"])
    with database.transaction() as connection:
        assert watermarks.get_reread_through(connection, CAMPAIGN) == before
        read_through = watermarks.get_read_through(connection, CAMPAIGN)
    assert read_through is not None
    assert read_through > now - timedelta(seconds=300)
