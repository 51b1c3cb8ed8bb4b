"""`leadloop audit` as a person or a script meets it: real processes."""

import re
from pathlib import Path

import requests

from db.database import Database
from leadloop.core.audit_differences import DIFFERENCES, REMARKS
from leadloop.sandbox import SandboxHandle
from tests import factories, sql
from tests.cli.conftest import Command
from tests.factories import CAMPAIGN

_GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "operate.md"
_RECOVER = _GUIDE.read_text(encoding="utf-8").partition("## Recover\n")[2].partition("\n## ")[0]


def test_differences_are_findings_not_failure(
    invoke: Command, database: Database, prefect: str
) -> None:
    """Exit 0 with a table of what differs and some ids; `--repair` mends it, and says so."""
    factories.add_campaign(database)
    factories.add_leads(database, "a", "b[red]", "c")
    invoke("push", PREFECT_API_URL=prefect)
    sql.execute(database, "UPDATE leadloop.leads SET status = 'in_doubt' WHERE lead_id < 'c'")
    factories.add_campaign(database, "C[red]")
    ran = invoke("audit", PREFECT_API_URL=prefect)
    assert (ran.code, "audit of C[red]" in ran.out) == (0, True)
    (line,) = [line for line in ran.out.splitlines() if "in doubt there" in line]
    assert "a, b[red]" in line
    assert "missing there" not in ran.out

    repaired = invoke("audit", "--repair", "--json", PREFECT_API_URL=prefect)
    assert (repaired.code, repaired.last["repaired_leads"]) == (0, 2)
    assert repaired.last["campaigns"]["C1"]["samples"] == {"in_doubt_there": ["a", "b[red]"]}
    again = invoke("audit", "--json", PREFECT_API_URL=prefect).last
    assert set(again) == {"pages", "seen", *DIFFERENCES, *REMARKS, "requests", "campaigns"}
    assert [name for name in (*DIFFERENCES, *REMARKS) if again[name]] == []


def test_an_audit_that_could_not_be_completed_is_a_failure(
    invoke: Command, database: Database, vendor: SandboxHandle, prefect: str
) -> None:
    """Exit 1, with what was found all the same, and one line that says why."""
    factories.add_campaign(database, page_size=1)
    factories.add_leads(database, "a", "b")
    invoke("push", PREFECT_API_URL=prefect)
    vendor.add_fault(route="responses", kind="shift", every=1, rows=1)
    ran = invoke("audit", "--json", PREFECT_API_URL=prefect)
    assert (ran.code, ran.last["seen"], ran.last["missing_there"]) == (1, 1, 0)
    assert "changed during all 4 reads" in ran.last["error"]
    assert "Traceback" not in ran.err


def test_the_commands_of_a_recovery(
    invoke: Command, database: Database, vendor: SandboxHandle, prefect: str
) -> None:
    """Each that the guide names works in its order, also for a campaign that is not enabled."""
    factories.add_campaign(database, enabled=False)
    factories.add_leads(database, "a", "b")
    invoke("push", "--campaign", CAMPAIGN, PREFECT_API_URL=prefect)
    sql.execute(database, "UPDATE leadloop.leads SET status = 'new', sent_at = NULL")
    factories.add_opt_outs(database, "a")
    steps = re.findall(r"`leadloop ((?:restored|audit|disable|backfill)[^`]*)`", _RECOVER)
    assert len(steps) == 4
    told = {"C": CAMPAIGN, "T": "2026-01-01T00:00Z", "NOW": "2026-01-02T00:00Z"}
    for step in steps:
        arguments = [told.get(word, word) for word in step.split()]
        ran = invoke(*arguments, PREFECT_API_URL=prefect)
        assert ran.code == 0, ran.err
    assert sql.fetch_statuses(database) == {"a": "created", "b": "created"}
    assert list(vendor.store.disabled(CAMPAIGN)) == ["a"]


def test_an_audit_explains_itself(invoke: Command) -> None:
    """`--help` names its options."""
    said = invoke("audit", "--help").out
    assert all(option in said for option in ("--campaign", "--repair", "--json"))


def test_nothing_personal_is_told(
    leadloop: Command, database: Database, vendor: SandboxHandle, environment: Path
) -> None:
    """No phone number or name on the screen (DEBUG too), in Prefect's database or in the run's row.

    Not even where they are what differs.
    """
    secret = {"phone_number": "+14155550177", "contact_name": "Zebulon Quirk", "state_code": "CA"}
    response = requests.post(
        f"{vendor.url}/api/v1/leads/create/C1/",
        json=[{"lead_id": lead_id, **secret} for lead_id in ("a", "stranger", "doubt")],
        headers={"Authorization": f"Bearer {vendor.rules.tokens[0]}"},
        timeout=30,
    )
    assert response.status_code == 201
    vendor.put_outcomes(
        [{"campaign_id": "C1", "lead_id": "doubt", "outcome_id": 1, "note": "Zebulon"}]
    )
    factories.add_campaign(database)
    factories.add_leads(database, "a", "doubt")
    sql.execute(database, "UPDATE leadloop.leads SET status = 'in_doubt' WHERE lead_id = 'doubt'")
    sql.execute(database, "UPDATE leadloop.leads SET status = 'created' WHERE lead_id = 'a'")
    ran = leadloop("audit", "--json", "--repair", PREFECT_LOGGING_LEVEL="DEBUG")
    found = {name for name in DIFFERENCES if ran.last[name]}
    assert found >= {"phone_differs", "name_differs", "missing_here", "in_doubt_there"}
    kept = b"".join(path.read_bytes() for path in environment.rglob("*") if path.is_file())
    runs = str(sql.fetch_rows(database, "SELECT * FROM leadloop.sync_runs"))
    for private in ("4155550177", "Zebulon", "Ann a", vendor.rules.tokens[0]):
        assert private not in ran.out + ran.err + runs
        assert private.encode() not in kept
