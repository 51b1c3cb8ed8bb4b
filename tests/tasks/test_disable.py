"""`disable-leads` and `sync-leads`, against the sandbox over real HTTP."""

from contextlib import suppress
from itertools import cycle
from math import ceil, log2
from typing import Any

import pytest
from sqlalchemy import text

from db import opt_outs
from db.database import Database
from leadloop.core.boot_clock import read_boot_clock, sleep_until
from leadloop.sandbox import SandboxHandle
from leadloop.settings import Settings
from tasks.disable import DISABLE
from tasks.forget import forget_leads
from tasks.jobs import CampaignExecution, CampaignsFailed
from tests import factories, sql
from tests.jobs import HOST, disable_leads, push_leads
from tests.opted_out import (
    FAILURES,
    count_requests,
    name_failure,
    opted_out_people,
    poison,
    push_campaign,
)

pytestmark = pytest.mark.usefixtures("quick_retries", "environment")


def test_people_who_opted_out_are_disabled(database: Database, vendor: SandboxHandle) -> None:
    """The vendor disables them, and both times are kept."""
    push_campaign(database, "a", "b", "c")
    factories.add_opt_outs(database, "a", "b")
    summary = disable_leads()
    assert (summary["disabled"], summary["requests"]) == (2, 1)
    assert set(vendor.store.disabled(factories.CAMPAIGN)) == {"a", "b"}
    times = "SELECT bool_and(requested_at <= sent_at AND sent_at <= confirmed_at)"
    assert sql.fetch_value(database, f"{times} FROM leadloop.disable_requests")


@pytest.mark.parametrize("is_deleted", [False, True])
def test_the_campaign_s_row_counts_from_the_next_list_on(
    database: Database,
    vendor: SandboxHandle,
    monkeypatch: pytest.MonkeyPatch,
    is_deleted: bool,
) -> None:
    """Longer lists, or the end of this campaign's part; the other campaign goes on."""
    monkeypatch.setattr("tasks.context.MAX_ROW_AGE_S", 0)
    lead_ids = [f"L{number:02d}" for number in range(20)]
    push_campaign(database, *lead_ids)
    factories.add_campaign(database, "C2")
    factories.add_leads(database, "a", campaign="C2")
    push_leads(campaigns=["C2"])
    sql.execute(database, "UPDATE leadloop.campaigns SET batch_size = 1")
    factories.add_opt_outs(database, *lead_ids)
    factories.add_opt_outs(database, "a", campaign="C2")
    change = (
        "DELETE FROM leadloop.campaigns"
        if is_deleted
        else ("UPDATE leadloop.campaigns SET batch_size = 50")
    )
    sql.execute(
        database,
        f"""CREATE FUNCTION public.pull() RETURNS trigger LANGUAGE plpgsql AS $pull$ BEGIN
                {change} WHERE campaign_id = 'C1'; RETURN NULL;
            END $pull$;
            CREATE TRIGGER pull AFTER UPDATE ON leadloop.disable_requests FOR EACH ROW
                WHEN (NEW.lead_id = 'L02' AND NEW.status = 'disabled')
                EXECUTE FUNCTION public.pull()""",
    )
    if is_deleted:
        with pytest.raises(CampaignsFailed, match=r"^campaign C1: its row was deleted"):
            disable_leads()
        assert len(vendor.store.disabled("C1")) == 3
    else:
        summary = disable_leads()
        assert (summary["disabled"], summary["requests"]) == (21, 3 + 1 + 1)
    assert set(vendor.store.disabled("C2")) == {"a"}


def test_a_lead_that_was_not_sent_is_cancelled(database: Database, vendor: SandboxHandle) -> None:
    """It costs no request, and no later push sends it."""
    factories.add_campaign(database)
    factories.add_leads(database, "a")
    factories.add_opt_outs(database, "a")
    summary = disable_leads()
    assert (summary["cancelled"], summary["requests"]) == (1, 0)
    push_leads()
    assert sql.fetch_statuses(database) == {"a": "cancelled"}
    assert dict(vendor.store.creations(factories.CAMPAIGN)) == {}


