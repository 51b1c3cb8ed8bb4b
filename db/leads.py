"""Queries on `leadloop.leads`: each move of a lead from one status to another is one of these."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, TextClause, text

from leadloop.core.leads import Lead

# The brake: looked at by each claim, so that it holds within a run too.
_MAY_CREATE = """SELECT FROM leadloop.campaigns
     WHERE campaign_id = :campaign AND push_enabled AND (enabled OR NOT :while_enabled)"""
_ANY_NEW = text(f"""
SELECT EXISTS ({_MAY_CREATE})
   AND EXISTS (SELECT FROM leadloop.leads
                WHERE campaign_id = :campaign AND status = 'new' AND seq > :after)
""")
_COUNT_HELD_BACK = text(f"""
SELECT count(*) FROM leadloop.leads
 WHERE campaign_id = :campaign AND status = 'new' AND NOT EXISTS ({_MAY_CREATE})
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
# Python's years end at 9999, and begin at 1 even where the time zone makes it the year 0.
EBR_DATETIME = """CASE WHEN ebr_datetime IS NOT NULL
            THEN least(greatest(ebr_datetime, '0002-01-01 UTC'), '9999-01-01 UTC')
       END AS ebr_datetime"""
_DECIDE = """
UPDATE leadloop.leads AS lead
   SET status = CASE WHEN picked.opted_out THEN 'cancelled'
                     WHEN EXISTS (SELECT FROM may_create) THEN 'sending' ELSE 'new' END,
       sent_at = CASE WHEN NOT picked.opted_out AND EXISTS (SELECT FROM may_create)
                      THEN clock_timestamp() END,
       opted_out = picked.opted_out, run_id = :run, claim_no = :claim, last_error = NULL
  FROM picked
 WHERE lead.campaign_id = picked.campaign_id AND lead.lead_id = picked.lead_id
"""
_CLAIM = text(f"""
WITH alive AS ({_ALIVE}
), may_create AS ({_MAY_CREATE}
), picked AS (
    SELECT lead.campaign_id, lead.lead_id, {_OPTED_OUT}
      FROM leadloop.leads AS lead
     WHERE lead.campaign_id = :campaign AND lead.status = 'new' AND lead.seq > :after
       AND EXISTS (SELECT FROM alive) AND EXISTS (SELECT FROM may_create)
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
-- From the third column on in the order of a `Lead`.
SELECT status, seq, lead_id, phone_number, contact_name, state_code, {EBR_DATETIME},
       CAST(custom_fields AS text) AS custom_fields
  FROM claimed ORDER BY seq
""")

# The same decisions once more, for leads of ours that are about to be sent in another batch. Where
# the brake is on, they are `new` again.
_CLAIM_AGAIN = text(f"""
WITH alive AS ({_ALIVE}
), may_create AS ({_MAY_CREATE}
), picked AS (
    SELECT lead.campaign_id, lead.lead_id, {_OPTED_OUT}
      FROM leadloop.leads AS lead
     WHERE lead.campaign_id = :campaign AND lead.lead_id = ANY(:ids) AND lead.run_id = :run
       AND lead.status = 'sending' AND EXISTS (SELECT FROM alive)
     ORDER BY lead.lead_id
       FOR NO KEY UPDATE OF lead
)
{_DECIDE}
RETURNING lead.lead_id, lead.status
""")

# Leads are locked in the order in which the trigger of upstream's opt-outs locks them: in any
# other, the two could wait for each other, and upstream does not expect its insert to fail.
_THESE = """these AS (
    SELECT campaign_id, lead_id FROM leadloop.leads
     WHERE {}
     ORDER BY campaign_id, lead_id FOR NO KEY UPDATE
)"""
_OF_THESE = "lead.campaign_id = these.campaign_id AND lead.lead_id = these.lead_id"


def _locked_update(condition: str, assignments: str, deleted_rows: str = "SELECT") -> TextClause:
    """Change leads; `gone` does the same to those whose rows were deleted while they were sent."""
    return text(
        f"WITH {_THESE.format(condition)}, gone AS ({deleted_rows}) UPDATE leadloop.leads AS lead SET {assignments}"
        f" FROM these WHERE {_OF_THESE}"
    )


