"""The work pool and the deployments of prefect.yaml, put on a server by Prefect's own commands."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from leadloop.core.errors import UsageError
from leadloop.core.work_pools import settable_variables
from leadloop.shipped_files import SHIPPED_FILES

#: Prefect's command. -P: a prefect.py in the working directory is not imported in its place.
PREFECT = (sys.executable, "-P", "-m", "prefect")
#: The work pool that prefect.yaml names.
WORK_POOL = "leadloop"
#: The work queue of `live-leads`, and its limit: one run works, one waits, and one ends. Prefect
#: counts runs whose machine is gone, until another run marks them: three of them must not fill it.
LIVE_QUEUE, _LIVE_RUNS = "live", 6
#: The pool's base job template: runs can set neither a command, an environment nor a folder.
JOB_TEMPLATE = Path(__file__).with_name("work_pool.json")
_PREFECT_YAML = SHIPPED_FILES / "prefect.yaml"


def deploy_flows(environment: Mapping[str, str]) -> list[str]:
    """Create the work pool if missing, and create or update the deployments of prefect.yaml.

    Schedules a run of `live-leads` for now, which a worker starts as soon as it is there.

    An existing pool stays as its operators have it: paused, limited, of another type, with another
    job template.

    Args:
        environment: of Prefect's commands; names the server.

    Returns:
        The job variables by which a run decides what is executed, in an existing pool; see
        `settable_variables`.

    Raises:
        UsageError: prefect.yaml is missing, or Prefect rejects it.
    """
    if not _PREFECT_YAML.exists():
        raise UsageError(f"{_PREFECT_YAML} is missing: run this from a checkout of leadloop")
    pool = _call_prefect(environment, "work-pool", "inspect", WORK_POOL, "--output", "json")
    if pool.returncode:
        template = ("--base-job-template", str(JOB_TEMPLATE))
        _run_prefect(environment, "work-pool", "create", WORK_POOL, "--type", "process", *template)
    _run_prefect(environment, "--no-prompt", "deploy", "--all")
    limit = ("set-concurrency-limit", LIVE_QUEUE, str(_LIVE_RUNS), "--pool", WORK_POOL)
    _run_prefect(environment, "work-queue", *limit)
    schedule_run(environment, "live-leads/default")
    if pool.returncode:
        return []
    return settable_variables(json.loads(pool.stdout)["base_job_template"])


def schedule_run(environment: Mapping[str, str], deployment: str) -> None:
    """Schedule a run of a deployment for now; it starts once a worker is there.

    Raises:
        UsageError: Prefect does not know the deployment.
    """
    _run_prefect(environment, "deployment", "run", deployment)


def _run_prefect(environment: Mapping[str, str], *arguments: str) -> None:
    """Run Prefect's command.

    Raises:
        UsageError: the command failed.
    """
    result = _call_prefect(environment, *arguments)
    if result.returncode:
        lines = (result.stdout + result.stderr).strip().splitlines() or ["it printed nothing"]
        raise UsageError(f"`prefect {' '.join(arguments)}` failed: {lines[-1]}")


def _call_prefect(
    environment: Mapping[str, str], *arguments: str
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*PREFECT, *arguments],
        cwd=_PREFECT_YAML.parent,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
