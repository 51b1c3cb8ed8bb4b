"""The quick counts of the benchmarks, as regression tests."""

from collections.abc import Iterator
from math import ceil
from typing import Any

import pytest
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from sqlalchemy import Connection, text

from db import leads
from db.database import Database
from flows.disable import disable_leads
from flows.poll import poll_outcomes
from flows.push import push_leads
from flows.sync import sync_leads
from leadloop.sandbox import SandboxHandle
from tests import factories, sql
from tests.benchmarks import report
from tests.factories import CAMPAIGN


@pytest.mark.usefixtures("environment", "prefect")
def test_requests_are_minimal(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A push of n leads takes ceil(n / batch) requests, an idle poll one, other idle runs none."""
    monkeypatch.setenv("LEADLOOP_SETTLE", "0")
    factories.add_campaign(database, batch_size=100, lookback_s=0)
    assert push_leads()["requests"] == disable_leads()["requests"] == 0
    factories.add_leads(database, *(f"L{number}" for number in range(450)))
    assert push_leads()["requests"] == ceil(450 / 100)
    assert push_leads()["requests"] == 0
    poll_outcomes()
    assert poll_outcomes()["requests"] == 1
    assert len(vendor.requests) == 5 + 1 + 1


@pytest.mark.usefixtures("environment", "prefect", "vendor")
def test_sync_has_one_heartbeat(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """A heartbeat ends its flow run up to a second late, so a sync's stages share one."""
    factories.add_campaign(database)
    with (
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: 30}),
        caplog.at_level("DEBUG", logger="prefect.flow_runs"),
    ):
        assert sync_leads().keys() == {"disable", "push", "poll"}
    begun = [line for line in caplog.messages if "Started flow run heartbeat" in line]
    assert len(begun) == 1


def test_few_wal_records_per_lead(database: Database) -> None:
    """A claim writes a lock, a row and two index entries; a record one index entry less.

    Page splits and cleanups add a few records.
    """
    factories.add_campaign(database)
    factories.add_leads(database, *(f"{number:04d}" for number in range(1000)))
    query = """INSERT INTO leadloop.sync_runs (flow, campaign_id)
               VALUES ('push-leads', :campaign) RETURNING run_id"""
    ours = {"campaign": CAMPAIGN, "run": sql.fetch_value(database, query, campaign=CAMPAIGN)}
    with database.autocommit() as connection:
        parameters = {**ours, "claim": 1, "limit": 1000, "after_seq": 0, "require_enabled": True}
        parameters["account"] = "default"
        limits = {"max_bytes": leads.NO_LIMIT, "max_lead_bytes": leads.NO_LIMIT}
        others = {"max_lead_age_s": None, "too_old": None, "urgent_only": False}
        claimed = _count_wal_records(connection, leads._CLAIM, **parameters, **limits, **others)
        sent = [
            row["lead_id"] for row in sql.fetch_rows(database, "SELECT lead_id FROM leadloop.leads")
        ]
        recorded = _count_wal_records(connection, leads._RECORD_CREATED, **ours, claim=1, ids=sent)
    assert claimed <= 4.5 * 1000
    assert recorded <= 3.5 * 1000


def test_section_replaces_its_predecessor(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that runs alone keeps the figures of the others; the findings stay at the end."""
    document = tmp_path / "benchmarks.md"
    monkeypatch.setattr(report, "DOCUMENT", document)
    for title, measured in (("Push", "1 s"), ("Poll", "2 s"), ("Push", "3 s")):
        figure = report.Figure(what="leadloop", measured=measured)
        section = report.Section(title=title, conditions="", figures=[figure])
        report.write_sections({title: section.format_markdown("Machine: any")})
    text = document.read_text()
    assert [text.count(f"| {measured} |") for measured in ("1 s", "2 s", "3 s")] == [0, 1, 1]
    assert text.index("## Push") < text.index("## Poll") < text.index("## What paid")


def _count_wal_records(connection: Connection, statement: Any, **parameters: Any) -> int:
    explain = text(f"EXPLAIN (ANALYZE, WAL, FORMAT JSON) {statement.text}")
    (plan,) = connection.execute(explain, parameters).scalar_one()
    return max(int(node.get("WAL Records", 0)) for node in _iterate_nodes(plan["Plan"]))


def _iterate_nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", []):
        yield from _iterate_nodes(part)
