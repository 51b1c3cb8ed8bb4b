"""The rights that the documents list, and no others: enough for the whole loop."""

import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import make_url

from db import owed_windows
from db.database import Database, DatabaseError
from leadloop.core.timestamps import EPOCH
from leadloop.core.windows import Window
from leadloop.sandbox import SandboxHandle
from leadloop.settings import Settings
from tasks.held_creates import release_held, report_restore
from tasks.owed import accept_owed, list_owed, retry_owed
from tests import factories, sql
from tests.conftest import Ran
from tests.jobs import audit_leads, disable_leads, poll_outcomes, push_leads, run_housekeeping

pytestmark = pytest.mark.usefixtures("quick_retries", "environment")

_HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"
_PEOPLE = """
INSERT INTO crm.customers (id, full_name, mobile, home_state, plan)
SELECT n, 'Ann ' || n, '+1415555012' || n, 'NY', 'gold' FROM generate_series(1, 4) AS n
"""


def documented(page: str, first: str) -> str:
    """The SQL of a page that begins so."""
    text = (_HOW_TO / page).read_text(encoding="utf-8")
    blocks: list[str] = re.findall(r"^```sql\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (block,) = [block for block in blocks if block.startswith(first)]
    return block.replace(":", r"\:")


@pytest.fixture
def role(database: Database, monkeypatch: pytest.MonkeyPatch, database_url: str) -> Iterator[str]:
    """The URL under which the role of the documents runs leadloop, on the documents' own view."""
    sql.execute(database, "REVOKE ALL ON SCHEMA public FROM PUBLIC; CREATE ROLE leadloop_run LOGIN")
    try:
        sql.execute(database, documented("grant-permissions.md", "GRANT USAGE"))
        sql.execute(database, documented("bring-your-own-table.md", "CREATE SCHEMA crm"))
        factories.add_campaign(
            database,
            source="crm.leads_for_calls",
            opt_out_source="crm.do_not_call",
            on_source_removal="opt_out",
        )
        url = make_url(database_url).set(username="leadloop_run")
        monkeypatch.setenv("LEADLOOP_DATABASE_URL", url.render_as_string(hide_password=False))
        yield url.render_as_string(hide_password=False)
    finally:
        sql.execute(database, "DROP OWNED BY leadloop_run; DROP ROLE leadloop_run")


def test_they_are_enough_for_the_whole_loop(
    role: str, database: Database, vendor: SandboxHandle, leadloop: Callable[..., Ran]
) -> None:
    """Every command but `init`, which is the owner's."""
    sql.execute(database, _PEOPLE)
    sql.execute(database, "UPDATE crm.customers SET home_state = '?' WHERE id = 4")
    assert leadloop("plan", "--json").last["send"] == 3
    assert push_leads()["created"] == 3
    sql.execute(database, "UPDATE crm.customers SET home_state = 'CA' WHERE id = 4")
    sql.execute(database, "INSERT INTO leadloop.disable_requests VALUES ('C1', '1'), ('C1', '4')")
    summary = push_leads()
    assert (summary["from_source"], summary["created"]) == (0, 0)
    counts = disable_leads()
    assert (counts["disabled"], counts["cancelled"]) == (1, 1)
    sql.execute(database, "UPDATE crm.customers SET wants_calls = false WHERE id = 2")
    sql.execute(database, "DELETE FROM crm.customers WHERE id = 3")
    push_leads()
    counts = disable_leads()
    assert (counts["disabled"], counts["from_opt_out_source"]) == (2, 2)
    assert leadloop("opt-out", "-c", "C1", "--lead-id", "9").code == 0
    assert leadloop("opt-out", "-c", "C1", "--left-source", "--yes").code == 0
    done = {"campaign_id": "C1", "lead_id": "2", "processed_at": int(time.time() * 1000) - 2000}
    vendor.put_outcomes([done])
    assert poll_outcomes()["inserted"] == 1
    assert audit_leads(repair=True)["seen"] == 3
    Path("more.csv").write_text("lead_id\nx\n")
    load = ["load", "more.csv", "--campaign", "another"]
    forget = ["forget", "--campaign", "C1", "--lead-id", "2", "--yes"]
    for command in (load, ["requeue", "--rejected"], ["status"], forget, ["doctor"]):
        assert leadloop(*command).code == 0, command
    assert leadloop("status", "--json").last["campaigns"][0]["processed"] == 1
    assert run_housekeeping()["runs"] == 0


def test_they_are_enough_for_what_is_owed(role: str, database: Database) -> None:
    """A poll records and proves it; a person lists, retries and accepts it."""
    second = [datetime(2026, 1, 31, 9, 0, number, tzinfo=UTC) for number in range(10)]
    sql.execute(database, "UPDATE leadloop.campaigns SET epoch_unit = 's'")
    number = factories.owe_window(database, second[0].isoformat(), second[9].isoformat())
    with Database(role, pool_size=1) as ours:
        for part in (Window(after=second[7], before=second[8]), Window(after=EPOCH, before=EPOCH)):
            ours.run(
                owed_windows.record_failed_read,
                "C1",
                part,
                reason="HTTP 500",
                run_started=second[0],
            )
        for part in (Window(after=second[2], before=second[3]), Window(after=EPOCH, before=EPOCH)):
            assert ours.run(owed_windows.subtract_proven, "C1", part)
        assert len(list_owed(ours, Settings(), ["C1"])) == 2
        assert retry_owed(ours, number).is_due
        assert accept_owed(ours, Settings(), number, "deleted there").is_new


def test_they_are_enough_for_a_hold(role: str, database: Database, vendor: SandboxHandle) -> None:
    """A person reports a restore; an audit releases creates, or the person does."""
    sql.execute(database, _PEOPLE)
    push_leads()
    with Database(role, pool_size=1) as ours:
        report_restore(ours, Settings(), ["C1"])
        past = "UPDATE leadloop.create_holds SET held_at = held_at - interval '1 hour'"
        sql.execute(
            database, f"{past}; DELETE FROM leadloop.leads; DELETE FROM leadloop.sent_leads"
        )
        assert audit_leads(repair=True)["repaired_leads"] == 4
        assert release_held(ours, Settings(), ["C1"], "again").not_held == ["C1"]
        report_restore(ours, Settings(), ["C1"])
        assert release_held(ours, Settings(), ["C1"], "again").released == ["C1"]
    assert push_leads()["created"] == 0


def test_an_opt_out_is_taken_back_by_a_person_with_more_permissions(
    role: str, database: Database, leadloop: Callable[..., Ran]
) -> None:
    """The role of the flows cannot: the opt-out stays, and the line says where the rights are."""
    factories.add_leads(database, "1")
    factories.add_opt_outs(database, "1")
    opt_in = ["opt-in", "--campaign", "C1", "--lead-id", "1", "--because", "mistyped"]
    ran = leadloop(*opt_in)
    assert (ran.code, "docs/how-to/grant-permissions.md" in ran.err) == (1, True)
    assert sql.fetch_opt_outs(database) == {"1": "requested"}
    more = "leadloop.disable_requests, leadloop.suppressed_numbers"
    sql.execute(database, f"GRANT DELETE ON {more} TO leadloop_run")
    assert leadloop(*opt_in).code == 0
    assert sql.fetch_opt_outs(database) == {}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE crm.leads_for_calls SET plan = 'x'",
        "DELETE FROM crm.customers",
        "SELECT FROM crm.customers",
        "DROP TABLE leadloop.leads",
        "ALTER TABLE leadloop.leads ADD x int",
        "CREATE TABLE leadloop.x ()",
        "DELETE FROM leadloop.disable_requests",
        "DELETE FROM leadloop.suppressed_numbers",
        "UPDATE leadloop.number_key SET key = ''",
    ],
)
def test_they_are_no_more_than_that(role: str, statement: str) -> None:
    """The team's tables are not this role's, and no table of ours is to be lost by it."""
    with (
        Database(role, pool_size=1) as ours,
        pytest.raises(DatabaseError, match=r"InsufficientPrivilege \(SQLSTATE 42501\)"),
    ):
        sql.execute(ours, statement)


def test_a_source_that_may_not_be_read_is_told(
    role: str, database: Database, leadloop: Callable[..., Ran]
) -> None:
    """Whether the right is missing on the schema, the view, or what the view's owner reads."""
    line = "this role may not read the campaign's source 'crm.leads_for_calls': GRANT USAGE on"
    for grant in ("SELECT ON crm.leads_for_calls", "USAGE ON SCHEMA crm"):
        sql.execute(database, f"REVOKE {grant} FROM leadloop_run")
        ran = leadloop("plan")
        assert (ran.code, line in ran.err) == (1, True)
        sql.execute(database, f"GRANT {grant} TO leadloop_run")
    sql.execute(database, "ALTER VIEW crm.leads_for_calls SET (security_invoker)")
    ran = leadloop("doctor")
    assert "the view's owner, may not" in ran.out
    assert "source of C1" in ran.out
