"""What is owed is what failed less what was proven; it is tried ever more seldom, never dropped."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from db import owed_windows, watermarks
from db.database import Database
from db.owed_windows import FIRST_PAUSE_S, LONGEST_PAUSE_S, OwedWindow
from leadloop.core.timestamps import EPOCH
from leadloop.core.windows import Window
from tests import sql

CAMPAIGN = "C1"
_PROPERTY = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
_EMPTY = text("TRUNCATE leadloop.owed_windows, leadloop.watermarks")


def at(second: float) -> datetime:
    """Return a moment."""
    return EPOCH + timedelta(seconds=second)


def window(after: float, before: float) -> Window:
    """Return a window between two seconds."""
    return Window(after=at(after), before=at(before))


def fail(
    connection: Connection,
    read: Window,
    *,
    reason: str = "HTTP 500",
    run_started: datetime | None = None,
) -> None:
    """Record a failed read, in a run of its own unless its start is given."""
    owed_windows.record_failed_read(
        connection,
        CAMPAIGN,
        read,
        reason=reason,
        run_started=run_started or watermarks.get_database_time(connection),
    )


def owed(connection: Connection) -> list[OwedWindow]:
    """Return the owed windows of the campaign."""
    return owed_windows.list_owed_windows(connection, [CAMPAIGN])


def ranges(connection: Connection) -> list[Window]:
    """Return the owed ranges of the campaign, in order."""
    return [row.window for row in owed(connection)]


def seconds(rows: Sequence[OwedWindow]) -> set[int]:
    """Return every second that the rows cover, by its beginning."""
    return {
        second
        for row in rows
        for second in range(
            round(row.window.after.timestamp()), round(row.window.before.timestamp())
        )
    }


def pause(row: OwedWindow) -> int:
    """Return the seconds from the last try of a window to the next."""
    return round((row.next_try_at - row.tried_at).total_seconds())


@_PROPERTY
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["fails", "fails in the same run", "is proven", "is accepted"]),
            st.integers(0, 12),
            st.integers(0, 6),
        ),
        max_size=16,
    )
)
def test_what_is_owed_is_what_failed_less_what_was_proven(
    database: Database, steps: list[tuple[str, int, int]]
) -> None:
    """To the second and the instant, in whatever order and however often; no acceptance grows."""
    left: set[int] = set()
    instants: set[int] = set()
    accepted: set[int] = set()
    with database.transaction() as connection:
        connection.execute(_EMPTY)
        run = watermarks.get_database_time(connection)
        for step, after, length in steps:
            read, inside = window(after, after + length), set(range(after, after + length))
            if step.startswith("fails"):
                run = run if "same" in step else watermarks.get_database_time(connection)
                fail(connection, read, run_started=run)
                left |= inside
                instants |= set() if length else {after}
            elif step == "is proven":
                was_owed = owed_windows.subtract_proven(connection, CAMPAIGN, read)
                # An instant may also lie at the bound of a longer range.
                assert was_owed or not left & inside
                left -= inside
                instants -= set(range(after, after + length + 1))
            elif rows := owed(connection):
                row = rows[after % len(rows)]
                accepted |= seconds([row]) if row.accepted_at is None else set()
                owed_windows.accept_owed_window(connection, row.owed_id, "deleted there")
            rows = owed(connection)
            assert seconds(rows) == left
            assert seconds([row for row in rows if row.accepted_at]) <= accepted
            for instant in instants:
                assert any(row.window.after <= at(instant) <= row.window.before for row in rows)
            short = {row.window.after for row in rows if row.window.after == row.window.before}
            assert short <= set(map(at, instants))


@_PROPERTY
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["read", "failed", "proven", "accepted", "set back"]),
            st.integers(0, 30),
            st.integers(1, 12),
        ),
        max_size=20,
    )
)
def test_the_watermark_stops_at_the_first_window_that_is_owed(
    database: Database, steps: list[tuple[str, int, int]]
) -> None:
    """It is the earlier of both, only moves forward, and back where a person sets it back."""
    mark = read = 5
    started = False
    with database.transaction() as connection:
        connection.execute(_EMPTY)
        watermarks.start_watermark(connection, CAMPAIGN, at(5))
        for step, after, length in steps:
            through = after + length
            if step == "read":
                watermarks.advance_read_range(
                    connection, CAMPAIGN, after=at(after), through=at(through)
                )
                if after <= read < through:
                    read, started = through, True
            elif step == "failed":
                fail(connection, window(after, through))
            elif step == "proven":
                owed_windows.subtract_proven(connection, CAMPAIGN, window(after, through))
            elif step == "set back":
                if after < mark:
                    mark = read = after
                    set_watermark(connection, mark)
            elif rows := owed(connection):
                owed_windows.accept_owed_window(
                    connection, rows[after % len(rows)].owed_id, "deleted there"
                )
            watermarks.follow_read_range(connection, CAMPAIGN)
            waiting = [row.window.after for row in owed(connection) if row.accepted_at is None]
            if started:
                reached = min([at(read), *waiting])
                mark = max(mark, round(reached.timestamp()))
            assert watermarks.get_watermark(connection, CAMPAIGN) == at(mark)
            assert watermarks.get_read_through(connection, CAMPAIGN) == at(read)


def set_watermark(connection: Connection, second: int) -> None:
    """Set the watermark as the documents say that a person may."""
    connection.execute(
        text("UPDATE leadloop.watermarks SET processed_through = :at"), {"at": at(second)}
    )


def test_each_pause_is_twice_the_one_before_up_to_a_day(database: Database) -> None:
    """A range that cannot be read costs little, and is tried at least once a day."""
    pauses = []
    for number in range(12):
        with database.transaction() as connection:
            fail(connection, window(0, 1))
            (row,) = owed(connection)
            pauses.append(pause(row))
            assert row.tries == number + 1
    assert pauses[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pauses == [min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**number) for number in range(12)]


def test_tries_as_they_are_begin_again_with_each_other_range(connection: Connection) -> None:
    """A read that makes a range shorter shows that others may; a longer one is another range."""
    for number in range(3):
        fail(connection, window(0, 9))
        (row,) = owed(connection)
        assert (row.tries, row.tries_as_is) == (number + 1, number + 1)
    owed_windows.subtract_proven(connection, CAMPAIGN, window(3, 5))
    assert [(row.tries, row.tries_as_is) for row in owed(connection)] == [(3, 1), (3, 1)]
    fail(connection, window(6, 8))
    assert [row.tries_as_is for row in owed(connection)] == [1, 2]
    fail(connection, window(5, 20))
    assert [row.tries_as_is for row in owed(connection)] == [1, 1]


def test_several_failures_of_a_run_are_one_try(connection: Connection) -> None:
    """A run that tries a range in parts does not put it off twice."""
    run = watermarks.get_database_time(connection)
    fail(connection, window(0, 9), run_started=run)
    fail(connection, window(3, 4), run_started=run)
    assert [(row.tries, pause(row)) for row in owed(connection)] == [(1, FIRST_PAUSE_S)]
    run = watermarks.get_database_time(connection)
    for part in (window(0, 3), window(4, 9)):
        fail(connection, part, run_started=run)
    assert [(row.tries, pause(row)) for row in owed(connection)] == [(2, 2 * FIRST_PAUSE_S)]


def test_what_fails_side_by_side_in_a_run_is_one_window(connection: Connection) -> None:
    """A person accepts one range and not a hundred; another reason or run is another window."""
    run = watermarks.get_database_time(connection)
    for part in (window(0, 1), window(1, 2), window(2, 2), window(5, 6)):
        fail(connection, part, run_started=run)
    fail(connection, window(6, 7), run_started=run, reason="HTTP 502")
    fail(connection, window(7, 8), reason="HTTP 502")
    assert ranges(connection) == [window(0, 2), window(5, 6), window(6, 7), window(7, 8)]


def test_what_fails_again_with_wider_bounds_is_no_other_window(connection: Connection) -> None:
    """Bounds shift by a unit from read to read; the instant keeps its number and its pause."""
    fail(connection, window(4.999, 5))
    (first,) = owed(connection)
    fail(connection, window(4, 6))
    (row,) = owed(connection)
    assert (row.owed_id, row.window, row.tries) == (first.owed_id, window(4, 6), 2)
    assert row.found_at == first.found_at


def test_what_is_left_of_a_window_keeps_its_number_and_history(connection: Connection) -> None:
    """A person who accepts a number from a list of a minute ago accepts that window."""
    for _ in range(3):
        fail(connection, window(0, 10))
    (before,) = owed(connection)
    assert owed_windows.subtract_proven(connection, CAMPAIGN, window(2, 8))
    first, second = owed(connection)
    assert (first.owed_id, first.window, second.window) == (
        *(before.owed_id, window(0, 2)),
        window(8, 10),
    )
    for row in (first, second):
        assert (row.tries, row.found_at, row.next_try_at) == (
            *(3, before.found_at),
            before.next_try_at,
        )
    assert owed_windows.subtract_proven(connection, CAMPAIGN, window(0, 2))
    assert not owed_windows.subtract_proven(connection, CAMPAIGN, window(0, 8))
    assert ranges(connection) == [window(8, 10)]


@pytest.mark.parametrize("proven", [window(5, 5), window(5, 9), window(2, 5), window(2, 9)])
def test_an_instant_is_proven_by_any_window_that_holds_it(
    connection: Connection, proven: Window
) -> None:
    """At a bound too: windows include their bounds."""
    fail(connection, window(5, 5))
    assert owed_windows.subtract_proven(connection, CAMPAIGN, proven)
    assert ranges(connection) == []


@pytest.mark.parametrize("proven", [window(5, 5), window(0, 2), window(8, 9), window(2, 2)])
def test_a_window_that_only_touches_what_is_owed_proves_none_of_it(
    connection: Connection, proven: Window
) -> None:
    """An instant within it, or a neighbour."""
    fail(connection, window(2, 8))
    assert not owed_windows.subtract_proven(connection, CAMPAIGN, proven)
    assert ranges(connection) == [window(2, 8)]


def test_other_campaigns_owe_what_they_owed(connection: Connection) -> None:
    """Neither a failure nor a proof nor a list of one campaign is another's."""
    fail(connection, window(0, 1))
    assert not owed_windows.subtract_proven(connection, "C2", window(0, 1))
    assert owed_windows.list_owed_windows(connection, ["C2"]) == []
    assert owed_windows.list_owed_windows(connection, []) == []
    owed_windows.record_failed_read(
        connection,
        "C2",
        window(0, 1),
        reason="HTTP 500",
        run_started=watermarks.get_database_time(connection),
    )
    rows = owed_windows.list_owed_windows(connection, None)
    assert [(row.campaign_id, row.tries) for row in rows] == [("C1", 1), ("C2", 1)]


