from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, text

from db import leads, opt_outs
from db.database import Database
from db.in_doubt import DueLookups
from db.leads import ClaimRef, ClaimResult
from leadloop.core.accounts import DEFAULT_ACCOUNT
from leadloop.core.leads import Lead
from leadloop.core.opt_ins import OPTED_OUT_REASON
from tests import factories, sql
from tests.factories import CAMPAIGN


@pytest.fixture(autouse=True)
def campaign(database: Database) -> None:
    """The campaign whose leads are claimed."""
    factories.add_campaign(database)


def a_run(database: Database) -> int:
    """A run that is alive according to its row."""
    query = """INSERT INTO leadloop.sync_runs (flow, campaign_id)
               VALUES ('push-leads', :campaign) RETURNING run_id"""
    run_id: int = sql.fetch_value(database, query, campaign=CAMPAIGN)
    return run_id


def claim(connection: Connection, run_id: int, most: int = 100, **options: Any) -> ClaimResult:
    """A claim on the tests' campaign."""
    return leads.claim_leads(
        connection,
        campaign_id=CAMPAIGN,
        run_id=run_id,
        claim_no=1,
        limit=most,
        account=DEFAULT_ACCOUNT,
        **options,
    )


def ids(claimed: ClaimResult) -> list[str]:
    """Whom it got."""
    return [lead.lead_id for lead in claimed.leads]


def test_the_oldest_come_first_and_no_more_than_asked(database: Database) -> None:
    """Leads go out in the order in which upstream inserted them."""
    factories.add_leads(database, "z", "b", "a", "y")
    run_id = a_run(database)
    with database.transaction() as connection:
        assert ids(claim(connection, run_id, most=3)) == ["z", "b", "a"]
    assert sql.fetch_statuses(database) == {
        "z": "sending",
        "b": "sending",
        "a": "sending",
        "y": "new",
    }


def test_the_fields_of_a_lead_that_is_too_large_are_not_read(database: Database) -> None:
    """A hundred such leads take no memory here; its largest field is named with its bytes."""
    rows: dict[str, dict[str, Any]] = {
        "name": {"contact_name": "é" * 600, "custom_fields": {"a": "x" * 400}},
        "custom": {"custom_fields": {"a": "x" * 1100}},
        "fits": {"contact_name": "Ann", "custom_fields": {"a": "x" * 900}},
    }
    factories.add_leads(database, *(factories.build_lead(lead, **rows[lead]) for lead in rows))
    run_id = a_run(database)
    with database.transaction() as connection:
        claimed = leads.claim_leads(
            connection,
            campaign_id=CAMPAIGN,
            run_id=run_id,
            claim_no=1,
            limit=9,
            max_lead_bytes=1000,
            account=DEFAULT_ACCOUNT,
        )
    left_out = {lead.lead_id: lead.left_out for lead in claimed.leads}
    assert left_out == {
        "name": "contact_name: 1200 bytes",
        "custom": "custom_fields: 1109 bytes",
        "fits": "",
    }
    by_id = {lead.lead_id: lead for lead in claimed.leads}
    assert by_id["name"] == Lead("name", left_out="contact_name: 1200 bytes")
    assert len(by_id["fits"].custom_fields) == 909


def test_a_claim_takes_no_more_bytes_than_asked(database: Database) -> None:
    """In order, and always one; a lead that is not sent takes no room, nor one that opted out."""
    large = {"custom_fields": {"a": "x" * 4000}}
    rows = [factories.build_lead(f"L{number}", **large) for number in range(4)]
    giant = factories.build_lead("giant", custom_fields={"a": "x" * 30_000})
    factories.add_leads(database, *rows[:2], giant, *rows[2:])
    factories.add_opt_outs(database, "L0")
    run_id = a_run(database)

    def claim_bytes(most: int) -> list[str]:
        with database.transaction() as connection:
            claimed = leads.claim_leads(
                connection,
                campaign_id=CAMPAIGN,
                run_id=run_id,
                claim_no=1,
                limit=9,
                max_lead_bytes=20_000,
                max_bytes=most,
                account=DEFAULT_ACCOUNT,
            )
        return ids(claimed)

    assert claim_bytes(9000) == ["L1", "giant", "L2"]
    assert sql.fetch_statuses(database)["L0"] == "cancelled"
    assert claim_bytes(-1) == ["L3"]
    assert claim_bytes(9000) == []


