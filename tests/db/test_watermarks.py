"""Watermarks move only over verified, adjoining ranges; incomplete windows stay on the list."""

from datetime import datetime, timedelta
from typing import Literal

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from db import watermarks
from db.database import Database
from db.watermarks import WindowRecord
from leadloop.core.timestamps import EPOCH
from leadloop.core.windows import Window, WindowProof

CAMPAIGN = "C1"
BACKFILL = Window(after=EPOCH, before=EPOCH + timedelta(seconds=90))


def at(second: int) -> datetime:
    """Return a moment."""
    return EPOCH + timedelta(seconds=second)


def window(after: int, before: int) -> Window:
    """Return a window between two seconds."""
    return Window(after=at(after), before=at(before))


def record(
    connection: Connection,
    read: Window,
    status: Literal["closed", "open", "incomplete"] = "closed",
    *,
    run_id: int = 1,
    backfill: Window | None = None,
) -> None:
    """Record a window that was read; a closed one is verified to its end."""
    proof = WindowProof(status=status, proven=read if status == "closed" else None)
    row = WindowRecord(
        run_id=run_id,
        window=read,
        proof=proof,
        reported_count=2,
        stored_count=2 if status == "closed" else 1,
        pages=1,
        backfill=backfill,
    )
    watermarks.record_windows(connection, CAMPAIGN, [row])


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    start=st.integers(0, 50),
    moves=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), max_size=12),
)
def test_a_watermark_only_moves_forward_over_what_adjoins(
    database: Database, start: int, moves: list[tuple[int, int]]
) -> None:
    """A range that begins beyond the watermark leaves a gap; one that ends before it is old."""
    mark = start
    with database.transaction() as connection:
        connection.execute(text("TRUNCATE leadloop.watermarks"))
        assert watermarks.get_watermark(connection, CAMPAIGN) is None
        assert not watermarks.advance_watermark(connection, CAMPAIGN, after=at(0), through=at(99))
        watermarks.start_watermark(connection, CAMPAIGN, at(start))
        watermarks.start_watermark(connection, CAMPAIGN, at(start + 7))
        for after, length in moves:
            through = after + length
            moved = watermarks.advance_watermark(
                connection, CAMPAIGN, after=at(after), through=at(through)
            )
            assert moved == (after <= mark < through)
            mark = through if moved else mark
            assert watermarks.get_watermark(connection, CAMPAIGN) == at(mark)


def test_an_incomplete_window_stays_until_later_reads_verify_all_of_it(
    connection: Connection,
) -> None:
    """An earlier read, or a later one of a part, does not make it good."""
    record(connection, window(0, 20))
    record(connection, window(0, 20), "incomplete")
    record(connection, window(0, 15))
    assert watermarks.list_incomplete_windows(connection, CAMPAIGN) == [window(0, 20)]
    record(connection, window(15, 30))
    assert watermarks.list_incomplete_windows(connection, CAMPAIGN) == []


def test_adjoining_incomplete_windows_are_listed_as_one(connection: Connection) -> None:
    """A poll reads them again in as few windows as possible."""
    for after, before in ((10, 20), (0, 10), (30, 40)):
        record(connection, window(after, before), "incomplete")
    assert watermarks.list_incomplete_windows(connection, CAMPAIGN) == [
        window(0, 20),
        window(30, 40),
    ]
    assert watermarks.list_incomplete_windows(connection, "other") == []


def test_an_interrupted_backfill_resumes_where_it_stopped(connection: Connection) -> None:
    """Only windows of the same range count, and only until a backfill of it has completed."""
    insert_run = text("""
        INSERT INTO leadloop.sync_runs (flow, campaign_id) VALUES ('backfill-outcomes', 'C1')
        RETURNING run_id
    """)
    run_id: int = connection.scalar(insert_run) or 0
    record(connection, window(0, 30), run_id=run_id, backfill=BACKFILL)
    record(connection, window(30, 60), "incomplete", run_id=run_id, backfill=BACKFILL)
    record(connection, window(60, 90), run_id=run_id, backfill=window(0, 99))
    record(connection, window(60, 90), run_id=run_id)
    assert watermarks.list_resumable_windows(connection, CAMPAIGN, BACKFILL) == [window(0, 30)]
    connection.execute(
        text("UPDATE leadloop.sync_runs SET state = 'completed' WHERE run_id = :run"),
        {"run": run_id},
    )
    assert watermarks.list_resumable_windows(connection, CAMPAIGN, BACKFILL) == []