# An answer settles the leads of its own claim alone, whatever has become of the others: work that
# is repeated because its commit's answer was lost must not touch leads that were claimed again
# since. It also settles a lead that another run has put in doubt meanwhile.
_OF_CLAIM = """campaign_id = :campaign AND run_id = :run AND claim_no = :claim
       AND status IN ('sending', 'in_doubt')"""
_OURS = f"lead_id = ANY(:ids) AND {_OF_CLAIM}"
_NOT_SENT = f"DELETE FROM leadloop.sent_leads WHERE {_OURS}"
_CERTAIN = "last_error = NULL, doubted_at = NULL, looked_up_at = NULL"
_NEW = f"status = 'new', sent_at = NULL, {_CERTAIN}"
# Not worth a wait for the disk: a server that crashes at that moment forgets that they are created,
# never that they were sent, so that they are in doubt and looked up.
_CREATED = text(f"""
WITH hurry AS (SELECT set_config('synchronous_commit', 'off', true)), {_THESE.format(_OURS)},
gone AS (
    UPDATE leadloop.sent_leads
       SET status = 'created', confirmed_at = clock_timestamp(), doubted_at = NULL WHERE {_OURS}
)
UPDATE leadloop.leads AS lead
   SET status = 'created', confirmed_at = clock_timestamp(), {_CERTAIN}
  FROM hurry, these WHERE {_OF_THESE}
""")
_RELEASED = _locked_update(_OURS, _NEW, _NOT_SENT)
# A claim holds its run's row until it is committed: whoever waits for that sees all that it took.
_AFTER_CLAIMS = text("SELECT FROM leadloop.sync_runs WHERE run_id = :run FOR NO KEY UPDATE")
_CLAIM_RELEASED = _locked_update(
    _OF_CLAIM, _NEW, f"DELETE FROM leadloop.sent_leads WHERE {_OF_CLAIM}"
)
_DOUBTED = _locked_update(
    _OURS,
    "status = 'in_doubt', last_error = :reason, doubted_at = clock_timestamp(),"
    " looked_up_at = NULL",
    f"UPDATE leadloop.sent_leads SET doubted_at = clock_timestamp() WHERE {_OURS}",
)
_CANCELLED = _locked_update(
    _OURS, "status = 'cancelled', sent_at = NULL, last_error = :reason", _NOT_SENT
)
_REJECTED = text(f"""
WITH {_THESE.format(_OURS)}, gone AS ({_NOT_SENT})
UPDATE leadloop.leads AS lead
   SET status = 'rejected', last_error = refused.reason, doubted_at = NULL, looked_up_at = NULL,
       sent_at = CASE WHEN :was_sent THEN lead.sent_at END
  FROM these
  JOIN unnest(CAST(:ids AS text[]), CAST(:reasons AS text[])) AS refused (lead_id, reason)
 USING (lead_id)
 WHERE {_OF_THESE}
""")

# Who has opted out meanwhile stays: what the vendor has refused it may hold all the same, and it is
# told so of a lead that is rejected, not of one that is new.
_PUT_BACK = _locked_update(
    """campaign_id = :campaign AND lead_id = ANY(:ids) AND run_id = :run
       AND status = 'rejected' AND NOT opted_out""",
    "status = 'new', sent_at = NULL, last_error = NULL, seq = DEFAULT",
)

# A lead whose row was deleted while it was being sent is in doubt, and the vendor's time does not
# begin before the run gives up on the answer or is over: the latter is found here.
_UNANSWERED = """campaign_id = :campaign AND status = 'in_doubt' AND doubted_at = 'infinity'
       AND NOT EXISTS (SELECT FROM leadloop.sync_runs AS run
                        WHERE run.run_id = {}.run_id AND run.state = 'running')"""
_DATE_UNANSWERED = _locked_update(
    _UNANSWERED.format("leads"),
    "doubted_at = clock_timestamp()",
    "UPDATE leadloop.sent_leads SET doubted_at = clock_timestamp()"
    f" WHERE {_UNANSWERED.format('sent_leads')}",
)

