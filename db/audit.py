"""The audit's comparison of the staged listing (`db.audit_staging`) with our tables; repairs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, text

from db.audit_staging import build_loose_id
from leadloop.core.audit_differences import PersonFacts

#: Sample lead ids in a finding.
MAX_SAMPLES = 3
_BATCH_SIZE = 1000

# The comparison. Each query selects lead ids.
_LISTED_LEADS = """
SELECT lead.lead_id FROM leadloop.leads AS lead JOIN audit_leads AS listed USING (lead_id)
 WHERE lead.campaign_id = :campaign
"""
_UNLISTED_LEADS = """
SELECT lead.lead_id FROM leadloop.leads AS lead
 WHERE lead.campaign_id = :campaign
   AND NOT EXISTS (SELECT FROM audit_leads AS listed WHERE listed.lead_id = lead.lead_id)
"""
# The vendor may have written the lead's id otherwise.
_LISTED_LOOSELY = f"""EXISTS (SELECT FROM audit_leads AS listed
                    WHERE listed.loose_id = {build_loose_id("lead.lead_id")})"""
_HAS_OUTCOME = """EXISTS (
       SELECT FROM leadloop.lead_outcomes AS stored
        WHERE stored.campaign_id = lead.campaign_id AND stored.lead_id = lead.lead_id)"""
# Every vendor lists processed leads; only some list unprocessed ones.
_MISSING = f"""(:complete AND lead.status = 'created'
   AND coalesce(lead.confirmed_at, '-infinity') < :settled_by
   AND (:shows_unprocessed OR {_HAS_OUTCOME}) AND NOT {_LISTED_LOOSELY})"""
_IN_DOUBT = f"""(:complete AND lead.status = 'in_doubt'
   AND coalesce(lead.doubted_at, lead.sent_at, '-infinity') < :settled_by
   AND NOT {_LISTED_LOOSELY})"""
_LISTED_OUTCOMES = """
SELECT listed.lead_id
  FROM audit_leads AS listed
  LEFT JOIN leadloop.lead_outcomes AS stored
         ON stored.campaign_id = :campaign AND stored.lead_id = listed.lead_id
 WHERE listed.processed_at IS NOT NULL
"""
_OUTCOME_DIFFERS = """
       (stored.processed_at, stored.outcome_id, stored.outcome_name, stored.total_cost)
       IS DISTINCT FROM
       (listed.processed_at, listed.outcome_id, listed.outcome_name, listed.total_cost)"""
# Newer than ours and past the watermark: the next poll is due to read it.
_NOT_POLLED = """(listed.processed_at > coalesce((
           SELECT processed_through FROM leadloop.watermarks AS mark
            WHERE mark.campaign_id = :campaign AND mark.stream = 'outcomes'), 'infinity')
       AND (stored.lead_id IS NULL OR stored.processed_at < listed.processed_at))"""
_LISTED_OPT_OUTS = """
SELECT d.lead_id FROM leadloop.disable_requests AS d JOIN audit_leads AS listed USING (lead_id)
 WHERE d.campaign_id = :campaign
"""

_FINDINGS: Mapping[str, str] = {
    "missing_there": f"{_UNLISTED_LEADS} AND {_MISSING}",
    "missing_here": """
SELECT listed.lead_id FROM audit_leads AS listed
 WHERE NOT EXISTS (SELECT FROM leadloop.leads AS lead
                    WHERE lead.campaign_id = :campaign AND lead.lead_id = listed.lead_id)""",
    "new_but_there": f"{_LISTED_LEADS} AND lead.status = 'new'",
    "rejected_but_there": f"{_LISTED_LEADS} AND lead.status = 'rejected'",
    "cancelled_but_there": f"{_LISTED_LEADS} AND lead.status = 'cancelled'",
    "created_twice": "SELECT lead_id FROM audit_leads WHERE copies > 1",
    "outcome_missing_here": f"{_LISTED_OUTCOMES} AND stored.lead_id IS NULL AND NOT {_NOT_POLLED}",
    # An outcome that a poll stored after the listing began may be newer than the listed one.
    "outcome_differs": f"""{_LISTED_OUTCOMES}
   AND stored.updated_at < :began AND {_OUTCOME_DIFFERS} AND NOT {_NOT_POLLED}""",
    "outcome_missing_there": """
