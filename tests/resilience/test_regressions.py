"""Bugs that the resilience tests have found, each as a minimal case."""

import pytest

from db.database import Database
from leadloop.sandbox import SandboxHandle
from tests import factories
from tests.factories import CAMPAIGN
from tests.jobs import push_leads

pytestmark = pytest.mark.usefixtures("environment", "quick_retries")


def test_lookup_with_count_but_no_row_proves_no_absence(
    database: Database, vendor: SandboxHandle
) -> None:
    """A page with count 1 and no row does not prove that the lead is absent."""
    vendor.change_rules(repeat="second")
    factories.add_campaign(database, shows_unprocessed=True)
    factories.add_leads(database, "a")
    vendor.add_fault(route="create", kind="reset", when="after", nth=1)
    vendor.add_fault(route="responses", kind="shift", rows=1, nth=1)
    push_leads()
    assert vendor.store.creations(CAMPAIGN) == {"a": 1}
