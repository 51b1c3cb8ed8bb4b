"""What a run says of itself in Prefect's page: its name, its final state, its artifacts."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import ClassVar

import pytest
import requests
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings

from db.database import Database
from flows import audit
from flows.audit import audit_leads
from flows.disable import disable_leads
from flows.poll import backfill_outcomes, poll_outcomes
from flows.push import push_leads
from flows.reporting import make_artifact_key
from flows.sync import sync_leads
from leadloop.sandbox import SandboxHandle
from tasks.audit import AUDIT
from tests import factories, sql
from tests.factories import CAMPAIGN
from tests.prefect_events import collect_events, is_event_of
from tests.prefect_runs import list_artifacts, read_artifacts, run_flow

pytestmark = pytest.mark.usefixtures("prefect", "environment")


def test_a_run_says_in_words_what_it_did(database: Database, vendor: SandboxHandle) -> None:
    """Name, state and table tell campaign and counts, nobody's data; callers get the sums."""
    factories.add_campaign(database)
    factories.add_leads(database, "A", "B", factories.build_lead("C", state_code="XX"))
    state, run = run_flow(push_leads, campaigns=[CAMPAIGN])
    assert run.name == f"push-leads {CAMPAIGN}"
    assert state.message == "created 2, rejected 1, requests 1"
    assert state.result()["created"] == 2
    told = str(read_artifacts(run)["markdown"].data)
    assert f"| {CAMPAIGN} | 2 | 1 |{' 0 |' * 8} 1 |" in told
    assert "+1" not in told


def test_names_of_runs(database: Database, vendor: SandboxHandle) -> None:
    """None named, many named, a range: each is told as short as it goes."""
    ids = [f"C{number}" for number in range(5)]
    for campaign in ids:
        factories.add_campaign(database, campaign)
    assert run_flow(disable_leads)[1].name == "disable-leads every campaign"
    assert run_flow(disable_leads, campaigns=ids)[1].name == "disable-leads C0, C1, C2 and 2 more"
    after, before = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    _, run = run_flow(backfill_outcomes, after=after, before=before, campaigns=["C1"])
    assert run.name == "backfill-outcomes C1 after 2026-01-01 00:00 before 2026-01-02 00:00"


def test_a_poll_is_named_by_what_it_reads(database: Database, vendor: SandboxHandle) -> None:
    """From the earliest start of its campaigns to now, as soon as it is known; else no range."""
    for campaign, sent in (("C1", "2026-01-02T09:30:30Z"), ("C2", "2026-01-01T10:15:30Z")):
        factories.add_campaign(database, campaign, lookback_s=0)
        assert " after " not in str(run_flow(poll_outcomes, campaigns=[campaign])[1].name)
        factories.add_leads(database, "A", campaign=campaign)
        sql.execute(database, f"UPDATE leadloop.leads SET sent_at = '{sent}' WHERE sent_at IS NULL")
    name = str(run_flow(poll_outcomes)[1].name)
    now = sql.fetch_value(database, "SELECT now()").astimezone(UTC)
    assert name.startswith("poll-outcomes every campaign after 2026-01-01 10:15 before ")
    assert f"before {now:%Y-%m-%d}" in name


def test_a_run_that_fails_says_what_it_did_all_the_same(
    database: Database, vendor: SandboxHandle
) -> None:
    """One campaign fails: the state says which, why, and the counts of all; once, of a sync."""
    factories.add_campaign(database)
    factories.add_campaign(database, "GONE")
    factories.add_leads(database, "A")
    factories.add_leads(database, "A", campaign="GONE")
    vendor.change_rules(campaigns={CAMPAIGN: "Fine"})
    state, _ = run_flow(sync_leads)
    message = str(state.message)
    assert state.is_failed()
    assert "push: campaign GONE: " in message
    assert message.count("created 1") == 1
    assert "; done: disable: nothing to do; push: created 1, requests " in message