@pytest.mark.parametrize("first", ["lead", "opt-out"])
@pytest.mark.parametrize("sent", [False, True])
def test_an_opt_out_and_its_lead_that_do_not_see_each_other_meet_at_the_disable(
    database: Database, vendor: SandboxHandle, first: str, sent: bool
) -> None:
    """Each is committed while the other's transaction is open: the number is suppressed anyway."""
    factories.add_campaign(database)
    row = factories.build_lead("a")
    insert = text(
        "INSERT INTO leadloop.leads (campaign_id, lead_id, phone_number) VALUES ('C1', 'a', :n)"
    )
    with database.transaction() as upstream, database.transaction() as other:
        lead, opt_out = (upstream, other) if first == "lead" else (other, upstream)
        lead.execute(insert, {"n": row["phone_number"]})
        opt_outs.request_opt_outs(opt_out, factories.CAMPAIGN, ["a"])
    if sent:
        sql.execute(database, "UPDATE leadloop.leads SET status = 'created', sent_at = now()")
    disable_leads()
    factories.add_leads(database, factories.build_lead("twin", phone_number=row["phone_number"]))
    push_leads()
    assert dict(vendor.store.creations(factories.CAMPAIGN)) == {}
    assert sql.fetch_statuses(database)["twin"] == "cancelled"


@pytest.mark.parametrize("policy", ["404", "400", "lead"])
def test_an_unknown_lead_holds_up_nobody(
    database: Database, vendor: SandboxHandle, policy: str
) -> None:
    """It is tried again, then reported; the others are disabled at the first try."""
    vendor.change_rules(unknown_disable=policy)
    push_campaign(database, "a", "b", "c")
    factories.add_opt_outs(database, "a", "nobody", "c")
    summary = disable_leads()
    assert (summary["disabled"], summary["failed"]) == (2, 1)
    assert sql.fetch_opt_outs(database) == {"a": "disabled", "c": "disabled", "nobody": "failed"}
    tries = "SELECT tries FROM leadloop.disable_requests WHERE lead_id = 'nobody'"
    assert sql.fetch_value(database, tries) == 3


@pytest.mark.parametrize("policy", ["404", "lead"])
def test_a_campaign_that_refuses_everybody_is_not_asked_for_each(
    database: Database, vendor: SandboxHandle, policy: str
) -> None:
    """After a hundred refusals with the same words the run stops; the next one asks for others.

    Once one is confirmed, the vendor does not refuse everybody, and the run goes on.
    """
    vendor.change_rules(unknown_disable=policy)
    push_campaign(database, "known")
    factories.add_opt_outs(database, *(f"U{n:03d}" for n in range(180)), "known")
    with pytest.raises(CampaignsFailed, match="100 opt-outs in a row"):
        disable_leads()
    assert set(sql.fetch_opt_outs(database).values()) == {"requested"}
    assert len(vendor.requests) <= 202
    assert disable_leads()["failed"] == 180
    assert sql.fetch_opt_outs(database)["known"] == "disabled"


def test_too_large_a_list_is_halved_and_remembered(
    database: Database, vendor: SandboxHandle
) -> None:
    """Three times a halving, not a list."""
    push_campaign(database, *(f"L{n:03d}" for n in range(160)))
    factories.add_opt_outs(database, *(f"L{n:03d}" for n in range(160)))
    sql.execute(database, "UPDATE leadloop.campaigns SET batch_size = 40")
    vendor.change_rules(max_body_bytes=300)
    assert disable_leads()["disabled"] == 160
    answers = [entry.status for entry in vendor.requests if entry.kind == "disable"]
    assert answers.count(413) <= 9
    assert len(answers) <= 25


