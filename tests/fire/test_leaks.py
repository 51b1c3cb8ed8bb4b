"""Nothing personal and nothing secret gets out, whatever is logged and whatever goes wrong."""

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
from leadloop.sandbox import Handle
from tests import books
from tests.books import CAMPAIGN
from tests.client.raw_http_server import Listener, listening, response
from tests.conftest import Ran, prefect_login
from tests.watching import watched

pytestmark = pytest.mark.servers

NAME, CUSTOM, ANSWER = "Quixotina Zanzibarsky", "canary-custom-5fa1", "canary-answer-77b2"
TOKEN, PASSWORD, SECRET = "canary-token-91c3", "canary-password-60d4", "canary-secret-18e5"
DATABASE_PASSWORD = "canary-database-password-42f6"

_ALL = (
    "sync-leads",
    "disable-leads",
    "push-leads",
    "poll-outcomes",
    "backfill-outcomes",
    "audit-leads",
)


def phones() -> list[str]:
    """The ten digits of every lead's number."""
    return [books.phone(4_711_000 + number)[2:] for number in range(40)]


def canaries() -> list[str]:
    """What must not be found anywhere; names in parts too."""
    return [*NAME.split(), CUSTOM, ANSWER, TOKEN, PASSWORD, SECRET, DATABASE_PASSWORD, *phones()]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A campaign whose leads are canaries, and where whoever is led astray would end up."""

    database: Database
    vendor: Handle
    elsewhere: Listener
    directory: Path
    prefect: str
    events: list[str] = field(default_factory=list)

    def add(self, *numbers: int) -> None:
        """Leads that nobody has sent yet."""
        for number in numbers:
            row = books.lead(f"L{number}", phone_number=f"+1{phones()[number]}", contact_name=NAME)
            books.add_leads(self.database, {**row, "custom_fields": {"plan": CUSTOM}})

    def process(self, *numbers: int) -> None:
        """Outcomes whose attempts, blocks and odd values are canaries too."""
        odd = {"called_at": CUSTOM, "call_duration": NAME, "reference_id": ANSWER}
        attempts = [{"called_at": self.vendor.now(), "note": ANSWER, "outcome_name": "Yes"}, odd]
        blocks = {"sms_x": {"body": ANSWER, "sent_at": ANSWER, "cost": ANSWER, "status": "sent"}}
        fixed = {"campaign_id": CAMPAIGN, "attempts": attempts, "blocks": blocks}
        self.vendor.put([{**fixed, "lead_id": f"L{number}"} for number in numbers])

    def run(self, *flows: str, **more: str) -> str:
        """Everything that flows say in a process that logs all it can; their events are kept."""
        said: list[str] = []

        def work() -> None:
            ran = subprocess.run(
                [sys.executable, "-m", "tests.fire.loud", *flows],
                cwd=Path(__file__).parents[2],
                env={**os.environ, **_loud(self.prefect), **more},
                capture_output=True,
                text=True,
                timeout=120,
            )
            said.append(ran.stdout + ran.stderr)

        self.events.extend(event.model_dump_json() for event in watched(self.prefect, work))
        return "".join(said)


def _loud(prefect: str) -> dict[str, str]:
    return {
        "PREFECT_API_URL": prefect,
        "PREFECT_LOGGING_LEVEL": "DEBUG",
        "PREFECT_LOGGING_ROOT_LEVEL": "DEBUG",
        "PREFECT_LOGGING_TO_API_ENABLED": "true",
        "COLUMNS": "1000",
    }


@pytest.fixture
def stage(
    database: Database,
    vendor: Handle,
    environment: Path,
    prefect: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Stage]:
    """Both sides, the token and the database's password are canaries."""
    url = make_url(os.environ["LEADLOOP_DATABASE_URL"])
    url = url.set(password=DATABASE_PASSWORD, username=url.username or "postgres")
    monkeypatch.setenv("LEADLOOP_DATABASE_URL", url.render_as_string(hide_password=False))
    monkeypatch.setenv("LEADLOOP_API_TOKEN", TOKEN)
    vendor.change(tokens=(TOKEN,), client_secret=SECRET, password=PASSWORD)
    books.add_campaign(database, batch_size=2, page_size=2)
    with listening(response("200 OK", '{"count": 0, "results": []}')) as elsewhere:
        vendor.change(link_base=elsewhere.url)
        yield Stage(
            database=database,
            vendor=vendor,
            elsewhere=elsewhere,
            directory=environment,
            prefect=prefect,
        )


def require_secrecy(stage: Stage, said: str) -> None:
    """Look for the canaries everywhere where somebody could read them."""
    for loud in ("sqlalchemy", "urllib3", "prefect"):
        assert loud in said, f"{loud} was to log, or this would prove nothing"
    places = {
        "what the process wrote": said,
        "Prefect": prefects(stage),
        "Prefect's events": "\n".join(stage.events),
        "our own tables": ours(stage.database),
    }
    for place, text in places.items():
        found = {canary for canary in canaries() if canary in text}
        lines = [line[:300] for line in text.splitlines() if any(c in line for c in found)]
        assert found == set(), f"in {place}: {lines[:3]}"
    assert stage.elsewhere.requests == [], "somebody else was asked, and may have had the token"


