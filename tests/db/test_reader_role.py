"""The role `leadloop_reader`, where `leadloop init` may not create it."""

from db.database import Database
from db.schema import migrate_schema
from db.schema.reader_role import list_missing_statements
from tests import sql
from tests.db.test_requirements import role


def test_the_statements_for_an_administrator(empty_database_url: str) -> None:
    """What init could not do, an administrator does with the statements as they are printed."""
    with Database(empty_database_url, pool_size=1) as admin:
        sql.execute(admin, "ALTER ROLE leadloop_reader RENAME TO leadloop_hidden")
        try:
            _check_statements(empty_database_url, admin)
        finally:
            sql.execute(admin, "ALTER ROLE leadloop_hidden RENAME TO leadloop_reader")


def _check_statements(database_url: str, admin: Database) -> None:
    grant = "GRANT CREATE ON DATABASE {database} TO owner"
    with role(database_url, "owner", grant) as url, Database(url, pool_size=1) as owner:
        owner.run(migrate_schema)
        left = owner.run(list_missing_statements)
        assert left[0] == "CREATE ROLE leadloop_reader NOLOGIN"
        try:
            for statement in left:
                sql.execute(admin, statement)
            assert owner.run(list_missing_statements) == []
        finally:
            sql.execute(admin, "DROP OWNED BY leadloop_reader; DROP ROLE leadloop_reader")
