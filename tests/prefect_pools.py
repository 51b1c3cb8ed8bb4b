"""Work pools of the tests' Prefect server."""

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import WorkPool

from leadloop.deployments import WORK_POOL


def read_work_pool() -> WorkPool:
    """Return the work pool of prefect.yaml as it is now."""
    with get_client(sync_client=True) as client:
        return client.read_work_pool(WORK_POOL)
