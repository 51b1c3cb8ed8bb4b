"""What repeats itself is logged once an hour."""

import logging

import pytest

from tasks import live_log
from tasks.live_log import OnceAnHour


def test_a_warning_is_logged_once_an_hour(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same words with other values are other news."""
    now = 5.0
    monkeypatch.setattr(live_log, "read_boot_clock", lambda: now)
    log = OnceAnHour(logging.getLogger("leadloop.tests"))
    for name in ("C1", "C2", "C1"):
        log.warning("campaign %s fails", name)
    assert caplog.messages == ["campaign C1 fails", "campaign C2 fails"]
    now += 3601
    log.warning("campaign %s fails", "C1")
    assert caplog.messages[2:] == ["campaign C1 fails"]


def test_the_time_that_something_took_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    """An outage is logged by each job that it ends, after other seconds."""
    log = OnceAnHour(logging.getLogger("leadloop.tests"))
    for seconds in (47, 55, 1_200):
        log.error("no answer for %s s; the next run goes on", f"{seconds:,}")
    assert caplog.messages == ["no answer for 47 s; the next run goes on"]


def test_what_is_no_warning_is_always_logged(caplog: pytest.LogCaptureFixture) -> None:
    """It does not come from failures that repeat themselves."""
    caplog.set_level(logging.INFO)
    log = OnceAnHour(logging.getLogger("leadloop.tests"))
    for _ in range(2):
        log.info("working")
    assert caplog.messages == ["working", "working"]


def test_memory_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """However many different messages there are."""
    log = OnceAnHour(logging.getLogger("leadloop.tests"))
    for number in range(5000):
        log.warning("lead %d", number)
    assert len(caplog.messages) == 5000
    assert len(log._told_at) <= 1000
