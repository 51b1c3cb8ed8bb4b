"""What `leadloop init` refuses: a database that cannot work, and a schema of somebody else's."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from sqlalchemy import make_url

from db.database import Database
from db.schema import migrate_schema
from leadloop.core.errors import UsageError
from tests import sql
from tests.conftest import new_database


@contextmanager
def role(url: str, name: str, *grants: str) -> Iterator[str]:
    """The URL for a new role with these grants; `{database}` in them is the database."""
    with Database(url, pool_size=1) as owner:
        database = make_url(url).database
        sql.execute(owner, f"CREATE ROLE {name} LOGIN")
        try:
            for grant in grants:
                sql.execute(owner, grant.format(database=database))
            yield make_url(url).set(username=name).render_as_string(hide_password=False)
        finally:
            sql.execute(owner, f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


def init(url: str) -> str:
    """What `leadloop init` does."""
    with Database(url, pool_size=1) as database:
        return database.run(migrate_schema)


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_an_encoding_that_cannot_store_every_name(postgres: str, encoding: str) -> None:
    """One line names the encoding and the remedy; nothing was created."""
    with ExitStack() as stack:
        template = f"template0 ENCODING '{encoding}' LOCALE_PROVIDER libc LOCALE 'C'"
        url = new_database(stack, postgres, template)
        with pytest.raises(UsageError, match=rf"encoding of the database is {encoding}.*UTF8"):
            init(url)
        with Database(url, pool_size=1) as database:
            assert sql.fetch_value(database, "SELECT to_regnamespace('leadloop')") is None


def test_a_role_that_may_not_create_a_schema(empty_database_url: str) -> None:
    """The line has the statement for the administrator."""
    with (
        role(empty_database_url, "plain") as url,
        pytest.raises(UsageError, match=r"may not create schemas.*GRANT CREATE ON DATABASE \w+ TO"),
    ):
        init(url)


@pytest.mark.parametrize("schema", ["leadloop", "leadloop_monitor"])
def test_a_schema_that_another_role_has_prepared(empty_database_url: str, schema: str) -> None:
    """Its owner could replace whatever init creates in it, also where a superuser runs init."""
    prepared = f"CREATE SCHEMA {schema} AUTHORIZATION stranger"
    with role(empty_database_url, "stranger", prepared):
        with pytest.raises(UsageError, match=rf"schema {schema} belongs to the role stranger"):
            init(empty_database_url)
        with (
            role(empty_database_url, "other", "GRANT CREATE ON DATABASE {database} TO other") as (
                url
            ),
            pytest.raises(UsageError, match=rf"schema {schema} belongs to the role stranger"),
        ):
            init(url)


def test_the_owner_of_the_schema_upgrades_it(empty_database_url: str) -> None:
    """A role with CREATE on the database alone creates the schema, and may run init again."""
    with role(empty_database_url, "owner", "GRANT CREATE ON DATABASE {database} TO owner") as url:
        assert init(url) == init(url)
        with pytest.raises(UsageError, match="belongs to the role owner"):
            init(empty_database_url)
