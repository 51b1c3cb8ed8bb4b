"""No personal data and no secret leaks into logs, errors, Prefect or views, even in failures."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from sqlalchemy import make_url

from db.database import Database
from leadloop.sandbox import SandboxHandle
from tests import factories, sql
from tests.conftest import Ran, prefect_login
from tests.factories import CAMPAIGN
from tests.prefect_events import collect_events
from tests.raw_http_server import RawServer, response, run_raw_server

pytestmark = pytest.mark.servers

NAME, CUSTOM, ANSWER = "Quixotina Zanzibarsky", "canary-custom-5fa1", "canary-answer-77b2"
NESTED = "canary-nested-3c9d"
TOKEN, PASSWORD, SECRET = "canary-token-91c3", "canary-password-60d4", "canary-secret-18e5"
DATABASE_PASSWORD = "canary-database-password-42f6"

_ALL_FLOWS = (
    "sync-leads",
    "disable-leads",
    "push-leads",
    "poll-outcomes",
    "backfill-outcomes",
    "audit-leads",
)


def build_phones() -> list[str]:
    """Return the ten digits of every lead's phone number."""
    return [factories.build_phone(4_711_000 + number)[2:] for number in range(40)]


def list_canaries() -> list[str]:
    """Return the texts that must not appear anywhere, including parts of names."""
    return [
        *NAME.split(),
        CUSTOM,
        NESTED,
        ANSWER,
        TOKEN,
        PASSWORD,
        SECRET,
        DATABASE_PASSWORD,
        *build_phones(),
    ]


@dataclass(frozen=True, kw_only=True)
class CanaryLoop:
    """A campaign whose leads are canaries, and a foreign server that must get no request."""

    database: Database
    vendor: SandboxHandle
    foreign_server: RawServer
    directory: Path
    prefect: str
    events: list[str] = field(default_factory=list)

    def add_leads(self, *numbers: int) -> None:
        """Insert new leads."""
        for number in numbers:
            row = factories.build_lead(
                f"L{number}", phone_number=f"+1{build_phones()[number]}", contact_name=NAME
            )
            custom = {"plan": CUSTOM, "kin": [{"name": NESTED}]}
            factories.add_leads(self.database, {**row, "custom_fields": custom})

    def process_leads(self, *numbers: int) -> None:
        """Process leads, with canaries in attempts, blocks and malformed values."""
        odd = {"called_at": CUSTOM, "call_duration": NAME, "reference_id": ANSWER}
        attempts = [{"called_at": self.vendor.now(), "note": ANSWER, "outcome_name": "Yes"}, odd]
        blocks = {"sms_x": {"body": ANSWER, "sent_at": ANSWER, "cost": ANSWER, "status": "sent"}}
        fixed = {"campaign_id": CAMPAIGN, "attempts": attempts, "blocks": blocks}
        self.vendor.put_outcomes([{**fixed, "lead_id": f"L{number}"} for number in numbers])

    def run_flows(self, *flows: str, **more: str) -> str:
        """Run flows in a process that logs at DEBUG; return the output and keep the events."""
        output: list[str] = []

        def work() -> None:
            ran = subprocess.run(
                [sys.executable, "-m", "tests.resilience.debug_run", *flows],
                cwd=Path(__file__).parents[2],
                env={**os.environ, **_debug_environment(self.prefect), **more},
                capture_output=True,
                text=True,
                timeout=120,
            )
            output.append(ran.stdout + ran.stderr)

        self.events.extend(event.model_dump_json() for event in collect_events(self.prefect, work))
        return "".join(output)


def _debug_environment(prefect: str) -> dict[str, str]:
    return {
        "PREFECT_API_URL": prefect,
        "PREFECT_LOGGING_LEVEL": "DEBUG",
        "PREFECT_LOGGING_ROOT_LEVEL": "DEBUG",
        "PREFECT_LOGGING_TO_API_ENABLED": "true",
        "COLUMNS": "1000",
    }


