"""Queries on `leadloop.leads`: the transitions of a lead's status that a push or a lookup makes.

Others: `db.runs` (dead runs), `db.opt_outs` (never sent), `db.outcomes` (created after all),
`db.source_sync` (new) and db/schema/triggers.sql (inserted again).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, TextClause, text

from db.create_holds import IS_HELD
from db.latencies import build_count
from leadloop.core.leads import Lead, build_too_old_reason
from leadloop.core.opt_ins import OPTED_OUT_REASON

#: More bytes than any leads have.
NO_LIMIT = 2**62

# The pause switch and the hold: every claim checks them, so both take effect within a run.
_MAY_CREATE = f"""SELECT FROM leadloop.campaigns
     WHERE campaign_id = :campaign AND push_enabled AND (enabled OR NOT :require_enabled)
       AND {IS_HELD} IS NOT TRUE"""
# The same for a claim, which locks the row until its commit against a change of the account
# (the trigger note_account): either it sees the claim's leads, or the claim sees the new account.
_MAY_CLAIM = f"{_MAY_CREATE} AND account = :account FOR KEY SHARE OF campaigns"
# Leads that no request with them has failed on; the others are suspects (db.suspects).
_FRESH = "status = 'new' AND suspect_list IS NULL"
# With `:urgent_only`, leads without a priority are left to others, unless their campaign has one.
_MAY_TAKE_USUAL = """(NOT :urgent_only OR EXISTS (
           SELECT FROM leadloop.campaigns WHERE campaign_id = :campaign AND priority > 0))"""
_ANY_FRESH = text(f"""
SELECT EXISTS ({_MAY_CREATE})
   AND (EXISTS (SELECT FROM leadloop.leads
                 WHERE campaign_id = :campaign AND {_FRESH} AND seq > :after_seq
                   AND {_MAY_TAKE_USUAL})
        OR :urgent_only
           AND EXISTS (SELECT FROM leadloop.leads
                        WHERE campaign_id = :campaign AND {_FRESH} AND priority > 0))
""")
_COUNT_HELD_BACK = text(f"""
SELECT count(*) FROM leadloop.leads
 WHERE campaign_id = :campaign AND status = 'new' AND NOT EXISTS ({_MAY_CREATE})
""")

_COUNT_FRESH = text(f"""
SELECT CASE WHEN {_MAY_TAKE_USUAL}
            THEN (SELECT count(*) FROM leadloop.leads
                   WHERE campaign_id = :campaign AND {_FRESH})
            ELSE (SELECT count(*) FROM leadloop.leads
                   WHERE campaign_id = :campaign AND {_FRESH} AND priority > 0) END
