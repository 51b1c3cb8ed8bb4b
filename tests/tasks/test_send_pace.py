"""How many creates a push has under way at once, counted by the vendor."""

import pytest

from db.database import Database
from leadloop.sandbox import SandboxHandle
from tests import factories, sql
from tests.jobs import push_leads

pytestmark = pytest.mark.usefixtures("quick_retries", "environment")

_LEADS = 80
_LATENCY_S = 0.3


def push_to_far_vendor(database: Database, vendor: SandboxHandle) -> int:
    """Push leads one by one to a vendor that answers late; return the most requests at once."""
    factories.add_campaign(database, batch_size=1)
    factories.add_leads(database, *[f"L{number:03d}" for number in range(_LEADS)])
    vendor.change_rules(latency=_LATENCY_S)
    push_leads()
    assert set(sql.fetch_statuses(database).values()) == {"created"}
    # Each request stays longer than this: those that arrive within it are there at once.
    return vendor.count_busiest(_LATENCY_S * 0.95, ["create"])


def test_a_far_vendor_gets_more_at_once(database: Database, vendor: SandboxHandle) -> None:
    """Each lead once, and no more at once than a killed run may leave in doubt."""
    assert 4 < push_to_far_vendor(database, vendor) <= 12
    assert set(vendor.store.creations(factories.CAMPAIGN).values()) == {1}


@pytest.mark.parametrize("bound", [1, 6])
def test_the_setting_is_the_bound(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch, bound: int
) -> None:
    """One request after the other, where it is 1."""
    monkeypatch.setenv("LEADLOOP_CONCURRENCY", str(bound))
    assert push_to_far_vendor(database, vendor) <= bound


def test_a_rate_limit_that_is_used_up_has_no_more_at_once(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More requests at once would use the slots no faster."""
    monkeypatch.setenv("LEADLOOP_RATE_LIMIT", "10/1")
    assert push_to_far_vendor(database, vendor) <= 4
