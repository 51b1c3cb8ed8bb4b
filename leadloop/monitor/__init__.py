"""The page: Streamlit over the views of `leadloop_monitor`, and nothing else."""
