"""The page's first line, and how it writes durations."""

from datetime import UTC, datetime
from typing import Any

import pytest

from db.monitor import StatusSnapshot
from leadloop.monitor.headline import choose_headline, format_rough_duration


def snapshot(*severities: str, campaigns: int = 1) -> StatusSnapshot:
    """Return a snapshot with a problem of each severity."""
    rows: list[dict[str, Any]] = [{"campaign_id": f"C-{number}"} for number in range(campaigns)]
    problems: list[dict[str, Any]] = [{"severity": severity} for severity in severities]
    return StatusSnapshot(
        taken_at=datetime.now(UTC),
        campaigns=rows,
        problems=problems,
        latencies=[],
        newest_run=None,
        budgets=[],
        thresholds={},
        upgrade_complete=True,
    )


@pytest.mark.parametrize(
    ("severities", "text"),
    [
        ((), "All is well"),
        (("warning",), "Warning: 1 problem"),
        (("warning", "critical"), "Critical: 2 problems"),
    ],
)
def test_most_severe_problem(severities: tuple[str, ...], text: str) -> None:
    """One critical problem among warnings makes the headline critical."""
    assert choose_headline(snapshot(*severities), is_stale=False).text == text


def test_stale_data() -> None:
    """A failed refresh hides every other state: the data may no longer hold."""
    assert choose_headline(snapshot("critical"), is_stale=True).level == "stale"
    assert choose_headline(snapshot(), is_stale=True).level == "stale"


def test_no_campaign() -> None:
    """An empty database shows the next command; a problem in it takes precedence."""
    assert choose_headline(snapshot(campaigns=0), is_stale=False).command is not None
    assert choose_headline(snapshot("critical", campaigns=0), is_stale=False).level == "critical"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (89, "89 s"),
        (90, "2 min"),
        (89 * 60, "89 min"),
        (90 * 60, "2 h"),
        (47 * 3600, "47 h"),
        (4 * 86_400, "4 days"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    """A duration has one unit, the largest of which there are about two."""
    assert format_rough_duration(seconds) == text
