"""The page as people see it, in a browser."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import text

from db.database import Database
from tests import books
from tests.page import scenes
from tests.page.conftest import PREFECT, fill

pytestmark = [pytest.mark.servers, pytest.mark.timeout(900)]

_SCREENSHOTS = Path(__file__).parents[2] / "docs" / "screenshots"
_PATIENCE_MS = 240_000
_LAPTOP, _PHONE = (1366, 768), (390, 844)
_SCREENS = [(theme, size) for theme in ("light", "dark") for size in (_LAPTOP, _PHONE)]
_GROUND = {"light": "rgb(255, 255, 255)", "dark": "rgb(17, 22, 28)"}
expect.set_options(timeout=_PATIENCE_MS)

#: Every part of the page, by the name of its CSV.
_PARTS = (
    *("problems", "campaigns", "funnel", "outcomes", "attempts", "requests", "lag", "opt_outs"),
    *("rejections", "runs"),
)

Look = Callable[..., Page]


@pytest.fixture
def look(browser: Browser) -> Iterator[Look]:
    """Open an address as somebody else: `look(url, size=(390, 844))`."""
    contexts = []

    def look(url: str, size: tuple[int, int] = _LAPTOP) -> Page:
        width, height = size
        context = browser.new_context(viewport={"width": width, "height": height})
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


def on_each_screen(page: Page) -> Iterator[str]:
    """Have the page whole in either theme, on a laptop and on a phone; each by its name."""
    for theme, (width, height) in _SCREENS:
        page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
        page.set_viewport_size({"width": width, "height": height})
        expect(page.get_by_test_id("stApp")).to_have_css("background-color", _GROUND[theme])
        assert_whole(page)
        yield f"{'phone' if (width, height) == _PHONE else 'overview'}-{theme}"


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
def test_all_is_well(look: Look, page_url: str) -> None:
    """It says so first, then shows the pictures, in either theme and on either screen."""
    page = look(page_url)
    sees(page, "All is well", "Newest run", "Where the leads are", "Outcomes over time", "Runs")
    for _ in on_each_screen(page):
        assert_at_the_top(page)


def assert_at_the_top(page: Page) -> None:
    """The first line is where a screen begins, and nothing lies over it."""
    box = page.get_by_role("heading", name="leadloop").bounding_box()
    assert box is not None
    assert box["y"] < 40
    # Streamlit's own strip for its menu.
    expect(page.get_by_test_id("stHeader")).to_have_css("background-color", "rgba(0, 0, 0, 0)")


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
def test_what_is_chosen_is_in_the_address(
    look: Look, page_url: str, page_database: Database
) -> None:
    """Whoever is sent the link sees the same; and trouble of the database loses nothing of it."""
    page = look(page_url)
    created = page.get_by_test_id("stMetric").filter(has_text="Created")
    expect(created).to_contain_text("607")
    page.get_by_role("combobox", name="Campaigns").click()
    page.get_by_role("option", name="WEST-2").click()
    expect(created).to_contain_text("260")
    page.keyboard.press("Escape")
    page.get_by_role("radio", name="24 hours").click()
    expect(page).to_have_url(re.compile("campaign=WEST-2.*period=24"))
    theirs = look(page.url)
    expect(theirs.get_by_test_id("stMetric").filter(has_text="Created")).to_contain_text("260")
    expect(theirs.get_by_role("radio", name="24 hours")).to_be_checked()
    theirs.goto(f"{page_url}/?campaign=GONE&period=never")
    expect(theirs.get_by_test_id("stMetric").filter(has_text="Created")).to_contain_text("607")
    expect(theirs.get_by_role("radio", name="7 days")).to_be_checked()
    theirs.goto(f"{page_url}/?tables=true")
    expect(theirs.get_by_test_id("stDataFrame")).to_have_count(9)
    expect(theirs.get_by_test_id("stVegaLiteChart")).to_have_count(0)
    books.run(page_database, "ALTER VIEW leadloop_monitor.problems RENAME TO mislaid")
    sees(page, "The database is not ready for this page", "Stale")
    expect(page.get_by_text("All is well")).to_have_count(0)
    expect(created).to_contain_text("260")
    books.run(page_database, "ALTER VIEW leadloop_monitor.mislaid RENAME TO problems")
    sees(page, "All is well")
    expect(created).to_contain_text("260")
    expect(page.get_by_role("radio", name="24 hours")).to_be_checked()


@pytest.mark.usefixtures("stuck")
def test_what_is_stuck(look: Look, page_url: str) -> None:
    """Each problem in words, with the command that deals with it, the worst first."""
    page = look(page_url)
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
    for screen in on_each_screen(page):
        keep(page, screen)


@pytest.mark.usefixtures("stuck")
def test_what_is_not_shown_is_told(look: Look, page_url: str) -> None:
    """Whoever looks at one campaign is not told that all is well with the others."""
    page = look(f"{page_url}/?campaign=WEST-2")
    sees(page, "Warning: 2 problems", "Not shown: 1 problem of other campaigns")
    expect(page.get_by_text("leadloop disable")).to_have_count(0)


@pytest.mark.usefixtures("stuck")
def test_every_part_is_downloaded(look: Look, page_url: str, tmp_path: Path) -> None:
    """As CSV: plain values, and runs with their links to Prefect."""
    page = look(page_url)
    assert_whole(page)
    sees(page, "Why leads are rejected", "Runs")
    for name in _PARTS:
        with page.expect_download() as download:
            page.locator(f".st-key-csv-{name} button:visible").first.click()
        download.value.save_as(tmp_path / name)
    parts = {name: (tmp_path / name).read_text().splitlines() for name in _PARTS}
    assert all(len(lines) > 1 for lines in parts.values()), parts
    assert f"{PREFECT}/runs/flow-run/" in parts["runs"][1]
    assert parts["problems"][1].endswith("leadloop disable --campaign EAST-1")
    assert "EAST-1,,True,critical" in parts["campaigns"][1]


def test_nothing_runs(look: Look, page_url: str, page_database: Database) -> None:
    """No figure is wrong, and yet not all is well; a campaign given up makes none of them worse."""
    fill(page_database, scenes.idle)
    page = look(page_url)
    sees(page, "Warning: 2 problems", "nothing has run for more than an hour", "leadloop doctor")
    expect(page.get_by_text("All is well")).to_have_count(0)
    behind = page.get_by_test_id("stMetric").filter(has_text="Outcomes behind")
    expect(behind).to_contain_text(re.compile(r"\d (s|min)"))


def test_it_follows_by_itself(look: Look, page_url: str, page_database: Database) -> None:
    """No schema, no campaign, no run, all is well: each said in words, and nobody reloads."""
    fill(page_database, None)
    page = look(f"{page_url}/?campaign=WEST-2")
    sees(page, "the database has no leadloop schema yet: run `leadloop init`")
    fill(page_database, lambda _: None)
    sees(page, "No campaign yet", "leadloop load FILE.csv --campaign C")
    books.opt_out(page_database, "a")
    sees(page, "Critical: 1 problem", "waits in a campaign that is unknown")
    books.add_campaign(page_database)
    sees(page, "nothing has run yet", "leadloop sync", "No lead yet", "No run in this period")
    sees(page, "Nothing in this period")
    fill(page_database, scenes.healthy)
    sees(page, "All is well")
    expect(page.get_by_test_id("stException")).to_have_count(0)


def test_loading_says_so(look: Look, page_url: str, page_database: Database) -> None:
    """Whoever waits for a slow picture sees what for, and meanwhile whether all is well."""
    fill(page_database, scenes.healthy)
    with page_database.transaction() as connection:
        connection.execute(text("LOCK TABLE leadloop.outreach_attempts IN ACCESS EXCLUSIVE MODE"))
        # Not what others have just looked at: that is there at once.
        page = look(f"{page_url}/?period=24+hours")
        sees(page, "All is well", "Loading: reading the books")
        expect(page.get_by_text("Outcomes over time")).to_have_count(0)
    sees(page, "Outcomes over time")


def test_the_database_is_away(look: Look, unreachable_url: str) -> None:
    """It says that, where, and that it looks again."""
    page = look(unreachable_url, size=_PHONE)
    sees(page, "The database is unreachable", "127.0.0.1:1", "connection refused", "looks again")
    expect(page.get_by_test_id("stException")).to_have_count(0)
