"""The figures of campaigns: from the views, for some campaigns or for all."""

import pytest
from sqlalchemy import Connection, text

from db import campaign_status


@pytest.fixture
def two_campaigns(connection: Connection) -> Connection:
    """Return a transaction with campaigns A and B, rejected leads, and opt-outs of A."""
    for statement in (
        "INSERT INTO leadloop.campaigns (campaign_id) VALUES ('A'), ('B')",
        """INSERT INTO leadloop.leads (campaign_id, lead_id, status, last_error)
           SELECT campaign, lead, 'rejected', reason
             FROM (VALUES ('A', 'a1', 'no phone'), ('A', 'a2', 'no name'), ('A', 'a3', 'no name'),
                          ('B', 'b1', 'no name')) AS lead (campaign, lead, reason)""",
        """INSERT INTO leadloop.disable_requests (campaign_id, lead_id, status, requested_at)
           VALUES ('A', 'x', 'requested', now() - interval '1 hour'),
                  ('A', 'y', 'failed', now() - interval '1 hour'),
                  ('A', 'z', 'disabled', now())""",
        """INSERT INTO leadloop.rate_slots (slot, free_at, purposes, uses, occupied_s)
           VALUES (0, '-infinity', '{}', 0, 0), (1, 'infinity', '{bulk}', 1, 60.5)""",
    ):
        connection.execute(text(statement))
    return connection


def test_no_ids_mean_all_campaigns(two_campaigns: Connection) -> None:
    """`leadloop status` shows all; with --campaign only the ones that are named."""
    rows = campaign_status.list_campaign_health(two_campaigns)
    assert [row["campaign_id"] for row in rows] == ["A", "B"]
    (row,) = campaign_status.list_campaign_health(two_campaigns, ["B"])
    assert (row["campaign_id"], row["rejected"]) == ("B", 1)


def test_owed_windows_are_counted_apart_from_accepted_ones(two_campaigns: Connection) -> None:
    """A person sees what holds the watermark, and what was given up; 0 where nothing is owed."""
    two_campaigns.execute(
        text("""
            INSERT INTO leadloop.owed_windows (campaign_id, window_after, window_before, reason,
                                               next_try_at, accepted_at, accepted_reason)
            VALUES ('A', now(), now(), 'HTTP 500', now(), NULL, NULL),
                   ('A', now(), now(), 'HTTP 500', now(), NULL, NULL),
                   ('A', now(), now(), 'HTTP 500', now(), now(), 'deleted there')
        """)
    )
    rows = campaign_status.list_campaign_health(two_campaigns)
    assert [(row["owed"], row["owed_accepted"]) for row in rows] == [(2, 1), (0, 0)]


def test_critical_problems_come_first(two_campaigns: Connection) -> None:
    """The list agrees with the sums of the exporter."""
    problems = campaign_status.list_problems(two_campaigns, ["A"])
    severities = [row["severity"] for row in problems]
    assert severities == sorted(severities)
    assert {"opt_outs_waiting", "opt_outs_failed"} <= {row["problem"] for row in problems}
    sums = campaign_status.sum_problems(two_campaigns)
    assert {(row["problem"], row["amount"]) for row in sums} == {
        (row["problem"], row["amount"]) for row in problems
    }
    assert campaign_status.list_problems(two_campaigns, ["B"]) == []


def test_rejections_are_counted_by_reason(two_campaigns: Connection) -> None:
    """The most frequent reason first, with sample ids."""
    assert campaign_status.count_rejections(two_campaigns, "A") == [
        {"reason": "no name", "leads": 2, "samples": ["a2", "a3"]},
        {"reason": "no phone", "leads": 1, "samples": ["a1"]},
    ]


def test_a_reason_without_a_lead_has_no_samples(two_campaigns: Connection) -> None:
    """As after rows were deleted without triggers: the sum stays until an audit repairs it."""
    for statement in (
        "SET LOCAL session_replication_role = replica",
        "DELETE FROM leadloop.leads WHERE lead_id = 'b1'",
    ):
        two_campaigns.execute(text(statement))
    (row,) = campaign_status.list_rejections(two_campaigns, ["B"])
    assert (row["reason"], row["leads"], row["sample_lead_ids"]) == ("no name", 1, [])


def test_only_unsettled_opt_outs_are_open(two_campaigns: Connection) -> None:
    """A disabled one is settled; another campaign's do not count."""
    assert campaign_status.count_open_opt_outs(two_campaigns, ["A"]) == {
        "requested": 1,
        "failed": 1,
    }
    assert campaign_status.count_open_opt_outs(two_campaigns, ["B"]) == {
        "requested": 0,
        "failed": 0,
    }


def test_the_rate_budget_counts_slots_in_use(two_campaigns: Connection) -> None:
    """Slot 0 is the pause, and no slot of a request."""
    (budget,) = campaign_status.list_rate_budgets(two_campaigns)
    assert (budget["slots"], budget["taken"]) == (1, 1)


def test_outcomes_and_attempts_are_counted(two_campaigns: Connection) -> None:
    """The summary of the demo."""
    for statement in (
        """INSERT INTO leadloop.lead_outcomes
                  (campaign_id, lead_id, processed_at, outcome_name, total_cost, raw)
           VALUES ('A', 'a1', now(), 'Sold', 2, '{}'), ('A', 'a2', now(), 'Sold', 1, '{}'),
                  ('A', 'a3', now(), NULL, NULL, '{}')""",
        """INSERT INTO leadloop.outreach_attempts
                  (campaign_id, lead_id, channel, block, attempt_key)
           VALUES ('A', 'a1', 'sms', 's', '1'), ('A', 'a1', 'call', 'c', '1'),
                  ('A', 'a2', 'call', 'c', '1')""",
    ):
        two_campaigns.execute(text(statement))
    assert campaign_status.count_outcomes(two_campaigns, "A") == [
        {"outcome": "Sold", "leads": 2, "cost": 3},
        {"outcome": "(none)", "leads": 1, "cost": None},
    ]
    assert campaign_status.count_attempts(two_campaigns, "A") == [
        {"channel": "call", "attempts": 2},
        {"channel": "sms", "attempts": 1},
    ]
