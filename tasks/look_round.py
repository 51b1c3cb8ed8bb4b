"""The look round of a poll: one request for each campaign, before any of them gets a job.

Most campaigns have no new outcome. Their empty pages are stored a hundred in a transaction, by the
same functions as the windows of a job, and they need neither a job nor a row. Every other campaign
gets a job; it begins with the page of the look, if that holds all that is to be read.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from threading import Event
from typing import TypeVar

from db import due_work
from db.campaigns import find_campaigns
from db.database import Connection, DatabaseError
from db.window_store import EmptyRead, store_empty_reads
from leadloop.client.errors import ApiError
from leadloop.core import clock_skew
from leadloop.core.campaign_rules import Campaign
from leadloop.core.errors import LeadloopError
from leadloop.core.plurals import format_count
from leadloop.core.windows import prove_window, subtract_to_epoch
from tasks.accounts import has_several_accounts
from tasks.context import ApiContext, CampaignRun, translate_unexpected
from tasks.head_look import HeadLook, HeadRange, SeenHead, find_lookback_start, look_at_head
from tasks.jobs import CampaignJob, DueCampaigns
from tasks.page_limits import PageLimits
from tasks.page_reader import DatabaseClock
from tasks.rate_limiter import AccountPaused

#: Looks of one step, which Prefect shows as a task.
_LOOKS_A_STEP = 200
#: Pages with news that are kept for their jobs, so that memory does not grow with the campaigns.
#: Behind them, a job reads its page again.
_MAX_PAGES_KEPT = 100
#: Campaigns whose empty pages are stored in one transaction.
_STORED_AT_ONCE = 100

T = TypeVar("T")
# No connection, no login, a gateway's answer, or a demand for a pause: no campaign is the reason.
_OUTAGE = (None, 401, 403, 429, 502, 503, 504)
# What a job counts in a poll that finds nothing.
_IDLE = {"windows": 1, "pages": 1, "requests": 1}
#: Plans the poll that follows a look.
PlanPoll = Callable[[CampaignRun[ApiContext], HeadLook], CampaignJob | None]


def look_round(
    plan_poll: PlanPoll, context: ApiContext, selected: Sequence[Campaign], run_id: int
) -> DueCampaigns[ApiContext]:
    """Look at all campaigns, store the empty pages, and return the campaigns that need a job.

    A campaign that cannot be looked at needs a job, which finds out why; so does one that has been
    moved to another account.

    Args:
        plan_poll: plans the job of a campaign with news.
        context: the vendor's API and the database.
        selected: the campaigns of the run.
        run_id: the run that the stored windows belong to.

    Raises:
        DatabaseError: Postgres refused, or failed several times.
    """
    state = context.database.retry(due_work.find_lookbacks)
    unused = {each.campaign_id for each in selected} & state.never_sent
    lookbacks = {each.campaign_id: each.lookback_s for each in selected}
    totals = {"lookback_s": context.settings.campaign_rules().lookback_s}
    if has_several_accounts(context.settings) and context.find_pause_s():
        # Jobs wait for the end of the vendor's pause, while other accounts take their turns.
        return DueCampaigns(ids=lookbacks.keys() - unused, totals=totals)
    clock = DatabaseClock(state.now)
    heads = [
        (each, _build_range(each, read_through, clock))
        for each in _read_own(context, selected)
        if (read_through := state.reread_through.get(each.campaign_id)) is not None
    ]
    looked_at: set[str] = set()
    stored: set[str] = set()
    with_news: dict[str, HeadLook] = {}
    is_outage = Event()
    for part in _divide(heads, _LOOKS_A_STEP):
        step = partial(_look_at_some, context, part, is_outage)
        ids = [campaign.campaign_id for campaign, _ in part]
        found = context.host.run_step("look-for-outcomes", ids, step)
        reads = [
            read
            for campaign, _ in part
            if (read := _make_read(campaign, found.get(campaign.campaign_id))) is not None
        ]
        stored |= _store_empty(context, reads, state.now, run_id)
        looked_at |= found.keys()
        news = [
            (name, look) for name, look in found.items() if look is not None and name not in stored
        ]
        with_news |= dict(news[: _MAX_PAGES_KEPT - len(with_news)])
    return DueCampaigns(
        ids=lookbacks.keys() - stored - unused,
        starts={name: partial(_plan_after, plan_poll, look) for name, look in with_news.items()},
        counted={name: {"requests": 1} for name in looked_at}
        | {
            name: {**_IDLE, "lookback_s": lookbacks[name], "lookback_needed_s": 0}
            for name in stored
        },
        totals=totals,
    )


def _read_own(context: ApiContext, selected: Sequence[Campaign]) -> list[Campaign]:
    """Read the campaigns again; return those that still belong to the context's account.

    Accounts before this one may have taken long, and this login must not be asked about others.
    """
    ids = [each.campaign_id for each in selected]
    rules = context.settings.campaign_rules()
    rows = context.database.retry(lambda c: find_campaigns(c, ids, rules))
    return [each for each in rows if each.account == context.account_name]


def _plan_after(
    plan_poll: PlanPoll, look: HeadLook, run: CampaignRun[ApiContext]
) -> CampaignJob | None:
    return plan_poll(run, look)


def _build_range(campaign: Campaign, read_through: datetime, clock: DatabaseClock) -> HeadRange:
    """Return the range of a look: all that the next poll would read."""
    return HeadRange(
        start=subtract_to_epoch(min(read_through, clock.now()), campaign.lookback),
        page_size=PageLimits(campaign.page_size, {}).page_size,
        clock=clock,
    )


def _look_at_some(
    context: ApiContext, heads: Sequence[tuple[Campaign, HeadRange]], is_outage: Event
) -> dict[str, HeadLook | None]:
    """Look at campaigns side by side, until the vendor does not answer; None: the look failed."""

    def look(head: tuple[Campaign, HeadRange]) -> tuple[str, HeadLook | None] | None:
        if is_outage.is_set():
            return None
        campaign_id = head[0].campaign_id
        try:
            with translate_unexpected(context.log):
                return campaign_id, _try_look(context, *head, is_outage)
        except LeadloopError:
            return campaign_id, None

    with context.open_threads() as pool:
        return dict(each for each in pool.map_in_order(look, heads) if each is not None)


def _try_look(
    context: ApiContext, campaign: Campaign, head: HeadRange, is_outage: Event
) -> HeadLook | None:
    try:
        return look_at_head(context, campaign, SeenHead(range=head), find_lookback_start)
    except ApiError as error:
        if error.response.status in _OUTAGE:
            is_outage.set()
        return None
    except AccountPaused:
        is_outage.set()
        return None


def _store_empty(
    context: ApiContext, reads: Sequence[EmptyRead], started: datetime, run_id: int
) -> set[str]:
    """Store reads that show that there is nothing; return their campaigns."""
    stored = set()
    for part in _divide(reads, _STORED_AT_ONCE):

        def store(connection: Connection, part: Sequence[EmptyRead] = part) -> None:
            store_empty_reads(connection, part, run_id=run_id, started=started)

        try:
            context.database.retry(store)
        except DatabaseError as error:
            polls = format_count(len(part), "poll")
            context.log.warning("%s with nothing new: each gets a job: %s", polls, error)
        else:
            stored |= {read.campaign_id for read in part}
    return stored


def _make_read(campaign: Campaign, look: HeadLook | None) -> EmptyRead | None:
    """Return the empty read that a look is; None if a job has to read, or to warn."""
    if look is None or look.has_news or look.page is None or look.window is None:
        return None
    page = look.page
    if clock_skew.describe_skew(page.vendor_now, page.database_now):
        return None
    proof = prove_window(look.window, complete=True, now=page.earlier_now, settle=campaign.settle)
    return EmptyRead(campaign_id=campaign.campaign_id, window=look.window, proof=proof)


def _divide(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
