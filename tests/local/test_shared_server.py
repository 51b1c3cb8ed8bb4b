import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from leadloop.local import shared_server
from leadloop.local.shared_server import ServerSpec, share_server
from tests.local.conftest import StartUser, processes_of, wait_until_gone

pytestmark = pytest.mark.servers

KINDS = pytest.mark.parametrize("kind", ["sleeper", "postgres", "prefect"])


@pytest.mark.parametrize("kind", ["sleeper", "postgres"])
def test_eight_users_at_the_same_instant_get_one_server(
    kind: str, start_user: StartUser, tmp_path: Path
) -> None:
    """Commands started together share one server, whichever came first."""
    users = [start_user(kind, tmp_path) for _ in range(8)]
    assert len({user.address() for user in users}) == 1
    for user in users:
        user.leave()
    assert processes_of(tmp_path) == []


@KINDS
def test_the_last_one_out_stops_it(kind: str, start_user: StartUser, tmp_path: Path) -> None:
    """The server stays while anyone uses it; after the last command nothing is left running."""
    first = start_user(kind, tmp_path)
    address = first.address()
    second = start_user(kind, tmp_path)
    assert second.address() == address
    first.leave()
    third = start_user(kind, tmp_path)
    assert third.address() == address
    second.leave()
    third.leave()
    assert processes_of(tmp_path) == []


@KINDS
def test_killed_users_leave_nothing(kind: str, start_user: StartUser, tmp_path: Path) -> None:
    """A server whose users were all killed with SIGKILL ends by itself."""
    users = [start_user(kind, tmp_path) for _ in range(3)]
    assert len({user.address() for user in users}) == 1
    for user in users:
        user.kill()
    wait_until_gone(tmp_path)


@KINDS
def test_ctrl_c_leaves_nothing(kind: str, start_user: StartUser, tmp_path: Path) -> None:
    """After a Ctrl-C the shell's prompt comes back to a machine with nothing left running."""
    user = start_user(kind, tmp_path)
    user.address()
    user.interrupt()
    assert processes_of(tmp_path) == []


def test_ctrl_c_of_one_user_does_not_stop_the_others_server(
    start_user: StartUser, tmp_path: Path
) -> None:
    """A Ctrl-C at one terminal does not reach the server that another one uses."""
    first, second = start_user("postgres", tmp_path), start_user("postgres", tmp_path)
    address = first.address()
    assert second.address() == address
    first.interrupt()
    third = start_user("postgres", tmp_path)
    assert third.address() == address
    second.leave()
    third.leave()


def test_users_come_and_go_while_others_are_killed(start_user: StartUser, tmp_path: Path) -> None:
    """A new command gets a server after users have joined, left and died in any order."""
    for _ in range(10):
        doomed, leaving = start_user("sleeper", tmp_path), start_user("sleeper", tmp_path)
        leaving.address()
        doomed.kill()
        leaving.leave()
    wait_until_gone(tmp_path)
    last = start_user("sleeper", tmp_path)
    last.address()
    last.leave()


def test_only_the_server_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that outlived its supervisor is killed, and no process that the server names.

    The server may run as another user, and holds `alive.lock` open for writing.
    """
    monkeypatch.setattr(shared_server, "_ORPHAN_TIMEOUT_S", 0.5)
    bystander = subprocess.Popen(["sleep", "600"], start_new_session=True)
    spec = ServerSpec(
        command=("sleep", "601.25"),
        environment={"PATH": os.defpath},
        log=tmp_path / "log",
    )
    try:
        with share_server(tmp_path, lambda: spec):
            (tmp_path / "alive.lock").write_text(str(bystander.pid))
            _wait_for_server(tmp_path)
            os.kill(int((tmp_path / "supervisor.pid").read_text()), signal.SIGKILL)
        wait_until_gone(tmp_path)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def _wait_for_server(directory: Path) -> None:
    while not any(line.startswith("sleep 601.25") for line in processes_of(directory)):
        time.sleep(0.02)
