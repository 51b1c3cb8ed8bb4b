"""`leadloop doctor`: check everything that a run needs."""

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from db.campaigns import select_campaigns
from db.database import Database
from db.source import check_readable, inspect_source, list_roles_with_access
from db.watermarks import get_database_time
from leadloop.cli import environment
from leadloop.client.api import ResultPage
from leadloop.client.errors import ApiError
from leadloop.core.campaign_rules import Campaign
from leadloop.core.errors import LeadloopError
from leadloop.core.windows import Window
from leadloop.local.postgres_data import list_orphans
from leadloop.settings import Settings, SettingSource
from tasks.api_session import open_api
from tasks.source_sync import open_source_database

T = TypeVar("T")


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


class _Checklist(list[Check]):
    """The results so far."""

    def run(self, name: str, check: Callable[[], tuple[str, T]]) -> T | None:
        """Run a check that returns a detail and a value; record the detail, return the value.

        If the check raises, the message is the detail, and None is returned.
        """
        try:
            detail, value = check()
        except (LeadloopError, ApiError) as error:
            self.append(Check(name=name, ok=False, detail=str(error)))
            return None
        self.append(Check(name=name, ok=True, detail=detail))
        return value


def run_checks(block: str | None = None) -> list[Check]:
    """Run all checks in order; a failed check skips only the checks that depend on it.

    Args:
        block: the name of Prefect blocks that also hold settings, as a run's parameter.
    """
    checks = _Checklist()
    with ExitStack() as stack:
        sources = checks.run("blocks", lambda: _load_blocks(block)) if block else []
        if sources is not None:
            loaded = checks.run("settings", lambda: _load_settings(stack, sources))
            if loaded is not None:
                _check_services(*loaded, checks, stack)
    checks += _check_orphaned_data()
    address = checks.run("Prefect", _check_prefect)
    if address is not None:
        checks.append(_check_prefect_authentication(address))
    return checks


def _check_services(
    settings: Settings, is_embedded: bool, checks: _Checklist, stack: ExitStack
) -> None:
    """Check the database, the campaigns with their sources, and the API."""
    login = checks.run("login", lambda: _check_login(settings))
    database = checks.run("database", lambda: _connect_database(settings, is_embedded, stack))
    if database is None:
        return
    campaigns = checks.run("campaigns", lambda: _select_campaigns(settings, database))
    if campaigns is None:
        return
    with_sources = [campaign for campaign in campaigns if campaign.source is not None]
    if with_sources:
        checks.append(_check_source_login(settings, database))
    for campaign in with_sources:
        checks.run(
            f"source of {campaign.campaign_id}",
            partial(_check_source, settings, database, campaign),
        )
    if login is None:
        return
    page = checks.run("API", lambda: _request_empty_page(settings, database, campaigns[0]))
    if page is not None:
        checks.run("clock skew", lambda: _compare_clocks(database, page))


def _check_orphaned_data() -> list[Check]:
    """Warn about data of root's embedded Postgres servers whose directory is missing."""
    name = "orphaned data"
    try:
        orphans = list_orphans() if os.geteuid() == 0 else []
    except (OSError, LeadloopError) as error:
        return [Check(name=name, ok=False, detail=str(error))]
    return [
        Check(
            name=name,
            ok=True,
            is_warning=True,
            detail=f"{orphan.folder} holds {orphan.size / 1e6:,.0f} MB of {orphan.home}, which does"
            " not exist: unless it is unmounted or in another container,"
            f" rm -r {orphan.folder}",
        )
        for orphan in orphans
    ]


def _load_blocks(block: str) -> tuple[str, list[SettingSource]]:
    _check_prefect()
    from tasks.blocks import RunSettings, collect_setting_sources

    sources = collect_setting_sources(RunSettings(block=block))
    return ", ".join(source.name for source in sources if source.values), sources


def _load_settings(
    stack: ExitStack, sources: Sequence[SettingSource]
) -> tuple[str, tuple[Settings, bool]]:
    """Load the settings; the value is the settings, and whether they ask for embedded Postgres.

    The detail names where each setting comes from instead of its value.
    """
    is_embedded = Settings.load(*sources).is_embedded
    # Before the embedded Postgres runs: it puts its own URL into the environment.
    names: dict[str, list[str]] = {}
    for name, source in Settings.describe_sources(*sources).items():
        names.setdefault(source, []).append(name)
    origins = [f"{', '.join(fields)} from {source}" for source, fields in names.items()]
    settings = stack.enter_context(environment.load_settings_with_database(*sources))
    environment.require_urls(settings)
    summary = f"read; the API is {settings.api_url}, {settings.rate_limit} requests"
    detail = f"{summary}. {'; '.join([*origins, 'the others are at their defaults'])}"
    return detail, (settings, is_embedded)


