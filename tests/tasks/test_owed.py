"""What is owed is listed, accepted with a reason, and retried, each in one transaction."""

from datetime import timedelta
from pathlib import Path

import pytest

from db.database import Database
from leadloop.core.errors import UsageError
from leadloop.settings import Settings
from tasks.jobs import CampaignsFailed
from tasks.owed import accept_owed, list_owed, retry_owed
from tests import factories, sql
from tests.jobs import poll_outcomes
from tests.quirky_api import build_page, run_quirky_api
from tests.tasks.test_poll_quirky_api import MINUTE, now, result, watermark

_AFTER, _BEFORE = "2026-01-31T09:00:00Z", "2026-01-31T09:00:01Z"


def set_watermark(database: Database, through: str, read_through: str) -> None:
    """Store how far the polls of C1 have read, and where its watermark stands."""
    sql.execute(
        database,
        """INSERT INTO leadloop.watermarks
                  (campaign_id, stream, processed_through, read_through, written_through)
           VALUES ('C1', 'outcomes', :through, :read_through, :through)""",
        through=through,
        read_through=read_through,
    )


def test_every_campaign_is_listed_also_one_that_was_deleted(database: Database) -> None:
    """Nothing that is owed is hidden; by name only known campaigns are asked for."""
    factories.add_campaign(database)
    for campaign in ("C1", "GONE"):
        factories.owe_window(database, _AFTER, _BEFORE, campaign=campaign)
    found = list_owed(database, Settings(), [])
    assert [window.campaign_id for window in found] == ["C1", "GONE"]
    assert [window.campaign_id for window in list_owed(database, Settings(), ["C1"])] == ["C1"]
    with pytest.raises(UsageError, match="unknown campaign GONE"):
        list_owed(database, Settings(), ["GONE"])


def test_an_acceptance_states_how_the_watermark_moved(database: Database) -> None:
    """And the second one that nothing has changed."""
    number = factories.owe_window(database, _AFTER, _BEFORE)
    set_watermark(database, _AFTER, "2026-01-31T12:00:00Z")
    first = accept_owed(database, Settings(), number, " deleted\n\x1b[31mthere ")
    assert (first.is_new, first.window.accepted_reason) == (True, "deleted [31mthere")
    assert first.watermark_before == first.window.window.after
    assert first.watermark is not None
    assert f"{first.watermark:%H}" == "12"
    second = accept_owed(database, Settings(), number, "never mind")
    assert (second.is_new, second.window) == (False, first.window)
    assert second.watermark_before == second.watermark == first.watermark


@pytest.mark.parametrize(
    ("unit", "before", "tries_as_is", "is_accepted"),
    [
        ("s", "2026-01-31T09:00:10Z", 1, True),
        ("s", "2026-01-31T09:00:11Z", 1, False),
        ("ms", "2026-01-31T09:00:00.01Z", 1, True),
        ("ms", "2026-01-31T09:00:04Z", 2, False),
        ("ms", "2026-01-31T09:00:04Z", 3, True),
        ("s", "2026-01-31T10:00:00Z", 3, True),
    ],
)
def test_only_what_cannot_be_narrowed_is_accepted(
    database: Database, unit: str, before: str, tries_as_is: int, is_accepted: bool
) -> None:
    """A longer window may hold results that can be read; polls find out in a few tries.

    Tries of a longer range, and of a part of it, say nothing about it.
    """
    factories.add_campaign(database, epoch_unit=unit)
    number = factories.owe_window(database, _AFTER, before, tries=9, tries_as_is=tries_as_is)
    set_watermark(database, _AFTER, "2026-01-31T12:00:00Z")
    if is_accepted:
        assert accept_owed(database, Settings(), number, "gone").is_new
        return
    with pytest.raises(UsageError, match=f"--retry {number}`, then `leadloop poll --campaign C1`"):
        accept_owed(database, Settings(), number, "gone")
    assert [window.accepted_at for window in list_owed(database, Settings(), [])] == [None]


