"""Commands on a database with campaigns of two accounts."""

import pytest

from db.database import Database
from leadloop.sandbox import SandboxHandle
from tests import factories, sql
from tests.cli.conftest import Command

_MISSING = "account emea has no login here: set LEADLOOP_ACCOUNT_EMEA_API_TOKEN"


@pytest.fixture(autouse=True)
def both(database: Database, emea: SandboxHandle) -> None:
    """C1 of the account `default` and C2 of `emea`, each with a lead."""
    factories.add_account_campaigns(database, "a")


def test_doctor_checks_each_account(
    invoke: Command, vendor: SandboxHandle, emea: SandboxHandle, prefect: str
) -> None:
    """Its login at its address; neither token is shown."""
    ran = invoke("doctor", "--json", PREFECT_API_URL=prefect)
    checks = {each["check"]: each for each in ran.last["checks"]}
    assert ran.code == 0
    assert checks["login"]["detail"] == "a fixed token, a fixed token of account emea"
    assert checks["API"]["detail"] == "answers for campaign C1"
    assert checks["API of account emea"]["detail"] == "answers for campaign C2"
    assert f"of account emea {emea.url}" in checks["settings"]["detail"]
    assert "account emea from the environment" in checks["settings"]["detail"]
    assert (len(vendor.requests), len(emea.requests)) == (1, 1)
    for handle in (vendor, emea):
        assert handle.rules.tokens[0] not in ran.out + ran.err


def test_doctor_warns_about_an_account_without_a_login(invoke: Command, prefect: str) -> None:
    """A worker may serve the others alone, so it is no fault."""
    changes = {"LEADLOOP_ACCOUNT_EMEA_API_TOKEN": "", "PREFECT_API_URL": prefect}
    ran = invoke("doctor", "--json", **changes)
    checks = {each["check"]: each for each in ran.last["checks"]}
    assert ran.code == 0
    assert checks["account emea"]["warns"]
    assert _MISSING in checks["account emea"]["detail"]
    assert "API of account emea" not in checks


def test_a_login_that_the_vendor_refuses_fails_its_check_alone(
    invoke: Command, prefect: str
) -> None:
    """The line names the account's own variable, and not its value."""
    changes = {"LEADLOOP_ACCOUNT_EMEA_API_TOKEN": "wrong-token", "PREFECT_API_URL": prefect}
    ran = invoke("doctor", "--json", **changes)
    (failed,) = [each for each in ran.last["checks"] if not each["ok"]]
    assert (ran.code, failed["check"]) == (1, "API of account emea")
    assert "check LEADLOOP_ACCOUNT_EMEA_API_TOKEN or" in failed["detail"]
    assert "wrong-token" not in ran.out + ran.err


def test_doctor_fails_on_a_wrong_setting_of_one_account(
    invoke: Command, vendor: SandboxHandle, emea: SandboxHandle, prefect: str
) -> None:
    """The other accounts are checked all the same."""
    changes = {"LEADLOOP_ACCOUNT_EMEA_RATE_LIMIT": "s3cret", "PREFECT_API_URL": prefect}
    ran = invoke("doctor", "--json", **changes)
    (failed,) = [each for each in ran.last["checks"] if not each["ok"]]
    assert (ran.code, failed["check"]) == (1, "accounts")
    line = "account emea cannot be used here: LEADLOOP_ACCOUNT_EMEA_RATE_LIMIT is wrong: write"
    assert failed["detail"].startswith(line)
    assert "s3cret" not in ran.out + ran.err
    assert (len(vendor.requests), len(emea.requests)) == (1, 0)


def test_doctor_checks_an_account_whose_campaigns_are_all_disabled(
    invoke: Command, database: Database, emea: SandboxHandle, prefect: str
) -> None:
    """Before they are enabled is when a person wants to know."""
    sql.execute(database, "UPDATE leadloop.campaigns SET enabled = false WHERE account = 'emea'")
    ran = invoke("doctor", "--json", PREFECT_API_URL=prefect)
    checks = {each["check"]: each for each in ran.last["checks"]}
    assert checks["API of account emea"]["detail"] == "answers for campaign C2"
    assert len(emea.requests) == 1


