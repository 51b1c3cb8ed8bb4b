"""CSV downloads of the page's sections, safe to open in a spreadsheet."""

import pandas as pd
import streamlit as st

from leadloop.core.escaping import escape_csv_cell


def show_csv_button(name: str, title: str, frame: pd.DataFrame) -> None:
    """Show a button that downloads `leadloop-<name>.csv`, with values unformatted.

    The file is made when a viewer asks for it.
    """
    st.download_button(
        "CSV",
        lambda: frame.map(escape_csv_cell).to_csv(index=False),
        f"leadloop-{name}.csv",
        "text/csv",
        key=f"csv-{name}",
        help=f"Download “{title}” as CSV",
        icon=":material/download:",
        type="tertiary",
        on_click="ignore",
    )
