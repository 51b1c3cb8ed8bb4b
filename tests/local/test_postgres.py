import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg2
import pytest
from sqlalchemy import create_engine, make_url, text

from leadloop.core.errors import UsageError
from leadloop.local import postgres, shared_server
from leadloop.local.postgres import run_postgres
from tests.local.conftest import data_of, processes_of

pytestmark = [pytest.mark.servers, pytest.mark.usefixtures("fast_initdb")]

_SET_BY_POSTGRES = {"PGDATA", "PG_GRANDPARENT_PID", "PGSYSCONFDIR", "PGLOCALEDIR"}


def _query(url: str, *statements: str) -> object:
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            results = [connection.execute(text(statement)) for statement in statements]
            return results[-1].scalar() if results[-1].returns_rows else None
    finally:
        engine.dispose()


def test_the_data_stays(tmp_path: Path) -> None:
    """A run finds the rows of the run before."""
    with run_postgres(tmp_path / "pg") as url:
        _query(url, "CREATE TABLE kept (what text)", "INSERT INTO kept VALUES ('é\N{SNOWMAN}')")
    with run_postgres(tmp_path / "pg") as url:
        assert _query(url, "SELECT what FROM kept") == "é\N{SNOWMAN}"


def test_it_is_set_up_as_promised(tmp_path: Path) -> None:
    """UTF-8 everywhere, room for 200 connections, durable, and reachable over no network."""
    with run_postgres(tmp_path) as url:
        settings = {
            name: _query(url, f"SHOW {name}")
            for name in ("server_encoding", "max_connections", "fsync", "listen_addresses")
        }
    assert settings == {
        "server_encoding": "UTF8",
        "max_connections": "200",
        "fsync": "on",
        "listen_addresses": "",
    }


def test_a_path_longer_than_a_socket_name_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deep checkout, with spaces, and a long TMPDIR work as well."""
    deep = tmp_path / ("a b" * 60)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with run_postgres(deep / "pg") as url:
        assert _query(url, "SELECT 1") == 1


def test_a_shut_parent_folder(tmp_path: Path) -> None:
    """Below a folder of mode 700, like root's home, it works; the folder's mode does not change."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    before = [folder.stat().st_mode for folder in home.parents]
    with run_postgres(home / "pg") as url:
        assert _query(url, "SELECT 1") == 1
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert [folder.stat().st_mode for folder in home.parents] == before


