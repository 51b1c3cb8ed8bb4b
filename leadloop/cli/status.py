"""`leadloop status`: problems and every campaign's state, read from the views alone."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from db import campaign_status
from db.database import Database, DatabaseError
from db.schema import UPGRADE_INCOMPLETE, require_current
from leadloop.cli import rendering
from leadloop.core.errors import LeadloopError, UsageError

_REFRESH_S = 2.0
_NO_CAMPAIGN = "No campaign yet: leadloop load FILE.csv --campaign C"
_INSUFFICIENT_PRIVILEGE = "42501"
_VIEWS_MISMATCH = (
    "the views of leadloop_monitor are not those of this leadloop: run `leadloop init`, which"
    " upgrades an older schema and refuses a newer one"
)
_ADVICE_BY_SQLSTATE = {
    _INSUFFICIENT_PRIVILEGE: "this login may not read the views: run `GRANT leadloop_reader TO` it"
    " (docs/how-to/dashboards-and-alerts.md)",
    "42P01": _VIEWS_MISMATCH,
    "42703": _VIEWS_MISMATCH,
}


def require_schema_version(database: Database) -> None:
    """Check the schema's version, if the login may read it: a reader of the views may not.

    Raises:
        UsageError: the schema is at another version.
        DatabaseError: Postgres refused, or was not there.
    """
    try:
        database.run(require_current)
    except DatabaseError as error:
        if error.sqlstate != _INSUFFICIENT_PRIVILEGE:
            raise


def read_status_report(database: Database, campaign_ids: Sequence[str]) -> dict[str, Any]:
    """Return a row a campaign under `campaigns`, `problems`, and `latencies` of the last hour.

    `upgrade_complete` is false while `leadloop init` has rows to count, or has failed to.

    The most severe problem is the first one. `rejections` holds the reasons of rejected leads, if
    campaigns are named or there is only one.

    Args:
        database: opened with a login that may read the views.
        campaign_ids: none: all campaigns.

    Raises:
        UsageError: an unknown campaign; views of another version, or not readable by this login.
        DatabaseError: Postgres refused, or was not there.
    """
    try:
        status = database.run(campaign_status.read_status, campaign_ids)
    except DatabaseError as error:
        if error.sqlstate in _ADVICE_BY_SQLSTATE:
            raise UsageError(_ADVICE_BY_SQLSTATE[error.sqlstate]) from None
        raise
    if not all(row.keys() >= rendering.CAMPAIGN_COLUMNS for row in status.campaigns):
        raise UsageError(_VIEWS_MISMATCH)
    unknown = set(campaign_ids) - {row["campaign_id"] for row in status.campaigns}
    if unknown:
        raise UsageError(f"unknown campaign {', '.join(sorted(unknown))}")
    return {name: part for name, part in vars(status).items() if part is not None}


def render_report(report: Mapping[str, Any]) -> RenderableType:
    """Render the problems, each with the command that resolves it, above the campaigns.

    Below are the reasons of rejected leads, if they were read and there are any.
    """
    rows = report["campaigns"]
    figures = rendering.render_status(rows, report["latencies"]) if rows else Text(_NO_CAMPAIGN)
    parts = [rendering.render_problems(report["problems"]), "", figures]
    if not report["upgrade_complete"]:
        parts = [Text(f"{UPGRADE_INCOMPLETE}.", "yellow"), *parts]
    if rejections := report.get("rejections"):
        campaigns = {row["campaign_id"]: row for row in rejections}.values()
        reasons, leads = (
            sum(row[name] for row in campaigns) for name in ("all_reasons", "all_leads")
        )
        parts += ["", rendering.render_rejections(rejections, reasons=reasons, leads=leads)]
    return Group(*parts)


def watch_status(database: Database, campaign_ids: Sequence[str], out: Console) -> None:
    """Refresh the status on the whole screen every two seconds, until interrupted.

    A later error is shown above the last status, and the next refresh tries again.

    Raises:
        UsageError, DatabaseError: as for `read_status`, at the first query.
    """
    screen = render_report(read_status_report(database, campaign_ids))
    with Live(_add_timestamp(screen), console=out, screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(_REFRESH_S)
            try:
                screen = render_report(read_status_report(database, campaign_ids))
                live.update(_add_timestamp(screen), refresh=True)
            except LeadloopError as error:
                message = Text(f"{error}\nTrying again; the last status is below.\n", "bold red")
                live.update(Group(message, screen), refresh=True)


def _add_timestamp(screen: RenderableType) -> Group:
    header = f"{datetime.now(UTC):%H:%M:%S}Z, every {_REFRESH_S:.0f} s; Ctrl-C ends it"
    return Group(Text(header, "dim"), screen)
