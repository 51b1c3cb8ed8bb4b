"""The environment of the benchmarks: an embedded Postgres, the sandbox, a Prefect server.

Every measured program runs in its own process, so that it shares neither memory nor the
interpreter's lock with another.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import requests

from db import schema
from db.database import Database
from leadloop.local.postgres import run_postgres
from leadloop.local.postgres_data import remove_temporary
from tests import factories, sql

CAMPAIGN = "bench"
TOKEN = "sandbox-token"
#: The folder of the installed commands.
BIN = Path(sys.executable).parent
_LAUNCHER = Path(__file__).with_name("process_launcher.py")
_PUT_SIZE = 2000
_TIME_SPAN = timedelta(minutes=9)
_LEADS = """
INSERT INTO bench.leads
SELECT lpad(i::text, 8, '0'), '+1' || (ARRAY[212, 415, 512, 617])[i % 4 + 1]
       || (200 + i / 10000 % 700) || lpad((i % 10000)::text, 4, '0'),
       'Person ' || i, 'CA', jsonb_build_object('plan', 'basic', 'number', i)
  FROM generate_series(1, :amount) AS i
"""


@dataclass(frozen=True, kw_only=True)
class FinishedProcess:
    """A process that ended with exit code 0, with its last output line as JSON and its usage."""

    output: dict[str, Any]
    seconds: float
    peak_bytes: int
    cpu_s: float


def run_process(
    command: Sequence[str | Path], environment: Mapping[str, str], directory: Path
) -> FinishedProcess:
    """Run a process and wait for its end.

    Raises:
        RuntimeError: the process failed; with the end of its stderr.
    """
    output, errors, report = (directory / name for name in ("output", "errors", "usage"))
    launch = [sys.executable, "-I", "-S", str(_LAUNCHER), str(report)]
    with output.open("w") as out, errors.open("w") as err:
        process = subprocess.Popen(
            [*launch, *command],
            env=environment,
            cwd=directory,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        try:
            process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    usage = json.loads(report.read_text())
    if code := usage.pop("code"):
        raise RuntimeError(f"{command[:3]} ended with {code}: {errors.read_text()[-1500:]}")
    lines = output.read_text().splitlines()
    last = lines[-1] if lines else ""
    return FinishedProcess(output=json.loads(last) if last.startswith("{") else {}, **usage)


class SandboxProcess:
    """The sandbox in its own process, without a rate limit unless a rule sets one."""

    def __init__(self, url: str) -> None:
        self.url = url

    def put_outcomes(self, outcomes: Iterator[Mapping[str, Any]]) -> None:
        """Add outcomes of leads."""
        while part := list(islice(outcomes, _PUT_SIZE)):
            answer = requests.post(f"{self.url}/_sandbox/outcomes", json=part, timeout=60)
            answer.raise_for_status()
            assert not answer.json()["unknown"]

    def fail_share(self, share: float, resets: Mapping[str, str]) -> None:
        """Let a share of the requests fail, from the beginning of the same seeded draws.

        Args:
            share: half of them get a 500 before they have an effect, half a reset.
            resets: the routes that fail; when the reset comes, "before" the effect or "after" it.
        """
        url = f"{self.url}/_sandbox/faults"
        requests.delete(url, timeout=60).raise_for_status()
        half = share / 2
        faults = [
            {"route": route, "probability": probability, **fault}
            for route, when in resets.items()
            for probability, fault in (
                (half, {"kind": "status", "status": 500}),
                # The second fault is drawn for the requests that the first one spares.
                (half / (1 - half), {"kind": "reset", "when": when}),
            )
        ]
        requests.post(url, json=faults, timeout=60).raise_for_status()

    def fetch_requests(self) -> list[dict[str, Any]]:
        """Return the log of all requests."""
        log: list[dict[str, Any]] = requests.get(f"{self.url}/_sandbox/requests", timeout=60).json()
        return log

    def fetch_leads(self, campaign: str) -> list[dict[str, Any]]:
        """Return the stored leads of a campaign, with their times."""
        url = f"{self.url}/_sandbox/leads/{campaign}"
        leads: list[dict[str, Any]] = requests.get(url, timeout=60).json()
        return leads

    def fetch_busiest(self, seconds: float) -> int:
        """Return the maximum number of requests in any window of this many seconds."""
        answer = requests.get(f"{self.url}/_sandbox/busiest?seconds={seconds}", timeout=60)
        amount: int = answer.json()["requests"]
        return amount


class BenchEnvironment:
    """A Postgres, a Prefect server and a working directory for the measured processes."""

    def __init__(self, database_url: str, prefect_url: str, directory: Path) -> None:
        self.database_url = database_url
        self.directory = directory
        self._prefect_url = prefect_url
        self.database = Database(database_url, pool_size=4)

    def open_sibling(self, name: str) -> "BenchEnvironment":
        """Return an environment with another database of the same server."""
        url = self.database.sibling_url(name, "postgresql+psycopg2")
        return BenchEnvironment(url, self._prefect_url, self.directory)

    def reset_leads(self, amount: int) -> None:
        """Recreate our schema, empty, and the table `bench.leads` with this many unsent leads."""
        with self.database.transaction() as connection:
            schema.drop_schema(connection)
            schema.migrate_schema(connection)
        sql.execute(self.database, "DROP SCHEMA IF EXISTS bench CASCADE")
        sql.execute(self.database, "CREATE SCHEMA bench")
        sql.execute(
            self.database,
            """CREATE TABLE bench.leads (lead_id text PRIMARY KEY, phone_number text,
                      contact_name text, state_code text, custom_fields jsonb)""",
        )
        sql.execute(self.database, _LEADS, amount=amount)
        factories.add_campaign(self.database, CAMPAIGN)

    def load_leads(self) -> None:
        """Copy `bench.leads` to our leads, with status `new`; see also `vacuum`."""
        columns = "lead_id, phone_number, contact_name, state_code, custom_fields"
        sql.execute(
            self.database,
            f"""INSERT INTO leadloop.leads (campaign_id, {columns})
                SELECT :campaign, {columns} FROM bench.leads""",
            campaign=CAMPAIGN,
        )

    def vacuum(self) -> None:
        """Vacuum, analyze and checkpoint, so that no turn is disturbed by either."""
        with self.database.autocommit() as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")
            connection.exec_driver_sql("CHECKPOINT")

    @contextmanager
    def run_sandbox(self, **rules: object) -> Iterator[SandboxProcess]:
        """Run a sandbox for the block; `rules` as in `leadloop sandbox --rule`."""
        given = {"rate_limit": "none", "pace": "none"} | rules
        options = [f"--rule={name}={value}" for name, value in given.items()]
        process = subprocess.Popen(
            [BIN / "leadloop", "sandbox", "--port", "0", *options],
            stdout=subprocess.PIPE,
            text=True,
            cwd=self.directory,
            env=_strip_environment(self.directory),
        )
        assert process.stdout is not None
        try:
            yield SandboxProcess(process.stdout.readline().split()[-1])
        finally:
            process.terminate()
            process.wait()

    def build_environment(self, vendor: SandboxProcess, **settings: str) -> dict[str, str]:
        """Return the environment of a deployed run; `settings` without the LEADLOOP_ prefix."""
        given = {
            "DATABASE_URL": self.database_url,
            "API_URL": vendor.url,
            "API_TOKEN": TOKEN,
            "RATE_LIMIT": "1000000/60",
            "SETTLE": "0",
            **settings,
        }
        ours = {f"LEADLOOP_{name}": value for name, value in given.items()}
        return {**self.build_bare_environment(), **ours}

    def build_bare_environment(self) -> dict[str, str]:
        """Return an environment with our Prefect server and without the user's settings."""
        return {**_strip_environment(self.directory), "PREFECT_API_URL": self._prefect_url}

    def run_leadloop(
        self, vendor: SandboxProcess, *arguments: str, **settings: str
    ) -> FinishedProcess:
        """Run a `leadloop` command with `--json`."""
        command = [str(BIN / "leadloop"), *arguments, "--json"]
        return run_process(command, self.build_environment(vendor, **settings), self.directory)

    def fetch_run_seconds(self, flow: str) -> float:
        """Return the duration of a flow's latest run in seconds, without its start-up."""
        took: float = sql.fetch_value(
            self.database,
            """SELECT CAST(extract(epoch FROM ended_at - started_at) AS float)
                 FROM leadloop.sync_runs WHERE flow = :flow ORDER BY run_id DESC LIMIT 1""",
            flow=flow,
        )
        return took


