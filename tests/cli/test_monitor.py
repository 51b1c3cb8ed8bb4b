"""`leadloop monitor`: what it says where there can be no page, and to whom it shows nothing."""

import importlib.util
import socket
from collections.abc import Callable

import pytest
from sqlalchemy import make_url

from db.database import Database
from db.monitor import NotReadable, read
from leadloop.cli import monitor
from leadloop.core.errors import UsageError
from leadloop.monitor.given import prefect_page
from tests import books
from tests.conftest import Ran

_STRANGER = "page_stranger"


def test_a_port_that_is_taken(leadloop: Callable[..., Ran]) -> None:
    """One line, exit 2."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ran = leadloop("monitor", "--port", str(port))
    assert ran.code == 2
    said = f"leadloop: cannot listen on port {port} of 127.0.0.1: Address already in use"
    assert ran.err.strip() == f"{said}; choose another --port"


def test_a_login_that_is_no_url(leadloop: Callable[..., Ran]) -> None:
    """One line that names the variable, and not what is in it."""
    ran = leadloop("monitor", LEADLOOP_MONITOR_DATABASE_URL="mysql://user:secret@host/db")
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
    assert "LEADLOOP_MONITOR_DATABASE_URL is wrong" in ran.err
    assert "secret" not in ran.err


def test_without_streamlit(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"pip install 'leadloop\[monitor\]'"):
        monitor.serve("127.0.0.1", 0, 30)


def test_a_login_that_is_no_reader(database: Database, database_url: str) -> None:
    """It is told what to grant; once that is done, it reads."""
    books.add_campaign(database)
    books.run(database, f"DROP ROLE IF EXISTS {_STRANGER}")
    books.run(database, f"CREATE ROLE {_STRANGER} LOGIN")
    url = make_url(database_url).set(username=_STRANGER).render_as_string(hide_password=False)
    try:
        with Database(url, connections=1) as theirs:
            with pytest.raises(NotReadable, match=f'GRANT leadloop_reader TO "{_STRANGER}"'):
                read(theirs, [], None)
            books.run(database, f"GRANT leadloop_reader TO {_STRANGER}")
            assert read(theirs, [], None).campaign_ids == [books.CAMPAIGN]
    finally:
        books.run(database, f"DROP ROLE {_STRANGER}")


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
def test_where_runs_are_shown(environment: dict[str, str], page: str | None) -> None:
    """Prefect's page by its own settings; no link where they do not tell."""
    assert prefect_page(environment) == page