def test_an_accepted_window_stays_and_is_tried_once_a_day(connection: Connection) -> None:
    """It may become readable; what fails beside it is owed as before."""
    fail(connection, window(0, 1))
    (row,) = owed(connection)
    assert owed_windows.accept_owed_window(connection, row.owed_id, "deleted there") == CAMPAIGN
    (row,) = owed(connection)
    assert (row.accepted_reason, row.is_due) == ("deleted there", False)
    login = connection.scalar(text("SELECT session_user"))
    assert (row.accepted_by, row.accepted_at is None) == (login, False)
    fail(connection, window(0, 1))
    (row,) = owed(connection)
    assert (row.tries, pause(row), row.accepted_reason) == (2, LONGEST_PAUSE_S, "deleted there")
    fail(connection, window(0, 2))
    assert [each.accepted_reason for each in owed(connection)] == ["deleted there", None]


def test_the_first_acceptance_stays(connection: Connection) -> None:
    """Accepting again changes neither the word nor the time; an unknown number is none."""
    fail(connection, window(0, 1))
    (row,) = owed(connection)
    owed_windows.accept_owed_window(connection, row.owed_id, "deleted there")
    (first,) = owed(connection)
    assert owed_windows.accept_owed_window(connection, row.owed_id, "never mind") is None
    assert owed(connection) == [first]
    assert owed_windows.accept_owed_window(connection, row.owed_id + 1, "x") is None
    assert owed_windows.lock_owed_window(connection, row.owed_id + 1) is None
    assert owed_windows.make_due(connection, row.owed_id + 1) is None