def test_a_run_that_found_nothing_leaves_nothing(database: Database) -> None:
    """A run a minute for years: only those that did something have a table."""
    factories.add_campaign(database)
    state, run = run_flow(disable_leads)
    assert state.message == "nothing to do"
    assert read_artifacts(run) == {}


def test_a_run_in_stages_says_each(database: Database, vendor: SandboxHandle) -> None:
    """Of a sync one reads what each of its three did."""
    factories.add_campaign(database)
    factories.add_leads(database, "A")
    state, run = run_flow(sync_leads)
    assert "disable: nothing to do; push: created 1, requests 1; poll: " in str(state.message)
    told = str(read_artifacts(run)["markdown"].data)
    assert "### push: created 1, requests 1\n" in told
    assert f"| {CAMPAIGN} | 1 |{' 0 |' * 9} 1 |" in told
    assert "### poll: " in told
    assert "### disable" not in told
    with get_client(sync_client=True) as client:
        stages = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run.id])
            )
        )
    assert len(stages) == 3
    assert [list_artifacts(each) for each in [*stages, run]] == [[], [], [], list_artifacts(run)]
    assert len(list_artifacts(run)) == 1


def test_ids_cannot_format_an_artifact(database: Database, vendor: SandboxHandle) -> None:
    """Whatever a campaign's id holds, the artifact shows it, in its own cell."""
    factories.add_campaign(database, "C|*1* <img>")
    factories.add_leads(database, "A", campaign="C|*1* <img>")
    _, run = run_flow(push_leads)
    assert r"| C\|\*1\* \<img\> | 1 |" in str(read_artifacts(run)["markdown"].data)


