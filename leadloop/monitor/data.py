"""The page's configuration and its cached reads of the database.

Streamlit runs the page's script in the process of the server, so both share this module's state.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

from db import monitor
from db.database import Database
from db.monitor import History, StatusSnapshot
from leadloop.monitor.throttled_cache import ThrottledCache

#: One for the status, one for the history: each cache loads one entry at a time.
_CONNECTIONS = 2


@dataclass(frozen=True, kw_only=True)
class PageConfig:
    """The database to read, the Prefect UI to link to, and the refresh interval.

    Args:
        database_url: a login that may act as `leadloop_reader`.
        database_setting: the variable that holds the URL, for error messages.
        prefect_url: Prefect's UI; None: runs have no link.
        refresh_s: seconds between two refreshes.
    """

    database_url: str
    database_setting: str
    prefect_url: str | None
    refresh_s: float

    def build_run_url(self, flow_run_id: str | None) -> str | None:
        """Return the URL of a flow run in Prefect's UI, or None if there is no UI or no id."""
        if self.prefect_url is None or flow_run_id is None:
            return None
        return f"{self.prefect_url}/runs/flow-run/{flow_run_id}"


_configs: list[PageConfig] = []


def set_config(config: PageConfig) -> None:
    """Set the configuration, before the page is served."""
    _configs[:] = [config]


def get_config() -> PageConfig:
    """Return the configuration that `set_config` has set."""
    return _configs[0]


@cache
def _open_database(config: PageConfig) -> Database:
    return Database(config.database_url, pool_size=_CONNECTIONS, setting=config.database_setting)


@ThrottledCache
def load_status() -> StatusSnapshot:
    """Return a snapshot of every campaign, fresh or cached; see `db.monitor`."""
    return monitor.read_status_snapshot(_open_database(get_config()))


@ThrottledCache
def load_history(campaign_ids: tuple[str, ...], days: int | None) -> History:
    """Return the history of some campaigns over a number of days, fresh or cached.

    Args:
        campaign_ids: which campaigns; none: all.
        days: the length of the period; None: everything.
    """
    start = None if days is None else start_of_period(days)
    return monitor.read_history(_open_database(get_config()), campaign_ids, start)


def normalize_selection(selected: Iterable[str]) -> tuple[str, ...]:
    """Return selected campaigns in one order, so that each selection is loaded once."""
    return tuple(sorted(set(selected)))


def start_of_period(days: int) -> datetime:
    """Return the start of the period: a full hour for one day, midnight (UTC) for several."""
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=days)
    return start if days == 1 else start.replace(hour=0)


def find_prefect_page(environment: dict[str, str]) -> str | None:
    """Return the URL of Prefect's UI, or None if the environment names none.

    PREFECT_UI_URL takes precedence over a PREFECT_API_URL that ends in `/api`.
    """
    page = environment.get("PREFECT_UI_URL", "").rstrip("/")
    api = environment.get("PREFECT_API_URL", "").rstrip("/")
    found = page or (api.removesuffix("/api") if api.endswith("/api") else "")
    return found if found.startswith(("http://", "https://")) else None
