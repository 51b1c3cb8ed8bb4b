"""The vendor's whole listing, copied page by page to a stage of Postgres's.

The stage is a pair of temporary tables, so it is gone with its connection, however that ends:
`audit_listing` holds every row of every page, `audit_there` a row a lead.
"""

from collections.abc import Iterable

from sqlalchemy import Connection, text

from db.bulk_copy import copy_lines, format_row
from leadloop.core.audit_differences import ListedLead

_COLUMNS = (
    "reading",
    "page",
    "lead_id",
    "copy",
    "phone_number",
    "contact_name",
    "state_code",
    "processed_at",
    "outcome_id",
    "outcome_name",
    "total_cost",
    "touched_at",
    "unreadable",
    "result",
)
_LISTING = text("""
CREATE TEMPORARY TABLE audit_listing (
    reading integer, page integer, lead_id text, copy text,
    phone_number text, contact_name text, state_code text,
    processed_at timestamptz, outcome_id text, outcome_name text, total_cost numeric,
    touched_at timestamptz, unreadable boolean, result text
)
""")
_COUNT = text("SELECT count(*) FROM (SELECT DISTINCT lead_id, copy FROM audit_listing) AS rows")
# Two pages of one reading show the same row: it has shifted, or there are two that look alike.
_REPEATED = text("""
SELECT DISTINCT lead_id FROM audit_listing
 WHERE reading = :reading AND lead_id <> ''
 GROUP BY lead_id, copy HAVING count(*) > 1 LIMIT :most
""")

# A lead may have been read in several states, or be there in several copies: what is known of it
# is its latest state, and how many copies there are.
_INDEX_LISTING = text("CREATE INDEX ON audit_listing (lead_id)")
_THERE = text("""
CREATE TEMPORARY TABLE audit_there AS
SELECT latest.*, whole.copies, whole.touched_at
  FROM (SELECT DISTINCT ON (lead_id)
               lead_id, phone_number, contact_name, state_code, unreadable,
               processed_at, outcome_id, outcome_name, total_cost
          FROM audit_listing WHERE lead_id <> ''
         ORDER BY lead_id, processed_at DESC NULLS LAST, reading DESC) AS latest
  JOIN (SELECT lead_id, count(DISTINCT copy) AS copies,
               max(greatest(processed_at, touched_at)) AS touched_at
          FROM audit_listing GROUP BY lead_id) AS whole USING (lead_id)
""")
_INDEX_THERE = text("ALTER TABLE audit_there ADD PRIMARY KEY (lead_id)")
_ANALYZE = text("ANALYZE audit_listing, audit_there")
_ANY_UNPROCESSED = text(
    "SELECT EXISTS (SELECT FROM audit_there WHERE processed_at IS NULL AND NOT unreadable)"
)


def create_listing_table(connection: Connection) -> None:
    """Make the table that the listing is copied to; it lives as long as the connection."""
    connection.execute(_LISTING)


def format_listed_row(listed: ListedLead, *, reading: int, page: int, with_result: bool) -> str:
    """A row of the listing as a line for COPY; `whole`: with the result, to store it later."""
    facts, outcome = listed.facts, listed.outcome
    return format_row(
        (
            reading,
            page,
            listed.lead_id,
            listed.copy_key,
            facts.phone_number,
            facts.contact_name,
            facts.state_code,
            outcome.processed_at if outcome else None,
            outcome.outcome_id if outcome else None,
            outcome.outcome_name if outcome else None,
            outcome.total_cost if outcome else None,
            listed.last_attempt_at,
            listed.unreadable,
            outcome.raw if outcome and with_result else None,
        )
    )


def stage_page(connection: Connection, lines: Iterable[str]) -> None:
    """Copy a page's lines to the stage."""
    copy_lines(connection, "audit_listing", _COLUMNS, lines)


def count_distinct_rows(connection: Connection) -> int:
    """How many rows the pages read so far hold, each counted once."""
    count: int = connection.execute(_COUNT).scalar_one()
    return count


def list_repeated_leads(connection: Connection, reading: int, limit: int) -> list[str]:
    """Ids of leads that one reading showed more than once in the same words."""
    return list(connection.scalars(_REPEATED, {"reading": reading, "most": limit}))


def create_lead_table(connection: Connection) -> None:
    """Everything is staged: make the table that is compared, a row a lead."""
    for statement in (_INDEX_LISTING, _THERE, _INDEX_THERE, _ANALYZE):
        connection.execute(statement)


def has_unprocessed_leads(connection: Connection) -> bool:
    """Whether the vendor's listing holds a lead that is not yet processed."""
    return bool(connection.scalar(_ANY_UNPROCESSED))
