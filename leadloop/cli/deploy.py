"""`leadloop deploy`: prefect.yaml onto the server that runs on schedules."""

import os

from leadloop import whole_prefect
from leadloop.cli import stage
from leadloop.core.errors import UsageError


def deploy() -> str:
    """Deploy to the server of PREFECT_API_URL, or of Prefect's profile. Returns its address.

    Raises:
        UsageError: no server is named, it is of no use, or it does not take prefect.yaml.
    """
    address = stage.prefect_address()
    if address is None:
        raise UsageError(
            "PREFECT_API_URL is not set: name the Prefect server to deploy to, as"
            " http://127.0.0.1:4200/api; `prefect server start` starts one"
        )
    from flows.by_hand import require_server

    require_server()
    whole_prefect.deploy(os.environ)
    return address
