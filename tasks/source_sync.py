"""A campaign's own table or view: what a push takes from it before it sends."""

from collections.abc import Iterator
from contextlib import contextmanager

from db import source, source_sync
from db.database import Connection, Database, DatabaseError
from db.source_sync import SourceDiff, SyncCounts
from leadloop.core.campaign_rules import Campaign
from leadloop.core.errors import RunError
from leadloop.core.source_requirements import MAX_LEAD_ID_LENGTH
from leadloop.settings import Settings
from tasks.context import CampaignRun
from tasks.retries import step

# Short transactions: whoever waits for one of the leads does not wait for all of them.
_CHUNK_ROWS = 5000
#: What Postgres says to whoever has waited for too long: by lock_timeout, by statement_timeout.
_TIMEOUT_STATES = ("55P03", "57014")


@step("take-from-source")
def sync_from_source(sync: "SourceSync") -> int:
    """Have the campaign's leads follow its source. Returns how many are new."""
    return sync.sync_leads().inserted


@contextmanager
def open_source_database(settings: Settings, database: Database) -> Iterator[Database]:
    """Yield the database, opened with the login that reads sources, and closed at the end.

    Raises:
        UsageError: LEADLOOP_SOURCE_URL names another database.
    """
    with Database(
        settings.require_source_url(), pool_size=1, setting=settings.source_variable
    ) as reader:
        if settings.source_url is not None:
            source.require_same_database(reader, database)
        yield reader


def stage_source(reader: Database, connection: Connection, campaign: Campaign) -> None:
    """Copy the rows of a campaign's source to a temporary table of the connection.

    Raises:
        SourceError: the source cannot be used, or not be read in time.
    """
    assert campaign.source is not None, "the caller asks only for a campaign that has one"
    found = source.inspect_source(reader, campaign, campaign.source)
    source.stage_source_rows(reader, connection, campaign, found)


class SourceSync:
    """Takes the leads of one campaign's source."""

    def __init__(self, run: CampaignRun) -> None:
        self._run = run
        self._campaign = run.campaign

    def sync_leads(self) -> SyncCounts:
        """Insert what is new there, bring what was not sent up to date, and remove what is gone.

        Raises:
            SourceError: the source cannot be used, or not be read in time.
            RunError: another run has been taking leads from it for too long.
        """
        place = self._run.context
        with (
            open_source_database(place.settings, place.database) as reader,
            place.database.dedicated() as connection,
        ):
            source.set_read_limits(connection, self._campaign.source_timeout_s)
            # Read in our turn: who reads first would otherwise write last.
            self._lock_source(connection)
            stage_source(reader, connection, self._campaign)
            with source.translate_errors(self._campaign), place.database.translate_errors():
                differences = source_sync.compute_diff(connection, self._campaign.campaign_id)
            self._warn_skipped_rows(differences)
            taken = self._apply_diff(connection, differences)
        place.log.info(
            "campaign %s: %d leads taken from its source, %d refreshed, %d gone from it",
            *(self._campaign.campaign_id, taken.inserted, taken.refreshed, taken.removed),
        )
        return taken

    def _lock_source(self, connection: Connection) -> None:
        try:
            with self._run.context.database.translate_errors():
                source_sync.lock_source(connection, self._campaign.campaign_id)
        except DatabaseError as error:
            if error.sqlstate not in _TIMEOUT_STATES:
                raise
            raise RunError(
                "another run is still taking leads from its source: run this again when it is done"
            ) from None

    def _apply_diff(self, connection: Connection, differences: SourceDiff) -> SyncCounts:
        taken = SyncCounts()
        for first in range(1, differences.last + 1, _CHUNK_ROWS):
            last = first + _CHUNK_ROWS - 1
            taken += source_sync.apply_diff(connection, self._campaign.campaign_id, first, last)
        return taken

    def _warn_skipped_rows(self, differences: SourceDiff) -> None:
        if differences.unnamed or differences.duplicates:
            self._run.context.log.warning(
                "campaign %s: rows of its source that are passed over: %d without a lead_id (or"
                " with one of more than %d characters), %d whose lead_id another row has",
                *(self._campaign.campaign_id, differences.unnamed),
                *(MAX_LEAD_ID_LENGTH, differences.duplicates),
            )
