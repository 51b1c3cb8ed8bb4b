"""Queries on leads in doubt: which are due for a lookup, and what a proof makes of each."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, text

from db import suspects
from db.audit_staging import build_loose_id
from db.leads import created_update, locked_update
from db.suspects import MAX_LONE_FAILURES

# A lead whose row was deleted during its request is in doubt with `doubted_at` infinity. Its settle
# time starts when the run gives up on the response, or, in this statement, when the run has ended.
_UNANSWERED = """campaign_id = :campaign AND status = 'in_doubt' AND doubted_at = 'infinity'
       AND NOT EXISTS (SELECT FROM leadloop.sync_runs AS run
                        WHERE run.run_id = {}.run_id AND run.state = 'running')"""
_START_SETTLE_TIME = locked_update(
    _UNANSWERED.format("leads"),
    "doubted_at = clock_timestamp()",
    "UPDATE leadloop.sent_leads SET doubted_at = clock_timestamp()"
    f" WHERE {_UNANSWERED.format('sent_leads')}",
)

# The settle time starts when we gave up on the response: until then the vendor may have been
# processing the request.
_DOUBT_STARTED_AT = "coalesce(doubted_at, sent_at, inserted_at)"
_SETTLED_AT = f"{_DOUBT_STARTED_AT} + make_interval(secs => :settle_s)"
# A lookup before the settle time proves only presence, so the run that has just put the lead in
# doubt spends none. Afterwards one proves either, if a probe lead is shown: an inconclusive one is
# repeated once the vendor has accepted another lead, or after pauses that double.
_NEXT_LOOKUP_AT = f"""looked_up_at + least(interval '1 day', greatest(
           make_interval(secs => :settle_s), looked_up_at - {_DOUBT_STARTED_AT}))"""
_ACCEPTED_AT = """(SELECT create_accepted_at FROM leadloop.campaigns AS campaign
                   WHERE campaign.campaign_id = lead.campaign_id)"""
#: SQL: a row of `lead` in doubt is due for a lookup by the run `:run`.
IS_LOOKUP_DUE = f"""doubted_at IS DISTINCT FROM 'infinity'
   AND CASE WHEN {_SETTLED_AT} < clock_timestamp()
            THEN looked_up_at IS NULL OR looked_up_at < greatest({_SETTLED_AT}, {_ACCEPTED_AT})
                 OR {_NEXT_LOOKUP_AT} <= clock_timestamp()
            ELSE looked_up_at IS NULL AND run_id IS DISTINCT FROM CAST(:run AS bigint) END"""
_DUE = f"""
  FROM leadloop.leads AS lead
 WHERE campaign_id = :campaign AND status = 'in_doubt' AND {IS_LOOKUP_DUE}
   AND lead_id <> ALL (CAST(:exclude AS text[]))
   AND (NOT :opted_out OR EXISTS (
        SELECT FROM leadloop.disable_requests AS d
         WHERE d.campaign_id = lead.campaign_id AND d.lead_id = lead.lead_id
           AND d.status IN ('requested', 'failed')))
"""
_LIST_DUE = text(f"""
SELECT lead_id, {_DOUBT_STARTED_AT} AS doubted_at, {_SETTLED_AT} < clock_timestamp() AS settled
{_DUE}
 ORDER BY looked_up_at NULLS FIRST, last_failed_at DESC NULLS LAST, lead_id LIMIT :limit
""")
_COUNT_DUE = text(f"SELECT count(*) {_DUE}")
_ARE_OPTED_OUT = text("""
SELECT NOT EXISTS (SELECT unnest(CAST(:ids AS text[]))
                   EXCEPT
                   SELECT lead_id FROM leadloop.disable_requests WHERE campaign_id = :campaign
                      AND lead_id = ANY(:ids))
""")
_THESE = "campaign_id = :campaign AND lead_id = ANY(:ids) AND status = 'in_doubt'"
_RECORD_LOOKUPS = locked_update(_THESE, "looked_up_at = clock_timestamp()")
_COUNT = text(f"""
SELECT count(*) AS in_doubt,
       count(*) FILTER (WHERE {_SETTLED_AT} < clock_timestamp()
                          AND looked_up_at IS NULL) AS not_looked_up,
       count(*) FILTER (WHERE {_SETTLED_AT} >= clock_timestamp()) AS settling
  FROM leadloop.leads WHERE campaign_id = :campaign AND status = 'in_doubt'
