"""Which campaigns' accounts can be used here: others are left alone, and reported in one line."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from leadloop.client.certificates import check_ca_bundle
from leadloop.client.proxies import check_proxy
from leadloop.core.campaign_rules import Campaign
from leadloop.core.errors import RunError, UsageError
from leadloop.core.summary_text import name_campaigns
from leadloop.settings import Account, Settings

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


def has_several_accounts(settings: Settings) -> bool:
    """Return whether a run may work for several accounts, so that none may hold up another."""
    return len(settings.list_complete_accounts()) > 1


def keep_served(
    settings: Settings,
    selected: Sequence[Campaign],
    *,
    are_named: bool,
    warn: Callable[..., None],
) -> list[Campaign]:
    """Return the campaigns whose account can be used here; warn about the others.

    Args:
        settings: the accounts.
        selected: the campaigns of a run.
        are_named: whether a person or a deployment has named them.
        warn: takes a warning and its arguments, like `logging.Logger.warning`.

    Raises:
        UsageError: the account of a named campaign, or of every campaign, cannot be used here.
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


def list_served_accounts(settings: Settings) -> list[Account]:
    """Return the accounts that can be used here, `default` first.

    A proxy or a CA bundle that one account cannot use stops no other one. If it stops all, all are
    returned, and whatever opens the first one fails with the reason.
    """
    complete = settings.list_complete_accounts()
    return [each for each in complete if find_connection_fault(each) is None] or complete


def find_connection_fault(account: Account) -> str | None:
    """Return why the environment's proxy or CA bundle keeps a complete account from its address."""
    address = account.require_api_url()
    try:
        check_proxy(address)
        check_ca_bundle(address)
    except RunError as error:
        return f"account {account.name} cannot be used here: {error}"
    return None


def find_unserved(settings: Settings, selected: Sequence[Campaign]) -> dict[str, list[str]]:
    """Return the ids of the campaigns whose account cannot be used here, by account."""
    served = {account.name for account in list_served_accounts(settings)}
    return {
        account: [each.campaign_id for each in group]
        for account, group in group_by_account(selected).items()
        if account not in served
    }


def describe_unserved(settings: Settings, unserved: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a line for each account that cannot be used here: its campaigns, and the reason."""
    lines = []
    for name, ids in unserved.items():
        account = settings.get_account(name)
        fault = find_connection_fault(account) if account.is_complete else None
        reason = fault or account.describe_unusable()
        lines.append(f"{name_campaigns(ids)}: left alone, because {reason}")
    return lines
