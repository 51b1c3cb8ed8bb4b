"""`disable-leads` and `sync-leads`, against the sandbox over real HTTP."""

import pytest
from sqlalchemy import text

from db import opt_outs
from db.database import Database
from leadloop.sandbox import SandboxHandle
from leadloop.settings import Settings
from tasks.forget import forget_leads
from tasks.jobs import CampaignsFailed
from tests import factories, sql
from tests.jobs import disable_leads, push_leads

pytestmark = pytest.mark.usefixtures("quick_retries", "environment")


def push(database: Database, *ids: str) -> None:
    """A campaign whose leads the vendor has."""
    factories.add_campaign(database)
    factories.add_leads(database, *ids)
    push_leads()


def test_people_who_opted_out_are_disabled(database: Database, vendor: SandboxHandle) -> None:
    """The vendor disables them, and both times are kept."""
    push(database, "a", "b", "c")
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
    push(database, *lead_ids)
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
    push(database, "a", "b", "c")
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
    """After a hundred refusals with the same words the run stops; the next one asks for others."""
    vendor.change_rules(unknown_disable=policy)
    push(database, "known")
    factories.add_opt_outs(database, *(f"U{n:03d}" for n in range(180)), "known")
    with pytest.raises(CampaignsFailed, match="100 opt-outs in a row"):
        disable_leads()
    assert set(sql.fetch_opt_outs(database).values()) == {"requested"}
    assert len(vendor.requests) <= 202
    with pytest.raises(CampaignsFailed, match="100 opt-outs in a row"):
        disable_leads()
    assert sql.fetch_opt_outs(database)["known"] == "disabled"


def test_too_large_a_list_is_halved_and_remembered(
    database: Database, vendor: SandboxHandle
) -> None:
    """One 413 a halving, not one a list."""
    push(database, *(f"L{n:03d}" for n in range(160)))
    factories.add_opt_outs(database, *(f"L{n:03d}" for n in range(160)))
    sql.execute(database, "UPDATE leadloop.campaigns SET batch_size = 40")
    vendor.change_rules(max_body_bytes=300)
    assert disable_leads()["disabled"] == 160
    answers = [entry.status for entry in vendor.requests if entry.kind == "disable"]
    assert answers.count(413) <= 3
    assert len(answers) <= 20


def test_a_refusal_is_not_for_ever(database: Database, vendor: SandboxHandle) -> None:
    """What has failed is tried again by itself, a minute later and then ever more seldom."""
    push(database, "a", "b")
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


def test_a_proxy_in_the_vendors_place_fails_no_opt_out(
    database: Database, vendor: SandboxHandle
) -> None:
    """Its page says nothing of anybody: the run stops, and all stay requested."""
    lead_ids = [f"L{number}" for number in range(32)]
    push(database, *lead_ids)
    factories.add_opt_outs(database, *lead_ids)
    vendor.add_fault(route="disable", kind="status", status=404, body="html")
    with pytest.raises(CampaignsFailed, match="fails on all opt-outs"):
        disable_leads()
    assert set(sql.fetch_opt_outs(database).values()) == {"requested"}


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


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", ["reset", "status", "foreign"])
def test_a_disable_is_sent_until_it_is_confirmed(
    database: Database, vendor: SandboxHandle, kind: str, when: str
) -> None:
    """A disable that may not have been carried out is repeated."""
    push(database, "a")
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
    push(database, "a")
    sql.execute(database, "UPDATE leadloop.leads SET status = 'in_doubt'")
    factories.add_opt_outs(database, "a")
    assert disable_leads()["disabled"] == 1
    assert sql.fetch_statuses(database) == {"a": "created"}
    assert set(vendor.store.disabled(factories.CAMPAIGN)) == {"a"}


def opted_out_people(database: Database, amount: int) -> list[str]:
    """As many people whom the vendor has, all of whom have opted out."""
    ids = [f"P{number:03d}" for number in range(amount)]
    push(database, *ids)
    factories.add_opt_outs(database, *ids)
    return ids


