"""The log of a run in Prefect: its steps, in lines that are few, and each error as one line."""

import logging
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from prefect import context
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, Log
from prefect.context import SettingsContext, get_settings_context
from prefect.flow_engine import run_flow as run_in_engine
from prefect.logging.loggers import flow_run_logger
from prefect.settings import PREFECT_LOGGING_TO_API_ENABLED, temporary_settings
from prefect.states import Pending
from sqlalchemy import make_url

from db.database import Database
from flows import local_runs
from flows.audit import audit_leads
from flows.disable import disable_leads
from flows.fan_out import fan_out
from flows.housekeeping import run_housekeeping
from flows.live import live_leads
from flows.poll import poll_outcomes
from flows.push import push_leads
from flows.sync import sync_leads
from leadloop.core.errors import LeadloopError
from leadloop.sandbox import SandboxHandle
from tasks import step_log
from tasks.jobs import CampaignsFailed
from tests import factories
from tests.factories import CAMPAIGN
from tests.polled_campaigns import process_leads
from tests.prefect_runs import read_log, run_flow

pytestmark = pytest.mark.usefixtures("quick_retries", "environment", "api_log")

# How the lines begin that Prefect itself logs.
_OF_PREFECT = ("Beginning ", "View at ", "Finished in state ")
_SECRET = "not-to-be-shown"