def _strip_environment(directory: Path) -> dict[str, str]:
    foreign = ("LEADLOOP_", "PREFECT_", "PG")
    own = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    return {**own, "PREFECT_HOME": str(directory / "prefect")}


def generate_outcomes(
    amount: int, *, first: int = 1
) -> tuple[Iterator[dict[str, Any]], datetime, datetime]:
    """Return an outcome with two attempts for each lead, and the range of their times.

    Args:
        amount: the number of leads.
        first: the number of the first lead, which is its id.
    """
    end = datetime.now(UTC) - timedelta(seconds=30)
    began = end - _TIME_SPAN
    generated = (
        _build_outcome(first + i, began + _TIME_SPAN * (i / amount)) for i in range(amount)
    )
    return generated, began, end


def _build_outcome(number: int, at: datetime) -> dict[str, Any]:
    moment = int(at.timestamp() * 1000)
    attempts = [
        {
            "reference_id": f"r{number}-{turn}",
            "outcome_id": turn,
            "outcome_name": "answered",
            "call_duration": 30 + turn,
            "called_at": moment,
            "report_keys_order": ["interested"],
            "status": "done",
            "interested": "Yes",
        }
        for turn in range(2)
    ]
    return {
        "campaign_id": CAMPAIGN,
        "lead_id": f"{number:08d}",
        "processed_at": moment,
        "outcome_id": 1,
        "outcome_name": "interested",
        "total_cost": 0.7,
        "attempts": attempts,
    }


@contextmanager
def run_bench_environment(directory: Path) -> Iterator[BenchEnvironment]:
    """Run the servers for the block."""
    with (
        run_postgres(directory / "pg") as database_url,
        _run_prefect(directory) as prefect_url,
    ):
        bench = BenchEnvironment(database_url, prefect_url, directory)
        with bench.database:
            yield bench
    remove_temporary(directory)


@contextmanager
def _run_prefect(directory: Path) -> Iterator[str]:
    port = find_free_port()
    with (directory / "prefect.log").open("w") as log:
        process = subprocess.Popen(
            [BIN / "prefect", "server", "start", "--port", str(port), "--no-ui"],
            env=_strip_environment(directory),
            stdout=log,
            stderr=log,
        )
    url = f"http://127.0.0.1:{port}/api"
    try:
        _wait_until_healthy(f"{url}/health")
        yield url
    finally:
        process.terminate()
        process.wait()


def find_free_port() -> int:
    """Return a port of loopback that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


def _wait_until_healthy(url: str) -> None:
    for _ in range(600):
        try:
            requests.get(url, timeout=5).raise_for_status()
        except requests.RequestException:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"nothing answers at {url}")