# The vendor has its time to show a lead from the moment at which we gave up on the answer: until
# then it may have been at work on the request.
_SINCE = "coalesce(doubted_at, sent_at, inserted_at)"
_SETTLED = f"{_SINCE} + make_interval(secs => :settle_s) < clock_timestamp()"
# Each is looked up at once, and again when the vendor has had its time; those that then stay in
# doubt, once a run. Whoever waits longest for a look comes first.
_IN_DOUBT = text(f"""
SELECT lead_id, {_SINCE} AS doubted_at, {_SETTLED} AS settled
  FROM leadloop.leads AS lead
 WHERE campaign_id = :campaign AND status = 'in_doubt'
   AND doubted_at IS DISTINCT FROM 'infinity'
   AND (looked_up_at IS NULL
        OR {_SETTLED} AND (looked_up_at < {_SINCE} + make_interval(secs => :settle_s)
                           OR looked_up_at < (SELECT started_at FROM leadloop.sync_runs
                                               WHERE run_id = :run)))
   AND (NOT :opted_out OR EXISTS (
        SELECT FROM leadloop.disable_requests AS d
         WHERE d.campaign_id = lead.campaign_id AND d.lead_id = lead.lead_id
           AND d.status IN ('requested', 'failed')))
 ORDER BY looked_up_at NULLS FIRST, lead_id LIMIT :most
""")
_LOOKED_UP = text("""
UPDATE leadloop.leads SET looked_up_at = clock_timestamp()
 WHERE campaign_id = :campaign AND lead_id = :lead AND status = 'in_doubt'
""")
_COUNT_IN_DOUBT = text("""
SELECT count(*) FROM leadloop.leads WHERE campaign_id = :campaign AND status = 'in_doubt'
""")
_FOUND = text(f"""
UPDATE leadloop.leads SET status = 'created', confirmed_at = clock_timestamp(), {_CERTAIN}
 WHERE campaign_id = :campaign AND lead_id = :lead AND status = 'in_doubt'
""")
_ABSENT = text(f"""
UPDATE leadloop.leads SET status = 'new', sent_at = NULL, {_CERTAIN}
 WHERE campaign_id = :campaign AND lead_id = :lead AND status = 'in_doubt'
   AND {_SINCE} = :doubted_at
""")
# Asked once in a campaign's life, before it has a watermark: not worth an index on every lead.
_FIRST_SENT = text("""
SELECT min(sent_at) FROM leadloop.leads WHERE campaign_id = :campaign
""")
_PEOPLE = text("""
SELECT lead_id, phone_number, contact_name, CAST(custom_fields AS text) AS custom_fields
  FROM leadloop.leads WHERE campaign_id = :campaign AND lead_id = ANY(:ids)
""")
# As `new` it would count as never sent, and its opt-out as settled without a word to the vendor.
_REQUEUE = _locked_update(
    """campaign_id = ANY(:campaigns) AND status = :status
       AND (CAST(:ids AS text[]) IS NULL OR lead_id = ANY(:ids))
       AND NOT opted_out AND NOT EXISTS (
           SELECT FROM leadloop.disable_requests AS d
            WHERE d.campaign_id = leads.campaign_id AND d.lead_id = leads.lead_id)""",
    _NEW,
)


@dataclass(frozen=True, kw_only=True)
class ClaimResult:
    """What one claim got: leads to send, now `sending`, and how many had opted out.

    `last` is the place in the queue of the last one, 0 where there was none.
    """

    leads: Sequence[Lead]
    cancelled: int
    last_seq: int

    @property
    def total(self) -> int:
        """How many rows it moved."""
        return len(self.leads) + self.cancelled


@dataclass(frozen=True, kw_only=True)
class InDoubtLead:
    """A lead in doubt; `settled`: the vendor has had its time to show it."""

    lead_id: str
    in_doubt_since: datetime
    settled: bool


@dataclass(frozen=True, kw_only=True)
class LookupRun:
    """A run that looks leads of a campaign up, which the vendor has `settle_s` seconds to show."""

    campaign: str
    run: int
    settle_s: int


def has_new_leads(
    connection: Connection, campaign_id: str, *, require_enabled: bool, after_seq: int = 0
) -> bool:
    """Whether the campaign may send leads, and has any behind a place in the queue."""
    parameters = {"campaign": campaign_id, "while_enabled": require_enabled, "after": after_seq}
    return bool(connection.scalar(_ANY_NEW, parameters))


