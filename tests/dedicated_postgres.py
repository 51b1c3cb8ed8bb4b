"""A Postgres server for one test, over TCP, that the test may stop and restart."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import text

from db.database import Database, DatabaseError
from db.schema import migrate_schema
from leadloop.local.postgres import prepare_postgres


class DedicatedPostgres:
    """A migrated server on a loopback port, with its data under `directory`; `log` is its log."""

    def __init__(self, directory: Path, **settings: str) -> None:
        self._directory = directory
        self._settings = [f"--{name}={value}" for name, value in settings.items()]
        self.log = directory / "log"
        self._port = _find_free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{self._port}/postgres"
        directory.mkdir()
        self.start()
        with Database(self.url, pool_size=1) as database, database.transaction() as connection:
            migrate_schema(connection)

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        spec = prepare_postgres(self._directory)
        user, group = spec.user or (None, None)
        over_tcp = ("--listen_addresses=127.0.0.1", "-p", str(self._port))
        self._scratch = spec.scratch
        self._data = spec.facts["data"]
        with spec.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*spec.command, *over_tcp, *self._settings],
                env=dict(spec.environment),
                cwd=self._directory,
                pass_fds=spec.inherited_fds,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=user,
                group=group,
                extra_groups=None if user is None else [],
            )
        for descriptor in spec.inherited_fds:
            os.close(descriptor)
        self._wait_until_ready()

    def stop(self) -> None:
        """Stop the server as an administrator does (SIGINT), which cuts every connection."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(timeout=60)
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def back_up(self) -> None:
        """Copy the data of the stopped server."""
        subprocess.run(["cp", "-a", self._data, f"{self._data}.backup"], check=True)

    def restore(self) -> None:
        """Start the stopped server on the data of the backup: all since is forgotten."""
        shutil.rmtree(self._data)
        subprocess.run(["cp", "-a", f"{self._data}.backup", self._data], check=True)
        self.start()

    def fail_over(self) -> None:
        """Start the stopped server as a standby that had fallen behind at the backup; promote it.

        It has the address of the server that it replaces.
        """
        (Path(f"{self._data}.backup") / "standby.signal").touch()
        self.restore()
        with Database(self.url, pool_size=1) as database, database.autocommit() as connection:
            assert connection.scalar(text("SELECT pg_promote()"))

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + 60
        with Database(self.url, pool_size=1) as database:
            while True:
                try:
                    with database.transaction():
                        return
                except DatabaseError:
                    assert time.monotonic() < deadline, "the server does not start"
                    time.sleep(0.05)


@contextmanager
def run_dedicated_postgres(directory: Path, **settings: str) -> Iterator[DedicatedPostgres]:
    """Run a server for the block, with Postgres's own settings."""
    server = DedicatedPostgres(directory, **settings)
    try:
        yield server
    finally:
        server.stop()


def _find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