SELECT stored.lead_id FROM leadloop.lead_outcomes AS stored
 WHERE stored.campaign_id = :campaign AND :complete AND stored.first_seen_at < :began
   AND NOT EXISTS (SELECT FROM audit_leads AS listed
                    WHERE listed.lead_id = stored.lead_id
                      AND (listed.processed_at IS NOT NULL OR listed.unreadable))""",
    "in_doubt_there": f"{_LISTED_LEADS} AND lead.status = 'in_doubt'",
    "in_doubt_not_there": f"{_UNLISTED_LEADS} AND {_IN_DOUBT}",
    "called_after_opt_out": f"""{_LISTED_OPT_OUTS}
   AND d.status IN ('disabled', 'cancelled') AND listed.touched_at > d.confirmed_at + :ahead""",
    "opt_out_not_sent": f"{_LISTED_OPT_OUTS} AND d.status = 'cancelled'",
    "unreadable": """
SELECT lead_id FROM audit_listing WHERE unreadable GROUP BY lead_id, copy""",
    "absence_unproven": f"""{_UNLISTED_LEADS}
   AND lead.status IN ('created', 'in_doubt') AND NOT {_MISSING} AND NOT {_IN_DOUBT}""",
    "outcome_not_polled": f"{_LISTED_OUTCOMES} AND {_NOT_POLLED}",
}
_QUERIES = {
    name: text(f"""
WITH found AS ({query})
SELECT (SELECT count(*) FROM found) AS leads,
       ARRAY(SELECT lead_id FROM found WHERE lead_id <> '' ORDER BY lead_id LIMIT :samples) AS ids
""")
    for name, query in _FINDINGS.items()
}
# The vendor would list it, if it holds the lead and lists unprocessed leads at all.
_UNLISTED_LEAD = text(f"""{_UNLISTED_LEADS}
   AND lead.status = 'created' AND coalesce(lead.confirmed_at, '-infinity') < :settled_by
   AND NOT {_HAS_OUTCOME}
 ORDER BY lead.confirmed_at LIMIT 1
""")

# SQL skips rows that are surely equal; libphonenumber compares the rest. A number without a plus
# that begins with the region's code goes to libphonenumber: it may belong to another country.
_MISMATCHES = r"""
SELECT lead.lead_id,
       lead.phone_number AS our_phone, lead.contact_name AS our_name, lead.state_code AS our_state,
       listed.phone_number, listed.contact_name, listed.state_code
  FROM leadloop.leads AS lead JOIN audit_leads AS listed USING (lead_id)
 WHERE lead.campaign_id = :campaign AND lead.status = 'created'
   AND NOT EXISTS (SELECT FROM leadloop.forgotten
                    WHERE forgotten.campaign_id = lead.campaign_id
                      AND forgotten.lead_id = lead.lead_id)
   AND (regexp_replace(listed.phone_number, '\D', '', 'g')
           <> CASE WHEN lead.phone_number LIKE '+%' THEN '' ELSE :calling_code END
              || regexp_replace(coalesce(lead.phone_number, ''), '\D', '', 'g')
        OR listed.contact_name <> coalesce(lead.contact_name, '')
        OR listed.state_code <> coalesce(lead.state_code, ''))
 ORDER BY lead.lead_id
"""

# Repairs. A lead that the vendor holds becomes `created`, so that no push sends it. This includes
# opted-out leads that are `cancelled` or `rejected`: else the next disable would only cancel the
# opt-out again in our tables, and never send it to the vendor.
_REPAIR_OPT_OUTS = text("""
WITH held AS (
    SELECT lead.campaign_id, lead.lead_id
      FROM leadloop.leads AS lead
      JOIN leadloop.disable_requests AS d USING (campaign_id, lead_id)
     WHERE lead.campaign_id = :campaign AND lead.status IN ('cancelled', 'rejected')
       AND d.status <> 'disabled'
       AND EXISTS (SELECT FROM audit_leads AS listed WHERE listed.lead_id = lead.lead_id)
     ORDER BY lead.lead_id FOR NO KEY UPDATE OF lead
), leads AS (
    UPDATE leadloop.leads AS lead
       SET status = 'created', confirmed_at = clock_timestamp(), last_error = NULL,
           sent_at = coalesce(lead.sent_at, clock_timestamp())
      FROM held WHERE lead.campaign_id = held.campaign_id AND lead.lead_id = held.lead_id
    RETURNING 1
), opt_outs AS (
    UPDATE leadloop.disable_requests AS d
       SET status = 'requested', confirmed_at = NULL, tries = 0, last_error = NULL
     WHERE d.campaign_id = :campaign AND d.status = 'cancelled'
       AND EXISTS (SELECT FROM audit_leads AS listed WHERE listed.lead_id = d.lead_id)
    RETURNING 1
)
SELECT (SELECT count(*) FROM opt_outs) AS opt_outs, (SELECT count(*) FROM leads) AS leads
""")
# While creates are held, so does a `rejected` lead: corrected leads are sent again. And a listed
# lead without a row is remembered as sent: its row may be inserted again.
_REPAIR_LEADS = text("""
WITH held AS (
    SELECT lead.campaign_id, lead.lead_id
      FROM leadloop.leads AS lead JOIN audit_leads AS listed USING (lead_id)
     WHERE lead.campaign_id = :campaign AND lead.status = ANY(:statuses)
     ORDER BY lead.lead_id FOR NO KEY UPDATE OF lead
)
UPDATE leadloop.leads AS lead
   SET status = 'created', confirmed_at = clock_timestamp(), last_error = NULL, doubted_at = NULL,
       looked_up_at = NULL, sent_at = coalesce(lead.sent_at, clock_timestamp())
  FROM held
 WHERE lead.campaign_id = held.campaign_id AND lead.lead_id = held.lead_id
   AND lead.status = ANY(:statuses)
