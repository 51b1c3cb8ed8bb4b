"""`leadloop status`: where every campaign stands, and what is wrong."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from db import status
from db.database import Database
from leadloop.cli import tables
from leadloop.core.errors import UsageError

_EVERY_S = 2.0
_NO_CAMPAIGN = "No campaign yet: leadloop load FILE.csv --campaign C"


def standing(database: Database, campaign_ids: Sequence[str]) -> dict[str, Any]:
    """`campaigns`, a row each, and `problems`, the worst first.

    Raises:
        UsageError: a campaign that is not there.
    """
    with database.begin() as connection:
        rows = status.campaigns(connection, campaign_ids)
        problems = status.problems(connection, campaign_ids)
    unknown = set(campaign_ids) - {row["campaign_id"] for row in rows}
    if unknown:
        raise UsageError(f"unknown campaign {', '.join(sorted(unknown))}")
    return {"campaigns": rows, "problems": problems}


def show(found: Mapping[str, Any]) -> RenderableType:
    """A table, and under it what is wrong with the command that deals with it."""
    if not found["campaigns"]:
        return Text(_NO_CAMPAIGN)
    return Group(tables.status(found["campaigns"]), tables.problems(found["problems"]))


def watch_it(database: Database, campaign_ids: Sequence[str], out: Console) -> None:
    """Show it anew every two seconds, until somebody stops it."""
    with Live(show(standing(database, campaign_ids)), console=out, auto_refresh=False) as live:
        while True:
            time.sleep(_EVERY_S)
            live.update(show(standing(database, campaign_ids)), refresh=True)