@pytest.fixture
def api_log(
    prefect: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Runs log to Prefect's server, as those of a worker do."""
    with (
        temporary_settings({PREFECT_LOGGING_TO_API_ENABLED: True}) as settings,
        caplog.at_level("INFO", logger="prefect.flow_runs"),
        caplog.at_level("INFO", logger="prefect.task_runs"),
    ):
        # A local run in this process drops errors for good: its command prints them.
        log = logging.getLogger("prefect.flow_runs")
        kept = [each for each in log.filters if each is not local_runs._is_worth_showing]
        monkeypatch.setattr(log, "filters", kept)
        # A worker's process has its settings in the environment, so that all threads know them.
        whole = SettingsContext(profile=get_settings_context().profile, settings=settings)
        monkeypatch.setattr(context, "GLOBAL_SETTINGS_CONTEXT", whole)
        yield


def read_steps(run: FlowRun) -> list[str]:
    """Return the lines of a run's log but for Prefect's own."""
    return [
        each.message
        for each in read_log(run)
        if each.name == "prefect.flow_runs" and not each.message.startswith(_OF_PREFECT)
    ]


def run_as_worker(client: SyncPrefectClient, flow: Any) -> tuple[FlowRun, list[Log]]:
    """Run a flow that fails as the process of a worker does; return the run and its log."""
    run = client.create_flow_run(flow, state=Pending())
    with pytest.raises(LeadloopError):
        run_in_engine(flow, flow_run=run, error_logger=cast("Any", flow_run_logger(run)))
    return client.read_flow_run(run.id), read_log(run)


def require_one_line(run: FlowRun, log: list[Log]) -> str:
    """Return the message of a run that has failed; fail unless its log has it once, as one line."""
    assert run.state is not None
    assert run.state.is_failed()
    message = str(run.state.message)
    assert [each.message for each in log if each.level >= logging.ERROR] == [message]
    assert all("\n" not in each.message for each in log)
    assert log[-1].message == f"Finished in state Failed({message!r})"
    assert len(message) < 300
    assert _SECRET not in str(log)
    return message


def test_the_steps_of_a_push(database: Database, vendor: SandboxHandle) -> None:
    """What began, how much, what was refused, how it ended: in counts, no line a lead."""
    factories.add_campaign(database, batch_size=2)
    factories.add_campaign(database, "IDLE")
    bad = factories.build_lead("bad", state_code="XX")
    factories.add_leads(database, "lead-a", "lead-b", "lead-c", bad)
    _, run = run_flow(push_leads)
    assert read_steps(run) == [
        "push-leads begins with campaigns C1, IDLE",
        "work is due in campaign C1",
        "campaign C1: 4 new leads to send, in batches of up to 2",
        "campaign C1: 1 lead was rejected; leadloop_monitor.rejections counts the reasons",
        "campaign C1: done: created 3, rejected 1, requests 2",
    ]
    assert "lead-a" not in str(read_log(run))


def test_the_steps_of_a_long_push(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line a minute has the counts so far; here a minute takes no time."""
    monkeypatch.setattr(step_log, "PROGRESS_S", 0.0)
    monkeypatch.setenv("LEADLOOP_CONCURRENCY", "1")
    factories.add_campaign(database, batch_size=2)
    factories.add_leads(database, *(f"L{number}" for number in range(6)))
    _, run = run_flow(push_leads)
    assert read_steps(run)[3:] == [
        "so far: created 2",
        "so far: created 4",
        "so far: created 6",
        "campaign C1: done: created 6, requests 3",
    ]


def test_a_batch_that_is_refused(database: Database, vendor: SandboxHandle) -> None:
    """The first one is a line; the counts have what follows."""
    factories.add_campaign(database, batch_size=4)
    factories.add_leads(database, *(f"L{number}" for number in range(8)))
    vendor.add_fault(route="create", kind="status", status=413, times=1)
    _, run = run_flow(push_leads)
    refusal = (
        "campaign C1: the vendor refused a batch of 4 leads (HTTP 413): such batches are sent in"
        " parts, so that one lead holds up no other"
    )
    assert read_steps(run).count(refusal) == 1


def test_the_steps_of_a_disable_a_poll_and_an_audit(
    database: Database, vendor: SandboxHandle
) -> None:
    """Each names what it reads or sends, and what it stored."""
    factories.add_campaign(database)
    factories.add_leads(database, "a", "b")
    push_leads()
    factories.add_opt_outs(database, "a")
    assert read_steps(run_flow(disable_leads, campaigns=[CAMPAIGN])[1]) == [
        "disable-leads begins with campaign C1",
        "campaign C1: 1 opt-out to carry out",
        "campaign C1: done: disabled 1, requests 1",
    ]
    process_leads(vendor, {"b": 1.0})
    begun, planned, ended = read_steps(run_flow(poll_outcomes, campaigns=[CAMPAIGN])[1])
    assert begun == "poll-outcomes begins with campaign C1"
    assert planned.startswith("campaign C1: outcomes to read from ")
    assert ended.startswith("campaign C1: done: windows 1, pages 1, seen 1, inserted 1, requests ")
    assert read_steps(run_flow(audit_leads)[1])[1:3] == [
        "campaign C1: reading all leads at the vendor",
        "campaign C1: 2 leads read, 2 counted by the vendor; comparing them with Postgres",
    ]


def test_the_steps_of_a_sync(database: Database, vendor: SandboxHandle) -> None:
    """A line a stage; the stages are runs with logs of their own."""
    factories.add_campaign(database)
    factories.add_leads(database, "a")
    log = "\n".join(read_steps(run_flow(sync_leads)[1]))
    assert "disable: nothing to do\n" in log
    assert "push: created 1, requests 1\n" in log


def test_many_campaigns_are_logged_in_sums(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No line a campaign, nor one a task; what goes wrong is logged all the same."""
    monkeypatch.setattr(step_log, "MAX_CAMPAIGNS", 3)
    monkeypatch.setattr(step_log, "PROGRESS_S", 0.0)
    for campaign in ("C1", "C2", "C3", "GONE"):
        factories.add_campaign(database, campaign)
        factories.add_leads(database, "a", campaign=campaign)
    vendor.change_rules(campaigns=dict.fromkeys(("C1", "C2", "C3"), "Fine"))
    _, run = run_flow(push_leads)
    log = read_log(run)
    steps = [each.message for each in log if each.level == logging.INFO]
    assert [each for each in steps if not each.startswith(_OF_PREFECT)] == [
        "push-leads begins with campaigns C1, C2, C3 and 1 more",
        "work is due in campaigns C1, C2, C3 and 1 more",
        "4 campaigns have work: the log has the sums of their counts, and leadloop.sync_runs each"
        " one's",
        *("so far: created 1", "so far: created 2", "so far: created 3"),
    ]
    assert len([each for each in log if each.message.startswith("Finished in state ")]) == 1
    errors = [each.message for each in log if each.level >= logging.ERROR]
    assert len(errors) == 2
    assert all(each.startswith("campaign GONE: create: HTTP 404") for each in errors)


@pytest.mark.parametrize(
    "flow", [push_leads, sync_leads, run_housekeeping, fan_out, live_leads, audit_leads]
)
def test_a_run_without_a_database(
    client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch, flow: Any
) -> None:
    """One line names the setting, also of a live run, which would wait for a database it lost."""
    monkeypatch.delenv("LEADLOOP_DATABASE_URL")
    message = require_one_line(*run_as_worker(client, flow))
    assert message.startswith("LEADLOOP_DATABASE_URL is not set: a deployment needs it")
    url = f"postgresql://leads:{_SECRET}@127.0.0.1:1/leads"
    monkeypatch.setenv("LEADLOOP_DATABASE_URL", url)
    assert require_one_line(*run_as_worker(client, flow)) == (
        "cannot reach Postgres at postgresql://leads@127.0.0.1:1/leads: connection refused; check"
        " that the server runs and that LEADLOOP_DATABASE_URL is correct"
    )


def name_other_database(url: str) -> str:
    """Return the URL of a database that does not exist."""
    return make_url(url).set(database="nowhere").render_as_string(hide_password=False)


def name_other_role(url: str) -> str:
    """Return the URL with a login that does not exist."""
    login = make_url(url).set(username="nobody", password=_SECRET)
    return login.render_as_string(hide_password=False)


@pytest.mark.parametrize("change_url", [name_other_database, name_other_role])
def test_a_database_that_refuses(
    client: SyncPrefectClient,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    change_url: Callable[[str], str],
) -> None:
    """One line names the database, the reason and the setting."""
    monkeypatch.setenv("LEADLOOP_DATABASE_URL", change_url(database_url))
    message = require_one_line(*run_as_worker(client, poll_outcomes))
    assert message.startswith("Postgres at ")
    assert "LEADLOOP_DATABASE_URL" in message


@pytest.mark.parametrize("flow", [poll_outcomes, live_leads])
def test_a_database_without_the_schema(
    client: SyncPrefectClient,
    empty_database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    flow: Any,
) -> None:
    """One line names the command."""
    monkeypatch.setenv("LEADLOOP_DATABASE_URL", empty_database_url)
    assert "`leadloop init`" in require_one_line(*run_as_worker(client, flow))


def test_a_login_that_is_missing_or_refused(
    client: SyncPrefectClient,
    database: Database,
    vendor: SandboxHandle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One line names the setting; a refusal is an error of the campaign too, as one line."""
    factories.add_campaign(database)
    factories.add_leads(database, "a")
    monkeypatch.delenv("LEADLOOP_API_TOKEN")
    message = require_one_line(*run_as_worker(client, push_leads))
    assert message.startswith("no login for the API: set LEADLOOP_API_TOKEN, or ")
    monkeypatch.setenv("LEADLOOP_API_TOKEN", _SECRET)
    run, log = run_as_worker(client, push_leads)
    assert run.state is not None
    errors = [each.message for each in log if each.level >= logging.ERROR]
    refusal = "create: HTTP 401; the login is not accepted: check LEADLOOP_API_TOKEN"
    assert all(refusal in error for error in errors)
    of_campaign, of_run = errors
    assert of_run == run.state.message
    assert of_run.startswith(f"{of_campaign}; done: requests ")
    assert all("\n" not in each.message for each in log)
    assert _SECRET not in str(log)


def test_the_state_of_a_run_names_the_first_failures(
    database: Database, vendor: SandboxHandle
) -> None:
    """And how many more there are; the caller gets all."""
    ids = [f"C{number:02}" for number in range(13)]
    for campaign in ids:
        factories.add_campaign(database, campaign)
        factories.add_leads(database, "a", campaign=campaign)
    vendor.change_rules(campaigns={"C00": "Fine"})
    state, _ = run_flow(push_leads)
    message = str(state.message)
    assert message.count("campaign C") == 10
    assert "; and 2 more; done: created 1" in message
    with pytest.raises(CampaignsFailed) as caught:
        push_leads()
    assert len(caught.value.reasons) == 12