""")
_UNKNOWN_LEADS = """
SELECT listed.lead_id FROM audit_leads AS listed
 WHERE NOT EXISTS (SELECT FROM leadloop.leads AS lead
                    WHERE lead.campaign_id = :campaign AND lead.lead_id = listed.lead_id)
   AND NOT EXISTS (SELECT FROM leadloop.sent_leads AS sent
                    WHERE sent.campaign_id = :campaign AND sent.lead_id = listed.lead_id)
"""
_REMEMBER_LEADS = text(f"""
INSERT INTO leadloop.sent_leads (campaign_id, lead_id, status, sent_at, confirmed_at)
SELECT :campaign, lead_id, 'created', clock_timestamp(), clock_timestamp()
  FROM ({_UNKNOWN_LEADS}) AS unknown ON CONFLICT DO NOTHING
""")
_COUNT_REPEATABLE = text(f"""
SELECT (SELECT count(*) FROM ({_LISTED_LEADS} AND lead.status IN ('new', 'rejected')) AS known)
       + (SELECT count(*) FROM ({_UNKNOWN_LEADS}) AS unknown)
""")
_COUNT_LISTED_LOOSELY = text(
    f"SELECT count(*) FROM ({_UNLISTED_LEADS} AND {_LISTED_LOOSELY}) AS them"
)
# An insert that has not committed yet is not seen: wait for all of them. Opt-outs wait meanwhile.
_WAIT_FOR_INSERTS = text("""
SET LOCAL lock_timeout = '3s'; LOCK TABLE leadloop.leads IN SHARE ROW EXCLUSIVE MODE
""")
# Includes outcomes that the next poll is due to read: harmless, and the next audit is clean.
_NEWER_OUTCOMES = f"""
WITH wanted AS ({_LISTED_OUTCOMES} AND {_OUTCOME_DIFFERS}
    AND (stored.lead_id IS NULL OR stored.processed_at <= listed.processed_at))
SELECT DISTINCT ON (lead_id, copy) result
  FROM wanted JOIN audit_listing USING (lead_id)
 WHERE processed_at IS NOT NULL
 ORDER BY lead_id, copy, processed_at DESC, reading DESC
"""

# WITH HOLD: Postgres keeps the result outside of a transaction while we process the rows slowly.
_DECLARE = "DECLARE audit_rows NO SCROLL CURSOR WITH HOLD FOR "
_FETCH = text(f"FETCH {_BATCH_SIZE} FROM audit_rows")
_CLOSE = text("CLOSE audit_rows")


@dataclass(frozen=True, kw_only=True)
class AuditScope:
    """The campaign and the listing that an audit compares.

    `started_at`: when the listing began. `settled_by`: leads sent before this time are settled, so
    the vendor would list them. `is_complete`: the whole listing was read. `clock_skew`: the
    vendor's clock minus ours.
    """

    campaign_id: str
    started_at: datetime
    settled_by: datetime
    is_complete: bool
    shows_unprocessed: bool
    clock_skew: timedelta

    def to_parameters(self) -> dict[str, Any]:
        """Return the parameters of the audit's queries."""
        return {
            "campaign": self.campaign_id,
            "began": self.started_at,
            "settled_by": self.settled_by,
            "complete": self.is_complete,
            "shows_unprocessed": self.shows_unprocessed,
            "ahead": self.clock_skew,
        }


@dataclass(frozen=True, kw_only=True)
class AuditFinding:
    """The count of leads with one kind of difference, and sample ids."""

    leads: int
    samples: Sequence[str]

    def with_lead(self, lead_id: str) -> "AuditFinding":
        """Return the finding extended by one lead."""
        return AuditFinding(leads=self.leads + 1, samples=[*self.samples, lead_id][:MAX_SAMPLES])


