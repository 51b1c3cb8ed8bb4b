"""Queries on `leadloop.leads`: each move of a lead from one status to another is one of these."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from leadloop.core.leads import Lead

_ANY_NEW = text("""
SELECT EXISTS (SELECT FROM leadloop.leads WHERE campaign_id = :campaign AND status = 'new')
""")

_COUNT_NEW = text("""
SELECT count(*) FROM leadloop.leads WHERE campaign_id = :campaign AND status = 'new'
""")

# The claim. One statement decides, under each row's lock, that a lead is ours and that nobody has
# opted it out. `opted_out` is on the row itself, so an opt-out that commits while this statement
# runs is seen when the row is locked; the EXISTS covers an opt-out that came before its lead.
# `alive` locks the run's own row: a run that another one has declared dead gets nothing.
_ALIVE = "SELECT FROM leadloop.sync_runs WHERE run_id = :run AND state = 'running' FOR SHARE"
_OPTED_OUT = """lead.opted_out OR EXISTS (
           SELECT FROM leadloop.disable_requests AS d
            WHERE d.campaign_id = lead.campaign_id AND d.lead_id = lead.lead_id) AS opted_out"""
_DECIDE = """
UPDATE leadloop.leads AS lead
   SET status = CASE WHEN picked.opted_out THEN 'cancelled' ELSE 'sending' END,
       sent_at = CASE WHEN NOT picked.opted_out THEN clock_timestamp() END,
       run_id = :run, last_error = NULL
  FROM picked
 WHERE lead.campaign_id = picked.campaign_id AND lead.lead_id = picked.lead_id
"""
_CLAIM = text(f"""
WITH alive AS ({_ALIVE}
), picked AS (
    SELECT lead.campaign_id, lead.lead_id, {_OPTED_OUT}
      FROM leadloop.leads AS lead
     WHERE lead.campaign_id = :campaign AND lead.status = 'new' AND EXISTS (SELECT FROM alive)
     ORDER BY lead.seq
     LIMIT :most
       FOR NO KEY UPDATE OF lead SKIP LOCKED
), claimed AS ({_DECIDE}
    RETURNING lead.*
), cancelled AS (
    UPDATE leadloop.disable_requests AS d
       SET status = 'cancelled', confirmed_at = clock_timestamp()
      FROM claimed
     WHERE claimed.status = 'cancelled' AND d.status = 'requested'
       AND d.campaign_id = claimed.campaign_id AND d.lead_id = claimed.lead_id
)
SELECT lead_id, status, phone_number, contact_name, state_code,
       -- Python's years end at 9999, and begin at 1 even where the time zone makes it the year 0.
       CASE WHEN ebr_datetime IS NOT NULL
            THEN least(greatest(ebr_datetime, '0002-01-01 UTC'), '9999-01-01 UTC')
       END AS ebr_datetime,
       CAST(custom_fields AS text) AS custom_fields
  FROM claimed ORDER BY seq
""")

# The same decisions once more, for leads of ours that are about to be sent in another batch.
_CLAIM_AGAIN = text(f"""
WITH alive AS ({_ALIVE}
), picked AS (
    SELECT lead.campaign_id, lead.lead_id, {_OPTED_OUT}
      FROM leadloop.leads AS lead
     WHERE lead.campaign_id = :campaign AND lead.lead_id = ANY(:ids) AND lead.run_id = :run
       AND lead.status = 'sending' AND EXISTS (SELECT FROM alive)
       FOR NO KEY UPDATE OF lead
)
{_DECIDE}
RETURNING lead.lead_id, lead.status
""")

# The run's own answers also settle a lead that another run has put in doubt meanwhile.
_OURS = """
 WHERE campaign_id = :campaign AND lead_id = ANY(:ids) AND run_id = :run
   AND status IN ('sending', 'in_doubt')