def test_a_refusal_is_not_for_ever(database: Database, vendor: SandboxHandle) -> None:
    """What has failed is tried again by itself, a minute later and then ever more seldom."""
    push_campaign(database, "a", "b")
    factories.add_opt_outs(database, "a", "b")
    vendor.add_fault(route="disable", kind="status", status=404)
    assert disable_leads()["failed"] == 2
    vendor.clear_faults()
    assert disable_leads()["requests"] == 0
    sql.execute(
        database,
        "UPDATE leadloop.disable_requests SET next_try_at = next_try_at - interval '61 seconds'",
    )
    assert disable_leads()["disabled"] == 2
    assert set(vendor.store.disabled(factories.CAMPAIGN)) == {"a", "b"}


def test_a_name_in_the_vendors_words_is_not_kept(database: Database, vendor: SandboxHandle) -> None:
    """What the vendor repeats of a person who opted out does not get into `last_error`."""
    vendor.add_fault(route="disable", kind="status", status=404)
    factories.add_campaign(database)
    # The sandbox's words are "A fault of the sandbox."
    factories.add_leads(database, factories.build_lead("a", contact_name="Sandbox Example"))
    push_leads()
    factories.add_opt_outs(database, "a")
    disable_leads()
    said = sql.fetch_value(database, "SELECT last_error FROM leadloop.disable_requests")
    assert said.startswith("vendor: ")
    assert "sandbox" not in said.lower()


def test_the_vendors_words_of_somebody_forgotten_are_not_kept(
    database: Database, vendor: SandboxHandle, caplog: pytest.LogCaptureFixture
) -> None:
    """Their name is known to nobody any more, so that it could not be blotted out."""
    vendor.add_fault(route="disable", kind="status", status=404)
    factories.add_campaign(database)
    factories.add_leads(database, factories.build_lead("a", contact_name="Sandbox Example"))
    push_leads()
    forget_leads(database, Settings.load(), factories.CAMPAIGN, ["a"])
    disable_leads()
    told = sql.fetch_value(database, "SELECT last_error FROM leadloop.disable_requests")
    assert told.startswith("vendor: ")
    assert "sandbox" not in (told + caplog.text).lower()


def test_the_vendors_words_of_somebody_unknown_are_plain(
    database: Database, vendor: SandboxHandle
) -> None:
    """Only the vendor has the lead, so that its name is not known here: no other word is kept."""
    factories.add_campaign(database)
    factories.add_opt_outs(database, "a")
    # The sandbox's words are "A fault of the sandbox."
    vendor.add_fault(route="disable", kind="status", status=404)
    disable_leads()
    said = sql.fetch_value(database, "SELECT last_error FROM leadloop.disable_requests")
    assert said == "vendor: A … of the …."


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", ["reset", "status", "foreign"])
def test_a_disable_is_sent_until_it_is_confirmed(
    database: Database, vendor: SandboxHandle, kind: str, when: str
) -> None:
    """A disable that may not have been carried out is repeated."""
    push_campaign(database, "a")
    factories.add_opt_outs(database, "a")
    vendor.add_fault(route="disable", kind=kind, when=when, nth=1)
    assert disable_leads()["disabled"] == 1
    assert set(vendor.store.disabled(factories.CAMPAIGN)) == {"a"}


def test_nothing_to_disable_sends_nothing(database: Database, vendor: SandboxHandle) -> None:
    """A run without an opt-out costs no request."""
    factories.add_campaign(database)
    assert disable_leads()["requests"] == 0


def test_a_lead_in_doubt_is_settled_before_it_is_disabled(
    database: Database, vendor: SandboxHandle
) -> None:
    """Its lookup shows that the vendor has it, and it is disabled in the same run."""
    push_campaign(database, "a")
    sql.execute(database, "UPDATE leadloop.leads SET status = 'in_doubt'")
    factories.add_opt_outs(database, "a")
    assert disable_leads()["disabled"] == 1
    assert sql.fetch_statuses(database) == {"a": "created"}
    assert set(vendor.store.disabled(factories.CAMPAIGN)) == {"a"}


