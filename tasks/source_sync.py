"""The sync of a campaign's leads with its source (its own table or view), before a push."""

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from db import source, source_removals, source_sync
from db.database import Connection, Database, DatabaseError
from db.source import LEAD_STAGING, SourceTable, Staging
from db.source_sync import SourceDiff, SyncCounts
from db.unreadable_rows import has_staged_rows, without_unconvertible
from leadloop.core.campaign_rules import Campaign
from leadloop.core.errors import RunError
from leadloop.core.plurals import format_count
from leadloop.core.source_removals import may_opt_out
from leadloop.core.source_requirements import (
    MAX_LEAD_ID_LENGTH,
    LeadSource,
    NamedSource,
    SourceError,
    UnreadableRows,
    find_lead_source,
)
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
TIMEOUT_STATES = ("55P03", "57014")


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


@dataclass(frozen=True, kw_only=True)
class StagedSource:
    """What was not copied of a source: rows that cannot be read, or maybe all rows."""

    unreadable: UnreadableRows
    is_hidden: bool


def stage_source(
    reader: Database,
    connection: Connection,
    named: LeadSource,
    warn: Callable[[str], None] | None = None,
) -> StagedSource:
    """Copy the rows of a campaign's source to a staging table of the connection.

    Args:
        reader: the database, opened with the login that reads sources.
        connection: ours, which gets the table; outside of a transaction.
        named: the source.
        warn: is called if there is no row, and row level security may be the reason.

    Raises:
        SourceError: the source cannot be used, or cannot be read in time.
    """
    table = source.inspect_source(reader, named)
    unreadable = source.stage_source_rows(reader, connection, named, table, LEAD_STAGING)
    is_hidden = warn_if_hidden(reader, connection, named, table, LEAD_STAGING, warn)
    return StagedSource(unreadable=unreadable, is_hidden=is_hidden)


def warn_if_hidden(
    reader: Database,
    connection: Connection,
    named: NamedSource,
    table: SourceTable,
    staging: Staging,
    warn: Callable[[str], None] | None,
) -> bool:
    """Return whether a source has shown no row, maybe by row level security; warn if so."""
    if has_staged_rows(connection, staging.table) or not source.hides_rows(reader, named, table):
        return False
    if warn is not None:
        warn(f"{named} {HIDDEN_ROWS}")
    return True


def sync_source(run: CampaignRun[ApiContext]) -> SyncCounts:
    """Make a campaign's leads follow its source.

    New rows are inserted, leads that were not sent are updated, and those whose row is gone are
    removed. A row that cannot be read counts as gone until it can be read: no older version of it
    is sent. Leads that were sent and whose row is gone opt out, if the campaign is set so.

    Raises:
        SourceError: the source cannot be used, or cannot be read in time.
        RunError: another run still holds the lock of the source.
    """
    context, campaign = run.context, run.campaign
    with compare_source(context.settings, context.database, campaign, run.warn) as compared:
        diff, unreadable = compared.diff, compared.unreadable
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
            counts += source_sync.apply_diff(compared.connection, campaign.campaign_id, first, last)
        if (removals := compared.decide_removals()) is not None:
            _apply_removals(run, compared.connection, removals)
    run.log_step(
        "source synced: %s inserted, %d updated, %d removed",
        *(format_count(counts.inserted, "lead"), counts.refreshed, counts.removed),
    )
    return counts


def differs_from_source(context: ApiContext, campaign: Campaign) -> bool:
    """Return whether a sync would change any lead; changes nothing.

    Raises:
        SourceError: the source cannot be used, or cannot be read in time.
        RunError: a run still holds the lock of the source.
    """
    with compare_source(context.settings, context.database, campaign) as compared:
        removals = compared.decide_removals()
        return compared.diff.last > 0 or (removals is not None and removals.is_news)


@dataclass(frozen=True, kw_only=True)
class Removals:
    """What becomes of leads that were sent and have lost their row.

    Attributes:
        opted_out: how many opt out.
        held: how many wait for a person.
        held_before: how many waited at the last sync.
    """

    opted_out: int
    held: int
    held_before: int

    @property
    def is_news(self) -> bool:
        """Whether a sync has to opt out or to record any."""
        return self.opted_out > 0 or self.held != self.held_before


