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
from db.source import find, probe, roles_that_reach_ours
from leadloop.cli import stage
from leadloop.client.api import Page
from leadloop.client.errors import ApiError
from leadloop.core.campaigns import Campaign
from leadloop.core.errors import LeadloopError
from leadloop.core.windows import Window
from leadloop.local.postgres_data import list_orphans
from leadloop.settings import Given, Settings
from tasks.source import opened_reader
from tasks.vendor import reached

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    name: str
    ok: bool
    said: str
    warns: bool = False

    @property
    def wrong_settings(self) -> bool:
        """Whether it is for the settings to be mended: nothing else was found to be at fault."""
        return not self.ok and self.name in ("settings", "login")

    def as_json(self) -> dict[str, Any]:
        """The finding for `--json`."""
        return {"check": self.name, "ok": self.ok, "warns": self.warns, "detail": self.said}


class _Findings(list[Finding]):
    """What was found so far."""

    def look(self, name: str, see: Callable[[], tuple[str, T]]) -> T | None:
        """Note what `see` says; what else it returns, or None where it finds a fault."""
        try:
            said, seen = see()
        except (LeadloopError, ApiError) as error:
            self.append(Finding(name=name, ok=False, said=str(error)))
            return None
        self.append(Finding(name=name, ok=True, said=said))
        return seen


def examine(block: str | None = None) -> list[Finding]:
    """Look at one thing after another; a fault keeps from those alone that rest on it.

    Args:
        block: the name of blocks on the Prefect server that hold settings, as a run may be told.
    """
    findings = _Findings()
    with ExitStack() as stack:
        given = findings.look("blocks", lambda: _load(block)) if block else []
        read = None if given is None else findings.look("settings", lambda: _read(stack, given))
        if read is not None:
            _examine_with(*read, findings, stack)
    findings += _list_orphans()
    address = findings.look("Prefect", _ask_prefect)
    if address is not None:
        findings.append(_open_server(address))
    return findings


def _examine_with(
    settings: Settings, embedded: bool, findings: _Findings, stack: ExitStack
) -> None:
    login = findings.look("login", lambda: _login(settings))
    database = findings.look("database", lambda: _connect(settings, embedded, stack))
    if database is None:
        return
    chosen = findings.look("campaigns", lambda: _campaigns(settings, database))
    if chosen is None:
        return
    with_sources = [each for each in chosen if each.source is not None]
    if with_sources:
        findings.append(_examine_reader(settings, database))
    for campaign in with_sources:
        findings.look(
            f"source of {campaign.campaign_id}",
            partial(_probe_source, settings, database, campaign),
        )
    if login is None:
        return
    page = findings.look("API", lambda: _ask_vendor(settings, database, chosen[0]))
    if page is not None:
        findings.look("clock", lambda: _compare_clocks(database, page))


def _list_orphans() -> list[Finding]:
    """Name data of root's embedded Postgres whose directory cannot be found."""
    name = "embedded data"
    try:
        orphans = list_orphans() if os.geteuid() == 0 else []
    except (OSError, LeadloopError) as error:
        return [Finding(name=name, ok=False, said=str(error))]
    return [
        Finding(
            name=name,
            ok=True,
            warns=True,
            said=f"{orphan.folder} holds {orphan.size / 1e6:,.0f} MB of {orphan.home}, which is not"
            f" there: unless it is unmounted or in another container, rm -r {orphan.folder}",
        )
        for orphan in orphans
    ]


def _load(block: str) -> tuple[str, list[Given]]:
    _ask_prefect()
    from tasks.blocks import RunSettings, given

    found = given(RunSettings(block=block))
    return ", ".join(one.source for one in found if one.values), found


def _read(stack: ExitStack, given: Sequence[Given]) -> tuple[str, tuple[Settings, bool]]:
    """Load the settings, and tell whether they ask for the embedded Postgres."""
    embedded = Settings.load(*given).is_embedded
    # The embedded Postgres's own URL is in the environment as soon as it runs.
    origins = _origins(given)
    settings = stack.enter_context(stage.settings_with_database(*given))
    stage.require_urls(settings)
    said = f"read; the API is {settings.api_url}, {settings.rate_limit} requests"
    return f"{said}. {origins}", (settings, embedded)


