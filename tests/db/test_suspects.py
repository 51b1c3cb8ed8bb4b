"""Suspects: in which lists leads go out again, and which of their failures count."""

import pytest

from db import in_doubt, suspects
from db.database import Database
from db.leads import ClaimRef
from db.suspects import MAX_LONE_FAILURES
from tests import factories, sql
from tests.factories import CAMPAIGN


def claim(database: Database, *lead_ids: str) -> ClaimRef:
    """Make leads `sending`, as a claim of a run does."""
    sql.execute(
        database,
        "UPDATE leadloop.leads SET status = 'sending', sent_at = now(), run_id = 1, claim_no = 1"
        " WHERE lead_id = ANY(:ids)",
        ids=list(lead_ids),
    )
    return ClaimRef(campaign_id=CAMPAIGN, run_id=1, claim_no=1, lead_ids=lead_ids)


def fail(database: Database, *lead_ids: str, may_exist: bool = True, settle_s: int = 60) -> None:
    """Let a create of these leads fail."""
    failed = claim(database, *lead_ids)
    with database.transaction() as connection:
        suspects.record_failure(
            connection, failed, "HTTP 500", may_exist=may_exist, settle_s=settle_s
        )


def accept(database: Database) -> None:
    """Let the vendor accept another create."""
    with database.transaction() as connection:
        suspects.record_accepted(connection, CAMPAIGN)


def fetch(database: Database, column: str) -> dict[str, object]:
    """Return a column of each lead."""
    rows = sql.fetch_rows(database, f"SELECT lead_id, {column} AS value FROM leadloop.leads")
    return {row["lead_id"]: row["value"] for row in rows}


def test_a_list_goes_out_again_in_halves(database: Database) -> None:
    """In the order of the request; and the halves of a half that fails again likewise."""
    factories.add_campaign(database)
    factories.add_leads(database, *"abcde")
    fail(database, *"abcde")
    lists = fetch(database, "suspect_list")
    assert lists["a"] == lists["b"] != lists["c"] == lists["d"] == lists["e"]
    fail(database, *"cde")
    lists = fetch(database, "suspect_list")
    assert len({lists["a"], lists["c"], lists["d"]}) == 3
    assert (lists["a"], lists["d"]) == (lists["b"], lists["e"])
    assert set(fetch(database, "lone_failures").values()) == {0}


@pytest.mark.parametrize(
    ("events", "a", "b"),
    [
        # Nothing was accepted: the vendor may fail on everybody.
        ("aaa", 0, 0),
        # The create before it was accepted; afterwards none was.
        ("+a", 1, 0),
        ("+aaa", 1, 0),
        ("+a+a+a", 3, 0),
        # Others were accepted since it is suspected, and it is the only one that fails.
        ("+a+aaa", 4, 0),
        # Two that fail alike need another accepted create each time.
        ("+ab", 1, 0),
        ("+ab+ab", 2, 1),
        ("+ab+abab", 2, 1),
        ("+ab+ab+ab", 3, 2),
    ],
)
def test_only_failures_beside_accepted_creates_count(
    database: Database, events: str, a: int, b: int
) -> None:
    """`+` is an accepted create of others, `a` and `b` are failed creates of one lead each."""
    factories.add_campaign(database)
    factories.add_leads(database, "a", "b")
    for event in events:
        if event == "+":
            accept(database)
        else:
            fail(database, event)
    assert fetch(database, "lone_failures") == {"a": a, "b": b}


def test_a_failure_that_does_not_count_delays_the_next_try(database: Database) -> None:
    """By as long as the lead has been suspected, at least the settle time, at most a day."""
    factories.add_campaign(database)
    factories.add_leads(database, "a")
    pause = "extract(epoch FROM next_try_at - last_failed_at)"
    fail(database, "a")
    assert fetch(database, pause)["a"] == pytest.approx(60, abs=1)
    for hours, seconds in ((2, 7200), (100, 86400)):
        sql.execute(
            database, f"UPDATE leadloop.leads SET suspected_at = now() - interval '{hours} hours'"
        )
        fail(database, "a")
        assert fetch(database, pause)["a"] == pytest.approx(seconds, abs=5)


