"""The steps of a run in its log: which lines there are, and that they stay few."""

import pytest

from tasks import step_log
from tasks.step_log import MAX_CAMPAIGNS, MAX_FAILURES, StepLog


class Lines(list[str]):
    """Collects lines."""

    def info(self, message: str, *args: object) -> None:
        """Add a line."""
        self.append(message % args)


def test_a_step_that_repeats_itself_is_logged_once() -> None:
    """For each campaign; the numbers in it make no news."""
    lines = Lines()
    log = StepLog(lines.info, campaigns=2)
    for campaign_id, leads in (("C1", 4), ("C1", 2), ("C2", 8)):
        log.log_step(campaign_id, "a create of %d leads failed", leads)
    assert lines == [
        "campaign C1: a create of 4 leads failed",
        "campaign C2: a create of 8 leads failed",
    ]


def test_a_run_of_many_campaigns_logs_no_step_of_one() -> None:
    """Its log has the sums of all."""
    lines = Lines()
    assert StepLog(lines.info, MAX_CAMPAIGNS).has_each
    log = StepLog(lines.info, MAX_CAMPAIGNS + 1)
    log.log_step("C1", "begins")
    assert not lines


def test_counts_are_logged_ever_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line a minute at first, some 100 in a day, whatever was done; and none of nothing."""
    now = 1000.0
    monkeypatch.setattr(step_log, "read_boot_clock", lambda: now)
    lines = Lines()
    log = StepLog(lines.info, campaigns=2)
    for second in range(0, 86_400, 2):
        now = 1000.0 + second
        log.log_progress("C1", {"created": second, "rejected": 0})
        log.log_progress("C2", {"created": 1, "rejected": 0})
    assert lines[:3] == ["so far: created 61", "so far: created 121", "so far: created 181"]
    assert 90 < len(lines) < 120


def test_nothing_new_is_not_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a run has been at work."""
    now = 0.0
    monkeypatch.setattr(step_log, "read_boot_clock", lambda: now)
    lines = Lines()
    log = StepLog(lines.info, campaigns=1)
    for created in (0, 1, 1):
        now += 3600.0
        log.log_progress("C1", {"created": created})
    assert lines == ["so far: created 1"]


def test_failures_of_many_campaigns_are_few_lines() -> None:
    """The first ones are logged; a line names where the others are."""
    lines = Lines()
    log = StepLog(lines.info, campaigns=2000)
    assert sum(log.admit_failure() for _ in range(2000)) == MAX_FAILURES
    assert lines == ["more campaigns fail: leadloop.sync_runs has the error of each one"]
