"""The parent process of a shared server: stops the server after its last user, ends with it.

A standalone script, started by path; standard library only. Its argument is the JSON of
`leadloop.local.shared_server.ServerSpec.supervisor_job`.
"""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any


def main(job: dict[str, Any]) -> None:
    """Run the server of `job` until the server ends or its last user has left."""
    user, group = job["user"] or (None, None)
    server = subprocess.Popen(
        job["command"],
        # The server inherits our descriptors, alive.lock above all.
        close_fds=False,
        user=user,
        group=group,
        extra_groups=None if user is None else [],
    )
    for descriptor in job["inherited_fds"]:
        # A dead server's socket must refuse connections, not leave them unanswered.
        os.close(descriptor)

    def forward_stop(signum: int, frame: FrameType | None) -> None:
        server.send_signal(job["stop_signal"])

    signal.signal(signal.SIGTERM, forward_stop)  # the machine is shutting down
    threading.Thread(target=_stop_after_last_user, args=(server, job), daemon=True).start()
    server.wait()
    if job["scratch"]:
        shutil.rmtree(job["scratch"], ignore_errors=True)
    # Skips the interpreter's cleanup: a thread may still be waiting for its lock.
    os._exit(0)


def _stop_after_last_user(server: subprocess.Popen[bytes], job: dict[str, Any]) -> None:
    with Path(job["users_lock"]).open("r+") as users:
        fcntl.flock(users, fcntl.LOCK_EX)
        server.send_signal(job["stop_signal"])
        try:
            server.wait(timeout=job["stop_timeout_s"])
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        # Keeps the lock until this process ends: a new user waits for that.
        threading.Event().wait()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
