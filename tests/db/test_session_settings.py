"""Sessions set what they rely on, whatever a database or a role sets: the whole loop works."""

import time
from collections.abc import Iterator

import pytest

from db.database import Database
from db.schema import migrate_schema
from leadloop.sandbox import SandboxHandle
from tests import factories, sql
from tests.jobs import disable_leads, poll_outcomes, push_leads

#: Settings that others choose, for themselves or for applications of theirs.
ODD = {
    "default_transaction_isolation": "serializable",
    "client_encoding": "LATIN1",
    "standard_conforming_strings": "off",
    "escape_string_warning": "off",
    "transform_null_equals": "on",
    "DateStyle": "German",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Asia/Kathmandu",
    "bytea_output": "escape",
    "extra_float_digits": "-5",
    "lock_timeout": "50ms",
    "statement_timeout": "150ms",
    "idle_in_transaction_session_timeout": "150ms",
    "idle_session_timeout": "150ms",
    "transaction_timeout": "300ms",
    "synchronous_commit": "off",
}
SET = {
    "default_transaction_isolation": "read committed",
    "client_encoding": "UTF8",
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "lock_timeout": "30s",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    "synchronous_commit": "on",
}


def make_odd(url: str, **settings: str) -> None:
    """Set defaults of a database, as its administrator does."""
    with Database(url, pool_size=1) as database:
        name = sql.fetch_value(database, "SELECT quote_ident(current_database())")
        for setting, value in settings.items():
            sql.execute(database, f"ALTER DATABASE {name} SET {setting} = '{value}'")


@pytest.fixture
def odd(database_url: str) -> Iterator[Database]:
    """A migrated database with odd defaults."""
    make_odd(database_url, **ODD)
    with Database(database_url, pool_size=4) as database:
        yield database


def test_no_default_of_a_database_reaches_a_session(odd: Database) -> None:
    """Both kinds of sessions, with and without transactions."""
    for opened in (odd.transaction, odd.autocommit):
        with opened() as connection:
            found = {name: connection.exec_driver_sql(f"SHOW {name}").scalar() for name in SET}
        assert found == SET


def test_a_stronger_commit_stays(database_url: str) -> None:
    """Who waits for standbys goes on doing so."""
    make_odd(database_url, synchronous_commit="remote_apply")
    with Database(database_url, pool_size=1) as database:
        assert sql.fetch_value(database, "SHOW synchronous_commit") == "remote_apply"


def test_init_works_with_odd_defaults(empty_database_url: str) -> None:
    """Its statements hold backslashes and functions."""
    make_odd(empty_database_url, **ODD)
    with Database(empty_database_url, pool_size=1) as database:
        version = database.run(migrate_schema)
        assert sql.fetch_value(database, "SELECT version_num FROM leadloop.alembic_version") == (
            version
        )


@pytest.mark.usefixtures("environment", "quick_retries")
@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_the_loop_works_with_odd_defaults(
    database_url: str, odd: Database, vendor: SandboxHandle, isolation: str
) -> None:
    """Leads with an emoji are sent, an opt-out is confirmed, an outcome is stored."""
    make_odd(database_url, default_transaction_isolation=isolation)
    factories.add_campaign(odd)
    named = factories.build_lead("a", contact_name="Zoë 🎉 Łukasz", custom_fields=r'{"x": "\\n"}')
    factories.add_leads(odd, named, *(f"n{number}" for number in range(250)))
    assert push_leads()["created"] == 251
    done = {"campaign_id": "C1", "lead_id": "a", "processed_at": int(time.time() * 1000) - 2000}
    vendor.put_outcomes([{**done, "note": "ok 🎉"}])
    assert poll_outcomes()["inserted"] == 1
    factories.add_opt_outs(odd, "n7")
    assert disable_leads()["disabled"] == 1
