"""Thresholds of problems that a campaign has for itself, beside one with the general ones."""

import json
import re
from datetime import timedelta

import pytest

from db.database import Database, DatabaseError
from tests import factories, sql

OWN, GENERAL = "C1", "C2"

# The statement makes a problem of an age of :age in a campaign.
_LEAD = """
INSERT INTO leadloop.leads (campaign_id, lead_id, status, inserted_at, doubted_at, sent_at)
VALUES (:campaign, 'a', '{status}', now() - :age, {doubted_at}, {doubted_at})
"""
_RUN = """
INSERT INTO leadloop.sync_runs (flow, campaign_id, state, started_at, ended_at)
VALUES ('{flow}', :campaign, '{state}', now() - :age, {ended_at})
"""
SCENES = {
    "opt_outs_waiting": """
        INSERT INTO leadloop.disable_requests (campaign_id, lead_id, requested_at)
        VALUES (:campaign, 'a', now() - :age)""",
    "opt_outs_unknown": """
        INSERT INTO leadloop.disable_requests (campaign_id, lead_id, requested_at, names_no_lead)
        VALUES (:campaign, 'a', now() - :age, true)""",
    "poll_behind": """
        INSERT INTO leadloop.watermarks (campaign_id, stream, processed_through, read_through)
        VALUES (:campaign, 'outcomes', now() - :age, now() - :age)""",
    "windows_owed": """
        INSERT INTO leadloop.owed_windows (campaign_id, window_after, window_before, found_at,
                                           tried_at, next_try_at, reason, tries, tries_as_is)
        VALUES (:campaign, now() - interval '9 days', now() - interval '8 days', now() - :age,
                now(), now(), 'HTTP 500', 3, 3)""",
    "leads_unsent": _LEAD.format(status="new", doubted_at="NULL"),
    "leads_in_doubt": _LEAD.format(status="in_doubt", doubted_at="now() - :age"),
    "run_too_long": _RUN.format(flow="push-leads", state="running", ended_at="NULL"),
    "nothing_runs": _RUN.format(flow="push-leads", state="completed", ended_at="now() - :age"),
}
# Problems that end with their age.
ENDING = {
    "run_failed": _RUN.format(flow="audit-leads", state="failed", ended_at="now() - :age"),
    "results_unreadable": """
        INSERT INTO leadloop.unreadable_results (campaign_id, digest, reason, raw, seen_at)
        VALUES (:campaign, 'd', 'no lead_id', '{}', now() - :age)""",
}


def list_campaigns(database: Database, problem: str) -> dict[str, str]:
    """Return the campaigns with a problem, and what is reported of each."""
    rows = sql.fetch_rows(
        database,
        "SELECT campaign_id, said FROM leadloop_monitor.problems WHERE problem = :problem",
        problem=problem,
    )
    return {row["campaign_id"]: row["said"] for row in rows}


def make_scene(database: Database, scene: str, age: timedelta, **own: int) -> None:
    """Insert the same into a campaign with own thresholds and into one without."""
    factories.add_campaign(database, OWN, thresholds=json.dumps(own))
    factories.add_campaign(database, GENERAL)
    for campaign in (OWN, GENERAL):
        sql.execute(database, scene, campaign=campaign, age=age)


def fetch_general(database: Database, problem: str) -> timedelta:
    """Return the general threshold of a problem."""
    period: timedelta = sql.fetch_value(
        database, f"SELECT {problem} FROM leadloop_monitor.thresholds"
    )
    return period


@pytest.mark.parametrize("problem", SCENES)
@pytest.mark.parametrize("times", [0.5, 3])
def test_a_campaign_has_its_own(database: Database, problem: str, times: float) -> None:
    """It is reported earlier or later than others."""
    general = fetch_general(database, problem)
    own_s = int(general.total_seconds() * times // 60) * 60
    age = general * (0.8 if times < 1 else 2)
    make_scene(database, SCENES[problem], age, **{problem: own_s})
    found = list_campaigns(database, problem)
    assert set(found) == ({OWN} if times < 1 else {GENERAL})
    minutes = own_s // 60 if times < 1 else int(general.total_seconds() // 60)
    assert problem == "windows_owed" or f" {minutes} minutes" in "".join(found.values())


@pytest.mark.parametrize(
    ("problem", "period_s", "age_s", "shown"),
    [
        *((problem, 60, 120, "1 minute") for problem in SCENES if problem != "windows_owed"),
        ("results_unreadable", 86_400, 60, "1 day"),
    ],
)
def test_the_unit_of_one_is_singular(
    database: Database, problem: str, period_s: int, age_s: int, shown: str
) -> None:
    """A threshold of a minute or a day is no "1 minutes"."""
    scene = {**SCENES, **ENDING}[problem]
    make_scene(database, scene, timedelta(seconds=age_s), **{problem: period_s})
    assert re.search(rf" {shown}\b", list_campaigns(database, problem)[OWN])


@pytest.mark.parametrize("problem", ENDING)
def test_a_problem_of_a_campaign_ends_later(database: Database, problem: str) -> None:
    """A failed run and a result that cannot be read stay for longer or shorter."""
    general = fetch_general(database, problem)
    longer = int(general.total_seconds()) * 3
    make_scene(database, ENDING[problem], general * 2, **{problem: longer})
    assert set(list_campaigns(database, problem)) == {OWN}


def test_the_names_are_those_of_the_view(database: Database) -> None:
    """Each threshold can be set; the view shows those in force."""
    (general,) = sql.fetch_rows(database, "SELECT * FROM leadloop_monitor.thresholds")
    factories.add_campaign(database, OWN, thresholds=json.dumps(dict.fromkeys(general, 120)))
    factories.add_campaign(database, GENERAL)
    own, plain = sql.fetch_rows(
        database, "SELECT * FROM leadloop_monitor.campaign_thresholds ORDER BY campaign_id"
    )
    assert own == {"campaign_id": OWN, **dict.fromkeys(general, timedelta(minutes=2))}
    assert plain == {"campaign_id": GENERAL, **general}


@pytest.mark.parametrize(
    "value",
    [
        *('{"lead_unsent": 60}', '{"leads_unsent": "1 hour"}', '{"leads_unsent": 90}', "[]"),
        *('{"leads_unsent": 0}', '{"leads_unsent": -60}', '{"lead_slow": 0.5}', "7", "null"),
        *('{"leads_unsent": null}', '{"leads_unsent": 31622400}', '{"leads_unsent": [60]}'),
        *('{"opt_outs_waiting": 86460}', '{"leads_unsent": 60, "opt_outs_unknown": 172800}'),
    ],
)
def test_what_cannot_be_meant_is_refused(database: Database, value: str) -> None:
    """A name that is no problem's, and what is no number of seconds."""
    with pytest.raises(DatabaseError, match="campaigns_thresholds"):
        factories.add_campaign(database, OWN, thresholds=value)


def test_a_latency_has_seconds(database: Database) -> None:
    """Its threshold may be less than a minute."""
    factories.add_campaign(database, OWN, thresholds='{"lead_slow": 10}')
    sql.execute(
        database,
        """INSERT INTO leadloop.latencies (campaign_id, kind, hour, bucket_s, amount, total_s)
           SELECT campaign_id, 'urgent lead', date_trunc('hour', now(), 'UTC'), 30, 9, 99
             FROM leadloop.campaigns""",
    )
    assert list(list_campaigns(database, "lead_slow").values()) == [
        "9 of 9 urgent leads of the last hour took more than 10 s"
    ]
