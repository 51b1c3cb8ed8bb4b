"""What a command needs around it: a database, and for flows a Prefect server."""

import errno
import fcntl
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from db.campaigns import list_campaigns, select_campaigns
from db.database import Connection, Database, DatabaseError, InvalidDatabaseUrl, require_url
from db.schema import require_current
from leadloop.core.campaign_rules import Campaign, CampaignRules
from leadloop.core.errors import UsageError
from leadloop.local.postgres_data import NOTE
from leadloop.local.private_files import open_private
from leadloop.settings import DATABASE_URL, EMBEDDED, Settings, SettingSource
from leadloop.trusted_files import require_private_directory

if TYPE_CHECKING:
    from leadloop.local.prefect_ephemeral import EphemeralPrefect

#: Where embedded servers keep their data, in the working directory.
HOME = Path(".leadloop")
#: The embedded Postgres in messages.
EMBEDDED_DISPLAY_NAME = f"embedded Postgres in ./{HOME}"

_EMBEDDED_DATA = HOME / "pg"

CampaignSelector = Callable[[Connection, Sequence[str] | None, CampaignRules], list[Campaign]]


def make_home() -> Path:
    """Return `.leadloop`, made with access for us alone where it is missing.

    Raises:
        UsageError: others may write the working directory, and put another one in its place.
    """
    require_private_directory()
    with suppress(OSError):  # what is made in it next says why it cannot be
        HOME.mkdir(mode=0o700, exist_ok=True)
    return HOME


@contextmanager
def load_settings_with_database(*overrides: SettingSource) -> Iterator[Settings]:
    """Load the settings; if they ask for the embedded Postgres, run it for the block and say so.

    Args:
        overrides: settings that win over the environment.

    Raises:
        UsageError: a setting is wrong, no database is named, or the embedded Postgres cannot run.
    """
    settings = load_settings(*overrides)
    if settings.database_url is None:
        raise _missing_database_url()
    if not settings.is_embedded:
        yield settings
        return
    print(f"leadloop: {EMBEDDED_DISPLAY_NAME}", file=sys.stderr)
    with run_embedded_database():
        yield Settings.load(*overrides)


def load_settings(*overrides: SettingSource) -> Settings:
    """Load the settings; warn on stderr about variables that look like settings and are none.

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

    Its URL is in the environment meanwhile: there the flows of this process find it.

    Raises:
        UsageError: it cannot run.
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


def _missing_database_url() -> UsageError:
    line = (
        f"{DATABASE_URL} is not set: write postgresql://user@host:5432/database, or `{EMBEDDED}`"
        " for a throw-away Postgres in this directory"
    )
    if _EMBEDDED_DATA.exists():
        line += f" ({_EMBEDDED_DATA} holds data of one from before: `{EMBEDDED}` opens it again)"
    return UsageError(line)


@contextmanager
def enter_locked_directory(name: str) -> Iterator[None]:
    """Work in `.leadloop/NAME`, where no other process may be at the same.

    Raises:
        UsageError: another one is, or nothing can be written there.
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
        # What runs in it begins without data: earlier ones that are gone are no loss.
        (HOME / "pg" / NOTE).unlink(missing_ok=True)
        yield


def explain_write_error(error: OSError, name: str) -> UsageError:
    """What to say where `leadloop NAME` has no place for its files."""
    return UsageError(
        f"cannot write to {error.filename}: {error.strerror}; run `leadloop {name}` where you may"
    )


def explain_listen_error(error: OSError, host: str, port: int) -> UsageError:
    """What to say where a server cannot be reached at --host and --port."""
    # Codes of names that are not found are below nought; create_server keeps nothing else of them.
    unknown = isinstance(error, socket.gaierror) or (error.errno or 0) < 0
    why = "no such host" if unknown else os.strerror(error.errno or 0)
    elsewhere = unknown or error.errno == errno.EADDRNOTAVAIL
    choose = "name an address of this machine with --host" if elsewhere else "choose another --port"
    return UsageError(f"cannot listen on port {port} of {host}: {why}; {choose}")


def clear_environment() -> None:
    """Take out of the environment what would mean another database, vendor or Prefect."""
    for name in [name for name in os.environ if name.startswith(("LEADLOOP_", "PREFECT_API_"))]:
        del os.environ[name]