def count_held_back(connection: Connection, campaign_id: str, *, require_enabled: bool) -> int:
    """Count the new leads of a campaign that may not send them; 0 where it may."""
    parameters = {"campaign": campaign_id, "while_enabled": require_enabled}
    count: int = connection.execute(_COUNT_HELD_BACK, parameters).scalar_one()
    return count


def count_new(connection: Connection, campaign_id: str) -> int:
    """How many leads the campaign has to send."""
    count: int = connection.execute(_COUNT_NEW, {"campaign": campaign_id}).scalar_one()
    return count


def claim_leads(
    connection: Connection,
    *,
    campaign_id: str,
    run_id: int,
    claim_no: int,
    limit: int,
    require_enabled: bool = False,
    after_seq: int = 0,
) -> ClaimResult:
    """Take up to `most` new leads, oldest first: from the commit on they may be on their way.

    Those that opted out become `cancelled` in the same statement. Gets nothing for a run that is
    no longer `running`, or a campaign that may not create.

    Args:
        connection: one that commits each statement, or a transaction.
        campaign_id: whose leads.
        run_id: who takes them.
        claim_no: the number of this claim among the run's.
        most: how many at the most.
        while_enabled: only as long as the campaign is `enabled` (it was when the run began);
            `push_enabled` it must be anyway.
        after: a place in the queue (`Claim.last`); those before it are left. A transaction that is
            open elsewhere keeps the index's entries of all that were sent since it began, and a
            claim from the start has to wade through them.
    """
    parameters = {
        "campaign": campaign_id,
        "run": run_id,
        "claim": claim_no,
        "most": limit,
        "while_enabled": require_enabled,
        "after": after_seq,
    }
    rows = connection.execute(_CLAIM, parameters).all()
    taken = [Lead(*lead) for status, _, *lead in rows if status == "sending"]
    return ClaimResult(
        leads=taken, cancelled=len(rows) - len(taken), last_seq=rows[-1].seq if rows else 0
    )


def reclaim_leads(
    connection: Connection, batch: "ClaimRef", *, require_enabled: bool = False
) -> tuple[list[str], int]:
    """Return which leads of ours may still be sent, and how many have opted out since.

    Where the campaign may not create any more, they are `new` again and none may be sent.
    """
    rows = connection.execute(
        _CLAIM_AGAIN, {**batch.to_parameters(), "while_enabled": require_enabled}
    ).all()
    wanted = [row.lead_id for row in rows if row.status == "sending"]
    return wanted, sum(row.status == "cancelled" for row in rows)


@dataclass(frozen=True, kw_only=True)
class ClaimRef:
    """Leads of one campaign under one claim of one run."""

    campaign_id: str
    run_id: int
    claim_no: int
    lead_ids: Sequence[str]

    def to_parameters(self) -> dict[str, Any]:
        """The parameters that name them in a statement."""
        return {
            "campaign": self.campaign_id,
            "run": self.run_id,
            "claim": self.claim_no,
            "ids": list(self.lead_ids),
        }


def record_created(connection: Connection, batch: ClaimRef) -> int:
    """The vendor has them. Returns how many were changed."""
    return connection.execute(_CREATED, batch.to_parameters()).rowcount


def release_leads(connection: Connection, batch: ClaimRef) -> int:
    """They were certainly not carried out: `new` again."""
    return connection.execute(_RELEASED, batch.to_parameters()).rowcount


def release_claim(connection: Connection, *, campaign_id: str, run_id: int, claim_no: int) -> int:
    """None of a claim's leads was sent: `new` again, those too of which its answer never told."""
    connection.execute(_AFTER_CLAIMS, {"run": run_id})
    parameters = {"campaign": campaign_id, "run": run_id, "claim": claim_no}
    return connection.execute(_CLAIM_RELEASED, parameters).rowcount


def mark_in_doubt(connection: Connection, batch: ClaimRef, reason: str) -> int:
    """The vendor may have them."""
    return connection.execute(_DOUBTED, {**batch.to_parameters(), "reason": reason}).rowcount


