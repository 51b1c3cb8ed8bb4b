"""What the tests stand on: a real Postgres, the sandbox over real HTTP, a real Prefect server.

Whatever the person at this machine has set for Postgres, Prefect or leadloop is put aside first.
"""

import fcntl
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import settings
from sqlalchemy import Connection, create_engine, make_url, text

from db.database import Database
from db.schema import migrate_schema
from leadloop.local.postgres import run_postgres
from leadloop.local.postgres_data import remove_temporary
from leadloop.local.prefect_ephemeral import run_ephemeral_prefect
from leadloop.sandbox import Rules, SandboxHandle, run_sandbox

# Asserts in the helpers report the compared values, as asserts in test modules do. Here, because
# tests of other packages import some of them before tests/resilience is collected.
pytest.register_assert_rewrite("tests.resilience")

_TEMPLATE = "leadloop_template"
_FOREIGN = ("LEADLOOP_", "PREFECT_", "PG")
_NUMBERS = count(1)


def pytest_configure(config: pytest.Config) -> None:
    """Before anything is imported that reads them: no settings but those of the tests."""
    for name in list(os.environ):
        if name.startswith(_FOREIGN) or name.lower().endswith("_proxy"):
            del os.environ[name]
    home = tempfile.TemporaryDirectory(prefix="leadloop-tests-")
    config.add_cleanup(home.cleanup)
    os.environ["PREFECT_HOME"] = home.name
    os.environ["PREFECT_LOGGING_LEVEL"] = "WARNING"
    os.environ["PREFECT_LOGGING_TO_API_ENABLED"] = "false"
    os.environ["DO_NOT_TRACK"] = "1"
    # A busy machine is slow, not wrong; and what lands is not refused for another change's example.
    settings.register_profile("counts, not times", deadline=None, derandomize="CI" in os.environ)
    settings.load_profile("counts, not times")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Remove the data of embedded Postgres servers that tests began in their temporary folders."""
    factory: pytest.TempPathFactory = session.config._tmp_path_factory  # type: ignore[attr-defined]
    if factory._basetemp is not None:
        remove_temporary(factory._basetemp)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first: else the last module keeps one process at work alone."""
    items.sort(key=lambda item: item.get_closest_marker("servers") is None)


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """Return a temporary folder that all xdist workers share; without xdist, of this process."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of one embedded Postgres for the whole session; it holds a migrated template.

    Each xdist worker has its own: roles belong to the server, and tests create and rename them.
    """
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="leadloop-tests-"))
        stack.callback(remove_temporary, Path(directory))
        url = stack.enter_context(run_postgres(Path(directory) / "pg"))
        # No test pulls the plug, and a new database a test is a lot to write through.
        _as_superuser(url, "ALTER SYSTEM SET fsync = off")
        # Whoever waits for a lock that nobody gives up fails its test instead of hanging it.
        _as_superuser(url, "ALTER SYSTEM SET lock_timeout = '30s'", "SELECT pg_reload_conf()")
        _as_superuser(url, f"CREATE DATABASE {_TEMPLATE}")
        _migrate(_at(url, _TEMPLATE))
        yield url


@pytest.fixture
def empty_database_url(postgres: str) -> Iterator[str]:
    """The URL of a database of this test's own with nothing in it."""
    with ExitStack() as stack:
        yield new_database(stack, postgres, "template0")


@pytest.fixture
def database_url(postgres: str) -> Iterator[str]:
    """The URL of a database of this test's own, migrated."""
    with ExitStack() as stack:
        yield new_database(stack, postgres, _TEMPLATE)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """That database, opened, with connections for a dozen threads."""
    with Database(database_url, pool_size=12) as opened:
        yield opened


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    """One transaction on that database, committed at the end of the test."""
    with database.transaction() as opened:
        yield opened


@pytest.fixture
def vendor() -> Iterator[SandboxHandle]:
    """A sandbox of this test's own: no rate limit, and only the outcomes that are put in."""
    with run_sandbox(Rules(rate_limit=None, pace=None)) as handle:
        yield handle


