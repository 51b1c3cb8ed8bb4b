"""What a role of the database that may do little can make leadloop's sessions and functions do."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, text

from db.database import Database, DatabaseError
from tests import sql

_FUNCTIONS = """
SELECT format('%I.%I', n.nspname, p.proname) AS name, p.prosecdef AS is_definer,
       p.prorettype = CAST('trigger' AS regtype) AS is_trigger,
       coalesce(array_to_string(p.proconfig, ' '), '') AS config,
       EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS granted
                WHERE granted.grantee = 0) AS is_for_everybody
  FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
 WHERE n.nspname LIKE 'leadloop%'
"""


@pytest.fixture
def upstream(database: Database) -> Iterator[Connection]:
    """A session of the documented upstream role: it may insert opt-outs and nothing else."""
    sql.execute(
        database,
        """CREATE ROLE upstream; GRANT USAGE ON SCHEMA leadloop TO upstream;
           GRANT INSERT ON leadloop.disable_requests TO upstream;
           GRANT TEMPORARY ON DATABASE test TO upstream""".replace("test", _name(database)),
    )
    try:
        with database.autocommit() as connection:
            connection.execute(text("SET ROLE upstream"))
            yield connection
            connection.execute(text("RESET ROLE"))
    finally:
        sql.execute(database, "DROP OWNED BY upstream; DROP ROLE upstream")


def _name(database: Database) -> str:
    name: str = sql.fetch_value(database, "SELECT current_database()")
    return name


def functions(database: Database) -> list[dict[str, Any]]:
    """Every function of ours."""
    return sql.fetch_rows(database, _FUNCTIONS)


def test_nobody_else_may_execute_a_function_of_ours(database: Database) -> None:
    """A role that could attach one to its own table would run it as the schema's owner."""
    found = functions(database)
    assert [each["name"] for each in found if each["is_definer"]], "this shows nothing"
    assert [each["name"] for each in found if each["is_for_everybody"]] == []


def test_a_definer_looks_names_up_where_nobody_else_can_put_any(database: Database) -> None:
    """Temporary tables last: left out of the path they would come first."""
    for each in functions(database):
        if each["is_definer"]:
            assert each["config"] == "search_path=pg_catalog, pg_temp", each["name"]


def test_a_function_of_ours_serves_its_own_table_alone(database: Database) -> None:
    """Even the owner's trigger on another table gets an error, and none of our statements runs."""
    for each in functions(database):
        if not (each["is_definer"] and each["is_trigger"]):
            continue
        sql.execute(
            database,
            f"""DROP TABLE IF EXISTS public.mine; CREATE TABLE public.mine (a int);
                CREATE TRIGGER mine AFTER INSERT ON public.mine
                    FOR EACH STATEMENT EXECUTE FUNCTION {each["name"]}()""",
        )
        with pytest.raises(DatabaseError, match="RaiseException"):
            sql.execute(database, "INSERT INTO public.mine VALUES (1)")


def test_a_role_that_inserts_opt_outs_cannot_run_code_as_the_owner(upstream: Connection) -> None:
    """Neither a temporary view in place of the inserted rows nor a foreign trigger gets in."""
    upstream.execute(
        text(
            """CREATE FUNCTION pg_temp.evil() RETURNS text LANGUAGE plpgsql AS $$ BEGIN
                   EXECUTE 'GRANT ALL ON ALL TABLES IN SCHEMA leadloop TO upstream'; RETURN 'a';
               END $$"""
        )
    )
    upstream.execute(
        text("CREATE TEMPORARY VIEW opt_outs AS SELECT 'C1' AS campaign_id, pg_temp.evil() AS id")
    )
    upstream.execute(text("CREATE TEMPORARY TABLE mine (a int)"))
    with pytest.raises(Exception, match="permission denied for function"):
        upstream.execute(
            text(
                "CREATE TRIGGER mine AFTER INSERT ON mine"
                " FOR EACH STATEMENT EXECUTE FUNCTION leadloop.note_opt_out()"
            )
        )


def test_our_sessions_look_names_up_in_postgres_own_schema(database: Database) -> None:
    """A better match for a function that we call, made by a role that may create in `public`."""
    sql.execute(
        database,
        """CREATE SCHEMA IF NOT EXISTS public;
           CREATE FUNCTION public.make_interval(secs numeric) RETURNS interval LANGUAGE plpgsql
               AS $$ BEGIN RAISE EXCEPTION 'ours was called'; END $$""",
    )
    call = "SELECT make_interval(secs => 2.5)"
    for connected in (database.transaction, database.autocommit, database.dedicated):
        with connected() as connection:
            path = connection.execute(text("SHOW search_path")).scalar_one()
            assert path == "pg_catalog, pg_temp"
            connection.execute(text(call))
    with pytest.raises(DatabaseError, match="RaiseException"):
        sql.execute(database, f"SET LOCAL search_path = public, pg_catalog; {call}")
