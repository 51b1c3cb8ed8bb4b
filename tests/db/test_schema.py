from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import text

from db import counts, opt_ins, owed_windows, schema, watermarks
from db.database import Database, DatabaseError
from db.schema import (
    are_counts_filled,
    create_schema,
    get_version,
    migrate_schema,
    require_current,
)
from db.schema.fingerprint import describe_all
from db.schema.requirements import require_postgres_version
from leadloop.core.errors import UsageError
from leadloop.core.timestamps import EPOCH
from tests import factories, sql

#: What others rely on (CONTRACT.md); columns may be added.
CONTRACT = {
    "campaigns": "campaign_id name enabled",
    "leads": "campaign_id lead_id phone_number contact_name state_code ebr_datetime custom_fields"
    " status last_error inserted_at sent_at confirmed_at",
    "disable_requests": "campaign_id lead_id reason requested_at status sent_at confirmed_at"
    " last_error",
    "lead_outcomes": "campaign_id lead_id processed_at outcome_id outcome_name total_cost raw"
    " first_seen_at updated_at",
    "outreach_attempts": "campaign_id lead_id channel block reference_id outcome_id outcome_name"
    " occurred_at duration_s cost answers",
    "watermarks": "campaign_id stream processed_through",
    "poll_windows": "campaign_id status polled_at",
    "sync_runs": "flow campaign_id flow_run_id started_at ended_at state counts error",
}


@pytest.fixture
def empty(empty_database_url: str) -> Database:
    """A database with nothing in it."""
    return Database(empty_database_url, pool_size=4)


def upgraded(database: Database) -> str:
    """What `leadloop init` does."""
    with database.transaction() as connection:
        return migrate_schema(connection)


def test_the_files_of_migrations_are_numbered_in_their_order() -> None:
    """A run reads the versions that it knows off them; Alembic goes by what stands in them."""
    folder = Path(schema.__file__).parents[1] / "migrations"
    chain = ScriptDirectory(str(folder)).walk_revisions()
    assert schema._known_versions() == [script.revision for script in chain][::-1]


@pytest.mark.parametrize("table", CONTRACT)
def test_the_tables_are_those_of_the_contract(database: Database, table: str) -> None:
    """People's scripts name these columns."""
    found = sql.fetch_rows(
        database,
        """SELECT column_name FROM information_schema.columns
            WHERE table_schema = 'leadloop' AND table_name = :table""",
        table=table,
    )
    assert set(CONTRACT[table].split()) <= {row["column_name"] for row in found}


def test_upstream_inserts_no_more_than_it_must(database: Database) -> None:
    """Everything else has its default."""
    sql.execute(database, "INSERT INTO leadloop.leads (campaign_id, lead_id) VALUES ('C1', 'a')")
    sql.execute(database, "INSERT INTO leadloop.campaigns (campaign_id) VALUES ('C1')")
    factories.add_opt_outs(database, "a")
    lead = "SELECT status, custom_fields FROM leadloop.leads"
    assert sql.fetch_rows(database, lead) == [{"status": "new", "custom_fields": {}}]
    assert sql.fetch_opt_outs(database) == {"a": "requested"}
    assert sql.fetch_value(database, "SELECT enabled FROM leadloop.campaigns") is True


def test_upstream_needs_no_right_on_leads_to_opt_out(database: Database) -> None:
    """A role that may insert opt-outs and nothing else still has the lead kept back."""
    factories.add_leads(database, "a")
    sql.execute(
        database,
        """CREATE ROLE upstream; GRANT USAGE ON SCHEMA leadloop TO upstream;
           GRANT INSERT ON leadloop.disable_requests TO upstream""",
    )
    try:
        sql.execute(
            database,
            """SET LOCAL ROLE upstream;
               INSERT INTO leadloop.disable_requests (campaign_id, lead_id) VALUES ('C1', 'a')""",
        )
        assert sql.fetch_value(database, "SELECT opted_out FROM leadloop.leads") is True
    finally:
        sql.execute(database, "DROP OWNED BY upstream; DROP ROLE upstream")


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("leads", "status", "sent"),
        ("leads", "lead_id", ""),
        ("disable_requests", "status", "done"),
        ("campaigns", "batch_size", "0"),
        ("campaigns", "epoch_unit", "us"),
        ("campaigns", "default_region", "usa"),
        ("campaigns", "account", "EMEA"),
        ("campaigns", "account", "emea--north"),
    ],
)
def test_a_wrong_value_is_refused_by_the_table(
    database: Database, table: str, column: str, value: str
) -> None:
    """A typing error in a script is reported at once."""
    key = {"lead_id": "a"} if table != "campaigns" else {}
    row = {"campaign_id": "C1", **key, column: value}
    names, places = ", ".join(row), ", ".join(f"'{text}'" for text in row.values())
    with pytest.raises(DatabaseError, match=r"CheckViolation .*23514, constraint "):
        sql.execute(database, f"INSERT INTO leadloop.{table} ({names}) VALUES ({places})")


