"""The counts of the benchmark that are quick to take, so that they stay what they are."""

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
from leadloop.sandbox import Handle
from tests import factories, sql
from tests.bench import report
from tests.factories import CAMPAIGN


@pytest.mark.usefixtures("environment")
def test_no_request_is_made_that_the_work_does_not_need(
    database: Database, vendor: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A push of n leads takes ceil(n / batch), an idle poll one, and nothing to do takes none."""
    monkeypatch.setenv("LEADLOOP_SETTLE", "0")
    factories.add_campaign(database, batch_size=100, lookback_s=0)
    assert push_leads()["requests"] == disable_leads()["requests"] == 0
    factories.add_leads(database, *(f"L{number}" for number in range(450)))
    assert push_leads()["requests"] == ceil(450 / 100)
    assert push_leads()["requests"] == 0
    poll_outcomes()
    assert poll_outcomes()["requests"] == 1
    assert len(vendor.requests) == 5 + 1 + 1


@pytest.mark.usefixtures("environment", "vendor")
def test_a_sync_waits_for_one_heartbeat(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """Each ends its flow run up to a second late, and a sync's stages live and die with it."""
    factories.add_campaign(database)
    with (
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: 30}),
        caplog.at_level("DEBUG", logger="prefect.flow_runs"),
    ):
        assert sync_leads().keys() == {"disable", "push", "poll"}
    begun = [line for line in caplog.messages if "Started flow run heartbeat" in line]
    assert len(begun) == 1


def test_a_lead_writes_few_records_to_the_log_of_postgres(database: Database) -> None:
    """To claim it: its lock, its row, and its place in two indexes; to record it: one index less.

    A few more are due to pages that are split or cleaned up.
    """
    factories.add_campaign(database)
    factories.add_leads(database, *(f"{number:04d}" for number in range(1000)))
    query = """INSERT INTO leadloop.sync_runs (flow, campaign_id)
               VALUES ('push-leads', :campaign) RETURNING run_id"""
    ours = {"campaign": CAMPAIGN, "run": sql.fetch_value(database, query, campaign=CAMPAIGN)}
    with database.autocommit() as connection:
        parameters = {**ours, "claim": 1, "most": 1000, "after": 0, "while_enabled": True}
        claimed = _records(connection, leads._CLAIM, **parameters)
        sent = [
            row["lead_id"] for row in sql.fetch_rows(database, "SELECT lead_id FROM leadloop.leads")
        ]
        recorded = _records(connection, leads._CREATED, **ours, claim=1, ids=sent)
    assert claimed <= 4.5 * 1000
    assert recorded <= 3.5 * 1000


def test_a_section_is_put_in_place_of_the_one_before(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts are run one by one: the others' figures stay, and what was found stands at the end."""
    document = tmp_path / "benchmarks.md"
    monkeypatch.setattr(report, "DOCUMENT", document)
    for title, measured in (("Push", "1 s"), ("Poll", "2 s"), ("Push", "3 s")):
        figure = report.Figure(what="leadloop", measured=measured)
        section = report.Section(title=title, conditions="", figures=[figure])
        report.write({title: section.told("Machine: any")})
    text = document.read_text()
    assert [text.count(f"| {measured} |") for measured in ("1 s", "2 s", "3 s")] == [0, 1, 1]
    assert text.index("## Push") < text.index("## Poll") < text.index("## What paid")


def _records(connection: Connection, statement: Any, **parameters: Any) -> int:
    explain = text(f"EXPLAIN (ANALYZE, WAL, FORMAT JSON) {statement.text}")
    (plan,) = connection.execute(explain, parameters).scalar_one()
    return max(int(node.get("WAL Records", 0)) for node in _nodes(plan["Plan"]))


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", []):
        yield from _nodes(part)
