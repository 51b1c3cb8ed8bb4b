"""What the tests under fire have found, each as small as it can be."""

import pytest

from db.database import Database
from flows.push import push_leads
from leadloop.sandbox import Handle
from tests import factories
from tests.factories import CAMPAIGN

pytestmark = pytest.mark.usefixtures("environment", "quick_retries")


def test_a_lookup_that_counts_a_lead_and_does_not_show_it_proves_nothing(
    database: Database, vendor: Handle
) -> None:
    """A page that says count 1 and holds no row is not the absence of the lead."""
    vendor.change(repeat="second")
    factories.add_campaign(database, shows_unprocessed=True)
    factories.add_leads(database, "a")
    vendor.fault(route="create", kind="reset", when="after", nth=1)
    vendor.fault(route="responses", kind="shift", rows=1, nth=1)
    push_leads()
    assert vendor.books.creations(CAMPAIGN) == {"a": 1}