@pytest.mark.parametrize(("hours", "is_accepted"), [(23, False), (25, True)])
def test_what_no_poll_has_tried_for_a_day_is_accepted(
    database: Database, hours: int, is_accepted: bool
) -> None:
    """The vendor may refuse the campaign, or its row was deleted: no poll will narrow it."""
    number = factories.owe_window(
        database, _AFTER, "2026-01-31T10:00:00Z", campaign="GONE", tries_as_is=1
    )
    sql.execute(
        database,
        "UPDATE leadloop.owed_windows SET tried_at = now() - make_interval(hours => :hours)",
        hours=hours,
    )
    if is_accepted:
        assert accept_owed(database, Settings(), number, "gone").is_new
        return
    with pytest.raises(UsageError, match="polls may still narrow it down"):
        accept_owed(database, Settings(), number, "gone")


def test_a_second_acceptance_of_a_long_window_changes_nothing(database: Database) -> None:
    """Whatever has been read of it since the first."""
    number = factories.owe_window(database, _AFTER, "2026-01-31T10:00:00Z", tries_as_is=3)
    first = accept_owed(database, Settings(), number, "gone")
    sql.execute(database, "UPDATE leadloop.owed_windows SET tries_as_is = 1")
    second = accept_owed(database, Settings(), number, "never mind")
    assert (second.is_new, second.window.accepted_at) == (False, first.window.accepted_at)


@pytest.mark.parametrize("reason", ["", "  ", "\x00\x07\u200b"])
def test_an_acceptance_needs_a_reason(database: Database, reason: str) -> None:
    """Somebody will ask later why outcomes are missing."""
    number = factories.owe_window(database, _AFTER, _BEFORE)
    with pytest.raises(UsageError, match="reason is empty"):
        accept_owed(database, Settings(), number, reason)
    (window,) = list_owed(database, Settings(), [])
    assert window.accepted_at is None


def test_an_unknown_number(database: Database) -> None:
    """The message names the command that lists the numbers."""
    with pytest.raises(UsageError, match="`leadloop owed` lists"):
        accept_owed(database, Settings(), 7, "why")
    with pytest.raises(UsageError, match="`leadloop owed` lists"):
        retry_owed(database, 7)


def test_a_retry_makes_a_window_due(database: Database) -> None:
    """An accepted one too: it may have become readable."""
    for accepted in (
        {},
        {"accepted_at": "2026-02-01T00:00:00Z", "accepted_reason": "deleted there"},
    ):
        number = factories.owe_window(database, _AFTER, _BEFORE, **accepted)
        assert [each.is_due for each in list_owed(database, Settings(), [])][-1] is False
        assert retry_owed(database, number).is_due


@pytest.mark.usefixtures("quick_retries")
def test_from_the_first_failure_to_the_last_outcome(
    environment: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A poll owes what it cannot read, a person accepts it, and the vendor corrects it after all.

    A watermark that a person then sets back is where the next poll starts.
    """
    with run_quirky_api() as vendor:
        monkeypatch.setenv("LEADLOOP_API_URL", vendor.url)
        factories.add_campaign(database, lookback_s=0)
        lead = factories.build_lead("x", status="created", sent_at=now() - 130 * MINUTE)
        factories.add_leads(database, lead)
        vendor.rows = [result(f"L{number}", now() - (60 - number) * MINUTE) for number in range(9)]
        vendor.answer = lambda query: (
            500
            if any(row["lead_id"] == "L4" for row in build_page(vendor.rows, query)["results"])
            else build_page(vendor.rows, query)
        )
        with pytest.raises(CampaignsFailed, match="could not be read"):
            poll_outcomes()
        (window,) = list_owed(database, Settings(), ["C1"])
        assert watermark(database) == window.window.after

        acceptance = accept_owed(database, Settings(), window.owed_id, "the vendor has lost it")
        assert acceptance.watermark == watermark(database) > now() - MINUTE
        vendor.queries.clear()
        poll_outcomes()
        assert len(vendor.queries) == 1, "it is not due before tomorrow"

        vendor.answer = lambda query: build_page(vendor.rows, query)
        retry_owed(database, window.owed_id)
        poll_outcomes()
        assert list_owed(database, Settings(), ["C1"]) == []
        assert sorted(sql.fetch_outcomes(database)) == [f"L{number}" for number in range(9)]

        sql.execute(
            database,
            "UPDATE leadloop.watermarks SET processed_through = :at",
            at=now() - timedelta(hours=2),
        )
        assert poll_outcomes()["unchanged"] == 9
        assert watermark(database) > now() - MINUTE
