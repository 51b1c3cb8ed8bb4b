"""A campaign's opt-out source: which of its rows are new, and what they change here.

A row names a lead, a phone number, or both: each of the two is an *entry*. The entries of the last
read are remembered, so that a row counts once for as long as it stands there. Of a phone number, a
keyed hash is remembered. A digest shows whether the source has changed at all.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from db.create_holds import IS_HELD
from db.database import Database, DatabaseError
from db.schema import expand_macros
from db.source import SourceTable, Staging, cast_column, open_reader_transaction, translate_errors
from db.unreadable_rows import is_data_error
from leadloop.core.opt_out_rows import MAX_NUMBER_LENGTH
from leadloop.core.source_requirements import MAX_LEAD_ID_LENGTH, NamedSource

#: In `suppressed_numbers`, the lead id of a number that an opt-out source names.
NO_LEAD = ""
#: `disable_requests.origin` of opt-outs from an opt-out source.
ORIGIN = "opt_out_source"
# Rows a transaction: it is short, so that other transactions wait for few leads.
_CHUNK_ROWS = 1000
_FETCH_SIZE = 1000
# Rows that were refused are read again after this time: a later version may know their numbers.
_RETRY = "interval '1 day'"


def _select_opt_out(table: SourceTable) -> list[str]:
    return [cast_column(table, name, "text") for name in ("lead_id", "phone_number")]


#: The staging table of opt-outs.
OPT_OUT_STAGING = Staging(
    table="opt_out_rows",
    columns={"lead_id": "text", "phone_number": "text"},
    select_row=_select_opt_out,
)

_LOCK = text("SELECT pg_advisory_lock(hashtext('leadloop.opt_outs'), hashtext(:campaign))")
_SHORTEN_WAITS = text("SET lock_timeout = '1s'")
# The order of the rows does not count. Each name is qualified: the statement runs with the search
# path of the role.
_DIGEST = """
SELECT pg_catalog.concat_ws(' ', pg_catalog.count(*),
           pg_catalog.sum(pg_catalog.hashtextextended(line, 0)),
           pg_catalog.sum(pg_catalog.hashtextextended(line, 1)))
  FROM (SELECT CAST(ROW({row}) AS pg_catalog.text) COLLATE pg_catalog."C" AS line
          FROM {relation} AS own) AS lines
"""
_IS_UNCHANGED = text(f"""
SELECT EXISTS (SELECT FROM leadloop.opt_out_source_reads
                WHERE campaign_id = :campaign AND failed_at IS NULL
                  AND digest IS NOT DISTINCT FROM CAST(:digest AS text))
   AND NOT EXISTS (SELECT FROM leadloop.opt_out_source_rows
                    WHERE campaign_id = :campaign AND reason IS NOT NULL
                      AND read_at < clock_timestamp() - {_RETRY})
""")

# A number's entry depends on the region: in another one it may be another number.
_STAGE_CHANGES = tuple(
    text(statement)
    for statement in (
        """
CREATE TEMPORARY TABLE opt_out_entries (entry bytea PRIMARY KEY, lead_id text, phone_number text)
""",
        # An id that is too long is refused by its row; an index refuses it, and all others with it.
        f"""
INSERT INTO pg_temp.opt_out_entries
SELECT DISTINCT ON (entry) entry, lead_id, phone_number
  FROM (SELECT sha256(convert_to('lead ' || lead_id, 'UTF8')) AS entry,
               left(lead_id, {MAX_LEAD_ID_LENGTH} + 1) AS lead_id,
               CAST(NULL AS text) AS phone_number
          FROM pg_temp.opt_out_rows WHERE lead_id <> ''
        UNION ALL
        SELECT sha256((SELECT key FROM leadloop.number_key)
                      || convert_to('number ' || :region || ' ' || phone_number, 'UTF8')),
               NULL, phone_number
          FROM pg_temp.opt_out_rows WHERE phone_number <> ''
        UNION ALL
        SELECT sha256('nobody'), NULL, NULL FROM pg_temp.opt_out_rows
         WHERE coalesce(lead_id, '') = '' AND coalesce(phone_number, '') = '') AS entries
 ORDER BY entry
