"""Leads that were sent, and whose rows leave the campaign's source."""

from typing import Any

import pytest

from db.database import Database
from leadloop.core.errors import RunError, UsageError
from leadloop.sandbox import SandboxHandle
from leadloop.settings import Settings
from tasks.opt_in import opt_in_leads
from tasks.opt_out import LeftLeads, opt_out_left
from tests import factories, sql
from tests.jobs import disable_leads, push_leads
from tests.sql import fetch_opt_outs

pytestmark = pytest.mark.usefixtures("quick_retries", "environment")

_PEOPLE = """
INSERT INTO crm.people
SELECT 'L' || n, '+1415' || (5550000 + n), 'Ann', 'NY' FROM generate_series(:first, :last) AS n
"""
_ALL = (
    "SELECT CAST(count(*) AS integer) AS n, array_agg(DISTINCT origin) AS origins"
    " FROM leadloop.disable_requests"
)


@pytest.fixture
def crm(database: Database) -> Database:
    """A database with a campaign that opts out whose rows leave its source."""
    sql.execute(
        database,
        "CREATE SCHEMA crm; CREATE TABLE crm.people"
        " (lead_id text, phone_number text, contact_name text, state_code text)",
    )
    factories.add_campaign(database, source="crm.people", on_source_removal="opt_out")
    return database


def send(database: Database, last: int, first: int = 1) -> None:
    """Have so many people sent."""
    sql.execute(database, _PEOPLE, first=first, last=last)
    assert push_leads()["created"] == last - first + 1


def remove(database: Database, first: int, last: int) -> None:
    """Have their rows vanish, and a push see it."""
    sql.execute(
        database,
        "DELETE FROM crm.people WHERE CAST(substr(lead_id, 2) AS integer) BETWEEN :first AND :last",
        first=first,
        last=last,
    )
    push_leads()


def held(database: Database) -> int:
    """Return how many leads wait for a person, by the problem."""
    query = "SELECT amount FROM leadloop_monitor.problems WHERE problem = 'removals_held'"
    rows = sql.fetch_rows(database, query)
    return rows[0]["amount"] if rows else 0


def count(database: Database) -> tuple[int, Any]:
    """Return the number of opt-outs, and where they come from."""
    (row,) = sql.fetch_rows(database, _ALL)
    return row["n"], row["origins"]


def agree(_: LeftLeads) -> None:
    """Agree to everything."""


def test_a_row_that_leaves_opts_its_lead_out(crm: Database, vendor: SandboxHandle) -> None:
    """Which the vendor then disables; one that was not sent is removed, as ever."""
    send(crm, 3)
    sql.execute(crm, "UPDATE leadloop.campaigns SET push_enabled = false")
    sql.execute(crm, _PEOPLE, first=4, last=4)
    push_leads()
    remove(crm, 3, 4)
    assert fetch_opt_outs(crm) == {"L3": "requested"}
    disable_leads()
    assert set(vendor.store.disabled("C1")) == {"L3"}
    assert count(crm) == (1, ["source_removal"])
    push_leads()
    assert count(crm) == (1, ["source_removal"])


def test_by_default_it_stays(crm: Database, vendor: SandboxHandle) -> None:
    """A view that leaves out whom it has had called opts nobody out."""
    sql.execute(crm, "UPDATE leadloop.campaigns SET on_source_removal = DEFAULT")
    send(crm, 3)
    remove(crm, 1, 3)
    assert (count(crm)[0], held(crm)) == (0, 0)


@pytest.mark.parametrize(("leads", "limit"), [(30, 20), (2_300, 23)])
def test_never_many_at_once(crm: Database, vendor: SandboxHandle, leads: int, limit: int) -> None:
    """Up to the limit at once; one more, and all that are new wait; a day later, they go."""
    send(crm, leads)
    remove(crm, 1, limit + 1)
    assert (count(crm)[0], held(crm)) == (0, limit + 1)
    sql.execute(crm, "INSERT INTO crm.people VALUES ('L1', '+14155550001', 'Ann', 'NY')")
    push_leads()
    assert (count(crm)[0], held(crm)) == (limit, 0)
    remove(crm, 1, 1)
    assert (count(crm)[0], held(crm)) == (limit, 1)
    sql.execute(
        crm, "UPDATE leadloop.disable_requests SET requested_at = requested_at - interval '1 day'"
    )
    push_leads()
    assert (count(crm)[0], held(crm)) == (limit + 1, 0)


