"""The sync of a campaign's leads with its source (its own table or view), before a push."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from db import source, source_sync
from db.database import Connection, Database, DatabaseError
from db.source_sync import SourceDiff, SyncCounts
from db.unreadable_rows import has_staged_rows, without_unconvertible
from leadloop.core.campaign_rules import Campaign
from leadloop.core.errors import RunError
from leadloop.core.source_requirements import MAX_LEAD_ID_LENGTH, SourceError, UnreadableRows
from leadloop.settings import Settings
from tasks.context import ApiContext, CampaignRun

#: The warning about a source that shows no row, behind its name.
HIDDEN_ROWS = (
    "has no row for the login that reads it, and row level security applies to that login: give it"
    " a policy (CREATE POLICY), or a login with BYPASSRLS"
)
# Rows a transaction: it is short, so that other transactions wait for few leads.
_CHUNK_ROWS = 5000
#: The SQLSTATEs of a wait that exceeded lock_timeout or statement_timeout.
_TIMEOUT_STATES = ("55P03", "57014")


@contextmanager
def open_source_database(settings: Settings, database: Database) -> Iterator[Database]:
    """Open the database with the login that reads sources, for a block.

    Raises:
        UsageError: LEADLOOP_SOURCE_URL names another database.
        SourceError: Postgres cannot be reached with it.
    """
    with Database(
        settings.require_source_url(), pool_size=1, setting=settings.source_variable
    ) as reader:
        if settings.source_url is not None:
            try:
                source.require_same_database(reader, database)
            except DatabaseError as error:
                # A live run would take its own connections for lost.
                raise SourceError(str(error)) from None
        yield reader


def stage_source(
    reader: Database,
    connection: Connection,
    campaign: Campaign,
    warn: Callable[[str], None] | None = None,
) -> UnreadableRows:
    """Copy the rows of a campaign's source to a staging table of the connection.

    Args:
        reader: the database, opened with the login that reads sources.
        connection: ours, which gets the table; outside of a transaction.
        campaign: the campaign.
        warn: is called if there is no row, and row level security may be the reason.

    Returns:
        The rows that could not be read and were left out.

    Raises:
        SourceError: the source cannot be used, or cannot be read in time.
    """
    assert campaign.source is not None, "the caller asks only for a campaign that has one"
    table = source.inspect_source(reader, campaign, campaign.source)
    unreadable = source.stage_source_rows(reader, connection, campaign, table)
    if (
        warn is not None
        and not has_staged_rows(connection)
        and source.hides_rows(reader, campaign, table)
    ):
        warn(f"the campaign's source {campaign.source!r} {HIDDEN_ROWS}")
    return unreadable


def sync_source(run: CampaignRun[ApiContext]) -> SyncCounts:
    """Make a campaign's leads follow its source.

    New rows are inserted, leads that were not sent are updated, and those whose row is gone are
    removed. A row that cannot be read counts as gone until it can be read: no older version of it
    is sent.

    Raises:
        SourceError: the source cannot be used, or cannot be read in time.
        RunError: another run still holds the lock of the source.
    """
    context, campaign = run.context, run.campaign
    with _compare_source(context, campaign, run.warn) as (connection, diff, unreadable):
        if unreadable.count:
            run.warn(
                "rows of the campaign's source that cannot be read are passed over: %d, %s",
                *(unreadable.count, unreadable),
            )
        if diff.unnamed or diff.duplicates:
            run.warn(
                "rows of the campaign's source are skipped: %d without a lead_id (or with one"
                " of more than %d characters), %d whose lead_id another row has",
                *(diff.unnamed, MAX_LEAD_ID_LENGTH, diff.duplicates),
            )
        counts = SyncCounts(unreadable=unreadable.count)
        for first in range(1, diff.last + 1, _CHUNK_ROWS):
            last = first + _CHUNK_ROWS - 1
            counts += source_sync.apply_diff(connection, campaign.campaign_id, first, last)
    run.log_step(
        "source synced: %d leads inserted, %d updated, %d removed",
        *(counts.inserted, counts.refreshed, counts.removed),
    )
    return counts


def differs_from_source(context: ApiContext, campaign: Campaign) -> bool:
    """Return whether a sync would change any lead; changes nothing.

    Raises:
        SourceError: the source cannot be used, or cannot be read in time.
        RunError: a run still holds the lock of the source.
    """
    with _compare_source(context, campaign) as (_, diff, _):
        return diff.last > 0


@contextmanager
def _compare_source(
    context: ApiContext, campaign: Campaign, warn: Callable[[str], None] | None = None
) -> Iterator[tuple[Connection, SourceDiff, UnreadableRows]]:
    """Compare a campaign's leads with its source, whose lock is held for the block.

    Yields:
        The connection that has the differences, their summary, and the rows that could not be read.
    """
    with (
        open_source_database(context.settings, context.database) as reader,
        context.database.dedicated() as connection,
    ):
        source.set_read_limits(connection, campaign.source_timeout_s)
        # Lock before reading: a run that reads first would otherwise write last.
        _lock_source(context, campaign, connection)
        unreadable = stage_source(reader, connection, campaign, warn)
        with source.translate_comparison_errors(campaign), context.database.translate_errors():
            diff, unconvertible = without_unconvertible(
                connection,
                partial(source_sync.compute_diff, connection, campaign.campaign_id),
            )
        yield connection, diff, unreadable + unconvertible


def _lock_source(context: ApiContext, campaign: Campaign, connection: Connection) -> None:
    """Wait for the lock of the campaign's source; raise RunError after the lock timeout."""
    try:
        with context.database.translate_errors():
            source_sync.lock_source(connection, campaign.campaign_id)
    except DatabaseError as error:
        if error.sqlstate not in _TIMEOUT_STATES:
            raise
        raise RunError(
            "another run is still taking leads from the campaign's source: run this again"
            " when it is done"
        ) from None
