"""`leadloop doctor`: is everything there that a run needs?"""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from db import campaigns, watermarks
from db.database import Database
from leadloop.cli import stage
from leadloop.client.errors import ApiError
from leadloop.core.campaigns import Campaign
from leadloop.core.errors import LeadloopError
from leadloop.core.windows import Window
from leadloop.settings import Settings
from tasks.vendor import reached


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    name: str
    ok: bool
    said: str

    def as_json(self) -> dict[str, Any]:
        """The finding for `--json`."""
        return {"check": self.name, "ok": self.ok, "detail": self.said}


def examine() -> list[Finding]:
    """Look at one thing after another; the first that fails ends it, since the rest rests on it."""
    findings: list[Finding] = []
    looks = _looks()
    while True:
        try:
            name, said = next(looks)
        except StopIteration:
            return findings
        except (LeadloopError, ApiError) as error:
            return [*findings, Finding(name=_NAMES[len(findings)], ok=False, said=str(error))]
        findings.append(Finding(name=name, ok=True, said=said))


_NAMES = ("settings", "login", "database", "campaigns", "API", "clock", "Prefect")


def _looks() -> Iterator[tuple[str, str]]:
    """What is found, in the order of _NAMES."""
    with stage.settings_with_database() as settings:
        yield "settings", f"read; the API is {settings.api_url}, {settings.rate_limit} requests"
        settings.require_login()
        yield "login", _login_kind(settings)
        with stage.database(settings) as database:
            yield "database", f"{database.place}, with this version's schema"
            with database.begin() as connection:
                chosen = campaigns.chosen(connection, None, settings.campaign_rules())
            yield "campaigns", ", ".join(campaign.campaign_id for campaign in chosen)
            yield from _ask_vendor(settings, database, chosen[0])
    server = os.environ.get("PREFECT_API_URL")
    yield "Prefect", server or "none set: a run by hand brings its own server"


def _login_kind(settings: Settings) -> str:
    return "a fixed token" if settings.api_token else "OAuth password grant"


def _ask_vendor(
    settings: Settings, database: Database, campaign: Campaign
) -> Iterator[tuple[str, str]]:
    """One read of an empty stretch of time: it changes nothing and shows that the login is good."""
    with database.begin() as connection:
        now = watermarks.now(connection)
    with reached(settings, database, logging.getLogger(__name__).warning) as vendor:
        page = vendor.api.processed(
            campaign.campaign_id,
            Window(after=now, before=now),
            unit=campaign.epoch_unit,
            page=1,
            page_size=1,
        )
    yield "API", f"answers for campaign {campaign.campaign_id}"
    if page.vendor_now is None:
        yield "clock", "the vendor does not tell its time: the database's clock is used"
    else:
        ahead = (page.vendor_now - now).total_seconds()
        yield "clock", f"the vendor's is {ahead:+.0f} s against the database's"
