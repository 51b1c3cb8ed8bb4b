"""The parent of a borrowed server: ends it when nobody uses it any more, and ends with it.

A script of its own, started by path, standard library only. Its one argument is JSON; see
`leadloop.local.shared_server._order`.
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


def main(order: dict[str, Any]) -> None:
    """Run the server of `order` until it ends by itself or its last user has gone."""
    server = _start(order)

    def stop(signum: int, frame: FrameType | None) -> None:
        server.send_signal(order["stop_signal"])

    signal.signal(signal.SIGTERM, stop)  # the machine is shutting down
    threading.Thread(target=_stop_when_unused, args=(server, order), daemon=True).start()
    server.wait()
    if order["scratch"]:
        shutil.rmtree(order["scratch"], ignore_errors=True)
    # Without the ceremonies of an exit: a thread may still be waiting for its lock.
    os._exit(0)


def _start(order: dict[str, Any]) -> subprocess.Popen[bytes]:
    user, group = order["user"] or (None, None)
    server = subprocess.Popen(
        order["command"],
        # What we were handed goes on to the server, alive.lock above all.
        close_fds=False,
        user=user,
        group=group,
        extra_groups=None if user is None else [],
    )
    for descriptor in order["inherited"]:
        # A socket must be refused, not left unanswered, once the server is dead.
        os.close(descriptor)
    return server


def _stop_when_unused(server: subprocess.Popen[bytes], order: dict[str, Any]) -> None:
    with Path(order["users_lock"]).open("r+") as users:
        fcntl.flock(users, fcntl.LOCK_EX)
        server.send_signal(order["stop_signal"])
        try:
            server.wait(timeout=order["patience_s"])
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        # The lock is kept to the end of the process: who comes in meanwhile waits for that.
        threading.Event().wait()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
