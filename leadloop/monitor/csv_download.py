"""CSV downloads of the page's sections, safe to open in a spreadsheet."""

import pandas as pd
import streamlit as st

# A spreadsheet executes a cell that begins with one of these as a formula (CSV injection).
_FORMULA_PREFIXES = ("=", "+", "-", "@", "\t", "\r")


def show_csv_button(name: str, title: str, frame: pd.DataFrame) -> None:
    """Show a button that downloads `leadloop-<name>.csv`, with values unformatted."""
    st.download_button(
        "CSV",
        frame.map(escape_formula).to_csv(index=False),
        f"leadloop-{name}.csv",
        "text/csv",
        key=f"csv-{name}",
        help=f"Download “{title}” as CSV",
        icon=":material/download:",
        type="tertiary",
        on_click="ignore",
    )


def escape_formula(cell: object) -> object:
    """Prefix a text that a spreadsheet would execute with an apostrophe; return others unchanged.

    Ids, names and the vendor's messages are untrusted input.
    """
    if isinstance(cell, str) and cell.startswith(_FORMULA_PREFIXES):
        return f"'{cell}"
    return cell
