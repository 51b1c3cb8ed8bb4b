"""A server that several of our processes share, started by the first and stopped by the last.

Everything rests on locks that the kernel takes away from a process that dies, however it dies, so
no file can go stale. In the server's directory:

    door.lock    held for the moment of coming in or going out: one at a time
    users.lock   shared by every user for as long as it lives
    alive.lock   handed down to the server itself: it is free when the server is gone
    supervisor.pid  the process group to kill where the supervisor itself was killed; not in
                 alive.lock, which a server that runs as another user can write
    server.json  what later users need to know, a password too: only its owner may read it; it
                 counts only while alive.lock is held

The server's parent is a small supervisor, in a session of its own so that a Ctrl-C at the terminal
does not reach either. It waits for users.lock to be free, ends the server and goes.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from leadloop.local import supervisor

_PID_FILE = "supervisor.pid"
_SUPERVISOR_KILLS_AFTER_S = 15.0
_LAST_ONE_OUT_WAITS_S = _SUPERVISOR_KILLS_AFTER_S + 5.0


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How to start a server that nobody runs yet.

    `facts` is handed to every user (text only). `inherited` are file descriptors for the server,
    closed here once it has them; `scratch` is a folder to remove when it has ended; `user` is the
    (uid, gid) that it runs as where that is not our own.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    log: Path
    facts: Mapping[str, str] = field(default_factory=dict, repr=False)
    stop_signal: signal.Signals = signal.SIGTERM
    inherited: tuple[int, ...] = ()
    scratch: Path | None = None
    user: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Borrowed:
    """A server in use: its facts, and whether it is still there."""

    directory: Path
    facts: Mapping[str, str] = field(repr=False)

    def is_alive(self) -> bool:
        """Whether the server, ready or not, is running."""
        return _is_alive(self.directory)


@contextmanager
def borrow(directory: Path, launch: Callable[[], Launch]) -> Iterator[Borrowed]:
    """Use the server of `directory` (absolute; made if missing), and start it if nobody runs it.

    Does not wait for the server to be ready. `launch` is called only where it has to be started, by
    one process at a time. On the way out the last user waits until the server is gone.

    Raises:
        OSError: the directory cannot be used.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open_own(directory / "users.lock") as users:
        with _locked(directory / "door.lock"):
            # Waits where a supervisor is just ending the server of users that were killed.
            fcntl.flock(users, fcntl.LOCK_SH)
            facts = _read_facts(directory) if _is_alive(directory) else _start(directory, launch())
        try:
            yield Borrowed(directory=directory, facts=facts)
        finally:
            with _locked(directory / "door.lock"):
                _go_out(directory, users)


def _start(directory: Path, launch: Launch) -> Mapping[str, str]:
    facts = dict(launch.facts)
    write_private(directory / "server.json", json.dumps(facts))
    with _locked(directory / "alive.lock") as alive, open_own(launch.log) as log:
        process = subprocess.Popen(
            # Isolated and without site-packages: it starts in 20 ms and is in nobody's way.
            [sys.executable, "-I", "-S", supervisor.__file__, _order(directory, launch)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=dict(launch.environment),
            cwd=directory,
            pass_fds=(alive.fileno(), *launch.inherited),
            start_new_session=True,
        )
        for descriptor in launch.inherited:
            os.close(descriptor)
        write_private(directory / _PID_FILE, str(process.pid))
    # It may end long before we do, or long after: nothing here waits for it, so no zombie either.
    threading.Thread(target=process.wait, name="reaper", daemon=True).start()
    return facts


def _order(directory: Path, launch: Launch) -> str:
    return json.dumps(
        {
            "command": launch.command,
            "inherited": launch.inherited,
            "users_lock": str(directory / "users.lock"),
            "stop_signal": int(launch.stop_signal),
            "patience_s": _SUPERVISOR_KILLS_AFTER_S,
            "scratch": None if launch.scratch is None else str(launch.scratch),
            "user": launch.user,
        }
    )


def _go_out(directory: Path, users: IO[str]) -> None:
    """Give up our share; where it was the last one, return when the server is gone."""
    fcntl.flock(users, fcntl.LOCK_UN)
    # Waits where the supervisor is ending the server; one that is killed meanwhile lets go too.
    fcntl.flock(users, fcntl.LOCK_SH)
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        # Others use it.
        return
    fcntl.flock(users, fcntl.LOCK_UN)
    _wait_until_gone(directory)


def _wait_until_gone(directory: Path) -> None:
    deadline = time.monotonic() + _LAST_ONE_OUT_WAITS_S
    while _is_alive(directory):
        if time.monotonic() > deadline:
            # Only a supervisor that was killed itself leaves this to us.
            _kill_group(int((directory / _PID_FILE).read_text()))
            return
        time.sleep(0.02)


def _kill_group(leader: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def _is_alive(directory: Path) -> bool:
    with open_own(directory / "alive.lock") as alive:
        try:
            fcntl.flock(alive, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def _locked(path: Path) -> Iterator[IO[str]]:
    """Hold the exclusive lock of a file; closing it lets go, unless a child has inherited it."""
    with open_own(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def open_own(path: Path) -> IO[str]:
    """Open a file to append to it, made if missing; refuse a symbolic link.

    Root may work in a directory of another user, who could have it write to any file.

    Raises:
        OSError: it cannot be opened, or is a link (ELOOP).
    """
    return open(path, "a", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o600))


def write_private(path: Path, text: str) -> None:
    """Write a file atomically, with mode 0600 from its creation on.

    Raises:
        OSError: it cannot be written.
    """
    new = path.with_suffix(".new")
    # One that a killed process left behind keeps the mode that it has.
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    new.replace(path)


def _read_facts(directory: Path) -> Mapping[str, str]:
    facts: dict[str, str] = json.loads((directory / "server.json").read_text())
    return facts