@pytest.fixture
def environment(
    database_url: str, vendor: SandboxHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Settings for flows and commands: this test's database and sandbox, no limit worth a wait.

    Change them with `monkeypatch.setenv`. The working directory is empty, and is returned.
    """
    monkeypatch.setenv("LEADLOOP_DATABASE_URL", database_url)
    monkeypatch.setenv("LEADLOOP_API_URL", vendor.url)
    monkeypatch.setenv("LEADLOOP_API_TOKEN", vendor.rules.tokens[0])
    # More than any test sends, in a ring that is laid out at once: each test has its own.
    monkeypatch.setenv("LEADLOOP_RATE_LIMIT", "1000/0.01")
    monkeypatch.setenv("LEADLOOP_SETTLE", "0")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def emea(environment: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SandboxHandle]:
    """The vendor of a second account, `emea`: another server, which takes another token alone."""
    rules = Rules(rate_limit=None, pace=None, tokens=("emea-token",))
    with run_sandbox(rules) as handle:
        monkeypatch.setenv("LEADLOOP_ACCOUNT_EMEA_API_URL", handle.url)
        monkeypatch.setenv("LEADLOOP_ACCOUNT_EMEA_API_TOKEN", rules.tokens[0])
        monkeypatch.setenv("LEADLOOP_ACCOUNT_EMEA_RATE_LIMIT", "1000/0.01")
        yield handle


@pytest.fixture(scope="session")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Prefect API, which flows called in this process use; once for all xdist workers.

    Flows of other workers run on it at the same time: look up runs, artifacts and events by the id
    of the test's run, and use `work_pools` to change work pools or deployments.

    A command uses it too where it is told: `leadloop("push", PREFECT_API_URL=prefect)`. From the
    first use of this fixture on, the server's password is in the environment.
    """
    with run_ephemeral_prefect(shared_folder(tmp_path_factory) / "prefect") as server:
        # Imported while the server starts; the tests that need no flow do without either.
        from prefect.settings import (
            PREFECT_API_AUTH_STRING,
            PREFECT_API_URL,
            PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
            PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
            temporary_settings,
        )

        settings = {
            PREFECT_API_URL: server.api_url,
            PREFECT_API_AUTH_STRING: server.auth_string,
            PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: False,
            # With it every run ends a second late.
            PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
        }
        with temporary_settings(settings):
            server.wait()
            with pytest.MonkeyPatch.context() as patch:
                # For the commands that tests run.
                patch.setenv("PREFECT_API_AUTH_STRING", server.auth_string)
                # Its connection pings in a thread of this process, each time with a number from the
                # generator that all share. Hypothesis takes that for a strategy that uses it.
                patch.setattr("websockets.asyncio.connection.random", Random())
                yield server.api_url


@pytest.fixture
def work_pools(prefect: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Reserve the work pools and deployments of the Prefect server for this test."""
    with (shared_folder(tmp_path_factory) / "work-pools.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def prefect_login() -> tuple[str, str]:
    """User and password for plain HTTP to the server of the fixture `prefect`."""
    user, _, password = os.environ["PREFECT_API_AUTH_STRING"].partition(":")
    return user, password


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the retry pauses in this process; see tests/fast_retries.py."""
    from tests.fast_retries import shorten_retry_pauses

    shorten_retry_pauses(monkeypatch.setattr)


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What a command came to; `last` is the last line on stdout as JSON, None if it is none."""

    code: int
    out: str
    err: str
    last: Any


@pytest.fixture
def leadloop(environment: Path) -> Callable[..., Ran]:
    """Runs the command line as a process of its own, with the settings of `environment`.

    `leadloop("push", "--json", PREFECT_API_URL=prefect)`: arguments, then more of the environment.
    """

    def run(*arguments: str, **more: str) -> Ran:
        result = subprocess.run(
            [Path(sys.executable).with_name("leadloop"), *arguments],
            cwd=environment,
            env={**os.environ, "COLUMNS": "200", **more},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        return Ran(
            code=result.returncode, out=result.stdout, err=result.stderr, last=_last(result.stdout)
        )

    return run


def _last(out: str) -> Any:
    lines = out.splitlines()
    try:
        return json.loads(lines[-1]) if lines else None
    except ValueError:
        return None


def new_database(stack: ExitStack, server: str, template: str) -> str:
    """Create a database of a template, dropped with the stack; return its URL."""
    name = f"test_{next(_NUMBERS)}"
    _as_superuser(server, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    stack.callback(_as_superuser, server, f"DROP DATABASE {name} WITH (FORCE)")
    return _at(server, name)


def _migrate(url: str) -> None:
    with Database(url, pool_size=1) as database, database.transaction() as connection:
        migrate_schema(connection)


def _at(server: str, name: str) -> str:
    return make_url(server).set(database=name).render_as_string(hide_password=False)


def _as_superuser(server: str, *statements: str) -> None:
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            for statement in statements:
                connection.execute(text(statement))
    finally:
        engine.dispose()
