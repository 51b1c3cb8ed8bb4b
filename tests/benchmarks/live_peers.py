"""A row to the vendor by other programs: three that listen, and two that are run every minute."""

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Event as ThreadEvent
from threading import Thread

from db import schema
from tests import factories, sql
from tests.benchmarks.bench_environment import (
    CAMPAIGN,
    BenchEnvironment,
    SandboxProcess,
    run_process,
)
from tests.benchmarks.competitors import DBOS, DLT, DRT, LISTENER, PGQUEUER, Competitor
from tests.benchmarks.live import MINUTES, PER_MINUTE, play_events
from tests.benchmarks.live_events import LEAD, Event, build_latency_figure, plan_events
from tests.benchmarks.live_stack import RATE_LIMIT
from tests.benchmarks.report import Section

_TABLE = (
    "CREATE SCHEMA bench",
    """CREATE TABLE bench.leads (
           lead_id text PRIMARY KEY, seq bigint GENERATED ALWAYS AS IDENTITY, phone_number text,
           contact_name text, state_code text,
           inserted_at timestamptz NOT NULL DEFAULT clock_timestamp())""",
    """CREATE FUNCTION bench.announce() RETURNS trigger LANGUAGE plpgsql AS
       'BEGIN PERFORM pg_notify(''bench_leads'', NEW.lead_id); RETURN NEW; END'""",
    """CREATE TRIGGER announce AFTER INSERT ON bench.leads
       FOR EACH ROW EXECUTE FUNCTION bench.announce()""",
)
_INSERT = """
INSERT INTO bench.leads (lead_id, phone_number, contact_name, state_code)
VALUES (:lead_id, :phone_number, :contact_name, :state_code)
"""
_INSERTED = """
SELECT lead_id, CAST(extract(epoch FROM inserted_at) AS float) AS seconds FROM bench.leads
"""
_SCHEDULE_S = 60
_DONE_S = 180.0
_NAMES = {
    LISTENER: "a bare script that listens",
    PGQUEUER: "pgqueuer",
    DBOS: "DBOS",
    DLT: "dlt, run every minute",
    DRT: "drt, run every minute",
}


def measure_live_peers(bench: BenchEnvironment, _: int, __: int) -> list[Section]:
    """Measure each program alone, one after the other, with the same rows."""
    figures = [
        build_latency_figure(f"row to vendor, {name}", _measure_competitor(bench, competitor))
        for competitor, name in _NAMES.items()
    ]
    return [
        Section(
            title="Live: a row to the vendor by other programs",
            conditions=f"The rows of one campaign, {PER_MINUTE[LEAD]:.0f} a minute, at random"
            f" moments (Poisson, seeded), for {MINUTES:.0f} minutes each, one program after the"
            " other; from the INSERT to the creation at the sandbox, which answers at once."
            " The script sends what a notification names, and has no states; pgqueuer has a job for"
            " each row, DBOS a workflow. All three send some leads twice if they are killed. dlt"
            " and drt load what is new, in a process that starts each full minute.",
            figures=figures,
        )
    ]


def _measure_competitor(bench: BenchEnvironment, competitor: Competitor) -> Sequence[float]:
    run = _run_each_minute if competitor in (DLT, DRT) else _run_listener
    events = plan_events("peers", MINUTES * 60, {LEAD: PER_MINUTE[LEAD]}, [CAMPAIGN])
    schema.recreate_database(bench.database, "peers")
    own = bench.open_sibling("peers")
    with own.database, own.run_sandbox(rate_limit=RATE_LIMIT) as sandbox:
        for statement in _TABLE:
            sql.execute(own.database, statement)
        with run(own, sandbox, competitor):
            play_events(events, partial(_insert_lead, own))
            _wait_for(lambda: len(sandbox.fetch_leads(CAMPAIGN)) >= len(events), _DONE_S)
        arrived = {
            lead["lead_id"]: lead["created_at"] / 1000 for lead in sandbox.fetch_leads(CAMPAIGN)
        }
    rows = sql.fetch_rows(own.database, _INSERTED)
    return [arrived[row["lead_id"]] - row["seconds"] for row in rows]


def _insert_lead(bench: BenchEnvironment, event: Event) -> None:
    phone_number = factories.build_phone(event.number)
    lead = factories.build_lead(event.lead_id, phone_number=phone_number)
    sql.execute(bench.database, _INSERT, **lead)


@contextmanager
def _run_listener(
    bench: BenchEnvironment, sandbox: SandboxProcess, competitor: Competitor
) -> Iterator[None]:
    """Run a program that follows the rows; the block begins once it listens."""
    with (bench.directory / "follow.log").open("w") as log:
        process = subprocess.Popen(
            competitor.build_command("follow"),
            env=competitor.prepare(bench, sandbox),
            cwd=bench.directory,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert "ready" in line, (bench.directory / "follow.log").read_text()[-1500:]
            # Its first notification may find it still on the way to listen.
            time.sleep(1)
            yield
        finally:
            process.kill()
            process.wait()


@contextmanager
def _run_each_minute(
    bench: BenchEnvironment, sandbox: SandboxProcess, competitor: Competitor
) -> Iterator[None]:
    """Run a program at each full minute, as cron would."""
    environment, command = competitor.prepare(bench, sandbox), competitor.build_command("push-new")
    is_over = ThreadEvent()
    failures: list[RuntimeError] = []

    def run_repeatedly() -> None:
        while not is_over.wait(_SCHEDULE_S - time.time() % _SCHEDULE_S):
            try:
                run_process(command, environment, bench.directory)
            except RuntimeError as error:
                failures.append(error)
                return

    thread = Thread(target=run_repeatedly)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        for failure in failures:
            raise failure


def _wait_for(is_done: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_done():
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s"
        time.sleep(0.2)
