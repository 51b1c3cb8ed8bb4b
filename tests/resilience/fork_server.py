"""A fork server: imports `leadloop` once, then forks a process for each line on stdin.

A line is a JSON object: `arguments`, `environment`, `directory`, `out` and `err` (files). The
response is the child's process id, a line on stdout. The fork precedes every thread, so a child
equals `leadloop` after its imports, two seconds sooner.
"""

import json
import os
import signal
import sys
from typing import Any

import flows.local_runs  # noqa: F401 - imported here once, so that children need not
from leadloop.cli import main


def become_leadloop(request: dict[str, Any]) -> None:
    """Run `leadloop` in this process with the requested arguments, in a new session."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, name in ((0, os.devnull), (1, request["out"]), (2, request["err"])):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), number)
    os.environ.update(request["environment"])
    os.chdir(request["directory"])
    sys.argv = ["leadloop", *request["arguments"]]
    main()


if __name__ == "__main__":
    # No parent waits for the children: the kernel reaps them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            become_leadloop(json.loads(line))
        print(child, flush=True)
