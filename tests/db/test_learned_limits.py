"""Limits that polls have learned of the vendor: kept by campaign, stale after a day, forgotten."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from db.database import Database
from db.learned_limits import LearnedLimit, get_learned_limits, record_learned_limit

_CHANGES = st.tuples(
    st.sampled_from(["C1", "C2"]),
    st.sampled_from(["page_size", "page_depth"]),
    st.none() | st.integers(1, 10_000),
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(changes=st.lists(_CHANGES, max_size=12))
def test_the_last_record_of_each_limit_counts(
    database: Database, changes: list[tuple[str, str, int | None]]
) -> None:
    """A campaign has its own limits; one that has ended is forgotten, and may be learned again."""
    expected: dict[str, dict[str, LearnedLimit]] = {"C1": {}, "C2": {}}
    with database.transaction() as connection:
        connection.execute(text("TRUNCATE leadloop.learned_limits"))
        for campaign, name, value in changes:
            record_learned_limit(connection, campaign, name, value)
            expected[campaign].pop(name, None)
            if value is not None:
                expected[campaign][name] = LearnedLimit(value=value, is_stale=False)
        for campaign, limits in expected.items():
            assert get_learned_limits(connection, campaign) == limits


@pytest.mark.parametrize(("age", "is_stale"), [("23 hours", False), ("25 hours", True)])
def test_a_limit_is_stale_after_a_day(connection: Connection, age: str, is_stale: bool) -> None:
    """From then on a poll tries more; what it sees to be refused again holds for another day."""
    record_learned_limit(connection, "C1", "page_size", 50)
    connection.execute(
        text(f"UPDATE leadloop.learned_limits SET learned_at = now() - interval '{age}'")
    )
    limits = get_learned_limits(connection, "C1")
    assert limits == {"page_size": LearnedLimit(value=50, is_stale=is_stale)}
    record_learned_limit(connection, "C1", "page_size", 50)
    assert not get_learned_limits(connection, "C1")["page_size"].is_stale
