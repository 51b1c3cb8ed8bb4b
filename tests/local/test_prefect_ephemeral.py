import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from leadloop.core.errors import UsageError
from leadloop.local.prefect_ephemeral import run_ephemeral_prefect
from tests.local.conftest import processes_of, require_closed, require_hidden

pytestmark = pytest.mark.servers

_RUN = """
import os, sys
from pathlib import Path
from leadloop.local.prefect_ephemeral import run_ephemeral_prefect

with run_ephemeral_prefect(Path(sys.argv[1])) as server:
    os.environ.update(server.client_environment())
    import prefect
    from prefect.artifacts import create_markdown_artifact

    tries = []

    @prefect.task(retries=2)
    def step():
        tries.append(1)
        if len(tries) < 3:
            raise ValueError("not yet")
        return len(tries)

    @prefect.flow
    def flow():
        create_markdown_artifact("done", key="note")
        return step.submit().result()

    # Not waited for: Prefect's own first request waits, because the port is open from the start.
    print(flow() + flow())
"""


def test_flows_with_retries_and_artifacts_run_on_it(prefect_directory: Path) -> None:
    """A local run does all that a run on a full server does, and logs no error at its end."""
    result = subprocess.run(
        [sys.executable, "-c", _RUN, prefect_directory], capture_output=True, text=True, timeout=240
    )
    assert result.stdout == "7\n", result.stderr
    assert "Unable to connect" not in result.stderr
    assert "EventsWorker" not in result.stderr
    assert processes_of(prefect_directory) == []


def test_only_runs_that_share_it_know_its_password(prefect_directory: Path) -> None:
    """Other users of the machine and web pages can neither read nor write; the next run can."""
    os.umask(0o022)
    with (
        run_ephemeral_prefect(prefect_directory) as first,
        run_ephemeral_prefect(prefect_directory) as second,
    ):
        first.wait()
        require_closed(first.api_url)
        user, _, password = second.auth_string.partition(":")
        flows = httpx.post(
            f"{second.api_url}/flows/filter", json={}, auth=(user, password), trust_env=False
        )
        assert flows.json() == []
        require_hidden(password, prefect_directory)
        assert password not in repr((first, second))


def test_each_start_has_another_password(tmp_path: Path) -> None:
    """The password of an earlier run is useless."""
    known = []
    for _ in range(2):
        with run_ephemeral_prefect(tmp_path) as server:
            known.append(server.auth_string)
    assert known[0] != known[1]


def test_a_server_that_ended(tmp_path: Path) -> None:
    """One line names the log, and the run does not wait."""
    with run_ephemeral_prefect(tmp_path) as server:
        # The supervisor leads the server's process group.
        os.killpg(int((tmp_path / "supervisor.pid").read_text()), signal.SIGKILL)
        with pytest.raises(UsageError, match=r"has ended \(its log: .*PREFECT_API_URL"):
            server.wait()
    assert processes_of(tmp_path) == []


def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    """One line names the folder and the error."""
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"file: .*PREFECT_API_URL"):
        run_ephemeral_prefect(tmp_path / "file").__enter__()


def test_proxies_and_profiles_do_not_come_between(
    prefect_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy, or a Prefect profile for another server, does not disturb a local run."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", "postgresql+asyncpg://nowhere/x")
    with run_ephemeral_prefect(prefect_directory) as server:
        server.wait()
