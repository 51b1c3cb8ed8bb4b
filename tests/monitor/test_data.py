"""The page's configuration, and its reads of the database."""

from datetime import UTC, datetime
from typing import Any

import pytest

from db.database import Database, DatabaseError
from leadloop.monitor import data
from leadloop.monitor.data import PageConfig, find_prefect_page
from leadloop.settings import MONITOR_DATABASE_URL
from tests import factories, sql


def build_config(**changes: Any) -> PageConfig:
    """Return a configuration; `changes` replace the defaults."""
    defaults: dict[str, Any] = {
        "database_url": "postgresql://127.0.0.1:1/d",
        "database_setting": MONITOR_DATABASE_URL,
        "prefect_url": None,
        "refresh_s": 30,
    }
    return PageConfig(**{**defaults, **changes})


@pytest.fixture(autouse=True)
def no_config(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore the configuration after the test."""
    monkeypatch.setattr(data, "_configs", [])


def test_unreachable_database() -> None:
    """The error names the variable of the page's own login, not that of the runs."""
    data.set_config(build_config())
    with pytest.raises(DatabaseError, match="LEADLOOP_MONITOR_DATABASE_URL is correct"):
        data.load_status()


def test_history_of_a_period(database: Database, database_url: str) -> None:
    """The page shows the runs of the chosen period, from the database that it was started for."""
    factories.add_campaign(database)
    for age in ("1 hour", "3 days", "90 days"):
        sql.execute(
            database,
            "INSERT INTO leadloop.sync_runs (flow, campaign_id, started_at)"
            f" VALUES ('push-leads', '{factories.CAMPAIGN}', now() - interval '{age}')",
        )
    config = build_config(database_url=database_url)
    data.set_config(config)
    with data._open_database(config):
        runs = {days: data.load_history((), days)["runs"] for days in (1, 7, None)}
    assert {days: len(rows) for days, rows in runs.items()} == {1: 1, 7: 2, None: 3}


@pytest.mark.parametrize(
    ("days", "hour_by_hour"), [(1, True), (7, False), (30, False)], ids=["day", "week", "month"]
)
def test_start_of_a_period(days: int, hour_by_hour: bool) -> None:
    """One day starts at a full hour, longer periods at midnight: no first bar is cut short."""
    start = data.start_of_period(days)
    assert (start.minute, start.second, start.microsecond) == (0, 0, 0)
    assert hour_by_hour or start.hour == 0
    assert days * 24 <= (datetime.now(UTC) - start).total_seconds() / 3600 < (days + 1) * 24


@pytest.mark.parametrize(
    ("environment", "page"),
    [
        ({}, None),
        ({"PREFECT_API_URL": "http://host:4200/api/"}, "http://host:4200"),
        ({"PREFECT_API_URL": "https://api.prefect.cloud/api/accounts/1/workspaces/2"}, None),
        ({"PREFECT_UI_URL": "https://ui/", "PREFECT_API_URL": "http://host/api"}, "https://ui"),
        ({"PREFECT_UI_URL": "javascript:alert(1)"}, None),
    ],
)
def test_prefect_page(environment: dict[str, str], page: str | None) -> None:
    """The page links to Prefect's UI by Prefect's own settings, and only if they name it."""
    assert find_prefect_page(environment) == page


def test_link_to_a_run() -> None:
    """A run has a link if the UI and the run's id in it are known."""
    config = build_config(prefect_url="http://host:4200")
    assert config.build_run_url("id-1") == "http://host:4200/runs/flow-run/id-1"
    assert config.build_run_url(None) is None
    assert build_config().build_run_url("id-1") is None