""")
_CONFIRM_CREATED = created_update(_THESE)
# A lead that was created before is so again, as it was before a repeated create: as `new` it would
# be sent a third time, or its opt-out would be cancelled as that of a lead that was never sent. A
# suspect keeps its reason: it waits for its next try, or has had its last one.
_ABSENT = f"""
       status = CASE WHEN confirmed_at IS NOT NULL THEN 'created'
                     WHEN lone_failures >= {MAX_LONE_FAILURES} THEN 'rejected' ELSE 'new' END,
       sent_at = CASE WHEN confirmed_at IS NOT NULL OR lone_failures >= {MAX_LONE_FAILURES}
                      THEN sent_at END,
       last_error = CASE WHEN confirmed_at IS NOT NULL THEN NULL
                         WHEN lone_failures >= {MAX_LONE_FAILURES}
                         THEN 'the vendor fails on this lead, and not on others: ' || last_error
                         WHEN suspect_list IS NOT NULL THEN last_error END,
       suspect_list = CASE WHEN confirmed_at IS NULL AND lone_failures < {MAX_LONE_FAILURES}
                           THEN suspect_list END,
       doubted_at = NULL, looked_up_at = NULL"""
_CONFIRM_ABSENT = locked_update(
    f"""{_THESE} AND EXISTS (
        SELECT FROM unnest(CAST(:ids AS text[]), CAST(:since AS timestamptz[])) AS seen (id, since)
         WHERE seen.id = lead_id AND seen.since = {_DOUBT_STARTED_AT})""",
    _ABSENT,
)
# A listing that proves nothing costs many requests, and then the lookups come on top.
_IS_LISTING_DUE = text("""
SELECT (coalesce(listing_failed_at, '-infinity') < clock_timestamp() - interval '1 hour') IS TRUE
  FROM leadloop.campaigns WHERE campaign_id = :campaign
