"""`leadloop forget`: the person is gone from the books, and is never called again."""

import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from db import counts, erasure, outcomes
from db.bulk_copy import format_text_row
from db.database import Connection, Database
from flows.audit import audit_leads
from flows.disable import disable_leads
from flows.housekeeping import run_housekeeping
from flows.poll import backfill_outcomes, poll_outcomes
from flows.push import push_leads
from leadloop.core.audit_differences import PERSON_DIFFERENCES
from leadloop.core.results import parse_result
from leadloop.sandbox import SandboxHandle
from leadloop.settings import Settings
from tasks.forget import forget_leads
from tests import factories, sql
from tests.cli.conftest import Command
from tests.factories import CAMPAIGN

pytestmark = pytest.mark.usefixtures("prefect")

_NUMBER, _NAME, _ANSWER = "+14155550177", "Zebulon Quirk", "a secret of Zebulon's"


def everything(database: Database) -> str:
    """All that all tables hold, as text."""
    tables = sql.fetch_rows(
        database, "SELECT table_name FROM information_schema.tables WHERE table_schema = 'leadloop'"
    )
    return "".join(
        str(sql.fetch_rows(database, f"SELECT * FROM leadloop.{table['table_name']}"))
        for table in tables
    )


def person(lead_id: str, **more: Any) -> dict[str, Any]:
    """A lead of theirs."""
    return factories.build_lead(lead_id, phone_number=_NUMBER, contact_name=_NAME, **more)


def test_nothing_personal_is_left(
    invoke: Command, database: Database, vendor: SandboxHandle
) -> None:
    """Not in any table, not after the next poll; the vendor is told, the outcome still counts."""
    factories.add_campaign(database)
    factories.add_leads(database, person("A", custom_fields={"note": _NAME}), "B")
    push_leads()
    attempt = {"reference_id": "r1", "report_keys_order": ["q"], "q": _ANSWER}
    vendor.put_outcomes([{"campaign_id": CAMPAIGN, "lead_id": "A", "attempts": [attempt]}])
    poll_outcomes()
    factories.add_opt_outs(database, "A", reason=f"{_NAME} wrote")
    opt_in = ("opt-in", "--campaign", CAMPAIGN, "--lead-id", "A")
    assert invoke(*opt_in, "--because", f"{_NAME} called again").code == 0
    assert _NAME in everything(database)
    ran = invoke("forget", "--yes", "--campaign", CAMPAIGN, "--lead-id", "A", "--json")
    assert (ran.code, ran.last) == (0, {"forgotten": 1})
    backfill_outcomes(
        after=datetime(2000, 1, 1, tzinfo=UTC), before=sql.fetch_value(database, "SELECT now()")
    )
    left = everything(database)
    for private in (_NUMBER, "4155550177", _NAME, "Zebulon"):
        assert private not in left
    assert disable_leads()["disabled"] == 1
    assert list(vendor.store.disabled(CAMPAIGN)) == ["A"]
    assert sql.fetch_value(database, "SELECT count(*) FROM leadloop.lead_outcomes") == 1
    found = audit_leads()
    assert not any(found[name] for name in PERSON_DIFFERENCES)


def test_the_reason_of_a_rejection_goes_at_once(
    invoke: Command, database: Database, environment: Path
) -> None:
    """The vendor may name the person in it: no sum keeps it until some run begins."""
    factories.add_campaign(database)
    factories.add_leads(database, person("A"))
    for is_folded in (False, True):
        sql.execute(
            database,
            "UPDATE leadloop.leads SET status = 'rejected', last_error = :reason",
            reason=f"name: {_NAME} is unknown",
        )
        if is_folded:
            counts.fold_all_counts(database)
        assert _NAME in everything(database)
        ran = invoke("forget", "--yes", "--campaign", CAMPAIGN, "--lead-id", "A")
        assert ran.code == 0
        assert _NAME not in everything(database)


def test_data_under_an_id_that_is_written_otherwise_is_named(
    invoke: Command, database: Database
) -> None:
    """The vendor writes 7 for 007: it may be the same person, which the person asked decides."""
    factories.add_campaign(database)
    factories.add_leads(database, person("007"), person("A-7"))
    for lead_id in ("7", "a-7 ", "77"):
        sql.execute(
            database,
            "INSERT INTO leadloop.lead_outcomes VALUES ('C1', :id, now(), '1', 'Yes', 2, '{}')",
            id=lead_id,
        )
    ran = invoke(
        "forget", "--yes", "-c", CAMPAIGN, "--lead-id", "007", "--lead-id", "A-7", "--json"
    )
    assert ran.last == {"forgotten": 2}
    assert "kept: data of 7, an id that differs from 007 only in" in ran.err
    assert "leadloop forget --campaign C1 --lead-id 7\n" in ran.err
    assert "kept: data of a-7 , an id that differs from A-7" in ran.err
    assert invoke("forget", "--yes", "-c", CAMPAIGN, "--lead-id", "7").code == 0
    assert "kept" not in invoke("forget", "--yes", "-c", CAMPAIGN, "--lead-id", "007").err


