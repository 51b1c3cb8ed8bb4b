"""The flow commands: check that a flow can start, run it in this process, show progress."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console

from db.campaign_status import count_open_opt_outs
from db.campaigns import list_campaigns, select_campaigns, select_for_disable
from db.watermarks import select_polled
from leadloop.cli import environment, hints
from leadloop.cli.progress_bars import show_progress_bars
from leadloop.core.escaping import escape_unprintable
from tasks.accounts import keep_served

#: How a flow selects its campaigns, where that is not `select_campaigns`.
_SELECTORS = {
    "disable-leads": select_for_disable,
    "sync-leads": select_for_disable,
    "housekeeping": list_campaigns,
}


def run_flow_command(
    flow: str, campaigns: Sequence[str], extra_parameters: Mapping[str, Any], err: Console
) -> None:
    """Run a flow, with progress on `err`; `collect_summary` receives its summary.

    Raises:
        UsageError: a setting, the database, a campaign or the Prefect server is missing or wrong.
        RunError: the flow failed in part or whole.
    """
    with (
        environment.load_settings_with_database() as settings,
        environment.open_prefect_server() as server,
    ):
        if flow != "housekeeping":
            settings.require_login()
        with environment.open_database(settings) as database:
            select = _SELECTORS.get(flow, select_campaigns)
            selected = database.run(select, campaigns, settings.campaign_rules())
            if flow != "housekeeping":
                # The flow warns about those that it leaves alone.
                keep_served(settings, selected, are_named=bool(campaigns), warn=lambda *_: None)
            ids = [campaign.campaign_id for campaign in selected]
            if extra_parameters.get("since") is not None:
                _print_lines(map(hints.ignored_since_hint, database.run(select_polled, ids)))
        with err.status("waiting for Prefect"):
            server.wait()
        from flows.local_runs import run_flow_locally

        with show_progress_bars(err) as listener:
            parameters = {**extra_parameters, "campaigns": list(campaigns) or None}
            run_flow_locally(flow, parameters, listener)
        if flow == "push-leads":
            with environment.open_database(settings) as database:
                _print_lines(hints.opt_out_hints(**database.run(count_open_opt_outs, ids)))


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        print(escape_unprintable(line), file=sys.stderr)
