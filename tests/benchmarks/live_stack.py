"""The stack of the live benchmarks, as `leadloop up` builds one: Prefect, a worker, ten campaigns.

The database is a separate one, so that its transactions can be counted.
"""

import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml

from db import schema
from leadloop import deployments
from leadloop.local.prefect_stack import LocalPrefect, run_prefect_server, run_prefect_worker
from tests import factories, sql
from tests.benchmarks.bench_environment import BenchEnvironment, SandboxProcess, find_free_port
from tests.benchmarks.live_events import LEAD, OPT_OUT, OUTCOME, Event
from tests.benchmarks.process_usage import read_cpu_seconds

RATE_LIMIT = "100/60"
CAMPAIGNS = [f"LIVE-{number:02d}" for number in range(10)]
PREFECT_YAML = Path(deployments.__file__).parents[1] / "prefect.yaml"
# In the database of a world alone: whoever notifies reaches nobody, as behind a pooler.
_LOSE_NOTIFICATIONS = (
    "ALTER FUNCTION pg_catalog.pg_notify(text, text) RENAME TO pg_notify_of_postgres",
    """CREATE FUNCTION pg_catalog.pg_notify(text, text) RETURNS void
       LANGUAGE plpgsql AS 'BEGIN END'""",
)
# The numbers of a file's leads begin here; those of events are below.
_FILE_NUMBERS = 1_000_000
_FILE = """
INSERT INTO leadloop.leads (campaign_id, lead_id, phone_number, contact_name, state_code)
SELECT :campaign, 'file-' || i, '+1' || (ARRAY[212, 415, 512, 617])[i % 4 + 1]
       || (200 + i / 10000 % 700) || lpad((i % 10000)::text, 4, '0'), 'Person ' || i, 'CA'
  FROM generate_series(CAST(:first AS int), CAST(:first + :amount - 1 AS int)) AS i
"""
_DONE = """
SELECT NOT EXISTS (SELECT FROM leadloop.leads
                    WHERE lead_id = ANY(CAST(:leads AS text[])) AND status <> 'created')
   AND NOT EXISTS (SELECT FROM leadloop.disable_requests WHERE status <> 'disabled')
   AND (SELECT count(*) FROM leadloop.lead_outcomes
         WHERE lead_id = ANY(CAST(:outcomes AS text[]))) = cardinality(CAST(:outcomes AS text[]))
"""
_OPT_OUT_LATENCIES = """
SELECT lead_id, CAST(extract(epoch FROM confirmed_at - requested_at) AS float) AS seconds
  FROM leadloop.disable_requests
"""
_OUTCOME_LATENCIES = """
SELECT lead_id, CAST(extract(epoch FROM first_seen_at - processed_at) AS float) AS seconds
  FROM leadloop.lead_outcomes
"""
_INSERTED = """
SELECT lead_id, CAST(extract(epoch FROM inserted_at) AS float) AS seconds FROM leadloop.leads
"""
_TRANSACTIONS = """
SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()
"""


@dataclass(frozen=True, kw_only=True)
class LiveWorld:
    """A migrated database with ten campaigns, and a sandbox with the vendor's rate limit."""

    bench: BenchEnvironment
    sandbox: SandboxProcess

    def push_known_leads(self, events: Sequence[Event]) -> None:
        """Create the leads at the vendor that will opt out or have an outcome."""
        for event in events:
            if event.kind != LEAD:
                self.add_lead(event)
        self.bench.run_leadloop(self.sandbox, "push", RATE_LIMIT=RATE_LIMIT)

    def add_lead(self, event: Event, **columns: object) -> None:
        """Insert the lead of an event."""
        phone_number = factories.build_phone(event.number)
        lead = factories.build_lead(event.lead_id, phone_number=phone_number, **columns)
        factories.add_leads(self.bench.database, lead, campaign=event.campaign_id)

    def add_file(self, amount: int) -> None:
        """Insert the leads of a file into the first campaign, with one statement."""
        sql.execute(
            self.bench.database, _FILE, campaign=CAMPAIGNS[0], first=_FILE_NUMBERS, amount=amount
        )

    def act(self, event: Event, *, priority: int = 0) -> None:
        """Let an event happen now."""
        if event.kind == LEAD:
            self.add_lead(event, priority=priority)
        elif event.kind == OPT_OUT:
            factories.add_opt_outs(self.bench.database, event.lead_id, campaign=event.campaign_id)
        else:
            outcome = {"campaign_id": event.campaign_id, "lead_id": event.lead_id}
            self.sandbox.put_outcomes(iter([outcome]))

    def wait_until_done(self, events: Sequence[Event]) -> None:
        """Wait until all events are dealt with."""
        sql.wait_until(
            self.bench.database,
            _DONE,
            timeout_s=300,
            leads=[event.lead_id for event in events if event.kind == LEAD],
            outcomes=[event.lead_id for event in events if event.kind == OUTCOME],
        )

    def fetch_arrivals(self) -> dict[str, float]:
        """Return when each lead was created at the vendor, epoch seconds."""
        return {
            lead["lead_id"]: lead["created_at"] / 1000
            for campaign in CAMPAIGNS
            for lead in self.sandbox.fetch_leads(campaign)
        }

    def fetch_latencies(self, events: Sequence[Event]) -> dict[str, list[float]]:
        """Return the seconds that each event took, by kind."""
        arrived, inserted = self.fetch_arrivals(), self._fetch_seconds(_INSERTED)
        seconds = {
            LEAD: {lead_id: arrived[lead_id] - inserted[lead_id] for lead_id in arrived},
            OPT_OUT: self._fetch_seconds(_OPT_OUT_LATENCIES),
            OUTCOME: self._fetch_seconds(_OUTCOME_LATENCIES),
        }
        return {
            kind: [of_kind[event.lead_id] for event in events if event.kind == kind]
            for kind, of_kind in seconds.items()
        }

    def lose_notifications(self) -> None:
        """Let no notification arrive any more, neither of triggers nor the engine's proof."""
        for statement in _LOSE_NOTIFICATIONS:
            sql.execute(self.bench.database, statement)

    def count_transactions(self) -> int:
        """Count the transactions of the database until now."""
        return int(sql.fetch_value(self.bench.database, _TRANSACTIONS))

    def _fetch_seconds(self, query: str) -> dict[str, float]:
        rows = sql.fetch_rows(self.bench.database, query)
        return {row["lead_id"]: row["seconds"] for row in rows}