def test_the_number_stays_suppressed(
    invoke: Command, database: Database, vendor: SandboxHandle
) -> None:
    """Under another id or campaign neither; nor does the lead itself come back from its source."""
    for campaign in (CAMPAIGN, "OTHER"):
        factories.add_campaign(database, campaign)
    factories.add_leads(database, person("A"))
    invoke("forget", "--yes", "--campaign", CAMPAIGN, "--lead-id", "A")
    factories.add_leads(database, person("twin"))
    factories.add_leads(database, person("twin"), campaign="OTHER")
    pushed = push_leads()
    assert (pushed["created"], pushed["cancelled"]) == (0, 2)
    assert vendor.store.creations(CAMPAIGN) == vendor.store.creations("OTHER") == {}


def test_people_who_were_never_among_the_leads(
    invoke: Command, database: Database, vendor: SandboxHandle, environment: Path
) -> None:
    """Known from what the vendor told, or from their opt-out: forgotten, also if loaded later."""
    factories.add_campaign(database)
    told = {"phone_number": _NUMBER, "contact_name": _NAME}
    for statement in (
        "INSERT INTO leadloop.lead_outcomes VALUES ('C1', 'told', now(), '1', 'Yes', 2, :told)",
        """INSERT INTO leadloop.outreach_attempts (campaign_id, lead_id, channel, block,
                                                   attempt_key, answers)
           VALUES ('C1', 'called', 'call', 'x', 'r1', :told)""",
        """INSERT INTO leadloop.unreadable_results
           VALUES ('C1', 'x', 'no time', jsonb '{"lead_id"\\: "odd"}' || CAST(:told AS jsonb))""",
    ):
        sql.execute(database, statement, told=json.dumps(told))
    factories.add_opt_outs(database, "stopped", reason=f"{_NAME} has rung")
    ids = ("told", "called", "odd", "stopped")
    named = [part for lead_id in ids for part in ("--lead-id", lead_id)]
    assert invoke("forget", "--yes", "-c", CAMPAIGN, *named, "--json").last == {"forgotten": 4}
    assert sql.fetch_opt_outs(database) == dict.fromkeys(ids, "requested")
    header = "lead_id,phone_number,contact_name,state_code"
    lines = [header, *(f"{lead_id},{_NUMBER},{_NAME},NY" for lead_id in ids)]
    (environment / "more.csv").write_text("\n".join(lines))
    assert invoke("load", "more.csv", "--campaign", CAMPAIGN).code == 0
    left = everything(database)
    assert _NAME not in left
    assert _NUMBER not in left
    assert forget_leads(database, Settings.load(), CAMPAIGN, [*ids, *ids]) == {"forgotten": 4}
    factories.add_leads(database, person("twin"))
    assert push_leads()["created"] == 0
    there, unsent = (
        dict.fromkeys(ids[:2], "created"),
        dict.fromkeys([*ids[2:], "twin"], "cancelled"),
    )
    assert sql.fetch_statuses(database) == there | unsent
    opt_outs = sql.fetch_opt_outs(database)
    assert {opt_outs[lead_id] for lead_id in there} == {"requested"}, "the vendor is yet to be told"


def test_a_requeue_does_not_take_an_opt_out_back(
    invoke: Command, database: Database, vendor: SandboxHandle
) -> None:
    """A rejected lead that the vendor may hold: it is told to stop, whatever is requeued."""
    factories.add_campaign(database)
    factories.add_leads(database, person("A"), person("B"))
    push_leads()
    sql.execute(database, "UPDATE leadloop.leads SET status = 'rejected'")
    invoke("forget", "--yes", "-c", CAMPAIGN, "--lead-id", "A")
    factories.add_opt_outs(database, "B")
    assert invoke("requeue", "--rejected", "--json").last == {"rejected": 0}
    assert push_leads()["created"] == 0
    assert disable_leads()["disabled"] == 2
    assert set(vendor.store.disabled(CAMPAIGN)) == {"A", "B"}


def test_an_opt_out_that_comes_meanwhile_meets_no_deadlock(
    environment: Path, database: Database
) -> None:
    """Upstream inserts it while the lead is being forgotten: it waits, and nobody is thrown out."""
    factories.add_campaign(database)
    factories.add_leads(database, person("A"))
    opt_out = """INSERT INTO leadloop.disable_requests (campaign_id, lead_id)
                 VALUES ('C1', 'A') ON CONFLICT DO NOTHING"""
    with ThreadPoolExecutor(1) as upstream, database.transaction() as connection:
        found = erasure.lock_for_erasure(connection, CAMPAIGN, ["A"])
        inserting = upstream.submit(sql.execute, database, opt_out)
        sql.wait_until_blocked(database)
        erasure.erase_leads(connection, CAMPAIGN, found.known)
        connection.commit()
        inserting.result(timeout=30)
    assert _NAME not in everything(database)