def test_a_link_to_the_page(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a run to the page that shows the rest, where there is one."""
    monkeypatch.setenv("LEADLOOP_PAGE_URL", "https://leads.example.com/page")
    factories.add_campaign(database)
    factories.add_leads(database, "A")
    _, run = run_flow(push_leads)
    assert "(https://leads.example.com/page)" in str(read_artifacts(run)["markdown"].data)


def test_what_is_wrong_is_told_by_the_rules_of_the_page(
    database: Database, vendor: SandboxHandle, prefect: str
) -> None:
    """As `status` has it, after a run that did something else; of that campaign, without data."""
    factories.add_campaign(database)
    factories.add_campaign(database, "C2")
    factories.add_leads(database, factories.build_lead("A", inserted_at="2026-01-01T00:00:00Z"))
    factories.add_leads(database, "A", campaign="C2")
    runs: list[FlowRun] = []
    (event,) = [
        event
        for event in collect_events(prefect, lambda: runs.append(run_flow(disable_leads)[1]))
        if event.event.startswith("leadloop.problem.") and is_event_of(event, runs[0].id)
    ]
    (problem,) = sql.fetch_rows(database, "SELECT * FROM leadloop_monitor.problems")
    assert event.event == "leadloop.problem.leads-unsent"
    assert event.resource.id == f"leadloop.campaign.{CAMPAIGN}"
    assert event.payload == {
        "severity": problem["severity"],
        "amount": 1,
        "command": f"leadloop push --campaign {CAMPAIGN}",
        "since": problem["since"].isoformat(),
    }


class _Forgetful(BaseHTTPRequestHandler):
    """Hands on to Prefect whatever is asked, and loses its answer to the first final state."""

    protocol_version = "HTTP/1.1"
    api: ClassVar[str]
    lost: ClassVar[list[str]]

    def _hand_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {key: value for key, value in self.headers.items() if key != "Host"}
        answer = requests.request(self.command, self.api + self.path, data=body, headers=headers)
        if self.path.endswith("/set_state") and b"COMPLETED" in body and not self.lost:
            self.lost.append(self.path)
            self.close_connection = True
            return
        self.send_response(answer.status_code)
        self.send_header("Content-Type", answer.headers.get("Content-Type", "application/json"))
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    do_GET = do_POST = do_PATCH = _hand_on  # noqa: N815 - the names that http.server looks for

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def forgetful(prefect: str) -> Iterator[type[_Forgetful]]:
    """A way to Prefect on which one answer is lost."""
    _Forgetful.api, _Forgetful.lost = prefect.removesuffix("/api"), []
    with ThreadingHTTPServer(("127.0.0.1", 0), _Forgetful) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/api"
        with temporary_settings({PREFECT_API_URL: address}):
            yield _Forgetful
        server.shutdown()


def test_a_stage_is_done_though_prefect_has_lost_its_answer(
    database: Database, vendor: SandboxHandle, forgetful: type[_Forgetful]
) -> None:
    """Its counts are told all the same, and the next stages have their turn."""
    factories.add_campaign(database)
    factories.add_leads(database, "A", "B")
    factories.add_opt_outs(database, "B")
    summary = sync_leads()
    assert forgetful.lost
    assert summary["disable"]["cancelled"] == 1
    assert summary["push"]["created"] == 1
    assert summary["poll"]["windows"] == 1


def test_prefect_is_told_in_aggregates(
    database: Database, vendor: SandboxHandle, prefect: str
) -> None:
    """An event with the counts for each campaign that differs; its artifact, by its key; no id."""
    factories.add_campaign(database)
    factories.add_campaign(database, "12345")
    factories.add_leads(database, "lead-a", "lead-b")
    factories.add_leads(database, "lead-c", campaign="12345")
    push_leads()
    sql.execute(database, "UPDATE leadloop.leads SET status = 'rejected' WHERE lead_id = 'lead-a'")
    runs: list[FlowRun] = []
    events = collect_events(
        prefect, lambda: runs.append(run_flow(audit_leads)[1]), "leadloop.audit.differences"
    )
    (run,) = runs
    assert [
        (event.resource.id, event.payload) for event in events if is_event_of(event, run.id)
    ] == [("leadloop.campaign.C1", {"rejected_but_there": 1})]
    tables = {
        str(each.key).removeprefix("leadloop-audit-"): {
            row["count"]: row["leads"] for row in json.loads(str(each.data))
        }
        for each in list_artifacts(run)
    }
    counts = ("seen", "rejected_but_there", "missing_there")
    assert {key: tuple(rows[name] for name in counts) for key, rows in tables.items()} == {
        make_artifact_key("", CAMPAIGN).strip("-"): (2, 1, 0),
        "12345": (1, 0, 0),
    }
    assert all(set(rows) == set(AUDIT.counts) for rows in tables.values())
    assert list(tables["12345"])[:3] == ["pages", "seen", "missing_there"]
    assert [each.description for each in list_artifacts(run) if str(each.key).endswith("5")] == [
        "Campaign 12345: no difference; leads at the vendor: 1"
    ]
    assert not re.search("lead-[abc]", str(list_artifacts(run)))


def test_an_audit_of_many_campaigns_shows_those_that_differ(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many artifacts as there may be; the log names how many campaigns have none."""
    monkeypatch.setattr(audit, "_MAX_ARTIFACTS", 1)
    for campaign in ("1", "2", "3"):
        factories.add_campaign(database, campaign)
    factories.add_leads(database, "a", campaign="2")
    push_leads()
    sql.execute(database, "DELETE FROM leadloop.leads")
    _, run = run_flow(audit_leads)
    assert [each.key for each in list_artifacts(run)] == ["leadloop-audit-2"]


def test_a_key_names_one_campaign() -> None:
    """Prefect takes lowercase letters, digits and dashes alone."""
    ids = ["12345", "up-east", "UP-EAST", "up east", "up_east", "|", "ü", "-", "-a", "a" * 90]
    keys = [make_artifact_key("leadloop-audit", campaign_id) for campaign_id in ids]
    assert keys[:2] == ["leadloop-audit-12345", "leadloop-audit-up-east"]
    assert len(set(keys)) == len(ids)
    assert all(re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", key) for key in keys)
    assert max(map(len, keys)) <= 80
