"""The script that Streamlit runs for each viewer."""

from leadloop.monitor.screen import show

show()
