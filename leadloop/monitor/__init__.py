"""The monitoring page: a Streamlit app over the views of `leadloop_monitor`."""
