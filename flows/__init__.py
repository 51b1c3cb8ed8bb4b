"""What runs: one small file a Prefect flow."""
