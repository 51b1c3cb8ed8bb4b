"""The page as a viewer sees it, in a browser."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Download, Page, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeout
from sqlalchemy import text

from db.database import Database
from tests import factories, sql
from tests.monitor import seed_data
from tests.monitor.conftest import PREFECT_URL, seed_database

pytestmark = [pytest.mark.servers, pytest.mark.timeout(900)]

_SCREENSHOTS = Path(__file__).parents[2] / "docs" / "screenshots"
_TIMEOUT_MS = 240_000
_LAPTOP, _PHONE = (1366, 768), (390, 844)
_SCREENS = [(theme, size) for theme in ("light", "dark") for size in (_LAPTOP, _PHONE)]
_BACKGROUND = {"light": "rgb(255, 255, 255)", "dark": "rgb(17, 22, 28)"}
expect.set_options(timeout=_TIMEOUT_MS)

#: The name of every CSV download of the page.
_CSV_NAMES = (
    *("problems", "campaigns", "funnel", "outcomes", "attempts", "requests", "lag", "opt_outs"),
    *("latencies", "rejections", "runs"),
)

OpenPage = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Yield a function that opens a URL as a new viewer: `open_page(url, size=(390, 844))`."""
    contexts = []

    def open_in_context(url: str, size: tuple[int, int] = _LAPTOP) -> Page:
        width, height = size
        context = browser.new_context(viewport={"width": width, "height": height})
        contexts.append(context)
        context.set_default_timeout(_TIMEOUT_MS)
        page = context.new_page()
        page.goto(url)
        return page

    yield open_in_context
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def healthy(page_database: Database) -> None:
    """Seed a database without problems."""
    seed_database(page_database, seed_data.seed_healthy)


@pytest.fixture(scope="module")
def stuck(page_database: Database) -> None:
    """Seed a database with three problems."""
    seed_database(page_database, seed_data.seed_stuck)


def expect_texts(page: Page, *texts: str) -> None:
    """Wait until each text is visible."""
    for each in texts:
        expect(page.get_by_text(each).first).to_be_visible()


def iterate_screens(page: Page) -> Iterator[str]:
    """Yield the name of each screen, with the page complete: two themes, on laptop and phone."""
    for theme, (width, height) in _SCREENS:
        page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
        page.set_viewport_size({"width": width, "height": height})
        expect(page.get_by_test_id("stApp")).to_have_css("background-color", _BACKGROUND[theme])
        assert_complete(page)
        yield f"{'phone' if (width, height) == _PHONE else 'overview'}-{theme}"


def assert_complete(page: Page) -> None:
    """Assert six charts, no exception and no horizontal scrolling."""
    expect(page.get_by_test_id("stVegaLiteChart")).to_have_count(6)
    expect(page.get_by_test_id("stException")).to_have_count(0)
    wider = "e => e.scrollWidth > e.clientWidth"
    for place in ("html", "body", "[data-testid=stMain]"):
        assert not page.locator(place).evaluate(wider), place


def save_screenshot(page: Page, name: str) -> None:
    """Save a screenshot for the documentation, if `make screenshots` runs the test."""
    if os.environ.get("SCREENSHOTS"):
        _SCREENSHOTS.mkdir(exist_ok=True)
        # Wait for the charts' animation.
        page.wait_for_timeout(3000)
        # Streamlit's indicator of a refresh covers the title on a phone.
        expect(page.get_by_test_id("stStatusWidget")).to_have_count(0)
        page.screenshot(path=_SCREENSHOTS / f"{name}.png")


@pytest.mark.usefixtures("healthy")
def test_all_is_well(open_page: OpenPage, page_url: str) -> None:
    """The headline says so; the charts follow, in either theme and on either screen."""
    page = open_page(page_url)
    expect_texts(page, "All is well", "Latest run", "Lead funnel", "Outcomes over time", "Runs")
    for _ in iterate_screens(page):
        assert_title_at_top(page)


def assert_title_at_top(page: Page) -> None:
    """Assert that the title is at the top of the screen and that nothing covers it."""
    box = page.get_by_role("heading", name="leadloop").bounding_box()
    assert box is not None
    assert box["y"] < 40
    # The strip that Streamlit reserves for its menu.
    expect(page.get_by_test_id("stHeader")).to_have_css("background-color", "rgba(0, 0, 0, 0)")


@pytest.mark.usefixtures("healthy")
def test_no_external_requests_and_no_personal_data(open_page: OpenPage, page_url: str) -> None:
    """The browser contacts no other host and receives no lead's name."""
    page = open_page("about:blank")
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.goto(page_url)
    expect_texts(page, "All is well")
    assert_complete(page)
    assert [url for url in requested if not url.startswith((page_url, "data:", "blob:"))] == []
    assert "Zebulon" not in page.content()


