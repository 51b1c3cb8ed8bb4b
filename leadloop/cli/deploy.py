"""`leadloop deploy`: prefect.yaml onto the server that runs on schedules."""

import os
import shlex
import sys
from collections.abc import Sequence

from leadloop import deployments
from leadloop.cli import environment
from leadloop.core.errors import UsageError


def deploy_flows() -> str:
    """Deploy to the server of PREFECT_API_URL, or of Prefect's profile. Returns its address.

    Warns on stderr where the work pool lets a run decide what is executed.

    Raises:
        UsageError: no server is named, it is of no use, or it does not take prefect.yaml.
    """
    address = environment.find_prefect_url()
    if address is None:
        raise UsageError(
            "PREFECT_API_URL is not set: name the Prefect server to deploy to, as"
            " http://127.0.0.1:4200/api; `prefect server start` starts one"
        )
    from flows.prefect_api import check_api_reachable

    check_api_reachable()
    settable = deployments.deploy_flows(os.environ)
    if settable:
        print(_format_pool_warning(settable), file=sys.stderr)
    return address


def _format_pool_warning(settable: Sequence[str]) -> str:
    pool, template = deployments.WORK_POOL, shlex.quote(str(deployments.JOB_TEMPLATE))
    return (
        f"leadloop: in the work pool {pool}, which was there before, each run may set"
        f" {', '.join(settable)}; to close a process pool:"
        f" prefect work-pool update {pool} --base-job-template {template}"
    )
