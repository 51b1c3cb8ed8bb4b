"""Campaigns of two accounts in one database: each uses its own login, address and rate limit."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from db.database import Database
from leadloop.core.errors import RunError, UsageError
from leadloop.core.rate_ring import Purpose
from leadloop.core.summaries import Summary
from leadloop.core.verdicts import ApiCall
from leadloop.sandbox import Rules, SandboxHandle, run_sandbox
from leadloop.settings import Settings
from tasks.context import open_api_context, start_run
from tasks.jobs import CampaignsFailed
from tests import factories, first_contacts, sql
from tests.jobs import (
    HOST,
    audit_leads,
    backfill_outcomes,
    disable_leads,
    poll_outcomes,
    push_leads,
    run_housekeeping,
)

pytestmark = pytest.mark.usefixtures("quick_retries", "environment", "vendor")

_RUNS = "SELECT flow, campaign_id, account FROM leadloop.sync_runs ORDER BY run_id"
_TAKEN = """SELECT account, count(*) AS taken FROM leadloop.rate_slots
             WHERE slot > 0 AND free_at > clock_timestamp() GROUP BY account"""


def process_both(vendor: SandboxHandle, emea: SandboxHandle, lead_id: str) -> None:
    """Have both vendors call a person."""
    for handle, campaign in ((vendor, "C1"), (emea, "C2")):
        handle.put_outcomes([{"campaign_id": campaign, "lead_id": lead_id}])


def name_campaigns(handle: SandboxHandle) -> set[str]:
    """Return the campaigns that a vendor was asked about; all of its requests had its token."""
    assert all(request.status not in (0, 401) for request in handle.requests)
    return {request.path.strip("/").split("/")[-1] for request in handle.requests}


def backfill_all() -> Summary:
    """Read the last hour again."""
    now = datetime.now(UTC)
    return backfill_outcomes(now - timedelta(hours=1), now)


def take_slots(database: Database) -> dict[str, int]:
    """Return how many slots each account has in use."""
    return {row["account"]: row["taken"] for row in sql.fetch_rows(database, _TAKEN)}


def forget_login(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start a worker without the login of `emea`."""
    for setting in ("API_URL", "API_TOKEN", "RATE_LIMIT"):
        monkeypatch.delenv(f"LEADLOOP_ACCOUNT_EMEA_{setting}")


def test_each_request_goes_to_its_account(
    database: Database, vendor: SandboxHandle, emea: SandboxHandle
) -> None:
    """With its token: creates, opt-outs, polls, a backfill, an audit."""
    factories.add_account_campaigns(database, "a", "b")
    assert push_leads()["created"] == 4
    for campaign in ("C1", "C2"):
        factories.add_opt_outs(database, "b", campaign=campaign)
    assert disable_leads()["disabled"] == 2
    process_both(vendor, emea, "a")
    assert poll_outcomes()["inserted"] == 2
    assert poll_outcomes()["inserted"] == 0
    assert backfill_all()["unchanged"] == 2
    assert audit_leads()["seen"] == 4
    assert (name_campaigns(vendor), name_campaigns(emea)) == ({"C1"}, {"C2"})
    kinds = [[request.kind for request in handle.requests] for handle in (vendor, emea)]
    assert sorted(kinds[0]) == sorted(kinds[1])


def test_a_lookup_in_doubt_asks_the_account_that_has_the_lead(
    database: Database, vendor: SandboxHandle, emea: SandboxHandle
) -> None:
    """The lead is found there, and created nowhere else."""
    factories.add_account_campaigns(database, "a")
    push_leads()
    factories.orphan_lead(database, "a", "C2")
    push_leads()
    assert sql.fetch_statuses(database, "C2") == {"a": "created"}
    assert emea.store.creations("C2") == {"a": 1}
    assert name_campaigns(vendor) == {"C1"}


