"""A read is stored once, however often, and the watermark is never ahead of what is stored."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from db import watermarks
from db.bulk_copy import format_text_row
from db.database import Database
from db.outcomes import MergeCounts
from db.watermarks import WindowRecord
from db.window_store import (
    EmptyRead,
    OwedRange,
    PollProgress,
    ReadResult,
    store_empty_reads,
    store_read,
)
from leadloop.core.late_outcomes import LateOutcomes
from leadloop.core.results import parse_result
from leadloop.core.timestamps import EPOCH
from leadloop.core.windows import Window, WindowProof, find_contiguous_end, merge_windows
from tests import sql

CAMPAIGN = "C1"
_TABLES = (
    "lead_outcomes, outreach_attempts, unreadable_results, poll_windows, owed_windows,"
    " learned_limits, watermarks"
)
_EMPTY = text("TRUNCATE " + ", ".join(f"leadloop.{name}" for name in _TABLES.split(", ")))
# All that a read leaves but for its history (a row of poll_windows each time) and times of day.
_STATE = {
    "lead_outcomes": "lead_id, processed_at, raw, lookback_needed_s, seen_at",
    "outreach_attempts": "lead_id, block, attempt_key, cost",
    "unreadable_results": "digest, reason, occurrences",
    "owed_windows": "owed_id, window_after, window_before, reason, tries, found_at",
    "learned_limits": "name, value",
    "watermarks": "processed_through, read_through, written_through, reread_through",
}
_PROPERTY = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def at(second: float) -> datetime:
    """Return a moment."""
    return EPOCH + timedelta(seconds=second)


def window(after: float, before: float) -> Window:
    """Return a window between two seconds."""
    return Window(after=at(after), before=at(before))


def read_of(read: Window, seconds: Sequence[float] = (), **more: Any) -> ReadResult:
    """Return the complete read of a window: a result a second, each with one call."""
    call = {"reference_id": "r", "called_at": 1, "cost": 2}
    parsed = [
        parse_result(
            {
                "lead_id": f"L{at_s}",
                "processed_at": at(at_s).isoformat(),
                "call_attempt_x_1": [call],
            }
        )
        for at_s in seconds
    ]
    complete = ReadResult(
        window=read,
        outcomes=[format_text_row(each.outcome) for each in parsed if each.outcome],
        attempts=[format_text_row(item) for each in parsed for item in each.attempts],
        records=[record_of(read)],
    )
    return replace(complete, **more)


def failed(read: Window, seconds: Sequence[float] = (), **more: Any) -> ReadResult:
    """Return a read that brought some results and is owed."""
    return read_of(
        read,
        seconds,
        records=[record_of(read, is_complete=False)],
        owed=[OwedRange(window=read, reason="HTTP 500")],
        **more,
    )


def record_of(read: Window, *, is_complete: bool = True, run_id: int = 2) -> WindowRecord:
    """Return the record of a window that was proven to its end, or not at all."""
    proof = WindowProof(
        status="closed" if is_complete else "incomplete", proven=read if is_complete else None
    )
    return WindowRecord(
        run_id=run_id,
        window=read,
        proof=proof,
        reported_count=1,
        stored_count=1,
        pages=1,
        backfill=None,
    )


def progress_of(
    connection: Connection, through: float, *, start: float = 0, read_before: float | None = None
) -> PollProgress:
    """Return where run 2 stands, which began just now."""
    return PollProgress(
        run_id=2,
        started=watermarks.get_database_time(connection),
        start=at(start),
        through=at(through),
        reads_lookback=True,
        read_before=None if read_before is None else at(read_before),
    )


def state(connection: Connection) -> dict[str, list[Any]]:
    """Return what is stored."""
    return {
        table: sorted(
            map(repr, connection.execute(text(f"SELECT {columns} FROM leadloop.{table}")))
        )
        for table, columns in _STATE.items()
    }


_SECONDS = st.lists(st.integers(1, 9), max_size=5, unique=True)
_READS = st.builds(
    lambda fails, seconds, more: (failed if fails else read_of)(window(0, 10), seconds, **more),
    st.booleans(),
    _SECONDS,
    st.fixed_dictionaries(
        {
            "unreadable": st.lists(
                st.sampled_from([None, {"x": 1}]).map(lambda raw: ("no id", raw)), max_size=3
            ),
            "limits": st.dictionaries(
                st.sampled_from(["page_size", "page_depth"]), st.none() | st.integers(1, 99)
            ),
        }
    ),
)


@_PROPERTY
@given(read=_READS, owed_before=st.booleans(), read_before=st.none() | st.integers(0, 9))
def test_the_same_read_is_stored_once(
    database: Database, read: ReadResult, owed_before: bool, read_before: int | None
) -> None:
    """A connection that is lost in the commit costs nothing: storing again changes nothing."""
    with database.transaction() as connection:
        connection.execute(_EMPTY)
        watermarks.start_watermark(connection, CAMPAIGN, at(0))
        if owed_before:
            store_read(connection, CAMPAIGN, failed(window(2, 4)), progress_of(connection, 0))
        progress = progress_of(connection, 10, read_before=read_before)
    with database.transaction() as connection:
        first, _ = store_read(connection, CAMPAIGN, read, progress)
        stored = state(connection)
    with database.transaction() as connection:
        again, late = store_read(connection, CAMPAIGN, read, progress)
        assert state(connection) == stored
    assert first == MergeCounts(inserted=len(read.outcomes), updated=0, unchanged=0)
    assert again == MergeCounts(inserted=0, updated=0, unchanged=len(read.outcomes))
    assert late == LateOutcomes()


@_PROPERTY
@given(
    reads=st.lists(
        st.tuples(
            st.integers(1, 5), st.sampled_from(["complete", "fails", "rolled back"]), st.booleans()
        ),
        max_size=8,
    )
)
def test_the_watermark_is_never_ahead_of_what_is_stored(
    database: Database, reads: list[tuple[int, str, bool]]
) -> None:
    """Whatever was processed before it is stored, though reads fail, come late or are lost."""
    vendor = [second + 0.5 for second in range(40)]
    covered: list[Window] = []
    end = 0
    with database.transaction() as connection:
        connection.execute(_EMPTY)
        watermarks.start_watermark(connection, CAMPAIGN, at(0))
    for length, how, leaves_gap in reads:
        read = window(end + leaves_gap, end + leaves_gap + length)
        end += leaves_gap + length
        shown = [each for each in vendor if read.after < at(each) < read.before]
        result = failed(read, shown[1:]) if how == "fails" else read_of(read, shown)
        known = merge_windows([*covered, read])
        with database.transaction() as connection:
            progress = progress_of(connection, 0)
            through = find_contiguous_end(at(0), known)
            transaction = connection.begin_nested()
            store_read(connection, CAMPAIGN, result, replace(progress, through=through))
            if how == "rolled back":
                transaction.rollback()
            else:
                transaction.commit()
                covered = known
        mark = sql.fetch_value(database, "SELECT processed_through FROM leadloop.watermarks")
        stored = sql.fetch_outcomes(database)
        assert all(f"L{each}" in stored for each in vendor if at(each) < mark)


def test_the_watermark_stops_at_what_is_owed_and_goes_on_once_it_is_read(
    connection: Connection,
) -> None:
    """Later windows are stored meanwhile, and are not read again."""
    watermarks.start_watermark(connection, CAMPAIGN, at(0))
    store_read(connection, CAMPAIGN, failed(window(0, 5), [1]), progress_of(connection, 5))
    store_read(connection, CAMPAIGN, read_of(window(5, 9), [6]), progress_of(connection, 9))
    assert watermarks.get_watermark(connection, CAMPAIGN) == at(0)
    assert watermarks.get_read_through(connection, CAMPAIGN) == at(9)
    store_read(connection, CAMPAIGN, read_of(window(0, 5), [1, 2]), progress_of(connection, 9))
    assert watermarks.get_watermark(connection, CAMPAIGN) == at(9)
    assert state(connection)["owed_windows"] == []
    history = text("SELECT status, made_good_at IS NOT NULL FROM leadloop.poll_windows ORDER BY 1")
    assert [tuple(row) for row in connection.execute(history)] == [
        *[("closed", False)] * 2,
        ("incomplete", True),
    ]


def test_only_the_proven_part_of_a_read_is_no_longer_owed(connection: Connection) -> None:
    """Results of the last seconds may not be visible yet, so a window may be proven in part."""
    store_read(connection, CAMPAIGN, failed(window(0, 8)), progress_of(connection, 0))
    proof = WindowProof(status="open", proven=window(0, 6))
    read = read_of(window(0, 8), records=[replace(record_of(window(0, 8)), proof=proof)])
    store_read(connection, CAMPAIGN, read, progress_of(connection, 0))
    owed = connection.execute(text("SELECT window_after, window_before FROM leadloop.owed_windows"))
    assert [tuple(row) for row in owed] == [(at(6), at(8))]


@pytest.mark.parametrize(
    ("read_before", "late"),
    [
        (20, LateOutcomes(count=1, needed_lookback_s=17)),
        # Earlier polls had not read so far.
        (None, LateOutcomes()),
    ],
)
def test_an_outcome_is_late_where_an_earlier_run_had_read(
    database: Database, read_before: float | None, late: LateOutcomes
) -> None:
    """It needed a lookback from where the polls had read to its own time."""
    earlier = read_of(window(0, 5), [1], records=[record_of(window(0, 5), run_id=1)])
    with database.transaction() as connection:
        store_read(connection, CAMPAIGN, earlier, progress_of(connection, 5))
    with database.transaction() as connection:
        progress = progress_of(connection, 9, read_before=read_before)
        read = read_of(window(0, 9), [1, 3, 7])
        assert store_read(connection, CAMPAIGN, read, progress)[1] == late


@pytest.mark.parametrize(
    ("reads_lookback", "started", "reread"), [(True, 20, 9), (True, 5, 5), (False, 20, 0)]
)
def test_a_read_counts_for_the_lookback_up_to_the_start_of_its_run(
    connection: Connection, reads_lookback: bool, started: int, reread: int
) -> None:
    """What shows in a range after a long run has read it is left to the next plain poll."""
    watermarks.start_watermark(connection, CAMPAIGN, at(0))
    progress = replace(
        progress_of(connection, 9), started=at(started), reads_lookback=reads_lookback
    )
    store_read(connection, CAMPAIGN, read_of(window(0, 9)), progress)
    assert watermarks.get_read_through(connection, CAMPAIGN) == at(9)
    assert watermarks.get_reread_through(connection, CAMPAIGN) == at(reread)


def test_what_was_learned_of_pages_is_stored_with_the_read(connection: Connection) -> None:
    """A limit that has ended is forgotten."""
    for limits, kept in (
        ({"page_size": 50, "page_depth": 7}, {"page_size": 50, "page_depth": 7}),
        ({"page_size": None}, {"page_depth": 7}),
    ):
        read = read_of(window(0, 1), limits=limits)
        store_read(connection, CAMPAIGN, read, progress_of(connection, 0))
        rows = connection.execute(text("SELECT name, value FROM leadloop.learned_limits"))
        assert {row.name: row.value for row in rows} == kept


@_PROPERTY
@given(
    spans=st.lists(
        st.tuples(st.integers(0, 20), st.integers(1, 20), st.integers(0, 25)), max_size=4
    ),
    other=st.booleans(),
)
def test_empty_reads_of_many_campaigns_are_stored_as_each_alone(
    database: Database, spans: list[tuple[int, int, int]], other: bool
) -> None:
    """Whether the ranges adjoin the watermark, or are proven to their end, or not at all."""
    stored = []
    for is_alone in (True, False):
        with database.transaction() as connection:
            connection.execute(_EMPTY)
            started = watermarks.get_database_time(connection)
            for name in (CAMPAIGN, "C2"):
                watermarks.start_watermark(connection, name, at(10))
            for after, length, proven_to in spans:
                whole = window(after, after + length)
                proven = (
                    window(after, min(after + length, proven_to)) if proven_to > after else None
                )
                proof = WindowProof(status="closed" if proven == whole else "open", proven=proven)
                reads = [
                    EmptyRead(campaign_id=name, window=whole, proof=proof)
                    for name in ((CAMPAIGN, "C2") if other else (CAMPAIGN,))
                ]
                if not is_alone:
                    store_empty_reads(connection, reads, run_id=2, started=started)
                    continue
                for read in reads:
                    record = replace(
                        record_of(whole), proof=proof, reported_count=0, stored_count=0
                    )
                    progress = replace(
                        progress_of(connection, 0),
                        started=started,
                        start=whole.after,
                        through=whole.after if proven is None else proven.before,
                    )
                    store_read(
                        connection,
                        read.campaign_id,
                        ReadResult(window=whole, records=[record]),
                        progress,
                    )
            stored.append(state(connection))
    assert stored[0] == stored[1]
