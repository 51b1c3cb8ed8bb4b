"""`leadloop doctor`: check everything that a run needs."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from db.campaigns import select_campaigns
from db.counts import list_uncounted_tables
from db.database import Database
from db.source import check_readable, inspect_source, list_roles_with_access
from db.watermarks import get_database_time
from leadloop.cli import environment
from leadloop.client.errors import ApiError
from leadloop.core.calling_hours import CallingHours
from leadloop.core.campaign_rules import Campaign
from leadloop.core.errors import LeadloopError
from leadloop.core.phones import find_region_fault
from leadloop.core.windows import Window
from leadloop.local.postgres_data import list_orphans
from leadloop.settings import Settings, SettingSource
from tasks.api_session import open_api
from tasks.source_sync import open_source_database


@dataclass(frozen=True, kw_only=True)
class Check:
    """The result of one check."""

    name: str
    ok: bool
    detail: str
    is_warning: bool = False

    @property
    def is_settings_fault(self) -> bool:
        """Whether the check failed because of a setting alone."""
        return not self.ok and self.name in ("settings", "login")

    def as_json(self) -> dict[str, Any]:
        """Return the check as `--json` prints it."""
        return {"check": self.name, "ok": self.ok, "warns": self.is_warning, "detail": self.detail}


@dataclass(kw_only=True)
class _RunningCheck:
    """What a check has found so far."""

    detail: str = ""
    is_warning: bool = False
    failed: bool = False


class _Checklist(list[Check]):
    """The results so far."""

    @contextmanager
    def record(self, name: str) -> Iterator[_RunningCheck]:
        """Record the result of the check in the block; it fails by an exception, its detail."""
        check = _RunningCheck()
        try:
            yield check
        except (LeadloopError, ApiError) as error:
            check.failed, check.detail = True, str(error)
        self.append(
            Check(
                name=name,
                ok=not check.failed,
                detail=check.detail,
                is_warning=check.is_warning,
            )
        )


def run_checks(block: str | None = None) -> list[Check]:
    """Run all checks in order; a failed check skips only the checks that depend on it.

    Args:
        block: the name of Prefect blocks that also hold settings, as a run's parameter.
    """
    checks = _Checklist()
    with ExitStack() as stack:
        loaded = _check_settings(block, checks, stack)
        if loaded is not None:
            _check_services(*loaded, checks, stack)
    _check_orphaned_data(checks)
    _check_prefect(checks)
    return checks


def _check_settings(
    block: str | None, checks: _Checklist, stack: ExitStack
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
        summary = f"read; the API is {settings.api_url}, {settings.rate_limit} requests"
        check.detail = f"{summary}. {'; '.join([*origins, 'the others are at their defaults'])}"
    return None if check.failed else (settings, is_embedded)


def _check_services(
    settings: Settings, is_embedded: bool, checks: _Checklist, stack: ExitStack
) -> None:
    """Check the login, the database, the campaigns with their sources, and the API."""
    with checks.record("login") as login:
        settings.require_login()
        login.detail = "a fixed token" if settings.api_token else "OAuth password grant"
    with checks.record("database") as connection:
        database = stack.enter_context(environment.open_database(settings))
        name = environment.EMBEDDED_DISPLAY_NAME if is_embedded else database.display_name
        connection.detail = f"{name}, with this version's schema"
    if connection.failed:
        return
    _check_counts(database, checks)
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
    with_sources = [campaign for campaign in campaigns if campaign.source is not None]
    if with_sources:
        _check_source_login(settings, database, checks)
    for campaign in with_sources:
        with (
            checks.record(f"source of {campaign.campaign_id}") as check,
            open_source_database(settings, database) as reader,
        ):
            source = inspect_source(reader, campaign, campaign.source or "")
            check_readable(reader, campaign, source)
            check.detail = f"{source.relation} can be read, {len(source.columns)} columns"
    if not login.failed:
        _check_api(settings, database, campaigns[0], checks)


def _check_calling_hours(campaign_id: str, text: str, checks: _Checklist) -> None:
    """Warn about hours that cannot be read: live runs ignore them."""
    with checks.record(f"calling hours of {campaign_id}") as check:
        check.detail = text
        try:
            CallingHours.parse(text)
        except ValueError as error:
            check.is_warning, check.detail = True, f"{error}; live runs poll it at all hours"


def _check_counts(database: Database, checks: _Checklist) -> None:
    """Warn if triggers that count are missing or disabled: the views would drift from the rows."""
    with checks.record("counts") as check:
        tables = database.run(list_uncounted_tables)
        check.is_warning = bool(tables)
        check.detail = "the triggers that count are enabled"
        if tables:
            names = ", ".join(f"leadloop.{table}" for table in tables)
            check.detail = (
                f"triggers that count are disabled or missing on {names}, so the views show too"
                " little or too much: enable them (ALTER TABLE … ENABLE TRIGGER USER), then run"
                " `leadloop audit --repair`"
            )


def _check_source_login(settings: Settings, database: Database, checks: _Checklist) -> None:
    """Warn if functions of a source's view run with a login that can read leadloop's tables."""
    with checks.record("source login") as check:
        with open_source_database(settings, database) as reader:
            roles = list_roles_with_access(reader)
        check.is_warning = bool(roles)
        check.detail = "cannot read leadloop's tables"
        if roles:
            check.detail = (
                "functions of a source's view run with a login that can read leadloop's tables, as"
                f" {', '.join(roles)}: set LEADLOOP_SOURCE_URL to a login that may read the sources"
                " alone, unless everyone who can change the sources is trusted"
                " (docs/how-to/bring-your-own-table.md)"
            )


def _check_api(
    settings: Settings, database: Database, campaign: Campaign, checks: _Checklist
) -> None:
    """Request the results of an empty window, which proves the login, and compare the clocks."""
    with checks.record("API") as api:
        now = database.run(get_database_time)
        with open_api(settings, database, logging.getLogger(__name__).warning) as session:
            page = session.api.list_processed(
                campaign.campaign_id,
                Window(after=now, before=now),
                unit=campaign.epoch_unit,
                page=1,
                page_size=1,
            )
        api.detail = f"answers for campaign {campaign.campaign_id}"
    if api.failed:
        return
    with checks.record("clock skew") as clocks:
        clocks.detail = "the vendor's responses have no time: the database's clock is used"
        if page.vendor_now is not None:
            skew_s = (page.vendor_now - database.run(get_database_time)).total_seconds()
            clocks.detail = f"the vendor's clock is at {skew_s:+.0f} s against the database's"


def _check_orphaned_data(checks: _Checklist) -> None:
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


def _check_prefect(checks: _Checklist) -> None:
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
