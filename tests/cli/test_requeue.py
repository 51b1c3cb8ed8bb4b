"""`leadloop requeue`."""

from db.database import Database
from leadloop.sandbox import SandboxHandle
from tests import factories, sql
from tests.cli.conftest import Command


def test_a_lead_that_cannot_be_requeued_is_named(invoke: Command, database: Database) -> None:
    """An id that nobody has, and why nothing of a known lead was requeued."""
    factories.add_campaign(database)
    factories.add_leads(database, "a", "b", "c")
    factories.add_opt_outs(database, "b", "d")
    sql.execute(database, "UPDATE leadloop.leads SET status = 'rejected' WHERE lead_id <> 'a'")
    ran = invoke("requeue", "--rejected", "--lead-id", "c", "--lead-id", "C-9999")
    assert ran.code == 2
    assert "nothing is known of C-9999 in campaign C1; nothing was requeued" in ran.err
    named = [part for lead_id in "abcd" for part in ("--lead-id", lead_id)]
    ran = invoke("requeue", "--rejected", *named, "--json")
    assert (ran.code, ran.last) == (0, {"rejected": 1})
    opted_out = "and has opted out: leadloop opt-in withdraws an opt-out"
    assert ran.err.splitlines() == [
        "lead a of campaign C1 is new: nothing to requeue",
        f"lead b of campaign C1 is rejected, {opted_out}",
        f"lead d of campaign C1 is no lead, {opted_out}",
    ]


def test_requeue_sends_mended_leads_again(
    invoke: Command, database: Database, vendor: SandboxHandle, prefect: str
) -> None:
    """A rejected lead that upstream has mended goes out after a requeue, and not before."""
    factories.add_campaign(database)
    factories.add_leads(database, factories.build_lead("a", state_code="XX"))
    invoke("push", PREFECT_API_URL=prefect)
    sql.execute(database, "UPDATE leadloop.leads SET state_code = 'CA'")
    assert invoke("push", "--json", PREFECT_API_URL=prefect).last["created"] == 0
    assert invoke("requeue", "--rejected", "--json").last == {"rejected": 1}
    assert invoke("push", "--json", PREFECT_API_URL=prefect).last["created"] == 1
