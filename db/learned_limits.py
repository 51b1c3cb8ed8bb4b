"""Learned limits: what the vendor was seen to refuse of a campaign, tried again once a day."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, text

#: The time after which a larger value is tried again, seconds.
TRIED_AGAIN_AFTER_S = 86_400

_GET = text("""
SELECT name, value, learned_at < clock_timestamp() - make_interval(secs => :seconds) AS is_stale
  FROM leadloop.learned_limits WHERE campaign_id = :campaign
""")
_RECORD = text("""
INSERT INTO leadloop.learned_limits (campaign_id, name, value) VALUES (:campaign, :name, :value)
ON CONFLICT (campaign_id, name) DO UPDATE
   SET value = excluded.value, learned_at = clock_timestamp()
""")
_DELETE = text("""
DELETE FROM leadloop.learned_limits WHERE campaign_id = :campaign AND name = :name
""")


@dataclass(frozen=True, kw_only=True)
class LearnedLimit:
    """The largest value that succeeded; `is_stale`: a larger one is due for a trial."""

    value: int
    is_stale: bool


def get_learned_limits(connection: Connection, campaign_id: str) -> Mapping[str, LearnedLimit]:
    """Return a campaign's learned limits by name."""
    parameters = {"campaign": campaign_id, "seconds": TRIED_AGAIN_AFTER_S}
    return {
        row.name: LearnedLimit(value=row.value, is_stale=row.is_stale)
        for row in connection.execute(_GET, parameters)
    }


def record_learned_limit(
    connection: Connection, campaign_id: str, name: str, value: int | None
) -> None:
    """Record a limit that was just seen to hold; None: a larger value succeeded, so forget it."""
    statement = _DELETE if value is None else _RECORD
    connection.execute(statement, {"campaign": campaign_id, "name": name, "value": value})
