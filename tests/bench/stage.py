"""What benchmarks run on: an embedded Postgres, the sandbox, a Prefect server, and processes.

Whatever is measured is a process of its own, so that none shares its memory or its interpreter's
lock with another.
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
from leadloop import embedded, postgres_store
from tests import factories, sql

CAMPAIGN = "bench"
TOKEN = "sandbox-token"
_BIN = Path(sys.executable).parent
_LAUNCHER = Path(__file__).with_name("launch.py")
_AT_ONCE = 2000
_SPREAD = timedelta(minutes=9)
_LEADS = """
INSERT INTO bench.leads
SELECT lpad(i::text, 8, '0'), '+1' || (ARRAY[212, 415, 512, 617])[i % 4 + 1]
       || (200 + i / 10000 % 700) || lpad((i % 10000)::text, 4, '0'),
       'Person ' || i, 'CA', jsonb_build_object('plan', 'basic', 'number', i)
  FROM generate_series(1, :amount) AS i
"""


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A process that has ended well: its last line of JSON, its peak memory in bytes, its CPU."""

    said: dict[str, Any]
    seconds: float
    peak: int
    cpu_s: float


def run(command: Sequence[str | Path], environment: Mapping[str, str], directory: Path) -> Ran:
    """Run a process to its end.

    Raises:
        RuntimeError: it failed; with the end of what it said.
    """
    said, errors, report = (directory / name for name in ("said", "errors", "taken"))
    launch = [sys.executable, "-I", "-S", str(_LAUNCHER), str(report)]
    with said.open("w") as out, errors.open("w") as err:
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
    taken = json.loads(report.read_text())
    if code := taken.pop("code"):
        raise RuntimeError(f"{command[:3]} ended with {code}: {errors.read_text()[-1500:]}")
    lines = said.read_text().splitlines()
    last = lines[-1] if lines else ""
    return Ran(said=json.loads(last) if last.startswith("{") else {}, **taken)


class Vendor:
    """The sandbox in a process of its own, with no limit unless a rule sets one."""

    def __init__(self, url: str) -> None:
        self.url = url

    def put(self, outcomes: Iterator[Mapping[str, Any]]) -> None:
        """Have leads processed."""
        while part := list(islice(outcomes, _AT_ONCE)):
            answer = requests.post(f"{self.url}/_sandbox/outcomes", json=part, timeout=60)
            answer.raise_for_status()
            assert not answer.json()["unknown"]

    def requests(self) -> list[dict[str, Any]]:
        """Every request that it has got."""
        log: list[dict[str, Any]] = requests.get(f"{self.url}/_sandbox/requests", timeout=60).json()
        return log

    def busiest(self, seconds: float) -> int:
        """The most requests that any stretch of so many seconds has held."""
        answer = requests.get(f"{self.url}/_sandbox/busiest?seconds={seconds}", timeout=60)
        amount: int = answer.json()["requests"]
        return amount


