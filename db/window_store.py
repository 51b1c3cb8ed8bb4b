"""One read window, stored in one transaction: results, proof, what is owed, and the watermark."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection

from db import learned_limits, outcomes, owed_windows, watermarks
from db.outcomes import MergeCounts
from db.watermarks import WindowRecord
from leadloop.core.late_outcomes import LateOutcomes
from leadloop.core.windows import Window, WindowProof


@dataclass(frozen=True, kw_only=True)
class OwedRange:
    """A window that could not be read completely, and how it failed (no personal data)."""

    window: Window
    reason: str


@dataclass(frozen=True, kw_only=True)
class ReadResult:
    """What a read of a window brought.

    Attributes:
        window: the window.
        outcomes: lines of COPY text.
        attempts: lines of COPY text.
        unreadable: results that could not be parsed, each with the reason.
        records: the windows to record.
        owed: what is owed because of this read.
        limits: what was learned of the vendor's pages, by name; None: a limit has ended.
    """

    window: Window
    outcomes: Sequence[str] = ()
    attempts: Sequence[str] = ()
    unreadable: Sequence[tuple[str, object]] = ()
    records: Sequence[WindowRecord] = ()
    owed: Sequence[OwedRange] = ()
    limits: Mapping[str, int | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PollProgress:
    """Where a poll or backfill stands.

    Attributes:
        run_id: the run.
        started: the database's clock when the run began.
        start: the start of the range that may advance the watermark.
        through: up to where everything from `start` on is stored or owed, this read included.
        reads_lookback: the run has read all of that range itself, the lookback included.
        read_before: up to where earlier runs had read the lookback; a late result needed a
            lookback from there. None: no result is late.
    """

    run_id: int
    started: datetime
    start: datetime
    through: datetime
    reads_lookback: bool
    read_before: datetime | None


@dataclass(frozen=True, kw_only=True)
class EmptyRead:
    """A read of a window that has shown, in one page, that it holds no result."""

    campaign_id: str
    window: Window
    proof: WindowProof


def store_empty_reads(
    connection: Connection, reads: Sequence[EmptyRead], *, run_id: int, started: datetime
) -> None:
    """Store empty reads of many campaigns, each as `store_read` would; idempotent.

    A campaign of which anything is owed is for `store_read`.

    Args:
        connection: a transaction.
        reads: each read its campaign's whole range, the lookback included.
        run_id: the run.
        started: the database's clock when the run began.
    """
    for read in reads:
        record = WindowRecord(
            run_id=run_id,
            window=read.window,
            proof=read.proof,
            reported_count=0,
            stored_count=0,
            pages=1,
            backfill=None,
        )
        watermarks.record_windows(connection, read.campaign_id, [record])
        after = read.window.after
        through = after if read.proof.proven is None else read.proof.proven.before
        _advance(connection, read.campaign_id, after, through, started, reads_lookback=True)


def store_read(
    connection: Connection, campaign_id: str, result: ReadResult, progress: PollProgress
) -> tuple[MergeCounts, LateOutcomes]:
    """Store a window that was read; idempotent.

    Returns:
        The merged outcomes, and those of them that came late.
    """
    outcomes.store_unreadable(connection, campaign_id, result.unreadable)
    merged = outcomes.merge_outcomes(
        connection,
        campaign_id,
        outcomes=result.outcomes,
        attempts=result.attempts,
        is_backfill=any(record.backfill is not None for record in result.records),
    )
    late = LateOutcomes()
    if progress.read_before is not None:
        late = outcomes.mark_late_outcomes(
            connection,
            campaign_id,
            result.window,
            run_id=progress.run_id,
            watermark=progress.read_before,
        )
    watermarks.record_windows(connection, campaign_id, result.records)
    for record in result.records:
        if record.proof.proven is not None:
            owed_windows.subtract_proven(connection, campaign_id, record.proof.proven)
    for owed in result.owed:
        owed_windows.record_failed_read(
            connection,
            campaign_id,
            owed.window,
            reason=owed.reason,
            run_started=progress.started,
        )
    for name, value in result.limits.items():
        learned_limits.record_learned_limit(connection, campaign_id, name, value)
    _advance(
        connection,
        campaign_id,
        progress.start,
        progress.through,
        progress.started,
        reads_lookback=progress.reads_lookback,
    )
    return merged, late


def _advance(
    connection: Connection,
    campaign_id: str,
    start: datetime,
    through: datetime,
    started: datetime,
    *,
    reads_lookback: bool,
) -> None:
    """Advance the watermark, and where the next read of the lookback starts, over a range."""
    watermarks.advance_read_range(connection, campaign_id, after=start, through=through)
    if reads_lookback:
        # The range may have been read early in a long run, and a result have shown there since.
        watermarks.advance_reread_range(
            connection, campaign_id, after=start, through=min(through, started)
        )