def test_a_claimed_lead_is_whole(database: Database) -> None:
    """Every field that upstream set arrives as it stands, digits and time included."""
    moment = datetime(2026, 1, 31, 9, tzinfo=UTC)
    custom = '{"n": 0.12345678901234567890123, "name": "\N{SNOWMAN}"}'
    row = factories.build_lead("007", ebr_datetime=moment, custom_fields=custom)
    factories.add_leads(database, row)
    run_id = a_run(database)
    with database.transaction() as connection:
        (lead,) = claim(connection, run_id).leads
    assert lead.lead_id == "007"
    assert (lead.phone_number, lead.contact_name) == (row["phone_number"], row["contact_name"])
    assert (lead.state_code, lead.ebr_datetime) == ("NY", moment)
    assert lead.custom_fields == custom


@pytest.mark.parametrize("when", ["-infinity", "0001-01-01 UTC", "12000-01-01 UTC", "infinity"])
@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Tokyo"])
def test_a_time_that_python_has_no_year_for_holds_nobody_up(
    database: Database, when: str, zone: str
) -> None:
    """It comes as a year that the check refuses; the lead beside it goes out."""
    factories.add_leads(database, factories.build_lead("odd", ebr_datetime=when), "good")
    run_id = a_run(database)
    with database.transaction() as connection:
        connection.execute(text(f"SET LOCAL timezone = '{zone}'"))
        odd, good = claim(connection, run_id).leads
    assert good.ebr_datetime is None
    assert odd.ebr_datetime is not None
    assert odd.ebr_datetime.year < 1900 or odd.ebr_datetime.year > 9990


def test_two_claims_at_once_share_the_leads(database: Database) -> None:
    """Neither waits for the other, and no lead is given to both."""
    factories.add_leads(database, *[f"L{n}" for n in range(10)])
    one, other = a_run(database), a_run(database)
    with database.transaction() as first, database.transaction() as second:
        mine = ids(claim(first, one, most=6))
        theirs = ids(claim(second, other, most=6))
    assert (len(mine), len(theirs)) == (6, 4)
    assert not set(mine) & set(theirs)


def test_many_claims_at_once_lose_and_double_nothing(database: Database) -> None:
    """Eight connections, small bites: each lead is claimed by exactly one of them.

    A third of the leads is urgent.
    """
    rows = [factories.build_lead(f"L{n}", priority=(0, 0, 2)[n % 3]) for n in range(200)]
    factories.add_leads(database, *rows)

    def eat(_: int) -> list[str]:
        run_id, eaten = a_run(database), list[str]()
        while True:
            with database.transaction() as connection:
                bite = ids(claim(connection, run_id, most=7))
            if not bite:
                return eaten
            eaten += bite

    with ThreadPoolExecutor(8) as pool:
        shares = list(pool.map(eat, range(8)))
    assert sorted(lead_id for share in shares for lead_id in share) == sorted(
        f"L{n}" for n in range(200)
    )


def test_a_claim_that_is_rolled_back_never_was(database: Database) -> None:
    """A process that dies before the commit has sent nothing."""
    factories.add_leads(database, "a")
    run_id = a_run(database)
    with database.transaction() as connection:
        claim(connection, run_id)
        connection.rollback()
    assert sql.fetch_statuses(database) == {"a": "new"}


@pytest.mark.parametrize("order", ["opt-out first", "lead first"])
def test_whoever_opted_out_is_cancelled_instead(database: Database, order: str) -> None:
    """Whichever row came first: it is not sent, and the opt-out is settled by the claim."""
    if order == "lead first":
        factories.add_leads(database, "a", "b")
    factories.add_opt_outs(database, "a")
    if order == "opt-out first":
        factories.add_leads(database, "a", "b")
    run_id = a_run(database)
    with database.transaction() as connection:
        claimed = claim(connection, run_id)
    assert (ids(claimed), claimed.cancelled, claimed.total) == (["b"], 1, 2)
    assert sql.fetch_statuses(database) == {"a": "cancelled", "b": "sending"}
    assert sql.fetch_opt_outs(database) == {"a": "cancelled"}
    (row,) = sql.fetch_rows(
        database,
        """SELECT lead.sent_at, d.confirmed_at FROM leadloop.leads AS lead
             JOIN leadloop.disable_requests AS d USING (campaign_id, lead_id)""",
    )
    assert row["sent_at"] is None, "it never was"
    assert row["confirmed_at"] is not None


