"""The parent process of a shared server: stops the server after its last user, ends with it.

A standalone script, started by path; standard library only. Its argument is the JSON of
`leadloop.local.shared_server.ServerSpec.supervisor_job`.
"""

import ctypes
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

_PR_SET_CHILD_SUBREAPER = 36
# How long processes that the server has left may take to end, seconds.
_LEFT_TIMEOUT_S = 10.0


def main(job: dict[str, Any]) -> None:
    """Run the server of `job` until the server ends or its last user has left."""
    user, group = job["user"] or (None, None)
    # Python runs a signal handler only once the call that it waits in returns, and a signal just
    # before that call does not end it: so a separate thread waits for it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    if sys.platform == "linux":
        # Processes whose parents have ended become ours.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    server = subprocess.Popen(
        job["command"],
        # The server inherits our descriptors, alive.lock above all.
        close_fds=False,
        user=user,
        group=group,
        extra_groups=None if user is None else [],
        # Safe: there are no threads yet.
        preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM}),
    )
    for descriptor in job["inherited_fds"]:
        # A dead server's socket must refuse connections, not leave them unanswered.
        os.close(descriptor)

    for stop in (_stop_after_last_user, _stop_at_shutdown):
        threading.Thread(target=stop, args=(server, job), daemon=True).start()
    server.wait()
    _end_left_processes()
    if job["scratch"]:
        shutil.rmtree(job["scratch"], ignore_errors=True)
    # Skips the interpreter's cleanup: a thread may still be waiting for its lock.
    os._exit(0)


def _end_left_processes() -> None:
    """End what the server has left (on Linux): runs are made to outlive their worker.

    Without the other servers of the stack, each would try to reach them for minutes.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in _list_children():
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + _LEFT_TIMEOUT_S
        with suppress(ChildProcessError):
            while time.monotonic() < deadline:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    time.sleep(0.02)


def _list_children() -> Iterator[int]:
    for task in Path("/proc/self/task").glob("*/children"):
        yield from map(int, task.read_text().split())


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


def _stop_at_shutdown(server: subprocess.Popen[bytes], job: dict[str, Any]) -> None:
    """Stop the server when the machine shuts down, which sends every process SIGTERM."""
    while True:
        signal.sigwait({signal.SIGTERM})
        server.send_signal(job["stop_signal"])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
