"""Hatches `leadloop` processes: imports everything once, then forks one for each line on stdin.

A line is a JSON object: `arguments`, `environment`, `directory`, `out` and `err` (files). The
answer is the process id of the child, a line on stdout. Forked before any thread began, a child is
what `leadloop` is after its imports, two seconds sooner.
"""

import json
import os
import signal
import sys
from typing import Any

import flows.local_runs  # noqa: F401 - for the time it takes
from leadloop.cli import main


def hatch(order: dict[str, Any]) -> None:
    """Become `leadloop` with these arguments, in a session of its own."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, name in ((0, os.devnull), (1, order["out"]), (2, order["err"])):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), number)
    os.environ.update(order["environment"])
    os.chdir(order["directory"])
    sys.argv = ["leadloop", *order["arguments"]]
    main()


if __name__ == "__main__":
    # Nobody waits for the children here: the kernel clears them away.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            hatch(json.loads(line))
        print(child, flush=True)