@pytest.mark.usefixtures("healthy")
def test_url_holds_the_filters(open_page: OpenPage, page_url: str, page_database: Database) -> None:
    """A shared link shows the same selection, and an error of the database does not reset it."""
    page = open_page(page_url)
    created = page.get_by_test_id("stMetric").filter(has_text="Created")
    expect(created).to_contain_text("607")
    page.get_by_role("combobox", name="Campaigns").click()
    page.get_by_role("option", name="WEST-2").click()
    expect(created).to_contain_text("260")
    page.keyboard.press("Escape")
    page.get_by_role("radio", name="24 hours").click()
    expect(page).to_have_url(re.compile("campaign=WEST-2.*period=24"))
    shared = open_page(page.url)
    expect(shared.get_by_test_id("stMetric").filter(has_text="Created")).to_contain_text("260")
    expect(shared.get_by_role("radio", name="24 hours")).to_be_checked()
    shared.goto(f"{page_url}/?campaign=GONE&period=never")
    expect(shared.get_by_test_id("stMetric").filter(has_text="Created")).to_contain_text("607")
    expect(shared.get_by_role("radio", name="7 days")).to_be_checked()
    shared.goto(f"{page_url}/?tables=true")
    expect(shared.get_by_test_id("stDataFrame")).to_have_count(10)
    expect(shared.get_by_test_id("stVegaLiteChart")).to_have_count(0)
    sql.execute(page_database, "ALTER VIEW leadloop_monitor.problems RENAME TO renamed")
    expect_texts(page, "The database is not ready for this page", "Stale")
    expect(page.get_by_text("All is well")).to_have_count(0)
    expect(created).to_contain_text("260")
    sql.execute(page_database, "ALTER VIEW leadloop_monitor.renamed RENAME TO problems")
    expect_texts(page, "All is well")
    expect(created).to_contain_text("260")
    expect(page.get_by_role("radio", name="24 hours")).to_be_checked()


@pytest.mark.usefixtures("stuck")
def test_problems_with_their_commands(open_page: OpenPage, page_url: str) -> None:
    """Each problem has a text and the command that resolves it, most severe first."""
    page = open_page(page_url)
    expect_texts(
        page,
        "Critical: 3 problems",
        "3 opt-outs have waited for more than 15 minutes",
        "leadloop disable --campaign EAST-1",
        "2 leads have been in doubt",
        "leadloop audit --repair --campaign WEST-2",
        "the vendor refuses the login *and* says why: <b>401</b>",
        "leadloop doctor",
    )
    first = page.get_by_test_id("stMarkdown").filter(has_text="EAST-1").first
    # As a word: not everyone can tell the colours and icons apart.
    expect(first).to_contain_text("critical")
    for screen in iterate_screens(page):
        save_screenshot(page, screen)


@pytest.mark.usefixtures("stuck")
def test_every_section_downloads_as_csv(open_page: OpenPage, page_url: str, tmp_path: Path) -> None:
    """Values are unformatted, and runs have their links to Prefect."""
    # Chromium asks before it downloads more than ten files from one tab.
    for names in (_CSV_NAMES[:6], _CSV_NAMES[6:]):
        page = open_page(page_url)
        assert_complete(page)
        expect_texts(page, "Rejection reasons", "Runs")
        for name in names:
            download_csv(page, name).save_as(tmp_path / name)
    files = {name: (tmp_path / name).read_text().splitlines() for name in _CSV_NAMES}
    assert all(len(lines) > 1 for lines in files.values()), files
    assert f"{PREFECT_URL}/runs/flow-run/" in files["runs"][1]
    assert files["problems"][1].endswith("leadloop disable --campaign EAST-1")
    assert "EAST-1,,True,critical" in files["campaigns"][1]


def download_csv(page: Page, name: str) -> Download:
    """Click a section's button, again where the page was refreshed at that moment."""
    button = page.locator(f".st-key-csv-{name} button:visible").first
    for timeout_ms in (30_000, 30_000, 120_000):
        with suppress(PlaywrightTimeout):
            with page.expect_download(timeout=timeout_ms) as download:
                button.click()
            return download.value
    raise AssertionError(f"no download of {name}")


def test_refreshes_without_reload(
    open_page: OpenPage, page_url: str, page_database: Database
) -> None:
    """No schema, no campaign, no run, all well: an open page follows each change."""
    seed_database(page_database, None)
    page = open_page(f"{page_url}/?campaign=WEST-2")
    expect_texts(page, "the database has no leadloop schema yet: run `leadloop init`")
    seed_database(page_database, lambda _: None)
    expect_texts(page, "No campaign yet", "leadloop load FILE.csv --campaign C")
    factories.add_opt_outs(page_database, "a")
    expect_texts(page, "Critical: 1 problem", "waits in an unknown campaign")
    factories.add_campaign(page_database)
    expect_texts(page, "no run yet", "leadloop sync", "No lead yet", "No run in this period")
    expect_texts(page, "Nothing in this period")
    seed_database(page_database, seed_data.seed_healthy)
    expect_texts(page, "All is well")
    expect(page.get_by_test_id("stException")).to_have_count(0)


def test_loading_indicator(open_page: OpenPage, page_url: str, page_database: Database) -> None:
    """While a slow chart loads, the page shows a spinner, and the headline already."""
    seed_database(page_database, seed_data.seed_healthy)
    with page_database.transaction() as connection:
        connection.execute(text("LOCK TABLE leadloop.poll_windows IN ACCESS EXCLUSIVE MODE"))
        # Another period than the other tests: those results are cached.
        page = open_page(f"{page_url}/?period=24+hours")
        expect_texts(page, "All is well", "Loading data")
        expect(page.get_by_text("Outcomes over time")).to_have_count(0)
    expect_texts(page, "Outcomes over time")
