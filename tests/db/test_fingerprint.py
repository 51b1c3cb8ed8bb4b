"""The fingerprint of a schema shows every difference that matters to a migration."""

import pytest
from sqlalchemy import Connection, text

from db.schema.fingerprint import describe_all, describe_tables


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE leadloop.leads ADD COLUMN mine text",
        "ALTER TABLE leadloop.leads ALTER COLUMN phone_number SET NOT NULL",
        "ALTER TABLE leadloop.leads ALTER COLUMN status SET DEFAULT 'rejected'",
        "ALTER TABLE leadloop.leads DROP CONSTRAINT leads_status_check",
        "DROP INDEX leadloop.leads_new",
        "ALTER TABLE leadloop.leads SET (fillfactor = 90)",
    ],
)
def test_a_change_of_a_table_shows(connection: Connection, change: str) -> None:
    """A migration that forgets it would fail the test of the migrations."""
    before = describe_tables(connection)
    connection.execute(text(change))
    assert describe_tables(connection) != before
    connection.rollback()


@pytest.mark.parametrize(
    "change",
    [
        "DROP TRIGGER note_opt_out ON leadloop.disable_requests",
        "GRANT EXECUTE ON FUNCTION leadloop.note_opt_out() TO PUBLIC",
        "CREATE VIEW leadloop_monitor.mine AS SELECT 1 AS one",
        "COMMENT ON TABLE leadloop.leads IS 'Something else.'",
        "COMMENT ON COLUMN leadloop.leads.status IS NULL",
    ],
)
def test_triggers_views_and_comments_are_no_tables(connection: Connection, change: str) -> None:
    """They are replaced when an older schema is adopted, so only the full fingerprint has them."""
    tables, everything = describe_tables(connection), describe_all(connection)
    connection.execute(text(change))
    assert describe_tables(connection) == tables
    assert describe_all(connection) != everything
    connection.rollback()