def _origins(given: Sequence[Given]) -> str:
    """Where each value comes from; never the value."""
    names: dict[str, list[str]] = {}
    for name, source in Settings.sources(*given).items():
        names.setdefault(source, []).append(name)
    told = [f"{', '.join(fields)} from {source}" for source, fields in names.items()]
    return "; ".join([*told, "the others are at their defaults"])


def _login(settings: Settings) -> tuple[str, bool]:
    settings.require_login()
    return ("a fixed token" if settings.api_token else "OAuth password grant"), True


def _connect(settings: Settings, embedded: bool, stack: ExitStack) -> tuple[str, Database]:
    database = stack.enter_context(stage.database(settings))
    place = stage.EMBEDDED_PLACE if embedded else database.place
    return f"{place}, with this version's schema", database


def _campaigns(settings: Settings, database: Database) -> tuple[str, list[Campaign]]:
    with database.begin() as connection:
        chosen = campaigns.chosen(connection, None, settings.campaign_rules())
    return ", ".join(campaign.campaign_id for campaign in chosen), chosen


def _probe_source(settings: Settings, database: Database, campaign: Campaign) -> tuple[str, bool]:
    with opened_reader(settings, database) as reader:
        found = find(reader, campaign, campaign.source or "")
        probe(reader, campaign, found)
        return f"{found.relation} can be read, {len(found.columns)} columns", True


def _examine_reader(settings: Settings, database: Database) -> Finding:
    """Whether what a source calls can read what is leadloop's."""
    name = "login for sources"
    try:
        with opened_reader(settings, database) as reader:
            roles = roles_that_reach_ours(reader)
    except LeadloopError as error:
        return Finding(name=name, ok=False, said=str(error))
    if roles:
        said = (
            "what a source's view calls runs with a login that can read leadloop's tables, as"
            f" {', '.join(roles)}: set LEADLOOP_SOURCE_URL to one that may read the sources alone,"
            " unless all who can change them are trusted (docs/how-to/bring-your-own-table.md)"
        )
        return Finding(name=name, ok=True, said=said, warns=True)
    return Finding(name=name, ok=True, said="it may read nothing of leadloop's")


def _ask_vendor(settings: Settings, database: Database, campaign: Campaign) -> tuple[str, Page]:
    """One read of an empty stretch of time: it changes nothing and shows that the login is good."""
    now = _now(database)
    with reached(settings, database, logging.getLogger(__name__).warning) as vendor:
        page = vendor.api.processed(
            campaign.campaign_id,
            Window(after=now, before=now),
            unit=campaign.epoch_unit,
            page=1,
            page_size=1,
        )
    return f"answers for campaign {campaign.campaign_id}", page


def _compare_clocks(database: Database, page: Page) -> tuple[str, None]:
    if page.vendor_now is None:
        return "the vendor does not tell its time: the database's clock is used", None
    ahead = (page.vendor_now - _now(database)).total_seconds()
    return f"the vendor's is {ahead:+.0f} s against the database's", None


def _now(database: Database) -> datetime:
    with database.begin() as connection:
        return watermarks.now(connection)


def _ask_prefect() -> tuple[str, str | None]:
    address = stage.prefect_address()
    if address is None:
        return "none set: a run by hand brings its own server", None
    from flows.by_hand import require_server

    require_server()
    whose = "PREFECT_API_URL" if os.environ.get("PREFECT_API_URL") else "Prefect's profile"
    return f"the server of {whose} answers", address


def _open_server(address: str) -> Finding:
    """Whether strangers may read what the server's blocks hold."""
    from flows.by_hand import lets_anyone_in

    said = {
        True: "it asks nobody who they are: whoever reaches it may read the secrets in its blocks;"
        " set PREFECT_SERVER_API_AUTH_STRING on it",
        False: "it lets in only whom it knows",
        None: "it could not be told whether it lets in strangers: see that"
        " PREFECT_SERVER_API_AUTH_STRING is set on it, for its blocks hold secrets",
    }
    lets_in = lets_anyone_in(address)
    return Finding(name="Prefect's door", ok=True, said=said[lets_in], warns=lets_in is not False)