def test_doctor_warns_about_an_account_that_no_campaign_names(
    invoke: Command, database: Database, vendor: SandboxHandle, emea: SandboxHandle, prefect: str
) -> None:
    """An OAuth login is tried; nothing proves a token without a campaign to ask about."""
    sql.execute(database, "DELETE FROM leadloop.campaigns WHERE account = 'emea'")
    ran = invoke("doctor", "--json", PREFECT_API_URL=prefect)
    checks = {each["check"]: each for each in ran.last["checks"]}
    unused = checks["API of account emea"]
    assert (unused["ok"], unused["warns"], emea.requests) == (True, True, [])
    assert unused["detail"].endswith("so no request proves it: its token was not tried")
    login = {
        f"LEADLOOP_ACCOUNT_EMEA_{name.upper()}": getattr(emea.rules, name)
        for name in ("client_id", "client_secret", "username")
    }
    changes = {**login, "LEADLOOP_ACCOUNT_EMEA_API_TOKEN": "", "PREFECT_API_URL": prefect}
    for password, is_ok in ((emea.rules.password, True), ("wrong", False)):
        ran = invoke("doctor", "--json", **changes, LEADLOOP_ACCOUNT_EMEA_PASSWORD=password)
        checks = {each["check"]: each for each in ran.last["checks"]}
        assert checks["API of account emea"]["ok"] == is_ok
    assert {request.kind for request in emea.requests} == {"token"}


def test_one_login_under_two_names_is_refused(
    invoke: Command, vendor: SandboxHandle, emea: SandboxHandle
) -> None:
    """The vendor would count both together, and each would use the whole limit."""
    ran = invoke(
        "push",
        LEADLOOP_ACCOUNT_EMEA_API_URL=vendor.url,
        LEADLOOP_ACCOUNT_EMEA_API_TOKEN=vendor.rules.tokens[0],
    )
    assert ran.code == 2
    assert "the accounts default and emea have the same login at the same address" in ran.err
    assert vendor.requests == emea.requests == []


def test_a_push_leaves_alone_what_has_no_login(
    invoke: Command, database: Database, emea: SandboxHandle, prefect: str
) -> None:
    """Exit code 0, and one line; named, it is refused with exit code 2."""
    changes = {"LEADLOOP_ACCOUNT_EMEA_API_TOKEN": "", "PREFECT_API_URL": prefect}
    ran = invoke("push", "--json", **changes)
    assert (ran.code, ran.last["created"], set(ran.last["campaigns"])) == (0, 1, {"C1"})
    ran = invoke("push", "--campaign", "C2", **changes)
    assert ran.code == 2
    (line,) = [line for line in ran.err.splitlines() if line.startswith("leadloop: ")]
    assert line.startswith(f"leadloop: campaign C2: left alone, because {_MISSING}")
    assert emea.requests == []
    assert sql.fetch_statuses(database, "C2") == {"a": "new"}


def test_commands_that_send_nothing_need_no_login_of_any_account(
    invoke: Command, database: Database, emea: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A preview, a status, and what makes leads new again."""
    for name in ("LEADLOOP_API_TOKEN", "LEADLOOP_ACCOUNT_EMEA_API_TOKEN"):
        monkeypatch.delenv(name)
    assert invoke("plan", "--json").last["send"] == 2
    sql.execute(database, "UPDATE leadloop.leads SET status = 'rejected'")
    ran = invoke("requeue", "--rejected", "--campaign", "C2", "--json")
    assert ran.last["rejected"] == 1
    campaigns = invoke("status", "--json").last["campaigns"]
    assert {each["campaign_id"]: each["account"] for each in campaigns} == {
        "C1": "default",
        "C2": "emea",
    }


def test_status_names_accounts_other_than_the_default(invoke: Command, database: Database) -> None:
    """In the table of all campaigns, and in that of one; with one account it names none."""
    ran = invoke("status")
    assert "C2 @emea" in ran.out
    assert "@ account" in ran.out
    lines = invoke("status", "--campaign", "C2").out.splitlines()
    assert ["account", "emea"] in [line.replace("│", " ").split() for line in lines]
    sql.execute(database, "UPDATE leadloop.campaigns SET account = 'default'")
    assert "@" not in invoke("status").out
    assert "account" not in invoke("status", "--campaign", "C2").out
