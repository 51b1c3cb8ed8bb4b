"""How rows are mapped to what is counted of them."""

import pytest
from sqlalchemy import Connection, text

from db.schema.counting import SPANS, select_counted, spread_spans


@pytest.mark.parametrize(
    ("processed", "seen", "bucket"),
    [
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00.1Z", "0.1"),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:10Z", "10"),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:10.000001Z", "30"),
        ("2026-01-01T00:00:00Z", "2026-01-08T00:00:00Z", "604800"),
        ("2026-01-01T00:00:00Z", "2026-01-08T00:00:01Z", "Infinity"),
        ("2026-01-01T00:00:00Z", "2025-01-01T00:00:00Z", "0.1"),
        ("-infinity", "2026-01-01T00:00:00Z", "Infinity"),
        ("infinity", "infinity", "0.1"),
    ],
)
def test_delays_have_buckets(
    connection: Connection, processed: str, seen: str, bucket: str
) -> None:
    """The least bound that is no less than the delay; infinite times fail no INSERT."""
    row = f"""(SELECT 'C1' AS campaign_id, CAST('{processed}' AS timestamptz) AS processed_at,
                      CAST('{seen}' AS timestamptz) AS seen_at, 'Sale' AS outcome_name,
                      1.0 AS total_cost, 5.0 AS lookback_needed_s) AS stored"""
    counted = select_counted("lead_outcomes", row)
    query = f"SELECT name FROM ({counted}) AS each WHERE kind = 'delay'"
    assert connection.execute(text(query)).scalar_one() == bucket


@pytest.mark.parametrize("kind", SPANS)
def test_rows_are_repeated_for_each_span(connection: Connection, kind: str) -> None:
    """An hour belongs to its day, and to ever; those of all campaigns have the same periods."""
    row = f"""(SELECT '{kind}' AS kind, CAST('2026-01-01T23:00:00Z' AS timestamptz) AS hour,
                      'C1' AS campaign_id, 'a' AS name, 'b' AS detail, 1 AS amount, 0 AS marked,
                      2.5 AS cost)"""
    rows = connection.execute(
        text(f"SELECT span, CAST(since AT TIME ZONE 'UTC' AS text) FROM ({spread_spans(row)}) AS a")
    )
    since = {"hour": "2026-01-01 23:00:00", "day": "2026-01-01 00:00:00", "ever": "-infinity"}
    assert dict(rows.tuples().all()) == {
        span: since[span.removeprefix("total ")] for span in SPANS[kind]
    }
