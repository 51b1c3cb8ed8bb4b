"""Erasure of a person's data; `tests/cli/test_forget.py` covers the command and its races."""

import pytest
from sqlalchemy import Connection, text

from db import erasure

_PERSONAL = ("phone_number", "contact_name", "state_code", "ebr_datetime")


@pytest.fixture
def stored(connection: Connection) -> Connection:
    """Return a transaction with data of two leads, and an outcome of an unknown third one."""
    for statement in (
        """INSERT INTO leadloop.leads (campaign_id, lead_id, phone_number, contact_name, state_code,
                                       custom_fields, status, sent_at)
           VALUES ('C1', 'new', '+14155550100', 'Ann', 'CA', '{"note": "Ann"}', 'new', NULL),
                  ('C1', 'sending', '+14155550101', 'Bob', 'CA', '{}', 'sending', now())""",
        """INSERT INTO leadloop.lead_outcomes (campaign_id, lead_id, processed_at, raw)
           VALUES ('C1', 'other', now(), '{"contact_name": "Cid"}')""",
        """INSERT INTO leadloop.unreadable_results (campaign_id, digest, reason, raw)
           VALUES ('C1', 'x', 'no time', '{"lead_id": "new", "contact_name": "Ann"}')""",
    ):
        connection.execute(text(statement))
    return connection


def test_any_trace_of_a_lead_is_found(stored: Connection) -> None:
    """A lead that only the vendor knows can be forgotten too; a typing error is not."""
    locked = erasure.lock_for_erasure(stored, "C1", ["new", "sending", "other", "nobody"])
    assert sorted(locked.known) == ["new", "other", "sending"]
    assert locked.sending == ["sending"], "its request is under way: the caller has to wait"


def test_nothing_personal_is_left_and_the_lead_is_opted_out(stored: Connection) -> None:
    """The id and the opt-out stay, so that the person is not called again."""
    locked = erasure.lock_for_erasure(stored, "C1", ["new", "other"])
    erasure.erase_leads(stored, "C1", locked.known)
    lead = stored.execute(text("SELECT * FROM leadloop.leads WHERE lead_id = 'new'")).one()
    assert [getattr(lead, column) for column in _PERSONAL] == [None] * 4
    assert (lead.custom_fields, lead.status, lead.opted_out) == ({}, "cancelled", True)
    assert stored.scalars(text("SELECT raw FROM leadloop.lead_outcomes")).all() == [{}]
    assert stored.scalars(text("SELECT raw FROM leadloop.unreadable_results")).all() == []
    assert erasure.find_forgotten(stored, "C1", ["new", "sending", "other"]) == {"new", "other"}


def test_an_id_that_the_vendor_wrote_as_a_number_is_the_same_person(connection: Connection) -> None:
    """A result that could not be read has her data too: 17, 17.0 and "17" are lead 17."""
    connection.execute(
        text(
            """INSERT INTO leadloop.unreadable_results (campaign_id, digest, reason, raw)
               SELECT 'C1', id, 'no time', jsonb_build_object('lead_id', CAST(id AS jsonb))
                 FROM unnest(ARRAY['17', '17.0', '"17"', '170', '"17.0"', 'null', '[17]']) AS id"""
        )
    )
    assert erasure.lock_for_erasure(connection, "C1", ["17", "18"]).known == ["17"]
    erasure.erase_leads(connection, "C1", ["17"])
    kept = connection.scalars(text("SELECT digest FROM leadloop.unreadable_results ORDER BY 1"))
    assert sorted(kept) == sorted(["170", '"17.0"', "null", "[17]"])
