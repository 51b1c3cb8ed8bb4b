"""Differences between a source and the leads, and what applying them does."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, text

from db import source_sync
from db.database import Database
from db.source_sync import SourceDiff, SyncCounts

_STAGE = """
CREATE TEMPORARY TABLE source_rows (
    place bigint GENERATED ALWAYS AS IDENTITY, lead_id text, phone_number text, contact_name text,
    state_code text, ebr_datetime timestamptz, priority smallint, fields text)
"""


@pytest.fixture
def session(database: Database) -> Iterator[Connection]:
    """Yield a session with an empty staging table of a source."""
    with database.dedicated() as connection:
        run(connection, _STAGE)
        yield connection


def run(connection: Connection, *statements: str) -> None:
    """Execute statements in one transaction."""
    with connection.begin():
        for statement in statements:
            connection.execute(text(statement))


def stage_rows(connection: Connection, *rows: tuple[str | None, str]) -> None:
    """Stage rows of a source: id and name."""
    with connection.begin():
        for lead_id, name in rows:
            connection.execute(
                text("""
                INSERT INTO source_rows (lead_id, contact_name, fields)
                VALUES (:id, :name, jsonb_build_object('lead_id', CAST(:id AS text),
                                                       'contact_name', CAST(:name AS text)))
                """),
                {"id": lead_id, "name": name},
            )


def names(connection: Connection) -> dict[str, str]:
    """Return the campaign's leads by id, with their names, in queue order."""
    query = text("SELECT lead_id, contact_name FROM leadloop.leads ORDER BY seq")
    with connection.begin():
        return {row.lead_id: row.contact_name for row in connection.execute(query)}


def sync(connection: Connection) -> tuple[SourceDiff, SyncCounts]:
    """Compute and apply the differences, as a push does."""
    source_sync.lock_source(connection, "C1")
    diff = source_sync.compute_diff(connection, "C1")
    return diff, source_sync.apply_diff(connection, "C1", 1, diff.last)


def test_new_rows_become_leads_in_the_order_of_the_source(session: Connection) -> None:
    """The first row of the source is sent first."""
    stage_rows(session, ("z", "Ann"), ("a", "Bob"))
    diff, counts = sync(session)
    assert (diff.last, counts) == (2, SyncCounts(inserted=2))
    assert list(names(session).items()) == [("z", "Ann"), ("a", "Bob")]


def test_unsent_leads_follow_their_rows(session: Connection) -> None:
    """Changed rows refresh a lead, a missing row removes it; leads inserted by others stay."""
    run(
        session,
        """INSERT INTO leadloop.leads (campaign_id, lead_id, contact_name, from_source)
           VALUES ('C1', 'changed', 'Old', true), ('C1', 'gone', 'Old', true),
                  ('C1', 'same', 'Old', true), ('C1', 'foreign', 'Old', false)""",
    )
    stage_rows(session, ("changed", "New"), ("same", "Old"), ("foreign", "New"))
    assert sync(session)[1] == SyncCounts(refreshed=1, removed=1)
    assert names(session) == {"changed": "New", "same": "Old", "foreign": "Old"}


def test_sent_and_opted_out_leads_stay_as_they_are(session: Connection) -> None:
    """The vendor holds the one, and the other must not be sent."""
    run(
        session,
        """INSERT INTO leadloop.leads
                  (campaign_id, lead_id, contact_name, from_source, status, sent_at, opted_out)
           VALUES ('C1', 'sent', 'Old', true, 'created', now(), false),
                  ('C1', 'out', 'Old', true, 'new', NULL, true)""",
    )
    stage_rows(session, ("sent", "New"), ("out", "New"))
    assert sync(session)[1] == SyncCounts()
    assert names(session) == {"sent": "Old", "out": "Old"}


def test_a_lead_claimed_after_the_comparison_stays(session: Connection) -> None:
    """The condition is checked again under the lock."""
    run(
        session,
        """INSERT INTO leadloop.leads (campaign_id, lead_id, contact_name, from_source)
           VALUES ('C1', 'a', 'Old', true)""",
    )
    stage_rows(session, ("a", "New"))
    diff = source_sync.compute_diff(session, "C1")
    run(session, "UPDATE leadloop.leads SET status = 'sending', sent_at = now()")
    assert source_sync.apply_diff(session, "C1", 1, diff.last) == SyncCounts()


def test_rows_that_cannot_be_leads_are_counted(session: Connection) -> None:
    """Of several rows with one id, one becomes a lead."""
    stage_rows(session, ("a", "Ann"), ("a", "Bob"), ("", "Cid"), (None, "Dan"), ("x" * 256, "Eve"))
    diff, counts = sync(session)
    assert (diff.unnamed, diff.duplicates, counts.inserted) == (3, 1, 1)
