"""The environment of a command: settings, a database, and a Prefect server for flows."""

import errno
import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from db.database import Database, DatabaseError, InvalidDatabaseUrl, require_url
from db.schema import require_current
from db.watermarks import get_database_time
from leadloop.client.proxies import check_prefect_proxies
from leadloop.core.errors import UsageError
from leadloop.local.postgres_data import NOTE
from leadloop.local.private_files import open_private
from leadloop.settings import (
    DATABASE_URL,
    EMBEDDED,
    MONITOR_DATABASE_URL,
    Settings,
    SettingSource,
)
from leadloop.trusted_files import require_private_directory

if TYPE_CHECKING:
    from leadloop.local.prefect_ephemeral import EphemeralPrefect
    from leadloop.sandbox import Rules, SandboxHandle

#: The directory of the local servers' data, in the working directory.
HOME = Path(".leadloop")
#: The name of the embedded Postgres in messages.
EMBEDDED_DISPLAY_NAME = f"embedded Postgres in ./{HOME}"

_EMBEDDED_DATA = HOME / "pg"


def make_home() -> Path:
    """Return `.leadloop`; create it with access for this user alone if it is missing.

    Raises:
        UsageError: others may write the working directory, and could replace `.leadloop`.
    """
    require_private_directory()
    with suppress(OSError):  # the first file made in it raises an error with the reason
        HOME.mkdir(mode=0o700, exist_ok=True)
    return HOME


@contextmanager
def load_settings_with_database(*overrides: SettingSource) -> Iterator[Settings]:
    """Load the settings; run the embedded Postgres for the block if they ask for it.

    Names the embedded Postgres on stderr.

    Args:
        overrides: settings that take precedence over the environment.

    Raises:
        UsageError: a setting is wrong, no database is named, or the embedded Postgres cannot run.
    """
    settings = load_settings(*overrides)
    if settings.database_url is None:
        message = (
            f"{DATABASE_URL} is not set: write postgresql://user@host:5432/database, or"
            f" `{EMBEDDED}` for a throw-away Postgres in this directory"
        )
        if _EMBEDDED_DATA.exists():
            message += (
                f" ({_EMBEDDED_DATA} holds data of an earlier one: `{EMBEDDED}` opens it again)"
            )
        raise UsageError(message)
    if not settings.is_embedded:
        yield settings
        return
    print(f"leadloop: {EMBEDDED_DISPLAY_NAME}", file=sys.stderr)
    with run_embedded_database():
        yield Settings.load(*overrides)


def load_settings(*overrides: SettingSource) -> Settings:
    """Load the settings; warn on stderr about variables that look like misspelt settings.

    Raises:
        UsageError: a setting is wrong.
    """
    settings = Settings.load(*overrides)
    for line in Settings.take_warnings(*overrides):
        print(f"leadloop: {line}", file=sys.stderr)
    return settings


@contextmanager
def run_embedded_database() -> Iterator[None]:
    """Run the embedded Postgres of the working directory for the block.

    During the block the environment holds its URL, for the flows of this process.

    Raises:
        UsageError: Postgres cannot run.
    """
    from leadloop.local.postgres import run_postgres

    make_home()
    with run_postgres(_EMBEDDED_DATA) as url:
        before = os.environ.get(DATABASE_URL)
        os.environ[DATABASE_URL] = url
        try:
            yield
        finally:
            del os.environ[DATABASE_URL]
            if before is not None:
                os.environ[DATABASE_URL] = before


@contextmanager
def enter_locked_directory(name: str) -> Iterator[None]:
    """Work in `.leadloop/NAME` for the block, under an exclusive lock.

    Raises:
        UsageError: another process holds the lock, or the directory cannot be written.
    """
    directory = make_home() / name
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = open_private(directory / "lock")
    except OSError as error:
        raise explain_write_error(error, name) from None
    with lock, chdir(directory):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"another `leadloop {name}` runs in this directory: wait until it is done, or run"
                " this one in another directory"
            ) from None
        # The command starts without data, so it does not need to find the earlier data again.
        (HOME / "pg" / NOTE).unlink(missing_ok=True)
        yield


def explain_write_error(error: OSError, name: str) -> UsageError:
    """Return the usage error for `leadloop NAME` that cannot write its files."""
    return UsageError(
        f"cannot write to {error.filename}: {error.strerror}; run `leadloop {name}` where you may"
    )


def explain_listen_error(error: OSError, host: str, port: int) -> UsageError:
    """Return the usage error for a server that cannot listen at --host and --port."""
    # Error codes of unknown host names are negative; create_server keeps only the code.
    unknown = isinstance(error, socket.gaierror) or (error.errno or 0) < 0
    why = "no such host" if unknown else os.strerror(error.errno or 0)
    elsewhere = unknown or error.errno == errno.EADDRNOTAVAIL
    choose = "name an address of this machine with --host" if elsewhere else "choose another --port"
    return UsageError(f"cannot listen on port {port} of {host}: {why}; {choose}")


