"""`poll-outcomes` and `backfill-outcomes`: read outcomes and call attempts from the vendor."""

from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from prefect import flow

from flows.campaign_runner import run_campaigns
from flows.reporting import append_range_to_run_name, completed_state, make_run_name
from flows.run_log import fail_in_one_line
from leadloop.core.errors import UsageError
from leadloop.core.summaries import Summary
from leadloop.core.timestamps import find_implausible
from leadloop.core.windows import Window
from tasks.blocks import RunSettings
from tasks.poll import POLL, plan_backfill, plan_poll


@flow(name="poll-outcomes", flow_run_name=make_run_name, persist_result=False)
@fail_in_one_line
def poll_outcomes(
    campaigns: list[str] | None = None,
    since: datetime | None = None,
    settings: RunSettings | None = None,
) -> Summary:
    """Read the outcomes that were processed since the end of the last poll, less the lookback.

    Args:
        campaigns: ids of the campaigns; none: every enabled one.
        since: where to start in a campaign that was never polled.
        settings: settings for this run alone, and the name of the blocks that hold others.

    Returns:
        `windows, pages, seen, inserted, updated, unchanged, late, requests`, and under `campaigns`
        each one's own, with `lookback_needed_s`.

    Raises:
        UsageError: `since` has no offset from UTC, is still to come, or cannot be meant.
    """
    if since is not None:
        since = _require_past("since", since)
    # Only a job can start at `since`.
    spec = (
        POLL
        if since is None
        else replace(POLL, start=partial(plan_poll, since=since), find_due=None)
    )
    return completed_state(
        run_campaigns(
            spec,
            campaigns,
            settings,
            # The range is known only once the jobs are planned.
            on_started=lambda polls: append_range_to_run_name(
                [window for poll in polls for window in poll.planned]
            ),
        )
    )


@flow(name="backfill-outcomes", flow_run_name=make_run_name, persist_result=False)
@fail_in_one_line
def backfill_outcomes(
    after: datetime,
    before: datetime,
    campaigns: list[str] | None = None,
    settings: RunSettings | None = None,
) -> Summary:
    """Read a range of `processed_at` again; the watermark never moves back.

    A backfill of the same range that was not completed is resumed where it ended.

    Args:
        after: where the range begins.
        before: where it ends.
        campaigns: ids of the campaigns; none: every enabled one.
        settings: settings for this run alone, and the name of the blocks that hold others.

    Returns:
        The same as `poll-outcomes`.

    Raises:
        UsageError: a bound has no offset from UTC or cannot be meant, `after` is still to come, or
            the range ends before it begins.
    """
    after, before = _require_past("after", after), _require_plausible("before", before)
    if before <= after:
        raise UsageError("the range ends before it begins: `before` must be later than `after`")
    return completed_state(
        run_campaigns(
            replace(
                POLL,
                flow="backfill-outcomes",
                find_due=None,
                start=partial(plan_backfill, wanted=Window(after=after, before=before)),
            ),
            campaigns,
            settings,
        )
    )


def _require_past(name: str, moment: datetime) -> datetime:
    """Return a time in UTC.

    Raises:
        UsageError: it is still to come, or see `_require_plausible`.
    """
    moment = _require_plausible(name, moment)
    if moment > datetime.now(UTC):
        raise UsageError(f"`{name}` is still to come: nothing was processed after it yet")
    return moment


def _require_plausible(name: str, moment: datetime) -> datetime:
    """Return a time in UTC.

    Raises:
        UsageError: it has no offset from UTC, or seems to have been read in another unit.
    """
    if moment.tzinfo is None:
        raise UsageError(f"`{name}` has no offset from UTC: write it as 2026-01-31T09:00:00+00:00")
    try:
        moment = moment.astimezone(UTC)
    except OverflowError:
        raise UsageError(f"`{name}` is out of range: the years 1900 to 2100") from None
    if reason := find_implausible(moment):
        raise UsageError(f"`{name}` {reason}")
    return moment
