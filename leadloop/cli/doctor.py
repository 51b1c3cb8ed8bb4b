"""`leadloop doctor`: is everything there that a run needs?"""

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from db import campaigns, watermarks
from db.database import Database
from db.source import check_readable, inspect_source, list_roles_with_access
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
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str
    is_warning: bool = False

    @property
    def is_settings_fault(self) -> bool:
        """Whether it is for the settings to be mended: nothing else was found to be at fault."""
        return not self.ok and self.name in ("settings", "login")

    def as_json(self) -> dict[str, Any]:
        """The finding for `--json`."""
        return {"check": self.name, "ok": self.ok, "warns": self.is_warning, "detail": self.detail}


class _Checklist(list[Check]):
    """What was found so far."""

    def run(self, name: str, check: Callable[[], tuple[str, T]]) -> T | None:
        """Note what `see` says; what else it returns, or None where it finds a fault."""
        try:
            said, seen = check()
        except (LeadloopError, ApiError) as error:
            self.append(Check(name=name, ok=False, detail=str(error)))
            return None
        self.append(Check(name=name, ok=True, detail=said))
        return seen


def run_checks(block: str | None = None) -> list[Check]:
    """Look at one thing after another; a fault keeps from those alone that rest on it.

    Args:
        block: the name of blocks on the Prefect server that hold settings, as a run may be told.
    """
    findings = _Checklist()
    with ExitStack() as stack:
        given = findings.run("blocks", lambda: _load_blocks(block)) if block else []
        read = (
            None
            if given is None
            else findings.run("settings", lambda: _load_settings(stack, given))
        )
        if read is not None:
            _check_services(*read, findings, stack)
    findings += _check_orphaned_data()
    address = findings.run("Prefect", _check_prefect)
    if address is not None:
        findings.append(_check_prefect_authentication(address))
    return findings


def _check_services(
    settings: Settings, embedded: bool, checks: _Checklist, stack: ExitStack
) -> None:
    login = checks.run("login", lambda: _check_login(settings))
    database = checks.run("database", lambda: _connect_database(settings, embedded, stack))
    if database is None:
        return
    chosen = checks.run("campaigns", lambda: _select_campaigns(settings, database))
    if chosen is None:
        return
    with_sources = [each for each in chosen if each.source is not None]
    if with_sources:
        checks.append(_check_source_login(settings, database))
    for campaign in with_sources:
        checks.run(
            f"source of {campaign.campaign_id}",
            partial(_check_source, settings, database, campaign),
        )
    if login is None:
        return
    page = checks.run("API", lambda: _request_empty_page(settings, database, chosen[0]))
    if page is not None:
        checks.run("clock", lambda: _compare_clocks(database, page))


def _check_orphaned_data() -> list[Check]:
    """Name data of root's embedded Postgres whose directory cannot be found."""
    name = "embedded data"
    try:
        orphans = list_orphans() if os.geteuid() == 0 else []
    except (OSError, LeadloopError) as error:
        return [Check(name=name, ok=False, detail=str(error))]
    return [
        Check(
            name=name,
            ok=True,
            is_warning=True,
            detail=f"{orphan.folder} holds {orphan.size / 1e6:,.0f} MB of {orphan.home}, which is"
            f" not there: unless it is unmounted or in another container, rm -r {orphan.folder}",
        )
        for orphan in orphans
    ]


def _load_blocks(block: str) -> tuple[str, list[SettingSource]]:
    _check_prefect()
    from tasks.blocks import RunSettings, collect_setting_sources

    found = collect_setting_sources(RunSettings(block=block))
    return ", ".join(one.name for one in found if one.values), found


def _load_settings(
    stack: ExitStack, given: Sequence[SettingSource]
) -> tuple[str, tuple[Settings, bool]]:
    """Load the settings, and tell whether they ask for the embedded Postgres."""
    embedded = Settings.load(*given).is_embedded
    # The embedded Postgres's own URL is in the environment as soon as it runs.
    origins = _describe_origins(given)
    settings = stack.enter_context(environment.load_settings_with_database(*given))
    environment.require_urls(settings)
    said = f"read; the API is {settings.api_url}, {settings.rate_limit} requests"
    return f"{said}. {origins}", (settings, embedded)


