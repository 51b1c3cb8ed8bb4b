"""What is due for which campaign, as the jobs themselves would find it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from db import due_work
from db.database import Database
from db.due_work import SHARES, DueWork, PolledCampaign
from tests import factories, sql

ALL = range(SHARES)
PAST = datetime.now(UTC) - timedelta(hours=1)
FUTURE = datetime.now(UTC) + timedelta(hours=1)


def find_new(database: Database) -> list[DueWork]:
    """What came in."""
    with database.transaction() as connection:
        return due_work.find_new_work(connection, ALL)


def find_timed(database: Database) -> list[DueWork]:
    """What is due by its time."""
    with database.transaction() as connection:
        return due_work.find_timed_work(connection, ALL, settle_s=60)


def test_nothing_is_due_of_nothing(database: Database) -> None:
    """Neither without campaigns, nor for one whose leads are sent and opt-outs confirmed."""
    assert find_new(database) == []
    factories.add_campaign(database)
    factories.add_leads(database, factories.build_lead("a", status="created", sent_at=PAST))
    factories.add_opt_outs(database, "a", status="disabled")
    assert find_new(database) == []
    assert find_timed(database) == []


@pytest.mark.parametrize("amount", [100, 101])
def test_leads_are_few_if_one_request_holds_them(database: Database, amount: int) -> None:
    """Urgent ones do not count: they go before the others anyway."""
    factories.add_campaign(database)
    factories.add_leads(database, *map(str, range(amount)), factories.build_lead("u", priority=1))
    assert [work.are_few for work in find_new(database)] == [amount == 100]


@pytest.mark.parametrize(
    ("campaign", "lead", "expected"),
    [
        ({}, {}, DueWork(campaign_id="C1", has_leads=True)),
        ({}, {"priority": 1}, DueWork(campaign_id="C1", has_urgent=True)),
        ({"priority": 1}, {}, DueWork(campaign_id="C1", has_urgent=True)),
        ({"enabled": False}, {}, None),
        ({"push_enabled": False}, {}, None),
        ({}, {"suspect_list": 7}, None),
    ],
)
def test_new_leads(
    database: Database, campaign: dict[str, Any], lead: dict[str, Any], expected: DueWork | None
) -> None:
    """Of a campaign that may create leads; suspects wait for their time."""
    factories.add_campaign(database, **campaign)
    factories.add_leads(database, factories.build_lead("a", **lead))
    assert find_new(database) == ([expected] if expected else [])


def test_a_held_campaign_creates_nothing(database: Database) -> None:
    """Its opt-outs are due all the same."""
    factories.add_campaign(database)
    factories.add_leads(database, "a", "b")
    factories.add_opt_outs(database, "b")
    sql.execute(
        database,
        "INSERT INTO leadloop.create_holds (campaign_id, reason) VALUES ('C1', 'restored')",
    )
    assert find_new(database) == [DueWork(campaign_id="C1", has_opt_outs=True)]


def test_opt_outs_of_a_disabled_campaign_are_due(database: Database) -> None:
    """Whatever its other switches say."""
    factories.add_campaign(database, enabled=False, push_enabled=False)
    factories.add_opt_outs(database, "a")
    assert find_new(database) == [DueWork(campaign_id="C1", has_opt_outs=True)]


def test_many_campaigns_in_the_order_of_their_priority(database: Database) -> None:
    """Those without work are not named."""
    for number in range(12):
        factories.add_campaign(database, f"C{number:02}", priority=number % 3)
        if number % 2:
            factories.add_leads(database, "a", "b", campaign=f"C{number:02}")
    assert [work.campaign_id for work in find_new(database)] == [
        "C05", "C11", "C01", "C07", "C03", "C09",
    ]  # fmt: skip


def test_each_campaign_is_of_one_share(database: Database) -> None:
    """So that all shares together have all the work, each piece once."""
    names = [f"C{number:03}" for number in range(100)]
    for name in names:
        factories.add_campaign(database, name)
        factories.add_leads(database, "a", campaign=name)
    with database.transaction() as connection:
        shares = [due_work.find_new_work(connection, [share]) for share in ALL]
    assert sorted(work.campaign_id for share in shares for work in share) == names
    assert all(len(share) < 25 for share in shares)


@pytest.mark.parametrize(
    ("lead", "is_due"),
    [
        ({"status": "in_doubt", "sent_at": PAST, "doubted_at": PAST}, True),
        ({"status": "in_doubt", "sent_at": PAST, "doubted_at": "infinity"}, False),
        (
            {"status": "in_doubt", "sent_at": PAST, "doubted_at": PAST,
             "looked_up_at": datetime.now(UTC)},
            False,
        ),
        ({"suspect_list": 1, "next_try_at": PAST}, True),
        ({"suspect_list": 1}, True),
        ({"suspect_list": 1, "next_try_at": FUTURE}, False),
    ],
)  # fmt: skip
def test_leads_whose_time_has_come(database: Database, lead: dict[str, Any], is_due: bool) -> None:
    """Doubts to look up, and suspects to send."""
    factories.add_campaign(database)
    factories.add_leads(database, factories.build_lead("a", **lead))
    assert find_timed(database) == [DueWork(campaign_id="C1", has_leads=True)] * is_due


def test_lookups_that_show_nothing_are_not_due(database: Database) -> None:
    """For a day after they have shown that."""
    factories.add_campaign(database, shows_unprocessed=False, visibility_tried_at=datetime.now(UTC))
    factories.add_leads(
        database, factories.build_lead("a", status="in_doubt", sent_at=PAST, doubted_at=PAST)
    )
    assert find_timed(database) == []
    sql.execute(
        database, "UPDATE leadloop.campaigns SET visibility_tried_at = now() - interval '25 hours'"
    )
    assert find_timed(database) == [DueWork(campaign_id="C1", has_leads=True)]


def test_failed_opt_outs_and_owed_windows_whose_time_has_come(database: Database) -> None:
    """Not before."""
    factories.add_campaign(database)
    factories.add_opt_outs(database, "a", status="failed", next_try_at=FUTURE)
    owed = factories.owe_window(database, "2026-01-01Z", "2026-01-02Z")
    assert find_timed(database) == []
    with database.transaction() as connection:
        connection.execute(
            text("UPDATE leadloop.owed_windows SET next_try_at = now() WHERE owed_id = :id"),
            {"id": owed},
        )
        connection.execute(text("UPDATE leadloop.disable_requests SET next_try_at = now()"))
    assert find_timed(database) == [
        DueWork(campaign_id="C1", has_opt_outs=True, has_owed_windows=True)
    ]


def test_what_is_known_of_the_campaigns_to_poll(database: Database) -> None:
    """How far they were read, and their last sign of life; none that is disabled."""
    for campaign, enabled in (("new", True), ("polled", True), ("off", False)):
        factories.add_campaign(database, campaign, enabled=enabled)
    sql.execute(
        database,
        "INSERT INTO leadloop.watermarks (campaign_id, stream, processed_through, read_through)"
        " VALUES ('polled', 'outcomes', :past, :future)",
        past=PAST,
        future=FUTURE,
    )
    sql.execute(
        database,
        "UPDATE leadloop.campaigns SET specimen_at = :past WHERE campaign_id = 'polled'",
        past=PAST,
    )
    with database.transaction() as connection:
        assert due_work.list_polled_campaigns(connection, ALL) == [
            PolledCampaign(campaign_id="new", read_through=None, last_active_at=None),
            PolledCampaign(campaign_id="polled", read_through=FUTURE, last_active_at=PAST),
        ]