@pytest.mark.parametrize("failure", FAILURES, ids=name_failure)
def test_one_on_which_the_vendor_fails_holds_up_nobody(
    database: Database,
    vendor: SandboxHandle,
    monkeypatch: pytest.MonkeyPatch,
    failure: dict[str, Any],
) -> None:
    """All others are confirmed in the same run; that one is named, and due again."""
    monkeypatch.setenv("LEADLOOP_TIMEOUT", "1,0.3")
    ids = opted_out_people(database, 40)
    poison(vendor, "P017", failure)
    summary = disable_leads()
    assert (summary["disabled"], summary["failed"], summary["set_aside"]) == (39, 1, 1)
    assert set(vendor.store.disabled(factories.CAMPAIGN)) >= {*ids} - {"P017"}
    (left,) = sql.fetch_rows(
        database,
        """SELECT lead_id, status, last_error, next_try_at > now() AS is_later
             FROM leadloop.disable_requests WHERE status <> 'disabled'""",
    )
    assert (left["lead_id"], left["status"], left["is_later"]) == ("P017", "failed", True)
    assert "the vendor fails on it" in left["last_error"]


@pytest.mark.parametrize("status", [400, 404, 409, 422])
def test_one_that_the_vendor_rejects_holds_up_nobody(
    database: Database, vendor: SandboxHandle, status: int
) -> None:
    """A rejection in JSON of a whole list is about one of its leads."""
    opted_out_people(database, 40)
    poison(vendor, "P017", {"status": status})
    summary = disable_leads()
    assert (summary["disabled"], summary["failed"]) == (39, 1)
    assert sql.fetch_opt_outs(database)["P017"] == "failed"


