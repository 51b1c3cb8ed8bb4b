"""A session with the vendor's API, as the settings describe it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from db.database import Database
from leadloop.core.accounts import DEFAULT_ACCOUNT
from leadloop.core.errors import RunError, UsageError
from leadloop.sandbox import SandboxHandle
from leadloop.settings import Settings
from tasks.api_session import ApiSession, open_api
from tests import sql
from tests.factories import CAMPAIGN

pytestmark = pytest.mark.usefixtures("environment")

_LOGIN = ("client_id", "client_secret", "username", "password")


@contextmanager
def opened(database: Database) -> Iterator[ApiSession]:
    """A session by the settings of the environment, which warns of nothing."""
    warnings: list[str] = []
    with open_api(Settings.load(), database, warnings.append, account=DEFAULT_ACCOUNT) as session:
        yield session
    assert warnings == []


@pytest.fixture
def oauth(environment: Path, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A login by password instead of the fixed token."""
    monkeypatch.delenv("LEADLOOP_API_TOKEN")
    for name in _LOGIN:
        monkeypatch.setenv(f"LEADLOOP_{name.upper()}", getattr(vendor.rules, name))


def slots_in_use(database: Database) -> int:
    """The slots of the rate limiter that a request has reserved."""
    used = "SELECT count(*) FROM leadloop.rate_slots WHERE slot > 0 AND free_at > '-infinity'"
    amount: int = sql.fetch_value(database, used)
    return amount


def test_an_opened_session_has_sent_nothing(database: Database, vendor: SandboxHandle) -> None:
    """The ring of the rate limiter has the size of the setting."""
    with opened(database) as session:
        assert session.transport.requests_sent == 0
    assert vendor.requests == []
    assert slots_in_use(database) == 0


def test_a_token_is_used_as_it_is(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request takes one slot of the budget, and no login comes before it."""
    monkeypatch.setenv("LEADLOOP_RATE_LIMIT", "20/3600")
    with opened(database) as session:
        session.api.look_up(CAMPAIGN, "a")
        assert session.transport.requests_sent == 1
    assert [entry.kind for entry in vendor.requests] == ["responses"]
    assert slots_in_use(database) == 1
    assert sql.fetch_value(database, "SELECT sum(uses) FROM leadloop.rate_slots") == 20


@pytest.mark.usefixtures("oauth")
def test_a_login_by_password_counts_as_a_request(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes first, once, and takes a slot of the budget like any other request."""
    monkeypatch.setenv("LEADLOOP_RATE_LIMIT", "20/3600")
    with opened(database) as session:
        session.api.look_up(CAMPAIGN, "a")
        session.api.look_up(CAMPAIGN, "b")
    assert [entry.kind for entry in vendor.requests] == ["token", "responses", "responses"]
    assert slots_in_use(database) == 3


@pytest.mark.usefixtures("oauth")
@pytest.mark.parametrize("missing", _LOGIN)
def test_half_a_login_is_refused(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """One line names the part that is missing; nothing is sent."""
    monkeypatch.delenv(f"LEADLOOP_{missing.upper()}")
    with (
        pytest.raises(UsageError, match=f"incomplete: set LEADLOOP_{missing.upper()}$"),
        opened(database),
    ):
        pass
    assert vendor.requests == []


def test_a_ca_bundle_that_is_missing_is_refused(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a lead is claimed, not at the first request."""
    monkeypatch.setenv("LEADLOOP_API_URL", "https://vendor.invalid")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    with pytest.raises(RunError, match=r"^REQUESTS_CA_BUNDLE names no file"), opened(database):
        pass


def test_a_pause_that_the_vendor_asks_for_is_warned_of(
    database: Database, vendor: SandboxHandle
) -> None:
    """By the warning that the session was opened with; then the read goes on."""
    vendor.add_fault(kind="status", status=429, when="before", headers={"Retry-After": "0"}, nth=1)
    warnings: list[str] = []
    with open_api(Settings.load(), database, warnings.append, account=DEFAULT_ACCOUNT) as session:
        session.api.look_up(CAMPAIGN, "a")
    assert warnings == ["the vendor asked for a pause: no request is sent for 0 s"]
    assert [entry.status for entry in vendor.requests] == [429, 200]
