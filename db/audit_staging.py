"""Staging tables of the audit: the vendor's whole listing, copied page by page to Postgres.

Two temporary tables, dropped with their connection: `audit_listing` holds every row of every page,
`audit_leads` one row a lead.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, text

from db.bulk_copy import copy_lines, format_row
from db.schema import expand_macros
from leadloop.core.audit_differences import ListedLead


def build_loose_id(column: str) -> str:
    """Build SQL for a lead id without what a vendor may write otherwise, as a number for instance.

    That is its case, blanks, leading zeros, and the zeros of a number's fraction.
    """
    folded = expand_macros(f"lower(FOLDED({column}))")
    return rf"ltrim(regexp_replace({folded}, '\.0*$', ''), '0')"


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
    "unprocessed",
    "unreadable",
    "result",
)
_LISTING = text("""
CREATE TEMPORARY TABLE audit_listing (
    reading integer, page integer, lead_id text, copy text,
    phone_number text, contact_name text, state_code text,
    processed_at timestamptz, outcome_id text, outcome_name text, total_cost numeric,
    touched_at timestamptz, unprocessed boolean, unreadable boolean, result text
)
""")
_COUNT = text("SELECT count(*) FROM (SELECT DISTINCT lead_id, copy FROM audit_listing) AS rows")
# Rows of other campaigns have no `lead_id`. They count, and are compared with nothing.
# Pages of a reading; page 0 holds lookups between two readings.
_ROWS = "SELECT lead_id, copy FROM audit_listing WHERE page > 0 AND reading = :reading"
_COUNT_READING = text(f"SELECT count(*) FROM (SELECT DISTINCT * FROM ({_ROWS}) AS r) AS rows")
_BEFORE = _ROWS.replace(":reading", ":reading - 1")
_DIFFERS = text(f"""
SELECT EXISTS (({_ROWS} EXCEPT {_BEFORE}) UNION ALL ({_BEFORE} EXCEPT {_ROWS}))
""")
# Two pages of one reading show the same row: the pages shifted, or two rows are equal.
_REPEATED = text("""
SELECT DISTINCT lead_id FROM audit_listing
 WHERE reading = :reading AND lead_id <> ''
 GROUP BY lead_id, copy HAVING count(*) > 1 LIMIT :limit
""")

# A lead may have been read in several states, or be listed in several copies: its row has its
# latest state and the number of copies.
_DROP_LEADS = text("DROP TABLE IF EXISTS audit_leads")
_INDEX_LISTING = text("CREATE INDEX IF NOT EXISTS audit_listing_leads ON audit_listing (lead_id)")
_LEADS = text(f"""
CREATE TEMPORARY TABLE audit_leads AS
SELECT latest.*, copies.copies, copies.touched_at, copies.unprocessed,
       {build_loose_id("lead_id")} AS loose_id
  FROM (SELECT DISTINCT ON (lead_id)
               lead_id, phone_number, contact_name, state_code, unreadable,
               processed_at, outcome_id, outcome_name, total_cost
          FROM audit_listing WHERE lead_id <> ''
         ORDER BY lead_id, processed_at DESC NULLS LAST, reading DESC) AS latest
  JOIN (SELECT lead_id, count(DISTINCT copy) AS copies,
               max(greatest(processed_at, touched_at)) AS touched_at,
               bool_and(unprocessed) AS unprocessed
          FROM audit_listing GROUP BY lead_id) AS copies USING (lead_id)
""")
_INDEX_LEADS = text("ALTER TABLE audit_leads ADD PRIMARY KEY (lead_id)")
_INDEX_LOOSE_IDS = text("CREATE INDEX ON audit_leads (loose_id)")
_ANALYZE = text("ANALYZE audit_listing, audit_leads")
# A lead that opts out may show because of that, unlike the others.
_ANY_UNPROCESSED = text("""
SELECT EXISTS (
    SELECT FROM audit_leads WHERE unprocessed AND NOT EXISTS (
        SELECT FROM leadloop.disable_requests AS request
         WHERE request.campaign_id = :campaign AND request.lead_id = audit_leads.lead_id))
""")
_ANY_NAMELESS = text("SELECT EXISTS (SELECT FROM audit_listing WHERE lead_id = '')")


def create_listing_table(connection: Connection) -> None:
    """Create the temporary table of the listing's rows; the end of the connection drops it."""
    connection.execute(_LISTING)


def format_listed_row(listed: ListedLead, *, reading: int, page: int, with_result: bool) -> str:
    """Format a row of the listing as a line of COPY text.

    Args:
        listed: the row.
        reading: number of the reading of the listing.
        page: number of the page.
        with_result: include the raw result, which a repair stores later.
    """
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
            listed.is_unprocessed,
            listed.unreadable,
            outcome.raw if outcome and with_result else None,
        )
    )


def stage_page(connection: Connection, lines: Iterable[str]) -> None:
    """Copy a page's lines to the staging table."""
    copy_lines(connection, "audit_listing", _COLUMNS, lines)


def count_distinct_rows(connection: Connection) -> int:
    """Count the distinct rows of the pages staged so far."""
    count: int = connection.execute(_COUNT).scalar_one()
    return count


def count_rows_of_reading(connection: Connection, reading: int) -> int:
    """Count the distinct rows that one reading of the listing has shown."""
    count: int = connection.execute(_COUNT_READING, {"reading": reading}).scalar_one()
    return count


def repeats_reading(connection: Connection, reading: int) -> bool:
    """Return whether a reading has shown the same rows as the one before it."""
    return not connection.scalar(_DIFFERS, {"reading": reading})


def list_repeated_leads(connection: Connection, reading: int, limit: int) -> list[str]:
    """List ids of leads of which one reading showed equal rows more than once."""
    return list(connection.scalars(_REPEATED, {"reading": reading, "limit": limit}))


def create_lead_table(connection: Connection) -> None:
    """Create or replace the table of leads, one row each, after the last page is staged."""
    for statement in (
        _DROP_LEADS,
        _INDEX_LISTING,
        _LEADS,
        _INDEX_LEADS,
        _INDEX_LOOSE_IDS,
        _ANALYZE,
    ):
        connection.execute(statement)


def has_unprocessed_leads(connection: Connection, campaign_id: str) -> bool:
    """Return whether the listing holds an unprocessed lead of the campaign without an opt-out."""
    return bool(connection.scalar(_ANY_UNPROCESSED, {"campaign": campaign_id}))


def has_nameless_rows(connection: Connection) -> bool:
    """Return whether the listing holds a row that names no lead: it may be that of any lead."""
    return bool(connection.scalar(_ANY_NAMELESS))


@contextmanager
def open_transaction(connection: Connection) -> Iterator[None]:
    """Run the block in a transaction of the staging tables' connection.

    The connection is in autocommit mode. After an exception, close it.
    """
    connection.execute(text("BEGIN"))
    yield
    connection.execute(text("COMMIT"))