def cancel_leads(connection: Connection, batch: ClaimRef, reason: str) -> int:
    """They must not be sent after all."""
    return connection.execute(_CANCELLED, {**batch.to_parameters(), "reason": reason}).rowcount


def record_rejected(
    connection: Connection, batch: ClaimRef, reasons: Mapping[str, str], *, was_sent: bool
) -> int:
    """They will not be sent again as they are; `reasons` by lead id, one for each of the batch."""
    parameters = {
        **batch.to_parameters(),
        "ids": list(reasons),
        "reasons": list(reasons.values()),
        "was_sent": was_sent,
    }
    return connection.execute(_REJECTED, parameters).rowcount


def requeue_rejected(
    connection: Connection, *, campaign_id: str, run_id: int, lead_ids: Sequence[str]
) -> int:
    """`new` again, behind all others, as far as this run has rejected them. Returns how many."""
    parameters = {"campaign": campaign_id, "run": run_id, "ids": list(lead_ids)}
    return connection.execute(_PUT_BACK, parameters).rowcount


def list_due_lookups(
    connection: Connection, *, run: LookupRun, opted_out: bool, limit: int
) -> list[InDoubtLead]:
    """Leads in doubt that are due to be looked up, those that wait longest first.

    Args:
        connection: a transaction.
        run: who looks them up.
        opted_out: only those whose opt-out waits.
        most: how many at the most.
    """
    parameters = {**asdict(run), "opted_out": opted_out, "most": limit}
    return [
        InDoubtLead(lead_id=row.lead_id, in_doubt_since=row.doubted_at, settled=row.settled)
        for row in connection.execute(_IN_DOUBT, parameters)
    ]


def start_settle_time(connection: Connection, campaign_id: str) -> int:
    """Let the vendor's time begin for leads whose rows were deleted while they were being sent.

    Those of runs that are over: they have given up on the answers. Returns how many leads.
    """
    return connection.execute(_DATE_UNANSWERED, {"campaign": campaign_id}).rowcount


def record_lookup(connection: Connection, campaign_id: str, lead_id: str) -> None:
    """Note that a lead is being looked up: if that fails, others are looked up first."""
    connection.execute(_LOOKED_UP, {"campaign": campaign_id, "lead": lead_id})


def count_in_doubt(connection: Connection, campaign_id: str) -> int:
    """How many leads the vendor may or may not have."""
    count: int = connection.execute(_COUNT_IN_DOUBT, {"campaign": campaign_id}).scalar_one()
    return count


def confirm_created(connection: Connection, campaign_id: str, lead_id: str) -> int:
    """A lookup showed it: the vendor has it."""
    return connection.execute(_FOUND, {"campaign": campaign_id, "lead": lead_id}).rowcount


def confirm_absent(connection: Connection, campaign_id: str, lead: InDoubtLead) -> int:
    """It is proven not to have been created: `new` again, unless it was doubted anew."""
    return connection.execute(
        _ABSENT,
        {"campaign": campaign_id, "lead": lead.lead_id, "doubted_at": lead.in_doubt_since},
    ).rowcount


def get_first_sent_at(connection: Connection, campaign_id: str) -> datetime | None:
    """When the campaign's first lead was sent."""
    moment: datetime | None = connection.scalar(_FIRST_SENT, {"campaign": campaign_id})
    return moment


def list_personal_fields(
    connection: Connection, campaign_id: str, lead_ids: Sequence[str]
) -> list[Lead]:
    """What must not be repeated of these leads: numbers, names and custom fields."""
    rows = connection.execute(_PEOPLE, {"campaign": campaign_id, "ids": list(lead_ids)})
    return [Lead(**row._mapping) for row in rows]


def requeue_leads(
    connection: Connection, *, campaign_ids: Sequence[str], status: str, lead_ids: Sequence[str]
) -> int:
    """Make leads of one status `new` again; all of them where no ids are given.

    Whoever has opted out stays as they are: they are not to be sent.
    """
    return connection.execute(
        _REQUEUE,
        {"campaigns": list(campaign_ids), "status": status, "ids": list(lead_ids) or None},
    ).rowcount