""")
_RECORD_LISTING_FAILURE = text("""
UPDATE leadloop.campaigns SET listing_failed_at = clock_timestamp() WHERE campaign_id = :campaign
""")
_IN_DOUBT = "campaign_id = :campaign AND status = 'in_doubt'"
_IS_LISTED = "EXISTS (SELECT FROM audit_listing AS listed WHERE listed.lead_id = leads.lead_id)"
# Where the vendor may have written the lead's id otherwise, it is not absent.
_IS_LISTED_LOOSELY = f"""EXISTS (SELECT FROM audit_leads AS listed
        WHERE listed.loose_id = {build_loose_id("leads.lead_id")})"""
_RECORD_ALL_LOOKUPS = locked_update(_IN_DOUBT, "looked_up_at = clock_timestamp()")
_LIST_LISTED = text(f"SELECT lead_id FROM leadloop.leads WHERE {_IN_DOUBT} AND {_IS_LISTED}")
_CONFIRM_UNLISTED = locked_update(
    f"{_IN_DOUBT} AND NOT {_IS_LISTED_LOOSELY} AND {_SETTLED_AT} < :began"
    " AND doubted_at IS DISTINCT FROM 'infinity'",
    _ABSENT,
)


@dataclass(frozen=True, kw_only=True)
class InDoubtLead:
    """A lead in doubt; `settled`: its settle time is over."""

    lead_id: str
    in_doubt_since: datetime
    settled: bool


@dataclass(frozen=True, kw_only=True)
class DueLookups:
    """Selects the leads in doubt that are due for a lookup.

    Attributes:
        campaign: their campaign.
        run: the run that looks them up.
        settle_s: the settle time, seconds.
        opted_out: only leads with an open opt-out.
        exclude: ids of leads that are left out.
    """

    campaign: str
    run: int
    settle_s: int
    opted_out: bool = False
    exclude: Collection[str] = ()

    def list(self, connection: Connection, limit: int) -> list[InDoubtLead]:
        """List up to `limit` of them: longest wait first, then those of the last failed create.

        If the vendor shows these, creates work.
        """
        return [
            InDoubtLead(lead_id=row.lead_id, in_doubt_since=row.doubted_at, settled=row.settled)
            for row in connection.execute(_LIST_DUE, {**self._to_parameters(), "limit": limit})
        ]

    def count(self, connection: Connection) -> int:
        """Count them."""
        count: int = connection.execute(_COUNT_DUE, self._to_parameters()).scalar_one()
        return count

    def _to_parameters(self) -> dict[str, object]:
        return {**vars(self), "exclude": list(self.exclude)}


@dataclass(frozen=True, kw_only=True)
class AbsentLeads:
    """What became of leads that are proven absent.

    `new` again, or `rejected` at last; `kept`: `created`, as before a repeated create.
    """

    new: Sequence[str] = ()
    rejected: Sequence[str] = ()
    kept: Sequence[str] = ()


def start_settle_time(connection: Connection, campaign_id: str) -> int:
    """Start the settle time of leads whose rows were deleted during their request.

    Only for leads of ended runs, which have given up on the response. Returns their number.
    """
    return connection.execute(_START_SETTLE_TIME, {"campaign": campaign_id}).rowcount


def record_lookups(connection: Connection, campaign_id: str, lead_ids: Sequence[str]) -> None:
    """Record that leads in doubt were looked up now."""
    connection.execute(_RECORD_LOOKUPS, {"campaign": campaign_id, "ids": list(lead_ids)})


def count_in_doubt(connection: Connection, campaign_id: str, *, settle_s: int) -> dict[str, int]:
    """Count the campaign's leads in doubt.

    Returns:
        `in_doubt`: all of them. `not_looked_up`: no lookup has followed their settle time of
        `settle_s` seconds yet. `settling`: it is not over.
    """
    row = connection.execute(_COUNT, {"campaign": campaign_id, "settle_s": settle_s}).one()
    return dict(row._mapping)


def are_opted_out(connection: Connection, campaign_id: str, lead_ids: Sequence[str]) -> bool:
    """Return whether all of these leads have opted out, also if there are none."""
    parameters = {"campaign": campaign_id, "ids": list(lead_ids)}
    return bool(connection.scalar(_ARE_OPTED_OUT, parameters))


def confirm_created(connection: Connection, campaign_id: str, lead_ids: Sequence[str]) -> list[str]:
    """Settle leads in doubt as `created`: the vendor showed them. Returns the changed ones."""
    if not lead_ids:
        return []
    suspects.record_found(connection, campaign_id, lead_ids)
    parameters = {"campaign": campaign_id, "ids": sorted(lead_ids)}
    return list(connection.scalars(_CONFIRM_CREATED, parameters))


def confirm_absent(
    connection: Connection, campaign_id: str, leads: Sequence[InDoubtLead]
) -> AbsentLeads:
    """Settle leads in doubt that are proven absent at the vendor: `new`, `rejected` or `created`.

    A suspect that has failed alone MAX_LONE_FAILURES times is rejected. A lead that was created
    before a repeated create is so again: it is never sent by itself. A lead that has been put in
    doubt again since it was listed stays in doubt.
    """
    parameters = {
        "campaign": campaign_id,
        "ids": [lead.lead_id for lead in leads],
        "since": [lead.in_doubt_since for lead in leads],
    }
    return _group_absent(connection.execute(_CONFIRM_ABSENT, parameters).all())


def record_all_lookups(connection: Connection, campaign_id: str) -> None:
    """Record that all leads in doubt were looked up now: a complete listing was read."""
    connection.execute(_RECORD_ALL_LOOKUPS, {"campaign": campaign_id})


def is_listing_due(connection: Connection, campaign_id: str) -> bool:
    """Return whether no listing of the campaign has failed to prove absence in the last hour."""
    return bool(connection.scalar(_IS_LISTING_DUE, {"campaign": campaign_id}))


def record_listing_failure(connection: Connection, campaign_id: str) -> None:
    """Record that a listing has not proven which leads in doubt are absent."""
    connection.execute(_RECORD_LISTING_FAILURE, {"campaign": campaign_id})


def confirm_listed(connection: Connection, campaign_id: str) -> list[str]:
    """Settle as `created` the leads in doubt that the staged listing shows. Returns their ids."""
    shown = list(connection.scalars(_LIST_LISTED, {"campaign": campaign_id}))
    return confirm_created(connection, campaign_id, shown)


def confirm_unlisted(
    connection: Connection, campaign_id: str, *, began: datetime, settle_s: int
) -> AbsentLeads:
    """Settle leads in doubt that a complete staged listing does not show, as `confirm_absent` does.

    A lead stays in doubt if the listing shows its id in other case, with blanks or leading zeros.

    Args:
        connection: the connection of the staging tables.
        campaign_id: the campaign.
        began: when the read of the listing began, by the database's clock. Leads whose settle time
            was not over at that time stay in doubt.
        settle_s: the settle time, seconds.
    """
    parameters = {"campaign": campaign_id, "began": began, "settle_s": settle_s}
    return _group_absent(connection.execute(_CONFIRM_UNLISTED, parameters).all())


def _group_absent(rows: Sequence[Row[Any]]) -> AbsentLeads:
    return AbsentLeads(
        new=[row.lead_id for row in rows if row.status == "new"],
        rejected=[row.lead_id for row in rows if row.status == "rejected"],
        kept=[row.lead_id for row in rows if row.status == "created"],
    )
