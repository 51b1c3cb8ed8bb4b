"""The parameters of `poll-outcomes` and `backfill-outcomes` that cannot be meant."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from db.database import Database
from flows.poll import backfill_outcomes, poll_outcomes
from leadloop.core.errors import UsageError
from tests import factories, sql

pytestmark = pytest.mark.usefixtures("prefect", "environment")


@pytest.mark.parametrize(
    ("since", "words"),
    [
        (datetime(2020, 1, 1), "`since` has no offset"),
        (datetime(2100, 1, 1, tzinfo=UTC), "`since` is still to come"),
        (datetime(9999, 1, 1, tzinfo=UTC), "`since` is out of range: the years 1900 to 2100"),
        (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5))), "`since` is out of range"),
        (datetime(1970, 1, 20, 12, tzinfo=UTC), "`since` is in the first weeks of 1970"),
    ],
)
def test_a_since_that_cannot_be_meant(database: Database, since: datetime, words: str) -> None:
    """It is rejected with one line, and nothing is written."""
    factories.add_campaign(database)
    with pytest.raises(UsageError, match=words):
        poll_outcomes(since=since)
    for table in ("watermarks", "sync_runs"):
        assert sql.fetch_rows(database, f"SELECT 1 FROM leadloop.{table}") == []


def test_bounds_that_cannot_be_meant() -> None:
    """A backfill rejects them likewise."""
    naive, aware = datetime(2020, 1, 1), datetime.now(UTC)
    with pytest.raises(UsageError, match="`after` is still to come"):
        backfill_outcomes(after=aware + timedelta(days=1), before=aware + timedelta(days=2))
    with pytest.raises(UsageError, match="`after` is in the first weeks of 1970"):
        backfill_outcomes(after=datetime(1970, 1, 20, tzinfo=UTC), before=aware)
    with pytest.raises(UsageError, match="`before` is out of range"):
        backfill_outcomes(after=aware, before=datetime(5138, 1, 1, tzinfo=UTC))
    with pytest.raises(UsageError, match="`after` has no offset"):
        backfill_outcomes(after=naive, before=aware)
    with pytest.raises(UsageError, match="`before` has no offset"):
        backfill_outcomes(after=aware, before=naive)