@contextmanager
def open_sandbox(rules: "Rules") -> Iterator["SandboxHandle"]:
    """Run the sandbox for the block; the environment then names it as the API.

    Variables that name another database, vendor or Prefect are removed.
    """
    from leadloop.sandbox import run_sandbox

    for name in [name for name in os.environ if name.startswith(("LEADLOOP_", "PREFECT_API_"))]:
        del os.environ[name]
    with run_sandbox(rules) as handle:
        os.environ["LEADLOOP_API_URL"] = handle.url
        os.environ["LEADLOOP_API_TOKEN"] = rules.tokens[0]
        yield handle


@contextmanager
def open_database(settings: Settings, *, require_schema: bool = True) -> Iterator[Database]:
    """Open the database for the block, and check that it answers.

    Args:
        settings: hold its URL.
        require_schema: also check that the schema is at this version.

    Raises:
        UsageError: a URL is wrong, the database does not answer, or its schema is at another
            version.
        DatabaseError: a query in the block failed.
    """
    require_urls(settings)
    opened = Database(settings.require_database_url(), pool_size=2)
    with opened:
        try:
            opened.run(require_current if require_schema else get_database_time)
        except DatabaseError as error:
            raise UsageError(str(error)) from None
        yield opened


@contextmanager
def open_configured_database(*, require_schema: bool = True) -> Iterator[tuple[Settings, Database]]:
    """Load the settings and open their database, as the functions for each do."""
    with (
        load_settings_with_database() as settings,
        open_database(settings, require_schema=require_schema) as database,
    ):
        yield settings, database


@contextmanager
def find_monitor_url() -> Iterator[tuple[str, str]]:
    """Yield the URL of the page's login, else of the runs' login, and the name of its variable.

    Raises:
        UsageError: neither is set, or the URL is wrong.
    """
    own = load_settings().monitor_database_url
    if own is not None:
        require_postgres_url(own.get_secret_value(), MONITOR_DATABASE_URL)
        yield own.get_secret_value(), MONITOR_DATABASE_URL
        return
    with load_settings_with_database() as settings:
        require_postgres_url(settings.require_database_url(), DATABASE_URL)
        yield settings.require_database_url(), DATABASE_URL


@contextmanager
def open_monitor_database() -> Iterator[Database]:
    """Open the database with the page's login, else with the runs' login.

    Raises:
        UsageError: see `find_monitor_url`.
    """
    with (
        find_monitor_url() as (url, setting),
        Database(url, pool_size=1, setting=setting) as opened,
    ):
        yield opened


def require_urls(settings: Settings) -> None:
    """Check that LEADLOOP_DATABASE_URL, and LEADLOOP_SOURCE_URL if it is set, are valid URLs.

    Raises:
        UsageError: one of the URLs is invalid.
    """
    require_postgres_url(settings.require_database_url(), DATABASE_URL)
    require_postgres_url(settings.require_source_url(), settings.source_variable)


def require_postgres_url(url: str, variable: str) -> None:
    """Check that a text is the URL of a Postgres database.

    Args:
        url: the text.
        variable: the variable that holds the text, for the message.

    Raises:
        UsageError: the text is not such a URL.
    """
    try:
        require_url(url, variable)
    except InvalidDatabaseUrl as error:
        raise UsageError(str(error)) from None


class PrefectServer:
    """The Prefect server that local runs report to."""

    def __init__(self, server: "EphemeralPrefect | None") -> None:
        self._server = server

    def wait(self) -> None:
        """Import Prefect while the server starts, then wait until the server answers.

        Raises:
            UsageError: the server does not start, or the server of PREFECT_API_URL cannot be used.
            RunError: Prefect's client cannot use a proxy of the environment.
        """
        from flows.prefect_api import check_api_reachable

        if self._server is not None:
            check_prefect_proxies()
            self._server.wait()
        else:
            check_api_reachable()


def require_prefect_url() -> None:
    """Check that PREFECT_API_URL is a URL; Prefect cannot be imported with some invalid values.

    Raises:
        UsageError: the value is not a URL.
    """
    try:
        parts = urlsplit(os.environ["PREFECT_API_URL"])
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise UsageError(
            "PREFECT_API_URL is not a URL: write http://host:4200/api (local runs need none)"
        )


def find_prefect_url() -> str | None:
    """Return the API URL of the server that the environment or Prefect's profile names, if any.

    Raises:
        UsageError: PREFECT_API_URL is not a URL.
    """
    if os.environ.get("PREFECT_API_URL"):
        require_prefect_url()
    from flows.prefect_api import configured_api_url

    return configured_api_url()


@contextmanager
def open_prefect_server() -> Iterator[PrefectServer]:
    """Use the server of PREFECT_API_URL; if it is unset, run a local server for the block.

    The local server starts in the background until the caller calls `wait`.

    Raises:
        UsageError: PREFECT_API_URL is not a URL, or no local server can run.
    """
    if os.environ.get("PREFECT_API_URL"):
        require_prefect_url()
        yield PrefectServer(None)
        return
    from leadloop.local.prefect_ephemeral import run_ephemeral_prefect

    with run_ephemeral_prefect(make_home() / "prefect") as server:
        os.environ.update(server.client_environment())
        yield PrefectServer(server)
