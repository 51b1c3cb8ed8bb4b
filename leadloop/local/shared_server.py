"""A server that several processes share: the first one starts it, the last one stops it.

The kernel releases the file locks of a process that dies, however it dies, so no lock goes stale.
The server's directory holds:

    join.lock       exclusive: held by a process while it joins or leaves
    users.lock      shared: held by every user for as long as it uses the server
    alive.lock      inherited by the server: free once the server has ended
    supervisor.pid  the process group to kill if the supervisor itself was killed; not in
                    alive.lock, which a server that runs as another user can write
    server.json     the facts for later users, a password among them: mode 0600, and valid only
                    while alive.lock is held

The server's parent is a small supervisor in a separate session: a Ctrl-C at the terminal reaches
neither. The supervisor waits until users.lock is free, stops the server and ends.
"""

import fcntl
import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from leadloop.core.errors import UsageError
from leadloop.local import supervisor
from leadloop.local.private_files import open_private, write_private

_PID_FILE = "supervisor.pid"
# A server whose supervisor was killed is killed after this time, seconds.
_ORPHAN_TIMEOUT_S = 20.0


@dataclass(frozen=True, kw_only=True)
class ServerSpec:
    """The command, environment and resources of a server to start.

    `facts` is passed to every user (text only). `inherited_fds` are file descriptors for the
    server, closed in this process once the server has them. `scratch` is a folder to remove after
    the server has ended. `user` is the (uid, gid) that runs the server; None: the current user.
    A server that does not end within `stop_timeout_s` seconds of its `stop_signal` is killed.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    log: Path
    facts: Mapping[str, str] = field(default_factory=dict, repr=False)
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 15.0
    inherited_fds: tuple[int, ...] = ()
    scratch: Path | None = None
    user: tuple[int, int] | None = None

    def supervisor_job(self, users_lock: Path) -> str:
        """Return the supervisor's argument, in JSON."""
        return json.dumps(
            {
                "command": self.command,
                "inherited_fds": self.inherited_fds,
                "users_lock": str(users_lock),
                "stop_signal": int(self.stop_signal),
                "stop_timeout_s": self.stop_timeout_s,
                "scratch": None if self.scratch is None else str(self.scratch),
                "user": self.user,
            }
        )


@dataclass(frozen=True, kw_only=True)
class SharedServer:
    """A server in use, with the facts that its starter stated."""

    directory: Path
    facts: Mapping[str, str] = field(repr=False)

    def is_alive(self) -> bool:
        """Return whether the server, ready or not, is running."""
        return _is_server_alive(self.directory)


@contextmanager
def share_server(directory: Path, make_spec: Callable[[], ServerSpec]) -> Iterator[SharedServer]:
    """Share the server of `directory` for the block; start the server unless it runs.

    Does not wait until the server is ready. The last user waits on exit until the server has ended.

    Args:
        directory: absolute; created with mode 0700 if missing.
        make_spec: called only to start the server, by one process at a time.

    Raises:
        OSError: the directory cannot be used.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open_private(directory / "users.lock") as users:
        with _lock_file(directory / "join.lock"):
            # Blocks while a supervisor stops the server of users that were killed.
            fcntl.flock(users, fcntl.LOCK_SH)
            if _is_server_alive(directory):
                facts = json.loads((directory / "server.json").read_text())
            else:
                facts = _start_server(directory, make_spec())
        try:
            yield SharedServer(directory=directory, facts=facts)
        finally:
            with _lock_file(directory / "join.lock"):
                _leave_server(directory, users)


def require_free_port(port: int, server: str, option: str) -> None:
    """Check that a port of loopback is free, before a server's log alone states that it is taken.

    Args:
        port: the port.
        server: the server's name, for the message.
        option: the option that chooses another port, for the message.

    Raises:
        UsageError: the port is taken, or may not be used.
    """
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise UsageError(
            f"{server} cannot listen on port {port}: {why}; choose another {option}"
        ) from None


def _start_server(directory: Path, spec: ServerSpec) -> Mapping[str, str]:
    facts = dict(spec.facts)
    write_private(directory / "server.json", json.dumps(facts))
    job = spec.supervisor_job(directory / "users.lock")
    with _lock_file(directory / "alive.lock") as alive, open_private(spec.log) as log:
        process = subprocess.Popen(
            # Isolated and without site-packages: starts in 20 ms and imports no module of a user.
            [sys.executable, "-I", "-S", supervisor.__file__, job],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=dict(spec.environment),
            cwd=directory,
            pass_fds=(alive.fileno(), *spec.inherited_fds),
            start_new_session=True,
        )
        for descriptor in spec.inherited_fds:
            os.close(descriptor)
        write_private(directory / _PID_FILE, str(process.pid))
    # The supervisor may end long before this process or long after: reap it without waiting.
    threading.Thread(target=process.wait, name="reaper", daemon=True).start()
    return facts


def _leave_server(directory: Path, users: IO[str]) -> None:
    """Release this process's share; after the last one, return when the server has ended."""
    fcntl.flock(users, fcntl.LOCK_UN)
    deadline = time.monotonic() + _ORPHAN_TIMEOUT_S
    while _is_server_alive(directory):
        if _can_lock(users, fcntl.LOCK_EX):
            # Nobody has the lock. The supervisor is about to take it, unless it was killed itself.
            if time.monotonic() > deadline:
                with suppress(ProcessLookupError):
                    os.killpg(int((directory / _PID_FILE).read_text()), signal.SIGKILL)
                deadline = math.inf
            time.sleep(0.02)
        elif _can_lock(users, fcntl.LOCK_SH):
            return  # other processes use the server
        else:
            # The supervisor stops the server; a killed one releases its lock too.
            fcntl.flock(users, fcntl.LOCK_SH)
            fcntl.flock(users, fcntl.LOCK_UN)


def _can_lock(file: IO[str], kind: int) -> bool:
    """Return whether a lock could be taken at once; it is released again."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(file, fcntl.LOCK_UN)
    return True


def _is_server_alive(directory: Path) -> bool:
    with open_private(directory / "alive.lock") as alive:
        try:
            fcntl.flock(alive, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def _lock_file(path: Path) -> Iterator[IO[str]]:
    """Hold a file's exclusive lock; closing the file releases it unless a child inherited it."""
    with open_private(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
