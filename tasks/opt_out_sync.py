"""Reads of a campaign's opt-out source: each row that appears in it becomes an opt-out.

A read comes before leads are sent. If the source cannot be read, people who have opted out there
might be called: then no lead of the campaign is sent.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Concatenate, ParamSpec

from db import opt_out_source, source
from db.database import Connection, Database, DatabaseError
from db.opt_out_source import OPT_OUT_STAGING, OptOutEntry
from db.source import SourceTable
from db.suppressed_numbers import get_hash_key
from leadloop.core.boot_clock import read_boot_clock
from leadloop.core.campaign_rules import Campaign
from leadloop.core.errors import InvalidLead, RunError
from leadloop.core.opt_out_rows import (
    NAMES_NOBODY,
    check_opt_out_id,
    normalize_opt_out_number,
)
from leadloop.core.phones import hash_phone_number, hash_raw_number
from leadloop.core.plurals import format_count
from leadloop.core.source_requirements import (
    OptOutSource,
    SourceError,
    UnreadableRows,
    find_opt_out_source,
)
from tasks.context import ApiContext, CampaignRun
from tasks.counters import Counters
from tasks.jobs import DONE, ChunkResult
from tasks.source_sync import HIDDEN_ROWS, TIMEOUT_STATES, open_source_database

P = ParamSpec("P")

# Leads a transaction: it is short, so that other transactions wait for few leads.
_CHUNK_LEADS = 1000
# Reasons of refused rows that a line names.
_MAX_REASONS = 5


@dataclass(frozen=True, kw_only=True)
class ReadEntries:
    """New entries of an opt-out source, by place: lead ids, numbers with their hashes, refused."""

    lead_ids: dict[int, str] = field(default_factory=dict)
    numbers: dict[int, tuple[str, bytes]] = field(default_factory=dict, repr=False)
    refused: dict[int, str] = field(default_factory=dict)


def may_send(run: CampaignRun[ApiContext]) -> bool:
    """Return whether leads may be sent now: all opt-outs of the campaign's own table are on record.

    Reads the table if that is due, unless others read it.

    Raises:
        SourceError: the table cannot be read.
        RunError: another run still reads it, or some opt-outs are not on record yet.
    """
    campaign, looks = run.campaign, run.context.opt_out_looks
    if campaign.opt_out_source is None:
        return True
    if looks.by_others:
        return looks.is_fresh(campaign, read_boot_clock())
    with looks.get_lock(campaign):
        if looks.is_due(campaign, read_boot_clock()):
            take_opt_outs(run)
        elif failure := looks.find_failure(campaign):
            raise SourceError(failure)
    return True


def take_opt_outs(run: CampaignRun[ApiContext]) -> int:
    """Make each row that has appeared in the campaign's opt-out source an opt-out.

    A row that vanishes withdraws nothing. A row that cannot be read holds up no other.

    Returns:
        The number of lead ids and phone numbers that are new.

    Raises:
        SourceError: the source cannot be used, or cannot be read in time.
        RunError: another run still reads it, or some opt-outs are not on record yet.
    """
    with _record_look(run.context, run.campaign, is_take=True) as look:
        try:
            taken = _OptOutSync(run, look).take()
        except RunError as error:
            if not (isinstance(error, DatabaseError) and error.disconnected):
                run.write(opt_out_source.record_read_failure, run.campaign.campaign_id, str(error))
            raise
        look.is_applied = True
    return taken


def has_new_opt_outs(context: ApiContext, campaign: Campaign) -> bool:
    """Return whether `take_opt_outs` would change anything; changes nothing.

    Raises:
        SourceError: the source cannot be used, or cannot be read in time.
    """
    named, database = _require_source(campaign), context.database
    with (
        _record_look(context, campaign) as look,
        open_source_database(context.settings, database) as reader,
    ):
        table = source.inspect_source(reader, named)
        with look.reading():
            digest = _read_digest(reader, named, table, campaign.default_region)
        with database.transaction() as connection:
            has_news = not opt_out_source.is_unchanged(connection, campaign.campaign_id, digest)
        if digest is None and not has_news:
            # Some rows cannot be read, and others may be new.
            with database.dedicated() as connection:
                with look.reading():
                    unreadable = stage_opt_outs(reader, connection, database, campaign, table)
                has_news = _has_changes(connection, campaign, unreadable)
        look.is_applied = not has_news
    return has_news


def stage_opt_outs(
    reader: Database,
    connection: Connection,
    database: Database,
    campaign: Campaign,
    table: SourceTable,
) -> UnreadableRows:
    """Stage what is new in a campaign's opt-out source on a connection of ours.

    Args:
        reader: the database, opened with the login that reads sources.
        connection: a dedicated one, which gets the tables; outside of a transaction.
        database: that of the connection.
        campaign: the campaign.
        table: what the source is (`db.source.inspect_source`).

    Returns:
        The rows that could not be read and were left out.

    Raises:
        SourceError: the source cannot be read in time.
    """
    named = _require_source(campaign)
    source.set_read_limits(connection, named.timeout_s)
    unreadable = source.stage_source_rows(reader, connection, named, table, OPT_OUT_STAGING)
    with source.translate_comparison_errors(named), database.translate_errors():
        opt_out_source.stage_changes(connection, campaign.campaign_id, campaign.default_region)
    return unreadable


def iter_new_entries(connection: Connection, secret: bytes, region: str) -> Iterator[ReadEntries]:
    """Read the entries that `stage_opt_outs` has staged, in chunks, and check them.

    Args:
        connection: the connection that has them, outside of a transaction.
        secret: the key of the numbers' hashes.
        region: of numbers without a country code.
    """
    after = 0
    while True:
        with connection.begin():
            entries = opt_out_source.list_changes(connection, after)
        if not entries:
            return
        after = entries[-1].place
        yield _read_entries(entries, secret, region)


def find_leads_with_numbers(connection: Connection, campaign: Campaign, secret: bytes) -> list[str]:
    """Return the ids of the campaign's leads that have one of the noted numbers.

    `connection`: in a transaction. `secret`: the key of the numbers' hashes.
    """
    wanted = opt_out_source.list_number_keys(connection)
    if not wanted:
        return []
    return [
        lead.lead_id
        for lead in opt_out_source.iter_candidates(connection, campaign.campaign_id)
        if hash_raw_number(secret, lead.phone_number, campaign.default_region) in wanted
    ]


class OptOutReadJob:
    """The job of a live run that takes new opt-outs from a campaign's opt-out source."""

    def __init__(self, run: CampaignRun[ApiContext]) -> None:
        self._run = run
        self._counters = Counters("from_opt_out_source")

    def run_chunk(self, _: int) -> ChunkResult:
        """Take them.

        Raises:
            SourceError: the source cannot be used.
        """
        if self._run.campaign.opt_out_source is not None:
            self._counters.add(from_opt_out_source=take_opt_outs(self._run))
        return DONE

    def finish(self) -> None:
        """Check nothing more."""

    def counts(self) -> dict[str, int]:
        """Return the counts of docs/reference/exit-codes-and-json.md."""
        return self._counters.counts()


