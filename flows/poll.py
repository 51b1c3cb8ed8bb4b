"""`poll-outcomes` and `backfill-outcomes`: what became of the leads comes back."""

from datetime import datetime
from functools import partial

from prefect import flow

from flows.campaigns import Summary, run_campaigns
from leadloop.core.errors import RunError, UsageError
from tasks.poll import Poll, plan, read_windows
from tasks.workplace import Run

COUNTS = ("windows", "pages", "seen", "inserted", "updated", "unchanged")


@flow(name="poll-outcomes", persist_result=False)
def poll_outcomes(campaigns: list[str] | None = None, since: datetime | None = None) -> Summary:
    """Read what was processed since the watermark, less the lookback.

    Args:
        campaigns: ids of the campaigns; none: every enabled one.
        since: where to begin in a campaign that has no watermark yet.

    Returns:
        `windows, pages, seen, inserted, updated, unchanged, requests`, and under `campaigns` each
        one's own.
    """
    return run_campaigns(
        "poll-outcomes",
        campaigns,
        counts=COUNTS,
        start=partial(plan, since=since),
        step=read_windows,
        finish=_require_complete,
    )


@flow(name="backfill-outcomes", persist_result=False)
def backfill_outcomes(
    after: datetime, before: datetime, campaigns: list[str] | None = None
) -> Summary:
    """Read a range of `processed_at` again. The watermark never moves back.

    Args:
        after: where the range begins.
        before: where it ends.
        campaigns: ids of the campaigns; none: every enabled one.

    Returns:
        The same as `poll-outcomes`.
    """
    if before <= after:
        raise UsageError("the range ends before it begins: `before` must be later than `after`")

    def start(run: Run) -> Poll:
        return Poll(run, after=after, before=before, follow=False)

    return run_campaigns(
        "backfill-outcomes",
        campaigns,
        counts=COUNTS,
        start=start,
        step=read_windows,
        finish=_require_complete,
    )


def _require_complete(poll: Poll) -> None:
    if poll.incomplete:
        raise RunError(
            f"{poll.incomplete} windows did not hold what the API counted in them; what was read"
            " is stored, the watermark waits, and the next poll reads them again"
        )