""",
        "ANALYZE pg_temp.opt_out_entries",
        """
CREATE TEMPORARY TABLE opt_out_changes (
    place bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, entry bytea NOT NULL, lead_id text,
    phone_number text, e164 text, number_key bytea
)
""",
        f"""
INSERT INTO pg_temp.opt_out_changes (entry, lead_id, phone_number)
SELECT entry, lead_id, phone_number FROM pg_temp.opt_out_entries AS entries
 WHERE NOT EXISTS (SELECT FROM leadloop.opt_out_source_rows AS known
                    WHERE known.campaign_id = :campaign AND known.entry = entries.entry
                      AND (known.reason IS NULL
                           OR known.read_at >= clock_timestamp() - {_RETRY}))
 ORDER BY lead_id, entry
""",
        "CREATE INDEX ON pg_temp.opt_out_changes (lead_id)",
    )
)
_LIST_CHANGES = text(f"""
SELECT place, lead_id, left(phone_number, {MAX_NUMBER_LENGTH} + 1) AS phone_number
  FROM pg_temp.opt_out_changes WHERE place > :after ORDER BY place LIMIT {_CHUNK_ROWS}
""")


# A lead that is unknown here was never sent, so its opt-out is cancelled at once: a source may name
# many people who are no leads of the campaign, and the vendor does not know them. While creates are
# held, the vendor may hold any lead. An id that differs from a lead's only in its notation is
# marked (`names_no_lead`), and is a problem.
def _is_in(alias: str, *tables: str) -> str:
    return " OR ".join(
        f"""EXISTS (SELECT FROM leadloop.{table} AS known
                WHERE known.campaign_id = :campaign AND known.lead_id = {alias}.lead_id)"""
        for table in tables
    )


def is_held_by_vendor(alias: str) -> str:
    """Return SQL: the vendor has the lead of a row with this alias, also if it has no row here."""
    return f"({_is_in(alias, 'sent_leads', 'lead_outcomes', 'outreach_attempts')})"


_HAS_LEAD = f"({_is_in('given', 'leads')} OR {is_held_by_vendor('given')})"
_IS_KNOWN = f"({_HAS_LEAD} OR {IS_HELD} IS TRUE)"
_IS_MISSPELT = """(EXISTS (SELECT FROM leadloop.leads AS lead
             WHERE lead.campaign_id = :campaign AND lead.lead_id = FOLDED(given.lead_id))
     OR EXISTS (SELECT FROM leadloop.leads AS lead
                 WHERE lead.campaign_id = :campaign AND lead.lead_id <> FOLDED(lead.lead_id)
                   AND FOLDED(lead.lead_id) = FOLDED(given.lead_id)))"""
_OPT_OUT = text(
    expand_macros(f"""
INSERT INTO leadloop.disable_requests
       (campaign_id, lead_id, reason, origin, status, confirmed_at, names_no_lead)
SELECT :campaign, given.lead_id, :reason, '{ORIGIN}',
       CASE WHEN given.is_known THEN 'requested' ELSE 'cancelled' END,
       CASE WHEN NOT given.is_known THEN now() END,
       CASE WHEN given.is_known THEN false ELSE {_IS_MISSPELT} END
  FROM (SELECT given.lead_id, {_IS_KNOWN} AS is_known
          FROM unnest(CAST(:ids AS text[])) AS given (lead_id) OFFSET 0) AS given
 ORDER BY given.lead_id