def prefects(stage: Stage) -> str:
    """All that Prefect's API tells of this test's runs."""
    query = "SELECT DISTINCT flow_run_id FROM leadloop.sync_runs WHERE flow_run_id IS NOT NULL"
    ids = [row["flow_run_id"] for row in books.rows(stage.database, query)]
    assert ids
    of_runs = {"flow_run_id": {"any_": ids}}
    logs = _all(stage.prefect, "logs", {"logs": of_runs})
    tasks = _all(stage.prefect, "task_runs", {"flow_runs": {"id": {"any_": ids}}})
    found = [
        logs,
        tasks,
        _all(stage.prefect, "artifacts", {"artifacts": of_runs}),
        _all(stage.prefect, "flow_runs", {"flow_runs": {"id": {"any_": ids}}}),
        *(_get(stage.prefect, "flow_run_states", flow_run_id=run_id) for run_id in ids),
        *(_get(stage.prefect, "task_run_states", task_run_id=task["id"]) for task in tasks),
        _get(stage.prefect, "flows/count", post={}),
    ]
    assert logs, "the logs were to be sent to Prefect"
    return json.dumps(found, ensure_ascii=False, indent=0)


def _all(api: str, kind: str, query: dict[str, Any]) -> list[Any]:
    found: list[Any] = []
    while True:
        page = _get(api, f"{kind}/filter", post={**query, "limit": 200, "offset": len(found)})
        found += page
        if len(page) < 200:
            return found


def _get(api: str, path: str, *, post: dict[str, Any] | None = None, **params: str) -> Any:
    if post is None:
        answer = requests.get(f"{api}/{path}/", params=params, auth=prefect_login(), timeout=30)
    else:
        answer = requests.post(f"{api}/{path}", json=post, auth=prefect_login(), timeout=30)
    answer.raise_for_status()
    return answer.json()


def ours(database: Database) -> str:
    """Every table and view in which no personal data belongs, and all errors that are kept."""
    views = books.rows(
        database,
        "SELECT format('%I.%I', schemaname, viewname) AS name FROM pg_views"
        " WHERE schemaname = 'leadloop_monitor'",
    )
    names = [row["name"] for row in views]
    names += [f"leadloop.{name}" for name in ("sync_runs", "poll_windows", "watermarks")]
    queries = [f"SELECT row_to_json(t)::text AS line FROM {name} AS t" for name in names]
    queries += [
        f"SELECT last_error AS line FROM leadloop.{table} WHERE last_error IS NOT NULL"
        for table in ("leads", "disable_requests")
    ]
    queries.append("SELECT reason AS line FROM leadloop.unreadable_results")
    return "\n".join(row["line"] for query in queries for row in books.rows(database, query))


def test_nothing_leaks_where_all_is_well(stage: Stage) -> None:
    """The whole loop, with opt-outs, bad leads, odd outcomes and the vendor's own wrong links."""
    stage.add(*range(6))
    books.add_leads(stage.database, books.lead("bad", phone_number=phones()[6][:-3] + "x"))
    books.opt_out(stage.database, "L0", reason=NAME)
    first = stage.run("push-leads")
    stage.process(*range(1, 6))
    books.opt_out(stage.database, "L1", "unknown", reason=NAME)
    # Differences, for the audit to tell of.
    change = "UPDATE leadloop.leads SET contact_name = :name, phone_number = :phone"
    other = {"name": "Zanzibarsky the Other", "phone": phones()[39]}
    books.run(stage.database, f"{change} WHERE lead_id = 'L2'", **other)
    require_secrecy(stage, first + stage.run(*_ALL))
    assert "leadloop-audit" in prefects(stage)
    assert any("leadloop.audit.differences" in event for event in stage.events)
    assert set(books.statuses(stage.database).values()) == {"created", "rejected", "cancelled"}
    assert len(books.outcomes(stage.database)) == 5


def words() -> str:
    """What a vendor may say who repeats everything it was sent."""
    return f"{NAME} ({NAME.upper()}) at +1{phones()[0]}, {phones()[1]}: plan is not valid"


