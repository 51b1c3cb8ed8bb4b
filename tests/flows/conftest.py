"""Fixtures of the tests of flows."""

from collections.abc import Iterator

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client


@pytest.fixture
def client(prefect: str) -> Iterator[SyncPrefectClient]:
    """The Prefect server as an operator's tool sees it."""
    with get_client(sync_client=True) as opened:
        yield opened