def test_what_upstream_inserts_by_an_older_snapshot_goes_too(
    environment: Path, prefect: str, database: Database
) -> None:
    """The trigger does not see the forget; the next housekeeping empties the row."""
    factories.add_campaign(database)
    factories.add_opt_outs(database, "A")
    with database.transaction() as connection:
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        connection.execute(text("SELECT FROM leadloop.campaigns"))
        forget_leads(database, Settings.load(), CAMPAIGN, ["A"])
        insert = "INSERT INTO leadloop.leads VALUES ('C1', 'A', :number, :name)"
        connection.execute(text(insert), {"number": _NUMBER, "name": _NAME})
    assert _NAME in everything(database), "this shows nothing"
    assert run_housekeeping()["forgotten"] == 1
    assert _NAME not in everything(database)
    assert _NUMBER not in everything(database)
    assert run_housekeeping()["forgotten"] == 0


@pytest.mark.parametrize("first", ["upstream", "forget"])
def test_whoever_is_inserted_while_they_are_forgotten(
    invoke: Command, database: Database, first: str
) -> None:
    """Neither transaction sees the other, and still nothing personal is left."""
    factories.add_campaign(database)
    factories.add_opt_outs(database, "A")

    with ThreadPoolExecutor(1) as other, database.transaction() as connection:
        if first == "upstream":
            insert = "INSERT INTO leadloop.leads VALUES ('C1', 'A', :number, :name)"
            connection.execute(text(insert), {"number": _NUMBER, "name": _NAME})
            second: Callable[[], Any] = partial(
                forget_leads, database, Settings.load(), CAMPAIGN, ["A"]
            )
        else:
            erasure.lock_for_erasure(connection, CAMPAIGN, ["A"])
            erasure.erase_leads(connection, CAMPAIGN, ["A"])
            second = partial(factories.add_leads, database, person("A"))
        done: Future[Any] = other.submit(second)
        sql.wait_until_blocked(database)
        connection.commit()
        done.result()
    assert sql.fetch_statuses(database).keys() == {"A"}
    assert _NAME not in everything(database)


@pytest.mark.parametrize("first", ["poll", "forget"])
def test_what_a_poll_stores_while_they_are_forgotten(
    environment: Path, database: Database, first: str
) -> None:
    """Outcome, attempt, and what cannot be read: stored before or after, none of it personal."""
    factories.add_campaign(database)
    factories.add_leads(database, factories.build_lead("A", status="created"))
    call = {"reference_id": "r1", "called_at": 4000, "q": _ANSWER}
    told = {"lead_id": "A", "processed_at": 5000, "contact_name": _NAME, "call_attempt_1": [call]}
    read = parse_result(told)

    def poll(connection: Connection) -> None:
        outcomes.store_unreadable(connection, CAMPAIGN, [("no time", {**told, "processed_at": 0})])
        outcomes.merge_outcomes(
            connection,
            CAMPAIGN,
            outcomes=[format_text_row(read.outcome)] if read.outcome else [],
            attempts=map(format_text_row, read.attempts),
        )

    def forget(connection: Connection) -> None:
        erasure.lock_for_erasure(connection, CAMPAIGN, ["A"])
        erasure.erase_leads(connection, CAMPAIGN, ["A"])

    one, other = (poll, forget) if first == "poll" else (forget, poll)
    with ThreadPoolExecutor(1) as thread, database.transaction() as connection:
        one(connection)
        done = thread.submit(database.retry, other)
        sql.wait_until_blocked(database)
        connection.commit()
        done.result()
    assert sql.fetch_value(database, "SELECT count(*) FROM leadloop.outreach_attempts") == 1
    assert sql.fetch_value(database, "SELECT count(*) FROM leadloop.lead_outcomes") == 1
    left = everything(database)
    assert _NAME not in left
    assert _ANSWER not in left


@pytest.mark.parametrize("status", ["new", "sending"])
def test_all_or_nobody(invoke: Command, database: Database, status: str) -> None:
    """An id that is not there, or one that is on its way at this moment: one line, exit 2."""
    factories.add_campaign(database)
    factories.add_leads(database, person("A"))
    sql.execute(database, f"UPDATE leadloop.leads SET status = '{status}'")
    more = ["--lead-id", "nobody"] if status == "new" else []
    ran = invoke("forget", "--yes", "-c", CAMPAIGN, "--lead-id", "A", *more)
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
    assert sql.fetch_value(database, "SELECT contact_name FROM leadloop.leads") == _NAME


def test_a_lead_whose_run_is_dead(
    invoke: Command, database: Database, vendor: SandboxHandle
) -> None:
    """Nobody is sending it any more: it is forgotten at once, and found at the vendor later."""
    factories.add_campaign(database)
    factories.add_leads(database, person("A"))
    push_leads()
    factories.orphan_lead(database, "A")
    ran = invoke("forget", "--yes", "-c", CAMPAIGN, "--lead-id", "A", "--json")
    assert (ran.code, ran.last) == (0, {"forgotten": 1})
    assert _NAME not in everything(database)
    push_leads()
    assert sql.fetch_statuses(database) == {"A": "created"}
    assert disable_leads()["disabled"] == 1
    assert vendor.store.creations(CAMPAIGN) == {"A": 1}
