"""`leadloop doctor`: check everything that a run needs."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from db.campaigns import list_campaigns, select_campaigns
from db.database import Database
from db.schema import UPGRADE_INCOMPLETE
from db.schema.requirements import require_supported
from db.watermarks import get_database_time
from leadloop.cli import environment
from leadloop.cli.checks import Check, Checklist
from leadloop.cli.database_checks import check_database, check_sources, require_schema
from leadloop.cli.foreign_packages import find_overwritten_package
from leadloop.client.api import LeadsApi, ResultPage
from leadloop.client.errors import ApiError
from leadloop.core.accounts import DEFAULT_ACCOUNT
from leadloop.core.calling_hours import CallingHours
from leadloop.core.campaign_rules import Campaign
from leadloop.core.errors import LeadloopError, RunError, UsageError
from leadloop.core.phones import find_region_fault
from leadloop.core.windows import Window
from leadloop.local.postgres_data import list_orphans
from leadloop.settings import Account, Settings, SettingSource
from tasks.accounts import describe_unserved, group_by_account
from tasks.api_session import open_api

_log = logging.getLogger(__name__)


def run_checks(block: str | None = None) -> list[Check]:
    """Run all checks in order; a failed check skips only the checks that depend on it.

    Args:
        block: the name of Prefect blocks that also hold settings, as a run's parameter.
    """
    checks = Checklist()
    with ExitStack() as stack:
        loaded = _check_settings(block, checks, stack)
        if loaded is not None:
            _check_services(*loaded, checks, stack)
    _check_packages(checks)
    _check_orphaned_data(checks)
    _check_prefect(checks)
    return checks


def _check_settings(
    block: str | None, checks: Checklist, stack: ExitStack
) -> tuple[Settings, bool] | None:
    """Load the settings, also from blocks; the detail names their sources, not their values.

    Returns:
        The settings, and whether they ask for embedded Postgres; None: a check failed.
    """
    sources: Sequence[SettingSource] = []
    if block:
        with checks.record("blocks") as blocks:
            _find_reachable_prefect()
            from tasks.blocks import RunSettings, collect_setting_sources

            sources = collect_setting_sources(RunSettings(block=block))
            blocks.detail = ", ".join(source.name for source in sources if source.values)
        if blocks.failed:
            return None
    with checks.record("settings") as check:
        is_embedded = Settings.load(*sources).is_embedded
        # Before the embedded Postgres runs: it puts its own URL into the environment.
        names: dict[str, list[str]] = {}
        for name, source in Settings.describe_sources(*sources).items():
            names.setdefault(source, []).append(name)
        origins = [f"{', '.join(fields)} from {source}" for source, fields in names.items()]
        settings = stack.enter_context(environment.load_settings_with_database(*sources))
        environment.require_urls(settings)
        summary = f"read; the API is {settings.api_url}, limit {settings.rate_limit}"
        summary += "".join(
            f"; of account {each.name} {each.api_url}, limit {each.rate_limit}"
            for each in settings.list_accounts()[1:]
            if each.fault is None
        )
        check.detail = f"{summary}. {'; '.join([*origins, 'the others are at their defaults'])}"
    return None if check.failed else (settings, is_embedded)


def _check_services(
    settings: Settings, is_embedded: bool, checks: Checklist, stack: ExitStack
) -> None:
    """Check the logins, the database, the campaigns with their sources, and the API."""
    with checks.record("login") as login:
        settings.require_login()
        login.detail = _describe_logins(settings)
    _check_faults(settings, checks)
    with checks.record("database") as connection:
        database = stack.enter_context(environment.open_database(settings, require_schema=False))
        database.run(require_supported)
        is_counted = require_schema(database)
        name = environment.EMBEDDED_DISPLAY_NAME if is_embedded else database.display_name
        connection.detail = f"{name}, with this version's schema"
        if not is_counted:
            connection.is_warning = True
            connection.detail += f"; {UPGRADE_INCOMPLETE}"
    if connection.failed:
        return
    check_database(settings, database, checks)
    with checks.record("campaigns") as selection:
        campaigns = database.run(select_campaigns, None, settings.campaign_rules())
        selection.detail = ", ".join(campaign.campaign_id for campaign in campaigns)
    if selection.failed:
        return
    for campaign in campaigns:
        if find_region_fault(campaign.default_region):
            with checks.record(f"default region of {campaign.campaign_id}"):
                campaign.require_region()
        if campaign.calling_hours is not None:
            _check_calling_hours(campaign.campaign_id, campaign.calling_hours, checks)
    check_sources(settings, database, campaigns, checks)
    if not login.failed:
        known = database.run(list_campaigns, None, settings.campaign_rules())
        _check_accounts(settings, database, campaigns, known, checks)


def _describe_logins(settings: Settings) -> str:
    """Return the kind of each login; of accounts other than `default` with their names."""
    kinds = [
        (each.name, "a fixed token" if each.api_token else "OAuth password grant")
        for each in settings.list_complete_accounts()
    ]
    return ", ".join(
        kind if name == DEFAULT_ACCOUNT else f"{kind} of account {name}" for name, kind in kinds
    )


def _check_faults(settings: Settings, checks: Checklist) -> None:
    """Fail for each account whose settings are wrong or left out; runs leave it alone."""
    for fault in settings.list_faults():
        with checks.record("accounts"):
            raise UsageError(fault)


def _check_accounts(
    settings: Settings,
    database: Database,
    enabled: Sequence[Campaign],
    known: Sequence[Campaign],
    checks: Checklist,
) -> None:
    """Check each account's API by one of its campaigns, if possible an enabled one.

    Accounts without a campaign, and those without a login here, have a warning.

    Args:
        settings: the accounts.
        database: where the campaigns are.
        enabled: the enabled campaigns.
        known: all campaigns.
        checks: takes the results.
    """
    complete = settings.list_complete_accounts()
    groups = group_by_account([*enabled, *known])
    for account in complete:
        if account.name in groups:
            _check_api(settings, database, account, groups[account.name][0], checks)
        elif account.name != DEFAULT_ACCOUNT:
            _check_unused(settings, database, account, checks)
    served = {account.name for account in complete}
    for name, group in group_by_account(enabled).items():
        if name not in served and settings.get_account(name).fault is None:
            with checks.record(f"account {name}") as check:
                ids = [campaign.campaign_id for campaign in group]
                check.is_warning = True
                check.detail = "; ".join(describe_unserved(settings, {name: ids}))


def _check_unused(
    settings: Settings, database: Database, account: Account, checks: Checklist
) -> None:
    """Check what can be checked of an account without asking about a campaign."""
    with checks.record(f"API{_name_suffix(account)}") as api, _name_address(account):
        with open_api(settings, database, _log.warning, account=account.name) as session:
            if account.api_token is None:
                session.api.ensure_token()
        api.is_warning = True
        login = "its token was not tried" if account.api_token is not None else "its login works"
        api.detail = f"no campaign names the account, so no request proves it: {login}"


def _check_calling_hours(campaign_id: str, text: str, checks: Checklist) -> None:
    """Warn about hours that cannot be read: live runs ignore them."""
    with checks.record(f"calling hours of {campaign_id}") as check:
        check.detail = text
        try:
            CallingHours.parse(text)
        except ValueError as error:
            check.is_warning, check.detail = True, f"{error}; live runs poll it at all hours"


def _check_api(
    settings: Settings,
    database: Database,
    account: Account,
    campaign: Campaign,
    checks: Checklist,
) -> None:
    """Request the results of an empty window, which proves the login, and compare the clocks."""
    suffix = _name_suffix(account)
    with checks.record(f"API{suffix}") as api, _name_address(account):
        with open_api(settings, database, _log.warning, account=account.name) as session:
            page = _read_empty_window(session.api, database, campaign)
        api.detail = f"answers for campaign {campaign.campaign_id}"
    if api.failed:
        return
    if account.api_token is None:
        _check_concurrent_logins(settings, database, account, campaign, checks)
    with checks.record(f"clock skew{suffix}") as clocks:
        clocks.detail = "the vendor's responses have no time: the database's clock is used"
        if page.vendor_now is not None:
            skew_s = (page.vendor_now - database.run(get_database_time)).total_seconds()
            clocks.detail = f"the vendor's clock is at {skew_s:+.0f} s against the database's"


@contextmanager
def _name_address(account: Account) -> Iterator[None]:
    """Add the vendor's address to a failure of its API, and what to check without a response."""
    try:
        yield
    except ApiError as error:
        advice = ""
        if error.response.failure is not None:
            variable = account.variable("api_url")
            advice = f": check {variable}, the network and the vendor's status"
        raise RunError(f"{account.address}: {error}{advice}") from None


