"""`leadloop requeue`."""

from db.database import Database
from leadloop.sandbox import SandboxHandle
from tests import factories, sql
from tests.cli.conftest import Command


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
