"""Runs in which little or nothing is due: asked once for all campaigns, and equal in effect."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from db import due_work
from db.database import Database
from leadloop.core.errors import RunError
from leadloop.core.summaries import collect_summary
from leadloop.sandbox import SandboxHandle
from leadloop.settings import Settings
from tasks.context import ApiContext, RunHost, open_api_context
from tasks.disable import DISABLE
from tasks.jobs import CampaignsFailed, DueCampaigns, JobSpec
from tasks.push import PUSH
from tests import factories, sql
from tests.jobs import disable_leads, push_leads, run_jobs
from tests.resilience.model import LoopModel

pytestmark = pytest.mark.usefixtures("quick_retries", "environment")

T = TypeVar("T")
_RUNS = "SELECT campaign_id, state, counts FROM leadloop.sync_runs ORDER BY run_id"
FIND_DUE = {
    "push-leads": due_work.find_campaigns_to_push,
    "disable-leads": due_work.find_campaigns_to_disable,
}
_LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"


def add_campaigns(database: Database, amount: int) -> list[str]:
    """Insert campaigns in which nothing is due."""
    sql.execute(
        database,
        """INSERT INTO leadloop.campaigns (campaign_id)
           SELECT 'C' || lpad(CAST(n AS text), 4, '0') FROM generate_series(1, :amount) AS n""",
        amount=amount,
    )
    return [f"C{number:04d}" for number in range(1, amount + 1)]


@pytest.mark.parametrize(("spec", "flow"), [(PUSH, "push-leads"), (DISABLE, "disable-leads")])
def test_a_run_with_nothing_due_has_one_row_and_no_step(
    database: Database, vendor: SandboxHandle, spec: JobSpec[ApiContext], flow: str
) -> None:
    """However many campaigns: no request, no Prefect task; the summary names each of them."""
    campaigns = add_campaigns(database, 500)
    steps: list[str] = []

    class Watching:
        def __call__(self, name: str, _campaign_ids: Sequence[str], _step: Any, /) -> Any:
            steps.append(name)

    @contextmanager
    def open_watched(settings: Settings, host: RunHost) -> Iterator[ApiContext]:
        with open_api_context(settings, replace(host, run_step=Watching())) as context:
            yield context

    summary = run_jobs(replace(spec, open_context=open_watched), None)
    assert (steps, vendor.requests) == ([], [])
    expected = dict.fromkeys([*spec.counts, "requests"], 0)
    assert sql.fetch_rows(database, _RUNS) == [
        {"campaign_id": "", "state": "completed", "counts": {**expected, "covered": 500}}
    ]
    assert list(summary["campaigns"]) == campaigns
    assert all(each == expected for each in summary["campaigns"].values())


def test_only_campaigns_in_which_something_is_due_get_a_row(
    database: Database, vendor: SandboxHandle
) -> None:
    """All rows of the run hold one lock, while it lives."""
    campaigns = add_campaigns(database, 500)
    due = [campaigns[3], campaigns[77], campaigns[499]]
    for campaign in due:
        factories.add_leads(database, "a", campaign=campaign)
    held: list[int] = []

    def watch(_: object) -> None:
        held.append(sql.fetch_value(database, _LOCKS))

    summary = run_jobs(PUSH, None, on_started=watch)
    assert held == [1]
    assert [row["campaign_id"] for row in sql.fetch_rows(database, _RUNS)] == ["", *due]
    assert summary["created"] == 3
    assert list(summary["campaigns"]) == campaigns
    assert vendor.store.creations(due[1]) == {"a": 1}


def test_many_named_campaigns_hold_one_lock(database: Database, vendor: SandboxHandle) -> None:
    """A run that names its campaigns asks nothing: each has its row."""
    campaigns = add_campaigns(database, 40)
    held: list[int] = []
    run_jobs(PUSH, campaigns, on_started=lambda _: held.append(sql.fetch_value(database, _LOCKS)))
    assert held == [1]
    assert [row["campaign_id"] for row in sql.fetch_rows(database, _RUNS)] == campaigns


def test_what_a_dead_run_sent_is_due_at_once(database: Database, vendor: SandboxHandle) -> None:
    """Dead runs are recovered before it is asked what is due."""
    factories.add_campaign(database)
    factories.add_leads(database, "a")
    push_leads()
    factories.orphan_lead(database, "a")
    push_leads()
    assert sql.fetch_statuses(database) == {"a": "created"}


def test_a_question_that_fails_fails_the_run(database: Database, vendor: SandboxHandle) -> None:
    """The covering row states why, and no campaign gets a row."""
    add_campaigns(database, 2)

    def fail(*_: object) -> DueCampaigns[ApiContext]:
        raise RunError("no answer")

    with pytest.raises(RunError, match="no answer"):
        run_jobs(replace(PUSH, find_due=fail), None)
    rows = sql.fetch_rows(database, "SELECT campaign_id, state, error FROM leadloop.sync_runs")
    assert rows == [{"campaign_id": "", "state": "failed", "error": "no answer"}]


_LEADS = st.lists(
    st.sampled_from(
        [
            {},
            {"priority": 1},
            {"status": "created"},
            {"status": "rejected", "last_error": "no"},
            {"status": "cancelled", "opted_out": True},
            {"status": "in_doubt", "doubted_at": "-1 hour"},
            {"status": "in_doubt", "doubted_at": "0 hours"},
            {"status": "in_doubt", "doubted_at": "infinity"},
            {"status": "in_doubt", "doubted_at": "-2 days", "looked_up_at": "0 hours"},
            {"suspect_list": 1, "next_try_at": "1 hour"},
            {"suspect_list": 1, "next_try_at": "-1 hour"},
        ]
    ),
    max_size=2,
)
_OPT_OUTS = st.lists(
    st.sampled_from(
        [
            {"status": "requested"},
            {"status": "disabled"},
            {"status": "cancelled"},
            {"status": "failed", "next_try_at": "1 hour"},
            {"status": "failed", "next_try_at": "-1 hour"},
        ]
    ),
    max_size=2,
)
_CAMPAIGNS = st.lists(
    st.fixed_dictionaries(
        {
            "row": st.sampled_from(
                [{}, {}, {"push_enabled": False}, {"enabled": False}, {"shows_unprocessed": True}]
            ),
            "leads": _LEADS,
            "opt_outs": _OPT_OUTS,
            "deleted": st.sampled_from([None, None, "created", "in_doubt", "awaits its run"]),
            "held": st.sampled_from([False, False, False, True]),
        }
    ),
    min_size=1,
    max_size=4,
)


def build_world(database: Database, campaigns: list[dict[str, Any]]) -> None:
    """Insert what was drawn; times are relative to now."""
    for number, drawn in enumerate(campaigns):
        campaign = f"C{number}"
        factories.add_campaign(database, campaign, **drawn["row"])
        for place, row in enumerate(drawn["leads"]):
            times = {name: row[name] for name in row.keys() & _TIMES}
            plain = {name: value for name, value in row.items() if name not in times}
            factories.add_leads(
                database, factories.build_lead(f"L{place}", **plain), campaign=campaign
            )
            _set_times(database, "leads", campaign, f"L{place}", times)
        for place, row in enumerate(drawn["opt_outs"]):
            plain = {"status": row["status"]}
            # One of a lead that is there, one of a lead that is not.
            factories.add_opt_outs(database, f"L{place + 1}", campaign=campaign, **plain)
            times = {name: row[name] for name in row.keys() & _TIMES}
            _set_times(database, "disable_requests", campaign, f"L{place + 1}", times)
        if drawn["deleted"]:
            sql.execute(
                database,
                """INSERT INTO leadloop.sent_leads (campaign_id, lead_id, status, doubted_at)
                   VALUES (:campaign, 'gone', :status, CAST(:at AS timestamptz))""",
                campaign=campaign,
                status="created" if drawn["deleted"] == "created" else "in_doubt",
                at="infinity" if drawn["deleted"] == "awaits its run" else "2026-01-01",
            )
        if drawn["held"]:
            sql.execute(
                database,
                "INSERT INTO leadloop.create_holds (campaign_id, reason) VALUES (:campaign, '')",
                campaign=campaign,
            )


_TIMES = {"doubted_at", "looked_up_at", "next_try_at"}


def _set_times(
    database: Database, table: str, campaign: str, lead_id: str, times: dict[str, str]
) -> None:
    for name, value in times.items():
        at = "'infinity'" if value == "infinity" else f"now() + interval '{value}'"
        sql.execute(
            database,
            f"UPDATE leadloop.{table} SET {name} = {at} WHERE campaign_id = :c AND lead_id = :id",
            c=campaign,
            id=lead_id,
        )


def fetch_state(database: Database) -> dict[str, list[dict[str, Any]]]:
    """Return all that runs change, but for their rows and the moments."""
    columns = {
        "leads": "status, opted_out, last_error, suspect_list IS NULL, lone_failures,"
        " doubted_at = 'infinity' AS awaits, doubted_at > now() - interval '1 minute' AS fresh,"
        " looked_up_at > now() - interval '1 minute' AS looked_up",
        "disable_requests": "status, tries, last_error, sent_at IS NULL",
        "sent_leads": "status, doubted_at = 'infinity' AS awaits",
        "create_holds": "released_at IS NULL",
    }
    keys = {"create_holds": "campaign_id"}
    return {
        table: sql.fetch_rows(
            database,
            f"""SELECT {(key := keys.get(table, "campaign_id, lead_id"))}, {wanted}
                  FROM leadloop.{table} ORDER BY {key}""",
        )
        for table, wanted in columns.items()
    }


@pytest.mark.parametrize("spec", [PUSH, DISABLE], ids=["push", "disable"])
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(campaigns=_CAMPAIGNS)
def test_campaigns_that_are_left_out_have_nothing_to_do(
    database: Database,
    vendor: SandboxHandle,
    spec: JobSpec[ApiContext],
    campaigns: list[dict[str, Any]],
) -> None:
    """With a job for each of them: no request, no change but for their rows, nothing to count."""
    LoopModel(database=database, vendor=vendor).reset()
    build_world(database, campaigns)
    due = database.run(FIND_DUE[spec.flow])
    idle = [name for name in (f"C{number}" for number in range(len(campaigns))) if name not in due]
    if idle:
        before = fetch_state(database)
        summary = run_jobs(spec, idle)
        assert fetch_state(database) == before
        assert vendor.requests == []
        assert set(summary["campaigns"]) == set(idle)
        assert not any(any(counts.values()) for counts in summary["campaigns"].values())


def test_a_run_that_asks_does_what_a_run_of_all_does(
    database: Database, vendor: SandboxHandle
) -> None:
    """One campaign with each kind of work, and an idle one: equal tables, requests and JSON."""
    kinds: list[dict[str, Any]] = [
        {"leads": [{}, {"priority": 1}]},
        {"leads": [{"status": "in_doubt", "doubted_at": "-1 hour"}]},
        {"leads": [{"status": "in_doubt", "doubted_at": "infinity"}]},
        {"leads": [{"suspect_list": 1, "next_try_at": "-1 hour"}]},
        {"leads": [{}], "row": {"push_enabled": False}},
        {"leads": [{}, {}], "opt_outs": [{"status": "requested"}]},
        {"opt_outs": [{"status": "failed", "next_try_at": "1 hour"}], "row": {"enabled": False}},
        {"held": True},
        {},
    ]
    nothing: dict[str, Any] = {
        "row": {},
        "leads": [],
        "opt_outs": [],
        "deleted": None,
        "held": False,
    }
    found = []
    for find_all in (False, True):
        LoopModel(database=database, vendor=vendor).reset()
        build_world(database, [nothing | kind for kind in kinds])
        ended: list[Any] = []
        for spec in (DISABLE, PUSH):
            with collect_summary() as collected, suppress(CampaignsFailed):
                run_jobs(replace(spec, find_due=None) if find_all else spec, None)
            ended.append(collected.summary)
        sent = sorted(f"{each.method} {each.path} {each.status}" for each in vendor.requests)
        found.append((ended, sent, fetch_state(database)))
    assert found[0] == found[1]
    assert found[0][0][1]["created"] == 3


def test_leads_that_come_in_during_a_run_wait_for_the_next(
    database: Database, vendor: SandboxHandle
) -> None:
    """Of a campaign in which nothing was due when the run asked."""
    campaigns = add_campaigns(database, 2)
    factories.add_leads(database, "a", campaign=campaigns[0])
    run_jobs(
        PUSH, None, on_started=lambda _: factories.add_leads(database, "b", campaign=campaigns[1])
    )
    assert sql.fetch_statuses(database, campaigns[1]) == {"b": "new"}
    factories.add_opt_outs(database, "b", campaign=campaigns[1])
    disable_leads()
    assert push_leads()["created"] == 0
    assert sql.fetch_statuses(database, campaigns[1]) == {"b": "cancelled"}


def test_a_campaign_whose_row_is_refused_is_not_covered(
    database: Database, vendor: SandboxHandle
) -> None:
    """Else the views would show that its run has completed; the others' runs do."""
    refused, other = factories.add_campaigns_with_refused_run(database, "INSERT")
    with pytest.raises(CampaignsFailed, match=f"campaign {refused}"):
        push_leads()
    assert sql.fetch_statuses(database, other) == {"a": "created"}
    rows = "SELECT campaign_id, state, error FROM leadloop.sync_runs ORDER BY run_id"
    assert sql.fetch_rows(database, rows) == [
        {"campaign_id": "", "state": "failed", "error": "campaigns whose row Postgres refused: 1"},
        {"campaign_id": other, "state": "completed", "error": None},
    ]
    last = "SELECT last_push_at FROM leadloop_monitor.campaign_health WHERE campaign_id = :c"
    assert sql.fetch_value(database, last, c=refused) is None
