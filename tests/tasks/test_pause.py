"""A pause: a campaign that may not create, and one that is not enabled, still opts out."""

from collections.abc import Callable

import pytest

from db.database import Database
from leadloop.sandbox import SandboxHandle
from tests import factories, sql
from tests.conftest import Ran
from tests.jobs import disable_leads, poll_outcomes, push_leads

pytestmark = pytest.mark.usefixtures("quick_retries", "environment")

_LEADS = [f"L{number:03d}" for number in range(30)]


def sent_and_more(database: Database, vendor: SandboxHandle) -> None:
    """A campaign with two leads at the vendor and thirty that are to be sent."""
    factories.add_campaign(database, batch_size=1)
    factories.add_leads(database, "first", "second")
    push_leads()
    factories.add_leads(database, *_LEADS)


def pause(database: Database, column: str) -> None:
    """What a person in a hurry does by SQL."""
    sql.execute(database, f"UPDATE leadloop.campaigns SET {column} = false")


@pytest.mark.parametrize("row_age_s", [0, 1000])
@pytest.mark.parametrize("column", ["push_enabled", "enabled"])
def test_a_pause_holds_within_a_run(
    database: Database,
    vendor: SandboxHandle,
    monkeypatch: pytest.MonkeyPatch,
    column: str,
    row_age_s: int,
) -> None:
    """No claim comes after it, however much is left; the run says how many it has held back.

    Whether the run has read the campaign's row again since or not.
    """
    monkeypatch.setattr("tasks.context.MAX_ROW_AGE_S", row_age_s)
    monkeypatch.setenv("LEADLOOP_CONCURRENCY", "1")
    sent_and_more(database, vendor)
    sql.execute(
        database,
        f"""CREATE FUNCTION public.pull() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                UPDATE leadloop.campaigns SET {column} = false; RETURN NULL;
            END $$;
            CREATE TRIGGER pull AFTER UPDATE ON leadloop.leads FOR EACH ROW
                WHEN (NEW.lead_id = 'L004' AND NEW.status = 'created')
                EXECUTE FUNCTION public.pull()""",
    )
    summary = push_leads()
    assert (summary["created"], summary["held_back"]) == (5, 25)
    assert len(vendor.store.creations(factories.CAMPAIGN)) == 7
    states = "SELECT state FROM leadloop.sync_runs ORDER BY run_id DESC LIMIT 1"
    assert sql.fetch_value(database, states) == "completed"


def test_a_batch_whose_turn_is_over_goes_back(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claimed before the pause and not sent yet: it is claimed again, which the pause prevents."""
    sent_and_more(database, vendor)
    vendor.change_rules(max_body_bytes=300)
    sql.execute(database, "UPDATE leadloop.campaigns SET batch_size = 30")
    sql.execute(
        database,
        """CREATE FUNCTION public.pull() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               UPDATE leadloop.campaigns SET push_enabled = false; RETURN NULL;
           END $$;
           CREATE TRIGGER pull AFTER UPDATE ON leadloop.leads FOR EACH STATEMENT
               EXECUTE FUNCTION public.pull()""",
    )
    # The first claim pauses; its batch is refused as too large, and its halves are claimed
    # again.
    assert push_leads()["held_back"] == 30
    assert set(sql.fetch_statuses(database).values()) == {"created", "new"}
    assert len(vendor.store.creations(factories.CAMPAIGN)) == 2


def test_an_opt_out_in_a_campaign_that_the_vendor_lacks_fails_no_run(
    database: Database, vendor: SandboxHandle
) -> None:
    """It is failed, says why, and is tried again in a day; others are not held up."""
    factories.add_campaign(database, "gone", enabled=False)
    sent_and_more(database, vendor)
    factories.add_opt_outs(database, "x", "y", campaign="gone")
    factories.add_opt_outs(database, "first")
    vendor.change_rules(campaigns={factories.CAMPAIGN: "ours"})
    summary = disable_leads()
    assert (summary["disabled"], summary["failed"]) == (1, 2)
    assert sql.fetch_opt_outs(database, "gone") == {"x": "failed", "y": "failed"}
    before = len(vendor.requests)
    assert disable_leads()["requests"] == 0
    assert len(vendor.requests) == before
    due = """SELECT bool_and(next_try_at BETWEEN now() + interval '23 hours'
                                          AND now() + interval '24 hours')
               FROM leadloop.disable_requests WHERE status = 'failed'"""
    assert sql.fetch_value(database, due)
    sql.execute(database, "UPDATE leadloop.disable_requests SET next_try_at = now()")
    assert disable_leads()["requests"] > 0, "it is due again"


def test_a_person_pauses_and_resumes(database: Database, leadloop: Callable[..., Ran]) -> None:
    """One campaign or all; a name that is none is refused."""
    factories.add_campaign(database, "A")
    factories.add_campaign(database, "B")
    assert leadloop("pause", "--campaign", "A", "--json").last == {"paused": ["A"]}
    paused = "SELECT array_agg(campaign_id) FROM leadloop.campaigns WHERE NOT push_enabled"
    assert sql.fetch_value(database, paused) == ["A"]
    assert " paused" in leadloop("status").out
    said = leadloop("pause").out
    assert "A, B" in said
    assert "leadloop resume" in said
    assert leadloop("resume", "--json").last == {"resumed": ["A", "B"]}
    assert sql.fetch_value(database, paused) is None
    assert leadloop("pause", "--campaign", "C").code == 2


def test_polls_of_a_paused_campaign_go_on(database: Database, vendor: SandboxHandle) -> None:
    """An outcome is not lost because nobody new is created."""
    sent_and_more(database, vendor)
    pause(database, "push_enabled")
    vendor.put_outcomes(
        [{"campaign_id": factories.CAMPAIGN, "lead_id": "first", "outcome_name": "Interested"}]
    )
    assert poll_outcomes()["inserted"] == 1
