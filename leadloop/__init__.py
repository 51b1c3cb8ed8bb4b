"""leadloop: leads out to the vendor's API, outcomes back to Postgres."""

__version__ = "0.1.0"
