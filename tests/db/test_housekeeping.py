"""Raw answers, emptied in portions."""

import pytest

from db import housekeeping
from db.database import Database
from tests import sql
from tests.factories import CAMPAIGN

_LEADS = 4000
# Old and young ones in turn, and whole portions of young ones.
_OUTCOMES = f"""
INSERT INTO leadloop.lead_outcomes (campaign_id, lead_id, processed_at, raw, updated_at)
SELECT '{CAMPAIGN}', lpad(CAST(n AS text), 5, '0'), now(), '{{"a"\\: 1}}',
       now() - CASE WHEN n % 1000 > 500 AND n % 2 = 0
                    THEN interval '1 year' ELSE interval '1 day' END
  FROM generate_series(1, {_LEADS}) AS n
"""
_READ = """
SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'lead_outcomes'
"""


def test_a_campaign_is_gone_through_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many portions it takes, no row is looked at again for each of them."""
    sql.execute(database, _OUTCOMES)
    sql.execute(database, "ANALYZE leadloop.lead_outcomes")
    monkeypatch.setattr(housekeeping, "CHUNK_SIZE", 50)
    gone, after = 0, ""
    with database.transaction() as connection:
        while True:
            done = housekeeping.RAW["raw"](connection, CAMPAIGN, 30, after)
            gone += done.rows
            if done.resume_after is None:
                break
            after = done.resume_after
        read = connection.exec_driver_sql(_READ).scalar_one()
    assert gone == 996
    young = "SELECT count(*) FROM leadloop.lead_outcomes WHERE raw <> '{}'"
    assert sql.fetch_value(database, young) == _LEADS - gone
    assert read < 5 * _LEADS
