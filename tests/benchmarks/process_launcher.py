"""Runs a command and writes its resource usage to a file: `process_launcher.py REPORT COMMAND...`.

Linux counts the memory of the parent at the start in the child's peak, so this parent is small.
"""

import json
import os
import sys
import time
from pathlib import Path


def main() -> None:
    """Write `seconds`, `cpu_s`, `peak_bytes` and the exit `code` of the command."""
    report, *command = sys.argv[1:]
    began = time.monotonic()
    child = os.posix_spawn(command[0], command, os.environ)
    _, status, used = os.wait4(child, 0)
    taken = {
        "seconds": time.monotonic() - began,
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_bytes": used.ru_maxrss * 1024,
        "code": os.waitstatus_to_exitcode(status),
    }
    Path(report).write_text(json.dumps(taken))


if __name__ == "__main__":
    main()
