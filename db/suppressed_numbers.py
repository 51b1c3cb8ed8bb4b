"""The index of suppressed phone numbers: numbers of opted-out leads, hashed, checked before a send.

A number is normalised to E.164 in Python, so the triggers that mark opted-out leads cannot index
their numbers. A push indexes them before it sends.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from db.erasure import LEAD_ID_OF_RAW
from db.opt_out_source import NO_LEAD
from leadloop.core.phones import REGIONS, hash_raw_number

#: The most opted-out leads whose numbers one transaction indexes.
INDEX_LIMIT = 1000

_REGIONS = sorted(REGIONS)
_KEY = text("SELECT key FROM leadloop.number_key")
# A number of a campaign whose region is wrong is indexed when the region is corrected, unless it
# has a country code: a plus, of any width, before its digits.
_CAN_BE_READ = r"""(coalesce(campaign.default_region, :region) = ANY(:regions)
        OR lead.phone_number ~ '^\D*[+\u207a\u208a\ufe62\uff0b]')"""
# ORDER BY forces the index of unindexed leads. The planner takes the two columns for independent,
# expects thousands of such leads, and would search all leads for the first one, for each batch.
_FIND_SUPPRESSED = text(f"""
SELECT ARRAY(SELECT number_key FROM leadloop.suppressed_numbers WHERE number_key = ANY(:keys))
           AS suppressed,
       (SELECT lead.lead_id
          FROM leadloop.leads AS lead LEFT JOIN leadloop.campaigns AS campaign USING (campaign_id)
         WHERE lead.opted_out AND NOT lead.number_noted
           AND {_CAN_BE_READ}
         ORDER BY lead.campaign_id, lead.lead_id LIMIT 1) IS NOT NULL AS any_unindexed
""")
_FIND_NAMED = text(f"""
SELECT number_key FROM leadloop.suppressed_numbers
 WHERE number_key = ANY(:keys) AND campaign_id = :campaign AND lead_id = '{NO_LEAD}'
""")
_SELECT_UNINDEXED = f"""
SELECT lead.campaign_id, lead.lead_id, lead.phone_number,
       coalesce(campaign.default_region, :region) AS region
  FROM leadloop.leads AS lead LEFT JOIN leadloop.campaigns AS campaign USING (campaign_id)
 WHERE lead.opted_out AND NOT lead.number_noted
   AND {_CAN_BE_READ}
 ORDER BY lead.campaign_id, lead.lead_id LIMIT :limit
"""
_UNINDEXED = text(_SELECT_UNINDEXED)
# Locked until the number is indexed: a lead that opts in meanwhile would stay suppressed.
_LOCK_UNINDEXED = text(f"{_SELECT_UNINDEXED} FOR NO KEY UPDATE OF lead")
# The vendor's results contain the number too; for some leads they are the only source.
_KNOWN_NUMBERS = text(f"""
SELECT :campaign AS campaign_id, known.*, CAST(:region AS text) AS region
  FROM (SELECT lead_id, phone_number FROM leadloop.leads
         WHERE campaign_id = :campaign AND lead_id = ANY(:ids)
         UNION
        SELECT lead_id, raw ->> 'phone_number' FROM leadloop.lead_outcomes
         WHERE campaign_id = :campaign AND lead_id = ANY(:ids)
         UNION
        SELECT {LEAD_ID_OF_RAW}, raw ->> 'phone_number' FROM leadloop.unreadable_results
         WHERE campaign_id = :campaign AND {LEAD_ID_OF_RAW} = ANY(:ids)) AS known
""")
_INDEX_NUMBERS = text("""
WITH indexed (campaign_id, lead_id, number_key) AS (
    SELECT * FROM unnest(CAST(:campaigns AS text[]), CAST(:ids AS text[]), CAST(:keys AS bytea[]))
), suppressed AS (
    INSERT INTO leadloop.suppressed_numbers (number_key, campaign_id, lead_id)
    SELECT DISTINCT number_key, campaign_id, lead_id
      FROM indexed WHERE number_key IS NOT NULL ORDER BY number_key, campaign_id, lead_id
    ON CONFLICT DO NOTHING
)
UPDATE leadloop.leads AS lead SET number_noted = true FROM indexed
 WHERE lead.campaign_id = indexed.campaign_id AND lead.lead_id = indexed.lead_id
