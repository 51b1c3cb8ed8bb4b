"""A campaign's source: what may be one, and what its errors say."""

from collections.abc import Iterator

import pytest
from sqlalchemy import text

from db import source
from db.database import Database
from leadloop.core.campaign_rules import Campaign
from leadloop.core.errors import UsageError
from leadloop.core.source_requirements import SourceError
from leadloop.settings import Settings

_DEFAULTS = Settings().campaign_rules().__dict__


def campaign(name: str = "crm.leads", **more: object) -> Campaign:
    """Return a campaign with this source."""
    fields = {**_DEFAULTS, "required_fields": ("lead_id",), **more}
    return Campaign(**fields, campaign_id="C1", source=name)


@pytest.fixture
def crm(database: Database) -> Iterator[Database]:
    """Yield the database with a foreign schema: a table, views, a function."""
    with database.transaction() as connection:
        connection.execute(
            text("""
            CREATE SCHEMA crm;
            CREATE TABLE crm.leads (lead_id text, phone_number text, note text);
            INSERT INTO crm.leads VALUES ('a', '+14155550100', 'vip'), ('b', NULL, NULL);
            CREATE TABLE crm."odd: name" (lead_id integer);
            CREATE TABLE crm.nothing (phone text);
            CREATE SEQUENCE crm.counter;
            CREATE FUNCTION crm.write() RETURNS text LANGUAGE sql AS
                $$ INSERT INTO crm.leads VALUES ('written') RETURNING lead_id $$;
            CREATE VIEW crm.writing AS SELECT crm.write() AS lead_id;
            CREATE FUNCTION crm.sleep() RETURNS text LANGUAGE sql AS
                $$ SELECT pg_sleep(9); SELECT 'a' $$;
            CREATE VIEW crm.slow AS SELECT crm.sleep() AS lead_id
            """)
        )
    yield database
    with database.transaction() as connection:
        connection.execute(text("DROP SCHEMA crm CASCADE"))


_STAGED = text("""
SELECT lead_id, phone_number, CAST(fields AS jsonb) - 'lead_id' - 'phone_number'
  FROM pg_temp.source_rows ORDER BY place
""")


def stage(database: Database, of: Campaign) -> list[tuple[object, ...]]:
    """Stage the source's rows and return them."""
    with database.dedicated() as connection:
        table = source.inspect_source(database, of, of.source or "")
        source.stage_source_rows(database, connection, of, table)
        return [tuple(row) for row in connection.execute(_STAGED)]


def test_rows_are_staged_with_all_their_columns(crm: Database) -> None:
    """Columns beyond those of a lead become custom fields later."""
    assert stage(crm, campaign()) == [
        ("a", "+14155550100", {"note": "vip"}),
        ("b", None, {"note": None}),
    ]


def test_a_name_is_quoted_and_never_executed(crm: Database) -> None:
    """A colon in it is no parameter, and SQL in it is no statement."""
    odd = campaign('crm."odd: name"')
    table = source.inspect_source(crm, odd, odd.source or "")
    assert table.columns == {"lead_id": "integer"}
    source.check_readable(crm, odd, table)
    assert stage(crm, odd) == []
    for name in ("crm.leads; DROP TABLE crm.leads", "crm.leads'", "crm.missing", "crm.counter"):
        with pytest.raises(SourceError, match="is no table or view"):
            source.inspect_source(crm, campaign(name), name)


def test_leadloop_s_own_tables_are_no_source(crm: Database) -> None:
    """A campaign cannot feed on itself."""
    with pytest.raises(SourceError, match="is no table or view"):
        source.inspect_source(crm, campaign("leadloop.leads"), "leadloop.leads")


def test_a_source_without_the_required_columns_is_refused(crm: Database) -> None:
    """The message names the columns."""
    with pytest.raises(SourceError, match=r"lacks .*lead_id"):
        source.inspect_source(crm, campaign("crm.nothing"), "crm.nothing")


def test_a_view_that_writes_changes_nothing(crm: Database) -> None:
    """The transaction of the reader is read-only."""
    with pytest.raises(SourceError, match=r"the campaign's source 'crm\.writing' writes"):
        stage(crm, campaign("crm.writing"))


def test_a_slow_source_ends_at_the_timeout(crm: Database) -> None:
    """The message names the setting to raise."""
    with pytest.raises(SourceError, match=r"within 1 s: .* raise LEADLOOP_SOURCE_TIMEOUT"):
        stage(crm, campaign("crm.slow", source_timeout_s=1))


def test_a_superuser_is_reported_as_too_powerful(crm: Database) -> None:
    """The login of tests may do anything, so a view could reach leadloop's data through it."""
    assert source.list_roles_with_access(crm)


def test_another_database_is_no_other_login(database: Database) -> None:
    """LEADLOOP_SOURCE_URL has to name the same database."""
    source.require_same_database(database, database)
    other = database.sibling_url("postgres", "postgresql")
    with (
        Database(other, pool_size=1) as elsewhere,
        pytest.raises(UsageError, match="is another database than"),
    ):
        source.require_same_database(elsewhere, database)
