"""`leadloop status`: what is wrong, and where every campaign stands, from the views alone."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from db import campaign_status
from db.database import Database, DatabaseError
from db.schema import require_current
from leadloop.cli import rendering
from leadloop.core.errors import LeadloopError, UsageError

_REFRESH_S = 2.0
_NO_CAMPAIGN = "No campaign yet: leadloop load FILE.csv --campaign C"
_INSUFFICIENT_PRIVILEGE = "42501"
_VIEWS_MISMATCH = (
    "the views of leadloop_monitor are not those of this leadloop: run `leadloop init`, which"
    " brings an older schema up to date, and says so of a newer one"
)
_ADVICE_BY_SQLSTATE = {
    _INSUFFICIENT_PRIVILEGE: "this login may not read the views: run `GRANT leadloop_reader TO` it"
    " (docs/how-to/dashboards-and-alerts.md)",
    "42P01": _VIEWS_MISMATCH,
    "42703": _VIEWS_MISMATCH,
}


def require_schema_version(database: Database) -> None:
    """See that the schema is this version's, where the login may know: a reader of the views not.

    Raises:
        UsageError: it is another one.
        DatabaseError: Postgres was not there, or refused.
    """
    try:
        with database.transaction() as connection:
            require_current(connection)
    except DatabaseError as error:
        if error.sqlstate != _INSUFFICIENT_PRIVILEGE:
            raise


def read_status(database: Database, campaign_ids: Sequence[str]) -> dict[str, Any]:
    """`campaigns`, a row each, and `problems`, the worst first.

    Args:
        database: any login that may read the views.
        campaign_ids: of which campaigns; none: of all.

    Raises:
        UsageError: a campaign that is not there; views that are not ours, or not for this login.
        DatabaseError: Postgres was not there, or refused.
    """
    try:
        with database.transaction() as connection:
            rows = campaign_status.list_campaign_health(connection, campaign_ids)
            problems = campaign_status.list_problems(connection, campaign_ids)
    except DatabaseError as error:
        if error.sqlstate in _ADVICE_BY_SQLSTATE:
            raise UsageError(_ADVICE_BY_SQLSTATE[error.sqlstate]) from None
        raise
    if not all(row.keys() >= rendering.CAMPAIGN_COLUMNS for row in rows):
        raise UsageError(_VIEWS_MISMATCH)
    unknown = set(campaign_ids) - {row["campaign_id"] for row in rows}
    if unknown:
        raise UsageError(f"unknown campaign {', '.join(sorted(unknown))}")
    return {"campaigns": rows, "problems": problems}


def render_report(found: Mapping[str, Any]) -> RenderableType:
    """What is wrong with the command that deals with it, and under it the campaigns."""
    campaigns = found["campaigns"]
    standing = rendering.render_status(campaigns) if campaigns else Text(_NO_CAMPAIGN)
    return Group(rendering.render_problems(found["problems"]), "", standing)


def watch_status(database: Database, campaign_ids: Sequence[str], out: Console) -> None:
    """Show it anew every two seconds on the whole screen, until somebody stops it.

    Trouble on the way is shown above what was seen last, and ends nothing.

    Raises:
        UsageError, DatabaseError: as `standing` does, at the first look.
    """
    seen = render_report(read_status(database, campaign_ids))
    with Live(_add_timestamp(seen), console=out, screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(_REFRESH_S)
            try:
                seen = render_report(read_status(database, campaign_ids))
                live.update(_add_timestamp(seen), refresh=True)
            except LeadloopError as error:
                trouble = Text(
                    f"{error}\nIt is tried again; below is what was seen last.\n", "bold red"
                )
                live.update(Group(trouble, seen), refresh=True)


def _add_timestamp(seen: RenderableType) -> Group:
    moment = f"{datetime.now(UTC):%H:%M:%S}Z, every {_REFRESH_S:.0f} s; Ctrl-C ends it"
    return Group(Text(moment, "dim"), seen)
