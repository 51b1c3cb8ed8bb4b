"""`leadloop metrics`: what Prometheus scrapes."""

import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Connection, Engine, event

from db.database import Database
from leadloop.cli.integration import Integration, read_integration
from leadloop.cli.metrics import CampaignCollector
from leadloop.monitor.request_guard import MAX_CONNECTIONS
from tests import factories, sql
from tests.cli.conftest import Command

_LEADLOOP = str(Path(sys.executable).with_name("leadloop"))


def scraped(url: str) -> dict[tuple[str, ...], float]:
    """Every sample, by its name and the values of its labels."""
    families = text_string_to_metric_families(httpx.get(url, trust_env=False, timeout=60).text)
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def test_scrapes_follow_the_state(environment: Path, database: Database) -> None:
    """Counts, ages and problems by campaign, no personal data; Ctrl-C ends it with exit 0.

    Another web page, and another name of this machine, get nothing.
    """
    factories.add_campaign(database)
    factories.add_leads(database, factories.build_lead("A", contact_name="Zebulon Quirk"), "B")
    factories.owe_window(database, "2026-01-31T09:00:00Z", "2026-01-31T09:00:01Z")
    with subprocess.Popen(
        [_LEADLOOP, "metrics", "--port", "0", "--allowed-host", "metrics.example"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        before = scraped(url)
        sql.execute(database, "UPDATE leadloop.leads SET inserted_at = now() - interval '1 day'")
        problem = ("leadloop_problems", "C1", "leads_unsent", "warning")
        while problem not in (after := scraped(url)):
            time.sleep(0.1)
        codes = [
            httpx.request(method, url, headers=headers, trust_env=False).status_code
            for method, headers in (
                ("GET", {"host": "evil.example"}),
                ("GET", {"origin": "http://evil.example"}),
                ("POST", {}),
                ("GET", {"host": "metrics.example"}),
            )
        ]
        page = httpx.get(url, trust_env=False, timeout=60).text
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert before["leadloop_up",] == 1
    assert before["leadloop_leads", "C1", "new"] == 2
    assert before["leadloop_windows_owed", "C1"] == 1
    assert before["leadloop_windows_accepted", "C1"] == 0
    assert ("leadloop_problems", "C1", "leads_unsent", "warning") not in before
    assert codes == [403, 403, 405, 200]
    assert after[problem] == 2
    assert after["leadloop_new_oldest_seconds", "C1"] > 80_000
    assert "Zebulon" not in page


def test_connections_are_limited(environment: Path, database: Database) -> None:
    """One more than the limit is refused; when others have gone, it is answered."""
    with (
        subprocess.Popen(
            [_LEADLOOP, "metrics", "--port", "0"], stdout=subprocess.PIPE, text=True
        ) as process,
        ExitStack() as stack,
    ):
        stack.callback(process.terminate)
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        address = ("127.0.0.1", urlsplit(url).port)
        others = [
            stack.enter_context(socket.create_connection(address)) for _ in range(MAX_CONNECTIONS)
        ]
        assert httpx.get(url, trust_env=False, timeout=60).status_code == 503
        for other in others:
            other.close()
        while httpx.get(url, trust_env=False, timeout=60).status_code == 503:
            time.sleep(0.1)


def test_latencies_are_a_histogram(database: Database) -> None:
    """Each bucket contains the ones below it; it is the total, not the last hour."""
    add_campaign_and_latencies(database)
    registry = CollectorRegistry()
    registry.register(CampaignCollector(database))
    page = generate_latest(registry).decode()
    families = text_string_to_metric_families(page)
    samples = {
        (sample.name, sample.labels.get("le")): sample.value
        for family in families
        for sample in family.samples
        if sample.labels.get("kind") == "opt-out"
    }
    name = "leadloop_latency_seconds"
    buckets = [value for (_, le), value in samples.items() if le is not None]
    assert buckets == [0, 0, 0, 2, 2, 5, 5, 5, 5, 5, 5, 5, 6]
    assert samples[f"{name}_bucket", "+Inf"] == samples[f"{name}_count", None] == 6
    assert samples[f"{name}_sum", None] == 4018


def add_campaign_and_latencies(database: Database) -> None:
    """Add a total of six latencies, and one of the last hour, which it contains."""
    factories.add_campaign(database)
    sql.execute(
        database,
        """INSERT INTO leadloop.latencies
           VALUES ('-infinity', 'C1', 'opt-out', 1, 2, 1.5), (now(), 'C1', 'opt-out', 1, 1, 1),
                  ('-infinity', 'C1', 'opt-out', 5, 3, 12.5),
                  ('-infinity', 'C1', 'opt-out', 'Infinity', 1, 4004)""",
    )


def test_rate_limits_have_a_label_if_there_are_several_accounts(database: Database) -> None:
    """With one account the gauges have none, as dashboards know them."""
    factories.add_campaign(database)
    registry = CollectorRegistry()
    registry.register(CampaignCollector(database))
    assert "\nleadloop_budget_slots 0.0\n" in generate_latest(registry).decode()
    factories.add_campaign(database, "C2", account="emea")
    sql.execute(
        database,
        """INSERT INTO leadloop.rate_slots (account, slot, free_at, purposes, uses, occupied_s)
           VALUES ('emea', 0, now() + interval '1 hour', '{}', 0, 0),
                  ('emea', 1, 'infinity', '{bulk}', 1, 60.5)""",
    )
    registry = CollectorRegistry()
    registry.register(CampaignCollector(database))
    text = generate_latest(registry).decode()
    assert 'leadloop_budget_slots{account="default"} 0.0' in text
    assert 'leadloop_budget_taken{account="emea"} 1.0' in text
    assert 'leadloop_paused_seconds{account="default"} 0.0' in text
    assert 'leadloop_paused_seconds{account="emea"} 3' in text


def test_scrapes_share_one_read(database: Database) -> None:
    """A hundred scrapes while the database is slow are one read, as the reader role."""
    add_campaign_and_latencies(database)
    collector = CampaignCollector(database)
    users: list[str] = []

    @event.listens_for(Engine, "before_cursor_execute")
    def note_user(connection: Connection, cursor: Any, statement: str, *_: Any) -> None:
        if "campaign_health" in statement:
            time.sleep(0.2)
            cursor.execute("SELECT current_user")
            users.extend(cursor.fetchone())

    try:
        for _ in range(100):
            assert next(iter(collector.collect())).samples[0].value == 1
    finally:
        event.remove(Engine, "before_cursor_execute", note_user)
    assert users == ["leadloop_reader"]


def test_the_rules_are_those_of_status(database: Database) -> None:
    """Its alerts are about each severity of the view, and about an exporter that is away."""
    rules = yaml.safe_load(read_integration(Integration.PROMETHEUS))
    expressions = [rule["expr"] for rule in rules["groups"][0]["rules"]]
    factories.add_campaign(database)
    factories.add_leads(database, factories.build_lead("A", inserted_at="2026-01-01T00:00:00Z"))
    factories.add_opt_outs(database, "B", requested_at="2026-01-01T00:00:00Z")
    severities = sql.fetch_rows(database, "SELECT DISTINCT severity FROM leadloop_monitor.problems")
    assert len(severities) == 2
    alerts = {f'leadloop_problems{{severity="{row["severity"]}"}} > 0' for row in severities}
    others = {"leadloop_up == 0 or absent(leadloop_up)", "leadloop_upgrade_complete == 0"}
    assert set(expressions) == {*alerts, *others}


def test_an_incomplete_upgrade_is_a_gauge(database: Database) -> None:
    """The other figures are too low then."""
    for complete in (1.0, 0.0):
        registry = CollectorRegistry()
        registry.register(CampaignCollector(database))
        assert f"\nleadloop_upgrade_complete {complete}\n" in generate_latest(registry).decode()
        sql.execute(database, "TRUNCATE leadloop.counts_filled")


def test_a_database_without_the_views(invoke: Command, empty_database_url: str) -> None:
    """One line says what to run, exit 2."""
    ran = invoke("metrics", "--port", "0", LEADLOOP_DATABASE_URL=empty_database_url)
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
    assert "leadloop init" in ran.err


def test_a_port_that_is_taken(invoke: Command, database: Database) -> None:
    """One line, exit 2."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ran = invoke("metrics", "--port", str(taken.getsockname()[1]))
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