def test_nothing_leaks_where_the_vendor_fails(stage: Stage) -> None:
    """Refusals in the vendor's most talkative words, silence, foreign pages and redirects."""
    stage.add(*range(20))
    vendor, away = stage.vendor, f"{stage.elsewhere.url}/x"
    failures: list[dict[str, Any]] = [
        {"kind": "status", "status": 400, "detail": words()},
        {"kind": "status", "status": 413, "detail": words()},
        {"kind": "status", "status": 429, "detail": words(), "headers": {"Retry-After": "0"}},
        {"kind": "status", "status": 500, "detail": words()},
        {"kind": "status", "status": 503, "detail": words()},
        {"kind": "reset"},
        {"kind": "foreign"},
        {"kind": "hang", "seconds": 0.05},
    ]
    for route in ("create", "responses", "disable"):
        for nth, failure in enumerate(failures, 1):
            vendor.fault(route=route, nth=nth, **failure)
    books.opt_out(stage.database, "L19", "nobody")
    said = stage.run("push-leads", "push-leads")
    stage.process(*range(20))
    books.opt_out(stage.database, *(f"L{number}" for number in range(8)))
    said += stage.run(*_ALL)
    stops: list[dict[str, Any]] = [
        {"kind": "redirect", "url": away},
        {"kind": "status", "status": 401, "detail": words()},
    ]
    for number, stop in enumerate(stops, 20):
        vendor.clear_faults()
        vendor.fault(every=1, **stop)
        stage.add(number)
        said += stage.run("push-leads", "poll-outcomes", "audit-leads")
    require_secrecy(stage, said)


def test_nothing_leaks_where_the_login_fails(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The password grant: granted, refused, redirected, answered by strangers."""
    monkeypatch.delenv("LEADLOOP_API_TOKEN")
    rules = stage.vendor.rules
    for name, text in (
        ("CLIENT_ID", rules.client_id),
        ("CLIENT_SECRET", SECRET),
        ("USERNAME", rules.username),
        ("PASSWORD", PASSWORD),
    ):
        monkeypatch.setenv(f"LEADLOOP_{name}", text)
    stage.add(0, 1)
    away = f"{stage.elsewhere.url}/oauth/token/"
    failures: list[dict[str, Any]] = [
        {"kind": "status", "status": 500, "detail": f"{PASSWORD} {SECRET}"},
        {"kind": "status", "status": 400, "detail": f"{PASSWORD} {SECRET}"},
        {"kind": "redirect", "url": away},
        {"kind": "foreign"},
        {"kind": "reset"},
    ]
    for nth, failure in enumerate(failures, 1):
        stage.vendor.fault(route="token", nth=nth, **failure)
    said = stage.run(*(["push-leads"] * 6))
    assert set(books.statuses(stage.database).values()) == {"created"}
    require_secrecy(stage, said)


def test_nothing_leaks_where_postgres_fails(stage: Stage) -> None:
    """Errors of Postgres that repeat a whole row, at every table that a flow writes."""
    stage.add(0, 1, 2, 3)
    said = stage.run("push-leads")
    stage.process(0, 1)
    books.run(
        stage.database,
        "CREATE FUNCTION public.tell_all() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION 'no good: %, %', NEW, '" + NAME + "' USING DETAIL = NEW::text,"
        " HINT = '" + NAME + "'; END $$",
    )
    stage.add(4, 5)
    books.opt_out(stage.database, "L2", reason=NAME)
    for tables in (("leads", "lead_outcomes", "disable_requests"), ("outreach_attempts",)):
        for table in tables:
            books.run(
                stage.database,
                f"CREATE TRIGGER tells BEFORE INSERT OR UPDATE ON leadloop.{table}"
                " FOR EACH ROW EXECUTE FUNCTION public.tell_all()",
            )
        said += stage.run("disable-leads", "push-leads", "audit-leads", "poll-outcomes")
        for table in tables:
            books.run(stage.database, f"DROP TRIGGER tells ON leadloop.{table}")
    require_secrecy(stage, said)


def test_nothing_leaks_on_the_screen(stage: Stage, leadloop: Callable[..., Ran]) -> None:
    """What a person sees of commands that go well, are refused, or reach nobody."""
    where = {"PREFECT_API_URL": stage.prefect}
    stage.add(*range(4))
    ran = [leadloop("push", **where)]
    stage.process(*range(4))
    books.run(stage.database, "UPDATE leadloop.leads SET contact_name = 'Zanzibarsky'")
    ran += [leadloop("audit", "--repair", **where), leadloop("audit", "--json", **where)]
    assert {each.code for each in ran} == {0}
    assert "name differs" in ran[1].out
    stage.vendor.fault(every=1, kind="status", status=400, detail=words())
    stage.add(4)
    failed = [leadloop(command, **where) for command in ("poll", "audit")]
    rejected = leadloop("push", **where)
    stage.vendor.change(tokens=("another",))
    failed.append(leadloop("audit", "--json", **where))
    url = f"postgresql://u:{DATABASE_PASSWORD}@127.0.0.1:1/gone"
    gone = {"LEADLOOP_DATABASE_URL": url, **where}
    failed += [leadloop(command, **gone) for command in ("audit", "status")]
    odd = f"lead_id,phone_number,contact_name,state_code,plan\na,{phones()[9]},{NAME}\n"
    (stage.directory / "odd.csv").write_text(odd)
    loaded = leadloop("load", "odd.csv", "--campaign", CAMPAIGN)
    assert 0 not in {each.code for each in failed}
    said = "\n".join(each.out + each.err for each in [*ran, *failed, rejected, loaded])
    found = {canary for canary in canaries() if canary in said}
    assert found == set(), [line for line in said.splitlines() if any(c in line for c in found)][:3]
