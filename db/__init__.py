"""Postgres: schema, migrations and queries, as functions that take a connection."""
