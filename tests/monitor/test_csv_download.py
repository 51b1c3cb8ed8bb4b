import pytest

from leadloop.monitor.csv_download import escape_formula


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_formulas_are_escaped(cell: str) -> None:
    """A spreadsheet that opens the CSV executes no cell of it."""
    assert escape_formula(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["C-1", "name: missing", "", -1, 0.5, None])
def test_other_values_are_unchanged(cell: object) -> None:
    """Negative numbers stay numbers."""
    assert escape_formula(cell) == cell
