"""The page or a part of it, run by Streamlit's own test runner: no browser, no HTTP server."""

from collections.abc import Callable
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from db.database import Database
from db.monitor import read_history, read_status_snapshot
from leadloop.monitor import data
from leadloop.monitor.layout import show_page


def configure_page(monkeypatch: pytest.MonkeyPatch, prefect_url: str | None = None) -> None:
    """Configure the page until the test ends; its database is unreachable."""
    monkeypatch.setattr(data, "_configs", [])
    config = data.PageConfig(
        database_url="postgresql://127.0.0.1:1/d",
        database_setting="LEADLOOP_DATABASE_URL",
        prefect_url=prefect_url,
        refresh_s=9,
    )
    data.set_config(config)


def read_uncached(monkeypatch: pytest.MonkeyPatch, database: Database) -> None:
    """Let the page read this database at each run, without its caches."""
    monkeypatch.setattr(data, "load_status", lambda: read_status_snapshot(database))
    monkeypatch.setattr(data, "load_history", lambda ids, _: read_history(database, ids, None))


def run_page(**query: str) -> AppTest:
    """Open the page with a query in its URL."""
    page = _make_app(show_page)
    for name, value in query.items():
        page.query_params[name] = value
    page.run()
    assert not page.exception
    return page


def run_part(show: Callable[..., None], *arguments: Any, **named: Any) -> AppTest:
    """Show a part of the page."""
    part = _make_app(show, *arguments, **named).run()
    assert not part.exception
    return part


def list_texts(page: AppTest) -> list[str]:
    """Return the texts of messages, captions and Markdown, in the order of their kind."""
    kinds = (page.error, page.warning, page.info, page.success, page.caption, page.markdown)
    return [element.value for kind in kinds for element in kind]


def _make_app(show: Callable[..., None], *arguments: Any, **named: Any) -> AppTest:
    # Streamlit runs the source of this function in a module without our imports.
    def script(show, arguments, named):  # type: ignore[no-untyped-def]
        show(*arguments, **named)

    return AppTest.from_function(script, args=(show, arguments, named), default_timeout=60)
