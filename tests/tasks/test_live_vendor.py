"""Whether the vendor answers a live run at all."""

import logging
import math
from collections.abc import Callable

import pytest

from leadloop.client.errors import ApiError, Fatal, RateLimited, Rejected, Retryable
from leadloop.core.verdicts import ApiCall, ApiResponse
from tasks import live_vendor
from tasks.live_vendor import VendorWatch

SILENT = Retryable(ApiCall.READ, ApiResponse(status=503))
PAUSED = RateLimited(ApiCall.READ, ApiResponse(status=429))
ANSWERS = [
    Rejected(ApiCall.READ, ApiResponse(status=400)),
    Fatal(ApiCall.READ, ApiResponse(status=403)),
]


def fails_with(error: ApiError) -> Callable[[], object]:
    """A read that fails."""

    def read() -> object:
        raise error

    return read


@pytest.fixture
def vendor() -> VendorWatch:
    """The watch of a vendor that has answered so far."""
    return VendorWatch(logging.getLogger("leadloop.tests"), "https://vendor")


def test_an_outage_is_logged_when_it_begins_and_when_it_ends(
    vendor: VendorWatch, caplog: pytest.LogCaptureFixture
) -> None:
    """However long it takes."""
    caplog.set_level(logging.INFO)
    assert not vendor.is_out
    assert vendor.probe(lambda: None)
    assert caplog.messages == []
    for _ in range(5):
        assert not vendor.probe(fails_with(SILENT))
    assert vendor.is_out
    assert vendor.probe(lambda: None)
    assert not vendor.is_out
    begun, ended = caplog.messages
    assert begun.startswith("https://vendor does not answer (read: HTTP 503)")
    assert ended.startswith("https://vendor answers again")


def test_probes_become_ever_more_seldom(
    vendor: VendorWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After 1, 2, 4 … seconds, at least once a minute."""
    now = 1000.0
    monkeypatch.setattr(live_vendor, "read_boot_clock", lambda: now)
    waited = []
    assert vendor.next_probe_at == math.inf, "nothing has failed"
    for _ in range(8):
        vendor.probe(fails_with(SILENT))
        waited.append(vendor.next_probe_at - now)
        now = vendor.next_probe_at
    assert waited == [1, 2, 4, 8, 16, 32, 60, 60]


@pytest.mark.parametrize("error", ANSWERS, ids=lambda error: type(error).__name__)
def test_whoever_refuses_answers(vendor: VendorWatch, error: ApiError) -> None:
    """Then the job that failed has failed for its own reason."""
    assert vendor.probe(fails_with(error))
    assert not vendor.is_out


def test_a_vendor_that_asks_for_a_pause_gets_one(vendor: VendorWatch) -> None:
    """Nothing but the next probe is sent."""
    assert not vendor.probe(fails_with(PAUSED))
    assert vendor.is_out
