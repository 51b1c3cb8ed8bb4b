"""Values and tables as commands print them."""

import pytest
from rich.console import Console

from leadloop.cli.literal_console import LiteralConsole
from leadloop.cli.rendering import (
    abbreviate_value,
    format_duration,
    print_summary,
    render_problems,
    render_rows,
)
from tasks.poll import POLL


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (0, "0"),
        (9_999, "9,999"),
        (10_000, "10k"),
        (999_999, "999k"),
        (1_000_000, "1.0M"),
        (99_999_999, "99.9M"),
    ],
)
def test_great_counts_take_little_room(amount: int, shown: str) -> None:
    """Five characters at most, rounded down; --json and a single campaign show all digits."""
    assert abbreviate_value("created", amount) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1, "0 s"),
        (59.9, "59 s"),
        (61, "1 min 1 s"),
        (3_660, "1 h 1 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_durations_have_two_units(seconds: float, shown: str) -> None:
    """The two largest units, rounded down."""
    assert format_duration(seconds) == shown


@pytest.mark.parametrize(("late", "owed"), [(0, 0), (3, 0), (0, 2), (3, 2)])
def test_the_tables_of_a_poll_fit_80_columns(
    late: int, owed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """No heading and no count is cut; what is late or owed has a column where there is any."""
    counts = {**dict.fromkeys(POLL.counts, 0), "inserted": 12_345, "late": late, "owed": owed}
    each = {**counts, "lookback_s": 900, "lookback_needed_s": 0, "requests": 4}
    summary = {**counts, "requests": 8, "campaigns": {"12345": each, "67890": each}}
    print_summary(Console(width=80), "poll-outcomes", summary)
    shown = capsys.readouterr().out
    names = [*POLL.counts, "requests"]
    expected = [name for name in names if counts.get(name) or name not in ("late", "owed")]
    tables = shown.split("by campaign")
    assert [[name for name in names if name in table] for table in tables] == [expected] * 2
    assert "…" not in shown
    assert shown.count("12,345") == 3


def test_texts_of_others_are_shown_whole_and_do_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """A campaign's id and the vendor's words, with control sequences, markup and line ends."""
    hostile, shown = "[red]C\x1b[2J\n", r"[red]C\u001b[2J\n"
    problem = {"severity": "warning", "campaign_id": hostile, "said": hostile, "command": hostile}
    LiteralConsole(width=80).print(render_problems([problem]), render_rows(hostile, [problem]))
    out = capsys.readouterr().out
    assert f"warning {shown}: {shown}\n  {shown}\n" in out
    assert out.count(shown) == 7
