"""Figures to take away: every part of the page as CSV."""

import pandas as pd
import streamlit as st

# By these a spreadsheet takes a cell for a formula, and would carry it out.
_BEGINS_A_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def show_csv_button(name: str, title: str, frame: pd.DataFrame) -> None:
    """A button for `leadloop-<name>.csv`: plain figures, without the formats of the screen."""
    st.download_button(
        "CSV",
        frame.map(escape_formula).to_csv(index=False),
        f"leadloop-{name}.csv",
        "text/csv",
        key=f"csv-{name}",
        help=f"Download the figures of “{title}”",
        icon=":material/download:",
        type="tertiary",
        on_click="ignore",
    )


def escape_formula(cell: object) -> object:
    """It as a spreadsheet may have it: ids, names and the vendor's words are anybody's."""
    if isinstance(cell, str) and cell.startswith(_BEGINS_A_FORMULA):
        return f"'{cell}"
    return cell