""")

# The claim. One statement decides, under each row's lock, that a lead is ours and not opted out.
# `opted_out` is on the row itself: an opt-out that commits during the statement is seen when the
# row is locked. The EXISTS covers an opt-out that came before its lead. `alive` locks the run's own
# row: a run that another run has declared dead claims nothing.
_ALIVE = "SELECT FROM leadloop.sync_runs WHERE run_id = :run AND state = 'running' FOR SHARE"
#: SQL: the lead, in a row of that name, is older than `:max_lead_age_s`.
TOO_OLD = """coalesce(lead.inserted_at < clock_timestamp()
                - make_interval(secs => CAST(:max_lead_age_s AS integer)), false)"""
_DECISION = f"""CASE WHEN lead.opted_out OR EXISTS (
               SELECT FROM leadloop.disable_requests AS d
                WHERE d.campaign_id = lead.campaign_id AND d.lead_id = lead.lead_id)
            THEN 'cancelled'
            WHEN NOT EXISTS (SELECT FROM may_create) THEN 'new'
            WHEN {TOO_OLD} THEN 'rejected' ELSE 'sending' END AS decision"""
# Clamped to Python's range of years, 1 to 9999, in any time zone.
EBR_DATETIME = """CASE WHEN ebr_datetime IS NOT NULL
            THEN least(greatest(ebr_datetime, '0002-01-01 UTC'), '9999-01-01 UTC')
       END AS ebr_datetime"""
# A lead above `:max_lead_bytes` is never sent. Its fields are not read: those of a hundred such
# leads could exhaust the memory.
_MEASURED = ("custom_fields", "contact_name", "phone_number", "state_code")
_NAMES = ", ".join(f"'{name}'" for name in _MEASURED)
#: SQL: the bytes of each field of any length of a lead. To measure is to decompress.
FIELD_SIZES = f"""ARRAY[{
    ", ".join(
        f"coalesce(CAST(octet_length(CAST({name} AS text)) AS bigint), 0)" for name in _MEASURED
    )
}]"""
_BYTES = f"({' + '.join(f'sizes[{place}]' for place in range(1, len(_MEASURED) + 1))})"
_LEFT_OUT = f"{_BYTES} > :max_lead_bytes"
#: SQL: the columns of a lead, in the order of `Lead`'s fields, of a row with FIELD_SIZES AS sizes.
LEAD_COLUMNS = f"""lead_id, CASE WHEN NOT {_LEFT_OUT} THEN phone_number END AS phone_number,
       CASE WHEN NOT {_LEFT_OUT} THEN contact_name END AS contact_name,
       CASE WHEN NOT {_LEFT_OUT} THEN state_code END AS state_code, {EBR_DATETIME},
       CASE WHEN {_LEFT_OUT} THEN '{{}}' ELSE CAST(custom_fields AS text) END AS custom_fields,
       CASE WHEN {_LEFT_OUT}
            THEN (SELECT field.name || ': ' || field.size || ' bytes'
                    FROM unnest(ARRAY[{_NAMES}], sizes) AS field (name, size)
                   ORDER BY field.size DESC LIMIT 1) ELSE '' END AS left_out"""
# Of a lead's JSON, without its fields of any length.
_OTHER_BYTES = 200
# See db.suspects.
_NO_SUSPICION = {
    "suspect_list": "NULL",
    "suspected_at": "NULL",
    "last_failed_at": "NULL",
    "lone_failures": "0",
    "next_try_at": "NULL",
}
CLEAR_SUSPICION = ", ".join(f"{column} = {value}" for column, value in _NO_SUSPICION.items())
_CLEAR_IF_REJECTED = ",\n       ".join(
    f"{column} = CASE picked.decision WHEN 'rejected' THEN {value} ELSE lead.{column} END"
    for column, value in _NO_SUSPICION.items()
)
_DECIDE = f"""
UPDATE leadloop.leads AS lead
   SET status = picked.decision, opted_out = picked.decision = 'cancelled',
       sent_at = CASE picked.decision WHEN 'sending' THEN clock_timestamp() END,
       run_id = :run, claim_no = :claim,
       last_error = CASE picked.decision WHEN 'rejected' THEN :too_old
                                         WHEN 'cancelled' THEN '{OPTED_OUT_REASON}' END,
       {_CLEAR_IF_REJECTED}
  FROM picked
 WHERE lead.campaign_id = picked.campaign_id AND lead.lead_id = picked.lead_id
"""


def _lock_new(condition: str, order: str) -> str:
    """Build the query that locks the first new leads that meet a condition."""
    return f"""
    SELECT lead.campaign_id, lead.lead_id, lead.priority, lead.seq, {FIELD_SIZES} AS sizes,
           {_DECISION}
      FROM leadloop.leads AS lead
     WHERE lead.campaign_id = :campaign AND lead.status = 'new' AND {condition}
       AND EXISTS (SELECT FROM alive) AND EXISTS (SELECT FROM may_create)
     ORDER BY {order}
     LIMIT :limit
       FOR NO KEY UPDATE OF lead SKIP LOCKED"""


def _claim(candidates: str) -> TextClause:
    """Build the claim of leads that the last of these queries, `candidates`, locks."""
    return text(f"""
WITH alive AS ({_ALIVE}
), may_create AS ({_MAY_CLAIM}
), {candidates}
), picked AS (
    SELECT * FROM (
        SELECT *, row_number() OVER queue AS place,
               sum(CASE WHEN {_LEFT_OUT} OR decision <> 'sending' THEN 0
                        ELSE {_BYTES} + {_OTHER_BYTES} END) OVER queue AS bytes_so_far
          FROM candidates WINDOW queue AS (ORDER BY priority DESC, seq)) AS numbered
     WHERE place = 1 OR bytes_so_far <= :max_bytes
), claimed AS ({_DECIDE}
    RETURNING lead.*, picked.sizes
), cancelled AS (
    UPDATE leadloop.disable_requests AS d
       SET status = 'cancelled', confirmed_at = clock_timestamp()
      FROM claimed
     WHERE claimed.status = 'cancelled' AND d.status = 'requested'
       AND d.campaign_id = claimed.campaign_id AND d.lead_id = claimed.lead_id
)
-- The fourth column and those after it have the order of `Lead`'s fields.
SELECT status, priority, seq, {LEAD_COLUMNS}
  FROM claimed ORDER BY priority DESC, seq
