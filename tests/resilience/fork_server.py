"""A fork server: imports `leadloop` once, then forks a process for each line on stdin.

A line is a JSON object: `job` or `arguments`, `environment`, `directory`, `out` and `err` (files).
The child runs a job without Prefect, or the command `leadloop` with these arguments. The response
is the child's process id, a line on stdout. The fork precedes every thread, so a child equals a
process after its imports, two seconds sooner.
"""

import json
import os
import signal
import sys
from typing import Any, NoReturn

import flows.local_runs  # noqa: F401 - imported here once, so that children need not
from leadloop.cli.main import main
from leadloop.core.errors import LeadloopError
from leadloop.core.summaries import collect_summary
from tests.jobs import JOBS


def run_request(request: dict[str, Any]) -> None:
    """Run the requested job or command in this process, in a new session."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, name in ((0, os.devnull), (1, request["out"]), (2, request["err"])):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), number)
    os.environ.update(request["environment"])
    os.chdir(request["directory"])
    if request["job"] is None:
        sys.argv = ["leadloop", *request["arguments"]]
        main()
    else:
        run_job(request["job"])


def run_job(name: str) -> NoReturn:
    """Run a job, print its summary as `leadloop --json` does, and exit."""
    failure: dict[str, str] = {}
    with collect_summary() as collected:
        try:
            JOBS[name]()
        except LeadloopError as error:
            failure = {"error": str(error)}
    print(json.dumps({**collected.summary, **failure}), flush=True)
    os._exit(bool(failure))


if __name__ == "__main__":
    # No parent waits for the children: the kernel reaps them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run_request(json.loads(line))
        print(child, flush=True)
