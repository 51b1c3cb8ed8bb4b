"""The script that Streamlit runs for each viewer."""

from leadloop.monitor.layout import show_page

show_page()
