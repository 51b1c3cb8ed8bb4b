"""A live run with two accounts: what happens to one delays no other."""

from collections.abc import Iterator

import pytest

from db.database import Database
from leadloop.sandbox import SandboxHandle
from tasks import live
from tests import factories, sql
from tests.live_runs import LiveRun, start_run
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("environment", "vendor")


@pytest.fixture
def run(
    database: Database, emea: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LiveRun]:
    """A live run that works, with a campaign of each account."""
    for name in ("_TIMED_LOOK_S", "_WATCH_S", "_CHECK_S"):
        monkeypatch.setattr(live, name, 0.5)
    # The run's end waits for a response, but no longer than this.
    monkeypatch.setenv("LEADLOOP_TIMEOUT", "5,5")
    factories.add_account_campaigns(database)
    with start_run("live") as started:
        wait_until(lambda: started.works, "nobody works")
        yield started


def name_campaigns(handle: SandboxHandle) -> set[str]:
    """Return the campaigns that a vendor was asked about."""
    return {request.path.strip("/").split("/")[-1] for request in handle.requests}


def wait_for(database: Database, status: str, lead_id: str, campaign: str) -> None:
    """Wait until a lead has a status."""
    sql.wait_until(
        database,
        "SELECT count(*) = 1 FROM leadloop.leads WHERE campaign_id = :campaign"
        " AND lead_id = :lead AND status = :status",
        campaign=campaign,
        lead=lead_id,
        status=status,
    )


def test_each_account_has_its_own_lanes(
    run: LiveRun, database: Database, vendor: SandboxHandle, emea: SandboxHandle
) -> None:
    """Leads, opt-outs and outcomes go to and come from the account of their campaign."""
    for campaign in ("C1", "C2"):
        factories.add_leads(database, "a", campaign=campaign)
    # Both before the first opt-out, which suppresses their number in each campaign.
    for campaign in ("C1", "C2"):
        wait_for(database, "created", "a", campaign)
    for campaign in ("C1", "C2"):
        factories.add_opt_outs(database, "a", campaign=campaign)
    sql.wait_until(
        database,
        "SELECT count(*) = 2 FROM leadloop.disable_requests WHERE status = 'disabled'",
    )
    for handle, campaign in ((vendor, "C1"), (emea, "C2")):
        handle.put_outcomes([{"campaign_id": campaign, "lead_id": "a"}])
    sql.wait_until(database, "SELECT count(*) = 2 FROM leadloop.lead_outcomes")
    assert (name_campaigns(vendor), name_campaigns(emea)) == ({"C1"}, {"C2"})
    assert all(request.status != 401 for request in (*vendor.requests, *emea.requests))


def test_an_outage_of_one_account_slows_no_other(
    run: LiveRun, database: Database, vendor: SandboxHandle, emea: SandboxHandle
) -> None:
    """Also where its vendor takes requests and never answers: the other's leads go at once."""
    vendor.add_fault(kind="hang", seconds=600)
    for campaign in ("C1", "C2"):
        factories.add_leads(database, "a", campaign=campaign)
    wait_until(lambda: vendor.requests, "the account that hangs is not tried")
    wait_for(database, "created", "a", "C2")
    factories.add_opt_outs(database, "a", campaign="C2")
    sql.wait_until(
        database, "SELECT count(*) = 1 FROM leadloop.disable_requests WHERE status = 'disabled'"
    )
    assert sql.fetch_statuses(database)["a"] != "created"
    assert all(request.status == 0 for request in vendor.requests)


def test_a_pause_of_one_account_holds_no_other(
    run: LiveRun, database: Database, vendor: SandboxHandle, emea: SandboxHandle
) -> None:
    """A 429 of one vendor pauses the requests to that one."""
    vendor.add_fault(
        kind="status", status=429, when="before", headers={"Retry-After": "600"}, nth=1
    )
    factories.add_leads(database, "a", campaign="C1")
    wait_until(lambda: vendor.requests, "nothing is sent")
    factories.add_leads(database, "a", campaign="C2")
    wait_for(database, "created", "a", "C2")
    paused = "SELECT account FROM leadloop_monitor.budget_now WHERE paused_s > 0"
    assert sql.fetch_rows(database, paused) == [{"account": "default"}]
    assert sql.fetch_statuses(database) == {"a": "new"}


def test_a_login_that_is_missing_leaves_its_campaigns_alone(
    database: Database,
    vendor: SandboxHandle,
    emea: SandboxHandle,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One line names them; once the login is there, they are worked on."""
    for name in ("_TIMED_LOOK_S", "_WATCH_S", "_CHECK_S"):
        monkeypatch.setattr(live, name, 0.5)
    factories.add_account_campaigns(database, "a")
    monkeypatch.delenv("LEADLOOP_ACCOUNT_EMEA_API_TOKEN")
    with start_run("live"):
        wait_for(database, "created", "a", "C1")
        wait_until(lambda: "left alone" in caplog.text, "nothing is said")
        assert sql.fetch_statuses(database, "C2") == {"a": "new"}
        assert emea.requests == []
        monkeypatch.setenv("LEADLOOP_ACCOUNT_EMEA_API_TOKEN", "emea-token")
        wait_for(database, "created", "a", "C2")
    left_alone = [message for message in caplog.messages if "left alone" in message]
    assert left_alone == [
        "campaign C2: left alone, because account emea has no login here: set"
        " LEADLOOP_ACCOUNT_EMEA_API_TOKEN (or the four of an OAuth login), or create its block"
    ]
    assert {request.status for request in emea.requests} <= {200, 201}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LEADLOOP_ACCOUNT_EMEA_API_TOKEN", "a token"),
        ("LEADLOOP_ACCOUNT_EMEA_API_URL", "https://emea.example"),
    ],
)
def test_a_wrong_setting_of_one_account_stops_no_other(
    database: Database,
    emea: SandboxHandle,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    value: str,
) -> None:
    """Nor does a CA bundle that only its address needs; one line has the reason."""
    monkeypatch.setattr(live, "_TIMED_LOOK_S", 0.5)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/file")
    monkeypatch.setenv(name, value)
    factories.add_account_campaigns(database, "a")
    with start_run("live"):
        wait_for(database, "created", "a", "C1")
        wait_until(lambda: "left alone" in caplog.text, "nothing is said")
    assert sql.fetch_statuses(database, "C2") == {"a": "new"}
    (line,) = [message for message in caplog.messages if "left alone" in message]
    assert line.startswith("campaign C2: left alone, because account emea cannot be used here: ")