def test_its_environment_holds_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Postgres gets a few harmless names of the caller's environment, and none of its tokens."""
    monkeypatch.setenv("LEADLOOP_API_TOKEN", "s3cret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    with run_postgres(tmp_path):
        pid = (data_of(tmp_path) / "postmaster.pid").read_text().split("\n")[0]
        environment = Path("/proc", pid, "environ").read_bytes().decode().split("\0")
    names = {entry.split("=")[0] for entry in environment if entry}
    assert names <= {"HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "TZ"} | _SET_BY_POSTGRES


def test_only_its_owner_may_enter_the_socket(tmp_path: Path) -> None:
    """No other user of the machine reaches the socket, which logs in as superuser."""
    with run_postgres(tmp_path) as url:
        socket = Path(str(make_url(url).query["host"]))
        assert socket.stat().st_mode & 0o077 == 0
    assert not socket.exists()


def test_a_crashed_server_starts_again(tmp_path: Path) -> None:
    """After a power cut, with its pid now another program's, it starts and has its data."""
    with run_postgres(tmp_path) as url:
        _query(url, "CREATE TABLE kept (n int)")
        pid_file = data_of(tmp_path) / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    with run_postgres(tmp_path) as url:
        assert _query(url, "SELECT count(*) FROM kept") == 0


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Yield a folder from which every user may start programs."""
    with TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.parametrize("is_zombie", [True, False])
def test_the_pid_of_another_postgres(tmp_path: Path, open_folder: Path, is_zombie: bool) -> None:
    """A server starts after one that was killed, whose pid is a zombie's or another server's."""
    program = open_folder / "postgres"
    program.symlink_to(shutil.which("true" if is_zombie else "sleep") or "")
    with run_postgres(tmp_path) as url:
        _query(url, "CREATE TABLE kept (n int)")
        data = data_of(tmp_path)
        lines = (data / "postmaster.pid").read_text().splitlines()
    # By the user of the server, who may send it signals.
    other = subprocess.Popen([program, "600"], user=data.stat().st_uid, cwd="/")
    try:
        if is_zombie:
            os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        (data / "postmaster.pid").write_text("\n".join([str(other.pid), *lines[1:]]) + "\n")
        with run_postgres(tmp_path) as url:
            assert _query(url, "SELECT count(*) FROM kept") == 0
    finally:
        other.kill()
        other.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="the server runs as another user only if root starts")
def test_a_postgres_that_root_may_not_look_into(tmp_path: Path, open_folder: Path) -> None:
    """In a container, a server that somebody started on the data keeps its pid file, and runs on.

    Without that file, Postgres would end itself within a minute.
    """
    program = open_folder / "postgres"
    program.symlink_to(shutil.which("sleep") or "")
    with run_postgres(tmp_path):
        data = data_of(tmp_path)
        lines = (data / "postmaster.pid").read_text().splitlines()
    theirs = subprocess.Popen([program, "600"], user=data.stat().st_uid, cwd=data)
    try:
        (data / "postmaster.pid").write_text("\n".join([str(theirs.pid), *lines[1:]]) + "\n")
        started = subprocess.run(
            [
                *("setpriv", "--bounding-set=-sys_ptrace", sys.executable, "-c"),
                "import sys, pathlib; from leadloop.local.postgres import run_postgres\n"
                "with run_postgres(pathlib.Path(sys.argv[1])): pass",
                tmp_path,
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert "did not start" in started.stderr
        assert (data / "postmaster.pid").read_text().startswith(f"{theirs.pid}\n")
    finally:
        theirs.kill()
        theirs.wait()


def test_the_supervisor_alone_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last user ends the server whole: the next one gets a server that answers."""
    monkeypatch.setattr(shared_server, "_ORPHAN_TIMEOUT_S", 2.0)
    for _ in range(3):
        with run_postgres(tmp_path) as url:
            assert _query(url, "SELECT 1") == 1
            os.kill(int((tmp_path / "supervisor.pid").read_text()), signal.SIGKILL)


def test_the_log_holds_no_rows(tmp_path: Path) -> None:
    """A statement that fails does not put a person's number into the server's log."""
    with run_postgres(tmp_path) as url:
        _query(url, "CREATE TABLE person (phone text PRIMARY KEY)")
        with psycopg2.connect(_dsn(url)) as connection, connection.cursor() as cursor:
            cursor.execute("INSERT INTO person VALUES ('+15555550100')")
            with pytest.raises(psycopg2.IntegrityError):
                cursor.execute("INSERT INTO person VALUES ('+15555550100')")
        connection.close()
    assert "5555550100" not in (tmp_path / "log").read_text()


def _dsn(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line states what to install, or what to set instead."""
    monkeypatch.setattr(postgres, "_PACKAGE", "no_such_package")
    with pytest.raises(UsageError, match=r"requirements\.lock.*LEADLOOP_DATABASE_URL"):
        run_postgres(tmp_path).__enter__()


def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    """One line names the folder and the error."""
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot use .*file.*LEADLOOP_DATABASE_URL"):
        run_postgres(tmp_path / "file").__enter__()


def test_data_of_another_major_version(tmp_path: Path) -> None:
    """Data of an older PostgreSQL stay unchanged, and one line states it."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "PG_VERSION").write_text("16\n")
    with pytest.raises(UsageError, match=r"made by PostgreSQL 16, and this is 18"):
        run_postgres(tmp_path).__enter__()


def test_a_server_that_does_not_start(tmp_path: Path) -> None:
    """One line repeats Postgres's error and names its log; no process is left."""
    with run_postgres(tmp_path):
        pass
    (data_of(tmp_path) / "postgresql.conf").write_text("no_such_setting = 1\n")
    with pytest.raises(UsageError, match=r"did not start: .*FATAL.* \(log: "):
        run_postgres(tmp_path).__enter__()
    assert processes_of(tmp_path) == []
