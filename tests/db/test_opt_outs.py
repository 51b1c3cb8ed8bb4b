from datetime import UTC, datetime, timedelta

import pytest

from db import opt_outs
from db.database import Database
from tests import factories, sql
from tests.factories import CAMPAIGN

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def due(database: Database, *tried: str, status: str = "requested", most: int = 10) -> list[str]:
    """Whom to disable next."""
    with database.transaction() as connection:
        return opt_outs.pick_due(
            connection, campaign_id=CAMPAIGN, status=status, limit=most, exclude=tried
        )


def refuse(database: Database, lead_id: str) -> int:
    """The vendor refuses one; at most three tries."""
    with database.transaction() as connection:
        return opt_outs.record_disable_rejections(
            connection,
            campaign_id=CAMPAIGN,
            reasons={lead_id: "vendor: unknown"},
            max_attempts=3,
            settle_s=60,
        )


@pytest.mark.parametrize(
    ("status", "cancelled"),
    [
        ("new", True),
        ("rejected", True),
        ("cancelled", True),
        ("sending", False),
        ("created", False),
        ("in_doubt", False),
    ],
)
def test_only_what_was_never_sent_is_cancelled(
    database: Database, status: str, cancelled: bool
) -> None:
    """The opt-out of a lead that the vendor may hold is sent."""
    factories.add_leads(
        database, factories.build_lead("a", status=status), factories.build_lead("b", status=status)
    )
    factories.add_opt_outs(database, "a")
    with database.transaction() as connection:
        assert opt_outs.cancel_unsent(connection, CAMPAIGN) == int(cancelled)
    assert sql.fetch_statuses(database) == {"a": "cancelled" if cancelled else status, "b": status}
    assert sql.fetch_opt_outs(database) == {"a": "cancelled" if cancelled else "requested"}


def test_the_longest_waiting_goes_first(database: Database) -> None:
    """Whatever the order of the rows, and no more than a batch."""
    for n, lead_id in enumerate("cab"):
        factories.add_opt_outs(database, lead_id, requested_at=NOON - timedelta(hours=n))
    assert sorted(due(database, most=2)) == ["a", "b"]
    assert due(database, "a", "b") == ["c"]


@pytest.mark.parametrize(
    ("status", "waits"),
    [("new", True), ("sending", True), ("created", False), ("in_doubt", False)],
)
def test_a_lead_that_is_on_its_way_is_left_for_later(
    database: Database, status: str, waits: bool
) -> None:
    """The vendor may not know it yet; one that may exist is disabled."""
    factories.add_leads(database, factories.build_lead("a", status=status))
    factories.add_opt_outs(database, "a", "not ours")
    assert sorted(due(database)) == ["not ours"] if waits else ["a", "not ours"]


def test_the_times_of_a_disable_are_kept(database: Database) -> None:
    """Requested, first sent, confirmed: the figures that users are liable for."""
    factories.add_opt_outs(database, "a", requested_at=NOON)
    query = "SELECT requested_at, sent_at, confirmed_at FROM leadloop.disable_requests"
    due(database)
    (first,) = sql.fetch_rows(database, query)
    due(database)
    with database.transaction() as connection:
        assert opt_outs.confirm_disabled(connection, CAMPAIGN, ["a", "b"], settle_s=60) == 1
    (then,) = sql.fetch_rows(database, query)
    assert then["requested_at"] == NOON
    assert then["sent_at"] == first["sent_at"] < then["confirmed_at"]
    assert first["confirmed_at"] is None
    assert sql.fetch_opt_outs(database) == {"a": "disabled"}


def test_a_refused_one_is_given_up_after_three_tries(database: Database) -> None:
    """And reported with the vendor's words; a person can have it tried again."""
    factories.add_opt_outs(database, "a")
    assert [refuse(database, "a") for _ in range(3)] == [0, 0, 1]
    query = "SELECT status, last_error FROM leadloop.disable_requests"
    assert sql.fetch_rows(database, query) == [
        {"status": "failed", "last_error": "vendor: unknown"}
    ]
    assert due(database) == []
    with database.transaction() as connection:
        assert opt_outs.requeue_failed(connection, campaign_ids=[CAMPAIGN], lead_ids=[]) == 1
    assert due(database) == ["a"]


def test_one_that_may_yet_turn_up_at_the_vendor_is_never_given_up(database: Database) -> None:
    """A lead in doubt may be called tomorrow."""
    factories.add_leads(database, factories.build_lead("a", status="in_doubt"))
    factories.add_opt_outs(database, "a")
    assert [refuse(database, "a") for _ in range(5)] == [0] * 5
    assert sql.fetch_opt_outs(database) == {"a": "requested"}


def test_an_opt_out_twice_is_one(database: Database) -> None:
    """The first request's time stands."""
    with database.transaction() as connection:
        assert opt_outs.request_opt_outs(connection, CAMPAIGN, ["a", "b"]) == 2
        assert opt_outs.request_opt_outs(connection, CAMPAIGN, ["a", "c"]) == 1