@dataclass(frozen=True, kw_only=True)
class LivePrefect:
    """A Prefect server with deployments of prefect.yaml, whose schedules the benchmark sets."""

    prefect: LocalPrefect
    directory: Path

    @contextmanager
    def run_worker(self, world: LiveWorld) -> Iterator[int]:
        """Run a worker for the block; yield the process that has it and its runs below it."""
        settings = world.bench.build_environment(world.sandbox, RATE_LIMIT=RATE_LIMIT)
        ours = {name: text for name, text in settings.items() if name.startswith("LEADLOOP_")}
        folder = self.directory / "worker"
        with patch.dict(os.environ):
            for name in [name for name in os.environ if name.startswith("LEADLOOP_")]:
                del os.environ[name]
            os.environ.update(ours)
            with run_prefect_worker(folder, self.prefect):
                yield _read_supervisor(folder)

    def start_live_run(self) -> None:
        """Schedule a run of live-leads for now."""
        deployments.schedule_run(self.prefect.environment, "live-leads/default")

    def read_cpu_seconds(self) -> float:
        """Return the CPU seconds of the server until now."""
        return read_cpu_seconds(_read_supervisor(self.directory / "server"))

    def count_requests(self) -> int:
        """Count the requests in the server's log; of a WebSocket, only the first."""
        return len(re.findall(r'" \d{3}\b|" \[accepted\]', self.prefect.log.read_text()))


@contextmanager
def open_world(bench: BenchEnvironment) -> Iterator[LiveWorld]:
    """Create a world for the block."""
    schema.recreate_database(bench.database, "live")
    own = bench.open_sibling("live")
    with own.database, own.run_sandbox(rate_limit=RATE_LIMIT) as sandbox:
        own.database.run(schema.migrate_schema)
        for campaign in CAMPAIGNS:
            factories.add_campaign(own.database, campaign)
        yield LiveWorld(bench=own, sandbox=sandbox)


@contextmanager
def run_live_prefect(
    bench: BenchEnvironment, name: str, schedules: Mapping[str, str]
) -> Iterator[LivePrefect]:
    """Run a new Prefect server for the block.

    Args:
        bench: has the Postgres of the server.
        name: of its database and its folder.
        schedules: the cron expressions by flow; other flows have none.
    """
    directory = bench.directory / name
    directory.mkdir(mode=0o700)
    schema.recreate_database(bench.database, name)
    server_folder = directory / "server"
    server_folder.mkdir(mode=0o700)
    # Its log of requests; run_prefect_server passes no PREFECT_ variables of this process on.
    (server_folder / "profiles.toml").write_text(
        'active = "bench"\n[profiles.bench]\nPREFECT_SERVER_LOGGING_LEVEL = "INFO"\n'
    )
    address = bench.database.sibling_url(name, "postgresql+asyncpg")
    with run_prefect_server(server_folder, address, find_free_port()) as prefect:
        prefect.wait()
        _deploy(prefect, set_schedules(yaml.safe_load(PREFECT_YAML.read_text()), schedules))
        yield LivePrefect(prefect=prefect, directory=directory)


def set_schedules(prefect_yaml: Mapping[str, Any], schedules: Mapping[str, str]) -> dict[str, Any]:
    """Return a prefect.yaml in which only these flows have a schedule, by cron."""
    return {
        **prefect_yaml,
        "deployments": [
            {
                **deployment,
                "schedules": [
                    {"slug": "bench", "cron": cron, "timezone": "UTC"}
                    for flow, cron in schedules.items()
                    if flow == deployment["flow_name"]
                ],
            }
            for deployment in prefect_yaml["deployments"]
        ],
    }


def _deploy(prefect: LocalPrefect, prefect_yaml: Mapping[str, Any]) -> None:
    """Deploy as `leadloop deploy` does, but schedule no run."""
    file = prefect.log.with_name("prefect.yaml")
    file.write_text(yaml.safe_dump(prefect_yaml))
    pool = deployments.WORK_POOL
    template = ("--base-job-template", str(deployments.JOB_TEMPLATE))
    for arguments in (
        ("work-pool", "create", pool, "--type", "process", *template),
        ("--no-prompt", "deploy", "--all", "--prefect-file", str(file)),
        ("work-queue", "set-concurrency-limit", deployments.LIVE_QUEUE, "6", "--pool", pool),
    ):
        subprocess.run(
            [*deployments.PREFECT, *arguments],
            cwd=PREFECT_YAML.parent,
            env=dict(prefect.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            check=True,
        )


def _read_supervisor(folder: Path) -> int:
    return int((folder / "supervisor.pid").read_text())