class Stage:
    """A Postgres, a Prefect server, and room for what is run on them."""

    def __init__(self, database_url: str, prefect_url: str, directory: Path) -> None:
        self.database_url = database_url
        self.directory = directory
        self._prefect_url = prefect_url
        self.database = Database(database_url, pool_size=4)

    def renew(self, amount: int) -> None:
        """An empty schema of ours, and `bench.leads` with so many leads, none of them sent."""
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

    def load(self) -> None:
        """The same leads as ours, `new`; see also `settle`."""
        columns = "lead_id, phone_number, contact_name, state_code, custom_fields"
        sql.execute(
            self.database,
            f"""INSERT INTO leadloop.leads (campaign_id, {columns})
                SELECT :campaign, {columns} FROM bench.leads""",
            campaign=CAMPAIGN,
        )

    def settle(self) -> None:
        """Statistics as autovacuum would have them, and no checkpoint in the middle of a turn."""
        with self.database.autocommit() as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")
            connection.exec_driver_sql("CHECKPOINT")

    @contextmanager
    def vendor(self, **rules: object) -> Iterator[Vendor]:
        """A sandbox; `rules` as in `leadloop sandbox --rule`."""
        given = {"rate_limit": "none", "pace": "none"} | rules
        options = [f"--rule={name}={value}" for name, value in given.items()]
        process = subprocess.Popen(
            [_BIN / "leadloop", "sandbox", "--port", "0", *options],
            stdout=subprocess.PIPE,
            text=True,
            cwd=self.directory,
            env=_bare(self.directory),
        )
        assert process.stdout is not None
        try:
            yield Vendor(process.stdout.readline().split()[-1])
        finally:
            process.terminate()
            process.wait()

    def environment(self, vendor: Vendor, **settings: str) -> dict[str, str]:
        """That of a deployed run; `settings` of leadloop without their prefix."""
        given = {
            "DATABASE_URL": self.database_url,
            "API_URL": vendor.url,
            "API_TOKEN": TOKEN,
            "RATE_LIMIT": "1000000/60",
            "SETTLE": "0",
            **settings,
        }
        ours = {f"LEADLOOP_{name}": value for name, value in given.items()}
        return {**self.bare(), **ours}

    def bare(self) -> dict[str, str]:
        """An environment with nothing of the user's settings, and our Prefect server."""
        return {**_bare(self.directory), "PREFECT_API_URL": self._prefect_url}

    def leadloop(self, vendor: Vendor, *arguments: str, **settings: str) -> Ran:
        """Run a command of ours; its last line is JSON."""
        command = [str(_BIN / "leadloop"), *arguments, "--json"]
        return run(command, self.environment(vendor, **settings), self.directory)

    def seconds(self, flow: str) -> float:
        """How long the last run of a flow took, its start-up aside."""
        took: float = sql.fetch_value(
            self.database,
            """SELECT CAST(extract(epoch FROM ended_at - started_at) AS float)
                 FROM leadloop.sync_runs WHERE flow = :flow ORDER BY run_id DESC LIMIT 1""",
            flow=flow,
        )
        return took


def _bare(directory: Path) -> dict[str, str]:
    foreign = ("LEADLOOP_", "PREFECT_", "PG")
    own = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    return {**own, "PREFECT_HOME": str(directory / "prefect")}


def outcomes(amount: int) -> tuple[Iterator[dict[str, Any]], datetime, datetime]:
    """Outcomes with two attempts each of the leads on stage, and the times that hold them all."""
    end = datetime.now(UTC) - timedelta(seconds=30)
    began = end - _SPREAD
    made = (_outcome(i, began + _SPREAD * (i / amount)) for i in range(amount))
    return made, began, end


def _outcome(number: int, at: datetime) -> dict[str, Any]:
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
        "lead_id": f"{number + 1:08d}",
        "processed_at": moment,
        "outcome_id": 1,
        "outcome_name": "interested",
        "total_cost": 0.7,
        "attempts": attempts,
    }


@contextmanager
def staged(directory: Path) -> Iterator[Stage]:
    """A stage whose servers end with the block."""
    with (
        embedded.running(directory / "pg") as database_url,
        _prefect(directory) as prefect_url,
    ):
        stage = Stage(database_url, prefect_url, directory)
        with stage.database:
            yield stage
    postgres_store.remove_temporary(directory)


@contextmanager
def _prefect(directory: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (directory / "prefect.log").open("w") as log:
        process = subprocess.Popen(
            [_BIN / "prefect", "server", "start", "--port", str(port), "--no-ui"],
            env=_bare(directory),
            stdout=log,
            stderr=log,
        )
    url = f"http://127.0.0.1:{port}/api"
    try:
        _await(f"{url}/health")
        yield url
    finally:
        process.terminate()
        process.wait()


def _await(url: str) -> None:
    for _ in range(600):
        try:
            requests.get(url, timeout=5).raise_for_status()
        except requests.RequestException:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"nothing answers at {url}")