def test_up_from_empty_and_once_more(empty: Database) -> None:
    """The second time changes nothing and keeps what is there."""
    with empty:
        first = upgraded(empty)
        factories.add_leads(empty, "a")
        assert upgraded(empty) == first
        assert sql.fetch_statuses(empty) == {"a": "new"}
        with empty.transaction() as connection:
            assert get_version(connection) == first
            require_current(connection)


def test_from_several_places_at_once(empty: Database) -> None:
    """Four workers of a deployment start together: all of them find the schema ready."""
    barrier = Barrier(4)

    def init(_: int) -> str:
        barrier.wait(timeout=30)
        # As the command does it: a lock that others hold for long is waited for again.
        return empty.retry(migrate_schema)

    with empty, ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(init, range(4)))) == 1
        factories.add_leads(empty, "a")


def test_a_database_without_the_schema(empty: Database) -> None:
    """One line names the command to run."""
    with (
        empty,
        empty.transaction() as connection,
        pytest.raises(UsageError, match="`leadloop init`"),
    ):
        require_current(connection)


def test_a_schema_that_is_too_new_is_left_alone(database: Database) -> None:
    """An older program neither works on it nor changes it; one line names the remedy."""
    sql.execute(database, "UPDATE leadloop.alembic_version SET version_num = '9999'")
    for work in (migrate_schema, require_current):
        with (
            database.transaction() as connection,
            pytest.raises(UsageError, match=r"9999.*install the version that created it"),
        ):
            work(connection)
    assert sql.fetch_value(database, "SELECT version_num FROM leadloop.alembic_version") == "9999"


def test_a_migration_that_is_broken_off_leaves_nothing(empty: Database) -> None:
    """Killed in the middle, it can simply be run again."""
    with empty:
        with empty.transaction() as connection:
            migrate_schema(connection)
            connection.rollback()
        assert sql.fetch_value(empty, "SELECT to_regnamespace('leadloop') IS NULL")
        upgraded(empty)


@pytest.mark.parametrize("statement", ["CREATE TABLE leadloop.leads (a int)", None])
def test_a_schema_that_is_not_ours_is_told(empty_database_url: str, statement: str | None) -> None:
    """Foreign tables, or ours without a version: both commands name the remedy."""
    with Database(empty_database_url, pool_size=1) as database:
        with database.transaction() as connection:
            if statement is None:
                migrate_schema(connection)
                connection.execute(text("DELETE FROM leadloop.alembic_version"))
            else:
                connection.execute(text("CREATE SCHEMA leadloop"))
                connection.execute(text(statement))
        for look in (migrate_schema, require_current):
            with pytest.raises(UsageError, match="RENAME TO"), database.transaction() as connection:
                look(connection)


def test_a_postgres_that_is_too_old_is_told() -> None:
    """Before anything is made, with what to do about it."""
    require_postgres_version(14)
    with pytest.raises(UsageError, match="Postgres 13, and leadloop needs 14 or newer"):
        require_postgres_version(13)


def stated(database: Database) -> frozenset[str]:
    """Create the stated schema in a database with nothing in it, and describe it."""
    with database.transaction() as connection:
        connection.execute(text("CREATE SCHEMA leadloop"))
        create_schema(connection)
    with database.transaction() as connection:
        return describe_all(connection)


def test_the_migrations_lead_to_the_stated_schema(empty: Database, database: Database) -> None:
    """An upgraded database has the same schema as a new one."""
    with database.transaction() as connection:
        migrated = describe_all(connection)
    with empty:
        assert stated(empty) == migrated
    assert len(migrated) > 400, "this shows nothing"


