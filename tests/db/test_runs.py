import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from db import leads, runs
from db.database import Database
from db.leads import ClaimRef
from db.runs import RunLocks
from leadloop.core.accounts import DEFAULT_ACCOUNT
from leadloop.core.errors import RunError
from tests import factories, sql
from tests.factories import CAMPAIGN


@pytest.fixture(autouse=True)
def campaign(database: Database) -> None:
    """The campaign whose leads are claimed."""
    factories.add_campaign(database)


def opened(connection: Connection) -> int:
    """A run whose life hangs on this connection."""
    return RunLocks(connection).open_run(flow="push-leads", campaign_id=CAMPAIGN, flow_run_id="f-1")


def states(database: Database) -> dict[int, str]:
    """The state of each run."""
    found = sql.fetch_rows(database, "SELECT run_id, state FROM leadloop.sync_runs")
    return {row["run_id"]: row["state"] for row in found}


def cut(database: Database, connection: Connection) -> None:
    """End a connection from outside, as a crash or an operator does; return when it is gone."""
    pid = connection.scalar(text("SELECT pg_backend_pid()"))
    assert sql.fetch_value(database, "SELECT pg_terminate_backend(:pid, 10000)", pid=pid)
    connection.invalidate()


def bury(database: Database, run_id: int) -> tuple[int, int]:
    """What a run does first: how many runs and leads that concerns."""
    with database.transaction() as connection:
        dead = runs.list_dead_runs(connection, lock_id=run_id)
    doubted = 0
    for each in dead:
        with database.transaction() as connection:
            doubted += runs.recover_run(connection, each) or 0
    return len(dead), doubted


def test_a_dead_run_is_known_at_once_and_its_leads_are_in_doubt(database: Database) -> None:
    """What it had sent the vendor may have; what it had not claimed is still new."""
    factories.add_leads(database, "a", "b", "c")
    with database.autocommit() as dying, database.autocommit() as living:
        dead, alive = opened(dying), opened(living)
        with database.transaction() as connection:
            leads.claim_leads(
                connection,
                campaign_id=CAMPAIGN,
                run_id=dead,
                claim_no=1,
                limit=2,
                account=DEFAULT_ACCOUNT,
            )
            done = ClaimRef(campaign_id=CAMPAIGN, run_id=dead, claim_no=1, lead_ids=["a"])
            leads.record_created(connection, done)
        assert bury(database, alive) == (0, 0), "it lives"
        cut(database, dying)
        assert bury(database, alive) == (1, 1)
        assert bury(database, alive) == (0, 0), "once is enough"
        assert states(database) == {dead: "crashed", alive: "running"}
    assert sql.fetch_statuses(database) == {"a": "created", "b": "in_doubt", "c": "new"}
    assert sql.fetch_errors(database) == {"b": "the run that sent it ended before the answer"}


def test_a_fenced_run_can_claim_nothing_and_stays_dead(database: Database) -> None:
    """Its process may go on after its connection was cut: it must send nothing more."""
    factories.add_leads(database, "a")
    with database.autocommit() as dying, database.autocommit() as living:
        dead, alive = opened(dying), opened(living)
        cut(database, dying)
        bury(database, alive)
        with database.transaction() as connection:
            assert not runs.is_running(connection, dead)
            assert (
                leads.claim_leads(
                    connection,
                    campaign_id=CAMPAIGN,
                    run_id=dead,
                    claim_no=1,
                    limit=1,
                    account=DEFAULT_ACCOUNT,
                ).total
                == 0
            )
            runs.close_run(connection, run_id=dead, state="completed", counts={}, error=None)
    assert states(database)[dead] == "crashed"


def test_an_answer_that_comes_after_the_burial_still_counts(database: Database) -> None:
    """The process lived, only its connection was cut: what it heard is known, not doubted."""
    factories.add_leads(database, "a")
    with database.autocommit() as dying, database.autocommit() as living:
        dead, alive = opened(dying), opened(living)
        with database.transaction() as connection:
            leads.claim_leads(
                connection,
                campaign_id=CAMPAIGN,
                run_id=dead,
                claim_no=1,
                limit=1,
                account=DEFAULT_ACCOUNT,
            )
        cut(database, dying)
        bury(database, alive)
        with database.transaction() as connection:
            heard = ClaimRef(campaign_id=CAMPAIGN, run_id=dead, claim_no=1, lead_ids=["a"])
            assert leads.record_created(connection, heard) == 1
    assert sql.fetch_statuses(database) == {"a": "created"}


def test_a_run_is_never_seen_without_its_lock(database: Database) -> None:
    """A run that is just beginning is not taken for dead by one that looks at that moment."""
    with database.autocommit() as one, database.autocommit() as other:
        first = opened(one)
        second = opened(other)
        assert bury(database, second) == (0, 0)
        assert bury(database, first) == (0, 0)


def test_runs_of_one_process_live_on_one_connection(database: Database) -> None:
    """Each campaign of a flow run has its own row; they die together."""
    with database.autocommit() as dying, database.autocommit() as living:
        mine = {opened(dying) for _ in range(3)}
        alive = opened(living)
        cut(database, dying)
        assert bury(database, alive)[0] == 3
        assert {key for key, state in states(database).items() if state == "crashed"} == mine


