"""A live run asks its host in a thread of its own."""

import logging
from collections.abc import Callable
from threading import Event

import pytest

from leadloop.settings import Settings
from tasks.live_checks import HostCheck
from tests.resilience.processes import wait_until

LOG = logging.getLogger("leadloop.tests")


def fails() -> bool:
    """A server that is away."""
    raise ConnectionError("a text that may hold anything")


def start(load_settings: Callable[[], Settings], is_cancelled: Callable[[], bool]) -> HostCheck:
    """Return a check that has begun."""
    check = HostCheck(LOG, load_settings, is_cancelled)
    check.start()
    return check


def test_settings_and_a_cancellation_are_found() -> None:
    """Both, by one check."""
    settings = Settings()
    check = start(lambda: settings, lambda: True)
    wait_until(lambda: check.settings is settings, "the check does not end")
    assert check.is_cancelled


def test_a_host_that_hangs_holds_nobody_up() -> None:
    """One check at a time waits for it; the next begins once it answers."""
    hangs, checks = Event(), []

    def is_cancelled() -> bool:
        checks.append(hangs.wait(60))
        return False

    check = start(Settings, is_cancelled)
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
