"""`leadloop doctor`."""

import pytest

from db.database import Database
from leadloop.sandbox import SandboxHandle
from tests import factories, sql
from tests.cli.conftest import Command
from tests.cli.test_database_checks import get_checks


@pytest.mark.parametrize(
    ("changes", "code", "failing"),
    [
        ({}, 0, []),
        ({"LEADLOOP_API_TOKEN": "wrong-token"}, 1, ["API"]),
        (
            {"LEADLOOP_API_TOKEN": "", "PREFECT_API_URL": "http://127.0.0.1:1/api"},
            2,
            ["login", "Prefect"],
        ),
        ({"LEADLOOP_DATABASE_URL": "postgresql://127.0.0.1:1/x"}, 1, ["database"]),
        ({"LEADLOOP_DATABASE_URL": "mysql://127.0.0.1:1/x"}, 2, ["settings"]),
        ({"LEADLOOP_DATABASE_URL": ""}, 2, ["settings"]),
        ({"LEADLOOP_BATCHSIZE": "5"}, 2, ["settings"]),
    ],
)
def test_doctor_finds_what_is_wrong(
    leadloop: Command,
    invoke: Command,
    database: Database,
    prefect: str,
    changes: dict[str, str],
    code: int,
    failing: list[str],
) -> None:
    """Exit 2 for settings, 1 for what does not answer; what rests on neither is looked at still."""
    factories.add_campaign(database)
    # Prefect reads its settings when it is imported.
    run = leadloop if "PREFECT_API_URL" in changes else invoke
    ran = run("doctor", "--json", **{"PREFECT_API_URL": prefect, **changes})
    assert ran.code == code
    assert [check["check"] for check in ran.last["checks"] if not check["ok"]] == failing
    assert ran.last["checks"][-1]["check"].startswith("Prefect")
    assert "wrong-token" not in ran.out + ran.err


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (
            "http://127.0.0.1:1",
            "http://127.0.0.1:1: read: no connection (ConnectionRefusedError): check"
            " LEADLOOP_API_URL, the network and the vendor's status",
        ),
        (None, "read: HTTP 404; the vendor does not know this campaign or address: check"),
    ],
)
def test_the_address_of_a_vendor_that_does_not_answer(
    invoke: Command,
    database: Database,
    vendor: SandboxHandle,
    prefect: str,
    url: str | None,
    said: str,
) -> None:
    """The line names what was asked, and what to check; also where another server answers."""
    factories.add_campaign(database)
    url = url or f"{vendor.url}/elsewhere"
    ran = invoke("doctor", "--json", LEADLOOP_API_URL=url, PREFECT_API_URL=prefect)
    detail = get_checks(ran)["API"]["detail"]
    assert detail.startswith(url)
    assert said in detail


def test_calling_hours_that_cannot_be_read(
    invoke: Command, database: Database, prefect: str
) -> None:
    """A warning: live runs go on without them."""
    factories.add_campaign(database, "C1", calling_hours="08:00-21:00 Europe/Berlin")
    factories.add_campaign(database, "C2", calling_hours="08:00-21:00 Mars/Base")
    ran = invoke("doctor", "--json", PREFECT_API_URL=prefect)
    checks = {each["check"]: each for each in ran.last["checks"]}
    assert not checks["calling hours of C1"]["warns"]
    assert checks["calling hours of C2"]["warns"]
    assert "unknown time zone" in checks["calling hours of C2"]["detail"]


def test_triggers_that_do_not_count(invoke: Command, database: Database, prefect: str) -> None:
    """A warning names the table: the views would show too little."""
    factories.add_campaign(database)
    sql.execute(database, "ALTER TABLE leadloop.lead_outcomes DISABLE TRIGGER count_updates")
    ran = invoke("doctor", "--json", PREFECT_API_URL=prefect)
    (check,) = [each for each in ran.last["checks"] if each["check"] == "counts"]
    assert check["warns"]
    assert "on leadloop.lead_outcomes, so" in check["detail"]
    assert "then run `leadloop init --counts all`" in check["detail"]


def test_a_vendor_with_a_single_token(
    invoke: Command, database: Database, vendor: SandboxHandle, prefect: str
) -> None:
    """Runs at the same time would log in again and again: they work, and it is said."""
    factories.add_campaign(database)
    login = {
        f"LEADLOOP_{name.upper()}": str(getattr(vendor.rules, name))
        for name in ("client_id", "client_secret", "username", "password")
    }
    for single in (False, True):
        vendor.change_rules(single_token=single)
        ran = invoke("doctor", "--json", LEADLOOP_API_TOKEN="", PREFECT_API_URL=prefect, **login)
        assert ran.code == 0
        assert get_checks(ran)["concurrent logins"]["warns"] is single


def test_a_proxy_that_cannot_be_used(invoke: Command, database: Database, prefect: str) -> None:
    """The line names the variable."""
    factories.add_campaign(database)
    api = {"LEADLOOP_API_URL": "https://api.example.com", "LEADLOOP_API_TOKEN": "x"}
    ran = invoke(
        "doctor", "--json", HTTPS_PROXY="socks5://127.0.0.1:1", PREFECT_API_URL=prefect, **api
    )
    assert "HTTPS_PROXY" in get_checks(ran)["API"]["detail"]
    assert not get_checks(ran)["API"]["ok"]


def test_a_default_region_that_is_no_region(
    invoke: Command, database: Database, prefect: str
) -> None:
    """Doctor, plan, push and forget name it, and the other campaign is pushed."""
    factories.add_campaign(database, "C1")
    factories.add_campaign(database, "C2", default_region="UK")
    factories.add_leads(database, "a")
    factories.add_leads(database, "b", campaign="C2")
    said = "default_region of campaign C2: 'UK' is no region (GB is meant?)"
    ran = invoke("doctor", "--json", PREFECT_API_URL=prefect)
    checks = {each["check"]: each for each in ran.last["checks"]}
    assert ran.code == 1
    assert said in checks["default region of C2"]["detail"]
    assert "default region of C1" not in checks
    assert said in invoke("plan").err
    assert said in invoke("forget", "--yes", "-c", "C2", "--lead-id", "b").err
    ran = invoke("push", "--json", PREFECT_API_URL=prefect)
    assert (ran.code, ran.last["created"], ran.last["rejected"]) == (1, 1, 0)
    assert said in ran.last["error"]
    sql.execute(
        database, "UPDATE leadloop.campaigns SET default_region = 'US' WHERE campaign_id = 'C2'"
    )
    assert invoke("push", "--json", PREFECT_API_URL=prefect).last["created"] == 1
