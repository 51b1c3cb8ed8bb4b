"""A campaign's own table or view: what a push takes from it before it sends."""

from collections.abc import Iterator
from contextlib import contextmanager

from db import source, source_sync
from db.database import Connection, Database, DatabaseError
from db.source_sync import Differences, Taken
from leadloop.core.campaigns import Campaign
from leadloop.core.errors import RunError
from leadloop.core.source_requirements import LONGEST_ID
from leadloop.settings import Settings
from tasks.context import CampaignRun
from tasks.retries import step

# Short transactions: whoever waits for one of the leads does not wait for all of them.
_PORTION = 5000
#: What Postgres says to whoever has waited for too long: by lock_timeout, by statement_timeout.
_NOT_MY_TURN = ("55P03", "57014")


@step("take-from-source")
def take_from_source(taker: "Taker") -> int:
    """Have the campaign's leads follow its source. Returns how many are new."""
    return taker.take().inserted


@contextmanager
def opened_reader(settings: Settings, database: Database) -> Iterator[Database]:
    """Yield the database, opened with the login that reads sources, and closed at the end.

    Raises:
        UsageError: LEADLOOP_SOURCE_URL names another database.
    """
    with Database(
        settings.require_source_url(), connections=1, setting=settings.source_variable
    ) as reader:
        if settings.source_url is not None:
            source.require_same_database(reader, database)
        yield reader


def copy_source(reader: Database, connection: Connection, campaign: Campaign) -> None:
    """Copy the rows of a campaign's source to a temporary table of the connection.

    Raises:
        SourceTrouble: the source cannot be used, or not be read in time.
    """
    assert campaign.source is not None, "the caller asks only for a campaign that has one"
    found = source.find(reader, campaign, campaign.source)
    source.copy_rows(reader, connection, campaign, found)


class Taker:
    """Takes the leads of one campaign's source."""

    def __init__(self, run: CampaignRun) -> None:
        self._run = run
        self._campaign = run.campaign

    def take(self) -> Taken:
        """Insert what is new there, bring what was not sent up to date, and remove what is gone.

        Raises:
            SourceTrouble: the source cannot be used, or not be read in time.
            RunError: another run has been taking leads from it for too long.
        """
        place = self._run.context
        with (
            opened_reader(place.settings, place.database) as reader,
            place.database.apart() as connection,
        ):
            source.be_patient(connection, self._campaign.source_timeout_s)
            # Read in our turn: who reads first would otherwise write last.
            self._wait_turn(connection)
            copy_source(reader, connection, self._campaign)
            with source.troubles(self._campaign), place.database.plainly():
                differences = source_sync.compare(connection, self._campaign.campaign_id)
            self._warn(differences)
            taken = self._apply(connection, differences)
        place.log.info(
            "campaign %s: %d leads taken from its source, %d refreshed, %d gone from it",
            *(self._campaign.campaign_id, taken.inserted, taken.refreshed, taken.removed),
        )
        return taken

    def _wait_turn(self, connection: Connection) -> None:
        try:
            with self._run.context.database.plainly():
                source_sync.wait_turn(connection, self._campaign.campaign_id)
        except DatabaseError as error:
            if error.sqlstate not in _NOT_MY_TURN:
                raise
            raise RunError(
                "another run is still taking leads from its source: run this again when it is done"
            ) from None

    def _apply(self, connection: Connection, differences: Differences) -> Taken:
        taken = Taken()
        for first in range(1, differences.last + 1, _PORTION):
            last = first + _PORTION - 1
            taken += source_sync.apply(connection, self._campaign.campaign_id, first, last)
        return taken

    def _warn(self, differences: Differences) -> None:
        if differences.unnamed or differences.twins:
            self._run.context.log.warning(
                "campaign %s: rows of its source that are passed over: %d without a lead_id (or"
                " with one of more than %d characters), %d whose lead_id another row has",
                *(self._campaign.campaign_id, differences.unnamed),
                *(LONGEST_ID, differences.twins),
            )