ON CONFLICT DO NOTHING
""")
)
# In a later transaction than `_OPT_OUT`: a lead may have been inserted and claimed before that
# committed, when neither saw the other. A lead that comes from now on sees its opt-out. Leads are
# locked before opt-outs, hence ARRAY.
_IS_SENT = """(lead.status IN ('sending', 'created', 'in_doubt')
        OR lead.status = 'rejected' AND lead.sent_at IS NOT NULL)"""
_REQUEST_SENT = text(f"""
WITH missed AS (
    SELECT lead.lead_id, lead.opted_out, {_IS_SENT} AS is_sent
      FROM leadloop.leads AS lead
      JOIN leadloop.disable_requests AS d USING (campaign_id, lead_id)
     WHERE lead.campaign_id = :campaign AND lead.lead_id = ANY(:ids)
       AND (NOT lead.opted_out
            OR d.origin = '{ORIGIN}' AND d.status = 'cancelled' AND {_IS_SENT})
     ORDER BY lead.lead_id
       FOR NO KEY UPDATE OF lead
), marked AS (
    UPDATE leadloop.leads AS lead SET opted_out = true
      FROM missed
     WHERE lead.campaign_id = :campaign AND lead.lead_id = missed.lead_id AND NOT missed.opted_out
), given AS (
    SELECT lead_id FROM unnest(CAST(:ids AS text[])) AS given (lead_id)
)
UPDATE leadloop.disable_requests AS d
   SET status = 'requested', confirmed_at = NULL, tries = 0, last_error = NULL
  FROM given
 WHERE d.campaign_id = :campaign AND d.lead_id = given.lead_id
   AND d.origin = '{ORIGIN}' AND d.status = 'cancelled'
   AND (d.lead_id = ANY(ARRAY(SELECT lead_id FROM missed WHERE is_sent))
        OR NOT EXISTS (SELECT FROM leadloop.leads AS lead
                        WHERE lead.campaign_id = :campaign AND lead.lead_id = given.lead_id)
           AND {is_held_by_vendor("given")})
""")
# Those of rows that were read during a hold that has ended since: others without a lead may be of
# leads that were sent, and whose rows were deleted.
_CANCEL_STRANGERS = text(
    expand_macros(f"""
WITH given AS (
    SELECT given.lead_id
      FROM leadloop.disable_requests AS given
     WHERE given.campaign_id = :campaign AND given.status IN ('requested', 'failed')
       AND given.origin = '{ORIGIN}' AND given.sent_at IS NULL AND NOT {_HAS_LEAD}
       AND EXISTS (SELECT FROM leadloop.create_holds AS hold
                    WHERE hold.campaign_id = :campaign
                      AND given.requested_at BETWEEN hold.held_at AND hold.released_at)
       AND {IS_HELD} IS NOT TRUE
     ORDER BY given.lead_id
       FOR UPDATE
)
UPDATE leadloop.disable_requests AS d
   SET status = 'cancelled', confirmed_at = clock_timestamp(), next_try_at = NULL,
       names_no_lead = {_IS_MISSPELT}
  FROM given
 WHERE d.campaign_id = :campaign AND d.lead_id = given.lead_id
""")
)
_SUPPRESS = text(f"""
INSERT INTO leadloop.suppressed_numbers (number_key, campaign_id, lead_id)
SELECT DISTINCT number_key, :campaign, '{NO_LEAD}'
  FROM unnest(CAST(:keys AS bytea[])) AS given (number_key) ORDER BY number_key
ON CONFLICT DO NOTHING
""")
_NOTE_NUMBERS = text("""
UPDATE pg_temp.opt_out_changes AS change SET e164 = given.e164, number_key = given.number_key
  FROM unnest(CAST(:places AS bigint[]), CAST(:numbers AS text[]), CAST(:keys AS bytea[]))
       AS given (place, e164, number_key)
 WHERE change.place = given.place
""")
_REMEMBER = """
INSERT INTO leadloop.opt_out_source_rows (campaign_id, entry, reason)
SELECT :campaign, change.entry, {reason} FROM pg_temp.opt_out_changes AS change {rows}
 ORDER BY change.entry
ON CONFLICT (campaign_id, entry)
   DO UPDATE SET reason = excluded.reason, read_at = excluded.read_at