"""
_CREATED = text(
    "UPDATE leadloop.leads SET status = 'created', confirmed_at = clock_timestamp(),"
    " last_error = NULL" + _OURS
)
_RELEASED = text("UPDATE leadloop.leads SET status = 'new', sent_at = NULL" + _OURS)
_DOUBTED = text("UPDATE leadloop.leads SET status = 'in_doubt', last_error = :reason" + _OURS)
_REJECTED = text("""
UPDATE leadloop.leads AS lead
   SET status = 'rejected', last_error = refused.reason,
       sent_at = CASE WHEN :was_sent THEN lead.sent_at END
  FROM unnest(CAST(:ids AS text[]), CAST(:reasons AS text[])) AS refused (lead_id, reason)
 WHERE lead.campaign_id = :campaign AND lead.lead_id = refused.lead_id AND lead.run_id = :run
   AND lead.status IN ('sending', 'in_doubt')
""")

_IN_DOUBT = text("""
SELECT lead_id, sent_at, sent_at + make_interval(secs => :settle_s) < clock_timestamp() AS settled
  FROM leadloop.leads
 WHERE campaign_id = :campaign AND status = 'in_doubt' AND (sent_at, lead_id) > (:sent_at, :lead_id)
 ORDER BY sent_at, lead_id LIMIT :most
""")
_COUNT_IN_DOUBT = text("""
SELECT count(*) FROM leadloop.leads WHERE campaign_id = :campaign AND status = 'in_doubt'
""")
_FOUND = text("""
UPDATE leadloop.leads SET status = 'created', confirmed_at = clock_timestamp(), last_error = NULL
 WHERE campaign_id = :campaign AND lead_id = :lead AND status = 'in_doubt'
""")
_ABSENT = text("""
UPDATE leadloop.leads SET status = 'new', sent_at = NULL
 WHERE campaign_id = :campaign AND lead_id = :lead AND status = 'in_doubt' AND sent_at = :sent_at
""")
# The oldest: the likelier to show.
_UNPROCESSED = text("""
SELECT lead_id, confirmed_at + make_interval(secs => :settle_s) < clock_timestamp() AS settled
  FROM leadloop.leads AS lead
 WHERE campaign_id = :campaign AND status = 'created'
   AND NOT EXISTS (SELECT FROM leadloop.lead_outcomes AS outcome
                    WHERE outcome.campaign_id = lead.campaign_id
                      AND outcome.lead_id = lead.lead_id)
 ORDER BY confirmed_at LIMIT 1
""")
# Asked once in a campaign's life, before it has a watermark: not worth an index on every lead.
_FIRST_SENT = text("""
SELECT min(sent_at) FROM leadloop.leads WHERE campaign_id = :campaign
""")
_REQUEUE = text("""
UPDATE leadloop.leads SET status = 'new', last_error = NULL, sent_at = NULL
 WHERE campaign_id = ANY(:campaigns) AND status = :status
   AND (CAST(:ids AS text[]) IS NULL OR lead_id = ANY(:ids))
""")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What one claim got: leads to send, now `sending`, and how many had opted out."""

    leads: Sequence[Lead]
    cancelled: int

    @property
    def taken(self) -> int:
        """How many rows it moved."""
        return len(self.leads) + self.cancelled


@dataclass(frozen=True, kw_only=True)
class Doubt:
    """A lead in doubt; `settled`: the vendor has had its time to show it."""

    lead_id: str
    sent_at: datetime
    settled: bool


def any_new(connection: Connection, campaign_id: str) -> bool:
    """Whether the campaign has leads to send."""
    return bool(connection.scalar(_ANY_NEW, {"campaign": campaign_id}))


def count_new(connection: Connection, campaign_id: str) -> int:
    """How many leads the campaign has to send."""
    count: int = connection.execute(_COUNT_NEW, {"campaign": campaign_id}).scalar_one()
    return count


def claim(connection: Connection, *, campaign_id: str, run_id: int, most: int) -> Claim:
    """Take up to `most` new leads, oldest first: from the commit on they may be on their way.

    Those that opted out become `cancelled` in the same statement. Gets nothing for a run that is
    no longer `running`.
    """
    rows = connection.execute(_CLAIM, {"campaign": campaign_id, "run": run_id, "most": most}).all()
    return Claim(
        leads=[
            Lead(
                lead_id=row.lead_id,
                phone_number=row.phone_number,
                contact_name=row.contact_name,
                state_code=row.state_code,
                ebr_datetime=row.ebr_datetime,
                custom_fields=row.custom_fields,
            )
            for row in rows
            if row.status == "sending"
        ],
        cancelled=sum(row.status == "cancelled" for row in rows),
    )


