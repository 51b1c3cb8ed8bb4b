"""The vendor's listing, as `db.audit_staging` has staged it, beside our tables: compared, and mended."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, text

from leadloop.core.audit_differences import PersonFacts

#: How many lead ids a finding tells.
MAX_SAMPLES = 3
_BATCH = 1000

# The comparison. Each query finds lead ids.
_LEADS_THERE = """
SELECT lead.lead_id FROM leadloop.leads AS lead JOIN audit_there AS there USING (lead_id)
 WHERE lead.campaign_id = :campaign
"""
_LEADS_NOT_THERE = """
SELECT lead.lead_id FROM leadloop.leads AS lead
 WHERE lead.campaign_id = :campaign
   AND NOT EXISTS (SELECT FROM audit_there AS there WHERE there.lead_id = lead.lead_id)
"""
_PROCESSED_HERE = """EXISTS (
       SELECT FROM leadloop.lead_outcomes AS stored
        WHERE stored.campaign_id = lead.campaign_id AND stored.lead_id = lead.lead_id)"""
# Every vendor shows what it has processed; the rest only some do.
_MISSING = f"""(:complete AND lead.status = 'created'
   AND coalesce(lead.confirmed_at, '-infinity') < :settled_by
   AND (:shows_unprocessed OR {_PROCESSED_HERE}))"""
_DOUBTED = """(:complete AND lead.status = 'in_doubt'
   AND coalesce(lead.doubted_at, lead.sent_at, '-infinity') < :settled_by)"""
_OUTCOMES_THERE = """
SELECT there.lead_id
  FROM audit_there AS there
  LEFT JOIN leadloop.lead_outcomes AS stored
         ON stored.campaign_id = :campaign AND stored.lead_id = there.lead_id
 WHERE there.processed_at IS NOT NULL
"""
_DIFFERENT = """(stored.processed_at, stored.outcome_id, stored.outcome_name, stored.total_cost)
       IS DISTINCT FROM
       (there.processed_at, there.outcome_id, there.outcome_name, there.total_cost)"""
# Newer than ours and later than the watermark: no poll has had to read it yet.
_NOT_POLLED = """(there.processed_at > coalesce((
           SELECT processed_through FROM leadloop.watermarks AS mark
            WHERE mark.campaign_id = :campaign AND mark.stream = 'outcomes'), 'infinity')
       AND (stored.lead_id IS NULL OR stored.processed_at < there.processed_at))"""
_OPT_OUTS_THERE = """
SELECT d.lead_id FROM leadloop.disable_requests AS d JOIN audit_there AS there USING (lead_id)
 WHERE d.campaign_id = :campaign
"""

_FINDINGS: Mapping[str, str] = {
    "missing_there": f"{_LEADS_NOT_THERE} AND {_MISSING}",
    "missing_here": """
SELECT there.lead_id FROM audit_there AS there
 WHERE NOT EXISTS (SELECT FROM leadloop.leads AS lead
                    WHERE lead.campaign_id = :campaign AND lead.lead_id = there.lead_id)""",
    "new_but_there": f"{_LEADS_THERE} AND lead.status = 'new'",
    "rejected_but_there": f"{_LEADS_THERE} AND lead.status = 'rejected'",
    "cancelled_but_there": f"{_LEADS_THERE} AND lead.status = 'cancelled'",
    "created_twice": "SELECT lead_id FROM audit_there WHERE copies > 1",
    "outcome_missing_here": f"{_OUTCOMES_THERE} AND stored.lead_id IS NULL AND NOT {_NOT_POLLED}",
    # What a poll has stored since the listing was begun may be newer than what was read.
    "outcome_differs": f"""{_OUTCOMES_THERE}
   AND stored.updated_at < :began AND {_DIFFERENT} AND NOT {_NOT_POLLED}""",
    "outcome_missing_there": """
SELECT stored.lead_id FROM leadloop.lead_outcomes AS stored
 WHERE stored.campaign_id = :campaign AND :complete AND stored.first_seen_at < :began
   AND NOT EXISTS (SELECT FROM audit_there AS there
                    WHERE there.lead_id = stored.lead_id
                      AND (there.processed_at IS NOT NULL OR there.unreadable))""",
    "in_doubt_there": f"{_LEADS_THERE} AND lead.status = 'in_doubt'",
    "in_doubt_not_there": f"{_LEADS_NOT_THERE} AND {_DOUBTED}",
    "called_after_opt_out": f"""{_OPT_OUTS_THERE}
   AND d.status IN ('disabled', 'cancelled') AND there.touched_at > d.confirmed_at + :ahead""",
    "opt_out_not_sent": f"{_OPT_OUTS_THERE} AND d.status = 'cancelled'",
    "unreadable": """