class _OptOutSync:
    """One read of a campaign's opt-out source, under its lock."""

    def __init__(self, run: CampaignRun[ApiContext], look: "_Look") -> None:
        self._run = run
        self._look = look
        self._database = run.context.database
        self._campaign = run.campaign
        self._id = run.campaign.campaign_id
        self._named = _require_source(run.campaign)
        self._reason = f"a row of the opt-out source {self._named.name}"
        # The opt-outs that could not be put on record.
        self._locked_count = 0

    def take(self) -> int:
        """Read the source and apply what is new; return the number of ids and numbers.

        Raises:
            RunError: other connections lock some leads for too long. All other opt-outs are on
                record, and these are new to the next look.
        """
        with (
            open_source_database(self._run.context.settings, self._database) as reader,
            self._database.dedicated() as connection,
        ):
            self._lock(connection)
            table = source.inspect_source(reader, self._named)
            with self._look.reading():
                digest = _read_digest(reader, self._named, table, self._campaign.default_region)
            taken, unreadable = 0, UnreadableRows()
            if digest is None or not self._is_unchanged(connection, digest):
                with self._look.reading():
                    unreadable = stage_opt_outs(
                        reader, connection, self._database, self._campaign, table
                    )
                source.clear_read_timeout(connection)
                with connection.begin():
                    staged = opt_out_source.read_staged_digest(
                        connection, table, self._campaign.default_region
                    )
                taken = self._apply(connection)
                with connection.begin():
                    if not unreadable.count:
                        opt_out_source.forget_vanished(connection, self._id)
                if self._locked_count:
                    raise RunError(
                        f"{self._named}: {format_count(self._locked_count, 'opt-out')} could not be"
                        " put on record, because other connections lock their rows (pg_locks shows"
                        " which); all others are; end those connections and run this again"
                    )
                # If the source changed in between, the next look has to read it again.
                read = digest if staged == digest else None
                with connection.begin():
                    opt_out_source.record_read(
                        connection, self._id, digest=read, unreadable=unreadable.count
                    )
            self._warn(connection, unreadable)
        if taken:
            self._run.log_step("opt-outs taken from its opt-out source: %d", taken)
        return taken

    def _lock(self, connection: Connection) -> None:
        """Wait for the lock of the campaign's reads; raise RunError after the lock timeout."""
        try:
            with self._database.translate_errors():
                opt_out_source.lock_opt_out_source(connection, self._id)
        except DatabaseError as error:
            if error.sqlstate not in TIMEOUT_STATES:
                raise
            raise RunError(
                f"another run is still reading {self._named}: run this again when it is done"
            ) from None

    def _is_unchanged(self, connection: Connection, digest: str) -> bool:
        with connection.begin():
            return opt_out_source.is_unchanged(connection, self._id, digest)

    def _apply(self, connection: Connection) -> int:
        """Put all new entries on record, in chunks; return their number.

        Numbers are suppressed at once, and remembered once all leads that have them have opted out.
        """
        with connection.begin():
            secret = get_hash_key(connection)
        taken = 0
        for chunk in iter_new_entries(connection, secret, self._campaign.default_region):
            if self._try_write(connection, len(chunk.numbers), self._suppress, chunk):
                taken += len(chunk.numbers)
            if self._opt_out(connection, chunk.lead_ids):
                taken += len(chunk.lead_ids)
        with connection.begin():
            matched = find_leads_with_numbers(connection, self._campaign, secret)
        have_all = True
        for first in range(0, len(matched), _CHUNK_LEADS):
            have_all &= self._opt_out(connection, {}, matched[first : first + _CHUNK_LEADS])
        if have_all:
            with connection.begin():
                opt_out_source.remember_numbers(connection, self._id)
        return taken

    def _suppress(self, connection: Connection, chunk: ReadEntries) -> None:
        opt_out_source.suppress_numbers(
            connection, self._id, [key for _, key in chunk.numbers.values()]
        )
        opt_out_source.note_numbers(connection, chunk.numbers)
        opt_out_source.remember_entries(connection, self._id, chunk.refused)

    def _opt_out(
        self, connection: Connection, named: Mapping[int, str], matched: Sequence[str] = ()
    ) -> bool:
        """Put opt-outs of leads on record, and remember the entries that named them.

        That takes two transactions (`opt_out_source.request_sent`): an entry that is remembered is
        never looked at again.

        Args:
            connection: the connection that has the entries, outside of a transaction.
            named: the lead ids of entries, by place.
            matched: other leads, which have the number of an entry.

        Returns:
            Whether they are on record.
        """
        lead_ids = [*named.values(), *matched]

        def settle(connection: Connection) -> None:
            opt_out_source.request_sent(connection, self._id, lead_ids)
            opt_out_source.remember_entries(connection, self._id, dict.fromkeys(named))

        return self._try_write(
            connection,
            len(lead_ids),
            opt_out_source.opt_out_leads,
            self._id,
            lead_ids,
            self._reason,
        ) and self._try_write(connection, len(lead_ids), settle)

    def _try_write(
        self,
        connection: Connection,
        amount: int,
        write: Callable[Concatenate[Connection, P], object],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> bool:
        """Write in a transaction; return False if that waited too long for a lock.

        `amount`: the opt-outs that are not on record then.
        """
        try:
            with self._database.translate_errors(), connection.begin():
                write(connection, *args, **kwargs)
        except DatabaseError as error:
            if error.sqlstate not in TIMEOUT_STATES:
                raise
            self._locked_count += amount
            opt_out_source.shorten_lock_waits(connection)
            return False
        return True

    def _warn(self, connection: Connection, unreadable: UnreadableRows) -> None:
        """Warn about rows by which nobody opts out, for as long as they stand in the source."""
        if unreadable.count:
            self._run.warn(
                "rows of its opt-out source cannot be read, so nobody opts out by them: %d, %s",
                *(unreadable.count, unreadable),
            )
        with connection.begin():
            refused = opt_out_source.list_refused(connection, self._id)
        if refused:
            reasons = [f"{amount} × {reason}" for reason, amount in refused.items()]
            more = len(reasons) - _MAX_REASONS
            self._run.warn(
                "rows of its opt-out source are refused, so nobody opts out by them: %d (%s)",
                *(
                    sum(refused.values()),
                    "; ".join(reasons[:_MAX_REASONS]) + (f"; {more} more" if more > 0 else ""),
                ),
            )


def _read_entries(entries: Sequence[OptOutEntry], secret: bytes, region: str) -> ReadEntries:
    read = ReadEntries()
    for entry in entries:
        try:
            if entry.lead_id is not None:
                read.lead_ids[entry.place] = check_opt_out_id(entry.lead_id)
            elif entry.phone_number is not None:
                e164 = normalize_opt_out_number(entry.phone_number, region)
                read.numbers[entry.place] = e164, hash_phone_number(secret, e164)
            else:
                read.refused[entry.place] = NAMES_NOBODY
        except InvalidLead as error:
            named = "" if entry.lead_id is None else f"lead {entry.lead_id[:64]!r}: "
            read.refused[entry.place] = f"{named}{error}"
    return read


def _read_digest(
    reader: Database, named: OptOutSource, table: SourceTable, region: str
) -> str | None:
    """Return the digest of an opt-out source (`opt_out_source.read_digest`).

    Raises:
        SourceError: it cannot be read, or shows no row and row level security may be the reason.
    """
    digest = opt_out_source.read_digest(reader, named, table, region)
    if opt_out_source.counts_no_row(digest) and source.hides_rows(reader, named, table):
        raise SourceError(f"{named} {HIDDEN_ROWS}")
    return digest


def _has_changes(connection: Connection, campaign: Campaign, unreadable: UnreadableRows) -> bool:
    with connection.begin():
        known = opt_out_source.count_unreadable(connection, campaign.campaign_id)
        return unreadable.count != known or bool(opt_out_source.list_changes(connection, 0))


def _require_source(campaign: Campaign) -> OptOutSource:
    named = find_opt_out_source(campaign)
    assert named is not None, "the caller asks only for a campaign that has one"
    return named


@dataclass
class _Look:
    """A look at an opt-out source.

    Attributes:
        is_applied: all of its opt-outs are on record.
        read_at: when its last read ended, seconds of the boot clock.
        read_s: how long its reads took, seconds.
    """

    is_applied: bool = False
    read_at: float = 0.0
    read_s: float = 0.0

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Measure the time that the block takes to read the source."""
        began = read_boot_clock()
        yield
        self.read_at = read_boot_clock()
        self.read_s += self.read_at - began


@contextmanager
def _record_look(
    context: ApiContext, campaign: Campaign, *, is_take: bool = False
) -> Iterator[_Look]:
    """Record the time that the block has taken to read the source, and whether it has failed."""
    looks, began, look = context.opt_out_looks, read_boot_clock(), _Look()
    looks.begin(campaign)
    try:
        yield look
    except BaseException as error:
        failure = str(error) if isinstance(error, RunError) else "it was not read to its end"
        looks.fail(campaign, began, read_boot_clock(), failure, is_take=is_take)
        raise
    looks.end(
        campaign,
        look.read_at - look.read_s,
        look.read_at,
        is_applied=look.is_applied,
        is_take=is_take,
        waited_s=read_boot_clock() - began - look.read_s,
    )
