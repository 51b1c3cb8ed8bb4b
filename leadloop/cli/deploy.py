"""`leadloop deploy`: put the deployments of prefect.yaml on the server that runs the schedules."""

import os
import shlex
import sys

from leadloop import whole_prefect
from leadloop.cli import environment
from leadloop.core.errors import UsageError


def deploy_flows() -> str:
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
    from flows.local_runs import check_api_reachable

    check_api_reachable()
    settable = whole_prefect.deploy(os.environ)
    if settable:
        pool, template = whole_prefect.POOL, shlex.quote(str(whole_prefect.JOB_TEMPLATE))
        print(
            f"leadloop: in the work pool {pool}, which was there before, each run may set"
            f" {', '.join(settable)}; to close a process pool:"
            f" prefect work-pool update {pool} --base-job-template {template}",
            file=sys.stderr,
        )
    return address