def _name_suffix(account: Account) -> str:
    """Return how the names of an account's checks end."""
    return "" if account.name == DEFAULT_ACCOUNT else f" of account {account.name}"


def _read_empty_window(api: LeadsApi, database: Database, campaign: Campaign) -> ResultPage:
    now = database.run(get_database_time)
    return api.list_processed(
        campaign.campaign_id,
        Window(after=now, before=now),
        unit=campaign.epoch_unit,
        page=1,
        page_size=1,
    )


def _check_concurrent_logins(
    settings: Settings,
    database: Database,
    account: Account,
    campaign: Campaign,
    checks: Checklist,
) -> None:
    """Log in twice, as two runs do, and warn if the second login has ended the first."""
    with (
        checks.record(f"concurrent logins{_name_suffix(account)}") as check,
        open_api(settings, database, _log.warning, account=account.name) as first,
        open_api(settings, database, _log.warning, account=account.name) as second,
    ):
        first.api.ensure_token()
        second.api.ensure_token()
        before = first.transport.requests_sent
        _read_empty_window(first.api, database, campaign)
        check.is_warning = first.transport.requests_sent > before + 1
        check.detail = "runs at the same time keep their own logins"
        if check.is_warning:
            check.detail = (
                "the vendor ends a login when another run logs in: runs at the same time work, but"
                " log in again and again; ask the vendor for a token"
                f" ({account.variable('api_token')})"
            )


