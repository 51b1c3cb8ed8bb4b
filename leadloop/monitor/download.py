"""Figures to take away: every part of the page as CSV."""

import pandas as pd
import streamlit as st


def as_csv(name: str, title: str, frame: pd.DataFrame) -> None:
    """A button for `leadloop-<name>.csv`: plain figures, without the formats of the screen."""
    st.download_button(
        "CSV",
        frame.to_csv(index=False),
        f"leadloop-{name}.csv",
        "text/csv",
        key=f"csv-{name}",
        help=f"Download the figures of “{title}”",
        icon=":material/download:",
        type="tertiary",
        on_click="ignore",
    )