def test_a_window_can_be_made_due(connection: Connection) -> None:
    """The next poll tries it, and its history goes on."""
    fail(connection, window(0, 1))
    (row,) = owed(connection)
    assert not row.is_due
    made = owed_windows.make_due(connection, row.owed_id)
    assert made is not None
    assert (made.is_due, made.tries, made.window) == (True, 1, window(0, 1))


def test_a_watermark_passes_an_accepted_window(connection: Connection) -> None:
    """Up to the next one that is owed, in the transaction of the acceptance."""
    watermarks.start_watermark(connection, CAMPAIGN, at(0))
    for part in (window(2, 3), window(6, 7)):
        fail(connection, part)
    watermarks.advance_read_range(connection, CAMPAIGN, after=at(0), through=at(9))
    assert watermarks.get_watermark(connection, CAMPAIGN) == at(2)
    first, second = owed(connection)
    owed_windows.accept_owed_window(connection, first.owed_id, "deleted there")
    assert watermarks.get_watermark(connection, CAMPAIGN) == at(6)
    owed_windows.accept_owed_window(connection, second.owed_id, "deleted there")
    assert watermarks.get_watermark(connection, CAMPAIGN) == at(9)


def test_a_person_accepts_while_a_poll_stores(database: Database) -> None:
    """The watermark does not pass what the poll owes, though the poll had not committed yet."""
    with database.transaction() as connection:
        watermarks.start_watermark(connection, CAMPAIGN, at(0))
        fail(connection, window(3, 4))
        watermarks.advance_read_range(connection, CAMPAIGN, after=at(0), through=at(5))
        (row,) = owed(connection)
    with ThreadPoolExecutor(1) as person:
        with database.transaction() as poll:
            fail(poll, window(5, 6))
            watermarks.advance_read_range(poll, CAMPAIGN, after=at(5), through=at(9))
            accepting = person.submit(
                database.run, owed_windows.accept_owed_window, row.owed_id, "deleted there"
            )
            sql.wait_until_blocked(database)
        assert accepting.result(30) == CAMPAIGN
    with database.transaction() as connection:
        assert watermarks.get_watermark(connection, CAMPAIGN) == at(5)


@pytest.mark.parametrize(
    ("proven", "made_good"),
    [(window(0, 20), True), (window(5, 20), False), (window(0, 12), True), (window(10, 12), False)],
)
def test_a_polled_window_is_made_good_once_nothing_of_it_is_owed(
    connection: Connection, proven: Window, made_good: bool
) -> None:
    """The history shows it, whatever is owed beside it."""
    record = text("""
        INSERT INTO leadloop.poll_windows (campaign_id, run_id, window_after, window_before, status,
                                           claimed_count, stored_count, pages)
        VALUES ('C1', 1, :after, :before, 'incomplete', 2, 1, 1)
    """)
    connection.execute(record, {"after": at(0), "before": at(10)})
    fail(connection, window(0, 10))
    fail(connection, window(10, 15), reason="HTTP 502")
    owed_windows.subtract_proven(connection, CAMPAIGN, proven)
    query = text("SELECT made_good_at IS NOT NULL FROM leadloop.poll_windows")
    assert connection.scalar(query) == made_good