@pytest.fixture
def loop(
    database: Database,
    vendor: SandboxHandle,
    environment: Path,
    prefect: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[CanaryLoop]:
    """Yield the loop; the token and the database's password are canaries too."""
    url = make_url(os.environ["LEADLOOP_DATABASE_URL"])
    url = url.set(password=DATABASE_PASSWORD, username=url.username or "postgres")
    monkeypatch.setenv("LEADLOOP_DATABASE_URL", url.render_as_string(hide_password=False))
    monkeypatch.setenv("LEADLOOP_API_TOKEN", TOKEN)
    vendor.change_rules(tokens=(TOKEN,), client_secret=SECRET, password=PASSWORD)
    factories.add_campaign(database, batch_size=2, page_size=2)
    with run_raw_server(response("200 OK", '{"count": 0, "results": []}')) as elsewhere:
        vendor.change_rules(link_base=elsewhere.url)
        yield CanaryLoop(
            database=database,
            vendor=vendor,
            foreign_server=elsewhere,
            directory=environment,
            prefect=prefect,
        )


def check_no_canary(loop: CanaryLoop, output: str) -> None:
    """Check that no canary is in the output, in Prefect, in its events or in our tables."""
    for logger in ("sqlalchemy", "urllib3", "prefect"):
        assert logger in output, f"{logger} has logged nothing, so the test proves nothing"
    places = {
        "the output of the process": output,
        "Prefect": fetch_prefect_data(loop),
        "Prefect's events": "\n".join(loop.events),
        "our own tables": fetch_own_tables(loop.database),
    }
    for place, text in places.items():
        found = {canary for canary in list_canaries() if canary in text}
        lines = [line[:300] for line in text.splitlines() if any(c in line for c in found)]
        assert found == set(), f"in {place}: {lines[:3]}"
    assert loop.foreign_server.requests == [], (
        "a foreign server got a request, perhaps with the token"
    )


def fetch_prefect_data(loop: CanaryLoop) -> str:
    """Return everything that Prefect's API has about this test's runs, as JSON."""
    ids = fetch_flow_run_ids(loop.database)
    assert ids
    of_runs = {"flow_run_id": {"any_": ids}}
    logs = _fetch_all(loop.prefect, "logs", {"logs": of_runs})
    tasks = _fetch_all(loop.prefect, "task_runs", {"flow_runs": {"id": {"any_": ids}}})
    found = [
        logs,
        tasks,
        _fetch_all(loop.prefect, "artifacts", {"artifacts": of_runs}),
        _fetch_all(loop.prefect, "flow_runs", {"flow_runs": {"id": {"any_": ids}}}),
        *(_fetch(loop.prefect, "flow_run_states", flow_run_id=run_id) for run_id in ids),
        *(_fetch(loop.prefect, "task_run_states", task_run_id=task["id"]) for task in tasks),
        _fetch(loop.prefect, "flows/count", post={}),
    ]
    assert logs, "no log was sent to Prefect"
    return json.dumps(found, ensure_ascii=False, indent=0)


def fetch_flow_run_ids(database: Database) -> list[str]:
    """Return Prefect's ids of this test's runs."""
    query = "SELECT DISTINCT flow_run_id FROM leadloop.sync_runs WHERE flow_run_id IS NOT NULL"
    return [row["flow_run_id"] for row in sql.fetch_rows(database, query)]


def _fetch_all(api: str, kind: str, query: dict[str, Any]) -> list[Any]:
    found: list[Any] = []
    while True:
        page = _fetch(api, f"{kind}/filter", post={**query, "limit": 200, "offset": len(found)})
        found += page
        if len(page) < 200:
            return found


def _fetch(api: str, path: str, *, post: dict[str, Any] | None = None, **params: str) -> Any:
    if post is None:
        answer = requests.get(f"{api}/{path}/", params=params, auth=prefect_login(), timeout=30)
    else:
        answer = requests.post(f"{api}/{path}", json=post, auth=prefect_login(), timeout=30)
    answer.raise_for_status()
    return answer.json()


def fetch_own_tables(database: Database) -> str:
    """Return the contents of all tables and views without personal data, and all stored errors."""
    views = sql.fetch_rows(
        database,
        "SELECT format('%I.%I', schemaname, viewname) AS name FROM pg_views"
        " WHERE schemaname = 'leadloop_monitor'",
    )
    names = [row["name"] for row in views]
    names += [
        f"leadloop.{name}"
        for name in ("sync_runs", "poll_windows", "watermarks", "learned_answers")
    ]
    names += [
        f"leadloop.{name}"
        for name in ("opt_out_source_rows", "opt_out_source_reads", "suppressed_numbers")
    ]
    queries = [f"SELECT row_to_json(t)::text AS line FROM {name} AS t" for name in names]
    queries += [
        f"SELECT last_error AS line FROM leadloop.{table} WHERE last_error IS NOT NULL"
        for table in ("leads", "disable_requests")
    ]
    queries.append("SELECT reason AS line FROM leadloop.unreadable_results")
    return "\n".join(row["line"] for query in queries for row in sql.fetch_rows(database, query))


def test_no_leak_without_failures(loop: CanaryLoop) -> None:
    """The whole loop, with opt-outs, invalid leads, malformed outcomes and wrong `next` links."""
    loop.add_leads(*range(6))
    factories.add_leads(
        loop.database, factories.build_lead("bad", phone_number=build_phones()[6][:-3] + "x")
    )
    factories.add_opt_outs(loop.database, "L0", reason=NAME)
    first = loop.run_flows("push-leads")
    loop.process_leads(*range(1, 6))
    factories.add_opt_outs(loop.database, "L1", "unknown", reason=NAME)
    # Differences for the audit to report.
    change = "UPDATE leadloop.leads SET contact_name = :name, phone_number = :phone"
    other = {"name": "Zanzibarsky the Other", "phone": build_phones()[39]}
    sql.execute(loop.database, f"{change} WHERE lead_id = 'L2'", **other)
    check_no_canary(loop, first + loop.run_flows(*_ALL_FLOWS))
    assert "leadloop-audit" in fetch_prefect_data(loop)
    of_audits = [event for event in loop.events if "leadloop.audit.differences" in event]
    assert any(id_ in event for id_ in fetch_flow_run_ids(loop.database) for event in of_audits)
    assert set(sql.fetch_statuses(loop.database).values()) == {"created", "rejected", "cancelled"}
    assert len(sql.fetch_outcomes(loop.database)) == 5


def build_echo() -> str:
    """Return an error message that echoes the request's personal data."""
    return (
        f"{NAME} ({NAME.upper()}) at +1{build_phones()[0]}, {build_phones()[1]}: plan is not valid,"
        f" nor is kin: {NESTED}"
    )


def test_no_leak_when_the_vendor_fails(loop: CanaryLoop) -> None:
    """Refusals in the vendor's most talkative words, silence, foreign pages and redirects."""
    loop.add_leads(*range(20))
    vendor, away = loop.vendor, f"{loop.foreign_server.url}/x"
    failures: list[dict[str, Any]] = [
        {"kind": "status", "status": 400, "detail": build_echo()},
        {"kind": "status", "status": 413, "detail": build_echo()},
        {"kind": "status", "status": 429, "detail": build_echo(), "headers": {"Retry-After": "0"}},
        {"kind": "status", "status": 500, "detail": build_echo()},
        {"kind": "status", "status": 503, "detail": build_echo()},
        {"kind": "reset"},
        {"kind": "foreign"},
        {"kind": "hang", "seconds": 0.05},
    ]
    for route in ("create", "responses", "disable"):
        for nth, failure in enumerate(failures, 1):
            vendor.add_fault(route=route, nth=nth, **failure)
    factories.add_opt_outs(loop.database, "L19", "nobody")
    output = loop.run_flows("push-leads", "push-leads")
    loop.process_leads(*range(20))
    factories.add_opt_outs(loop.database, *(f"L{number}" for number in range(8)))
    output += loop.run_flows(*_ALL_FLOWS)
    stops: list[dict[str, Any]] = [
        {"kind": "redirect", "url": away},
        {"kind": "status", "status": 401, "detail": build_echo()},
    ]
    for number, stop in enumerate(stops, 20):
        vendor.clear_faults()
        vendor.add_fault(every=1, **stop)
        loop.add_leads(number)
        output += loop.run_flows("push-leads", "poll-outcomes", "audit-leads")
    check_no_canary(loop, output)


def test_no_leak_when_the_login_fails(loop: CanaryLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The OAuth password grant: granted, rejected, redirected, with foreign responses."""
    monkeypatch.delenv("LEADLOOP_API_TOKEN")
    rules = loop.vendor.rules
    for name, text in (
        ("CLIENT_ID", rules.client_id),
        ("CLIENT_SECRET", SECRET),
        ("USERNAME", rules.username),
        ("PASSWORD", PASSWORD),
    ):
        monkeypatch.setenv(f"LEADLOOP_{name}", text)
    loop.add_leads(0, 1)
    away = f"{loop.foreign_server.url}/oauth/token/"
    failures: list[dict[str, Any]] = [
        {"kind": "status", "status": 500, "detail": f"{PASSWORD} {SECRET}"},
        {"kind": "status", "status": 400, "detail": f"{PASSWORD} {SECRET}"},
        {"kind": "redirect", "url": away},
        {"kind": "foreign"},
        {"kind": "reset"},
    ]
    for nth, failure in enumerate(failures, 1):
        loop.vendor.add_fault(route="token", nth=nth, **failure)
    output = loop.run_flows(*(["push-leads"] * 6))
    assert set(sql.fetch_statuses(loop.database).values()) == {"created"}
    check_no_canary(loop, output)


def test_no_leak_when_postgres_fails(loop: CanaryLoop) -> None:
    """Postgres errors that contain a whole row, at every table that a flow writes."""
    loop.add_leads(0, 1, 2, 3)
    output = loop.run_flows("push-leads")
    loop.process_leads(0, 1)
    sql.execute(
        loop.database,
        "CREATE FUNCTION public.raise_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION 'no good: %, %', NEW, '" + NAME + "' USING DETAIL = NEW::text,"
        " HINT = '" + NAME + "'; END $$",
    )
    loop.add_leads(4, 5)
    factories.add_opt_outs(loop.database, "L2", reason=NAME)
    for tables in (("leads", "lead_outcomes", "disable_requests"), ("outreach_attempts",)):
        for table in tables:
            sql.execute(
                loop.database,
                f"CREATE TRIGGER leaks BEFORE INSERT OR UPDATE ON leadloop.{table}"
                " FOR EACH ROW EXECUTE FUNCTION public.raise_row()",
            )
        output += loop.run_flows("disable-leads", "push-leads", "audit-leads", "poll-outcomes")
        for table in tables:
            sql.execute(loop.database, f"DROP TRIGGER leaks ON leadloop.{table}")
    check_no_canary(loop, output)


def test_no_leak_of_an_opt_out_source(loop: CanaryLoop) -> None:
    """Numbers that are good, bad, or raised by the view that has them; and Postgres's errors."""
    loop.add_leads(0, 1, 2)
    sql.execute_script(
        loop.database,
        f"""CREATE SCHEMA crm; CREATE TABLE crm.people (phone_number text, weight integer);
            INSERT INTO crm.people VALUES ('{build_phones()[0]}', 1), ('0{build_phones()[5]}9', 1);
            CREATE FUNCTION crm.rate(one crm.people) RETURNS integer LANGUAGE plpgsql AS $$ BEGIN
                IF one.weight = 0 THEN RAISE EXCEPTION 'no good: %, {NAME}', one; END IF;
                RETURN 1 / (one.weight - 2); END $$;
            CREATE VIEW crm.out AS SELECT '' || phone_number AS phone_number, '{NAME}' AS name
              FROM crm.people WHERE crm.rate(people) IS NOT NULL;
            UPDATE leadloop.campaigns SET opt_out_source = 'crm.out'""",
    )
    output = loop.run_flows("sync-leads")
    assert "are refused, so nobody opts out by them: 1" in output
    for phone, weight in ((build_phones()[6], 2), (build_phones()[7], 0)):
        sql.execute(loop.database, "DELETE FROM crm.people WHERE weight <> 1")
        insert = "INSERT INTO crm.people VALUES (:phone, :weight)"
        sql.execute(loop.database, insert, phone=phone, weight=weight)
        loop.add_leads(8 + weight)
        output += loop.run_flows("sync-leads")
    assert "the campaign's opt-out source 'crm.out' calls a function that fails" in output
    check_no_canary(loop, output)


def test_no_leak_of_a_first_contact(loop: CanaryLoop, leadloop: Callable[..., Ran]) -> None:
    """What it learns is stored and printed: outlines of responses that echo a person's data."""
    loop.add_leads(0, 1)
    for route, nth in (("create", 1), ("create", 3), ("disable", 1)):
        loop.vendor.add_fault(route=route, nth=nth, kind="status", status=400, detail=build_echo())
    named = ("--lead-id", "L0", "--lead-id", "L1")
    ran = leadloop("first-contact", "-c", CAMPAIGN, *named, "--yes", "--repeat-id", "--json")
    assert {"empty_create", "create_success", "repeated_id"} <= set(ran.last["learned"])
    kept = fetch_own_tables(loop.database)
    assert "empty_create" in kept
    for text in (ran.out, ran.err, kept):
        assert {canary for canary in list_canaries() if canary in text} == set()


def test_no_leak_in_command_output(loop: CanaryLoop, leadloop: Callable[..., Ran]) -> None:
    """The output of commands that succeed, are rejected, or reach no server."""
    where = {"PREFECT_API_URL": loop.prefect}
    loop.add_leads(*range(4))
    ran = [leadloop("push", **where)]
    loop.process_leads(*range(4))
    sql.execute(loop.database, "UPDATE leadloop.leads SET contact_name = 'Zanzibarsky'")
    ran += [leadloop("audit", "--repair", **where), leadloop("audit", "--json", **where)]
    assert {each.code for each in ran} == {0}
    assert "name differs" in ran[1].out
    loop.vendor.add_fault(every=1, kind="status", status=400, detail=build_echo())
    loop.add_leads(4)
    failed = [leadloop(command, **where) for command in ("poll", "audit")]
    rejected = leadloop("push", **where)
    loop.vendor.change_rules(tokens=("another",))
    failed.append(leadloop("audit", "--json", **where))
    url = f"postgresql://u:{DATABASE_PASSWORD}@127.0.0.1:1/gone"
    gone = {"LEADLOOP_DATABASE_URL": url, **where}
    failed += [leadloop(command, **gone) for command in ("audit", "status")]
    odd = f"lead_id,phone_number,contact_name,state_code,plan\na,{build_phones()[9]},{NAME}\n"
    (loop.directory / "odd.csv").write_text(odd)
    loaded = leadloop("load", "odd.csv", "--campaign", CAMPAIGN)
    assert 0 not in {each.code for each in failed}
    output = "\n".join(each.out + each.err for each in [*ran, *failed, rejected, loaded])
    found = {canary for canary in list_canaries() if canary in output}
    assert found == set(), [line for line in output.splitlines() if any(c in line for c in found)][
        :3
    ]
