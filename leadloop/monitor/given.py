"""What the page is given when it is served; Streamlit runs its script in the same process."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

from db import monitor
from db.database import Database
from db.monitor import History, StatusSnapshot
from leadloop.monitor.looks import Looks

#: For one look at how it stands, and one at what has been.
_CONNECTIONS = 2


@dataclass(frozen=True, kw_only=True)
class Given:
    """Where to read, where runs are shown, and how often to look.

    Args:
        database_url: a login that may act as `leadloop_reader`.
        database_setting: the variable that the URL comes from, for messages.
        prefect_url: Prefect's page; None: runs have no link.
        refresh_s: seconds between two looks.
    """

    database_url: str
    database_setting: str
    prefect_url: str | None
    refresh_s: float

    def run_url(self, flow_run_id: str | None) -> str | None:
        """Where Prefect shows a run."""
        if self.prefect_url is None or flow_run_id is None:
            return None
        return f"{self.prefect_url}/runs/flow-run/{flow_run_id}"


_given: list[Given] = []


def give(given: Given) -> None:
    """Hand it over, before the page is served."""
    _given[:] = [given]


def given() -> Given:
    """What was handed over."""
    return _given[0]


def standing() -> StatusSnapshot:
    """How every campaign stands; see `db.monitor.standing`."""
    return _standing()


def past(campaign_ids: Sequence[str], days: int | None) -> History:
    """What has been in so many days, None: ever; see `db.monitor.past`."""
    return _past(tuple(campaign_ids), days)


def _since(days: int) -> datetime:
    """Where a period begins: with a whole hour, or of several days with a whole one."""
    begins = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=days)
    return begins if days == 1 else begins.replace(hour=0)


def _opened() -> Database:
    return _database(given().database_url, given().database_setting)


@cache
def _database(url: str, setting: str) -> Database:
    return Database(url, pool_size=_CONNECTIONS, setting=setting)


_standing = Looks(lambda: monitor.read_status(_opened()))
_past = Looks(
    lambda campaign_ids, days: monitor.read_history(
        _opened(), campaign_ids, None if days is None else _since(days)
    )
)


def prefect_page(environment: dict[str, str]) -> str | None:
    """Where Prefect's own page is, by PREFECT_UI_URL, else by PREFECT_API_URL; None: nowhere."""
    page = environment.get("PREFECT_UI_URL", "").rstrip("/")
    api = environment.get("PREFECT_API_URL", "").rstrip("/")
    found = page or (api.removesuffix("/api") if api.endswith("/api") else "")
    return found if found.startswith(("http://", "https://")) else None