def test_a_flow_run_has_one_lock_whatever_its_campaigns(database: Database) -> None:
    """Opened at once or one by one: its rows live and die with the lock of the first."""
    campaigns = [f"C{number:03d}" for number in range(500)]
    with database.autocommit() as dying, database.autocommit() as living:
        locks = RunLocks(dying)
        first = locks.open_runs(flow="push-leads", campaign_ids=campaigns, flow_run_id="f-1")
        later = locks.open_run(flow="push-leads", campaign_id="C999", flow_run_id="f-1")
        assert list(first) == campaigns
        alive = opened(living)
        held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
        assert sql.fetch_value(database, held) == 2
        assert bury(database, alive) == (0, 0)
        with database.transaction() as connection:
            assert runs.find_live_flow_runs(connection, ["f-1", "f-2"]) == {"f-1"}
        cut(database, dying)
        assert bury(database, alive)[0] == 501
        with database.transaction() as connection:
            assert runs.find_live_flow_runs(connection, ["f-1"]) == {"f-1"}, "the other process's"
    assert states(database)[later] == "crashed"


def test_a_row_that_is_refused_leaves_the_connection_usable(database: Database) -> None:
    """None of its rows is written, and the next run begins as if nothing had been."""
    sql.execute(database, "DELETE FROM leadloop.campaigns")
    refused, other = factories.add_campaigns_with_refused_run(database, "INSERT")
    with database.autocommit() as connection:
        locks = RunLocks(connection)
        with pytest.raises(DBAPIError):
            locks.open_runs(flow="f", campaign_ids=[other, refused], flow_run_id=None)
        assert states(database) == {}
        run_id = locks.open_run(flow="f", campaign_id=other, flow_run_id=None)
        assert (locks.lock_id, states(database)) == (run_id, {run_id: "running"})


def test_a_run_is_buried_once_however_many_find_it(database: Database) -> None:
    """The second run neither recovers it nor waits for the first."""
    with database.autocommit() as dying, database.autocommit() as living:
        dead, alive = opened(dying), opened(living)
        cut(database, dying)
        with database.transaction() as connection:
            assert runs.list_dead_runs(connection, lock_id=alive) == [dead]
        with database.transaction() as first, database.transaction() as second:
            assert runs.recover_run(first, dead) == 0
            assert runs.recover_run(second, dead) is None
        with database.transaction() as late:
            assert runs.recover_run(late, dead) is None
            assert runs.recover_run(late, alive) is None, "it lives"
    assert states(database)[alive] == "running"


def test_a_run_that_ends_leaves_a_word(database: Database) -> None:
    """State, counts and error are in its row; nothing of it is buried later."""
    with database.autocommit() as one, database.autocommit() as other:
        run_id, later = opened(one), opened(other)
        with database.transaction() as connection:
            runs.close_run(
                connection, run_id=run_id, state="failed", counts={"created": 3}, error="no answer"
            )
        assert bury(database, later) == (0, 0)
    (row,) = sql.fetch_rows(
        database,
        "SELECT state, counts, error, flow_run_id, ended_at > started_at AS ended"
        "  FROM leadloop.sync_runs WHERE run_id = :run",
        run=run_id,
    )
    assert row == {
        "state": "failed",
        "counts": {"created": 3},
        "error": "no answer",
        "flow_run_id": "f-1",
        "ended": True,
    }


def test_what_a_run_heard_nothing_of_is_in_doubt_at_its_end(database: Database) -> None:
    """Its own leads alone."""
    factories.add_leads(database, "a", "b")
    with database.autocommit() as one, database.autocommit() as other:
        mine, theirs = opened(one), opened(other)
        with database.transaction() as connection:
            leads.claim_leads(
                connection,
                campaign_id=CAMPAIGN,
                run_id=mine,
                claim_no=1,
                limit=1,
                account=DEFAULT_ACCOUNT,
            )
            leads.claim_leads(
                connection,
                campaign_id=CAMPAIGN,
                run_id=theirs,
                claim_no=1,
                limit=1,
                account=DEFAULT_ACCOUNT,
            )
            assert runs.mark_unanswered_in_doubt(connection, mine) == 1
    assert sql.fetch_statuses(database) == {"a": "in_doubt", "b": "sending"}


def test_a_number_whose_lock_a_stranger_holds_is_passed_over(database: Database) -> None:
    """Any role that may connect can take it: the run takes the next number."""
    with database.autocommit() as stranger, database.autocommit() as ours:
        first = opened(ours)
        stranger.execute(_TAKE, {"run": first + 1})
        assert opened(ours) == first + 2
    assert set(states(database)) == {first, first + 2}


def test_a_stranger_who_holds_many_numbers_is_named(database: Database) -> None:
    """With pid and role; the connection can begin a run as soon as the stranger is gone."""
    with database.autocommit() as stranger, database.autocommit() as ours:
        first = opened(ours)
        for number in range(first + 1, first + 20):
            stranger.execute(_TAKE, {"run": number})
        pid = stranger.scalar(text("SELECT pg_backend_pid()"))
        with pytest.raises(RunError, match=f"pid {pid}, of the role postgres"):
            opened(ours)
        stranger.execute(text("SELECT pg_advisory_unlock_all()"))
        last = opened(ours)
        assert states(database) == {first: "running", last: "running"}


_TAKE = text("SELECT pg_advisory_lock(hashtext('leadloop.run'), CAST(:run AS int))")
