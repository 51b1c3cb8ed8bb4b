"""Settings from Prefect blocks, on a real server: what wins, and what is never shown."""

import re
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from pydantic import SecretStr

from db.database import Database
from flows.push import push_leads
from flows.sync import sync_leads
from leadloop.core.accounts import ACCOUNT_SETTINGS
from leadloop.core.errors import UsageError
from leadloop.sandbox import Rules, SandboxHandle, run_sandbox
from leadloop.settings import EMBEDDED_IS_LOCAL_ONLY, Settings
from tasks import blocks
from tasks.blocks import (
    LeadloopAccount,
    LeadloopCredentials,
    LeadloopSettings,
    RunSettings,
    collect_setting_sources,
    resolve_settings,
)
from tests import factories, sql
from tests.conftest import Ran, prefect_login

pytestmark = pytest.mark.usefixtures("prefect")


@pytest.fixture
def name() -> str:
    """Of blocks that no other test has."""
    return f"team-{uuid4().hex[:8]}"


def test_a_run_takes_its_login_from_a_block(
    database: Database,
    database_url: str,
    vendor: SandboxHandle,
    environment: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """With a block a worker's environment needs no secret at all."""
    LeadloopCredentials(
        database_url=SecretStr(database_url),
        api_url=vendor.url,
        api_token=SecretStr(vendor.rules.tokens[0]),
    ).save(name)
    for variable in ("LEADLOOP_DATABASE_URL", "LEADLOOP_API_URL", "LEADLOOP_API_TOKEN"):
        monkeypatch.delenv(variable)
    factories.add_campaign(database)
    factories.add_leads(database, "A", "B")
    with pytest.raises(UsageError, match="LEADLOOP_DATABASE_URL is not set"):
        push_leads()
    assert push_leads(settings=RunSettings(block=name))["created"] == 2


def test_what_wins(environment: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A run's parameter wins over its block, a block over the environment, that over a default."""
    monkeypatch.setenv("LEADLOOP_BATCH_SIZE", "11")
    monkeypatch.setenv("LEADLOOP_PAGE_SIZE", "12")
    monkeypatch.setenv("LEADLOOP_LOOKBACK", "13")
    LeadloopSettings(batch_size=21, page_size=22).save(name)
    settings = resolve_settings(RunSettings(block=name, batch_size=31))
    assert (settings.batch_size, settings.page_size, settings.lookback) == (31, 22, 13)
    assert settings.window == 3600
    assert resolve_settings(None).batch_size == 11


def test_a_login_wins_whole(
    environment: Path,
    vendor: SandboxHandle,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """A block's OAuth login is used although the environment has a token, which is no good."""
    monkeypatch.setenv("LEADLOOP_API_TOKEN", "of-somebody-else")
    rules = vendor.rules
    LeadloopSettings(api_url=vendor.url).save(name)
    LeadloopCredentials(
        client_id=rules.client_id,
        client_secret=SecretStr(rules.client_secret),
        username=rules.username,
        password=SecretStr(rules.password),
    ).save(name)
    factories.add_campaign(database)
    factories.add_leads(database, "A")
    assert push_leads(settings=RunSettings(block=name))["created"] == 1
    assert "api_token" not in Settings.describe_sources(
        *collect_setting_sources(RunSettings(block=name))
    )


def test_a_block_gets_no_token_for_its_address(
    environment: Path, database: Database, name: str
) -> None:
    """Whoever may write a block cannot have the worker's token, names and numbers sent to them."""
    factories.add_campaign(database)
    factories.add_leads(database, "A")
    with run_sandbox(Rules(rate_limit=None, pace=None)) as thief:
        LeadloopSettings(api_url=thief.url).save(name)
        LeadloopCredentials(api_url=thief.url, client_id="c").save(name)
        line = f"from the environment, but api_url from block leadloop-credentials/{name}"
        with pytest.raises(UsageError, match=line):
            push_leads(settings=RunSettings(block=name))
        assert thief.requests == []
    assert sql.fetch_statuses(database) == {"A": "new"}


def test_a_block_s_token_goes_to_no_other_address(
    environment: Path, database: Database, vendor: SandboxHandle, name: str
) -> None:
    """Not to that of the worker's environment: nothing is sent, and doctor says why."""
    LeadloopCredentials(api_token=SecretStr(vendor.rules.tokens[0])).save(name)
    factories.add_campaign(database)
    factories.add_leads(database, "A")
    line = f"from block leadloop-credentials/{name}, but api_url from the environment"
    with pytest.raises(UsageError, match=line):
        push_leads(settings=RunSettings(block=name))
    assert vendor.requests == []


def test_an_account_has_a_block_beside_that_of_the_run(
    database: Database,
    vendor: SandboxHandle,
    emea: SandboxHandle,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """Whole, in place of the environment's; runs with another block do not see it."""
    factories.add_account_campaigns(database, "A")
    for setting in ("API_URL", "API_TOKEN", "RATE_LIMIT"):
        monkeypatch.delenv(f"LEADLOOP_ACCOUNT_EMEA_{setting}")
    LeadloopSettings(lookback=5).save(name)
    LeadloopSettings(lookback=5).save(f"{name}--other")
    LeadloopAccount(
        api_url=emea.url, api_token=SecretStr(emea.rules.tokens[0]), rate_limit="1000/0.01"
    ).save(f"{name}--emea")
    for block in (None, f"{name}--other"):
        with pytest.raises(UsageError, match=r"account emea has no login here"):
            push_leads(["C2"], settings=RunSettings(block=block))
    # The environment's login of the account is not looked at.
    monkeypatch.setenv("LEADLOOP_ACCOUNT_EMEA_API_TOKEN", "wrong-token")
    settings = resolve_settings(RunSettings(block=name))
    assert settings.get_account("emea").rate_limit == "1000/0.01"
    assert push_leads(settings=RunSettings(block=name))["created"] == 2
    assert [request.status for request in emea.requests] == [201]
    assert len(vendor.requests) == 1


def test_a_wrong_block_of_an_account_stops_that_account_alone(
    database: Database,
    vendor: SandboxHandle,
    emea: SandboxHandle,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    """The others are served; a run that names its campaign is refused with the reason."""
    factories.add_account_campaigns(database, "A")
    LeadloopSettings(lookback=5).save(name)
    block = f"block leadloop-account/{name}--emea"
    LeadloopAccount(api_url=emea.url, api_token=SecretStr("s3cret token")).save(f"{name}--emea")
    LeadloopAccount(api_token=SecretStr("t")).save(f"{name}--default")
    fault = f"account emea cannot be used here: api_token of {block} is wrong: it holds a blank"
    with pytest.raises(UsageError, match=fault):
        push_leads(["C2"], settings=RunSettings(block=name))
    assert push_leads(settings=RunSettings(block=name))["created"] == 1
    assert sql.fetch_statuses(database, "C2") == {"A": "new"}
    assert emea.requests == []
    assert fault in caplog.text
    assert "s3cret" not in caplog.text
    misnamed = f"block leadloop-account/{name}--default is no account's, and is not used"
    assert misnamed in caplog.text
    assert any(misnamed in line for line in resolve_settings(RunSettings(block=name)).list_faults())


def test_a_block_with_another_login_takes_no_account_of_the_worker(
    database: Database, vendor: SandboxHandle, emea: SandboxHandle, name: str
) -> None:
    """A staging run sends nothing with production's other logins."""
    factories.add_account_campaigns(database, "A")
    token = SecretStr(vendor.rules.tokens[0])
    LeadloopCredentials(api_url=vendor.url, api_token=token).save(name)
    assert push_leads(settings=RunSettings(block=name))["created"] == 1
    assert emea.requests == []
    assert sql.fetch_statuses(database, "C2") == {"A": "new"}


def test_both_blocks_may_name_the_same_address(environment: Path, name: str) -> None:
    """Another one in each is refused: it would not be clear which belongs to the login."""
    token = SecretStr("t")
    LeadloopCredentials(api_token=token, api_url="https://example.com/").save(name)
    LeadloopSettings(api_url="https://example.com").save(name)
    assert resolve_settings(RunSettings(block=name)).api_url == "https://example.com"
    LeadloopSettings(api_url="https://example.org").save(name, overwrite=True)
    blocks_ = f"block leadloop-credentials/{name} and block leadloop-settings/{name}"
    with pytest.raises(UsageError, match=f"^api_url differs between {blocks_}"):
        resolve_settings(RunSettings(block=name))


def test_a_run_starts_no_embedded_database(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a worker it would be gone with the run's directory: one line says what to write."""
    monkeypatch.setenv("LEADLOOP_DATABASE_URL", "embedded")
    with pytest.raises(UsageError, match="`embedded` is for local commands"):
        push_leads()
    assert not (environment / ".leadloop").exists()


def test_a_misspelt_setting_stops_a_run(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker's typing error does not leave a setting at its default unnoticed."""
    monkeypatch.setenv("LEADLOOP_BATCHSIZE", "5")
    with pytest.raises(UsageError, match="did you mean LEADLOOP_BATCH_SIZE"):
        push_leads()


@pytest.mark.usefixtures("environment")
def test_a_misspelt_setting_that_a_block_sets_stops_no_run(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its log warns, once for the stages of a sync too."""
    factories.add_campaign(database)
    LeadloopSettings(lookback=5).save(name)
    monkeypatch.setenv("LEADLOOP_LOKBACK", "7")
    with pytest.raises(UsageError, match="did you mean LEADLOOP_LOOKBACK"):
        sync_leads()
    caplog.clear()
    with caplog.at_level("WARNING"):
        sync_leads(settings=RunSettings(block=name))
    warned = [message for message in caplog.messages if "LEADLOOP_LOKBACK" in message]
    assert len(warned) == 1
    assert "LEADLOOP_LOOKBACK is set" in warned[0]


def test_half_a_login_does_not_win(
    environment: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The token of the environment is used where a block has a part of the other kind alone."""
    monkeypatch.setenv("LEADLOOP_API_TOKEN", "t")
    LeadloopCredentials(client_id="c", username="u").save(name)
    assert resolve_settings(RunSettings(block=name)).api_token == SecretStr("t")


def test_what_is_empty_in_a_block_says_nothing(
    environment: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Four empty parts are no login, and an empty address is none: the environment's count."""
    monkeypatch.setenv("LEADLOOP_API_TOKEN", "t")
    monkeypatch.setenv("LEADLOOP_TIMEOUT", "3,4")
    empty = SecretStr("")
    LeadloopCredentials(client_id="", client_secret=empty, username="", password=empty).save(name)
    LeadloopSettings(timeout="", lookback=0).save(name)
    settings = resolve_settings(RunSettings(block=name))
    assert (settings.api_token, settings.client_id) == (SecretStr("t"), None)
    assert (settings.timeout, settings.lookback) == ("3,4", 0)


def test_a_campaign_wins_over_all(
    database: Database, environment: Path, vendor: SandboxHandle
) -> None:
    """Its row is nearest to it: four leads in batches of two are two requests."""
    factories.add_campaign(database, batch_size=2)
    factories.add_leads(database, "A", "B", "C", "D")
    push_leads(settings=RunSettings(batch_size=4))
    assert sum(entry.kind == "create" for entry in vendor.requests) == 2


def test_the_server_shows_no_secret(prefect: str, environment: Path, name: str) -> None:
    """Whoever may read blocks but not their secrets sees stars."""
    LeadloopCredentials(api_token=SecretStr("s3cret-token"), password=SecretStr("s3cret")).save(
        name
    )
    wanted = {"block_documents": {"name": {"any_": [name]}}}
    answer = httpx.post(
        f"{prefect}/block_documents/filter", json=wanted, auth=prefect_login(), timeout=60
    )
    assert answer.status_code == 200
    assert name in answer.text
    assert "s3cret" not in answer.text
    assert "s3cret" not in repr(LeadloopCredentials.load(name))


def test_no_such_block(environment: Path) -> None:
    """One line names both kinds."""
    with pytest.raises(UsageError, match="leadloop-credentials/nobody or leadloop-settings/nobody"):
        resolve_settings(RunSettings(block="nobody"))


def test_a_wrong_value_says_where_it_stands(environment: Path, name: str) -> None:
    """So that nobody looks for it in the environment."""
    LeadloopSettings(batch_size=0).save(name)
    with pytest.raises(UsageError, match=f"batch_size of block leadloop-settings/{name} is wrong"):
        resolve_settings(RunSettings(block=name))


@pytest.mark.parametrize(
    ("kind", "field", "value", "said"),
    [
        ("settings", "batch_size", "s3cret", "write a whole number from 1 to 10000"),
        ("settings", "epoch_unit", ["s3cret"], "write ms or s"),
        ("credentials", "api_token", {"s3cret": 1}, "it is not text"),
        ("credentials", "database_url", "embedded", EMBEDDED_IS_LOCAL_ONLY),
    ],
)
def test_a_block_in_another_form_is_told(
    leadloop: Callable[..., Ran],
    prefect: str,
    environment: Path,
    name: str,
    kind: str,
    field: str,
    value: object,
    said: str,
) -> None:
    """Whoever made it by Prefect's API hears of the block and the field, and sees no value."""
    made = {"settings": LeadloopSettings, "credentials": LeadloopCredentials}[kind]
    made().save(name)
    with httpx.Client(base_url=prefect, auth=prefect_login(), timeout=60) as server:
        found = {"block_documents": {"name": {"any_": [name]}}}
        (document,) = server.post("/block_documents/filter", json=found).json()
        change = {"data": {field: value}, "merge_existing_data": False}
        server.patch(f"/block_documents/{document['id']}", json=change).raise_for_status()
    line = f"{field} of block leadloop-{kind}/{name} is wrong: {said}"
    with pytest.raises(UsageError) as caught:
        push_leads(settings=RunSettings(block=name))
    assert str(caught.value) == line
    ran = leadloop("doctor", "--block", name, PREFECT_API_URL=prefect)
    assert line in ran.out
    assert "s3cret" not in ran.out + ran.err
    assert "Traceback" not in ran.err


def test_every_setting_has_its_place_in_one_block() -> None:
    """A new setting is not forgotten there; and nothing secret can be a run's parameter."""
    kinds = (LeadloopCredentials, LeadloopSettings)
    names = [set(kind.model_fields) & set(Settings.model_fields) for kind in kinds]
    # The page is no run.
    assert set.union(*names) == set(Settings.model_fields) - {"monitor_database_url"}
    # The address belongs to the login, and stood among the settings first.
    assert set.intersection(*names) == {"api_url"}
    assert not set(RunSettings.model_fields) & set(LeadloopCredentials.model_fields)
    assert set(LeadloopAccount.model_fields) == set(ACCOUNT_SETTINGS)


def test_a_server_finds_the_blocks_by_itself() -> None:
    """Where leadloop is installed, Prefect knows its blocks without `prefect block register`."""
    (entry,) = entry_points(group="prefect.collections", name="leadloop")
    assert entry.load() is blocks


def test_doctor_says_where_values_come_from(
    leadloop: Callable[..., Ran],
    database: Database,
    prefect: str,
    environment: Path,
    vendor: SandboxHandle,
    name: str,
) -> None:
    """Sources and no values; a server that asks for a password is not warned of."""
    token = vendor.rules.tokens[0]
    credentials = f"block leadloop-credentials/{name}"
    LeadloopCredentials(api_token=SecretStr(token)).save(name)
    (environment / ".env").write_text("LEADLOOP_PAGE_SIZE=731\n")
    factories.add_campaign(database)
    asked = ("doctor", "--json", "--block", name)
    refused = leadloop(*asked, PREFECT_API_URL=prefect)
    (fault,) = [check for check in refused.last["checks"] if not check["ok"]]
    assert (refused.code, fault["check"]) == (2, "settings")
    assert f"from {credentials}, but api_url from the environment" in fault["detail"]
    LeadloopCredentials(api_token=SecretStr(token), api_url=vendor.url).save(name, overwrite=True)
    ran = leadloop(*asked, PREFECT_API_URL=prefect)
    said = {check["check"]: check for check in ran.last["checks"]}
    assert ran.code == 0
    assert f"api_url, api_token from {credentials}" in said["settings"]["detail"]
    assert "database_url, rate_limit" in said["settings"]["detail"]
    assert "page_size from .env" in said["settings"]["detail"]
    assert not said["Prefect authentication"]["warns"]
    assert token not in ran.out + ran.err
    # Ports and the block's name have digits too.
    assert "731" not in re.findall(r"\d+", said["settings"]["detail"].replace(name, ""))