def of_issue_a(database: Database, version: str = "0008") -> None:
    """Make a schema look as the migrations 0001 to 0008 left it, with a lead in it.

    The first stated schema, 0001_initial, has the same tables.
    """
    upgraded(database)
    factories.add_campaign(database)
    factories.add_leads(database, "a")
    sql.execute(
        database,
        """UPDATE leadloop.alembic_version SET version_num = :version;
           DROP VIEW leadloop_monitor.campaign_health, leadloop_monitor.problems,
                     leadloop_monitor.campaign_thresholds, leadloop_monitor.thresholds;
           DROP TABLE leadloop.owed_windows, leadloop.learned_limits;
           ALTER TABLE leadloop.campaigns ADD COLUMN batch_limit integer CHECK (batch_limit > 0);
           UPDATE leadloop.campaigns SET batch_limit = 20;
           ALTER TABLE leadloop.unreadable_results DROP COLUMN occurrences;
           ALTER TABLE leadloop.watermarks DROP COLUMN read_through, DROP COLUMN written_through""",
        version=version,
    )


def test_a_schema_of_before_it_was_stated_is_taken_over(
    empty: Database, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is lost, views are renewed, and it is the same as a new one from then on."""
    with empty:
        of_issue_a(empty)
        with (
            empty.transaction() as connection,
            pytest.raises(UsageError, match="run `leadloop init`"),
        ):
            require_current(connection)
        upgraded(empty)
        assert sql.fetch_statuses(empty) == {"a": "new"}
        limits = sql.fetch_rows(empty, "SELECT name, value FROM leadloop.learned_limits")
        assert limits == [{"name": "batch_size", "value": 20}]
        with empty.transaction() as connection, database.transaction() as other:
            require_current(connection)
            assert describe_all(connection) == describe_all(other)
    assert "differs" not in caplog.text


@pytest.mark.parametrize("version", ["0008", "0001_initial"])
def test_an_upgrade_carries_incomplete_windows_over(
    empty: Database, database: Database, version: str
) -> None:
    """Each is owed and due at once; those that polls have read again and again are one."""
    with empty:
        of_issue_a(empty, version)
        for campaign, after, before, made_good in (
            ("C1", 0, 10, None),
            ("C1", 0, 20, None),
            ("C1", 20, 30, None),
            ("C1", 50, 50, None),
            ("C1", 60, 70, "2026-02-01T00:00:00Z"),
            ("C2", 5, 6, None),
        ):
            sql.execute(
                empty,
                """INSERT INTO leadloop.poll_windows (campaign_id, run_id, window_after,
                          window_before, status, claimed_count, stored_count, pages, made_good_at,
                          polled_at)
                   VALUES (:campaign, 1, to_timestamp(:after), to_timestamp(:before), 'incomplete',
                           2, 1, 1, :made_good, to_timestamp(1000 + :before))""",
                campaign=campaign, after=after, before=before, made_good=made_good,
            )  # fmt: skip
        sql.execute(
            empty,
            """INSERT INTO leadloop.watermarks (campaign_id, stream, processed_through)
               VALUES ('C1', 'outcomes', to_timestamp(0))""",
        )
        # The second time changes nothing.
        assert upgraded(empty) == upgraded(empty)
        with empty.transaction() as connection:
            owed = owed_windows.list_owed_windows(connection, None)
            assert watermarks.get_read_through(connection, "C1") == EPOCH
        seconds = [
            tuple(
                round(moment.timestamp())
                for moment in (row.window.after, row.window.before, row.found_at, row.tried_at)
            )
            for row in owed
        ]
        assert [row.campaign_id for row in owed] == ["C1", "C1", "C2"]
        assert seconds == [(0, 30, 1010, 1030), (50, 50, 1050, 1050), (5, 6, 1006, 1006)]
        assert all(row.is_due and row.accepted_at is None for row in owed)
        with empty.transaction() as connection, database.transaction() as other:
            assert describe_all(connection) == describe_all(other)


def test_an_upgrade_counts_what_is_there(empty: Database, database: Database) -> None:
    """Rows from before the triggers; runs may start before they are counted."""
    with empty:
        upgraded(empty)
        factories.add_campaign(empty)
        sql.execute(
            empty,
            """UPDATE leadloop.alembic_version SET version_num = '0004_live';
               DROP TABLE leadloop.counts, leadloop.count_changes, leadloop.counts_filled CASCADE;
               SET LOCAL session_replication_role = replica;
               INSERT INTO leadloop.leads (campaign_id, lead_id, status)
               VALUES ('C1', 'a', 'created')""",
        )
        upgraded(empty)
        with empty.transaction() as connection:
            require_current(connection)
            assert not are_counts_filled(connection)
        factories.add_leads(empty, factories.build_lead("b", status="created"))
        counts.fill_counts(empty)
        with empty.transaction() as connection, database.transaction() as other:
            require_current(connection)
            assert describe_all(connection) == describe_all(other)
        created = "SELECT created FROM leadloop_monitor.campaign_health"
        assert sql.fetch_value(empty, created) == 2


def test_an_upgrade_gives_all_there_is_to_the_default_account(
    empty: Database, database: Database
) -> None:
    """Campaigns, runs and the slots in use: the limit of the vendor holds during the upgrade."""
    with empty:
        upgraded(empty)
        sql.execute(
            empty,
            """UPDATE leadloop.alembic_version SET version_num = '0013_opt_out_source';
               DROP SCHEMA leadloop_monitor CASCADE;
               DROP FUNCTION leadloop.count_sync_runs CASCADE;
               DROP INDEX leadloop.sync_runs_covering;
               ALTER TABLE leadloop.campaigns DROP COLUMN account CASCADE;
               ALTER TABLE leadloop.sync_runs DROP COLUMN account CASCADE;
               ALTER TABLE leadloop.rate_slots DROP COLUMN account CASCADE;
               ALTER TABLE leadloop.rate_slots ADD PRIMARY KEY (slot);
               INSERT INTO leadloop.campaigns (campaign_id) VALUES ('C1');
               INSERT INTO leadloop.sync_runs (flow, campaign_id, state, ended_at)
               VALUES ('push-leads', '', 'completed', now());
               INSERT INTO leadloop.rate_slots (slot, free_at, purposes, uses, occupied_s)
               VALUES (0, '-infinity', '{}', 0, 0), (1, 'infinity', '{bulk}', 1, 60.5)""",
        )
        upgraded(empty)
        with empty.transaction() as connection, database.transaction() as other:
            assert describe_all(connection) == describe_all(other)
        (row,) = sql.fetch_rows(empty, "SELECT * FROM leadloop_monitor.campaign_health")
        assert (row["account"], row["last_push_at"] is not None) == ("default", True)
        (budget,) = sql.fetch_rows(empty, "SELECT * FROM leadloop_monitor.budget_now")
        assert (budget["account"], budget["slots"], budget["taken"]) == ("default", 1, 1)


def make_first_contact(database: Database) -> None:
    """Make a schema look as 0011_first_contact left it: without sums of attempts and of runs."""
    sql.execute(
        database,
        """UPDATE leadloop.alembic_version SET version_num = '0011_first_contact';
           DROP TABLE leadloop.attempt_changes CASCADE;
           DROP FUNCTION leadloop.count_sync_runs CASCADE;
           DELETE FROM leadloop.count_changes WHERE kind = 'run';
           DELETE FROM leadloop.counts WHERE kind IN ('tries', 'run') OR campaign_id = '';
           ALTER TABLE leadloop.counts RENAME COLUMN digest TO key;
           ALTER TABLE leadloop.counts DROP CONSTRAINT counts_span_check,
                 ADD CONSTRAINT counts_span_check CHECK (span IN ('hour', 'day', 'ever'));
           DROP INDEX leadloop.poll_windows_slowest, leadloop.poll_windows_by_hour;
           CREATE INDEX poll_windows_by_hour ON leadloop.poll_windows
               ((date_trunc('hour', polled_at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'));
           CREATE INDEX sync_runs_by_hour ON leadloop.sync_runs
               ((date_trunc('hour', started_at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'))""",
    )


@pytest.mark.parametrize("is_folded", [True, False])
def test_an_upgrade_counts_attempts_and_runs(
    empty: Database, database: Database, is_folded: bool
) -> None:
    """The numbers are those of a new database in which the same has happened."""
    history = """
        INSERT INTO leadloop.lead_outcomes (campaign_id, lead_id, processed_at, outcome_name, raw)
        SELECT 'C' || n % 2, n, now(), 'outcome ' || n % 3, '{}' FROM generate_series(1, 3000) AS n;
        INSERT INTO leadloop.outreach_attempts (campaign_id, lead_id, channel, block, attempt_key)
        SELECT 'C' || n % 2, n, 'call', 'c', key
          FROM generate_series(1, 4000) AS n CROSS JOIN generate_series(1, n % 5) AS key;
        INSERT INTO leadloop.sync_runs (flow, campaign_id, state, counts)
        SELECT 'push-leads', 'C' || n % 2, 'completed', '{"requests": 2}'
          FROM generate_series(1, 10) AS n"""
    late_attempt = """
        INSERT INTO leadloop.outreach_attempts (campaign_id, lead_id, channel, block, attempt_key)
        VALUES ('C1', '1', 'sms', 's', 'late')"""
    shown = (
        "SELECT * FROM leadloop_monitor.attempts_to_outcome ORDER BY 1, 2, 3",
        "SELECT campaign_id, flow, runs, requests FROM leadloop_monitor.request_stats ORDER BY 1",
        """SELECT kind, span, campaign_id, name, sum(amount), sum(marked) FROM leadloop_monitor.sums
            GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4""",
    )
    with empty:
        upgraded(empty)
        sql.execute(empty, history)
        if is_folded:
            counts.fold_all_counts(empty)
        make_first_contact(empty)
        upgraded(empty)
        with empty.transaction() as connection:
            require_current(connection)
            assert not are_counts_filled(connection)
        sql.execute(empty, late_attempt)
        counts.fill_counts(empty)
        sql.execute(database, history)
        sql.execute(database, late_attempt)
        for query in shown:
            rows = sql.fetch_rows(empty, query)
            assert rows == sql.fetch_rows(database, query) != []
        assert empty.run(counts.count_drift) == 0
        with empty.transaction() as connection, database.transaction() as other:
            require_current(connection)
            assert describe_all(connection) == describe_all(other)


#: What `db/counts.py` of 0011_first_contact executes: a fold, and the end of a recount.
_OLD_DIGEST = (
    "substr(sha256(convert_to(CAST(jsonb_build_array(name, detail) AS text), 'UTF8')), 1, 16)"
)
_OLD_FOLD = f"""
WITH gone AS (
    DELETE FROM leadloop.count_changes WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM leadloop.count_changes LIMIT 20000 FOR UPDATE SKIP LOCKED))
    RETURNING *
), stored AS (
    INSERT INTO leadloop.counts AS kept
           (kind, span, since, campaign_id, key, name, detail, amount, marked, cost)
    SELECT kind, span, since, campaign_id, {_OLD_DIGEST} AS key, name, detail, sum(amount),
           sum(marked), sum(cost)
      FROM (SELECT each.kind, span, since, campaign_id, name, detail, amount, marked, cost
              FROM gone AS each
              JOIN (VALUES ('lead', 'ever'), ('outcome', 'hour'), ('outcome', 'day'),
                           ('outcome', 'ever'), ('attempt', 'hour'), ('attempt', 'ever'),
                           ('delay', 'hour'), ('delay', 'ever'), ('opt_out', 'day'),
                           ('opt_out', 'ever')) AS summed (kind, span) ON summed.kind = each.kind
             CROSS JOIN LATERAL (
                   SELECT CASE span WHEN 'hour' THEN each.hour
                                    WHEN 'day' THEN date_trunc('day', each.hour, 'UTC')
                                    ELSE '-infinity' END AS since) AS period) AS spread
     GROUP BY kind, span, since, campaign_id, name, detail
     ORDER BY kind, span, since, campaign_id, key
    ON CONFLICT (kind, span, since, campaign_id, key) DO UPDATE
       SET amount = kept.amount + excluded.amount
    RETURNING kind, span, since, campaign_id, key, amount
)
SELECT (SELECT count(*) FROM gone) AS changes, kind, span, CAST(since AS text) AS since,
       campaign_id, key
  FROM (VALUES (0)) AS one LEFT JOIN stored ON stored.amount = 0
"""
_OLD_RECOUNT = f"""
DELETE FROM leadloop.count_changes;
DELETE FROM leadloop.counts;
INSERT INTO leadloop.counts
       (kind, span, since, campaign_id, key, name, detail, amount, marked, cost)
SELECT kind, span, since, campaign_id, {_OLD_DIGEST}, name, detail, amount, marked, cost
  FROM leadloop.counts_from_rows
"""


@pytest.mark.parametrize("statement", [_OLD_FOLD, _OLD_RECOUNT])
def test_a_run_of_the_old_version_deletes_no_changes(empty: Database, statement: str) -> None:
    """It has outlived the upgrade, and knows neither sums of runs nor those of all campaigns."""
    with empty:
        upgraded(empty)
        make_first_contact(empty)
        upgraded(empty)
        counts.fill_counts(empty)
        for flow in ("push-leads", "poll-outcomes"):
            sql.execute(
                empty,
                """INSERT INTO leadloop.sync_runs (flow, campaign_id, state, counts)
                   VALUES (:flow, 'C1', 'completed', '{"requests": 2}')""",
                flow=flow,
            )
            with pytest.raises(DatabaseError, match="42703"):
                sql.execute(empty, statement)
            assert empty.run(counts.count_drift) == 0
            counts.fold_all_counts(empty)
        assert empty.run(counts.count_drift) == 0
        requests = "SELECT sum(requests) FROM leadloop_monitor.request_stats"
        assert sql.fetch_value(empty, requests) == 4


@pytest.mark.parametrize("is_forgotten", [True, False])
def test_an_upgrade_keeps_the_number_of_a_forgotten_lead(
    empty: Database, is_forgotten: bool
) -> None:
    """It was kept once, for another lead with that number; its own text is erased."""
    with empty:
        upgraded(empty)
        sql.execute(
            empty,
            """UPDATE leadloop.alembic_version SET version_num = '0005_counts';
               ALTER TABLE leadloop.suppressed_numbers DROP CONSTRAINT suppressed_numbers_pkey;
               ALTER TABLE leadloop.suppressed_numbers ADD PRIMARY KEY (number_key);
               INSERT INTO leadloop.suppressed_numbers (number_key, campaign_id, lead_id)
               VALUES ('x', 'C1', 'other'), ('y', 'C1', 'own');
               INSERT INTO leadloop.forgotten (campaign_id, lead_id)
               SELECT 'C1', unnest(CAST(:forgotten AS text[]))""",
            forgotten=["own", "erased"] if is_forgotten else ["own"],
        )
        upgraded(empty)
        with empty.transaction() as connection:
            holders = {
                key: [each.lead_id for each in opt_ins.list_number_holders(connection, key)]
                for key in (b"x", b"y")
            }
    kept = ["erased"] if is_forgotten else []
    assert holders == {b"x": [*kept, "other"], b"y": [*kept, "own"]}


def test_what_differs_in_a_schema_that_is_taken_over_is_said_and_not_refused(
    empty: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """A dropped index and an added column: one line each."""
    with empty:
        of_issue_a(empty)
        sql.execute(
            empty,
            "DROP INDEX leadloop.leads_folded_id; ALTER TABLE leadloop.leads ADD COLUMN mine text",
        )
        upgraded(empty)
        assert sql.fetch_statuses(empty) == {"a": "new"}
    lines = [record.message for record in caplog.records if "differs" in record.message]
    assert len(lines) == 2
    assert "missing: the index CREATE INDEX leads_folded_id" in lines[0]
    assert "additional: the column leads.mine text" in lines[1]


def test_a_schema_of_long_before_is_told_how_to_get_on(database: Database) -> None:
    """It is upgraded in two steps; nothing is changed meanwhile."""
    sql.execute(database, "UPDATE leadloop.alembic_version SET version_num = '0005'")
    for work in (migrate_schema, require_current):
        with (
            database.transaction() as connection,
            pytest.raises(UsageError, match="to version 0008"),
        ):
            work(connection)


@pytest.mark.parametrize(
    "statement",
    [
        "LOCK TABLE leadloop.alembic_version IN ACCESS EXCLUSIVE MODE",
        "UPDATE leadloop.leads SET contact_name = 'b'",
        # A new column needs the table for a moment.
        "SELECT count(*) FROM leadloop.leads",
    ],
)
def test_an_upgrade_that_must_wait_lets_others_pass(empty: Database, statement: str) -> None:
    """It gives up after seconds, so that no query queues behind it; one line explains it."""
    of_issue_a(empty)
    with empty.transaction() as other:
        other.execute(text(statement))
        with pytest.raises(DatabaseError, match="has held a lock for too long"):
            upgraded(empty)
    assert upgraded(empty) != "0008"
    assert sql.fetch_statuses(empty) == {"a": "new"}
