"""The preview of a push: the leads that it would send, without a change."""

import pytest
from sqlalchemy import Connection, text

from db import push_preview
from db.database import Database, DatabaseError


def lead_ids(connection: Connection, *, has_source: bool = False) -> dict[str, tuple[str, bool]]:
    """Return kind and opt-out of each row, by lead id."""
    rows = push_preview.iter_rows(connection, "C1", has_source=has_source)
    return {row.lead.lead_id: (row.kind, row.opted_out) for row in rows}


def test_without_a_source_all_new_leads_would_be_sent(connection: Connection) -> None:
    """An opt-out counts even if it was inserted while its lead was invisible to the triggers."""
    connection.execute(
        text("""
        INSERT INTO leadloop.leads (campaign_id, lead_id, status)
        VALUES ('C1', 'a', 'new'), ('C1', 'b', 'created'), ('C1', 'c', 'new'), ('D', 'd', 'new')
        """)
    )
    connection.execute(
        text("INSERT INTO leadloop.disable_requests (campaign_id, lead_id) VALUES ('C1', 'c')")
    )
    connection.execute(text("UPDATE leadloop.leads SET opted_out = false"))
    assert lead_ids(connection) == {"a": ("kept", False), "c": ("kept", True)}
    opted_out = push_preview.iter_opted_out_rows(connection, "C1", has_source=False)
    assert [row.lead.lead_id for row in opted_out] == ["c"]


def test_with_a_source_rows_are_compared_with_the_leads(connection: Connection) -> None:
    """Rows that a push would skip are part of the preview, and are not sent."""
    connection.execute(
        text("""
        CREATE TEMPORARY TABLE source_rows (
            place bigint GENERATED ALWAYS AS IDENTITY, lead_id text, phone_number text,
            contact_name text, state_code text, ebr_datetime timestamptz, priority smallint,
            fields text)
        """)
    )
    connection.execute(
        text("""
        INSERT INTO leadloop.leads (campaign_id, lead_id, contact_name, from_source)
        VALUES ('C1', 'changed', 'Old', true), ('C1', 'gone', 'Old', true)
        """)
    )
    connection.execute(
        text("""
        INSERT INTO source_rows (lead_id, contact_name, fields)
        VALUES ('changed', 'New', '{}'), ('new', 'New', '{}'), (NULL, 'New', '{}')
        """)
    )
    rows = list(push_preview.iter_rows(connection, "C1", has_source=True))
    assert {row.lead.lead_id: (row.kind, row.will_be_sent) for row in rows} == {
        "changed": ("changed", True),
        "new": ("new", True),
        "gone": ("gone", False),
        "": ("unnamed", False),
    }
    assert {row.lead.contact_name for row in rows if row.will_be_sent} == {"New"}


def test_a_lead_that_is_too_old_would_not_be_sent(connection: Connection) -> None:
    """Only where the campaign has a greatest age."""
    connection.execute(
        text("""
        INSERT INTO leadloop.leads (campaign_id, lead_id, inserted_at)
        VALUES ('C1', 'old', now() - interval '1 hour'), ('C1', 'young', now())
        """)
    )
    for max_age_s, old in ((None, False), (600, True)):
        rows = push_preview.iter_rows(connection, "C1", has_source=False, max_lead_age_s=max_age_s)
        assert {row.lead.lead_id: row.too_old for row in rows} == {"old": old, "young": False}


def test_a_preview_cannot_change_anything(database: Database) -> None:
    """Its transaction is read-only."""
    with (
        pytest.raises(DatabaseError, match="25006"),
        database.dedicated() as connection,
        push_preview.read_only_snapshot(connection),
    ):
        connection.execute(text("DELETE FROM leadloop.leads"))
