"""Which campaigns have a login here: the others are left alone, and reported in one line."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from leadloop.core.campaign_rules import Campaign
from leadloop.core.errors import UsageError
from leadloop.core.summary_text import name_campaigns
from leadloop.settings import Settings

# The lines that a run of several flows has logged; None: each flow logs its own.
_reported: ContextVar[set[str] | None] = ContextVar("reported", default=None)


@contextmanager
def report_once() -> Iterator[None]:
    """Log each line about campaigns that are left alone once in the block, whatever flows run."""
    token = _reported.set(set())
    try:
        yield
    finally:
        _reported.reset(token)


def group_by_account(selected: Sequence[Campaign]) -> dict[str, list[Campaign]]:
    """Return campaigns by their account, in the order in which they come."""
    groups: dict[str, list[Campaign]] = {}
    for campaign in selected:
        groups.setdefault(campaign.account, []).append(campaign)
    return groups


def keep_served(
    settings: Settings,
    selected: Sequence[Campaign],
    *,
    are_named: bool,
    warn: Callable[..., None],
) -> list[Campaign]:
    """Return the campaigns whose account has a login; warn about the others.

    Args:
        settings: the accounts.
        selected: the campaigns of a run.
        are_named: whether a person or a deployment has named them.
        warn: takes a warning and its arguments, like `logging.Logger.warning`.

    Raises:
        UsageError: a named campaign has no login, or no campaign has one.
    """
    unserved = find_unserved(settings, selected)
    served = [each for each in selected if each.account not in unserved]
    if unserved and (are_named or not served):
        raise UsageError("; ".join(describe_unserved(settings, unserved)))
    reported = _reported.get()
    for line in describe_unserved(settings, unserved):
        if reported is None or line not in reported:
            warn("%s", line)
        if reported is not None:
            reported.add(line)
    return served


def find_unserved(settings: Settings, selected: Sequence[Campaign]) -> dict[str, list[str]]:
    """Return the ids of the campaigns whose account has no login, by account."""
    return {
        account: [each.campaign_id for each in group]
        for account, group in group_by_account(selected).items()
        if not settings.get_account(account).is_complete
    }


def describe_unserved(settings: Settings, unserved: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a line for each account without a login: its campaigns, and what to set."""
    return [
        f"{name_campaigns(ids)}: left alone, because account {account} has no login here:"
        f" {settings.get_account(account).describe_missing()}"
        for account, ids in unserved.items()
    ]