def test_an_opt_out_not_yet_committed_keeps_its_lead_back(database: Database) -> None:
    """The claim passes over it without waiting, and the next one cancels it."""
    factories.add_leads(database, "a", "b")
    run_id = a_run(database)
    with database.transaction() as upstream:
        opt_outs.request_opt_outs(upstream, CAMPAIGN, ["a"])
        with database.transaction() as connection:
            assert ids(claim(connection, run_id)) == ["b"]
    with database.transaction() as connection:
        assert claim(connection, run_id).cancelled == 1
    assert sql.fetch_statuses(database) == {"a": "cancelled", "b": "sending"}


def test_an_opt_out_that_commits_while_the_claim_runs_is_seen(database: Database) -> None:
    """Even one that the claim's snapshot is too old to show."""
    factories.add_leads(database, "a", "b")
    run_id = a_run(database)

    def late_claim() -> ClaimResult:
        with database.transaction() as connection:
            return claim(connection, run_id)

    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as blocker:
            # The claim has its snapshot, and waits for its run's row.
            blocker.execute(
                text("SELECT FROM leadloop.sync_runs WHERE run_id = :run FOR UPDATE"),
                {"run": run_id},
            )
            claiming = pool.submit(late_claim)
            sql.wait_until_blocked(database)
            factories.add_opt_outs(database, "a")
        assert ids(claiming.result(timeout=30)) == ["b"]
    assert sql.fetch_statuses(database) == {"a": "cancelled", "b": "sending"}
    with database.transaction() as connection:
        assert opt_outs.cancel_unsent(connection, CAMPAIGN) == 1
    assert sql.fetch_opt_outs(database) == {"a": "cancelled"}


def test_an_opt_out_after_the_claim_waits_and_is_sent_as_a_disable(database: Database) -> None:
    """The vendor may have the lead: it is neither cancelled nor forgotten."""
    factories.add_leads(database, "a")
    run_id = a_run(database)
    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as connection:
            assert ids(claim(connection, run_id)) == ["a"]
            opting_out = pool.submit(factories.add_opt_outs, database, "a")
            sql.wait_until_blocked(database)
        opting_out.result(timeout=30)
    assert sql.fetch_statuses(database) == {"a": "sending"}
    assert sql.fetch_opt_outs(database) == {"a": "requested"}


def test_no_race_of_claims_and_opt_outs_sends_whom_it_should_not(database: Database) -> None:
    """Opt-outs rain down while three claimers work: a cancelled opt-out's lead was never taken."""
    everyone = [f"L{n}" for n in range(150)]
    factories.add_leads(database, *everyone)

    def opt_all_out(part: int) -> list[str]:
        for lead_id in everyone[part::2]:
            factories.add_opt_outs(database, lead_id)
        return []

    def take_all(_: int) -> list[str]:
        run_id, taken = a_run(database), list[str]()
        while sql.fetch_value(database, "SELECT count(*) FROM leadloop.leads WHERE status = 'new'"):
            with database.transaction() as connection:
                taken += ids(claim(connection, run_id, most=5))
        return taken

    with ThreadPoolExecutor(5) as pool:
        raining = [pool.submit(opt_all_out, part) for part in range(2)]
        taking = [pool.submit(take_all, n) for n in range(3)]
        taken = {lead_id for future in taking for lead_id in future.result(timeout=60)}
        for future in raining:
            future.result(timeout=60)
    statuses = sql.fetch_statuses(database)
    assert taken == {lead_id for lead_id in everyone if statuses[lead_id] == "sending"}
    with database.transaction() as connection:
        # Those that a claim cancelled before it could see their requests.
        opt_outs.cancel_unsent(connection, CAMPAIGN)
    cancelled = {
        key for key, status in sql.fetch_opt_outs(database).items() if status == "cancelled"
    }
    assert cancelled == set(everyone) - taken


