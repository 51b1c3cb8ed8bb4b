"""Leads that the vendor gets from another client than ours."""

from typing import Any

import requests

from leadloop.sandbox import SandboxHandle
from tests.factories import CAMPAIGN


def create_elsewhere(vendor: SandboxHandle, *leads: dict[str, Any]) -> None:
    """Create leads at the vendor."""
    response = requests.post(
        f"{vendor.url}/api/v1/leads/create/{CAMPAIGN}/",
        json=list(leads),
        headers={"Authorization": f"Bearer {vendor.rules.tokens[0]}"},
        timeout=30,
    )
    assert response.status_code == 201, response.text
