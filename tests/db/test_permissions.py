"""The permissions that flows need are those of the documentation."""

from sqlalchemy import text

from db.database import Database
from db.schema.permissions import list_missing_permissions
from tests import sql
from tests.tasks.test_least_privilege import documented


def test_the_documented_permissions_are_those_that_are_checked(database: Database) -> None:
    """None is missing with all of them, and one that is revoked is named."""
    sql.execute(database, "CREATE ROLE leadloop_run")
    try:
        sql.execute(database, documented("grant-permissions.md", "GRANT USAGE"))
        assert list_missing_of_role(database) == []
        sql.execute(
            database,
            """REVOKE UPDATE ON leadloop.leads FROM leadloop_run;
               REVOKE SELECT ON leadloop_monitor.problems FROM leadloop_run""",
        )
        assert list_missing_of_role(database) == [
            "SELECT ON leadloop_monitor.problems",
            "UPDATE ON leadloop.leads",
        ]
    finally:
        sql.execute(database, "DROP OWNED BY leadloop_run; DROP ROLE leadloop_run")


def list_missing_of_role(database: Database) -> list[str]:
    """List what the role of the documentation lacks."""
    with database.transaction() as connection:
        connection.execute(text("SET LOCAL ROLE leadloop_run"))
        return list_missing_permissions(connection)
