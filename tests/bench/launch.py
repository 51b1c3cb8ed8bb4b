"""Runs a command, and writes down what it has taken: `launch.py REPORT COMMAND...`.

To the peak memory of a process Linux counts that of whoever started it, up to then: this is small.
"""

import json
import os
import sys
import time
from pathlib import Path


def main() -> None:
    """Write `seconds`, `cpu_s`, `peak` in bytes, and the exit `code`."""
    report, *command = sys.argv[1:]
    began = time.monotonic()
    child = os.posix_spawn(command[0], command, os.environ)
    _, status, used = os.wait4(child, 0)
    taken = {
        "seconds": time.monotonic() - began,
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak": used.ru_maxrss * 1024,
        "code": os.waitstatus_to_exitcode(status),
    }
    Path(report).write_text(json.dumps(taken))


if __name__ == "__main__":
    main()
