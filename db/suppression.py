"""Phone numbers that opted out: noted from the leads that did, and looked up before a send.

Only Python can tell how a number is written in E.164, so the triggers that write an opt-out on its
lead cannot note the number too: whoever is about to send does, first of all.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

_KEY = text("SELECT key FROM leadloop.number_key")
_LOOK = text("""
SELECT ARRAY(SELECT number_key FROM leadloop.suppressed_numbers WHERE number_key = ANY(:keys))
           AS suppressed,
       EXISTS (SELECT FROM leadloop.leads WHERE opted_out AND NOT number_noted) AS some_to_note
""")
_TO_NOTE = text("""
SELECT lead.campaign_id, lead.lead_id, lead.phone_number,
       coalesce(campaign.default_region, :region) AS region
  FROM leadloop.leads AS lead LEFT JOIN leadloop.campaigns AS campaign USING (campaign_id)
 WHERE lead.opted_out AND NOT lead.number_noted
 ORDER BY lead.campaign_id, lead.lead_id LIMIT :most
""")
# What the vendor tells of a lead has its number too, and of some leads nothing else has.
_NUMBERS = text("""
SELECT :campaign AS campaign_id, told.*, CAST(:region AS text) AS region
  FROM (SELECT lead_id, phone_number FROM leadloop.leads
         WHERE campaign_id = :campaign AND lead_id = ANY(:ids)
         UNION
        SELECT lead_id, raw ->> 'phone_number' FROM leadloop.lead_outcomes
         WHERE campaign_id = :campaign AND lead_id = ANY(:ids)
         UNION
        SELECT raw ->> 'lead_id', raw ->> 'phone_number' FROM leadloop.unreadable_results
         WHERE campaign_id = :campaign AND raw ->> 'lead_id' = ANY(:ids)) AS told
""")
_NOTE = text("""
WITH noted (campaign_id, lead_id, number_key) AS (
    SELECT * FROM unnest(CAST(:campaigns AS text[]), CAST(:ids AS text[]), CAST(:keys AS bytea[]))
), suppressed AS (
    INSERT INTO leadloop.suppressed_numbers (number_key, campaign_id, lead_id)
    SELECT DISTINCT ON (number_key) number_key, campaign_id, lead_id
      FROM noted WHERE number_key IS NOT NULL ORDER BY number_key, campaign_id, lead_id
    ON CONFLICT DO NOTHING
)
UPDATE leadloop.leads AS lead SET number_noted = true FROM noted
 WHERE lead.campaign_id = noted.campaign_id AND lead.lead_id = noted.lead_id
""")


@dataclass(frozen=True, kw_only=True)
class OptedOutNumber:
    """A lead that opted out, and a number of it that is yet to be noted; `region` reads it."""

    campaign_id: str
    lead_id: str
    phone_number: str | None
    region: str

    def __repr__(self) -> str:
        """The ids alone: a number must not get into a traceback."""
        return f"OptedOut({self.campaign_id!r}, {self.lead_id!r})"


def get_hash_key(connection: Connection) -> bytes:
    """The secret under which numbers are hashed."""
    return bytes(connection.execute(_KEY).scalar_one())


def find_suppressed(connection: Connection, keys: Sequence[bytes]) -> tuple[set[bytes], bool]:
    """Which of these numbers have opted out, and whether there are opt-outs yet to be noted."""
    row = connection.execute(_LOOK, {"keys": list(keys)}).one()
    return {bytes(number_key) for number_key in row.suppressed}, row.some_to_note


def list_unindexed(connection: Connection, *, region: str, limit: int) -> list[OptedOutNumber]:
    """Leads that opted out and whose numbers are yet to be noted; `region` is the default."""
    rows = connection.execute(_TO_NOTE, {"region": region, "most": limit})
    return [OptedOutNumber(**row._mapping) for row in rows]


def list_known_numbers(
    connection: Connection, campaign_id: str, lead_ids: Sequence[str], *, region: str
) -> list[OptedOutNumber]:
    """All numbers that are known of leads that are about to opt out; `region` is their campaign's.

    A lead has none, or one, or several: what the vendor tells may differ from what it was given.
    """
    parameters = {"campaign": campaign_id, "ids": list(lead_ids), "region": region}
    rows = connection.execute(_NUMBERS, parameters)
    return [OptedOutNumber(**row._mapping) for row in rows]


def iter_unindexed(connection: Connection, *, region: str) -> Iterator[OptedOutNumber]:
    """All of them, one after the other."""
    values = {"region": region, "most": None}
    for row in connection.execute(_TO_NOTE, values, execution_options={"yield_per": 1000}):
        yield OptedOutNumber(**row._mapping)


def index_numbers(
    connection: Connection, keys: Sequence[tuple[OptedOutNumber, bytes | None]]
) -> None:
    """Suppress the numbers of leads, each under its key; None where it is none to call."""
    parameters: dict[str, Any] = {
        "campaigns": [lead.campaign_id for lead, _ in keys],
        "ids": [lead.lead_id for lead, _ in keys],
        "keys": [number_key for _, number_key in keys],
    }
    connection.execute(_NOTE, parameters)
