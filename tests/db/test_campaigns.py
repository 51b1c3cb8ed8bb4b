from typing import Any

import pytest

from db import campaigns
from db.database import Database, DatabaseError
from leadloop.core.campaign_rules import Campaign
from leadloop.core.errors import CampaignDeleted, UsageError
from leadloop.settings import Settings
from tests import factories


def chosen(database: Database, *ids: str) -> list[Campaign]:
    """The campaigns that a run would take."""
    with database.transaction() as connection:
        return campaigns.select_campaigns(connection, ids, Settings().campaign_rules())


def test_a_campaign_is_read_again_as_it_is_now(database: Database) -> None:
    """With what changed since; one that was deleted is said to be."""
    factories.add_campaign(database, batch_size=7)
    rules = Settings().campaign_rules()
    with database.transaction() as connection:
        assert campaigns.reload_campaign(connection, "C1", rules) == chosen(database, "C1")[0]
        with pytest.raises(CampaignDeleted):
            campaigns.reload_campaign(connection, "C2", rules)
        with pytest.raises(CampaignDeleted):
            campaigns.get_visibility(connection, "C2", settle_s=0)


def test_a_campaign_without_overrides_follows_the_settings(database: Database) -> None:
    """Null means: the setting."""
    factories.add_campaign(database)
    (campaign,) = chosen(database)
    assert campaign == Campaign(**Settings().campaign_rules().__dict__, campaign_id="C1")


def test_a_row_s_own_values_win(database: Database) -> None:
    """Each by itself."""
    own: dict[str, Any] = {
        "batch_size": 7,
        "page_size": 8,
        "lookback_s": 0,
        "settle_s": 0,
        "window_s": 9,
        "epoch_unit": "s",
        "default_region": "IN",
        "source": "crm.leads_for_calls",
        "source_timeout_s": 5,
        "max_lead_age_s": 600,
        "priority": 3,
        "calling_hours": "22:00-06:00 Asia/Kolkata",
        "required_fields": ["lead_id"],
    }
    factories.add_campaign(database, **own)
    (campaign,) = chosen(database)
    own["required_fields"] = ("lead_id",)
    assert {name: getattr(campaign, name) for name in own} == own


@pytest.mark.parametrize(
    "hours",
    ["", "always", "8-21 UTC", "08:00-24:00 UTC", "08:00-21:00", "08:00-08:00 UTC", " UTC", "a\nb"],
)
def test_hours_that_are_none_are_refused(database: Database, hours: str) -> None:
    """By Postgres, when somebody writes them."""
    with pytest.raises(DatabaseError, match="CheckViolation"):
        factories.add_campaign(database, calling_hours=hours)


def test_none_named_means_every_enabled_one(database: Database) -> None:
    """One that is not enabled runs only by name; a name twice is one."""
    factories.add_campaign(database, "B")
    factories.add_campaign(database, "A")
    factories.add_campaign(database, "off", enabled=False)
    assert [each.campaign_id for each in chosen(database)] == ["A", "B"]
    assert [each.campaign_id for each in chosen(database, "off", "B", "off")] == ["B", "off"]


def test_campaigns_of_the_highest_priority_come_first(database: Database) -> None:
    """In the order in which they take turns; those of one priority by their ids."""
    for campaign, priority in {"A": 0, "B": 2, "C": 1, "D": 2}.items():
        factories.add_campaign(database, campaign, priority=priority)
    assert [each.campaign_id for each in chosen(database)] == ["B", "D", "C", "A"]
    assert [each.campaign_id for each in chosen(database, "A", "C")] == ["C", "A"]


def test_an_unknown_campaign_is_named(database: Database) -> None:
    """A typing error does not run something else."""
    factories.add_campaign(database)
    with pytest.raises(UsageError, match="unknown campaign X, Y: add it"):
        chosen(database, "C1", "Y", "X")


def test_no_campaign_at_all(database: Database) -> None:
    """The message explains how to add one."""
    with pytest.raises(UsageError, match="there is no campaign: add one"):
        chosen(database)


def test_none_that_is_enabled(database: Database) -> None:
    """The message does not suggest to add a campaign that exists."""
    factories.add_campaign(database, enabled=False)
    with pytest.raises(UsageError, match=r"no campaign is enabled: .* name campaigns with"):
        chosen(database)