""")


@dataclass(frozen=True, kw_only=True)
class OptedOutNumber:
    """An opted-out lead and one of its numbers, not indexed yet; `region` is for parsing it."""

    campaign_id: str
    lead_id: str
    phone_number: str | None
    region: str

    def __repr__(self) -> str:
        """Return the ids only: a number must not get into a traceback."""
        return f"OptedOutNumber({self.campaign_id!r}, {self.lead_id!r})"


def get_hash_key(connection: Connection) -> bytes:
    """Return the secret key of the numbers' hash (HMAC)."""
    return bytes(connection.execute(_KEY).scalar_one())


def find_suppressed(
    connection: Connection, keys: Sequence[bytes], *, region: str
) -> tuple[set[bytes], bool]:
    """Look up hashed numbers in the index; `region` is the default region.

    Returns:
        The suppressed ones, and whether any opted-out lead is not indexed yet.
    """
    values = {"keys": list(keys), "region": region, "regions": _REGIONS}
    row = connection.execute(_FIND_SUPPRESSED, values).one()
    return {bytes(number_key) for number_key in row.suppressed}, row.any_unindexed


def find_named(connection: Connection, campaign_id: str, keys: Sequence[bytes]) -> set[bytes]:
    """Return those of the hashed numbers that the campaign's opt-out source has named."""
    rows = connection.scalars(_FIND_NAMED, {"campaign": campaign_id, "keys": list(keys)})
    return {bytes(number_key) for number_key in rows}


def list_unindexed(connection: Connection, *, region: str, limit: int) -> list[OptedOutNumber]:
    """List and lock opted-out leads whose numbers are not indexed yet.

    `region` is the default region.
    """
    values = {"region": region, "regions": _REGIONS, "limit": limit}
    rows = connection.execute(_LOCK_UNINDEXED, values)
    return [OptedOutNumber(**row._mapping) for row in rows]


def list_known_numbers(
    connection: Connection, campaign_id: str, lead_ids: Sequence[str], *, region: str
) -> list[OptedOutNumber]:
    """List all known numbers of leads that are about to opt out; `region` is the campaign's.

    A lead has any count of numbers: the vendor's results may differ from the lead's row.
    """
    parameters = {"campaign": campaign_id, "ids": list(lead_ids), "region": region}
    rows = connection.execute(_KNOWN_NUMBERS, parameters)
    return [OptedOutNumber(**row._mapping) for row in rows]


def iter_unindexed(connection: Connection, *, region: str) -> Iterator[OptedOutNumber]:
    """Stream all opted-out leads whose numbers are not indexed yet."""
    values = {"region": region, "regions": _REGIONS, "limit": None}
    for row in connection.execute(_UNINDEXED, values, execution_options={"yield_per": 1000}):
        yield OptedOutNumber(**row._mapping)


def index_numbers(
    connection: Connection, keys: Sequence[tuple[OptedOutNumber, bytes | None]]
) -> None:
    """Index numbers of opted-out leads by their hashes; None: the number is not callable."""
    parameters: dict[str, Any] = {
        "campaigns": [lead.campaign_id for lead, _ in keys],
        "ids": [lead.lead_id for lead, _ in keys],
        "keys": [number_key for _, number_key in keys],
    }
    connection.execute(_INDEX_NUMBERS, parameters)


def index_opted_out(connection: Connection, *, region: str) -> int:
    """Index the numbers of opted-out leads that are not indexed yet, at most INDEX_LIMIT.

    Args:
        connection: a transaction.
        region: the default region.

    Returns:
        The number of leads.
    """
    secret = get_hash_key(connection)
    found = list_unindexed(connection, region=region, limit=INDEX_LIMIT)
    index_numbers(
        connection,
        [(lead, hash_raw_number(secret, lead.phone_number, lead.region)) for lead in found],
    )
    return len(found)
