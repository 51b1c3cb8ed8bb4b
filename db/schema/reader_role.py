"""The role `leadloop_reader`: whether it can be used, and the statements that make it usable."""

from sqlalchemy import Connection, text

READER = "leadloop_reader"
_STATE = text("""
SELECT quote_ident(current_user) AS login,
       reader.oid IS NOT NULL AS exists,
       coalesce(has_schema_privilege(reader.oid, 'leadloop_monitor', 'USAGE')
                AND (SELECT bool_and(has_table_privilege(reader.oid, view.oid, 'SELECT'))
                       FROM pg_class AS view
                      WHERE view.relnamespace = to_regnamespace('leadloop_monitor')
                        AND view.relkind = 'v'), false) AS reads
  FROM (SELECT) AS one LEFT JOIN pg_roles AS reader ON reader.rolname = :reader
""")
_CREATE = f"CREATE ROLE {READER} NOLOGIN"
_GRANTS = (
    f"GRANT USAGE ON SCHEMA leadloop_monitor TO {READER}",
    f"GRANT SELECT ON ALL TABLES IN SCHEMA leadloop_monitor TO {READER}",
)


def list_missing_statements(connection: Connection) -> list[str]:
    """List the statements that are left for an administrator, so that the reader role can read."""
    state = connection.execute(_STATE, {"reader": READER}).one()
    if state.reads:
        return []
    creation = [] if state.exists else [_CREATE, f"GRANT {READER} TO {state.login}"]
    return [*creation, *_GRANTS]


def describe_missing(statements: list[str]) -> str:
    """Return one line: the consequence, and the statements in their order."""
    return (
        f"the role {READER} is missing or may not read the views, and `leadloop init` could not"
        " change that: the page and `metrics` need it; have an administrator run"
        f" {'; '.join(statements)}; (docs/how-to/grant-permissions.md)"
    )