def _check_login(settings: Settings) -> tuple[str, bool]:
    settings.require_login()
    return ("a fixed token" if settings.api_token else "OAuth password grant"), True


def _connect_database(
    settings: Settings, is_embedded: bool, stack: ExitStack
) -> tuple[str, Database]:
    database = stack.enter_context(environment.open_database(settings))
    name = environment.EMBEDDED_DISPLAY_NAME if is_embedded else database.display_name
    return f"{name}, with this version's schema", database


def _select_campaigns(settings: Settings, database: Database) -> tuple[str, list[Campaign]]:
    selected = database.run(select_campaigns, None, settings.campaign_rules())
    return ", ".join(campaign.campaign_id for campaign in selected), selected


def _check_source(settings: Settings, database: Database, campaign: Campaign) -> tuple[str, bool]:
    with open_source_database(settings, database) as reader:
        source = inspect_source(reader, campaign, campaign.source or "")
        check_readable(reader, campaign, source)
        return f"{source.relation} can be read, {len(source.columns)} columns", True


def _check_source_login(settings: Settings, database: Database) -> Check:
    """Warn if functions of a source's view run with a login that can read leadloop's tables."""
    name = "source login"
    try:
        with open_source_database(settings, database) as reader:
            roles = list_roles_with_access(reader)
    except LeadloopError as error:
        return Check(name=name, ok=False, detail=str(error))
    if roles:
        detail = (
            "functions of a source's view run with a login that can read leadloop's tables, as"
            f" {', '.join(roles)}: set LEADLOOP_SOURCE_URL to a login that may read the sources"
            " alone, unless everyone who can change the sources is trusted"
            " (docs/how-to/bring-your-own-table.md)"
        )
        return Check(name=name, ok=True, detail=detail, is_warning=True)
    return Check(name=name, ok=True, detail="cannot read leadloop's tables")


def _request_empty_page(
    settings: Settings, database: Database, campaign: Campaign
) -> tuple[str, ResultPage]:
    """Request the results of an empty window: a read that proves the login."""
    now = database.run(get_database_time)
    with open_api(settings, database, logging.getLogger(__name__).warning) as session:
        page = session.api.list_processed(
            campaign.campaign_id,
            Window(after=now, before=now),
            unit=campaign.epoch_unit,
            page=1,
            page_size=1,
        )
    return f"answers for campaign {campaign.campaign_id}", page


def _compare_clocks(database: Database, page: ResultPage) -> tuple[str, None]:
    if page.vendor_now is None:
        return "the vendor's responses have no time: the database's clock is used", None
    skew_s = (page.vendor_now - database.run(get_database_time)).total_seconds()
    return f"the vendor's clock is at {skew_s:+.0f} s against the database's", None


def _check_prefect() -> tuple[str, str | None]:
    address = environment.find_prefect_url()
    if address is None:
        return "no server is set: a local run starts its own", None
    from flows.prefect_api import check_api_reachable

    check_api_reachable()
    whose = "PREFECT_API_URL" if os.environ.get("PREFECT_API_URL") else "Prefect's profile"
    return f"the server of {whose} answers", address


def _check_prefect_authentication(address: str) -> Check:
    """Warn if the server lets anonymous clients read its blocks."""
    from flows.prefect_api import allows_anonymous_access

    detail = {
        True: "the server requires no authentication: everyone who reaches it can read the secrets"
        " in its blocks; set PREFECT_SERVER_API_AUTH_STRING on it",
        False: "the server requires authentication",
        None: "could not determine whether the server requires authentication: make sure that"
        " PREFECT_SERVER_API_AUTH_STRING is set on it, since its blocks hold secrets",
    }
    is_open = allows_anonymous_access(address)
    return Check(
        name="Prefect authentication",
        ok=True,
        detail=detail[is_open],
        is_warning=is_open is not False,
    )