@pytest.mark.parametrize("may_exist", [True, False])
def test_only_a_lead_that_does_not_exist_is_rejected(database: Database, may_exist: bool) -> None:
    """After its last failure, a lead that the vendor may have is in doubt."""
    factories.add_campaign(database)
    factories.add_leads(database, "a")
    for _ in range(MAX_LONE_FAILURES):
        accept(database)
        fail(database, "a", may_exist=may_exist)
    assert sql.fetch_statuses(database) == {"a": "in_doubt" if may_exist else "rejected"}
    assert sql.fetch_errors(database)["a"] == "HTTP 500"


def test_a_failure_that_is_recorded_twice_counts_once(database: Database) -> None:
    """The confirmation of the commit may get lost, and the statement is repeated."""
    factories.add_campaign(database)
    factories.add_leads(database, "a")
    accept(database)
    failed = claim(database, "a")
    for _ in range(2):
        with database.transaction() as connection:
            suspects.record_failure(connection, failed, "HTTP 500", may_exist=True, settle_s=0)
    assert fetch(database, "lone_failures") == {"a": 1}


def test_creates_are_failing_until_one_is_accepted(database: Database) -> None:
    """Then the next run tries a single lead first."""
    factories.add_campaign(database)
    factories.add_leads(database, "a")

    def are_failing() -> bool:
        with database.transaction() as connection:
            return suspects.are_creates_failing(connection, CAMPAIGN)

    assert not are_failing()
    fail(database, "a")
    assert are_failing()
    accept(database)
    assert not are_failing()


@pytest.mark.parametrize("absent", [False, True])
def test_a_success_means_what_the_lookups_of_its_whole_create_have_shown(
    database: Database, absent: bool
) -> None:
    """A vendor that has created some of the leads alone has not created the others."""
    factories.add_campaign(database)
    factories.add_leads(database, *"abc")
    failed = claim(database, *"abc")
    reason = suspects.build_blank_reason(7)
    with database.transaction() as connection:
        suspects.record_failure(connection, failed, reason, may_exist=True, settle_s=60)
        in_doubt.confirm_created(connection, CAMPAIGN, ["a", "b"])
        assert suspects.get_success_shape(connection, CAMPAIGN) is None
        due = in_doubt.DueLookups(campaign=CAMPAIGN, run=2, settle_s=0).list(connection, 9)
        if absent:
            in_doubt.confirm_absent(connection, CAMPAIGN, due)
        else:
            in_doubt.confirm_created(connection, CAMPAIGN, ["c"])
        shape = suspects.get_success_shape(connection, CAMPAIGN)
    assert shape == (None if absent else 7)


@pytest.mark.parametrize("found", ["first", "last"])
def test_creates_are_failing_until_the_last_one_that_failed_is_found(
    database: Database, found: str
) -> None:
    """An earlier create that turns up shows nothing about a later one."""
    factories.add_campaign(database)
    factories.add_leads(database, "first", "one", "last", "another")
    fail(database, "first", "one")
    fail(database, "last", "another")
    with database.transaction() as connection:
        in_doubt.confirm_created(connection, CAMPAIGN, [found])
        assert suspects.are_creates_failing(connection, CAMPAIGN) is (found == "first")


def test_a_create_that_is_found_was_accepted_when_it_was_sent(database: Database) -> None:
    """Its run was killed, so the lookup alone shows it; the other half of the list fails then."""
    factories.add_campaign(database)
    factories.add_leads(database, "good", "bad")
    fail(database, "good", "bad")
    claim(database, "good")
    sql.execute(
        database,
        "UPDATE leadloop.leads SET status = 'in_doubt', doubted_at = now() WHERE lead_id = 'good'",
    )
    with database.transaction() as connection:
        in_doubt.confirm_created(connection, CAMPAIGN, ["good"])
    fail(database, "bad")
    assert fetch(database, "lone_failures")["bad"] == 1