SELECT lead_id FROM audit_listing WHERE unreadable GROUP BY lead_id, copy""",
    "absence_unproven": f"""{_LEADS_NOT_THERE}
   AND lead.status IN ('created', 'in_doubt') AND NOT {_MISSING} AND NOT {_DOUBTED}""",
    "outcome_not_polled": f"{_OUTCOMES_THERE} AND {_NOT_POLLED}",
}
_QUERIES = {
    name: text(f"""
WITH found AS ({query})
SELECT (SELECT count(*) FROM found) AS leads,
       ARRAY(SELECT lead_id FROM found WHERE lead_id <> '' ORDER BY lead_id LIMIT :samples) AS ids
""")
    for name, query in _FINDINGS.items()
}
# One that the vendor would show if it has it and shows unprocessed leads at all.
_SUSPECT = text(f"""{_LEADS_NOT_THERE}
   AND lead.status = 'created' AND coalesce(lead.confirmed_at, '-infinity') < :settled_by
   AND NOT {_PROCESSED_HERE}
 ORDER BY lead.confirmed_at LIMIT 1
""")

# SQL passes over what is surely the same; libphonenumber looks at the rest. A number without a plus
# that begins with the region's code is such a rest: it may be one of another country.
_UNALIKE = r"""
SELECT lead.lead_id,
       lead.phone_number AS our_phone, lead.contact_name AS our_name, lead.state_code AS our_state,
       there.phone_number, there.contact_name, there.state_code
  FROM leadloop.leads AS lead JOIN audit_there AS there USING (lead_id)
 WHERE lead.campaign_id = :campaign AND lead.status = 'created'
   AND NOT EXISTS (SELECT FROM leadloop.forgotten
                    WHERE forgotten.campaign_id = lead.campaign_id
                      AND forgotten.lead_id = lead.lead_id)
   AND (regexp_replace(there.phone_number, '\D', '', 'g')
           <> CASE WHEN lead.phone_number LIKE '+%' THEN '' ELSE :calling_code END
              || regexp_replace(coalesce(lead.phone_number, ''), '\D', '', 'g')
        OR there.contact_name <> coalesce(lead.contact_name, '')
        OR there.state_code <> coalesce(lead.state_code, ''))
 ORDER BY lead.lead_id
"""

# Mending. Whoever the vendor has is `created`, which is never sent. Where a person has opted out,
# that holds for a lead that we called cancelled or rejected too: else the next disable would only
# cancel it once more, here, and tell the vendor nothing.
_MEND_OPT_OUTS = text("""
WITH held AS (
    SELECT lead.campaign_id, lead.lead_id
      FROM leadloop.leads AS lead
      JOIN leadloop.disable_requests AS d USING (campaign_id, lead_id)
     WHERE lead.campaign_id = :campaign AND lead.status IN ('cancelled', 'rejected')
       AND d.status <> 'disabled'
       AND EXISTS (SELECT FROM audit_there AS there WHERE there.lead_id = lead.lead_id)
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
       AND EXISTS (SELECT FROM audit_there AS there WHERE there.lead_id = d.lead_id)
    RETURNING 1
)
SELECT (SELECT count(*) FROM opt_outs) AS opt_outs, (SELECT count(*) FROM leads) AS leads
""")
_MEND_LEADS = text("""
WITH held AS (
    SELECT lead.campaign_id, lead.lead_id
      FROM leadloop.leads AS lead JOIN audit_there AS there USING (lead_id)
     WHERE lead.campaign_id = :campaign AND lead.status IN ('new', 'in_doubt')
     ORDER BY lead.lead_id FOR NO KEY UPDATE OF lead
)
UPDATE leadloop.leads AS lead
   SET status = 'created', confirmed_at = clock_timestamp(), last_error = NULL, doubted_at = NULL,
       looked_up_at = NULL, sent_at = coalesce(lead.sent_at, clock_timestamp())
  FROM held
 WHERE lead.campaign_id = held.campaign_id AND lead.lead_id = held.lead_id
   AND lead.status IN ('new', 'in_doubt')
