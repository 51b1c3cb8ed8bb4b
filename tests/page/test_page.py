"""The page as people see it, in a browser."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import text

from db.database import Database
from tests import books
from tests.page import scenes
from tests.page.conftest import PREFECT, fill

_SCREENSHOTS = Path(__file__).parents[2] / "docs" / "screenshots"
_PATIENCE_MS = 90_000
_LAPTOP, _PHONE = (1280, 800), (390, 844)
_GROUND = {"light": "rgb(255, 255, 255)", "dark": "rgb(17, 22, 28)"}
expect.set_options(timeout=_PATIENCE_MS)

Look = Callable[..., Page]


@pytest.fixture
def look(browser: Browser) -> Iterator[Look]:
    """Open an address: `look(url, theme="dark", size=(390, 844))`."""
    contexts = []

    def look(url: str, theme: str = "light", size: tuple[int, int] = _LAPTOP) -> Page:
        width, height = size
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if theme == "dark" else "light",
        )
        contexts.append(context)
        context.set_default_timeout(_PATIENCE_MS)
        page = context.new_page()
        page.goto(url)
        return page

    yield look
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def healthy(page_database: Database) -> None:
    """All is well."""
    fill(page_database, scenes.healthy)


@pytest.fixture(scope="module")
def stuck(page_database: Database) -> None:
    """Three problems."""
    fill(page_database, scenes.stuck)


def sees(page: Page, *words: str) -> None:
    """Wait until each is on the screen."""
    for each in words:
        expect(page.get_by_text(each).first).to_be_visible()


def assert_whole(page: Page) -> None:
    """Six charts, nothing broken, and nothing to scroll sideways."""
    expect(page.get_by_test_id("stVegaLiteChart")).to_have_count(6)
    expect(page.get_by_test_id("stException")).to_have_count(0)
    wider = "e => e.scrollWidth > e.clientWidth"
    for place in ("html", "body", "[data-testid=stMain]"):
        assert not page.locator(place).evaluate(wider), place


def keep(page: Page, name: str) -> None:
    """A picture for the documentation, where `make screenshots` asks for it."""
    if os.environ.get("SCREENSHOTS"):
        _SCREENSHOTS.mkdir(exist_ok=True)
        # Charts move in.
        page.wait_for_timeout(3000)
        page.screenshot(path=_SCREENSHOTS / f"{name}.png")


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize("size", [_LAPTOP, _PHONE], ids=["laptop", "phone"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_is_well(look: Look, page_url: str, theme: str, size: tuple[int, int]) -> None:
    """It says so first, then shows the pictures, in either theme and on either screen."""
    page = look(page_url, theme, size)
    sees(page, "All is well", "Newest run", "Where the leads are", "Outcomes over time", "Runs")
    assert_whole(page)
    ground = page.get_by_test_id("stApp").evaluate("e => getComputedStyle(e).backgroundColor")
    assert ground == _GROUND[theme]


@pytest.mark.usefixtures("healthy")
def test_it_stays_at_home_and_shows_nobody(look: Look, page_url: str) -> None:
    """No request leaves the machine, and no person is in what the browser gets."""
    page = look("about:blank")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_url)
    sees(page, "All is well")
    assert_whole(page)
    assert [url for url in asked if not url.startswith((page_url, "data:", "blob:"))] == []
    assert "Zebulon" not in page.content()


@pytest.mark.usefixtures("healthy")
def test_a_table_is_downloaded(look: Look, page_url: str, tmp_path: Path) -> None:
    """Runs as CSV, each with its link to Prefect."""
    page = look(page_url)
    with page.expect_download() as download:
        page.locator(".st-key-csv-runs button:visible").first.click()
    download.value.save_as(tmp_path / "runs.csv")
    lines = (tmp_path / "runs.csv").read_text().splitlines()
    assert "flow" in lines[0]
    assert f"{PREFECT}/runs/flow-run/" in lines[1]


@pytest.mark.usefixtures("healthy")
def test_one_campaign_is_chosen(look: Look, page_url: str) -> None:
    """The figures are then those of the one."""
    page = look(page_url)
    created = page.get_by_test_id("stMetric").filter(has_text="Created")
    expect(created).to_contain_text("607")
    page.get_by_role("combobox", name="Campaigns").click()
    page.get_by_role("option", name="WEST-2").click()
    expect(created).to_contain_text("260")


@pytest.mark.usefixtures("stuck")
@pytest.mark.parametrize("size", [_LAPTOP, _PHONE], ids=["laptop", "phone"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_what_is_stuck(look: Look, page_url: str, theme: str, size: tuple[int, int]) -> None:
    """Each problem in words, with the command that deals with it, the worst first."""
    page = look(page_url, theme, size)
    sees(
        page,
        "Critical: 3 problems",
        "3 opt-outs have waited for more than 15 minutes",
        "leadloop disable --campaign EAST-1",
        "2 leads have been in doubt",
        "leadloop audit --campaign WEST-2",
        "the vendor refuses the login *and* says why: <b>401</b>",
        "leadloop doctor",
    )
    first = page.get_by_test_id("stMarkdown").filter(has_text="EAST-1").first
    # In a word too: colour and icon alone would leave some people out.
    expect(first).to_contain_text("critical")
    assert_whole(page)
    if (theme, size) != ("dark", _PHONE):
        keep(page, f"{'phone' if size == _PHONE else 'overview'}-{theme}")


def test_old_figures_say_so(look: Look, page_url: str, page_database: Database) -> None:
    """Nothing is wrong in them, but nothing has run: not "All is well"."""
    fill(page_database, scenes.stale)
    page = look(page_url)
    sees(page, "Stale: nothing has run for 5 h", "leadloop doctor")
    expect(page.get_by_text("All is well")).to_have_count(0)


def test_it_follows_by_itself(look: Look, page_url: str, page_database: Database) -> None:
    """No schema, no campaign, no run, all is well: each said in words, and nobody reloads."""
    fill(page_database, None)
    page = look(page_url)
    sees(page, "the database has no leadloop schema yet: run `leadloop init`")
    fill(page_database, lambda _: None)
    sees(page, "No campaign yet", "leadloop load FILE.csv --campaign C")
    books.add_campaign(page_database)
    sees(page, "Nothing has run yet", "leadloop sync", "Nothing in this period", "No run in this")
    fill(page_database, scenes.healthy)
    sees(page, "All is well")
    expect(page.get_by_test_id("stException")).to_have_count(0)


def test_loading_says_so(look: Look, page_url: str, page_database: Database) -> None:
    """Whoever waits for a slow database sees what for."""
    fill(page_database, scenes.healthy)
    page = look(page_url)
    sees(page, "All is well", "24 hours")
    with page_database.begin() as connection:
        connection.execute(text("LOCK TABLE leadloop.disable_requests IN ACCESS EXCLUSIVE MODE"))
        # Not what others have just looked at: that is there at once.
        page.get_by_role("radio", name="24 hours").click()
        sees(page, "Loading: reading the books")
    sees(page, "All is well")


def test_the_database_is_away(look: Look, unreachable_url: str) -> None:
    """It says that, where, and that it looks again."""
    page = look(unreachable_url, size=_PHONE)
    sees(page, "The database is unreachable", "127.0.0.1:1", "connection refused", "looks again")
    expect(page.get_by_test_id("stException")).to_have_count(0)
