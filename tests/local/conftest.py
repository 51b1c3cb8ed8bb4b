"""Processes that use shared servers, templates that shorten a start, and checks of what is left."""

import fcntl
import json
import os
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from leadloop.local import postgres_data, prefect_ephemeral
from leadloop.local.postgres import run_postgres
from leadloop.local.prefect_ephemeral import run_ephemeral_prefect
from tests.conftest import shared_folder
from tests.local.initdb_template import replace_initdb

_USER = Path(__file__).with_name("server_user.py")
_PREFECT_TABLES = prefect_ephemeral._DATABASE


def free_port() -> int:
    """Return a port of loopback that no process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _make_once(
    factory: pytest.TempPathFactory, name: str, make: Callable[[Path, Path], None]
) -> Path:
    """Return a folder that one xdist worker makes, in a scratch folder, for all of them."""
    base = shared_folder(factory)
    made = base / name
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            new = base / f"{name}.new"
            make(new, factory.mktemp(name))
            new.rename(made)
    return made


@pytest.fixture(scope="session")
def data_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of an embedded Postgres that ran once."""

    def make(new: Path, scratch: Path) -> None:
        with run_postgres(scratch / "pg"):
            pass
        shutil.copytree(data_of(scratch / "pg"), new, symlinks=True)

    return _make_once(tmp_path_factory, "postgres-data", make)


@pytest.fixture
def fast_initdb(data_template: Path) -> Iterator[None]:
    """Embedded Postgres servers of this process copy their first data instead of calling initdb."""
    with replace_initdb(data_template):
        yield


@pytest.fixture(scope="session")
def prefect_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the database of an ephemeral Prefect server that ran once."""

    def make(new: Path, scratch: Path) -> None:
        with run_ephemeral_prefect(scratch) as server:
            server.wait()
        with closing(sqlite3.connect(scratch / _PREFECT_TABLES)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        new.mkdir()
        shutil.copy(scratch / _PREFECT_TABLES, new)

    return _make_once(tmp_path_factory, "prefect-tables", make)


@pytest.fixture
def prefect_directory(tmp_path: Path, prefect_tables: Path) -> Path:
    """A directory whose ephemeral Prefect server need not create its tables."""
    shutil.copy(prefect_tables / _PREFECT_TABLES, tmp_path)
    return tmp_path


@dataclass(kw_only=True)
class User:
    """A process that uses a server, in a session of its own like a person's terminal."""

    process: subprocess.Popen[str]

    def address(self) -> str:
        """Return the address of its server; wait until it has one."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the user ended without a server"
        address: str = json.loads(line)
        return address

    def leave(self) -> None:
        """Let it leave the server; return when it has ended."""
        assert self.process.communicate(timeout=60)[0] == "left\n"

    def interrupt(self) -> None:
        """Press Ctrl-C in its terminal; return when it has ended."""
        os.killpg(self.process.pid, signal.SIGINT)
        self.process.communicate(timeout=60)

    def kill(self) -> None:
        """Kill it with SIGKILL; return when it has ended."""
        self.process.kill()
        self.process.communicate(timeout=60)


StartUser = Callable[[str, Path], User]


@pytest.fixture
def start_user(request: pytest.FixtureRequest) -> Iterator[StartUser]:
    """Start a user of a kind of server ("sleeper", "postgres" or "prefect") in a directory."""
    users: list[User] = []

    def start(kind: str, directory: Path) -> User:
        template = []
        if kind == "postgres":
            template = [request.getfixturevalue("data_template")]
        elif kind == "prefect" and not (directory / _PREFECT_TABLES).exists():
            tables: Path = request.getfixturevalue("prefect_tables")
            shutil.copy(tables / _PREFECT_TABLES, directory)
        process = subprocess.Popen(
            [sys.executable, _USER, kind, directory, *template],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        users.append(User(process=process))
        return users[-1]

    yield start
    for user in users:
        if user.process.poll() is None:
            user.kill()


def data_of(directory: Path) -> Path:
    """Find the data of an embedded Postgres: in its directory, or where the note names."""
    note = directory / postgres_data.NOTE
    return Path(json.loads(note.read_text())["data"]) if note.exists() else directory / "data"


def processes_of(directory: Path) -> list[str]:
    """Return the command lines and folders of all processes that name `directory` or work in it.

    Those of an embedded Postgres work in its data.
    """
    lines = (_describe_process(each) for each in Path("/proc").iterdir() if each.name.isdigit())
    places = (str(directory), str(data_of(directory)))
    return [line for line in lines if any(place in line for place in places)]


def _describe_process(process: Path) -> str:
    try:
        line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return f"{line}in {(process / 'cwd').readlink()}"
    except OSError:
        return ""


def require_closed(api_url: str) -> None:
    """Fail if a Prefect API reads or writes without a password, or permits a foreign web page."""
    foreign = {"Origin": "http://foreign.example"}
    preflight = {**foreign, "Access-Control-Request-Method": "POST"}
    with httpx.Client(base_url=api_url, trust_env=False, timeout=60) as stranger:
        assert stranger.post("/block_documents/filter", json={}).status_code == 401
        assert stranger.post("/flows/", json={"name": "strange"}).status_code == 401
        assert stranger.post("/flows/", json={}, auth=("leadloop", "guessed")).status_code == 401
        answers = [
            stranger.get("/health", headers=foreign),
            stranger.options("/flows/", headers=preflight),
        ]
    assert [a.headers.get("Access-Control-Allow-Origin") for a in answers] == [None, None]


def require_hidden(secret: str, directory: Path) -> None:
    """Fail if a secret is in a process's arguments, or in a file of other modes than 0600."""
    assert [line for line in processes_of(Path("/")) if secret in line] == []
    holding = [path for path in directory.rglob("*") if secret.encode() in _read_content(path)]
    assert {path.name for path in holding} <= {"server.json", "password"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in holding} == {0o600}


def _read_content(path: Path) -> bytes:
    try:
        return path.read_bytes() if path.is_file() else b""
    except FileNotFoundError:
        return b""


def wait_until_gone(directory: Path) -> None:
    """Fail unless every process that names `directory`, or works in it, ends within 30 s."""
    deadline = time.monotonic() + 30
    while left := processes_of(directory):
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.05)
