"""The page as a whole: errors, filters and what a refresh keeps."""

import pytest
from streamlit.testing.v1 import AppTest

from db.database import Database
from tests import sql
from tests.monitor import seed_data
from tests.monitor.page_script import configure_page, list_texts, read_uncached, run_page


@pytest.fixture(autouse=True)
def page_config(monkeypatch: pytest.MonkeyPatch) -> None:
    """Configure the page."""
    configure_page(monkeypatch)


@pytest.fixture
def stuck(database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """Return a database with three problems, which the page reads."""
    read_uncached(monkeypatch, database)
    seed_data.seed_stuck(database)
    return database


def find_created(page: AppTest) -> str:
    """Return the number of created leads that the page shows."""
    (created,) = [metric.value for metric in page.metric if metric.label == "Created"]
    return created


def list_headings(page: AppTest) -> list[str]:
    """Return the headings of the sections that the page shows."""
    return [heading.value for heading in page.subheader]


def test_hidden_problems_are_counted(stuck: Database) -> None:
    """A page filtered to one campaign states how many problems other campaigns have."""
    page = run_page(campaign="WEST-2")
    assert page.warning[0].value == "**Warning: 2 problems**"
    assert "**Not shown: 1 problem of other campaigns.**" in page.caption[0].value
    assert not any("leadloop disable" in code.value for code in page.code)
    assert set(page.dataframe[-1].value["campaign_id"]) == {"WEST-2"}


def test_figures_as_tables(stuck: Database) -> None:
    """Each of the six charts has a table instead, for a viewer who cannot see charts."""
    charts = run_page()
    tables = run_page(tables="true")
    assert len(charts.dataframe) == 4
    assert len(tables.dataframe) == 4 + 6


def test_failed_refresh_keeps_the_figures(stuck: Database) -> None:
    """The last figures stay, marked as stale, until the next refresh that succeeds."""
    page = run_page()
    created = find_created(page)
    sql.execute(stuck, "ALTER VIEW leadloop_monitor.problems RENAME TO renamed")
    page.run()
    assert page.error[0].value.startswith("**The database is not ready for this page**: ")
    assert page.warning[0].value.startswith("**Stale**: the refresh failed")
    assert "Critical" not in "".join(list_texts(page))
    assert find_created(page) == created
    sql.execute(stuck, "ALTER VIEW leadloop_monitor.renamed RENAME TO problems")
    page.run()
    assert page.error[0].value == "**Critical: 3 problems**"


def test_another_selection_shows_no_old_history(stuck: Database) -> None:
    """If the history of a new selection cannot be read, the charts of the old one do not stay."""
    page = run_page()
    sql.execute(stuck, "ALTER VIEW leadloop_monitor.run_history RENAME TO renamed")
    assert "Runs" in list_headings(page.run())
    page.multiselect[0].set_value(["WEST-2"]).run()
    assert list_headings(page) == ["Campaigns", "Latency in the last hour"]


def test_unreachable_database() -> None:
    """The page states the address, the reason, and when it retries."""
    page = run_page()
    (message,) = [error.value for error in page.error]
    assert message.startswith("**The database is unreachable**: ")
    assert "connection refused" in message
    assert page.caption[0].value == "The page retries every 9 s."
