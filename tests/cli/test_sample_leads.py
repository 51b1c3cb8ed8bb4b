"""Sample leads of the demo and `up`."""

import csv
from pathlib import Path

from leadloop.cli import sample_leads


def test_they_are_reproducible_and_numbered_on() -> None:
    """The same leads for the same seed; the first has the number after `start_after`."""
    rows = sample_leads.make_leads(200, seed=7, start_after=40)
    assert rows == sample_leads.make_leads(200, seed=7, start_after=40)
    assert [row[0] for row in rows] == [
        sample_leads.format_lead_id(number) for number in range(41, 241)
    ]


def test_the_file_has_a_header_that_load_takes(tmp_path: Path) -> None:
    """A lead's columns without `ebr_datetime`, and two custom fields."""
    sample_leads.write_csv(tmp_path / "leads.csv", 3)
    header, *rows = csv.reader((tmp_path / "leads.csv").read_text().splitlines())
    assert header == ["lead_id", "phone_number", "contact_name", "state_code", "plan", "score"]
    assert len(rows) == 3
