"""Who goes first: urgent leads, alone and before others; and leads that are too old to be sent."""

from dataclasses import replace

import pytest

from db.database import Database
from leadloop.sandbox import SandboxHandle
from tasks.push import FEW_PUSH, URGENT_PUSH
from tests import factories, sql
from tests.jobs import disable_leads, push_leads, run_jobs

pytestmark = pytest.mark.usefixtures("quick_retries", "environment")


def sent(vendor: SandboxHandle, campaign: str = factories.CAMPAIGN) -> list[str]:
    """Return the ids of the leads that the vendor has, in the order of their creation."""
    return list(vendor.store.creations(campaign))


def test_a_web_lead_does_not_wait_behind_a_file(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes out with the next request, also if it comes while the file is sent."""
    monkeypatch.setenv("LEADLOOP_CONCURRENCY", "1")
    factories.add_campaign(database, batch_size=2)
    factories.add_leads(database, *(f"file{number}" for number in range(6)))
    sql.execute(
        database,
        """CREATE FUNCTION public.pull() RETURNS trigger LANGUAGE plpgsql AS $pull$ BEGIN
               INSERT INTO leadloop.leads
                      (campaign_id, lead_id, phone_number, contact_name, state_code, priority)
               VALUES ('C1', 'web', '+14155550123', 'Ann', 'CA', 1);
               RETURN NULL;
           END $pull$;
           CREATE TRIGGER pull AFTER UPDATE ON leadloop.leads FOR EACH ROW
               WHEN (NEW.lead_id = 'file1' AND NEW.status = 'created')
               EXECUTE FUNCTION public.pull()""",
    )
    summary = push_leads()
    assert (summary["created"], summary["requests"]) == (7, 4)
    assert sent(vendor)[:4] == ["file0", "file1", "web", "file2"]


def test_campaigns_take_turns_by_priority(database: Database, vendor: SandboxHandle) -> None:
    """Whatever their names are."""
    for campaign, priority in {"A": 0, "B": 1}.items():
        factories.add_campaign(database, campaign, priority=priority)
        factories.add_leads(database, "a", campaign=campaign)
    push_leads()
    order = "SELECT string_agg(campaign_id, ' ' ORDER BY sent_at) FROM leadloop.leads"
    assert sql.fetch_value(database, order) == "B A"


def test_an_urgent_push_leaves_everything_else_alone(
    database: Database, vendor: SandboxHandle
) -> None:
    """The others, suspects, leads in doubt, and the campaign's source are for another push."""
    sql.execute(database, "CREATE SCHEMA crm; CREATE TABLE crm.leads (lead_id text)")
    factories.add_campaign(database, source="crm.leads", required_fields=["lead_id"], batch_size=10)
    factories.add_leads(
        database,
        "usual",
        factories.build_lead("web", priority=1),
        factories.build_lead("suspect", priority=1, suspect_list=1),
        factories.build_lead(
            "doubt", priority=1, status="in_doubt", doubted_at="2026-01-01", sent_at="2026-01-01"
        ),
        factories.build_lead("taken", from_source=True),
    )
    summary = run_jobs(URGENT_PUSH, None)
    assert (summary["created"], summary["requests"]) == (1, 1)
    assert sql.fetch_statuses(database) == {
        **{"usual": "new", "web": "created", "suspect": "new"},
        **{"doubt": "in_doubt", "taken": "new"},
    }
    assert run_jobs(URGENT_PUSH, None)["requests"] == 0
    push_leads()
    assert sorted(sent(vendor)) == ["doubt", "suspect", "usual", "web"]


def test_an_urgent_campaign_is_sent_by_an_urgent_push(
    database: Database, vendor: SandboxHandle
) -> None:
    """All of its leads, in requests as large as ever."""
    factories.add_campaign(database, priority=1, batch_size=2)
    factories.add_campaign(database, "usual")
    for campaign in (factories.CAMPAIGN, "usual"):
        factories.add_leads(database, "a", "b", "c", campaign=campaign)
    summary = run_jobs(URGENT_PUSH, None)
    assert (summary["created"], summary["requests"]) == (3, 2)
    assert sent(vendor, "usual") == []


def test_an_urgent_push_fails_as_any_other(database: Database, vendor: SandboxHandle) -> None:
    """Nobody is created twice: a lead whose request got no answer is for the lookups."""
    factories.add_campaign(database)
    factories.add_leads(database, factories.build_lead("web", priority=1), "usual")
    vendor.add_fault(route="create", kind="reset", when="after", nth=1)
    run_jobs(URGENT_PUSH, None)
    assert sql.fetch_statuses(database) == {"web": "in_doubt", "usual": "new"}
    push_leads()
    assert vendor.store.creations(factories.CAMPAIGN) == {"web": 1, "usual": 1}


def test_an_urgent_push_of_a_backlog_sends_all_of_it(
    database: Database, vendor: SandboxHandle
) -> None:
    """In as many chunks as it takes."""
    factories.add_campaign(database, batch_size=1)
    factories.add_leads(database, *(factories.build_lead(f"L{n}", priority=1) for n in range(5)))
    assert run_jobs(replace(URGENT_PUSH, min_chunk=2), None)["created"] == 5


def test_a_push_of_few_leads_ends_after_its_chunk(
    database: Database, vendor: SandboxHandle
) -> None:
    """What is left, suspects and leads in doubt are sent by a push of all leads."""
    factories.add_campaign(database, batch_size=1)
    factories.add_leads(
        database,
        *(factories.build_lead(f"L{number}") for number in range(3)),
        factories.build_lead("suspect", suspect_list=1),
        factories.build_lead(
            "doubt", status="in_doubt", doubted_at="2026-01-01", sent_at="2026-01-01"
        ),
    )
    summary = run_jobs(FEW_PUSH, None)
    assert (summary["created"], summary["requests"]) == (2, 2)
    assert sorted(sent(vendor)) == ["L0", "L1"]
    push_leads()
    assert sorted(sent(vendor)) == ["L0", "L1", "L2", "doubt", "suspect"]


@pytest.mark.parametrize("where", ["setting", "campaign"])
def test_a_lead_that_is_too_old_is_never_sent(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """It is rejected, counted, and says why; an opt-out of it needs no request."""
    if where == "setting":
        monkeypatch.setenv("LEADLOOP_MAX_LEAD_AGE", "600")
    factories.add_campaign(database, max_lead_age_s=600 if where == "campaign" else None)
    factories.add_leads(
        database,
        *(factories.build_lead(f"old{n}", inserted_at="2026-01-01") for n in range(250)),
        "young",
    )
    summary = push_leads()
    assert (summary["created"], summary["rejected"], summary["requests"]) == (1, 250, 1)
    assert sent(vendor) == ["young"]
    reason = "too old: inserted more than 600 s before it could be sent (LEADLOOP_MAX_LEAD_AGE)"
    assert set(sql.fetch_errors(database).values()) == {reason}
    factories.add_opt_outs(database, "old1")
    assert disable_leads()["requests"] == 0
    assert sql.fetch_opt_outs(database) == {"old1": "cancelled"}


def test_a_lead_that_becomes_too_old_before_its_batch_is_sent_again(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vendor refuses the batch because of one lead; the others go out without the old one."""
    vendor.change_rules(bad_lead="batch-anonymous")
    factories.add_campaign(database, batch_size=4, max_lead_age_s=3600)
    factories.add_leads(
        database, "a", "old", "b", factories.build_lead("bad", contact_name="x" * 60)
    )
    vendor.change_rules(newer_limits=True)
    sql.execute(
        database,
        """CREATE FUNCTION public.pull() RETURNS trigger LANGUAGE plpgsql AS $pull$ BEGIN
               UPDATE leadloop.leads SET inserted_at = now() - interval '2 hours'
                WHERE lead_id = 'old';
               RETURN NULL;
           END $pull$;
           CREATE TRIGGER pull AFTER UPDATE ON leadloop.leads FOR EACH ROW
               WHEN (NEW.lead_id = 'a' AND OLD.status = 'new' AND NEW.status = 'sending')
               EXECUTE FUNCTION public.pull()""",
    )
    summary = push_leads()
    assert sent(vendor) == ["a", "b"]
    assert (summary["created"], summary["rejected"]) == (2, 2)
    assert sql.fetch_errors(database)["old"].startswith("too old: ")


def test_a_suspect_that_is_too_old_is_not_sent(database: Database, vendor: SandboxHandle) -> None:
    """Nor one in doubt, once it is proven absent."""
    factories.add_campaign(database, max_lead_age_s=600)
    old = {"inserted_at": "2026-01-01"}
    factories.add_leads(
        database,
        "young",
        factories.build_lead("suspect", suspect_list=1, **old),
        factories.build_lead(
            "doubt", status="in_doubt", doubted_at="2026-01-01", sent_at="2026-01-01", **old
        ),
    )
    summary = push_leads()
    if sql.fetch_statuses(database)["doubt"] != "rejected":
        # The first push has created the lead that shows what the vendor shows.
        summary = push_leads()
    assert sent(vendor) == ["young"]
    assert summary["suspects"] == 0
    assert sql.fetch_statuses(database) == {
        **{"young": "created", "suspect": "rejected", "doubt": "rejected"}
    }


def test_leads_that_a_pause_holds_back_are_rejected_only_after_it(
    database: Database, vendor: SandboxHandle
) -> None:
    """A person may still change the greatest age."""
    factories.add_campaign(database, push_enabled=False, max_lead_age_s=600)
    factories.add_leads(database, factories.build_lead("old", inserted_at="2026-01-01"))
    assert push_leads()["held_back"] == 1
    sql.execute(
        database, "UPDATE leadloop.campaigns SET push_enabled = true, max_lead_age_s = 999999999"
    )
    assert push_leads()["created"] == 1
