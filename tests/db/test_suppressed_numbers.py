"""The index of suppressed numbers: filled from opted-out leads, checked before a send."""

import pytest
from sqlalchemy import Connection, text

from db import suppressed_numbers


@pytest.fixture
def opted_out(connection: Connection) -> Connection:
    """Return a transaction with an opted-out lead `a` and another lead `b`."""
    connection.execute(
        text("INSERT INTO leadloop.campaigns (campaign_id, default_region) VALUES ('C1', 'IN')")
    )
    connection.execute(
        text("""
        INSERT INTO leadloop.leads (campaign_id, lead_id, phone_number)
        VALUES ('C1', 'a', '+14155550100'), ('C1', 'b', '+14155550101')
        """)
    )
    connection.execute(
        text("INSERT INTO leadloop.disable_requests (campaign_id, lead_id) VALUES ('C1', 'a')")
    )
    return connection


def test_a_number_is_suppressed_once_it_is_indexed(opted_out: Connection) -> None:
    """Until then the index reports that an opted-out lead is missing in it."""
    assert suppressed_numbers.find_suppressed(opted_out, [b"a", b"b"], region="US") == (set(), True)
    (found,) = suppressed_numbers.list_unindexed(opted_out, region="US", limit=9)
    assert (found.lead_id, found.phone_number, found.region) == ("a", "+14155550100", "IN")
    suppressed_numbers.index_numbers(opted_out, [(found, b"a")])
    assert suppressed_numbers.find_suppressed(opted_out, [b"a", b"b"], region="US") == (
        {b"a"},
        False,
    )
    assert list(suppressed_numbers.iter_unindexed(opted_out, region="US")) == []


def test_a_batch_does_not_search_all_leads(connection: Connection) -> None:
    """Each batch asks whether an opted-out lead is not indexed yet; mostly none is."""
    connection.execute(
        text("""
        INSERT INTO leadloop.campaigns (campaign_id) VALUES ('C1');
        INSERT INTO leadloop.leads (campaign_id, lead_id, status, opted_out, number_noted)
        SELECT 'C1', lpad(CAST(n AS text), 5, '0'), 'created', n % 5 = 0, n % 5 = 0
          FROM generate_series(1, 20000) AS n
        """)
    )
    connection.execute(text("ANALYZE leadloop.leads, leadloop.campaigns"))
    read = text("""
    SELECT seq_tup_read FROM pg_stat_xact_user_tables
     WHERE relid = CAST('leadloop.leads' AS regclass)
    """)
    before = connection.scalar(read)
    assert suppressed_numbers.find_suppressed(connection, [b"a"], region="US") == (set(), False)
    assert connection.scalar(read) == before


def test_a_lead_without_a_callable_number_counts_as_indexed(opted_out: Connection) -> None:
    """It is not listed again by every push."""
    (found,) = suppressed_numbers.iter_unindexed(opted_out, region="US")
    suppressed_numbers.index_numbers(opted_out, [(found, None)])
    assert suppressed_numbers.find_suppressed(opted_out, [b"a"], region="US") == (set(), False)


def test_numbers_in_results_are_known_too(opted_out: Connection) -> None:
    """The number may have been corrected at the vendor."""
    opted_out.execute(
        text("""
        INSERT INTO leadloop.lead_outcomes (campaign_id, lead_id, processed_at, raw)
        VALUES ('C1', 'a', now(), '{"phone_number": "+14155550199"}')
        """)
    )
    found = suppressed_numbers.list_known_numbers(opted_out, "C1", ["a"], region="IN")
    assert {number.phone_number for number in found} == {"+14155550100", "+14155550199"}
    assert "4155550199" not in repr(found), "a number must not get into a traceback"


def test_every_database_has_its_own_hash_key(connection: Connection) -> None:
    """The key is random, and stays the same."""
    key = suppressed_numbers.get_hash_key(connection)
    assert len(key) == 32
    assert suppressed_numbers.get_hash_key(connection) == key
