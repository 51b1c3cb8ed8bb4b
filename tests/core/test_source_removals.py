"""How many leads may opt out because their rows have left the source."""

import pytest

from leadloop.core.source_removals import may_opt_out


@pytest.mark.parametrize(
    ("removed", "recent", "leads", "may"),
    [
        (20, 0, 20, True),
        (21, 0, 20, False),
        (0, 0, 0, True),
        (1, 19, 100, True),
        (1, 20, 100, False),
        (20, 1, 2_000, False),
        (20, 1, 2_099, False),
        (20, 1, 2_100, True),
        (1_000, 0, 100_000, True),
        (1_001, 0, 100_000, False),
        (1, 1_000, 100_000, False),
    ],
)
def test_twenty_or_one_percent_within_24_hours(
    removed: int, recent: int, leads: int, may: bool
) -> None:
    """The greater of the two; what would exceed it waits."""
    assert may_opt_out(removed, recent=recent, leads=leads) is may