""")


_URGENT = _lock_new(
    "lead.suspect_list IS NULL AND lead.priority > 0", "lead.priority DESC, lead.seq"
)
_USUAL = _lock_new(
    "lead.suspect_list IS NULL AND lead.priority = 0 AND lead.seq > :after_seq"
    f" AND {_MAY_TAKE_USUAL}",
    "lead.seq",
)
# The outer limit of the second part stops its locks as soon as the batch is full. The inner one is
# known to the planner, which then reads the index in order.
_CLAIM = _claim(f"""urgent AS ({_URGENT}
), usual AS (
    SELECT * FROM ({_USUAL}) AS first LIMIT :limit - (SELECT count(*) FROM urgent)
), candidates AS (
    SELECT * FROM urgent UNION ALL SELECT * FROM usual""")
_DUE_SUSPECTS = """campaign_id = :campaign AND status = 'new' AND suspect_list IS NOT NULL
           AND (next_try_at IS NULL OR next_try_at <= clock_timestamp())"""
# What has failed less comes first: lists in halves, then leads that have failed alone.
_FIRST_LIST = f"""lead.suspect_list = (
        SELECT suspect_list FROM leadloop.leads WHERE {_DUE_SUSPECTS}
         GROUP BY suspect_list
         ORDER BY max(next_try_at) NULLS FIRST, count(*), suspect_list LIMIT 1)"""
_CLAIM_SUSPECTS = _claim(f"candidates AS ({_lock_new(_FIRST_LIST, 'lead.priority DESC, lead.seq')}")
_ANY_DUE_SUSPECT = text(f"""
SELECT EXISTS ({_MAY_CREATE})
   AND EXISTS (SELECT FROM leadloop.leads WHERE {_DUE_SUSPECTS})
""")

# Leads that a person names, whatever their place in the queue; suspects are sent in their lists.
_CLAIM_NAMED = _claim(
    f"""candidates AS ({
        _lock_new(
            "lead.suspect_list IS NULL AND lead.lead_id = ANY(:ids)", "lead.priority DESC, lead.seq"
        )
    }"""
)
_COUNT_NAMED = text(f"""
SELECT count(*) FROM leadloop.leads
 WHERE campaign_id = :campaign AND {_FRESH} AND lead_id = ANY(:ids) AND EXISTS ({_MAY_CREATE})
""")
# The vendor has this lead: where it may not be sent, it stays as it is.
_CLAIM_CREATED = text(f"""
WITH alive AS ({_ALIVE}
), may_create AS ({_MAY_CLAIM}
), picked AS (
    SELECT lead.campaign_id, lead.lead_id, {FIELD_SIZES} AS sizes
      FROM leadloop.leads AS lead
     WHERE lead.campaign_id = :campaign AND lead.lead_id = :lead AND lead.status = 'created'
       AND NOT lead.opted_out AND NOT EXISTS (
           SELECT FROM leadloop.disable_requests AS d
            WHERE d.campaign_id = lead.campaign_id AND d.lead_id = lead.lead_id)
       AND NOT {TOO_OLD}
       AND EXISTS (SELECT FROM alive) AND EXISTS (SELECT FROM may_create)
       FOR NO KEY UPDATE OF lead
), claimed AS (
    UPDATE leadloop.leads AS lead SET status = 'sending', run_id = :run, claim_no = :claim
      FROM picked
     WHERE lead.campaign_id = picked.campaign_id AND lead.lead_id = picked.lead_id
    RETURNING lead.*, picked.sizes
)
SELECT {LEAD_COLUMNS} FROM claimed
""")

# The same decisions again, for claimed leads that are about to be resent in another batch. If the
# campaign is paused, the leads become `new`.
_RECLAIM = text(f"""
WITH alive AS ({_ALIVE}
), may_create AS ({_MAY_CLAIM}
), picked AS (
    SELECT lead.campaign_id, lead.lead_id, {_DECISION}
      FROM leadloop.leads AS lead
     WHERE lead.campaign_id = :campaign AND lead.lead_id = ANY(:ids) AND lead.run_id = :run
       AND lead.status = 'sending' AND EXISTS (SELECT FROM alive)
     ORDER BY lead.lead_id
       FOR NO KEY UPDATE OF lead
)
{_DECIDE}
RETURNING lead.lead_id, lead.status
""")

# Leads are locked in the order in which the trigger of opt-outs locks them. Any other order could
# deadlock, and the code that inserts an opt-out does not expect its insert to fail.
_LOCKED_LEADS = """locked AS (
    SELECT campaign_id, lead_id FROM leadloop.leads
     WHERE {}
     ORDER BY campaign_id, lead_id FOR NO KEY UPDATE
)"""
_MATCHES_LOCKED = "lead.campaign_id = locked.campaign_id AND lead.lead_id = locked.lead_id"


def locked_update(condition: str, assignments: str, deleted_rows: str = "SELECT") -> TextClause:
    """Build an update that locks its leads in order, and returns their ids and new statuses.

    `deleted_rows`: the statement for sent leads whose rows were deleted (`leadloop.sent_leads`).
    """
    return text(
        f"WITH {_LOCKED_LEADS.format(condition)}, deleted_leads AS ({deleted_rows})"
        f" UPDATE leadloop.leads AS lead SET {assignments} FROM locked WHERE {_MATCHES_LOCKED}"
        " RETURNING lead.lead_id, lead.status"
    )


# A response settles only the leads of its claim. So a retry after a lost commit confirmation
# (idempotent) cannot touch leads that were claimed again since. A response also settles a lead that
# another run has put in doubt meanwhile.
_WHOLE_CLAIM = """campaign_id = :campaign AND run_id = :run AND claim_no = :claim
       AND status IN ('sending', 'in_doubt')"""
LEADS_OF_CLAIM = f"lead_id = ANY(:ids) AND {_WHOLE_CLAIM}"
NOT_SENT = f"DELETE FROM leadloop.sent_leads WHERE {LEADS_OF_CLAIM}"
CLEAR_DOUBT = "last_error = NULL, doubted_at = NULL, looked_up_at = NULL"
_BACK_TO_NEW = f"status = 'new', sent_at = NULL, {CLEAR_DOUBT}"
_COUNT_LATENCIES = build_count(
    "created",
    kind="""CASE WHEN created.priority > 0
                    OR (SELECT campaign.priority FROM leadloop.campaigns AS campaign
                         WHERE campaign.campaign_id = :campaign) > 0
               THEN 'urgent lead' ELSE 'lead' END""",
    since="created.inserted_at",
    until="created.confirmed_at",
)
_MARK_CREATED = f"""created AS (
    UPDATE leadloop.leads AS lead
       SET status = 'created', confirmed_at = clock_timestamp(), {CLEAR_DOUBT}, {CLEAR_SUSPICION}
      FROM {{}} WHERE {_MATCHES_LOCKED}
    RETURNING lead.lead_id, lead.inserted_at, lead.confirmed_at, lead.priority
), counted AS ({_COUNT_LATENCIES}
)
SELECT lead_id FROM created"""


def created_update(condition: str) -> TextClause:
    """Build an update like `locked_update` that marks leads `created` and counts latencies."""
    return text(f"WITH {_LOCKED_LEADS.format(condition)}, {_MARK_CREATED.format('locked')}")


# Asynchronous commit: a server that crashes may lose that the leads are created, but not that they
# were sent. Such leads are in doubt and looked up.
_RECORD_CREATED = text(f"""
WITH async_commit AS (SELECT set_config('synchronous_commit', 'off', true)
), {_LOCKED_LEADS.format(LEADS_OF_CLAIM)}, deleted_leads AS (
    UPDATE leadloop.sent_leads
       SET status = 'created', confirmed_at = clock_timestamp(), doubted_at = NULL
     WHERE {LEADS_OF_CLAIM}
), {_MARK_CREATED.format("async_commit, locked")}
""")
_CONFIRM_SHOWN = created_update(
    "campaign_id = :campaign AND lead_id = ANY(:ids) AND status = 'rejected'"
)
# Of a lead that was created before its claim: when that was stays as it is.
_RESTORE_CREATED = locked_update(
    LEADS_OF_CLAIM,
    f"status = 'created', {CLEAR_DOUBT}",
    f"UPDATE leadloop.sent_leads SET status = 'created', doubted_at = NULL WHERE {LEADS_OF_CLAIM}",
)
_RELEASE = locked_update(LEADS_OF_CLAIM, _BACK_TO_NEW, NOT_SENT)
# A claim locks its run's row until its commit: a transaction that waits for this lock sees the
# claim's leads.
_AFTER_CLAIMS = text("SELECT FROM leadloop.sync_runs WHERE run_id = :run FOR NO KEY UPDATE")
_RELEASE_CLAIM = locked_update(
    _WHOLE_CLAIM, _BACK_TO_NEW, f"DELETE FROM leadloop.sent_leads WHERE {_WHOLE_CLAIM}"
)
_MARK_IN_DOUBT = locked_update(
    LEADS_OF_CLAIM,
    "status = 'in_doubt', last_error = :reason, doubted_at = clock_timestamp(),"
    " looked_up_at = NULL",
    f"UPDATE leadloop.sent_leads SET doubted_at = clock_timestamp() WHERE {LEADS_OF_CLAIM}",
)
_CANCEL = locked_update(
    LEADS_OF_CLAIM, "status = 'cancelled', sent_at = NULL, last_error = :reason", NOT_SENT
)
_RECORD_REJECTED = text(f"""
WITH {_LOCKED_LEADS.format(LEADS_OF_CLAIM)}, deleted_leads AS ({NOT_SENT})
UPDATE leadloop.leads AS lead
   SET status = 'rejected', last_error = rejection.reason, doubted_at = NULL, looked_up_at = NULL,
       sent_at = CASE WHEN :was_sent THEN lead.sent_at END, {CLEAR_SUSPICION}
  FROM locked
  JOIN unnest(CAST(:ids AS text[]), CAST(:reasons AS text[])) AS rejection (lead_id, reason)
 USING (lead_id)
 WHERE {_MATCHES_LOCKED}
""")

# Opted-out leads stay `rejected`. The vendor may hold a lead that it rejected; the opt-out is sent
# to the vendor for a rejected lead, and only cancelled for a new one.
_REQUEUE_REJECTED = locked_update(
    """campaign_id = :campaign AND lead_id = ANY(:ids) AND run_id = :run
       AND status = 'rejected' AND NOT opted_out""",
    "status = 'new', sent_at = NULL, last_error = NULL, seq = DEFAULT",
)

_REASONS = text("""
SELECT lead_id, last_error FROM leadloop.leads
 WHERE campaign_id = :campaign AND lead_id = ANY(:ids) AND last_error IS NOT NULL
""")
# Run once per campaign, before its first watermark: not worth an index on every lead.
_FIRST_SENT = text("""
SELECT min(sent_at) FROM leadloop.leads WHERE campaign_id = :campaign
""")
_PERSONAL_FIELDS = text("""
SELECT lead_id, phone_number, contact_name, CAST(custom_fields AS text) AS custom_fields
  FROM leadloop.leads WHERE campaign_id = :campaign AND lead_id = ANY(:ids)
""")
# Opted-out leads are excluded: a `new` lead counts as never sent, so its opt-out would be cancelled
# and never sent to the vendor. A requeued lead was never confirmed: one that was
# would be `created` again where a lookup proves it absent (db.in_doubt).
_REQUEUE = locked_update(
    """campaign_id = ANY(:campaigns) AND status = :status
       AND (CAST(:ids AS text[]) IS NULL OR lead_id = ANY(:ids))
       AND NOT opted_out AND NOT EXISTS (
           SELECT FROM leadloop.disable_requests AS d
            WHERE d.campaign_id = leads.campaign_id AND d.lead_id = leads.lead_id)""",
    f"{_BACK_TO_NEW}, confirmed_at = NULL, {CLEAR_SUSPICION}",
)


_KNOWN = text("""
SELECT coalesce(lead.campaign_id, d.campaign_id) AS campaign_id,
       coalesce(lead.lead_id, d.lead_id) AS lead_id, lead.status,
       coalesce(lead.opted_out, false) AS opted_out, d.status AS opt_out_status
  FROM (SELECT * FROM leadloop.leads
         WHERE campaign_id = ANY(:campaigns) AND lead_id = ANY(:ids)) AS lead
  FULL JOIN (SELECT * FROM leadloop.disable_requests
              WHERE campaign_id = ANY(:campaigns) AND lead_id = ANY(:ids)) AS d
    ON d.campaign_id = lead.campaign_id AND d.lead_id = lead.lead_id
 ORDER BY 1, 2
""")


@dataclass(frozen=True, kw_only=True)
class KnownLead:
    """What stands in the way of requeueing a lead; `status` is None if only its opt-out exists."""

    campaign_id: str
    lead_id: str
    status: str | None
    opted_out: bool
    opt_out_status: str | None


@dataclass(frozen=True, kw_only=True)
class ClaimResult:
    """The result of one claim: leads to send (now `sending`), and the counts of others.

    Attributes:
        leads: those to send, in order.
        cancelled: leads that have opted out.
        rejected: the reasons of leads that are too old, by id.
        last_seq: the queue position (`seq`) after which the next claim goes on; 0 if this one is
            empty.
    """

    leads: Sequence[Lead]
    cancelled: int
    rejected: Mapping[str, str]
    last_seq: int

    @property
    def total(self) -> int:
        """The number of leads that the claim moved."""
        return len(self.leads) + self.cancelled + len(self.rejected)


@dataclass(frozen=True, kw_only=True)
class ReclaimResult:
    """The ids of leads that may still be sent, and the leads that may not any more.

    Attributes:
        lead_ids: those that may.
        cancelled: leads that have opted out.
        rejected: the reasons of leads that are too old, by id.
    """

    lead_ids: Sequence[str]
    cancelled: int
    rejected: Mapping[str, str]

    @property
    def total(self) -> int:
        """The number of leads that were decided on; the others are `new` again."""
        return len(self.lead_ids) + self.cancelled + len(self.rejected)


@dataclass(frozen=True, kw_only=True)
class ClaimRef:
    """A reference to leads of one claim: campaign, run, number of the claim, lead ids."""

    campaign_id: str
    run_id: int
    claim_no: int
    lead_ids: Sequence[str]

    def to_parameters(self) -> dict[str, Any]:
        """Return the parameters of a statement on these leads."""
        return {
            "campaign": self.campaign_id,
            "run": self.run_id,
            "claim": self.claim_no,
            "ids": list(self.lead_ids),
        }


def has_fresh_leads(
    connection: Connection,
    campaign_id: str,
    *,
    require_enabled: bool,
    after_seq: int = 0,
    urgent_only: bool = False,
) -> bool:
    """Return whether the campaign may create leads and has fresh ones after `after_seq`.

    `require_enabled`: the campaign must also be `enabled`. `urgent_only`: it has urgent ones.
    """
    parameters = {
        "campaign": campaign_id,
        "require_enabled": require_enabled,
        "after_seq": after_seq,
        "urgent_only": urgent_only,
    }
    return bool(connection.scalar(_ANY_FRESH, parameters))


def has_due_suspects(connection: Connection, campaign_id: str, *, require_enabled: bool) -> bool:
    """Return whether the campaign may create leads and has suspects that are due."""
    parameters = {"campaign": campaign_id, "require_enabled": require_enabled}
    return bool(connection.scalar(_ANY_DUE_SUSPECT, parameters))


def count_held_back(connection: Connection, campaign_id: str, *, require_enabled: bool) -> int:
    """Count the new leads of a campaign that may not create them; 0 if it may."""
    parameters = {"campaign": campaign_id, "require_enabled": require_enabled}
    count: int = connection.execute(_COUNT_HELD_BACK, parameters).scalar_one()
    return count


def count_fresh(connection: Connection, campaign_id: str, *, urgent_only: bool = False) -> int:
    """Count the campaign's new leads that are no suspects; `urgent_only`: those that are urgent."""
    parameters = {"campaign": campaign_id, "urgent_only": urgent_only}
    count: int = connection.execute(_COUNT_FRESH, parameters).scalar_one()
    return count


def count_named(
    connection: Connection, campaign_id: str, lead_ids: Sequence[str], *, require_enabled: bool
) -> int:
    """Count those of the named leads that are fresh; 0 if the campaign may not create leads."""
    parameters = {
        "campaign": campaign_id,
        "ids": list(lead_ids),
        "require_enabled": require_enabled,
    }
    count: int = connection.execute(_COUNT_NAMED, parameters).scalar_one()
    return count


def claim_leads(
    connection: Connection,
    *,
    campaign_id: str,
    run_id: int,
    claim_no: int,
    limit: int,
    max_lead_bytes: int = NO_LIMIT,
    max_bytes: int = NO_LIMIT,
    max_lead_age_s: int | None = None,
    require_enabled: bool = False,
    after_seq: int = 0,
    urgent_only: bool = False,
    suspects: bool = False,
    lead_ids: Sequence[str] | None = None,
    account: str,
) -> ClaimResult:
    """Claim up to `limit` fresh leads: after the commit a request may hold them.

    Leads of the highest priority come first, and of these the oldest. Opted-out leads become
    `cancelled` in the same statement, and leads that are too old `rejected`. The claim is empty if
    the run is no longer `running`, or the campaign may not create leads or has another account.

    Args:
        connection: in autocommit mode, or a transaction.
        campaign_id: the campaign.
        run_id: the claiming run.
        claim_no: the number of the claim within the run.
        limit: maximum number of leads.
        max_lead_bytes: the fields of a lead with more bytes are not returned (`Lead.left_out`).
        max_bytes: about the most bytes of all leads together; the first one is always claimed.
        max_lead_age_s: leads that were inserted more seconds ago are too old; None: no lead is.
        require_enabled: the campaign must be `enabled`, as it was when the run started.
            `push_enabled` is always required.
        after_seq: queue position (`ClaimResult.last_seq`) to start after, for leads without a
            priority. A long transaction elsewhere keeps dead index entries of all leads sent since;
            a claim from the start of the queue would scan them all.
        urgent_only: claim urgent leads only: those with a priority, or of a campaign with one.
        suspects: claim leads of the next list of suspects that is due instead. The list that failed
            less often comes first, and of these the shorter one.
        lead_ids: claim fresh leads with these ids alone; None: whatever their ids.
        account: the account whose login sends the leads.
    """
    age = _age_parameters(max_lead_age_s)
    statement = _CLAIM_SUSPECTS if suspects else _CLAIM if lead_ids is None else _CLAIM_NAMED
    rows = connection.execute(
        statement,
        {
            "campaign": campaign_id,
            "run": run_id,
            "claim": claim_no,
            "limit": limit,
            "max_lead_bytes": max_lead_bytes,
            "max_bytes": max_bytes,
            **age,
            "require_enabled": require_enabled,
            "account": account,
            "after_seq": after_seq,
            "urgent_only": urgent_only,
            **({} if lead_ids is None else {"ids": list(lead_ids)}),
        },
    ).all()
    statuses = Counter(row.status for row in rows)
    usual = [row.seq for row in rows if not row.priority]
    return ClaimResult(
        leads=[Lead(*lead) for status, _, _, *lead in rows if status == "sending"],
        cancelled=statuses["cancelled"],
        rejected={row.lead_id: age["too_old"] for row in rows if row.status == "rejected"},
        last_seq=max(usual, default=after_seq) if rows else 0,
    )


def reclaim_leads(
    connection: Connection,
    claim: ClaimRef,
    *,
    max_lead_age_s: int | None = None,
    require_enabled: bool = False,
    account: str,
) -> ReclaimResult:
    """Recheck claimed leads before a resend, as `claim_leads` has checked them.

    If the campaign may no longer create leads with this account, all of them become `new`.
    """
    age = _age_parameters(max_lead_age_s)
    parameters = {
        **claim.to_parameters(),
        **age,
        "require_enabled": require_enabled,
        "account": account,
    }
    rows = connection.execute(_RECLAIM, parameters).all()
    statuses = Counter(row.status for row in rows)
    return ReclaimResult(
        lead_ids=[row.lead_id for row in rows if row.status == "sending"],
        cancelled=statuses["cancelled"],
        rejected={row.lead_id: age["too_old"] for row in rows if row.status == "rejected"},
    )


def claim_created(
    connection: Connection,
    claim: ClaimRef,
    *,
    max_lead_bytes: int = NO_LIMIT,
    max_lead_age_s: int | None = None,
    require_enabled: bool = False,
    account: str,
) -> Lead | None:
    """Claim one `created` lead for a repeated create; None if it must not be sent now.

    It may have opted out, or be too old, or the campaign may create no lead; then it stays as it
    is. After the request, `restore_created` ends the claim, whatever the response.
    """
    (lead_id,) = claim.lead_ids
    row = connection.execute(
        _CLAIM_CREATED,
        {
            **claim.to_parameters(),
            "lead": lead_id,
            "max_lead_bytes": max_lead_bytes,
            **_age_parameters(max_lead_age_s),
            "require_enabled": require_enabled,
            "account": account,
        },
    ).one_or_none()
    return None if row is None else Lead(*row)


def restore_created(connection: Connection, claim: ClaimRef) -> int:
    """Mark leads `created` again that were so before their claim; return their number."""
    return connection.execute(_RESTORE_CREATED, claim.to_parameters()).rowcount


def _age_parameters(max_lead_age_s: int | None) -> dict[str, Any]:
    """Return the parameters of a decision on leads that may be too old."""
    reason = None if max_lead_age_s is None else build_too_old_reason(max_lead_age_s)
    return {"max_lead_age_s": max_lead_age_s, "too_old": reason}


def record_created(connection: Connection, claim: ClaimRef) -> int:
    """Mark leads `created`: the vendor holds them. Returns the number of changed leads."""
    return connection.execute(_RECORD_CREATED, claim.to_parameters()).rowcount


def confirm_shown(connection: Connection, campaign_id: str, lead_ids: Sequence[str]) -> int:
    """Mark `rejected` leads `created` that the vendor shows; return the number of changed ones."""
    parameters = {"campaign": campaign_id, "ids": list(lead_ids)}
    return connection.execute(_CONFIRM_SHOWN, parameters).rowcount


def release_leads(connection: Connection, claim: ClaimRef) -> int:
    """Release leads whose request was certainly not carried out: `new` again."""
    return connection.execute(_RELEASE, claim.to_parameters()).rowcount


def release_claim(connection: Connection, *, campaign_id: str, run_id: int, claim_no: int) -> int:
    """Release a claim by number if its result was lost and the lead ids are unknown.

    None of the claim's leads was sent; all become `new` again.
    """
    connection.execute(_AFTER_CLAIMS, {"run": run_id})
    parameters = {"campaign": campaign_id, "run": run_id, "claim": claim_no}
    return connection.execute(_RELEASE_CLAIM, parameters).rowcount


def mark_in_doubt(connection: Connection, claim: ClaimRef, reason: str) -> int:
    """Mark leads `in_doubt`: the vendor may hold them. Returns the number of changed leads."""
    return connection.execute(_MARK_IN_DOUBT, {**claim.to_parameters(), "reason": reason}).rowcount


def cancel_leads(connection: Connection, claim: ClaimRef, reason: str) -> int:
    """Cancel claimed leads that must not be sent. Returns the number of changed leads."""
    return connection.execute(_CANCEL, {**claim.to_parameters(), "reason": reason}).rowcount


def record_rejected(
    connection: Connection, claim: ClaimRef, reasons: Mapping[str, str], *, was_sent: bool
) -> int:
    """Mark leads `rejected`: pushes do not send them again until they are requeued or changed.

    Args:
        connection: a transaction.
        claim: the claim; its lead ids are those of `reasons`.
        reasons: redacted reason by lead id.
        was_sent: the vendor rejected the leads; false: our own checks did, before the request.
    """
    parameters = {
        **claim.to_parameters(),
        "ids": list(reasons),
        "reasons": list(reasons.values()),
        "was_sent": was_sent,
    }
    return connection.execute(_RECORD_REJECTED, parameters).rowcount


def requeue_rejected(
    connection: Connection, *, campaign_id: str, run_id: int, lead_ids: Sequence[str]
) -> list[str]:
    """Requeue leads that this run rejected, at the end of the queue. Returns their ids."""
    parameters = {"campaign": campaign_id, "run": run_id, "ids": list(lead_ids)}
    return [row.lead_id for row in connection.execute(_REQUEUE_REJECTED, parameters)]


def get_reasons(
    connection: Connection, campaign_id: str, lead_ids: Sequence[str]
) -> dict[str, str]:
    """Return the reason (`last_error`) of each of the leads that has one, by id."""
    rows = connection.execute(_REASONS, {"campaign": campaign_id, "ids": list(lead_ids)})
    return {row.lead_id: row.last_error for row in rows}


def get_first_sent_at(connection: Connection, campaign_id: str) -> datetime | None:
    """Return when the campaign's first lead was sent, or None."""
    moment: datetime | None = connection.scalar(_FIRST_SENT, {"campaign": campaign_id})
    return moment


def list_personal_fields(
    connection: Connection, campaign_id: str, lead_ids: Sequence[str]
) -> list[Lead]:
    """Return the personal fields of leads, to redact from the vendor's texts.

    Only phone number, name and custom fields are filled.
    """
    rows = connection.execute(_PERSONAL_FIELDS, {"campaign": campaign_id, "ids": list(lead_ids)})
    return [Lead(**row._mapping) for row in rows]


def list_known(
    connection: Connection, campaign_ids: Sequence[str], lead_ids: Sequence[str]
) -> list[KnownLead]:
    """List those of the leads that the campaigns have, as a lead or as an opt-out."""
    asked = {"campaigns": list(campaign_ids), "ids": list(lead_ids)}
    return [KnownLead(**row._mapping) for row in connection.execute(_KNOWN, asked)]


def requeue_leads(
    connection: Connection, *, campaign_ids: Sequence[str], status: str, lead_ids: Sequence[str]
) -> int:
    """Requeue leads of one status: with these ids, or all if no id is given.

    Opted-out leads keep their status. Returns the number of requeued leads.
    """
    return connection.execute(
        _REQUEUE,
        {"campaigns": list(campaign_ids), "status": status, "ids": list(lead_ids) or None},
    ).rowcount
