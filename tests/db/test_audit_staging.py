"""The staged listing of an audit: rows are deduplicated, a lead has its latest state."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text

from db import audit_staging
from db.database import Connection, Database
from leadloop.core.audit_differences import parse_listing_page


@pytest.fixture
def listing(database: Database) -> Iterator[Connection]:
    """Yield a session with an empty staging table."""
    with database.autocommit() as connection:
        audit_staging.create_listing_table(connection)
        yield connection


def shown(lead_id: str, **more: Any) -> dict[str, Any]:
    """Return a lead as the vendor lists it."""
    return {"lead_id": lead_id, "phone_number": "+14155550100", "created_at": 1, **more}


def stage(listing: Connection, *results: Any, reading: int = 1, page: int = 1) -> None:
    """Stage one page of one reading."""
    lines = [
        audit_staging.format_listed_row(listed, reading=reading, page=page, with_result=True)
        for listed in parse_listing_page(results, "C1")
    ]
    audit_staging.stage_page(listing, lines)


def test_a_row_counts_once_however_often_it_was_read(listing: Connection) -> None:
    """Over pages and readings, also when the lead was processed meanwhile."""
    stage(listing, shown("a"), shown("b"))
    stage(listing, shown("b"), page=2)
    stage(listing, shown("a", processed_at=5), shown("a", created_at=2), {"no": "id"}, reading=2)
    assert audit_staging.count_distinct_rows(listing) == 4
    assert audit_staging.list_repeated_leads(listing, reading=1, limit=9) == ["b"]
    assert audit_staging.list_repeated_leads(listing, reading=2, limit=9) == []


@pytest.mark.parametrize("first", ["processed", "unprocessed"])
def test_a_lead_has_its_latest_state(listing: Connection, first: str) -> None:
    """A lead that was processed during the audit is processed, whichever reading came first."""
    states = {"processed": shown("a", processed_at=1767225600000), "unprocessed": shown("a")}
    stage(listing, states.pop(first))
    stage(listing, *states.values(), reading=2)
    audit_staging.create_lead_table(listing)
    assert not audit_staging.has_unprocessed_leads(listing, "C1")
    assert listing.scalar(text("SELECT count(*) FROM audit_leads")) == 1


def test_copies_of_a_lead_are_counted(listing: Connection) -> None:
    """The vendor lists a lead twice that was created twice."""
    stage(listing, shown("a"), shown("a", created_at=2), shown("b"))
    audit_staging.create_lead_table(listing)
    copies = listing.execute(text("SELECT lead_id, copies FROM audit_leads ORDER BY 1"))
    assert [tuple(row) for row in copies] == [("a", 2), ("b", 1)]
    assert audit_staging.has_unprocessed_leads(listing, "C1")