@pytest.mark.parametrize("state", ["crashed", "completed", "failed"])
def test_a_run_that_was_declared_dead_gets_nothing(database: Database, state: str) -> None:
    """Neither new leads nor its own again: another run may have put them in doubt."""
    factories.add_leads(database, "a", "b")
    run_id = a_run(database)
    with database.transaction() as connection:
        claim(connection, run_id, most=1)
    sql.execute(
        database, "UPDATE leadloop.sync_runs SET state = :s WHERE run_id = :r", s=state, r=run_id
    )
    batch = ClaimRef(campaign_id=CAMPAIGN, run_id=run_id, claim_no=1, lead_ids=["a"])
    with database.transaction() as connection:
        assert claim(connection, run_id).total == 0
        assert leads.reclaim_leads(connection, batch, account=DEFAULT_ACCOUNT).total == 0
    assert sql.fetch_statuses(database) == {"a": "sending", "b": "new"}


def test_before_a_second_batch_opt_outs_are_seen_again(database: Database) -> None:
    """A refused batch goes out in parts, without those who opted out meanwhile."""
    factories.add_leads(database, "a", "b", "c")
    run_id = a_run(database)
    with database.transaction() as connection:
        claim(connection, run_id)
    factories.add_opt_outs(database, "b")
    batch = ClaimRef(campaign_id=CAMPAIGN, run_id=run_id, claim_no=1, lead_ids=["a", "b"])
    with database.transaction() as connection:
        again = leads.reclaim_leads(connection, batch, account=DEFAULT_ACCOUNT)
    assert (again.lead_ids, again.cancelled) == (["a"], 1)
    assert sql.fetch_statuses(database) == {"a": "sending", "b": "cancelled", "c": "sending"}


def test_a_release_that_is_repeated_undoes_no_later_claim(database: Database) -> None:
    """The commit's answer was lost, and another sender of the run has claimed the lead since."""
    factories.add_leads(database, "a")
    run_id = a_run(database)
    with database.transaction() as connection:
        claim(connection, run_id)
        first = ClaimRef(campaign_id=CAMPAIGN, run_id=run_id, claim_no=1, lead_ids=["a"])
        leads.release_leads(connection, first)
        leads.claim_leads(
            connection,
            campaign_id=CAMPAIGN,
            run_id=run_id,
            claim_no=2,
            limit=1,
            account=DEFAULT_ACCOUNT,
        )
        assert leads.release_leads(connection, first) == 0
    assert sql.fetch_statuses(database) == {"a": "sending"}


@pytest.mark.parametrize(
    "change",
    [
        leads.record_created,
        leads.release_leads,
        lambda c, batch: leads.mark_in_doubt(c, batch, "x"),
        lambda c, batch: leads.cancel_leads(c, batch, "x"),
        lambda c, batch: leads.record_rejected(c, batch, {"z": "x", "a": "y"}, was_sent=True),
        lambda c, batch: leads.reclaim_leads(c, batch, account=DEFAULT_ACCOUNT),
    ],
    ids=["created", "release", "doubt", "cancel", "rejected", "claim again"],
)
def test_we_lock_leads_in_the_order_of_upstreams_opt_outs(
    database: Database, change: Callable[[Connection, ClaimRef], object]
) -> None:
    """While we wait for one we hold none that comes after it: upstream never meets a deadlock."""
    factories.add_leads(database, "z", "a")
    run_id = a_run(database)
    with database.transaction() as connection:
        claim(connection, run_id)
    batch = ClaimRef(campaign_id=CAMPAIGN, run_id=run_id, claim_no=1, lead_ids=["z", "a"])

    def ours() -> None:
        with database.transaction() as connection:
            # The order of the heap, not that of an index.
            connection.execute(text("SET LOCAL enable_indexscan = off"))
            connection.execute(text("SET LOCAL enable_bitmapscan = off"))
            change(connection, batch)

    lock = text("SELECT FROM leadloop.leads WHERE lead_id = :lead FOR NO KEY UPDATE NOWAIT")
    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as upstream:
            upstream.execute(lock, {"lead": "a"})
            changing = pool.submit(ours)
            sql.wait_until_blocked(database)
            upstream.execute(lock, {"lead": "z"})
        changing.result(timeout=30)