"""
_REMEMBER_READ = text(
    _REMEMBER.format(
        reason="given.reason",
        rows="JOIN unnest(CAST(:places AS bigint[]), CAST(:reasons AS text[]))"
        " AS given (place, reason) USING (place)",
    )
)
_REMEMBER_NUMBERS = text(
    _REMEMBER.format(reason="NULL", rows="WHERE change.number_key IS NOT NULL")
)

# Only Python reads a number (`leadloop.core.phones`). This leaves out leads whose number is another
# one without doubt: in E.164 of North America, or of digits and separators with another end. A
# number with other characters, or one that may be a float, may have any digits.
_MAY_HAVE_NUMBER = r"""CASE
       WHEN lead.phone_number ~ '^[+]1[2-9][0-9]{9}$'
       THEN lead.phone_number IN (SELECT e164 FROM pg_temp.opt_out_changes)
       WHEN lead.phone_number ~ '^[0-9+ ()./-]+$'
            AND lead.phone_number !~ '^[^0-9]*[0-9]+[.][0-9]+[^0-9]*$'
       THEN right(translate(lead.phone_number, '+ ()./-', ''), 4)
            IN (SELECT right(e164, 4) FROM pg_temp.opt_out_changes)
       ELSE lead.phone_number IS NOT NULL END"""
_LIST_CANDIDATES = text(f"""
SELECT lead.lead_id, left(lead.phone_number, {MAX_NUMBER_LENGTH} + 1) AS phone_number
  FROM leadloop.leads AS lead
 WHERE lead.campaign_id = :campaign AND NOT lead.opted_out AND {_MAY_HAVE_NUMBER}
""")
_NUMBER_KEYS = text("""
SELECT number_key FROM pg_temp.opt_out_changes WHERE number_key IS NOT NULL
""")

_COUNT_SENT = text("""
SELECT count(*) FROM leadloop.leads AS lead
 WHERE lead.campaign_id = :campaign AND NOT lead.opted_out
   AND (lead.status IN ('sending', 'created', 'in_doubt')
        OR lead.status = 'rejected' AND lead.sent_at IS NOT NULL)
   AND (lead.lead_id = ANY(:ids)
        OR EXISTS (SELECT FROM pg_temp.opt_out_changes AS change
                    WHERE change.lead_id = lead.lead_id))
""")

_FORGET_VANISHED = text("""
DELETE FROM leadloop.opt_out_source_rows AS known
 WHERE known.campaign_id = :campaign
   AND NOT EXISTS (SELECT FROM pg_temp.opt_out_entries AS entries
                    WHERE entries.entry = known.entry)
""")
# After a restore, opt-outs may be missing whose entries are remembered. An entry of a lead id shows
# whether its opt-out is there. One of a number does not, as its text is not kept: it counts again,
# which changes nothing where the number is suppressed. An entry that a later opt-in has overruled
# stays; its number is known if the row has the text of the lead's.
_LIST_CAMPAIGNS = text("""
SELECT campaign_id FROM leadloop.campaigns WHERE opt_out_source IS NOT NULL
 UNION SELECT campaign_id FROM leadloop.opt_out_source_reads ORDER BY campaign_id
""")
_LOCK_SHORTLY = text(
    "SELECT pg_advisory_xact_lock(hashtext('leadloop.opt_outs'), hashtext(:campaign))"
)
_ENTRY_OF_LEAD = "sha256(convert_to('lead ' || {}.lead_id, 'UTF8'))"
_FORGET_UNFOUNDED = text(f"""
DELETE FROM leadloop.opt_out_source_rows AS known
 WHERE known.reason IS NULL
   AND NOT EXISTS (SELECT FROM leadloop.disable_requests AS d
                    WHERE d.campaign_id = known.campaign_id
                      AND {_ENTRY_OF_LEAD.format("d")} = known.entry)
   AND NOT EXISTS (SELECT FROM leadloop.opt_ins AS opt_in
                    WHERE opt_in.campaign_id = known.campaign_id
                      AND opt_in.opted_in_at >= known.read_at
                      AND {_ENTRY_OF_LEAD.format("opt_in")} = known.entry)
   AND NOT EXISTS (SELECT FROM leadloop.opt_ins AS opt_in
                     JOIN leadloop.leads AS lead USING (campaign_id, lead_id)
                     JOIN leadloop.campaigns AS campaign USING (campaign_id)
                    CROSS JOIN leadloop.number_key AS secret
                    WHERE opt_in.campaign_id = known.campaign_id
                      AND opt_in.opted_in_at >= known.read_at
                      AND sha256(secret.key || convert_to(
                              'number ' || coalesce(campaign.default_region, :region) || ' '
                                        || lead.phone_number, 'UTF8')) = known.entry)