def test_a_person_lets_many_go(crm: Database, vendor: SandboxHandle) -> None:
    """Who sees the number first; what a person lets go does not count for the limit."""
    send(crm, 40)
    remove(crm, 1, 30)
    asked: list[LeftLeads] = []

    def refuse(found: LeftLeads) -> None:
        asked.append(found)
        raise RunError("no")

    with pytest.raises(RunError, match=r"^no$"):
        opt_out_left(crm, Settings.load(), "C1", refuse)
    assert asked == [LeftLeads(left=30, leads=40, source="crm.people")]
    assert (count(crm)[0], held(crm)) == (0, 30)
    assert opt_out_left(crm, Settings.load(), "C1", agree) == 30
    assert (count(crm), held(crm)) == ((30, ["person"]), 0)
    remove(crm, 31, 40)
    assert count(crm) == (40, ["person", "source_removal"])
    assert opt_out_left(crm, Settings.load(), "C1", agree) == 0
    assert disable_leads()["disabled"] == 40


def test_more_that_leave_while_a_person_thinks_do_not_go_with_them(
    crm: Database, vendor: SandboxHandle
) -> None:
    """The person agreed to a number."""
    send(crm, 40)
    remove(crm, 1, 30)

    def agree_late(_: LeftLeads) -> None:
        sql.execute(crm, "DELETE FROM crm.people")

    with pytest.raises(RunError, match="left the source: 40, more than the 30 of before"):
        opt_out_left(crm, Settings.load(), "C1", agree_late)
    assert count(crm)[0] == 0


def test_rows_that_cannot_be_read_are_not_gone(crm: Database, vendor: SandboxHandle) -> None:
    """Nobody knows whose they are: nobody opts out meanwhile, not even by a person."""
    send(crm, 5)
    sql.execute(
        crm,
        """CREATE VIEW crm.some AS SELECT lead_id, phone_number, contact_name, state_code,
                  CASE lead_id WHEN 'L5' THEN CAST(contact_name AS integer) END AS age
             FROM crm.people WHERE lead_id <> 'L1';
           UPDATE leadloop.campaigns SET source = 'crm.some'""",
    )
    push_leads()
    assert count(crm)[0] == 0
    with pytest.raises(
        RunError, match="rows of the campaign's source cannot be read: 1, lead 'L5'"
    ):
        opt_out_left(crm, Settings.load(), "C1", agree)
    sql.execute(crm, "UPDATE crm.people SET contact_name = '5' WHERE lead_id = 'L5'")
    push_leads()
    assert fetch_opt_outs(crm) == {"L1": "requested"}


def test_whom_a_person_takes_back_stays(crm: Database, vendor: SandboxHandle) -> None:
    """The row is still gone at each later push."""
    send(crm, 2)
    remove(crm, 1, 1)
    opt_in_leads(crm, Settings.load(), "C1", ["L1"], "it was a mistake")
    push_leads()
    assert fetch_opt_outs(crm) == {}


def test_leads_from_elsewhere_stay(crm: Database, vendor: SandboxHandle) -> None:
    """They never had a row."""
    factories.add_leads(crm, "a")
    assert push_leads()["created"] == 1
    push_leads()
    assert fetch_opt_outs(crm) == {}


def test_a_campaign_without_a_source_has_none_that_left(crm: Database) -> None:
    """In one line."""
    sql.execute(crm, "UPDATE leadloop.campaigns SET source = NULL")
    with pytest.raises(UsageError, match="campaign C1 has no source"):
        opt_out_left(crm, Settings.load(), "C1", agree)


def test_nobody_opts_out_while_row_level_security_hides_all_rows(
    crm: Database, vendor: SandboxHandle, source_login: str
) -> None:
    """All rows look as if they had left; a person cannot agree to that either."""
    sql.execute(
        crm,
        f"GRANT USAGE ON SCHEMA crm TO {source_login};"
        f" GRANT SELECT ON crm.people TO {source_login}",
    )
    send(crm, 3)
    sql.execute(crm, "ALTER TABLE crm.people ENABLE ROW LEVEL SECURITY")
    push_leads()
    assert (count(crm)[0], held(crm)) == (0, 0)
    with pytest.raises(RunError, match="row level security applies"):
        opt_out_left(crm, Settings.load(), "C1", agree)
    assert count(crm)[0] == 0
