"""Watermarks move only over adjoining ranges that are stored or owed; backfills are resumed."""

from datetime import datetime, timedelta
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from db import owed_windows, watermarks
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
        watermarks.advance_read_range(connection, CAMPAIGN, after=at(0), through=at(99))
        assert watermarks.get_watermark(connection, CAMPAIGN) is None
        assert watermarks.get_read_through(connection, CAMPAIGN) is None
        watermarks.start_watermark(connection, CAMPAIGN, at(start))
        watermarks.start_watermark(connection, CAMPAIGN, at(start + 7))
        for after, length in moves:
            through = after + length
            watermarks.advance_read_range(
                connection, CAMPAIGN, after=at(after), through=at(through)
            )
            mark = through if after <= mark < through else mark
            assert watermarks.get_watermark(connection, CAMPAIGN) == at(mark)
            assert watermarks.get_read_through(connection, CAMPAIGN) == at(mark)


def set_watermark(connection: Connection, second: int) -> None:
    """Set the watermark as the documents say that a person may."""
    connection.execute(
        text("UPDATE leadloop.watermarks SET processed_through = :at"), {"at": at(second)}
    )


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    start=st.integers(0, 50),
    moves=st.lists(
        st.tuples(
            st.sampled_from(("plain", "plain", "head", "head", "set back")),
            st.integers(0, 50),
            st.integers(0, 20),
        ),
        max_size=12,
    ),
)
def test_the_lookback_is_read_from_where_plain_polls_have_read(
    database: Database, start: int, moves: list[tuple[str, int, int]]
) -> None:
    """Head polls move the other mark alone; a person who sets the watermark back, both."""
    read = reread = start
    with database.transaction() as connection:
        connection.execute(text("TRUNCATE leadloop.watermarks"))
        assert watermarks.get_reread_through(connection, CAMPAIGN) is None
        watermarks.start_watermark(connection, CAMPAIGN, at(start))
        for move, after, length in moves:
            ends = {"after": at(after), "through": at(after + length)}
            if move == "set back":
                read, reread = min(read, after), min(reread, after)
                set_watermark(connection, read)
            else:
                watermarks.advance_read_range(connection, CAMPAIGN, **ends)
                read = after + length if after <= read < after + length else read
            if move == "plain":
                watermarks.advance_reread_range(connection, CAMPAIGN, **ends)
                reread = after + length if after <= reread < after + length else reread
            assert watermarks.get_read_through(connection, CAMPAIGN) == at(read)
            assert watermarks.get_reread_through(connection, CAMPAIGN) == at(reread)


@pytest.mark.parametrize("owed", [None, window(1, 2), window(6, 7)])
def test_polls_start_at_a_watermark_that_was_set_back(
    connection: Connection, owed: Window | None
) -> None:
    """Whatever is owed, and though the poll first reads the lookback, or a person accepts."""
    watermarks.start_watermark(connection, CAMPAIGN, at(0))
    watermarks.advance_read_range(connection, CAMPAIGN, after=at(0), through=at(9))
    if owed is not None:
        owed_windows.record_failed_read(
            connection,
            CAMPAIGN,
            owed,
            reason="HTTP 500",
            run_started=watermarks.get_database_time(connection),
        )
    set_watermark(connection, 4)
    watermarks.follow_read_range(connection, CAMPAIGN)
    watermarks.advance_read_range(connection, CAMPAIGN, after=at(2), through=at(3))
    assert watermarks.get_read_through(connection, CAMPAIGN) == at(4)
    assert watermarks.get_watermark(connection, CAMPAIGN) == at(4)
    watermarks.advance_read_range(connection, CAMPAIGN, after=at(3), through=at(5))
    assert watermarks.get_read_through(connection, CAMPAIGN) == at(5)


def test_a_watermark_from_before_the_upgrade_moves_by_reading_alone(
    connection: Connection,
) -> None:
    """What lies between it and a window owed later may never have been read."""
    watermarks.start_watermark(connection, CAMPAIGN, at(0))
    owed_windows.record_failed_read(
        connection,
        CAMPAIGN,
        window(6, 7),
        reason="HTTP 500",
        run_started=watermarks.get_database_time(connection),
    )
    watermarks.follow_read_range(connection, CAMPAIGN)
    assert watermarks.get_watermark(connection, CAMPAIGN) == at(0)


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
