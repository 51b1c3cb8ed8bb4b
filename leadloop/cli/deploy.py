"""`leadloop deploy`: put the deployments of prefect.yaml on the server that runs the schedules."""

import os
import shlex
import sys

from leadloop import deployments
from leadloop.cli import environment
from leadloop.core.errors import UsageError


def deploy_to_server() -> str:
    """Deploy prefect.yaml to the server of PREFECT_API_URL, or of Prefect's profile.

    Warns on stderr if the work pool lets a run choose what is executed.

    Returns:
        The server's API URL.

    Raises:
        UsageError: no server is named, the server cannot be used, or it rejects prefect.yaml.
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
        pool, template = deployments.WORK_POOL, shlex.quote(str(deployments.JOB_TEMPLATE))
        print(
            f"leadloop: in the work pool {pool}, which was there before, each run may set"
            f" {', '.join(settable)}; to close a process pool:"
            f" prefect work-pool update {pool} --base-job-template {template}",
            file=sys.stderr,
        )
    return address
