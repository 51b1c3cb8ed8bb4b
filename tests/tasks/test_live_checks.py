"""A live run asks its host in a thread of its own."""

import logging
from collections.abc import Callable
from threading import Event

import pytest
from pydantic import SecretStr

from leadloop.settings import Settings
from tasks.live_checks import HostCheck
from tests.waiting import wait_until

LOG = logging.getLogger("leadloop.tests")


def fails() -> bool:
    """A server that is away."""
    raise ConnectionError("a text that may hold anything")


DATABASE_URL = "postgresql://user@host/database"


def complete_settings() -> Settings:
    """Settings that a live run can begin with."""
    return Settings(database_url=SecretStr(DATABASE_URL), api_token=SecretStr("token"))


def start(load_settings: Callable[[], Settings], is_cancelled: Callable[[], bool]) -> HostCheck:
    """Return a check that has begun."""
    check = HostCheck(LOG, load_settings, is_cancelled)
    check.start()
    return check


def test_settings_and_a_cancellation_are_found() -> None:
    """Both, by one check."""
    settings = complete_settings()
    check = start(lambda: settings, lambda: True)
    wait_until(lambda: check.settings is settings, "the check does not end")
    assert check.is_cancelled


def test_a_host_that_hangs_holds_nobody_up() -> None:
    """One check at a time waits for it; the next begins once it answers."""
    hangs, checks = Event(), []

    def is_cancelled() -> bool:
        checks.append(hangs.wait(60))
        return False

    check = start(complete_settings, is_cancelled)
    check.start()
    assert check.settings is None
    assert checks == []
    hangs.set()
    wait_until(lambda: check.settings, "the check does not end")
    assert checks == [True]


def test_a_host_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """The run goes on as it was; the log names the kind of error only."""
    check = start(Settings, fails)
    wait_until(lambda: caplog.messages, "nothing is logged")
    assert caplog.messages == ["the settings cannot be read again: ConnectionError"]
    assert check.settings is None
    assert not check.is_cancelled


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        (Settings(api_token=SecretStr("token")), "LEADLOOP_DATABASE_URL"),
        (Settings(database_url=SecretStr(DATABASE_URL)), "LEADLOOP_API_TOKEN"),
        (Settings(database_url=SecretStr(DATABASE_URL), client_id="id"), "LEADLOOP_CLIENT_SECRET"),
        (Settings(database_url=SecretStr("postgresql://a@b@"), api_token=SecretStr("t")), "wrong"),
    ],
)
def test_settings_without_what_a_run_needs(
    caplog: pytest.LogCaptureFixture, settings: Settings, missing: str
) -> None:
    """A file that is being written may lack half of them: the run goes on with those it has."""
    check = start(lambda: settings, lambda: False)
    wait_until(lambda: caplog.messages, "nothing is logged")
    assert check.settings is None
    (line,) = caplog.messages
    assert "the settings as they were stay in use" in line
    assert missing in line
