"""`leadloop init --counts`: the migration alone, and the counts of rows behind the views."""

import pytest

from db import counts
from db.database import Database
from tests import factories, sql
from tests.cli.conftest import Command

_CREATED = "SELECT created FROM leadloop_monitor.campaign_health WHERE campaign_id = 'C1'"


@pytest.fixture
def uncounted(database: Database) -> None:
    """A created lead from before an upgrade that has rows to count."""
    factories.add_campaign(database)
    sql.execute(
        database,
        """SET LOCAL session_replication_role = replica;
           DELETE FROM leadloop.counts_filled;
           INSERT INTO leadloop.leads (campaign_id, lead_id, status)
           VALUES ('C1', 'a', 'created')""",
    )


@pytest.mark.usefixtures("uncounted")
def test_workers_may_start_before_the_count(invoke: Command, database: Database) -> None:
    """The migration alone names the command that counts, until that was done."""
    migrated = invoke("init", "--counts", "none", "--json")
    (line,) = migrated.err.splitlines()
    assert "until `leadloop init` has counted" in line
    assert (migrated.code, list(migrated.last)) == (0, ["version"])
    assert not invoke("status", "--json").last["upgrade_complete"]
    assert sql.fetch_value(database, _CREATED) == 0
    counted = invoke("init", "--json")
    assert (counted.code, counted.err, counted.last) == (0, "", migrated.last)
    assert invoke("status", "--json").last["upgrade_complete"]
    assert sql.fetch_value(database, _CREATED) == 1
    assert invoke("init", "--counts", "none").err == ""


def test_a_new_database_has_nothing_to_count(invoke: Command, empty_database_url: str) -> None:
    """So the migration alone completes it."""
    ran = invoke("init", "--counts", "none", LEADLOOP_DATABASE_URL=empty_database_url)
    assert (ran.code, ran.err) == (0, "")


@pytest.mark.usefixtures("uncounted")
@pytest.mark.parametrize(
    ("arguments", "command"), [((), "init"), (("--counts", "all"), "init --counts all")]
)
def test_a_count_that_fails(
    invoke: Command, database: Database, arguments: tuple[str, ...], command: str
) -> None:
    """One line: the schema is upgraded, runs work, and what to run; workers may start."""
    sql.execute(database, "ALTER TABLE leadloop.counts ADD CONSTRAINT full_disk CHECK (false)")
    sql.execute(database, "UPDATE leadloop.alembic_version SET version_num = '0013_opt_out_source'")
    ran = invoke("init", *arguments)
    assert (ran.code, ran.out) == (1, "")
    (line,) = ran.err.splitlines()
    version = invoke("init", "--counts", "none", "--json").last["version"]
    assert f"is upgraded to version {version}, and runs work" in line
    assert "constraint full_disk" in line
    assert line.endswith(f"`leadloop {command}` counts again")
    sql.execute(database, "ALTER TABLE leadloop.counts DROP CONSTRAINT full_disk")
    assert invoke(*command.split()).code == 0
    assert sql.fetch_value(database, _CREATED) == 1


def test_wrong_sums_that_are_no_campaigns_are_counted_again(
    invoke: Command, database: Database
) -> None:
    """An audit repairs the sums of a campaign: not of covering rows, nor of a deleted campaign."""
    for campaign in ("C1", "deleted"):
        factories.add_campaign(database, campaign)
    sql.execute(
        database,
        """INSERT INTO leadloop.lead_outcomes
                  (campaign_id, lead_id, processed_at, outcome_name, raw)
           VALUES ('C1', 'a', now(), 'Sale', '{}'), ('deleted', 'a', now(), 'Sale', '{}');
           INSERT INTO leadloop.sync_runs (flow, campaign_id, state, counts)
           VALUES ('push-leads', '', 'completed', '{"requests": 2}');
           DELETE FROM leadloop.campaigns WHERE campaign_id = 'deleted'""",
    )
    counts.fold_all_counts(database)
    shown = """SELECT kind, span, campaign_id, sum(amount) AS amount FROM leadloop_monitor.sums
                GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"""
    right = sql.fetch_rows(database, shown)
    assert {row["campaign_id"] for row in right} == {"C1", "", "deleted"}
    sql.execute(
        database,
        "UPDATE leadloop.counts SET amount = amount + 7 WHERE campaign_id IN ('', 'deleted')",
    )
    invoke("init")
    wrong = sql.fetch_rows(database, shown)
    assert {row["campaign_id"] for row in wrong if row not in right} == {"", "deleted"}
    ran = invoke("init", "--counts", "all")
    assert (ran.code, ran.err) == (0, "")
    assert sql.fetch_rows(database, shown) == right
    assert database.run(counts.count_drift) == 0