def _describe_origins(given: Sequence[SettingSource]) -> str:
    """Where each value comes from; never the value."""
    names: dict[str, list[str]] = {}
    for name, source in Settings.describe_sources(*given).items():
        names.setdefault(source, []).append(name)
    told = [f"{', '.join(fields)} from {source}" for source, fields in names.items()]
    return "; ".join([*told, "the others are at their defaults"])


def _check_login(settings: Settings) -> tuple[str, bool]:
    settings.require_login()
    return ("a fixed token" if settings.api_token else "OAuth password grant"), True


def _connect_database(settings: Settings, embedded: bool, stack: ExitStack) -> tuple[str, Database]:
    database = stack.enter_context(environment.open_database(settings))
    place = environment.EMBEDDED_DISPLAY_NAME if embedded else database.display_name
    return f"{place}, with this version's schema", database


def _select_campaigns(settings: Settings, database: Database) -> tuple[str, list[Campaign]]:
    with database.transaction() as connection:
        chosen = campaigns.select_campaigns(connection, None, settings.campaign_rules())
    return ", ".join(campaign.campaign_id for campaign in chosen), chosen


def _check_source(settings: Settings, database: Database, campaign: Campaign) -> tuple[str, bool]:
    with open_source_database(settings, database) as reader:
        found = inspect_source(reader, campaign, campaign.source or "")
        check_readable(reader, campaign, found)
        return f"{found.relation} can be read, {len(found.columns)} columns", True


def _check_source_login(settings: Settings, database: Database) -> Check:
    """Whether what a source calls can read what is leadloop's."""
    name = "login for sources"
    try:
        with open_source_database(settings, database) as reader:
            roles = list_roles_with_access(reader)
    except LeadloopError as error:
        return Check(name=name, ok=False, detail=str(error))
    if roles:
        said = (
            "what a source's view calls runs with a login that can read leadloop's tables, as"
            f" {', '.join(roles)}: set LEADLOOP_SOURCE_URL to one that may read the sources alone,"
            " unless all who can change them are trusted (docs/how-to/bring-your-own-table.md)"
        )
        return Check(name=name, ok=True, detail=said, is_warning=True)
    return Check(name=name, ok=True, detail="it may read nothing of leadloop's")


def _request_empty_page(
    settings: Settings, database: Database, campaign: Campaign
) -> tuple[str, ResultPage]:
    """One read of an empty stretch of time: it changes nothing and shows that the login is good."""
    now = _read_database_time(database)
    with open_api(settings, database, logging.getLogger(__name__).warning) as vendor:
        page = vendor.api.list_processed(
            campaign.campaign_id,
            Window(after=now, before=now),
            unit=campaign.epoch_unit,
            page=1,
            page_size=1,
        )
    return f"answers for campaign {campaign.campaign_id}", page


def _compare_clocks(database: Database, page: ResultPage) -> tuple[str, None]:
    if page.vendor_now is None:
        return "the vendor does not tell its time: the database's clock is used", None
    ahead = (page.vendor_now - _read_database_time(database)).total_seconds()
    return f"the vendor's is {ahead:+.0f} s against the database's", None


def _read_database_time(database: Database) -> datetime:
    with database.transaction() as connection:
        return watermarks.get_database_time(connection)


def _check_prefect() -> tuple[str, str | None]:
    address = environment.find_prefect_url()
    if address is None:
        return "none set: a run by hand brings its own server", None
    from flows.prefect_api import check_api_reachable

    check_api_reachable()
    whose = "PREFECT_API_URL" if os.environ.get("PREFECT_API_URL") else "Prefect's profile"
    return f"the server of {whose} answers", address


def _check_prefect_authentication(address: str) -> Check:
    """Whether strangers may read what the server's blocks hold."""
    from flows.prefect_api import allows_anonymous_access

    said = {
        True: "it asks nobody who they are: whoever reaches it may read the secrets in its blocks;"
        " set PREFECT_SERVER_API_AUTH_STRING on it",
        False: "it lets in only whom it knows",
        None: "it could not be told whether it lets in strangers: see that"
        " PREFECT_SERVER_API_AUTH_STRING is set on it, for its blocks hold secrets",
    }
    lets_in = allows_anonymous_access(address)
    return Check(
        name="Prefect's door", ok=True, detail=said[lets_in], is_warning=lets_in is not False
    )
