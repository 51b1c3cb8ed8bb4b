"""Alembic's entry point: migrates on the connection that `db.schema` passes."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, version_table_schema="leadloop")
with context.begin_transaction():
    context.run_migrations()