def claim_again(connection: Connection, batch: "Batch") -> tuple[list[str], int]:
    """Which leads of a refused batch may be sent once more, and how many have opted out since."""
    rows = connection.execute(_CLAIM_AGAIN, batch.key()).all()
    wanted = [row.lead_id for row in rows if row.status == "sending"]
    return wanted, len(rows) - len(wanted)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Leads of one campaign that one run has claimed."""

    campaign_id: str
    run_id: int
    lead_ids: Sequence[str]

    def key(self) -> dict[str, Any]:
        """The parameters that name them in a statement."""
        return {"campaign": self.campaign_id, "run": self.run_id, "ids": list(self.lead_ids)}


def record_created(connection: Connection, batch: Batch) -> int:
    """The vendor has them. Returns how many were changed."""
    return connection.execute(_CREATED, batch.key()).rowcount


def release(connection: Connection, batch: Batch) -> int:
    """They were certainly not carried out: `new` again."""
    return connection.execute(_RELEASED, batch.key()).rowcount


def record_doubt(connection: Connection, batch: Batch, reason: str) -> int:
    """The vendor may have them."""
    return connection.execute(_DOUBTED, {**batch.key(), "reason": reason}).rowcount


def record_rejected(
    connection: Connection,
    *,
    campaign_id: str,
    run_id: int,
    reasons: Mapping[str, str],
    was_sent: bool,
) -> int:
    """They will not be sent again as they are; `reasons` by lead id."""
    return connection.execute(
        _REJECTED,
        {
            "campaign": campaign_id,
            "run": run_id,
            "ids": list(reasons),
            "reasons": list(reasons.values()),
            "was_sent": was_sent,
        },
    ).rowcount


def in_doubt(
    connection: Connection, *, campaign_id: str, settle_s: int, after: Doubt | None, most: int
) -> list[Doubt]:
    """Leads in doubt, oldest first, that come after the one given."""
    rows = connection.execute(
        _IN_DOUBT,
        {
            "campaign": campaign_id,
            "settle_s": settle_s,
            "sent_at": after.sent_at if after else "-infinity",
            "lead_id": after.lead_id if after else "",
            "most": most,
        },
    )
    return [Doubt(lead_id=row.lead_id, sent_at=row.sent_at, settled=row.settled) for row in rows]


def count_in_doubt(connection: Connection, campaign_id: str) -> int:
    """How many leads the vendor may or may not have."""
    count: int = connection.execute(_COUNT_IN_DOUBT, {"campaign": campaign_id}).scalar_one()
    return count


def settle_found(connection: Connection, campaign_id: str, lead_id: str) -> int:
    """A lookup showed it: the vendor has it."""
    return connection.execute(_FOUND, {"campaign": campaign_id, "lead": lead_id}).rowcount


def settle_absent(connection: Connection, campaign_id: str, doubt: Doubt) -> int:
    """It is proven not to have been created: `new` again, unless it was sent once more."""
    return connection.execute(
        _ABSENT,
        {"campaign": campaign_id, "lead": doubt.lead_id, "sent_at": doubt.sent_at},
    ).rowcount


def an_unprocessed(
    connection: Connection, *, campaign_id: str, settle_s: int
) -> tuple[str, bool] | None:
    """A lead that the vendor has without an outcome so far; and whether it had time to show."""
    row = connection.execute(_UNPROCESSED, {"campaign": campaign_id, "settle_s": settle_s}).first()
    return None if row is None else (row.lead_id, bool(row.settled))


def first_sent_at(connection: Connection, campaign_id: str) -> datetime | None:
    """When the campaign's first lead was sent."""
    moment: datetime | None = connection.scalar(_FIRST_SENT, {"campaign": campaign_id})
    return moment


def requeue(
    connection: Connection, *, campaign_ids: Sequence[str], status: str, lead_ids: Sequence[str]
) -> int:
    """Make leads of one status `new` again; all of them where no ids are given."""
    return connection.execute(
        _REQUEUE,
        {"campaigns": list(campaign_ids), "status": status, "ids": list(lead_ids) or None},
    ).rowcount