""")
_FORGET_DIGESTS = text("UPDATE leadloop.opt_out_source_reads SET digest = NULL")
# Written only where something has changed.
_RECORD_READ = text("""
INSERT INTO leadloop.opt_out_source_reads AS read (campaign_id, digest, unreadable)
VALUES (:campaign, :digest, :unreadable)
ON CONFLICT (campaign_id) DO UPDATE
   SET digest = excluded.digest, unreadable = excluded.unreadable, read_at = excluded.read_at,
       failed_at = NULL, error = NULL
 WHERE (read.digest, read.unreadable, read.failed_at)
       IS DISTINCT FROM (excluded.digest, excluded.unreadable, NULL)
""")
_RECORD_FAILURE = text("""
INSERT INTO leadloop.opt_out_source_reads AS read (campaign_id, read_at, failed_at, error)
VALUES (:campaign, NULL, clock_timestamp(), :error)
ON CONFLICT (campaign_id) DO UPDATE
   SET failed_at = coalesce(read.failed_at, excluded.failed_at), error = excluded.error
 WHERE (read.failed_at IS NOT NULL, read.error) IS DISTINCT FROM (true, excluded.error)
""")
_COUNT_UNREADABLE = text("""
SELECT coalesce((SELECT unreadable FROM leadloop.opt_out_source_reads
                  WHERE campaign_id = :campaign), 0)
""")
_LIST_REFUSED = text("""
SELECT reason, count(*) AS amount FROM leadloop.opt_out_source_rows
 WHERE campaign_id = :campaign AND reason IS NOT NULL GROUP BY reason ORDER BY 2 DESC, 1
