"""Postgres: tables, migrations, queries, views; functions that take a Connection."""