def test_all_kinds_of_failure_in_one_run_hold_up_nobody(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neighbours that fail in different ways, in lists with others."""
    monkeypatch.setenv("LEADLOOP_TIMEOUT", "1,0.3")
    ids = opted_out_people(database, 120)
    bad = {lead_id for lead_id in ids if int(lead_id[1:]) % 7 < 2}
    for lead_id, failure in zip(sorted(bad), cycle(FAILURES), strict=False):
        poison(vendor, lead_id, failure)
    summary = disable_leads()
    assert (summary["disabled"], summary["failed"]) == (len(ids) - len(bad), len(bad))
    failed = {lead for lead, state in sql.fetch_opt_outs(database).items() if state == "failed"}
    assert failed == bad


# Noise of both routes: a share of all requests, whatever they hold. Together some 60 %.
_NOISE: list[dict[str, Any]] = [
    {"kind": "status", "status": 500, "probability": 0.1},
    {"kind": "status", "status": 503, "probability": 0.05},
    {"kind": "status", "status": 403, "probability": 0.1},
    {"kind": "status", "status": 502, "body": "html", "probability": 0.1},
    {"kind": "status", "status": 413, "body": "html", "probability": 0.1},
    {"kind": "reset", "probability": 0.1},
    {"kind": "reset", "when": "after", "probability": 0.1},
    {"kind": "hang", "seconds": 1, "probability": 0.05},
    {"kind": "cut", "probability": 0.1},
]


def run_unless_it_fails() -> None:
    """Run a disable that may fail: noise is allowed to end it."""
    with suppress(CampaignsFailed):
        disable_leads()


@pytest.mark.parametrize("seed", range(3))
def test_noise_beside_poison_is_past_after_two_quiet_runs(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Then everybody is confirmed but the poisoned ones, each with its next try."""
    monkeypatch.setenv("LEADLOOP_TIMEOUT", "1,0.3")
    vendor.change_rules(seed=seed)
    ids = opted_out_people(database, 60)
    bad = ["P003", "P004", "P031", "P059"]
    for lead_id, failure in zip(bad, FAILURES[3::5], strict=False):
        poison(vendor, lead_id, failure)
    for noise in _NOISE:
        vendor.add_fault(**noise)
    run_unless_it_fails()
    vendor.clear_faults()
    for lead_id in bad:
        poison(vendor, lead_id, {"status": 500})
    for _ in range(2):
        sql.execute(database, "UPDATE leadloop.disable_requests SET next_try_at = now()")
        disable_leads()
    states = sql.fetch_opt_outs(database)
    assert {lead_id for lead_id in ids if states[lead_id] != "disabled"} == {*bad}
    planned = "SELECT bool_and(next_try_at > now()) FROM leadloop.disable_requests WHERE status"
    assert sql.fetch_value(database, f"{planned} = 'failed'")


@pytest.mark.parametrize("share", [0.02, 0.05, 0.1, 0.2, 0.4])
def test_noise_costs_its_share_of_requests(
    database: Database, vendor: SandboxHandle, share: float
) -> None:
    """One run, everybody confirmed, within PROGRESS.md's bound for the bench."""
    opted_out_people(database, 200)
    sql.execute(database, "UPDATE leadloop.campaigns SET batch_size = 20")
    vendor.add_fault(route="any", kind="status", probability=share / 2)
    vendor.add_fault(route="any", kind="reset", probability=share / 2)
    before = len(vendor.requests)
    assert disable_leads()["disabled"] == 200
    calm = 10
    bound = (calm + 4 * (calm * share) ** 0.5) / (1 - share) + 3
    assert len(vendor.requests) - before <= bound


@pytest.mark.parametrize("noise", [0, 0.1])
def test_isolation_costs_its_bound_of_requests(
    database: Database, vendor: SandboxHandle, noise: float
) -> None:
    """Calm and isolation, without the requests that noise failed; a probe tells an outage."""
    size, bad = 64, ["P005", "P006", "P040"]
    opted_out_people(database, size)
    for lead_id in bad:
        poison(vendor, lead_id, {"status": 502})
    vendor.add_fault(route="disable", kind="status", status=500, probability=noise)
    assert disable_leads()["disabled"] == size - len(bad)
    failed_by_noise = sum(entry.status == 500 for entry in vendor.requests)
    lists = min(2 * size - 1, 2 * len(bad) * ceil(log2(size)) + 1)
    sent = count_requests(vendor, "disable")
    probes_of_candidates = 3
    assert sent - failed_by_noise <= 3 * lists + probes_of_candidates
    assert count_requests(vendor, "responses") <= 1


def test_many_on_which_the_vendor_fails_hold_up_nobody(
    database: Database, vendor: SandboxHandle
) -> None:
    """Neighbours too: what the vendor has confirmed before tells them from an outage."""
    opted_out_people(database, 40)
    bad = ["P010", "P011", "P012", "P013", "P030"]
    for lead_id in bad:
        vendor.add_fault(route="disable", kind="status", lead_id=lead_id)
    assert disable_leads()["disabled"] == 35
    failed = [lead for lead, status in sql.fetch_opt_outs(database).items() if status == "failed"]
    assert sorted(failed) == bad


def test_one_that_was_set_aside_is_tried_ever_more_seldom_and_for_ever(
    database: Database, vendor: SandboxHandle
) -> None:
    """At least daily; and the first try that is confirmed ends it."""
    opted_out_people(database, 3)
    vendor.add_fault(route="disable", kind="status", lead_id="P001")
    disable_leads()
    waits = []
    for _ in range(14):
        assert disable_leads()["requests"] == 0, "it is not due"
        sql.execute(database, "UPDATE leadloop.disable_requests SET next_try_at = now()")
        assert disable_leads()["failed"] == 1, "the vendor answers others: no run fails for it"
        wait = """SELECT extract(epoch FROM next_try_at - tried_at)
                    FROM leadloop.disable_requests WHERE status = 'failed'"""
        # Two looks at the clock in one statement differ by some microseconds.
        waits.append(round(sql.fetch_value(database, wait)))
    assert waits == sorted(waits)
    assert waits[0] < 300
    assert waits[-1] == 86_400
    vendor.clear_faults()
    sql.execute(database, "UPDATE leadloop.disable_requests SET next_try_at = now()")
    assert disable_leads()["disabled"] == 1


def test_others_do_not_wait_for_one_that_fails(database: Database, vendor: SandboxHandle) -> None:
    """The list that fails is isolated last, and in turns with other campaigns."""
    factories.add_campaign(database, batch_size=2)
    factories.add_campaign(database, "D")
    factories.add_leads(database, "a", "b", "c", "d")
    factories.add_leads(database, "z", campaign="D")
    push_leads()
    factories.add_opt_outs(database, "a", "b", "c", "d")
    factories.add_opt_outs(database, "z", campaign="D")
    before = len(vendor.requests)
    vendor.add_fault(route="disable", kind="status", lead_id="a")
    disable_leads()
    paths = [entry.path for entry in vendor.requests[before:] if entry.kind == "disable"]
    assert paths[1].endswith(f"/{factories.CAMPAIGN}/"), "the second list of the campaign"
    assert any(path.endswith("/D/") for path in paths[2:5])
    assert sql.fetch_opt_outs(database) == {"a": "failed"} | dict.fromkeys("bcd", "disabled")


def people_in_doubt(database: Database, amount: int) -> None:
    """As many people who have opted out, and of whom nobody knows whether the vendor has them."""
    opted_out_people(database, amount)
    sql.execute(database, "UPDATE leadloop.leads SET status = 'in_doubt'")


def test_a_run_that_isolates_leaves_requests_to_other_opt_outs(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a push that takes all shared slots, it never uses up the reserve; and it ends.

    Each pause is one that the run states; here the clock of the ring goes on instead.
    """
    lead_ids = opted_out_people(database, 32)
    poison(vendor, "P007", {"status": 500})
    monkeypatch.setenv("LEADLOOP_RATE_LIMIT", "100/60")
    free_left, pauses = [], 0
    with DISABLE.open_context(Settings.load(), HOST) as context:
        sql.execute(
            database,
            """UPDATE leadloop.rate_slots SET free_at =
                      CASE WHEN purposes = '{opt_outs}' THEN '-infinity'
                           ELSE 'infinity'::timestamptz END WHERE slot > 0""",
        )
        [campaign] = context.select_campaigns(None)
        execution = CampaignExecution(context, DISABLE, campaign)
        execution.start()
        while execution.is_open:
            execution.run_chunk()
            free_left.append(
                sql.fetch_value(
                    database,
                    """SELECT count(*) FROM leadloop.rate_slots
                        WHERE purposes = '{opt_outs}' AND free_at <= now()""",
                )
            )
            if execution.is_open and execution.due_at > read_boot_clock() + 30:
                pauses += 1
                sql.execute(
                    database,
                    """UPDATE leadloop.rate_slots SET free_at = free_at - interval '61 seconds'
                        WHERE purposes = '{opt_outs}'""",
                )
    assert set(vendor.store.disabled(factories.CAMPAIGN)) == set(lead_ids) - {"P007"}
    assert pauses
    assert min(free_left) >= 8


def test_a_run_that_waits_for_slots_has_few_chunks(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a push that takes each shared slot, it does not look for each one."""
    opted_out_people(database, 4)
    poison(vendor, "P002", {"status": 500})
    monkeypatch.setenv("LEADLOOP_RATE_LIMIT", "100/60")
    with DISABLE.open_context(Settings.load(), HOST) as context:
        sql.execute(
            database,
            """UPDATE leadloop.rate_slots SET free_at =
                      CASE WHEN slot <= 9 THEN '-infinity' WHEN purposes = '{opt_outs}'
                           THEN 'infinity' ELSE now() + interval '1 second' END
                WHERE slot > 0""",
        )
        [campaign] = context.select_campaigns(None)
        execution = CampaignExecution(context, DISABLE, campaign)
        execution.start()
        execution.run_chunk()
        assert execution.is_open
        assert execution.due_at > read_boot_clock() + 2


def test_a_run_that_isolates_waits_a_period_at_most(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where others send all the time, so that eight slots are free, but never one more."""
    lead_ids = opted_out_people(database, 4)
    poison(vendor, "P002", {"status": 500})
    monkeypatch.setenv("LEADLOOP_RATE_LIMIT", "100/0.3")
    with DISABLE.open_context(Settings.load(), HOST) as context:
        [campaign] = context.select_campaigns(None)
        execution = CampaignExecution(context, DISABLE, campaign)
        execution.start()
        while execution.is_open:
            sql.execute(
                database,
                """UPDATE leadloop.rate_slots SET free_at =
                          CASE WHEN slot IN (SELECT slot FROM leadloop.rate_slots
                                              WHERE purposes = '{opt_outs}' LIMIT 8)
                               THEN '-infinity' ELSE now() + interval '1 hour' END
                    WHERE slot > 0""",
            )
            execution.run_chunk()
            assert execution.due_at < read_boot_clock() + 10
            sleep_until(execution.due_at)
    assert set(vendor.store.disabled(factories.CAMPAIGN)) == set(lead_ids) - {"P002"}


def test_a_run_that_has_sent_all_ends_at_once(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However few requests are left: the next opt-out is the first of another run."""
    opted_out_people(database, 1)
    monkeypatch.setenv("LEADLOOP_RATE_LIMIT", "100/60")
    with DISABLE.open_context(Settings.load(), HOST) as context:
        sql.execute(
            database,
            """UPDATE leadloop.rate_slots SET free_at = now() + interval '1 hour'
                WHERE slot > (SELECT min(slot) FROM leadloop.rate_slots
                               WHERE purposes = '{opt_outs}')""",
        )
        [campaign] = context.select_campaigns(None)
        execution = CampaignExecution(context, DISABLE, campaign)
        execution.start()
        execution.run_chunk()
        assert not execution.is_open
    assert execution.counted["disabled"] == 1


def test_a_lookup_that_fails_stops_no_other(database: Database, vendor: SandboxHandle) -> None:
    """Everybody else is settled and disabled; that one is left in doubt, and named as such."""
    people_in_doubt(database, 30)
    vendor.add_fault(route="responses", kind="status", lead_id="P003")
    summary = disable_leads()
    assert (summary["disabled"], summary["in_doubt"]) == (29, 1)
    assert sql.fetch_opt_outs(database)["P003"] == "requested"
    vendor.clear_faults()
    assert disable_leads()["disabled"] == 1


def test_lookups_that_all_fail_leave_no_opt_out_untried(
    database: Database, vendor: SandboxHandle
) -> None:
    """The others are confirmed, those in doubt were sent; the run fails and counts them."""
    people_in_doubt(database, 30)
    sql.execute(database, "UPDATE leadloop.leads SET status = 'created' WHERE lead_id < 'P020'")
    vendor.add_fault(route="responses", kind="status")
    with pytest.raises(CampaignsFailed, match="not confirmed: 10"):
        disable_leads()
    states = sql.fetch_opt_outs(database)
    assert {lead for lead, state in states.items() if state == "requested"} == {
        f"P{number:03d}" for number in range(20, 30)
    }
    assert len(vendor.store.disabled(factories.CAMPAIGN)) == 30


def test_a_run_says_what_earlier_runs_have_set_aside(
    database: Database, vendor: SandboxHandle
) -> None:
    """It is not due, so the run does nothing, and still names it."""
    opted_out_people(database, 3)
    poison(vendor, "P001", {"status": 500})
    disable_leads()
    summary = disable_leads()
    assert (summary["requests"], summary["failed"], summary["set_aside"]) == (0, 0, 1)
