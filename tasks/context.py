"""What a flow run works with: database, API and budget, and a row of its own a campaign."""

import logging
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from db import runs
from db.database import Connection, Database
from db.runs import RunLocks
from db.schema import require_current
from leadloop.client.api import LeadsApi
from leadloop.core.campaign_rules import Campaign
from leadloop.core.errors import LeadloopError
from leadloop.settings import Settings
from tasks.api_session import ApiSession, open_api
from tasks.rate_limiter import RateLimiter

Logger = logging.Logger | logging.LoggerAdapter[logging.Logger]

# Beside the requests in flight: the lifeline, the claimer, and a record that is written meanwhile.
_OTHER_CONNECTIONS = 4


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """The tools of one flow run, shared by its campaigns and threads.

    `vendor` is None in a run that asks the vendor nothing.
    """

    settings: Settings
    database: Database
    lifeline: RunLocks
    log: Logger
    vendor: ApiSession | None = None

    @property
    def api(self) -> LeadsApi:
        """The vendor's API."""
        return self._reached.api

    @property
    def limiter(self) -> RateLimiter:
        """The budget of requests to it."""
        return self._reached.budget

    @property
    def requests_sent(self) -> int:
        """Requests to it so far."""
        return self.vendor.transport.requests_sent if self.vendor else 0

    @property
    def _reached(self) -> ApiSession:
        assert self.vendor is not None, "who asks the vendor opens the place by `opened`"
        return self.vendor

    @contextmanager
    def threads(self) -> Iterator["RequestThreads"]:
        """Threads for requests; where the run is stopped, they end instead of waiting for turns."""
        pool = RequestThreads(self.settings.concurrency)
        try:
            yield pool
        except Exception:
            raise
        except BaseException:
            self.limiter.stop()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


class RequestThreads(ThreadPoolExecutor):
    """A pool that tells how many threads it has."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


@dataclass(frozen=True, kw_only=True)
class CampaignRun:
    """One campaign's part of a flow run: a row of `leadloop.sync_runs`."""

    run_id: int
    campaign: Campaign
    context: RunContext


@contextmanager
def open_api_context(settings: Settings) -> Iterator[RunContext]:
    """Connect to everything.

    Raises:
        UsageError: settings are missing, or the schema is not the one we work on.
        DatabaseError: Postgres is not there.
        RunError: the environment names a CA bundle that is none.
    """
    with (
        open_database_context(settings) as place,
        open_api(settings, place.database, place.log.warning) as vendor,
    ):
        yield replace(place, vendor=vendor)


@contextmanager
def open_database_context(settings: Settings) -> Iterator[RunContext]:
    """Connect to Postgres alone, for a run that has no need of the vendor, nor of a login there.

    Raises:
        UsageError: the database is not named, or the schema is not the one we work on.
        DatabaseError: Postgres is not there.
    """
    url = settings.require_database_url()
    with Database(url, pool_size=settings.concurrency + _OTHER_CONNECTIONS) as database:
        with database.transaction() as connection:
            require_current(connection)
        with database.autocommit() as connection:
            yield RunContext(
                settings=settings,
                database=database,
                lifeline=RunLocks(connection),
                log=get_run_logger(),
            )


def start_run(place: RunContext, flow: str, campaign: Campaign) -> CampaignRun:
    """Write the run's row, then bury the runs that died: what they had sent becomes in doubt."""
    run_id = place.lifeline.open_run(
        flow=flow, campaign_id=campaign.campaign_id, flow_run_id=flow_run.get_id()
    )
    runs.recover_dead_runs(place.database, place.log.warning, run_id=run_id)
    return CampaignRun(run_id=run_id, campaign=campaign, context=place)


def finish_run(run: CampaignRun, counted: Mapping[str, Any], error: BaseException | None) -> None:
    """Write how the run ended; what it sent and heard nothing of becomes in doubt."""
    state = "completed" if error is None else "failed"

    def write(connection: Connection) -> None:
        runs.mark_unanswered_in_doubt(connection, run.run_id)
        runs.close_run(
            connection,
            run_id=run.run_id,
            state=state,
            counts=counted,
            error=None if error is None else error_line(error),
        )

    run.context.database.retry(write)


def error_line(error: BaseException) -> str:
    """What to say of an error: our own words, or no more than the type of a foreign one."""
    if isinstance(error, LeadloopError):
        return str(error)
    return f"unexpected {type(error).__name__}"


class Counters:
    """Counts that several threads add to."""

    def __init__(self, *names: str) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(names, 0)

    def add(self, **amounts: int) -> None:
        """Add to some of the counts."""
        with self._lock:
            for name, amount in amounts.items():
                self._counts[name] += amount

    def counts(self) -> dict[str, int]:
        """All counts as they stand."""
        with self._lock:
            return dict(self._counts)
