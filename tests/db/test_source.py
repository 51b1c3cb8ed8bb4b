"""A campaign's source: what may be one, and what its errors say."""

from collections.abc import Iterator

import pytest
from sqlalchemy import make_url, text

from db import source
from db.database import Database
from db.opt_out_source import OPT_OUT_STAGING
from db.source import LEAD_STAGING
from leadloop.core.errors import UsageError
from leadloop.core.source_requirements import LeadSource, OptOutSource, SourceError
from tests import sql


def lead_source(name: str = "crm.leads", timeout_s: int = 120) -> LeadSource:
    """Return the source of a campaign that requires no field but the id."""
    return LeadSource(name=name, timeout_s=timeout_s, required_fields=("lead_id",))


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


def stage(database: Database, of: LeadSource) -> list[tuple[object, ...]]:
    """Stage the source's rows and return them."""
    with database.dedicated() as connection:
        table = source.inspect_source(database, of)
        source.stage_source_rows(database, connection, of, table, LEAD_STAGING)
        return [tuple(row) for row in connection.execute(_STAGED)]


def test_rows_are_staged_with_all_their_columns(crm: Database) -> None:
    """Columns beyond those of a lead become custom fields later."""
    assert stage(crm, lead_source()) == [
        ("a", "+14155550100", {"note": "vip"}),
        ("b", None, {"note": None}),
    ]


def test_a_name_is_quoted_and_never_executed(crm: Database) -> None:
    """A colon in it is no parameter, and SQL in it is no statement."""
    odd = lead_source('crm."odd: name"')
    table = source.inspect_source(crm, odd)
    assert table.columns == {"lead_id": "integer"}
    assert not source.has_readable_row(crm, odd, table, LEAD_STAGING)
    assert stage(crm, odd) == []
    for name in ("crm.leads; DROP TABLE crm.leads", "crm.leads'", "crm.missing", "crm.counter"):
        with pytest.raises(SourceError, match="is no table or view"):
            source.inspect_source(crm, lead_source(name))


def test_leadloop_s_own_tables_are_no_source(crm: Database) -> None:
    """A campaign cannot feed on itself."""
    with pytest.raises(SourceError, match="is no table or view"):
        source.inspect_source(crm, lead_source("leadloop.leads"))


def test_a_source_without_the_required_columns_is_refused(crm: Database) -> None:
    """The message names the columns."""
    with pytest.raises(SourceError, match=r"lacks .*lead_id"):
        source.inspect_source(crm, lead_source("crm.nothing"))


def test_a_view_that_writes_changes_nothing(crm: Database) -> None:
    """The transaction of the reader is read-only."""
    with pytest.raises(SourceError, match=r"the campaign's source 'crm\.writing' writes"):
        stage(crm, lead_source("crm.writing"))


def test_a_slow_source_ends_at_the_timeout(crm: Database) -> None:
    """The message names the setting to raise."""
    with pytest.raises(SourceError, match=r"within 1 s: .* raise LEADLOOP_SOURCE_TIMEOUT"):
        stage(crm, lead_source("crm.slow", timeout_s=1))


_BROKEN = """
CREATE FUNCTION crm.lost() RETURNS text LANGUAGE plpgsql AS
    $$ BEGIN RETURN (SELECT phone FROM crm.dropped LIMIT 1); END $$;
CREATE VIEW crm.of_lost AS SELECT lead_id, crm.lost() AS phone_number FROM crm.leads;
CREATE FUNCTION crm.angry() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
CREATE VIEW crm.of_angry AS SELECT lead_id, crm.angry() AS phone_number FROM crm.leads;
CREATE EXTENSION postgres_fdw SCHEMA crm;
CREATE SERVER down FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '1');
CREATE USER MAPPING FOR PUBLIC SERVER down OPTIONS (user 'x', password 'x');
CREATE FOREIGN TABLE crm.far (lead_id text) SERVER down;
CREATE VIEW crm.of_far AS SELECT * FROM crm.far
"""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("crm.of_lost", r"uses a table, column or function that does not exist.*42P01"),
        ("crm.of_angry", r"calls a function that fails \(SQLSTATE P0001\)"),
        ("crm.far", r"reads another server .* does not answer \(SQLSTATE 08001\)"),
        ("crm.of_far", r"reads another server .* does not answer \(SQLSTATE 08001\)"),
    ],
)
def test_a_broken_source_is_named_and_not_our_own_schema(
    crm: Database, name: str, said: str
) -> None:
    """Reads of real rows find it, those of the doctor too; the advice is about the source."""
    sql.execute_script(crm, _BROKEN)
    try:
        of = lead_source(name)
        with pytest.raises(SourceError, match=said) as caught:
            stage(crm, of)
        assert "backup" not in str(caught.value)
        assert "LEADLOOP_DATABASE_URL" not in str(caught.value)
        table = source.inspect_source(crm, of)
        with pytest.raises(SourceError, match=said):
            source.has_readable_row(crm, of, table, LEAD_STAGING)
    finally:
        sql.execute(crm, "DROP SERVER down CASCADE; DROP EXTENSION postgres_fdw CASCADE")


def test_rows_that_row_level_security_hides(crm: Database, database_url: str) -> None:
    """A source without rows is one thing, a login that sees none of them another."""
    of = lead_source()
    table = source.inspect_source(crm, of)
    assert not source.hides_rows(crm, of, table)
    sql.execute(
        crm,
        """ALTER TABLE crm.leads ENABLE ROW LEVEL SECURITY; CREATE ROLE limited LOGIN;
           GRANT USAGE ON SCHEMA crm TO limited; GRANT SELECT ON crm.leads TO limited""",
    )
    url = make_url(database_url).set(username="limited").render_as_string(hide_password=False)
    try:
        with Database(url, pool_size=1) as limited:
            assert not source.has_readable_row(limited, of, table, LEAD_STAGING)
            assert source.hides_rows(limited, of, table)
        assert source.has_readable_row(crm, of, table, LEAD_STAGING), "a superuser sees them all"
        assert not source.hides_rows(crm, of, table)
    finally:
        sql.execute(crm, "DROP OWNED BY limited; DROP ROLE limited")


def test_a_source_of_opt_outs_is_read_alike(crm: Database) -> None:
    """By an id or a number; the errors name it as what it is."""
    of = OptOutSource(name="crm.nothing", timeout_s=1)
    with pytest.raises(SourceError, match=r"opt-out source 'crm\.nothing' has neither a column"):
        source.inspect_source(crm, of)
    of = OptOutSource(name="crm.missing", timeout_s=1)
    with pytest.raises(
        SourceError, match=r"'crm\.missing' is no .* leadloop\.campaigns\.opt_out_so"
    ):
        source.inspect_source(crm, of)
    of = OptOutSource(name="crm.slow", timeout_s=1)
    table = source.inspect_source(crm, of)
    with pytest.raises(
        SourceError, match=r"the campaign's opt-out source 'crm\.slow' was not read"
    ):
        source.has_readable_row(crm, of, table, OPT_OUT_STAGING)


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