@pytest.mark.parametrize(
    "answer",
    [
        {"kind": "status", "status": 500},
        {"kind": "status", "status": 502, "body": "html"},
        {"kind": "status", "status": 403, "body": "html"},
        {"kind": "status", "status": 400, "body": "html"},
        {"kind": "reset"},
    ],
    ids=lambda answer: f"{answer['kind']} {answer.get('status', '')}",
)
def test_one_on_which_the_vendor_fails_holds_up_nobody(
    database: Database, vendor: SandboxHandle, answer: dict[str, object]
) -> None:
    """All others are confirmed in the same run; that one is named, and due again."""
    ids = opted_out_people(database, 113)
    vendor.add_fault(route="disable", lead_id="P037", **answer)
    summary = disable_leads()
    assert (summary["disabled"], summary["failed"]) == (112, 1)
    assert set(vendor.store.disabled(factories.CAMPAIGN)) == {*ids} - {"P037"}
    (left,) = sql.fetch_rows(
        database,
        """SELECT lead_id, status, last_error, next_try_at > now() AS is_later
             FROM leadloop.disable_requests WHERE status <> 'disabled'""",
    )
    assert (left["lead_id"], left["status"], left["is_later"]) == ("P037", "failed", True)
    assert "the vendor fails on it" in left["last_error"]


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


def test_an_outage_sets_nobody_aside(database: Database, vendor: SandboxHandle) -> None:
    """Everybody's trouble is nobody's: all stay requested, and go out when it is over."""
    opted_out_people(database, 30)
    vendor.add_fault(route="disable", kind="status")
    with pytest.raises(CampaignsFailed, match="fails on all opt-outs"):
        disable_leads()
    assert set(sql.fetch_opt_outs(database).values()) == {"requested"}
    vendor.clear_faults()
    assert disable_leads()["disabled"] == 30


def test_who_hold_up_an_outage_of_their_own_come_last_the_next_time(
    database: Database, vendor: SandboxHandle
) -> None:
    """Nobody is confirmed yet, and a dozen bad ones are in front: the rest gets through next."""
    opted_out_people(database, 40)
    for number in range(12):
        vendor.add_fault(route="disable", kind="status", lead_id=f"P{number:03d}")
    with pytest.raises(CampaignsFailed, match="fails on all opt-outs"):
        disable_leads()
    assert set(sql.fetch_opt_outs(database).values()) == {"requested"}
    assert disable_leads()["disabled"] == 28
    assert sql.fetch_opt_outs(database)["P000"] == "failed"


def test_the_only_opt_out_is_not_taken_for_an_outage(
    database: Database, vendor: SandboxHandle
) -> None:
    """A read of the campaign gets through, so it is set aside, and the run says that it failed."""
    opted_out_people(database, 1)
    vendor.add_fault(route="disable", kind="status")
    with pytest.raises(CampaignsFailed, match="took no other"):
        disable_leads()
    assert sql.fetch_opt_outs(database) == {"P000": "failed"}


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


def test_a_404_that_is_not_the_vendors_word_shelves_nobody(
    database: Database, vendor: SandboxHandle
) -> None:
    """A proxy's page for every address, while the vendor deploys: the run fails, all wait."""
    opted_out_people(database, 3)
    vendor.add_fault(kind="status", status=404, body="html")
    with pytest.raises(CampaignsFailed, match="fails on all opt-outs"):
        disable_leads()
    assert set(sql.fetch_opt_outs(database).values()) == {"requested"}


def test_a_campaign_that_the_vendor_had_is_tried_again_soon(
    database: Database, vendor: SandboxHandle
) -> None:
    """It may be away for a moment only: a minute, then ever more seldom."""
    opted_out_people(database, 3)
    vendor.add_fault(kind="status", status=404)
    assert disable_leads()["failed"] == 3
    waits = """SELECT max(extract(epoch FROM next_try_at - tried_at))
                 FROM leadloop.disable_requests"""
    assert float(sql.fetch_value(database, waits)) <= 300