@dataclass(frozen=True, kw_only=True)
class FieldMismatch:
    """A lead whose phone, name or state may differ between our tables and the vendor's."""

    lead_id: str
    ours: PersonFacts
    theirs: PersonFacts


def find_unlisted_lead(
    connection: Connection, campaign_id: str, *, settled_by: datetime
) -> str | None:
    """Return the oldest settled `created` lead without an outcome that is not listed, or None."""
    found: str | None = connection.scalar(
        _UNLISTED_LEAD, {"campaign": campaign_id, "settled_by": settled_by}
    )
    return found


def compare_listing(connection: Connection, scope: AuditScope) -> dict[str, AuditFinding]:
    """Compare the listing with our tables in SQL.

    Returns:
        Findings by their names in `leadloop.core.audit_differences`.
    """
    parameters = {**scope.to_parameters(), "samples": MAX_SAMPLES}
    found: dict[str, AuditFinding] = {}
    for name, query in _QUERIES.items():
        row = connection.execute(query, parameters).one()
        found[name] = AuditFinding(leads=row.leads, samples=row.ids)
    return found


def iter_field_mismatches(
    connection: Connection, campaign_id: str, calling_code: str
) -> Iterator[FieldMismatch]:
    """Yield created leads whose phone, name or state may differ, ordered by id.

    `calling_code`: digits of the campaign's default region.
    """
    parameters = {"campaign": campaign_id, "calling_code": calling_code}
    for rows in _fetch_batches(connection, _MISMATCHES, parameters):
        for row in rows:
            yield FieldMismatch(
                lead_id=row.lead_id,
                ours=PersonFacts(
                    phone_number=row.our_phone, contact_name=row.our_name, state_code=row.our_state
                ),
                theirs=PersonFacts(
                    phone_number=row.phone_number,
                    contact_name=row.contact_name,
                    state_code=row.state_code,
                ),
            )


def repair_opt_outs(connection: Connection, campaign_id: str) -> tuple[int, int]:
    """Request opt-outs again that were cancelled although the vendor holds the lead.

    Returns:
        The number of opt-outs requested again, and of leads that became `created` for them.
    """
    row = connection.execute(_REPAIR_OPT_OUTS, {"campaign": campaign_id}).one()
    return row.opt_outs, row.leads


def repair_leads(connection: Connection, campaign_id: str) -> int:
    """Mark `new` and in-doubt leads `created` if the vendor lists them. Returns their number."""
    parameters = {"campaign": campaign_id, "statuses": ["new", "in_doubt"]}
    return connection.execute(_REPAIR_LEADS, parameters).rowcount


def wait_for_inserts(connection: Connection) -> None:
    """Lock `leadloop.leads` until the end of the transaction, so that no lead is inserted.

    Raises:
        DatabaseError: another transaction has written to the table for three seconds.
    """
    connection.execute(_WAIT_FOR_INSERTS)


def repair_forgotten(connection: Connection, campaign_id: str) -> int:
    """Mark listed leads `created` that are `new`, in doubt or rejected, or remember them as sent.

    A listed lead without a row becomes a row of `sent_leads`: when it is inserted, it is `created`.

    Returns:
        The number of leads marked or remembered.
    """
    parameters = {"campaign": campaign_id, "statuses": ["new", "in_doubt", "rejected"]}
    marked = connection.execute(_REPAIR_LEADS, parameters).rowcount
    return marked + connection.execute(_REMEMBER_LEADS, {"campaign": campaign_id}).rowcount


def count_repeatable(connection: Connection, campaign_id: str) -> int:
    """Count the listed leads that a push would create again, now or once they are inserted."""
    count: int = connection.execute(_COUNT_REPEATABLE, {"campaign": campaign_id}).scalar_one()
    return count


def count_listed_loosely(connection: Connection, campaign_id: str) -> int:
    """Count leads that are listed only with another case, blanks or leading zeros in their ids."""
    parameters = {"campaign": campaign_id}
    count: int = connection.execute(_COUNT_LISTED_LOOSELY, parameters).scalar_one()
    return count


def iter_newer_outcomes(connection: Connection, campaign_id: str) -> Iterator[list[str]]:
    """Yield batches of listed results (JSON text) that are missing in our tables or not older."""
    for rows in _fetch_batches(connection, _NEWER_OUTCOMES, {"campaign": campaign_id}):
        yield [row.result for row in rows]


def _fetch_batches(
    connection: Connection, query: str, parameters: Mapping[str, Any]
) -> Iterator[Sequence[Row[Any]]]:
    connection.execute(text(_DECLARE + query), parameters)
    while rows := connection.execute(_FETCH).all():
        yield rows
    connection.execute(_CLOSE)