def test_a_request_takes_a_slot_of_its_account_alone(
    database: Database,
    vendor: SandboxHandle,
    emea: SandboxHandle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each account has as many slots in use as its vendor got requests, of its own limit."""
    monkeypatch.setenv("LEADLOOP_RATE_LIMIT", "40/3600")
    monkeypatch.setenv("LEADLOOP_ACCOUNT_EMEA_RATE_LIMIT", "60/3600")
    factories.add_account_campaigns(database, "a")
    factories.add_leads(database, "b", "c", "d", campaign="C2")
    sql.execute(database, "UPDATE leadloop.campaigns SET batch_size = 1")
    push_leads()
    assert (len(vendor.requests), len(emea.requests)) == (1, 4)
    assert take_slots(database) == {"default": 1, "emea": 4}
    sizes = "SELECT account, sum(uses) AS uses FROM leadloop.rate_slots GROUP BY 1 ORDER BY 1"
    assert [row["uses"] for row in sql.fetch_rows(database, sizes)] == [40, 60]
    budgets = "SELECT account, taken FROM leadloop_monitor.budget_now ORDER BY account"
    assert [tuple(row.values()) for row in sql.fetch_rows(database, budgets)] == [
        ("default", 1),
        ("emea", 4),
    ]


def test_a_used_up_limit_keeps_no_other_account(
    database: Database, emea: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does a pause that the vendor has asked for."""
    monkeypatch.setenv("LEADLOOP_RATE_LIMIT", "1/3600")
    monkeypatch.setenv("LEADLOOP_ACCOUNT_EMEA_RATE_LIMIT", "1/3600")
    factories.add_account_campaigns(database)
    with open_api_context(Settings.load(), HOST, purpose=Purpose.POLLS) as context:
        first, second = (context.for_campaign(each) for each in context.select_campaigns(None))
        first.limiter.wait_for_permit(ApiCall.READ)
        first.limiter.pause(3000)
        assert first.limiter.reserve_slot(ApiCall.READ).wait_s > 3000
        assert second.limiter.reserve_slot(ApiCall.READ).wait_s == 0


@pytest.mark.parametrize("flow", ["push", "disable", "poll"])
def test_a_pause_of_one_account_delays_no_other(
    database: Database, vendor: SandboxHandle, emea: SandboxHandle, flow: str
) -> None:
    """In one run: the other one is done before the pause ends, and then this one is done too."""
    factories.add_account_campaigns(database, "a")
    push_leads()
    process_both(vendor, emea, "a")
    poll_outcomes()
    for campaign in ("C1", "C2"):
        factories.add_leads(database, "b", campaign=campaign)
        factories.add_opt_outs(database, "a", campaign=campaign)
    sql.execute(
        database,
        """UPDATE leadloop.rate_slots SET free_at = clock_timestamp() + interval '12 s'
            WHERE account = 'default' AND slot = 0""",
    )
    counts = [len(handle.requests) for handle in (vendor, emea)]
    {"push": push_leads, "disable": disable_leads, "poll": poll_outcomes}[flow]()
    late, early = (
        [request.arrived for request in handle.requests[count:]]
        for handle, count in zip((vendor, emea), counts, strict=True)
    )
    assert max(early) < min(late)


@pytest.mark.parametrize(
    ("flow", "count", "route"),
    [
        (push_leads, "created", "create"),
        (disable_leads, "disabled", "disable"),
        (poll_outcomes, "inserted", "responses"),
    ],
)
@pytest.mark.parametrize("is_login", [True, False])
def test_a_long_pause_that_begins_in_a_run_ends_the_part_of_its_account(
    database: Database,
    vendor: SandboxHandle,
    emea: SandboxHandle,
    monkeypatch: pytest.MonkeyPatch,
    flow: Callable[[], Summary],
    count: str,
    route: str,
    is_login: bool,
) -> None:
    """Else the run would last for an hour, and no later one begin for the other account.

    Whether the vendor asks for it at the login or at the work: the other account's part is done,
    and the next run leaves the paused one out.
    """
    factories.add_account_campaigns(database, "a")
    push_leads()
    for campaign in ("C1", "C2"):
        factories.add_leads(database, "b", campaign=campaign)
        factories.add_opt_outs(database, "a", campaign=campaign)
    process_both(vendor, emea, "a")
    monkeypatch.delenv("LEADLOOP_API_TOKEN")
    for name in ("client_id", "client_secret", "username", "password"):
        monkeypatch.setenv(f"LEADLOOP_{name.upper()}", getattr(vendor.rules, name))
    route = "token" if is_login else route
    answer = {"status": 503, "headers": {"Retry-After": "3000"}}
    vendor.add_fault(kind="status", when="before", route=route, **answer)
    with pytest.raises(CampaignsFailed, match=r"account default is sent for \d{4} s") as caught:
        flow()
    assert [reason[:13] for reason in caught.value.reasons] == ["campaign C1: "]
    assert f" {count} 1, " in str(caught.value)
    before = len(vendor.requests)
    assert flow()["campaigns"]["C1"]["requests"] == 0
    assert len(vendor.requests) == before


def test_leads_refused_at_a_login_that_is_paused_are_new_again(
    database: Database,
    vendor: SandboxHandle,
    emea: SandboxHandle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their create met a 401, and the next login a long pause: none of them exists."""
    factories.add_account_campaigns(database, "a")
    monkeypatch.delenv("LEADLOOP_API_TOKEN")
    for name in ("client_id", "client_secret", "username", "password"):
        monkeypatch.setenv(f"LEADLOOP_{name.upper()}", getattr(vendor.rules, name))
    vendor.add_fault(kind="status", when="before", route="create", status=401)
    answer = {"status": 503, "headers": {"Retry-After": "3000"}}
    vendor.add_fault(kind="status", when="before", route="token", nth=2, **answer)
    with pytest.raises(CampaignsFailed, match="no request of account default is sent"):
        push_leads()
    assert sql.fetch_statuses(database, "C1") == {"a": "new"}
    assert vendor.store.creations("C1") == {}


def break_vendor(handle: SandboxHandle, _: pytest.MonkeyPatch) -> None:
    """Have the vendor of `default` answer nothing but a gateway's error."""
    handle.add_fault(kind="status", status=502, when="before")


def refuse_login(_: SandboxHandle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the vendor of `default` refuse the token."""
    monkeypatch.setenv("LEADLOOP_API_TOKEN", "wrong-token")


@pytest.mark.parametrize("failing", [break_vendor, refuse_login])
@pytest.mark.parametrize("run", [push_leads, disable_leads, poll_outcomes, audit_leads])
def test_a_failing_account_stops_no_other(
    database: Database,
    vendor: SandboxHandle,
    emea: SandboxHandle,
    monkeypatch: pytest.MonkeyPatch,
    failing: Callable[[SandboxHandle, pytest.MonkeyPatch], None],
    run: Callable[[], Summary],
) -> None:
    """Whatever the run does, the other account's part is done; the failure names its address."""
    factories.add_account_campaigns(database, "old")
    push_leads()
    for campaign in ("C1", "C2"):
        factories.add_leads(database, "new", campaign=campaign)
        factories.add_opt_outs(database, "old", campaign=campaign)
    process_both(vendor, emea, "old")
    failing(vendor, monkeypatch)
    before = len(emea.requests)
    with pytest.raises(CampaignsFailed) as caught:
        run()
    assert all(reason.startswith("campaign C1: ") for reason in map(str, caught.value.reasons))
    assert "emea" not in str(caught.value)
    assert len(emea.requests) > before
    states = "SELECT state FROM leadloop.sync_runs WHERE campaign_id = 'C2'"
    assert {row["state"] for row in sql.fetch_rows(database, states)} == {"completed"}


def test_a_failure_names_the_account_and_its_variables(
    database: Database, emea: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not those of the account `default`."""
    factories.add_account_campaigns(database, "a")
    monkeypatch.setenv("LEADLOOP_ACCOUNT_EMEA_API_TOKEN", "wrong-token")
    with pytest.raises(CampaignsFailed, match="check LEADLOOP_ACCOUNT_EMEA_API_TOKEN or") as caught:
        push_leads()
    assert "wrong-token" not in str(caught.value)
    monkeypatch.setenv("LEADLOOP_ACCOUNT_EMEA_API_TOKEN", "emea-token")
    emea.add_fault(kind="status", status=502, when="before")
    with pytest.raises(CampaignsFailed, match=r"\(account emea\)") as caught:
        audit_leads(["C2"])
    assert "check LEADLOOP_ACCOUNT_EMEA_API_URL," in str(caught.value)


def test_accounts_take_turns(
    database: Database, vendor: SandboxHandle, emea: SandboxHandle
) -> None:
    """A hundred campaigns of one account keep another one's waiting for one chunk."""
    factories.add_account_campaigns(database, *(f"L{number}" for number in range(60)))
    sql.execute(database, "UPDATE leadloop.campaigns SET batch_size = 1")
    for number in range(8):
        factories.add_campaign(database, f"A{number}", priority=9)
        factories.add_leads(database, "a", "b", "c", campaign=f"A{number}")
    push_leads()
    creates = sorted(
        (request.arrived, request.path)
        for handle in (vendor, emea)
        for request in handle.requests
        if request.kind == "create"
    )
    order = [path.strip("/").split("/")[-1] for _, path in creates]
    # The first chunk of C2 comes after one campaign of the other account.
    assert len(set(order[: order.index("C2")])) == 1
    assert order.index("C2") < order.index("C1")


def test_a_campaign_without_a_login_is_left_alone(
    database: Database,
    vendor: SandboxHandle,
    emea: SandboxHandle,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No claim, no request, no row of a run; one line names the campaigns and what to set."""
    factories.add_account_campaigns(database, "a")
    factories.add_campaign(database, "C3", account="emea")
    factories.add_opt_outs(database, "z", campaign="C2")
    forget_login(monkeypatch)
    for run in (push_leads, disable_leads, poll_outcomes, audit_leads):
        caplog.clear()
        run()
        # Only the campaigns with opt-outs, or all enabled ones: both are.
        assert [record.message for record in caplog.records] == [
            "campaigns C2, C3: left alone, because account emea has no login here: set"
            " LEADLOOP_ACCOUNT_EMEA_API_URL and LEADLOOP_ACCOUNT_EMEA_API_TOKEN (or the four of an"
            " OAuth login), or create its block"
        ]
    assert sql.fetch_statuses(database) == {"a": "created"}
    assert sql.fetch_statuses(database, "C2") == {"a": "new"}
    assert sql.fetch_opt_outs(database, "C2") == {"z": "requested"}
    assert emea.requests == []
    assert {row["account"] for row in sql.fetch_rows(database, _RUNS)} == {"default"}
    assert {row["campaign_id"] for row in sql.fetch_rows(database, _RUNS)} == {"", "C1"}


@pytest.mark.parametrize(
    ("variable", "value"), [("REQUESTS_CA_BUNDLE", "/no/such/file"), ("HTTPS_PROXY", "ftp://p:1")]
)
def test_a_proxy_or_bundle_that_one_account_cannot_use_stops_no_other(
    database: Database,
    emea: SandboxHandle,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    variable: str,
    value: str,
) -> None:
    """The line of the account that is left alone has the reason."""
    factories.add_account_campaigns(database, "a")
    monkeypatch.setenv("LEADLOOP_ACCOUNT_EMEA_API_URL", "https://emea.example")
    monkeypatch.setenv(variable, value)
    assert push_leads()["created"] == 1
    reason = f"campaign C2: left alone, because account emea cannot be used here: {variable} "
    assert [record.message.startswith(reason) for record in caplog.records] == [True]
    with pytest.raises(UsageError, match=reason):
        push_leads(["C2"])
    assert sql.fetch_statuses(database, "C2") == {"a": "new"}


def test_a_run_begins_with_an_account_that_can_be_used(
    database: Database, emea: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the account `default` cannot."""
    factories.add_account_campaigns(database, "a")
    monkeypatch.setenv("LEADLOOP_API_URL", "https://default.example")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/file")
    assert push_leads()["created"] == 1
    assert sql.fetch_statuses(database, "C2") == {"a": "created"}


@pytest.mark.parametrize("run", [push_leads, disable_leads, poll_outcomes, audit_leads])
@pytest.mark.parametrize("ids", [["C2"], ["C1", "C2"]])
def test_a_named_campaign_without_a_login_is_refused(
    database: Database,
    vendor: SandboxHandle,
    emea: SandboxHandle,
    monkeypatch: pytest.MonkeyPatch,
    run: Callable[[Any], Summary],
    ids: list[str],
) -> None:
    """Before anything is sent, for any of the named ones."""
    factories.add_account_campaigns(database, "a")
    monkeypatch.delenv("LEADLOOP_ACCOUNT_EMEA_API_TOKEN")
    line = "^campaign C2: .* account emea has no login here: set LEADLOOP_ACCOUNT_EMEA_API_TOKEN"
    with pytest.raises(UsageError, match=line):
        run(ids)
    assert vendor.requests == emea.requests == []
    assert sql.fetch_rows(database, _RUNS) == []


def test_a_run_that_can_do_nothing_is_refused(
    database: Database, emea: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a worker without any useful login would look well."""
    factories.add_campaign(database, "C2", account="emea")
    forget_login(monkeypatch)
    with pytest.raises(UsageError, match=r"^campaign C2: left alone"):
        push_leads()


def test_a_worker_may_have_the_other_login_alone(
    database: Database,
    vendor: SandboxHandle,
    emea: SandboxHandle,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The account `default` is one like any other."""
    factories.add_account_campaigns(database, "a")
    monkeypatch.delenv("LEADLOOP_API_TOKEN")
    assert push_leads()["created"] == 1
    assert caplog.messages == [
        "campaign C1: left alone, because account default has no login here: set"
        " LEADLOOP_API_TOKEN, or LEADLOOP_CLIENT_ID, LEADLOOP_CLIENT_SECRET, LEADLOOP_USERNAME,"
        " LEADLOOP_PASSWORD"
    ]
    assert vendor.requests == []
    assert sql.fetch_statuses(database, "C2") == {"a": "created"}


def test_a_campaign_that_nobody_serves_becomes_a_problem(
    database: Database, emea: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs of the other accounts do not cover it: it seems as idle as it is."""
    factories.add_account_campaigns(database)
    push_leads()
    sql.execute(
        database,
        """UPDATE leadloop.sync_runs SET started_at = now() - interval '2 hours',
                                         ended_at = now() - interval '2 hours';
           UPDATE leadloop.campaigns SET enabled_at = '-infinity'""",
    )
    problems = "SELECT campaign_id FROM leadloop_monitor.problems WHERE problem = 'nothing_runs'"
    assert len(sql.fetch_rows(database, problems)) == 2
    forget_login(monkeypatch)
    push_leads()
    assert sql.fetch_rows(database, problems) == [{"campaign_id": "C2"}]
    last_push = (
        "SELECT last_push_at > now() - interval '1 hour' FROM leadloop_monitor.campaign_health"
    )
    rows = sql.fetch_rows(database, f"{last_push} ORDER BY campaign_id")
    assert [next(iter(row.values())) for row in rows] == [True, False]


def test_each_account_has_covering_rows(database: Database, emea: SandboxHandle) -> None:
    """One an account in each run; a campaign that has its own row is not covered."""
    factories.add_account_campaigns(database)
    push_leads()
    assert [tuple(row.values()) for row in sql.fetch_rows(database, _RUNS)] == [
        ("push-leads", "", "default"),
        ("push-leads", "", "emea"),
    ]
    factories.add_leads(database, "a", campaign="C2")
    emea.add_fault(route="create", kind="status", status=401, when="before")
    with pytest.raises(CampaignsFailed):
        push_leads()
    failed = "SELECT campaign_id FROM leadloop_monitor.problems WHERE problem = 'run_failed'"
    assert sql.fetch_rows(database, failed) == [{"campaign_id": "C2"}]
    health = "SELECT campaign_id, account FROM leadloop_monitor.campaign_health ORDER BY 1"
    assert [tuple(row.values()) for row in sql.fetch_rows(database, health)] == [
        ("C1", "default"),
        ("C2", "emea"),
    ]


def test_housekeeping_needs_no_login_of_any_account(
    database: Database, emea: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sends nothing."""
    factories.add_account_campaigns(database, "a")
    push_leads()
    forget_login(monkeypatch)
    monkeypatch.delenv("LEADLOOP_API_TOKEN")
    run_housekeeping()
    kept = "SELECT DISTINCT account FROM leadloop.sync_runs WHERE flow = 'housekeeping'"
    assert {row["account"] for row in sql.fetch_rows(database, kept)} == {"default", "emea"}


def test_a_campaign_that_changes_its_account_ends_its_part(
    database: Database, emea: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing more is claimed for the login that it had."""
    factories.add_account_campaigns(database, "a")
    with open_api_context(Settings.load(), HOST) as context:
        (campaign,) = context.select_campaigns(["C2"])
        run = start_run(context, "push-leads", campaign)
        assert run.context.account.name == "emea"
        run.reload()
        sql.execute(database, "UPDATE leadloop.campaigns SET account = 'default'")
        with pytest.raises(RunError, match="moved from account emea to default"):
            run.reload()


def test_two_accounts_log_in_separately(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each at its address, with its client, even where one vendor keeps one token a login alive."""
    rules = Rules(
        rate_limit=None, pace=None, tokens=("unused",), username="emea-user", single_token=True
    )
    with run_sandbox(rules) as emea:
        vendor.change_rules(single_token=True)
        monkeypatch.delenv("LEADLOOP_API_TOKEN")
        monkeypatch.setenv("LEADLOOP_ACCOUNT_EMEA_API_URL", emea.url)
        for prefix, handle in (("LEADLOOP_", vendor), ("LEADLOOP_ACCOUNT_EMEA_", emea)):
            for name in ("client_id", "client_secret", "username", "password"):
                monkeypatch.setenv(f"{prefix}{name.upper()}", getattr(handle.rules, name))
        factories.add_account_campaigns(database, "a")
        assert push_leads()["created"] == 2
        for handle in (vendor, emea):
            assert [(r.kind, r.status) for r in handle.requests] == [
                ("token", 200),
                ("create", 201),
            ]


def test_a_first_contact_uses_the_account_of_its_campaign(
    database: Database,
    vendor: SandboxHandle,
    emea: SandboxHandle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And refuses to begin without its login."""
    factories.add_account_campaigns(database, "a")
    summary = first_contacts.run_contact(database, "a", campaign="C2")
    assert summary["leads"] == {"a": "created"}
    assert name_campaigns(emea) == {"C2"}
    assert vendor.requests == []
    monkeypatch.delenv("LEADLOOP_ACCOUNT_EMEA_API_TOKEN")
    with pytest.raises(UsageError, match=r"^account emea has no login here: set LEADLOOP"):
        first_contacts.run_contact(database, "a", campaign="C2")


def test_a_first_contact_names_the_address_of_its_account(
    database: Database, emea: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks for the fault looks there."""
    factories.add_account_campaigns(database, "a")
    monkeypatch.setenv("LEADLOOP_ACCOUNT_EMEA_API_TOKEN", "wrong-token")
    address = rf"cannot be read at {emea.url} \(account emea\)"
    with pytest.raises(RunError, match=address):
        first_contacts.run_contact(database, "a", campaign="C2")
    monkeypatch.setenv("LEADLOOP_ACCOUNT_EMEA_API_TOKEN", "emea-token")
    emea.add_fault(kind="status", status=403, when="before", route="create")
    with pytest.raises(RunError, match=rf"create failed at {emea.url} \(account emea\)"):
        first_contacts.run_contact(database, "a", campaign="C2")