@contextmanager
def open_database(settings: Settings, *, require_schema: bool = True) -> Iterator[Database]:
    """The database, seen to be there.

    Args:
        settings: they name it.
        require_schema: also make sure that its schema is this version's.

    Raises:
        UsageError: it is not there, or not as it must be.
        DatabaseError: trouble in the block.
    """
    require_urls(settings)
    opened = Database(settings.require_database_url(), pool_size=2)
    with opened:
        try:
            with opened.transaction() as connection:
                if require_schema:
                    require_current(connection)
        except DatabaseError as error:
            raise UsageError(str(error)) from None
        yield opened


def require_urls(settings: Settings) -> None:
    """Check that LEADLOOP_DATABASE_URL, and LEADLOOP_SOURCE_URL where it is set, are URLs.

    Raises:
        UsageError: one of them is not.
    """
    require_postgres_url(settings.require_database_url(), DATABASE_URL)
    require_postgres_url(settings.require_source_url(), settings.source_variable)


def require_postgres_url(url: str, variable: str) -> None:
    """Check the URL of a database.

    Args:
        url: what is checked.
        variable: the variable that it comes from, for the message.

    Raises:
        UsageError: it is not a URL of Postgres.
    """
    try:
        require_url(url, variable)
    except InvalidDatabaseUrl as error:
        raise UsageError(str(error)) from None


def preflight_campaigns(
    settings: Settings, campaigns: Sequence[str], *, select: CampaignSelector = select_campaigns
) -> list[str]:
    """See that a flow could begin. Returns the ids of its campaigns, found by `choose`.

    Raises:
        UsageError: it could not; one line says why and what to do.
    """
    settings.require_login()
    with open_database(settings) as opened, opened.transaction() as connection:
        found = select(connection, campaigns, settings.campaign_rules())
        return [campaign.campaign_id for campaign in found]


def preflight_campaigns_without_api(settings: Settings, campaigns: Sequence[str]) -> list[str]:
    """The same of a flow that has no need of the vendor, and takes all campaigns.

    Raises:
        UsageError: it could not.
    """
    with open_database(settings) as opened, opened.transaction() as connection:
        found = list_campaigns(connection, campaigns, settings.campaign_rules())
        return [campaign.campaign_id for campaign in found]


class PrefectServer:
    """The server that runs by hand report to; `wait` returns when it can be used."""

    def __init__(self, server: "EphemeralPrefect | None") -> None:
        self._server = server

    def wait(self) -> None:
        """Import Prefect, which takes as long as most of the server's start, then wait for it.

        Raises:
            UsageError: it does not come up; or the one that PREFECT_API_URL names is of no use.
        """
        from flows.prefect_api import check_api_reachable

        if self._server is not None:
            self._server.wait()
        else:
            check_api_reachable()


def require_prefect_url() -> None:
    """See that PREFECT_API_URL is a URL: of some that are not, Prefect cannot even be imported.

    Raises:
        UsageError: it is not.
    """
    try:
        parts = urlsplit(os.environ["PREFECT_API_URL"])
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise UsageError(
            "PREFECT_API_URL is not a URL: write http://host:4200/api (runs by hand need none)"
        )


def find_prefect_url() -> str | None:
    """The API of the Prefect server that the environment or Prefect's profile names, if any.

    Raises:
        UsageError: the environment names something else.
    """
    if os.environ.get("PREFECT_API_URL"):
        require_prefect_url()
    from flows.prefect_api import configured_api_url

    return configured_api_url()


@contextmanager
def open_prefect_server() -> Iterator[PrefectServer]:
    """The server that PREFECT_API_URL names; where none is named, one of our own for the block.

    Ours begins to start at once: what the caller does before `wait` costs no time.

    Raises:
        UsageError: there can be none.
    """
    if os.environ.get("PREFECT_API_URL"):
        require_prefect_url()
        yield PrefectServer(None)
        return
    from leadloop.local.prefect_ephemeral import run_ephemeral_prefect

    with run_ephemeral_prefect(make_home() / "prefect") as server:
        os.environ.update(server.client_environment())
        yield PrefectServer(server)