def test_the_vendor_has_its_time_from_the_moment_of_the_doubt(database: Database) -> None:
    """Not from the claim: a request that timed out may be at work for as long again."""
    factories.add_leads(database, "a")
    run_id = a_run(database)
    batch = ClaimRef(campaign_id=CAMPAIGN, run_id=run_id, claim_no=1, lead_ids=["a"])
    with database.transaction() as connection:
        claim(connection, run_id)
        connection.execute(text("UPDATE leadloop.leads SET sent_at = now() - interval '1 hour'"))
        leads.mark_in_doubt(connection, batch, "no answer")
        due = DueLookups(campaign=CAMPAIGN, run=run_id + 1, settle_s=60)
        (doubt,) = due.list(connection, 10)
    assert not doubt.settled


def test_a_run_settles_its_own_leads_alone(database: Database) -> None:
    """An answer that comes late does not touch what another run has sent since."""
    factories.add_leads(database, "a", "b")
    mine, other = a_run(database), a_run(database)
    with database.transaction() as connection:
        claim(connection, mine, most=1)
        claim(connection, other, most=1)
        both = ClaimRef(campaign_id=CAMPAIGN, run_id=mine, claim_no=1, lead_ids=["a", "b"])
        assert leads.record_created(connection, both) == 1
    assert sql.fetch_statuses(database) == {"a": "created", "b": "sending"}


CLAIM: dict[str, Any] = {
    **{"campaign": CAMPAIGN, "claim": 1, "after_seq": 0, "urgent_only": False},
    **{"require_enabled": True, "max_lead_bytes": 9999, "max_bytes": 999_999},
    **{"max_lead_age_s": None, "too_old": None, "account": "default"},
}