@dataclass(frozen=True, kw_only=True)
class ComparedSource:
    """A campaign's leads, compared with its source; `connection` has the differences.

    `is_hidden`: the source shows no row, and row level security may be the reason.
    """

    connection: Connection
    campaign: Campaign
    diff: SourceDiff
    unreadable: UnreadableRows
    is_hidden: bool

    def decide_removals(self) -> Removals | None:
        """Decide on the leads that were sent and have lost their row.

        Returns:
            None if the campaign keeps them, or if rows cannot be read: theirs may be among these.
        """
        if self.campaign.on_source_removal != "opt_out" or self.unreadable.count or self.is_hidden:
            return None
        removed, campaign_id = self.diff.left_source, self.campaign.campaign_id
        with self.connection.begin():
            held_before = source_removals.get_held_removals(self.connection, campaign_id)
            may = not removed or may_opt_out(
                removed,
                recent=source_removals.count_recent_removals(self.connection, campaign_id),
                leads=source_removals.count_leads(self.connection, campaign_id),
            )
        return Removals(
            opted_out=removed if may else 0,
            held=0 if may else removed,
            held_before=held_before,
        )


def _apply_removals(
    run: CampaignRun[ApiContext], connection: Connection, removals: Removals
) -> None:
    """Opt out leads that have lost their row, or record how many wait for a person."""
    campaign_id = run.campaign.campaign_id
    if removals.opted_out:
        opted_out = source_removals.opt_out_removed(connection, campaign_id, "source_removal")
        run.log_step("leads whose rows left its source opt out: %d", opted_out)
    if removals.is_news:
        with connection.begin():
            source_removals.hold_removals(connection, campaign_id, removals.held)
    if removals.held:
        run.warn(
            "%d leads were sent, and their rows have left the campaign's source: that many opt out"
            " only by a person: `leadloop opt-out --left-source --campaign %s`",
            *(removals.held, shlex.quote(campaign_id)),
        )


@contextmanager
def compare_source(
    settings: Settings,
    database: Database,
    campaign: Campaign,
    warn: Callable[[str], None] | None = None,
    *,
    removed_too: bool = False,
) -> Iterator[ComparedSource]:
    """Compare a campaign's leads with its source, whose lock is held for the block.

    Args:
        settings: the login that reads sources.
        database: the database with the leads.
        campaign: the campaign, which has a source.
        warn: is called if there is no row, and row level security may be the reason.
        removed_too: leads that were sent and have lost their row count, whatever the campaign's
            setting is.

    Raises:
        SourceError: the source cannot be used, or cannot be read in time.
        RunError: a run still holds the lock of the source.
    """
    named = find_lead_source(campaign)
    assert named is not None, "the caller asks only for a campaign that has one"
    with (
        open_source_database(settings, database) as reader,
        database.dedicated() as connection,
    ):
        source.set_read_limits(connection, named.timeout_s)
        # Lock before reading: a run that reads first would otherwise write last.
        _lock_source(database, campaign, connection)
        staged = stage_source(reader, connection, named, warn)
        with source.translate_comparison_errors(named), database.translate_errors():
            diff, unconvertible = without_unconvertible(
                connection,
                partial(
                    source_sync.compute_diff,
                    connection,
                    campaign.campaign_id,
                    opts_out_removed=removed_too or campaign.on_source_removal == "opt_out",
                ),
            )
        yield ComparedSource(
            connection=connection,
            campaign=campaign,
            diff=diff,
            unreadable=staged.unreadable + unconvertible,
            is_hidden=staged.is_hidden,
        )


def _lock_source(database: Database, campaign: Campaign, connection: Connection) -> None:
    """Wait for the lock of the campaign's source; raise RunError after the lock timeout."""
    try:
        with database.translate_errors():
            source_sync.lock_source(connection, campaign.campaign_id)
    except DatabaseError as error:
        if error.sqlstate not in TIMEOUT_STATES:
            raise
        raise RunError(
            "another run is still taking leads from the campaign's source: run this again"
            " when it is done"
        ) from None