def _check_packages(checks: Checklist) -> None:
    """Warn about files that another distribution installed into leadloop's packages."""
    if overwritten := find_overwritten_package():
        checks.append(Check(name="packages", ok=True, is_warning=True, detail=overwritten))


def _check_orphaned_data(checks: Checklist) -> None:
    """Warn about data of root's embedded Postgres servers whose directory is missing."""
    name = "orphaned data"
    try:
        orphans = list_orphans() if os.geteuid() == 0 else []
    except (OSError, LeadloopError) as error:
        checks.append(Check(name=name, ok=False, detail=str(error)))
        return
    for orphan in orphans:
        detail = (
            f"{orphan.folder} holds {orphan.size / 1e6:,.0f} MB of {orphan.home}, which does"
            " not exist: unless it is unmounted or in another container,"
            f" rm -r {orphan.folder}"
        )
        checks.append(Check(name=name, ok=True, is_warning=True, detail=detail))


def _check_prefect(checks: Checklist) -> None:
    """Check that the Prefect server answers; warn if anonymous clients can read its blocks."""
    with checks.record("Prefect") as server:
        address = _find_reachable_prefect()
        whose = "PREFECT_API_URL" if os.environ.get("PREFECT_API_URL") else "Prefect's profile"
        server.detail = f"the server of {whose} answers"
        if address is None:
            server.detail = "no server is set: a local run starts its own"
    if server.failed or address is None:
        return
    from flows.prefect_api import allows_anonymous_access

    with checks.record("Prefect authentication") as authentication:
        is_open = allows_anonymous_access(address)
        authentication.is_warning = is_open is not False
        authentication.detail = {
            True: "the server requires no authentication: everyone who reaches it can read the"
            " secrets in its blocks; set PREFECT_SERVER_API_AUTH_STRING on it",
            False: "the server requires authentication",
            None: "could not determine whether the server requires authentication: make sure that"
            " PREFECT_SERVER_API_AUTH_STRING is set on it, since its blocks hold secrets",
        }[is_open]


def _find_reachable_prefect() -> str | None:
    """Return the address of the Prefect server, which answers; None if no server is set."""
    address = environment.find_prefect_url()
    if address is not None:
        from flows.prefect_api import check_api_reachable

        check_api_reachable()
    return address