""")


@dataclass(frozen=True, kw_only=True)
class OptOutEntry:
    """A new entry of an opt-out source: a lead id, a phone number, or neither.

    `place` is its place among the changes.
    """

    place: int
    lead_id: str | None
    phone_number: str | None

    def __repr__(self) -> str:
        """Return the place only: a number must not get into a traceback."""
        return f"OptOutEntry({self.place})"


@dataclass(frozen=True, kw_only=True)
class LeadNumber:
    """A lead and its phone number, as its row has it."""

    lead_id: str
    phone_number: str

    def __repr__(self) -> str:
        """Return the id only: a number must not get into a traceback."""
        return f"LeadNumber({self.lead_id!r})"


def lock_opt_out_source(connection: Connection, campaign_id: str) -> None:
    """Take the campaign's advisory lock for reads of opt-outs until the connection ends.

    Of two concurrent reads, the one with the older rows could write last.
    """
    with connection.begin():
        connection.execute(_LOCK, {"campaign": campaign_id})


def read_digest(
    reader: Database, source: NamedSource, table: SourceTable, region: str
) -> str | None:
    """Return a digest of all that counts in an opt-out source; None if rows cannot be read.

    Args:
        reader: the database, opened with the login that reads sources.
        source: the source.
        table: what it is (`db.source.inspect_source`).
        region: the region of its phone numbers.

    Raises:
        SourceError: the source cannot be read.
    """
    query = _DIGEST.format(row=", ".join(_select_opt_out(table)), relation=table.relation)
    with translate_errors(source):
        try:
            with open_reader_transaction(reader, source) as connection:
                # SQLAlchemy would take `:x` in a name for a parameter.
                digest = connection.scalar(text(query.replace(":", r"\:")))
        except DatabaseError as error:
            if not is_data_error(error.sqlstate):
                raise
            return None
    return f"{table.relation} {region} {digest}"


def read_staged_digest(connection: Connection, table: SourceTable, region: str) -> str:
    """Return the digest of the rows that were staged.

    It differs from that of the source where the source changed in between, or another server
    answered.
    """
    query = _DIGEST.format(
        row=", ".join(OPT_OUT_STAGING.columns), relation=f"pg_temp.{OPT_OUT_STAGING.table}"
    )
    return f"{table.relation} {region} {connection.scalar(text(query))}"


def counts_no_row(digest: str | None) -> bool:
    """Return whether a digest is that of a source without a row: a count, and no sum."""
    return digest is not None and digest.endswith(" 0")


def is_unchanged(connection: Connection, campaign_id: str, digest: str | None) -> bool:
    """Return whether the last read has applied rows of this digest, and none is due again."""
    parameters = {"campaign": campaign_id, "digest": digest}
    return bool(connection.scalar(_IS_UNCHANGED, parameters))


def stage_changes(connection: Connection, campaign_id: str, region: str) -> None:
    """Compare the staged rows with the entries of the last read; stage those that are new.

    `region` is that of phone numbers without a country code.
    """
    with connection.begin():
        for statement in _STAGE_CHANGES:
            connection.execute(statement, {"campaign": campaign_id, "region": region})


def list_changes(connection: Connection, after: int) -> list[OptOutEntry]:
    """Return the next new entries behind a place; empty at their end."""
    rows = connection.execute(_LIST_CHANGES, {"after": after})
    return [OptOutEntry(**row._mapping) for row in rows]


def note_numbers(connection: Connection, numbers: Mapping[int, tuple[str, bytes]]) -> None:
    """Note the numbers of new entries, by place: in E.164, and their suppression hashes."""
    parameters = {
        "places": list(numbers),
        "numbers": [e164 for e164, _ in numbers.values()],
        "keys": [number_key for _, number_key in numbers.values()],
    }
    connection.execute(_NOTE_NUMBERS, parameters)


def suppress_numbers(
    connection: Connection, campaign_id: str, number_keys: Sequence[bytes]
) -> None:
    """Suppress numbers, by their hashes: no lead with one of them is sent any more."""
    connection.execute(_SUPPRESS, {"campaign": campaign_id, "keys": list(number_keys)})


def opt_out_leads(
    connection: Connection, campaign_id: str, lead_ids: Sequence[str], reason: str
) -> int:
    """Insert opt-outs of leads, also of leads that are still to come; idempotent.

    Returns the number of new ones.
    """
    parameters = {"campaign": campaign_id, "ids": list(lead_ids), "reason": reason}
    return connection.execute(_OPT_OUT, parameters).rowcount


def request_sent(connection: Connection, campaign_id: str, lead_ids: Sequence[str]) -> None:
    """Request opt-outs again whose leads were sent while `opt_out_leads` inserted them; idempotent.

    That took them for strangers. An opt-out that was cancelled with a lead that was never sent
    stays cancelled.

    Args:
        connection: a later transaction than that of `opt_out_leads`.
        campaign_id: the campaign.
        lead_ids: the leads.
    """
    connection.execute(_REQUEST_SENT, {"campaign": campaign_id, "ids": list(lead_ids)})


def cancel_strangers(connection: Connection, campaign_id: str) -> int:
    """Cancel opt-outs of rows that were read while creates were held, if no lead has become known.

    Those that were sent to the vendor stay as they are. Returns the number of cancelled ones.
    """
    return connection.execute(_CANCEL_STRANGERS, {"campaign": campaign_id}).rowcount


def shorten_lock_waits(connection: Connection) -> None:
    """Let later transactions of the connection wait a second for a lock.

    After a lock timeout: of many chunks with a locked lead, each would wait as long.
    """
    with connection.begin():
        connection.execute(_SHORTEN_WAITS)


def remember_entries(
    connection: Connection, campaign_id: str, reasons: Mapping[int, str | None]
) -> None:
    """Remember new entries as read, by place; with the reason of one that was refused."""
    parameters = {"places": list(reasons), "reasons": list(reasons.values())}
    connection.execute(_REMEMBER_READ, {"campaign": campaign_id, **parameters})


def remember_numbers(connection: Connection, campaign_id: str) -> None:
    """Remember the new entries whose numbers were noted as read."""
    connection.execute(_REMEMBER_NUMBERS, {"campaign": campaign_id})


def list_number_keys(connection: Connection) -> set[bytes]:
    """Return the suppression hashes of the numbers that were noted."""
    return {bytes(number_key) for number_key in connection.scalars(_NUMBER_KEYS)}


def iter_candidates(connection: Connection, campaign_id: str) -> Iterator[LeadNumber]:
    """Stream the leads that have not opted out and may have one of the numbers that were noted.

    Every lead with such a number is among them, and few others are.
    """
    streaming = {"yield_per": _FETCH_SIZE}
    rows = connection.execute(
        _LIST_CANDIDATES, {"campaign": campaign_id}, execution_options=streaming
    )
    for row in rows:
        yield LeadNumber(**row._mapping)


def count_sent(connection: Connection, campaign_id: str, lead_ids: Sequence[str]) -> int:
    """Return how many sent leads have not opted out, of these and those of new entries."""
    parameters = {"campaign": campaign_id, "ids": list(lead_ids)}
    count: int = connection.execute(_COUNT_SENT, parameters).scalar_one()
    return count


def forget_vanished(connection: Connection, campaign_id: str) -> int:
    """Forget entries whose rows are gone: one that comes back is new. Returns their number."""
    return connection.execute(_FORGET_VANISHED, {"campaign": campaign_id}).rowcount


def forget_unfounded(connection: Connection, *, region: str) -> None:
    """Have opt-outs that a restore has lost taken again, in all campaigns; idempotent.

    Each row that stands in an opt-out source and has no opt-out counts again, unless its lead has
    opted in since. In doubt it counts.

    Args:
        connection: a transaction; waits for reads of opt-out sources, which would write last.
        region: the default region of phone numbers.
    """
    for campaign_id in connection.scalars(_LIST_CAMPAIGNS).all():
        connection.execute(_LOCK_SHORTLY, {"campaign": campaign_id})
    connection.execute(_FORGET_UNFOUNDED, {"region": region})
    connection.execute(_FORGET_DIGESTS)


def record_read(
    connection: Connection, campaign_id: str, *, digest: str | None, unreadable: int
) -> None:
    """Record that a source was read and applied; writes only what has changed.

    Args:
        connection: a transaction.
        campaign_id: the campaign.
        digest: of the rows that were applied (`read_digest`).
        unreadable: the rows that could not be read at all.
    """
    parameters = {"campaign": campaign_id, "digest": digest, "unreadable": unreadable}
    connection.execute(_RECORD_READ, parameters)


def record_read_failure(connection: Connection, campaign_id: str, error: str) -> None:
    """Record that a source cannot be read; writes only what has changed."""
    connection.execute(_RECORD_FAILURE, {"campaign": campaign_id, "error": error})


def count_unreadable(connection: Connection, campaign_id: str) -> int:
    """Return how many rows the last read could not read at all."""
    count: int = connection.execute(_COUNT_UNREADABLE, {"campaign": campaign_id}).scalar_one()
    return count


def list_refused(connection: Connection, campaign_id: str) -> dict[str, int]:
    """Return the number of rows that stand in the source and were refused, by reason."""
    rows = connection.execute(_LIST_REFUSED, {"campaign": campaign_id})
    return {row.reason: row.amount for row in rows}
