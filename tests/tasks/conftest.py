"""Fixtures of the jobs' tests."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import make_url

from db.database import Database
from leadloop.sandbox import SandboxHandle
from tests import factories, sql
from tests.odd_reads import OddReads, run_odd_reads
from tests.quirky_api import QuirkyApi, run_quirky_api
from tests.window_readers import OpenedReader, open_reader, serve_results


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch, database: Database) -> Iterator[QuirkyApi]:
    """An odd vendor in place of the sandbox, and a campaign whose lead it has had for two hours."""
    with run_quirky_api() as vendor:
        monkeypatch.setenv("LEADLOOP_API_URL", vendor.url)
        factories.add_campaign(database)
        first_sent_at = datetime.now(UTC) - timedelta(minutes=130)
        factories.add_leads(
            database, factories.build_lead("x", status="created", sent_at=first_sent_at)
        )
        yield vendor


@pytest.fixture
def result_count() -> int:
    """Count the results that `odd_results` has at first; a module may say otherwise."""
    return 0


@pytest.fixture
def odd_results(
    environment: Path, quick_retries: None, monkeypatch: pytest.MonkeyPatch, result_count: int
) -> Iterator[QuirkyApi]:
    """An odd vendor in place of the sandbox, whose results a reader of windows asks for."""
    with serve_results(monkeypatch, result_count) as vendor:
        yield vendor


@pytest.fixture
def opened_reader(odd_results: QuirkyApi, database: Database) -> Iterator[OpenedReader]:
    """A reader of that vendor's pages."""
    with open_reader(database) as reader:
        yield reader


@pytest.fixture
def odd_reads(
    environment: Path, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> Iterator[OddReads]:
    """The sandbox behind a proxy that alters reads; it creates a second lead for a repeated id."""
    vendor.change_rules(repeat="second")
    with run_odd_reads(vendor.url) as proxy:
        monkeypatch.setenv("LEADLOOP_API_URL", proxy.url)
        yield proxy


@pytest.fixture
def source_login(
    environment: Path, database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """A login that reads sources, to which row level security applies; it has no right yet."""
    url = make_url(database_url)
    login = f"reads_{url.database}"
    sql.execute(database, f"CREATE ROLE {login} LOGIN")
    reader = url.set(username=login).render_as_string(hide_password=False)
    monkeypatch.setenv("LEADLOOP_SOURCE_URL", reader)
    yield login
    sql.execute(database, f"DROP OWNED BY {login}; DROP ROLE {login}")