""")
# Also what no poll has had to read yet: it does no harm, and the next audit is clean.
_BETTER = f"""
WITH wanted AS ({_OUTCOMES_THERE} AND {_DIFFERENT}
    AND (stored.lead_id IS NULL OR stored.processed_at <= there.processed_at))
SELECT DISTINCT ON (lead_id, copy) result
  FROM wanted JOIN audit_listing USING (lead_id)
 WHERE processed_at IS NOT NULL
 ORDER BY lead_id, copy, processed_at DESC, reading DESC
"""

# Found once and kept by Postgres, however long we take over the rows and whatever changes.
_DECLARE = "DECLARE audit_rows NO SCROLL CURSOR WITH HOLD FOR "
_FETCH = text(f"FETCH {_BATCH} FROM audit_rows")
_CLOSE = text("CLOSE audit_rows")


@dataclass(frozen=True, kw_only=True)
class AuditScope:
    """What a comparison rests on.

    `began`: when the listing was begun. `settled_by`: what was sent before it would be shown.
    `complete`: whether the listing was read whole. `ahead`: the vendor's clock less ours.
    """

    campaign_id: str
    started_at: datetime
    settled_by: datetime
    is_complete: bool
    shows_unprocessed: bool
    clock_skew: timedelta

    def to_parameters(self) -> dict[str, Any]:
        """As the queries name them."""
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
    """How many leads differ in one way, and the ids of a few."""

    leads: int
    samples: Sequence[str]

    def with_lead(self, lead_id: str) -> "AuditFinding":
        """The finding with another lead."""
        return AuditFinding(leads=self.leads + 1, samples=[*self.samples, lead_id][:MAX_SAMPLES])


@dataclass(frozen=True, kw_only=True)
class FieldMismatch:
    """A lead that the two sides may describe differently."""

    lead_id: str
    ours: PersonFacts
    theirs: PersonFacts


def find_unlisted_lead(
    connection: Connection, campaign_id: str, *, settled_by: datetime
) -> str | None:
    """A lead created here, without an outcome, that the listing lacks; the oldest."""
    found: str | None = connection.scalar(
        _SUSPECT, {"campaign": campaign_id, "settled_by": settled_by}
    )
    return found


def compare_listing(connection: Connection, scope: AuditScope) -> dict[str, AuditFinding]:
    """Every finding that SQL alone can tell, by its name in `leadloop.core.audit_differences`."""
    parameters = {**scope.to_parameters(), "samples": MAX_SAMPLES}
    found: dict[str, AuditFinding] = {}
    for name, query in _QUERIES.items():
        row = connection.execute(query, parameters).one()
        found[name] = AuditFinding(leads=row.leads, samples=row.ids)
    return found


def iter_field_mismatches(
    connection: Connection, campaign_id: str, calling_code: str
) -> Iterator[FieldMismatch]:
    """Created leads whose phone, name or state may differ, in the order of their ids."""
    parameters = {"campaign": campaign_id, "calling_code": calling_code}
    for rows in _fetch_batches(connection, _UNALIKE, parameters):
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
    """Have opt-outs sent that were called cancelled though the vendor has the lead.

    Returns:
        How many opt-outs are requested again, and how many leads became created for it.
    """
    row = connection.execute(_MEND_OPT_OUTS, {"campaign": campaign_id}).one()
    return row.opt_outs, row.leads


def repair_leads(connection: Connection, campaign_id: str) -> int:
    """Leads that are `new` or in doubt, and that the vendor has, are created."""
    return connection.execute(_MEND_LEADS, {"campaign": campaign_id}).rowcount


def iter_newer_outcomes(connection: Connection, campaign_id: str) -> Iterator[list[str]]:
    """Results, as JSON text, whose outcome is missing here or no newer than there; in batches."""
    for rows in _fetch_batches(connection, _BETTER, {"campaign": campaign_id}):
        yield [row.result for row in rows]


def _fetch_batches(
    connection: Connection, query: str, parameters: Mapping[str, Any]
) -> Iterator[Sequence[Row[Any]]]:
    connection.execute(text(_DECLARE + query), parameters)
    while rows := connection.execute(_FETCH).all():
        yield rows
    connection.execute(_CLOSE)
