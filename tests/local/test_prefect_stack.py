import os
import signal
import socket
import stat
from pathlib import Path

import pytest

from leadloop.core.errors import UsageError
from leadloop.local.prefect_stack import run_prefect_server
from tests.local.conftest import free_port, processes_of, require_hidden

pytestmark = pytest.mark.servers

_NO_DATABASE = "postgresql+asyncpg://nobody@127.0.0.1:9/none"


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    """One line names the port and the option that chooses another one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(UsageError, match=rf"port {port}: .*in use; choose another --port"):
            run_prefect_server(tmp_path, _NO_DATABASE, port).__enter__()
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_ended(tmp_path: Path) -> None:
    """One line names the log, at once."""
    with run_prefect_server(tmp_path, _NO_DATABASE, free_port()) as prefect:
        # The supervisor leads the server's process group.
        os.killpg(int((tmp_path / "supervisor.pid").read_text()), signal.SIGKILL)
        with pytest.raises(UsageError, match=rf"does not start \(its log: {tmp_path}/log\)"):
            prefect.wait()
    assert processes_of(tmp_path) == []


def test_each_start_has_another_password(tmp_path: Path) -> None:
    """Only files of mode 0600 hold the password, and that of an earlier start is useless."""
    passwords = []
    for _ in range(2):
        with run_prefect_server(tmp_path, _NO_DATABASE, free_port()) as prefect:
            password = prefect.password_file.read_text().strip()
            assert prefect.environment["PREFECT_API_AUTH_STRING"] == password
            require_hidden(password, tmp_path)
            assert password not in repr(prefect)
            assert stat.S_IMODE(prefect.password_file.stat().st_mode) == 0o600
            passwords.append(password)
            os.killpg(int((tmp_path / "supervisor.pid").read_text()), signal.SIGKILL)
    assert passwords[0] != passwords[1]