@pytest.mark.parametrize("urgent", [0, 50])
def test_the_claim_reads_the_indexes_of_new_leads(database: Database, urgent: int) -> None:
    """It costs the same however many leads wait or were sent: no scan of the table, no sort."""
    sql.execute(
        database,
        """INSERT INTO leadloop.leads (campaign_id, lead_id, status, priority)
           SELECT :campaign, n, CASE WHEN n % 2 = 0 THEN 'new' ELSE 'created' END,
                  CASE WHEN n <= 2 * :urgent THEN 1 ELSE 0 END
             FROM generate_series(1, 40000) AS n""",
        campaign=CAMPAIGN,
        urgent=urgent,
    )
    sql.execute(database, "ANALYZE leadloop.leads")
    parameters = {**CLAIM, "run": a_run(database), "limit": 100}
    explain = text(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {leads._CLAIM.text}")
    with database.autocommit() as connection:
        (plan,) = connection.execute(explain, parameters).scalar_one()
    steps = list(nodes(plan["Plan"]))
    scanned = {step["Index Name"]: step for step in steps if "Index Name" in step}
    assert {"leads_urgent", "leads_new"} <= scanned.keys()
    assert scanned["leads_urgent"]["Actual Rows"] == urgent
    assert scanned["leads_new"]["Actual Rows"] == 100 - urgent, "no more than it takes is locked"
    assert not any(
        step["Node Type"] == "Seq Scan" and step["Relation Name"] == "leads" for step in steps
    )
    # Only the leads of the claim are sorted.
    assert all(step["Actual Rows"] <= 100 for step in steps if step["Node Type"] == "Sort")


def test_a_long_transaction_elsewhere_makes_no_claim_dearer(database: Database) -> None:
    """What was sent since it began is passed over: a claim goes on where the last one ended."""
    factories.add_leads(database, *(f"{number:04d}" for number in range(1000)))
    run_id = a_run(database)
    parameters = {**CLAIM, "run": run_id, "limit": 10}
    explain = text(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {leads._CLAIM.text}")

    def pages(connection: Connection, after: int) -> int:
        """Of the indexes and the table, until it has found whom it takes."""
        (plan,) = connection.execute(explain, {**parameters, "after_seq": after}).scalar_one()
        indexes = ("leads_new", "leads_urgent")
        scans = [node for node in nodes(plan["Plan"]) if node.get("Index Name") in indexes]
        assert len(scans) == 2
        return sum(scan["Shared Hit Blocks"] + scan["Shared Read Blocks"] for scan in scans)

    with database.transaction() as reader, database.autocommit() as connection:
        reader.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        reader.execute(text("SELECT FROM leadloop.leads LIMIT 1"))
        first = pages(connection, 0)
        taken = claim(connection, run_id, most=900)
        assert pages(connection, taken.last_seq) <= 2 * first
        assert pages(connection, 0) > 4 * first, "the entries are not there: this shows nothing"


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every step of a plan."""
    yield plan
    for part in plan.get("Plans", []):
        yield from nodes(part)


def test_urgent_leads_come_first(database: Database) -> None:
    """The highest priority first, and of one priority the oldest; then the others in order."""
    priorities = {"b": 1, "a": 0, "c": 0, "e": 1, "d": 7, "f": 0}
    rows = [factories.build_lead(lead, priority=value) for lead, value in priorities.items()]
    factories.add_leads(database, *rows)
    run_id = a_run(database)
    with database.transaction() as connection:
        assert ids(claim(connection, run_id, most=1)) == ["d"]
        assert ids(claim(connection, run_id, most=3)) == ["b", "e", "a"]
        assert ids(claim(connection, run_id)) == ["c", "f"]


def test_a_claim_goes_on_among_the_others_wherever_urgent_leads_stand(database: Database) -> None:
    """An urgent lead that comes meanwhile is next, and none of the others is passed over."""
    factories.add_leads(database, *"abcdef")
    run_id = a_run(database)
    with database.transaction() as connection:
        first = claim(connection, run_id, most=2)
        connection.execute(text("UPDATE leadloop.leads SET priority = 1 WHERE lead_id = 'f'"))
        second = claim(connection, run_id, most=1, after_seq=first.last_seq)
        assert (ids(second), second.last_seq) == (["f"], first.last_seq)
        connection.execute(text("UPDATE leadloop.leads SET priority = 1 WHERE lead_id = 'e'"))
        third = claim(connection, run_id, most=2, after_seq=second.last_seq)
        assert ids(third) == ["e", "c"]
        fourth = claim(connection, run_id, after_seq=third.last_seq)
        assert ids(fourth) == ["d"]
        assert claim(connection, run_id, after_seq=fourth.last_seq).last_seq == 0


def test_a_claim_that_urgent_leads_fill_locks_no_others(database: Database) -> None:
    """Another claim at the same time gets them."""
    rows = [factories.build_lead(lead, priority=1) for lead in ("u", "v")]
    factories.add_leads(database, "a", "b", *rows)
    one, other = a_run(database), a_run(database)
    with database.transaction() as first, database.transaction() as second:
        assert ids(claim(first, one, most=2)) == ["u", "v"]
        assert ids(claim(second, other, most=2)) == ["a", "b"]


@pytest.mark.parametrize(
    ("campaign_priority", "claimed"), [(0, ["u"]), (1, ["u", "a", "b"])], ids=["lead", "campaign"]
)
def test_only_urgent_leads_are_claimed_on_request(
    database: Database, campaign_priority: int, claimed: list[str]
) -> None:
    """Those with a priority; where the campaign has one, all of its leads are urgent."""
    sql.execute(
        database, "UPDATE leadloop.campaigns SET priority = :value", value=campaign_priority
    )
    factories.add_leads(database, "a", factories.build_lead("u", priority=1), "b")
    run_id = a_run(database)

    def left(connection: Connection) -> tuple[int, bool]:
        return leads.count_fresh(connection, CAMPAIGN, urgent_only=True), leads.has_fresh_leads(
            connection, CAMPAIGN, require_enabled=True, urgent_only=True
        )

    with database.transaction() as connection:
        assert left(connection) == (len(claimed), True)
        assert ids(claim(connection, run_id, urgent_only=True)) == claimed
        assert left(connection) == (0, False)
        assert leads.count_fresh(connection, CAMPAIGN) == 3 - len(claimed)


AGES = {"hour": "1 hour", "minute": "1 minute", "now": "0", "always": "infinity"}


def add_aged_leads(database: Database, **columns: Any) -> None:
    """Leads that were inserted an hour ago, a minute ago, now, and before all time."""
    factories.add_leads(database, *(factories.build_lead(name, **columns) for name in AGES))
    for name, age in AGES.items():
        sql.execute(
            database,
            "UPDATE leadloop.leads SET inserted_at = now() - CAST(:age AS interval)"
            " WHERE lead_id = :lead",
            lead=name,
            age=age,
        )


def test_a_lead_that_is_too_old_is_rejected_instead(database: Database) -> None:
    """It says so, and counts as never sent; whoever has opted out is cancelled as ever."""
    add_aged_leads(database)
    factories.add_opt_outs(database, "always")
    run_id = a_run(database)
    with database.transaction() as connection:
        claimed = claim(connection, run_id, max_lead_age_s=600)
    assert sorted(ids(claimed)) == ["minute", "now"]
    assert (claimed.cancelled, [*claimed.rejected], claimed.total) == (1, ["hour"], 4)
    assert sql.fetch_statuses(database)["hour"] == "rejected"
    assert sql.fetch_errors(database) == {
        "hour": "too old: inserted more than 600 s before it could be sent (LEADLOOP_MAX_LEAD_AGE)",
        "always": OPTED_OUT_REASON,
    }
    # As other leads that were never sent: the opt-out is not sent either.
    factories.add_opt_outs(database, "hour")
    with database.transaction() as connection:
        assert opt_outs.cancel_unsent(connection, CAMPAIGN) == 1


def test_any_age_is_sent_by_default(database: Database) -> None:
    """Off unless somebody sets it."""
    add_aged_leads(database)
    run_id = a_run(database)
    with database.transaction() as connection:
        assert len(claim(connection, run_id).leads) == len(AGES)


def test_a_suspect_that_is_too_old_is_rejected_and_a_suspect_no_more(database: Database) -> None:
    """It holds up no other lead that fails alone."""
    suspicion = {"suspect_list": 1, "suspected_at": "2026-01-01", "next_try_at": "2026-01-01"}
    add_aged_leads(database, **suspicion, last_failed_at="2026-01-01", lone_failures=1)
    run_id = a_run(database)
    with database.transaction() as connection:
        claimed = claim(connection, run_id, suspects=True, max_lead_age_s=600)
    assert (sorted(ids(claimed)), sorted(claimed.rejected)) == (
        ["minute", "now"],
        ["always", "hour"],
    )
    rows = sql.fetch_rows(
        database,
        """SELECT DISTINCT status, suspect_list, lone_failures,
                  num_nulls(suspected_at, next_try_at, last_failed_at) AS nulls
             FROM leadloop.leads ORDER BY status""",
    )
    assert [tuple(row.values()) for row in rows] == [
        *(("rejected", None, 0, 3), ("sending", 1, 1, 0))
    ]


def test_before_a_second_batch_ages_are_seen_again(database: Database) -> None:
    """A lead that becomes too old while it waits is not sent either."""
    add_aged_leads(database)
    run_id = a_run(database)
    with database.transaction() as connection:
        claim(connection, run_id)
    batch = ClaimRef(campaign_id=CAMPAIGN, run_id=run_id, claim_no=1, lead_ids=["hour", "now"])
    with database.transaction() as connection:
        again = leads.reclaim_leads(connection, batch, max_lead_age_s=600, account=DEFAULT_ACCOUNT)
    assert (again.lead_ids, [*again.rejected], again.total) == (["now"], ["hour"], 2)
    row = sql.fetch_rows(
        database, "SELECT status, sent_at FROM leadloop.leads WHERE lead_id = 'hour'"
    )
    assert row == [{"status": "rejected", "sent_at": None}]
    assert sql.fetch_statuses(database)["minute"] == "sending"
