import pytest

from leadloop.monitor.csv_download import escape_formula


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_cell_is_a_formula(cell: str) -> None:
    """Whoever opens a CSV of the page in a spreadsheet carries out nobody's words."""
    assert escape_formula(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["C-1", "name: missing", "", -1, 0.5, None])
def test_figures_and_words_stay_as_they_are(cell: object) -> None:
    """Negative figures are figures."""
    assert escape_formula(cell) == cell
